"""Sampling: valid whatever the model, exact under the constraint, the same for a seed."""

import copy
import dataclasses
import itertools
from collections import Counter

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from synehrgy.cli import compose
from synehrgy.draws import Stream, uniforms
from synehrgy.generation.constraint import Constraint, RecordState
from synehrgy.generation.sampler import (
    ATTEMPT,
    Requests,
    Sampling,
    TooRareError,
    as_records,
    draw,
    probabilities,
    sample,
)
from synehrgy.model import BLOCK, GPT, GPTConfig
from synehrgy.settings import TokenSettings
from synehrgy.tokenizer import Tokenizer, decode, encode, find_faults, label_contradictions
from synehrgy.tokenizer.grammar import (
    END,
    END_ADMISSION,
    END_CODES,
    END_LABELS,
    END_SERIES,
    PAD,
    START,
)
from synehrgy.tokenizer.segments import Cutter, cut_records
from synehrgy.training.checkpoint import load_run
from synehrgy.training.loop import train
from tests.cohorts import cohorts, small_cohort
from tests.conftest import train_overrides
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


def drawn_by(model, tokenizer, n, **how):
    """Patients 0 to n - 1, in order."""
    found = list(sample(model, tokenizer, range(n), **how))
    assert sorted(one.patient for one in found) == list(range(n))
    return sorted(found, key=lambda one: one.patient)


def tokens_of(drawn):
    return [one.tokens.tolist() for one in drawn]


def watch_steps(model):
    """The tokens that each step of the model is given, in a list that grows."""
    seen, step = [], model.step

    def watched(tokens, cache):
        seen.append(tokens.clone())
        return step(tokens, cache)

    model.step = watched
    return seen


@pytest.fixture
def run(trained):
    """A small trained run of one's own."""
    return load_run(trained, CPU)


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
        drawn = drawn_by(model, tokenizer, 6, batch_size=4, seed=seed, max_segments=max_segments)
        records = as_records(tokenizer, drawn)
        assert find_faults(tokenizer, records) == []
        assert records.lengths.max() <= max_segments * n_ctx
        assert max(one.n_segments for one in drawn) <= max_segments
        assert len(decode(tokenizer, records).stays) >= len(records)


def test_no_room_for_any_record_is_refused():
    tokenizer = tokenizer_of(small_cohort())
    with pytest.raises(ValueError, match="shortest record has"):
        list(sample(untrained(tokenizer, 5), tokenizer, range(1)))


def test_a_model_that_never_ends_is_closed_in_time():
    tokenizer = tokenizer_of(small_cohort())
    model = untrained(tokenizer, 50)
    ends = [tokenizer.token(name) for name in (END, END_SERIES, END_ADMISSION)]

    def logits(states):
        found = torch.zeros(*states.shape[:-1], len(tokenizer.vocabulary))
        found[..., ends] = -1e9
        return found

    model.logits = logits
    drawn = drawn_by(model, tokenizer, 16, batch_size=16, max_segments=1)
    records = as_records(tokenizer, drawn)
    assert find_faults(tokenizer, records) == []
    assert all(one.is_closed and one.n_forced >= 1 for one in drawn)
    assert records.lengths.max() == 50


def test_far_from_the_limit_nothing_is_forced(run):
    drawn = drawn_by(run.model, run.tokenizer, 64, batch_size=64)
    is_near = [len(one.tokens) >= run.model.config.n_ctx - 12 for one in drawn]
    assert sum(is_near) < 32
    for one, near in zip(drawn, is_near, strict=True):
        assert near or not (one.is_closed or one.n_forced)
        assert one.n_forced <= 12 * one.n_segments
    assert find_faults(run.tokenizer, as_records(run.tokenizer, drawn)) == []


