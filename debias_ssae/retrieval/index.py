"""A corpus on disk that grows part by part and holds each text once, with its vectors.

``DIR/manifest.json`` names the embedder, its length and the parts with their hashes, and is written last: a part that
it does not name is not there. ``DIR/part-00000.parquet`` holds texts and their keys, ``DIR/embeddings`` their vectors,
which are made again where they are damaged or the model has changed.
"""

from collections.abc import Iterable, Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from pydantic import Field

from debias_ssae.core.config import Settings, make_config
from debias_ssae.core.errors import InputError, one_line
from debias_ssae.core.io import (
    MANIFEST,
    Manifest,
    check_folder,
    file_record,
    only_writer,
    read_manifest,
    write_bytes,
    write_manifest,
)
from debias_ssae.core.steps import bar
from debias_ssae.retrieval.duplicates import text_key
from debias_ssae.retrieval.embedders import embed_texts, load_embedder

KIND = "debias-ssae index 3"
PART_TEXTS = 4096


class IndexSettings(Settings):
    embedder: str
    max_length: int = Field(default=128, ge=3)
    n_texts: int = Field(default=0, ge=0)


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
        self._asked = {"embedder": embedder} | ({} if max_length is None else {"max_length": max_length})
        self._refresh()

    def _refresh(self) -> None:
        """Read the manifest, which another process may have written, and compare it with what is asked."""
        file = self.directory / MANIFEST
        if file.exists():
            self._manifest = read_manifest(self.directory, KIND)
        elif self._asked["embedder"] is None:
            raise InputError(f"{self.directory} holds no index: make one with `debias-ssae retrieve index`")
        else:
            check_folder(self.directory, "index", lambda _: file.exists())  # by now
            self._manifest = Manifest(self.directory, KIND, self._asked, {})
        self.about = make_config(IndexSettings, self._manifest.about, f"{file} does not describe an index")
        for name, value in self._asked.items():
            if value not in (None, getattr(self.about, name)):
                raise InputError(
                    f"{self.directory} was made with {name}={getattr(self.about, name)!r}, not {value!r}"
                )

    def __len__(self) -> int:
        return self.about.n_texts

    def add(self, texts: Iterable[str | None]) -> int:
        """Add the texts that are not there yet and return how many; interrupted, the same call goes on.

        Empty and missing texts and repeats (after folding case, spaces, punctuation) are passed over. Raises
        InputError where another process is adding to this index.
        """
        load_embedder(self.about.embedder)  # a mistyped one leaves no index behind
        with only_writer(self.directory), bar("index") as drawn:
            self._refresh()  # others may have added since
            self._write(self._manifest.files, len(self))
            before, fresh = len(self), _fresh(texts, {text_key(""), *map(int, self._column("key"))})
            while chunk := list(islice(fresh, PART_TEXTS)):
                table = pd.DataFrame(chunk, columns=["text", "key"])
                self._vectors(table["text"].tolist())
                part = f"part-{len(self._manifest.files):05d}.parquet"
                write_bytes(self.directory / part, table.to_parquet(index=False))
                record = {part: file_record(self.directory / part)}
                self._write(self._manifest.files | record, len(self) + len(chunk))
                drawn.update(len(chunk))
        return len(self) - before

    def _write(self, files: dict[str, dict[str, Any]], n_texts: int) -> None:
        write_manifest(self.directory, KIND, self.about.updated(n_texts=n_texts).model_dump(), files)
        self._refresh()

    def texts(self) -> list[str]:
        """Return all texts, in the order in which they were added. Raises InputError where a part is damaged."""
        return [str(text) for text in self._column("text")]

    def nearest(self, queries: Sequence[str], n: int) -> list[tuple[str, float]]:
        """Return the ``n`` texts nearest to ``queries``, best first, with their mean cosines. Raises InputError."""
        texts, about = self.texts(), self.about
        query = embed_texts(queries, about.embedder, max_length=about.max_length).mean(0)
        scores = self._vectors(texts) @ query
        best = np.argsort(-scores, kind="stable")[:n]
        return [(texts[i], float(scores[i])) for i in best]

    def _vectors(self, texts: Sequence[str]) -> NDArray[np.float32]:
        about = self.about
        return embed_texts(texts, about.embedder, max_length=about.max_length, cache_dir=self.directory)

    def _column(self, name: str) -> list[Any]:
        found: list[Any] = []
        for file in sorted(self._manifest.files):
            path = self._manifest.file(file)
            try:
                found += pd.read_parquet(path, columns=[name])[name].tolist()
            except (OSError, ValueError, KeyError) as error:
                raise InputError(f"{path} is no part of an index: {one_line(error)}") from error
        return found


def _fresh(texts: Iterable[str | None], keys: set[int]) -> Iterator[tuple[str, int]]:
    for text in texts:
        key = text_key(text) if isinstance(text, str) else text_key("")
        if key not in keys:
            keys.add(key)
            yield str(text).encode("utf-8", "replace").decode("utf-8"), key
