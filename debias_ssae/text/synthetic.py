"""Synthetic biographies with a known confound, for the demo and for tests; no real person is meant."""

import random
from functools import cache
from pathlib import Path
from typing import Any

import pandas as pd

from debias_ssae.core.errors import InputError
from debias_ssae.core.io import read_yaml

GENDERS = ("male", "female")
N_PROFESSIONS = 8
# Share of the work phrases that both professions of a field use, and that so do not tell them apart.
_SHARED = 0.25


@cache
def words() -> Any:
    """The vocabulary, from the file beside this one, which says what its parts are."""
    return read_yaml(Path(__file__).with_suffix(".yaml"))


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
    if not 2 <= n_professions <= N_PROFESSIONS:
        raise InputError(f"n_professions must be between 2 and {N_PROFESSIONS}, got {n_professions}")
    if not -1 <= correlation <= 1:
        raise InputError(f"correlation must be between -1 and 1, got {correlation}")
    rng = random.Random(random_state)
    rows = []
    for i in range(n):
        which = i % n_professions
        own = which % 2
        gender = GENDERS[own if rng.random() < (1 + correlation) / 2 else 1 - own]
        rows.append((_biography(rng, which, gender), _profession(which)[1]["name"], gender))
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
            texts.append(_biography(rng, rng.randrange(N_PROFESSIONS), gender))
        else:
            slots, frames = _person(rng, gender), words()["general_sentences"]
            texts.append(" ".join(_fill(rng, rng.choice(frames), slots) for _ in range(2)))
    rng.shuffle(texts)
    return texts


def _profession(which: int) -> tuple[dict[str, Any], dict[str, Any]]:
    """A profession's field, and itself."""
    field = words()["fields"][which // 2]
    return field, field[("first", "second")[which % 2]]


def _biography(rng: random.Random, which: int, gender: str) -> str:
    field, profession = _profession(which)
    slots, frame_of = _person(rng, gender), words()

    def work(kind: str) -> str:
        source = field if rng.random() < _SHARED else profession
        return str(rng.choice(source[kind]))

    frames = [rng.choice(frame_of["openings"]), *rng.sample(frame_of["middles"], rng.randint(2, 4))]
    if rng.random() < 0.5:
        frames.append(rng.choice(frame_of["families"]))
    if rng.random() < 0.9:
        frames.append(rng.choice(frame_of["indirect_frames"]))
    frames.append(rng.choice(frame_of["closings"]))
    sentences = []
    for frame in frames:
        slots |= {"doing": work("doing"), "doing2": work("doing"), "topic": work("topics")}
        sentences.append(_fill(rng, frame, slots))
    return " ".join(filter(None, sentences))


def _person(rng: random.Random, gender: str) -> dict[str, str]:
    first, last = rng.choice(words()["first_names"][gender]), rng.choice(words()["last_names"])
    return {"gender": gender, "first": first, "last": last, "name": f"{first} {last}"}


def _fill(rng: random.Random, frame: str, person: dict[str, str]) -> str:
    """Return the sentence of a frame with its slots filled."""
    known, gender = words(), person["gender"]
    values = dict(person)
    hint, second_hint = rng.sample(known["indirect"][gender], 2)
    for slot, choices in known["listed"][gender].items():
        values[slot] = choices if isinstance(choices, str) else rng.choice(choices)
    values |= {
        "indirect": hint,
        "indirect2": second_hint,
        "city": rng.choice(known["cities"]),
        "city2": rng.choice(known["cities"]),
        "year": str(rng.randint(1985, 2020)),
        "years": str(rng.randint(2, 30)),
        "thing": rng.choice(known["things"]),
        "weather": rng.choice(known["weathers"]),
    }
    return frame.format_map(values)
