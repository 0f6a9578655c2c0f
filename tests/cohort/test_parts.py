"""A cohort in parts of whole patients."""

import pandas as pd
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pandas.testing import assert_frame_equal

from synehrgy.cohort import read_cohort, read_parts
from synehrgy.errors import UserError
from tests.cohorts import cohorts, small_cohort, write

TABLES = ("stays", "codes", "measurements")


def assert_parts_make_up(parts, cohort):
    for name in TABLES:
        found = pd.concat([part.table(name) for part in parts], ignore_index=True)
        expected = cohort.table(name)
        assert_frame_equal(found.astype(object), expected.astype(object), check_dtype=False)


@pytest.mark.parametrize("n_patients", [1, 7, 20, 100])
def test_parts_have_whole_patients_and_make_up_the_cohort(tmp_path, n_patients):
    write(small_cohort(20), tmp_path)
    parts = list(read_parts(tmp_path, n_patients))
    sizes = [part.n_patients for part in parts]
    assert sizes == [n_patients] * (20 // n_patients) + [20 % n_patients] * (20 % n_patients > 0)
    assert_parts_make_up(parts, read_cohort(tmp_path))


@settings(max_examples=25, deadline=None)
@given(cohort=cohorts(), n_patients=st.integers(1, 3))
def test_parts_of_any_cohort(cohort, n_patients, tmp_path_factory):
    path = tmp_path_factory.mktemp("parts")
    write(cohort, path)
    assert_parts_make_up(list(read_parts(path, n_patients)), cohort)


def test_rows_may_be_stored_in_any_groups(tmp_path):
    write(small_cohort(20), tmp_path)
    for name in TABLES:
        table = pq.read_table(tmp_path / f"{name}.parquet")
        pq.write_table(table, tmp_path / f"{name}.parquet", row_group_size=13)
    assert_parts_make_up(list(read_parts(tmp_path, 3)), read_cohort(tmp_path))


def test_a_cohort_without_patients_has_no_parts(tmp_path):
    write(small_cohort(2).select(subjects=[]), tmp_path)
    assert list(read_parts(tmp_path)) == []


def reversed_rows(table):
    return table.take(list(range(len(table)))[::-1])


def of_unknown_stay(table):
    ids = table["stay_id"].to_pylist()
    return table.set_column(0, "stay_id", [[*ids[:-1], 99999]])


def negative_hours(table):
    i = table.column_names.index("hours")
    return table.set_column(i, "hours", [[-1.0, *table["hours"].to_pylist()[1:]]])


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (reversed_rows, "not in the order of the stays table"),
        (of_unknown_stay, "99999 is not a stay of this cohort"),
        (negative_hours, "is not a time since admission"),
    ],
)
def test_rows_that_break_a_rule_are_refused(tmp_path, spoil, message):
    write(small_cohort(5), tmp_path)
    file = tmp_path / "measurements.parquet"
    pq.write_table(spoil(pq.read_table(file)), file)
    with pytest.raises(UserError, match=message):
        list(read_parts(tmp_path, 2))
