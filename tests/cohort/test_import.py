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
        import_csv(tmp_path / "out", tmp_path / "cohort", simulated_folder, overwrite=True)


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
        (
            "stays",
            lambda t: t.assign(age="old"),
            "stays.csv, line 2: column 'age' must be a number, is 'old'",
        ),
        ("stays", lambda t: t.assign(stay_id=1), "stays.csv, line 3: stay_id 1 is not unique"),
        ("stays", lambda t: t.drop(columns="shock"), "column 'shock' is missing"),
        ("codes", lambda t: t.assign(stay_id=-1), "codes.csv, line 2: stay_id -1 is not in stays"),
        ("codes", lambda t: t.drop(columns="system"), "'system' is missing, and there are several"),
        ("measurements", lambda t: t.assign(variable="Height"), "line 2: variable 'Height' is not"),
        ("stays", lambda t: t[:0], "stays.csv has no stays"),
    ],
)
def test_mistakes_are_named(files, name, change, says):
    changed(files, name, change)
    with pytest.raises(UserError, match=says):
        imported(files)
    assert not (files / "cohort").exists()


def cell(column, row, value):
    """A table in which one cell is another, and whose rows are in no order."""

    def change(table):
        table = table.sample(frac=1, random_state=2).reset_index(drop=True).astype({column: object})
        table.loc[row, column] = value
        return table

    return change


@pytest.mark.parametrize(
    ("name", "column", "value", "says"),
    [
        ("measurements", "variable", "HeartRate", "variable 'HeartRate' is .* mean 'Heart Rate'"),
        ("measurements", "hours", -1, "hours -1.0 is not a time since admission"),
        ("measurements", "value", "a1", "column 'value' must be a number, is 'a1'"),
        ("codes", "system", "icd9_diag", "system 'icd9_diag' is .*Did you mean 'icd9_diagnosis'"),
        ("codes", "system", None, r"system \(empty\) is not a declared system. Valid: icd9_"),
        ("codes", "code", None, "code is empty"),
        ("codes", "stay_id", None, "stay_id is empty"),
        ("codes", "stay_id", "7.5", "column 'stay_id' must be a whole number, is '7.5'"),
        ("stays", "shock", 300, "column 'shock' must be 0 or 1, is '300'"),
        ("stays", "shock", 2, "shock 2 is not 0 or 1"),
        ("stays", "split", "tests", "split 'tests' is none of .* mean 'test'"),
        ("stays", "gender", "f", "gender 'f' is not a declared level .* mean 'F'"),
    ],
)
def test_a_wrong_cell_is_named_with_its_line(files, name, column, value, says):
    changed(files, name, cell(column, 8, value))
    with pytest.raises(UserError, match=rf"{name}\.csv, line 10: {says}"):
        imported(files)


def test_a_wrong_level_is_named_with_its_line(files):
    def change(table):
        row = table.index[table["level"].notna()][4]
        table.loc[row, "level"] = "99"
        lines.append(row + 2)
        return table

    lines = []
    changed(files, "measurements", change)
    with pytest.raises(UserError, match="level '99' is not a declared level") as error:
        imported(files)
    assert f"measurements.csv, line {lines[0]}: " in str(error.value)


def test_empty_lines_and_long_rows_do_not_shift_the_line(files):
    file = files / "csv" / "codes.csv"
    header, *rows = file.read_text().splitlines()
    file.write_text("\n".join([header, "", *rows[:3], "", rows[3] + ",more", *rows[4:]]) + "\n")
    with pytest.raises(UserError, match=r"codes\.csv, line 7: it has 5 cells, the header 4"):
        imported(files)
    file.write_text("\n".join([header, "", *rows[:3], "", "x" + rows[3], *rows[4:]]) + "\n")
    with pytest.raises(UserError, match=r"codes\.csv, line 7: column 'stay_id' must be a whole"):
        imported(files)


def test_a_column_that_is_there_twice_is_refused(files):
    file = files / "csv" / "stays.csv"
    header, *rows = file.read_text().splitlines()
    file.write_text("\n".join([f'{header},"age"', *(f"{row},50" for row in rows)]) + "\n")
    with pytest.raises(UserError, match=r"stays\.csv has two columns called 'age'"):
        imported(files)


def test_large_identifiers_stay_exact_beside_empty_cells(files):
    large = 2**53 + 1
    changed(files, "stays", lambda t: t.assign(hadm_id=[str(large), *[""] * (len(t) - 1)]))
    found = imported(files).stays["hadm_id"]
    assert found[0] == large
    assert found[1:].isna().all()


def test_the_command(files, capsys):
    target = files / "cohort"
    assert main(["import", str(files / "csv"), str(target), "--like", str(files / "real")]) == 0
    assert capsys.readouterr().out == f"Cohort: {target}\n"
    other = str(files / "other")
    assert main(["import", str(files), other, "--like", str(files / "real")]) == 1
    assert "stays.csv does not exist" in capsys.readouterr().err
    assert main(["import", str(files / "csv"), other, "--like", str(files / "csv")]) == 1
    assert f"Error: --like {files / 'csv'} is no cohort" in capsys.readouterr().err


def test_no_cohort_is_replaced_unasked(files, capsys):
    def command(target, *more):
        given = ["import", str(files / "csv"), str(target), "--like", str(files / "real"), *more]
        return main(given), capsys.readouterr().err

    (files / "theirs" / "tokenizer.json").write_text("{}")
    status, said = command(files / "theirs")
    assert status == 1
    assert f"{files / 'theirs'} holds a cohort already. --overwrite" in said
    assert (files / "theirs" / "tokenizer.json").exists()
    assert command(files / "theirs", "--overwrite") == (0, "")
    # Not even when asked: what it is like would be gone.
    before = read_cohort(files / "real").n_patients
    for more in ([], ["--overwrite"]):
        status, said = command(files / "csv" / ".." / "real", *more)
        assert status == 1
        assert "is the cohort that the new one is to be like" in said
    assert read_cohort(files / "real").n_patients == before
