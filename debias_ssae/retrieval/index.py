"""A corpus with its vectors on disk: grows part by part, and is searched.

``DIR/manifest.json`` names the embedder, the parts, their sizes and hashes, and is written last: a part that it does
not name is not there. ``DIR/part-00000.parquet`` holds texts and their keys, ``.safetensors`` their vectors.
Every file is compared with its hash before it is first used.
"""

from collections.abc import Iterable, Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from debias_ssae.core.errors import InputError, one_line
from debias_ssae.core.io import (
    MANIFEST,
    Manifest,
    check_folder,
    file_record,
    mapped_tensors,
    only_writer,
    read_manifest,
    write_arrays,
    write_bytes,
    write_manifest,
)
from debias_ssae.core.steps import bar
from debias_ssae.retrieval.duplicates import text_key
from debias_ssae.retrieval.embedders import embed_texts

KIND = "debias-ssae index 2"
PART_TEXTS = 4096
_PROBE = "A nurse and a surgeon walk to the hospital in the rain."
_SAME_MODEL = 0.99
"""Cosine of the probe's vectors from which two embedders are one (precisions differ by less)."""


class CorpusIndex:
    """Texts and unit vectors in a folder; one text is held once, however often it is added."""

    def __init__(
        self, directory: str | Path, *, embedder: str | None = None, max_length: int | None = None
    ) -> None:
        """Open the index; with ``embedder``, one that is not there is made when texts are added.

        Raises InputError when there is none, when it is damaged, or when it was made with another embedder or
        length.
        """
        self.directory = Path(directory)
        self._asked = {"embedder": embedder, "max_length": max_length}
        self._is_same_model = False
        self.refresh()

    def refresh(self) -> None:
        """Read the manifest again, and compare what it claims with the sizes of the files and with what is asked."""
        there = (self.directory / MANIFEST).exists()
        self.manifest: Manifest = read_manifest(self.directory, KIND) if there else self._empty()
        self.settings: dict[str, Any] = self.manifest.about
        sizes, probe = self.settings.get("sizes"), self.settings.get("probe")
        if (
            not {"embedder", "max_length", "sizes", "probe"} <= set(self.settings)
            or type(self.settings.get("embedder")) is not str
            or type(self.settings.get("max_length")) is not int
            or not isinstance(sizes, list)
            or not all(type(n) is int and n > 0 for n in sizes)
            or not (
                probe is None or (isinstance(probe, list) and all(type(x) in (int, float) for x in probe))
            )
        ):
            raise InputError(f"{self.directory / MANIFEST} does not describe an index: make it again")
        for part, n in enumerate(sizes):
            name = self._name(part, "safetensors")
            if self.manifest.files.get(name, {}).get("n_bytes", 0) < 4 * n * len(probe or [0]):
                raise InputError(f"{self.directory / name} cannot hold {n} vectors: the index is damaged")
        for name, value in self._asked.items():
            if value not in (None, self.settings[name]):
                raise InputError(
                    f"{self.directory} was made with {name}={self.settings[name]!r}, not {value!r}"
                )

    def _empty(self) -> Manifest:
        """Return what an index that is not there yet holds; raises InputError where none can be made."""
        embedder, max_length = self._asked.values()
        if embedder is None:
            raise InputError(f"{self.directory} holds no index: make one with `debias-ssae retrieve index`")
        # another process may have made an index by now
        check_folder(self.directory, "index", lambda _: (self.directory / MANIFEST).exists())
        about: dict[str, Any] = {
            "embedder": embedder,
            "max_length": max_length or 128,
            "sizes": [],
            "probe": None,
        }
        return Manifest(self.directory, KIND, about, {})

    @property
    def sizes(self) -> list[int]:
        """Texts in each part."""
        return list(self.settings["sizes"])

    def __len__(self) -> int:
        return sum(self.settings["sizes"])

    def embed(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """Return unit vectors of ``texts`` from the index's embedder; raises InputError where that has changed."""
        if not self._is_same_model:
            probe = self._embed([_PROBE])[0]
            then = np.asarray(self.settings["probe"], np.float32)
            if probe.shape != then.shape or not float(probe @ then) > _SAME_MODEL:
                raise InputError(
                    f"{self.settings['embedder']} is not the model that {self.directory} was made with: its vectors"
                    " differ; make the index again"
                )
            self._is_same_model = True
        return self._embed(texts)

    def _embed(self, texts: Sequence[str], **options: Any) -> NDArray[np.float32]:
        return embed_texts(
            texts, self.settings["embedder"], max_length=self.settings["max_length"], **options
        )

    def add(self, texts: Iterable[str | None]) -> int:
        """Add the texts that are not there yet and return how many; interrupted, the same call goes on.

        Empty and missing texts and repeats (after folding case, spaces, punctuation) are passed over. Raises
        InputError where another process is adding to this index.
        """
        import pandas as pd

        with only_writer(self.directory):
            self.refresh()  # others may have added since
            if self.settings["probe"] is None:  # a mistyped embedder leaves no index behind
                about = self.settings | {"probe": self._embed([_PROBE])[0].astype(float).tolist()}
                write_manifest(self.directory, KIND, about, {})
                self.refresh()
            keys = {int(key) for part in range(len(self.sizes)) for key in self._table(part, ["key"])["key"]}
            fresh, added = _fresh(texts, {text_key(""), *keys}), 0
            with bar("index") as drawn:
                while chunk := list(islice(fresh, PART_TEXTS)):
                    table = pd.DataFrame(chunk, columns=["text", "key"])
                    self._append(table, self.embed(table["text"].tolist()))
                    added += len(chunk)
                    drawn.update(len(chunk))
        return added

    def _append(self, table: Any, vectors: NDArray[np.float32]) -> None:
        """Write one part, then the manifest that names it."""
        part, files = len(self.sizes), dict(self.manifest.files)
        texts, numbers = self._name(part, "parquet"), self._name(part, "safetensors")
        write_bytes(self.directory / texts, table.to_parquet(index=False))
        write_arrays(self.directory / numbers, {"vectors": np.asarray(vectors, np.float32)})
        files |= {name: file_record(self.directory / name) for name in (texts, numbers)}
        write_manifest(self.directory, KIND, self.settings | {"sizes": [*self.sizes, len(table)]}, files)
        self.refresh()

    def texts(self, ids: Sequence[int] | NDArray[np.int64]) -> list[str]:
        """Return the texts at the given positions, each part read once."""
        out: dict[int, str] = {}
        for part, rows in self._by_part(np.asarray(ids, np.int64)):
            table = self._table(part, ["text"]).iloc[rows - self._starts()[part]]
            out.update(zip(rows.tolist(), table["text"], strict=True))
        return [out[int(i)] for i in ids]

    def vectors(self, ids: NDArray[np.int64]) -> NDArray[np.float32]:
        """Return the vectors at the given positions, read through a memory map that is dropped afterwards."""
        places = np.argsort(ids, kind="stable")
        found = [
            np.asarray(self._part(part)[rows - self._starts()[part]]) for part, rows in self._by_part(ids)
        ]
        out = np.empty((len(ids), found[0].shape[1] if found else 0), np.float32)
        if found:
            out[places] = np.concatenate(found)
        return out

    def __iter__(self) -> Iterator[str]:
        """Yield all texts, one part at a time."""
        for start, vectors in self.parts():
            yield from self.texts(range(start, start + len(vectors)))

    def parts(self) -> Iterator[tuple[int, NDArray[np.float32]]]:
        """Yield the first position and the memory-mapped vectors of each part."""
        for part, start in enumerate(self._starts()[:-1].tolist()):
            yield start, self._part(part)

    def search(self, queries: NDArray[np.float32], k: int) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
        """Return positions and cosines [n, k] of the rows nearest to each query [n, d], best first.

        Every row is compared, one part at a time; where there are fewer than ``k``, ids are -1 and scores -inf.
        """
        scores = np.full((len(queries), k), -np.inf, np.float32)
        ids = np.full((len(queries), k), -1, np.int64)
        for start, vectors in self.parts():
            rows = np.broadcast_to(np.arange(start, start + len(vectors)), (len(queries), len(vectors)))
            scores, ids = np.hstack([scores, queries @ vectors.T]), np.hstack([ids, rows])
            best = np.argsort(-scores, axis=1, kind="stable")[:, :k]
            scores, ids = np.take_along_axis(scores, best, 1), np.take_along_axis(ids, best, 1)
        return ids, scores

    def products(self, query: NDArray[np.float32]) -> NDArray[np.float32]:
        """Return the inner products [n] of every row with ``query`` [d]."""
        return np.concatenate([np.zeros(0, np.float32), *(vectors @ query for _, vectors in self.parts())])

    def _table(self, part: int, columns: list[str]) -> Any:
        import pandas as pd

        path = self.manifest.file(self._name(part, "parquet"))
        try:
            table = pd.read_parquet(path, columns=columns)
        except (OSError, ValueError, KeyError) as error:
            raise InputError(f"{path} is no part of an index: {one_line(error)}") from error
        if len(table) != self.sizes[part]:
            raise InputError(
                f"{path} holds {len(table)} texts, expected {self.sizes[part]}: make the index again"
            )
        return table

    def _part(self, part: int) -> NDArray[np.float32]:
        path = self.manifest.file(self._name(part, "safetensors"))
        vectors = mapped_tensors(path).get("vectors")
        expected = (self.sizes[part], len(self.settings["probe"] or []))
        if vectors is None or vectors.shape != expected or str(vectors.dtype) != "torch.float32":
            raise InputError(f"{path} holds no vectors {expected}: make the index again")
        return vectors.numpy()

    @staticmethod
    def _name(part: int, ending: str) -> str:
        return f"part-{part:05d}.{ending}"

    def _starts(self) -> NDArray[np.int64]:
        return np.concatenate([[0], np.cumsum(self.sizes)]).astype(np.int64)

    def _by_part(self, ids: NDArray[np.int64]) -> list[tuple[int, NDArray[np.int64]]]:
        ordered = np.sort(ids)
        part_of = np.searchsorted(self._starts(), ordered, side="right") - 1
        return [(int(part), ordered[part_of == part]) for part in np.unique(part_of)]


def _fresh(texts: Iterable[str | None], keys: set[int]) -> Iterator[tuple[str, int]]:
    for text in texts:
        key = text_key(text) if isinstance(text, str) else text_key("")
        if key not in keys:
            keys.add(key)
            yield str(text).encode("utf-8", "replace").decode("utf-8"), key
