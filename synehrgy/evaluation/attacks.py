"""How well an attack tells patients that a model was trained on from patients that it was not.

An attack gives every patient a number: the greater, the more it takes the patient for one of the
training data. The AUROC is about patients on the average. Privacy is about the worst case: an
attack that is sure of a few patients and guesses about all others has an AUROC of about one half
and still gives those few away. So the true-positive rate at a low false-positive rate stands beside
it (Carlini et al., "Membership Inference Attacks From First Principles", IEEE S&P 2022).
"""

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray

from synehrgy.evaluation.metric import NAN, Scale, Score, bootstrapped, patient_weights

Floats = NDArray[np.float64]

# False-positive rates that have a score, by its name.
FALSE_POSITIVES = {"tpr_at_1": 0.01, "tpr_at_01": 0.001}

# Of the ROC curve, for a logarithmic axis.
_GRID = np.geomspace(1e-4, 1.0, 81)


def attack_scales(name: str, title: str, how: str, *, published: bool = False) -> dict[str, Scale]:
    """How to read ``attack_scores``.

    Args:
        name: that the names of the scores begin with.
        title: of the attack, for people.
        how: what the attacker does, to follow "an attacker who".
        published: for comparison with the literature only, without lights.

    Returns:
        The scales of ``<name>/auroc``, ``<name>/tpr_at_1`` and ``<name>/tpr_at_01``.
    """

    def light(good: float, poor: float) -> tuple[float | None, float | None]:
        return (None, None) if published else (good, poor)

    scales = {
        f"{name}/auroc": Scale(
            f"{title}: AUROC",
            f"How often an attacker who {how} ranks a patient of the training data above one who "
            "was held out: 0.5 is guessing, 1 tells all apart.",
            "low",
            (0.0, 1.0),
            0.5,
            *light(0.05, 0.1),
        )
    }
    lights = {"tpr_at_1": light(0.02, 0.05), "tpr_at_01": light(0.005, 0.02)}
    for score, rate in FALSE_POSITIVES.items():
        scales[f"{name}/{score}"] = Scale(
            f"{title}: patients found at {rate:.1%} false positives",
            f"The share of training patients whom an attacker who {how} recognises, if only "
            f"{rate:.1%} of all others may be taken for one: guessing finds {rate:.1%}.",
            "low",
            (0.0, 1.0),
            rate,
            *lights[score],
        )
    return scales


def attack_scores(
    name: str, members: ArrayLike, non_members: ArrayLike, seed: int, n_resamples: int
) -> dict[str, Score]:
    """What an attack achieves, with 95 % intervals over patients.

    The interval of the AUROC is that of DeLong, DeLong and Clarke-Pearson (Biometrics 44, 1988),
    those of the rates are bootstrapped over members and non-members.

    Args:
        name: that the names of the scores begin with.
        members: the attack's numbers of patients of the training data; great: taken for one. Not
            NaN.
        non_members: of patients who were held out.
        seed: of the bootstrap.
        n_resamples: of the bootstrap.

    Returns:
        ``<name>/auroc``, ``<name>/tpr_at_1`` and ``<name>/tpr_at_01`` (at 1 % and 0.1 % false
        positives). A rate is NaN where the non-members are too few for it (99 and 999 at least).
    """
    inside = np.asarray(members, dtype=np.float64)
    outside = np.asarray(non_members, dtype=np.float64)
    rates = np.array(list(FALSE_POSITIVES.values()))
    found = true_positives(inside, outside, rates)
    scores = {f"{name}/auroc": _auroc(inside, outside)}
    drawn = np.full((1, len(rates)), NAN)
    if len(inside) and not np.isnan(found).all():
        weights = (patient_weights(len(x), n_resamples, seed) for x in (inside, outside))
        drawn = _true_positives(inside, outside, rates, *weights)
    for i, score in enumerate(FALSE_POSITIVES):
        scores[f"{name}/{score}"] = bootstrapped(found[i], drawn[:, i], (0.0, 1.0))
    return scores


def excess(members: ArrayLike, non_members: ArrayLike) -> Score:
    """By how much more often something is true of members than of non-members.

    With the 95 % interval for a difference of shares by Newcombe (Statistics in Medicine 17, 1998,
    method 10), which is right where a share is 0, too.

    Args:
        members, non_members: of each patient, whether it is true.
    """
    shares, lows, highs = [], [], []
    for flags in (members, non_members):
        found = np.asarray(flags, dtype=np.float64)
        if not len(found):
            return Score(NAN)
        n, share, z = len(found), float(found.mean()), 1.96
        # Wilson, Journal of the American Statistical Association 22, 1927.
        middle = (share + z**2 / (2 * n)) / (1 + z**2 / n)
        half = z / (1 + z**2 / n) * np.sqrt(share * (1 - share) / n + z**2 / (4 * n**2))
        shares.append(share)
        lows.append(middle - half)
        highs.append(middle + half)
    value = shares[0] - shares[1]
    low = value - float(np.hypot(shares[0] - lows[0], highs[1] - shares[1]))
    high = value + float(np.hypot(highs[0] - shares[0], shares[1] - lows[1]))
    return Score(value, low, high)


