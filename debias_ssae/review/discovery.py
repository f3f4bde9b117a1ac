"""``discover``: from texts, labels and a classifier to a short list of what its decision rests on."""

import warnings
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from difflib import get_close_matches
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from sklearn.metrics import roc_auc_score
from sklearn.metrics.pairwise import cosine_similarity

from debias_ssae.core.cache import cache_directory
from debias_ssae.core.config import DebiasConfig, DiscoveryConfig, load_config
from debias_ssae.core.errors import InputError, brief, check_seed
from debias_ssae.core.steps import Steps, show_progress, to_stderr
from debias_ssae.debiaser.inputs import read_corpus, read_saes, trained_on
from debias_ssae.debiaser.training import check_width, learn_ssae
from debias_ssae.erase import LatentEraser
from debias_ssae.model import Activations, harvest
from debias_ssae.model.encoder import ActivationEncoder, as_encoder
from debias_ssae.model.language_model import check_hookpoints
from debias_ssae.review.cards import (
    STANDS_OUT,
    TARGET,
    Card,
    Judge,
    Scored,
    WhatIf,
    make_cards,
    numbered,
    to_choices,
)
from debias_ssae.review.hints import LEAST_LINK, hard_examples, hinted, slices, spoken
from debias_ssae.review.page import folds, plot_shares, write_shortcuts
from debias_ssae.sae.model import SparseAutoencoder
from debias_ssae.selection.choices import Choices
from debias_ssae.selection.classifier import LinearHead, classifier_attribution, edits_before
from debias_ssae.selection.naming import WordedRows, find_words, firing
from debias_ssae.text.checks import check_labels, check_texts

FEWEST = 10
"""Texts of a class without which nothing is shown."""
ENOUGH = 40
"""Texts of a class from which on what leads can be trusted: a quarter is read, and hints need ten of a class."""
TOGETHER, OF_ONE, OF_OTHERS = 0.1, 0.15, 0.02
"""The share of the decision from which on cards are named that by themselves do not stand out: those that fire in so
many texts of one class and in so few of any other."""
BY_LENGTH = 0.8
"""Area under the ROC curve from which on the length of texts is said to tell a class from the rest."""
SAE_COST = 100.0
"""About the processor seconds of one SAE; only how it compares with ``_costs`` counts."""


