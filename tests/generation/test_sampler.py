"""Sampling: valid whatever the model, exact under the constraint, the same for a seed."""

import dataclasses
from collections import Counter

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from synehrgy.generation.constraint import Constraint, RecordState
from synehrgy.generation.sampler import Sampling, draw, probabilities, sample
from synehrgy.model import GPT, GPTConfig
from synehrgy.settings import TokenSettings
from synehrgy.tokenizer import Tokenizer, decode, encode, find_faults, label_contradictions
from synehrgy.tokenizer.grammar import (
    END,
    END_ADMISSION,
    END_CODES,
    END_LABELS,
    END_SERIES,
    START,
)
from synehrgy.tokenizer.segments import Cutter, cut_records
from synehrgy.training.checkpoint import load_run
from tests.cohorts import cohorts, small_cohort
from tests.tokenizer.test_round_trip import any_settings
from tests.tokens import Memory, walk

CPU = torch.device("cpu")


def tokenizer_of(cohort):
    return Tokenizer.fit(cohort, TokenSettings(min_code_count=1))


def untrained(tokenizer, n_ctx, seed=0, scale=1.0):
    """A model that knows nothing: its logits are noise, as sharp as ``scale`` makes them."""
    torch.manual_seed(seed)
    config = GPTConfig(len(tokenizer.vocabulary), n_ctx, n_layer=1, n_head=2, n_embd=16)
    model = GPT(config).eval()
    with torch.no_grad():
        model.token_embedding.weight.mul_(scale)
    return model


def all_records(batches):
    return [batch.records[i] for batch in batches for i in range(len(batch.records))]


@settings(max_examples=40, deadline=None)
@given(
    cohort=cohorts(),
    how=any_settings,
    seed=st.integers(0, 5),
    scale=st.sampled_from([1.0, 100.0]),
    max_segments=st.integers(1, 3),
)
def test_every_record_is_valid_whatever_schema_and_model(cohort, how, seed, scale, max_segments):
    tokenizer = Tokenizer.fit(cohort, how)
    shortest = tokenizer.shortest_record
    for n_ctx in (shortest, shortest + 7, 60 + shortest):
        model = untrained(tokenizer, n_ctx, seed, scale)
        for batch in sample(
            model, tokenizer, 6, batch_size=4, seed=seed, max_segments=max_segments
        ):
            assert find_faults(tokenizer, batch.records) == []
            assert batch.records.lengths.max() <= max_segments * n_ctx
            assert len(decode(tokenizer, batch.records).stays) >= len(batch.records)


def test_no_room_for_any_record_is_refused():
    tokenizer = tokenizer_of(small_cohort())
    with pytest.raises(ValueError, match="shortest record has"):
        list(sample(untrained(tokenizer, 5), tokenizer, 1))


def test_a_model_that_never_ends_is_closed_in_time():
    tokenizer = tokenizer_of(small_cohort())
    model = untrained(tokenizer, 50)
    ends = [tokenizer.token(name) for name in (END, END_SERIES, END_ADMISSION)]
    hidden = model.hidden

    def never(tokens, cache=None):
        return hidden(tokens, cache)

    def logits(states):
        found = torch.zeros(*states.shape[:-1], len(tokenizer.vocabulary))
        found[..., ends] = -1e9
        return found

    model.hidden, model.logits = never, logits
    (batch,) = sample(model, tokenizer, 16, batch_size=16, max_segments=1)
    assert find_faults(tokenizer, batch.records) == []
    assert batch.n_closed == 16
    assert batch.n_forced >= 16
    assert batch.records.lengths.max() == 50


def test_far_from_the_limit_nothing_is_forced(trained):
    run = load_run(trained, CPU)
    (batch,) = sample(run.model, run.tokenizer, 64, batch_size=64)
    near = int((batch.records.lengths >= run.model.config.n_ctx - 12).sum())
    assert near < 32
    assert batch.n_closed <= near
    assert batch.n_forced <= 12 * near
    assert find_faults(run.tokenizer, batch.records) == []


