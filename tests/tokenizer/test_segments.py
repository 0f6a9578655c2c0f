"""Long records in several segments: nothing is lost, and each goes on where the last one ended."""

import dataclasses
import re

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from synehrgy.errors import UserError
from synehrgy.settings import BIN_TYPES, CLOCKS, TokenSettings
from synehrgy.tokenizer import Tokenizer, encode, find_faults
from synehrgy.tokenizer import grammar as g
from synehrgy.tokenizer.segments import (
    NO_ELAPSED,
    VALUES_SHARE,
    Cutter,
    cut_records,
    longest_head,
    without_series,
)
from synehrgy.tokenizer.tokenizer import ELAPSED, ELAPSED_EDGES
from tests.cohorts import cohorts, small_cohort
from tests.tokenizer.test_round_trip import any_settings
from tests.tokens import records_of, words

CONTINUE = TokenSettings(min_code_count=1)


def body(records, segments, i):
    return records[int(segments.record[i])][segments.start[i] : segments.stop[i]]


def assert_nothing_is_lost(records, segments, rows, n_ctx):
    assert segments.lengths.max() <= n_ctx
    for row in rows:
        mine = np.flatnonzero(segments.record == row)
        assert np.all(np.diff(mine) == 1)
        parts = [body(records, segments, i) for i in mine]
        assert np.array_equal(np.concatenate(parts), records[row])
        assert all(len(part) for part in parts)
        assert segments.head_lengths[mine[0]] == 0
        assert np.all(segments.head_lengths[mine[1:]] > 0)


@settings(max_examples=100, deadline=None)
@given(
    cohort=cohorts(),
    time=st.sampled_from(CLOCKS),
    bin_type=st.sampled_from(BIN_TYPES),
    n_ctx=st.integers(8, 60),
    data=st.data(),
)
def test_no_token_of_any_cohort_is_lost(cohort, time, bin_type, n_ctx, data):
    how = TokenSettings(rare_codes="keep", time=time, bin_type=bin_type, covariate_edges={})
    tokenizer = Tokenizer.fit(cohort, how)
    records = encode(tokenizer, cohort)
    rows = np.array(data.draw(st.permutations(range(len(records)))))
    try:
        segments = cut_records(tokenizer, records, rows, n_ctx)
    except UserError:
        # Only where what belongs together does not fit.
        assume(False)
    assert segments.record[np.flatnonzero(segments.start == 0)].tolist() == rows.tolist()
    assert_nothing_is_lost(records, segments, rows, n_ctx)
    assert segments.head_lengths.max() <= longest_head(tokenizer, n_ctx)


def test_every_cut_is_as_late_as_the_context_allows():
    cohort = small_cohort(40)
    tokenizer = Tokenizer.fit(cohort, CONTINUE)
    records = encode(tokenizer, cohort)
    rows = np.arange(len(records))
    segments = cut_records(tokenizer, records, rows, 50)
    assert_nothing_is_lost(records, segments, rows, 50)
    assert len(segments) > 1.5 * len(records)
    cutter = Cutter(tokenizer, 50)
    for i in np.flatnonzero(np.diff(segments.record) == 0):
        record = records[int(segments.record[i])].astype(np.int64)
        in_context = record[: segments.start[i] + 50 - segments.head_lengths[i]]
        assert cutter.cuts(in_context)[-1] == segments.stop[i]


