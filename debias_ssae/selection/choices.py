"""What a person ticked: the latents to remove, bound to the SAEs they belong to; a YAML file to edit by hand."""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from os.path import isdir, isfile
from pathlib import Path
from typing import Any

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, StrictBool, StrictInt, StrictStr, ValidationError
from scipy.optimize import linear_sum_assignment

from debias_ssae.core.errors import InputError, brief
from debias_ssae.core.io import read_yaml, write_text
from debias_ssae.sae.formats import load_sae, save_sae
from debias_ssae.sae.model import SparseAutoencoder
from debias_ssae.selection.select import Selection
from debias_ssae.text.concept import Concept

FORMAT = 2
CHOICES = "choices.yaml"
"""The file in the folder that ``discover`` writes."""
NAMED_SHARE = 0.2
"""A word stands for a latent where at least this share of the latent's activation mass lies on it."""
_HEAD = """\
# Latents for review. Set tick to true for what must not count, to false for what may stay; then
#   debias-ssae fit --attribute {name} ...            what discover wrote
#   debias-ssae latents MODEL --choices {name} ...    what latents wrote of MODEL
# Only ids and tick are used; numbers (of the page), names and words are there to help.
"""


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Choice(_Strict):
    """One card: its latents, and whether they are to be removed."""

    tick: StrictBool
    number: StrictInt | None = None
    """On the page beside the file, from 1; None of earlier rounds' cards, which are not on it."""
    name: StrictStr = ""
    ids: tuple[StrictInt, ...] = Field(min_length=1)
    toward: StrictStr = ""
    """The class, or the attribute's value, that the latents go with."""
    words: dict[StrictStr, float] = {}
    """Word to the share of the latents' activation mass that lies on it."""


class _Part(_Strict):
    hookpoint: StrictStr = Field(pattern=r"^\w+(\.\w+)*$")
    """Also the name of a folder beside the file."""
    sae: StrictStr
    """Fingerprint of the SAE."""
    cards: tuple[Choice, ...]


class _File(_Strict):
    format: StrictInt
    parts: tuple[_Part, ...]