def true_positives(members: ArrayLike, non_members: ArrayLike, rates: ArrayLike) -> Floats:
    """The share of members found at each false-positive rate.

    Found is who is above the j-th greatest of the n non-members, j = rate (n + 1). By chance alone
    this is the rate itself, however few they are; a threshold at j = rate n is passed more often.
    Between whole j it is interpolated; ties are broken by chance, in expectation.

    Returns:
        float64 [rates]; NaN where j is less than 1: there are too few non-members to know.
    """
    inside = np.asarray(members, dtype=np.float64)
    outside = np.asarray(non_members, dtype=np.float64)
    once = (np.ones((1, len(inside))), np.ones((1, len(outside))))
    return _true_positives(inside, outside, np.asarray(rates, dtype=np.float64), *once)[0]


def roc_table(name: str, members: ArrayLike, non_members: ArrayLike) -> pd.DataFrame:
    """The ROC curve at false-positive rates on a logarithmic grid.

    Returns:
        Columns ``attack`` (the name), ``fpr``, ``tpr``; only rates that there are enough
        non-members for.
    """
    tpr = true_positives(members, non_members, _GRID)
    known = ~np.isnan(tpr)
    return pd.DataFrame({"attack": name, "fpr": _GRID[known], "tpr": tpr[known]})


def _auroc(members: Floats, non_members: Floats) -> Score:
    if not len(members) or not len(non_members):
        return Score(NAN)

    def below(values: Floats, others: Floats) -> Floats:
        """Of each value, the share of the others that are less; ties half."""
        ordered = np.sort(others)
        sides = [np.searchsorted(ordered, values, side) for side in ("left", "right")]
        return (sides[0] + sides[1]) / (2 * len(others))

    inside, outside = below(members, non_members), below(non_members, members)
    value = float(inside.mean())
    if min(len(members), len(non_members)) < 2:
        return Score(value)
    spread = inside.var(ddof=1) / len(members) + outside.var(ddof=1) / len(non_members)
    if not spread:
        # All alike: the formula would claim to be certain, however few they are. The rule of three
        # (Hanley and Lippman-Hand, JAMA 1983) for a perfect order, none for ties only.
        most = min(3 / min(len(members), len(non_members)), 1.0)
        bounds = {1.0: (1 - most, 1.0), 0.0: (0.0, most)}
        return Score(value, *bounds.get(value, (NAN, NAN)))
    half = 1.96 * float(np.sqrt(spread))
    return Score(value, max(value - half, 0.0), min(value + half, 1.0))


def _true_positives(
    members: Floats,
    non_members: Floats,
    rates: Floats,
    member_weights: Floats,
    non_member_weights: Floats,
) -> Floats:
    """``true_positives`` of many weightings of the patients: [weightings, rates]."""
    n, rows = len(non_members), np.arange(len(member_weights))
    found = np.full((len(rows), len(rates)), NAN)
    if not len(members) or not n:
        return found
    order = np.argsort(members)
    ascending = members[order]
    up_to = np.zeros((len(rows), len(members) + 1))
    np.cumsum(member_weights[:, order], axis=1, out=up_to[:, 1:])
    up_to /= len(members)
    # Non-members from the greatest down, equal ones as one group.
    order = np.argsort(-non_members)
    values, start = np.unique(-non_members[order], return_index=True)
    values, tied = -values, np.add.reduceat(non_member_weights[:, order], start, axis=1)
    reached = np.cumsum(tied, axis=1)

    def above(j: int) -> Floats:
        if j > n:
            return np.ones(len(rows))
        group = (reached < j).sum(axis=1)
        left, right = (
            up_to[rows, np.searchsorted(ascending, values[group], side)]
            for side in ("left", "right")
        )
        equal = tied[rows, group]
        rank = j - (reached[rows, group] - equal)
        return np.asarray(1 - right + (right - left) * rank / (equal + 1))

    for i, j in enumerate(rates * (n + 1)):
        whole = int(j + 1e-9)
        if whole >= 1:
            part = max(j - whole, 0.0)
            found[:, i] = (1 - part) * above(whole) + (part * above(whole + 1) if part else 0.0)
    return found