def test_a_segment_begins_with_the_standing_facts():
    cohort = small_cohort(40)
    tokenizer = Tokenizer.fit(cohort, CONTINUE)
    records = encode(tokenizer, cohort)
    segments = cut_records(tokenizer, records, np.arange(len(records)), 50)
    cutter = Cutter(tokenizer, 50)
    n_codes = n_series = n_values = 0
    for i in np.flatnonzero(segments.start > 0):
        record = records[int(segments.record[i])].astype(np.int64)
        cut = int(segments.start[i])
        text, before = words(tokenizer, record), words(tokenizer, record[:cut])
        head = words(tokenizer, cutter.head(record, cut))
        assert len(head) == segments.head_lengths[i]
        # Read off the record by hand.
        opened = max([0, *(j for j, word in enumerate(before) if word == "</adm>")])
        labels = before.index("</label>", opened)
        facts = before[opened + 1 : labels + 1]
        assert facts[0].startswith("age=")
        if before[-1].startswith("icd9"):
            n_codes += 1
            assert head == ["<history>", *facts]
            assert segments.elapsed[i] == NO_ELAPSED
            continue
        n_series += 1
        units = {"d": 1440, "h": 60, "min": 1}
        times = [word[1:].split() for word in before[labels:] if word.startswith("+")]
        hours = sum(int(amount) * units[unit] for amount, unit in times) / 60
        place = max(0, np.searchsorted(ELAPSED_EDGES, hours) - 1)
        low, high = ELAPSED_EDGES[place : place + 2]
        # The last value of each series, in the order of the series.
        named = [word.split("=")[0] for word in before]
        last = {
            name: max(j for j in range(labels, cut) if named[j] == name)
            for name in tokenizer.variables
            if name in named[labels:]
        }
        values = [before[j] for j in last.values()]
        n_values += len(values)
        closing = [*values, f"elapsed=({low:g}, {high:g}] h"]
        assert head == ["<history>", *facts, "</code>", *closing]
        assert not text[cut].startswith("+")
    assert n_codes > 5
    assert n_series > 10
    assert n_values > 1.5 * n_series


@pytest.mark.parametrize("bin_type", ["uniform", "raw"])
def test_of_many_series_the_latest_values_are_carried_on(bin_type):
    cohort = small_cohort(40)
    tokenizer = Tokenizer.fit(cohort, TokenSettings(min_code_count=1, bin_type=bin_type))
    records = encode(tokenizer, cohort)
    variable_of = tokenizer.grammar.variable[tokenizer.kind_of]
    record = max((records[i].astype(np.int64) for i in range(len(records))), key=len)
    cuts = Cutter(tokenizer, 10_000).cuts(record)
    cut = int(cuts[variable_of[record[cuts - 2]] >= 0][-1])
    all_values = Cutter(tokenizer, 10_000).state(record, cut)
    n_tokens = int((all_values.values_stop - all_values.values_start).sum())
    assert n_tokens > 2
    for share in range(n_tokens + 1):
        some = Cutter(tokenizer, VALUES_SHARE * share).state(record, cut)
        sizes = some.values_stop - some.values_start
        assert sizes.sum() <= share
        carried, left_out = sizes > 0, (sizes == 0) & (all_values.values_stop > 0)
        # Those that are carried are as they were, and all later than those that are not.
        assert np.array_equal(some.values_start[carried], all_values.values_start[carried])
        if carried.any() and left_out.any():
            assert some.values_stop[carried].min() > all_values.values_stop[left_out].max()
        # Whole values only: each range has all the tokens of one value.
        for i in np.flatnonzero(carried):
            value = record[some.values_start[i] : some.values_stop[i]]
            assert set(variable_of[value]) == {i}
            assert variable_of[record[some.values_start[i] - 1]] != i
    assert np.array_equal(some.values_stop, all_values.values_stop)


def test_truncation_is_as_published():
    cohort = small_cohort(40)
    tokenizer = Tokenizer.fit(cohort, TokenSettings(long_records="truncate"))
    assert ELAPSED not in tokenizer.grammar.kinds
    records = encode(tokenizer, cohort)
    rows = np.arange(len(records))[::-1]
    segments = cut_records(tokenizer, records, rows, 50)
    assert segments.record.tolist() == rows.tolist()
    assert segments.start.tolist() == [0] * len(rows)
    assert segments.stop.tolist() == np.minimum(records.lengths[rows], 50).tolist()


