"""What does not fit is refused with file, line and column, or left out and counted."""

from pathlib import Path

import pandas as pd
import pytest

from synehrgy.cli import compose
from synehrgy.cohort import read_cohort
from synehrgy.cohort.__main__ import main as cohort_command
from synehrgy.commands import preprocess
from synehrgy.errors import UserError
from synehrgy.sources.tables import check_tables, extract_tables
from tests.sources.hospital import VITALS, long_form, write_hospital
from tests.sources.test_tables import refusal


def cell(file, row, column, text):
    """A change of one cell."""

    def change(found, declared):
        found[file].loc[row, column] = text

    return change


def key(path, value):
    """A change of one key of tables.yaml, such as ``stays.subject``; None removes it."""

    def change(found, declared):
        *groups, name = path.split(".")
        for group in groups:
            declared = declared[group]
        if value is None:
            del declared[name]
        else:
            declared[name] = value

    return change


def a_stay_twice(found, declared):
    found["stays.csv"].loc[3, "visit"] = "70"
    found["codes.csv"] = found["codes.csv"][:4]
    found["vitals.csv"] = found["vitals.csv"][:5]


def lists_of(found, declared):
    found["stays.csv"]["fold"] = ["val", "val", "train", "tst"]
    declared["stays"]["split"] = "fold"


def patient_in_two_splits(found, declared):
    found["stays.csv"]["fold"] = ["val", "train", "train", "test"]
    declared["stays"]["split"] = "fold"


def value_twice(found, declared):
    found["vitals.csv"] = pd.concat([VITALS, VITALS[1:2].assign(HR="99")])


def long_with(row, column, text):
    def change(found, declared):
        long = long_form(VITALS).sort_index().reset_index(drop=True)
        long.loc[row, column] = text
        found["vitals.csv"] = long
        declared["measurements"].update(variable="item", value="result")

    return change


ROWS = {
    "no subject": (cell("stays.csv", 1, "patient", ""), "stays.csv, line 3, column 'patient': it"),
    "no stay": (cell("stays.csv", 0, "visit", " "), "stays.csv, line 2, column 'visit': it is"),
    "a stay twice": (a_stay_twice, "stays.csv, lines 2, 5, column 'visit': the stay '70' stands"),
    "no number": (cell("stays.csv", 2, "triage", "red"), "line 4, column 'triage': 'red' is no n"),
    "unknown level": (cell("stays.csv", 0, "sex", "w"), "'w' is no level of sex (F, M). Add it to"),
    "no admission": (cell("stays.csv", 0, "arrived", ""), "line 2, column 'arrived': it is empty"),
    "no time": (cell("stays.csv", 0, "arrived", "5.3.24"), "'5.3.24' is no date and time"),
    "left before": (cell("stays.csv", 0, "left", "2024-03-01"), "'2024-03-01' is before the adm"),
    "born after": (cell("stays.csv", 2, "born", "2025-01-01"), "'2025-01-01' is after the admis"),
    "neither yes nor no": (cell("stays.csv", 3, "died", "maybe"), "labels.died.present or labels"),
    "empty label": (cell("stays.csv", 3, "died", ""), "line 5, column 'died': it is empty"),
    "no split": (lists_of, "line 5, column 'fold': 'tst' is none of train, val, test"),
    "two splits": (patient_in_two_splits, "lines 2, 3, column 'fold': the patient '7' is in sev"),
    "code of nobody": (
        cell("codes.csv", 3, "visit", "91"),
        "codes.csv, line 5, column 'visit': '91' is no stay of stays.csv. Add the stay, or leave "
        "such rows out: drop: [unknown_stay] in codes.",
    ),
    "unknown system": (cell("codes.csv", 2, "kind", "rx"), "'rx' is no code system (icd10_diag"),
    "no position": (cell("codes.csv", 0, "rank", "1st"), "column 'rank': '1st' is no number"),
    "value of nobody": (cell("vitals.csv", 4, "visit", "91"), "vitals.csv, line 6, column 'visit'"),
    "no moment": (cell("vitals.csv", 0, "time", ""), "column 'time': an empty cell is no date"),
    "too early": (
        cell("vitals.csv", 2, "time", "2024-01-01 07:59:59"),
        "vitals.csv, line 4, column 'time': '2024-01-01 07:59:59' is before the admission. Correct "
        "it, or leave such rows out: drop: [before_admission] in measurements.",
    ),
    "too late": (cell("vitals.csv", 3, "time", "2024-01-02"), "'2024-01-02' is after the end of"),
    "no value": (cell("vitals.csv", 1, "HR", "<30"), "line 3, column 'HR': '<30' is no number (Pu"),
    "infinite": (cell("vitals.csv", 1, "HR", "inf"), "line 3, column 'HR': 'inf' is no number"),
    "no level": (cell("vitals.csv", 2, "AVPU", "X"), "'X' is no level of Alertness (A, V, P, U)"),
    "long, no value": (long_with(0, "result", "?"), "column 'result': '?' is no number (Pulse)"),
    "twice": (
        value_twice,
        "vitals.csv, line 8, column 'time': Pulse of the stay 70 has another value at this time "
        "already. Correct it, or keep the first: drop: [duplicate] in measurements.",
    ),
}

