"""A debiaser as one ONNX graph: token ids to debiased vectors, with the erasers inside; and the module that runs it."""

import copy
import logging
import shutil
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Self

import torch
from torch import Tensor, nn

from debias_ssae.core.errors import InputError, one_line, optional_module
from debias_ssae.core.io import file_record, read_manifest, write_manifest
from debias_ssae.export.module import OF_THE_LIBRARY, DebiasedTransformer, ExportedModule
from debias_ssae.model.forward import clean_texts

KIND = "debias-ssae onnx 1"
GRAPH, TOKENIZER = "onnx/model.onnx", "tokenizer"
OPSET = 18
MOST_BYTES = 1_900_000_000
"""Weights above it lie in a file beside the graph; one file holds at most two gigabytes."""


class DebiasedGraph(nn.Module):
    """``input_ids`` and ``attention_mask`` [b, t], padded on the right, to debiased vectors [b, d]."""

    special: Tensor

    def __init__(self, exported: DebiasedTransformer) -> None:
        super().__init__()
        self.exported, model = exported, exported.language_model
        self.saes = nn.ModuleList([eraser.sae for eraser in exported.edits.values()])
        tokenizer = model.tokenizer
        special = sorted(set(tokenizer.all_special_ids) - {tokenizer.unk_token_id})
        self.register_buffer("special", torch.tensor(special, dtype=torch.long))
        prompt = tokenizer([model.prompt])["input_ids"][0] if model.prompt else []
        self.n_prompt = len(prompt) - bool(prompt and prompt[-1] in special)

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        """Return the vectors of the texts' tokens, as :meth:`SSAEDebiaser.transform` does."""
        real = attention_mask.bool()
        if len(self.special):
            real = real & (input_ids[:, :, None] != self.special).all(-1)
        if self.n_prompt:
            real = real & (torch.arange(input_ids.shape[1]) >= self.n_prompt)
        features = {"input_ids": input_ids, "attention_mask": attention_mask, "real_tokens": real}
        vectors: Tensor = self.exported(features)["sentence_embedding"]
        return vectors


def write_graph(graph: DebiasedGraph, file: Path) -> None:
    """Write ``graph`` as ONNX, for any number of texts and tokens.

    Raises InputError for a model that torch cannot export, and MissingExtraError without the extra ``onnx``.
    """
    for name in ("onnx", "onnxscript", "onnxruntime"):
        optional_module(name, "onnx")
    ids = torch.ones(2, 7, dtype=torch.long)
    dynamic = {0: torch.export.Dim.DYNAMIC, 1: torch.export.Dim.DYNAMIC}
    size = sum(p.numel() * p.element_size() for p in graph.parameters())
    file.parent.mkdir(parents=True, exist_ok=True)
    with warnings.catch_warnings(), torch.no_grad():
        warnings.simplefilter("ignore")  # of exporters about themselves
        graph.eval()(ids, torch.ones_like(ids))  # what is computed once is computed now
        exporter = logging.getLogger("torch.onnx._internal.exporter._registration")
        level = exporter.level
        exporter.setLevel(logging.ERROR)  # it misses torchvision, of which no graph here has an operator
        try:
            torch.onnx.export(
                graph,
                (ids, torch.ones_like(ids)),
                str(file),
                input_names=["input_ids", "attention_mask"],
                output_names=["sentence_embedding"],
                dynamic_shapes=(dynamic, dynamic),
                opset_version=OPSET,
                external_data=size > MOST_BYTES,
                dynamo=True,
                verbose=False,
            )
        except torch.onnx.OnnxExporterError as error:
            told, name = one_line(error.__cause__ or error), graph.exported.language_model.name
            raise InputError(f"torch {torch.__version__} cannot write {name} as ONNX: {told}") from error
        finally:
            exporter.setLevel(level)


