"""The module of sentence-transformers that runs a language model with erasers inside it."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Self

import numpy as np
import torch
from sentence_transformers.base.modules import InputModule
from torch import Tensor

from debias_ssae.core.errors import InputError, one_line
from debias_ssae.core.io import MANIFEST, file_record, read_manifest, write_arrays, write_manifest
from debias_ssae.erase import LatentEraser, LinearEraser
from debias_ssae.model import LanguageModel, Readout, full_precision, load_model, quiet_loading
from debias_ssae.model.forward import Batch, clean_texts, make_batch, run_batch, tokenize
from debias_ssae.model.harvesting import pool
from debias_ssae.model.language_model import check_hookpoints
from debias_ssae.sae import load_sae, save_sae
from debias_ssae.sae.formats import OURS

WEIGHTS, ERASERS, MODEL = "output.safetensors", "erasers", "model"
KIND = "debias-ssae export 4"
OF_THE_LIBRARY = ("config_sentence_transformers.json", "modules.json")
"""What sentence-transformers writes beside the modules; whoever saves a loaded model writes it anew."""
_OF_THE_HUB = {"subfolder", "token", "cache_dir", "revision", "local_files_only", "trust_remote_code"}


class ExportedModule(InputModule):  # type: ignore[misc]
    """What the first and only module of an exported SentenceTransformer has, whoever runs it."""

    save_in_root = True
    settings: dict[str, Any]
    longest: int
    """Tokens that the model takes."""
    width: int
    """Of the vectors."""

    @property
    def max_seq_length(self) -> int:
        """Tokens a text, special ones included; what is longer is cut."""
        return min(int(self.settings["max_length"]), self.longest)

    @max_seq_length.setter
    def max_seq_length(self, value: int) -> None:
        if type(value) is not int or value < 3:
            raise InputError(f"max_seq_length={value!r}: give at least 3 tokens, special ones included")
        self.settings["max_length"] = value

    def get_embedding_dimension(self) -> int:
        """Width of the vectors."""
        return self.width

    get_sentence_embedding_dimension = get_embedding_dimension

    @classmethod
    def found(cls, name: str, subfolder: str, options: Mapping[str, Any]) -> Path:
        """The directory, on disk or from the hub, that sentence-transformers loads by ``name``."""
        of_the_hub = ("token", "cache_folder", "revision", "local_files_only")
        given = {option: options[option] for option in of_the_hub if option in options}
        return Path(cls.load_dir_path(name, subfolder, **given) or name)


class DebiasedTransformer(ExportedModule):
    """Texts to debiased vectors: forward pass with erasers, pooling, output eraser, shift.

    It is the first and only module; training it is not supported. ``settings`` holds layer, readout, max_length,
    dtype and trust_remote_code.
    """

    def __init__(
        self,
        model: LanguageModel,
        edits: Mapping[str, LatentEraser],
        settings: Mapping[str, Any],
        *,
        output_eraser: LinearEraser | None = None,
        shift: np.ndarray | None = None,
    ) -> None:
        super().__init__()
        self.language_model = model
        self.module = model.module  # registered, so that the whole moves between devices
        self.tokenizer = model.tokenizer
        self.edits = dict(edits)
        self.settings, self.longest = dict(settings), model.max_length
        self.max_seq_length = settings["max_length"]
        check_hookpoints([settings["layer"], *self.edits], model.hookpoints)
        self.readout: Readout = settings["readout"]
        self.width = self.readout.width(model.d_model)
        self.output_eraser, self.shift = output_eraser, shift

    def preprocess(
        self, inputs: Sequence[Any], prompt: str | None = None, **kwargs: Any
    ) -> dict[str, Tensor]:
        """Tokenise texts: input_ids, attention_mask and real_tokens [b, t]. Raises InputError for anything else."""
        texts = clean_texts(inputs)
        tokens = tokenize(self.tokenizer, texts, self.max_seq_length, prompt=prompt or "")
        batch = make_batch(self.language_model, tokens, np.arange(len(texts)))
        return {"input_ids": batch.ids, "attention_mask": batch.attention, "real_tokens": batch.real}

    def forward(self, features: dict[str, Any], **kwargs: Any) -> dict[str, Any]:
        """Add token_embeddings [b, t, d] (after the erasers) and sentence_embedding [b, d]."""
        layer, given = self.settings["layer"], ("input_ids", "attention_mask", "real_tokens")
        batch = Batch(np.arange(0), *(features[name] for name in given))
        run_batch(self.language_model, batch, [layer], self.edits)
        x = pool(batch, layer, self.readout)
        return {
            **features,
            "token_embeddings": batch.states[layer].float(),
            "sentence_embedding": self._finish(x).to(self._dtype),
        }

    @property
    def _dtype(self) -> torch.dtype:
        """float32 unless the whole module was put into another precision: linear weights alone say nothing."""
        return next(self.module.parameters()).dtype

    def __deepcopy__(self, memo: dict[int, Any]) -> Self:
        options: dict[str, Any] = {"output_eraser": self.output_eraser, "shift": self.shift}
        return type(self)(self.language_model.copied(), self.edits, self.settings, **options)

    def _finish(self, x: Tensor) -> Tensor:
        """What follows the edit; torch in place of NumPy, so that a graph holds it too."""
        rows = x.cpu()
        if self.output_eraser is not None:
            read, write, center = (torch.from_numpy(part) for part in _parts(self.output_eraser).values())
            rows = (rows - (rows - center) @ read.T @ write).to(x.dtype)
        if self.shift is not None:
            rows = rows + torch.from_numpy(self.shift)
        return rows.to(x.device, x.dtype)

    def save(self, output_path: str, *args: Any, **kwargs: Any) -> None:
        """Write settings, erasers and the language model; JSON and safetensors."""
        goal = Path(output_path)
        erasers = {}
        for hookpoint, eraser in self.edits.items():
            save_sae(eraser.sae, goal / ERASERS / hookpoint)
            erasers[hookpoint] = {"latents": eraser.latents, "alpha": eraser.alpha}
        arrays = {} if self.shift is None else {"shift": self.shift}
        if self.output_eraser is not None:
            arrays |= {f"output_eraser.{name}": part for name, part in _parts(self.output_eraser).items()}
        write_arrays(goal / WEIGHTS, arrays)
        module: Any = full_precision(
            self.language_model, trust_remote_code=self.settings["trust_remote_code"]
        ).module
        with quiet_loading():
            module.save_pretrained(goal / MODEL)
        self.language_model.tokenizer.save_pretrained(goal / MODEL)
        found = (p for part in (ERASERS, MODEL) for p in sorted((goal / part).rglob("*")) if p.is_file())
        ours = [WEIGHTS, *(p.relative_to(goal).as_posix() for p in found)]
        files = {name: file_record(goal / name) for name in ours}
        about = {**self.settings, "readout": self.readout.to_dict(), "erasers": erasers}
        write_manifest(goal, KIND, about, files)

    @classmethod
    def load(cls, model_name_or_path: str, subfolder: str = "", **kwargs: Any) -> Self:  # type: ignore[override]
        """Read what ``save`` wrote, from a directory or the hub. Raises InputError when it is damaged.

        ``trust_remote_code`` reaches the language model only where the debiaser was fitted with it. Of
        ``model_kwargs`` dtype is taken, of ``processor_kwargs`` model_max_length; others are refused.
        """
        path = cls.found(model_name_or_path, subfolder, kwargs)
        if not (path / MANIFEST).is_file():
            raise InputError(f"{path} holds no exported debiaser: make one with `debias-ssae export`")
        manifest = read_manifest(path, KIND).check()
        try:
            settings = dict(manifest.about)
            arrays = manifest.arrays(WEIGHTS)
            edits = {}
            for hookpoint, told in settings.pop("erasers").items():
                sae = load_sae(manifest.file(f"{ERASERS}/{hookpoint}/{OURS}").parent)
                edits[hookpoint] = LatentEraser(sae, tuple(told["latents"]), float(told["alpha"]))
            trusted = settings["trust_remote_code"] is True and bool(kwargs.get("trust_remote_code"))
            if missing := {"layer", "readout", "max_length", "dtype"} - set(settings):
                raise ValueError(f"{MANIFEST} holds no {min(missing)}")
            settings["readout"] = Readout.from_dict(settings["readout"])
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            if isinstance(error, InputError):
                raise
            raise InputError(
                f"{path} holds no exported debiaser, or a damaged one: {one_line(error)}"
            ) from error
        output_eraser = {k.split(".")[1]: v for k, v in arrays.items() if k.startswith("output_eraser.")}
        dtype = _option(kwargs, "model_kwargs", "dtype")
        length = _option(kwargs, "processor_kwargs", "model_max_length")
        precision = settings["dtype"] if dtype is None else str(dtype).removeprefix("torch.")
        half = precision == "float16"
        model = load_model(
            str(path / MODEL), device="cpu", dtype="float32" if half else precision, trust_remote_code=trusted
        )
        made = cls(
            model,
            edits,
            settings,
            output_eraser=LinearEraser(**output_eraser) if output_eraser else None,
            shift=arrays.get("shift"),
        )
        if length is not None:
            made.max_seq_length = length
        return made.half() if half else made


def _parts(eraser: LinearEraser) -> dict[str, np.ndarray]:
    names = ("read", "write", "center")
    return {name: np.ascontiguousarray(getattr(eraser, name), np.float64) for name in names}


def _option(kwargs: Mapping[str, Any], group: str, name: str) -> Any:
    """The one option of a group that can be followed; raises InputError for others."""
    given = {k: v for k, v in (kwargs.get(group) or {}).items() if k not in _OF_THE_HUB}
    old = given.pop("torch_dtype", None) if name == "dtype" else None
    value = given.pop(name, old)
    if given:
        raise InputError(f"{group} holds {', '.join(given)}; an exported debiaser takes {name} alone")
    return value