def test_batch_size_changes_nothing(trained):
    run = load_run(trained, CPU)
    expected = all_records(sample(run.model, run.tokenizer, 20, batch_size=20, seed=3))
    for size in (1, 7):
        got = all_records(sample(run.model, run.tokenizer, 20, batch_size=size, seed=3))
        assert all(np.array_equal(a, b) for a, b in zip(got, expected, strict=True))
    more = all_records(sample(run.model, run.tokenizer, 25, batch_size=10, seed=3))
    assert all(np.array_equal(a, b) for a, b in zip(more[:20], expected, strict=True))
    other = all_records(sample(run.model, run.tokenizer, 20, batch_size=20, seed=4))
    assert any(not np.array_equal(a, b) for a, b in zip(other, expected, strict=True))


def test_sampling_follows_the_model_renormalised_over_allowed_tokens(trained):
    """Each token's draws have the exact distribution: the constraint takes no mass."""
    run = load_run(trained, CPU)
    tokenizer = run.tokenizer
    n = 4000
    records = all_records(sample(run.model, tokenizer, n, batch_size=1000, seed=1))
    start = tokenizer.token(START)
    logits = run.model(torch.tensor([[start]]))[0, -1].detach()
    allowed = torch.from_numpy(tokenizer.allowed[tokenizer.kind_of[start]])
    exact = torch.where(allowed, logits.softmax(0), torch.zeros(())).numpy()
    exact = exact / exact.sum()
    counts = np.bincount([record[1] for record in records], minlength=len(exact))
    assert counts[exact == 0].sum() == 0
    spread = np.sqrt(n * exact * (1 - exact))
    assert np.all(np.abs(counts - n * exact) <= 4.5 * spread + 1)


def test_prompts_are_kept_and_continued(trained):
    run = load_run(trained, CPU)
    tokenizer = run.tokenizer
    cohort = small_cohort(30, seed=9)
    whole = encode(tokenizer, cohort)
    ends = [int(np.flatnonzero(whole[i] == tokenizer.token(END_LABELS))[0]) for i in range(30)]
    openings = [whole[i][: end + 1].astype(np.int64) for i, end in enumerate(ends)]
    assert len({len(opening) for opening in openings}) > 1
    batches = sample(
        run.model,
        tokenizer,
        30,
        batch_size=12,
        prompts=lambda patients: [openings[i] for i in patients],
    )
    records = all_records(batches)
    for record, opening in zip(records, openings, strict=True):
        assert np.array_equal(record[: len(opening)], opening)
        assert len(record) > len(opening)


def logits_strategy():
    number = st.floats(-20, 20, width=32)
    return st.lists(number, min_size=6, max_size=6).map(lambda row: torch.tensor([row]))


@given(logits=logits_strategy(), allowed=st.lists(st.booleans(), min_size=6, max_size=6))
def test_probabilities_renormalise(logits, allowed):
    allowed = torch.tensor([[*allowed[:5], True]])
    got = probabilities(logits, allowed, None, Sampling())
    exact = torch.where(allowed, logits.double().softmax(1), 0.0)
    exact = exact / exact.sum()
    torch.testing.assert_close(got.double(), exact, rtol=1e-3, atol=1e-6)


def test_temperature_top_k_top_p_and_penalty_by_hand():
    logits = torch.tensor([[0.1, 0.2, 0.3, 0.4]]).log()
    everything = torch.ones(1, 4, dtype=torch.bool)

    def of(allowed=everything, seen=None, **how):
        return probabilities(logits, allowed, seen, Sampling(**how))[0].tolist()

    assert of() == pytest.approx([0.1, 0.2, 0.3, 0.4])
    assert of(temperature=0.5) == pytest.approx([x / 30 for x in (1, 4, 9, 16)])
    assert of(top_k=2) == pytest.approx([0, 0, 3 / 7, 4 / 7])
    assert of(top_k=9) == pytest.approx([0.1, 0.2, 0.3, 0.4])
    assert of(top_p=0.65) == pytest.approx([0, 0, 3 / 7, 4 / 7])
    assert of(top_p=0.75) == pytest.approx([0, 2 / 9, 3 / 9, 4 / 9])
    assert of(top_p=0.01) == pytest.approx([0, 0, 0, 1])
    # The choice is among what is allowed.
    not_best = torch.tensor([[True, True, True, False]])
    assert of(not_best, top_k=1) == pytest.approx([0, 0, 1, 0])
    # Log-probabilities are negative, so the penalty multiplies them.
    seen = torch.tensor([[False, False, False, True]])
    penalised = np.array([0.1, 0.2, 0.3, 0.4**2])
    assert of(seen=seen, repetition_penalty=2.0) == pytest.approx(penalised / penalised.sum())


