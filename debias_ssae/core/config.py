"""Every setting of the package, once, with its default; read from YAML and written to it.

Defaults are the same for every data set and model. Nothing here was chosen by looking at test data.
"""

from collections.abc import Iterable, Mapping
from difflib import get_close_matches
from pathlib import Path
from typing import Any, Literal, Self, TypeVar

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from debias_ssae.core.errors import InputError, brief
from debias_ssae.core.io import parse_yaml, read_yaml

Architecture = Literal["relu", "topk", "batchtopk", "jumprelu", "matryoshka"]
Dtype = Literal["auto", "float32", "bfloat16"]
ROWS_PER_SHARD = 8192
"""Texts a shard of ``transform``: what a killed process makes again, and what is in memory at a time."""


def merged(base: Mapping[str, Any], changes: Mapping[str, Any]) -> dict[str, Any]:
    """``base`` with ``changes``, mappings inside mappings too."""
    return {
        **base,
        **{
            name: merged(base[name], value)
            if isinstance(value, Mapping) and isinstance(base.get(name), Mapping)
            else value
            for name, value in changes.items()
        },
    }


class Settings(BaseModel):
    """Base of all settings: immutable, unknown names and numbers that are not finite refused."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    @model_validator(mode="before")
    @classmethod
    def _keep_the_rest(cls, values: Any) -> Any:
        """A mapping given for a group of settings changes what it names; the rest stays as this class has it."""
        if not isinstance(values, dict):
            return values
        for name, value in values.items():
            known = cls.model_fields.get(name)
            if isinstance(value, bool) and known is not None and known.annotation is not bool:
                raise ValueError(f"{name} is {value}, expected no truth value")
        groups = {n: f.default for n, f in cls.model_fields.items() if isinstance(f.default, Settings)}
        return values | {
            name: merged(default.model_dump(), values[name])
            for name, default in groups.items()
            if isinstance(values.get(name), Mapping)
        }

    def updated(self, **changes: Any) -> Self:
        """Return a copy with ``changes`` applied and validated."""
        return type(self)(**{**self.model_dump(), **changes})


T = TypeVar("T", bound=Settings)


def default_width(d_in: int) -> int:
    """Return how many latents an SAE of rows of width ``d_in`` has by default."""
    return 1 << (16 * d_in - 1).bit_length()


class SAEConfig(Settings):
    """Shape and activation function of a sparse autoencoder."""

    d_in: int = Field(ge=1, le=2**20)
    """Width of a row of activations."""
    d_sae: int = Field(default_factory=lambda values: default_width(values.get("d_in", 1)), ge=1, le=2**24)
    """Number of latents; the default is the first power of two that is at least 16 d_in (docs/dictionary.md)."""
    architecture: Architecture = "batchtopk"
    """Activation function; batchtopk has a threshold at inference, which keeps an eraser elementwise."""
    k: int = Field(default_factory=lambda values: min(4, values.get("d_sae", 4)), ge=1)
    """Mean number of active latents a row (topk, batchtopk, matryoshka; the target L0 of jumprelu)."""
    widths: tuple[int, ...] = ()
    """Nested widths of a matryoshka SAE, growing up to d_sae; () is an eighth, a quarter, half, all."""
    dtype: Literal["float32", "float64"] = "float32"
    """Precision of the weights."""

    @model_validator(mode="after")
    def _check(self) -> Self:
        if self.architecture in ("topk", "batchtopk", "matryoshka") and self.k > self.d_sae:
            raise ValueError(f"k={self.k} is more than d_sae={self.d_sae}")
        widths = self.widths
        if widths and (sorted(set(widths)) != list(widths) or widths[0] < 1 or widths[-1] != self.d_sae):
            raise ValueError(f"widths={widths} must grow from at least 1 to d_sae={self.d_sae}")
        return self


class TrainConfig(Settings):
    """How a sparse autoencoder is trained. Losses and penalties count in units where the rows of the stream,
    centred, have variance 1 a dimension."""

    n_steps: int = Field(default=1000, ge=1)
    """Optimiser steps."""
    batch_size: int = Field(default=2048, ge=1, le=2**24)
    """Rows in a step."""
    lr: float = Field(default=6e-3, gt=0)
    """Peak learning rate of Adam."""
    warmup_fraction: float = Field(default=0.05, ge=0, lt=1)
    """Share of the steps with linear warm-up."""
    decay_fraction: float = Field(default=0.2, ge=0, le=1)
    """Share of the steps, at the end, with linear decay to zero."""
    clip_norm: float | None = Field(default=1.0, gt=0)
    """Largest norm of the whole gradient; None does not clip."""
    tilt: float | Literal["auto"] = 0.0
    """TERM's t on losses divided by their running mean; 0 is the mean loss; "auto" holds a target effective
    sample size (Li et al. 2021, arXiv 2007.01162)."""
    tilt_ess: float = Field(default=0.5, gt=0, le=1)
    """Effective sample size that tilt="auto" holds, as a share of the rows of a batch."""
    tilt_warmup_fraction: float = Field(default=0.1, ge=0, lt=1)
    """Share of the steps over which the tilt grows from 0."""
    sparsity: float | None = Field(default=None, ge=0)
    """Weight of the penalty of relu (L1, per row, over sqrt(d_in)) and jumprelu ((L0 / k - 1)^2); None is
    0.1 for relu and 1 for jumprelu."""
    sparsity_warmup_fraction: float = Field(default=0.1, ge=0, lt=1)
    """Share of the steps over which that penalty grows from 0."""
    bandwidth: float = Field(default=0.05, gt=0)
    """jumprelu: width of the window in which a threshold feels a pre-activation."""
    aux_coefficient: float = Field(default=1 / 32, ge=0)
    """Weight of AuxK, the share of the error that dead latents leave (Gao et al. 2024, 2.4); 0 is off."""
    k_aux: int = Field(default=64, ge=1)
    """Active dead latents a row in AuxK."""
    dead_steps: int | None = Field(default=None, ge=1)
    """A latent that fired in none of the last this many batches is dead; None is as many as the average latent needs
    to fire 160 times."""
    start: Literal["rows", "random"] = "rows"
    """First decoder rows of a training from scratch: distinct rows of the stream, or random directions."""
    start_cosine: float = Field(default=0.7, gt=0, le=1)
    """Cosine from which two centred rows count as the same there."""
    init_batches: int | None = Field(default=None, ge=1)
    """Batches from which scale, centre and first decoder rows are taken; they are trained on as well. None is 4 rows
    a latent, at most 65,536 rows."""
    matmul_dtype: Dtype = "auto"
    """Precision of the product that proposes active latents (topk, batchtopk, matryoshka); the choice among the
    proposed latents and their values are always computed in full precision. auto is bfloat16 where the processor is
    faster with it."""
    device: str = "auto"
    """Where to train: cpu, cuda, cuda:1, ...; auto is cuda where there is one."""
    log_every: int = Field(default=10, ge=1)
    """Steps between records of the history."""
    checkpoint_steps: int = Field(default=500, ge=1)
    """Steps between checkpoints."""
    checkpoint_minutes: float = Field(default=5.0, gt=0)
    """Minutes after which a checkpoint is written even before that."""


class RetrievalConfig(Settings):
    """Which part of the corpus the SSAE is fine-tuned on."""

    embedder: str = "minilm"
    """A sentence-transformers model."""
    n_texts: int = Field(default=10_000, ge=1)
    """How many texts to retrieve."""
    max_seeds: int = Field(default=500, ge=1)
    """Seed texts beyond this number are subsampled."""
    method: Literal["dense", "bm25", "hybrid"] = "dense"
    """How texts are scored; dense is the mean cosine with the seeds."""
    near_duplicate: float = Field(default=0.95, gt=0, le=1)
    """Cosine above which two texts count as one."""
    likely: int | None = Field(default=2, ge=1)
    """Only the best likely * n_texts texts of BM25's ranking are embedded; None embeds the whole corpus."""
    max_length: int = Field(default=32, ge=3)
    """Most tokens of a text that the embedder reads."""


