"""Data flows one way: which room may import which."""

import ast
from pathlib import Path

import pytest

PACKAGE = Path(__file__).resolve().parents[1] / "synehrgy"

# What each room may import, besides itself and the modules that belong to no room.
MAY_IMPORT = {
    "cohort": set(),
    "sources": {"cohort"},
    "tokenizer": {"cohort"},
    "model": set(),
    "training": {"tokenizer", "model"},
    "generation": {"cohort", "tokenizer", "model", "training.checkpoint"},
    "baselines": {"cohort", "tokenizer", "training", "generation"},
    "comparison": {"cohort", "sources", "baselines", "evaluation"},
    "export": {"cohort", "tokenizer", "model", "training.checkpoint", "comparison.headlines"},
    # One of the reference rows is a baseline.
    "evaluation": {"cohort", "tokenizer", "model", "training", "baselines.marginals"},
}

# Leaves: they know nothing of any room.
LEAVES = {"errors", "files", "provenance", "draws", "device", "settings", "processes"}


def imports(folder: Path) -> set[str]:
    """Modules of the package that a folder imports, without the package's name."""
    found = set()
    # A program composes the settings of its room, as the scripts do.
    for file in set(folder.rglob("*.py")) - set(folder.rglob("__main__.py")):
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            names = []
            if isinstance(node, ast.ImportFrom):
                assert node.level == 0, f"{file} has a relative import"
                names = [node.module]
            elif isinstance(node, ast.Import):
                names = [alias.name for alias in node.names]
            found |= {
                name.removeprefix("synehrgy.") for name in names if name.startswith("synehrgy.")
            }
    return found


def test_every_room_has_its_rule():
    rooms = {path.parent.name for path in PACKAGE.glob("*/__init__.py")}
    assert rooms == set(MAY_IMPORT)


@pytest.mark.parametrize("room", MAY_IMPORT)
def test_imports_run_one_way(room):
    for module in imports(PACKAGE / room):
        allowed = {room, *MAY_IMPORT[room], *LEAVES}
        inside = [name for name in allowed if module == name or module.startswith(f"{name}.")]
        assert inside, f"{room} imports {module}"


def test_the_model_stands_alone():
    assert {name.split(".")[0] for name in imports(PACKAGE / "model")} == {"model"}


@pytest.mark.parametrize("leaf", sorted(LEAVES))
def test_leaves_know_no_room(leaf, tmp_path):
    (tmp_path / "leaf.py").write_text((PACKAGE / f"{leaf}.py").read_text(encoding="utf-8"))
    assert not {name.split(".")[0] for name in imports(tmp_path)} & set(MAY_IMPORT)