@given(
    weights=st.lists(st.floats(0, 1), min_size=2, max_size=8).filter(lambda w: sum(w) > 1e-3),
    uniform=st.floats(0, 1, exclude_min=True, exclude_max=True),
)
def test_draw_inverts_the_distribution(weights, uniform):
    distribution = torch.tensor([weights], dtype=torch.float32)
    chosen = int(draw(distribution, torch.tensor([uniform], dtype=torch.float32)))
    assert distribution[0, chosen] > 0
    cumulative = np.cumsum(np.float64(weights)) / np.sum(weights)
    below = cumulative[chosen - 1] if chosen else 0.0
    assert below - 1e-5 <= uniform <= cumulative[chosen] + 1e-5


def state_of(constraint, *sequences):
    """The state of a batch of records of equal length, after these tokens."""
    state = RecordState(constraint, len(sequences))
    everyone = torch.ones(len(sequences), dtype=torch.bool)
    for column in torch.tensor(sequences).T:
        state.advance(column, everyone)
    return state


def test_mask_depends_on_the_limit_only_near_it():
    tokenizer = tokenizer_of(small_cohort())
    constraint = Constraint(tokenizer, 40, CPU)
    tokens = range(len(tokenizer.vocabulary))
    state = state_of(constraint, *([token] for token in tokens))
    far, limited = constraint.mask(state, 3, last_segment=True)
    assert not limited.any()
    near, limited = constraint.mask(state, 38, last_segment=True)
    assert limited.any()
    assert near.sum() < far.sum()
    assert torch.equal(limited, near.sum(1) < far.sum(1))
    ended = state_of(constraint, [tokenizer.token(END_ADMISSION)])
    only = constraint.mask(ended, 39, last_segment=True)[0][0]
    assert only.nonzero().flatten().tolist() == [tokenizer.token(END)]


@settings(max_examples=60, deadline=None)
@given(
    cohort=cohorts(),
    how=any_settings,
    free=st.sets(st.sampled_from(["labels", "series"])),
    seed=st.integers(0, 2**32 - 1),
)
def test_the_mask_is_what_a_plain_reader_of_the_record_allows(cohort, how, free, seed):
    """Far from the limit: the automaton, and nothing that the record has said already."""
    tokenizer = Tokenizer.fit(cohort, how).as_trained(sorted(free))
    constraint = Constraint(tokenizer, 100_000, CPU)
    sequence = walk(tokenizer, np.random.default_rng(seed), 40)
    state, memory = RecordState(constraint, 1), Memory(tokenizer)
    for token in sequence[:-1]:
        state.advance(torch.tensor([token]), torch.tensor([True]))
        memory.add(token)
        expected = [
            bool(allowed) and not memory.contradicts(then)
            for then, allowed in enumerate(tokenizer.allowed[tokenizer.kind_of[token]])
        ]
        for last_segment in (False, True):
            mask, limited = constraint.mask(state, 1, last_segment)
            assert mask[0].tolist() == expected
            assert not limited.any()


def test_records_that_do_not_move_stay_as_they_are():
    tokenizer = tokenizer_of(small_cohort())
    constraint = Constraint(tokenizer, 1000, CPU, rule_out=True)
    (sequence,) = (walk(tokenizer, np.random.default_rng(0), 30),)
    whole = state_of(constraint, sequence[:20], sequence[:20])
    state = RecordState(constraint, 2)
    for token in sequence[:20]:
        state.advance(torch.tensor([token, 3]), torch.tensor([True, False]))
    for token in sequence[:20]:
        state.advance(torch.tensor([5, token]), torch.tensor([False, True]))
    for mine, theirs in zip(
        constraint.mask(state, 20, False), constraint.mask(whole, 20, False), strict=True
    ):
        assert torch.equal(mine, theirs)


