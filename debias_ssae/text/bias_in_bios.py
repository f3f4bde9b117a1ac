"""Bias in Bios from the Hugging Face hub (De-Arteaga et al. 2019, arXiv 1901.09451)."""

from collections.abc import Sequence

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
N_ROWS = 257_478
"""The published size of the training split: other rows are not the data that results are compared on."""


def load_bias_in_bios(professions: Sequence[str] | None = ("professor", "nurse")) -> pd.DataFrame:
    """Load the training split as columns text (the biography without its first sentence), profession, gender.

    ``professions`` are names of PROFESSIONS, None for all 28; gender is "male" or "female". Raises InputError for
    unknown professions, offline (naming --data), and where columns or size are not the published ones.
    """
    wanted = PROFESSIONS if professions is None else tuple(professions)
    unknown = sorted(set(wanted) - set(PROFESSIONS))
    if unknown or not wanted:
        raise InputError(f"Unknown professions {unknown}; Bias in Bios has {', '.join(PROFESSIONS)}")
    table = _download()
    missing = [column for column in COLUMNS if column not in table.columns]
    if missing or len(table) != N_ROWS:
        raise InputError(
            f"{HUB_ID} at revision {REVISION!r} is not the published data: it has {len(table)} rows "
            f"(expected {N_ROWS}), columns missing: {missing}"
        )
    names = pd.DataFrame(
        {
            "text": table["hard_text"].astype(str),
            "profession": [PROFESSIONS[i] for i in table["profession"]],
            "gender": [GENDERS[i] for i in table["gender"]],
        }
    )
    return names[names["profession"].isin(wanted)].reset_index(drop=True)


def _download() -> pd.DataFrame:
    import datasets

    try:
        data = datasets.load_dataset(HUB_ID, split="train", revision=REVISION)
    except (OSError, ValueError, RuntimeError) as error:
        cause = " ".join(str(error).split())[:160]
        raise InputError(
            f"Cannot load {HUB_ID} (revision {REVISION!r}) from the hub: {cause}. Without a network "
            "give a file with --data (a table with a text, a profession and a gender column)"
        ) from error
    frame: pd.DataFrame = data.to_pandas()
    return frame
