"""What the documentation tells people to type works as it stands."""

import re
import shlex
import shutil
from pathlib import Path

import pandas as pd
import pytest

from synehrgy import commands
from synehrgy.cli import compose
from synehrgy.cohort import read_cohort
from tests.cohorts import write

DOCS = Path(__file__).resolve().parents[2] / "docs"
TEXT = (DOCS / "generation.md").read_text(encoding="utf-8")
PYTHON = re.findall(r"```python\n(.*?)```", TEXT, re.DOTALL)
COMMANDS = re.findall(r"^    python (generate|evaluate)\.py (.*)$", TEXT, re.MULTILINE)


def few(text):
    """The same with less to wait for."""
    return re.sub(r"\b(n=|n_samples=|generate\(\s*|n_resample=)\d+", r"\g<1>4", text)


@pytest.fixture(scope="module")
def here(trained, forecaster, cohort_folder, tmp_path_factory):
    """A working directory in which everything that the page names is at its place."""
    path = tmp_path_factory.mktemp("docs")
    shutil.copytree(trained, path / "saved_models" / "demo")
    shutil.copytree(forecaster, path / "saved_models" / "forecaster")
    real = read_cohort(cohort_folder)
    # Stays that go on after the first day.
    real.measurements["hours"] *= 10
    real.stays["los_hours"] += 50
    write(real, path / "data" / "processed" / "simulated")
    return path


def test_python(here, monkeypatch):
    monkeypatch.chdir(here)
    names = {"pd": pd}
    for block in PYTHON:
        exec(few(block), names)
    assert len(names["wanted"]) == 2
    assert len(names["cohort"].weights) == 4
    assert len(names["futures"].predictions)
    assert len(PYTHON) >= 7


def test_commands(here, monkeypatch):
    monkeypatch.chdir(here)
    assert len(COMMANDS) >= 10
    pd.DataFrame({"age": [82, 35], "gender": ["F", "M"]}).to_csv("wanted.csv", index=False)
    paths = [
        f"paths.{name}={here / folder}"
        for name, folder in (
            ("saved_models", "saved_models"),
            ("synthetic", "data/synthetic"),
            ("results", "Results"),
        )
    ]
    for script, arguments in COMMANDS:
        given = shlex.split(few(arguments))
        if "data=simulated" in given:
            given.append(f"data.path={here / 'data/processed/simulated'}")
        if script == "generate":
            given += ["overwrite=True", "device=cpu"]
        outcome = getattr(commands, script)(compose(script, [*given, *paths]))
        assert "Next:" in outcome.line, arguments
