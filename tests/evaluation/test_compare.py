"""Each table sees the fault that it is there for."""

import dataclasses

import numpy as np
import pandas as pd
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from synehrgy.cohort import CodeSystem, Covariate, Label, Schema, Variable
from synehrgy.errors import UserError
from synehrgy.evaluation import fidelity
from synehrgy.evaluation.evaluate import compare, summary
from synehrgy.evaluation.report import write_report
from synehrgy.evaluation.validity import broken_rules
from tests.cohorts import SMALL_SCHEMA, build, cohorts, small_cohort

WEIGHTS = {"0389": 0.9, "4019": 0.7, "4280": 0.5, "V5861": 0.3, "E8788": 0.2, "99592": 0.1}


def sample(seed, n=400, shift=0.0, weights=WEIGHTS, lactate=True):
    """Patients of one stay whose codes have different prevalences."""
    rng = np.random.default_rng(seed)
    stays, codes, rows = [], [], []
    for i in range(1, n + 1):
        stays.append([i, i, None, 0, None, rng.uniform(20, 80), "FM"[i % 2], i % 4 == 0, 0, 0, 9.0])
        found = [code for code, p in weights.items() if rng.random() < p]
        codes += [[i, position, "icd9_diagnosis", code] for position, code in enumerate(found)]
        for hour in (1.0, 2.0):
            rows.append([i, hour, "Heart Rate", rng.normal(80 + shift, 10), None])
            if lactate and rng.random() < 0.5:
                rows.append([i, hour, "Lactate", rng.normal(2, 0.2), None])
    return build(SMALL_SCHEMA, stays, codes, rows)


@pytest.fixture(scope="module")
def real():
    return sample(0)


@pytest.fixture(scope="module")
def like(real):
    """Another sample of the same population against the first."""
    return compare(real, sample(1))


def row(table, **where):
    for column, value in where.items():
        table = table[table[column] == value]
    assert len(table) == 1
    return table.iloc[0]


def test_two_samples_of_one_population_look_alike(like):
    assert like.metrics["code_prevalence_r/union"] > 0.98
    assert like.metrics["code_prevalence_r/intersection"] > 0.98
    heart = row(like.tables["series"], variable="Heart Rate")
    assert heart["mean, real"] == pytest.approx(heart["mean, synthetic"], abs=1)
    assert heart["missing, real"] == heart["missing, synthetic"] == 0
    lactate = row(like.tables["series"], variable="Lactate")
    assert lactate["missing, real"] == pytest.approx(0.5, abs=0.06)


def test_a_cohort_against_itself_differs_in_nothing(real):
    found = compare(real, real)
    assert found.metrics["code_prevalence_r/union"] == pytest.approx(1)
    for name in ("counts", "labels", "codes", "levels", "validity"):
        table = found.tables[name]
        assert table["real"].equals(table["synthetic"])


def test_shuffled_codes_lower_the_correlation(real, like):
    shuffled = dict(zip(WEIGHTS, list(WEIGHTS.values())[::-1], strict=True))
    found = compare(real, sample(1, weights=shuffled))
    assert found.metrics["code_prevalence_r/union"] < -0.9
    assert found.metrics["code_prevalence_r/icd9_diagnosis"] < -0.9
    assert like.metrics["code_prevalence_r/icd9_procedure"] is None


def test_missing_and_invented_codes_cost_in_the_union_only(real):
    few = {code: p for code, p in WEIGHTS.items() if code not in ("0389", "4019")} | {"7777": 0.8}
    found = compare(real, sample(1, weights=few))
    assert found.metrics["code_prevalence_r/union"] < 0.3
    assert found.metrics["code_prevalence_r/intersection"] > 0.9
    codes = found.tables["codes"]
    assert row(codes, code="0389")["synthetic"] == 0
    assert row(codes, code="7777")["real"] == 0


