"""Cards: what a person reads of a latent, or of several that say the same; and the judges that tick them."""

import json
import logging
import os
import re
import unicodedata
import urllib.request
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from debias_ssae.core.errors import InputError
from debias_ssae.sae.model import SparseAutoencoder
from debias_ssae.selection import naming
from debias_ssae.selection.choices import Choice, Choices
from debias_ssae.text.concept import Concept

logger = logging.getLogger(__name__)

SAME_PLACES = 0.6
"""Latents that have this share of their mass beside tokens where the other one fires are one card: a phrase."""
JUDGED_SHARE = 0.4
"""A word list ticks a card with at least this share of its activation mass on the list."""
MOSTLY = 0.5
"""A card is of function words, or of the target's own words, where at least this share of its mass lies on them."""
SAME_STEM = 4
"""Words with a class's name in common have at least so many first letters in common."""
STANDS_OUT = 0.05
"""A hinted card stands out where it carries at least this share of the decision."""
MARKS = "it stands in nearly every text of one class and in hardly any of another"
MARKING = 0.8
"""By so much more often a card that says so fires in texts of one class than in those of another."""
LARGE_SHARE = 0.15
"""A card that is linked to a class and carries this share of the decision is worth a look, whatever its words are.
Without a shortcut, cards that are not of the target's own words carried at most 0.07 (docs/discover.md)."""
SMALL = 0.01
"""A card with less than this share of the decision, and without which fewer of the predictions change, is small."""
N_CONTEXTS = 5
FUNCTION, TARGET = "function words", "the target's own words"
FUNCTION_WORDS = frozenset(
    """a about after all also am an and any are as at be because been before being between both but by can could did do
    does during each either for from further had has have having how if in into is it its itself just may might more
    most must neither no nor not of off on once only or other out over own per same shall should since so some such than
    that the their them then there these they this those through to too under until up upon very was were what when
    where which while who whom whose why will with within without would""".split()  # noqa: SIM905
)
"""English words that hardly name anything; personal pronouns of one person are not among them."""


@dataclass(frozen=True)
class WhatIf:
    """What happens to the classifier's predictions when a card's latents go as well, computed through the model."""

    accuracy: float
    """Of the head as it is, on texts that did not train it."""
    accuracy_before: float
    changed: float
    """Share of predictions that change."""


@dataclass(frozen=True)
class Card:
    """One latent, or several that say the same."""

    name: str
    """The phrase that the latents stand in, or else the words on which they fire."""
    hookpoint: str
    latents: tuple[int, ...]
    words: dict[str, float]
    """Word to the share of the latents' activation mass that lies on it, most telling first."""
    share: float
    """Of the decision: by how much less the predicted class leads without the latents, mean over classes, over its
    lead. In a review of what is removed: of the evidence, the latents' score over that of all latents."""
    toward: str
    """The class in whose texts the latents fire most often, or the attribute's value with which they rise; "" where it
    is none."""
    effect: dict[str, float]
    """In texts of each class, by how much less it leads there without the latents (in the head's scores); in a review
    of what is removed, how much more active they are."""
    firing_rate: dict[str, float]
    """Share of texts of each class in which one of the latents is active."""
    contexts: tuple[naming.Context, ...]
    ticked: bool = False
    kind: str = ""
    """FUNCTION (punctuation too), TARGET or ""."""
    recurrence: float | None = None
    """Mean over the latents of the largest cosine with a decoder row of another training; None without one."""
    what_if: WhatIf | None = None
    hints: tuple[str, ...] = ()
    """Reasons to look twice that need no label of the attribute; hints, not findings."""
    number: int = 0
    """From 1, the same on the page, in the terminal, in choices.yaml, in ``to_frame`` and for ``choose``."""

    @property
    def stands_out(self) -> bool:
        """Whether it carries a hint and much of the decision, or marks a class, however the decision uses it."""
        return MARKS in self.hints or (bool(self.hints) and self.share >= STANDS_OUT)

    @property
    def is_small(self) -> bool:
        """Whether it hardly matters by itself."""
        return self.what_if is not None and max(abs(self.share), self.what_if.changed) < SMALL

    @property
    def link(self) -> tuple[str, str]:
        """How it is linked to which class: ("goes with", "nurse"), ("works against", "nurse"), or ("", "")."""
        if self.share < 0 and self.effect:
            return "works against", min(self.effect, key=lambda group: self.effect[group])
        return ("goes with", self.toward) if self.toward else ("", "")

    @property
    def title(self) -> str:
        """The name with the share of the mass that lies on each of its words."""
        parts = [f"{word} {self.words[word]:.0%}" for word in naming.naming_words(self.words)]
        return " · ".join(parts) or self.name


