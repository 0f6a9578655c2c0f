"""Each rule sees the records that break it and no other, and the scores rise with the dose."""

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from hypothesis import HealthCheck, given, settings

from synehrgy.cohort import CodeSystem, Covariate, Label, Schema, Variable, read_cohort
from synehrgy.evaluation.compare import compare
from synehrgy.evaluation.metric import Bench, Effort
from synehrgy.evaluation.metrics.consistency import MAX_RECORDS, Consistency
from synehrgy.evaluation.patients import Patients
from synehrgy.evaluation.rules import RULE_GROUPS, in_ranges, rules_of
from tests.cohorts import build, cohorts, small_cohort
from tests.evaluation.corruptions import halves, labels_contradicted, memorised, values_shuffled

DX, PX = "icd9_diagnosis", "icd9_procedure"
SCHEMA = Schema(
    name="clinic",
    source="test",
    covariates=[
        Covariate("age", "continuous", unit="years"),
        Covariate("Sex", "categorical", levels=["Female", "Male"]),
        Covariate("ward", "categorical", levels=["A", "B"]),
    ],
    labels=[
        Label("in_hospital_mortality", "Death", "outcome"),
        Label("sepsis", "Sepsis", "phenotype", DX, ["0389", "99592"]),
        Label("shock", "Shock", "phenotype", DX, ["78552"]),
    ],
    variables=[
        Variable("Diastolic blood pressure", "continuous", unit="mmHg"),
        Variable("Fraction inspired oxygen", "continuous", unit="%"),
        Variable("Glasgow coma scale eye opening", "categorical", levels=["No Response", "4 Open"]),
        Variable("Glasgow coma scale motor response", "categorical", levels=["Obeys Commands"]),
        Variable("Glasgow coma scale total", "categorical", levels=["8", "12", "15"]),
        Variable("Glasgow coma scale verbal response", "categorical", levels=["?", "1.0 ET/Trach"]),
        Variable("Heart Rate", "continuous", unit="bpm"),
        Variable("Hematocrit", "continuous", unit="%"),
        Variable("Hemoglobin", "continuous", unit="g/dL"),
        Variable("Mean corpuscular volume", "continuous", unit="fL"),
        Variable("Mean_Blood-Pressure", "continuous", unit="mmHg"),
        Variable("Red blood cell count", "continuous", unit="m/uL"),
        Variable("Systolic blood pressure", "continuous", unit="mmHg"),
    ],
    code_systems=[CodeSystem(DX, "Diagnoses"), CodeSystem(PX, "Procedures")],
)


def patients(stays, codes=(), values=()):
    """Stays from dictionaries of what is not usual."""
    rows = []
    for i, more in enumerate(stays, start=1):
        facts = {"subject": i, "index": 0, "age": 50.0, "sex": "Female", "ward": "A"}
        facts |= {"died": 0, "sepsis": 0, "shock": 0, "los": 24.0} | more
        key = [facts["subject"], i, None, facts["index"], None]
        rows.append([*key, *(facts[k] for k in ("age", "sex", "ward"))])
        rows[-1] += [facts[k] for k in ("died", "sepsis", "shock", "los")]
    codes = [[stay, i, system, code] for i, (stay, system, code) in enumerate(codes)]
    texts = [
        (*row[:3], None, row[3]) if isinstance(row[3], str) else (*row, None) for row in values
    ]
    return Patients(build(SCHEMA, rows, codes, texts))


def broken(found: Patients) -> dict[str, list[int]]:
    """The stays that break each rule, without those that break none."""
    ids = found.stays["stay_id"].to_numpy()
    result = {}
    for rule in rules_of(found.schema):
        checked = rule.find(found)
        assert len(checked.stay) == len(checked.broken)
        if checked.broken.any():
            result[rule.name] = sorted(set(ids[checked.stay[checked.broken]].tolist()))
            details = list(checked.describe(np.flatnonzero(checked.broken)))
            assert all(details)
    return result


def only(found, *but):
    """What is broken beyond being empty."""
    return {k: v for k, v in broken(found).items() if k not in ("no_code", "no_value", *but)}