def discover(
    texts: Any,
    y: Any = None,
    *,
    encoder: str | ActivationEncoder = "minilm",
    corpus: Any = None,
    sae: Any = None,
    head: Any = None,
    hookpoint: str | Sequence[str] = "embeddings",
    class_words: Mapping[Any, str] | None = None,
    other_sae: Any = None,
    layer: str = "final",
    pooling: str = "auto",
    cache_dir: str | Path | None = "auto",
    device: str = "auto",
    config: DebiasConfig | Mapping[str, Any] | str | Path | None = None,
    random_state: int | None = None,
    verbose: bool = False,
    choices: Choices | str | Path | None = None,
    say: Callable[[str], None] | None = None,
) -> "Shortcuts":
    """Show what a text classifier's decision rests on, latent by latent (SHIFT, Marks et al. 2024, section 4).

    No attribute is named. A specialised SAE is trained (or given), the decision is attributed to its latents through
    the language model, and latents that fire on the same words become one card.

    Parameters
    ----------
    texts : ``(n,)``
    y : ``(n,)``, optional
        The target. Without it, ``head`` must hold predicted classes, which take its place; scores do not name classes.
    encoder : "minilm", directory, hub id or ActivationEncoder
    corpus : path or texts, optional
        Texts from which further training texts of the SSAE are retrieved; without it, it learns from ``texts`` alone.
    sae : SparseAutoencoder, path, or a mapping of hookpoint to either, optional
        An SAE to use as it is; without it one is trained.
    head : optional
        None trains a standardised logistic regression on y. A fitted linear scikit-learn classifier of the
        representations is used exactly. From any other classifier, and from an array of predicted classes or of
        scores, a linear head is distilled; ``Shortcuts.fidelity`` says how often it agrees.
    hookpoint : str or several
        Where the SAEs read the model.
    class_words : mapping of class to a description, optional
        Used for the hint "unrelated to the classes" and to recognise the target's own words; by default the classes'
        names, if these are words.
    other_sae : as ``sae``, optional
        SAEs of another training: a card's recurrence is its latents' largest cosine with them.
    cache_dir : path, "auto" or None
        As in ``SSAEDebiaser``. A run that was stopped continues from the SAEs, and with a path from the embeddings too.
    choices : Choices, or the path of their file or folder, optional
        The ticks of earlier rounds; the first round shown is then of the model without those latents. Their SAEs are
        used where ``sae`` gives none.
    say : callable, optional
        It is called with one line at each step; ``verbose`` prints these lines and shows bars.

    Raises
    ------
    InputError
        For unusable input, before anything is trained; a class needs FEWEST texts, and below ENOUGH a UserWarning says
        that they are few.
    """
    listed, random_state = check_texts(texts), check_seed(random_state)
    if y is None and head is not None and not hasattr(head, "predict"):
        y = head
        if (scores := np.asarray(head)).ndim != 1 or (scores.dtype.kind == "f" and (scores % 1 != 0).any()):
            raise InputError(
                "the predictions are scores, which do not say what the classes are; give the target as well "
                "(y, --target)"
            )
    if y is None:
        raise InputError("y is missing; give the target, or the classifier's predicted classes as head=")
    labels = np.asarray(y)
    if labels.shape != (len(listed),):
        raise InputError(f"there are {len(listed)} texts, but y has shape {labels.shape}; they must agree")
    if pd.isna(labels).any():
        raise InputError(f"y holds {int(pd.isna(labels).sum())} missing values; leave those texts out")
    check_labels(labels, "y")
    classes, codes = np.unique(labels, return_inverse=True)
    if len(classes) < 2:
        raise InputError(f"a classifier needs two classes, but y holds only {classes.tolist()}")
    sizes = np.bincount(codes)
    if sizes.min() < FEWEST:
        rare = brief([str(classes[c]) for c in np.flatnonzero(sizes < FEWEST)])
        raise InputError(
            f"there are {len(listed)} texts of {len(classes)} classes, of which {rare} have fewer than {FEWEST} texts; "
            "give more texts"
            + (" or leave these classes out" if (sizes >= FEWEST).sum() > 1 else "")
            + (", or give classes in place of numbers" if labels.dtype.kind in "iuf" else "")
        )
    if few := _few(classes, codes):
        warnings.warn(few, stacklevel=2)
    if head is not None and not hasattr(head, "predict") and np.shape(head)[:1] != (len(listed),):
        raise InputError(
            f"head is a {type(head).__name__}; expected a fitted scikit-learn classifier, or an array of its "
            f"predictions or scores on the {len(listed)} texts"
        )
    settings = load_config(DebiasConfig, config)
    encoder = as_encoder(
        encoder,
        layer=layer,
        pooling=pooling,
        cache_dir=None if cache_dir == "auto" else cache_dir,
        device=device,
        **settings.activations.model_dump(),
    )
    model = encoder.language_model
    settings = trained_on(encoder, settings)
    model.check_spans()
    if isinstance(choices, str | Path):
        choices = Choices.load(choices)
    if choices is not None and choices.saes and sae is None:
        sae, hookpoint = dict(choices.saes), list(choices.saes)
    names = [hookpoint] if isinstance(hookpoint, str) else list(hookpoint)
    check_hookpoints([*names, encoder.layer], model.hookpoints)
    given, others = (_saes(one, names, model.d_model) for one in (sae, other_sae))
    if choices is not None:
        _ = Choices({}, given) | choices  # refuses latents of other SAEs
    steps = Steps(say or to_stderr)
    pool = read_corpus(corpus)

    def learn(name: str, start: int | None) -> SparseAutoencoder:
        steps.begin(f"sparse autoencoder at {name}" + (", another start" if start != random_state else ""))
        options: dict[str, Any] = {"corpus": pool, "cache_dir": cache_directory(cache_dir)}
        return learn_ssae(model, listed, name, settings, random_state=start, **options).sae

    again = [name for name in names if settings.discovery.recurrence and name not in others]
    n_trainings = sum(name not in given for name in names) + len(again)
    steps.expect(*[SAE_COST] * n_trainings, *_costs(len(listed), len(names)))
    with show_progress(verbose):
        saes = {name: given[name] if name in given else learn(name, random_state) for name in names}
        others |= {name: learn(name, (random_state or 0) + 1) for name in again}
        study = _Study(
            texts=listed,
            y=codes,
            classes=tuple(map(str, classes.tolist())),
            encoder=encoder,
            saes={name: saes[name] for name in sorted(names, key=model.hookpoints.index)},
            others=others,
            head=head,
            class_words=_described(classes, class_words),
            config=settings.discovery,
            random_state=0 if random_state is None else int(random_state),
            steps=steps,
            read=_read_rows(codes, settings.discovery, random_state),
            labels=classes,
        )
        return study.run(Choices({}, {}) if choices is None else choices, 1 if choices is None else 2)