@dataclass(frozen=True)
class Choices:
    """Ticked and unticked cards by hookpoint, with the SAE of each hookpoint.

    Raises InputError for a latent outside its SAE, and for one that is both ticked and not.
    """

    cards: Mapping[str, tuple[Choice, ...]]
    saes: Mapping[str, SparseAutoencoder] = field(repr=False)
    by_judge: bool = False
    """Whether a function ticked them in place of a person; a file does not say."""

    def __post_init__(self) -> None:
        for hookpoint, cards in self.cards.items():
            if hookpoint not in self.saes:
                raise InputError(f"there are choices at {hookpoint}, but no SAE for it")
            d_sae = self.saes[hookpoint].cfg.d_sae
            seen: dict[int, bool] = {}
            for card in cards:
                for i in card.ids:
                    if not 0 <= i < d_sae:
                        raise InputError(
                            f"the choices name latent {i} of {hookpoint}, but the SAE has {d_sae}"
                        )
                    if seen.setdefault(i, card.tick) != card.tick:
                        raise InputError(
                            f"the choices both tick latent {i} of {hookpoint} and leave it; keep one of the two cards"
                        )

    @property
    def ids(self) -> dict[str, np.ndarray]:
        """Ids of the ticked latents of each hookpoint, in the cards' order; hookpoints without any are left out."""
        ticked = {
            hookpoint: list(dict.fromkeys(i for card in cards if card.tick for i in card.ids))
            for hookpoint, cards in self.cards.items()
        }
        return {hookpoint: np.array(ids, dtype=int) for hookpoint, ids in ticked.items() if ids}

    @property
    def names(self) -> list[str]:
        """Names of the ticked cards."""
        return [card.name for cards in self.cards.values() for card in cards if card.tick]

    def select(self, model: Any, hookpoint: str, sae: SparseAutoencoder, data: Any) -> Selection:
        """Select what is ticked at ``hookpoint``; the report has the ticked cards' names, and each latent's."""
        ids, cards = self.ids.get(hookpoint, np.array([], dtype=np.int64)), self.cards.get(hookpoint, ())
        named = {i: card.name for card in cards if card.tick for i in card.ids}
        report = {
            "cards": len(cards),
            "ticked": [card.name for card in cards if card.tick],
            "by_judge": self.by_judge,
            "names": [named[i] for i in ids.tolist()],
        }
        return Selection(None, ids, report)

    def __or__(self, later: "Choices") -> "Choices":
        """Both choices; where the later one names a latent again, it counts. Raises InputError for other SAEs."""
        for hookpoint in set(self.saes) & set(later.saes):
            if self.saes[hookpoint].fingerprint() != later.saes[hookpoint].fingerprint():
                raise InputError(
                    f"the choices at {hookpoint} are of two different SAEs, so they cannot be joined"
                )
        cards = dict(later.cards)
        for hookpoint, mine in self.cards.items():
            named = {i for card in cards.get(hookpoint, ()) for i in card.ids}
            left = [
                c.model_copy(update={"number": None, "ids": tuple(i for i in c.ids if i not in named)})
                for c in mine
            ]
            cards[hookpoint] = (*(c for c in left if c.ids), *cards.get(hookpoint, ()))
        return Choices(cards, {**self.saes, **later.saes}, self.by_judge or later.by_judge)

    def pieces(self, name: str = "choices.yaml") -> list[str]:
        """The file cut at the ticks: ``pieces[0] + tick + pieces[1] + tick + ...``, so that a page can fill them in."""
        pieces = [_HEAD.format(name=name) + f"format: {FORMAT}\nparts:\n"]
        for hookpoint, cards in self.cards.items():
            pieces[-1] += f"- hookpoint: {hookpoint}\n  sae: {self.saes[hookpoint].fingerprint()}\n"
            pieces[-1] += "  cards:\n" if cards else "  cards: []\n"
            for card in cards:
                pieces[-1] += "  - tick: "
                words = ", ".join(f"{_quoted(word)}: {share:.3g}" for word, share in card.words.items())
                number = "" if card.number is None else f"\n    number: {card.number}"
                pieces.append(
                    f"{number}\n    name: {_quoted(card.name)}\n    ids: {list(card.ids)}\n"
                    f"    toward: {_quoted(card.toward)}\n    words: {{{words}}}\n"
                )
        return pieces

    def to_yaml(self, name: str = "choices.yaml") -> str:
        """The file's content."""
        pieces = self.pieces(name)
        ticks = [str(card.tick).lower() for cards in self.cards.values() for card in cards]
        return "".join(piece + tick for piece, tick in zip(pieces, [*ticks, ""], strict=True))

    def save(self, path: str | Path, *, with_saes: bool = True) -> None:
        """Write the YAML file and, beside it, the SAEs as ``<name>.sae/<hookpoint>``; each file atomically.

        Raises InputError where they cannot be written.
        """
        path = Path(path)
        if with_saes:
            for hookpoint in self.cards:
                save_sae(
                    self.saes[hookpoint], _sae_directory(path, hookpoint), metadata={"hook_name": hookpoint}
                )
        write_text(path, self.to_yaml(path.name))

    @classmethod
    def load(cls, path: str | Path, saes: Mapping[str, SparseAutoencoder] | None = None) -> "Choices":
        """Read a file, or that of the folder which ``discover`` wrote; the SAEs from beside it, or else those given by
        hookpoint.

        Raises InputError that names the file and the fault: unreadable, unknown or missing fields, a hookpoint
        that occurs twice or has no SAE, and an SAE with another fingerprint than the file's.
        """
        path = choices_file(path) or Path(path)
        content = _read(path)
        found: dict[str, SparseAutoencoder] = {}
        for part in content.parts:
            if part.hookpoint in found:
                raise InputError(f"{path} holds the hookpoint {part.hookpoint} twice; join the two parts")
            found[part.hookpoint] = _the_sae(path, part, saes)
        try:
            return cls({part.hookpoint: part.cards for part in content.parts}, found)
        except InputError as error:
            raise InputError(f"{path}: {error}") from error

    def to_concept(self) -> Concept:
        """Propose pairs of words from the ticked latents, for scrubbing and counterfactual audits; a person edits them.

        The words of latents that go with one class are paired with those that go with another, so that what
        the paired latents write is as alike as can be: *she* with *he*, *her* with *his*. Raises InputError where
        the ticked latents go with fewer than two classes or have no words.
        """
        held: dict[str, dict[str, float]] = {}
        rows: dict[tuple[str, str], np.ndarray] = {}
        for hookpoint, cards in self.cards.items():
            w_dec = self.saes[hookpoint].W_dec.detach().cpu().numpy()
            for card in (c for c in cards if c.tick and c.toward):
                for word, share in card.words.items():
                    if share >= NAMED_SHARE and word.isalpha():
                        sides_of = held.setdefault(word, {})
                        sides_of[card.toward] = sides_of.get(card.toward, 0.0) + share
                        rows.setdefault((card.toward, word), w_dec[list(card.ids)].mean(axis=0))
        by_side: dict[str, dict[str, np.ndarray]] = {}
        for word, sides_of in held.items():
            side = max(sides_of, key=lambda name: sides_of[name])
            by_side.setdefault(side, {})[word] = rows[side, word]
        sides = sorted(by_side, key=lambda side: -len(by_side[side]))
        if len(sides) < 2:
            raise InputError(
                "the ticked latents' words go with fewer than two classes, so there is nothing to pair; write the "
                "pairs yourself: Concept.from_words([(word, its counterpart), ...])"
            )
        a, b = (by_side[side] for side in sides[:2])
        unit_a, unit_b = (_unit(np.stack(list(words.values()))) for words in (a, b))
        first, second = linear_sum_assignment(unit_a @ unit_b.T, maximize=True)
        names_a, names_b = list(a), list(b)
        pairs = [(names_a[i], names_b[j]) for i, j in zip(first, second, strict=True)]
        return Concept.from_words(pairs, values=(sides[0], sides[1]), name="chosen")