TOKEN_BUDGET = 2048


class ActivationConfig(Settings):
    """How texts become activations."""

    dtype: Dtype = "auto"
    """auto: bfloat16 where the processor is faster with it, else float32."""
    token_budget: int = Field(default=TOKEN_BUDGET, ge=1)
    """Tokens in a batch, padding included; another number may change results by rounding."""
    max_length: int | None = Field(default=None, ge=3)
    """Most tokens of a text, special ones included; None is the model's own limit."""


class SelectionConfig(Settings):
    """Which latents are removed."""

    most_latents: int = Field(default=20, ge=1)
    """Most latents that n_latents="auto" removes."""
    carried: float = Field(default=0.95, gt=0, le=1)
    """Concept regime: share of what all latents of the concept carry that the smallest sufficient set carries."""
    purity: float = Field(default=0.7, ge=0, le=1)
    """Concept regime: share of its activation mass that a latent of the concept has on the concept's tokens."""
    chance: float = Field(default=0.05, gt=0, le=1)
    """Labelled regime: family-wise p-value up to which a latent's difference between the values is no chance; no other
    latent is removed, unless there is none such."""
    readable: float = Field(default=0.25, gt=0, le=1)
    """Labelled regime: share of what a probe read of the attribute; where more is readable after the largest number of
    latents, they do not carry it (docs/decisions/0007) ..."""
    few: int = Field(default=8, ge=1)
    """... and so many go."""
    max_texts: int = Field(default=2_000, ge=1)
    """Texts with counterfactuals that the concept regime looks at."""
    max_labelled: int = Field(default=5_000, ge=1)
    """Labelled texts that the labelled regime looks at, drawn evenly from the cells; their rows are held in
    memory."""
    min_cell: int = Field(default=20, ge=1)
    """Smaller cells (class x attribute) are ignored and listed."""
    propagate: bool = True
    """Concept regime: let the listed words' probe find the concept in tokens that the list lacks."""


