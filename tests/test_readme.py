"""The README is true: its example runs and prints what it says, it is short, and its links lead somewhere."""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")


@pytest.mark.slow
def test_the_example_runs_and_prints_what_it_says(minilm: object, capsys: pytest.CaptureFixture[str]) -> None:
    example, printed = (re.search(rf"```{kind}\n(.*?)```", README, re.S)[1] for kind in ("python", "text"))
    steps = [line for line in example.splitlines() if line.strip() and not line.startswith(("from ", "#"))]
    assert len(steps) <= 10
    exec(compile(example, "README.md", "exec"), {})
    found, *scores = capsys.readouterr().out.splitlines()
    said, *expected = printed.splitlines()
    # other processors round differently, so that cards of like weight change places
    assert len(set(cards(found)) & set(cards(said))) >= len(cards(said)) / 2
    before, after = map(float, scores)
    assert [before, after] == pytest.approx(list(map(float, expected)), abs=0.15)
    assert after > before + 0.2


def cards(line: str) -> list[str]:
    return line.partition(": ")[2].split(" / ")


def test_it_is_short() -> None:
    prose = re.sub(r"```.*?```|<!-- table -->.*?<!-- /table -->|\]\([^)]*\)", " ", README, flags=re.S)
    assert len(re.findall(r"\w[\w'-]*", prose)) <= 700


def test_links_lead_somewhere() -> None:
    for page in [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *ROOT.glob("docs/**/*.md")]:
        text = re.sub(r"```.*?```", "", page.read_text(encoding="utf-8"), flags=re.S)
        for target in re.findall(r"\]\(([^)#\s]+)(?:#[^)]*)?\)", text):
            if "://" not in target:
                assert (page.parent / target).exists(), f"{page.name}: {target}"