def test_prevalence_is_the_share_of_stays_and_counts_a_code_once():
    stays = [[i, i, None, 0, None, 50.0, "F", 0, 0, 0, 1.0] for i in (1, 2, 3, 4)]
    dx, px = "icd9_diagnosis", "icd9_procedure"
    rows = [[1, 0, dx, "A"], [1, 1, dx, "A"], [1, 2, px, "A"], [2, 0, dx, "A"], [3, 0, dx, "B"]]
    one, none = build(SMALL_SCHEMA, stays, rows, []), build(SMALL_SCHEMA, stays, [], [])
    table = fidelity.code_prevalence(one, none)
    assert row(table, system=dx, code="A")["real"] == 0.5
    assert row(table, system=px, code="A")["real"] == 0.25
    assert row(table, system=dx, code="B")["real"] == 0.25
    assert table["real"].is_monotonic_decreasing
    assert (table["synthetic"] == 0).all()


def test_shifted_values_are_seen_in_the_mean_only(real, like):
    found = compare(real, sample(1, shift=15.0))
    heart = row(found.tables["series"], variable="Heart Rate")
    same = row(like.tables["series"], variable="Heart Rate")
    assert heart["mean, synthetic"] - same["mean, synthetic"] == pytest.approx(15)
    assert heart["sd, synthetic"] == pytest.approx(same["sd, synthetic"])
    assert heart["missing, synthetic"] == 0


def test_a_dropped_series_is_seen_in_its_missing_rate(real):
    table = compare(real, sample(1, lactate=False)).tables["series"]
    lactate = row(table, variable="Lactate")
    assert lactate["missing, synthetic"] == 1
    assert np.isnan(lactate["mean, synthetic"])
    assert table["variable"].tolist() == [v.name for v in SMALL_SCHEMA.variables]
    assert row(table, variable="pH")["missing, real"] == 1


def test_labels_and_covariates_are_shares_of_stays(real):
    table = compare(real, real).tables["labels"]
    assert row(table, fact="In-hospital mortality")["real"] == 0.25
    assert row(table, fact="gender = F")["real"] == 0.5
    assert row(table, fact="Shock")["real"] == 0
    assert row(table, fact="age (mean)")["real"] == pytest.approx(real.stays["age"].mean())


def test_labels_of_one_title_stay_apart():
    labels = [Label("a", "Shock", "outcome"), Label("b", "Shock", "phenotype")]
    schema = Schema("s", "test", labels=labels)
    one = build(schema, [[1, 1, None, 0, None, 1, 0, None]], [], [])
    table = compare(one, one).tables["labels"]
    assert table["fact"].tolist() == ["Shock", "Shock"]
    assert table["real"].tolist() == [1.0, 0.0]


def test_sizes_add_up():
    stays = [stay(1), stay(2, index=1, age=51.0, los=None)]
    codes = [[1, 0, "icd9_diagnosis", "A"], [1, 1, "icd9_diagnosis", "B"]]
    rows = [[1, 0.0, "Heart Rate", 1.0, None], [1, 0.0, "pH", 7.0, None], [2, 0.0, "pH", 7.0, None]]
    cohort = build(SMALL_SCHEMA, stays, codes, rows)
    found = dict(fidelity.counts(cohort, cohort)[["quantity", "real"]].itertuples(index=False))
    assert found == {
        **{"patients": 1, "stays": 2, "codes": 2, "measurements": 3, "time_points": 2},
        **{"stays per patient": 2, "codes per stay": 1},
        **{"time points per stay": 1, "values per time point": 1.5},
    }


def test_levels_are_shares_of_the_values_of_their_series():
    stays = [[1, 1, None, 0, None, 50.0, "F", 0, 0, 0, 1.0]]
    rows = [[1, h, "Glasgow coma scale total", None, x] for h, x in ((0.0, "3"), (1.0, "15"))]
    rows += [[1, 2.0, "Glasgow coma scale total", None, "15"], [1, 2.0, "pH", 7.4, None]]
    rows += [[1, 3.0, "Glasgow coma scale total", None, "15"]]
    cohort = build(SMALL_SCHEMA, stays, [], rows)
    table = fidelity.levels(cohort, cohort)
    assert len(table) == 13
    assert row(table, level="15")["real"] == 0.75
    assert row(table, level="3")["synthetic"] == 0.25
    assert table["real"].sum() == 1


