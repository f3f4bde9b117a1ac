"""Vectors of texts, kept on disk so that a model never runs twice on a text it has seen."""

import hashlib
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.numpy import load_file, save

from debias_ssae.exceptions import InputError
from debias_ssae.store.files import write_json, write_whole

_DIGEST_BYTES = 16


class EmbeddingCache:
    """One vector a text, under ``directory``, for one ``key`` (model, hookpoint, pooling, edits, ...).

    Parts are safetensors files of digests and vectors, written whole under a name made from their content, so
    several processes may share the folder. A damaged part is dropped and its texts are computed again.
    """

    def __init__(self, directory: str | Path, key: str) -> None:
        """Open or make the folder; raises InputError where it cannot be written."""
        self.directory = Path(directory) / "embeddings" / hashlib.sha256(key.encode()).hexdigest()[:32]
        try:
            self.directory.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise InputError(f"Cannot make the cache folder {self.directory}: {error.strerror}") from error
        if not (self.directory / "key.json").exists():
            write_json(self.directory / "key.json", {"key": key})
        self._vectors: dict[bytes, NDArray[np.float32]] = {}
        self._read: set[str] = set()

    def fetch(
        self, texts: Sequence[str], compute: Callable[[list[str]], NDArray[np.float32]]
    ) -> NDArray[np.float32]:
        """Return vectors [n_texts, d] in the order of ``texts``; ``compute`` gets the unseen ones only.

        The vectors handed back are the same bits in this run and in later ones.
        """
        digests = [_digest(text) for text in texts]
        self._load_new_parts()
        missing = {d: t for d, t in zip(digests, texts, strict=True) if d not in self._vectors}
        if missing or not texts:
            fresh = np.ascontiguousarray(compute(list(missing.values())), dtype=np.float32)
            if len(fresh) != len(missing):
                raise InputError(f"{len(missing)} texts gave {len(fresh)} vectors: expected one each")
            if not texts:
                return fresh
            self._vectors.update(zip(missing, fresh, strict=True))
            self._save(list(missing), fresh)
        return np.stack([self._vectors[d] for d in digests])

    def __len__(self) -> int:
        """Number of texts kept."""
        self._load_new_parts()
        return len(self._vectors)

    def _save(self, digests: list[bytes], vectors: NDArray[np.float32]) -> None:
        names = np.frombuffer(b"".join(digests), np.uint8).reshape(-1, _DIGEST_BYTES)
        data = save({"digests": names, "vectors": vectors})
        part = self.directory / f"part-{hashlib.sha256(data).hexdigest()[:24]}.safetensors"
        write_whole(part, data)
        self._read.add(part.name)

    def _load_new_parts(self) -> None:
        for part in sorted(self.directory.glob("part-*.safetensors")):
            if part.name in self._read:
                continue
            try:
                tensors = load_file(part)
                rows = zip(tensors["digests"], tensors["vectors"], strict=True)
                self._vectors.update((name.tobytes(), vector) for name, vector in rows)
            except (SafetensorError, KeyError, ValueError):
                part.unlink(missing_ok=True)
                continue
            self._read.add(part.name)


def _digest(text: str) -> bytes:
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).digest()[:_DIGEST_BYTES]
