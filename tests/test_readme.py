"""The README is true: its example runs, its commands exist, its table is the committed result."""

import importlib
import re
from pathlib import Path

import pytest
from click.testing import CliRunner

from debias_ssae.cli import main

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")


@pytest.mark.slow
def test_the_example_runs(minilm, capsys: pytest.CaptureFixture[str]) -> None:  # type: ignore[no-untyped-def]
    example = re.findall(r"```python\n(.*?)```", README, re.S)[0]
    assert len([line for line in example.splitlines() if line.strip()]) <= 10
    namespace: dict = {}
    exec(compile(example, "README.md", "exec"), namespace)
    debiased = float(capsys.readouterr().out.split()[-1])
    train, test = namespace["train"], namespace["test"]
    encoder = namespace["pipe"][0].encoder_
    plain = namespace["LogisticRegression"](max_iter=1000).fit(
        encoder.transform(train.text), train.profession
    )
    before = namespace["worst_group_accuracy"](
        test.profession, plain.predict(encoder.transform(test.text)), sensitive_features=test.gender
    )
    assert debiased > before + 0.2


def test_commands_and_their_options_exist() -> None:
    lines = [
        line.split("#")[0]
        for block in re.findall(r"```console\n(.*?)```", README, re.S)
        for line in block.splitlines()
    ]
    commands = [c.split() for line in lines for c in line.split(";") if c.strip().startswith("debias-ssae")]
    assert len(commands) >= 6
    for _, name, *rest in commands:
        shown = CliRunner().invoke(main, [name, "--help"]).output
        for option in (word for word in rest if word.startswith("--")):
            assert option in shown, f"{name} {option}"


def test_links_lead_somewhere() -> None:
    for page in [ROOT / "README.md", *ROOT.glob("docs/*.md")]:
        for target in re.findall(r"\]\(([^)#]+)\)", page.read_text(encoding="utf-8")):
            if "://" not in target:
                assert (page.parent / target).exists(), f"{page.name}: {target}"


def test_the_tables_are_the_committed_results(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(ROOT / "benchmarks")
    pages, sweeps = (importlib.import_module(name) for name in ("readme_table", "sweep_tables"))
    tables = [(page, pages.MARKS, pages.table(name)) for name, page in pages.PAGES.items()]
    tables += [(sweeps.PAGE, sweeps.marks(name), sweeps.table(name)) for name in sweeps.TABLES]
    for page, marks, expected in tables:
        shown = marks.search((ROOT / page).read_text(encoding="utf-8"))[0]
        assert shown.split("-->\n", 1)[1].rsplit("<!--", 1)[0] == expected, page
