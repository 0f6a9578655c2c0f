"""Codes: how often each is recorded, which are left out or made up, which go together."""

from math import inf

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy import sparse

from synehrgy.evaluation import agreement
from synehrgy.evaluation.metric import (
    Bench,
    Found,
    Metric,
    Scale,
    Score,
    bootstrapped,
    patient_weights,
)
from synehrgy.evaluation.patients import Patients

Floats = NDArray[np.float64]

# Bands of codes: the most frequent ones that make up half of what is recorded in the train split,
# those of the next 40 %, and the rest.
BANDS = ("head", "torso", "tail")
_BAND_ENDS = (0.5, 0.9)
UNKNOWN = "not in train"

# Pairs are compared where chance alone would put them into this many stays (Cochran's rule), among
# at most so many codes.
_EXPECTED = 5.0
_PAIRED_CODES = 150
# Stays that are added to the observed and to the expected ones, so that logarithms exist.
_SMOOTHING = 0.5

_MOST_CODES, _MOST_PAIRS, _MATRIX_CODES = 3000, 200, 25


def _band_scales() -> dict[str, Scale]:
    scales = {}
    limits = {"head": (0.15, 0.3), "torso": (0.25, 0.5), "tail": (0.5, 0.8)}
    lost = {"head": (0.01, 0.05), "torso": (0.03, 0.1), "tail": (0.1, 0.25)}
    mass = {"head": (0.03, 0.1), "torso": (0.03, 0.1), "tail": (0.02, 0.05)}
    for band in BANDS:
        which = {
            "head": "the frequent codes that make up half of all records of codes",
            "torso": "the codes of middle frequency",
            "tail": "the rare codes that make up the last tenth of all records of codes",
        }[band]
        scales[f"codes/error_{band}"] = Scale(
            f"Error of prevalence, {band}",
            f"By what part the prevalences of {which} are off, beyond chance: 1 is as far as if "
            "they were never recorded.",
            *("low", (0.0, inf), 0.0),
            *limits[band],
        )
        scales[f"codes/missing_{band}"] = Scale(
            f"Codes never generated, {band}",
            f"Of {which}, the share that no patient has.",
            *("low", (0.0, 1.0), "test"),
            *lost[band],
        )
        scales[f"codes/mass_{band}"] = Scale(
            f"Share of all codes, {band}",
            f"How much of what is recorded are {which}.",
            *("near", (0.0, 1.0), "test"),
            *mass[band],
        )
    return scales


class Codes(Metric):
    """Prevalence, coverage and co-occurrence of codes, over all stays and all codes of either."""

    name = "codes"
    title = "Codes"
    group = "fidelity"
    needs = frozenset({"codes"})
    scales = {
        "codes/r": Scale(
            "Correlation of prevalences",
            "Whether codes that are frequent in real stays are frequent here, too.",
            *("high", (-1.0, 1.0), "test", 0.02, 0.1),
        ),
        "codes/r2": Scale(
            "R² of prevalences",
            "How much of the differences between codes is met exactly, not only in proportion.",
            *("high", (-inf, 1.0), "test", 0.05, 0.2),
        ),
        # Without a light: ranks of rare codes are chance, and leaving them all out raises it.
        "codes/spearman": Scale(
            "Rank correlation of prevalences",
            "Whether codes are in the right order of frequency, the rare ones as much as any.",
            *("high", (-1.0, 1.0), "test"),
        ),
        "codes/js_distance": Scale(
            "Distance of the distributions of codes",
            "How far apart the two distributions of codes are: 0 is the same, 1 shares no code.",
            *("low", (0.0, 1.0), "test", 0.05, 0.15),
        ),
        **_band_scales(),
        "codes/missing": Scale(
            "Codes never generated",
            "The share of the codes of the train split that no patient has.",
            *("low", (0.0, 1.0), "test", 0.1, 0.25),
        ),
        "codes/invented": Scale(
            "Codes that train lacks",
            "How much of what is recorded are codes that the train split does not have.",
            *("near", (0.0, 1.0), "test", 0.03, 0.1),
        ),
        "codes/per_stay": Scale(
            "Number of codes per stay",
            "The greatest gap between the distributions of the number of codes per stay, in the "
            "code system where it is widest.",
            *("low", (0.0, 1.0), "test", 0.1, 0.25),
        ),
        "codes/pairs_r": Scale(
            "Correlation of co-occurrence",
            "Whether codes that go together, or avoid each other, in real stays do so here.",
            *("high", (-1.0, 1.0), "test", 0.1, 0.3),
        ),
        "codes/pairs_error": Scale(
            "Error of co-occurrence",
            "By how much the bond between two codes is off, as a power of 2.",
            *("low", (0.0, inf), "test", 0.1, 0.3),
        ),
    }

    def measure(self, bench: Bench, row: str) -> Found:
        """Compare one row with the train split."""
        real, other = bench.train, bench.equal[row]
        vocabulary = vocabulary_of(real, other)
        weights = patient_weights(len(other), bench.effort.n_resamples, bench.seed)
        # The first weighting is the sample itself, the others are its resamples.
        weights = np.vstack([np.ones(len(other)), weights])
        train, train_noise = _prevalence(real, vocabulary, np.ones((1, len(real))))
        found, noise = _prevalence(other, vocabulary, weights)
        band = bands(train[0])

        replicates = _prevalence_scores(train[0], found, band)
        per_stay, replicates["codes/per_stay"] = _codes_per_stay(real, other, weights)
        pairs, matrix, pair_scores = _pairs(real, other, vocabulary, train[0], weights)
        replicates |= pair_scores
        scores = {
            name: bootstrapped(x[0], x[1:], self.scales[name].bounds)
            for name, x in replicates.items()
        }
        for name in BANDS:
            mine = band == name
            scores[f"codes/error_{name}"] = _error_beyond_chance(
                train[0, mine], found[:, mine], train_noise[mine], noise[mine]
            )
        prevalence = _prevalence_table(vocabulary, band, train[0], found[0])
        tables = {
            "codes_prevalence": prevalence.head(_MOST_CODES),
            "codes_bands": _by_group(prevalence, "band"),
            "codes_systems": _by_group(prevalence, "system"),
            "codes_per_stay": per_stay,
            "codes_pairs": pairs,
            "codes_matrix": matrix,
        }
        return Found(scores, tables)


