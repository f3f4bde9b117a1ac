"""The methods compared: each row of a table is a public estimator, made with public arguments only.

``METHODS`` holds them by name. To compare one of your own, pass it to ``compare`` (docs/extend.md).
"""

import inspect
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal

import numpy as np
from sklearn.base import clone
from sklearn.pipeline import make_pipeline

from debias_ssae import baselines
from debias_ssae.benchmark.protocol import Supervision
from debias_ssae.core.config import BenchmarkConfig
from debias_ssae.core.errors import InputError
from debias_ssae.debiaser import SSAEDebiaser
from debias_ssae.model.encoder import ActivationEncoder
from debias_ssae.sae.model import SparseAutoencoder
from debias_ssae.selection.attribute import FitData, as_attribute
from debias_ssae.selection.select import Selection

NARROW = 8
"""How many times narrower the narrow SAEs are, and how many times fewer of their latents are removed."""
NEAREST = 10
"""A control is drawn among this many times as many that are most alike."""


@dataclass(frozen=True)
class Context:
    """What a method is made from in one seed and regime."""

    config: BenchmarkConfig
    supervision: Supervision
    encoder: ActivationEncoder
    plain: ActivationEncoder
    """The same encoder with the seed's plain representations in its cache; not to be edited."""
    classes: tuple[str, ...]
    corpus: list[str] | None
    cache_dir: str | None
    random_state: int


@dataclass(frozen=True)
class Method:
    """How an estimator is made, which supervision it takes, and which texts ``fit`` gets."""

    make: Callable[[Context], Any]
    regimes: tuple[str, ...]
    """none; labelled (the group-annotated set); labelled_gap (other texts' attribute, without y); labelled_head
    (attribute of the head's texts); labelled_all (all but the test's); concept (words); short (a few of them)."""
    learns_from: Literal["head", "annotated"] = "head"
    """The head's texts with their classes, or the texts whose attribute the regime tells."""
    is_reference: bool = False
    """Run whatever regimes are asked for."""


def matched_random_latents(
    chosen: Sequence[int] | np.ndarray,
    firing_rate: np.ndarray,
    mass: np.ndarray,
    *,
    random_state: int | None = None,
) -> np.ndarray:
    """Return as many latents as ``chosen``, disjoint from them, matched in firing rate and mean activation.

    Each chosen latent, in random order, takes one of its NEAREST free neighbours in standardised
    (log firing rate, log mass). Arrays are ``[d_sae]``. Raises InputError when fewer latents are free than chosen.
    """
    wanted = np.asarray(chosen, dtype=int)
    rng = np.random.default_rng(random_state)
    place = np.column_stack([np.log(firing_rate + 1e-6), np.log(mass + 1e-9)])
    place = (place - place.mean(axis=0)) / np.maximum(place.std(axis=0), 1e-12)
    free = np.setdiff1d(np.arange(len(firing_rate)), wanted)
    if len(free) < len(wanted):
        raise InputError(
            f"{len(wanted)} of {len(firing_rate)} latents are chosen: too few are left for a control"
        )
    picked = []
    for latent in rng.permutation(wanted):
        distance = np.square(place[free] - place[latent]).sum(axis=1)
        near = np.argsort(distance, kind="stable")[: min(NEAREST, len(free))]
        taken = rng.choice(near)
        picked.append(int(free[taken]))
        free = np.delete(free, taken)
    return np.array(picked, dtype=int)


@dataclass(frozen=True)
class RandomLatents:
    """As many latents as ``attribute`` selects, others, matched in firing rate and mean activation."""

    attribute: Any

    def select(self, model: Any, hookpoint: str, sae: SparseAutoencoder, data: FitData) -> Selection:
        """Select for ``attribute``, then draw the others."""
        found = as_attribute(self.attribute).select(model, hookpoint, sae, data)
        ids = matched_random_latents(
            found.ids, found.scores.firing_rate, found.scores.mass, random_state=data.random_state
        )
        return Selection(None, ids)


