"""Training of a sparse autoencoder from a stream of rows: from scratch, or from another."""

import math
import time
from collections.abc import Iterator
from copy import deepcopy
from itertools import chain, islice
from numbers import Integral
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.nn.functional import linear

from debias_ssae.core.config import SAEConfig, TrainConfig
from debias_ssae.core.device import has_fast_bf16, pick_device, pick_dtype, plain_precision
from debias_ssae.core.errors import InputError
from debias_ssae.core.steps import bar
from debias_ssae.sae.checkpoints import Checkpoint, checkpoint_files, newest_checkpoint, write_checkpoint
from debias_ssae.sae.fast import Knobs, Weights, compute_step
from debias_ssae.sae.losses import effective_sample_size, tilt_for_ess, tilt_weights, tilted
from debias_ssae.sae.model import SparseAutoencoder, check_memory, seeded, unwritten

REVIVAL = 10.0
"""Learning rates by which the threshold of a dead latent falls in a step: jumprelu's log threshold, relu's bias (up).
AuxK trains latents that have something above zero to train; the threshold itself gets no gradient from afar."""
CONSTANT = 1e-6
"""Share of the mean standard deviation below which a column counts as constant: it is smaller than the rounding of the
others."""
DEAD_FIRINGS = 160
"""A latent is dead once the average latent has fired so often since it last did."""
START_ROWS, MOST_START_ROWS = 4, 65_536
"""Rows a latent from which the first decoder rows are taken, and at most so many."""

NUMBERS = ("scale", "mean_loss", "threshold", "threshold_known")
"""What of a training a checkpoint holds beside its tensors."""


# ---------------------------------------------------------------- streams of batches


class ShuffledBatches(Iterator[Tensor]):
    """Endless batches of rows of ``x`` [n, d]: every epoch is a new permutation of all rows.

    The order depends on ``random_state`` and n only, and ``seek`` goes to any batch at once, so that a
    resumed training sees the same rows.
    """

    def __init__(self, x: Tensor, batch_size: int, random_state: int | None = None) -> None:
        if x.dim() != 2 or len(x) == 0:
            raise InputError(f"Expected activations [n, d] with at least one row, got shape {tuple(x.shape)}")
        if batch_size < 1:
            raise InputError(f"batch_size={batch_size} must be at least 1")
        self.x = x
        self.batch_size = batch_size
        self.seed = torch.Generator().seed() % (1 << 31) if random_state is None else int(random_state)
        self._position = 0
        self._epoch = -1
        self._order = torch.empty(0, dtype=torch.long)

    def seek(self, n_batches: int) -> None:
        """Go to where the stream is after ``n_batches`` batches."""
        self._position = n_batches * self.batch_size

    def __next__(self) -> Tensor:
        n, missing = len(self.x), self.batch_size
        parts = []
        while missing:
            epoch, start = divmod(self._position, n)
            taken = min(missing, n - start)
            parts.append(self._permutation(epoch)[start : start + taken])
            self._position += taken
            missing -= taken
        rows = self.x[torch.cat(parts)]
        return rows if rows.dtype == torch.float64 else rows.float()

    def _permutation(self, epoch: int) -> Tensor:
        if epoch != self._epoch:
            generator = torch.Generator().manual_seed((self.seed + 1_000_003 * epoch) % (1 << 63))
            self._order, self._epoch = torch.randperm(len(self.x), generator=generator), epoch
        return self._order


def shuffled_batches(x: Tensor, batch_size: int, random_state: int | None = None) -> ShuffledBatches:
    """Return endless shuffled batches [batch_size, d] of the rows of ``x`` [n, d], in float32 or float64."""
    return ShuffledBatches(x, batch_size, random_state)


