"""Writing and reading the exported directory."""

from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np

from debias_ssae.core.errors import InputError
from debias_ssae.core.io import read_json, read_manifest, replace_directory, write_text
from debias_ssae.debiaser import SSAEDebiaser
from debias_ssae.erase import LinearEraser
from debias_ssae.export.card import model_card
from debias_ssae.model.harvesting import check_max_length

PROBES = ("She worked as a nurse in the city.", "He is a surgeon.", "")
TOLERANCE = 1e-2
"""Of the largest value: batches of other sizes round differently in bfloat16, never by this much."""


def export_sentence_transformers(
    debiaser: SSAEDebiaser, directory: str | Path, *, reference: bool = False
) -> None:
    """Write a directory that sentence-transformers loads, and whose ``encode`` is ``debiaser.transform``.

    It holds the erasers (not the SAE), the output eraser, the shift, a model card and the language model; with
    ``reference`` only that one's name. Written atomically, and read back before it gets its name; an
    earlier export in its place is replaced.

    Raises InputError for a debiaser of a matrix, for a directory that holds something else, and when what was
    written does not give the debiaser's vectors.
    """
    goal = Path(directory)
    if debiaser.encoder is None:
        raise InputError("this debiaser works on a matrix and has no encoder, so there is no model to export")
    model = debiaser.text_encoder_.language_model
    if getattr(model.module.config, "is_encoder_decoder", False) and not reference:
        raise InputError(
            f"{model.name} is an encoder-decoder, of which the encoder alone cannot be written and read back; use "
            "--reference (reference=True), which keeps its name"
        )
    if goal.exists() and not goal.is_dir():
        raise InputError(f"{goal} is a file; give a directory")
    if goal.exists() and any(goal.iterdir()) and not _is_export(goal):
        raise InputError(f"{goal} holds something that is no exported debiaser; give another directory")

    def fill(partial: Path) -> None:
        _write(debiaser, partial, goal.name, reference)
        _check(debiaser, partial)

    replace_directory(goal, fill)


def _is_export(directory: Path) -> bool:
    from debias_ssae.export.module import KIND

    try:
        return read_manifest(directory, KIND) is not None
    except InputError:
        return False


def load_exported(directory: str | Path, *, trust_remote_code: bool = False, **options: Any) -> Any:
    """Return the SentenceTransformer in ``directory``; ``options`` (device, ...) are its own.

    From version 6, ``SentenceTransformer(directory)`` imports classes of other packages only with
    ``trust_remote_code=True``; this function names the class itself and needs no such leave; a language model
    with code of its own does. Raises InputError
    for a directory that holds no export.
    """
    sentence_transformers: Any = import_module("sentence_transformers")
    module = import_module("debias_ssae.export.module").DebiasedTransformer.load(
        str(directory), trust_remote_code=trust_remote_code
    )
    file = Path(directory) / "config_sentence_transformers.json"
    config = read_json(file) if file.is_file() else {}
    about = {name: config.get(name) for name in ("prompts", "default_prompt_name")}
    return sentence_transformers.SentenceTransformer(modules=[module], **{**about, **options})


def _write(debiaser: SSAEDebiaser, goal: Path, name: str, reference: bool) -> None:
    from sentence_transformers import SentenceTransformer

    from debias_ssae.export.module import DebiasedTransformer, reference_of

    encoder = debiaser.text_encoder_
    model = encoder.language_model
    settings = {
        "layer": encoder.layer,
        "readout": encoder.readout.to_dict(),
        "max_length": check_max_length(model, encoder.max_length),
        "dtype": encoder.dtype,
        "trust_remote_code": encoder.trust_remote_code,
        "reference": reference_of(model) if reference else None,
    }
    eraser = debiaser.output_eraser_
    if not isinstance(eraser, LinearEraser | None):
        raise InputError(
            f"the output eraser is a {type(eraser).__name__} of your own, which cannot be exported"
        )
    module = DebiasedTransformer(model, debiaser.edits, settings, output_eraser=eraser, shift=debiaser.shift_)
    prompts: dict[str, Any] = {}
    if model.prompt:
        prompts = {"prompts": {"document": model.prompt}, "default_prompt_name": "document"}
    whole = SentenceTransformer(modules=[module], device=str(model.device), **prompts)
    whole.save(str(goal), create_model_card=False)
    write_text(goal / "README.md", model_card(debiaser, name))
    for file in goal.rglob("*"):
        file.chmod(0o755 if file.is_dir() else 0o644)


def _check(debiaser: SSAEDebiaser, directory: Path) -> None:
    texts = list(PROBES)
    wanted = debiaser.transform(texts)
    encoder = debiaser.text_encoder_
    options: dict[str, Any] = {
        "trust_remote_code": encoder.trust_remote_code,
        "device": str(encoder.language_model.device),
    }
    found = load_exported(directory, **options).encode(texts)
    difference = float(np.abs(found - wanted).max())
    if not difference <= TOLERANCE * float(np.abs(wanted).max()):
        raise InputError(
            f"the exported model differs from the debiaser by {difference:.2g}; nothing was written. "
            "Is the encoder's model still the one that the debiaser was fitted with?"
        )