def debiaser(c: Context, **options: Any) -> SSAEDebiaser:
    """``SSAEDebiaser`` as a user calls it, with ``options`` in place of its defaults."""
    given = {
        "attribute": c.supervision.attribute,
        "corpus": c.corpus,
        "hookpoint": c.config.hookpoint,
        "cache_dir": c.cache_dir,
        "config": c.config.debias,
        "random_state": c.random_state,
    }
    return SSAEDebiaser(c.encoder, **{**given, **options})


def fixed(c: Context) -> SSAEDebiaser:
    """The edit and its usual output eraser, whatever cross-validation would pick."""
    words = c.supervision.concept is not None
    return debiaser(c, output_eraser="counterfactual" if words else "mean_difference")


def edit_alone(c: Context, *, share: int = 1, **options: Any) -> SSAEDebiaser:
    """A fixed number of latents removed inside the model, and nothing after it; ``share`` times fewer of both."""
    n, config = c.config.n_latents, options.pop("config", c.config.debias)
    options = {"n_latents": max(1, n // share) if n else 0, "output_eraser": None, **options}
    return debiaser(c, config=config.updated(d_sae=max(1, width(c) // share)), **options)


def width(c: Context) -> int:
    """Latents of an SAE in this run."""
    return c.config.debias.sae_config(c.encoder.language_model.d_model, c.config.hookpoint).d_sae


def general_sae(c: Context, **options: Any) -> SSAEDebiaser:
    """The same with a general SAE that was trained for as many steps as general training and fine-tuning have.

    Raises InputError without a corpus: an SAE of the head's own texts, from which the specialised ones then start, is
    not general.
    """
    if c.corpus is None:
        raise InputError("there is no general corpus (--corpus) to train a general SAE on")
    base = c.config.debias
    steps = base.general.n_steps + (base.special.n_steps if base.special else 0)
    longer = base.updated(general=base.general.updated(n_steps=steps), special=None)
    return edit_alone(c, config=longer, **options)


def tuned(c: Context, tilt: float | Literal["auto"]) -> SSAEDebiaser:
    """Fine-tuned with the mean loss (0) or with TERM's."""
    base = c.config.debias
    return edit_alone(c, config=base.updated(special=base.special and base.special.updated(tilt=tilt)))


def middle(c: Context) -> SSAEDebiaser:
    """Edited after the block in the middle of the model, or its first."""
    return edit_alone(c, hookpoint=f"blocks.{max(0, c.encoder.language_model.n_blocks // 2 - 1)}")


def latent_skyline(c: Context) -> SSAEDebiaser:
    """Latents of the general SAE, selected with the attribute alone, without the classes."""
    annotated = c.supervision.annotated
    if annotated is None:
        raise InputError("the latent skyline is selected with labels of the attribute")
    return general_sae(c, attribute=type(annotated)(annotated.texts, annotated.sensitive_features))


def concept_bottleneck(c: Context) -> Any:
    """Similarities to a few words about the task."""
    words = c.config.bottleneck_words or baselines.hospital_words(c.classes)
    if not words:
        raise InputError("no words about this task are given; set bottleneck_words")
    return make_pipeline(c.plain, baselines.ConceptBottleneck(c.encoder, words))


def scrub(c: Context, **options: Any) -> Any:
    """Words replaced by neutral ones, then encoded."""
    return make_pipeline(baselines.TextScrubber(c.supervision.concept, **options), c.encoder)


def scrub_names(c: Context) -> Any:
    """The words of the concept's optional sections (gender: first names) as well."""
    concept = c.supervision.concept
    sections = tuple(dict.fromkeys(pair.section for pair in (concept.optional if concept else ())))
    if not sections:
        raise InputError("these words have no optional section, such as first names")
    return scrub(c, optional=sections)


def subspace(c: Context, **options: Any) -> baselines.CounterfactualSubspace:
    """Directions between counterfactual pairs of the head's texts."""
    return baselines.CounterfactualSubspace(
        c.encoder, c.supervision.concept, random_state=c.random_state, **options
    )


def _followed(make: Callable[[], Any], c: Context) -> SSAEDebiaser:
    return edit_alone(c, output_eraser=make())


def _linear(make: Callable[[], Any], *regimes: str) -> Method:
    return Method(
        lambda c: make_pipeline(c.plain, make()), regimes or ("labelled", "labelled_gap"), "annotated"
    )


def _head(make: Any, *regimes: str, is_reference: bool = False, grouped: bool = False) -> Method:
    """A head on the texts whose attribute is known; ``grouped``: it needs every cell (class x attribute)."""

    def made(c: Context) -> Any:
        told = c.supervision.annotated
        if grouped and told is not None and told.y is not None:
            cells = set(zip(map(str, told.y), map(str, told.sensitive_features), strict=True))
            if len(cells) < len({label for label, _ in cells}) * len({value for _, value in cells}):
                raise InputError(
                    "some class holds one attribute value only, so there are no groups to balance"
                )
        return make_pipeline(c.plain, make(random_state=c.random_state))

    return Method(made, regimes, "annotated", is_reference)


_LINEAR: dict[str, Callable[[], Any]] = {
    "mean_diff": baselines.MeanDifference,
    "inlp": baselines.INLP,
    "leace": baselines.LEACE,
    "leace_conditional": partial(baselines.LEACE, conditional=True),
    "splince": baselines.SPLINCE,
}
_WORDS = ("concept", "short")
_FAMILIES = ("labelled", "concept")
_EVERY = (*_FAMILIES, "labelled_gap", "short")

METHODS: dict[str, Method] = {
    "erm": Method(lambda c: c.plain, ("none",), is_reference=True),
    "oracle": _head(baselines.LogisticHead, "labelled", is_reference=True),
    "oracle_large": _head(baselines.GroupReweighting, "labelled_all", is_reference=True),
    "random_latents": Method(
        lambda c: edit_alone(c, attribute=RandomLatents(c.supervision.attribute)), _FAMILIES
    ),
    "scrub": Method(scrub, _WORDS),
    "scrub_names": Method(scrub_names, ("concept",)),
    "token_mask": Method(lambda c: baselines.TokenMask(c.encoder, c.supervision.concept), _WORDS),
    "augmentation": Method(
        lambda c: baselines.AugmentedHead(c.encoder, c.supervision.concept, random_state=c.random_state),
        _WORDS,
    ),
    **{name: _linear(make) for name, make in _LINEAR.items()},
    "correlation_removal": _linear(baselines.CorrelationRemoval, "labelled"),
    "counterfactual_subspace": Method(subspace, _WORDS),
    "counterfactual_direction": Method(partial(subspace, n_components=1), _WORDS),
    # the annotated set is balanced, so weighing or drawing its groups alike is annotated_head there
    "reweighting": _head(baselines.GroupReweighting, "labelled_head", grouped=True),
    "subsampling": _head(baselines.GroupSubsampling, "labelled_head", grouped=True),
    "annotated_head": _head(baselines.LogisticHead, "labelled"),
    "dfr": _head(baselines.LastLayerRetraining, "labelled", grouped=True),
    "group_dro": _head(lambda random_state: baselines.GroupDRO(), "labelled", "labelled_head", grouped=True),
    "exponentiated_gradient": _head(baselines.ReducedHead, "labelled", "labelled_head", grouped=True),
    "threshold_optimizer": _head(baselines.ParityThresholds, "labelled", "labelled_head", grouped=True),
    "concept_bottleneck": Method(concept_bottleneck, ("none",)),
    "latent_skyline": Method(latent_skyline, ("labelled",)),
    "gsae": Method(general_sae, _FAMILIES),
    "ssae_erm": Method(partial(tuned, tilt=0.0), _FAMILIES),
    "ssae": Method(partial(tuned, tilt="auto"), _EVERY),
    "gsae_eighth": Method(partial(general_sae, share=NARROW), _FAMILIES),
    "ssae_eighth": Method(partial(edit_alone, share=NARROW), _FAMILIES),
    "ssae_deep": Method(middle, _FAMILIES),
    **{
        f"ssae_{name}": Method(partial(_followed, make), ("labelled", "labelled_gap"))
        for name, make in _LINEAR.items()
        if name != "mean_diff"
    },
    "ssae_mean_diff": Method(
        partial(edit_alone, output_eraser="mean_difference"), ("labelled", "labelled_gap")
    ),
    "ssae_counterfactual": Method(partial(edit_alone, output_eraser="counterfactual"), _WORDS),
    "ssae_fixed": Method(fixed, _EVERY),
    "ssae_default": Method(debiaser, _EVERY),
}
"""In the order of tables."""


def methods_of(config: BenchmarkConfig) -> dict[str, Method]:
    """The methods that a run asks for. Raises InputError for names that there are not."""
    unknown = sorted(set(config.methods) - set(METHODS))
    if unknown:
        raise InputError(f"unknown methods {', '.join(unknown)}; there are {', '.join(METHODS)}")
    return {name: METHODS[name] for name in config.methods}


def family(regime: str) -> str:
    """The family of a regime: all short lists are one."""
    return "short" if regime.startswith("concept_") else regime


def as_method(given: Any) -> Method:
    """What ``compare`` makes of a user's entry: a ``Method``, a function of a ``Context``, or an estimator.

    An estimator that takes ``sensitive_features`` in fit and has no ``attribute`` of its own learns from the
    group-annotated set; any other from the head's texts, told nothing but what it was made with.
    """
    if isinstance(given, Method):
        return given
    if not hasattr(given, "fit"):
        if not callable(given):
            raise InputError(
                f"a method is {type(given).__name__}; expected an estimator, a function of a Context, or a Method"
            )
        return Method(given, ("none",))
    takes_labels = "sensitive_features" in fit_options(given)
    learns = "annotated" if takes_labels and getattr(given, "attribute", None) is None else "head"
    return Method(
        partial(_copy, given),
        ("labelled",) if learns == "annotated" else ("none",),
        learns,  # type: ignore[arg-type]
    )


def _copy(estimator: Any, c: Context) -> Any:
    """An unfitted copy, with the seed's random state where it has one and was given none."""
    copy = clone(estimator)
    params = copy.get_params()
    changes = {name: c.random_state for name in params if name.split("__")[-1] == "random_state"}
    return copy.set_params(**{name: value for name, value in changes.items() if params[name] is None})


def last_step(estimator: Any) -> Any:
    """The last step of a pipeline; of another estimator itself."""
    return estimator.steps[-1][1] if hasattr(estimator, "steps") else estimator


def fit_options(estimator: Any) -> dict[str, str]:
    """The optional arguments of ``fit`` (sensitive_features, exclude) by the name under which to pass them; of a
    pipeline those of its last step.
    """
    prefix = f"{estimator.steps[-1][0]}__" if hasattr(estimator, "steps") else ""
    taken = inspect.signature(last_step(estimator).fit).parameters
    return {name: prefix + name for name in ("sensitive_features", "exclude") if name in taken}


def transform_with(estimator: Any, texts: list[str], z: np.ndarray, what: str) -> np.ndarray:
    """Call ``transform`` or ``predict`` (``what``); an estimator that needs the attribute when used is given it."""
    if not needs_attribute(estimator):
        return np.asarray(getattr(estimator, what)(texts))
    last = last_step(estimator)
    X = estimator[:-1].transform(texts) if last is not estimator else texts
    return np.asarray(getattr(last, what)(X, sensitive_features=z))


def needs_attribute(estimator: Any) -> bool:
    """Whether it needs the attribute of the texts it is used on: such a method is shown and never ranked."""
    return bool(getattr(last_step(estimator), "needs_attribute_at_predict", False))
