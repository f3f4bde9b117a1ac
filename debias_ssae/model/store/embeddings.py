"""Vectors of texts, kept on disk so that a model never runs twice on a text it has seen."""

import hashlib
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from safetensors.numpy import save

from debias_ssae.core.cache import mark_used
from debias_ssae.core.errors import InputError
from debias_ssae.core.io import file_digest, mapped_tensors, write_bytes, write_json

_DIGEST_BYTES = 16
_DIGEST_TYPE = np.dtype(f"S{_DIGEST_BYTES}")


class EmbeddingCache:
    """One vector a text, under ``directory``, for one ``key`` (model, hookpoint, pooling, edits, ...).

    Parts are safetensors files of digests and vectors, written whole under a name made from their content, so
    several processes may share the folder. A part whose content is not what its name says is dropped and its texts
    are computed again. Only the digests are in memory, 24 bytes a text; vectors are read from the files when they
    are asked for.
    """

    def __init__(self, directory: str | Path, key: str) -> None:
        """Open or make the folder; raises InputError where it cannot be written."""
        self.directory = Path(directory) / "embeddings" / hashlib.sha256(key.encode()).hexdigest()[:32]
        try:
            self.directory.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise InputError(f"Cannot make the cache folder {self.directory}: {error.strerror}") from error
        mark_used(self.directory)
        if not (self.directory / "key.json").exists():
            write_json(self.directory / "key.json", {"key": key})
        self._parts: list[Path] = []
        self._read: set[str] = set()
        # sorted digests, and for each its part and its row there as part * 2^32 + row
        self._digests = np.empty(0, _DIGEST_TYPE)
        self._places = np.empty(0, np.int64)

    def fetch(
        self, texts: Sequence[str], compute: Callable[[list[str]], NDArray[np.float32]]
    ) -> NDArray[np.float32]:
        """Return vectors [n_texts, d] in the order of ``texts``; ``compute`` gets the unseen ones only.

        The vectors handed back are the same bits in this run and in later ones.
        """
        digests = np.array([_digest(text) for text in texts], _DIGEST_TYPE)
        self._load_new_parts()
        known = self._is_known(digests)
        missing = {bytes(digests[i]): texts[i] for i in np.flatnonzero(~known).tolist()}
        if missing or not texts:
            fresh = np.ascontiguousarray(compute(list(missing.values())), dtype=np.float32)
            if len(fresh) != len(missing):
                raise InputError(f"{len(missing)} texts gave {len(fresh)} vectors: expected one each")
            if not texts:
                return fresh
            self._save(np.array(list(missing), _DIGEST_TYPE), fresh)
        return self._vectors(self._places[np.searchsorted(self._digests, digests)])

    def __len__(self) -> int:
        """Number of texts kept."""
        self._load_new_parts()
        return len(self._digests)

    def _is_known(self, digests: NDArray[np.bytes_]) -> NDArray[np.bool_]:
        if len(self._digests) == 0:
            return np.zeros(len(digests), bool)
        places = np.searchsorted(self._digests, digests).clip(max=len(self._digests) - 1)
        return np.asarray(self._digests[places] == digests)

    def _vectors(self, places: NDArray[np.int64]) -> NDArray[np.float32]:
        """Return the vectors at ``places``, read through a memory map a part that is dropped afterwards."""
        parts, rows = places >> 32, places & 0xFFFFFFFF
        out = np.empty(0, np.float32)
        for part in np.unique(parts).tolist():
            vectors = mapped_tensors(self._parts[part])["vectors"].numpy()
            out = out if len(out) else np.empty((len(places), vectors.shape[1]), np.float32)
            out[parts == part] = vectors[rows[parts == part]]
        return out

    def _save(self, digests: NDArray[np.bytes_], vectors: NDArray[np.float32]) -> None:
        names = np.frombuffer(digests.tobytes(), np.uint8).reshape(-1, _DIGEST_BYTES)
        data = save({"digests": names, "vectors": vectors})
        part = self.directory / self._name(hashlib.sha256(data).hexdigest())
        write_bytes(part, data)
        self._add(part)

    def _load_new_parts(self) -> None:
        for part in sorted(self.directory.glob("part-*.safetensors")):
            if part.name in self._read:
                continue
            try:
                self._add(part)
            except (InputError, KeyError, ValueError):
                part.unlink(missing_ok=True)

    def _add(self, part: Path) -> None:
        """Note which texts ``part`` holds, and where."""
        if part.name != self._name(file_digest(part)):
            raise InputError(f"{part} is damaged")
        tensors = mapped_tensors(part)
        names, vectors = tensors["digests"].numpy(), tensors["vectors"].numpy()
        if (
            names.shape != (len(vectors), _DIGEST_BYTES)
            or names.dtype != np.uint8
            or vectors.dtype != np.float32
        ):
            raise ValueError(f"{part} holds no vectors of texts")
        digests = names.view(_DIGEST_TYPE).ravel()
        digests, rows = np.unique(digests, return_index=True)
        new = ~self._is_known(digests)
        at = np.searchsorted(self._digests, digests[new])
        self._digests = np.insert(self._digests, at, digests[new])
        self._places = np.insert(self._places, at, (len(self._parts) << 32) + rows[new])
        self._parts.append(part)
        self._read.add(part.name)

    def _name(self, digest: str) -> str:
        """The name of a part of this key: one of another model's, copied here, is not taken."""
        bound = hashlib.sha256(f"{self.directory.name} {digest}".encode()).hexdigest()
        return f"part-{bound[:24]}.safetensors"


def _digest(text: str) -> bytes:
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).digest()[:_DIGEST_BYTES]
