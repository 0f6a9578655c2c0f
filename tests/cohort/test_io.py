"""Writing and reading cohort folders."""

import json

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from pandas.testing import assert_frame_equal

from synehrgy.cohort import CohortWriter, is_cohort, read_cohort, read_schema
from synehrgy.errors import UserError
from tests.cohorts import SMALL_SCHEMA, cohorts, small_cohort, write

TABLES = ("stays", "codes", "measurements")


def assert_same_cohort(one, other):
    assert one.schema == other.schema
    for name in TABLES:
        left, right = one.table(name).copy(), other.table(name).copy()
        for column in left.columns.intersection(["system", "code", "variable", "level"]):
            # The order of categories says nothing.
            left[column], right[column] = (x[column].astype(object) for x in (left, right))
        assert_frame_equal(left, right)


def names(folder):
    return sorted(entry.name for entry in folder.iterdir())


@pytest.fixture
def folder(tmp_path):
    """A cohort folder that a test may damage."""
    path = tmp_path / "cohort"
    write(small_cohort(12), path)
    return path


@settings(max_examples=60, deadline=None)
@given(cohort=cohorts())
def test_any_cohort_comes_back(cohort, tmp_path_factory):
    path = tmp_path_factory.mktemp("cohorts") / "any"
    write(cohort, path)
    assert_same_cohort(read_cohort(path), cohort)


def test_cohort_without_rows_comes_back(tmp_path):
    empty = small_cohort(3).select(subjects=[])
    write(empty, tmp_path / "empty")
    back = read_cohort(tmp_path / "empty")
    assert [len(back.table(name)) for name in TABLES] == [0, 0, 0]
    assert back.counts() == dict.fromkeys(back.counts(), 0)


def test_columns_on_disk_are_those_of_the_contract(folder):
    found = {name: pq.read_schema(folder / f"{name}.parquet") for name in TABLES}
    int8, int32, int64 = pa.int8(), pa.int32(), pa.int64()
    number, text = pa.float64(), pa.string()
    assert list(zip(found["stays"].names, found["stays"].types, strict=True)) == [
        *(("subject_id", int64), ("stay_id", int64), ("hadm_id", int64)),
        *(("stay_index", int32), ("split", text)),
        *(("age", number), ("gender", text)),
        *((column, int8) for column in ("in_hospital_mortality", "septicemia", "shock")),
        ("los_hours", number),
    ]
    assert list(zip(found["codes"].names, found["codes"].types, strict=True)) == [
        *(("stay_id", int64), ("position", int32), ("system", text), ("code", text))
    ]
    assert list(zip(found["measurements"].names, found["measurements"].types, strict=True)) == [
        *(("stay_id", int64), ("hours", number)),
        *(("variable", text), ("value", number), ("level", text)),
    ]


def test_description_states_schema_counts_and_provenance(tmp_path):
    cohort = small_cohort(7)
    with CohortWriter(tmp_path / "c", cohort.schema, {"seed": 3}) as writer:
        writer.write(cohort.stays, cohort.codes, cohort.measurements)
    content = json.loads((tmp_path / "c" / "cohort.json").read_text())
    assert content["schema_version"] == 1
    assert content["counts"] == cohort.counts()
    assert content["counts"]["patients"] == 7
    assert content["provenance"] == {"seed": 3}
    assert [v["name"] for v in content["variables"]] == [v.name for v in cohort.schema.variables]
    assert read_schema(tmp_path / "c") == (cohort.schema, {"seed": 3})
    assert read_cohort(tmp_path / "c").provenance == {"seed": 3}


def test_identifiers_stay_whole_numbers_where_some_are_missing(tmp_path):
    cohort = small_cohort(3)
    stays = cohort.stays.copy()
    # Beyond 2^53 a float would lose digits.
    stays["subject_id"] += 2**62
    stays.loc[0, "hadm_id"] = pd.NA
    stays.loc[1, "hadm_id"] = 2**53 + 1
    with CohortWriter(tmp_path / "c", cohort.schema, {}) as writer:
        writer.write(stays)
    back = read_cohort(tmp_path / "c").stays
    assert back["hadm_id"].isna().tolist() == [True] + [False] * (len(back) - 1)
    assert back["hadm_id"][1] == 2**53 + 1
    assert back["subject_id"].tolist() == stays["subject_id"].tolist()


@pytest.mark.parametrize("size", [1, 5, 100])
def test_chunks_make_the_same_tables_as_one_write(tmp_path, size):
    cohort = small_cohort(14)
    write(cohort, tmp_path / "whole")
    subjects = cohort.stays["subject_id"].unique()
    with CohortWriter(tmp_path / "chunked", cohort.schema, {}) as writer:
        for i in range(0, len(subjects), size):
            part = cohort.select(subjects=subjects[i : i + size])
            writer.write(part.stays, part.codes, part.measurements)
    for name in TABLES:
        tables = [pq.read_table(tmp_path / p / f"{name}.parquet") for p in ("whole", "chunked")]
        assert tables[0].equals(tables[1])
    counts = [
        json.loads((tmp_path / p / "cohort.json").read_text())["counts"]
        for p in ("whole", "chunked")
    ]
    assert counts[0] == counts[1] == cohort.counts()


