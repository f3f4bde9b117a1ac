"""Sparse autoencoders: the general and the specialised one, narrow, deep, and with a linear eraser behind."""

import time
from collections.abc import Callable, Iterator
from dataclasses import replace

import numpy as np

from debias_ssae.baselines import AttributeErasure
from debias_ssae.benchmark.methods.linear import LINEAR, erased_blocks, fit_counterfactual, n_parameters
from debias_ssae.benchmark.methods.registry import Make, method
from debias_ssae.benchmark.methods.seed import Seed, TrainedSAE
from debias_ssae.benchmark.methods.variant import Variant
from debias_ssae.benchmark.passes import Encoding
from debias_ssae.core.config import DebiasConfig, default_width
from debias_ssae.erase import LatentEraser, mean_difference

_FAMILIES = ("labelled", "concept")
# what the comparison of short lists and of other labelled texts is about; the rest would double the run
_EVERY = (*_FAMILIES, "labelled_gap", "short")
NARROW = 8
"""How many times narrower the narrow SAEs are, and how many times fewer of their latents are removed."""


def _sae(
    name: str, kind: str, *, families: tuple[str, ...] = _FAMILIES, share: int = 1, deep: bool = False
) -> Make:
    def variants(seed: Seed, regime: str) -> Iterator[Variant]:
        d_in = seed.corpus.encoder.language_model.d_model
        shape = middle(seed) if deep else None, narrow(seed.corpus.config.debias, share, d_in)
        trained = seed.general_sae(*shape) if kind == "gsae" else seed.sae(kind, *shape)
        yield _erased(seed, name, regime, trained, _n_latents(seed, share))

    return method(name, *families)(variants)


