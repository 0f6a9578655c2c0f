"""Every extraction rule, on databases of a few rows."""

import math
from pathlib import Path

import pandas as pd
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from synehrgy.cohort import Cohort, read_cohort
from synehrgy.sources.extraction.resources import PROFILES, read_labels
from synehrgy.sources.mimic3 import MIMIC3, extract
from tests.sources.raw_database import (
    Database,
    Row,
    admission,
    at,
    chart,
    code,
    database,
    lab,
    patient,
    stay,
    write_database,
)


def cohort_of(tmp_path: Path, rows: Database, form: str = "csv", **arguments: object) -> Cohort:
    raw = write_database(rows, tmp_path / f"raw-{form}", form)
    extract(raw, tmp_path / "cohort", progress=False, **arguments)  # type: ignore[arg-type]
    return read_cohort(tmp_path / "cohort")


def values(cohort: Cohort, variable: str) -> list[float | str]:
    """The values or levels of a series, in order."""
    rows = cohort.measurements[cohort.measurements["variable"] == variable]
    return list(rows["value"].astype(object).where(rows["level"].isna(), rows["level"]))


def two_stays() -> Database:
    """A patient with two admissions of one stay each, the second 100 hours after the first."""
    second = {"hadm_id": 20, "icustay_id": 200}
    return database(
        admissions=[admission(), admission(hadm_id=20, admittime=at(99), dischtime=at(150))],
        icustays=[stay(**second, intime=at(100), outtime=at(148)), stay()],
        chartevents=[chart(211, "80"), chart(211, "90", hours=101, **second)],
    )


# Stays


@pytest.mark.parametrize(
    ("dropped", "reason"),
    [
        (stay(last_careunit="SICU"), "moved between units or wards"),
        (stay(last_wardid=6), "moved between units or wards"),
        (stay(hadm_id=11), "no admission or no patient to it"),
        (stay(intime="2090-01-01 00:00:00"), "younger than 18, or of unknown age"),
        (stay(los=None), "no length of stay, or no usable event in it"),
        (stay(intime=at(30)), "no length of stay, or no usable event in it"),
    ],
)
def test_a_stay_is_dropped_by_each_rule(tmp_path: Path, dropped: Row, reason: str) -> None:
    rows = two_stays()
    rows["ICUSTAYS"][1] = dropped
    raw = write_database(rows, tmp_path / "raw")
    summary = extract(raw, tmp_path / "cohort", progress=False)
    assert {why: n for why, n in summary.dropped.items() if n} == {reason: 1}
    assert read_cohort(tmp_path / "cohort").stays["stay_id"].tolist() == [200]
    assert summary.stays_listed == 2


def test_only_admissions_with_one_stay_left_are_kept(tmp_path: Path) -> None:
    rows = two_stays()
    rows["ICUSTAYS"].append(stay(icustay_id=101, intime=at(50), outtime=at(60), los=0.4167))
    assert cohort_of(tmp_path, rows).stays["stay_id"].tolist() == [200]


def test_a_moved_stay_does_not_count_as_second_stay_of_its_admission(tmp_path: Path) -> None:
    rows = database(icustays=[stay(), stay(icustay_id=101, last_careunit="SICU")])
    assert cohort_of(tmp_path, rows).stays["stay_id"].tolist() == [100]


def test_stays_are_numbered_in_the_order_of_time(tmp_path: Path) -> None:
    stays = cohort_of(tmp_path, two_stays()).stays
    assert stays["stay_id"].tolist() == [100, 200]
    assert stays["stay_index"].tolist() == [0, 1]
    assert stays["hadm_id"].tolist() == [10, 20]
    assert stays["los_hours"].tolist() == [48.0, 48.0]


@pytest.mark.parametrize(
    ("dob", "age"),
    [
        ("2080-01-01 00:00:00", 70 * 365.25 / 365),
        ("1850-01-01 00:00:00", 90.0),
        ("2160-01-01 00:00:00", 90.0),
    ],
)
def test_age_is_in_years_of_365_days_and_at_most_90(tmp_path: Path, dob: str, age: float) -> None:
    stays = cohort_of(tmp_path, database(patients=[patient(dob=dob)])).stays
    assert stays["age"].tolist() == [pytest.approx(age, abs=0.01)]


