"""A debiaser as a directory for another library, or as a classifier in memory."""

import copy
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from sentence_transformers import SentenceTransformer

from debias_ssae.core import io
from debias_ssae.core.errors import InputError
from debias_ssae.debiaser import SSAEDebiaser
from debias_ssae.erase import LinearEraser
from debias_ssae.export import module, onnx
from debias_ssae.export.card import model_card
from debias_ssae.export.modeling_debiased import DebiasedConfig, DebiasedForSequenceClassification
from debias_ssae.export.module import OF_THE_LIBRARY
from debias_ssae.model import LanguageModel, full_precision, quiet_loading
from debias_ssae.model.readout import last_states_module

CLASSIFIER = "debias-ssae classifier 1"
PROBES = ("She worked as a nurse in the city.", "He is a surgeon.", "")
TOLERANCE = 1e-2
"""Of the largest value: batches of other sizes round differently in bfloat16, never by this much."""


def export_sentence_transformers(
    debiaser: SSAEDebiaser, directory: str | Path, *, overwrite: bool = False
) -> None:
    """Write a directory that sentence-transformers loads, and whose ``encode`` is ``debiaser.transform``.

    It holds the erasers (not the SAE), the output eraser, the shift, a model card and the language model. Written
    atomically, and read back before it gets its name; an earlier export in its place is replaced with ``overwrite``.

    Raises InputError for a debiaser of a matrix, for a directory that holds something already, and when what was
    written does not give the debiaser's vectors.
    """
    model = _language_model(debiaser)
    if getattr(model.module.config, "is_encoder_decoder", False):
        raise InputError(
            f"{model.name} is an encoder-decoder, of which the encoder alone cannot be written and read back; use "
            "--to onnx (export_onnx), which holds the encoder's graph"
        )

    def fill(partial: Path) -> None:
        _save_with_prompt(_module(debiaser, model), partial, model.prompt, device=str(model.device))
        encoder = debiaser.text_encoder_
        options: dict[str, Any] = {
            "trust_remote_code": encoder.trust_remote_code,
            "device": str(model.device),
        }
        found = load_exported(partial, **options).encode(list(PROBES))
        _check(found, debiaser.transform(list(PROBES)))

    _export(debiaser, Path(directory), fill, "sentence-transformers", overwrite)


def export_onnx(debiaser: SSAEDebiaser, directory: str | Path, *, overwrite: bool = False) -> None:
    """Write a directory whose ``onnx/model.onnx`` gives ``debiaser.transform``, erasers and output eraser inside.

    The graph reads ``input_ids`` and ``attention_mask`` [b, t] (int64, padded on the right) and gives
    ``sentence_embedding`` [b, d]; the tokenizer lies in ``tokenizer/``. sentence-transformers loads the directory with
    ``backend="onnx"`` and runs it by onnxruntime. Written atomically, in float32, and compared with the debiaser first.

    Raises InputError as :func:`export_sentence_transformers` does, and for a model that torch cannot export;
    MissingExtraError without the extra ``onnx``.
    """
    plain, encoder = _language_model(debiaser), debiaser.text_encoder_
    model = full_precision(plain, trust_remote_code=encoder.trust_remote_code)

    def fill(partial: Path) -> None:
        written = onnx.write_onnx(_module(debiaser, model), partial)
        _save_with_prompt(written, partial, model.prompt)
        exact = copy.copy(debiaser)  # the graph is in float32, whatever the debiaser multiplies in
        exact.encoder_ = encoder.copy().set_params(model=model, dtype="float32", cache_dir=None)
        _check(load_exported(partial).encode(list(PROBES)), exact.transform(list(PROBES)))

    _export(debiaser, Path(directory), fill, "onnx", overwrite)


def export_classifier(debiaser: SSAEDebiaser, directory: str | Path, *, overwrite: bool = False) -> None:
    """Write the fine-tuned classifier that ``debiaser`` was fitted on, with its own head, on debiased states.

    ``AutoModelForSequenceClassification.from_pretrained(directory, trust_remote_code=True)`` loads it; the code in the
    directory needs torch and transformers only. :func:`load_exported` reads it by the package's own code. Written
    atomically, and read back before it gets its name.

    Raises InputError as :func:`debiased_classifier` does, and for a directory that holds something else.
    """

    def fill(partial: Path) -> None:
        made = debiased_classifier(debiaser)
        made.save_pretrained(partial)
        _language_model(debiaser).tokenizer.save_pretrained(partial)
        io.write_manifest(partial, CLASSIFIER)
        tokens = _language_model(debiaser).tokenizer(PROBES[0], return_tensors="pt")
        given = {name: tokens[name] for name in ("input_ids", "attention_mask")}
        with torch.no_grad():
            _check(*(one(**given).logits.numpy() for one in (load_exported(partial), made)))

    _export(debiaser, Path(directory), fill, "transformers", overwrite)