def test_records_carry_the_numbers_of_their_patients():
    tokenizer = tokenizer_of(small_cohort())
    drawn = list(sample(untrained(tokenizer, 60), tokenizer, [12, 3, 7]))
    records = as_records(tokenizer, drawn)
    assert records.tokens.dtype == tokenizer.dtype
    assert records.subject_ids.tolist() == [one.patient for one in drawn]
    assert sorted(records.subject_ids.tolist()) == [3, 7, 12]
    for i, one in enumerate(drawn):
        assert records[i].tolist() == one.tokens.tolist()
    assert len(as_records(tokenizer, [])) == 0
    assert list(sample(untrained(tokenizer, 60), tokenizer, [])) == []


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("repetition_penalty", [1.0, 1.3])
def test_a_patient_is_the_same_to_the_last_token_whoever_is_beside(run, dtype, repetition_penalty):
    """Whatever the batch size, the order of the patients, and which others are asked for."""
    model = run.model.to(dtype)
    how = {"seed": 3, "how": Sampling(repetition_penalty=repetition_penalty)}

    def of(patients, size):
        found = sample(model, run.tokenizer, patients, batch_size=size, **how)
        return {one.patient: one.tokens.tolist() for one in found}

    expected = of(range(40), 16)
    assert [*sorted(expected)] == [*range(40)]
    assert len({tuple(tokens) for tokens in expected.values()}) > 30
    assert of(range(40), 33) == expected
    for patients, size in (
        (range(12), 1),
        ([*range(39, -1, -1)], 7),
        (range(17, 200, 11), 16),
        ([38, 1000, 2, 2**39, 15], 256),
    ):
        found = of(patients, size)
        assert [*sorted(found)] == sorted(patients)
        assert len(found.keys() & expected.keys()) >= 2
        for patient in found.keys() & expected.keys():
            assert found[patient] == expected[patient]


def test_the_logits_of_a_patient_are_the_same_to_the_last_bit(run):
    """Equal tokens could hide that a rounding differs."""
    model, tokenizer = run.model, run.tokenizer
    logits, written = model.logits, {}
    tokens_in = watch_steps(model)

    def of(n, size):
        seen = []
        model.logits = lambda states: seen.append(logits(states)) or seen[-1]
        tokens_in.clear()
        drawn = drawn_by(model, tokenizer, n, batch_size=size, seed=12)
        # The first row is that of the first patient, until it has ended.
        n_steps = len(drawn[0].tokens) - 1
        written[size] = drawn[0].tokens.tolist()
        assert [int(step[0]) for step in tokens_in[:n_steps]] == written[size][:-1]
        assert drawn[0].n_segments == 1
        return torch.stack([step[0] for step in seen[:n_steps]])

    alone = of(1, 1)
    assert len(alone) > 20
    assert torch.equal(of(40, 16), alone)
    assert torch.equal(of(40, 33), alone)
    assert written[1] == written[16] == written[33]


def test_another_seed_gives_other_records(run):
    one, other = (tokens_of(drawn_by(run.model, run.tokenizer, 20, seed=seed)) for seed in (3, 4))
    assert sum(a != b for a, b in zip(one, other, strict=True)) > 15


def test_who_is_finished_makes_room_at_once(cohort_folder, tmp_path):
    """Steps are close to tokens by rows, where batches in lockstep wait for their longest."""
    # A model whose records differ much in length.
    uneven = ["hparams.min_lr_ratio=0.1", "wandb.mode=disabled"]
    run = load_run(train(compose("train", train_overrides(cohort_folder, tmp_path, *uneven))), CPU)
    model, n, rows = run.model, 320, 2 * BLOCK
    seen = watch_steps(model)
    drawn = drawn_by(model, run.tokenizer, n, batch_size=rows, max_segments=1)
    # The first token is given.
    steps = np.array([len(one.tokens) - 1 for one in drawn])
    lockstep = steps.reshape(-1, rows).max(axis=1).sum()
    assert steps.sum() / rows <= len(seen) < 0.75 * lockstep
    # A row idles for fewer than 4 steps, and in the end for one record.
    assert len(seen) <= (steps.sum() + 3 * n) / rows + steps.max() + 4


def test_patients_are_asked_for_when_there_is_room():
    tokenizer = tokenizer_of(small_cohort())
    asked = []

    def patients():
        for patient in itertools.count():
            asked.append(patient)
            yield patient

    drawn = sample(untrained(tokenizer, 60), tokenizer, patients(), batch_size=20)
    for n_drawn, _ in enumerate(itertools.islice(drawn, 100)):
        assert len(asked) <= 20 + n_drawn
    assert len(asked) >= 100


