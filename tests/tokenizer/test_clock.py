"""Time to the minute, whatever the number of steps."""

import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from synehrgy.cohort import Schema, Variable
from synehrgy.settings import TokenSettings
from synehrgy.tokenizer import Tokenizer, decode, encode
from synehrgy.tokenizer.clock import (
    clock_minutes,
    clock_texts,
    clock_tokens,
    clock_word,
    seconds_within,
    to_minutes,
)
from tests.cohorts import build
from tests.tokens import words

TEXTS = [text for texts in clock_texts("gap", "+").values() for text in texts]
KINDS = [kind for kind, texts in clock_texts("gap", "+").items() for _ in texts]


def spelled(minutes):
    return [TEXTS[token] for token in clock_tokens(np.array([minutes]))[0]]


def test_durations_by_hand():
    assert spelled(0) == ["+0 min"]
    assert spelled(60) == ["+1 h"]
    assert spelled(15) == ["+15 min"]
    assert spelled(25 * 60 + 7) == ["+1 d", "+1 h", "+7 min"]
    assert spelled(15 * 24 * 60 + 5) == ["+7 d", "+7 d", "+1 d", "+5 min"]
    assert len(TEXTS) == len(clock_minutes()) == 90


@given(st.lists(st.integers(0, 200_000), max_size=20))
def test_durations_come_back_and_are_accepted(minutes):
    tokens, counts = clock_tokens(np.array(minutes, dtype=np.int64))
    owner = np.repeat(np.arange(len(minutes)), counts)
    assert np.bincount(owner, clock_minutes()[tokens], len(minutes)).tolist() == minutes
    word = clock_word("gap")
    for start, n in zip(np.cumsum(counts) - counts, counts, strict=True):
        kinds = [KINDS[token] for token in tokens[start : start + n]]
        assert kinds[0] in word.entries
        assert kinds[-1] in word.exits
        assert all(b in word.arcs.get(a, ()) for a, b in itertools.pairwise(kinds))


def test_a_duration_has_one_spelling_only():
    word = clock_word("gap")
    spelled_minutes = []
    minutes = clock_minutes()
    open_ = [(token,) for token in range(90)]
    while open_:
        spelling = open_.pop()
        spelled_minutes.append(sum(minutes[token] for token in spelling))
        for token in range(90):
            if (
                KINDS[token] in word.arcs.get(KINDS[spelling[-1]], ())
                and KINDS[token] != "gap:week"
            ):
                open_.append((*spelling, token))
    # Up to one week and 6 d 23 h 59 min, each minute exactly once.
    assert sorted(spelled_minutes) == list(range(2 * 7 * 24 * 60))


def test_minutes_are_those_of_the_chart_in_spite_of_floats():
    minutes = np.arange(200_000)
    assert np.array_equal(to_minutes(minutes / 60), minutes)
    assert np.array_equal(seconds_within(minutes / 60), np.zeros(200_000))
    assert seconds_within(np.array([1.5 + 42 / 3600])).tolist() == [42.0]


SCHEMA = Schema("s", "test", variables=[Variable("Heart Rate", "continuous")])


def one_stay(times):
    rows = [[1, time, "Heart Rate", 80.0, None] for time in times]
    return build(SCHEMA, [[1, 1, None, 0, "train", None]], [], rows)


@pytest.mark.parametrize("n", [10, 100, 3000])
def test_time_does_not_drift(n):
    """However many steps, each time point is in its minute; the published gaps go astray."""
    rng = np.random.default_rng(n)
    minutes = np.cumsum(rng.choice([1, 15, 60, 61, 240], n))
    cohort = one_stay((minutes * 60 + 17) / 3600)
    off = {}
    for time in ("clock", "gap"):
        tokenizer = Tokenizer.fit(cohort, TokenSettings(time=time))
        back = decode(tokenizer, encode(tokenizer, cohort), independent=True)
        off[time] = np.abs(back.measurements["hours"] - cohort.measurements["hours"]).max()
    assert off["clock"] <= 1e-6
    assert off["gap"] > 0.1


def test_time_points_of_one_minute_stay_apart_and_in_it():
    times = np.array([60, 61, 65, 119, 120, 3600 * 5 + 1]) / 3600
    cohort = one_stay(times)
    tokenizer = Tokenizer.fit(cohort)
    records = encode(tokenizer, cohort)
    assert [text for text in words(tokenizer, records[0]) if text.startswith("+")] == [
        *("+1 min", "+0 min", "+0 min", "+0 min", "+1 min"),
        *("+4 h", "+58 min"),
    ]
    back = decode(tokenizer, records).measurements["hours"].to_numpy()
    assert np.all(np.diff(back) > 0)
    assert to_minutes(back).tolist() == to_minutes(times).tolist()


@given(st.lists(st.integers(0, 40 * 3600 * 10), min_size=1, max_size=30, unique=True))
def test_any_times_come_back_in_their_minutes(tenths):
    times = np.sort(np.array(tenths)) / 36_000
    cohort = one_stay(times)
    tokenizer = Tokenizer.fit(cohort)
    back = decode(tokenizer, encode(tokenizer, cohort)).measurements["hours"].to_numpy()
    assert np.array_equal(to_minutes(back), to_minutes(times))
    assert np.all(np.diff(back) > 0)
