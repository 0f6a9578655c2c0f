"""What the values of one time point have in common is found, kept, and nothing else is changed."""

from graphlib import CycleError, TopologicalSorter

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from synehrgy.cohort import Cohort, Schema, Variable
from synehrgy.settings import TokenSettings
from synehrgy.tokenizer import Tokenizer, decode, encode
from synehrgy.tokenizer.relations import FEWEST_POINTS, HOLDS, Relations, Total, _without_circles
from tests.cohorts import cohorts

LEVELS = [str(i) for i in range(7)]


def cohort_of(tables, n_stays=4, unit="mmHg"):
    """Stays whose time points have these values: series to values, None for none."""
    n = len(next(iter(tables.values())))
    numeric = {name: all(not isinstance(x, str) for x in column) for name, column in tables.items()}
    variables = [
        Variable(name, "continuous", unit=unit)
        if numeric[name]
        else Variable(name, "categorical", levels=LEVELS)
        for name in tables
    ]
    rows = pd.DataFrame(tables).reset_index(names="point").melt("point", var_name="variable")
    rows = rows.dropna(subset="value").sort_values(["point", "variable"], ignore_index=True)
    is_number = rows["variable"].map(numeric)
    stay = rows["point"] * n_stays // n
    measurements = pd.DataFrame(
        {
            "stay_id": stay + 1,
            "hours": (rows["point"] + 1.0),
            "variable": rows["variable"].astype("category"),
            "value": pd.to_numeric(rows["value"].where(is_number), errors="coerce"),
            "level": rows["value"].where(~is_number).astype("category"),
        }
    )
    stays = pd.DataFrame(
        {
            "subject_id": np.arange(n_stays) + 1,
            "stay_id": np.arange(n_stays) + 1,
            "hadm_id": pd.array([pd.NA] * n_stays, dtype="Int64"),
            "stay_index": np.zeros(n_stays, dtype=np.int32),
            "split": pd.Series(["train"] * n_stays, dtype="object"),
            "los_hours": np.full(n_stays, n + 2.0),
        }
    )
    codes = pd.DataFrame(
        {
            "stay_id": np.zeros(0, np.int64),
            "position": np.zeros(0, np.int32),
            "system": pd.Categorical([]),
            "code": pd.Categorical([]),
        }
    )
    return Cohort(Schema("test", "test", variables=variables), stays, codes, measurements)


def pressures(n=600, wrong=0, seed=0):
    """Three pressures in their order, but for some time points."""
    rng = np.random.default_rng(seed)
    low = rng.uniform(40, 90, n)
    middle, high = low + rng.uniform(0, 25, n), low + rng.uniform(25, 60, n)
    low[:wrong], high[:wrong] = high[:wrong], low[:wrong].copy()
    return {"low": low.round(), "middle": middle.round(), "high": high.round()}


def test_orders_that_hold_are_found():
    found = Relations.fit(cohort_of(pressures()))
    assert ("low", "middle") in found.orders
    assert ("middle", "high") in found.orders
    assert ("high", "low") not in found.orders
    assert not found.totals


def test_orders_that_break_too_often_or_are_rarely_seen_are_none():
    n = 600
    most = int(n * (1 - HOLDS))
    assert ("low", "middle") in Relations.fit(cohort_of(pressures(n, wrong=most))).orders
    broken = Relations.fit(cohort_of(pressures(n, wrong=3 * most + 3))).orders
    assert ("low", "middle") not in broken
    assert Relations.fit(cohort_of(pressures(FEWEST_POINTS - 1))).orders == []
    assert Relations.fit(cohort_of(pressures(), unit=None)).orders == []


def test_an_order_that_chance_would_not_break_says_nothing():
    rng = np.random.default_rng(0)
    apart = {"low": rng.uniform(0, 1, 600).round(2), "high": rng.uniform(5, 9, 600).round(2)}
    assert Relations.fit(cohort_of(apart)).orders == []


def test_series_that_are_nearly_always_equal_have_no_order():
    one = np.random.default_rng(0).integers(50, 90, 600).astype(float)
    other = one.copy()
    other[:2], other[2:4] = one[:2] + 1, one[2:4] - 1
    # Either would be below the other, and exchanging the two would never end.
    assert Relations.fit(cohort_of({"one": one, "other": other})).orders == []


@given(st.sets(st.tuples(st.sampled_from("abcde"), st.sampled_from("abcde")), max_size=20))
def test_no_order_comes_back_to_where_it_began(pairs):
    pairs = sorted((low, high) for low, high in pairs if low != high)
    kept = _without_circles(pairs)
    assert set(kept) <= set(pairs)
    assert _is_acyclic(kept)
    if _is_acyclic(pairs):
        assert kept == pairs


def _is_acyclic(pairs):
    graph = {name: {low for low, high in pairs if high == name} for name in "abcde"}
    try:
        TopologicalSorter(graph).prepare()
    except CycleError:
        return False
    return True


def parts_and_total(n=600, wrong=0, seed=0):
    rng = np.random.default_rng(seed)
    one, two = rng.integers(0, 3, n), rng.integers(0, 4, n)
    total = one + two
    total[:wrong] = (total[:wrong] + 1) % 6
    other = rng.integers(0, 2, n)
    return {
        name: [str(x) for x in column]
        for name, column in {"a": one, "b": two, "other": other, "total": total}.items()
    }