def checked_stream(
    stream: Any, d_in: int, dtype: torch.dtype, *, n_steps: int, skip: int = 0
) -> Iterator[Tensor]:
    """Yield the batches of a stream; a bad one is an InputError, and so is an end.

    ``skip`` batches were used before: they are passed over with the stream's ``seek``, or one by one.
    """
    stream, number = iter(stream), 0
    if skip and hasattr(stream, "seek"):
        stream.seek(skip)
        number = skip
    while True:
        try:
            x = next(stream)
        except StopIteration:
            message = (
                f"The stream ended after {number} batches; n_steps={n_steps} asks for more: "
                "give an endless stream (shuffled_batches) or lower n_steps"
            )
            raise InputError(
                message if number else "The stream is empty; it must yield tensors of rows"
            ) from None
        number += 1
        if number <= skip:
            continue
        if not isinstance(x, Tensor) or x.dim() != 2 or x.shape[1] != d_in or len(x) == 0:
            came = f"shape {tuple(x.shape)}" if isinstance(x, Tensor) else f"type {type(x).__name__}"
            raise InputError(
                f"Batch {number - 1} of the stream has {came}; expected a tensor [n, {d_in}]: "
                "take the activations of the hookpoint that d_in was set for"
            )
        x = x.to(dtype)
        if not bool(torch.isfinite(x.sum())) and not bool(torch.isfinite(x).all()):
            bad = int((~torch.isfinite(x)).any(1).sum())
            raise InputError(
                f"Batch {number - 1} of the stream holds NaN or infinity in {bad} of {len(x)} rows: drop them"
            )
        yield x


# ---------------------------------------------------------------- where a training starts


def sparsity(cfg: SAEConfig, train: TrainConfig) -> float:
    """Return the weight of the penalty on latents, with its default for the architecture."""
    if train.sparsity is not None:
        return train.sparsity
    return {"relu": 0.1, "jumprelu": 1.0}.get(cfg.architecture, 0.0)


def distinct_directions(rows: Tensor, most: int, same: float) -> Tensor:
    """Return at most ``most`` unit vectors [m, d]: the directions of ``rows`` [n, d] that are not alike.

    In the order of the rows, a row becomes a leader unless an earlier one has a cosine of ``same`` or more with it; a
    leader then moves to the mean of the rows that are nearest to it and as alike (one pass of spherical k-means).
    Frequent kinds of rows come first, each once. Where the rows run out of kinds, what they differ in from their
    leaders is treated the same, once more.
    """
    least = 1e-4 * float(rows.norm(dim=1).mean())
    found = _leaders(rows, most, same, least)
    if 0 < len(found) < most:
        short = _short(found)
        nearest = torch.cat([linear(_short(part), short).argmax(1) for part in rows.split(2048)])
        along = (rows * found[nearest]).sum(1, keepdim=True)
        found = torch.cat([found, _leaders(rows - along * found[nearest], most - len(found), same, least)])
    return found


def _short(rows: Tensor) -> Tensor:
    """In bfloat16 where that is faster: it holds a cosine to 0.01, which is as good a bound as any."""
    return rows.bfloat16() if has_fast_bf16(rows.device.type) else rows


def _leaders(rows: Tensor, most: int, same: float, least: float) -> Tensor:
    """Return the leaders among the rows that are longer than ``least``."""
    length = rows.norm(dim=1, keepdim=True)
    rows = (rows / length.clamp_min(1e-30))[length.squeeze(1) > least]
    if not len(rows):
        return rows
    short = _short(rows)
    leaders = torch.empty(min(most, len(rows)), rows.shape[1], dtype=short.dtype, device=rows.device)
    n = 0
    for part in short.split(512):
        if n:
            part = part[linear(part, leaders[:n]).amax(1) < same]
        alike = (part @ part.T >= same).cpu().numpy()
        chosen: list[int] = []
        covered = alike[:0].any(0)
        for i in range(len(part)):
            if not covered[i]:
                chosen.append(i)
                covered = covered | alike[i]
        chosen = chosen[: len(leaders) - n]
        leaders[n : n + len(chosen)] = part[chosen]
        n += len(chosen)
        if n == len(leaders):
            break
    leaders = leaders[:n]
    means = torch.zeros(n, rows.shape[1], dtype=rows.dtype, device=rows.device)
    for part, exact in zip(short.split(2048), rows.split(2048), strict=True):
        cosine, nearest = linear(part, leaders).max(1)
        alike_rows = cosine >= same
        means.index_add_(0, nearest[alike_rows], exact[alike_rows])
    means = torch.where(means.norm(dim=1, keepdim=True) > 0, means, leaders.to(means))
    return means / means.norm(dim=1, keepdim=True).clamp_min(1e-12)