@dataclass(frozen=True)
class Scored:
    """What is known of the latents of one SAE before they are read. Arrays over all latents are ``[d_sae]``."""

    score: np.ndarray
    effect: np.ndarray
    """``[n_groups, d_sae]``: how much each latent speaks for the group in texts of it."""
    groups: tuple[str, ...]
    toward: np.ndarray
    """Index into ``groups`` of what each latent speaks for, -1 where unknown."""


def make_cards(
    hookpoint: str,
    ids: Sequence[int],
    scored: Scored,
    fired: np.ndarray,
    worded: naming.WordedRows,
    *,
    labels: np.ndarray | None = None,
    classes: tuple[str, ...] = (),
    merge: bool = True,
    ticked: Iterable[int] = (),
    class_words: Iterable[str] = (),
    recurrence: np.ndarray | None = None,
) -> list[Card]:
    """Read the latents ``ids``, best first, with activations ``fired [n_rows, len(ids)]``; best card first.

    ``labels [n_texts]`` index ``classes``, or else ``scored.groups``. ``recurrence [len(ids)]`` is each latent's
    largest cosine with those of another training. Latents that fire on none of the texts make no card unless
    ``ticked``.
    """
    removed = set(ticked)
    seen = [i for i, latent in enumerate(ids) if fired[:, i].any() or latent in removed]
    together = _merged(seen, ids, scored, fired, worded, removed) if merge else [[i] for i in seen]
    total = max(float(scored.score.sum()), 1e-12)
    owners, n_texts = worded.rows.text_ids.numpy(), worded.rows.n_texts
    cards = []
    for columns in together:
        latents = [int(ids[i]) for i in columns]
        weight = np.maximum(scored.score[latents], 1e-12)
        mass = np.maximum(fired[:, columns].sum(axis=0, dtype=np.float64), 1e-12)
        strength = fired[:, columns] @ (weight / mass)
        words = naming.word_shares(worded, strength)
        active = np.bincount(owners[strength > 0], minlength=n_texts) > 0
        toward = int(scored.toward[latents[0]])
        phrase = naming.find_phrase(worded, strength)
        cards.append(
            Card(
                name=phrase or _name(words),
                hookpoint=hookpoint,
                latents=tuple(latents),
                words=words,
                share=float(scored.score[latents].sum() / total),
                toward=scored.groups[toward] if toward >= 0 else "",
                effect=dict(
                    zip(scored.groups, np.nansum(scored.effect[:, latents], axis=1).tolist(), strict=False)
                ),
                firing_rate=_rates(active, labels, classes or scored.groups),
                contexts=naming.find_contexts(worded, strength, n_contexts=N_CONTEXTS),
                ticked=latents[0] in removed,
                kind=kind_of(words, phrase, class_words),
                recurrence=None if recurrence is None else float(recurrence[columns].mean()),
            )
        )
    return sorted(cards, key=lambda card: -card.share)


def numbered(cards: Iterable[Card]) -> list[Card]:
    """The cards with their numbers; of several with one name the later ones have their words, or a count, behind it."""
    found: dict[str, Card] = {}
    for number, card in enumerate(cards, 1):
        name, words = card.name, _name(card.words)
        if name.casefold() in found and words != name:
            name = f"{name} ({words})"
        key = name.casefold()
        same = sum(one == key or one.startswith(f"{key} #") for one in found)
        name = f"{name} #{same + 1}" if same else name
        found[name.casefold()] = replace(card, number=number, name=name)
    return list(found.values())