FORMS = {
    "no file": (key("codes.file", "code.csv"), "Did you mean 'codes.csv'?"),
    "other file": (
        key("codes.file", "tables.yaml"),
        "must end with one of .parquet, .csv, .csv.gz",
    ),
    "no column": (
        key("stays.subject", "patent"),
        "has no column 'patent' (stays.subject). Did you",
    ),
    "covariate": (key("covariates.weight", {}), "has no column 'weight' (covariates.weight)"),
    "series": (
        key("series.Pulse.called", "HRR"),
        "no column 'HRR' (series.Pulse). Did you mean 'H",
    ),
    "no series": (
        key("series", {"Glucose": {}, "Lactate": {"called": ["lac", "LAC"]}}),
        "vitals.csv has a column of none of the series (Glucose, lac, LAC). If it has",
    ),
    "codes of none": (key("labels.sepsis.codes", ["Z*"]), "no stay has one of the codes Z* of icd"),
    "delimiter": (key("csv", {"delimiter": ";"}), "one column only"),
    "format": (key("time_format", "%Q"), "time_format: '%Q' is none"),
}


@pytest.mark.parametrize("what", ROWS)
def test_rows_that_do_not_fit(tmp_path, what):
    change, says = ROWS[what]
    message = refusal(write_hospital(tmp_path / "raw", change))
    assert says in message
    assert f"{tmp_path / 'raw'}/" in message


@pytest.mark.parametrize("what", FORMS)
def test_tables_that_do_not_fit(tmp_path, what):
    change, says = FORMS[what]
    assert says in refusal(write_hospital(tmp_path / "raw", change))


def test_damaged_files(tmp_path):
    folder = write_hospital(tmp_path / "raw")
    vitals = (folder / "vitals.csv").read_bytes()
    (folder / "vitals.csv").write_bytes(vitals + b"70,2024-03-05 17:00:00\n")
    assert "vitals.csv, line 8: expected 4 fields, found 2" in refusal(folder)
    (folder / "vitals.csv").write_bytes(vitals + b"70,2024-03-05 17:00:00,\xff,A\n")
    assert "encoding: latin-1" in refusal(folder)
    (folder / "vitals.csv").write_bytes(b"")
    assert "vitals.csv is empty" in refusal(folder)
    (folder / "vitals.csv").write_bytes(b"visit,time,HR,AVPU,HR\n")
    assert "two columns called 'HR'" in refusal(folder)
    (folder / "vitals.csv").write_bytes(vitals)
    (folder / "stays.csv").write_text((folder / "stays.csv").read_text().splitlines()[0] + "\n")
    assert "stays.csv has no stay" in refusal(folder)
    assert "does not exist" in refusal(tmp_path / "nowhere")


def test_codes_in_parquet_must_be_text(tmp_path):
    def change(found, declared):
        found["codes.parquet"] = found.pop("codes.csv").assign(code=[1, 2, 3, 4, 5])
        declared["codes"]["file"] = "codes.parquet"

    assert "column 'code' (codes.code) must be text" in refusal(
        write_hospital(tmp_path / "raw", change)
    )


def test_a_series_that_no_row_is_of(tmp_path):
    def change(found, declared):
        found["vitals.csv"] = long_form(VITALS)
        declared["measurements"].update(variable="item", value="result")
        declared["series"]["Pulse"]["called"] = ["HRR"]

    message = refusal(write_hospital(tmp_path / "raw", change))
    assert "no row of a series called 'HRR' (series.Pulse). Did you mean 'HR'?" in message