def with_levels(cohort, levels):
    """The same with only so many levels of some series, as charts have them."""
    variables = [
        Variable(v.name, v.kind, levels=LEVELS[: levels[v.name]]) if v.name in levels else v
        for v in cohort.schema.variables
    ]
    schema = Schema("test", "test", variables=variables)
    return Cohort(schema, cohort.stays, cohort.codes, cohort.measurements)


def test_a_total_is_found_with_its_parts():
    cohort = with_levels(cohort_of(parts_and_total(wrong=2)), {"a": 3, "b": 4, "other": 2})
    (total,) = Relations.fit(cohort).totals
    assert total.series == "total"
    assert set(total.parts) == {"a", "b", "other"}
    for line in total.levels:
        parts = dict(zip(total.parts, line[:-1], strict=True))
        assert int(line[-1]) == int(parts["a"]) + int(parts["b"])
    assert not Relations.fit(cohort_of(parts_and_total(wrong=60))).totals


def test_json_gives_the_same_relations():
    tables = pressures() | parts_and_total()
    found = Relations.fit(with_levels(cohort_of(tables), {"a": 3, "b": 4, "other": 2}))
    assert found.orders
    assert found.totals
    assert Relations.from_json(found.to_json()) == found


NAMES = ["low", "middle", "high", "free", "a", "b", "total"]
SOME = Relations(
    [("low", "middle"), ("middle", "high"), ("low", "high")],
    [Total("total", ["a", "b"], [["0", "0", "0"], ["0", "1", "1"], ["1", "1", "2"]])],
)


@st.composite
def drawn_values(draw):
    """Values of some time points, each series at most once in each."""
    point, series, value, level = [], [], [], []
    for i in range(draw(st.integers(0, 12))):
        for number, name in enumerate(NAMES):
            if not draw(st.booleans()):
                continue
            point.append(i)
            series.append(number)
            is_level = name in ("a", "b", "total")
            value.append(np.nan if is_level else draw(st.floats(-1e6, 1e6)))
            level.append(draw(st.integers(0, 3)) if is_level else -1)
    order = draw(st.permutations(range(len(point))))
    arrays = (
        np.array(point, np.int64),
        np.array(series, np.int64),
        np.array(value, np.float64),
        np.array(level, np.int64),
    )
    return tuple(array[list(order)] for array in arrays)


@settings(max_examples=200, deadline=None)
@given(drawn_values())
def test_what_is_settled_keeps_to_the_relations_and_changes_nothing_else(drawn):
    point, series, value, level = drawn
    new_value, new_level = SOME.settle(NAMES, LEVELS, point, series, value, level)
    before = pd.DataFrame({"point": point, "series": series, "value": value, "level": level})
    after = before.assign(value=new_value, level=new_level)
    for (_, was), (_, now) in zip(before.groupby("point"), after.groupby("point"), strict=True):
        was, now = was.set_index("series"), now.set_index("series")
        ordered = [i for i in (0, 1, 2) if i in now.index]
        assert now["value"].loc[ordered].is_monotonic_increasing
        assert sorted(now["value"].loc[ordered]) == sorted(was["value"].loc[ordered])
        if was["value"].loc[ordered].is_monotonic_increasing:
            assert now["value"].loc[ordered].equals(was["value"].loc[ordered])
        rest = now.index.isin([3, 4, 5])
        assert now[rest].equals(was[rest])
        if 6 in now.index:
            parts = tuple(int(now["level"].get(i, -1)) for i in (4, 5))
            says = {(0, 0): 0, (0, 1): 1, (1, 1): 2}.get(parts, int(was.loc[6, "level"]))
            assert now.loc[6, "level"] == says


@settings(max_examples=20, deadline=None)
@given(cohort=cohorts())
def test_small_cohorts_have_no_relations_and_real_patients_come_back_as_they_were(cohort):
    tokenizer = Tokenizer.fit(cohort, TokenSettings(rare_codes="keep", covariate_edges={}))
    assert tokenizer.relations == Relations()


@pytest.mark.parametrize("how", ["empirical", "uniform"])
def test_patients_are_settled_where_asked_for(how):
    tables = pressures(2000)
    cohort = cohort_of(tables)
    tokenizer = Tokenizer.fit(cohort, TokenSettings(n_bins=4))
    records = encode(tokenizer, cohort)

    def broken(**options):
        rows = decode(tokenizer, records, value_decoding=how, **options).measurements
        wide = rows.pivot(index=["stay_id", "hours"], columns="variable", values="value")
        return ((wide["low"] > wide["middle"]) | (wide["middle"] > wide["high"])).mean(), wide

    # Drawn inside wide bins, pressures of real patients contradict each other now and then.
    left, as_drawn = broken()
    assert left > 0.01
    none, settled = broken(settle=True)
    assert none == 0
    # Nobody gains or loses a value, and no time point other ones.
    assert np.array_equal(np.sort(as_drawn, axis=1), np.sort(settled, axis=1))


def test_relations_of_the_simulated_hospital(simulated_folder):
    from synehrgy.cohort import read_cohort

    found = Relations.fit(read_cohort(simulated_folder).select(split="train"))
    assert ("Diastolic blood pressure", "Mean blood pressure") in found.orders
    assert ("Mean blood pressure", "Systolic blood pressure") in found.orders
    assert "Glasgow coma scale total" in [total.series for total in found.totals]