def to_choices(
    cards: Sequence[Card], ticks: Sequence[bool], saes: Mapping[str, SparseAutoencoder]
) -> Choices:
    """The cards as choices, ticked as said."""
    chosen: dict[str, list[Choice]] = {}
    for number, (card, tick) in enumerate(zip(cards, ticks, strict=True), 1):
        chosen.setdefault(card.hookpoint, []).append(
            Choice(
                tick=bool(tick),
                number=number,
                name=card.name,
                ids=card.latents,
                toward=card.toward,
                words={word: round(card.words[word], 3) for word in naming.naming_words(card.words)},
            )
        )
    return Choices({h: tuple(c) for h, c in chosen.items()}, {h: saes[h] for h in chosen})


def _name(words: Mapping[str, float]) -> str:
    """The words with most of the mass; of a diffuse latent the most telling ones, which hold little of it."""
    if named := naming.naming_words(dict(words)):
        return " · ".join(map(naming.quoted, named))
    return f"many words: {', '.join(map(naming.quoted, list(words)[:3]))}" if words else "no word"


def _merged(
    seen: list[int],
    ids: Sequence[int],
    scored: Scored,
    fired: np.ndarray,
    worded: naming.WordedRows,
    removed: set[int],
) -> list[list[int]]:
    """Columns of ``fired`` that make one card: each joins the first card whose best latent says the same."""
    profiles = _profiles(fired, worded)
    beside = _beside(fired, worded.rows.text_ids.numpy())
    cards: list[list[int]] = []
    for i in seen:
        for card in cards:
            first = card[0]
            if scored.toward[ids[first]] != scored.toward[ids[i]]:
                continue
            if (ids[first] in removed) != (ids[i] in removed):
                continue
            same_words = np.minimum(profiles[first], profiles[i]).sum() >= naming.SAME_WORDS
            if same_words or min(beside[first, i], beside[i, first]) >= SAME_PLACES:
                card.append(i)
                break
        else:
            cards.append([i])
    return cards


def _profiles(fired: np.ndarray, worded: naming.WordedRows) -> np.ndarray:
    """Share of each latent's mass on each word beyond the word's share of all tokens ``[n_latents, n_words]``."""
    rows = np.flatnonzero(fired.any(axis=1))
    words, places = np.unique(worded.word_ids[rows], return_inverse=True)
    mass = np.zeros((fired.shape[1], len(words)))
    for i in range(fired.shape[1]):
        mass[i] = np.bincount(places, weights=fired[rows, i], minlength=len(words))
    shares = mass / np.maximum(mass.sum(axis=1, keepdims=True), 1e-12)
    beyond: np.ndarray = np.maximum(shares - worded.base[words], 0.0)
    return beyond


def _beside(fired: np.ndarray, owners: np.ndarray) -> np.ndarray:
    """Share of latent i's mass on tokens beside which latent j fires ``[n_latents, n_latents]``."""
    near = fired > 0
    spread = near.copy()
    for shift in range(1, naming.BESIDE + 1):
        same = (owners[shift:] == owners[:-shift])[:, None]
        spread[shift:] |= near[:-shift] & same
        spread[:-shift] |= near[shift:] & same
    shares: np.ndarray = (fired.T @ spread.astype(np.float32)) / np.maximum(fired.sum(axis=0), 1e-12)[:, None]
    return shares


def _rates(active: np.ndarray, labels: np.ndarray | None, groups: tuple[str, ...]) -> dict[str, float]:
    if labels is None:
        return {"all": float(active.mean())}
    return {group: float(active[labels == g].mean()) for g, group in enumerate(groups) if (labels == g).any()}


def kind_of(words: Mapping[str, float], phrase: str, class_words: Iterable[str]) -> str:
    """Whether a card is of function words or of the target's own, by where most of its mass lies.

    A phrase of other words is not of function words, whichever of its words the latents fire on.
    """
    dull = sum(share for word, share in words.items() if _is_dull(word))
    if dull >= MOSTLY and all(map(_is_dull, re.findall(r"\w+", phrase.lower()))):
        return FUNCTION
    stems = [word.lower() for text in class_words for word in re.findall(r"\w+", text)]
    own = sum(share for word, share in words.items() if any(_akin(word, stem) for stem in stems))
    return TARGET if own >= MOSTLY else ""