@dataclass(frozen=True)
class Shortcuts:
    """What the decision rests on, in one round of looking."""

    cards: list[Card]
    """Largest share of the decision first, whatever its sign."""
    accuracy: float
    """Of the head in this round's model, on texts that did not train it."""
    fidelity: float
    """Share of the texts on which the linear head agrees with the head that it stands for."""
    head: LinearHead
    round: int
    choices: Choices
    """What earlier rounds removed."""
    study: "_Study"

    def to_frame(self) -> pd.DataFrame:
        """Return one row a card, by its number: name, share, toward, effects and firing rates by class, what_if,
        latents.
        """
        numbers = pd.RangeIndex(1, len(self.cards) + 1, name="card")
        return pd.DataFrame([_flat(card) for card in self.cards], index=numbers)

    def choose(self, judge: Judge | int | str | Iterable[int | str]) -> Choices:
        """Ask the judge about every card; returns all choices so far, those of earlier rounds included.

        ``judge`` is a callable from a card to True (remove) or False, or the cards to remove: their numbers, which
        begin with 1 as on the page, or their names, one or several. Raises InputError for a card that is not there.
        """
        if callable(judge):
            ticks = [bool(judge(card)) for card in self.cards]
        else:
            given = [judge] if isinstance(judge, str) or not isinstance(judge, Iterable) else judge
            wanted = {self._number(one) for one in given}
            ticks = [i in wanted for i in range(1, len(self.cards) + 1)]
        chosen = replace(to_choices(self.cards, ticks, self.study.saes), by_judge=callable(judge))
        return self.choices | chosen

    def _number(self, given: object) -> int:
        """The number of the card that a number or a name stands for."""
        numbers = {card.name.casefold(): i for i, card in enumerate(self.cards, 1)}
        if (
            isinstance(given, int | np.integer)
            and not isinstance(given, bool)
            and 1 <= given <= len(self.cards)
        ):
            return int(given)
        near: list[str] = []
        if isinstance(given, str):
            if given.casefold() in numbers:
                return numbers[given.casefold()]
            near = get_close_matches(given.casefold(), numbers, n=1, cutoff=0.4)
        cure = "".join(
            f"did you mean {numbers[one]}, {self.cards[numbers[one] - 1].name!r}? " for one in near
        )
        raise InputError(
            f"there is no card {brief(given)}; {cure}A card is chosen by its name, or by its number from 1 to "
            f"{len(self.cards)}, as on the page"
        )

    def next_round(self, choices: Choices) -> "Shortcuts":
        """Return what a refitted head rests on in the model without what was ticked; choices accumulate.

        A head that was given is left as it is: it was not trained here.
        """
        return self.study.run(self.choices | choices, self.round + 1)

    @property
    def in_sight(self) -> list[Card]:
        """The cards that the page does not fold."""
        return [card for card, folded in zip(self.cards, folds(self.cards), strict=True) if not folded]

    @property
    def stands_out(self) -> list[Card]:
        """The cards that do; empty where nothing stands out."""
        return [card for card in self.cards if card.stands_out]

    @property
    def verdict(self) -> str:
        """What to look at first, in a sentence; before it, where there are few texts, that there are."""
        said = (_few(np.array(self.study.classes), self.study.y), _length(self.study))
        few = "".join(f"{sentence} " for sentence in said if sentence)
        if self.stands_out:
            return f"{few}Look first at: {_listed(self.stands_out, 5)}."
        alone = [card for card in self.cards if card.kind != TARGET and card.share > 0 and _is_of_one(card)]
        together = sum(card.share for card in alone)
        if together >= TOGETHER:
            return (
                f"{few}No card stands out by itself, but {len(alone)} that fire in texts of one class alone hold "
                f"{together:.0%} of the decision together: {_listed(alone, 10)}. See whether they are of one theme, "
                "or your task's own words."
            )
        return (
            f"{few}Nothing stands out: no card that carries a hint has {STANDS_OUT:.0%} of the decision. Judge the "
            "cards all the same: a hint does not know what should count, and something spread over very many words "
            "need not show on any card."
        )

    def save(self, directory: str | Path) -> None:
        """Write ``shortcuts.html``, ``choices.yaml`` (nothing ticked but earlier rounds' choices) and the SAEs."""
        write_shortcuts(self, Path(directory))

    def plot(self, n: int = 15) -> Any:
        """Return a matplotlib figure of the first cards' shares, coloured by class. Raises MissingExtraError."""
        return plot_shares(self.cards[:n], self.study.classes)

    def __repr__(self) -> str:
        names = ", ".join(f"{card.name} {card.share:.1%}" for card in self.cards[:5])
        return f"Shortcuts(round {self.round}, {len(self.cards)} cards: {names}, ...)"

    def _repr_html_(self) -> str:
        columns = ["words", "share", "toward", "accuracy without", "predictions changed", "kind", "hints"]
        shown = self.to_frame().reindex(columns=columns).to_html(float_format="{:.3f}".format, na_rep="")
        note = f"Round {self.round}; the head's accuracy is {self.accuracy:.3f}, its fidelity {self.fidelity:.3f}."
        return f"<p>{note}</p>{shown}"


