"""``python -m synehrgy.cohort check``: all that is wrong, what is in it, and what looks odd."""

import json
from dataclasses import replace
from pathlib import Path

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings

from synehrgy.cohort import check as checking
from synehrgy.cohort import check_cohort, read_cohort
from synehrgy.cohort.__main__ import main
from synehrgy.cohort.check import find_problems
from synehrgy.cohort.describe import describe
from synehrgy.cohort.hints import hints
from synehrgy.errors import UserError
from tests.cohorts import cohorts, small_cohort, write
from tests.sources.hospital import write_hospital


@pytest.fixture
def folder(tmp_path):
    write(small_cohort(40), tmp_path / "cohort")
    return tmp_path / "cohort"


def changed(folder: Path, name: str, change) -> None:
    """Rewrite a table as somebody else's program might."""
    file = folder / f"{name}.parquet"
    table = pq.read_table(file)
    frame = change(table.to_pandas())
    pq.write_table(pa.Table.from_pandas(frame, preserve_index=False), file)


def with_cells(column, cells):
    def change(frame):
        for row, value in cells.items():
            frame.loc[row, column] = value
        return frame

    return change


@settings(max_examples=10, suppress_health_check=list(HealthCheck))
@given(cohort=cohorts())
def test_nothing_is_wrong_with_a_cohort_that_was_written(cohort, tmp_path_factory):
    path = tmp_path_factory.mktemp("any") / "cohort"
    write(cohort, path)
    assert find_problems(path, progress=False) == []
    about = describe(path)
    assert about.n_points == cohort.counts()["time_points"]
    assert about.codes["n"].sum() == len(cohort.codes)
    assert about.numbers["n"].sum() + about.levels["n"].sum() == len(cohort.measurements)
    assert check_cohort(path, progress=False).is_right


def test_every_problem_is_told_with_its_file_and_rows(folder, monkeypatch):
    changed(folder, "stays", with_cells("gender", {3: "X", 5: "Y", 9: "X", 20: "X"}))
    changed(folder, "stays", with_cells("shock", {0: 2}))
    changed(folder, "codes", with_cells("system", {7: "icd11"}))
    changed(folder, "codes", with_cells("stay_id", {11: 1}))
    changed(folder, "measurements", with_cells("hours", {30: -1.0, 900: float("inf")}))
    changed(folder, "measurements", with_cells("variable", {31: "Heartrate"}))
    problems = find_problems(folder, progress=False)
    text = "\n".join(problems)
    for says in (
        f"{folder}/stays.parquet: gender is not a declared level (F, M), in 4 rows:\n    row 3: ",
        "gender=X\n    row 5: ",
        f"{folder}/stays.parquet: shock is not 0 or 1, in 1 row:\n    row 0: subject_id=10",
        f"{folder}/codes.parquet: system is not a declared system, in 1 row:\n    row 7: ",
        f"{folder}/codes.parquet: stay_id is not a stay of this cohort, in 1 row:\n    row 11: ",
        f"{folder}/measurements.parquet: hours is not a time since admission, in 2 rows:",
        "    row 900: stay_id=",
        f"{folder}/measurements.parquet: variable is not a declared variable, in 1 row:",
    ):
        assert says in text
    assert "row 20" not in text
    # The same however many rows are looked at at a time.
    monkeypatch.setattr(checking, "BATCH_ROWS", 8)
    assert sorted(find_problems(folder, progress=False)) == sorted(problems)
    with pytest.raises(UserError, match="gender is not a declared level"):
        read_cohort(folder)


def test_rules_about_neighbours_hold_across_batches(folder, monkeypatch):
    monkeypatch.setattr(checking, "BATCH_ROWS", 10)
    changed(folder, "measurements", lambda f: pd.concat([f[:10], f[9:]], ignore_index=True))
    problems = find_problems(folder, progress=False)
    assert "variable is duplicated at one time of a stay, in 1 row:\n    row 10: " in problems[0]
    assert "cohort.json: it counts" in problems[1]
    assert len(problems) == 2


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (lambda f: f.rename(columns={"age": "years"}), ["'age' is missing", "'years' is not decl"]),
        (lambda f: f.assign(age=f["age"].astype(str)), ["column 'age' must be double, is "]),
        (lambda f: f.assign(shock=0.5), ["a column does not have its declared type"]),
        (lambda f: f[:0], ["there is no stay"]),
        (lambda f: f.assign(stay_id=200), ["stay_id is not unique, in"]),
        (lambda f: f.assign(subject_id=None), ["subject_id is empty, in"]),
    ],
)
def test_tables_of_another_form(folder, change, says):
    changed(folder, "stays", change)
    problems = "\n".join(find_problems(folder, progress=False))
    for one in says:
        assert one in problems


