"""Values of each series: by independent computations, and of cohorts that are off in one way."""

import numpy as np
import pytest
from hypothesis import given, settings
from scipy.stats import ks_2samp, norm, rankdata, wasserstein_distance

from synehrgy.evaluation.metrics.series import Series
from tests.cohorts import cohorts
from tests.evaluation.metrics.timeseries import (
    bench,
    changed,
    check_any,
    check_dose_response,
    check_halves,
    check_same,
    small_bench,
    thirds,
)

METRIC = Series()
CONTINUOUS = ["Heart Rate", "Lactate", "pH"]


@pytest.fixture(scope="module")
def made():
    return small_bench()


@pytest.fixture(scope="module")
def found(made):
    return METRIC.measure(made, "synthetic")


def both_sides(made):
    return [p.cohort.measurements for p in (made.train, made.equal["synthetic"])]


def values_of(rows, name):
    # The grid holds float32.
    return rows.loc[rows["variable"] == name, "value"].to_numpy(np.float32).astype(float)


def test_distances_are_those_of_scipy(made, found):
    one, other = both_sides(made)
    table = found.tables["series_summary"].set_index("series")
    ks, area, many = [], [], []
    for name in CONTINUOUS:
        real, row = values_of(one, name), values_of(other, name)
        ks.append(ks_2samp(real, row).statistic)
        area.append(wasserstein_distance(real, row) / real.std(ddof=1))
        many.append(len(real))
        assert table.loc[name, "ks"] == pytest.approx(ks[-1])
        assert table.loc[name, "wasserstein"] == pytest.approx(area[-1], rel=1e-5)
    score = {name: x.value for name, x in found.scores.items()}
    assert score["series/ks"] == pytest.approx(np.mean(ks))
    assert score["series/ks_worst"] == pytest.approx(np.max(ks))
    assert score["series/ks_weighted"] == pytest.approx(np.average(ks, weights=many))
    assert score["series/wasserstein"] == pytest.approx(np.mean(area), rel=1e-5)
    assert score["series/wasserstein_worst"] == pytest.approx(np.max(area), rel=1e-5)
    assert score["series/wasserstein_weighted"] == pytest.approx(
        np.average(area, weights=many), rel=1e-5
    )


def test_spread_is_that_of_normal_scores(made, found):
    one, other = both_sides(made)
    expected = []
    for name in CONTINUOUS:
        real, row = values_of(one, name), values_of(other, name)
        scores = norm.ppf((rankdata(real) - 0.5) / len(real))
        order = np.argsort(real)
        moved = np.interp(row, real[order], scores[order])
        expected.append(abs(np.log(moved.std() / scores.std())))
    assert found.scores["series/spread"].value == pytest.approx(np.mean(expected), abs=2e-3)


def test_shares_are_those_of_the_tables(made, found):
    table = found.tables["series_summary"].set_index("series")
    levels = found.tables["series_levels"]
    for side, rows in zip(("real", "found"), both_sides(made), strict=True):
        points = len(rows[["stay_id", "hours"]].drop_duplicates())
        by_name = rows.groupby("variable", observed=True)
        assert np.allclose(table[f"missing_{side}"], 1 - by_name.size()[table.index] / points)
        for what in ("mean", "std"):
            expected = by_name["value"].agg(what)[CONTINUOUS]
            column = f"{what.replace('std', 'sd')}_{side}"
            assert np.allclose(table.loc[CONTINUOUS, column], expected, rtol=1e-5)
        shares = rows["level"].value_counts(normalize=True).reindex(levels["level"]).fillna(0)
        assert np.allclose(levels[side], shares)
    off = (table["missing_real"] - table["missing_found"]).abs()
    assert found.scores["series/missing"].value == pytest.approx(off.mean())
    assert found.scores["series/missing_worst"].value == pytest.approx(off.max())
    variation = (levels["real"] - levels["found"]).abs().sum() / 2
    assert found.scores["series/levels"].value == pytest.approx(variation)