def test_rows_that_stay_empty_are_left_out(run):
    seen = watch_steps(run.model)
    drawn = drawn_by(run.model, run.tokenizer, 100, batch_size=100)
    rows = [len(tokens) for tokens in seen]
    assert rows[0] == 7 * BLOCK
    assert rows == sorted(rows, reverse=True)
    assert rows[-1] == BLOCK
    assert all(n % BLOCK == 0 for n in rows)
    assert len(drawn) == 100
    assert sum(rows) < 0.75 * rows[0] * len(rows)


def test_sampling_follows_the_model_renormalised_over_allowed_tokens(run):
    """Each token's draws have the exact distribution: the constraint takes no mass."""
    n = 4000
    records = tokens_of(drawn_by(run.model, run.tokenizer, n, batch_size=1000, seed=1))
    assert_drawn_from(exact_first(run), np.array([record[1] for record in records]))


def exact_first(run):
    """Probabilities of the first token after ``<s>``."""
    tokenizer = run.tokenizer
    start = tokenizer.token(START)
    logits = run.model(torch.tensor([[start]]))[0, -1].detach()
    allowed = torch.from_numpy(tokenizer.allowed[tokenizer.kind_of[start]])
    exact = torch.where(allowed, logits.softmax(0), torch.zeros(())).numpy()
    return exact / exact.sum()


def assert_drawn_from(exact, tokens):
    n = len(tokens)
    counts = np.bincount(tokens, minlength=len(exact))
    assert (exact > 0).sum() > 1
    assert counts[exact == 0].sum() == 0
    spread = np.sqrt(n * exact * (1 - exact))
    assert np.all(np.abs(counts - n * exact) <= 4.5 * spread + 1)


class Opened(Requests):
    """Records that begin as they are told to."""

    def __init__(self, tokenizer, openings):
        super().__init__(tokenizer)
        self.openings = openings

    def prompt(self, patient, attempt):
        return self.openings[patient % len(self.openings)]


def openings_of(tokenizer, n=30):
    """Real patients up to their labels."""
    whole = encode(tokenizer, small_cohort(n, seed=9))
    ends = [int(np.flatnonzero(whole[i] == tokenizer.token(END_LABELS))[0]) for i in range(n)]
    return [whole[i][: end + 1].astype(np.int64) for i, end in enumerate(ends)]


def test_prompts_are_kept_and_continued(run):
    tokenizer = run.tokenizer
    openings = openings_of(tokenizer)
    assert len({len(opening) for opening in openings}) > 1
    requests = Opened(tokenizer, openings)

    def of(size):
        drawn = drawn_by(run.model, tokenizer, 30, batch_size=size, requests=requests)
        assert find_faults(tokenizer, as_records(tokenizer, drawn)) == []
        return tokens_of(drawn)

    records = of(12)
    for record, opening in zip(records, openings, strict=True):
        assert record[: len(opening)] == opening.tolist()
        assert len(record) > len(opening)
    assert of(1) == of(40) == records


def test_a_prefix_that_patients_share_is_computed_once(run):
    openings = openings_of(run.tokenizer, 1)
    prefix, asked = run.model.prefix, []
    run.model.prefix = lambda tokens: asked.append(tokens.tolist()) or prefix(tokens)
    requests = Opened(run.tokenizer, openings)
    drawn_by(run.model, run.tokenizer, 40, batch_size=16, requests=requests, max_segments=1)
    assert asked == [openings[0][:-1].tolist()]


def plainly_sampled(model, tokenizer, given, stream, how, seed, max_segments, rule_out):
    """One record, token by token, without cache and batch: from the full pass of its context."""
    n_ctx = model.config.n_ctx
    constraint, cutter = Constraint(tokenizer, n_ctx, CPU, rule_out), Cutter(tokenizer, n_ctx)
    state, moving = RecordState(constraint, 1), torch.tensor([True])
    for token in given:
        state.advance(torch.tensor([token]), moving)
    record, context, segment, waiting = [*given], [*given], 0, None
    while record[-1] != tokenizer.token(END):
        if len(context) == n_ctx:
            whole = np.array(record)
            cut, segment = int(cutter.cuts(whole)[-1]), segment + 1
            context = [*cutter.head(whole, cut).tolist(), *record[cut:]]
        is_last = segment + 1 == max_segments
        mask, _ = mask_of(constraint, state, len(context), is_last)
        seen = torch.zeros(1, len(tokenizer.vocabulary), dtype=torch.bool)
        seen[0, record] = True
        logits = model(torch.tensor([context]))[:, -1]

        u, second = (
            torch.from_numpy(uniforms(seed, kind, [stream], len(record)).astype(np.float32))
            for kind in (Stream.SAMPLE, Stream.EXPLAIN)
        )
        token = int(draw(probabilities(logits, mask, seen, how), u))
        if rule_out:
            if waiting is not None and mask[0, waiting]:
                token = waiting
            instead = constraint.instead(state, torch.tensor([token]), mask)
            waiting = token if instead.any() else None
            if waiting is not None:
                plain = Sampling(temperature=how.temperature)
                token = int(draw(probabilities(logits, instead, None, plain), second))
        state.advance(torch.tensor([token]), moving)
        record.append(token)
        context.append(token)
    return record