def unit_decoder(sae: SparseAutoencoder, scale: float) -> Weights:
    """Return the weights for rows multiplied by ``scale``, each decoder row at norm 1; the same function."""
    norm = sae.W_dec.detach().norm(dim=1, keepdim=True).clamp_min(1e-12)
    return Weights(
        W_enc=sae.W_enc.detach() * norm,
        b_enc=sae.b_enc.detach() * norm.squeeze(1) * scale,
        W_dec=sae.W_dec.detach() / norm,
        b_dec=sae.b_dec.detach() * scale,
    )


def log_threshold(
    weights: Weights, rows: Tensor, scale: float, cfg: SAEConfig, init: SparseAutoencoder | None
) -> Tensor:
    """Return jumprelu's first log threshold [d_sae]: init's, else one at which k latents a row are active.

    ``rows`` [n, d_in] and ``weights`` are in the units of training, ``scale`` times those of ``init``.
    """
    if init is not None:
        norm = init.W_dec.detach().norm(dim=1).to(weights.b_enc)
        threshold = init.threshold.detach().to(weights.b_enc) * norm * scale
        return threshold.clamp_min(1e-3).log()
    sample = rows[:512]
    pre = torch.addmm(weights.b_enc, sample - weights.b_dec, weights.W_enc.T).flatten()
    n_active = min(len(sample) * cfg.k, len(pre))
    return pre.kthvalue(len(pre) - n_active + 1).values.clamp_min(1e-3).log().repeat(cfg.d_sae)


# ---------------------------------------------------------------- one step and what it changes


class Adam:
    """Adam (Kingma and Ba 2015, arXiv 1412.6980) that moves only the latents which have a gradient.

    A latent's moments and its bias correction count the steps in which it had one. With all latents in every step this
    is the usual Adam; a rare latent keeps what it learnt between its rows, and a step costs what fired.
    """

    BETAS, EPSILON = (0.9, 0.999), 1e-8

    def __init__(self, weights: Weights) -> None:
        self.state: dict[str, Tensor] = {"steps": torch.zeros_like(weights.b_enc)}
        self.state["all_steps"] = weights.b_enc.new_zeros(1)
        for name, value in weights.tensors().items():
            self.state |= {f"{name}.mean": torch.zeros_like(value), f"{name}.square": torch.zeros_like(value)}

    def step(self, weights: Weights, gradient: Weights, rows: Tensor | None, lr: float) -> None:
        """Move ``weights`` against ``gradient``, of the latents ``rows`` or of all; decoder rows keep norm 1."""
        steps = self.state["steps"]
        steps[slice(None) if rows is None else rows] += 1
        self.state["all_steps"] += 1
        for name, value in weights.tensors().items():
            at = None if name == "b_dec" else rows
            count = self.state["all_steps"] if name == "b_dec" else steps if at is None else steps[at]
            if value.dim() == 2:
                count = count.unsqueeze(1)
            self._move(name, value, getattr(gradient, name), at, count, lr)

    def _move(
        self, name: str, value: Tensor, slope: Tensor, rows: Tensor | None, count: Tensor, lr: float
    ) -> None:
        beta, gamma = self.BETAS
        kept = (value, self.state[f"{name}.mean"], self.state[f"{name}.square"])
        new, mean, square = kept if rows is None else (part.index_select(0, rows) for part in kept)
        mean.lerp_(slope, 1 - beta)
        square.mul_(gamma).addcmul_(slope, slope, value=1 - gamma)
        root = square.div(1 - gamma**count).sqrt_().add_(self.EPSILON)
        new.sub_(root.reciprocal_().mul_(mean).mul_(lr / (1 - beta**count)))
        if name == "W_dec":
            new.div_(torch.linalg.vector_norm(new, dim=1, keepdim=True).clamp_min_(1e-12))
        if rows is not None:
            for whole, part in zip(kept, (new, mean, square), strict=True):
                whole.index_copy_(0, rows, part)


