"""A fitted debiaser as one directory: manifest.json, arrays.safetensors, and the SAEs in sae/, sae.1/, ...

Nothing about trust, devices or places to write is kept in it.
"""

from collections.abc import Callable, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from safetensors.numpy import save as to_bytes

from debias_ssae import __version__
from debias_ssae.core.config import DebiasConfig, load_config, make_config
from debias_ssae.core.errors import InputError
from debias_ssae.core.io import MANIFEST, read_manifest, replace_directory, write_bytes, write_manifest
from debias_ssae.debiaser.inputs import make_encoder
from debias_ssae.debiaser.matrix import MatrixEncoder
from debias_ssae.debiaser.pipeline import Intervention
from debias_ssae.erase import LatentEraser, LinearEraser
from debias_ssae.model.encoder import ActivationEncoder
from debias_ssae.sae.formats import load_sae, save_sae
from debias_ssae.sae.model import SparseAutoencoder
from debias_ssae.selection.scores import LatentScores
from debias_ssae.selection.select import Selection
from debias_ssae.text.concept import Concept

if TYPE_CHECKING:
    from debias_ssae.debiaser.estimator import SSAEDebiaser

KIND = "debias-ssae debiaser 3"
ARRAYS = "arrays.safetensors"
PROBES = ("She worked as a nurse in the city.", "He is a surgeon.")
"""Texts by whose plain representations a model is known again."""
TOLERANCE = 0.05
"""Of their largest value; bfloat16 and other devices stay far below, other weights do not."""
_SCORE_ARRAYS = ("score", "sign", "effect", "firing_rate", "mass", "p_value")
_CALLERS = ("device", "cache_dir", "verbose", "trust_remote_code", "edits")
"""Parameters that belong to whoever loads."""


def save(debiaser: "SSAEDebiaser", directory: Path, *, overwrite: bool = False) -> None:
    """Write ``debiaser`` atomically.

    Raises InputError for an encoder with edits of its own, for an output eraser of the user's own, and where
    ``directory`` holds something, unless that is a debiaser and ``overwrite`` is true.
    """
    if not isinstance(debiaser.output_eraser_, LinearEraser | None):
        raise InputError(
            f"the output eraser is a {type(debiaser.output_eraser_).__name__} of your own, which cannot be saved; "
            "use one of the package's, or keep the debiaser with skops or joblib at your own risk"
        )
    check_out(directory, overwrite=overwrite)
    parameters = _plain_parameters(debiaser)

    def fill(partial: Path) -> None:
        for i, (hookpoint, one) in enumerate(debiaser.interventions_.items()):
            save_sae(one.sae, partial / _sae_name(i), metadata={"hook_name": hookpoint})
        write_bytes(partial / ARRAYS, to_bytes(_arrays(debiaser)))
        write_manifest(partial, KIND, {**_about(debiaser), "parameters": parameters})

    replace_directory(directory, fill)


def check_out(directory: Path, *, overwrite: bool = False) -> None:
    """Raise InputError where writing would take something away."""
    directory = directory.absolute()
    if directory.exists() and not directory.is_dir():
        raise InputError(f"{directory} is a file; give a directory")
    if not directory.exists() or not any(directory.iterdir()):
        return
    if not _is_debiaser(directory):
        raise InputError(
            f"{directory} holds something that is no debiaser, which would be lost; give another directory"
        )
    if not overwrite:
        raise InputError(
            f"{directory} holds a debiaser already; give another directory, or replace it with --overwrite "
            "(overwrite=True)"
        )


def _is_debiaser(directory: Path) -> bool:
    known = {MANIFEST, ARRAYS}
    held = {path.name for path in directory.iterdir() if not path.name.startswith(".")}
    if held - known - {_sae_name(i) for i in range(len(held))}:
        return False
    try:
        return read_manifest(directory, KIND) is not None
    except InputError:
        return held >= known