@pytest.mark.parametrize(
    ("dod", "deathtime", "died"),
    [
        (None, None, 0),
        (at(24), None, 1),
        (None, at(24), 1),
        (at(240), None, 0),
        (at(240), at(119), 1),
        (at(-24), None, 0),
    ],
)
def test_mortality_in_hospital(
    tmp_path: Path, dod: str | None, deathtime: str | None, died: int
) -> None:
    rows = database(patients=[patient(dod=dod)], admissions=[admission(deathtime=deathtime)])
    assert cohort_of(tmp_path, rows).stays["in_hospital_mortality"].tolist() == [died]


# Codes and labels


def test_codes_are_listed_diagnoses_first_in_their_sequence(tmp_path: Path) -> None:
    rows = database(
        diagnoses_icd=[
            *(code("4019", 2), code("0389", 1), code(None, 3), code("V5861", None)),
            code("E8788", 4),
            code("41401", 1, hadm_id=99),
        ],
        procedures_icd=[code("9604", 2), code("0066", 1)],
    )
    codes = cohort_of(tmp_path, rows).codes
    assert codes["code"].tolist() == ["0389", "4019", "E8788", "V5861", "0066", "9604"]
    assert codes["position"].tolist() == [0, 1, 2, 3, 4, 5]
    assert codes["system"].tolist() == ["icd9_diagnosis"] * 4 + ["icd9_procedure"] * 2


def test_labels_follow_from_known_diagnoses(tmp_path: Path) -> None:
    rows = database(diagnoses_icd=[code("0389", 1), code("4019", 2), code("5849", 3)])
    stays = cohort_of(tmp_path, rows).stays
    positive = [column for column in stays if column in labels() and stays[column][0] == 1]
    # 5849 is acute renal failure, but not in this database's D_ICD_DIAGNOSES.
    assert positive == ["essential_hypertension", "septicemia"]


def labels() -> list[str]:
    return [label.column for label in read_labels()]


def test_the_schema_declares_outcome_and_25_phenotypes(tmp_path: Path) -> None:
    schema = cohort_of(tmp_path, database()).schema
    assert [label.column for label in schema.labels_of("outcome")] == ["in_hospital_mortality"]
    assert len(schema.labels_of("phenotype")) == 25
    assert [covariate.name for covariate in schema.covariates] == ["age", "gender"]


# Events


@pytest.mark.parametrize(
    "event",
    [
        chart(211, "80", hadm_id=None),
        chart(211, "80", hadm_id=99),
        chart(211, "80", icustay_id=999),
        chart(211, "80", subject_id=2),
        chart(211, None),
        chart(211, "80", hours=-0.01),
        chart(211, "80", hours=48.01),
        chart(999999, "80"),
        lab(51221, "30", hadm_id=None),
        lab(50862, "LESS THAN 1.0"),
    ],
)
def test_an_event_that_is_no_measurement(tmp_path: Path, event: Row) -> None:
    table = "CHARTEVENTS" if "icustay_id" in event else "LABEVENTS"
    rows = database(chartevents=[chart(220045, "70", hours=9)])
    rows[table].append(event)
    assert cohort_of(tmp_path, rows).measurements["hours"].tolist() == [9.0]


def test_an_event_without_stay_takes_that_of_its_admission(tmp_path: Path) -> None:
    rows = database(chartevents=[chart(211, "80", hours=0.5, icustay_id=None)])
    measurements = cohort_of(tmp_path, rows).measurements
    assert measurements[["stay_id", "hours", "value"]].to_numpy().tolist() == [[100, 0.5, 80]]


def test_both_ends_of_the_stay_belong_to_it(tmp_path: Path) -> None:
    # 0.7 * 24 is below 16.8 in floating point, and the end of the stay at 16.8 hours.
    rows = database(
        icustays=[stay(los=0.7, outtime=at(16.8))],
        chartevents=[chart(211, "80", hours=hours) for hours in (0, 16.8)],
    )
    cohort = cohort_of(tmp_path, rows)
    assert cohort.measurements["hours"].tolist() == [0, 16.8]
    assert cohort.stays["los_hours"].tolist() == [16.8]


def test_hours_are_seconds_over_3600(tmp_path: Path) -> None:
    rows = database(chartevents=[chart(211, "80", charttime="2150-01-01 00:20:00")])
    assert cohort_of(tmp_path, rows).measurements["hours"].tolist() == [1200 / 3600]


def test_an_event_of_another_admission_counts_where_its_time_lies(tmp_path: Path) -> None:
    rows = two_stays()
    rows["CHARTEVENTS"].append(chart(211, "85", hours=102))
    measurements = cohort_of(tmp_path, rows).measurements
    assert measurements[["stay_id", "hours", "value"]].to_numpy().tolist() == [
        [100, 1, 80],
        [200, 1, 90],
        [200, 2, 85],
    ]


