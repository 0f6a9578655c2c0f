"""One automaton decides what a record is, for any schema."""

import dataclasses
import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from synehrgy.errors import UserError
from synehrgy.settings import TokenSettings
from synehrgy.tokenizer import (
    Tokenizer,
    decode,
    encode,
    find_faults,
    label_contradictions,
    validate,
)
from synehrgy.tokenizer import grammar as g
from synehrgy.tokenizer.grammar import Word
from tests.cohorts import build, cohorts, small_cohort
from tests.tokenizer.test_round_trip import any_settings
from tests.tokens import first_fault, records_of, walk

GAP = "gap"


@pytest.fixture(scope="module")
def tokenizer():
    return Tokenizer.fit(small_cohort(30), TokenSettings(min_code_count=1))


small_grammars = st.tuples(
    *(st.integers(0, n) for n in (2, 2, 2, 2, 3)), st.sets(st.integers(0, 10), max_size=4)
)


def grammar_of(sizes):
    *counts, empty = sizes
    parts = [[f"{x}{i}" for i in range(n)] for x, n in zip("copsv", counts, strict=True)]
    # A kind that each admission needs always has a token; the others may be without.
    optional = [*parts[2], *parts[3], *parts[4]]
    covariates, outcomes, phenotypes, systems, variables = parts
    grammar = g.record_grammar(
        [Word.of(kind) for kind in covariates],
        *(outcomes, phenotypes, systems),
        [Word.of(kind) for kind in variables],
        Word.of(GAP),
        empty=[optional[i] for i in empty if i < len(optional)],
    )
    return grammar, parts


def has_record_form(grammar, parts, empty, sequence):
    """The published grammar, parsed by hand instead of by the automaton."""
    covariates, outcomes, phenotypes, systems, variables = parts
    at = 0

    def take(kind):
        nonlocal at
        if at < len(sequence) and sequence[at] == kind and kind not in empty:
            at += 1
            return True
        return False

    def admission():
        if not all(take(kind) for kind in [*covariates, g.END_COVARIATES, *outcomes]):
            return False
        for kind in phenotypes:
            take(kind)
        if not take(g.END_LABELS):
            return False
        for kind in systems:
            while take(kind):
                pass
        if not take(g.END_CODES):
            return False
        while sum(take(kind) for kind in variables):
            if not take(GAP):
                return False
        return take(g.END_SERIES) and take(g.END_ADMISSION)

    if not take(g.START) or not admission():
        return False
    while not take(g.END):
        if not admission():
            return False
    return at == len(sequence)


def accepts(grammar, sequence):
    numbers = [grammar.index(kind) for kind in sequence]
    return (
        sequence[0] == g.START
        and sequence[-1] == g.END
        and all(grammar.follows[a, b] for a, b in itertools.pairwise(numbers))
    )


@settings(max_examples=100, deadline=None)
@given(sizes=small_grammars, data=st.data())
def test_the_automaton_accepts_just_the_records_of_the_published_grammar(sizes, data):
    grammar, parts = grammar_of(sizes)
    optional = [*parts[2], *parts[3], *parts[4]]
    empty = {optional[i] for i in sizes[-1] if i < len(optional)}
    # Random walks, with now and then a step that is perhaps not allowed.
    sequence = [g.START]
    while sequence[-1] != g.END and len(sequence) < 40:
        following = np.flatnonzero(grammar.follows[grammar.index(sequence[-1])])
        anything = data.draw(st.integers(0, 15)) == 0 or not len(following)
        choices = list(grammar.kinds) if anything else [grammar.kinds[i] for i in following]
        sequence.append(data.draw(st.sampled_from(choices)))
    assert accepts(grammar, sequence) == has_record_form(grammar, parts, empty, sequence)


def test_the_automaton_accepts_just_the_records_exhaustively():
    # All strings of up to five tokens inside an admission with one phenotype, one system and two
    # variables. Counted by hand: 1, 2, 4 and 7 records with 0, 1, 2 and 3 tokens of content.
    grammar, parts = grammar_of((0, 0, 1, 1, 2, set()))
    middle = [*parts[2], g.END_LABELS, *parts[3], g.END_CODES, *parts[4], GAP]
    found = 0
    for length in range(2, 6):
        for inside in itertools.product(middle, repeat=length):
            sequence = [g.START, g.END_COVARIATES, *inside, g.END_SERIES, g.END_ADMISSION, g.END]
            expected = has_record_form(grammar, parts, set(), sequence)
            assert accepts(grammar, sequence) == expected
            found += expected
    assert found == 1 + 2 + 4 + 7


def shortest(grammar, kind):
    """Fewest steps to the end by trying all sequences, instead of searching backwards."""
    reached, steps = {grammar.index(kind)}, 0
    while grammar.index(g.END) not in reached:
        further = set(np.flatnonzero(grammar.follows[sorted(reached)].any(axis=0)).tolist())
        reached, steps = further, steps + 1
        if not reached or steps > len(grammar.kinds) + 1:
            return g.UNREACHABLE
    return steps