@dataclass(frozen=True)
class _Study:
    """What stays the same from round to round."""

    texts: list[str]
    y: np.ndarray
    """Codes ``[n]`` of ``classes``."""
    classes: tuple[str, ...]
    encoder: ActivationEncoder
    saes: dict[str, SparseAutoencoder]
    others: dict[str, SparseAutoencoder]
    head: Any
    class_words: dict[str, str]
    config: DiscoveryConfig
    random_state: int
    steps: Steps
    read: np.ndarray
    """Numbers of the texts that are read; the head learns from the others."""
    labels: np.ndarray
    """The classes as they were given ``[n_classes]``."""

    def run(self, choices: Choices, number: int) -> Shortcuts:
        """One round in the model without the chosen latents."""
        steps, config = self.steps, self.config
        removed = choices.ids
        edits = {h: LatentEraser.from_sae(self.saes[h], ids.tolist()) for h, ids in removed.items()}
        if steps.ended:  # of a later round
            steps.expect(*_costs(len(self.texts), len(self.saes)))
        steps.begin(f"representations of {len(self.texts):,} texts")
        X = self.encoder.encode(self.texts, edits)
        head = self._head(X, edits)
        predicted = head.codes(X)
        read = self.read
        accuracy = float((predicted[read] == self.y[read]).mean())
        attributed = _balanced(predicted[read], read, config.n_texts, self.texts, self.random_state)
        tried = _balanced(predicted[read], read, config.n_what_if, self.texts, self.random_state + 1)
        cards: list[Card] = []
        worded: dict[str, WordedRows] = {}
        for hookpoint, sae in self.saes.items():
            steps.begin(f"decision of {len(attributed)} texts through the model, at {hookpoint}")
            scores = classifier_attribution(
                self.encoder.language_model,
                sae,
                self._texts(attributed),
                head.margins(predicted[attributed]),
                labels=predicted[attributed],
                hookpoint=hookpoint,
                layer=self.encoder.layer,
                pooling=self.encoder.pooling,  # type: ignore[arg-type]
                edits=edits,
                removed=removed.get(hookpoint, np.array([], dtype=int)),
                steps=config.steps,
            )
            steps.begin(f"words of the latents at {hookpoint}")
            present = np.unique(predicted[attributed])
            groups = tuple(self.classes[c] for c in present)
            scored = Scored(scores.score, scores.effect, groups, scores.effect.argmax(axis=0))
            worded[hookpoint] = find_words(self._texts(read), self._rows(hookpoint, edits, read))
            ids = scores.top(config.n_latents)
            cards += make_cards(
                hookpoint,
                ids.tolist(),
                scored,
                firing(sae, worded[hookpoint].rows.x, ids.tolist()),
                worded[hookpoint],
                labels=pd.Index(present).get_indexer(self.y[read]),
                class_words=[*self.classes, *self.class_words.values()],
                recurrence=recurrence_of(sae, self.others.get(hookpoint), ids),
            )
        cards = sorted(cards, key=lambda card: -card.share)[: config.n_tried]
        steps.begin(f"what if: {len(cards)} cards through the model")
        active = self._active(cards, {h: w.rows for h, w in worded.items()})
        cards = self._what_if(cards, active, removed, edits, head, tried)
        order = np.argsort([-abs(card.share) for card in cards], kind="stable")[: config.n_cards]
        cards, active = [cards[i] for i in order], active[order]
        steps.begin("hints")
        cards = numbered(self._hinted(cards, active, edits, X))
        steps.end()
        return Shortcuts(cards, accuracy, head.fidelity, head, number, choices, self)

    def _texts(self, rows: np.ndarray) -> list[str]:
        return [self.texts[i] for i in rows]

    def _head(self, X: np.ndarray, edits: Mapping[str, LatentEraser]) -> LinearHead:
        """The head trained on the edited representations ``X``; a given one was made for the plain ones."""
        if self.head is None:
            train = np.setdiff1d(np.arange(len(X)), self.read)
            return LinearHead.fit(X[train], self.y[train], self.config.C)
        plain = self.encoder.encode(self.texts) if edits else X
        if hasattr(self.head, "predict"):
            return _reordered(LinearHead.read(self.head, plain), self.labels)
        return _reordered(LinearHead.distil(plain, np.asarray(self.head), self.labels), self.labels)

    def _rows(self, hookpoint: str, edits: Mapping[str, LatentEraser], texts: np.ndarray) -> Activations:
        """The activations of some texts at ``hookpoint``, before an edit there."""
        model = self.encoder.language_model
        earlier = edits_before(model, edits, hookpoint)
        return harvest(model, self._texts(texts), hookpoint, edits=earlier)

    def _active(self, cards: Sequence[Card], rows: Mapping[str, Activations]) -> np.ndarray:
        """In which texts each card fires ``[n_cards, n_texts]``."""
        n_texts = next(iter(rows.values())).n_texts
        active = np.zeros((len(cards), n_texts), dtype=bool)
        for i, card in enumerate(cards):
            here = rows[card.hookpoint]
            fired = firing(self.saes[card.hookpoint], here.x, card.latents).any(axis=1)
            active[i] = np.bincount(here.text_ids.numpy()[fired], minlength=n_texts) > 0
        return active

    def _what_if(
        self,
        cards: list[Card],
        active: np.ndarray,
        removed: Mapping[str, np.ndarray],
        edits: Mapping[str, LatentEraser],
        head: LinearHead,
        tried: np.ndarray,
    ) -> list[Card]:
        """Each card with what happens when it goes, on the texts ``tried``; only those in which it fires run again."""
        texts, y = self._texts(tried), self.y[tried]
        once = self.encoder.copy().set_params(cache_dir=None)  # these edits are tried once
        X = once.encode(texts, edits)
        before = head.codes(X)
        lead = head.lead(X, before)
        present = np.unique(before)
        groups = tuple(self.classes[c] for c in present)
        whole = np.mean([lead[before == c].mean() for c in present])
        found = []
        for card, fires in zip(cards, active[:, np.searchsorted(self.read, tried)], strict=True):
            after, lost = before.copy(), np.zeros(len(texts))
            if fires.any():
                ids = dict.fromkeys([*removed.get(card.hookpoint, np.array([], int)).tolist(), *card.latents])
                more = {card.hookpoint: LatentEraser.from_sae(self.saes[card.hookpoint], list(ids))}
                without = once.encode([texts[i] for i in np.flatnonzero(fires)], {**edits, **more})
                after[fires] = head.codes(without)
                lost[fires] = lead[fires] - head.lead(without, before[fires])
            effect = np.array([lost[before == c].mean() for c in present])
            what_if = WhatIf(
                float((after == y).mean()), float((before == y).mean()), float((after != before).mean())
            )
            found.append(
                replace(
                    card,
                    share=float(effect.mean() / whole),
                    effect=dict(zip(groups, effect.tolist(), strict=True)),
                    toward=_goes_with(card.firing_rate),
                    what_if=what_if,
                )
            )
        return found

    def _hinted(
        self, cards: list[Card], active: np.ndarray, edits: Mapping[str, LatentEraser], X: np.ndarray
    ) -> list[Card]:
        config = self.config
        hard = hard_examples(X, self.y, config.n_hard, config.C, self.random_state)
        rows = (
            {h: self._rows(h, edits, hard) for h in {card.hookpoint for card in cards}} if len(hard) else {}
        )
        relation = None
        if self.class_words and cards:
            spelled = [*map(spoken, cards), *self.class_words.values()]
            vectors = self.encoder.encode(spelled)
            relation = cosine_similarity(vectors[: len(cards)], vectors[len(cards) :]).max(axis=1)
        return hinted(
            cards,
            self.classes,
            active=active,
            y=self.y[self.read],
            parts=slices(X[self.read], self.random_state),
            active_hard=self._active(cards, rows) if rows else np.zeros((len(cards), 0), dtype=bool),
            y_hard=self.y[hard],
            relation=relation,
        )


