"""A corpus with its vectors on disk: grows part by part, searched exactly or through IVF-PQ.

``DIR/index.json``: embedder and length. ``DIR/part-00000.parquet`` (text, source, key), ``.npy`` (vectors) and
``.json`` (written last: a part without it is not finished). ``DIR/ivfpq.faiss`` and ``.json``: codes of the rows
that were there when it was built.
"""

import hashlib
import json
import os
from collections.abc import Iterable, Iterator, Sequence
from itertools import islice, repeat
from pathlib import Path
from tempfile import NamedTemporaryFile
from typing import Any

import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from debias_ssae.core.errors import InputError
from debias_ssae.retrieval.approximate import ApproximateIndex
from debias_ssae.retrieval.duplicates import fold
from debias_ssae.retrieval.embedders import embed_texts
from debias_ssae.retrieval.exact import Hits, exact_search

PART_TEXTS = 4096
EXACT_LIMIT = 1_000_000
"""Rows up to which a search compares with every row."""


class CorpusIndex:
    """Texts and unit vectors in a folder; one text is held once, however often it is added."""

    def __init__(
        self, directory: str | Path, *, embedder: str | None = None, max_length: int | None = None
    ) -> None:
        """Open the index, or with ``embedder`` make one.

        Raises InputError when there is none, or when it was made with another embedder or length.
        """
        self.directory = Path(directory)
        file = self.directory / "index.json"
        if file.exists():
            self.settings: dict[str, Any] = json.loads(file.read_text(encoding="utf-8"))
        elif embedder is None:
            raise InputError(f"{self.directory} holds no index: make one with `debias-ssae retrieve index`")
        else:
            self.directory.mkdir(parents=True, exist_ok=True)
            self.settings = {"embedder": embedder, "max_length": 128 if max_length is None else max_length}
            _write_json(file, self.settings)
        for name, value in (("embedder", embedder), ("max_length", max_length)):
            if value is not None and value != self.settings[name]:
                raise InputError(
                    f"{self.directory} was made with {name}={self.settings[name]!r}, not {value!r}"
                )

    @property
    def sizes(self) -> list[int]:
        """Texts in each finished part."""
        return [
            json.loads(p.read_text(encoding="utf-8"))["n_texts"]
            for p in sorted(self.directory.glob("part-*.json"))
        ]

    def __len__(self) -> int:
        return sum(self.sizes)

    def embed(self, texts: Sequence[str], *, progress: bool = False) -> NDArray[np.float32]:
        """Return unit vectors of ``texts`` from the index's embedder."""
        settings = self.settings
        return embed_texts(texts, settings["embedder"], max_length=settings["max_length"], progress=progress)

    def add(
        self, texts: Iterable[str | None], sources: Iterable[str] | None = None, *, progress: bool = False
    ) -> int:
        """Add the texts that are not there yet and return how many; interrupted, the same call goes on.

        Empty and missing texts and repeats (after folding case, spaces, punctuation) are passed over.
        """
        import pandas as pd

        keys = {int(key) for part in range(len(self.sizes)) for key in self._table(part)["key"]}
        named = zip(texts, repeat("") if sources is None else sources, strict=False)
        fresh = _fresh(named, keys)
        added = 0
        with tqdm(desc="index", unit="text", disable=not progress) as bar:
            while chunk := list(islice(fresh, PART_TEXTS)):
                stem = self.directory / f"part-{len(self.sizes):05d}"
                table = pd.DataFrame(chunk, columns=["text", "source", "key"])
                vectors = self.embed(table["text"].tolist())
                _replace(stem.with_suffix(".parquet"), table.to_parquet(index=False))
                with NamedTemporaryFile(dir=self.directory, suffix=".tmp", delete=False) as file:
                    np.save(file, vectors)
                os.replace(file.name, stem.with_suffix(".npy"))
                _write_json(stem.with_suffix(".json"), {"n_texts": len(chunk)})
                added += len(chunk)
                bar.update(len(chunk))
        return added

    def texts(self, ids: Sequence[int] | NDArray[np.int64]) -> list[tuple[str, str]]:
        """Return (text, source) at the given positions."""
        out: dict[int, tuple[str, str]] = {}
        for part, rows in self._by_part(np.asarray(ids, np.int64)):
            table = self._table(part, ["text", "source"]).iloc[rows - self._starts()[part]]
            out.update(zip(rows.tolist(), zip(table["text"], table["source"], strict=True), strict=True))
        return [out[int(i)] for i in ids]

    def vectors(self, ids: NDArray[np.int64]) -> NDArray[np.float32]:
        """Return the vectors at the given positions, read through a memory map that is dropped afterwards."""
        places = np.argsort(ids, kind="stable")
        found = [
            np.asarray(np.load(self._vector_file(part), mmap_mode="r")[rows - self._starts()[part]])
            for part, rows in self._by_part(ids)
        ]
        out = np.empty((len(ids), found[0].shape[1] if found else 0), np.float32)
        if found:
            out[places] = np.concatenate(found)
        return out

    def parts(self) -> Iterator[tuple[int, NDArray[np.float32]]]:
        """Yield the first position and the memory-mapped vectors of each part."""
        for part, start in enumerate(self._starts()[:-1].tolist()):
            yield start, np.load(self._vector_file(part), mmap_mode="r")

    def all_vectors(self) -> NDArray[np.float32]:
        """Return every vector [n, d] in memory."""
        found = [vectors for _, vectors in self.parts()]
        return np.concatenate(found) if found else np.zeros((0, 0), np.float32)

    def search(self, queries: NDArray[np.float32], k: int, *, exact: bool | None = None) -> Hits:
        """Return the ``k`` nearest rows of each query [n, d].

        ``exact`` None compares with every row up to a million rows, and beyond uses IVF-PQ where it was built.
        """
        if exact is None:
            exact = len(self) <= EXACT_LIMIT or not (self.directory / "ivfpq.faiss").exists()
        return exact_search(self.parts(), queries, k) if exact else ApproximateIndex(self).search(queries, k)

    def _table(self, part: int, columns: list[str] | None = None) -> Any:
        import pandas as pd

        return pd.read_parquet(self.directory / f"part-{part:05d}.parquet", columns=columns)

    def _vector_file(self, part: int) -> Path:
        return self.directory / f"part-{part:05d}.npy"

    def _starts(self) -> NDArray[np.int64]:
        return np.concatenate([[0], np.cumsum(self.sizes)]).astype(np.int64)

    def _by_part(self, ids: NDArray[np.int64]) -> list[tuple[int, NDArray[np.int64]]]:
        ordered = np.sort(ids)
        part_of = np.searchsorted(self._starts(), ordered, side="right") - 1
        return [(int(part), ordered[part_of == part]) for part in np.unique(part_of)]


def _fresh(named: Iterable[tuple[str | None, str]], keys: set[int]) -> Iterator[tuple[str, str, int]]:
    for text, source in named:
        folded = fold(text) if isinstance(text, str) else ""
        key = int.from_bytes(
            hashlib.blake2b(folded.encode("utf-8", "replace"), digest_size=7).digest(), "little"
        )
        if folded and key not in keys:
            keys.add(key)
            yield str(text).encode("utf-8", "replace").decode("utf-8"), str(source), key


def _write_json(path: Path, values: Any) -> None:
    _replace(path, json.dumps(values).encode())


def _replace(path: Path, data: bytes) -> None:
    with NamedTemporaryFile(dir=path.parent, suffix=".tmp", delete=False) as file:
        file.write(data)
    os.replace(file.name, path)
