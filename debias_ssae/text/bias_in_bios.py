"""Bias in Bios from the Hugging Face hub (De-Arteaga et al. 2019, arXiv 1901.09451)."""

from collections.abc import Sequence
from typing import Literal

import pandas as pd

from debias_ssae.core.errors import InputError

HUB_ID = "LabHC/bias_in_bios"
PROFESSIONS = (
    "accountant", "architect", "attorney", "chiropractor", "comedian", "composer", "dentist", "dietitian",
    "dj", "filmmaker", "interior_designer", "journalist", "model", "nurse", "painter", "paralegal", "pastor",
    "personal_trainer", "photographer", "physician", "poet", "professor", "psychologist", "rapper",
    "software_engineer", "surgeon", "teacher", "yoga_teacher",
)  # fmt: skip
GENDERS = ("male", "female")
COLUMNS = ("hard_text", "profession", "gender")
REVISION = "052f01de644dba841176e0449528b41f27d94a61"
# The published sizes: what a revision must hold to be the data that results are compared on.
SPLIT_SIZES = {"train": 257_478, "test": 99_069, "dev": 39_642}


def load_bias_in_bios(
    professions: Sequence[str] | None = ("professor", "nurse"),
    *,
    split: Literal["train", "test", "dev"] = "train",
    revision: str = REVISION,
) -> pd.DataFrame:
    """Load one split as columns text (the biography without its first sentence), profession, gender.

    ``professions`` are names of PROFESSIONS, None for all 28; gender is "male" or "female". ``revision`` is a
    commit, branch or tag of the hub; whichever it is, a split whose columns or size are not the published
    ones is refused. Raises InputError for that, for unknown professions, and offline (naming --data).
    """
    wanted = PROFESSIONS if professions is None else tuple(professions)
    unknown = sorted(set(wanted) - set(PROFESSIONS))
    if unknown or not wanted:
        raise InputError(f"Unknown professions {unknown}; Bias in Bios has {', '.join(PROFESSIONS)}")
    if split not in SPLIT_SIZES:
        raise InputError(f"Unknown split {split!r}; Bias in Bios has {', '.join(SPLIT_SIZES)}")
    table = _download(split, revision)
    missing = [column for column in COLUMNS if column not in table.columns]
    if missing or len(table) != SPLIT_SIZES[split]:
        raise InputError(
            f"{HUB_ID} at revision {revision!r} is not the published data: split {split!r} has "
            f"{len(table)} rows (expected {SPLIT_SIZES[split]}), columns missing: {missing}"
        )
    names = pd.DataFrame(
        {
            "text": table["hard_text"].astype(str),
            "profession": [PROFESSIONS[i] for i in table["profession"]],
            "gender": [GENDERS[i] for i in table["gender"]],
        }
    )
    return names[names["profession"].isin(wanted)].reset_index(drop=True)


def _download(split: str, revision: str) -> pd.DataFrame:
    import datasets

    try:
        data = datasets.load_dataset(HUB_ID, split=split, revision=revision)
    except (OSError, ValueError, RuntimeError) as error:
        cause = " ".join(str(error).split())[:160]
        raise InputError(
            f"Cannot load {HUB_ID} ({split}, revision {revision!r}) from the hub: {cause}. Without a network "
            "give a file with --data (a table with a text, a profession and a gender column)"
        ) from error
    frame: pd.DataFrame = data.to_pandas()
    return frame