def at_once(stay, **values):
    """Values of one time point, in the order of the table."""
    names = {plain.replace(" ", "_"): plain for plain in (v.name for v in SCHEMA.variables)}
    names |= {"dia": "Diastolic blood pressure", "mean": "Mean_Blood-Pressure"}
    names |= {"sys": "Systolic blood pressure", "total": "Glasgow coma scale total"}
    names |= {"eye": "Glasgow coma scale eye opening", "fio2": "Fraction inspired oxygen"}
    names |= {"motor": "Glasgow coma scale motor response", "mcv": "Mean corpuscular volume"}
    names |= {"verbal": "Glasgow coma scale verbal response", "rbc": "Red blood cell count"}
    rows = [(stay, 1.0, names[name], value) for name, value in values.items()]
    return sorted(rows, key=lambda row: row[2])


# Every rule on records that break it and on records that just keep it.


def test_order_of_time():
    late = patients(
        [{}, {}, {"died": 1}, {"los": None}],
        values=[
            (i, hour, "Heart Rate", 80.0) for i in (1, 2, 3, 4) for hour in (1.0, 24.0 + i // 2)
        ],
    )
    assert only(late) == {"after_end": [2, 3], "value_after_death": [3]}
    before = patients(
        [{}, {}], values=[(1, -1.0, "Heart Rate", 80.0), (2, 0.0, "Heart Rate", 80.0)]
    )
    assert only(before) == {"before_start": [1]}
    back = [(1, 2.0, "Heart Rate", 80.0), (1, 1.0, "Heart Rate", 81.0), (2, 0.0, "Heart Rate", 1.0)]
    assert only(patients([{}, {}], values=back)) == {"backwards": [1]}
    assert only(patients([{"los": -1.0}, {"los": 0.0}, {"los": None}])) == {"negative_length": [1]}


def test_stays_of_one_patient():
    again = {"subject": 7, "index": 1}
    third = {"subject": 7, "index": 2}
    assert only(patients([{"subject": 7, "died": 1}, again, third])) == {"stay_after_death": [2, 3]}
    assert only(patients([{"subject": 7}, again | {"died": 1}])) == {}
    found = patients([{"subject": 7, "age": 60.0}, again | {"age": None}, third | {"age": 59.0}])
    assert only(found) == {"younger": [3]}
    moved = patients([{"subject": 7}, again | {"sex": "Male"}, third | {"sex": None, "ward": "B"}])
    assert only(moved) == {"other_Sex": [2], "other_ward": [3]}
    assert only(patients([{"age": -1.0}, {"age": 121.0}, {"age": 120.0}])) == {"age_range": [1, 2]}


def test_labels_against_codes():
    stays = [{"sepsis": 1}, {"sepsis": 1, "shock": 1}, {}, {"shock": 1}]
    codes = [(1, DX, "0389"), (2, DX, "78552"), (3, DX, "99592"), (4, PX, "78552")]
    found = patients(stays, codes)
    assert only(found) == {"label_without_code": [2, 4], "code_without_label": [3]}
    table = Consistency().measure(bench(found), "synthetic").tables["consistency_labels"]
    by_label = table.set_index("label")
    assert by_label["label_without_code"].to_dict() == {"sepsis": 0.5, "shock": 0.5}
    assert by_label["code_without_label"].to_dict() == {"sepsis": 0.5, "shock": 0.0}
    record = Consistency().measure(bench(found), "synthetic").tables["consistency_records"]
    assert (
        record.query("stay_id == 2 and rule == 'label_without_code'")["detail"].item() == "Sepsis"
    )


@pytest.mark.parametrize(
    ("code", "system", "who", "rule"),
    [
        ("64421", DX, {"sex": "Male"}, "female_codes"),
        ("V22.1", DX, {"sex": "Male"}, "female_codes"),
        ("7359", PX, {"sex": "Male"}, "female_codes"),
        ("185", DX, {}, "male_codes"),
        ("6029", PX, {}, "male_codes"),
        ("7718", DX, {"age": 18.5}, "newborn_codes"),
        ("65011", DX, {"age": 61.0}, "childbirth_age"),
        ("65011", DX, {"age": 9.0}, "childbirth_age"),
        ("3310", DX, {"age": 39.9}, "senile_codes"),
    ],
)
def test_codes_against_sex_and_age(code, system, who, rule):
    unknown = {"sex": None, "age": None}
    codes = [(1, system, code), (2, system, code), (4, system, "4019"), (4, PX, "V22")]
    usual = {"sex": "Male"} if rule == "male_codes" else {}
    fits = usual | {"age": {"newborn_codes": 0.5, "senile_codes": 40.0}.get(rule, 30.0)}
    found = patients([who, unknown, {}, who, fits], [*codes, (5, system, code)])
    assert only(found) == {rule: [1]}
    checked = next(r for r in rules_of(SCHEMA) if r.name == rule).find(found)
    assert found.stays["stay_id"].to_numpy()[checked.stay].tolist() == [1, 5]
    assert code in next(iter(checked.describe(np.array([0]))))


def test_ranges_hold_the_codes_between_their_ends():
    inside = ["630", "6799", "64.421", "V22", "v24.9", "77", "771"]
    outside = ["629", "680", "V25", "7", "78", "E77", ""]
    found = in_ranges([*inside, *outside], ["630-679", "V22-V24", 77])
    assert found.tolist() == [True] * len(inside) + [False] * len(outside)


def test_pressures_in_order():
    rows = [
        *at_once(1, sys=100.0, mean=100.0, dia=100.0),
        *at_once(2, sys=100.0, mean=101.0),
        *at_once(3, mean=70.0, dia=71.0),
        *at_once(4, sys=90.0, dia=91.0),
        *at_once(5, dia=200.0),
        *at_once(6, sys=120.0, mean=70.0, dia=80.0),
    ]
    found = patients([{}] * 6, values=rows)
    assert only(found) == {"pressure_order": [2, 3, 4, 6]}
    checked = next(r for r in rules_of(SCHEMA) if r.name == "pressure_order").find(found)
    assert len(checked.stay) == 5
    said = next(iter(checked.describe(np.array([1]))))
    assert said == "at 1.00 hours: Systolic blood pressure 100, Mean_Blood-Pressure 101"


def test_glasgow_total():
    rows = [
        *at_once(1, total="8", eye="No Response", motor="Obeys Commands", verbal="1.0 ET/Trach"),
        *at_once(2, total="12", eye="4 Open", motor="Obeys Commands", verbal="1.0 ET/Trach"),
        *at_once(3, total="15", eye="4 Open", motor="Obeys Commands", verbal="?"),
        *at_once(4, total="15", eye="4 Open", motor="Obeys Commands"),
    ]
    assert only(patients([{}] * 4, values=rows)) == {"glasgow_total": [2]}


def test_values_that_contradict_each_other_or_that_nobody_has():
    rows = [
        *at_once(1, Hematocrit=30.0, Hemoglobin=10.0, mcv=90.0, rbc=3.33),
        *at_once(2, Hematocrit=50.0, Hemoglobin=10.0),
        *at_once(3, Hematocrit=30.0, mcv=90.0, rbc=5.0),
        *at_once(4, fio2=0.5, Heart_Rate=350.0),
        *at_once(5, fio2=21.0, Heart_Rate=351.0),
        *at_once(6, Hemoglobin=10.0, Hematocrit=0.0),
    ]
    assert only(patients([{}] * 6, values=rows)) == {
        "hematocrit_hemoglobin": [2, 6],
        "red_cell_volume": [3],
        "range_fraction inspired oxygen": [4],
        "range_heart rate": [5],
        "range_hematocrit": [6],
    }


def test_oxygen_is_judged_by_its_unit():
    name = "Fraction inspired oxygen"
    for unit, fits in (("%", [50.0]), ("fraction", [0.5]), (None, [0.5, 50.0]), ("litres", None)):
        schema = Schema("o", "test", variables=[Variable(name, "continuous", unit=unit)])
        values = [0.5, 50.0, 500.0]
        rows = [[1, float(i), name, x, None] for i, x in enumerate(values)]
        found = Patients(build(schema, [[1, 1, None, 0, None, 9.0]], [], rows))
        rules = [r for r in rules_of(schema) if r.group == "physiology"]
        assert len(rules) == (fits is not None)
        if fits is not None:
            kept = ~rules[0].find(found).broken
            assert [x for x, ok in zip(values, kept, strict=True) if ok] == fits


def test_repeated_and_empty_records():
    codes = [(1, DX, "4019"), (1, PX, "4019"), (2, DX, "4019"), (2, DX, "428"), (2, DX, "4019")]
    values = [(1, 1.0, "Heart Rate", 80.0), (3, 1.0, "Heart Rate", 80.0)]
    found = broken(patients([{}] * 3, codes, [*values, (3, 1.0, "Heart Rate", 81.0)]))
    assert found == {
        **{"repeated_code": [2], "no_code": [3], "no_value": [2], "repeated_value": [3]},
    }


def test_only_patients_alike_in_everything_are_copies():
    two = [{"subject": s, "index": i} for s in (3, 5, 8, 9, 11, 12) for i in (0, 1)]
    codes, values = [], []
    for stay in range(1, 13):
        # Patient 9 has the codes of her stays the other way round, patient 8 one other value, and
        # patients 11 and 12 have nothing at all.
        if stay <= 8:
            of = (stay + 1) % 2 if stay < 7 else stay % 2
            codes += [(stay, DX, c) for c in (("4019", "428") if of else ("428", "4019"))]
            values.append((stay, 1.0, "Heart Rate", 80.0 + (stay == 6)))
    found = patients(two, codes, values)
    assert broken(found)["repeated_patient"] == [3, 4]
    rule = next(r for r in rules_of(SCHEMA) if r.name == "repeated_patient")
    assert rule.find(found).describe(np.array([2])) == ["a copy of patient 3"]


def test_every_rule_has_a_name_of_its_own_and_a_group():
    for schema in (SCHEMA, small_cohort(5).schema):
        rules = rules_of(schema)
        assert len({rule.name for rule in rules}) == len(rules)
        assert {rule.group for rule in rules} <= set(RULE_GROUPS)


def test_series_in_other_units_are_not_judged_by_numbers_of_these():
    def names(unit, kind="continuous"):
        levels = {} if kind == "continuous" else {"levels": ["1"]}
        series = ["Hematocrit", "Hemoglobin", "Mean blood pressure"]
        units = [unit, "g/dL", "mmHg"]
        variables = [
            Variable(name, kind, unit=u, **levels) for name, u in zip(series, units, strict=True)
        ]
        pressures = ["Systolic blood pressure", "Diastolic blood pressure"]
        variables += [Variable(name, "continuous", unit=unit) for name in pressures]
        return {r.name for r in rules_of(Schema("s", "t", variables=variables))}

    assert {"hematocrit_hemoglobin", "range_hematocrit"} < names("%")
    assert not {"hematocrit_hemoglobin", "range_hematocrit"} & names("l/l")
    assert "pressure_order" in names("mmHg") - names("kPa")
    assert not {"pressure_order", "range_hemoglobin"} & names("mmHg", "categorical")


def test_rules_without_their_columns_are_left_out():
    rules = rules_of(Schema("nothing", "test"))
    assert [rule.name for rule in rules] == ["negative_length", "repeated_patient"]


# Rates, intervals and lists.


def bench(found: Patients, train: Patients | None = None, n_resamples=50) -> Bench:
    train = found if train is None else train
    return Bench(train, {"synthetic": found, "test": train}, Effort(n_resamples=n_resamples))


def test_rates_by_brute_force():
    real, found = small_cohort(80), small_cohort(60, seed=1)
    measured = Consistency().measure(bench(Patients(found), Patients(real)), "synthetic")
    table = measured.tables["consistency_rules"].set_index("rule")
    share = {}
    for name, cohort in (("real", real), ("here", found)):
        stays = cohort.stays.sort_values(["subject_id", "stay_index"])
        other, died, gender, dead = [], [], {}, set()
        for row in stays.itertuples():
            if row.subject_id in gender:
                other.append(gender[row.subject_id] != row.gender)
            died.append(row.subject_id in dead)
            gender[row.subject_id] = row.gender
            if row.in_hospital_mortality:
                dead.add(row.subject_id)
        without = ~stays["stay_id"].isin(cohort.codes["stay_id"])
        share[name] = {"stay_after_death": np.mean(died), "no_code": without.mean()}
        assert not any(other)
    for rule, expected in share["here"].items():
        assert table.loc[rule, "share"] == pytest.approx(expected)
        assert table.loc[rule, "real_share"] == pytest.approx(share["real"][rule])
        assert table.loc[rule, "share_low"] <= expected <= table.loc[rule, "share_high"]
    later = (found.stays["stay_index"] > 0).sum()
    assert table.loc["stay_after_death", "items"] == later
    excess = (table["share"] - table["real_share"]).clip(lower=0)
    assert measured.scores["consistency/excess"].value == pytest.approx(excess.sum())
    assert measured.scores["consistency/worst"].value == pytest.approx(excess.max())
    any_rule = measured.scores["consistency/any"].value
    assert table["share"].max() <= any_rule <= table["share"].sum() + 1e-9


def test_the_interval_of_none_is_the_rule_of_three():
    measured = Consistency().measure(bench(Patients(small_cohort(60))), "synthetic")
    score = measured.scores["consistency/codes_demographics"]
    assert (score.value, score.low, score.high) == (0.0, 0.0, 3 / 60)


def test_the_list_is_short_and_has_some_of_every_rule():
    n = 700
    stays = [{"los": -1.0, "sepsis": 1, "age": 130.0 if i == n - 1 else 50.0} for i in range(n)]
    measured = Consistency().measure(bench(patients(stays)), "synthetic")
    records = measured.tables["consistency_records"]
    rules = measured.tables["consistency_rules"].set_index("rule")
    assert len(records) == MAX_RECORDS
    assert (
        records.groupby("rule").size().to_dict() == rules["listed"][rules["listed"] > 0].to_dict()
    )
    assert rules.loc["negative_length", "stays"] == n
    assert rules.loc["negative_length", "listed"] < n
    assert rules.loc["age_range", "listed"] == 1


def test_a_list_entry_tells_how_often(tmp_path):
    rows = [(1, hour, "Heart Rate", 400.0 + hour) for hour in (1.0, 2.0, 3.0)]
    found = compare(
        bench(patients([{}], [(1, DX, "4019")], rows)), [Consistency()], tmp_path, progress=False
    )
    records = found.tables["consistency_records"].query("row == 'synthetic'")
    assert records["detail"].tolist() == ["at 1.00 hours: Heart Rate 401 (and 2 more)"]


# Corruptions and two halves.


@pytest.fixture(scope="module")
def simulated(simulated_folder):
    return halves(read_cohort(simulated_folder), 0)


@pytest.fixture(scope="module")
def few(simulated):
    """Some patients to corrupt, and those that they are compared with."""
    first, second = (
        half.select(subjects=half.stays["subject_id"].unique()[:150]) for half in simulated
    )
    return first, Patients(second)


def scores_of(cohort, reference: Patients) -> dict[str, float]:
    measured = Consistency().measure(bench(Patients(cohort), reference), "synthetic")
    return {name.split("/")[1]: score.value for name, score in measured.scores.items()}


def test_two_halves_have_no_more_faults_than_each_other(simulated):
    first, second = (Patients(half) for half in simulated)
    found = compare(bench(first, second, 200), [Consistency()], progress=False)
    rows = found.scores[found.scores["row"] == "synthetic"].set_index("score")
    assert (rows["light"] == "good").all()
    assert rows["light"].notna().all()
    assert rows.loc["consistency/excess", "low"] == 0
    reference = found.value("consistency/any", "test")
    any_rule = rows.loc["consistency/any"]
    half = (any_rule["high"] - any_rule["low"]) / 2 * np.sqrt(2)
    assert abs(any_rule["value"] - reference) < half * 1.5


def ages_beyond(cohort, dose, rng):
    """At a share of the stays the patient is older than anybody."""
    stays = cohort.stays.copy()
    stays.loc[rng.random(len(stays)) < dose, "age"] += 120.0
    return replace(cohort, stays=stays)


def swapped_sexes(cohort, dose, rng):
    stays = cohort.stays.copy()
    subjects = stays["subject_id"].unique()
    chosen = stays["subject_id"].isin(subjects[rng.random(len(subjects)) < dose])
    stays.loc[chosen, "gender"] = stays.loc[chosen, "gender"].map({"F": "M", "M": "F"})
    return replace(cohort, stays=stays)


def stays_cut(cohort, dose, rng):
    """A share of the stays ends before its last values."""
    stays = cohort.stays.copy()
    chosen = rng.random(len(stays)) < dose
    stays.loc[chosen, "los_hours"] /= 2
    return replace(cohort, stays=stays)


def codes_repeated(cohort, dose, rng):
    stays = cohort.stays["stay_id"].to_numpy()
    chosen = stays[rng.random(len(stays)) < dose]
    codes = pd.concat([cohort.codes, cohort.codes[cohort.codes["stay_id"].isin(chosen)]])
    order = cohort.stays.reset_index().set_index("stay_id")["index"]
    codes = codes.assign(rank=codes["stay_id"].map(order)).sort_values("rank", kind="stable")
    codes["position"] = codes.groupby("stay_id").cumcount().astype(np.int32)
    return replace(cohort, codes=codes.drop(columns="rank").reset_index(drop=True))


def copied_within(cohort, dose, rng):
    return memorised(cohort)(cohort, dose, rng)


@pytest.mark.parametrize(
    ("corrupt", "score"),
    [
        (labels_contradicted, "labels_codes"),
        (ages_beyond, "codes_demographics"),
        (stays_cut, "time"),
        (codes_repeated, "duplicates"),
        (copied_within, "duplicates"),
        (values_shuffled, "physiology"),
    ],
)
def test_faults_raise_their_score_with_the_dose(few, corrupt, score):
    first, second = few
    doses = (0.0, 0.02, 0.1, 0.5)
    found = [scores_of(corrupt(first, d, np.random.default_rng(1)), second) for d in doses]
    values = [scores[score] for scores in found]
    assert values == sorted(values)
    assert len(set(values)) == len(doses)
    excess = [scores["excess"] for scores in found]
    assert excess == sorted(excess)
    scale = Consistency.scales[f"consistency/{score}"]
    reference = scores_of(second.cohort, second)[score]
    assert scale.light(values[-1], reference) == "poor"
    others = set(RULE_GROUPS) - {score, "codes_demographics", "physiology"}
    if corrupt is not copied_within:
        assert all(found[-1][other] == found[0][other] for other in others)


@pytest.fixture(scope="module")
def mimic(demo_cohort):
    return Patients(read_cohort(demo_cohort))


def test_changed_sex_is_seen_in_the_codes(mimic):
    doses = (0.0, 0.5, 1.0)
    found = [swapped_sexes(mimic.cohort, d, np.random.default_rng(0)) for d in doses]
    rates = [scores_of(cohort, mimic)["codes_demographics"] for cohort in found]
    assert rates == sorted(rates)
    assert rates[0] < rates[-1]


def test_real_patients_break_few_rules(mimic):
    """Of MIMIC-III's open demo: what is certain is kept, and pressures disagree now and then."""
    scores = scores_of(mimic.cohort, mimic)
    assert scores["time"] == scores["labels_codes"] == scores["codes_demographics"] == 0
    table = Consistency().measure(bench(mimic), "synthetic").tables["consistency_rules"]
    pressure = table.set_index("rule").loc["pressure_order"]
    assert 0 < pressure["rate"] < 0.02
    assert 0 < pressure["share"] < 0.3


# Any cohort.


@settings(
    max_examples=30, suppress_health_check=[HealthCheck.too_slow, HealthCheck.filter_too_much]
)
@given(cohorts())
def test_any_cohort_can_be_measured(cohort):
    found = Consistency().measure(bench(Patients(cohort), n_resamples=5), "synthetic")
    assert set(found.scores) == set(Consistency.scales)
    for name, score in found.scores.items():
        low, high = Consistency.scales[name].bounds
        assert np.isnan(score.value) or low <= score.low <= score.value <= score.high <= high
    assert found.scores["consistency/excess"].value == 0
    assert np.isnan(found.scores["consistency/labels_codes"].value)