@torch.no_grad()
@pytest.mark.parametrize(
    "how",
    [
        Sampling(),
        Sampling(repetition_penalty=1.5),
        Sampling(temperature=0.8, top_k=20, top_p=0.9, repetition_penalty=0.7),
    ],
    ids=["plain", "penalty", "all"],
)
@pytest.mark.parametrize("rule_out", [False, True])
def test_records_are_those_of_plain_sampling_one_by_one(how, rule_out):
    """Over several contexts, after openings of any length, and in rows that had others before."""
    tokenizer = tokenizer_of(labelled())
    model = untrained(tokenizer, 60, scale=20.0)
    openings = [np.array([tokenizer.token(START)]), *openings_of(tokenizer, 3)]
    options = {"how": how, "seed": 8, "max_segments": 3}
    found = drawn_by(
        *(model, tokenizer, 24),
        batch_size=16,
        requests=Opened(tokenizer, openings),
        rule_out_contradictions=rule_out,
        **options,
    )
    assert any(one.n_segments > 1 for one in found)
    for one in found:
        given = openings[one.patient % len(openings)].tolist()
        plain = plainly_sampled(model, tokenizer, given, one.patient, rule_out=rule_out, **options)
        assert one.tokens.tolist() == plain


@torch.no_grad()
@pytest.mark.parametrize("n_given", [59, 60])
def test_an_opening_may_fill_the_context(n_given):
    tokenizer = tokenizer_of(small_cohort())
    model = lingering(tokenizer, untrained(tokenizer, 60))
    long = next(
        one.tokens for one in sample(model, tokenizer, range(30), seed=1) if one.n_segments > 2
    )
    opening = long[:n_given]
    drawn = drawn_by(model, tokenizer, 4, seed=3, requests=Opened(tokenizer, [opening]))
    for one in drawn:
        plain = plainly_sampled(
            *(model, tokenizer, opening.tolist(), one.patient, Sampling()),
            seed=3,
            max_segments=64,
            rule_out=False,
        )
        assert one.tokens.tolist() == plain


class Choosy(Requests):
    """Records whose first token is one of some.

    Args:
        wanted: these tokens.
        early: whether it is refused as soon as it can be, or when the record has ended.
    """

    judges = True

    def __init__(self, tokenizer, wanted, early=True):
        super().__init__(tokenizer)
        self.wanted, self.early, self.begun, self.judged = wanted, early, [], []

    def prompt(self, patient, attempt):
        self.begun.append((patient, attempt))
        return super().prompt(patient, attempt)

    def verdict(self, patient, tokens):
        self.judged.append((patient, len(tokens)))
        is_over = tokens[-1] == self.tokenizer.token(END)
        if len(tokens) < 2 or not (self.early or is_over):
            return None
        return int(tokens[1]) in self.wanted


def some_first_tokens(run, share):
    """The likeliest first tokens that together are no more than this share, and their share."""
    exact = exact_first(run)
    chosen, total = [], 0.0
    for token in np.argsort(-exact):
        if exact[token] > 0 and total + exact[token] <= share:
            chosen.append(int(token))
            total += exact[token]
    assert len(chosen) > 1
    return chosen, float(total)