@pytest.mark.parametrize("itemid", [220045, 211])
def test_values_at_one_time_are_pooled_over_items(tmp_path: Path, itemid: int) -> None:
    rows = database(chartevents=[chart(211, "9"), chart(itemid, "10")])
    # As text, "9" is greater than "10".
    assert values(cohort_of(tmp_path, rows), "Heart Rate") == [9]


def test_text_that_wins_by_its_letters_takes_the_value_away(tmp_path: Path) -> None:
    rows = database(labevents=[lab(50912, "0.4"), lab(50912, "LESS THAN 0.4")])
    assert values(cohort_of(tmp_path, rows), "Creatinine") == []


PAPER = {
    "Capillary refill rate": [
        (115, "Normal <3 secs", "Normal"),
        (115, "Brisk", "Normal"),
        (3348, "Abnormal >3 secs", "Abnormal"),
        (3348, "Delayed", "Abnormal"),
        (8377, "Other/Remarks", None),
    ],
    "Systolic blood pressure": [(51, "120/80", 120), (51, "121", 121), (51, "high", None)],
    "Diastolic blood pressure": [(8368, "120/80", 80), (8368, "70", 70), (8368, "1/2/3", None)],
    "Fraction inspired oxygen": [(3420, "40", 0.4), (3420, "0.5", 0.5), (3420, "1", 1)],
    "Oxygen saturation": [(646, "0.97", 97), (646, "98", 98), (646, "ERROR", None)],
    "Glucose": [(807, "110", 110), (51478, "NEG", None), (51478, "300", 300)],
    "pH": [(780, "7.4", 7.4), (51491, "5.5", 5.5), (780, ".", None)],
    "Temperature": [(678, "98.6", 37), (676, "37.5", 37.5), (676, "79", (79 - 32) * 5 / 9)],
    "Heart Rate": [(211, "11710", 11710), (211, "nan", None), (211, "Infinity", None)],
    "Mean blood pressure": [(52, "93", 93), (52, "120/80", None)],
    "Prothrombin time": [(51274, "13.1", 13.1), (51237, "1.1", 1.1)],
    "Glasgow coma scale eye opening": [
        (184, "1 No Response", "No Response"),
        (184, "2 To pain", "To Pain"),
        (220739, "To Speech", "To Speech"),
        (220739, " spontaneously", "Spontaneously"),
        (220739, "None", None),
        (220739, "Winks", None),
    ],
    "Glasgow coma scale motor response": [
        (454, "2 Abnorm extensn", "Abnormal Extension"),
        (223901, "Abnormal Flexion", "Abnormal Flexion"),
        (223901, "No response", "No Response"),
        (454, "6 Obeys Commands", "Obeys Commands"),
    ],
    "Glasgow coma scale verbal response": [
        (723, "1.0 ET/Trach", "ET/Trach"),
        (223900, "No Response-ETT", "ET/Trach"),
        (723, "2 Incomp sounds", "Incomprehensible Sounds"),
        (223900, "Inappropriate Words", "Inappropriate Words"),
    ],
    "Glasgow coma scale total": [
        (198, "15", "15"),
        (198, "3.0", "3"),
        (198, "2", None),
        (198, "16", None),
    ],
}
CLINICAL = {
    "Temperature": [
        (678, "98.6", 37),
        (677, "98.6", 37),
        (677, "37.5", 37.5),
        (223761, "37.5", None),
    ],
    "Fraction inspired oxygen": [(3420, "40", 0.4), (3420, "21", 0.21), (3420, "0.05", None)],
    "Glucose": [(807, "110", 110), (51478, "300", None)],
    "pH": [(780, "7.4", 7.4), (51491, "7.4", None), (51094, "7", None), (50831, "7", None)],
    "Prothrombin time": [(51274, "13.1", 13.1), (51237, "1.1", None)],
    "INR": [(51237, "1.1", 1.1), (51274, "13.1", None)],
    "Heart Rate": [(211, "11710", None), (211, "120", 120)],
    "Glasgow coma scale eye opening": [(220739, "None", "No Response")],
}


