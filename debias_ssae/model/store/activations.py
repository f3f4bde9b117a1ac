"""Activations on disk: shards of whole texts, a record beside each, one manifest; read in order or shuffled.

``DIR/shard-00000.safetensors`` holds ``x/{hookpoint}`` [n, d], ``text_ids``, ``token_ids`` [n] and ``offsets`` [n, 2];
what lies beside it, ``core.shards`` says.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors.torch import save
from torch import Tensor

from debias_ssae.core.errors import InputError
from debias_ssae.core.io import MANIFEST, mapped_tensors, read_manifest, write_bytes
from debias_ssae.core.shards import ShardWriter, shard_problem, totals

FORMAT = "debias-ssae activations 2"
DTYPES = {"float32": torch.float32, "float16": torch.float16, "bfloat16": torch.bfloat16}


class StoreWriter(ShardWriter):
    """Writes shards of activations into a folder, and knows which are already there."""

    def __init__(self, directory: str | Path, settings: Mapping[str, Any]) -> None:
        """Open ``directory`` for shards made with ``settings`` (JSON values, "dtype" among them).

        Raises InputError when the folder holds a store made with other settings, or other files.
        """
        if settings.get("dtype") not in DTYPES:
            raise InputError(
                f"Unknown store dtype {settings.get('dtype')!r}: give one of {', '.join(DTYPES)}"
            )
        super().__init__(directory, FORMAT, settings, ending=".safetensors")

    def write_rows(self, number: int, tensors: Mapping[str, Tensor], record: Mapping[str, Any]) -> None:
        """Write shard ``number``; raises InputError when the disk is full, or when a value does not fit float16."""
        dtype = DTYPES[self.settings["dtype"]]
        stored = {}
        for name, tensor in tensors.items():
            value = tensor.to(dtype) if name.startswith("x/") else tensor
            if dtype == torch.float16 and name.startswith("x/") and not bool(value.isfinite().all()):
                raise InputError(f"{name[2:]} has values beyond float16: give dtype bfloat16 or float32")
            stored[name] = value.contiguous()
        self.write(number, lambda path: write_bytes(path, save(stored)), record)


def shard_path(directory: Path, number: int) -> Path:
    """Return the file of shard ``number``."""
    return directory / f"shard-{number:05d}.safetensors"


Gather = Callable[[NDArray[np.int64], int], Tensor]
"""From blocks [m, 2] (shard, first row), in the order of the files, and a block's size to their rows."""