def _few(classes: np.ndarray, codes: np.ndarray) -> str:
    """One sentence where a class has so few texts that what leads may be chance; else nothing."""
    sizes = np.bincount(codes)
    least = int(sizes.argmin())
    if sizes[least] >= ENOUGH:
        return ""
    return (
        f"There are only {sizes[least]} texts of {brief(str(classes[least]))}, so that what leads may be chance; give "
        f"{ENOUGH} or more of each class."
    )


def _is_of_one(card: Card) -> bool:
    """Whether a card fires in a good part of one class's texts and in hardly any other."""
    *others, most = sorted(card.firing_rate.values())
    return most >= OF_ONE and max(others, default=0.0) <= OF_OTHERS


def _length(study: "_Study") -> str:
    """One sentence where their length alone tells the texts of a class from the rest, which no card can show."""
    lengths = np.array([len(text) for text in study.texts])
    areas = [roc_auc_score(study.y == c, lengths) for c in range(len(study.classes))]
    most = int(np.abs(np.array(areas) - 0.5).argmax())
    area = max(areas[most], 1 - areas[most])
    if area < BY_LENGTH:
        return ""
    return (
        f"The texts of {brief(study.classes[most])} are {'longer' if areas[most] > 0.5 else 'shorter'} than the rest: "
        f"their length alone tells them apart (area under the ROC curve {area:.2f}). No latent holds that; cut the "
        "texts to one length if it should not count."
    )


