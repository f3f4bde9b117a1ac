"""Hints: reasons to look twice at a card, without any label of the attribute; docs/discover.md says how often wrong."""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from sklearn.cluster import KMeans
from sklearn.model_selection import StratifiedKFold, cross_val_predict

from debias_ssae.core.stats.heads import logistic_head, quiet
from debias_ssae.review.cards import LARGE_SHARE, MARKING, MARKS, SMALL, TARGET, Card
from debias_ssae.selection.naming import naming_words

LARGE = f"it carries {LARGE_SHARE:.0%} of the decision or more by itself"
LEADS = "it carries more of the decision than any card of the target's own words"
HARD = "its link with the class is gone in the examples that the head finds hard"
SLICES = "its link with the class turns round between parts of the data"
UNRELATED = "its words are unrelated to the classes' descriptions"

LEAST_LINK = 0.05
"""A difference of firing rates between classes below this is no link."""
_GONE = 0.25
"""A link is gone where less than this share of it is left."""
_FEW = 10
"""Texts of a class that a part of the data must hold to count."""
RELATED = 0.25
"""Cosine of two texts' representations from which on they count as related."""
N_SLICES = 4


def link(active: np.ndarray, y: np.ndarray, toward: int) -> float:
    """How much more often a card fires (``active [n]``) in class ``toward`` than elsewhere; NaN for few texts."""
    inside = y == toward
    if min(inside.sum(), (~inside).sum()) < _FEW:
        return float("nan")
    return float(active[inside].mean() - active[~inside].mean())


def hard_examples(X: np.ndarray, y: np.ndarray, n: int, C: float, random_state: int) -> np.ndarray:
    """The ``n`` examples of each class that a head trained on other folds finds hardest: its errors first."""
    folds = min(5, int(np.bincount(y).min()))
    if folds < 2:
        return np.array([], dtype=int)
    split = StratifiedKFold(folds, shuffle=True, random_state=random_state)
    with quiet():
        p = cross_val_predict(logistic_head(C), X, y, cv=split, method="predict_proba")
    own = p[np.arange(len(y)), y]
    chosen = []
    for code in np.unique(y):
        rows = np.flatnonzero(y == code)
        chosen.append(rows[np.argsort(own[rows], kind="stable")][:n])
    return np.concatenate(chosen)


def slices(X: np.ndarray, random_state: int) -> np.ndarray:
    """Number of the part of the data that each text is in ``[n]``: clusters of its representations."""
    k = min(N_SLICES, len(X))
    return np.asarray(KMeans(k, n_init=3, random_state=random_state).fit_predict(X))


def hinted(
    cards: Sequence[Card],
    classes: Sequence[str],
    *,
    active: np.ndarray,
    y: np.ndarray,
    parts: np.ndarray,
    active_hard: np.ndarray,
    y_hard: np.ndarray,
    relation: np.ndarray | None,
) -> list[Card]:
    """The cards with their hints.

    ``active [n_cards, n]`` and ``active_hard`` say in which texts each card fires, ``y`` and ``y_hard`` are class
    codes, ``parts [n]`` the slices, ``relation [n_cards]`` the cosine of a card's words with the nearest class's
    description; None without descriptions. Cards of the target's own words carry none. Whatever else a card's words
    and share are, it may mark a class. Those with less than SMALL of the decision carry no other hint; cards of
    function words, signs and emoji may also be large where a class goes with them.
    """
    found = []
    own = max((card.share for card in cards if card.kind == TARGET), default=float("inf"))
    for i, card in enumerate(cards):
        is_large = card.share >= LARGE_SHARE and card.kind != TARGET and (card.toward or not card.kind)
        hints = [LARGE] if is_large else []
        rates = card.firing_rate.values()
        if card.kind != TARGET and max(rates, default=0) - min(rates, default=0) >= MARKING:
            hints.append(MARKS)
        if card.kind or card.share < SMALL:
            found.append(replace(card, hints=tuple(hints)))
            continue
        if card.share > own:
            hints.append(LEADS)
        if card.toward:
            toward = list(classes).index(card.toward)
            overall, hard = link(active[i], y, toward), link(active_hard[i], y_hard, toward)
            if overall >= LEAST_LINK and hard <= _GONE * overall:
                hints.append(HARD)
            inside = [link(active[i][parts == part], y[parts == part], toward) for part in np.unique(parts)]
            known = [value for value in inside if abs(value) >= LEAST_LINK]
            if known and min(known) < 0 < max(known):
                hints.append(SLICES)
        if relation is not None and relation[i] < RELATED:
            hints.append(UNRELATED)
        found.append(replace(card, hints=tuple(hints)))
    return found


def spoken(card: Card) -> str:
    """The card's naming words as a text."""
    return " ".join(naming_words(card.words)) or card.name