def _n_latents(seed: Seed, share: int = 1) -> int:
    """How many are removed; zero stays zero: then nothing is, and the rows are ERM's."""
    n = seed.corpus.config.debias.selection.n_latents
    return max(1, n // share) if n else 0


def _erased(seed: Seed, name: str, regime: str, trained: TrainedSAE, n_latents: int | str) -> Variant:
    start = time.perf_counter()
    found = seed.found(trained, regime, n_latents)
    seconds = trained.seconds + time.perf_counter() - start
    return seed.erased(name, regime, trained, found.latents, seconds_fit=seconds)


def narrow(config: DebiasConfig, share: int, d_in: int) -> DebiasConfig:
    """The same settings with ``share`` times fewer latents."""
    return (
        config if share == 1 else config.updated(d_sae=max(1, (config.d_sae or default_width(d_in)) // share))
    )


def middle(seed: Seed) -> str:
    """The block in the middle of the model, or its first."""
    return f"blocks.{max(0, seed.corpus.encoder.language_model.n_blocks // 2 - 1)}"


_sae("gsae", "gsae")
_sae("ssae_erm", "ssae_erm")
_sae("ssae", "ssae", families=_EVERY)
_sae("gsae_eighth", "gsae", share=NARROW)
_sae("ssae_eighth", "ssae", share=NARROW)
_sae("ssae_deep", "ssae", deep=True)


@method("ssae_keep", "labelled")
def ssae_keep(seed: Seed, regime: str) -> Iterator[Variant]:
    """At the output, the latents that carry more of the target than of the attribute, and nothing else."""
    yield _kept(seed, "ssae_keep", regime)[0]


def _kept(seed: Seed, name: str, regime: str) -> tuple[Variant, Encoding]:
    corpus, start = seed.corpus, time.perf_counter()
    trained = seed.sae("ssae", corpus.encoder.layer)
    found = seed.found(trained, regime, corpus.config.debias.selection.n_kept, keep=True)
    eraser = LatentEraser.from_sae(trained.sae, found.latents.tolist(), mode="keep")
    seconds = trained.seconds + time.perf_counter() - start
    encoding = corpus.passes.edited({trained.hookpoint: eraser})
    variant = Variant(
        name,
        regime,
        seed.rows(encoding, regime),
        hookpoint=trained.hookpoint,
        d_sae=trained.sae.cfg.d_sae,
        n_latents=len(found.latents),
        n_parameters=trained.eraser_size(len(found.latents)) + trained.sae.cfg.d_in,
        seconds_fit=seconds,
    )
    return variant, encoding


def _removed(
    seed: Seed, name: str, regime: str, n_latents: int | str | None = None
) -> tuple[Variant, Encoding]:
    trained, n = seed.sae(), _n_latents(seed) if n_latents is None else n_latents
    variant = _erased(seed, name, regime, trained, n)
    return variant, seed.erasing(trained, seed.found(trained, regime, n).latents)


def _with_linear(
    name: str,
    make: Callable[[], AttributeErasure],
    edit: Callable[[Seed, str, str], tuple[Variant, Encoding]],
) -> Make:
    """An edit with the SSAE, and a linear eraser of what leaves the model after it."""

    def variants(seed: Seed, regime: str) -> Iterator[Variant]:
        labelled = seed.attribute_set(regime)
        variant, encoding = edit(seed, name, regime)
        X = seed.attribute_rows(encoding, variant.rows, regime)
        start = time.perf_counter()
        fitted = make().fit(X, labelled.y, sensitive_features=labelled.z)
        yield replace(
            variant,
            rows=variant.rows.map(fitted.transform),
            n_parameters=variant.n_parameters + n_parameters(fitted),
            seconds_fit=variant.seconds_fit + time.perf_counter() - start,
        )

    return method(name, "labelled", *(("labelled_gap",) if edit is _removed else ()))(variants)


for _name, _make in LINEAR.items():
    if _name != "mean_diff":
        _with_linear(f"ssae_{_name}", _make, _removed)
_with_linear("ssae_keep_leace_conditional", LINEAR["leace_conditional"], _kept)
_with_linear("ssae_keep_inlp", LINEAR["inlp"], _kept)


@method("ssae_leace_in_model", "labelled")
def ssae_leace_in_model(seed: Seed, regime: str) -> Iterator[Variant]:
    """The SSAE's edit, and LEACE on token rows after every block with that edit in place."""
    trained, labelled = seed.sae(), seed.attribute_set(regime)
    start = time.perf_counter()
    found = seed.found(trained, regime, _n_latents(seed))
    edit = seed.edits(trained, found.latents)
    blocks = erased_blocks(seed, labelled, edit)
    seconds = trained.seconds + time.perf_counter() - start
    yield Variant(
        "ssae_leace_in_model",
        regime,
        seed.rows(seed.corpus.passes.edited({**edit, **blocks}), regime),
        hookpoint="every block",
        d_sae=trained.sae.cfg.d_sae,
        n_latents=len(found.latents),
        n_parameters=trained.eraser_size(len(found.latents)) + sum(b.n_parameters for b in blocks.values()),
        seconds_fit=seconds,
    )


@method("ssae_mean_diff", "labelled", "labelled_gap")
def ssae_mean_diff(seed: Seed, regime: str) -> Iterator[Variant]:
    """The SSAE's edit, then the groups' mean difference in the plain model and what is left of it."""
    yield _with_direction(seed, regime, *_removed(seed, "ssae_mean_diff", regime))


@method("ssae_counterfactual", "concept", "short")
def ssae_counterfactual(seed: Seed, regime: str) -> Iterator[Variant]:
    """The SSAE's edit, then the counterfactuals' direction in the plain model."""
    yield _with_direction(seed, regime, *_removed(seed, "ssae_counterfactual", regime))


@method("ssae_default", *_EVERY)
def ssae_default(seed: Seed, regime: str) -> Iterator[Variant]:
    """What SSAEDebiaser does if nothing is said: as many latents as its rule finds, and the direction."""
    yield _with_direction(seed, regime, *_removed(seed, "ssae_default", regime, "auto"))


def _with_direction(seed: Seed, regime: str, variant: Variant, edit: Encoding) -> Variant:
    """What the debiaser lets follow its edit: the attribute's direction, by words or labels."""
    start, plain = time.perf_counter(), seed.corpus.passes.plain()
    transform: Callable[[np.ndarray], np.ndarray]
    if regime.startswith("concept"):
        counterfactuals = fit_counterfactual(seed, regime, plain, n_components=1)
        transform, size = (
            counterfactuals.transform,
            counterfactuals.components_.size + counterfactuals.center_.size,
        )
    else:
        labelled = seed.attribute_set(regime)
        codes = np.unique(labelled.z, return_inverse=True)[1]
        X = seed.attribute_rows(plain, seed.plain, regime)
        edited = seed.attribute_rows(edit, variant.rows, regime)
        transform = groups = mean_difference(X, codes, labelled.y, edited=edited)
        size = groups.left.size + groups.right.size + groups.center.size
    return replace(
        variant,
        rows=variant.rows.map(transform),
        n_parameters=variant.n_parameters + size,
        seconds_fit=variant.seconds_fit + time.perf_counter() - start,
    )
