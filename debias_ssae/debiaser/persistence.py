"""A fitted debiaser as one directory: debiaser.json, scores and residual in safetensors, the SAE in sae/."""

import json
import shutil
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.numpy import load_file
from safetensors.numpy import save as to_bytes

from debias_ssae import __version__
from debias_ssae.ablation import LatentEraser, LinearEraser
from debias_ssae.attribution import LatentScores
from debias_ssae.concept import Concept
from debias_ssae.config import DebiasConfig, make_config
from debias_ssae.encoder import ActivationEncoder
from debias_ssae.exceptions import InputError
from debias_ssae.sae.formats import load_sae, save_sae

FORMAT = 1
_SCORE_ARRAYS = ("score", "sign", "effect", "firing_rate", "mass", "p_value")


def save(debiaser: Any, directory: Path) -> None:
    """Write ``debiaser`` beside the goal first, then rename; a directory that exists is replaced."""
    partial = directory.with_name(f".{directory.name}.partial")
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    save_sae(debiaser.sae_, partial / "sae")
    arrays = _arrays(debiaser)
    # not save_file, whose files only the owner may read
    (partial / "arrays.safetensors").write_bytes(to_bytes(arrays))
    text = json.dumps(_description(debiaser), indent=1, ensure_ascii=False)
    (partial / "debiaser.json").write_text(text, encoding="utf-8")
    if directory.exists():
        if any(directory.iterdir()) and not (directory / "debiaser.json").exists():
            shutil.rmtree(partial)
            raise InputError(f"{directory} holds something that is no debiaser; give another directory")
        shutil.rmtree(directory)
    partial.rename(directory)


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
    except (KeyError, TypeError, ValueError, OSError) as error:
        raise InputError(f"{directory} is damaged: {type(error).__name__}: {error}") from error
    return debiaser


def _arrays(debiaser: Any) -> dict[str, np.ndarray]:
    arrays = {"latents": debiaser.latents_.astype(np.int64)}
    if debiaser.scores_ is not None:
        arrays |= {
            f"scores.{name}": np.ascontiguousarray(getattr(debiaser.scores_, name)) for name in _SCORE_ARRAYS
        }
    if debiaser.shift_ is not None:
        arrays["shift"] = debiaser.shift_
    if debiaser.residual_ is not None:
        arrays |= {
            f"residual.{name}": np.ascontiguousarray(a) for name, a in asdict(debiaser.residual_).items()
        }
    return arrays


def _description(debiaser: Any) -> dict[str, Any]:
    scores = debiaser.scores_
    return {
        "format": FORMAT,
        "debias_ssae": __version__,
        "parameters": _plain_parameters(debiaser),
        "n_features_out": int(debiaser.n_features_out_),
        "n_features_in": getattr(debiaser, "n_features_in_", None),
        "scores": None
        if scores is None
        else {name: getattr(scores, name) for name in ("method", "values", "classes", "ignored")},
        "record": debiaser.record_,
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
    debiaser.sae_ = load_sae(directory / "sae")
    debiaser.latents_ = arrays["latents"]
    debiaser.eraser_ = LatentEraser.cut(debiaser.sae_, _ids(arrays["latents"]), alpha=debiaser.alpha)
    debiaser.record_ = saved["record"]
    debiaser.n_features_out_ = saved["n_features_out"]
    if saved["n_features_in"] is not None:
        debiaser.n_features_in_ = saved["n_features_in"]
    debiaser.scores_ = None
    if saved["scores"] is not None:
        words: dict[str, Any] = saved["scores"] | {
            k: tuple(saved["scores"][k]) for k in ("values", "classes")
        }
        words |= {name: arrays[f"scores.{name}"] for name in _SCORE_ARRAYS}
        debiaser.scores_ = LatentScores(**words)
    residual = {name.split(".")[1]: a for name, a in arrays.items() if name.startswith("residual.")}
    debiaser.residual_ = LinearEraser(**residual) if residual else None
    debiaser.shift_ = arrays.get("shift")
    if debiaser.encoder is not None:
        debiaser.encoder_ = debiaser._make_encoder()


def _ids(latents: np.ndarray) -> Sequence[int]:
    return [int(i) for i in latents]