def test_events_may_come_after_all_stays_and_as_arrow(tmp_path):
    cohort = small_cohort(6)
    with CohortWriter(tmp_path / "c", cohort.schema, {}) as writer:
        writer.write(stays=pa.Table.from_pandas(cohort.stays, preserve_index=False))
        half = cohort.select(subjects=[10, 11, 12])
        rest = cohort.select(subjects=[13, 14, 15])
        for part in (half, rest):
            writer.write(codes=pa.Table.from_pandas(part.codes, preserve_index=False))
            writer.write(measurements=part.measurements)
    assert_same_cohort(read_cohort(tmp_path / "c"), cohort)


def test_columns_come_in_any_order_and_fitting_type(tmp_path):
    cohort = small_cohort(4)
    stays = cohort.stays[cohort.stays.columns[::-1]].astype({"shock": bool, "stay_index": "int64"})
    codes = cohort.codes.astype({"system": object, "code": object, "position": float})
    with CohortWriter(tmp_path / "c", cohort.schema, {}) as writer:
        writer.write(stays, codes, cohort.measurements)
    assert_same_cohort(read_cohort(tmp_path / "c"), cohort)


def test_a_chunk_must_hold_whole_stays(tmp_path):
    cohort = small_cohort(6)
    many = cohort.measurements["stay_id"].value_counts().index[0]
    at = int(np.flatnonzero(cohort.measurements["stay_id"] == many)[2])

    def split_a_stay():
        with CohortWriter(tmp_path / "c", cohort.schema, {}) as writer:
            writer.write(cohort.stays, measurements=cohort.measurements.iloc[:at])
            writer.write(measurements=cohort.measurements.iloc[at:])

    with pytest.raises(UserError, match="a chunk holds whole stays"):
        split_a_stay()
    assert names(tmp_path) == []


def test_patients_must_ascend_over_chunks(tmp_path):
    cohort = small_cohort(4)
    later, earlier = cohort.select(subjects=[12, 13]), cohort.select(subjects=[10, 11])

    def swapped():
        with CohortWriter(tmp_path / "c", cohort.schema, {}) as writer:
            writer.write(later.stays)
            writer.write(earlier.stays)

    with pytest.raises(UserError, match="10 comes after 13"):
        swapped()
    assert names(tmp_path) == []


def test_a_stay_number_is_unique_over_chunks(tmp_path):
    cohort = small_cohort(2)
    one, other = (cohort.select(subjects=[s]).stays for s in (10, 11))
    other = other.assign(stay_id=one["stay_id"].iloc[0] + np.arange(len(other)))

    def repeated():
        with CohortWriter(tmp_path / "c", cohort.schema, {}) as writer:
            writer.write(one)
            writer.write(other)

    with pytest.raises(UserError, match="is not unique"):
        repeated()


def test_codes_need_their_stays_first(tmp_path):
    cohort = small_cohort(2)

    def too_early():
        with CohortWriter(tmp_path / "c", cohort.schema, {}) as writer:
            writer.write(codes=cohort.codes)

    with pytest.raises(UserError, match=r"codes\.stay_id is not a stay of this cohort"):
        too_early()


@pytest.mark.parametrize("error", [RuntimeError, KeyboardInterrupt])
def test_failure_leaves_the_earlier_cohort_and_nothing_else(folder, error):
    before = {name: (folder / name).read_bytes() for name in names(folder)}

    def fail():
        cohort = small_cohort(5, seed=1)
        with CohortWriter(folder, cohort.schema, {}) as writer:
            writer.write(cohort.stays)
            raise error

    with pytest.raises(error):
        fail()
    assert {name: (folder / name).read_bytes() for name in names(folder)} == before
    assert names(folder.parent) == [folder.name]


def test_failure_at_the_very_end_leaves_nothing(tmp_path):
    cohort = small_cohort(5)

    def complete(path):
        assert is_cohort(path)
        raise RuntimeError

    for more in ({"provenance": {}, "complete": complete}, {"provenance": {"x": float("nan")}}):
        with (
            pytest.raises((RuntimeError, ValueError)),
            CohortWriter(tmp_path / "c", cohort.schema, **more) as writer,
        ):
            writer.write(cohort.stays)
        assert names(tmp_path) == []


def test_files_added_at_the_end_appear_with_the_cohort(tmp_path):
    cohort = small_cohort(5)

    def complete(path):
        (path / "tokenizer.json").write_text("{}")

    with CohortWriter(tmp_path / "c", cohort.schema, {}, complete) as writer:
        writer.write(cohort.stays)
    assert (tmp_path / "c" / "tokenizer.json").exists()


def test_earlier_cohort_is_replaced(folder):
    other = small_cohort(5, seed=1)
    (folder / "tokens").mkdir()
    write(other, folder)
    assert_same_cohort(read_cohort(folder), other)
    # Tokens of the cohort that was there before must not survive it.
    files = ["codes.parquet", "cohort.json", "measurements.parquet", "stays.parquet"]
    assert names(folder) == files


