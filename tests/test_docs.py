"""The documentation is true: every example runs, every command exists, every page is found and says for whom it is."""

import json
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path

import click
import pytest
import yaml

from debias_ssae.cli import COMMANDS, main

ROOT = Path(__file__).parents[1]
DOCS = ROOT / "docs"
PAGES = sorted(p for p in DOCS.rglob("*.md") if "decisions" not in p.parts)
ELSEWHERE = {"audit.md": "tests/audit", "concepts.md": "tests/text", "errors.md": "tests/faults"}
"""Pages whose examples other tests run, together with what they print."""
HUB = "SentenceTransformer("


def name_of(page: Path) -> str:
    return page.relative_to(ROOT).as_posix()


def blocks(page: Path, language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", page.read_text(encoding="utf-8"), re.S | re.M)


def with_examples() -> list[Path]:
    return [page for page in PAGES if page.name not in ELSEWHERE and blocks(page, "python")]


@pytest.fixture(scope="module")
def pages_cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What the pages' fits have in common is made once, as it is for a reader."""
    return tmp_path_factory.mktemp("cache")


@pytest.mark.slow
@pytest.mark.parametrize("page", with_examples(), ids=name_of)
def test_the_examples_run(
    page: Path, tmp_path: Path, minilm: object, pages_cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("DEBIAS_SSAE_CACHE", str(pages_cache))
    namespace: dict[str, object] = {"__name__": page.stem}
    for block in blocks(page, "python"):
        exec(compile(block, name_of(page), "exec"), namespace)


def commands(page: Path) -> Iterator[list[str]]:
    for block in blocks(page, "(?:console|sh|bash)"):
        for line in re.sub(r"\\\n\s*", " ", block).splitlines():
            for part in line.split(" #")[0].split(";"):
                words = shlex.split(part)
                words = words[words.index("-m") + 1 :] if words[:1] == ["torchrun"] else words
                if words[:1] in (["debias-ssae"], ["debias_ssae"]):
                    yield words[1:]


@pytest.mark.parametrize("page", [ROOT / "README.md", *PAGES], ids=name_of)
def test_the_commands_and_their_options_exist(page: Path) -> None:
    for words in commands(page):
        command: click.Command = main
        rest = list(words)
        while isinstance(command, click.Group) and rest and not rest[0].startswith("-"):
            found = command.get_command(click.Context(command), rest[0])
            assert found is not None, f"{page.name}: there is no command {' '.join(words[:2])}"
            command, rest = found, rest[1:]
        known = {option for param in command.params for option in param.opts} | {"--help"}
        for option in (word.split("=")[0] for word in rest if word.startswith("--")):
            assert option in known, f"{page.name}: {' '.join(words[:2])} has no {option}"


def test_the_settings_that_commands_name_exist() -> None:
    from debias_ssae.core.config import DebiasConfig, load_config, parse_overrides

    said = [
        words[i + 1]
        for page in PAGES
        for words in commands(page)
        for i, word in enumerate(words)
        if word == "--set"
    ]
    assert len(said) >= 3
    load_config(DebiasConfig, None, parse_overrides(said))


def nav(entries: list) -> Iterator[str]:
    for entry in entries:
        (value,) = entry.values()
        yield from nav(value) if isinstance(value, list) else [value]


def test_every_page_is_in_the_navigation() -> None:
    listed = list(nav(yaml.safe_load((ROOT / "mkdocs.yml").read_text(encoding="utf-8"))["nav"]))
    assert sorted(listed) == sorted(page.relative_to(DOCS).as_posix() for page in PAGES)


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_each_page_says_for_whom_it_is(page: Path) -> None:
    title, opening = page.read_text(encoding="utf-8").split("\n\n", 2)[:2]
    assert title.startswith("# ")
    assert opening.startswith("For "), opening


def test_no_page_uses_a_word_that_was_given_up() -> None:
    gone = r"\b(twins?|wordings|recut|residual=|head_on_A|set A|answers to|to the bit|hurdles?|concept=\")"
    for page in [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *PAGES]:
        found = re.search(gone, page.read_text(encoding="utf-8"))
        assert not found, f"{page.name}: {found}"


def test_the_table_of_commands_is_the_command_line() -> None:
    page = (DOCS / "reference" / "commands.md").read_text(encoding="utf-8")
    assert dict(re.findall(r"^\| `(\w+)` \| (.*) \|$", page, re.M)) == {
        name: text for name, (_, _, text) in COMMANDS.items()
    }


def test_every_method_of_the_benchmark_is_described() -> None:
    from debias_ssae.benchmark import METHODS

    assert set(METHODS) <= set(re.findall(r"`(\w+)`", (DOCS / "benchmark.md").read_text(encoding="utf-8")))


def test_contributing_lists_the_folders_in_the_order_of_imports() -> None:
    from test_floors import ORDER

    page = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
    assert tuple(re.findall(r"^\| `(\w+)/` \| ", page, re.M)[: len(ORDER)]) == ORDER


def test_the_speed_tables_are_the_committed_results(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(ROOT / "benchmarks")
    import speed_table

    page = (DOCS / "speed.md").read_text(encoding="utf-8")
    assert speed_table.filled(page) == page


def test_the_notebook_holds_no_output_and_its_cells_run(
    tmp_path: Path, minilm: object, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    notebook = json.loads((ROOT / "notebooks" / "quickstart.ipynb").read_text(encoding="utf-8"))
    namespace: dict[str, object] = {"__name__": "quickstart"}
    for cell in notebook["cells"]:
        if cell["cell_type"] == "code":
            assert not cell["outputs"]
            exec(compile("".join(cell["source"]), "quickstart.ipynb", "exec"), namespace)


@pytest.mark.slow
@pytest.mark.skipif(find_spec("mkdocs") is None, reason="needs the extra docs")
def test_the_site_builds_strictly(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--quiet", "--site-dir", str(tmp_path)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
