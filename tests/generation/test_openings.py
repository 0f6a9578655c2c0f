"""What records begin with, and the exact probability of each beginning."""

import math
from collections import Counter
from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from synehrgy.generation import openings as module
from synehrgy.generation.openings import Openings, model_openings
from synehrgy.generation.sampler import Requests, Sampling, probabilities
from synehrgy.settings import TokenSettings, VariableSettings
from synehrgy.tokenizer import Tokenizer
from synehrgy.tokenizer.grammar import END_COVARIATES, START
from synehrgy.training.checkpoint import load_run
from tests.cohorts import cohorts, small_cohort
from tests.generation.runs import drawn_of, noisy_run
from tests.generation.test_sampler import untrained
from tests.tokenizer.test_round_trip import any_settings
from tests.tokens import words

CPU = torch.device("cpu")
PLAIN = Sampling()


def openings_of(run, how=PLAIN):
    return model_openings(run.model, run.tokenizer, how)


def by_hand(run, tokens, how):
    """The chain rule, a token at a time."""
    chance = 1.0
    for i in range(1, len(tokens)):
        with torch.inference_mode():
            logits = run.model(torch.tensor([tokens[:i].tolist()]))[0, -1]
        allowed = torch.from_numpy(run.tokenizer.allowed[run.tokenizer.kind_of[tokens[i - 1]]])
        seen = torch.zeros_like(allowed)
        seen[torch.from_numpy(tokens[:i])] = True
        found = probabilities(logits[None], allowed[None], seen[None], how)[0]
        chance *= float(found[int(tokens[i])])
    return chance


def test_every_age_gender_and_outcome_of_a_trained_model(trained):
    run = load_run(trained, CPU)
    found = openings_of(run)
    texts = [tuple(words(run.tokenizer, tokens)) for tokens in found.tokens]
    ages = [text for text in run.tokenizer.vocabulary if text.startswith("age=")]
    assert len(set(texts)) == len(texts) == len(ages) * 2 * 2
    for text in texts:
        assert text[0] == "<s>"
        assert text[1] in ages
        assert text[2] in ("gender=F", "gender=M")
        assert text[3] == END_COVARIATES
        assert text[4] in ("in_hospital_mortality=0", "in_hospital_mortality=1")
        assert len(text) == 5
    assert found.total == pytest.approx(1, abs=1e-5)
    assert (found.weights > 0).all()
    for i in range(0, len(found), 7):
        assert found.weights[i] == pytest.approx(by_hand(run, found.tokens[i], PLAIN), rel=1e-3)


