"""Folders import downward only, in the order of CONTRIBUTING.md, read from the code's own imports."""

import ast
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[1] / "debias_ssae"
ORDER = (
    "core", "text", "model", "retrieval", "sae", "selection", "erase", "debiaser", "baselines", "audit", "review",
    "benchmark", "export", "cli",
)  # fmt: skip
FLOOR = {folder: i for i, folder in enumerate(ORDER)}
FREE = {"__init__", "__main__"}


def imports(file: Path) -> set[str]:
    names_ = set()
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        names = []
        if isinstance(node, ast.ImportFrom) and node.module:
            names = [node.module]
            if node.module == "debias_ssae":
                names = [f"debias_ssae.{alias.name}" for alias in node.names if alias.name != "__version__"]
        elif isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        names_ |= {name.split(".")[1] for name in names if name.startswith("debias_ssae.")}
    return names_


def folders() -> dict[str, list[Path]]:
    found: dict[str, list[Path]] = {}
    for file in PACKAGE.rglob("*.py"):
        folder = file.relative_to(PACKAGE).parts[0].removesuffix(".py")
        found.setdefault(folder, []).append(file)
    return {folder: files for folder, files in found.items() if folder not in FREE}


def test_every_folder_has_a_place() -> None:
    assert set(folders()) <= set(FLOOR)


@pytest.mark.parametrize("folder", sorted(folders()))
def test_imports_go_down(folder: str) -> None:
    for file in folders()[folder]:
        for other in imports(file) - {folder}:
            assert FLOOR[other] < FLOOR[folder], f"{file.name} of {folder} imports {other}"