class ShuffledRows(Iterator[Tensor]):
    """Batches [batch_size, d] float32 in random order, each row once an epoch, the epochs end to end.

    Blocks of neighbouring rows are drawn at random into a buffer, which is shuffled and handed out. An epoch's
    order depends on the seed and its number only, so that ``seek`` reads no more than one buffer.
    """

    def __init__(
        self,
        gather: Gather,
        shard_rows: Sequence[int],
        *,
        batch_size: int,
        buffer_rows: int,
        block_rows: int,
        n_epochs: int | None,
        random_state: int | None,
    ) -> None:
        self._gather, self._sizes, self._block_rows = gather, np.asarray(shard_rows, np.int64), block_rows
        self._batch_size, self._per_buffer = batch_size, buffer_rows // block_rows
        self._n_rows = int(self._sizes.sum())
        self._end = None if n_epochs is None else n_epochs * self._n_rows
        self.seed = int(np.random.default_rng().integers(1 << 31)) if random_state is None else random_state
        self._position = 0
        self._epoch = self._buffer = -1
        self._blocks = np.empty((0, 2), np.int64)
        self._starts = np.zeros(1, np.int64)
        self._rows, self._order = torch.empty(0), torch.empty(0, dtype=torch.int64)

    def seek(self, n_batches: int) -> None:
        """Go to where the stream is after ``n_batches`` batches."""
        self._position = n_batches * self._batch_size

    def __next__(self) -> Tensor:
        if self._end is not None and self._position + self._batch_size > self._end:
            raise StopIteration
        parts, missing = [], self._batch_size
        while missing:
            epoch, offset = divmod(self._position, self._n_rows)
            buffer = self._buffer_at(epoch, offset)
            within = offset - int(self._starts[buffer])
            rows = self._rows[self._order[within : within + missing]].float()
            parts.append(rows)
            self._position += len(rows)
            missing -= len(rows)
        return parts[0] if len(parts) == 1 else torch.cat(parts)

    def _buffer_at(self, epoch: int, offset: int) -> int:
        """Load the buffer that holds row ``offset`` of an epoch; returns its number."""
        if epoch != self._epoch:
            self._epoch, self._buffer = epoch, -1
            self._draw_blocks(np.random.default_rng([self.seed, epoch]))
        number = int(np.searchsorted(self._starts, offset, side="right")) - 1
        if number != self._buffer:
            self._rows = torch.empty(0)  # let go of the old one before the new one is read
            chosen = self._blocks[number * self._per_buffer : (number + 1) * self._per_buffer]
            self._rows = self._gather(chosen[np.lexsort((chosen[:, 1], chosen[:, 0]))], self._block_rows)
            rng = np.random.default_rng([self.seed, epoch, number])
            self._order, self._buffer = torch.from_numpy(rng.permutation(len(self._rows))), number
        return number

    def _draw_blocks(self, rng: np.random.Generator) -> None:
        """Put all blocks in this epoch's order, and note at which row each buffer starts."""
        blocks = np.concatenate(
            [
                np.stack([np.full(-(-n // self._block_rows), i), np.arange(0, n, self._block_rows)], axis=1)
                for i, n in enumerate(self._sizes.tolist())
            ]
        )
        self._blocks = blocks[rng.permutation(len(blocks))]
        counts = np.minimum(self._block_rows, self._sizes[self._blocks[:, 0]] - self._blocks[:, 1])
        ends = np.cumsum(counts)[self._per_buffer - 1 :: self._per_buffer]
        self._starts = np.concatenate([[0], ends[ends < self._n_rows]]).astype(np.int64)


class ActivationStore:
    """A finished store. Rows are read by position from the files: nothing is mapped or kept in memory."""

    def __init__(self, directory: str | Path, *, verify: bool = False) -> None:
        """Open a store; with ``verify`` every checksum is compared.

        Raises InputError when it is no finished store, or names the shards that are missing or damaged.
        """
        self.directory = Path(directory)
        if not (self.directory / MANIFEST).exists():
            hint = (
                " (unfinished: run the same harvest again)"
                if (self.directory / "settings.json").exists()
                else ""
            )
            raise InputError(f"{self.directory} holds no finished activation store{hint}")
        self._files = read_manifest(self.directory, FORMAT)
        self.manifest = self._files.about
        self.settings: dict[str, Any] = self.manifest.get("settings", {})
        self.records: list[dict[str, Any]] = self.manifest.get("shards", [])
        self._check_manifest()
        found = [
            shard_problem(shard_path(self.directory, i), one, contents=verify)
            for i, one in enumerate(self.records)
        ]
        if problems := [problem for problem in found if problem is not None]:
            raise InputError(f"{'; '.join(problems)}. Run the same harvest again: only these are redone")

    def _check_manifest(self) -> None:
        """Refuse numbers that would be used to loop or allocate and that no store has."""
        try:
            sound = (
                self.settings["format"] == FORMAT
                and self.settings["dtype"] in DTYPES
                and type(self.settings["d_model"]) is int
                and self.settings["d_model"] > 0
                and self.settings["hookpoints"]
                and all(type(name) is str for name in self.settings["hookpoints"])
                and [r["name"] for r in self.records]
                == [shard_path(Path(), i).name for i in range(len(self.records))]
                and all(type(r["n_rows"]) is int and r["n_rows"] >= 0 for r in self.records)
                and self.manifest["totals"] == totals(self.records)
                and {"n_texts", "n_rows", "n_bytes"} <= set(self.manifest["totals"])
            )
        except (KeyError, TypeError, AttributeError, ValueError, OverflowError):
            sound = False
        if not sound:
            raise InputError(f"{self.directory / MANIFEST} does not describe a store: run the harvest again")

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

    def shard(self, number: int, hookpoint: str | None = None) -> dict[str, Tensor]:
        """Return one shard: x [n, d] float32, text_ids, token_ids [n], offsets [n, 2]."""
        key = self._key(hookpoint)
        found = self._files.tensors(shard_path(self.directory, number).name)
        x = self._rows(found, number, key)
        if lacking := {"text_ids", "token_ids", "offsets"} - set(found):
            raise InputError(f"{shard_path(self.directory, number)} holds no {min(lacking)}: harvest again")
        return {"x": x.float()} | {k: found[k] for k in ("text_ids", "token_ids", "offsets")}

    def rows(self, hookpoint: str | None = None) -> Iterator[Tensor]:
        """Yield the rows of each shard in turn, [n, d] float32."""
        for number in range(len(self.records)):
            yield self.shard(number, hookpoint)["x"]

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
        parts = []
        for number in np.unique(blocks[:, 0]).tolist():
            path = self._files.file(
                shard_path(self.directory, number).name
            )  # compared when it is first opened
            rows = self._rows(mapped_tensors(path), number, key)
            starts = blocks[blocks[:, 0] == number, 1].tolist()
            parts.append(torch.cat([rows[start : start + block_rows] for start in starts]))
        return torch.cat(parts)

    def _key(self, hookpoint: str | None) -> str:
        name = self.hookpoints[0] if hookpoint is None else hookpoint
        if name not in self.hookpoints:
            raise InputError(f"The store has no hookpoint {name!r}: it holds {', '.join(self.hookpoints)}")
        return f"x/{name}"

    def _rows(self, tensors: Mapping[str, Tensor], number: int, key: str) -> Tensor:
        """Return the rows among a shard's tensors; raises InputError where they are not those of the manifest."""
        rows, shape = tensors.get(key), (self.records[number]["n_rows"], self.d_model)
        if rows is None or rows.shape != shape or rows.dtype != DTYPES[self.settings["dtype"]]:
            raise InputError(
                f"{shard_path(self.directory, number)} holds no {shape} rows of {key.removeprefix('x/')}"
            )
        return rows