@pytest.mark.parametrize(
    ("profile", "variable"),
    [*(("paper", variable) for variable in PAPER), *(("clinical", name) for name in CLINICAL)],
)
def test_raw_text_becomes_a_value(tmp_path: Path, profile: str, variable: str) -> None:
    cases = {"paper": PAPER, "clinical": CLINICAL}[profile][variable]
    # Items of laboratories are those around 51,000. Each case has its own time.
    events = [(lab if 50000 < item < 52000 else chart)(item, text, hours=hours)
              for hours, (item, text, _) in enumerate(cases, start=1)]  # fmt: skip
    rows = database(
        chartevents=[chart(618, "20"), *(row for row in events if "icustay_id" in row)],
        labevents=[row for row in events if "icustay_id" not in row],
    )
    cohort = cohort_of(tmp_path, rows, profile=profile)
    expected = [value for _, _, value in cases if value is not None]
    found = values(cohort, variable)
    assert len(found) == len(expected)
    for one, other in zip(found, expected, strict=True):
        assert one == (other if isinstance(other, str) else pytest.approx(other))


def test_inspired_oxygen_in_torr_is_no_percentage(tmp_path: Path) -> None:
    events = [chart(3420, "2", valueuom="torr"), chart(3420, "50", hours=2, valueuom="torr")]
    rows = database(chartevents=[*events, chart(3420, "40", hours=3, valueuom="%")])
    assert values(cohort_of(tmp_path, rows), "Fraction inspired oxygen") == [2, 50, 0.4]
    found = values(cohort_of(tmp_path, rows, profile="clinical"), "Fraction inspired oxygen")
    assert found == [0.5, 0.4]


@pytest.mark.parametrize(
    ("profile", "events", "variable", "kept"),
    [
        ("paper", [(807, "9"), (811, "10")], "Glucose", [10]),
        ("paper", [(115, "Brisk"), (8377, "Delayed")], "Capillary refill rate", ["Abnormal"]),
        ("paper", [(198, "9"), (198, "10")], "Glasgow coma scale total", ["9"]),
        ("paper", [(51, "110"), (455, "120")], "Systolic blood pressure", [120]),
        ("clinical", [(51, "110"), (455, "120")], "Systolic blood pressure", [110]),
        ("clinical", [(455, "120"), (3313, "130")], "Systolic blood pressure", [125]),
        ("clinical", [(51, "9999"), (455, "120")], "Systolic blood pressure", [120]),
        ("clinical", [(211, "80"), (211, "90"), (220045, "85")], "Heart Rate", [85]),
        ("clinical", [(198, "9"), (198, "10")], "Glasgow coma scale total", ["9"]),
        ("clinical", [(115, "Brisk"), (8377, "Delayed")], "Capillary refill rate", ["Abnormal"]),
    ],
)
def test_which_of_several_values_is_kept(
    tmp_path: Path,
    profile: str,
    events: list[tuple[int, str]],
    variable: str,
    kept: list[float | str],
) -> None:
    rows = database(chartevents=[chart(618, "20"), *(chart(*event) for event in events)])
    assert values(cohort_of(tmp_path, rows, profile=profile), variable) == kept


@pytest.mark.parametrize(
    ("item", "unit", "value"),
    [(678, "Deg. C", 37.0), (676, "Deg. F", (37 - 32) * 5 / 9), (676, "?C", 37.0)],
)
def test_the_charted_unit_decides_over_the_item(
    tmp_path: Path, item: int, unit: str, value: float
) -> None:
    rows = database(chartevents=[chart(item, "37", valueuom=unit), chart(618, "20")])
    found = values(cohort_of(tmp_path, rows, profile="clinical"), "Temperature")
    assert found == ([value] if value > 15 else [])


def test_measurements_are_sorted_by_time_and_name(tmp_path: Path) -> None:
    rows = database(
        chartevents=[chart(780, "7.4", 2), chart(211, "80", 2), chart(211, "81", 0)],
        labevents=[lab(50862, "4", 2)],
    )
    measurements = cohort_of(tmp_path, rows).measurements
    assert measurements["variable"].tolist() == ["Heart Rate", "Albumin", "Heart Rate", "pH"]


def test_what_is_dropped_is_counted(tmp_path: Path) -> None:
    rows = database(chartevents=[chart(211, "80"), chart(211, "999", 2), chart(184, "Winks")])
    raw = write_database(rows, tmp_path / "raw")
    summary = extract(raw, tmp_path / "cohort", profile="clinical", progress=False)
    assert summary.unreadable == {"Glasgow coma scale eye opening": 1}
    assert summary.impossible == {"Heart Rate": 1}
    assert summary.rows == {"chartevents": 3, "labevents": 0}
    assert summary.values["Heart Rate"] == 1
    assert "Heart Rate 1" in summary.render()
    assert str(summary) == summary.render()