@pytest.mark.parametrize(
    ("real", "synthetic", "union", "intersection"),
    [
        ([0.1, 0.2, 0.3], [0.2, 0.4, 0.6], 1, 1),
        ([0.1, 0.2, 0.3], [0.3, 0.2, 0.1], -1, -1),
        # Equal prevalences have no correlation, whatever rounding makes of their deviation.
        ([0.1, 0.1, 0.1], [0.1, 0.2, 0.3], None, None),
        ([0.3, 0.3, 0.3], [0.3, 0.3, 0.3], None, None),
        ([0.1], [0.1], None, None),
        ([], [], None, None),
        ([0.5, 0.0], [0.0, 0.5], -1, None),
    ],
)
def test_correlation_is_defined_or_none(real, synthetic, union, intersection):
    found = fidelity.correlation(pd.DataFrame({"real": real, "synthetic": synthetic}, dtype=float))
    assert found["union"] == (union if union is None else pytest.approx(union))
    assert found["intersection"] == (
        intersection if intersection is None else pytest.approx(intersection)
    )


def broken(stays, codes=(), rows=()):
    cohort = build(SMALL_SCHEMA, stays, codes, rows)
    found = compare(cohort, cohort).tables["validity"]
    assert found["real"].equals(found["synthetic"])
    return dict(found[["rule", "real"]].itertuples(index=False))


def stay(stay_id, subject=1, index=0, age=50.0, los=10.0):
    return [subject, stay_id, None, index, None, age, "F", 0, 0, 0, los]


def test_stays_without_codes_or_measurements_are_seen():
    stays = [stay(1), stay(2, 2), stay(3, 3), stay(4, 4)]
    codes = [[1, 0, "icd9_diagnosis", "A"]]
    rows = [[1, 0.0, "pH", 7.4, None], [2, 0.0, "pH", 7.4, None]]
    found = broken(stays, codes, rows)
    assert found["no code"] == 0.75
    assert found["no measurement"] == 0.5


def test_repeated_codes_are_seen():
    dx, px = "icd9_diagnosis", "icd9_procedure"
    codes = [[1, 0, dx, "A"], [1, 1, dx, "B"], [1, 2, dx, "A"], [2, 0, dx, "A"], [2, 1, px, "A"]]
    assert broken([stay(1), stay(2, 2)], codes)["the same code twice"] == 0.5


def test_labels_at_odds_with_their_codes_are_seen():
    septicemia = dataclasses.replace(
        SMALL_SCHEMA.labels[1], system="icd9_diagnosis", codes=["0389", "99592"]
    )
    labels = [SMALL_SCHEMA.labels[0], septicemia, SMALL_SCHEMA.labels[2]]
    schema = dataclasses.replace(SMALL_SCHEMA, labels=labels)
    stays = [stay(i, i) for i in range(1, 6)]
    for i in (0, 1, 2):
        stays[i][8] = 1
    # With the label: a defining code, another code, the same code of another system.
    codes = [[1, 0, "icd9_diagnosis", "0389"], [2, 0, "icd9_diagnosis", "4019"]]
    codes += [[3, 0, "icd9_procedure", "0389"], [4, 0, "icd9_diagnosis", "99592"]]
    cohort = build(schema, stays, codes, [])
    share = broken_rules(cohort, cohort).set_index("rule")["real"]
    assert share["a label without any of the codes that define it"] == 0.4
    assert share["a code that defines a label without the label"] == 0.2
    assert "a label without any of the codes that define it" not in broken(stays, codes)


def test_values_after_the_end_of_the_stay_are_seen():
    # At the end, after the end, no end known, no value.
    stays = [stay(1), stay(2, 2), stay(3, 3, los=None), stay(4, 4)]
    rows = [[i, hours, "pH", 7.4, None] for i, hours in ((1, 10.0), (2, 10.5), (3, 99.0))]
    assert broken(stays, (), rows)["a value after the end of the stay"] == 0.25


def test_patients_who_grow_younger_are_seen():
    rule = "younger than at an earlier stay"
    assert broken([stay(1, age=60.0), stay(2, index=1, age=59.0)])[rule] == 0.5
    # Other patients and unknown ages are no reason.
    unknown = [stay(2, index=1, age=None)]
    assert broken([stay(1, age=60.0), *unknown, stay(3, 2, age=40.0)])[rule] == 0


def test_patients_whose_sex_changes_are_seen():
    rule = "other gender than at the stay before"
    other = [*stay(2, index=1)[:6], "M", *stay(2)[7:]]
    unknown = [*stay(2, index=1)[:6], None, *stay(2)[7:]]
    assert broken([stay(1), other])[rule] == 0.5
    assert broken([stay(1), unknown])[rule] == 0
    assert broken([stay(1), stay(2, index=1), stay(3, 3)])[rule] == 0


