"""The state of a training and one step of it."""

import math
from copy import deepcopy
from typing import Any

import torch
from torch import Tensor

from debias_ssae.core.config import SAEConfig, TrainConfig
from debias_ssae.core.errors import InputError
from debias_ssae.sae import starts
from debias_ssae.sae.gradients import Knobs, Weights, compute_step
from debias_ssae.sae.losses import effective_sample_size, tilt_for_ess, tilt_weights, tilted
from debias_ssae.sae.model import SparseAutoencoder, unwritten
from debias_ssae.sae.processes import Processes

REVIVAL = 10.0
"""Learning rates by which a dead latent's hurdle sinks in a step: jumprelu's log threshold, relu's bias (up).
AuxK trains latents that have something above zero to train; the hurdle itself gets no gradient from afar."""

STILL = 1e-6
"""Share of the mean spread below which a column is left alone: it is smaller than the rounding of the others."""


class Training:
    """Weights, optimiser and running means, in units where the centred data has variance 1 a dimension."""

    weights: Weights
    optimiser: torch.optim.Adam
    still: Tensor
    """Columns that are neither read nor written."""

    def __init__(
        self,
        cfg: SAEConfig,
        train: TrainConfig,
        processes: Processes,
        frozen: SparseAutoencoder | None = None,
    ) -> None:
        """``frozen`` is an SAE whose reconstruction is added to that of the trained latents."""
        self.cfg, self.train, self.processes = cfg, train, processes
        self.device = processes.device
        self.dtype = torch.float64 if cfg.dtype == "float64" else torch.float32
        self.frozen = None if frozen is None else self._own(frozen)
        self.knobs = Knobs(
            cfg,
            processes,
            bfloat16=starts.multiplies_bfloat16(cfg, train, self.device),
            bandwidth=train.bandwidth,
            aux_coefficient=train.aux_coefficient,
            k_aux=train.k_aux,
        )
        # running means forget over 100 steps, or over a tenth of a shorter training
        self.memory = 1.0 - min(1.0, max(0.01, 10 / train.n_steps))
        self.scale, self.mean_loss, self.threshold, self.threshold_known = 1.0, math.nan, 0.0, False
        self.center = torch.zeros(cfg.d_in, device=self.device, dtype=self.dtype)
        self.silent = torch.zeros(cfg.d_sae, dtype=torch.long, device=self.device)

    def begin(self, rows: Tensor, init: SparseAutoencoder | None, random_state: int | None) -> None:
        """Estimate scale and centre on the first ``rows`` [n, d_in] and set the first weights.

        Columns of next to no spread (all-MiniLM-L6-v2 has three) stay out: what an eraser wrote there would be
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
        start = SparseAutoencoder(self.cfg, random_state=random_state) if init is None else init
        weights = starts.unit_decoder(self._own(start), self.scale)
        if self.frozen is not None:
            weights.b_dec = self.frozen.b_dec.detach() * self.scale
        elif init is None:
            weights.b_dec = starts.centre(rows, self.train.center) * self.scale
        if self.cfg.architecture == "jumprelu":
            weights.log_threshold = starts.log_threshold(
                weights, rows * self.scale, self.scale, self.cfg, init
            )
        if init is not None and init.cfg.architecture in ("batchtopk", "matryoshka"):
            self.threshold, self.threshold_known = float(init.threshold) * self.scale, True
        still = rows.double().std(0) * self.scale < STILL
        for matrix in (weights.W_enc, weights.W_dec):
            matrix[:, still] = 0.0
        self._attach(weights)

    def _own(self, sae: SparseAutoencoder) -> SparseAutoencoder:
        """Return a copy here: a module's ``to`` would move the caller's."""
        return deepcopy(sae).to(self.device, self.dtype)

    def step(self, step: int, x: Tensor, row_weights: Tensor | None, *, measure: bool) -> dict[str, float]:
        """Train on the global batch ``x`` [n, d_in]; returns the step's record, empty unless ``measure``."""
        train, low_high = self.train, self.processes.bounds(len(x))
        self.knobs.sparsity = starts.sparsity(self.cfg, train) * _rise(
            step, train.sparsity_warmup_fraction, train
        )
        own = x[slice(*low_high)].to(self.device) * self.scale
        base = (
            None if self.frozen is None else starts.reconstruction(self.frozen, own / self.scale) * self.scale
        )
        record: dict[str, float] = {}
        self.knobs.measure = measure
        dead = self.silent >= train.dead_steps
        result = compute_step(
            self.weights,
            own,
            self.knobs,
            lambda losses: self._weigh(losses, row_weights, step, low_high, record, measure=measure),
            dead=dead if bool(dead.any()) else None,
            base=base,
        )
        if self.frozen is not None:
            result.gradient.b_dec.zero_()
        self.processes.sum_([*result.gradient.tensors().values(), result.fired])
        self.silent = torch.where(result.fired > 0, 0, self.silent + 1)
        if self.cfg.architecture in ("batchtopk", "matryoshka"):
            old = self.threshold if self.threshold_known else result.threshold
            self.threshold = self.memory * old + (1 - self.memory) * result.threshold
            self.threshold_known = True
        lr = self._update(result.gradient, step)
        if train.aux_coefficient > 0:
            self._lower_hurdles(REVIVAL * lr)
        if measure:
            variance = float((x.to(self.device) - self.center).double().square().sum()) * self.scale**2
            error = self.processes.total(float(result.errors.double().sum())) * self.cfg.d_in
            record |= {
                "step": step,
                "fvu": error / max(variance, 1e-30),
                "l0": self.processes.total(result.n_active) / len(x),
                "dead_fraction": float((self.silent >= train.dead_steps).double().mean()),
                "aux_loss": result.aux_loss,
                "penalty": result.penalty,
                "lr": lr,
            }
        return record

    def _weigh(
        self,
        losses: Tensor,
        row_weights: Tensor | None,
        step: int,
        low_high: tuple[int, int],
        record: dict[str, float],
        *,
        measure: bool,
    ) -> Tensor:
        """Return this rank's rows' weights; over all ranks they sum to 1."""
        train, everyone = self.train, self.processes.gather(losses)
        mean = float(everyone.double().mean())
        if not math.isfinite(mean):
            raise InputError(
                f"The loss of step {step} is {mean}; lower lr={train.lr} or look at the activations"
            )
        old = mean if math.isnan(self.mean_loss) else self.mean_loss
        self.mean_loss = self.memory * old + (1 - self.memory) * mean
        relative = everyone / max(self.mean_loss, 1e-12)
        if row_weights is not None:
            given = (row_weights / row_weights.max()).to(relative)
            counted = given > 0  # a row of no weight is none that the tilt could choose
            relative, given = relative[counted], given[counted]
        t = tilt_for_ess(relative, train.tilt_ess) if train.tilt == "auto" else train.tilt
        t *= _rise(step, train.tilt_warmup_fraction, train)
        weights = tilt_weights(relative, t)
        if row_weights is not None:
            weights = weights * given
            weights = weights / weights.sum()
        if measure:
            record.update(
                loss=mean,
                tilted_loss=float(tilted(relative, t)) * self.mean_loss,
                tilt=t,
                ess=effective_sample_size(weights),
                max_weight=float(weights.max()),
            )
        if row_weights is not None:
            weights = torch.zeros_like(everyone).masked_scatter(counted, weights.to(everyone))
        return weights[slice(*low_high)].to(losses.dtype)

    def _update(self, gradient: Weights, step: int) -> float:
        """One step of Adam, the decoder's rows kept at norm 1; returns the learning rate."""
        weights, train = self.weights, self.train
        if len(self.still):
            for part in (gradient.W_enc, gradient.W_dec, gradient.b_dec):
                part[..., self.still] = 0.0
        along = (gradient.W_dec * weights.W_dec).sum(1, keepdim=True)
        gradient.W_dec.addcmul_(along, weights.W_dec, value=-1.0)
        parts = gradient.tensors()
        norm = float(torch.stack([part.norm() for part in parts.values()]).norm())
        if train.clip_norm is not None and norm > train.clip_norm:
            for part in parts.values():
                part.mul_(train.clip_norm / norm)
        lr = train.lr * _rise(step, train.warmup_fraction, train) * _fall(step, train)
        self.optimiser.param_groups[0]["lr"] = lr
        for name, parameter in weights.tensors().items():
            parameter.grad = parts[name]
        self.optimiser.step()
        weights.W_dec.div_(weights.W_dec.norm(dim=1, keepdim=True).clamp_min(1e-12))
        return lr

    def _lower_hurdles(self, size: float) -> None:
        """Bring the dead latents of thresholded architectures nearer to firing."""
        dead = self.silent >= self.train.dead_steps
        if self.weights.log_threshold is not None:
            self.weights.log_threshold.sub_(dead * size)
        elif self.cfg.architecture == "relu":
            self.weights.b_enc.add_(dead * size)

    def _attach(self, weights: Weights) -> None:
        self.weights = weights
        self.still = unwritten(weights.W_dec)
        self.optimiser = torch.optim.Adam(list(weights.tensors().values()), lr=self.train.lr, fused=True)

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
        return sae if self.frozen is None else starts.joined(self.frozen, sae)

    def state(self) -> tuple[dict[str, Tensor], dict[str, Any]]:
        """Return all that a resumed training needs: tensors, and numbers for JSON."""
        tensors = {f"weights.{name}": value for name, value in self.weights.tensors().items()}
        for name, parameter in self.weights.tensors().items():
            for key, value in self.optimiser.state[parameter].items():
                tensors[f"optimiser.{name}.{key}"] = value
        tensors |= {"silent": self.silent, "center": self.center}
        numbers = {
            "scale": self.scale,
            "mean_loss": self.mean_loss,
            "threshold": self.threshold,
            "threshold_known": self.threshold_known,
        }
        return tensors, numbers

    def restore(self, tensors: dict[str, Tensor], numbers: dict[str, Any]) -> None:
        """Continue from what ``state`` returned."""
        # copied into torch's own aligned memory: dot products depend on alignment in their last bits
        tensors = {name: value.to(self.device, copy=True) for name, value in tensors.items()}
        named = {name[8:]: value for name, value in tensors.items() if name.startswith("weights.")}
        self._attach(Weights(**named))
        for name, parameter in self.weights.tensors().items():
            prefix = f"optimiser.{name}."
            found = {key[len(prefix) :]: value for key, value in tensors.items() if key.startswith(prefix)}
            self.optimiser.state[parameter] = found
        self.silent, self.center = tensors["silent"], tensors["center"]
        self.scale, self.mean_loss = float(numbers["scale"]), float(numbers["mean_loss"])
        self.threshold, self.threshold_known = float(numbers["threshold"]), bool(numbers["threshold_known"])


def _rise(step: int, fraction: float, train: TrainConfig) -> float:
    """Return how far a warm-up over ``fraction`` of the steps has come, up to 1."""
    steps = fraction * train.n_steps
    return min(1.0, (step + 1) / steps) if steps >= 1 else 1.0


def _fall(step: int, train: TrainConfig) -> float:
    """Return the linear decay at the end of training, from 1 down."""
    steps = train.decay_fraction * train.n_steps
    return min(1.0, (train.n_steps - step) / steps) if steps >= 1 else 1.0