def load(
    cls: "type[SSAEDebiaser]",
    directory: Path,
    *,
    encoder: Any = None,
    device: str = "auto",
    cache_dir: str | Path | None = None,
    trust_remote_code: bool = False,
) -> Any:
    """Rebuild a debiaser; raises InputError that says what is missing or strange."""
    try:
        manifest = read_manifest(directory, KIND).check()
    except InputError:
        if (directory / MANIFEST).is_file():
            raise
        raise InputError(
            f"{directory} holds no {MANIFEST}; give a directory written by SSAEDebiaser.save or debias-ssae fit"
        ) from None
    about, arrays = manifest.about, manifest.arrays(ARRAYS)
    try:
        parameters = _parameters(about["parameters"])
        callers: dict[str, Any] = {"device": device, "cache_dir": cache_dir}
        if encoder is not None:
            parameters["encoder"] = encoder
        elif isinstance(parameters["encoder"], ActivationEncoder):
            parameters["encoder"].set_params(trust_remote_code=trust_remote_code, **callers)
        elif trust_remote_code and parameters["encoder"] is not None:
            parameters["encoder"] = ActivationEncoder(
                parameters["encoder"],
                layer=parameters["layer"],
                pooling=parameters["pooling"],
                trust_remote_code=True,
                **callers,
            )
        debiaser = cls(**parameters, **callers)
        _restore(debiaser, about, arrays, directory)
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        if isinstance(error, InputError):
            raise
        raise InputError(f"{directory} is damaged: {type(error).__name__}: {error}") from error
    return debiaser


def check_model(debiaser: "SSAEDebiaser", probes: np.ndarray) -> None:
    """Raise InputError where the encoder gives other representations than the one that was fitted with."""
    found = debiaser.encoder_.encode(list(PROBES))
    if found.shape == probes.shape:
        difference = float(np.abs(found - probes).max())
        if difference <= TOLERANCE * float(np.abs(probes).max()):
            return
        how = f"its representations differ by {difference:.2g}"
    else:
        how = f"it gives {found.shape[1]} dimensions, not {probes.shape[1]}"
    raise InputError(
        f"the model {debiaser.text_encoder_.language_model.name} is not the one that the debiaser was fitted with: "
        f"{how}; name the right one with SSAEDebiaser.load(..., encoder=)"
    )


def _sae_name(i: int) -> str:
    return "sae" if i == 0 else f"sae.{i}"


def _arrays(debiaser: "SSAEDebiaser") -> dict[str, np.ndarray]:
    arrays: dict[str, np.ndarray] = {}
    for i, one in enumerate(debiaser.interventions_.values()):
        arrays[f"{i}.ids"] = one.selection.ids.astype(np.int64)
        if one.selection.scores is not None:
            for name in _SCORE_ARRAYS:
                values = np.asarray(getattr(one.selection.scores, name))
                known = ~np.isnan(values)
                arrays[f"{i}.{name}"] = np.ascontiguousarray(np.where(known, values, 0.0))
                if not known.all():  # a class that was too small for an effect
                    arrays[f"{i}.{name}.known"] = known.astype(np.uint8)
    if debiaser.shift_ is not None:
        arrays["shift"] = debiaser.shift_
    if isinstance(debiaser.output_eraser_, LinearEraser):
        arrays |= {
            f"output_eraser.{name}": np.ascontiguousarray(a)
            for name, a in asdict(debiaser.output_eraser_).items()
        }
    if isinstance(debiaser.encoder_, MatrixEncoder):
        arrays |= {f"matrix.{name}": a for name, a in asdict(debiaser.encoder_).items()}
    else:
        arrays["probes"] = debiaser.encoder_.encode(list(PROBES))
    return arrays


def _about(debiaser: "SSAEDebiaser") -> dict[str, Any]:
    named = ("method", "values", "classes", "ignored")
    return {
        "debias_ssae": __version__,
        "output_kind": debiaser.output_kind_,
        "n_features_out": int(debiaser.n_features_out_),
        "n_features_in": getattr(debiaser, "n_features_in_", None),
        "feature_names_in": list(getattr(debiaser, "feature_names_in_", ())),
        "concept": None if debiaser.concept_ is None else debiaser.concept_.to_dict(),
        "report": debiaser.report_,
        "interventions": [
            {
                "hookpoint": hookpoint,
                "alpha": one.eraser.alpha,
                "scores": None
                if one.selection.scores is None
                else {name: getattr(one.selection.scores, name) for name in named},
                "report": one.selection.report,
                "record": one.record,
            }
            for hookpoint, one in debiaser.interventions_.items()
        ],
    }


def _plain_parameters(debiaser: "SSAEDebiaser") -> dict[str, Any]:
    """The constructor's parameters as JSON, less the caller's; texts, SAEs and random states are left out."""
    plain: dict[str, Any] = {}
    for name, value in debiaser.get_params(deep=False).items():
        if name in _CALLERS:
            continue
        if name == "attribute":
            value = _plain_attribute(value)
        elif name == "config":
            value = {"DebiasConfig": load_config(DebiasConfig, debiaser.config).model_dump(mode="json")}
        elif name == "encoder" and not isinstance(value, str | Path | None):
            value = {"ActivationEncoder": debiaser.text_encoder_.to_dict()}
        elif isinstance(value, Path):
            value = str(value)
        elif isinstance(value, np.generic):
            value = value.item()
        elif name in ("corpus", "sae", "random_state") and not isinstance(value, str | int | None):
            value = None
        plain[name] = list(value) if isinstance(value, tuple) else value
    return plain


