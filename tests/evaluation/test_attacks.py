import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics import roc_auc_score

from synehrgy.evaluation.attacks import (
    attack_scales,
    attack_scores,
    excess,
    roc_table,
    true_positives,
)

few = st.lists(st.integers(-3, 3), min_size=1, max_size=30)


@given(few, few)
def test_auroc_is_that_of_sklearn(members, non_members):
    found = attack_scores("a", members, non_members, 0, 20)["a/auroc"]
    label = [1] * len(members) + [0] * len(non_members)
    assert found.value == pytest.approx(roc_auc_score(label, members + non_members))


def by_hand(members, non_members, j):
    """The chance that a member is above the j-th greatest, equal ones in any order."""
    rng, found = np.random.default_rng(0), []
    for _ in range(4000):
        both = np.concatenate([members, non_members]) + 1e-3 * rng.random(
            len(members) + len(non_members)
        )
        limit = np.sort(both[len(members) :])[::-1][j - 1]
        found.append((both[: len(members)] > limit).mean())
    return np.mean(found)


def test_rates_with_and_without_ties():
    rng = np.random.default_rng(1)
    members, non_members = rng.normal(1, 1, 40), rng.normal(0, 1, 99)
    limit = np.sort(non_members)[::-1]
    for rate, j in ((0.01, 1), (0.05, 5), (0.5, 50)):
        found = true_positives(members, non_members, [rate])[0]
        assert found == pytest.approx((members > limit[j - 1]).mean())
    between = true_positives(members, non_members, [0.01, 0.015, 0.02])
    assert between[1] == pytest.approx((between[0] + between[2]) / 2)
    tied = rng.integers(0, 3, 40), rng.integers(0, 3, 99)
    for rate, j in ((0.05, 5), (0.5, 50)):
        found = true_positives(*tied, [rate])[0]
        assert found == pytest.approx(by_hand(*tied, j), abs=0.02)


def test_too_few_non_members_for_a_rate():
    assert np.isnan(true_positives([1.0], np.arange(98), [0.01])).all()
    assert not np.isnan(true_positives([1.0], np.arange(99), [0.01])).any()
    scores = attack_scores("a", [1.0, 2.0], np.arange(200), 0, 20)
    assert np.isnan(scores["a/tpr_at_01"].value)
    assert np.isnan(attack_scores("a", [], [], 0, 20)["a/auroc"].value)


def test_guessing_finds_the_false_positive_rate():
    rng = np.random.default_rng(2)
    drawn = [true_positives(rng.random(50), rng.random(120), [0.01, 0.1]) for _ in range(3000)]
    assert np.mean(drawn, axis=0) == pytest.approx([0.01, 0.1], abs=0.002)


def test_intervals_cover():
    rng = np.random.default_rng(3)
    covered = {"auroc": 0, "tpr_at_1": 0}
    truth = {"auroc": 0.7602, "tpr_at_1": 0.0924}
    for seed in range(100):
        scores = attack_scores("a", rng.normal(1, 1, 400), rng.normal(0, 1, 400), seed, 100)
        for name in covered:
            score = scores[f"a/{name}"]
            covered[name] += score.low <= truth[name] <= score.high
    assert covered["auroc"] >= 89
    assert covered["tpr_at_1"] >= 80


def test_roc_table_and_scales():
    table = roc_table("a", [3.0, 2.0], np.arange(99) / 50)
    assert table["fpr"].between(0.01, 1).all()
    assert table["tpr"].is_monotonic_increasing
    assert table["tpr"].iloc[-1] == 1
    assert table.columns.tolist() == ["attack", "fpr", "tpr"]
    scales = attack_scales("a", "An attack", "guesses")
    assert list(scales) == list(attack_scores("a", [1.0], [0.0], 0, 2))
    assert scales["a/auroc"].light(0.52, 0.5) == "good"
    assert attack_scales("a", "A", "b", published=True)["a/auroc"].light(1.0, 0.5) is None


def test_excess_of_shares():
    # Newcombe (1998), table II, method 10, 56/70 against 48/80 and 10/10 against 0/10.
    flags = [np.arange(n) < k for k, n in ((56, 70), (48, 80), (10, 10), (0, 10))]
    found = excess(*flags[:2])
    assert (found.value, found.low, found.high) == pytest.approx((0.2, 0.0524, 0.3339), abs=5e-4)
    found = excess(*flags[2:])
    assert (found.value, found.low, found.high) == pytest.approx((1.0, 0.6075, 1.0), abs=5e-4)
    assert np.isnan(excess([], [True]).value)