class Training:
    """Weights, optimiser and running means, in units where the centred data has variance 1 a dimension."""

    weights: Weights
    optimiser: Adam
    constant: Tensor
    """Columns that are neither read nor written."""

    def __init__(self, cfg: SAEConfig, train: TrainConfig) -> None:
        self.cfg, self.train = cfg, train
        self.device = pick_device(train.device)
        self.dtype = torch.float64 if cfg.dtype == "float64" else torch.float32
        proposes = cfg.architecture not in ("relu", "jumprelu") and cfg.dtype == "float32"
        self.knobs = Knobs(
            cfg,
            bfloat16=proposes and pick_dtype(train.matmul_dtype, self.device) == torch.bfloat16,
            bandwidth=train.bandwidth,
            aux_coefficient=train.aux_coefficient,
            k_aux=train.k_aux,
        )
        expected = cfg.k * train.batch_size / cfg.d_sae
        self.dead_steps = train.dead_steps or max(1, math.ceil(DEAD_FIRINGS / expected))
        # running means forget over 100 steps, or over a tenth of a shorter training
        self.memory = 1.0 - min(1.0, max(0.01, 10 / train.n_steps))
        self.scale, self.mean_loss, self.threshold, self.threshold_known = 1.0, math.nan, 0.0, False
        self.center = torch.zeros(cfg.d_in, device=self.device, dtype=self.dtype)
        self.silent = torch.zeros(cfg.d_sae, dtype=torch.long, device=self.device)

    def begin(self, rows: Tensor, init: SparseAutoencoder | None, random_state: int | None) -> None:
        """Estimate scale and centre on the first ``rows`` [n, d_in] and set the first weights.

        Columns that hardly vary (all-MiniLM-L6-v2 has three) stay out: what an eraser wrote there would be
        rounding, which a head that standardises its columns blows up to the size of all else.
        """
        rows = rows.to(self.device)
        self.center = rows.mean(0)
        variance = float((rows - self.center).square().sum(1).mean())
        if not 0 < variance < math.inf:
            raise InputError(
                f"The first {len(rows)} rows of the stream do not vary, or by too little or too much for float32 "
                f"(their variance reads {variance:g}); give rows of a usual scale"
            )
        self.scale = math.sqrt(self.cfg.d_in / variance)
        start = self._fresh(rows, random_state) if init is None else init
        weights = unit_decoder(self._own(start), self.scale)
        if init is None:
            weights.b_dec = self.center * self.scale
        if self.cfg.architecture == "jumprelu":
            weights.log_threshold = log_threshold(weights, rows * self.scale, self.scale, self.cfg, init)
        if init is not None and init.cfg.architecture in ("batchtopk", "matryoshka"):
            self.threshold, self.threshold_known = float(init.threshold) * self.scale, True
        constant = rows.double().std(0) * self.scale < CONSTANT
        for matrix in (weights.W_enc, weights.W_dec):
            matrix[:, constant] = 0.0
        weights.W_dec.div_(weights.W_dec.norm(dim=1, keepdim=True).clamp_min(1e-12))
        self._attach(weights)

    def _fresh(self, rows: Tensor, random_state: int | None) -> SparseAutoencoder:
        """Return an untrained SAE; its decoder rows are distinct ones of ``rows`` as long as there are any."""
        sae = SparseAutoencoder(self.cfg, random_state=random_state)
        if self.train.start == "rows":
            order = torch.randperm(len(rows), generator=seeded(random_state)).to(rows.device)
            found = distinct_directions((rows - self.center)[order], self.cfg.d_sae, self.train.start_cosine)
            with torch.no_grad():
                for matrix in (sae.W_enc, sae.W_dec):
                    matrix[: len(found)] = found.to(matrix)
        return sae

    def _own(self, sae: SparseAutoencoder) -> SparseAutoencoder:
        """Return a copy here: a module's ``to`` would move the caller's."""
        return deepcopy(sae).to(self.device, self.dtype)

    def step(self, step: int, x: Tensor, *, measure: bool) -> dict[str, float]:
        """Train on the batch ``x`` [n, d_in]; returns the step's record, empty unless ``measure``."""
        train, x = self.train, x.to(self.device)
        self.knobs.sparsity = sparsity(self.cfg, train) * _rise(step, train.sparsity_warmup_fraction, train)
        record: dict[str, float] = {}
        self.knobs.measure = measure
        dead = self.silent >= self.dead_steps
        result = compute_step(
            self.weights,
            x * self.scale,
            self.knobs,
            lambda losses: self._weigh(losses, step, record, measure=measure),
            dead=dead if bool(dead.any()) else None,
        )
        self.silent = torch.where(result.fired > 0, 0, self.silent + 1)
        if self.cfg.architecture in ("batchtopk", "matryoshka"):
            old = self.threshold if self.threshold_known else result.threshold
            self.threshold = self.memory * old + (1 - self.memory) * result.threshold
            self.threshold_known = True
        lr = self._update(result.gradient, result.rows, step)
        if train.aux_coefficient > 0:
            self._lower_thresholds(REVIVAL * lr)
        if measure:
            variance = float((x - self.center).double().square().sum()) * self.scale**2
            error = float(result.errors.double().sum()) * self.cfg.d_in
            record |= {
                "step": step,
                "fvu": error / max(variance, 1e-30),
                "l0": result.n_active / len(x),
                "dead_fraction": float((self.silent >= self.dead_steps).double().mean()),
                "aux_loss": result.aux_loss,
                "penalty": result.penalty,
                "lr": lr,
            }
        return record

    def _weigh(self, losses: Tensor, step: int, record: dict[str, float], *, measure: bool) -> Tensor:
        """Return the rows' weights, which sum to 1."""
        train, mean = self.train, float(losses.double().mean())
        if not math.isfinite(mean):
            raise InputError(
                f"The loss of step {step} is {mean}; lower lr={train.lr} or look at the activations"
            )
        old = mean if math.isnan(self.mean_loss) else self.mean_loss
        self.mean_loss = self.memory * old + (1 - self.memory) * mean
        relative = losses / max(self.mean_loss, 1e-12)
        t = tilt_for_ess(relative, train.tilt_ess) if train.tilt == "auto" else train.tilt
        t *= _rise(step, train.tilt_warmup_fraction, train)
        weights = tilt_weights(relative, t)
        if measure:
            record.update(
                loss=mean,
                tilted_loss=float(tilted(relative, t)) * self.mean_loss,
                tilt=t,
                ess=effective_sample_size(weights),
                max_weight=float(weights.max()),
            )
        return weights.to(losses.dtype)

    def _update(self, gradient: Weights, rows: Tensor | None, step: int) -> float:
        """One step of Adam on the latents ``rows``, their decoder rows kept at norm 1; returns the learning rate."""
        weights, train = self.weights, self.train
        if len(self.constant):
            for part in (gradient.W_enc, gradient.W_dec, gradient.b_dec):
                part[..., self.constant] = 0.0
        W_dec = weights.W_dec if rows is None else weights.W_dec[rows]
        along = torch.einsum("ij,ij->i", gradient.W_dec, W_dec)
        gradient.W_dec.addcmul_(along.unsqueeze(1), W_dec, value=-1.0)
        parts = gradient.tensors()
        norm = float(torch.stack([part.norm() for part in parts.values()]).norm())
        if train.clip_norm is not None and norm > train.clip_norm:
            for part in parts.values():
                part.mul_(train.clip_norm / norm)
        lr = train.lr * _rise(step, train.warmup_fraction, train) * _fall(step, train)
        self.optimiser.step(weights, gradient, rows, lr)
        return lr

    def _lower_thresholds(self, size: float) -> None:
        """Bring the dead latents of thresholded architectures nearer to firing."""
        dead = self.silent >= self.dead_steps
        if self.weights.log_threshold is not None:
            self.weights.log_threshold.sub_(dead * size)
        elif self.cfg.architecture == "relu":
            self.weights.b_enc.add_(dead * size)

    def _attach(self, weights: Weights) -> None:
        self.weights = weights
        self.constant = unwritten(weights.W_dec)
        self.optimiser = Adam(weights)

    def folded(self) -> SparseAutoencoder:
        """Return the SAE for rows as they come, on the CPU: the scale enters biases and threshold."""
        sae = SparseAutoencoder(self.cfg, random_state=0)
        weights = self.weights
        with torch.no_grad():
            sae.W_enc.copy_(weights.W_enc)
            sae.b_enc.copy_(weights.b_enc / self.scale)
            sae.W_dec.copy_(weights.W_dec)
            sae.b_dec.copy_(weights.b_dec / self.scale)
            if weights.log_threshold is not None:
                sae.threshold.copy_(weights.log_threshold.exp() / self.scale)
            else:
                sae.threshold.fill_(self.threshold / self.scale)
        return sae

    def state(self) -> tuple[dict[str, Tensor], dict[str, Any]]:
        """Return all that a resumed training needs: tensors, and numbers for JSON."""
        tensors = {f"weights.{name}": value for name, value in self.weights.tensors().items()}
        tensors |= {f"optimiser.{name}": value for name, value in self.optimiser.state.items()}
        tensors |= {"silent": self.silent, "center": self.center}
        return tensors, {name: getattr(self, name) for name in NUMBERS}

    def restore(self, tensors: dict[str, Tensor], numbers: dict[str, Any]) -> None:
        """Continue from what ``state`` returned."""
        # copied into torch's own aligned memory: dot products depend on alignment in their last bits
        tensors = {name: value.to(self.device, copy=True) for name, value in tensors.items()}
        named = {name[8:]: value for name, value in tensors.items() if name.startswith("weights.")}
        self._attach(Weights(**named))
        for name in self.optimiser.state:
            self.optimiser.state[name] = tensors[f"optimiser.{name}"]
        self.silent, self.center = tensors["silent"], tensors["center"]
        for name in NUMBERS:
            setattr(self, name, numbers[name])