@pytest.mark.parametrize("n_ctx", [24, 28, 32, 40])
@pytest.mark.parametrize("max_segments", [2, 3])
def test_a_record_can_be_closed_wherever_the_last_context_begins(n_ctx, max_segments):
    """What is begun when a context ends goes on in the next, which must have room to end it."""
    tokenizer = tokenizer_of(small_cohort())
    model = untrained(tokenizer, n_ctx)
    (batch,) = sample(model, tokenizer, 300, batch_size=300, max_segments=max_segments)
    assert find_faults(tokenizer, batch.records) == []
    assert batch.n_segments > 300 or n_ctx < 28


def lingering(tokenizer, model):
    """A model that would rather measure on than end a series."""
    logits = model.logits

    def measuring(states):
        found = logits(states)
        found[..., tokenizer.token(END_SERIES)] = 0.5
        found[..., tokenizer.token(END)] = 2.0
        return found

    model.logits = measuring
    return model


@pytest.mark.parametrize("time", ["clock", "gap"])
def test_records_go_on_beyond_the_context(time):
    tokenizer = Tokenizer.fit(small_cohort(), TokenSettings(min_code_count=1, time=time))
    model = lingering(tokenizer, untrained(tokenizer, 60))
    (batch,) = sample(model, tokenizer, 24, batch_size=24, seed=1)
    assert find_faults(tokenizer, batch.records) == []
    assert 3 * 60 < batch.records.lengths.max() < 50 * 60
    assert batch.n_segments > 2 * 24
    assert batch.n_forced == batch.n_closed == 0
    # The same whatever is sampled beside them.
    expected = [batch.records[i] for i in range(24)]
    for size in (1, 7):
        got = all_records(sample(model, tokenizer, 24, batch_size=size, seed=1))
        assert all(np.array_equal(a, b) for a, b in zip(got, expected, strict=True))


@pytest.mark.parametrize("n_ctx", [40, 60])
def test_codes_that_explain_labels_do_not_depend_on_the_batch(n_ctx):
    """Nor does a token that waits for one when its context is full."""
    tokenizer = tokenizer_of(labelled())
    model = untrained(tokenizer, n_ctx)

    def records(size):
        how = {"batch_size": size, "seed": 5, "rule_out_contradictions": True}
        return all_records(sample(model, tokenizer, 60, **how))

    expected = records(60)
    for size in (1, 7):
        assert all(np.array_equal(a, b) for a, b in zip(records(size), expected, strict=True))


def test_the_last_context_closes_the_record():
    tokenizer = tokenizer_of(small_cohort())
    model = lingering(tokenizer, untrained(tokenizer, 60))
    (free,) = sample(model, tokenizer, 24, batch_size=24, seed=1)
    (capped,) = sample(model, tokenizer, 24, batch_size=24, seed=1, max_segments=2)
    assert find_faults(tokenizer, capped.records) == []
    assert capped.records.lengths.max() <= 2 * 60
    assert 0 < capped.n_closed <= capped.n_forced
    assert capped.n_segments <= 48
    # Records that end in time are the same.
    short = np.flatnonzero(free.records.lengths < 2 * 60 - 20)
    assert len(short)
    for i in short:
        assert np.array_equal(free.records[i], capped.records[i])


