"""A fitted debiaser as one directory: debiaser.json, arrays in safetensors, the SAEs in sae/, sae.1/, ..."""

import json
import shutil
from collections.abc import Callable
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
from safetensors import SafetensorError
from safetensors.numpy import load_file
from safetensors.numpy import save as to_bytes

from debias_ssae import __version__
from debias_ssae.core.config import DebiasConfig, make_config
from debias_ssae.core.errors import InputError
from debias_ssae.debiaser.intervention import Intervention
from debias_ssae.debiaser.settings import make_encoder, read_concept
from debias_ssae.erase import LatentEraser, LinearEraser
from debias_ssae.model.encoder import ActivationEncoder
from debias_ssae.sae.formats import load_sae, save_sae
from debias_ssae.sae.model import SparseAutoencoder
from debias_ssae.selection import LatentScores
from debias_ssae.selection.select import Selection
from debias_ssae.text.concept import Concept

FORMAT = 2
_FILES = ("debiaser.json", "arrays.safetensors")
_SCORE_ARRAYS = ("score", "sign", "effect", "firing_rate", "mass", "p_value")


def save(debiaser: Any, directory: Path) -> None:
    """Write ``debiaser`` beside the goal first, then rename; a directory that exists is replaced.

    Raises InputError for an encoder with edits of its own, and where ``directory`` holds something else.
    """
    if debiaser.encoder is not None and debiaser.encoder_.edits:
        raise InputError("the encoder has edits of its own, which cannot be saved; give an encoder without")
    directory = directory.absolute()
    check_goal(directory)
    partial = directory.with_name(f".{directory.name}.partial")
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    for i, part in enumerate(debiaser.interventions_.values()):
        save_sae(part.sae, partial / _sae_name(i))
    arrays = _arrays(debiaser)
    # not save_file, whose files only the owner may read
    (partial / "arrays.safetensors").write_bytes(to_bytes(arrays))
    text = json.dumps(_description(debiaser), indent=1, ensure_ascii=False)
    (partial / "debiaser.json").write_text(text, encoding="utf-8")
    if directory.exists():
        shutil.rmtree(directory)
    partial.rename(directory)


def check_goal(directory: Path) -> None:
    """Raise InputError where writing would take something else away."""
    if directory.exists() and not directory.is_dir():
        raise InputError(f"{directory} is a file; give a directory")
    held = {path.name for path in directory.iterdir()} if directory.exists() else set()
    other = sorted(held - set(_FILES) - {_sae_name(i) for i in range(len(held))})
    if other or (held and "debiaser.json" not in held):
        raise InputError(
            f"{directory} holds something that is no debiaser ({', '.join(other or sorted(held))}), which would "
            "be lost; give another directory"
        )


def load(cls: type, directory: Path) -> Any:
    """Rebuild a debiaser of class ``cls``; raises InputError that says what is missing or strange."""
    file = directory / "debiaser.json"
    if not file.is_file():
        raise InputError(
            f"{directory} holds no debiaser.json; give a directory written by SSAEDebiaser.save or fit"
        )
    try:
        saved = json.loads(file.read_text(encoding="utf-8"))
        if saved["format"] != FORMAT:
            raise InputError(f"{directory} has format {saved['format']}; this version reads {FORMAT}")
        arrays = load_file(directory / "arrays.safetensors")
        debiaser = cls(**_parameters(saved["parameters"]))
        _restore(debiaser, saved, arrays, directory)
    except InputError:
        raise
    except (KeyError, TypeError, ValueError, OSError, SafetensorError) as error:
        raise InputError(f"{directory} is damaged: {type(error).__name__}: {error}") from error
    return debiaser


def _sae_name(i: int) -> str:
    return "sae" if i == 0 else f"sae.{i}"


def _arrays(debiaser: Any) -> dict[str, np.ndarray]:
    arrays = {}
    for i, part in enumerate(debiaser.interventions_.values()):
        arrays[f"parts.{i}.latents"] = part.latents.astype(np.int64)
        if part.scores is not None:
            arrays |= {
                f"parts.{i}.{name}": np.ascontiguousarray(getattr(part.scores, name))
                for name in _SCORE_ARRAYS
            }
    if debiaser.shift_ is not None:
        arrays["shift"] = debiaser.shift_
    if debiaser.residual_ is not None:
        arrays |= {
            f"residual.{name}": np.ascontiguousarray(a) for name, a in asdict(debiaser.residual_).items()
        }
    return arrays