def _listed(cards: Sequence[Card], most: int) -> str:
    """Names of the first cards, with their numbers, and how many more there are."""
    names = ", ".join(f"{card.name} ({card.number})" for card in cards[:most])
    return names + (f" and {len(cards) - most} more" if len(cards) > most else "")


def _costs(n_texts: int, n_hookpoints: int) -> list[float]:
    """What the steps of a round cost beside the others: about processor seconds."""
    return [n_texts / 100, *[30.0, 2.0] * n_hookpoints, 90.0, 5.0]


def _saes(given: Any, hookpoints: list[str], d_in: int) -> dict[str, SparseAutoencoder]:
    """The SAEs by hookpoint, read where paths name them."""
    if given is not None and not isinstance(given, Mapping) and len(hookpoints) > 1:
        raise InputError("one SAE is given for several hookpoints; give a mapping of hookpoint to SAE")
    found = read_saes(given, hookpoints)
    for sae in found.values():
        check_width(sae, d_in)
    return found


def _described(classes: np.ndarray, given: Mapping[Any, str] | None) -> dict[str, str]:
    """The classes' descriptions. A bare name is none: most words of any task are unrelated to it."""
    names = [str(c) for c in classes.tolist()]
    if strange := sorted(set(map(str, given or {})) - set(names)):
        raise InputError(f"there is no class {strange[0]!r} to describe; the classes are {brief(names)}")
    return {str(c): str(w) for c, w in (given or {}).items()}