def test_stays_without_a_series_and_values_per_stay(made, found):
    never, per_stay = {}, {}
    for side, patients in (("real", made.train), ("found", made.equal["synthetic"])):
        rows = patients.cohort.measurements
        counts = rows.groupby(["stay_id", "variable"], observed=False).size().unstack()
        counts = counts.reindex(patients.stays["stay_id"], fill_value=0)
        never[side], per_stay[side] = (counts == 0).mean(), counts
    off = (never["real"] - never["found"]).abs().mean()
    assert found.scores["series/never"].value == pytest.approx(off)
    one, other = per_stay["real"], per_stay["found"]
    distances = [ks_2samp(one[x], other[x]).statistic for x in one]
    assert found.scores["series/values_per_stay"].value == pytest.approx(np.mean(distances))


def test_histograms_hold_the_middle_of_the_values(made, found):
    table = found.tables["series_histograms"]
    for name, part in table.groupby("series"):
        for side, rows in zip(("real", "found"), both_sides(made), strict=True):
            share = (part[side] * (part["right"] - part["left"])).sum()
            values = values_of(rows, name)
            inside = (values >= part["left"].iloc[0]) & (values <= part["right"].iloc[-1])
            assert share == pytest.approx(inside.mean())
        assert share > 0.9
        assert np.allclose(part["left"].iloc[1:], part["right"].iloc[:-1])


def test_a_missing_series_is_as_far_off_as_can_be(simulated_folder):
    train, other, _ = thirds(simulated_folder)
    gone = changed(other, lambda rows: rows[rows["variable"] != "Heart Rate"])
    found = METRIC.measure(bench(train, gone), "synthetic")
    assert found.scores["series/ks_worst"].value == 1
    assert found.scores["series/missing_worst"].value > 0.5


def of(rows, name):
    return rows["variable"] == name


def shift(rows, sd):
    mine = of(rows, "Creatinine")
    rows.loc[mine, "value"] += sd * rows.loc[mine, "value"].std()
    return rows


def narrow(rows, factor):
    mean = rows.groupby("variable")["value"].transform("mean")
    return rows.assign(value=mean + (rows["value"] - mean) * factor)


def narrow_one(rows, factor):
    mine = of(rows, "Heart Rate")
    rows.loc[mine] = narrow(rows[mine], factor)
    return rows


def one_level(rows, share):
    mine = of(rows, "Glasgow coma scale eye opening")
    chosen = mine & (np.random.default_rng(0).random(len(rows)) < share)
    return rows.assign(level=rows["level"].where(~chosen, "No Response"))


def drop(rows, share, names=("Respiratory rate",)):
    chosen = np.random.default_rng(0).random(len(rows)) < share
    return rows[~(chosen & rows["variable"].isin(names))]


def drop_pressures(rows, share):
    return drop(rows, share, [x for x in rows["variable"].unique() if "pressure" in x])


def drop_all(rows, share):
    return drop(rows, share, rows["variable"].unique())


def drop_series(rows, share):
    """Without a share of all pairs of a stay and a series."""
    pair = rows.groupby(["stay_id", "variable"]).ngroup()
    gone = np.random.default_rng(0).random(pair.max() + 1) < share
    return rows[~gone[pair]]


@pytest.mark.parametrize(
    ("score", "change", "sizes"),
    [
        ("ks_worst", shift, (0.3, 0.6, 1.2)),
        ("wasserstein_worst", shift, (0.5, 1.0, 2.0)),
        ("spread", narrow, (0.9, 0.8, 0.5**0.5)),
        ("spread_worst", narrow_one, (0.8, 0.5**0.5, 0.3)),
        ("ks", narrow, (0.8, 0.6, 0.3)),
        ("levels_worst", one_level, (0.2, 0.5, 0.9)),
        ("missing_worst", drop, (0.1, 0.3, 0.6)),
        ("missing", drop_pressures, (0.1, 0.3, 0.6)),
        ("never", drop_series, (0.1, 0.3, 0.6)),
        ("values_per_stay", drop_all, (0.1, 0.3, 0.5)),
    ],
)
def test_what_is_off_is_seen(simulated_folder, score, change, sizes):
    check_dose_response(METRIC, simulated_folder, f"series/{score}", change, sizes)


def test_parts_of_one_cohort_pass(simulated_folder):
    check_halves(METRIC, simulated_folder)
    check_same(METRIC, simulated_folder)


@settings(max_examples=25)
@given(cohorts())
def test_any_cohorts(cohort):
    check_any(METRIC, cohort)