def vocabulary_of(*patients: Patients) -> pd.Index:
    """All codes of any of them, sorted."""
    codes = pd.concat([p.coded["code"] for p in patients]).astype(object)
    return pd.Index(np.sort(codes.unique().astype(object)), dtype=object)


def per_patient(patients: Patients, of_stays: sparse.csr_matrix) -> sparse.csr_matrix:
    """Sums over the stays of each patient: [patients, columns] from [stays, columns]."""
    n_stays = len(patients.stays)
    shape = (len(patients), n_stays)
    belongs = sparse.csr_matrix(
        (np.ones(n_stays), (patients.patient, np.arange(n_stays))), shape=shape
    )
    return belongs @ of_stays


def _prevalence(patients: Patients, vocabulary: pd.Index, weights: Floats) -> tuple[Floats, Floats]:
    """The share of stays with each code, of each weighting of the patients, and its variance.

    Returns:
        [weightings, codes]; [codes], of the patients as they are: a ratio of sums over patients,
        as the stays of one patient are alike.
    """
    counts = per_patient(patients, patients.presence(vocabulary))
    n_stays = np.bincount(patients.patient, minlength=len(patients)).astype(np.float64)
    share = weights @ counts / (weights @ n_stays)[:, None]
    whole = np.asarray(counts.sum(axis=0)).ravel() / n_stays.sum()
    squares = np.asarray(counts.multiply(counts).sum(axis=0)).ravel()
    residual = squares - 2 * whole * (n_stays @ counts) + whole**2 * (n_stays @ n_stays)
    n = len(patients)
    variance = residual / n_stays.sum() ** 2 * n / (n - 1) if n > 1 else np.full(len(whole), np.nan)
    return share, variance


def _error_beyond_chance(train: Floats, found: Floats, train_noise: Floats, noise: Floats) -> Score:
    """The relative root mean square error of prevalences, less what sampling alone would give.

    sqrt(sum of ((found - train)² - variances of both) / sum of (train² - its variance)): the sums
    are free of bias, so that 0 is expected of any sample of the same patients, however rare its
    codes, and 1 of one that has none of them. Without it, a sample in which most rare codes are
    absent by chance would look worse than patients without any.

    Args:
        train: [codes].
        found: [weightings, codes], that of the sample itself first.
        train_noise, noise: variances of ``train`` and ``found[0]``: [codes].
    """
    scale = np.sum(train**2 - train_noise)
    # The numerator of patients as good as real ones is off by chance, by the standard deviation of
    # a sum of squares of normal numbers. What is no more than some of these says nothing.
    chance = np.sqrt(2 * np.sum((train_noise + noise) ** 2))
    if not scale > 3 * chance:
        return Score(np.nan)
    squared = (np.sum((found - train) ** 2, axis=1) - np.sum(train_noise + noise)) / scale
    score = bootstrapped(squared[0], squared[1:], (-inf, inf))
    parts = (score.value, score.low, score.high)
    return Score(*(float(np.sqrt(max(x, 0.0))) if x == x else x for x in parts))


