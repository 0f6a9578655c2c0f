"""What the page on MEDS tells people to type works as it stands."""

import importlib.util
import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import meds
import pandas as pd
import pyarrow.parquet as pq
import pytest
import yaml

from synehrgy import commands
from synehrgy.cli import compose
from synehrgy.cohort import export_meds, read_cohort
from synehrgy.cohort.__main__ import main as cohort_command
from synehrgy.files import REPOSITORY
from synehrgy.sources.mimic3 import extract
from synehrgy.sources.mimic3.__main__ import main as mimic3_command
from tests.cli.test_road import raw_patients
from tests.cohorts import small_cohort, write
from tests.sources.meds_dataset import check_dataset, write_dataset
from tests.sources.raw_database import write_database

PAGE = REPOSITORY / "docs" / "meds.md"
TEXT = PAGE.read_text(encoding="utf-8")
COMMANDS = re.findall(r"^    python (?:-m )?([\w.]+) (.*)$", TEXT, re.MULTILINE)
BLOCKS = re.findall(r"```yaml\n(.*?)```", TEXT, re.DOTALL)


def my_hospital(folder: Path) -> Path:
    """Patients in the codes of the page's own mapping."""
    rows = []
    for subject in range(40):
        rows += [
            [subject, None, f"GENDER//{'FM'[subject % 2]}"],
            [subject, -24 * 365.25 * (20 + subject), "MEDS_BIRTH"],
            [subject, 0, "ADMIT//A"],
            *([subject, hours, "VITAL//HR//bpm", 60 + subject + hours] for hours in range(1, 9)),
            [subject, 2, "VITAL//TEMP//F", 98.6],
            [subject, 3, "AVPU", None, "Alert" if subject % 3 else "V"],
            [subject, 9, "DIAGNOSIS//ICD//10//A419"],
            [subject, 10, "DISCHARGE//A"],
        ]
    splits = {subject: "tuning" if subject % 4 == 0 else "train" for subject in range(40)}
    return write_dataset(folder, {"train/0": rows}, splits=splits)


@pytest.fixture(scope="module")
def here(trained, tmp_path_factory):
    """A working directory in which everything that the page names is at its place."""
    path = tmp_path_factory.mktemp("docs")
    raw = write_database(raw_patients(), path / "raw")
    shutil.copytree(trained, path / "saved_models" / "first")
    own = next(block for block in BLOCKS if block.startswith("source:"))
    (path / "my-hospital.yaml").write_text(own, encoding="utf-8")
    my_hospital(path / "meds")
    return path, raw


def test_its_commands(here, monkeypatch):
    path, raw = here
    monkeypatch.chdir(path)
    places = {
        "/path/to/mimic-iii": str(raw),
        # Its mapping reads MIMIC-III by the same conventions.
        "/path/to/mimic-iv-meds": "data/raw/mimic3-meds",
        "/path/to/meds": "meds",
        # Each data set of the page has a folder of its own here.
        "data/processed/meds": "data/processed/mimic3",
    }
    of_models = [f"paths.saved_models={path / 'saved_models'}"]
    run = []
    # MIMIC-III comes first: what stands for MIMIC-IV here is made of it.
    for program, text in sorted(COMMANDS, key=lambda command: "to_meds" not in command[1]):
        given = [places.get(word, word) for word in shlex.split(text)]
        given = [
            f"{key}={places[value]}" if value in places else word
            for word in given
            for key, _, value in [word.partition("=")]
        ]
        run.append(program)
        if program == "synehrgy.cohort":
            assert cohort_command(given) == 0
        elif program == "synehrgy.sources.mimic3":
            assert mimic3_command([*given, "--no-progress"]) == 0
        elif program == "generate.py":
            outputs = [*of_models, f"paths.synthetic={path / 'data/synthetic'}"]
            config = compose("generate", [*given, *outputs, "device=cpu", "n_samples=10"])
            commands.generate(config)
        mapping = next((w for w in given if w.startswith("data.meds.mapping=")), "=again")
        where = f"data.path={path / 'data/processed' / Path(mapping.split('=')[1]).stem}"
        if "--multirun" in given:
            share_the_shards([*given, where], path)
        elif program == "preprocess.py":
            config = compose("preprocess", [*given, where])
            outcome = commands.preprocess(config)
            assert "Next: python train.py data=meds" in outcome.line
            checks = {"mimic3": mimic3_comes_of_it, "my-hospital.yaml": my_hospital_comes_of_it}
            check = checks.get(config.data.meds.mapping)
            if check is not None:
                check(path, raw)
    assert run.count("preprocess.py") == 6
    assert {"synehrgy.sources.mimic3", "synehrgy.cohort", "generate.py"} < set(run)
    check_dataset(path / "data" / "synthetic" / "first" / "meds")
    check_dataset(path / "data" / "meds-of-the-cohort")
    cohort, again = (
        read_cohort(path / "data" / "processed" / name) for name in ("mimic3", "again")
    )
    assert again.schema == cohort.schema
    for name in ("stays", "codes", "measurements"):
        pd.testing.assert_frame_equal(cohort.table(name), again.table(name), check_exact=True)