def test_files_that_are_missing_or_damaged(folder):
    (folder / "codes.parquet").unlink()
    (folder / "measurements.parquet").write_bytes(b"PAR1")
    problems = find_problems(folder, progress=False)
    assert f"{folder}/codes.parquet does not exist" in problems[0]
    assert f"{folder}/measurements.parquet cannot be read" in problems[1]


def test_what_is_in_it(folder):
    checked = check_cohort(folder, progress=False)
    cohort = read_cohort(folder)
    n = len(cohort.stays)
    assert checked.is_right
    for says in (
        "What is wrong\n  nothing",
        f"small (test): 40 patients, {n} stays, at most 3 of a patient",
        "train 24 (60.0%), val 8 (20.0%), test 8 (20.0%)",
        f"septicemia             {cohort.stays['septicemia'].sum()} ",
        "Heart Rate  bpm     ",
    ):
        assert says in checked.text
    rates = cohort.measurements.query("variable == 'Heart Rate'")
    row = describe(folder).numbers.loc["Heart Rate"]
    assert (row["n"], row["lowest"]) == (len(rates), rates["value"].min())
    assert row["median"] == pytest.approx(rates["value"].median(), rel=0.01)


def test_what_looks_odd(tmp_path):
    cohort = small_cohort(60)
    stays, measured = cohort.stays, cohort.measurements
    stays.loc[stays["split"] == "val", "split"] = "train"
    stays["shock"] = 0
    stays["gender"] = "F"
    stays.loc[3:8, "los_hours"] = None
    stays["los_hours"] = stays["los_hours"].where(stays.index != 20, 0.1)
    rates = measured.index[measured["variable"] == "Heart Rate"]
    measured.loc[rates[:4], "value"] = -999.0
    measured.loc[measured.index[measured["variable"] == "Lactate"][5], "value"] = 5000.0
    codes = cohort.codes.astype({"code": object, "system": object})
    codes["code"] = codes["code"].replace("4280", "428.0")
    changed = replace(cohort, codes=codes)
    write(changed, tmp_path / "odd")
    limits = {"pH": [(1.0, 14.0)], "Heart Rate": [(0.0, 350.0)]}
    said = "\n".join(hints(describe(tmp_path / "odd", limits)))
    for says in (
        "No patient is in the split val.",
        "6 stays have no length, the others have one.",
        "later than the end of their stay",
        "The covariate gender is F wherever it is known.",
        "The covariate gender never is M.",
        "Only 0 stays have the label shock.",
        "1 different codes of icd9_diagnosis have a point",
        "4 values of Heart Rate (bpm) (",
        "Heart Rate (bpm) is -999 in 4 rows. Does this mean that there is no value?",
        "Lactate (mmol/L) goes to 5000, though half of its values are between",
    ):
        assert says in said
    assert "pH" not in said


def test_a_figure_of_next_to_nothing(tmp_path):
    cohort = small_cohort(10).part(codes=False, series=False)
    cohort.stays["age"] = None
    write(cohort, tmp_path / "cohort")
    checked = check_cohort(tmp_path / "cohort", figure=tmp_path / "f.png", progress=False)
    assert "codes: none" in checked.text
    assert "The covariate age is empty in all stays." in checked.text
    assert (tmp_path / "f.png").stat().st_size > 10_000


def test_synthetic_cohorts_have_no_splits(tmp_path):
    cohort = small_cohort(20)
    cohort.stays["split"] = None
    write(cohort, tmp_path / "synthetic")
    assert "No patient has a split" in hints(describe(tmp_path / "synthetic"))[0]


