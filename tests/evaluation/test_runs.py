import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from synehrgy.evaluation.patients import Patients
from synehrgy.evaluation.runs import (
    LENGTHS,
    SHORTEST,
    Reader,
    Sequences,
    longest_runs,
    shared_parts,
)
from tests.cohorts import SMALL_SCHEMA, build, small_cohort

words = st.lists(st.text("ab", max_size=30), min_size=1, max_size=5)


def sequences(stays):
    """Each letter is a token and a measurement."""
    tokens = np.array([ord(x) for x in "".join(stays)], dtype=np.uint64)
    lengths = [len(x) for x in stays]
    stay = np.repeat(np.arange(len(stays)), lengths)
    end = np.repeat(np.cumsum(lengths), lengths)
    none = np.zeros(len(stays), np.uint64)
    return Sequences(tokens, stay, end, np.ones(len(tokens), bool), none, none)


def longest_common(a, b):
    best = 0
    for i in range(len(a)):
        for j in range(i + best + 1, len(a) + 1):
            if a[i:j] not in b:
                break
            best = j - i
    return best


@settings(max_examples=200)
@given(words, words)
def test_longest_runs_against_a_loop(stays, released):
    found = longest_runs(sequences(stays), sequences(released), len(stays))
    for i, stay in enumerate(stays):
        true = max(longest_common(stay, other) for other in released)
        if true < SHORTEST:
            assert (found.length[i], found.released[i]) == (0, -1)
            continue
        reached = max(k for k in LENGTHS if k <= true)
        assert reached <= found.length[i] <= true
        assert longest_common(stay, released[found.released[i]]) >= found.length[i]


@given(words, words)
def test_shared_parts_against_a_loop(stays, released):
    partner = np.arange(len(stays)) % len(released)
    found = shared_parts(sequences(stays), sequences(released), partner)
    for i, stay in enumerate(stays):
        windows = [stay[j : j + 3] for j in range(len(stay) - 2)]
        shared = [w in released[partner[i]] for w in windows]
        assert found[i] == pytest.approx(np.mean(shared) if windows else 0)
    assert not shared_parts(sequences(stays), sequences(released), partner * 0 - 1).any()


def read(codes, values, reader=None):
    stays = [(1, 7, None, 0, None, 60.0, "F", 0, 0, 0, 50.0)]
    codes = [(7, i, "icd9_diagnosis", code) for i, code in enumerate(codes)]
    rows = [(7, float(i), "Heart Rate", value, None) for i, value in enumerate(values)]
    patients = Patients(build(SMALL_SCHEMA, stays, codes, rows))
    return (reader or Reader(Patients(small_cohort()))).read(patients)


def test_what_is_the_same():
    one = read(["4019", "4280"], [80.0, 90.0])
    assert one.code_sets == read(["4280", "4019", "4280"], []).code_sets
    assert one.code_sets != read(["4019"], []).code_sets
    assert one.value_lists == read([], [80.0, 90.0]).value_lists
    for other in ([90.0, 80.0], [80.0, 90.0, 90.0], [80.0], [80.0, 91.0]):
        assert one.value_lists != read([], other).value_lists
    assert (read([], []).code_sets, read([], []).value_lists) == (0, 0)
    # Values of the same tenth are alike, codes come first, and their order counts.
    assert one.tokens.tolist() == read(["4019", "4280"], [80.0, 90.0]).tokens.tolist()
    assert one.measured.tolist() == [False, False, True, True]
    assert one.tokens[:2].tolist() == read(["4280", "4019"], []).tokens[::-1].tolist()
    low, high = read([], [1.0, 2.0]).tokens, read([], [500.0, 600.0]).tokens
    assert low[0] == low[1] != high[0] == high[1]


def test_levels_are_tokens_of_their_own():
    reader = Reader(Patients(small_cohort()))
    rows = [
        (7, 0.0, "Glasgow coma scale total", None, "3"),
        (7, 1.0, "Glasgow coma scale total", None, "4"),
        (7, 2.0, "Glasgow coma scale total", None, "3"),
    ]
    stays = [(1, 7, None, 0, None, 60.0, "F", 0, 0, 0, 50.0)]
    tokens = reader.read(Patients(build(SMALL_SCHEMA, stays, [], rows))).tokens
    assert tokens[0] == tokens[2] != tokens[1]