def test_accepted_records_have_the_distribution_of_those_that_fulfil_the_request(run):
    tokenizer, n = run.tokenizer, 1500
    wanted, share = some_first_tokens(run, 0.5)
    requests = Choosy(tokenizer, wanted)
    drawn = drawn_by(run.model, tokenizer, n, batch_size=512, seed=2, requests=requests)
    first = np.array([one.tokens[1] for one in drawn])
    assert set(first.tolist()) <= set(wanted)
    exact = np.zeros(len(tokenizer.vocabulary))
    exact[wanted] = exact_first(run)[wanted] / share
    assert_drawn_from(exact, first)
    assert find_faults(tokenizer, as_records(tokenizer, drawn)) == []
    # Attempts are geometric, counted, and each begun once.
    attempts = np.array([one.n_attempts for one in drawn])
    assert abs(attempts.mean() - 1 / share) < 4.5 * np.sqrt((1 - share) / n) / share
    expected = [(i, k) for i in range(n) for k in range(attempts[i])]
    assert sorted(requests.begun) == expected


def test_an_attempt_is_the_record_of_random_numbers_of_its_own(run):
    wanted, _ = some_first_tokens(run, 0.4)
    drawn = drawn_by(run.model, run.tokenizer, 30, seed=2, requests=Choosy(run.tokenizer, wanted))
    assert max(one.n_attempts for one in drawn) > 2
    numbers = [one.patient + (one.n_attempts - 1) * ATTEMPT for one in drawn]
    free = {
        one.patient: one.tokens.tolist()
        for one in sample(run.model, run.tokenizer, numbers, seed=2)
    }
    assert [free[number] for number in numbers] == tokens_of(drawn)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_requests_are_fulfilled_alike_whatever_the_batch_and_the_time_of_the_verdict(run, dtype):
    wanted, _ = some_first_tokens(run, 0.3)
    model = run.model.to(dtype)

    def of(size, early=True):
        requests = Choosy(run.tokenizer, wanted, early)
        drawn = drawn_by(model, run.tokenizer, 20, batch_size=size, seed=5, requests=requests)
        return tokens_of(drawn), [one.n_attempts for one in drawn]

    expected = of(16)
    assert max(expected[1]) > 2
    for size, early in ((1, True), (7, True), (33, True), (16, False)):
        assert of(size, early) == expected


def test_a_verdict_given_early_costs_few_tokens(run):
    wanted, _ = some_first_tokens(run, 0.15)

    def steps(early):
        model = copy.deepcopy(run.model)
        seen = watch_steps(model)
        requests = Choosy(run.tokenizer, wanted, early)
        drawn = drawn_by(model, run.tokenizer, 64, batch_size=16, seed=2, requests=requests)
        return len(seen), sum(one.n_attempts - 1 for one in drawn), sum(map(len, tokens_of(drawn)))

    n_early, refused, kept = steps(True)
    n_late, _, _ = steps(False)
    assert refused > 64
    # Four tokens for each that is refused, and the last records while other rows are empty.
    assert n_early <= (kept + 4 * (refused + 64)) / 16 + 2 * run.model.config.n_ctx
    assert n_early < 0.5 * n_late


def test_a_verdict_is_asked_for_until_it_is_given(run):
    wanted, _ = some_first_tokens(run, 0.5)
    requests = Choosy(run.tokenizer, wanted)
    drawn = drawn_by(run.model, run.tokenizer, 30, requests=requests)
    counts = Counter(patient for patient, _ in requests.judged)
    assert counts == {one.patient: one.n_attempts for one in drawn}


class Undecided(Requests):
    judges = True


def test_a_whole_record_without_a_verdict_will_do(run):
    judged = drawn_by(run.model, run.tokenizer, 10, requests=Undecided(run.tokenizer))
    assert tokens_of(judged) == tokens_of(drawn_by(run.model, run.tokenizer, 10))
    assert {one.n_attempts for one in judged} == {1}


@pytest.mark.parametrize("early", [True, False])
def test_a_patient_whose_attempts_are_all_refused_is_too_rare(run, early):
    requests = Choosy(run.tokenizer, [], early)
    with pytest.raises(TooRareError):
        list(sample(run.model, run.tokenizer, [4], requests=requests, max_attempts=5))
    assert requests.begun == [(4, attempt) for attempt in range(5)]