def _rise(step: int, fraction: float, train: TrainConfig) -> float:
    """Return how far a warm-up over ``fraction`` of the steps has come, up to 1."""
    steps = fraction * train.n_steps
    return min(1.0, (step + 1) / steps) if steps >= 1 else 1.0


def _fall(step: int, train: TrainConfig) -> float:
    """Return the linear decay at the end of training, from 1 down."""
    steps = train.decay_fraction * train.n_steps
    return min(1.0, (train.n_steps - step) / steps) if steps >= 1 else 1.0


# ---------------------------------------------------------------- the loop around it


class TrainResult(NamedTuple):
    """A trained SAE and how it got there."""

    sae: SparseAutoencoder
    history: list[dict[str, float]]
    """Every log_every steps: step, loss, tilted_loss, fvu, l0, dead_fraction, ess, max_weight, tilt, lr,
    aux_loss, penalty, seconds."""


@plain_precision()
def train_sae(
    stream: Iterator[Tensor],
    cfg: SAEConfig,
    train: TrainConfig | None = None,
    *,
    init: SparseAutoencoder | None = None,
    random_state: int | None = None,
    checkpoint_dir: str | Path | None = None,
    resume: bool = False,
) -> TrainResult:
    """Train on the batches [n, d_in] of ``stream``.

    ``init`` is an SAE of the same shape to fine-tune.

    With ``checkpoint_dir``, ``resume=True`` continues from the newest undamaged checkpoint there, if any, and ends
    with the same weights, bit-identical. Give the same stream from its beginning: its method ``seek`` is used if it
    has one, otherwise the batches that were used are skipped.

    Raises InputError for an empty stream, one that ends early, or a batch of wrong width, NaN or infinity;
    it names the batch, and the checkpoints written before stay. Raises InputError for checkpoints of another run:
    another configuration, ``init``, ``random_state`` or seed of the stream.
    """
    train = train or TrainConfig()
    check_memory(cfg, copies=6 if pick_device(train.device).type == "cpu" else 2)
    if init is not None and (init.cfg.d_in, init.cfg.d_sae) != (cfg.d_in, cfg.d_sae):
        raise InputError(
            f"init has d_in={init.cfg.d_in}, d_sae={init.cfg.d_sae}; the configuration asks for "
            f"d_in={cfg.d_in}, d_sae={cfg.d_sae}: make them equal"
        )
    identity = {
        "cfg": cfg.model_dump(mode="json"),
        "train": train.model_dump(mode="json"),
        "init": None if init is None else init.fingerprint(),
        "random_state": None if random_state is None else int(random_state),
        "the stream's seed": _seed_of(stream),
    }
    training = Training(cfg, train)
    run = _Run(training, checkpoint_dir, identity, resume=resume)
    checked = checked_stream(stream, cfg.d_in, training.dtype, n_steps=train.n_steps, skip=run.done)
    batches = checked if run.done else run.begin(checked, init, random_state)
    return run.train(batches)