class DiscoveryConfig(Settings):
    """How ``discover`` looks for what a classifier's decision rests on."""

    C: float = Field(default=0.1, gt=0)
    """Inverse penalty of the standardised logistic head, where none is given."""
    n_texts: int = Field(default=120, ge=2)
    """Texts whose decision is attributed to latents, evenly from the predicted classes."""
    steps: int = Field(default=4, ge=1)
    """Points of the path of integrated gradients."""
    max_texts: int = Field(default=600, ge=10)
    """Texts on which latents are read; they do not train the head. At most a quarter of all."""
    n_latents: int = Field(default=120, ge=1)
    """Best latents that are read and merged into cards."""
    n_tried: int = Field(default=60, ge=1)
    """Cards that are removed, one by one, to see what the decision loses without them."""
    n_cards: int = Field(default=40, ge=1)
    """Cards a round: those without which the decision moves most."""
    n_what_if: int = Field(default=160, ge=1)
    """Texts on which that is tried, evenly from the predicted classes."""
    n_hard: int = Field(default=60, ge=1)
    """Examples of each class that the head finds hardest, for a hint."""
    recurrence: bool = False
    """Train each SAE once more from another start, so that the cards say whether their latents come back."""


class EvaluationConfig(Settings):
    """How much of the data ``sae eval`` looks at."""

    n_tokens: int = Field(default=100_000, ge=2)
    """Tokens of the data, and as many of the general texts, whole texts drawn at random; their rows are held in
    memory."""
    max_length: int = Field(default=128, ge=3)
    """Most tokens of a text, special ones included."""
    n_positions: int = Field(default=1_000, ge=1)
    """Tokens whose prediction is scored with the SAE spliced in; the head over the whole vocabulary is costly."""
    n_words: int = Field(default=4_000, ge=10)
    """Words of the model's vocabulary in the first-letter task, evenly from the letters; a fifth tests."""
    n_examples: int = Field(default=5, ge=0)
    """Words spelled in front of each prompt whose answer is attributed to latents."""
    n_ablated: int = Field(default=20, ge=1)
    """Tokens a value on which the ablation rule is tried; the paper tries 200."""
    n_explained: int = Field(default=100, ge=1)
    """Latents that are explained, evenly over their activation counts."""
    n_judged: int = Field(default=20, ge=1)
    """Of those, how many a judge is asked about."""
    target_fvu: float | None = Field(default=None, gt=0)
    """FVU at which the description length is counted; None is a hundredth above the larger of the SAE's and the
    reference's."""


