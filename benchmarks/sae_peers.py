"""The libraries that benchmarks/sae_training.py measures beside ours, each driven by its own training step.

Every engine is a function ``(rows, settings) -> Engine`` whose ``step(batch)`` trains on one batch, and which reads the
trained state: reconstructions, latents and decoder rows. What a library's loop does around its step beside logging
(clipping, decoder norms, firing statistics) is part of the step.
"""

import importlib
import os
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

PIP = "pip install sae-lens dictionary-learning eai-sparsify  # an environment of its own, then pip install -e ."

if not torch.cuda.is_available():
    # read when sparsify is imported: where triton is installed but no GPU is, its own decoder would fail
    os.environ.setdefault("SPARSIFY_DISABLE_TRITON", "1")


@dataclass
class Settings:
    """What is equal for all."""

    d_in: int = 384
    d_sae: int = 3072
    k: int = 32
    batch_size: int = 2048
    n_steps: int = 10
    lr: float | None = None
    """None is the library's default."""
    device: str = "cpu"
    seed: int = 0


@dataclass
class Engine:
    """A library ready to train."""

    step: Callable[[Tensor], Any]
    reconstruct: Callable[[Tensor], Tensor]
    encode: Callable[[Tensor], Tensor]
    """Rows to latents [n, d_sae]."""
    decoder: Callable[[], Tensor]
    """Decoder rows [d_sae, d_in]."""