def share_the_shards(given, path):
    result = subprocess.run(
        [sys.executable, REPOSITORY / "preprocess.py", *given, f"hydra.sweep.dir={path / 'runs'}"],
        cwd=path,
        capture_output=True,
        text=True,
        timeout=600,
    )
    assert result.returncode == 0, result.stdout + result.stderr
    assert result.stdout.count("A share of the shards: ") == 2
    parts = path / "data" / "processed" / "mimic4.shards"
    shards = list((path / "data" / "raw" / "mimic3-meds" / "data").rglob("*.parquet"))
    assert len(list(parts.iterdir())) == len(shards) > 1


def mimic3_comes_of_it(path, raw):
    extract(raw, path / "expected", progress=False)
    cohorts = [read_cohort(path / "expected"), read_cohort(path / "data" / "processed" / "mimic3")]
    for name in ("stays", "codes", "measurements"):
        pd.testing.assert_frame_equal(*(cohort.table(name) for cohort in cohorts))


def my_hospital_comes_of_it(path, raw):
    cohort = read_cohort(path / "data" / "processed" / "my-hospital")
    assert cohort.schema.source == "my-hospital"
    assert cohort.counts()["stays"] == 40
    assert cohort.stays["sepsis"].tolist() == [1] * 40
    temperature = cohort.measurements.query("variable == 'Temperature'")["value"]
    assert temperature.between(36.9, 37.1).all()
    levels = cohort.measurements["level"].value_counts().to_dict()
    assert levels == {"alert": 26, "not alert": 14}


def test_its_settings_are_those_that_there_are():
    """Each key of the table of keys is one of the mapping."""
    from synehrgy.sources.meds.mapping import KEYS, read_mapping

    own = next(block for block in BLOCKS if block.startswith("source:"))
    assert read_mapping(yaml.safe_load(own), "docs", "paper", own).source == "my-hospital"
    rows = re.findall(r"^\| `([\w.]+)`", TEXT.split("| key | |")[1], re.MULTILINE)
    assert {row.split(".")[0] for row in rows} == {*KEYS} - {"source"}


@pytest.mark.skipif(
    importlib.util.find_spec("MEDS_transforms") is None,
    reason="MEDS-Transforms is not installed; it is not among the requirements",
)
def test_a_pipeline_of_meds_transforms(tmp_path):
    write(small_cohort(30), tmp_path / "cohort")
    export_meds(tmp_path / "cohort", tmp_path / "data" / "synthetic" / "first" / "meds")
    pipeline = next(block for block in BLOCKS if block.startswith("input_dir:"))
    (tmp_path / "pipeline.yaml").write_text(pipeline, encoding="utf-8")
    command = shlex.split(re.search(r"`(MEDS_transform-pipeline [\w.]+)`", TEXT)[1])
    bin_folder = Path(sys.executable).parent
    result = subprocess.run(
        command,
        cwd=tmp_path,
        env={**os.environ, "PATH": f"{bin_folder}{os.pathsep}{os.environ['PATH']}"},
        capture_output=True,
        text=True,
    )
    assert result.returncode == 0, result.stdout + result.stderr
    out = tmp_path / "data" / "synthetic" / "first-for-training"
    kept = pq.read_table(out / "data", partitioning=None).to_pandas()
    assert "AGE" in set(kept["code"])
    assert kept["subject_id"].nunique() > 20
    codes = pq.read_table(out / meds.code_metadata_filepath).to_pandas()
    assert codes["code/vocab_index"].notna().all()