def test_a_context_too_short_for_what_belongs_together_is_refused():
    cohort = small_cohort(40)
    tokenizer = Tokenizer.fit(cohort, CONTINUE)
    records = encode(tokenizer, cohort)
    rows = np.arange(len(records))
    with pytest.raises(UserError, match=r"n_ctx=16 is too short .* patient \d+") as error:
        cut_records(tokenizer, records, rows, 16)
    least = int(re.search(r"(\d+) is enough for all", str(error.value)).group(1))
    assert_nothing_is_lost(records, cut_records(tokenizer, records, rows, least), rows, least)


def test_elapsed_time_with_published_gaps_is_that_of_typical_gaps():
    cohort = small_cohort(40)
    tokenizer = Tokenizer.fit(cohort, TokenSettings(time="gap"))
    assert tokenizer.hours_of.astype(bool).sum() == 15
    first = tokenizer.token("gap")
    assert tokenizer.hours_of[first : first + 15].tolist() == tokenizer.gaps.middles.tolist()


def test_records_without_their_series():
    cohort = small_cohort(20)
    tokenizer = Tokenizer.fit(cohort, CONTINUE)
    records = encode(tokenizer, cohort)
    short = tokenizer.as_trained(no_series=True)
    without = without_series(tokenizer, records)
    assert find_faults(short, without) == []
    # The same as encoding the patients as if nothing had been measured.
    nothing = dataclasses.replace(cohort, measurements=cohort.measurements[:0])
    expected = encode(tokenizer, nothing)
    assert np.array_equal(without.tokens, expected.tokens)
    assert np.array_equal(without.offsets, expected.offsets)
    with_series = encode(short, cohort)
    assert np.array_equal(with_series.tokens, expected.tokens)
    assert with_series.dropped["values, as these records have no series"] == len(
        cohort.measurements
    )
    assert find_faults(short, records)
    published = Tokenizer.fit(cohort, TokenSettings(time="gap"))
    without = without_series(published, encode(published, cohort))
    assert np.array_equal(without.tokens, encode(published, nothing).tokens)


@settings(max_examples=60, deadline=None)
@given(cohort=cohorts(), how=any_settings)
def test_any_record_without_its_series_is_one_of_a_patient_never_measured(cohort, how):
    tokenizer = Tokenizer.fit(cohort, how)
    nothing = dataclasses.replace(cohort, measurements=cohort.measurements[:0])
    without, expected = (
        without_series(tokenizer, encode(tokenizer, cohort)),
        encode(tokenizer, nothing),
    )
    # But for stays that end before their last time point, which then seem longer.
    if not encode(tokenizer, cohort).changed.get("stays that end before their last time point"):
        assert np.array_equal(without.tokens, expected.tokens)
        assert np.array_equal(without.offsets, expected.offsets)
    assert find_faults(tokenizer.as_trained(no_series=True), without) == []


def test_cuts_by_hand():
    tokenizer = Tokenizer.fit(small_cohort(20), CONTINUE)
    number = {text: i for i, text in enumerate(tokenizer.vocabulary)}
    values = [next(t for t in tokenizer.vocabulary if t.startswith(n)) for n in ("Heart", "pH")]
    texts = [
        *("<s>", "age=(60, 65]", "gender=F", "</covar>", "in_hospital_mortality=0", "</label>"),
        *("icd9_diagnosis:0389", "icd9_diagnosis:4019", "icd9_procedure:3893", "</code>"),
        *(
            *values,
            "+1 h",
            "+30 min",
            values[0],
            "+1 h",
            "</ts>",
            "discharge +1 h",
            "</adm>",
            "</s>",
        ),
    ]
    record = np.array([number[text] for text in texts])
    assert find_faults(tokenizer, records_of(tokenizer, record)) == []
    # After each code, and after each time as a whole: not between its hours and minutes.
    assert Cutter(tokenizer, 50).cuts(record).tolist() == [7, 8, 9, 14, 16]
    assert Cutter(tokenizer, 50).cuts(record[:13]).tolist() == [7, 8, 9]
    assert Cutter(tokenizer, 50).cuts(record[:8]).tolist() == [7, 8]
    assert g.HISTORY in tokenizer.grammar.kinds
