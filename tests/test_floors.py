"""Rooms import downward only: the order of DESIGN's floors, read from the code's own imports."""

import ast
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[1] / "debias_ssae"
FLOORS = [
    {"exceptions", "processor"},
    {"batching", "files", "models", "lowered", "config", "concept", "absorption", "intervals", "networks"},
    {"corpora", "datasets", "retrieval", "activations", "store", "auditing", "leakage", "plotting", "sae"},
    {"attribution", "influence", "ablation", "encoder", "harvest"},
    {"debiaser", "baselines", "sae_evaluation"},
    {"benchmark", "export", "review"},
    {"report"},
    {"cli"},
]
FLOOR = {room: i for i, rooms in enumerate(FLOORS) for room in rooms}
FREE = {"__init__", "__main__"}


def imports(file: Path) -> set[str]:
    rooms = set()
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        names = []
        if isinstance(node, ast.ImportFrom) and node.module:
            names = [node.module]
            if node.module == "debias_ssae":
                names = [f"debias_ssae.{alias.name}" for alias in node.names if alias.name != "__version__"]
        elif isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        rooms |= {name.split(".")[1] for name in names if name.startswith("debias_ssae.")}
    return rooms


def rooms() -> dict[str, list[Path]]:
    found: dict[str, list[Path]] = {}
    for file in PACKAGE.rglob("*.py"):
        room = file.relative_to(PACKAGE).parts[0].removesuffix(".py")
        found.setdefault(room, []).append(file)
    return {room: files for room, files in found.items() if room not in FREE}


def test_every_room_has_a_floor() -> None:
    assert set(rooms()) <= set(FLOOR)


@pytest.mark.parametrize("room", sorted(rooms()))
def test_imports_go_down(room: str) -> None:
    for file in rooms()[room]:
        for other in imports(file) - {room}:
            assert FLOOR[other] < FLOOR[room], f"{file.name} of {room} imports {other}"


def test_sae_stands_alone() -> None:
    for file in rooms()["sae"]:
        assert imports(file) <= {"sae", "config", "exceptions", "processor"}, file


def test_no_god_files() -> None:
    for file in PACKAGE.rglob("*.py"):
        tree = ast.parse(file.read_text(encoding="utf-8"))
        assert len(file.read_text(encoding="utf-8").splitlines()) < 400, file
        for node in ast.walk(tree):
            if isinstance(node, ast.FunctionDef):
                docstring = ast.get_docstring(node, clean=False)
                length = node.end_lineno - node.lineno + 1 - (len(docstring.splitlines()) if docstring else 0)
                assert length < 60, f"{file}: {node.name} has {length} lines"
