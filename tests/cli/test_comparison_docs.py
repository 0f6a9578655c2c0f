"""What the page on other generators tells people to type works as it stands, at a smaller size."""

import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from synehrgy import commands
from synehrgy.baselines import baselines
from synehrgy.baselines.baseline import CODES, SERIES, STAYS
from synehrgy.cli import compose
from synehrgy.cohort import export_csv, read_cohort
from synehrgy.cohort.__main__ import main as cohort_command
from synehrgy.files import REPOSITORY
from tests.cohorts import small_cohort, write

PAGE = Path(__file__).resolve().parents[2] / "docs" / "comparison.md"
TEXT = PAGE.read_text(encoding="utf-8")
COMMANDS = re.findall(r"^    python (?:-m )?([\w.]+) (.*)$", TEXT, re.MULTILINE)
LESS = {"comparison": ["names=[marginals,bootstrap]", "metrics=[codes,structure]", "preset=quick"]}


def test_the_page_names_every_generator():
    named = set(re.findall(r"^\| `(\w+)` \|", TEXT.split("## The comparison")[0], re.MULTILINE))
    assert named - {"name"} == set(baselines())


def test_its_commands(cohort_folder, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    write(read_cohort(cohort_folder), tmp_path / "data" / "processed" / "simulated")
    write(small_cohort(80, seed=9), tmp_path / "theirs")
    export_csv(tmp_path / "theirs", tmp_path / "csv")
    places = [f"data.path={tmp_path / 'data' / 'processed' / 'simulated'}"]
    paths = {"saved_models": "saved_models", "synthetic": "data/synthetic", "results": "Results"}
    places += [f"paths.{key}={tmp_path / path}" for key, path in paths.items()]
    run = []
    for program, text in COMMANDS:
        arguments = shlex.split(text.replace("/path/to/csv", "csv"))
        if program == "synehrgy.cohort":
            assert cohort_command(arguments) == 0
            continue
        name = {"evaluate.py": "evaluate", "synehrgy.baselines": "baseline"}.get(
            program, "comparison"
        )
        mine = [place for place in places if name != "evaluate" or "data.path" not in place]
        less = ["metrics=[structure]"] if name == "evaluate" else LESS.get(name, [])
        config = compose(name, [*arguments, *mine, *less])
        getattr(commands, name)(config)
        run.append(name)
    assert run == ["baseline", "evaluate", "comparison", "evaluate", "comparison"]
    table = (tmp_path / "Results" / "comparison" / "comparison.md").read_text(encoding="utf-8")
    assert "| mytool | " in table
    assert "**" in table


def test_a_generator_of_one_s_own(tmp_path):
    names = {}
    exec(re.findall(r"```python\n(.*?)```", TEXT, re.DOTALL)[0], names)
    mine = names["Shuffled"]()
    real = small_cohort(60)
    cpu = torch.device("cpu")
    mine.fit(real, real.select(subjects=[]), seed=0, device=cpu, progress=False)
    found = mine.sample(20, seed=1, device=cpu, progress=False)
    write(found, tmp_path / "cohort")
    assert read_cohort(tmp_path / "cohort").n_patients == 20
    assert set(found.stays["age"]) <= set(real.stays["age"])
    # It makes what it says that it covers.
    covers = names["Shuffled"].covers
    assert (len(found.codes) > 0) == (CODES in covers)
    assert (len(found.measurements) > 0) == (SERIES in covers)
    assert (found.stays["stay_index"].max() > 0) == (STAYS in covers)


@pytest.mark.parametrize(
    ("module", "arguments", "says"),
    [
        (
            "baselines",
            ["name=halos", "data=simulated"],
            "There is no baseline 'halos'. Did you mean",
        ),
        ("baselines", ["data=simulated"], "name=... is needed"),
        ("baselines", ["name=markov", "method.orders=3"], "markov has no setting 'orders'"),
        (
            "comparison",
            ["naems=[halo]"],
            "no setting of -m synehrgy.comparison. Did you mean 'names'",
        ),
    ],
)
def test_mistakes_are_answered_in_words(module, arguments, says):
    run = subprocess.run(
        [sys.executable, "-m", f"synehrgy.{module}", *arguments],
        capture_output=True,
        text=True,
        cwd=REPOSITORY,
    )
    assert run.returncode == 1
    assert says in run.stderr
    assert "Traceback" not in run.stderr


@pytest.mark.parametrize("module", ["baselines", "comparison"])
def test_help_says_what_there_is(module):
    run = subprocess.run(
        [sys.executable, "-m", f"synehrgy.{module}", "--help"],
        capture_output=True,
        text=True,
        cwd=REPOSITORY,
    )
    assert run.returncode == 0
    assert f"Usage: python -m synehrgy.{module} key=value ..." in run.stdout