def bands(frequency: Floats) -> NDArray[np.object_]:
    """The band of each code by how often it is in the train split.

    In descending order of frequency, a code is in the band in which the share of all records that
    the codes before it make up falls.
    """
    order = np.argsort(-frequency, kind="stable")
    before = np.cumsum(frequency[order]) - frequency[order]
    # Frequencies that sum to an end exactly are not to fall short of it by rounding.
    rank = np.searchsorted(_BAND_ENDS, before / (frequency.sum() or 1.0) + 1e-9, side="right")
    band = np.empty(len(frequency), dtype=object)
    band[order] = np.array(BANDS, dtype=object)[rank]
    band[frequency == 0] = UNKNOWN
    return band


def _prevalence_scores(
    train: Floats, found: Floats, band: NDArray[np.object_]
) -> dict[str, Floats]:
    """Scores of each weighting.

    Args:
        train: share of stays with each code: [codes].
        found: the same of each weighting: [weightings, codes].
        band: of each code.
    """

    def mean_of(values: Floats, chosen: NDArray[np.bool_]) -> Floats:
        return values[:, chosen].mean(axis=1) if chosen.any() else np.full(len(found), np.nan)

    total = found.sum(axis=1)

    def mass_of(chosen: NDArray[np.bool_]) -> Floats:
        mass = found[:, chosen].sum(axis=1)
        return np.divide(mass, total, out=np.full(len(found), np.nan), where=total > 0)

    scores = {
        "codes/r": agreement.pearson(train, found),
        "codes/r2": agreement.r_squared(train, found),
        "codes/spearman": agreement.spearman(train, found),
        "codes/js_distance": agreement.js_distance(train, found),
        "codes/missing": mean_of(found == 0, band != UNKNOWN),
        "codes/invented": mass_of(band == UNKNOWN),
    }
    for name in BANDS:
        mine = band == name
        scores[f"codes/missing_{name}"] = mean_of(found == 0, mine)
        scores[f"codes/mass_{name}"] = mass_of(mine)
    return scores


def _prevalence_table(
    vocabulary: pd.Index, band: NDArray[np.object_], train: Floats, found: Floats
) -> pd.DataFrame:
    """One row per code, the most frequent ones first."""
    system, code = _split(vocabulary)
    table = pd.DataFrame(
        {"system": system, "code": code, "band": band, "train": train, "measured": found}
    )
    order = np.argsort(-np.maximum(train, found), kind="stable")
    return table.iloc[order].reset_index(drop=True)


def _split(vocabulary: pd.Index) -> tuple[list[str], list[str]]:
    parts = [str(code).split(":", 1) for code in vocabulary]
    return [system for system, _ in parts], [code for _, code in parts]


def _by_group(prevalence: pd.DataFrame, by: str) -> pd.DataFrame:
    """How well the codes of each band or system agree."""
    rows = []
    for name, part in prevalence.groupby(by, sort=True):
        train, found = part["train"].to_numpy(), part["measured"].to_numpy()
        known = train > 0
        rows.append(
            {
                by: name,
                "codes": len(part),
                "codes_train": int(known.sum()),
                "codes_measured": int((found > 0).sum()),
                "per_stay_train": train.sum(),
                "per_stay_measured": found.sum(),
                "r": agreement.pearson(train, found[None])[0],
                "r2": agreement.r_squared(train, found[None])[0],
                "js_distance": agreement.js_distance(train, found[None])[0],
                "missing": (found[known] == 0).mean() if known.any() else np.nan,
            }
        )
    names = [by, "codes", "codes_train", "codes_measured", "per_stay_train", "per_stay_measured"]
    return pd.DataFrame(rows, columns=[*names, "r", "r2", "js_distance", "missing"])