class DebiasConfig(Settings):
    """All settings of SSAEDebiaser beyond its own parameters."""

    d_sae: int | None = Field(default=None, ge=1, le=2**24)
    """Number of latents; None goes by the width of the rows, as SAEConfig does."""
    k: int | None = Field(default=None, ge=1)
    """Active latents a row; None is 4 at the embeddings and 8 deeper, where a row says more."""
    architecture: Architecture = "batchtopk"
    general: TrainConfig = TrainConfig(n_steps=100, lr=4e-3)
    """Training of the general SAE, on the corpus."""
    special: TrainConfig | None = TrainConfig(n_steps=150, lr=2e-3)
    """Fine-tuning of the SSAE, on the subdomain; None takes the general SAE as it is, which then wants more
    steps."""
    general_rows: int = Field(default=1_000_000, ge=1)
    """Activation rows (tokens) sampled from the corpus for the general SAE."""
    special_rows: int = Field(default=2_500_000, ge=1)
    """Activation rows of the subdomain, at most about so many and no more than training uses, drawn in whole texts;
    they are held in memory, with 4 bytes a number."""
    recenter: bool = True
    """Shift the output so that the training texts' mean stays in place; a deployed classifier needs that."""
    retrieval: RetrievalConfig = RetrievalConfig()
    activations: ActivationConfig = ActivationConfig()
    selection: SelectionConfig = SelectionConfig()
    discovery: DiscoveryConfig = DiscoveryConfig()

    def sae_config(self, d_in: int, hookpoint: str) -> SAEConfig:
        """Return the shape of the SAE for rows of width ``d_in`` at ``hookpoint`` (any name for rows of a matrix)."""
        d_sae = self.d_sae or default_width(d_in)
        k = self.k or (4 if hookpoint == "embeddings" else 8)
        return SAEConfig(d_in=d_in, d_sae=d_sae, k=min(k, d_sae), architecture=self.architecture)


PRESETS: dict[str, dict[str, Any]] = {
    "default": {},
    "fast": {
        "general": {"n_steps": 80},
        "special": {"n_steps": 100},
        "general_rows": 300_000,
        "retrieval": {"n_texts": 3_000, "max_seeds": 500},
        "selection": {"max_texts": 500},
    },
    "thorough": {
        "general": {"n_steps": 3_000, "lr": 2e-3},
        "special": {"n_steps": 1_500, "lr": 5e-4},
        "general_rows": 3_000_000,
        "discovery": {"recurrence": True},
    },
}
"""What ``--preset`` of fit and discover changes."""