def test_all_texts_that_are_no_levels_are_shown(tmp_path):
    def change(found, declared):
        found["vitals.csv"] = pd.concat([VITALS] * 2, ignore_index=True)
        found["vitals.csv"]["AVPU"] = ["X", *"YYZZZ", *"abcdef"]
        found["vitals.csv"]["HR"] = ""

    message = refusal(write_hospital(tmp_path / "raw", change))
    assert "lines 2, 3, 4 and 9 more, column 'AVPU': 'X' is no level" in message
    assert (
        "Others: 'Z' (3), 'Y' (2), 'a' (1), 'b' (1), 'c' (1), 'd' (1), 'e' (1), 'f' (1)." in message
    )


def test_one_run_tells_all_problems(tmp_path):
    def change(found, declared):
        for name in ("code of nobody", "no number", "too early", "no value", "twice"):
            ROWS[name][0](found, declared)
        found["vitals.csv"].iloc[2, 1] = "2024-01-01 07:00:00"
        found["vitals.csv"].iloc[0, 2] = "<30"

    folder = write_hospital(tmp_path / "raw", change)
    checked = check_tables(folder, progress=False)
    assert not checked.is_right
    told = ["'91' is no stay", "'red' is no number", "is before the admission", "<30"]
    assert [says in checked.text for says in [*told, "has another value"]] == [True] * 5
    # Measurements, which may take long to read, are not read if it is wrong before.
    message = refusal(folder)
    assert "2 things are wrong with the tables" in message
    assert "<30" not in message


# The fault, what is said, and how many values are lost.
DROPPED = {
    "unknown_stay": ("value of nobody", "of unknown stays", 1),
    "unreadable_time": ("no moment", "without a readable time", 2),
    "before_admission": ("too early", "before the admission", 2),
    "after_discharge": ("too late", "after the end of the stay", 1),
    "unreadable_value": ("no value", "with a value of Pulse that is no number", 1),
    "unknown_level": ("no level", "with an unknown level of Alertness", 1),
    "duplicate": ("twice", "of times that had another value before", 0),
}


@pytest.mark.parametrize("fault", DROPPED)
def test_rows_may_be_left_out_instead(tmp_path, fault):
    name, says, lost = DROPPED[fault]

    def change(found, declared):
        ROWS[name][0](found, declared)
        declared["measurements"]["drop"] = [fault]

    extract_tables(write_hospital(tmp_path / "whole"), tmp_path / "all", progress=False)
    folder = write_hospital(tmp_path / "raw", change)
    summary = extract_tables(folder, tmp_path / "some", progress=False)
    assert f"1  rows of vitals.csv {says}" in summary.render()
    found, expected = read_cohort(tmp_path / "some"), read_cohort(tmp_path / "all")
    pd.testing.assert_frame_equal(found.stays, expected.stays)
    assert len(expected.measurements) - len(found.measurements) == lost


def test_codes_may_be_left_out_instead(tmp_path):
    def change(found, declared):
        for name in ("code of nobody", "unknown system"):
            ROWS[name][0](found, declared)
        declared["codes"]["drop"] = ["unknown_stay", "unknown_system"]

    folder = write_hospital(tmp_path / "raw", change)
    said = extract_tables(folder, tmp_path / "cohort", progress=False).render()
    assert "1  rows of codes.csv of unknown stays" in said
    assert "1  rows of codes.csv of unknown code systems" in said
    assert len(read_cohort(tmp_path / "cohort").codes) == 3


def test_what_is_left_out_is_counted(tmp_path):
    def change(found, declared):
        long = long_form(VITALS)
        other = long[:2].assign(item="glucose", result="100")
        again, empty = long[:1], long[1:2].assign(result="")
        found["vitals.csv"] = pd.concat([long, other, again, empty]).assign(nurse="X")
        declared["measurements"].update(variable="item", value="result")
        declared["series"]["Pulse"]["range"] = [0, 120]
        found["codes.csv"] = pd.concat([found["codes.csv"]] * 2)
        found["codes.csv"].iloc[-1, 3] = ""

    folder = write_hospital(tmp_path / "raw", change)
    said = extract_tables(folder, tmp_path / "cohort", progress=False).render()
    for line in (
        "rows read     stays.csv 4, codes.csv 10, vitals.csv 14",
        "4  codes that a stay has twice",
        "1  rows of codes.csv without a code",
        "1  numbers of triage outside its range",
        "1  rows without a value",
        "1  values of Pulse outside its range",
        "2  rows of vitals.csv of series that are not taken (glucose)",
        "1  values that stand in the tables twice",
        "not read      vitals.csv: nurse",
        "7 ICD codes are written without their point, in capitals",
        "Alertness 5, Pulse 4",
    ):
        assert line in said


