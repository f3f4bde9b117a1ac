"""Reading a store: in order, or shuffled with bounded memory."""

from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from debias_ssae.core.errors import InputError
from debias_ssae.core.io import Place, read_json, tensor_places
from debias_ssae.model.store.shards import DTYPES, FORMAT, shard_path, shard_problem
from debias_ssae.model.store.shuffling import ShuffledRows


class ActivationStore:
    """A finished store. Rows are read by position from the files: nothing is mapped or kept in memory."""

    def __init__(self, directory: str | Path, *, verify: bool = False) -> None:
        """Open a store; with ``verify`` every checksum is compared.

        Raises InputError when it is no finished store, or names the shards that are missing or damaged.
        """
        self.directory = Path(directory)
        if not (self.directory / "manifest.json").exists():
            hint = (
                " (unfinished: run the same harvest again)"
                if (self.directory / "settings.json").exists()
                else ""
            )
            raise InputError(f"{self.directory} holds no finished activation store{hint}")
        self.manifest = read_json(self.directory / "manifest.json")
        self.settings: dict[str, Any] = self.manifest["settings"]
        if self.settings.get("format") != FORMAT:
            raise InputError(
                f"{self.directory} has format {self.settings.get('format')!r}, expected {FORMAT!r}"
            )
        self.records: list[dict[str, Any]] = self.manifest["shards"]
        problems = self.damaged() if verify else self._wrong_sizes()
        if problems:
            raise InputError(f"{'; '.join(problems)}. Run the same harvest again: only these are redone")
        self._headers: dict[int, dict[str, Place]] = {}

    @property
    def hookpoints(self) -> list[str]:
        """Hookpoints kept."""
        return list(self.settings["hookpoints"])

    @property
    def n_rows(self) -> int:
        """Rows (real tokens) in all."""
        return int(self.manifest["totals"]["n_rows"])

    @property
    def n_texts(self) -> int:
        """Texts in all, those without rows included."""
        return int(self.manifest["totals"]["n_texts"])

    @property
    def d_model(self) -> int:
        """Width of a row."""
        return int(self.settings["d_model"])

    def damaged(self) -> list[str]:
        """Return one line for each shard whose file differs from its record."""
        found = (shard_problem(self.directory, number) for number in range(len(self.records)))
        return [problem for problem in found if problem is not None]

    def shard(self, number: int, hookpoint: str | None = None) -> dict[str, Tensor]:
        """Return one shard: x [n, d] float32, text_ids, token_ids [n], offsets [n, 2]."""
        header = self._header(number)
        out = {"x": self._read(number, header[self._key(hookpoint)]).float()}
        return out | {k: self._read(number, header[k]) for k in ("text_ids", "token_ids", "offsets")}

    def rows(self, hookpoint: str | None = None) -> Iterator[Tensor]:
        """Yield the rows of each shard in turn, [n, d] float32."""
        for number in range(len(self.records)):
            yield self._read(number, self._header(number)[self._key(hookpoint)]).float()

    def shuffled(
        self,
        hookpoint: str | None = None,
        *,
        batch_size: int = 2048,
        buffer_rows: int = 131_072,
        block_rows: int = 64,
        n_epochs: int | None = None,
        random_state: int | None = None,
    ) -> ShuffledRows:
        """Return an iterator of batches [batch_size, d] float32 in random order, each row once an epoch.

        Blocks of ``block_rows`` neighbours are drawn at random from the whole store into a buffer of
        ``buffer_rows`` rows, which is handed out in random order: no more than the buffer and one batch is in
        memory. Rows that do not fill a batch at an epoch's end go on into the next; ``n_epochs`` None never
        ends. ``seek(n)`` goes to the place after n batches at the cost of one buffer. Raises InputError when
        one epoch holds less than a batch.
        """
        if not 0 < batch_size <= self.n_rows:
            raise InputError(f"batch_size={batch_size}, but the store has {self.n_rows} rows: give fewer")
        if block_rows < 1 or buffer_rows < block_rows:
            raise InputError(f"buffer_rows={buffer_rows} must hold at least one block of {block_rows} rows")
        return ShuffledRows(
            partial(self._gather, self._key(hookpoint)),
            [int(record["n_rows"]) for record in self.records],
            batch_size=batch_size,
            buffer_rows=buffer_rows,
            block_rows=block_rows,
            n_epochs=n_epochs,
            random_state=random_state,
        )

    def _gather(self, key: str, blocks: NDArray[np.int64], block_rows: int) -> Tensor:
        dtype = DTYPES[self.settings["dtype"]]
        width = self.d_model * dtype.itemsize
        sizes = [int(self.records[i]["n_rows"]) for i in range(len(self.records))]
        counts = [min(block_rows, sizes[i] - start) for i, start in blocks]
        out = bytearray(sum(counts) * width)
        view, at = memoryview(out), 0
        opened: tuple[int, Any] | None = None
        try:
            for (number, start), count in zip(blocks.tolist(), counts, strict=True):
                if opened is None or opened[0] != number:
                    if opened is not None:
                        opened[1].close()
                    opened = (number, shard_path(self.directory, number).open("rb", buffering=0))
                opened[1].seek(self._header(number)[key].offset + start * width)
                if opened[1].readinto(view[at : at + count * width]) != count * width:
                    raise InputError(f"{shard_path(self.directory, number)} is damaged (it ends too early)")
                at += count * width
        finally:
            if opened is not None:
                opened[1].close()
        return (
            torch.frombuffer(out, dtype=dtype).view(-1, self.d_model) if out else torch.empty(0, self.d_model)
        )

    def _key(self, hookpoint: str | None) -> str:
        name = self.hookpoints[0] if hookpoint is None else hookpoint
        if name not in self.hookpoints:
            raise InputError(f"The store has no hookpoint {name!r}: it holds {', '.join(self.hookpoints)}")
        return f"x/{name}"

    def _header(self, number: int) -> dict[str, Place]:
        if number not in self._headers:
            self._headers[number] = tensor_places(shard_path(self.directory, number))
        return self._headers[number]

    def _read(self, number: int, place: Place) -> Tensor:
        dtype = getattr(torch, place.dtype)
        n = int(np.prod(place.shape))
        if n == 0:
            return torch.empty(place.shape, dtype=dtype)
        with shard_path(self.directory, number).open("rb") as file:
            file.seek(place.offset)
            data = bytearray(file.read(n * dtype.itemsize))
        if len(data) != n * dtype.itemsize:
            raise InputError(f"{shard_path(self.directory, number)} is damaged (it ends too early)")
        return torch.frombuffer(data, dtype=dtype).view(place.shape)

    def _wrong_sizes(self) -> list[str]:
        found = []
        for number, record in enumerate(self.records):
            path = shard_path(self.directory, number)
            if not path.exists():
                found.append(f"{path} is missing")
            elif path.stat().st_size != record["n_bytes"]:
                found.append(f"{path} is damaged ({path.stat().st_size} bytes, {record['n_bytes']} expected)")
        return found