@pytest.mark.parametrize(
    "how",
    [
        Sampling(),
        Sampling(temperature=0.5),
        Sampling(top_k=3),
        Sampling(top_p=0.6),
        Sampling(repetition_penalty=3.0, temperature=2.0),
    ],
)
def test_probabilities_are_how_often_the_sampler_begins_so(how):
    run = noisy_run(scale=6.0, **{"</s>": 20.0})
    found = openings_of(run, how)
    assert found.total == pytest.approx(1, abs=1e-5)
    for i in range(0, len(found), max(1, len(found) // 5)):
        assert found.weights[i] == pytest.approx(by_hand(run, found.tokens[i], how), rel=1e-3)
    n = 2000
    drawn = drawn_of(run, Requests(run.tokenizer), n, seed=3, how=how)
    counts = Counter(tuple(one.tokens[: len(found.tokens[0])].tolist()) for one in drawn)
    expected = {tuple(t.tolist()): w * n for t, w in zip(found.tokens, found.weights, strict=True)}
    assert counts.keys() <= expected.keys()
    for tokens, mean in expected.items():
        assert abs(counts[tokens] - mean) <= 4.5 * math.sqrt(mean) + 1


def test_openings_in_a_context_that_holds_one_short_record():
    """There the limit takes part, and a record has no second context."""
    how = TokenSettings(min_code_count=1, long_records="truncate")
    for settings_, n_ctx in ((how, 16), (TokenSettings(min_code_count=1), 20)):
        run = noisy_run(n_ctx=n_ctx, how=settings_, scale=6.0)
        found = openings_of(run)
        assert found is not None
        assert found.total == pytest.approx(1, abs=1e-5)
        begins = {tuple(tokens.tolist()) for tokens in found.tokens}
        drawn = drawn_of(run, Requests(run.tokenizer), 100)
        assert {tuple(one.tokens[:5].tolist()) for one in drawn} <= begins


def test_too_many_are_not_told(trained, monkeypatch):
    run = load_run(trained, CPU)
    n = len(openings_of(run))
    monkeypatch.setattr(module, "MOST_OPENINGS", n)
    assert len(openings_of(run)) == n
    monkeypatch.setattr(module, "MOST_OPENINGS", n - 1)
    assert openings_of(run) is None


def test_parts_of_a_batch_give_the_same(trained, monkeypatch):
    run = load_run(trained, CPU)
    whole = openings_of(run)
    monkeypatch.setattr(module, "_AT_ONCE", 3)
    parts = openings_of(run)
    assert [t.tolist() for t in parts.tokens] == [t.tolist() for t in whole.tokens]
    np.testing.assert_allclose(parts.weights, whole.weights, rtol=1e-4)


def test_nothing_is_told_after_a_number_in_digits():
    how = TokenSettings(min_code_count=1, variables={"age": VariableSettings(bin_type="raw")})
    run = noisy_run(how=how)
    found = openings_of(run)
    assert [words(run.tokenizer, tokens) for tokens in found.tokens] == [[START]]
    assert found.weights.tolist() == [1.0]


@pytest.mark.parametrize(
    ("without", "length"),
    [("covariates", 3), ("outcomes", 4), ("both", 2), ("neither", 5)],
)
def test_schemas_that_state_less_have_shorter_openings(without, length):
    cohort = small_cohort()
    schema = cohort.schema
    labels, covariates = schema.labels, schema.covariates
    if without in ("outcomes", "both"):
        labels = [label for label in labels if label.kind != "outcome"]
    if without in ("covariates", "both"):
        covariates = []
    kept = ["subject_id", "stay_id", "hadm_id", "stay_index", "split", "los_hours"]
    kept += [c.name for c in covariates] + [label.column for label in labels]
    cohort = replace(
        cohort,
        schema=replace(schema, labels=labels, covariates=covariates),
        stays=cohort.stays[[name for name in cohort.stays if name in kept]],
    )
    found = openings_of(noisy_run(cohort))
    assert {len(tokens) for tokens in found.tokens} == {length}
    assert found.total == pytest.approx(1, abs=1e-5)
    if without == "both":
        assert len(found) == 1


@settings(max_examples=30, deadline=None)
@given(cohort=cohorts(), how=any_settings, seed=st.integers(0, 5))
def test_probabilities_add_up_whatever_the_schema(cohort, how, seed):
    tokenizer = Tokenizer.fit(cohort, how)
    model = untrained(tokenizer, tokenizer.shortest_record + 60, seed, 30.0)
    found = model_openings(model, tokenizer, PLAIN)
    assert found.total == pytest.approx(1, abs=1e-4)
    assert len({tuple(tokens.tolist()) for tokens in found.tokens}) == len(found)
    for tokens in found.tokens:
        assert tokens[0] == tokenizer.token(START)
        for before, after in pairwise(tokens):
            assert tokenizer.allowed[tokenizer.kind_of[before], after]


def test_some_of_them_and_draws_in_proportion():
    tokens = [np.array([0, i]) for i in range(4)]
    every = Openings(tokens, np.array([0.1, 0.0, 0.3, 0.2]))
    assert len(every) == 4
    assert every.total == pytest.approx(0.6)
    some = every.among([True, True, False, True])
    assert [one.tolist() for one in some.tokens] == [[0, 0], [0, 1], [0, 3]]
    assert some.total == pytest.approx(0.3)
    grid = (np.arange(3000) + 0.5) / 3000
    counts = Counter(int(some.draw(u)[1]) for u in grid)
    assert counts == {0: 1000, 3: 2000}
    last = Openings(tokens, np.array([1.0, 1.0, 0.0, 0.0]))
    assert last.draw(1 - 1e-17)[1] == 1
    assert last.draw(1e-300)[1] == 0
