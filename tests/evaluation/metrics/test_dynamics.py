"""How series move: by independent computations, and of cohorts that are off in one way."""

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from scipy.stats import f_oneway, ks_2samp

from synehrgy.evaluation.blocks import limits, moments
from synehrgy.evaluation.metrics.dynamics import Dynamics
from tests.cohorts import cohorts
from tests.evaluation.metrics.timeseries import (
    bench,
    changed,
    check_any,
    check_dose_response,
    check_halves,
    check_same,
    thirds,
)

METRIC = Dynamics()
LAGS = [0, 1.5, 3, 6, 12, 36]


@pytest.fixture(scope="module")
def made(simulated_folder):
    train, other, _ = thirds(simulated_folder)
    return bench(train, other)


@pytest.fixture(scope="module")
def found(made):
    return METRIC.measure(made, "synthetic")


def side_rows(made):
    """Real and found measurements with a number for each value and what follows it."""
    names = [v.name for v in made.train.schema.variables]
    low, high = (dict(zip(names, x, strict=True)) for x in limits(made.train))
    for patients in (made.train, made.equal["synthetic"]):
        rows = patients.cohort.measurements.copy()
        for variable in patients.schema.variables_of("categorical"):
            mine = rows["variable"] == variable.name
            rows.loc[mine, "value"] = pd.Index(variable.levels).get_indexer(rows["level"][mine])
        name = rows["variable"].astype(str)
        rows["value"] = rows["value"].clip(name.map(low), name.map(high))
        by_series = rows.groupby(["stay_id", "variable"], observed=True)
        rows["next"], rows["later"] = by_series["value"].shift(-1), by_series["hours"].shift(-1)
        yield rows


def test_autocorrelations_are_those_of_pairs(made, found):
    table = found.tables["dynamics_autocorrelation"].set_index("series")
    for side, rows in zip(("real", "found"), side_rows(made), strict=True):
        rows = rows.dropna(subset="next")
        lag = pd.cut(rows["later"] - rows["hours"], LAGS, right=False, labels=False)
        for name in ("Heart Rate", "Creatinine", "Hematocrit"):
            mine = rows["variable"] == name
            for i, entry in enumerate(table.loc[name].itertuples()):
                pairs = rows[mine & (lag == i)]
                assert getattr(entry, f"pairs_{side}") == len(pairs)
                if len(pairs) > 5:
                    expected = np.corrcoef(pairs["value"], pairs["next"])[0, 1]
                    assert getattr(entry, side) == pytest.approx(expected, abs=1e-4)


def test_individuality_is_the_intraclass_correlation(made, found):
    table = found.tables["dynamics_series"].set_index("series")
    for side, rows in zip(("real", "found"), side_rows(made), strict=True):
        for name in ("Heart Rate", "Creatinine", "Glasgow coma scale eye opening"):
            stays = [
                x.to_numpy() for _, x in rows[rows["variable"] == name].groupby("stay_id")["value"]
            ]
            sizes = np.array([len(x) for x in stays])
            usual = (sizes.sum() - (sizes**2).sum() / sizes.sum()) / (len(sizes) - 1)
            ratio = f_oneway(*stays).statistic
            expected = (ratio - 1) / (ratio + usual - 1)
            assert table.loc[name, f"individuality_{side}"] == pytest.approx(expected, rel=1e-4)


def test_gaps_and_steps_are_compared_as_by_scipy(made, found):
    one, other = side_rows(made)
    gaps, steps = [], {}
    for rows in (one, other):
        points = rows[["stay_id", "hours"]].drop_duplicates()
        gaps.append(points.groupby("stay_id")["hours"].diff().dropna())
    assert found.scores["dynamics/gaps"].value == pytest.approx(ks_2samp(*gaps).statistic)
    names = [v.name for v in made.train.schema.variables]
    unit = dict(zip(names, moments(made.train)[1], strict=True))
    table = found.tables["dynamics_series"].set_index("series")
    for name in ("Heart Rate", "Hemoglobin"):
        steps = [
            ((x["next"] - x["value"]).abs() / unit[name]).round(5)[x["variable"] == name].dropna()
            for x in (one, other)
        ]
        assert table.loc[name, "steps_off"] == pytest.approx(ks_2samp(*steps).statistic, abs=2e-3)