@settings(max_examples=60, deadline=None)
@given(sizes=small_grammars)
def test_distance_is_the_shortest_completion_and_every_reachable_state_has_one(sizes):
    grammar, _ = grammar_of(sizes)
    reachable, border = {grammar.index(g.START)}, [grammar.index(g.START)]
    while border:
        new = set(np.flatnonzero(grammar.follows[border.pop()]).tolist()) - reachable
        reachable |= new
        border += new
    for i, kind in enumerate(grammar.kinds):
        assert grammar.distance[i] == shortest(grammar, kind)
        if i in reachable:
            assert grammar.distance[i] < g.UNREACHABLE
    # Nothing leads to padding or to the marks of a forecast, and nothing follows the end.
    for kind in (g.PAD, g.HISTORY, g.FORECAST, g.END_FORECAST, g.START):
        assert grammar.index(kind) not in reachable - {grammar.index(g.START)}
    assert not grammar.follows[grammar.index(g.END)].any()


@settings(max_examples=100, deadline=None)
@given(
    cohort=cohorts(),
    how=any_settings,
    seed=st.integers(0, 2**32 - 1),
    limit=st.integers(1, 60),
)
def test_random_walks_are_records_on_any_schema(cohort, how, seed, limit):
    tokenizer = Tokenizer.fit(cohort, how)
    rng = np.random.default_rng(seed)
    records = records_of(tokenizer, *(walk(tokenizer, rng, limit) for _ in range(3)))
    assert find_faults(tokenizer, records) == []
    back = decode(tokenizer, records, seed=seed)
    # Decoding loses nothing: the patients have the same tokens again.
    assert np.array_equal(encode(tokenizer, back).tokens, records.tokens)


@settings(max_examples=200, deadline=None)
@given(
    seed=st.integers(0, 2**32 - 1),
    free=st.sets(st.sampled_from(["labels", "series"])),
    bin_type=st.sampled_from(["uniform", "raw"]),
    data=st.data(),
)
def test_a_substituted_token_is_reported_where_the_rule_breaks(seed, free, bin_type, data):
    settings = TokenSettings(min_code_count=1, bin_type=bin_type)
    tokenizer = Tokenizer.fit(small_cohort(30), settings).as_trained(sorted(free))
    sequence = walk(tokenizer, np.random.default_rng(seed), 60)
    assert validate(tokenizer, sequence) is None
    at = data.draw(st.integers(0, len(sequence) - 1))
    # Often a token that the record has already: that is what memory is about.
    anything = st.integers(0, len(tokenizer.vocabulary) + 2)
    sequence[at] = data.draw(anything | st.sampled_from(sequence))
    fault = validate(tokenizer, sequence)
    assert (fault.position if fault else None) == first_fault(tokenizer, sequence)


def test_what_a_record_has_said_already_is_told_in_words():
    tokenizer = Tokenizer.fit(small_cohort(30), TokenSettings(min_code_count=1))
    number = {text: i for i, text in enumerate(tokenizer.vocabulary)}

    def fault(*texts):
        return validate(tokenizer, [number[text] for text in texts])

    def stay(*codes, age="(60, 65]", gender="F"):
        died = ("</covar>", "in_hospital_mortality=0", "</label>")
        return (f"age={age}", f"gender={gender}", *died, *codes, "</code>", *end)

    end = ("</ts>", "discharge +1 h", "</adm>")
    code = "icd9_diagnosis:0389"
    assert fault("<s>", *stay(code), *stay(code, age="(65, 70]"), "</s>") is None
    assert fault("<s>", *stay(code, code), "</s>").reason == (
        f"{code!r} stands in the admission already"
    )
    falls = fault("<s>", *stay(), *stay(age="(20, 25]"), "</s>")
    assert (falls.position, falls.reason) == (
        10,
        "'age=(20, 25]' after 'age=(60, 65]': age is rising",
    )
    changes = fault("<s>", *stay(), *stay(gender="M"), "</s>")
    assert changes.reason == "'gender=M' after 'gender=F': gender is constant"
    ordered = ["Heart Rate", "pH"]
    values = [next(t for t in tokenizer.vocabulary if t.startswith(name)) for name in ordered]
    opening = stay()[:-3]
    assert fault("<s>", *opening, *values, "+1 h", *end, "</s>") is None
    assert fault("<s>", *opening, *values[::-1], "+1 h", *end, "</s>").position == 8
    assert "cannot follow" in fault("<s>", *opening, values[0], values[0], "+1 h", *end).reason