def _plain_attribute(value: Any) -> Any:
    """Concepts are kept; labels of texts, and objects of the user's own, are not."""
    if isinstance(value, Concept):
        return {"Concept": value.to_dict()}
    if isinstance(value, list | tuple):
        found = [_plain_attribute(one) for one in value]
        return found if all(one is not None for one in found) else None
    return str(value) if isinstance(value, str | Path) else None


def _parameters(plain: Mapping[str, Any]) -> dict[str, Any]:
    makers: dict[str, Callable[[Any], Any]] = {
        "ActivationEncoder": lambda v: ActivationEncoder.from_dict(
            {k: x for k, x in v.items() if k not in _CALLERS}
        ),
        "Concept": Concept.from_dict,
        "DebiasConfig": lambda v: make_config(DebiasConfig, v, "the saved settings"),
    }

    def made(value: Any) -> Any:
        if isinstance(value, list):
            return [made(one) for one in value]
        kind = next(iter(value)) if isinstance(value, Mapping) and len(value) == 1 else None
        return makers[kind](value[kind]) if kind in makers else value

    return {name: made(value) for name, value in plain.items() if name not in _CALLERS}


def _restore(
    debiaser: "SSAEDebiaser", about: Mapping[str, Any], arrays: Mapping[str, np.ndarray], directory: Path
) -> None:
    debiaser.interventions_ = {
        kept["hookpoint"]: _restore_intervention(kept, i, arrays, load_sae(directory / _sae_name(i)))
        for i, kept in enumerate(about["interventions"])
    }
    debiaser.concept_ = None if about["concept"] is None else Concept.from_dict(about["concept"])
    kept = {name.split(".")[1]: a for name, a in arrays.items() if name.startswith("output_eraser.")}
    debiaser.output_eraser_ = LinearEraser(**kept) if kept else None
    debiaser.output_kind_, debiaser.shift_ = about["output_kind"], arrays.get("shift")
    debiaser.report_ = about["report"]
    if debiaser.encoder is None:
        debiaser.encoder_ = MatrixEncoder(arrays["matrix.center"], arrays["matrix.scale"])
    else:
        debiaser.encoder_ = make_encoder(debiaser, load_config(DebiasConfig, debiaser.config))
        debiaser._probes = arrays["probes"]
    if about["n_features_in"] is not None:
        debiaser.n_features_in_ = about["n_features_in"]
    if about["feature_names_in"]:
        debiaser.feature_names_in_ = np.array(about["feature_names_in"], dtype=object)
    _check_shapes(debiaser, about["n_features_out"])
    debiaser.n_features_out_ = about["n_features_out"]


def _restore_intervention(
    kept: Mapping[str, Any], i: int, arrays: Mapping[str, np.ndarray], sae: SparseAutoencoder
) -> Intervention:
    ids, scores = arrays[f"{i}.ids"], None
    if kept["scores"] is not None:
        fields: dict[str, Any] = dict(kept["scores"])
        fields |= {name: tuple(fields[name]) for name in ("values", "classes")}
        for name in _SCORE_ARRAYS:
            values, known = arrays[f"{i}.{name}"], arrays.get(f"{i}.{name}.known")
            fields[name] = values if known is None else np.where(known.astype(bool), values, np.nan)
        scores = LatentScores(**fields)
    eraser = LatentEraser.from_sae(sae, ids, alpha=kept["alpha"])
    return Intervention(eraser, sae, Selection(scores, ids, kept["report"]), kept["record"])


def _check_shapes(debiaser: "SSAEDebiaser", width: int) -> None:
    """Raise InputError for arrays that do not belong together."""
    eraser = debiaser.output_eraser_
    shapes = [] if debiaser.shift_ is None else [debiaser.shift_.shape[-1]]
    if isinstance(eraser, LinearEraser):
        shapes += [eraser.read.shape[-1], eraser.write.shape[-1], eraser.center.shape[-1]]
    if isinstance(debiaser.encoder_, MatrixEncoder):
        shapes += [one.sae.cfg.d_in for one in debiaser.interventions_.values()]
    if any(shape != width for shape in shapes):
        raise InputError(f"the arrays of the debiaser have widths {sorted(set(shapes))}, expected {width}")