def test_the_last_attempt_may_be_accepted(run):
    wanted, _ = some_first_tokens(run, 0.3)
    requests = Choosy(run.tokenizer, wanted)
    free = drawn_by(run.model, run.tokenizer, 20, requests=requests)
    hardest = max(free, key=lambda one: one.n_attempts)
    assert hardest.n_attempts > 2

    def again(max_attempts):
        options = {"requests": requests, "max_attempts": max_attempts}
        return list(sample(run.model, run.tokenizer, [hardest.patient], **options))

    assert tokens_of(again(hardest.n_attempts)) == [hardest.tokens.tolist()]
    with pytest.raises(TooRareError):
        again(hardest.n_attempts - 1)


class Twins(Opened):
    """Two patients each share their random numbers."""

    def stream(self, patient):
        return patient // 2


def test_patients_who_share_random_numbers_and_an_opening_are_equal(run):
    opening = openings_of(run.tokenizer, 1)
    records = tokens_of(
        drawn_by(
            *(run.model, run.tokenizer, 40),
            batch_size=16,
            requests=Twins(run.tokenizer, opening),
        )
    )
    assert records[::2] == records[1::2]
    assert len({tuple(record) for record in records}) > 15
    # The numbers are those of the patient whose number they belong to.
    alone = drawn_by(run.model, run.tokenizer, 20, requests=Opened(run.tokenizer, opening))
    assert records[::2] == tokens_of(alone)


class Renamed(Opened):
    """A record is to have another first token than the one that was asked for."""

    def __init__(self, tokenizer, openings, other):
        super().__init__(tokenizer, openings)
        self.other = other

    def record(self, patient, tokens):
        return np.array([tokens[0], self.other, *tokens[2:]])


def test_records_are_given_out_and_go_on_as_the_request_orders_them():
    tokenizer = tokenizer_of(small_cohort())
    model = lingering(tokenizer, untrained(tokenizer, 60))
    opening = openings_of(tokenizer, 1)
    first = int(opening[0][1])
    other = first + (1 if tokenizer.kind_of[first + 1] == tokenizer.kind_of[first] else -1)
    assert tokenizer.kind_of[other] == tokenizer.kind_of[first]
    heads, prefix = [], model.prefix
    model.prefix = lambda tokens: heads.append(tokens.tolist()) or prefix(tokens)
    requests = Renamed(tokenizer, opening, other)
    drawn = drawn_by(model, tokenizer, 4, requests=requests)
    records = as_records(tokenizer, drawn)
    assert find_faults(tokenizer, records) == []
    assert all(one.tokens[1] == other for one in drawn)
    assert sum(one.n_segments for one in drawn) > 4
    # What a context goes on from is the record, not what was asked for.
    assert heads[0][1] == first
    assert all(head[1] == other for head in heads[1:])


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


def mask_of(constraint, state, length, last_segment):
    """Of a batch whose records are all as long."""
    n = len(state.last)
    return constraint.mask(state, torch.full((n,), length), torch.full((n,), last_segment))


def test_mask_depends_on_the_limit_only_near_it():
    tokenizer = tokenizer_of(small_cohort())
    constraint = Constraint(tokenizer, 40, CPU)
    tokens = range(len(tokenizer.vocabulary))
    state = state_of(constraint, *([token] for token in tokens))
    far, limited = mask_of(constraint, state, 3, True)
    assert not limited.any()
    near, limited = mask_of(constraint, state, 38, True)
    assert limited.any()
    assert near.sum() < far.sum()
    assert torch.equal(limited, near.sum(1) < far.sum(1))
    ended = state_of(constraint, [tokenizer.token(END_ADMISSION)])
    only = mask_of(constraint, ended, 39, True)[0][0]
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
            mask, limited = mask_of(constraint, state, 1, last_segment)
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
        mask_of(constraint, state, 20, False), mask_of(constraint, whole, 20, False), strict=True
    ):
        assert torch.equal(mine, theirs)


PARTS = ("last", "possible", "run", "point", "measured", "waiting", "said", "explained")


def assert_same_state(mine, theirs):
    for name in PARTS:
        assert torch.equal(getattr(mine, name), getattr(theirs, name)), name