class _Run:
    """The loop around a training: records and checkpoints."""

    def __init__(
        self, training: Training, checkpoint_dir: str | Path | None, identity: dict[str, Any], *, resume: bool
    ) -> None:
        """``identity``, JSON values, is what two runs have in common when one may go on from the other."""
        self.training, self.identity = training, identity
        self.directory = None if checkpoint_dir is None else Path(checkpoint_dir)
        self.done = 0
        self.history: list[dict[str, float]] = []
        if self.directory is not None:
            self._open(self.directory, resume=resume)

    def begin(
        self, stream: Iterator[Tensor], init: SparseAutoencoder | None, random_state: int | None
    ) -> Iterator[Tensor]:
        """Start the training on the stream's first batches; returns the whole stream, those included."""
        train = self.training.train
        wanted = min(START_ROWS * self.training.cfg.d_sae, MOST_START_ROWS)
        n_batches = train.init_batches or math.ceil(wanted / train.batch_size)
        first = list(islice(stream, min(n_batches, train.n_steps)))
        self.training.begin(torch.cat(first), init, random_state)
        return chain(first, stream)

    def train(self, batches: Iterator[Tensor]) -> TrainResult:
        """Do the steps that are left."""
        training, train = self.training, self.training.train
        started = saved = time.monotonic()
        rows = 0
        steps = bar("SAE", unit="step", total=train.n_steps, initial=self.done)
        with steps as drawn, torch.no_grad():
            for step in range(self.done, train.n_steps):
                x = next(batches)
                last = step == train.n_steps - 1
                logged = step % train.log_every == 0 or last
                record = training.step(step, x, measure=logged)
                rows += len(x)
                self.done = step + 1
                if logged:
                    record["seconds"] = time.monotonic() - started
                    record["rows_per_second"] = rows / max(record["seconds"], 1e-9)
                    self.history.append(record)
                    shown = ("loss", "fvu", "l0", "dead_fraction", "rows_per_second")
                    drawn.set_postfix({name: f"{record[name]:.3g}" for name in shown}, refresh=False)
                drawn.update()
                late = time.monotonic() - saved > 60 * train.checkpoint_minutes
                if late or last or self.done % train.checkpoint_steps == 0:
                    self._save()
                    saved = time.monotonic()
        return TrainResult(training.folded(), self.history)

    def _save(self) -> None:
        if self.directory is None:
            return
        tensors, numbers = self.training.state()
        state = {"numbers": numbers, "identity": self.identity, "history": self.history}
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


def _seed_of(stream: Any) -> int | None:
    """The seed of a stream that tells it (``shuffled_batches``, a store's); a drawn one is never drawn again."""
    seed = getattr(stream, "seed", None)
    return int(seed) if isinstance(seed, Integral) else None