def _read_rows(y: np.ndarray, config: DiscoveryConfig, random_state: int | None) -> np.ndarray:
    """The texts that are read and do not train the head: of each class its share, at most a quarter in all."""
    share = min(config.max_texts / len(y), 0.25)
    rng = np.random.default_rng(0 if random_state is None else random_state)
    chosen = []
    for code in np.unique(y):
        rows = rng.permutation(np.flatnonzero(y == code))
        chosen.append(rows[: max(1, round(share * len(rows)))])
    return np.sort(np.concatenate(chosen))


def _balanced(
    codes: np.ndarray, rows: np.ndarray, n: int, texts: Sequence[str], random_state: int
) -> np.ndarray:
    """About ``n`` of ``rows``, as many of each predicted class as can be, no text twice."""
    _, first = np.unique([texts[i] for i in rows], return_index=True)
    present = np.unique(codes[first])
    rng = np.random.default_rng(random_state)
    chosen = [rng.permutation(first[codes[first] == c])[: max(1, n // len(present))] for c in present]
    return np.sort(rows[np.concatenate(chosen)])


def _reordered(head: LinearHead, labels: np.ndarray) -> LinearHead:
    """The head with its classes numbered as ``labels [n_classes]`` are."""
    names = [str(c) for c in head.classes]
    wanted = [str(c) for c in labels.tolist()]
    if set(wanted) - set(names) or len(names) != len(wanted):
        raise InputError(f"the head knows the classes {', '.join(names)}, but y holds {', '.join(wanted)}")
    order = [names.index(name) for name in wanted]
    if len(head.weights) == 1:
        sign = 1.0 if order == [0, 1] else -1.0
        return replace(
            head, weights=sign * head.weights, bias=sign * head.bias, classes=tuple(labels.tolist())
        )
    return replace(head, weights=head.weights[order], bias=head.bias[order], classes=tuple(labels.tolist()))


def recurrence_of(
    sae: SparseAutoencoder, other: SparseAutoencoder | None, ids: np.ndarray
) -> np.ndarray | None:
    """The largest cosine of each latent with those of another training."""
    if other is None:
        return None
    a, b = (one.W_dec.detach().cpu().numpy() for one in (sae, other))
    return np.asarray(cosine_similarity(a[ids], b).max(axis=1))


def _goes_with(rates: Mapping[str, float]) -> str:
    """The class in whose texts a card fires most often; "" where it is none."""
    first = max(rates, key=lambda name: rates[name])
    others = [rate for name, rate in rates.items() if name != first]
    return first if others and rates[first] - max(others) >= LEAST_LINK else ""


def _flat(card: Card) -> dict[str, Any]:
    what_if = card.what_if
    return {
        "name": card.name,
        "words": card.title,
        "share": card.share,
        "toward": card.toward,
        **{f"effect in {group}": value for group, value in card.effect.items()},
        **{f"fires in {group}": value for group, value in card.firing_rate.items()},
        "accuracy without": None if what_if is None else what_if.accuracy,
        "predictions changed": None if what_if is None else what_if.changed,
        "recurrence": card.recurrence,
        "kind": card.kind,
        "hints": "; ".join(card.hints),
        "hookpoint": card.hookpoint,
        "latents": list(card.latents),
    }