@settings(max_examples=25, deadline=None)
@given(
    cohort=cohorts(),
    how=any_settings,
    free=st.sets(st.sampled_from(["labels", "series"])),
    seed=st.integers(0, 2**32 - 1),
    lengths=st.lists(st.integers(0, 30), min_size=1, max_size=5),
)
def test_records_of_any_lengths_have_each_the_state_it_has_alone(cohort, how, free, seed, lengths):
    """Also where they are left out, or take the places of others."""
    tokenizer = Tokenizer.fit(cohort, how).as_trained(sorted(free))
    constraint = Constraint(tokenizer, 100_000, CPU, rule_out=True)
    rng = np.random.default_rng(seed)
    begun = [np.array(walk(tokenizer, rng, 40)[:length], dtype=np.int64) for length in lengths]
    alone = []
    for tokens in begun:
        alone.append(RecordState(constraint, 1))
        for token in tokens.tolist():
            alone[-1].advance(torch.tensor([token]), torch.tensor([True]))
    together = RecordState.after(constraint, begun)
    rows = rng.permutation(len(begun))
    for row in rows.tolist():
        mine = RecordState.after(constraint, begun)
        mine.keep(torch.tensor([row]))
        assert_same_state(mine, alone[row])
    places = torch.from_numpy(rows)
    moved = RecordState(constraint, len(begun) + 1)
    moved.replace(places, together)
    moved.keep(places)
    assert_same_state(moved, together)


@settings(max_examples=25, deadline=None)
@given(
    cohort=cohorts(),
    how=any_settings,
    seed=st.integers(0, 2**32 - 1),
    rows=st.lists(
        st.tuples(st.integers(1, 30), st.integers(1, 59), st.booleans()), min_size=1, max_size=6
    ),
)
def test_the_mask_of_a_row_is_that_of_its_own_length_and_segment(cohort, how, seed, rows):
    tokenizer = Tokenizer.fit(cohort, how)
    constraint = Constraint(tokenizer, 60, CPU)
    rng = np.random.default_rng(seed)
    begun = [np.array(walk(tokenizer, rng, 40)[:length]) for length, _, _ in rows]
    lengths, is_last = (torch.tensor([row[part] for row in rows]) for part in (1, 2))
    mask, limited = constraint.mask(RecordState.after(constraint, begun), lengths, is_last)
    for i, tokens in enumerate(begun):
        state = RecordState.after(constraint, [tokens])
        alone, alone_limited = mask_of(constraint, state, rows[i][1], rows[i][2])
        assert torch.equal(mask[i], alone[0])
        assert limited[i] == alone_limited[0]


@pytest.mark.parametrize("n_ctx", [24, 28, 32, 40])
@pytest.mark.parametrize("max_segments", [2, 3])
def test_a_record_can_be_closed_wherever_the_last_context_begins(n_ctx, max_segments):
    """What is begun when a context ends goes on in the next, which must have room to end it."""
    tokenizer = tokenizer_of(small_cohort())
    model = untrained(tokenizer, n_ctx)
    drawn = drawn_by(model, tokenizer, 300, batch_size=300, max_segments=max_segments)
    assert find_faults(tokenizer, as_records(tokenizer, drawn)) == []
    assert sum(one.n_segments for one in drawn) > 300 or n_ctx < 28


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
    drawn = drawn_by(model, tokenizer, 24, batch_size=24, seed=1)
    records = as_records(tokenizer, drawn)
    assert find_faults(tokenizer, records) == []
    assert 3 * 60 < records.lengths.max() < 50 * 60
    assert sum(one.n_segments for one in drawn) > 2 * 24
    assert not any(one.n_forced or one.is_closed for one in drawn)
    # The same whatever is sampled beside them.
    for size in (1, 7, 16, 33):
        got = drawn_by(model, tokenizer, 24, batch_size=size, seed=1)
        assert tokens_of(got) == tokens_of(drawn)
        assert [one.n_segments for one in got] == [one.n_segments for one in drawn]


@pytest.mark.parametrize("n_ctx", [40, 60])
def test_codes_that_explain_labels_do_not_depend_on_the_batch(n_ctx):
    """Nor does a token that waits for one when its context is full."""
    tokenizer = tokenizer_of(labelled())
    model = untrained(tokenizer, n_ctx)

    def records(n, size):
        how = {"batch_size": size, "seed": 5, "rule_out_contradictions": True}
        return tokens_of(drawn_by(model, tokenizer, n, **how))

    expected = records(60, 60)
    for n, size in ((10, 1), (30, 7), (60, 33)):
        assert records(n, size) == expected[:n]