class OnnxTransformer(ExportedModule):
    """The graph of an exported directory as the only module of a SentenceTransformer, run by onnxruntime."""

    def __init__(self, directory: str | Path, options: Mapping[str, Any] | None = None) -> None:
        """Open what :func:`write_onnx` wrote; raises InputError where it is damaged.

        ``options`` are ``provider`` (of onnxruntime), ``session_options``, and ``file_name``, a graph of your own
        beside the exported one, such as a quantised one.
        """
        super().__init__()
        known = {"provider", "session_options", "file_name", "export"}
        if strange := sorted(set(options or {}) - known):
            raise InputError(f"model_kwargs holds {', '.join(strange)}; expected some of {', '.join(known)}")
        self.directory, self.options = Path(directory), dict(options or {})
        self._open()

    def _open(self) -> None:
        from transformers import AutoTokenizer

        runtime = optional_module("onnxruntime", "onnx")
        manifest = read_manifest(self.directory, KIND).check()
        self.settings = dict(manifest.about)
        self.longest, self.width = int(self.settings["longest"]), int(self.settings["width"])
        self.tokenizer = AutoTokenizer.from_pretrained(self.directory / TOKENIZER, local_files_only=True)
        name = self.options.get("file_name")
        graph = self.directory / (GRAPH if name is None else f"onnx/{Path(name).name}")
        self.session = runtime.InferenceSession(
            str(graph),
            self.options.get("session_options"),
            providers=[self.options.get("provider", "CPUExecutionProvider")],
        )

    def __getstate__(self) -> dict[str, Any]:
        # other processes open a session of their own
        return {k: v for k, v in self.__dict__.items() if k != "session"}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        length = self.settings["max_length"]
        self._open()
        self.settings["max_length"] = length

    def preprocess(
        self, inputs: Sequence[Any], prompt: str | None = None, **kwargs: Any
    ) -> dict[str, Tensor]:
        """Tokenise texts: input_ids, attention_mask [b, t]. Raises InputError for anything else."""
        texts = [(prompt or "") + text for text in clean_texts(inputs)]
        cut: dict[str, Any] = {"truncation": True, "max_length": self.max_seq_length}
        tokenizer: Any = self.tokenizer
        tokens = tokenizer(texts, padding=True, padding_side="right", return_tensors="pt", **cut)
        return {name: tokens[name] for name in ("input_ids", "attention_mask")}

    def forward(self, features: dict[str, Any], **kwargs: Any) -> dict[str, Any]:
        """Add sentence_embedding [b, d]."""
        given = {name: features[name].cpu().numpy() for name in ("input_ids", "attention_mask")}
        vectors = self.session.run(["sentence_embedding"], given)[0]
        return {**features, "sentence_embedding": torch.from_numpy(vectors)}

    def save(self, output_path: str, *args: Any, **kwargs: Any) -> None:
        """Copy the directory's graph and tokenizer, with a manifest of them."""
        goal, manifest = Path(output_path), read_manifest(self.directory, KIND)
        files = {name: told for name, told in manifest.files.items() if name not in OF_THE_LIBRARY}
        for name in files if goal.resolve() != self.directory.resolve() else ():
            (goal / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(self.directory / name, goal / name)
        write_manifest(goal, KIND, manifest.about, files)

    @classmethod
    def load(cls, model_name_or_path: str, subfolder: str = "", **kwargs: Any) -> Self:  # type: ignore[override]
        """Read an exported directory, from disk or the hub. Raises InputError when it is damaged."""
        path = cls.found(model_name_or_path, subfolder, kwargs)
        made = cls(path, kwargs.get("model_kwargs"))
        length = (kwargs.get("processor_kwargs") or {}).get("model_max_length")
        if length is not None:
            made.max_seq_length = length
        return made


def write_onnx(exported: DebiasedTransformer, goal: Path) -> OnnxTransformer:
    """Write graph, tokenizer and manifest into ``goal``, and return the module that runs them."""
    model = exported.language_model
    write_graph(DebiasedGraph(exported), goal / GRAPH)
    tokenizer = copy.deepcopy(model.tokenizer)
    if tokenizer.pad_token is None:  # the mask says what is padding
        tokenizer.pad_token = tokenizer.eos_token or tokenizer.unk_token
    tokenizer.save_pretrained(goal / TOKENIZER)
    about = {
        "max_length": exported.max_seq_length,
        "longest": model.max_length,
        "width": exported.width,
        "prompt": model.prompt,
    }
    names = sorted(p for part in ("onnx", TOKENIZER) for p in (goal / part).rglob("*") if p.is_file())
    write_manifest(goal, KIND, about, {p.relative_to(goal).as_posix(): file_record(p) for p in names})
    return OnnxTransformer(goal)