def saelens(architecture: str) -> Callable[[Tensor, Settings], Engine]:
    """SAELens's SAETrainer with its defaults."""

    def build(rows: Tensor, s: Settings) -> Engine:
        registry = importlib.import_module("sae_lens.registry")
        trainer = importlib.import_module("sae_lens.training.sae_trainer")
        config = importlib.import_module("sae_lens.config")
        name = {"relu": "standard", "matryoshka": "matryoshka_batchtopk"}.get(architecture, architecture)
        sae_class, config_class = registry.get_sae_training_class(name)
        extra: dict[str, Any] = {"k": s.k} if "topk" in name else {}
        if architecture == "matryoshka":
            extra["matryoshka_widths"] = [s.d_sae // 4, s.d_sae // 2, s.d_sae]
        torch.manual_seed(s.seed)
        sae = sae_class(config_class(d_in=s.d_in, d_sae=s.d_sae, device=s.device, **extra)).to(s.device)
        with torch.no_grad():
            sae.b_dec.copy_(rows.mean(0))
        rate = 3e-4 if s.lr is None else s.lr
        settings = config.SAETrainerConfig(
            total_training_samples=s.n_steps * s.batch_size,
            train_batch_size_samples=s.batch_size,
            device=s.device,
            lr_decay_steps=s.n_steps // 5,
            lr=rate,
            lr_end=rate / 10,
        )
        run = trainer.SAETrainer(settings, sae, data_provider=iter([]))

        def step(batch: Tensor) -> None:
            run._train_step(sae, batch)
            run.n_training_steps += 1

        def reconstruct(x: Tensor) -> Tensor:
            sae.eval()
            with torch.no_grad():
                return sae.decode(sae.encode(x))

        return Engine(step, reconstruct, sae.encode, lambda: sae.W_dec)

    return build


def dictionary_learning(architecture: str) -> Callable[[Tensor, Settings], Engine]:
    """dictionary_learning's trainers with their defaults; warm-ups cut to 5% of the steps."""
    places = {
        "relu": ("standard", "StandardTrainer"),
        "topk": ("top_k", "TopKTrainer"),
        "batchtopk": ("batch_top_k", "BatchTopKTrainer"),
        "matryoshka": ("matryoshka_batch_top_k", "MatryoshkaBatchTopKTrainer"),
        "jumprelu": ("jumprelu", "JumpReluTrainer"),
    }

    def build(rows: Tensor, s: Settings) -> Engine:
        module, name = places[architecture]
        trainer_class = getattr(importlib.import_module(f"dictionary_learning.trainers.{module}"), name)
        arguments: dict[str, Any] = {
            "steps": max(s.n_steps, 2),
            "activation_dim": s.d_in,
            "dict_size": s.d_sae,
            "layer": 4,
            "lm_name": "minilm",
            "device": s.device,
            "warmup_steps": s.n_steps // 20,
            "seed": s.seed,
        }
        if s.n_steps >= 100:
            arguments["decay_start"] = s.n_steps - s.n_steps // 5
        if architecture in ("topk", "batchtopk", "matryoshka"):
            arguments |= {"k": s.k, "threshold_start_step": s.n_steps // 5}
        else:
            arguments["sparsity_warmup_steps"] = s.n_steps // 10 if s.n_steps >= 100 else None
        if architecture == "matryoshka":
            arguments["group_fractions"] = [0.25, 0.25, 0.5]
        if s.lr is not None:
            arguments["lr"] = s.lr
        trainer = trainer_class(**arguments)
        # its training loop divides rows by the root of their mean squared norm
        factor = float(rows.square().sum(1).mean().sqrt())
        count = iter(range(10**9))

        def reconstruct(x: Tensor) -> Tensor:
            with torch.no_grad():
                return trainer.ae(x / factor) * factor

        return Engine(
            lambda batch: trainer.update(next(count), batch / factor),
            reconstruct,
            lambda x: trainer.ae.encode(x / factor),
            lambda: trainer.ae.decoder.weight.T,
        )

    return build


def sparsify(rows: Tensor, s: Settings) -> Engine:
    """sparsify's SparseCoder in the loop of its trainer: fvu loss, Adam, decoder norm, firing mask."""
    coder = importlib.import_module("sparsify.sparse_coder")
    config = importlib.import_module("sparsify.config")
    torch.manual_seed(s.seed)
    sae = coder.SparseCoder(s.d_in, config.SparseCoderConfig(num_latents=s.d_sae, k=s.k), device=s.device)
    rate = s.lr if s.lr is not None else 2e-4 / (s.d_sae / 2**14) ** 0.5
    optimiser = torch.optim.Adam(sae.parameters(), lr=rate)
    since_fired = torch.zeros(s.d_sae, dtype=torch.long, device=s.device)
    total, done = s.n_steps, iter(range(10**9))
    with torch.no_grad():
        sae.b_dec.copy_(rows.mean(0))

    def step(batch: Tensor) -> None:
        sae.set_decoder_norm_to_unit_norm()
        variance = (batch - batch.mean(0)).pow(2).sum()
        out = sae(x=batch, y=batch, dead_mask=None, total_variance=variance)
        fired = torch.zeros(s.d_sae, dtype=torch.bool, device=s.device)
        fired[out.latent_indices.flatten()] = True
        out.fvu.backward()
        sae.remove_gradient_parallel_to_decoder_directions()
        left = (total - next(done)) / max(total // 5, 1)
        optimiser.param_groups[0]["lr"] = rate * min(1.0, max(left, 0.0))
        optimiser.step()
        optimiser.zero_grad()
        since_fired.add_(len(batch))
        since_fired[fired] = 0

    def reconstruct(x: Tensor) -> Tensor:
        with torch.no_grad():
            return sae(x).sae_out

    def encode(x: Tensor) -> Tensor:
        out = sae.encode(x)
        return torch.zeros(len(x), s.d_sae).scatter(1, out.top_indices, out.top_acts)

    return Engine(step, reconstruct, encode, lambda: sae.W_dec)


PEERS: dict[str, tuple[str, dict[str, Callable[[Tensor, Settings], Engine]]]] = {
    "SAELens": (
        "sae_lens",
        {name: saelens(name) for name in ("topk", "batchtopk", "matryoshka", "relu", "jumprelu")},
    ),
    "dictionary_learning": (
        "dictionary_learning",
        {name: dictionary_learning(name) for name in ("topk", "batchtopk", "matryoshka", "relu", "jumprelu")},
    ),
    "sparsify": ("sparsify", {"topk": sparsify}),
}


def present(module: str) -> str | None:
    """Return None when the library can be imported, else why not."""
    try:
        importlib.import_module(module)
    except Exception as error:  # a broken environment is as good as an absent one
        return f"{type(error).__name__}: {str(error).splitlines()[0][:120]}"
    return None