class BenchmarkConfig(Settings):
    """The benchmark's protocol."""

    encoder: str = "minilm"
    hookpoint: str = "embeddings"
    layer: str = "final"
    pooling: str = "auto"
    device: str = "auto"
    """Where the model and the SAEs run: cpu, cuda, cuda:1, ...; auto is cuda where there is one."""
    concept: str | None = "gender"
    """Shipped name or file of the concept for methods that are given words; None leaves these methods out, for
    attributes that no list of words describes."""
    setting: Literal["confounded", "natural"] = "confounded"
    """Whether the head learns from each class's majority cell alone, or from a plain sample."""
    methods: tuple[str, ...] = ("erm", "oracle", "scrub", "mean_diff", "ssae_default")
    regimes: tuple[str, ...] = ()
    """The supervision that methods get: none, labelled, labelled_gap, labelled_head, labelled_all, concept,
    and concept_NAME for each short list; () is every one that can be."""
    short_concepts: dict[str, str | list[str] | list[list[str]]] | None = None
    """Short lists by name: a section of the concept, two words, or pairs of words. None is, for gender, its
    pronouns and the two words he and she; for others none."""
    bottleneck_words: tuple[str, ...] = ()
    """Words about the task for concept_bottleneck, none about the attribute."""
    seeds: int = Field(default=5, ge=1, le=2**15)
    """Number of seeds; each is a new split, a new SAE and a new selection."""
    seed: int = Field(default=0, ge=0, le=2**31 - 2**16)
    """The first seed."""
    n_test: int = Field(default=120, ge=3)
    """Test texts of a cell (class x attribute value)."""
    n_attribute: int = Field(default=120, ge=3)
    """Texts of a cell in the group-annotated set."""
    max_head: int = Field(default=2000, ge=1)
    """Texts of a majority cell that train the head, at most."""
    n_corpus: int | None = Field(default=None, ge=1)
    """Texts of the corpus that are used, the same in every seed; None is all."""
    n_latents: int = Field(default=20, ge=0)
    """Latents that the methods with a fixed number remove, all the same."""
    quick: bool = False
    """Marks a quick look (QUICK), which is no measurement."""
    debias: DebiasConfig = DebiasConfig()

    @property
    def short_lists(self) -> dict[str, str | list[str] | list[list[str]]]:
        """The short lists that this run has."""
        if self.short_concepts is None:
            return {"pronouns": "pronouns", "he_she": ["he", "she"]} if self.concept == "gender" else {}
        return self.short_concepts

    @property
    def word_regimes(self) -> tuple[str, ...]:
        """The regimes of the concept: the whole list, then the short ones."""
        return ("concept", *(f"concept_{name}" for name in self.short_lists))

    @model_validator(mode="after")
    def _check(self) -> Self:
        known = {"none", "labelled", "labelled_gap", "labelled_head", "labelled_all", *self.word_regimes}
        strange = sorted(set(self.regimes) - known)
        if strange:
            raise ValueError(f"unknown regimes {strange}; there are {sorted(known)}")
        return self


DEMO = BenchmarkConfig(
    methods=("erm", "ssae_default", "oracle"),
    regimes=("none", "concept"),
    seeds=1,
    n_test=50,
    n_attribute=50,
    max_head=250,
    debias=DebiasConfig(
        general=TrainConfig(n_steps=300, batch_size=1024, lr=2e-3),
        special=TrainConfig(n_steps=100, batch_size=1024, lr=5e-4),
        general_rows=150_000,
        retrieval=RetrievalConfig(n_texts=1_000, max_seeds=500),
    ),
)
"""Small enough for minutes on two cores; every stage is the real one."""

QUICK = {
    "quick": True,
    "regimes": ("none", "labelled", "labelled_all", "concept"),
    "seeds": 2,
    "n_test": 60,
    "n_attribute": 60,
    "max_head": 300,
    "n_corpus": 5_000,
    "debias": {
        "d_sae": 2048,
        "general": {"n_steps": 300, "lr": 2e-3},
        "special": {"n_steps": 100, "lr": 5e-4},
        "general_rows": 150_000,
        "retrieval": {"n_texts": 1_000, "max_seeds": 500},
        "selection": {"max_texts": 600},
    },
}
"""What --quick sets in the benchmark: a look at the shape of the result, in about five minutes on two cores."""