def test_course_is_the_mean_of_each_six_hours(made, found):
    table = found.tables["dynamics_course"]
    for side, rows in zip(("real", "found"), side_rows(made), strict=True):
        mine = rows[(rows["variable"] == "Heart Rate") & (rows["hours"] < 48)]
        expected = mine["value"].groupby(mine["hours"] // 6).agg(["mean", "size"])
        part = table[table["series"] == "Heart Rate"]
        assert np.allclose(part[side], expected["mean"], rtol=1e-5)
        assert (part[f"values_{side}"].to_numpy() == expected["size"]).all()


def test_transitions_are_the_conditional_shares(made, found):
    one, other = side_rows(made)
    table = found.tables["dynamics_series"].set_index("series")
    for variable in made.train.schema.variables_of("categorical"):
        shares = []
        for rows in (one, other):
            mine = rows[rows["variable"] == variable.name].dropna(subset="next")
            levels = range(len(variable.levels))
            counts = pd.crosstab(mine["value"], mine["next"]).reindex(
                index=levels, columns=levels, fill_value=0
            )
            shares.append(counts)
        real, row = (x.div(x.sum(axis=1), axis=0) for x in shares)
        off = ((real - row).abs().sum(axis=1) / 2).where(shares[1].sum(axis=1) > 0, 1.0)
        expected = np.average(off, weights=shares[0].sum(axis=1))
        assert table.loc[variable.name, "transitions_off"] == pytest.approx(expected)
        part = found.tables["dynamics_transitions"]
        part = part[part["series"] == variable.name]
        assert part[["real", "found"]].sum().tolist() == [x.to_numpy().sum() for x in shares]


def test_cells_of_stays_hold_all_stays(found):
    table = found.tables["dynamics_stays"]
    assert np.allclose(table[["real", "found"]].sum(), 1)
    off = (table["real"] - table["found"]).abs().sum() / 2
    assert found.scores["dynamics/length_and_points"].value == pytest.approx(off)
    # Real stays are parted into fifths.
    assert np.allclose(table.groupby("length")["real"].sum(), 0.2, atol=0.02)


def random(rows):
    return np.random.default_rng(0).random(len(rows))


def shuffled(rows, share, keys):
    """A share of the values of a series change places among those that share the keys."""
    chosen = rows[random(rows) < share]
    order = np.random.default_rng(1).permutation(len(chosen))
    from_place = chosen.iloc[order].sort_values(keys, kind="stable").index
    to_place = chosen.sort_values(keys, kind="stable").index
    rows.loc[to_place, ["value", "level"]] = rows.loc[from_place, ["value", "level"]].to_numpy()
    return rows


def in_stays(rows, share):
    return shuffled(rows, share, ["variable", "stay_id"])


def between_stays(rows, share):
    return shuffled(rows, share, ["variable"])


def shake(rows, sd):
    noise = np.random.default_rng(0).normal(size=len(rows))
    return rows.assign(value=rows["value"] * (1 + sd * noise))


def rise(rows, sd):
    """Everything rises in the first 48 hours."""
    # Simulated values have typing errors, which decide a standard deviation.
    middle = [rows.groupby("variable")["value"].transform("quantile", q) for q in (0.16, 0.84)]
    unit = (middle[1] - middle[0]) / 2
    return rows.assign(value=rows["value"] + sd * unit * (rows["hours"].clip(upper=48) / 48))


def thin(rows, share):
    """Without a share of the time points."""
    point = rows.groupby(["stay_id", "hours"]).ngroup()
    gone = np.random.default_rng(0).random(point.max() + 1) < share
    return rows[~gone[point]]


@pytest.mark.parametrize(
    ("score", "change", "sizes"),
    [
        ("autocorrelation", in_stays, (0.1, 0.3, 0.8)),
        ("steps", in_stays, (0.1, 0.3, 1.0)),
        ("steps", shake, (0.03, 0.06, 0.12)),
        ("individuality", between_stays, (0.1, 0.3, 0.6)),
        ("transitions", between_stays, (0.1, 0.3, 0.6)),
        ("course", rise, (0.1, 0.3, 0.6)),
        ("gaps", thin, (0.05, 0.15, 0.4)),
        ("length_and_points", thin, (0.05, 0.15, 0.4)),
    ],
)
def test_what_is_off_is_seen(simulated_folder, score, change, sizes):
    check_dose_response(METRIC, simulated_folder, f"dynamics/{score}", change, sizes)


def test_a_level_by_itself_is_no_course(simulated_folder):
    """A shift of all values changes no score of this metric: others see it."""
    train, other, _ = thirds(simulated_folder)
    moved = changed(other, lambda rows: rows.assign(value=rows["value"] + 8))
    one, two = (METRIC.measure(bench(train, x), "synthetic").scores for x in (other, moved))
    for name in METRIC.scales:
        assert one[name].value == pytest.approx(two[name].value, abs=2e-3), name


def test_parts_of_one_cohort_pass(simulated_folder):
    check_halves(METRIC, simulated_folder)
    check_same(METRIC, simulated_folder)


@settings(max_examples=25)
@given(cohorts())
def test_any_cohorts(cohort):
    check_any(METRIC, cohort)
