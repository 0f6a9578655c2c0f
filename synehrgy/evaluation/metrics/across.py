"""Whether facts of different types hang together as in real stays: who has what, and measured how.

A stay is described by covariates, labels, its most frequent codes, and of each series the mean and
how often it was measured. Every pair of features of different types, and of labels and covariates
among themselves, has a Pearson correlation over stays: point-biserial if one of them is yes or no,
phi if both are. Correlations of codes with codes and of series with series are left to the metrics
of codes and of series.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from synehrgy.evaluation.kept import kept
from synehrgy.evaluation.metric import TEST, Bench, Found, Metric, Scale, Score
from synehrgy.evaluation.patients import Floats, Patients

COVARIATE, LABEL, CODE, MEAN, COUNT = "covariate", "label", "code", "mean", "count"

# Codes that are looked at: the most frequent of train, in at least so many of its stays.
_MAX_CODES = 20
_MIN_STAYS = 20

# Stays that must have both features, and that the rarer side of a yes or no must have.
_MIN_PAIRS = 50
_MIN_EITHER = 10

# Parts of patients of which each is left out once.
_PARTS = 40

# From here on, a real association is one that a clinician would expect to find.
_STRONG = 0.2

# Columns of the first and of the second feature of each pair.
Pairs = tuple[NDArray[np.int64], NDArray[np.int64]]


@dataclass(frozen=True)
class Features:
    """What stays are described by.

    Attributes:
        kinds, names: of the columns.
        values: [stays, features], NaN where there is none.
    """

    kinds: NDArray[np.str_]
    names: list[str]
    values: Floats


def features(patients: Patients, codes: pd.Index) -> Features:
    """Describe stays.

    Args:
        patients: whose stays.
        codes: that are looked at, as "system:code".
    """
    stays, schema = patients.stays, patients.schema
    columns: list[tuple[str, str, Floats]] = []
    for covariate in schema.covariates:
        if covariate.kind == "continuous":
            values = stays[covariate.name].to_numpy(np.float64)
            columns.append((COVARIATE, covariate.name, values))
            continue
        # Of two levels one says it all.
        levels = covariate.levels[1:] if len(covariate.levels) == 2 else covariate.levels
        missing = stays[covariate.name].isna().to_numpy()
        for level in levels:
            has = (stays[covariate.name] == level).to_numpy(np.float64)
            name = f"{covariate.name} = {level}"
            columns.append((COVARIATE, name, np.where(missing, np.nan, has)))
    for label in schema.labels:
        columns.append((LABEL, label.column, stays[label.column].to_numpy(np.float64)))
    if len(codes):
        has_code = patients.presence(codes).toarray().astype(np.float64)
        columns += [(CODE, code, has_code[:, i]) for i, code in enumerate(codes)]
    means, counts = _summaries(patients)
    for i, variable in enumerate(schema.variables):
        # Few values more matter where there are few, and long stays have very many.
        columns.append((MEAN, variable.name, means[:, i]))
        columns.append((COUNT, variable.name, np.log1p(counts[:, i])))
    # By type, so that those of one stand together.
    order = [COVARIATE, LABEL, CODE, MEAN, COUNT]
    columns.sort(key=lambda column: order.index(column[0]))
    kinds = np.array([kind for kind, _, _ in columns], dtype=str)
    table = np.array([of for _, _, of in columns], dtype=np.float64).reshape(
        len(columns), len(stays)
    )
    return Features(kinds, [name for _, name, _ in columns], table.T)


@kept
def _summaries(patients: Patients) -> tuple[Floats, Floats]:
    """Mean (of a level its number) and number of values of each series: [stays, series] each."""
    grid = patients.grid
    counts, totals = np.zeros((2, len(patients.stays), grid.values.shape[1]))
    starts = np.flatnonzero(np.diff(grid.stay, prepend=-1))
    if len(starts):
        seen = grid.stay[starts]
        counts[seen] = np.add.reduceat(grid.observed, starts, dtype=np.int64)
        totals[seen] = np.add.reduceat(np.nan_to_num(grid.values), starts, dtype=np.float64)
    means = np.divide(totals, counts, out=np.full(counts.shape, np.nan), where=counts > 0)
    return means, counts


def frequent_codes(patients: Patients) -> pd.Index:
    """The most frequent codes, in stays, the most frequent first."""
    counts = patients.coded.drop_duplicates()["code"].value_counts()
    counts = counts[counts >= _MIN_STAYS].sort_index().sort_values(ascending=False, kind="stable")
    return pd.Index(counts.index[:_MAX_CODES], dtype=object)


def pairs_of(kinds: NDArray[np.str_]) -> Pairs:
    """The pairs of features that are looked at."""
    first, second = np.triu_indices(len(kinds), 1)
    one, other = kinds[first], kinds[second]
    series = (MEAN, COUNT)
    within = (one == other) & ~np.isin(one, (COVARIATE, LABEL))
    keep = ~within & ~(np.isin(one, series) & np.isin(other, series))
    return first[keep].astype(np.int64), second[keep].astype(np.int64)


def pearson(sums: Floats) -> Floats:
    """Correlations from sums over stays.

    Args:
        sums: [6, ...]: how many stays have both features, and over these the sums of the first,
            of the second, of their squares and of their product.

    Returns:
        [...]; NaN where fewer than 10 stays have both or one of them does not vary.
    """
    n, x, y, xx, yy, xy = sums
    with np.errstate(invalid="ignore", divide="ignore"):
        of_x, of_y = xx / n - (x / n) ** 2, yy / n - (y / n) ** 2
        found = (xy / n - x * y / n**2) / np.sqrt(of_x * of_y)
    # What is left of a constant is rounding.
    varies = (n >= _MIN_EITHER) & (of_x > 1e-9) & (of_y > 1e-9)
    return np.where(varies, np.clip(found, -1.0, 1.0), np.nan)


def sums_by_part(patients: Patients, values: Floats, pairs: Pairs) -> Floats:
    """The sums that ``pearson`` needs, of disjoint parts of the patients: [parts, 6, pairs]."""
    n_parts = min(_PARTS, len(patients))
    part = np.random.default_rng(0).permutation(len(patients))[patients.patient] % n_parts
    first, second = pairs
    found = np.zeros((n_parts, 6, len(first)))
    for k in range(n_parts):
        mine = values[part == k]
        known = (~np.isnan(mine)).astype(np.float64)
        mine = np.nan_to_num(mine)
        both, total, squares = known.T @ known, mine.T @ known, (mine * mine).T @ known
        found[k, 0] = both[first, second]
        found[k, 1], found[k, 2] = total[first, second], total[second, first]
        found[k, 3], found[k, 4] = squares[first, second], squares[second, first]
        found[k, 5] = (mine.T @ mine)[first, second]
    return found


def jackknifed(value: float, without: Sequence[Floats], bounds: tuple[float, float]) -> Score:
    """A score with the normal interval of the delete-a-group jackknife.

    A bootstrap of all the correlations would take too long (Kott, Journal of Official Statistics
    17, 2001).

    Args:
        value: of all patients.
        without: of each independent sample, the values without each of its parts.
        bounds: that the interval may not cross.
    """
    variance = 0.0
    for values in without:
        values = values[~np.isnan(values)]
        if len(values) < 2 or np.isnan(value):
            return Score(value)
        variance += (len(values) - 1) * float(values.var())
    half = 1.96 * variance**0.5
    return Score(value, max(value - half, bounds[0]), min(value + half, bounds[1]))


@dataclass(frozen=True)
class _Real:
    """The real side of the comparison.

    Attributes:
        codes: that are looked at.
        limits, center, scale: of each feature, what it is clipped to and then measured by.
        pairs: that have enough stays.
        kinds, names: of the features.
        sums: of these pairs.
    """

    codes: pd.Index
    limits: tuple[Floats, Floats]
    center: Floats
    scale: Floats
    pairs: Pairs
    kinds: NDArray[np.str_]
    names: list[str]
    sums: Floats


@kept
def _real(patients: Patients) -> _Real:
    codes = frequent_codes(patients)
    found = features(patients, codes)
    low, high, center, scale = (np.zeros(len(found.names)) for _ in range(4))
    scale[:] = 1.0
    yes_no = np.zeros(len(found.names), dtype=bool)
    for i, values in enumerate(found.values.T):
        known = values[~np.isnan(values)]
        yes_no[i] = bool(np.isin(known, (0.0, 1.0)).all())
        if yes_no[i]:
            high[i] = 1.0
        else:
            # A few wild values would be all that a correlation sees.
            low[i], high[i] = np.quantile(known, [0.005, 0.995])
            known = np.clip(known, low[i], high[i])
            center[i], scale[i] = known.mean(), known.std() or 1.0
    limits = (low, high)
    values = (np.clip(found.values, *limits) - center) / scale
    pairs = pairs_of(found.kinds)
    sums = sums_by_part(patients, values, pairs)
    total = sums.sum(axis=0)
    enough = (total[0] >= _MIN_PAIRS) & ~np.isnan(pearson(total))
    for side, ones in ((pairs[0], total[1]), (pairs[1], total[2])):
        rarer = np.minimum(ones, total[0] - ones)
        enough &= ~yes_no[side] | (rarer >= _MIN_EITHER)
    pairs = (pairs[0][enough], pairs[1][enough])
    return _Real(codes, limits, center, scale, pairs, found.kinds, found.names, sums[:, :, enough])


def _correlations(sums: Floats) -> tuple[Floats, Floats]:
    """Of all patients, [pairs], and of all without each part, [parts, pairs]; else 0."""
    total = sums.sum(axis=0)
    found = pearson(total), pearson((total - sums).transpose(1, 0, 2))
    return np.nan_to_num(found[0]), np.nan_to_num(found[1])


def _difference(real: Floats, here: Floats) -> Floats:
    """Mean absolute difference over pairs, the last axis."""
    if not real.shape[-1]:
        return np.full(np.broadcast(real, here).shape[:-1], np.nan)
    return np.asarray(np.abs(real - here).mean(axis=-1))


def _agreement(real: Floats, here: Floats) -> Floats:
    """Pearson correlation over pairs, the last axis; 0 if one side is the same everywhere."""
    if real.shape[-1] < 2:
        return np.full(np.broadcast(real, here).shape[:-1], np.nan)
    one, other = (x - x.mean(axis=-1, keepdims=True) for x in (real, here))
    spread = np.sqrt((one**2).sum(axis=-1) * (other**2).sum(axis=-1))
    product = (one * other).sum(axis=-1)
    return np.divide(product, spread, out=np.zeros_like(product), where=spread > 1e-12)


class Across(Metric):
    """Correlations of covariates, labels, codes and series with each other."""

    name = "across"
    title = "Associations across types"
    group = "fidelity"
    scales = {
        "across/difference": Scale(
            "Associations, difference",
            "Mean absolute difference of the correlations between facts of different types.",
            "low",
            (0.0, 2.0),
            TEST,
            0.01,
            0.03,
        ),
        "across/strong": Scale(
            "Strong associations, difference",
            "Mean absolute difference of the correlations that are clearly there in real stays "
            "(0.2 or more either way).",
            "low",
            (0.0, 2.0),
            TEST,
            0.03,
            0.1,
        ),
        "across/agreement": Scale(
            "Associations, agreement",
            "How alike the pattern of correlations between facts of different types is to the real "
            "one: the correlation of the two, 1 for the same pattern.",
            "high",
            (-1.0, 1.0),
            TEST,
            0.05,
            0.2,
        ),
    }

    def measure(self, bench: Bench, row: str) -> Found:
        """Compare equally many patients of each row with all of train."""
        patients, real = bench.equal[row], _real(bench.train)
        found = features(patients, real.codes)
        values = (np.clip(found.values, *real.limits) - real.center) / real.scale
        sums = sums_by_part(patients, values, real.pairs)
        known, knowns = _correlations(real.sums)
        here, heres = _correlations(sums)
        strong = np.abs(known) >= _STRONG
        scores = {}
        for name, of, mask in (
            ("difference", _difference, np.ones(len(known), dtype=bool)),
            ("strong", _difference, strong),
            ("agreement", _agreement, np.ones(len(known), dtype=bool)),
        ):
            full = f"across/{name}"
            one, other = known[mask], here[mask]
            without = (of(knowns[:, mask], other), of(one, heres[:, mask]))
            scores[full] = jackknifed(float(of(one, other)), without, self.scales[full].bounds)
        first, second = real.pairs
        table = pd.DataFrame(
            {
                "kind_a": real.kinds[first],
                "a": [real.names[i] for i in first],
                "kind_b": real.kinds[second],
                "b": [real.names[i] for i in second],
                "stays": sums.sum(axis=0)[0].astype(np.int64),
                "real": known,
                "here": here,
            }
        )
        return Found(scores, {"across_associations": table, "across_types": _by_types(table)})


def _by_types(table: pd.DataFrame) -> pd.DataFrame:
    """The scores of each two types."""
    rows = []
    for (a, b), part in table.groupby(["kind_a", "kind_b"], sort=False):
        real, here = part["real"].to_numpy(), part["here"].to_numpy()
        strong = np.abs(real) >= _STRONG
        facts = (_difference(real, here), _difference(real[strong], here[strong]))
        rows.append((a, b, len(part), *map(float, facts), float(_agreement(real, here))))
    columns = ["kind_a", "kind_b", "pairs", "difference", "strong", "agreement"]
    return pd.DataFrame(rows, columns=columns)