def test_the_command(folder, tmp_path, capsys):
    assert main(["check", str(folder)]) == 0
    said = capsys.readouterr().out
    assert f"Figure: {folder / 'check.png'}" in said
    assert f"Next: python preprocess.py data=cohort data.path={folder}" in said
    assert (folder / "check.png").read_bytes().startswith(b"\x89PNG")
    # The figure does not stand in the way of anything.
    assert read_cohort(folder).n_patients == 40
    (folder / "check.png").unlink()
    changed(folder, "stays", with_cells("split", {0: "none"}))
    assert main(["check", str(folder), "--figure", str(tmp_path / "f.png")]) == 1
    said = capsys.readouterr().out
    assert "split is none of train, val, test" in said
    assert not (tmp_path / "f.png").exists()
    (folder / "cohort.json").write_text(json.dumps({"schema_version": 99}))
    assert main(["check", str(folder), "--no-figure"]) == 1
    assert "schema version 99" in capsys.readouterr().err
    assert main(["check", str(tmp_path / "nowhere")]) == 1
    assert "is not a cohort" in capsys.readouterr().err


def test_the_next_command(tmp_path, capsys):
    cohort = small_cohort(20)
    path = tmp_path / "my cohort"
    write(cohort, path)
    assert main(["check", str(path), "--no-figure"]) == 0
    said = capsys.readouterr().out
    assert f"Next: python preprocess.py data=cohort 'data.path={path}'\n" in said
    # What cannot be trained on has none.
    for split in (None, "test"):
        cohort.stays["split"] = split
        write(cohort, path)
        assert main(["check", str(path), "--no-figure"]) == 0
        assert "Next" not in capsys.readouterr().out


def test_codes_of_a_label_that_are_none(folder, capsys):
    content = json.loads((folder / "cohort.json").read_text())
    content["labels"][0]["also"] = None
    (folder / "cohort.json").write_text(json.dumps(content))
    assert main(["check", str(folder), "--no-figure"]) == 1
    said = capsys.readouterr().err
    name = content["labels"][0]["column"]
    assert f"Error: {folder / 'cohort.json'}: label {name!r}: also must be" in said


def test_the_command_on_tables(tmp_path, capsys):
    folder = write_hospital(tmp_path / "raw")
    assert main(["check", str(folder)]) == 0
    said = capsys.readouterr().out
    for says in (
        "rows read     stays.csv 4, codes.csv 5, vitals.csv 6",
        "emergency (tables): 3 patients, 4 stays, at most 2 of a patient",
        "What looks odd",
        f"Next: python preprocess.py data=tables data.raw_dir={folder}",
    ):
        assert says in said
    names = ["check.png", "codes.csv", "stays.csv", "tables.yaml", "vitals.csv"]
    assert sorted(path.name for path in folder.iterdir()) == names
    (folder / "tables.yaml").rename(tmp_path / "mine.yaml")
    assert main(["check", str(folder), "--no-figure", "--declaration", "nowhere.yaml"]) == 1
    mine = ["--declaration", str(tmp_path / "mine.yaml")]
    capsys.readouterr()
    assert main(["check", str(folder), "--no-figure", *mine]) == 0
    assert f" data.declaration={tmp_path / 'mine.yaml'}\n" in capsys.readouterr().out
    (folder / "codes.csv").unlink()
    assert main(["check", str(folder), "--no-figure", *mine]) == 1
    assert "codes.csv does not exist (codes.file)" in capsys.readouterr().out


def test_labels_that_their_codes_contradict(tmp_path):
    cohort = small_cohort(40)
    schema = cohort.schema
    defined = replace(schema.labels[1], system="icd9_diagnosis", codes=["0389"])
    schema = replace(schema, labels=[schema.labels[0], defined, schema.labels[2]])
    having = cohort.codes.loc[cohort.codes["code"] == "0389", "stay_id"]
    has = cohort.stays["stay_id"].isin(having).astype("int8")
    for name, column in (("right", has), ("wrong", 0 * has)):
        stays = cohort.stays.assign(**{defined.column: column})
        write(replace(cohort, schema=schema, stays=stays), tmp_path / name)
    text = check_cohort(tmp_path / "wrong", progress=False).text
    assert f"In {has.sum():,} stays the label {defined.column} is not what the codes" in text
    text = check_cohort(tmp_path / "right", progress=False).text
    assert "is not what the codes" not in text