def test_the_last_context_closes_the_record():
    tokenizer = tokenizer_of(small_cohort())
    model = lingering(tokenizer, untrained(tokenizer, 60))
    free = drawn_by(model, tokenizer, 24, batch_size=24, seed=1)
    capped = drawn_by(model, tokenizer, 24, batch_size=24, seed=1, max_segments=2)
    records = as_records(tokenizer, capped)
    assert find_faults(tokenizer, records) == []
    assert records.lengths.max() <= 2 * 60
    assert any(one.is_closed for one in capped)
    assert all(one.n_forced >= one.is_closed for one in capped)
    assert all(one.n_segments == 2 for one in capped if one.is_closed)
    assert sum(one.n_segments for one in capped) <= 48
    # Records that end in time are the same.
    short = [i for i, one in enumerate(free) if len(one.tokens) < 2 * 60 - 20]
    assert short
    for i in short:
        assert free[i].tokens.tolist() == capped[i].tokens.tolist()


def test_generation_cuts_records_as_training_does():
    """The contexts that a record was sampled in are those that training would cut it into."""
    tokenizer = tokenizer_of(small_cohort())
    model = lingering(tokenizer, untrained(tokenizer, 60))
    contexts, prefix = [[]], model.prefix
    seen = watch_steps(model)

    def closed():
        """Put what the steps have been given into the open context; padding is no part of it."""
        tokens = [int(step[0]) for step in seen]
        contexts[-1] += [token for token in tokens if token != tokenizer.token(PAD)]
        seen.clear()

    def watched(tokens):
        closed()
        contexts.append(tokens.tolist())
        return prefix(tokens)

    model.prefix = watched
    drawn = drawn_by(model, tokenizer, 1, batch_size=1, seed=3)
    closed()
    records = as_records(tokenizer, drawn)
    record = records[0].astype(np.int64)
    segments = cut_records(tokenizer, records, np.array([0]), 60)
    assert len(segments) == len(contexts) == drawn[0].n_segments > 2
    cutter = Cutter(tokenizer, 60)
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
        drawn = drawn_by(
            model, tokenizer, 200, batch_size=100, seed=2, rule_out_contradictions=rule_out
        )
        records = as_records(tokenizer, drawn)
        assert find_faults(tokenizer, records) == []
        return Counter(label_contradictions(tokenizer, records))

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
    mask, _ = mask_of(constraint, state, 6, False)
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
    mask, _ = mask_of(constraint, state, 7, False)
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
    records = as_records(
        tokenizer,
        drawn_by(model, tokenizer, 300, batch_size=300, seed=4, rule_out_contradictions=True),
    )
    stays = decode(tokenizer, records)
    counts = label_contradictions(tokenizer, records)
    assert counts["label_without_codes"] == counts["codes_without_label"] == 0
    n_labels = stays.stays[["septicemia", "shock"]].to_numpy().sum()
    assert n_labels > 50
    # Without labels hardly a code is listed, with them one each: what was chosen follows at once.
    assert len(stays.codes) <= 1.05 * n_labels + 5


def test_a_token_that_waited_follows_even_if_the_model_would_list_more():
    """After a code a model likes to list another; that must not begin anew."""
    tokenizer = tokenizer_of(labelled())
    model = untrained(tokenizer, 200)
    logits, seen = model.logits, watch_steps(model)

    def chaining(states):
        found = logits(states)
        after_code = torch.tensor(
            ["icd9" in tokenizer.vocabulary[token] for token in seen[-1].tolist()]
        )
        found[:, tokenizer.token(END_CODES)] = torch.where(after_code, -8.0, 12.0)
        return found

    model.logits = chaining
    drawn = drawn_by(model, tokenizer, 200, batch_size=200, seed=4, rule_out_contradictions=True)
    back = decode(tokenizer, as_records(tokenizer, drawn))
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
    mask, _ = mask_of(constraint, state, 7, False)
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
    mask, _ = mask_of(constraint, state, 7, False)
    assert not constraint.instead(state, torch.tensor([number["</code>"]]), mask).any()
