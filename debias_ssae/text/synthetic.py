"""Synthetic biographies with a known confound, for the demo and for tests; no real person is meant."""

import random
from string import Formatter
from typing import Any

import pandas as pd

from debias_ssae.core.errors import InputError
from debias_ssae.text import vocabulary as words

GENDERS = ("male", "female")
_PROFESSIONS = tuple(
    (field, profession) for field in words.FIELDS for profession in (field.first, field.second)
)
# Share of the work phrases that both professions of a field use, and that so do not tell them apart.
_SHARED = 0.25


def synthetic_biographies(
    n: int, *, correlation: float = 1.0, n_professions: int = 6, random_state: int | None = None
) -> pd.DataFrame:
    """Return ``n`` biographies with columns text, profession and gender.

    Professions come in pairs of one field: surgeon and nurse, architect and interior designer, professor and
    teacher, attorney and paralegal. The first of each pair belongs to one half, the second to the other;
    ``correlation`` ties the halves to gender: at 1 every person of the first half is male and every person
    of the second female, at 0 gender is independent, at -1 the tie is reversed. Professions are equally
    frequent.
    About a quarter of the words that show the gender (first names, hints) are not in the shipped concept.

    Raises InputError for n < 1, n_professions outside 2..8 or a correlation outside -1..1.
    """
    if n < 1:
        raise InputError(f"n must be at least 1, got {n}")
    if not 2 <= n_professions <= len(_PROFESSIONS):
        raise InputError(f"n_professions must be between 2 and {len(_PROFESSIONS)}, got {n_professions}")
    if not -1 <= correlation <= 1:
        raise InputError(f"correlation must be between -1 and 1, got {correlation}")
    rng = random.Random(random_state)
    rows = []
    for i in range(n):
        which = i % n_professions
        own = which % 2
        gender = GENDERS[own if rng.random() < (1 + correlation) / 2 else 1 - own]
        text, _ = _biography(rng, which, gender)
        rows.append((text, _PROFESSIONS[which][1].name, gender))
    rng.shuffle(rows)
    return pd.DataFrame(rows, columns=["text", "profession", "gender"])


def synthetic_corpus(n: int, *, random_state: int | None = None) -> list[str]:
    """Return ``n`` unlabelled texts for retrieval and for a general SAE.

    Half are biographies with gender independent of profession, half general sentences, some about people.
    Raises InputError for n < 1.
    """
    if n < 1:
        raise InputError(f"n must be at least 1, got {n}")
    rng = random.Random(random_state)
    texts = []
    for i in range(n):
        gender = rng.choice(GENDERS)
        if i % 2:
            texts.append(_biography(rng, rng.randrange(len(_PROFESSIONS)), gender)[0])
        else:
            slots = _person(rng, gender)
            texts.append(
                " ".join(_fill(rng, rng.choice(words.GENERAL_SENTENCES), slots)[0] for _ in range(2))
            )
    rng.shuffle(texts)
    return texts


def _biography(rng: random.Random, which: int, gender: str) -> tuple[str, list[str]]:
    """Return a text and the words in it that show the gender."""
    field, profession = _PROFESSIONS[which]
    slots = _person(rng, gender)

    def work(kind: str) -> str:
        source = field if rng.random() < _SHARED else profession
        return rng.choice(getattr(source, kind))

    frames = [rng.choice(words.OPENINGS), *rng.sample(words.MIDDLES, rng.randint(2, 4))]
    if rng.random() < 0.5:
        frames.append(rng.choice(words.FAMILIES))
    if rng.random() < 0.9:
        frames.append(rng.choice(words.INDIRECT_FRAMES))
    frames.append(rng.choice(words.CLOSINGS))
    sentences, cues = [], []
    for frame in frames:
        slots |= {"doing": work("doing"), "doing2": work("doing"), "topic": work("topics")}
        sentence, shown = _fill(rng, frame, slots)
        sentences.append(sentence)
        cues += shown
    return " ".join(filter(None, sentences)), cues


def _person(rng: random.Random, gender: str) -> dict[str, str]:
    first, last = rng.choice(words.FIRST_NAMES[gender]), rng.choice(words.LAST_NAMES)
    return {"gender": gender, "first": first, "last": last, "name": f"{first} {last}"}


def _fill(rng: random.Random, frame: str, person: dict[str, str]) -> tuple[str, list[str]]:
    """Fill a frame's slots; return the sentence and the words put in that show the gender."""
    gender = person["gender"]
    listed: dict[str, Any] = words.LISTED[gender]
    values = dict(person)
    hint, second_hint = rng.sample(words.INDIRECT[gender], 2)
    for slot, choices in listed.items():
        values[slot] = choices if isinstance(choices, str) else rng.choice(choices)
    values |= {
        "indirect": hint,
        "indirect2": second_hint,
        "city": rng.choice(words.CITIES),
        "city2": rng.choice(words.CITIES),
        "year": str(rng.randint(1985, 2020)),
        "years": str(rng.randint(2, 30)),
        "thing": rng.choice(words.THINGS),
        "weather": rng.choice(words.WEATHERS),
    }
    shown = [slot for _, slot, _, _ in Formatter().parse(frame) if slot]
    cues = [
        values["first" if slot == "name" else slot]
        for slot in shown
        if slot in {*listed, "name", "first", "indirect", "indirect2"}
    ]
    return frame.format_map(values), cues
