"""Each rule of a cohort is enforced, and the error names table, column and rows."""

import pytest

from synehrgy.cohort import CodeSystem, CohortWriter, Covariate, Label, Schema, Variable
from synehrgy.cohort.validate import check_codes, check_measurements, check_stays
from synehrgy.errors import UserError
from tests.cohorts import build, small_cohort

SCHEMA = Schema(
    name="tiny",
    source="test",
    covariates=[
        Covariate("age", "continuous"),
        Covariate("gender", "categorical", levels=["F", "M"]),
    ],
    labels=[Label("died", "Died", "outcome")],
    variables=[
        Variable("pH", "continuous"),
        Variable("Heart Rate", "continuous"),
        Variable("rhythm", "categorical", levels=["sinus", "other"]),
    ],
    code_systems=[CodeSystem("icd9", "ICD-9")],
)
STAYS = [
    [1, 10, None, 0, "train", 60.0, "F", 0, 24.0],
    [1, 11, 7, 1, "train", 61.0, "F", 1, None],
    [2, 5, None, 0, "test", None, None, 0, 0.0],
]
CODES = [[10, 0, "icd9", "0389"], [10, 3, "icd9", "4019"], [5, 0, "icd9", "0389"]]
MEASUREMENTS = [
    [10, 0.0, "Heart Rate", 80.0, None],
    [10, 0.0, "pH", 7.4, None],
    [10, 0.0, "rhythm", None, "sinus"],
    [10, 1.5, "pH", 7.3, None],
    [5, 0.5, "pH", -1.0, None],
]
STAY_COLUMNS = [
    *("subject_id", "stay_id", "hadm_id", "stay_index", "split"),
    *("age", "gender", "died", "los_hours"),
]
CODE_COLUMNS = ["stay_id", "position", "system", "code"]
MEASUREMENT_COLUMNS = ["stay_id", "hours", "variable", "value", "level"]
NAN, INF = float("nan"), float("inf")


def changed(rows, columns, changes):
    """A copy of rows with cells replaced; changes are (row, column, value)."""
    rows = [list(row) for row in rows]
    for row, column, value in changes:
        rows[row][columns.index(column)] = value
    return rows


def write_rows(path, stays=STAYS, codes=CODES, measurements=MEASUREMENTS):
    cohort = build(SCHEMA, stays, codes, measurements)
    with CohortWriter(path, SCHEMA, {}) as writer:
        writer.write(cohort.stays, cohort.codes, cohort.measurements)


def message_of(path, **rows):
    with pytest.raises(UserError) as error:
        write_rows(path / "cohort", **rows)
    assert list(path.iterdir()) == []
    return str(error.value)


def test_the_rows_below_keep_every_rule(tmp_path):
    write_rows(tmp_path / "cohort")
    assert (tmp_path / "cohort").is_dir()


@pytest.mark.parametrize(
    ("changes", "column", "reason", "row"),
    [
        ([(2, "subject_id", None)], "subject_id", "is empty", 2),
        ([(1, "stay_id", None)], "stay_id", "is empty", 1),
        ([(0, "stay_index", None)], "stay_index", "is empty", 0),
        ([(2, "stay_id", 10)], "stay_id", "is not unique", 2),
        ([(2, "subject_id", 0)], "subject_id", "is not in ascending order", 2),
        ([(1, "stay_index", 2)], "stay_index", "does not count 0, 1, ...", 1),
        ([(0, "stay_index", 1), (1, "stay_index", 0)], "stay_index", "does not count", 0),
        ([(2, "split", "valid")], "split", "is none of train, val, test", 2),
        ([(1, "split", "val")], "split", "differs from", 1),
        ([(1, "split", None)], "split", "differs from", 1),
        ([(0, "split", None)], "split", "differs from", 1),
        ([(0, "gender", "male")], "gender", "is not a declared level (F, M)", 0),
        ([(1, "age", INF)], "age", "is infinite", 1),
        ([(2, "died", 2)], "died", "is not 0 or 1", 2),
        ([(2, "died", None)], "died", "is not 0 or 1", 2),
        ([(0, "los_hours", -0.1)], "los_hours", "is not a duration", 0),
        ([(0, "los_hours", INF)], "los_hours", "is not a duration", 0),
    ],
)
def test_rules_of_stays(tmp_path, changes, column, reason, row):
    message = message_of(tmp_path, stays=changed(STAYS, STAY_COLUMNS, changes), codes=[])
    assert message.startswith(f"stays.{column} {reason}")
    assert "in 1 row(s)" in message or column == "stay_index"
    assert f"row {row}: " in message
    assert f"{column}=" in message


