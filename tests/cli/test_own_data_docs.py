"""What the page on one's own hospital tells people to type and write works as it stands."""

import re
import shlex
import shutil
from pathlib import Path

import pytest
import yaml

from synehrgy import commands
from synehrgy.cli import compose
from synehrgy.cohort import read_cohort
from synehrgy.cohort.__main__ import main as cohort_command
from synehrgy.files import read_json
from synehrgy.sources.tables import read_declaration
from synehrgy.sources.tables.declaration import (
    CODE_FAULTS,
    VALUE_FAULTS,
    CodesTable,
    CovariateColumn,
    Declaration,
    LabelRule,
    MeasurementsTable,
    Series,
    StaysTable,
)

PAGE = Path(__file__).resolve().parents[2] / "docs" / "own-data.md"
TEXT = PAGE.read_text(encoding="utf-8")
PYTHON = re.findall(r"```python\n(.*?)```", TEXT, re.DOTALL)
YAML = re.findall(r"```yaml\n(.*?)```", TEXT, re.DOTALL)
COMMANDS = re.findall(r"^    python (?:-m )?(\S+) (.*)$", TEXT, re.MULTILINE)
PATHS = {"saved_models": "saved_models", "synthetic": "data/synthetic", "results": "Results"}


@pytest.fixture(scope="module")
def done(tmp_path_factory):
    """A folder in which everything on the page was done, in its order, and what was said."""
    here = tmp_path_factory.mktemp("own")
    paths = [f"paths.{key}={here / path}" for key, path in PATHS.items()]
    said: list[tuple[str, int, str]] = []
    names: dict = {}
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(here)
        exec(PYTHON[0], names)
        (here / "nicu" / "tables.yaml").write_text(YAML[0], encoding="utf-8")
        tables = {f.name: f for f in (here / "nicu").glob("*.csv")}
        (here / "tables").mkdir()
        for name, file in tables.items():
            shutil.copy(file, here / "tables" / name)
        exec(PYTHON[1], names)
        long = {**yaml.safe_load(YAML[0]), **yaml.safe_load(YAML[1])}
        (here / "nicu-long" / "tables.yaml").write_text(yaml.safe_dump(long, sort_keys=False))
        exec(PYTHON[2], {})
        for program, text in COMMANDS:
            arguments = shlex.split(text.replace("/path/to/tables", "tables"))
            if program == "synehrgy.cohort":
                said.append((text, cohort_command(arguments), ""))
                continue
            name = program.removesuffix(".py")
            outcome = getattr(commands, name)(compose(name, [*arguments, *paths]))
            said.append((text, 0, outcome.line))
    return here, said


def test_every_command_works(done):
    here, said = done
    assert len(PYTHON) == 3
    assert len(YAML) == 2
    assert [program for program, _ in COMMANDS] == [
        *("synehrgy.cohort", "preprocess.py", "train.py", "generate.py", "evaluate.py"),
        *("synehrgy.cohort", "synehrgy.cohort", "synehrgy.cohort", "preprocess.py"),
    ]
    assert [status for _, status, _ in said] == [0] * len(said)
    assert (here / "nicu" / "check.png").exists()
    assert not (here / "nicu-long" / "check.png").exists()


def test_the_cohort_is_that_of_the_unit(done):
    here, _ = done
    cohort = read_cohort(here / "data" / "processed" / "nicu")
    assert cohort.schema.name == "neonatal-unit"
    assert (cohort.n_patients, len(cohort.stays)) == (500, 560)
    assert cohort.schema.labels == []
    assert {"P072", "P073", "P360"} < set(cohort.codes["code"])
    assert set(cohort.measurements["level"].dropna()) == {"none", "CPAP", "ventilation"}
    # Rare codes are written as what is above them.
    tokenizer = read_json(here / "data" / "processed" / "nicu" / "tokenizer.json")
    assert "P36" in tokenizer["codes"]["icd10_diagnosis"]
    assert "P360" in tokenizer["stands_for"]["icd10_diagnosis"]["P36"]


def test_synthetic_infants_are_of_the_same_form_and_were_judged(done):
    here, said = done
    synthetic = read_cohort(here / "data" / "synthetic" / "nicu")
    real = read_cohort(here / "data" / "processed" / "nicu")
    assert synthetic.n_patients == 200
    assert synthetic.schema.covariates == real.schema.covariates
    assert {v.name for v in synthetic.schema.variables} == {v.name for v in real.schema.variables}
    assert set(synthetic.codes["code"]) <= set(real.codes["code"]) | {"P36"}
    tables = here / "Results" / "nicu" / "tables"
    assert "Respiratory support" in (tables / "series_summary.csv").read_text(encoding="utf-8")
    assert "synthetic,icd10_diagnosis,P073" in (tables / "codes_prevalence.csv").read_text()
    assert (here / "Results" / "nicu" / "report.html").exists()
    assert "Results: " in next(line for text, _, line in said if text.startswith("model=nicu pre"))


def test_the_long_form_gives_the_same_cohort(done, tmp_path):
    here, _ = done
    given = ["data=tables", f"data.raw_dir={here / 'nicu-long'}", f"data.path={tmp_path / 'c'}"]
    commands.preprocess(compose("preprocess", given))
    for table in ("stays", "codes", "measurements"):
        one, other = (
            folder / f"{table}.parquet"
            for folder in (tmp_path / "c", here / "data" / "processed" / "nicu")
        )
        assert one.read_bytes() == other.read_bytes()


def test_the_draft_is_nearly_what_one_would_write(done):
    here, _ = done
    found = read_declaration(here / "tables" / "tables.yaml")
    wanted = read_declaration(here / "nicu" / "tables.yaml")
    assert found.codes == wanted.codes
    assert found.measurements == wanted.measurements
    assert (found.stays.subject, found.stays.stay) == ("infant", "admission")
    assert found.stays.admitted == "admitted"
    assert list(found.series) == ["HR", "SpO2", "Temp", "Support"]
    assert list(found.series["Support"].levels) == ["air", "cpap", "vent"]
    assert found.missing == ["NA"]
    assert cohort_command(["check", str(here / "tables"), "--no-figure"]) == 0


def test_the_page_explains_every_key():
    table = TEXT.split("## What `tables.yaml` can say")[1].split("## A draft")[0]
    kinds = (Declaration, StaysTable, CovariateColumn, LabelRule, CodesTable)
    for kind in (*kinds, MeasurementsTable, Series):
        for key in kind.__dataclass_fields__:
            assert re.search(rf"\b{key}\b", table), f"{kind.__name__}.{key}"
    for fault in (*CODE_FAULTS, *VALUE_FAULTS):
        assert f"[{fault}]" in table
