"""Training of a sparse autoencoder from a stream of rows, from scratch or on from another one."""

import math
import time
from collections.abc import Callable, Iterator
from itertools import chain, islice
from typing import NamedTuple

import torch
from torch import Tensor
from tqdm import tqdm

from debias_ssae.config import SAEConfig, TrainConfig
from debias_ssae.exceptions import InputError
from debias_ssae.sae.gradients import Weights, sparse_step
from debias_ssae.sae.losses import effective_sample_size, tilt_for_ess, tilt_weights, tilted
from debias_ssae.sae.model import SparseAutoencoder
from debias_ssae.sae.streams import ShuffledBatches, shuffled_batches

__all__ = ["ShuffledBatches", "TrainResult", "shuffled_batches", "train_sae"]


class TrainResult(NamedTuple):
    """A trained SAE and how it got there."""

    sae: SparseAutoencoder
    history: list[dict[str, float]]
    """Every log_every steps: step, loss, tilted_loss, fvu, l0, dead_fraction, ess, max_weight, tilt, ..."""


def train_sae(
    stream: Iterator[Tensor],
    cfg: SAEConfig,
    train: TrainConfig | None = None,
    *,
    init: SparseAutoencoder | None = None,
    random_state: int | None = None,
    progress: bool = False,
    on_step: Callable[[int, dict[str, float]], None] | None = None,
) -> TrainResult:
    """Train on the batches [n, d_in] of ``stream``; see TrainConfig for the knobs.

    With ``init`` its weights are trained on. Raises InputError for a bad batch, naming it.
    """
    train = train or TrainConfig()
    trainer = _Trainer(stream, cfg, train, init, random_state)
    history: list[dict[str, float]] = []
    bar = tqdm(range(train.n_steps), disable=not progress, desc="SAE", unit="step")
    for step in bar:
        record = trainer.step(step)
        if step % train.log_every == 0 or step == train.n_steps - 1:
            history.append(record)
            bar.set_postfix({name: f"{record[name]:.3g}" for name in ("loss", "fvu", "l0", "dead_fraction")})
        if on_step is not None:
            on_step(step, record)
    return TrainResult(trainer.folded(), history)


