"""What the page on sources says is so, and what it tells people to type works as it stands."""

import re
import shlex
from pathlib import Path

import numpy as np
import pytest

from synehrgy import commands
from synehrgy.cli import CONFIG_DIR, compose
from synehrgy.cohort import read_cohort
from synehrgy.sources.eicu import EICU
from synehrgy.sources.extraction import Hospital
from synehrgy.sources.extraction.resources import PROFILES, read_labels
from synehrgy.sources.mimic3 import MIMIC3
from synehrgy.sources.mimic4 import MIMIC4
from tests.sources import eicu_database, mimic4_database

PAGE = Path(__file__).resolve().parents[2] / "docs" / "sources.md"
TEXT = PAGE.read_text(encoding="utf-8")
COMMANDS = re.findall(r"^    python (\w+)\.py (.*)$", TEXT, re.MULTILINE)


def items_of(hospital: Hospital, series: str) -> str:
    """The raw items of a series as the page states them."""
    profiles = {
        name: {s.name: s.items for s in hospital.profile(name).item_sets} for name in PROFILES
    }
    stated = []
    for table in hospital.profile("paper").tables:
        of = {name: found.get(series, {}).get(table, {}) for name, found in profiles.items()}
        marks = {
            item: "" if item in of["paper"] and item in of["clinical"] else f" *{name[0]}*"
            for name, items in of.items()
            for item in items
        }
        names = [f"{item}{mark}".replace("|", " / ") for item, mark in marks.items()]
        if names:
            stated.append(f"{table}: {', '.join(names)}")
    return "; ".join(stated)


def series_table() -> str:
    """The table of series of the page."""
    names = sorted(
        {s.name for name in PROFILES for s in MIMIC3.profile(name).item_sets}, key=str.lower
    )
    rows = [f"| {n} | {items_of(MIMIC4, n)} | {items_of(EICU, n)} |" for n in names]
    return "\n".join(["| series | MIMIC-IV | eICU |", "|---|---|---|", *rows])


def test_the_page_states_every_item() -> None:
    assert series_table() in TEXT


def test_the_page_names_every_source() -> None:
    named = set(re.findall(r"^\| `(\w+)` \|", TEXT, re.MULTILINE))
    assert named >= {file.stem for file in (CONFIG_DIR / "data").glob("*.yaml")}


def test_the_page_names_the_tables_that_are_read() -> None:
    for hospital in (MIMIC4, EICU):
        for table in hospital.release.columns:
            assert re.search(rf"`{table}`", TEXT, re.IGNORECASE), table


def mimic4_patients(n: int) -> mimic4_database.Database:
    """Patients with one stay each, of either ICD version."""
    made = mimic4_database
    random = np.random.default_rng(0)
    numbers = range(1, n + 1)
    ids = {i: {"subject_id": i, "hadm_id": 1000 + i} for i in numbers}
    units = {i: {**ids[i], "stay_id": 2000 + i} for i in numbers}
    codes = [("0389", 9), ("4019", 9), ("A419", 10), ("I10", 10)]
    return made.database(
        patients=[made.patient(i, gender="FM"[i % 2]) for i in numbers],
        admissions=[made.admission(**ids[i]) for i in numbers],
        icustays=[made.stay(**units[i]) for i in numbers],
        diagnoses_icd=[
            {**made.code(*code, place), **ids[i]}
            for i in numbers
            for place, code in enumerate(codes[i % 2 * 2 :][:2], start=1)
        ],
        procedures_icd=[],
        d_icd_diagnoses=[made.code(*code) for code in codes],
        chartevents=[
            {**made.chart(220045, str(int(random.normal(80, 5))), hour), **units[i]}
            for i in numbers
            for hour in range(1, 8)
        ],
        labevents=[{**made.lab(50912, "0.9"), **ids[i]} for i in numbers],
    )