def test_a_cohort_that_was_there_stays_when_tables_are_wrong(tmp_path):
    place = tmp_path / "cohort"
    extract_tables(write_hospital(tmp_path / "raw"), place, progress=False)
    before = (place / "cohort.json").read_bytes()
    for name in ("no number", "twice"):
        wrong = write_hospital(tmp_path / name, ROWS[name][0])
        with pytest.raises(UserError):
            extract_tables(wrong, place, progress=False)
        assert (place / "cohort.json").read_bytes() == before
    assert {path.name for path in tmp_path.iterdir()} == {"raw", "cohort", "no number", "twice"}


def test_the_command(tmp_path):
    folder = write_hospital(tmp_path / "raw")
    overrides = ["data=tables", f"data.raw_dir={folder}", f"data.path={tmp_path / 'cohort'}"]
    said = preprocess(compose("preprocess", [*overrides, "preprocess.min_code_count=1"])).line
    assert "Next: python train.py data=tables run_name=<a name>" in said
    assert (Path(tmp_path) / "cohort" / "tokenizer.json").exists()
    with pytest.raises(UserError, match=r"docs/own-data\.md"):
        preprocess(compose("preprocess", ["data=tables", f"data.raw_dir={tmp_path}"]))
    with pytest.raises(UserError, match=r"data\.raw_dir=<folder"):
        preprocess(compose("preprocess", ["data=tables"]))


@pytest.mark.parametrize(
    "text", ["2024-03-05 8:00 PM", "2024-03-05 08:00:00Z", "2024-03-05 08:00:00-0500", "infinity"]
)
def test_times_are_read_to_their_end(tmp_path, text):
    said = refusal(write_hospital(tmp_path / "h", cell("stays.csv", 0, "arrived", text)))
    assert "stays.csv, line 2" in said
    assert text in said


def test_times_with_a_zone_are_refused(tmp_path):
    def zoned(found, declared):
        stays = found.pop("stays.csv")
        times = pd.to_datetime(stays["arrived"]).dt.tz_localize("America/New_York")
        found["stays.parquet"] = stays.assign(arrived=times)
        declared["stays"]["file"] = "stays.parquet"

    said = refusal(write_hospital(tmp_path / "h", zoned))
    assert "column 'arrived' (stays.admitted) has a time zone" in said


def test_two_columns_of_a_series_that_differ(tmp_path):
    def twice(found, declared):
        found["vitals.csv"]["HR2"] = found["vitals.csv"]["HR"]
        found["vitals.csv"].loc[0, "HR2"] = "188"
        declared["series"]["Pulse"]["called"] = ["HR", "HR2"]

    said = refusal(write_hospital(tmp_path / "h", twice))
    assert "Pulse of the stay 70 has another value at this time already" in said


def test_numbers_with_a_point_where_a_comma_is_meant(tmp_path):
    def comma(found, declared):
        declared["csv"] = {"decimal": ","}
        found["vitals.csv"]["HR"] = ["1.088", *["80"] * 5]

    said = refusal(write_hospital(tmp_path / "h", comma))
    assert "vitals.csv, line 2, column 'HR': '1.088'" in said


def test_an_icd_code_of_a_point_is_empty(tmp_path):
    extract_tables(
        write_hospital(tmp_path / "h", cell("codes.csv", 0, "code", ".")),
        tmp_path / "cohort",
        progress=False,
    )
    assert read_cohort(tmp_path / "cohort").codes["code"].tolist() == [
        "E119",
        "8-836",
        "A419",
        "A419",
    ]


def test_check_says_what_is_missing(tmp_path, capsys):
    folder = write_hospital(tmp_path / "h")
    (folder / "tables.yaml").unlink()
    assert cohort_command(["check", str(folder)]) == 1
    assert "declare" in capsys.readouterr().err


def test_check_without_a_place_for_its_figure(tmp_path):
    folder = write_hospital(tmp_path / "h")
    checked = check_tables(folder, figure=tmp_path / "nowhere" / "x" / "f.png", progress=False)
    assert checked.is_right
    assert "No figure" in checked.text or (tmp_path / "nowhere" / "x" / "f.png").exists()