def load_config(
    cls: type[T],
    source: T | Mapping[str, Any] | str | Path | None = None,
    overrides: Mapping[str, Any] | None = None,
    *,
    defaults: Mapping[str, Any] | None = None,
) -> T:
    """Return the settings that ``source`` stands for: a YAML file's path, a mapping, settings, or None for none.

    ``overrides`` win over the source, the source over ``defaults``, setting by setting. Raises InputError that
    names the file and each wrong field, for an unknown one with the likeliest name.
    """
    name = "the configuration"
    if isinstance(source, Settings):
        if not isinstance(source, cls):
            raise InputError(
                f"config is {type(source).__name__}; expected {cls.__name__}, a dict or a YAML file"
            )
        values: Any = source.model_dump()
    elif source is None:
        values = {}
    elif isinstance(source, str | Path):
        name = f"the configuration {source}"
        values = read_yaml(source)
        values = {} if values is None else values
    else:
        values = source
    if not isinstance(values, Mapping):
        raise InputError(f"{name} is {brief(values)}; expected a mapping of names to values")
    return make_config(cls, merged(merged(defaults or {}, values), overrides or {}), name)


def parse_overrides(pairs: Iterable[str]) -> dict[str, Any]:
    """Return what ``--set NAME=VALUE`` options say, dots reaching into groups: ``special.n_steps=50``.

    Raises InputError for what has no name or no value, and for a name that is given twice.
    """
    values: dict[str, Any] = {}
    for pair in pairs:
        name, equals, value = pair.partition("=")
        steps = name.strip().split(".")
        if not equals or not all(steps):
            raise InputError(f"--set {brief(pair)}: expected NAME=VALUE, for example special.n_steps=50")
        here = values
        for step in steps[:-1]:
            here = here.setdefault(step, {})
            if not isinstance(here, dict):
                raise InputError(f"--set gives {name.strip()!r} both a value and settings of its own")
        if steps[-1] in here:
            raise InputError(f"--set gives {name.strip()!r} twice; keep one")
        here[steps[-1]] = parse_yaml(value, f"--set {name}")
    return values


def make_config(cls: type[T], values: Mapping[str, Any], source: str = "the configuration") -> T:
    """Validate ``values``; raises InputError that names each wrong field, and for an unknown one the likely one."""
    if strange := [name for name in values if not isinstance(name, str)]:
        raise InputError(f"{source}: {brief(strange[0])} is no name of a setting")
    try:
        return cls(**values)
    except ValidationError as error:
        raise InputError(f"{source}: {faults_of(cls, error)}") from error


def faults_of(cls: type[BaseModel], error: ValidationError) -> str:
    """What was wrong with values given to ``cls``, in one line: each wrong field, what it got and the likely name."""
    found = error.errors(include_url=False)
    more = f"; and {len(found) - 5} more" if len(found) > 5 else ""
    return "; ".join(_fault(cls, fault) for fault in found[:5]) + more


def _fault(cls: type[BaseModel], fault: Any) -> str:
    place = ".".join(brief(step)[1:-1] if isinstance(step, str) else str(step) for step in fault["loc"])
    if fault["type"] != "extra_forbidden":
        message = fault["msg"].removeprefix("Value error, ")
        if fault["type"] == "model_type":
            message = "expected a group of settings, name: value"
        got = "" if fault["type"] == "value_error" else f" (got {brief(fault['input'])})"
        return f"{place}: {message}{got}" if place else f"{message}{got}"
    for step in fault["loc"][:-1]:
        inner = cls.model_fields[step].annotation if step in cls.model_fields else None
        if not (isinstance(inner, type) and issubclass(inner, BaseModel)):
            return f"{place}: unknown name"
        cls = inner
    known = list(cls.model_fields)
    likely = get_close_matches(str(fault["loc"][-1])[:100], known, n=1)
    cure = f"did you mean {likely[0]}?" if likely else f"the names are {', '.join(known)}"
    return f"{place}: unknown name; {cure}"


def dump_config(config: Settings) -> str:
    """Return ``config`` as YAML, every default resolved."""
    return yaml.safe_dump(config.model_dump(mode="json"), sort_keys=False)