def test_generation_cuts_records_as_training_does():
    """The contexts that a record was sampled in are those that training would cut it into."""
    tokenizer = tokenizer_of(small_cohort())
    model = lingering(tokenizer, untrained(tokenizer, 60))
    seen = []
    hidden = model.hidden

    def watched(tokens, cache=None):
        seen.append(tokens.clone())
        return hidden(tokens, cache)

    model.hidden = watched
    (batch,) = sample(model, tokenizer, 1, batch_size=1, seed=3)
    contexts, open_ = [], []
    for tokens in seen:
        if tokens.shape[1] > 1 and open_:
            contexts.append(open_)
            open_ = []
        open_ = [*open_, *tokens[0].tolist()]
    contexts.append(open_)
    record = batch.records[0].astype(np.int64)
    segments = cut_records(tokenizer, batch.records, np.array([0]), 60)
    assert len(segments) == len(contexts) > 2
    cutter = Cutter(tokenizer)
    for i, context in enumerate(contexts):
        start, stop = int(segments.start[i]), int(segments.stop[i])
        head = cutter.head(record, start).tolist() if i else []
        expected = [*head, *record[start:stop].tolist()]
        # The last token of a context is drawn, but not put in again.
        assert context[: len(expected) - 1] == expected[: len(expected) - 1]


def labelled(n=80):
    """A cohort in which septicemia follows from two codes, and shock from a procedure."""
    cohort = small_cohort(n)
    defined = {
        "septicemia": ("icd9_diagnosis", ["0389", "99592"]),
        "shock": ("icd9_procedure", ["9604"]),
    }
    labels = [
        dataclasses.replace(label, system=system, codes=codes)
        for label in cohort.schema.labels
        for system, codes in [defined.get(label.column, (None, []))]
    ]
    schema = dataclasses.replace(cohort.schema, labels=labels)
    stays = cohort.stays.copy()
    for column, (system, codes) in defined.items():
        mine = cohort.codes[(cohort.codes["system"] == system) & cohort.codes["code"].isin(codes)]
        stays[column] = stays["stay_id"].isin(mine["stay_id"]).astype("int8")
    return dataclasses.replace(cohort, schema=schema, stays=stays)


@pytest.mark.parametrize("n_ctx", [60, 400])
def test_contradictions_of_labels_and_codes_are_ruled_out(n_ctx):
    tokenizer = tokenizer_of(labelled())
    assert tokenizer.defined_labels.supported_by.sum() == 3
    assert tokenizer.explained == ["septicemia", "shock"]
    model = untrained(tokenizer, n_ctx)

    def sampled(rule_out):
        batches = sample(
            model, tokenizer, 200, batch_size=100, seed=2, rule_out_contradictions=rule_out
        )
        counts = Counter()
        for batch in batches:
            assert find_faults(tokenizer, batch.records) == []
            counts.update(label_contradictions(tokenizer, batch.records))
        return counts

    counted, ruled_out = sampled(False), sampled(True)
    assert counted["codes_without_label"] > 20
    assert counted["label_without_codes"] > 20
    assert ruled_out["stays"] >= 200
    assert ruled_out["codes_without_label"] == ruled_out["label_without_codes"] == 0


def after_labels(cohort, *labels):
    """Constraint and state of a record that has just stated these labels."""
    tokenizer = tokenizer_of(cohort)
    constraint = Constraint(tokenizer, 1000, CPU, rule_out=True)
    number = {text: i for i, text in enumerate(tokenizer.vocabulary)}
    opening = ["<s>", "age=(60, 65]", "gender=F", "</covar>", "in_hospital_mortality=0"]
    texts = [*opening, *labels, "</label>"]
    return constraint, state_of(constraint, [number[text] for text in texts]), number


def test_what_a_model_wants_is_kept_but_for_the_end_that_comes_too_early():
    """Only where the codes would end with septicemia unexplained, one that explains it comes."""
    constraint, state, number = after_labels(labelled(), "septicemia")
    mask, _ = constraint.mask(state, 6, False)
    # A procedure that means shock is ruled out; every diagnosis and the end are not.
    assert not mask[0, number["icd9_procedure:9604"]]
    assert mask[0, number["</code>"]]
    explaining = {number["icd9_diagnosis:0389"], number["icd9_diagnosis:99592"]}
    for text, token in number.items():
        if not mask[0, token]:
            continue
        instead = constraint.instead(state, torch.tensor([token]), mask)[0]
        too_late = text == "</code>" or text.startswith("icd9_procedure")
        assert set(instead.nonzero().flatten().tolist()) == (explaining if too_late else set())
    # Once it is explained, all may end.
    state.advance(torch.tensor([number["icd9_diagnosis:0389"]]), torch.tensor([True]))
    mask, _ = constraint.mask(state, 7, False)
    assert not constraint.instead(state, torch.tensor([number["</code>"]]), mask).any()


