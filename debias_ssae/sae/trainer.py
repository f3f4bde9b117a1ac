"""Training of a sparse autoencoder from a stream of rows: from scratch, from another, or beside it."""

import math
import time
from collections.abc import Callable, Iterator
from itertools import chain, islice
from numbers import Integral
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor
from tqdm import tqdm

from debias_ssae.core.config import SAEConfig, TrainConfig
from debias_ssae.core.device import pick_device
from debias_ssae.core.errors import InputError
from debias_ssae.sae.checkpoints import Checkpoint, checkpoint_files, newest_checkpoint, write_checkpoint
from debias_ssae.sae.model import SparseAutoencoder
from debias_ssae.sae.processes import Processes
from debias_ssae.sae.state import Training
from debias_ssae.sae.streams import CheckedStream, ShuffledBatches, shuffled_batches

__all__ = ["ShuffledBatches", "TrainResult", "shuffled_batches", "train_sae"]

OnStep = Callable[[int, dict[str, float]], bool | None]
Evaluator = Callable[[SparseAutoencoder], dict[str, float]]


class TrainResult(NamedTuple):
    """A trained SAE and how it got there."""

    sae: SparseAutoencoder
    history: list[dict[str, float]]
    """Every log_every steps: step, loss, tilted_loss, fvu, l0, dead_fraction, ess, max_weight, tilt, lr,
    aux_loss, penalty, seconds; and eval_* where the evaluator was called."""


def train_sae(
    stream: Iterator[Tensor] | Iterator[tuple[Tensor, Tensor]],
    cfg: SAEConfig,
    train: TrainConfig | None = None,
    *,
    init: SparseAutoencoder | None = None,
    frozen_latents: bool = False,
    random_state: int | None = None,
    progress: bool = False,
    on_step: OnStep | None = None,
    evaluator: Evaluator | None = None,
    checkpoint_dir: str | Path | None = None,
    resume: bool = False,
) -> TrainResult:
    """Train on the batches [n, d_in] of ``stream``, or on pairs of a batch and its rows' weights [n].

    ``init``: an SAE of the same shape to train on from. With ``frozen_latents`` its latents stay as they are,
    ``cfg`` describes latents to add, which learn what ``init`` leaves unexplained (SAE Boost, arXiv
    2507.12990), and the result holds both, as a jumprelu SAE. ``on_step(step, record)`` may return True to
    stop. ``evaluator(sae)`` is called every evaluate_every steps; its numbers enter the history.

    With ``checkpoint_dir``, ``resume=True`` continues from the newest sound checkpoint there, if any, to the
    same weights, bit for bit on one process: give the same stream from its beginning (it is sought with its
    ``seek``, else read past what was used). A run that stopped early stays stopped. Under torch.distributed
    every rank gives the same stream and works on its share of each batch; rank 0 writes.

    Raises InputError for an empty stream, one that ends early, or a batch of wrong width, NaN or infinity;
    it names the batch, and the checkpoints written before stay. Raises InputError for checkpoints of another run:
    another configuration, ``init``, ``random_state`` or seed of the stream.
    """
    train = train or TrainConfig()
    _check_init(cfg, init, frozen_latents=frozen_latents)
    processes = Processes(pick_device(train.device))
    training = Training(cfg, train, processes, frozen=init if frozen_latents else None)
    identity = {
        "cfg": cfg.model_dump(mode="json"),
        "train": train.model_dump(mode="json"),
        "init": None if init is None else init.fingerprint(),
        "frozen_latents": frozen_latents,
        "random_state": None if random_state is None else int(random_state),
        "the stream's seed": _seed_of(stream),
    }
    run = _Run(training, checkpoint_dir, identity, resume=resume)
    checked = CheckedStream(stream, cfg.d_in, training.dtype, n_steps=train.n_steps, skip=run.done)
    batches = checked if run.done else run.begin(checked, None if frozen_latents else init, random_state)
    return run.train(batches, on_step, evaluator, progress=progress)