def choices_file(given: str | Path) -> Path | None:
    """The file of choices that a path, or the folder that ``discover`` wrote, stands for; None for anything else.

    Raises InputError that names the file to give where ``given`` is the folder's page, or a folder without that file.
    """
    path = Path(given)
    is_folder = isdir(path)  # of a name that no file can have, Path.is_dir raises
    if is_folder or path.suffix == ".html":
        file = (path if is_folder else path.parent) / CHOICES
        if is_folder and file.is_file():
            return file
        what = "holds no" if is_folder else "is a page to read and tick, not"
        raise InputError(f"{path} {what} {CHOICES}; give the file that the page's button saves: {file}")
    values = read_yaml(path) if isfile(path) else None
    return path if isinstance(values, dict) and "parts" in values else None


def check_nothing_lost(path: Path, new: Choices) -> None:
    """Raise InputError where ``path`` holds what a person decided and ``new`` does not."""
    if not path.exists():
        return
    now = {
        (hookpoint, new.saes[hookpoint].fingerprint(), i): card.tick
        for hookpoint, cards in new.cards.items()
        for card in cards
        for i in card.ids
    }
    for part in _read(path).parts:
        for card in part.cards:
            if any(now.get((part.hookpoint, part.sae, i), False) != card.tick for i in card.ids):
                raise InputError(
                    f"{path} holds a person's decision on {brief(card.name)}, which would be lost: give it as choices "
                    "(--choices), or write to another place"
                )


def _read(path: Path) -> _File:
    try:
        content = _File.model_validate(read_yaml(path))
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(map(str, first["loc"])) or "the file"
        raise InputError(
            f"{path} is no file of choices: {place}: {first['msg']} (got {brief(first['input'])})"
        ) from error
    if content.format != FORMAT:
        raise InputError(f"{path} has format {content.format}; this version reads {FORMAT}")
    return content


def _sae_directory(path: Path, hookpoint: str) -> Path:
    return path.with_suffix(".sae") / hookpoint


def _the_sae(path: Path, part: _Part, saes: Mapping[str, SparseAutoencoder] | None) -> SparseAutoencoder:
    if saes is None:
        beside = _sae_directory(path, part.hookpoint)
        if not isdir(beside):
            raise InputError(
                f"{path} must lie beside the SAE that it is of, but {beside.parent} holds none of "
                f"{brief(part.hookpoint)}; if a browser saved the file, move it over the {CHOICES} of the folder that "
                "discover wrote (--out), and give that one"
            )
        sae = load_sae(beside)
    elif part.hookpoint in saes:
        sae = saes[part.hookpoint]
    else:
        raise InputError(
            f"{path} is of the hookpoint {part.hookpoint}, but the model edits {', '.join(saes)}"
        )
    if sae.fingerprint() != part.sae:
        raise InputError(
            f"{path} was written for another SAE at {part.hookpoint} ({part.sae[:12]}, but this one is "
            f"{sae.fingerprint()[:12]}); write the choices anew for this SAE"
        )
    return sae


def _quoted(text: str) -> str:
    """A double-quoted YAML scalar: a word such as 1e5 or no stays a word."""
    return "".join(c if c.isprintable() else f"\\U{ord(c):08x}" for c in json.dumps(text, ensure_ascii=False))


def _unit(rows: np.ndarray) -> np.ndarray:
    unit: np.ndarray = rows / np.maximum(np.linalg.norm(rows, axis=1, keepdims=True), 1e-12)
    return unit