@torch.no_grad()
def debiased_classifier(debiaser: SSAEDebiaser) -> DebiasedForSequenceClassification:
    """Return the classifier that ``debiaser`` was fitted on, with its own head, on debiased states.

    It shares its weights with nothing: a copy in float32. The latents are removed from a text's own tokens at their
    hookpoints; the output eraser and the shift, which are affine, are applied to every token of the last states, which
    is the same for a head that reads one token or a mean.

    Raises InputError where the encoder is no classifier (``AutoModelForSequenceClassification``, by its directory or
    in memory), for a debiaser of another layer or pooling than the head reads, and for SAEs whose latents compete
    (topk).
    """
    encoder = debiaser.text_encoder_
    model = encoder.language_model
    if model.classifier is None:
        raise InputError(
            f"{model.name} has no head of its own; give encoder= the directory of a fine-tuned classifier, or "
            "ActivationEncoder.from_model(classifier, tokenizer); of an encoder-decoder the head is not kept"
        )
    if encoder.layer != "final":
        raise InputError(f"the debiaser returns layer {encoder.layer!r}, but the head reads the last one")
    output = _linear_eraser(debiaser)
    if encoder.readout.key != model.readout().key:
        raise InputError(
            f"the debiaser pools {encoder.pooling!r}, which is not what the head of {model.name} reads; fit it with "
            "pooling='auto'"
        )
    plain: Any = copy.deepcopy(model.classifier).float().cpu()
    prefix, names = plain.base_model_prefix, {id(part): name for name, part in model.module.named_modules()}
    parts: list[tuple[str, bool, dict[str, Any]]] = []
    for hookpoint, eraser in debiaser.edits.items():
        sae, target = eraser.sae, model.targets[hookpoint]
        if not sae.is_elementwise:
            raise InputError(
                "the latents of a topk SAE compete, so that they cannot be exported alone; use batchtopk"
            )
        bias = sae.b_enc - sae.W_enc @ sae.b_dec
        arrays = {"encode": sae.W_enc, "bias": bias, "decode": eraser.alpha * sae.W_dec}
        if sae.cfg.architecture != "relu":
            arrays["threshold"] = sae.threshold.clamp(min=0).expand(len(bias))
        is_last = hookpoint == "final"
        module = last_states_module(plain) if is_last else f"{prefix}.{names[id(target.module)]}"
        parts.append((module, target.reads_input, arrays))
    after: dict[str, Any] = {} if debiaser.shift_ is None else {"shift": debiaser.shift_}
    if output is not None:
        after |= {"read": output.read, "write": output.write, "center": output.center}
    if after:
        parts.append((last_states_module(plain), False, after))
    tokenizer = model.tokenizer
    config = DebiasedConfig(
        plain={name: value for name, value in plain.config.to_dict().items() if name != "dtype"},
        edits=[
            {
                "module": module,
                "reads_input": reads_input,
                "latents": len(arrays.get("encode", ())),
                "rank": len(arrays.get("read", ())),
                "width": model.d_model,
            }
            for module, reads_input, arrays in parts
        ],
        special_ids=sorted(set(tokenizer.all_special_ids) - {tokenizer.unk_token_id}),
        id2label=plain.config.id2label,
        label2id=plain.config.label2id,
        problem_type=plain.config.problem_type,
    )
    made = DebiasedForSequenceClassification(config, plain)
    for erasure, (*_, arrays) in zip(made.erasures, parts, strict=True):
        for name, array in arrays.items():
            getattr(erasure, name).copy_(torch.as_tensor(array))
    return made.eval()


def _linear_eraser(debiaser: SSAEDebiaser) -> LinearEraser | None:
    """The output eraser; raises InputError for one of the user's own."""
    eraser = debiaser.output_eraser_
    if not isinstance(eraser, LinearEraser | None):
        raise InputError(
            f"the output eraser is a {type(eraser).__name__} of your own, which cannot be exported"
        )
    return eraser