@pytest.mark.parametrize(
    ("changes", "column", "reason", "row"),
    [
        ([(2, "stay_id", 99)], "stay_id", "is not a stay of this cohort", 2),
        ([(2, "stay_id", None)], "stay_id", "is not a stay of this cohort", 2),
        ([(1, "system", "icd10")], "system", "is not a declared system", 1),
        ([(1, "system", None)], "system", "is not a declared system", 1),
        ([(0, "code", "")], "code", "is empty", 0),
        ([(0, "code", None)], "code", "is empty", 0),
        ([(0, "position", None)], "position", "is empty", 0),
        ([(1, "position", 0)], "position", "does not increase within the stay", 1),
        ([(0, "position", 4)], "position", "does not increase within the stay", 1),
        ([(0, "stay_id", 5)], "stay_id", "is not in the order of the stays table", 1),
    ],
)
def test_rules_of_codes(tmp_path, changes, column, reason, row):
    message = message_of(tmp_path, codes=changed(CODES, CODE_COLUMNS, changes))
    assert message.startswith(f"codes.{column} {reason}, in 1 row(s)")
    assert f"row {row}: stay_id=" in message


@pytest.mark.parametrize(
    ("changes", "column", "reason", "row"),
    [
        ([(4, "stay_id", 99)], "stay_id", "is not a stay of this cohort", 4),
        ([(0, "hours", -0.5)], "hours", "is not a time since admission", 0),
        ([(4, "hours", NAN)], "hours", "is not a time since admission", 4),
        ([(4, "hours", INF)], "hours", "is not a time since admission", 4),
        ([(1, "variable", "PH")], "variable", "is not a declared variable", 1),
        ([(1, "variable", None)], "variable", "is not a declared variable", 1),
        ([(3, "value", None)], "value", "must be a finite number", 3),
        ([(3, "value", INF)], "value", "must be a finite number", 3),
        ([(2, "value", 1.0)], "value", "must be a finite number", 2),
        ([(3, "level", "sinus")], "level", "must be set for a categorical variable", 3),
        ([(2, "level", None)], "level", "must be set for a categorical variable", 2),
        ([(2, "level", "Sinus")], "level", "is not a declared level of 'rhythm'", 2),
        ([(0, "stay_id", 5)], "stay_id", "is not in the order of the stays table", 1),
        ([(0, "hours", 0.5)], "hours", "runs backwards within the stay", 1),
        ([(0, "variable", "pH")], "variable", "is duplicated at one time", 1),
        (
            [(0, "variable", "pH"), (1, "variable", "Heart Rate")],
            *("variable", "is not in alphabetical order", 1),
        ),
    ],
)
def test_rules_of_measurements(tmp_path, changes, column, reason, row):
    rows = changed(MEASUREMENTS, MEASUREMENT_COLUMNS, changes)
    message = message_of(tmp_path, measurements=rows)
    assert message.startswith(f"measurements.{column} {reason}")
    assert "in 1 row(s)" in message
    assert f"row {row}: stay_id=" in message


def test_error_counts_all_rows_and_shows_the_first_three(tmp_path):
    stays = [[subject, subject, None, 0, None, 50.0, "X", 0, 1.0] for subject in range(2_000)]
    message = message_of(tmp_path, stays=stays, codes=[], measurements=[])
    assert "in 2,000 row(s)" in message
    assert [line.split(":")[0].strip() for line in message.splitlines()[1:]] == [
        *("row 0", "row 1", "row 2")
    ]


def test_patients_may_ascend_by_one_beyond_what_floats_can_count(tmp_path):
    stays = changed(
        STAYS,
        STAY_COLUMNS,
        [(0, "subject_id", 2**53), (1, "subject_id", 2**53), (2, "subject_id", 2**53 + 1)],
    )
    write_rows(tmp_path / "cohort", stays=stays)
    swapped = changed(
        STAYS,
        STAY_COLUMNS,
        [(0, "subject_id", 2**53 + 1), (1, "subject_id", 2**53 + 1), (2, "subject_id", 2**53)],
    )
    with pytest.raises(UserError, match="is not in ascending order"):
        write_rows(tmp_path / "swapped", stays=swapped)


def test_missing_covariates_splits_and_lengths_are_no_fault():
    cohort = build(SCHEMA, changed(STAYS, STAY_COLUMNS, [(2, "split", None)]), CODES, MEASUREMENTS)
    check_stays(SCHEMA, cohort.stays)


def test_tables_without_rows_are_no_fault():
    empty = small_cohort(2).select(subjects=[])
    ranks = empty.stays["stay_id"].rename(None)
    check_stays(empty.schema, empty.stays)
    check_codes(empty.schema, ranks, empty.codes)
    check_measurements(empty.schema, ranks, empty.measurements)
    assert empty.n_patients == 0
