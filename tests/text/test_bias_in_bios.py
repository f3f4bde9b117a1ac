"""Bias in Bios from the hub: what is asked of it, and what is said without a network."""

from typing import Any

import pandas as pd
import pytest

from debias_ssae.core.errors import InputError
from debias_ssae.text import bias_in_bios, load_bias_in_bios


def fake_split(n: int = 60) -> pd.DataFrame:
    return pd.DataFrame(
        {
            "hard_text": [f"text {i}" for i in range(n)],
            "profession": [i % 28 for i in range(n)],
            "gender": [i % 2 for i in range(n)],
        }
    )


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bias_in_bios, "_download", fake_split)
    monkeypatch.setattr(bias_in_bios, "N_ROWS", 60)


@pytest.mark.usefixtures("hub")
def test_a_pair_of_professions_and_all() -> None:
    pair = load_bias_in_bios(("professor", "nurse"))
    assert pair.to_dict("list") == {
        "text": ["text 13", "text 21", "text 41", "text 49"],
        "profession": ["nurse", "professor", "nurse", "professor"],
        "gender": ["female", "female", "female", "female"],
    }
    assert load_bias_in_bios(None)["profession"].nunique() == 28


@pytest.mark.usefixtures("hub")
def test_other_data_under_the_same_name_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bias_in_bios, "N_ROWS", 61)
    with pytest.raises(InputError, match=r"60 rows \(expected 61\)"):
        load_bias_in_bios()


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"professions": ("professor", "wizard")}, "Unknown professions \\['wizard'\\]"),
        ({"professions": ()}, "Unknown professions"),
    ],
)
def test_bad_arguments(arguments: dict[str, Any], words: str) -> None:
    with pytest.raises(InputError, match=words):
        load_bias_in_bios(**arguments)


def test_without_a_network_the_message_names_data(monkeypatch: pytest.MonkeyPatch) -> None:
    import datasets

    def offline(*_: object, **__: object) -> None:
        raise ConnectionError("Couldn't reach\nthe hub")

    monkeypatch.setattr(datasets, "load_dataset", offline)
    with pytest.raises(InputError, match="--data") as caught:
        load_bias_in_bios()
    assert "\n" not in str(caught.value)


def test_a_download_becomes_a_table(monkeypatch: pytest.MonkeyPatch) -> None:
    import datasets

    asked: dict[str, object] = {}

    def load(name: str, **kwargs: object) -> datasets.Dataset:
        asked.update(kwargs, name=name)
        return datasets.Dataset.from_pandas(fake_split())

    monkeypatch.setattr(datasets, "load_dataset", load)
    monkeypatch.setattr(bias_in_bios, "N_ROWS", 60)
    assert len(load_bias_in_bios(None)) == 60
    assert asked == {"name": "LabHC/bias_in_bios", "split": "train", "revision": bias_in_bios.REVISION}
