"""Threads that share a model, a tokenizer or a debiaser each get what they would get alone."""

from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch
from joblib import Parallel, delayed
from small_models import sentences, small_model

from debias_ssae.core.device import plain_precision
from debias_ssae.model import embed, harvest, wrap_model
from debias_ssae.model.encoder import ActivationEncoder

N_THREADS = 8
TEXTS = [sentences(12, seed=i) for i in range(N_THREADS)]


class Shift:
    """An edit that is another one for each thread."""

    def __init__(self, by: float) -> None:
        self.by, self.fingerprint = by, f"shift {by}"

    def __call__(self, x: torch.Tensor) -> torch.Tensor:
        return x + self.by


def jobs(model, second):
    """Passes that differ in texts, edits, hookpoints, poolings and lengths, over two wrappers of one module."""
    return [
        lambda i=i: (
            embed(
                (model, second)[i % 2].with_limits((None, 6)[i % 2], 16),
                TEXTS[i],
                edits={("embeddings", "blocks.1")[i % 2]: Shift(i)} if i % 3 else None,
                pooling=("mean", "max", "last", "cls")[i % 4],
            ),
            harvest(model.with_limits(5 + i), TEXTS[i], ("embeddings", "blocks.0", "final")[i % 3]).x.numpy(),
        )
        for i in range(N_THREADS)
    ]


@pytest.mark.parametrize("family", ["bert", "llama"])
def test_eight_threads_get_what_each_gets_alone(family):
    model = small_model(family)
    todo = jobs(model, wrap_model(model.module, model.tokenizer))
    alone = [job() for job in todo]
    with ThreadPoolExecutor(N_THREADS) as pool:
        for _ in range(5):
            for found, wanted in zip(pool.map(lambda job: job(), todo), alone, strict=True):
                for one, other in zip(found, wanted, strict=True):
                    assert np.array_equal(one, other)
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in model.module.modules())


def test_two_debiasers_that_share_an_encoder(tmp_path):
    from debias_ssae import DebiasConfig, SSAEDebiaser, TrainConfig
    from debias_ssae.core.config import SelectionConfig

    small = small_model("bert")
    encoder = ActivationEncoder.from_model(small.module, small.tokenizer, dtype="float32", cache_dir=tmp_path)
    step = TrainConfig(n_steps=5, batch_size=128)
    config = DebiasConfig(d_sae=64, k=8, general=step, special=step, selection=SelectionConfig(min_cell=5))
    texts = [*sentences(60, seed=1), *(f"{t} she" for t in sentences(60, seed=2))]
    fitted = [
        SSAEDebiaser(encoder, config=config, n_latents=n, random_state=0, hookpoint=hookpoint).fit(
            texts, sensitive_features=["she" in text for text in texts]
        )
        for n, hookpoint in ((4, "embeddings"), (6, "blocks.1"))
    ]
    todo = [(fitted[i % 2] if i % 3 else encoder, TEXTS[i]) for i in range(N_THREADS)]
    alone = [one.transform(some) for one, some in todo]
    for _ in range(3):
        found = Parallel(N_THREADS, backend="threading")(delayed(one.transform)(some) for one, some in todo)
        for got, wanted in zip(found, alone, strict=True):
            assert np.allclose(got, wanted, atol=1e-6)


def test_the_default_precision_of_torch_changes_nothing():
    model = small_model("bert")
    wanted = embed(model, TEXTS[0])
    for dtype in (torch.bfloat16, torch.float64):
        torch.set_default_dtype(dtype)
        try:
            with ThreadPoolExecutor(4) as pool, torch.autocast("cpu", torch.bfloat16):
                assert all(
                    np.array_equal(x, wanted) for x in pool.map(lambda _: embed(model, TEXTS[0]), range(8))
                )
                assert np.array_equal(embed(model, TEXTS[0]), wanted)
                assert torch.equal(harvest(model, TEXTS[0]).x, harvest(model, TEXTS[0]).x.float())
            assert torch.get_default_dtype() == dtype
            with plain_precision(), plain_precision():
                assert torch.ones(1).dtype == torch.float32
                assert not torch.is_autocast_enabled("cpu")
            assert torch.get_default_dtype() == dtype
        finally:
            torch.set_default_dtype(torch.float32)


@pytest.mark.parametrize(
    "error",
    [
        RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 9 bytes"),
        torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 9 bytes"),
        MemoryError(),
        RuntimeError("could not create a primitive"),
    ],
    ids=lambda error: type(error).__name__,
)
def test_memory_that_runs_out_halves_the_batch(monkeypatch, error):
    from debias_ssae.core.errors import InputError
    from debias_ssae.model import forward

    model, real = small_model("bert"), forward.run_batch
    wanted = embed(model.with_limits(token_budget=10_000), TEXTS[0])
    sizes: list[int] = []

    def small_memory(model, batch, *args, **options):
        sizes.append(len(batch.sequences))
        if len(batch.sequences) > limit:
            raise error
        real(model, batch, *args, **options)

    monkeypatch.setattr(forward, "run_batch", small_memory)
    limit = 3
    assert np.allclose(embed(model.with_limits(token_budget=10_000), TEXTS[0]), wanted, atol=1e-5)
    assert max(sizes) > limit >= min(sizes)
    limit = 0
    with pytest.raises(InputError, match="Memory does not hold one text"):
        embed(model, TEXTS[0])


def test_the_device_reaches_training_and_retrieval(monkeypatch):
    from debias_ssae import DebiasConfig, TrainConfig
    from debias_ssae.debiaser import inputs

    small = small_model("bert")
    encoder = ActivationEncoder.from_model(small.module, small.tokenizer, dtype="float32")
    config = DebiasConfig(special=TrainConfig(device="cuda:1"))
    assert inputs.trained_on(encoder, config).general.device == "auto"  # the default is this very device
    monkeypatch.setattr(inputs, "pick_device", lambda: torch.device("cuda"))
    found = inputs.trained_on(encoder, config)
    assert (found.general.device, found.special.device) == ("cpu", "cuda:1")
