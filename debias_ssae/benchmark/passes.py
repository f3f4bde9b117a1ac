"""Passes of texts through the model: each runs once, whole, and is kept."""

import hashlib
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from safetensors import SafetensorError
from safetensors.numpy import load_file, save

from debias_ssae.core.io import read_or_make, write_bytes
from debias_ssae.model.encoder import ActivationEncoder, Edit
from debias_ssae.text.concept import Concept


@dataclass(frozen=True)
class Encoding:
    """A way from texts to vectors, with a name that tells it from every other way."""

    key: str
    encode: Callable[[list[str]], np.ndarray]
    shared: bool = False
    """The same in every seed, so that one pass over all texts serves them all."""


@dataclass
class Passes:
    """Vectors of texts under an encoding, kept under ``directory`` by encoding, texts and model.

    A pass is kept whole, never text by text: which texts share a batch changes the last bits, and a run that
    was cut off must end with the same bits as one that was not. Passes of shared encodings stay in memory too.
    """

    encoder: ActivationEncoder
    directory: str | Path | None = None
    _kept: dict[str, tuple[np.ndarray, float]] = field(default_factory=dict)

    def run(self, encoding: Encoding, texts: Sequence[str]) -> tuple[np.ndarray, float]:
        """Return float32 vectors ``[n_texts, d]`` and the seconds that a text took."""
        key = self._digest(encoding.key, texts)
        if key in self._kept:
            return self._kept[key]
        if self.directory is None:
            found = _timed(encoding, texts)
        else:
            found = self._on_disk(key, encoding, texts, Path(self.directory))
        if encoding.shared:
            self._kept[key] = found
        return found

    @staticmethod
    def _on_disk(
        key: str, encoding: Encoding, texts: Sequence[str], directory: Path
    ) -> tuple[np.ndarray, float]:
        file = directory / "passes" / f"{key}.safetensors"
        file.parent.mkdir(parents=True, exist_ok=True)

        def make() -> tuple[np.ndarray, float]:
            vectors, seconds = _timed(encoding, texts)
            write_bytes(file, save({"vectors": vectors, "seconds": np.array([seconds])}))
            return vectors, seconds

        return read_or_make(directory / "locks" / key, lambda: _read(file), make)

    def plain(self) -> Encoding:
        """The model as it is."""
        return Encoding("plain", self.encoder.encode, shared=True)

    def edited(self, edits: Mapping[str, Edit], *, shared: bool = False) -> Encoding:
        """The model with ``edits`` inside."""
        key = "|".join(f"{hookpoint}={edits[hookpoint].fingerprint}" for hookpoint in sorted(edits))
        return Encoding(key, lambda texts: self.encoder.encode(texts, edits), shared=shared)

    def rewritten(self, name: str, concept: Concept, rewrite: Callable[[str], str]) -> Encoding:
        """The model on texts that are rewritten first; ``rewrite`` follows from ``name`` and ``concept``."""
        return Encoding(
            f"{name}:{concept.sha256}",
            lambda texts: self.encoder.encode([rewrite(text) for text in texts]),
            shared=True,
        )

    def _digest(self, key: str, texts: Sequence[str]) -> str:
        encoder = self.encoder
        settings = [
            self._model,
            encoder.layer,
            encoder.pooling,
            encoder.max_length,
            encoder.token_budget,
            key,
        ]
        digest = hashlib.sha256(repr(settings).encode())
        for text in texts:
            digest.update(text.encode("utf-8", "surrogatepass") + b"\0")
        return digest.hexdigest()[:32]

    @property
    def _model(self) -> str:
        # hashing all weights takes a while, and there is one model in a run
        if not hasattr(self, "_fingerprint"):
            self._fingerprint = self.encoder.language_model.fingerprint
        return self._fingerprint


def _timed(encoding: Encoding, texts: Sequence[str]) -> tuple[np.ndarray, float]:
    start = time.perf_counter()
    vectors = encoding.encode(list(texts))
    return vectors, (time.perf_counter() - start) / max(len(texts), 1)


def _read(file: Path) -> tuple[np.ndarray, float] | None:
    """What was kept, or None where there is nothing or the file is damaged."""
    try:
        tensors = load_file(file)
        return tensors["vectors"], float(tensors["seconds"][0])
    except (OSError, SafetensorError, KeyError):
        return None