# Profiles


def test_the_paper_profile_has_the_41_series() -> None:
    assert len(MIMIC3.profile("paper").item_sets) == 41
    assert (
        sum(len(ids) for s in MIMIC3.profile("paper").item_sets for ids in s.items.values()) == 132
    )


def test_the_clinical_profile_has_inr_beside_them() -> None:
    paper, clinical = (
        {item_set.name for item_set in MIMIC3.profile(name).item_sets} for name in PROFILES
    )
    assert clinical - paper == {"INR"}
    assert paper <= clinical


@pytest.mark.parametrize("profile", PROFILES)
def test_item_sets_are_consistent(profile: str) -> None:
    seen: set[int] = set()
    for item_set in MIMIC3.profile(profile).item_sets:
        items = {item for ids in item_set.items.values() for item in ids}
        assert not items & seen, item_set.name
        seen |= items
        assert {*item_set.preferred, *item_set.units} <= items
        assert (item_set.kind == "categorical") == bool(item_set.levels)
        spellings = [text for texts in item_set.levels.values() for text in texts]
        assert len(set(spellings)) == len(spellings)
        assert spellings == [text.strip().lower() for text in spellings]
        low, high = item_set.range
        assert low < high
        if profile == "clinical" and item_set.kind == "continuous":
            assert math.isfinite(low)
            assert math.isfinite(high)


# The rules on pooling and belonging, once more, in plain Python.

SERIES = {211: "Heart Rate", 220045: "Heart Rate", 807: "Glucose", 811: "Glucose"}
STAYS = {100: (10, 0.0, 48.0), 200: (20, 40.0, 60.0)}

events = st.builds(
    lambda item, value, hours, hadm, own: chart(
        item,
        value,
        hours=hours,
        hadm_id=hadm,
        icustay_id=own,
    ),
    st.sampled_from(list(SERIES)),
    st.sampled_from(["9", "10", "100", "abc", None, "7.5"]),
    st.sampled_from([-1.0, 0.0, 5.0, 40.0, 45.0, 48.0, 60.0, 61.0]),
    st.sampled_from([10, 20, 99, None]),
    st.sampled_from([100, 200, None]),
)


def expected_measurements(rows: list[Row]) -> set[tuple[int, float, str, float]]:
    by_admission = {hadm: stay_id for stay_id, (hadm, _, _) in STAYS.items()}
    pools: dict[tuple[str, float], list[Row]] = {}
    for row in rows:
        own = by_admission.get(row["hadm_id"])
        if own is None or row["icustay_id"] not in (own, None) or row["value"] is None:
            continue
        hours = (pd.Timestamp(row["charttime"]) - pd.Timestamp(at(0))).total_seconds() / 3600
        pools.setdefault((SERIES[row["itemid"]], hours), []).append({**row, "own": own})
    found = set()
    for (variable, hours), pool in pools.items():
        texts = [row["value"] for row in pool]
        if variable == "Glucose":
            numbers = [float(text) for text in texts if text != "abc"]
            kept = max(numbers) if numbers else None
        else:
            kept = None if max(texts) == "abc" else float(max(texts))
        for stay_id, (_, begin, end) in STAYS.items():
            belongs = begin <= hours <= end or any(row["own"] == stay_id for row in pool)
            if kept is not None and belongs and 0 <= hours - begin <= end - begin:
                found.add((stay_id, hours - begin, variable, kept))
    return found


@settings(
    max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(rows=st.lists(events, max_size=12))
def test_pooling_and_belonging_as_in_plain_python(tmp_path: Path, rows: list[Row]) -> None:
    # Two stays that overlap; a respiratory rate keeps either in the cohort.
    anchors = [
        chart(618, "20", hours=1),
        chart(618, "20", hours=50, hadm_id=20, icustay_id=200),
    ]
    raw = database(
        admissions=[admission(), admission(hadm_id=20)],
        icustays=[
            stay(),
            stay(hadm_id=20, icustay_id=200, intime=at(40), outtime=at(60), los=20 / 24),
        ],
        chartevents=[*anchors, *rows],
    )
    measurements = cohort_of(tmp_path, raw).measurements
    found = measurements[measurements["variable"] != "Respiratory rate"]
    columns = ["stay_id", "hours", "variable", "value"]
    assert set(found[columns].itertuples(index=False, name=None)) == expected_measurements(rows)