class _Trainer:
    """The state of a training; all of it in units where the data has variance 1 a dimension."""

    def __init__(
        self,
        stream: Iterator[Tensor],
        cfg: SAEConfig,
        train: TrainConfig,
        init: SparseAutoencoder | None,
        random_state: int | None,
    ) -> None:
        self.cfg, self.train = cfg, train
        self.dtype = torch.float64 if cfg.dtype == "float64" else torch.float32
        first = [
            self._checked(x, i) for i, x in enumerate(islice(stream, min(train.init_batches, train.n_steps)))
        ]
        if not first:
            raise InputError("The stream is empty; it must yield tensors of rows [n, d_in]")
        self.stream = chain(first, stream)
        rows = torch.cat(first)
        self.center = rows.mean(0)
        self.variance = float((rows - self.center).square().sum(1).mean())
        if not self.variance > 0:
            raise InputError(
                f"The first {len(rows)} rows of the stream do not vary; there is nothing to learn"
            )
        self.scale = math.sqrt(cfg.d_in / self.variance)
        self.weights = self._initial(init, random_state)
        self.threshold = 0.0 if init is None else float(init.threshold.mean()) * self.scale
        self.threshold_known = init is not None and cfg.architecture in ("batchtopk", "matryoshka")
        self.optimiser = torch.optim.Adam(list(vars(self.weights).values()), lr=train.lr, fused=True)
        self.silent = torch.zeros(cfg.d_sae, dtype=torch.long)
        self.mean_loss = math.nan
        self.started = time.monotonic()

    def _checked(self, x: Tensor, step: int) -> Tensor:
        if x.dim() != 2 or x.shape[1] != self.cfg.d_in or len(x) == 0:
            raise InputError(f"Batch {step} has shape {tuple(x.shape)}; expected [n, {self.cfg.d_in}]")
        x = x.to(self.dtype)
        if not torch.isfinite(x.sum()) and not torch.isfinite(x).all():
            raise InputError(f"Batch {step} holds NaN or infinity; mend the activations before training")
        return x

    def _initial(self, init: SparseAutoencoder | None, random_state: int | None) -> Weights:
        if init is not None and (init.cfg.d_in, init.cfg.d_sae) != (self.cfg.d_in, self.cfg.d_sae):
            raise InputError(
                f"init has d_in={init.cfg.d_in}, d_sae={init.cfg.d_sae}; the configuration asks for "
                f"d_in={self.cfg.d_in}, d_sae={self.cfg.d_sae}"
            )
        sae = SparseAutoencoder(self.cfg, random_state=random_state) if init is None else init
        W_enc, b_enc, W_dec, b_dec = (
            p.detach().to(self.dtype).clone() for p in (sae.W_enc, sae.b_enc, sae.W_dec, sae.b_dec)
        )
        norm = W_dec.norm(dim=1, keepdim=True).clamp_min(1e-12)
        weights = Weights(
            W_enc * norm, b_enc * norm.squeeze(1) * self.scale, W_dec / norm, b_dec * self.scale
        )
        if init is None:
            weights.b_dec = self.center * self.scale
        return weights

    def step(self, step: int) -> dict[str, float]:
        """Train on the next batch and return the record of the step."""
        train, cfg = self.train, self.cfg
        x = next(self.stream, None)
        if x is None:
            raise InputError(f"The stream ended after {step} batches; n_steps={train.n_steps} asks for more")
        x = self._checked(x, step) * self.scale
        weighing: dict[str, float] = {}
        dead = self.silent >= train.dead_steps
        result = sparse_step(
            self.weights,
            x,
            cfg,
            lambda losses: self._weigh(losses, step, weighing),
            dead if bool(dead.any()) else None,
            aux_coefficient=train.aux_coefficient,
            k_aux=train.k_aux,
            bfloat16=train.matmul_dtype == "bfloat16",
        )
        self.silent = torch.where(result.fired > 0, 0, self.silent + 1)
        self._update_threshold(result.threshold)
        lr = self._update_weights(result.gradient, step)
        variance = float((x - self.center * self.scale).square().sum()) / (x.numel())
        return {
            "step": step,
            "fvu": float(result.losses.double().mean()) / variance,
            "l0": float(result.fired.sum()) / len(x),
            "dead_fraction": float((self.silent >= train.dead_steps).double().mean()),
            "aux_loss": result.aux_loss,
            "lr": lr,
            "seconds": time.monotonic() - self.started,
            **weighing,
        }

    def _weigh(self, losses: Tensor, step: int, record: dict[str, float]) -> Tensor:
        """Return the rows' weights, summing to 1; the losses are divided by their running mean first."""
        mean = float(losses.double().mean())
        self.mean_loss = mean if math.isnan(self.mean_loss) else 0.99 * self.mean_loss + 0.01 * mean
        relative = losses / max(self.mean_loss, 1e-12)
        t = self.train.tilt
        if t == "auto":
            t = tilt_for_ess(relative, self.train.tilt_ess)
        warmup = self.train.tilt_warmup_fraction * self.train.n_steps
        t *= min(1.0, (step + 1) / warmup) if warmup >= 1 else 1.0
        weights = tilt_weights(relative, t)
        record.update(
            loss=mean,
            tilted_loss=float(tilted(relative, t)) * self.mean_loss,
            tilt=t,
            ess=effective_sample_size(weights),
            max_weight=float(weights.max()),
        )
        return weights.to(losses.dtype)

    def _update_threshold(self, value: float) -> None:
        if self.cfg.architecture not in ("batchtopk", "matryoshka"):
            return
        self.threshold = 0.99 * self.threshold + 0.01 * value if self.threshold_known else value
        self.threshold_known = True

    def _update_weights(self, gradient: Weights, step: int) -> float:
        """One step of Adam under the schedule, decoder rows kept at norm 1; returns the learning rate."""
        weights, train = self.weights, self.train
        along = (gradient.W_dec * weights.W_dec).sum(1, keepdim=True)
        gradient.W_dec.addcmul_(along, weights.W_dec, value=-1.0)
        parts = list(vars(gradient).values())
        norm = float(torch.stack([part.norm() for part in parts]).norm())
        if train.clip_norm is not None and norm > train.clip_norm:
            for part in parts:
                part.mul_(train.clip_norm / norm)
        lr = train.lr * _schedule(step, train)
        self.optimiser.param_groups[0]["lr"] = lr
        for parameter, part in zip(vars(weights).values(), parts, strict=True):
            parameter.grad = part
        self.optimiser.step()
        weights.W_dec.div_(weights.W_dec.norm(dim=1, keepdim=True).clamp_min(1e-12))
        return lr

    @torch.no_grad()
    def folded(self) -> SparseAutoencoder:
        """Return the SAE for rows as they come: the scale of training folded into biases and threshold."""
        sae = SparseAutoencoder(self.cfg, random_state=0)
        sae.W_enc.copy_(self.weights.W_enc)
        sae.b_enc.copy_(self.weights.b_enc / self.scale)
        sae.W_dec.copy_(self.weights.W_dec)
        sae.b_dec.copy_(self.weights.b_dec / self.scale)
        sae.threshold.fill_(self.threshold / self.scale)
        return sae


def _schedule(step: int, train: TrainConfig) -> float:
    """Return the share of the peak learning rate: linear warm-up, flat, linear decay."""
    warmup = train.warmup_fraction * train.n_steps
    decay = train.decay_fraction * train.n_steps
    up = (step + 1) / warmup if warmup >= 1 else 1.0
    down = (train.n_steps - step) / decay if decay >= 1 else 1.0
    return min(1.0, up, down)