def _language_model(debiaser: SSAEDebiaser) -> LanguageModel:
    if debiaser.encoder is None:
        raise InputError("this debiaser works on a matrix and has no encoder, so there is no model to export")
    return debiaser.text_encoder_.language_model


def _export(
    debiaser: SSAEDebiaser, goal: Path, fill: Callable[[Path], None], target: str, overwrite: bool
) -> None:
    """Have ``fill`` write and check an export, with a model card, in the place of an earlier one or of nothing."""
    io.check_folder(goal, "exported debiaser", lambda _: bool(_kind(goal)))
    if _kind(goal) and not overwrite:
        raise InputError(
            f"{goal} holds an exported debiaser already: give another directory, or overwrite=True (--overwrite)"
        )

    def whole(partial: Path) -> None:
        fill(partial)
        io.write_text(partial / "README.md", model_card(debiaser, goal.name, target))
        for file in partial.rglob("*"):
            file.chmod(0o755 if file.is_dir() else 0o644)

    io.replace_directory(goal, whole)


def _kind(directory: Path) -> str:
    """Which kind of export ``directory`` holds; empty where it holds none."""
    for kind in (module.KIND, onnx.KIND, CLASSIFIER):
        try:
            return io.read_manifest(directory, kind).kind
        except InputError:
            continue
    return ""


def load_exported(directory: str | Path, *, trust_remote_code: bool = False, **options: Any) -> Any:
    """Return the SentenceTransformer or the classifier in ``directory``; ``options`` (device, ...) are its own.

    From version 6, ``SentenceTransformer(directory)`` imports classes of other packages only with
    ``trust_remote_code=True``, and a classifier's directory holds code. This function names the class itself and needs
    no such permission, unless the language model has code of its own. Raises InputError for a directory that holds no
    export.
    """
    kind = _kind(Path(directory))
    if kind == CLASSIFIER:
        io.read_manifest(directory, kind).check()
        with quiet_loading():
            return DebiasedForSequenceClassification.from_pretrained(str(directory), **options)
    if kind == onnx.KIND:
        found: Any = onnx.OnnxTransformer(directory, options.pop("model_kwargs", None))
    else:
        found = module.DebiasedTransformer.load(str(directory), trust_remote_code=trust_remote_code)
    file = Path(directory) / "config_sentence_transformers.json"
    config = io.read_json(file) if file.is_file() else {}
    about = {name: config.get(name) for name in ("prompts", "default_prompt_name")}
    return SentenceTransformer(modules=[found], **{**about, **options})


def _module(debiaser: SSAEDebiaser, model: LanguageModel) -> module.DebiasedTransformer:
    encoder = debiaser.text_encoder_
    settings = {
        "layer": encoder.layer,
        "readout": encoder.readout,
        "max_length": model.length,
        "dtype": encoder.dtype,
        "trust_remote_code": encoder.trust_remote_code,
    }
    eraser = _linear_eraser(debiaser)
    return module.DebiasedTransformer(
        model, debiaser.edits, settings, output_eraser=eraser, shift=debiaser.shift_
    )


def _save_with_prompt(module: Any, goal: Path, prompt: str, **options: Any) -> None:
    """Write ``module`` as the only one of a SentenceTransformer, which puts ``prompt`` in front of every text."""
    prompts: dict[str, Any] = {}
    if prompt:
        prompts = {"prompts": {"document": prompt}, "default_prompt_name": "document"}
    SentenceTransformer(modules=[module], **options, **prompts).save(str(goal), create_model_card=False)
    # the prompt stands in a file of the library's, which is checked like ours
    manifest = io.read_manifest(goal, _kind(goal))
    files = {name: io.file_record(goal / name) for name in OF_THE_LIBRARY}
    io.write_manifest(goal, manifest.kind, manifest.about, {**manifest.files, **files})


def _check(found: np.ndarray, wanted: np.ndarray) -> None:
    difference = float(np.abs(found - wanted).max())
    if not difference <= TOLERANCE * float(np.abs(wanted).max()):
        raise InputError(
            f"the exported model differs from the debiaser by {difference:.2g}; nothing was written. "
            "Is the encoder's model still the one that the debiaser was fitted with?"
        )
