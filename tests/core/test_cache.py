"""The user's cache: where it is, its bound, and what a second fit no longer pays."""

import os
from pathlib import Path

import pytest
from click.testing import CliRunner

from debias_ssae.cli import main
from debias_ssae.core import cache
from debias_ssae.core.cache import cache_directory, clear, entries, trim
from debias_ssae.core.errors import InputError


def put(directory: Path, name: str, n_bytes: int, *, hours_ago: float) -> Path:
    path = directory / "saes" / f"general-{name.encode().hex():0>24}"
    path.mkdir(parents=True)
    (path / "weights").write_bytes(bytes(n_bytes))
    when = cache.time.time() - 3600 * hours_ago
    os.utime(path, (when, when))
    return path


@pytest.mark.parametrize("value", ["off", "", "0", "None"])
def test_it_can_be_turned_off(value: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("DEBIAS_SSAE_CACHE", value)
    assert cache_directory("auto") is None
    assert cache_directory(tmp_path) == tmp_path


def test_a_home_that_is_not_known_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DEBIAS_SSAE_CACHE", "~nobody_of_this_name/x")
    with pytest.raises(InputError, match="DEBIAS_SSAE_CACHE is '~nobody"):
        cache_directory("auto")


def test_a_default_that_cannot_be_written_stops_nothing(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("DEBIAS_SSAE_CACHE", str(tmp_path / "own"))
    assert cache_directory("auto") == tmp_path / "own"
    assert (tmp_path / "own").stat().st_mode & 0o077 == 0
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("DEBIAS_SSAE_CACHE", str(tmp_path / "file" / "inside"))
    assert cache_directory("auto") is None
    monkeypatch.setenv("DEBIAS_SSAE_CACHE", str(tmp_path / "own"))
    monkeypatch.setattr(cache, "LEAST_FREE", 2**80)
    assert cache_directory("auto") is None


def test_the_least_recently_used_go_first_and_what_is_in_use_stays(tmp_path: Path) -> None:
    old, middle, new = (
        put(tmp_path, name, 100, hours_ago=h) for name, h in (("old", 9), ("b", 5), ("new", 2))
    )
    assert [one.path for one in entries(tmp_path)] == [new, middle, old]
    cache.mark_used(old)
    assert trim(tmp_path, 250) == 100
    assert (old.exists(), middle.exists(), new.exists()) == (True, False, True)
    assert trim(tmp_path, 0) == 100
    assert old.exists(), "used within the hour"


def test_commands_show_and_clear_it(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("DEBIAS_SSAE_CACHE", str(tmp_path))
    put(tmp_path, "one", 2**20, hours_ago=0)
    (tmp_path / "embeddings").mkdir()
    mine = [tmp_path / "letter.txt", tmp_path / "embeddings" / "mine.npy"]
    for path in mine:
        path.write_text("mine")
    shown = CliRunner().invoke(main, ["cache", "info"]).output
    assert str(tmp_path) in shown
    assert "1 entries" in shown
    assert CliRunner().invoke(main, ["cache", "clear"]).output == "1.0 MB removed\n"
    assert not entries(tmp_path)
    assert all(path.exists() for path in mine)
    assert clear(tmp_path) == 0