class _Run:
    """The loop around a training: records, evaluation, early stop and checkpoints."""

    def __init__(
        self,
        training: Training,
        checkpoint_dir: str | Path | None,
        identity: dict[str, Any],
        *,
        resume: bool,
    ) -> None:
        """``identity``, JSON values, is what two runs have in common when one may go on from the other."""
        self.training, self.identity = training, identity
        self.directory = None if checkpoint_dir is None else Path(checkpoint_dir)
        self.done, self.stopped = 0, False
        self.history: list[dict[str, float]] = []
        self.best, self.looks, self.recent = math.inf, 0, list[float]()
        if self.directory is not None:
            self._open(self.directory, resume=resume)
        training.processes.wait()

    def begin(
        self, stream: CheckedStream, init: SparseAutoencoder | None, random_state: int | None
    ) -> Iterator[Any]:
        """Start the training on the stream's first batches; returns the whole stream, those included."""
        train = self.training.train
        first = list(islice(stream, min(train.init_batches, train.n_steps)))
        rows = torch.cat([x for x, _ in first])
        self.training.begin(rows, init, random_state)
        return chain(first, stream)

    def train(
        self,
        batches: Iterator[tuple[Tensor, Tensor | None]],
        on_step: OnStep | None,
        evaluator: Evaluator | None,
        *,
        progress: bool,
    ) -> TrainResult:
        """Do the steps that are left; none where the run had stopped early."""
        training, train = self.training, self.training.train
        hidden = not progress or training.processes.rank > 0
        bar = tqdm(total=train.n_steps, initial=self.done, disable=hidden, desc="SAE", unit="step")
        started = saved = time.monotonic()
        rows = 0
        with bar, torch.no_grad():
            for step in range(self.done, self.done if self.stopped else train.n_steps):
                x, row_weights = next(batches)
                last = step == train.n_steps - 1
                logged = step % train.log_every == 0 or last
                record = training.step(step, x, row_weights, measure=logged or on_step is not None)
                rows += len(x)
                self.done = step + 1
                if record:
                    record["seconds"] = time.monotonic() - started
                    record["rows_per_second"] = rows / max(record["seconds"], 1e-9)
                self.stopped = on_step is not None and on_step(step, record) is True
                if logged:
                    self.history.append(record)
                    self.recent.append(record["fvu"])
                    shown = ("loss", "fvu", "l0", "dead_fraction", "rows_per_second")
                    bar.set_postfix({name: f"{record[name]:.3g}" for name in shown}, refresh=False)
                bar.update()
                if self.done % train.evaluate_every == 0 or last:
                    self.stopped |= self._look(evaluator, record if logged else None)
                if self._is_due(saved) or last or self.stopped:
                    self._save()
                    saved = time.monotonic()
                if self.stopped:
                    break
        return TrainResult(training.folded(), self.history)

    def _look(self, evaluator: Evaluator | None, record: dict[str, float] | None) -> bool:
        """Evaluate; returns whether fvu has not become better for ``patience`` looks that had one."""
        fvu = sum(self.recent) / len(self.recent) if self.recent else None
        self.recent = []
        if evaluator is not None:
            measured = evaluator(self.training.folded())
            if record is None:
                record = {"step": self.done - 1}
                self.history.append(record)
            record.update({f"eval_{name}": float(value) for name, value in measured.items()})
            fvu = float(measured["fvu"]) if "fvu" in measured else fvu
        if fvu is None:
            return False
        self.looks = 0 if fvu < self.best else self.looks + 1
        self.best = min(self.best, fvu)
        patience = self.training.train.patience
        return patience is not None and self.looks >= patience

    def _is_due(self, saved: float) -> bool:
        train = self.training.train
        late = time.monotonic() - saved > 60 * train.checkpoint_minutes
        return self.done % train.checkpoint_steps == 0 or late

    def _save(self) -> None:
        if self.directory is None or self.training.processes.rank > 0:
            return
        tensors, numbers = self.training.state()
        state = {
            "numbers": numbers,
            "identity": self.identity,
            "history": self.history,
            "best": self.best,
            "looks": self.looks,
            "recent": self.recent,
            "stopped": self.stopped,
        }
        write_checkpoint(self.directory, Checkpoint(self.done, tensors, state))

    def _open(self, directory: Path, *, resume: bool) -> None:
        """Continue from the newest sound checkpoint, if asked; refuse to mix with another run's."""
        if not resume:
            if checkpoint_files(directory):
                raise InputError(
                    f"{directory} holds checkpoints; pass resume=True (--resume) or give another directory"
                )
            return
        found = newest_checkpoint(directory)
        if found is None:
            return
        there = found.state["identity"]
        other = [name for name in self.identity if there.get(name) != self.identity[name]]
        if other:
            raise InputError(
                f"The checkpoints in {directory} are of another configuration ({', '.join(other)}); "
                "give what they were made with, or another directory"
            )
        self.training.restore(found.tensors, found.state["numbers"])
        self.done, self.history = found.step, found.state["history"]
        self.best, self.looks, self.recent = (found.state[name] for name in ("best", "looks", "recent"))
        self.stopped = found.state["stopped"]


def _seed_of(stream: Any) -> int | None:
    """The seed of a stream that tells it (``shuffled_batches``, a store's); a drawn one is never drawn again."""
    seed = getattr(stream, "seed", None)
    return int(seed) if isinstance(seed, Integral) else None


def _check_init(cfg: SAEConfig, init: SparseAutoencoder | None, *, frozen_latents: bool) -> None:
    if init is None:
        if frozen_latents:
            raise InputError("frozen_latents=True needs init=, the SAE whose latents stay as they are")
        return
    if init.cfg.d_in != cfg.d_in or (not frozen_latents and init.cfg.d_sae != cfg.d_sae):
        raise InputError(
            f"init has d_in={init.cfg.d_in}, d_sae={init.cfg.d_sae}; the configuration asks for "
            f"d_in={cfg.d_in}, d_sae={cfg.d_sae}: make them equal"
        )
    if frozen_latents and not (init.is_elementwise and cfg.architecture != "topk"):
        raise InputError(
            "frozen_latents=True needs elementwise architectures for init and the added latents, not topk"
        )