def _codes_per_stay(
    real: Patients, other: Patients, weights: Floats
) -> tuple[pd.DataFrame, Floats]:
    """The distribution of the number of different codes of a stay, and its distance.

    Returns:
        One row per system and number (share of stays of each); the widest gap between the
        cumulative distributions (Kolmogorov-Smirnov) of each weighting, in the worst system.
    """
    tables = []
    worst = np.full(len(weights), np.nan)
    for system in real.schema.code_systems:
        numbers = [_numbers(patients, system.name) for patients in (real, other)]
        most = int(max(n.max(initial=0) for n in numbers)) + 1
        train = np.bincount(numbers[0], minlength=most) / len(numbers[0])
        by_number = sparse.csr_matrix(
            (np.ones(len(numbers[1])), (other.patient, numbers[1])), shape=(len(other), most)
        )
        found = weights @ by_number
        found /= found.sum(axis=1, keepdims=True)
        gap = np.abs(np.cumsum(found - train, axis=1)).max(axis=1)
        worst = np.fmax(worst, gap)
        table = pd.DataFrame({"n": np.arange(most), "train": train, "measured": found[0]})
        table.insert(0, "system", system.name)
        tables.append(table[(table["train"] > 0) | (table["measured"] > 0)])
    columns = ["system", "n", "train", "measured"]
    found_tables = pd.concat(tables, ignore_index=True) if tables else pd.DataFrame(columns=columns)
    return found_tables, worst


def _numbers(patients: Patients, system: str) -> NDArray[np.int64]:
    """Different codes of a system in each stay: [stays]."""
    codes = patients.cohort.codes
    mine = codes[codes["system"] == system].drop_duplicates(["stay_id", "code"])
    return np.bincount(patients.stay_rows(mine), minlength=len(patients.stays))


def _pairs(
    real: Patients, other: Patients, vocabulary: pd.Index, share: Floats, weights: Floats
) -> tuple[pd.DataFrame, pd.DataFrame, dict[str, Floats]]:
    """Co-occurrence of frequent codes.

    The bond of two codes is log2 of how many stays have both over how many would if they were
    independent, given how often each is in the same cohort: so it does not blame prevalence twice.
    Which pairs are compared depends on what chance expects, not on what is observed: pairs chosen
    for being seen often would look too strong in the train split.

    Returns:
        The pairs that differ most; all pairs of the most frequent codes; scores by weighting.
    """
    frequent = np.argsort(-share, kind="stable")[:_PAIRED_CODES]
    share = share[frequent]
    fewest = min(len(real.stays), len(other.stays))
    left, right = np.triu_indices(len(frequent), k=1)
    enough = fewest * share[left] * share[right] >= _EXPECTED
    left, right = left[enough], right[enough]
    codes = vocabulary[frequent]
    number = np.full((len(codes), len(codes)), -1)
    number[left, right] = np.arange(len(left))

    def bonds(patients: Patients, weights: Floats) -> tuple[Floats, Floats]:
        has = patients.presence(codes)
        n_stays = weights @ np.bincount(patients.patient, minlength=len(patients))
        single = weights @ per_patient(patients, has)
        both = weights @ _together(patients, has, number)
        expected = single[:, left] * single[:, right] / n_stays[:, None]
        bond = np.log2((both + _SMOOTHING) / (expected + _SMOOTHING))
        return both[0] / n_stays[0], bond

    both_train, train = bonds(real, np.ones((1, len(real))))
    both, found = bonds(other, weights)
    off = np.abs(found - train)
    scores = {
        "codes/pairs_r": agreement.pearson(train[0], found),
        "codes/pairs_error": off.mean(axis=1) if len(left) else np.full(len(weights), np.nan),
    }
    table = pd.DataFrame(
        {
            "a": codes[left],
            "b": codes[right],
            "together_train": both_train,
            "together_measured": both,
            "bond_train": train[0],
            "bond_measured": found[0],
        }
    )
    worst = table.iloc[np.argsort(-off[0], kind="stable")[:_MOST_PAIRS]].reset_index(drop=True)
    of_frequent = table[right < _MATRIX_CODES].reset_index(drop=True)
    return worst, of_frequent, scores


def _together(
    patients: Patients, has: sparse.csr_matrix, number: NDArray[np.int64]
) -> sparse.csr_matrix:
    """In how many stays of each patient both codes of a pair are.

    Args:
        patients: [patients].
        has: codes of each stay.
        number: of the pair of two codes, -1 if it is left out: [codes, codes].

    Returns:
        float64 [patients, pairs].
    """
    has.sort_indices()
    entry = np.arange(has.nnz)
    stay = np.repeat(np.arange(has.shape[0]), np.diff(has.indptr))
    # Each code of a stay with each that follows in the same stay.
    following = has.indptr[stay + 1] - entry - 1
    first = np.repeat(entry, following)
    nth = np.arange(len(first)) - np.repeat(np.cumsum(following) - following, following)
    pair = number[has.indices[first], has.indices[first + 1 + nth]]
    keep = pair >= 0
    place = (patients.patient[stay[first[keep]]], pair[keep])
    shape = (len(patients), int(number.max(initial=-1)) + 1)
    return sparse.csr_matrix((np.ones(len(place[0])), place), shape=shape)