def _description(debiaser: Any) -> dict[str, Any]:
    return {
        "format": FORMAT,
        "debias_ssae": __version__,
        "parameters": _plain_parameters(debiaser),
        "n_features_out": int(debiaser.n_features_out_),
        "n_features_in": getattr(debiaser, "n_features_in_", None),
        "feature_names_in": list(getattr(debiaser, "feature_names_in_", ())),
        "concept": None if debiaser.concept_ is None else debiaser.concept_.to_dict(),
        "parts": [_describe(hookpoint, part) for hookpoint, part in debiaser.interventions_.items()],
    }


def _describe(hookpoint: str, part: Intervention) -> dict[str, Any]:
    scores, found = part.scores, part.found
    named = ("method", "values", "classes", "ignored")
    return {
        "hookpoint": hookpoint,
        "scores": None if scores is None else {name: getattr(scores, name) for name in named},
        "report": None if found is None else found.report,
        "mode": part.eraser.mode,
        "alpha": part.eraser.alpha,
        "record": part.record,
    }


def _plain_parameters(debiaser: Any) -> dict[str, Any]:
    """The constructor's parameters as JSON; what was only needed for fitting (corpus, sae) stays if it is a path."""
    plain: dict[str, Any] = {}
    for name, value in debiaser.get_params(deep=False).items():
        if isinstance(value, ActivationEncoder):
            settings = {
                k: v for k, v in value.get_params(deep=False).items() if k not in ("edits", "cache_dir")
            }
            value = {"ActivationEncoder": settings}
        elif isinstance(value, Concept):
            value = {"Concept": value.to_dict()}
        elif isinstance(value, DebiasConfig):
            value = {"DebiasConfig": value.model_dump(mode="json")}
        elif isinstance(value, Path):
            value = str(value)
        elif isinstance(value, np.generic):
            value = value.item()
        elif name in ("corpus", "sae", "random_state") and not isinstance(value, str | int | None):
            value = None
        plain[name] = value
    return plain


def _parameters(plain: dict[str, Any]) -> dict[str, Any]:
    makers: dict[str, Callable[[Any], Any]] = {
        "ActivationEncoder": lambda v: ActivationEncoder(**v),
        "Concept": Concept.from_dict,
        "DebiasConfig": lambda v: make_config(DebiasConfig, v),
    }
    parameters = {}
    for name, value in plain.items():
        kind = next(iter(value)) if isinstance(value, dict) and len(value) == 1 else None
        parameters[name] = makers[kind](value[kind]) if kind in makers else value  # type: ignore[index]
    return parameters


def _restore(debiaser: Any, saved: dict[str, Any], arrays: dict[str, np.ndarray], directory: Path) -> None:
    debiaser.interventions_ = {
        told["hookpoint"]: _restore_part(told, i, arrays, load_sae(directory / _sae_name(i)), debiaser.alpha)
        for i, told in enumerate(saved["parts"])
    }
    debiaser.n_features_out_ = saved["n_features_out"]
    if saved["n_features_in"] is not None:
        debiaser.n_features_in_ = saved["n_features_in"]
    if saved.get("feature_names_in"):
        debiaser.feature_names_in_ = np.array(saved["feature_names_in"], dtype=object)
    debiaser.concept_ = _restore_concept(debiaser, saved)
    residual = {name.split(".")[1]: a for name, a in arrays.items() if name.startswith("residual.")}
    debiaser.residual_ = LinearEraser(**residual) if residual else None
    debiaser.shift_ = arrays.get("shift")
    if debiaser.encoder is not None:
        debiaser.encoder_ = make_encoder(debiaser)


def _restore_concept(debiaser: Any, saved: dict[str, Any]) -> Concept | None:
    """The concept that was fitted with; files from before it was saved have its name or path at most."""
    if "concept" in saved:
        return None if saved["concept"] is None else Concept.from_dict(saved["concept"])
    with suppress(InputError):
        return read_concept(debiaser.concept)
    return None


def _restore_part(
    told: dict[str, Any], i: int, arrays: dict[str, np.ndarray], sae: SparseAutoencoder, alpha: float
) -> Intervention:
    latents, found = arrays[f"parts.{i}.latents"], None
    if told["scores"] is not None:
        words: dict[str, Any] = told["scores"] | {k: tuple(told["scores"][k]) for k in ("values", "classes")}
        words |= {name: arrays[f"parts.{i}.{name}"] for name in _SCORE_ARRAYS}
        found = Selection(LatentScores(**words), latents, told["report"], keep=told.get("mode") == "keep")
    options = {"alpha": told.get("alpha", alpha), "mode": told.get("mode", "zero")}
    eraser = LatentEraser.from_sae(sae, [int(k) for k in latents], **options)
    return Intervention(sae, found, eraser, told["record"])
