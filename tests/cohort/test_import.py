"""CSV files of another tool as a cohort."""

from dataclasses import replace

import pandas as pd
import pytest
from hypothesis import HealthCheck, given, settings

from synehrgy.cohort import Covariate, export_csv, import_csv, read_cohort
from synehrgy.cohort.__main__ import main
from synehrgy.errors import UserError
from tests.cohorts import cohorts, small_cohort, write

TEXT = {"code": str, "level": str}


@pytest.fixture
def files(tmp_path):
    """A real cohort, and the CSV files of another one."""
    write(small_cohort(40), tmp_path / "real")
    write(small_cohort(12, seed=5), tmp_path / "theirs")
    export_csv(tmp_path / "theirs", tmp_path / "csv")
    return tmp_path


def changed(files, name, change):
    """Rewrite one of the files."""
    file = files / "csv" / f"{name}.csv"
    change(pd.read_csv(file, dtype=TEXT)).to_csv(file, index=False)


def imported(files):
    return read_cohort(import_csv(files / "csv", files / "cohort", files / "real"))


def rows(cohort, name):
    frame = cohort.table(name)
    return frame.astype(dict.fromkeys(frame.select_dtypes("category"), object))


@settings(max_examples=30, suppress_health_check=list(HealthCheck))
@given(cohort=cohorts())
def test_what_was_exported_comes_back(cohort, tmp_path_factory):
    place = tmp_path_factory.mktemp("csv")
    write(cohort, place / "a")
    export_csv(place / "a", place / "csv")
    again = read_cohort(import_csv(place / "csv", place / "b", place / "a"))
    for name in ("stays", "codes", "measurements"):
        pd.testing.assert_frame_equal(rows(again, name), rows(read_cohort(place / "a"), name))


def test_rows_may_come_in_any_order(files):
    for name in ("codes", "measurements"):
        changed(files, name, lambda table: table.sample(frac=1, random_state=0))
    changed(files, "stays", lambda table: table.sample(frac=1, random_state=0))
    found, expected = imported(files), small_cohort(12, seed=5)
    pd.testing.assert_frame_equal(found.stays, expected.stays)
    pd.testing.assert_frame_equal(rows(found, "codes"), rows(expected, "codes"))


def test_what_can_be_made_up_may_be_left_out(files):
    left_out = ["hadm_id", "stay_index", "split", "los_hours"]
    changed(files, "stays", lambda table: table.drop(columns=left_out))
    changed(files, "codes", lambda table: table.drop(columns="position"))
    found, expected = imported(files), small_cohort(12, seed=5)
    assert found.stays["stay_index"].tolist() == expected.stays["stay_index"].tolist()
    assert found.stays["los_hours"].isna().all()
    assert found.codes["position"].tolist() == expected.codes["position"].tolist()


def test_labels_follow_from_the_codes_that_define_them(files, simulated_folder, tmp_path):
    real = read_cohort(simulated_folder)
    some = real.select(subjects=real.stays["subject_id"].unique()[:30].tolist())
    write(some, tmp_path / "some")
    export_csv(tmp_path / "some", tmp_path / "out")
    file = tmp_path / "out" / "stays.csv"
    defined = [label.column for label in some.schema.labels if label.system is not None]
    pd.read_csv(file).drop(columns=defined).to_csv(file, index=False)
    found = read_cohort(import_csv(tmp_path / "out", tmp_path / "cohort", simulated_folder))
    pd.testing.assert_frame_equal(found.stays[defined], some.stays[defined])
    assert found.stays[defined].sum().sum() > 0
    # Without codes nobody can say.
    (tmp_path / "out" / "codes.csv").unlink()
    with pytest.raises(UserError, match="is missing, and no codes say"):
        import_csv(tmp_path / "out", tmp_path / "cohort", simulated_folder)


@pytest.mark.parametrize("level", ["NA", "null", "nan", "N/A"])
def test_a_level_that_is_called_as_if_missing_stays(level, tmp_path):
    cohort = small_cohort(10)
    schema = replace(cohort.schema, covariates=[Covariate("gender", "categorical", levels=[level])])
    stays = cohort.stays.drop(columns="age").assign(gender=level)
    write(replace(cohort, schema=schema, stays=stays), tmp_path / "a")
    export_csv(tmp_path / "a", tmp_path / "csv")
    found = read_cohort(import_csv(tmp_path / "csv", tmp_path / "b", tmp_path / "a"))
    assert set(found.stays["gender"]) == {level}


def test_a_file_that_is_not_there_is_a_part_that_is_not_covered(files):
    (files / "csv" / "measurements.csv").unlink()
    found = imported(files)
    assert not found.schema.variables
    assert len(found.codes)


@pytest.mark.parametrize(
    ("name", "change", "says"),
    [
        ("stays", lambda t: t.drop(columns="age"), "stays.csv: column 'age' is missing"),
        ("stays", lambda t: t.assign(agee=1), "column 'agee' is not declared.*'age'"),
        ("stays", lambda t: t.assign(gender="X"), "gender.*is not a declared level"),
        ("stays", lambda t: t.assign(age="old"), r"stays.csv cannot be read.*old"),
        ("stays", lambda t: t.assign(stay_id=1), "stay_id is not unique"),
        ("stays", lambda t: t.drop(columns="shock"), "column 'shock' is missing"),
        ("codes", lambda t: t.assign(stay_id=-1), "codes.csv: stay_id -1 is not in stays.csv"),
        ("codes", lambda t: t.drop(columns="system"), "'system' is missing, and there are several"),
        ("measurements", lambda t: t.assign(variable="Height"), "'?Height'?"),
    ],
)
def test_mistakes_are_named(files, name, change, says):
    changed(files, name, change)
    with pytest.raises(UserError, match=says):
        imported(files)
    assert not (files / "cohort").exists()


def test_the_command(files, capsys):
    target = files / "cohort"
    assert main(["import", str(files / "csv"), str(target), "--like", str(files / "real")]) == 0
    assert capsys.readouterr().out == f"Cohort: {target}\n"
    assert main(["import", str(files), str(target), "--like", str(files / "real")]) == 1
    assert "stays.csv does not exist" in capsys.readouterr().err
