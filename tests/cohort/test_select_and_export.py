"""Parts of a cohort, and CSV files of it."""

import pandas as pd
import pytest
from hypothesis import given, settings
from pandas.testing import assert_frame_equal

from synehrgy.cohort import CodeSystem, Schema, export_csv, read_cohort
from synehrgy.errors import UserError
from tests.cohorts import build, cohorts, small_cohort, write

TABLES = ("stays", "codes", "measurements")


@pytest.fixture(scope="module")
def cohort():
    return small_cohort(20)


@pytest.mark.parametrize("split", ["train", "val", "test"])
def test_a_split_has_its_stays_and_their_rows_in_order(cohort, split):
    part = cohort.select(split=split)
    assert set(part.stays["split"]) == {split}
    expected = cohort.stays.loc[cohort.stays["split"] == split, "stay_id"]
    assert part.stays["stay_id"].tolist() == expected.tolist()
    for name in ("codes", "measurements"):
        whole = cohort.table(name)
        rows = whole[whole["stay_id"].isin(expected)].reset_index(drop=True)
        assert_frame_equal(part.table(name), rows)


def test_splits_make_up_the_cohort(cohort):
    counts = [cohort.select(split=split).counts() for split in ("train", "val", "test")]
    assert {key: sum(c[key] for c in counts) for key in counts[0]} == cohort.counts()


def test_subjects_and_split_together(cohort):
    # Of the subjects 10 and 13 only 10 is in the train split.
    part = cohort.select(split="train", subjects=[13, 10])
    assert part.stays["subject_id"].unique().tolist() == [10]
    assert cohort.select(subjects={13, 10}).n_patients == 2
    assert cohort.select(subjects=cohort.stays["subject_id"].to_numpy()).n_patients == 20


def test_selecting_all_changes_nothing(cohort):
    part = cohort.select()
    for name in TABLES:
        assert_frame_equal(part.table(name), cohort.table(name))


def test_a_split_that_no_stay_has_is_empty():
    cohort = build(Schema("s", "test"), [[1, 1, None, 0, None, None]], [], [])
    assert len(cohort.select(split="train").stays) == 0


def test_unknown_split_and_subjects_are_refused(cohort):
    with pytest.raises(UserError, match=r"Unknown split 'tests'\. Did you mean 'test'\?"):
        cohort.select(split="tests")
    with pytest.raises(UserError, match=r"no subject 98 \(2 unknown of 3 asked for\)"):
        cohort.select(subjects=[99, 10, 98])


def read_csv(file):
    # As documented, only empty cells are missing. All as text, because not every version of pandas
    # reads numbers to their last digit.
    return pd.read_csv(file, dtype=str, keep_default_na=False, na_values=[""])


def assert_csv_equals(folder, cohort):
    for name in TABLES:
        expected, found = cohort.table(name), read_csv(folder / f"{name}.csv")
        assert found.columns.tolist() == expected.columns.tolist()
        assert len(found) == len(expected)
        for column in expected:
            assert found[column].isna().tolist() == expected[column].isna().tolist(), column
            values = expected[column].dropna().tolist()
            texts = found[column].dropna().tolist()
            assert [type(v)(t) for v, t in zip(values, texts, strict=True)] == values, column


def test_csv_has_the_tables_again(cohort, tmp_path):
    write(cohort, tmp_path / "c")
    files = export_csv(tmp_path / "c", tmp_path / "csv")
    assert files == [tmp_path / "csv" / f"{name}.csv" for name in TABLES]
    assert_csv_equals(tmp_path / "csv", read_cohort(tmp_path / "c"))


@settings(max_examples=25, deadline=None)
@given(cohort=cohorts().filter(lambda c: not c.schema.covariates))
def test_csv_of_any_cohort_has_its_tables(cohort, tmp_path_factory):
    path = tmp_path_factory.mktemp("export")
    write(cohort, path / "c")
    export_csv(path / "c", path / "csv")
    assert_csv_equals(path / "csv", cohort)


def test_codes_keep_their_zeros_and_awkward_text_survives(tmp_path):
    codes = ["0389", "4019", "V5861", "E8788", "1e5", "NA", "null", "a,b", 'say "x"', "é", "two\nx"]
    schema = Schema("s", "test", code_systems=[CodeSystem("icd9", "ICD-9")])
    rows = [[1, i, "icd9", code] for i, code in enumerate(codes)]
    write(build(schema, [[1, 1, None, 0, None, None]], rows, []), tmp_path / "c")
    export_csv(tmp_path / "c", tmp_path / "csv")
    assert read_csv(tmp_path / "csv" / "codes.csv")["code"].tolist() == codes
    assert '"0389"' in (tmp_path / "csv" / "codes.csv").read_text(encoding="utf-8")


def test_tables_without_rows_have_their_header(tmp_path):
    write(small_cohort(2).select(subjects=[]), tmp_path / "c")
    export_csv(tmp_path / "c", tmp_path / "csv")
    assert (tmp_path / "csv" / "codes.csv").read_text() == '"stay_id","position","system","code"\n'


def test_earlier_csv_is_replaced_but_nothing_else(cohort, tmp_path):
    write(cohort, tmp_path / "c")
    export_csv(tmp_path / "c", tmp_path / "csv")
    (tmp_path / "csv" / "codes.csv").unlink()
    export_csv(tmp_path / "c", tmp_path / "csv")
    assert (tmp_path / "csv" / "codes.csv").exists()
    (tmp_path / "csv" / "notes.txt").write_text("mine")
    with pytest.raises(UserError, match="not written by this program"):
        export_csv(tmp_path / "c", tmp_path / "csv")


def test_export_without_a_cohort_is_refused(tmp_path):
    with pytest.raises(UserError, match="is not a cohort"):
        export_csv(tmp_path, tmp_path / "csv")
    assert not (tmp_path / "csv").exists()


@pytest.mark.parametrize("damage", ["missing", "cut"])
def test_export_of_a_damaged_cohort_is_refused_and_leaves_nothing(cohort, tmp_path, damage):
    write(cohort, tmp_path / "c")
    file = tmp_path / "c" / "measurements.parquet"
    if damage == "missing":
        file.unlink()
    else:
        file.write_bytes(file.read_bytes()[:100])
    with pytest.raises(UserError, match=r"measurements\.parquet"):
        export_csv(tmp_path / "c", tmp_path / "csv")
    assert [entry.name for entry in tmp_path.iterdir()] == ["c"]


def test_a_part_has_the_same_stays_without_what_is_left_out():
    cohort = small_cohort(20)
    without = cohort.part(codes=False, series=False)
    assert without.stays is cohort.stays
    assert not without.schema.code_systems
    assert not without.schema.variables
    assert not len(without.codes)
    assert not len(without.measurements)
    assert [label.system for label in without.schema.labels] == [None] * 3
    first = cohort.part(stays=False)
    assert len(first.stays) == cohort.n_patients < len(cohort.stays)
    assert set(first.codes["stay_id"]) <= set(first.stays["stay_id"])
    assert set(first.measurements["stay_id"]) == set(first.stays["stay_id"])
    assert first.schema == cohort.schema
