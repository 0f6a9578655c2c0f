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
from synehrgy.evaluation.compare import compare
from synehrgy.evaluation.metric import Effort
from synehrgy.evaluation.rows import bench_of
from tests.cohorts import small_cohort, write

DOCS = Path(__file__).resolve().parents[2] / "docs"
PAGE = DOCS / "generation.md"
TEXT = PAGE.read_text(encoding="utf-8")
PYTHON = re.findall(r"```python\n(.*?)```", TEXT, re.DOTALL)
COMMANDS = re.findall(r"^    python ((?:generate|evaluate)\.py) (.*)$", TEXT, re.MULTILINE)


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


def test_a_metric_of_one_s_own():
    """The page on evaluation shows how; what it shows measures what it says."""
    page = (DOCS / "evaluation.md").read_text(encoding="utf-8")
    block = next(b for b in re.findall(r"```python\n(.*?)```", page, re.DOTALL) if "class " in b)
    names = {}
    exec(block, names)
    real, synthetic = small_cohort(60), small_cohort(20, seed=1)
    bench = bench_of(real, synthetic, effort=Effort(n_resamples=20))
    found = compare(bench, [names["Readmission"]()], progress=False)
    stays = bench.equal["synthetic"].stays
    expected = (stays.groupby("subject_id").size() > 1).mean()
    assert found.value("readmission/share") == pytest.approx(expected)
    assert found.scores["low"].notna().all()


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
    for program, arguments in COMMANDS:
        script = program.removesuffix(".py")
        given = shlex.split(few(arguments))
        if "data=simulated" in given:
            given.append(f"data.path={here / 'data/processed/simulated'}")
        if script == "generate":
            given += ["overwrite=True", "device=cpu"]
        outcome = getattr(commands, script)(compose(script, [*given, *paths]))
        assert "Next:" in outcome.line, arguments