def test_patients_who_come_back_from_death_are_seen():
    rule = "a stay after a death in hospital"
    dead = [*stay(1)[:7], 1, *stay(1)[8:]]
    assert broken([dead, stay(2, index=1)])[rule] == 0.5
    assert broken([dead, stay(2, 2)])[rule] == 0
    assert broken([stay(1), stay(2, index=1)])[rule] == 0


def test_age_in_levels_is_not_compared():
    schema = Schema(
        "s", "test", covariates=[Covariate("age", "categorical", levels=["old", "new"])]
    )
    cohort = build(schema, [[1, i, None, i, None, "old", None] for i in range(2)], [], [])
    rules = compare(cohort, cohort).tables["validity"]["rule"]
    assert "younger than at an earlier stay" not in rules.tolist()


@pytest.mark.parametrize(
    ("part", "change"),
    [
        ("covariates", {"covariates": []}),
        ("labels", {"labels": SMALL_SCHEMA.labels[:1]}),
        ("variables", {"variables": SMALL_SCHEMA.variables[::-1]}),
        ("code systems", {"code_systems": []}),
    ],
)
def test_cohorts_of_other_schemas_cannot_be_compared(real, part, change):
    other = dataclasses.replace(real, schema=dataclasses.replace(real.schema, **change))
    with pytest.raises(UserError, match=f"declare other {part}, so they cannot be compared"):
        compare(real, other)


def test_a_cohort_without_stays_cannot_be_compared(real):
    empty = real.select(subjects=[])
    for pair in ((real, empty), (empty, real)):
        with pytest.raises(UserError, match="has no stay to compare"):
            compare(*pair)


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(cohort=cohorts(), data=st.data())
def test_any_cohort_can_be_compared_with_a_part_of_it(cohort, data):
    subjects = cohort.stays["subject_id"].unique().tolist()
    part = data.draw(st.lists(st.sampled_from(subjects), min_size=1, unique=True))
    found = compare(cohort, cohort.select(subjects=part))
    for name in ("counts", "labels", "codes", "levels", "validity"):
        table = found.tables[name]
        assert list(table.columns[-2:]) == ["real", "synthetic"]
        assert table[["real", "synthetic"]].dtypes.map(pd.api.types.is_float_dtype).all()
    for name in ("codes", "levels", "validity"):
        assert found.tables[name][["real", "synthetic"]].stack().between(0, 1).all()
    assert len(found.tables["series"]) == len(cohort.schema.variables)
    assert summary(found).startswith("any (synthetic) against any, all (real)")


@settings(max_examples=3, deadline=None)
@given(cohort=cohorts())
def test_any_cohort_has_a_report(cohort, tmp_path_factory):
    file = tmp_path_factory.mktemp("report") / "report.html"
    write_report(file, compare(cohort, cohort))
    assert file.read_text(encoding="utf-8").rstrip().endswith("</html>")


@pytest.mark.filterwarnings("error")
def test_names_that_mean_something_to_matplotlib_or_html_are_text(tmp_path):
    schema = Schema(
        "<b>bold</b> & co",
        "test",
        variables=[Variable("$x_{", "continuous"), Variable("a $ b $", "continuous")],
        code_systems=[CodeSystem("_hidden", "<i>"), CodeSystem("$s_$", "S")],
    )
    codes = [[1, 0, "_hidden", "<script>"], [1, 1, "$s_$", "$"]]
    rows = [[1, 1.0, "$x_{", 3.0, None], [1, 2.0, "$x_{", 4.0, None]]
    cohort = build(schema, [[1, 1, None, 0, None, 5.0]], codes, rows)
    write_report(tmp_path / "report.html", compare(cohort, cohort))
    text = (tmp_path / "report.html").read_text(encoding="utf-8")
    assert "&lt;b&gt;bold&lt;/b&gt; &amp; co" in text
    assert "<b>bold" not in text
    assert "<script>" not in text


def test_small_cohorts_differ_in_what_their_seed_made():
    found = compare(small_cohort(20), small_cohort(20, seed=1), split="test")
    assert found.split == "test"
    assert not found.tables["counts"]["real"].equals(found.tables["counts"]["synthetic"])