def _is_dull(word: str) -> bool:
    """Whether a word is a function word, or made of punctuation and mathematical signs alone; emoji are neither."""
    return word in FUNCTION_WORDS or all(
        unicodedata.category(sign)[0] in "PZ" or sign in "+<=>|~^`$" for sign in word
    )


def _akin(a: str, b: str) -> bool:
    """Whether two words have their stem in common: surgeon, surgery; nurse, nursing."""
    common = next((i for i, (p, q) in enumerate(zip(a, b, strict=False)) if p != q), min(len(a), len(b)))
    return a == b or common >= max(SAME_STEM, min(len(a), len(b)) - 2)


Judge = Callable[[Card], bool]
"""Whether a card's latents should go: a person, a list of words, a chat model."""


def word_list_judge(concept: Concept | Iterable[str]) -> Judge:
    """Return a judge that ticks the cards with at least JUDGED_SHARE of their activation mass on listed words.

    ``concept`` is a Concept, of which both sides of the pairs are listed, or the words themselves.
    """
    if isinstance(concept, Concept):
        listed = {word.lower() for word in concept.words}
    else:
        listed = {word.lower() for word in concept}
    return lambda card: sum(s for word, s in card.words.items() if word in listed) >= JUDGED_SHARE


def yes_or_no(
    url: str, model: str, *, api_key_variable: str | None = None, timeout: float = 60.0
) -> Callable[[str], bool]:
    """Return a function that asks a chat model at ``url`` and returns whether its answer begins with yes.

    Raises InputError as :func:`chat_judge` does.
    """
    if not re.match(r"https?://", url):
        raise InputError(
            f"the chat endpoint is {url!r}; expected an address that begins with http:// or https://"
        )
    headers = {"Content-Type": "application/json"}
    if api_key_variable is not None:
        if not os.environ.get(api_key_variable):
            raise InputError(
                f"the environment variable {api_key_variable} is not set; it must hold the endpoint's key"
            )
        headers["Authorization"] = f"Bearer {os.environ[api_key_variable]}"

    def ask(prompt: str) -> bool:
        body = {"model": model, "messages": [{"role": "user", "content": prompt}], "temperature": 0}
        request = urllib.request.Request(url, json.dumps(body).encode(), headers)
        try:
            with urllib.request.urlopen(request, timeout=timeout) as response:
                answer = str(json.load(response)["choices"][0]["message"]["content"])
        except (OSError, ValueError, KeyError, IndexError, TypeError) as error:
            raise InputError(f"the chat endpoint {url} gave no usable answer: {error}") from error
        word = re.match(r"\W*(yes|no)\b", answer, re.IGNORECASE)
        if word is None:
            raise InputError(f"the chat model must answer yes or no; it began with {answer[:40]!r}")
        return word[1].lower() == "yes"

    return ask


def chat_judge(
    url: str,
    model: str,
    question: str,
    *,
    api_key_variable: str | None = None,
    contexts: int = 3,
    timeout: float = 60.0,
) -> Judge:
    """Return a judge that asks a chat model, at an address that you name.

    Each call sends, to ``url`` (an OpenAI-compatible ``.../v1/chat/completions``), the question, the card's words, the
    class that it goes with and ``contexts`` excerpts **of your texts**; nothing else leaves this machine, and nothing
    does unless you call this function. ``question`` says what the classifier is for and what must not count. The key
    is read from the environment variable ``api_key_variable``.

    Raises InputError for an address that is not http(s), a variable that is not set, a server that cannot be
    reached, and an answer that begins with neither yes nor no.
    """
    ask = yes_or_no(url, model, api_key_variable=api_key_variable, timeout=timeout)
    logger.warning(
        "each card's words and %d excerpts of your texts are sent to %s to be judged", contexts, url
    )

    def judge(card: Card) -> bool:
        excerpts = "\n".join("- " + "".join(piece.text for piece in c) for c in card.contexts[:contexts])
        prompt = (
            f"{question}\n\nA classifier's decision rests on a feature. It fires on: {card.title}. It goes with: "
            f"{card.toward or 'no class'}.\nExcerpts where it fires most:\n{excerpts}\n\n"
            "Is it a shortcut that should not count? Answer yes or no."
        )
        return ask(prompt)

    return judge