def test_foreign_folder_is_not_replaced(tmp_path):
    (tmp_path / "thesis.txt").write_text("three years of work")
    with pytest.raises(UserError, match="not written by this program"):
        write(small_cohort(2), tmp_path)
    assert names(tmp_path) == ["thesis.txt"]


def test_what_is_no_cohort_is_refused(tmp_path):
    assert not is_cohort(tmp_path)
    for path in (tmp_path, tmp_path / "gone"):
        with pytest.raises(UserError, match=r"is not a cohort: it has no cohort\.json.*path\.$"):
            read_cohort(path)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("{", "is damaged"),
        ("[]", "is not the description of a cohort"),
        ('"text"', "is not the description of a cohort"),
        ("{}", "is not the description of a cohort"),
        ('{"schema_version": "1"}', "is not the description of a cohort"),
        ('{"schema_version": 2}', "Update synehrgy"),
        ('{"schema_version": 1}', "declaration"),
    ],
)
def test_damaged_or_newer_description_is_refused(folder, content, message):
    (folder / "cohort.json").write_text(content)
    with pytest.raises(UserError, match=message) as error:
        read_cohort(folder)
    assert str(folder / "cohort.json") in str(error.value)


@pytest.mark.parametrize("name", TABLES)
def test_missing_table_is_named(folder, name):
    (folder / f"{name}.parquet").unlink()
    with pytest.raises(UserError, match=rf"{name}\.parquet does not exist"):
        read_cohort(folder)


@pytest.mark.parametrize("name", TABLES)
@pytest.mark.parametrize("damage", ["cut", "empty", "text"])
def test_damaged_table_is_named(folder, name, damage):
    file = folder / f"{name}.parquet"
    whole = file.read_bytes()
    file.write_bytes({"cut": whole[: len(whole) // 2], "empty": b"", "text": b"a,b\n"}[damage])
    with pytest.raises(UserError, match=rf"{name}\.parquet cannot be read as Parquet"):
        read_cohort(folder)


def rewrite(folder, name, change):
    """Change a table of a cohort folder behind its back."""
    file = folder / f"{name}.parquet"
    pq.write_table(change(pq.read_table(file)), file)


@pytest.mark.parametrize(
    ("name", "change", "message"),
    [
        ("stays", lambda t: t.drop_columns("age"), "column 'age' is missing"),
        ("codes", lambda t: t.drop_columns("position"), "column 'position' is missing"),
        (
            "stays",
            lambda t: t.append_column("gendr", t["gender"]),
            "column 'gendr' is not declared in the schema. Did you mean 'gender'?",
        ),
        (
            "codes",
            lambda t: t.set_column(3, "code", pa.array(range(len(t)))),
            "column 'code' must be",
        ),
        (
            "stays",
            lambda t: t.set_column(0, "subject_id", t["subject_id"].cast(pa.string())),
            "column 'subject_id' must be int64, is string",
        ),
        (
            "stays",
            lambda t: t.set_column(1, "stay_id", pa.array(np.arange(len(t)) + 0.5)),
            "does not have its declared type",
        ),
        (
            "stays",
            lambda t: t.set_column(9, "shock", pa.array(np.full(len(t), 300))),
            "does not have its declared type",
        ),
    ],
)
def test_wrong_columns_are_refused_with_table_and_column(folder, name, change, message):
    rewrite(folder, name, change)
    with pytest.raises(UserError) as error:
        read_cohort(folder)
    assert f"{name}.parquet" in str(error.value)
    assert message in str(error.value)


def test_rules_are_checked_when_reading_too(folder):
    rewrite(folder, "measurements", lambda t: t.take(list(range(len(t)))[::-1]))
    with pytest.raises(UserError, match=r"measurements\.") as error:
        read_cohort(folder)
    assert str(error.value).startswith(f"{folder}: ")


def test_dictionaries_and_large_text_of_other_writers_are_read(folder):
    expected = read_cohort(folder)

    def as_others_write(table):
        fields = [
            pa.field(f.name, pa.large_string() if f.type == pa.string() else f.type)
            for f in table.schema
        ]
        table = table.cast(pa.schema(fields))
        i = table.schema.get_field_index("code")
        return table.set_column(i, "code", table["code"].dictionary_encode())

    rewrite(folder, "codes", as_others_write)
    assert_same_cohort(read_cohort(folder), expected)


def test_schema_of_the_small_cohort_is_the_one_written(folder):
    assert read_schema(folder)[0] == SMALL_SCHEMA


def test_text_of_newer_arrow_kinds_is_text(tmp_path):
    cohort = small_cohort(5)
    write(cohort, tmp_path / "cohort")
    file = tmp_path / "cohort" / "stays.parquet"
    table = pq.read_table(file)
    for kind in (pa.large_string(), pa.string_view()):
        fields = [f.with_type(kind) if pa.types.is_string(f.type) else f for f in table.schema]
        pq.write_table(table.cast(pa.schema(fields)), file)
        assert_same_cohort(read_cohort(tmp_path / "cohort"), cohort)
