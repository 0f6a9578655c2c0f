"""One automaton decides what a record is, for any schema."""

import dataclasses
import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from synehrgy.errors import UserError
from synehrgy.settings import TokenSettings
from synehrgy.tokenizer import Records, Tokenizer, decode, encode, find_faults
from synehrgy.tokenizer import grammar as g
from tests.cohorts import cohorts, small_cohort

EVERY_CODE = TokenSettings(min_code_count=1, covariate_edges={})


def records_of(tokenizer, *sequences):
    tokens = [np.array(s, dtype=tokenizer.dtype) for s in sequences]
    offsets = np.concatenate([[0], np.cumsum([len(s) for s in sequences])]).astype(np.int64)
    n = len(sequences)
    return Records(np.concatenate(tokens), offsets, np.arange(n), np.full(n, -1, dtype=np.int8))


def walk(tokenizer, rng, soft_limit):
    """A random record: allowed tokens only, and the shortest way out from the limit on."""
    distance = tokenizer.grammar.distance[tokenizer.kind_of]
    sequence = [tokenizer.token(g.START)]
    while sequence[-1] != tokenizer.token(g.END):
        allowed = np.flatnonzero(tokenizer.allowed[tokenizer.kind_of[sequence[-1]]])
        if len(sequence) >= soft_limit:
            allowed = allowed[distance[allowed] == distance[allowed].min()]
        sequence.append(int(rng.choice(allowed)))
    return sequence


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
    return g.record_grammar(*parts, [optional[i] for i in empty if i < len(optional)]), parts


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
            if not take(g.GAP):
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
    middle = [*parts[2], g.END_LABELS, *parts[3], g.END_CODES, *parts[4], g.GAP]
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
    # Nothing leads to padding or to the reserved tokens, and nothing follows the end.
    for kind in (g.PAD, *g.RESERVED, g.START):
        assert grammar.index(kind) not in reachable - {grammar.index(g.START)}
    assert not grammar.follows[grammar.index(g.END)].any()


@settings(max_examples=60, deadline=None)
@given(cohort=cohorts(), seed=st.integers(0, 2**32 - 1), limit=st.integers(1, 60))
def test_random_walks_are_records_on_any_schema(cohort, seed, limit):
    tokenizer = Tokenizer.fit(cohort, EVERY_CODE)
    rng = np.random.default_rng(seed)
    records = records_of(tokenizer, *(walk(tokenizer, rng, limit) for _ in range(3)))
    assert find_faults(tokenizer, records) == []
    back = decode(tokenizer, records, seed=seed)
    # Decoding loses nothing: the patients have the same tokens again.
    assert np.array_equal(encode(tokenizer, back).tokens, records.tokens)


@settings(max_examples=80, deadline=None)
@given(seed=st.integers(0, 2**32 - 1), data=st.data())
def test_a_substituted_token_is_reported_where_the_rule_breaks(tokenizer, seed, data):
    sequence = walk(tokenizer, np.random.default_rng(seed), 30)
    at = data.draw(st.integers(0, len(sequence) - 1))
    sequence[at] = data.draw(st.integers(0, len(tokenizer.vocabulary) + 2))
    faults = find_faults(tokenizer, records_of(tokenizer, sequence))
    expected = None
    # Read from the left, the first token that cannot stand there.
    for i, token in enumerate(sequence):
        known = token < len(tokenizer.vocabulary)
        if i == 0:
            fits = token == tokenizer.token(g.START)
        else:
            fits = known and tokenizer.allowed[tokenizer.kind_of[sequence[i - 1]], token]
        if not fits or (i == len(sequence) - 1 and token != tokenizer.token(g.END)):
            expected = i
            break
    assert [fault.position for fault in faults] == ([] if expected is None else [expected])


@pytest.mark.parametrize(
    ("change", "position", "words"),
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
def test_the_first_fault_is_told_in_words(tokenizer, change, position, words):
    whole = walk(tokenizer, np.random.default_rng(0), 30)
    sequence = change(tokenizer, whole)
    position = {None: len(whole), -1: len(sequence) - 1}.get(position, position)
    good = walk(tokenizer, np.random.default_rng(1), 30)
    faults = find_faults(tokenizer, records_of(tokenizer, good, sequence, good))
    assert [(f.record, f.position) for f in faults] == [(1, position)]
    assert words in faults[0].reason


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