def test_a_model_that_wants_to_end_its_codes_adds_only_what_explains_the_labels():
    """It is not kept from ending until it happens to list the right code."""
    tokenizer = tokenizer_of(labelled())
    model = untrained(tokenizer, 200)
    logits = model.logits

    def ending(states):
        found = logits(states)
        found[..., tokenizer.token(END_CODES)] = 12.0
        return found

    model.logits = ending
    (batch,) = sample(model, tokenizer, 300, batch_size=300, seed=4, rule_out_contradictions=True)
    stays = decode(tokenizer, batch.records)
    counts = label_contradictions(tokenizer, batch.records)
    assert counts["label_without_codes"] == counts["codes_without_label"] == 0
    n_labels = stays.stays[["septicemia", "shock"]].to_numpy().sum()
    assert n_labels > 50
    # Without labels hardly a code is listed, with them one each: what was chosen follows at once.
    assert len(stays.codes) <= 1.05 * n_labels + 5


def test_a_token_that_waited_follows_even_if_the_model_would_list_more():
    """After a code a model likes to list another; that must not begin anew."""
    tokenizer = tokenizer_of(labelled())
    model = untrained(tokenizer, 200)
    hidden, logits, last = model.hidden, model.logits, {}

    def watched(tokens, cache=None):
        last["tokens"] = tokens[:, -1]
        return hidden(tokens, cache)

    def chaining(states):
        found = logits(states)
        after_code = torch.tensor(
            ["icd9" in tokenizer.vocabulary[token] for token in last["tokens"].tolist()]
        )
        found[:, tokenizer.token(END_CODES)] = torch.where(after_code, -8.0, 12.0)
        return found

    model.hidden, model.logits = watched, chaining
    (batch,) = sample(model, tokenizer, 200, batch_size=200, seed=4, rule_out_contradictions=True)
    back = decode(tokenizer, batch.records)
    per_stay = back.codes.groupby("stay_id").size().reindex(back.stays["stay_id"]).fillna(0)
    n_labels = back.stays[["septicemia", "shock"]].sum(axis=1).to_numpy()
    assert n_labels.sum() > 30
    assert np.array_equal(per_stay.to_numpy(), n_labels)


def test_a_label_that_no_code_can_explain_any_more_does_not_block():
    """The one code that defines a label also defines another, which the record does not have."""
    cohort = labelled()
    labels = [
        cohort.schema.labels[0],
        *(
            dataclasses.replace(label, system="icd9_diagnosis", codes=["0389"])
            for label in cohort.schema.labels[1:]
        ),
    ]
    schema = dataclasses.replace(cohort.schema, labels=labels)
    constraint, state, number = after_labels(
        dataclasses.replace(cohort, schema=schema), "septicemia"
    )
    mask, _ = constraint.mask(state, 7, False)
    assert not mask[0, number["icd9_diagnosis:0389"]]
    assert mask[0, number["</code>"]]
    assert not constraint.instead(state, torch.tensor([number["</code>"]]), mask).any()


def test_labels_whose_codes_are_too_rare_are_not_asked_for_them():
    """In real records they stand without; asking would make up codes that were never there."""
    cohort = labelled()
    counts = cohort.select(split="train").codes["code"].value_counts()
    least = int(counts["0389"]) + 1
    tokenizer = Tokenizer.fit(cohort, TokenSettings(min_code_count=least))
    assert tokenizer.explained == (["shock"] if counts["9604"] >= least else [])
    constraint = Constraint(tokenizer, 1000, CPU, rule_out=True)
    number = {text: i for i, text in enumerate(tokenizer.vocabulary)}
    opening = ["<s>", "age=(60, 65]", "gender=F", "</covar>", "in_hospital_mortality=0"]
    state = state_of(constraint, [number[t] for t in (*opening, "septicemia", "</label>")])
    mask, _ = constraint.mask(state, 7, False)
    assert not constraint.instead(state, torch.tensor([number["</code>"]]), mask).any()