def eicu_patients(n: int) -> eicu_database.Database:
    """Patients with one stay each."""
    made = eicu_database
    random = np.random.default_rng(1)
    numbers = range(1, n + 1)
    texts = ["038.9, A41.9", "401.9, I10", "785.52, R65.21"]
    return made.database(
        patient=[
            made.patient(i, 1000 + i, uniquepid=f"002-{i}", gender=["Male", "Female"][i % 2])
            for i in numbers
        ],
        diagnosis=[made.diagnosis(text, stay_id=i) for i in numbers for text in texts[: 1 + i % 3]],
        nursecharting=[
            made.heart_rate(int(random.normal(90, 5)), 60 * hour, stay_id=i)
            for i in numbers
            for hour in range(1, 8)
        ],
        lab=[made.lab("creatinine", 1.1, patientunitstayid=i) for i in numbers],
    )


@pytest.fixture(scope="module")
def here(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A working directory with both databases, in which all commands of the page were run."""
    path = tmp_path_factory.mktemp("sources")
    mimic4_database.write_database(mimic4_patients(60), path / "mimic-iv")
    eicu_database.write_database(eicu_patients(60), path / "eicu")
    paths = [f"paths.{name}={path / name}" for name in ("saved_models", "synthetic", "results")]
    small = [
        *("model=gpt_tiny", "train.epochs=1", "hparams.n_ctx=96", "hparams.mini_batch=16"),
        *("hparams.n_accum=1", "device=cpu"),
    ]
    more = {
        "preprocess": ["preprocess.min_code_count=1"],
        "train": small,
        "generate": ["n_samples=20", "device=cpu"],
        "evaluate": ["preset=quick", "metrics=[structure,codes]"],
    }
    for script, text in COMMANDS:
        arguments = shlex.split(text.replace("/path/to/", f"{path}/"))
        source = next((a[5:] for a in arguments if a.startswith("data=")), None)
        place = [f"data.path={path / 'processed' / source}"] if source else []
        config = compose(script, [*arguments, *place, *paths, *more[script]])
        outcome = getattr(commands, script)(config)
        assert "Next:" in outcome.line
    return path


def test_its_commands(here: Path) -> None:
    scripts = [script for script, _ in COMMANDS]
    once = ["preprocess", "train", "generate"]
    assert scripts == [*once, "evaluate", *once]
    assert (here / "results" / "boston-structure-codes" / "report.html").exists()


def test_the_readme_has_the_same_commands() -> None:
    readme = (PAGE.parents[1] / "README.md").read_text(encoding="utf-8")
    shown = re.findall(r"^    python (\w+)\.py (data=(?:mimic4|eicu).*)$", readme, re.MULTILINE)
    assert len(shown) == 2
    assert set(shown) <= set(COMMANDS)


@pytest.mark.parametrize(("run", "source"), [("boston", "mimic4"), ("elsewhere", "eicu")])
def test_synthetic_patients_have_the_form_of_the_real_ones(
    here: Path, run: str, source: str
) -> None:
    real = read_cohort(here / "processed" / source)
    synthetic = read_cohort(here / "synthetic" / run)
    assert real.n_patients == 60
    assert synthetic.n_patients == 20
    assert synthetic.schema.code_systems == real.schema.code_systems
    # The schema of synthetic patients names what defines a label in either version.
    septicemia = next(la for la in synthetic.schema.labels if la.column == "septicemia")
    assert septicemia.definition == {"icd9_diagnosis": ["0389"], "icd10_diagnosis": ["A419"]}


@pytest.mark.parametrize("run", ["boston", "elsewhere"])
def test_generated_labels_agree_with_codes_of_either_version(here: Path, run: str) -> None:
    cohort = read_cohort(here / "synthetic" / run)
    codes = cohort.codes.astype({"system": str, "code": str})
    for label in cohort.schema.labels:
        for system, defining in label.definition.items():
            rows = codes[(codes["system"] == system) & codes["code"].isin(defining)]
            having = cohort.stays["stay_id"].isin(rows["stay_id"])
            assert (cohort.stays.loc[having, label.column] == 1).all()
    assert len(codes)


def test_labels_are_the_same_everywhere(here: Path) -> None:
    columns = [label.column for label in read_labels()]
    for source in ("mimic4", "eicu"):
        schema = read_cohort(here / "processed" / source).schema
        assert [label.column for label in schema.labels] == columns