def test_variables_in_any_order_still_come_once():
    tokenizer = Tokenizer.fit(small_cohort(30)).as_trained(["series", "labels"])
    names = ["pH", "Heart Rate", "pH"]
    values = [next(t for t in tokenizer.vocabulary if t.startswith(name)) for name in names]
    number = {text: i for i, text in enumerate(tokenizer.vocabulary)}
    opening = ["<s>", "age=(60, 65]", "gender=F", "</covar>", "in_hospital_mortality=0"]
    end = ["</ts>", "discharge +1 h", "</adm>", "</s>"]

    def fault(labels, series):
        texts = [*opening, *labels, "</label>", "</code>", *series, *end]
        return validate(tokenizer, [number[text] for text in texts])

    assert fault(["shock", "septicemia"], [*values[:2], "+1 h", *values[1:], "+2 h"]) is None
    assert "second of its series" in fault([], [*values, "+1 h"]).reason
    assert "already" in fault(["shock", "septicemia", "shock"], []).reason


def test_rules_hold_only_where_the_data_keep_them():
    cohort = small_cohort(30)
    assert Tokenizer.fit(cohort).rules == {"age": "rising", "gender": "constant"}
    stays = cohort.stays.copy()
    # One patient grows younger, in a split that is not learned from.
    later = stays.index[(stays["stay_index"] == 1) & (stays["split"] == "test")][0]
    stays.loc[later, "age"] = 18.5
    younger = dataclasses.replace(cohort, stays=stays)
    tokenizer = Tokenizer.fit(younger)
    assert tokenizer.rules == {"gender": "constant"}
    assert find_faults(tokenizer, encode(tokenizer, younger)) == []
    none = Tokenizer.fit(cohort, TokenSettings(within_patient={}))
    assert none.rules == {}
    # A tokenizer of another cohort tells the fault, and decodes the record all the same.
    other = Tokenizer.fit(cohort)
    records = encode(other, younger)
    (fault,) = find_faults(other, records)
    assert "age is rising" in fault.reason
    assert len(decode(other, records).stays) == len(stays)


def test_contradictions_of_labels_and_codes_are_counted():
    cohort = small_cohort(1)
    label = dataclasses.replace(
        cohort.schema.labels[1], system="icd9_diagnosis", codes=["0389", "99592", "78552"]
    )
    labels = [cohort.schema.labels[0], label, cohort.schema.labels[2]]
    schema = dataclasses.replace(cohort.schema, labels=labels)
    stays, codes = [], []
    # With the label and a code, with neither, a code alone twice, the label alone.
    for i, (said, listed) in enumerate(
        [(1, ["4019", "0389"]), (0, ["4019"]), (0, ["0389", "99592"]), (0, ["99592"]), (1, [])]
    ):
        stays.append((i, i, None, 0, "train", 50.0, "F", 0, said, 0, 5.0))
        codes += [(i, j, "icd9_diagnosis", code) for j, code in enumerate(listed)]
    tokenizer = Tokenizer.fit(
        cohort := build(schema, stays, codes, []), TokenSettings(min_code_count=1)
    )
    assert label_contradictions(tokenizer, encode(tokenizer, cohort)) == {
        "stays": 5,
        "codes_without_label": 2,
        "label_without_codes": 1,
    }


@pytest.mark.parametrize(
    ("change", "position", "said"),
    [
        (lambda t, s: s[1:], 0, "it begins with 'age="),
        (lambda t, s: s[:-1], -1, "it ends with '</adm>', not '</s>'"),
        (lambda t, s: s[:1], 0, "it ends with '<s>', not '</s>'"),
        (lambda t, s: [s[0], s[-1]], 1, "'</s>' cannot follow '<s>'"),
        (lambda t, s: [*s, t.token(g.PAD)], -1, "it ends with '<pad>', not '</s>'"),
        (lambda t, s: [*s, *s], None, "'<s>' cannot follow '</s>'"),
        (lambda t, s: [], 0, "it has no tokens"),
        (lambda t, s: [len(t.vocabulary), *s], 0, "does not exist"),
        (lambda t, s: [*s, 60_000], -1, "token 60000 does not exist"),
    ],
)
def test_the_first_fault_is_told_in_words(tokenizer, change, position, said):
    whole = walk(tokenizer, np.random.default_rng(0), 30)
    sequence = change(tokenizer, whole)
    position = {None: len(whole), -1: len(sequence) - 1}.get(position, position)
    good = walk(tokenizer, np.random.default_rng(1), 30)
    faults = find_faults(tokenizer, records_of(tokenizer, good, sequence, good))
    assert [(f.record, f.position) for f in faults] == [(1, position)]
    assert said in faults[0].reason


def test_decoding_refuses_what_is_no_record(tokenizer):
    good = walk(tokenizer, np.random.default_rng(0), 30)
    with pytest.raises(UserError, match=r"1 of 2 token sequences are no records; number 1"):
        decode(tokenizer, records_of(tokenizer, good, good[:-1]))


def test_no_records_decode_to_no_patients(tokenizer):
    none = records_of(tokenizer, [])
    none = dataclasses.replace(
        none, offsets=none.offsets[:1], subject_ids=none.subject_ids[:0], splits=none.splits[:0]
    )
    assert find_faults(tokenizer, none) == []
    assert decode(tokenizer, none).counts()["stays"] == 0
