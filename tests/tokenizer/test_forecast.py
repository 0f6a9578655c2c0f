"""Questions about the future: nothing of it stands in the prompt, and all of it is asked."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from synehrgy.errors import UserError
from synehrgy.settings import TokenSettings
from synehrgy.tokenizer import Tokenizer, encode, forecast
from synehrgy.tokenizer.forecast import Forecasts, Questions
from tests.cohorts import small_cohort
from tests.tokens import words

# The stays of these cohorts last a few hours.
WINDOWS = (0, 1, 2, 3, 4)

FORECAST, END_FORECAST = "<forecast>", "</forecast>"


@pytest.fixture(autouse=True)
def _short_windows(monkeypatch):
    monkeypatch.setattr(forecast, "WINDOWS", WINDOWS)


def made(n_patients=25, **how):
    cohort = small_cohort(n_patients)
    tokenizer = Tokenizer.fit(cohort, TokenSettings(min_code_count=1, **how))
    records = encode(tokenizer, cohort)
    return cohort, tokenizer, records, Forecasts.of(tokenizer, records, np.arange(len(records)))


def questions(tokenizer, records, forecasts, stays, hours, n_ctx=100_000):
    """Words of the prompt and of the answer of each, by the vectorised code."""
    pieces = forecasts.pieces(tokenizer, stays, np.asarray(hours, dtype=np.float64), n_ctx)
    tokens, *_ = pieces.assemble(records)
    ends = np.cumsum(pieces.sizes.sum(axis=1))
    found = []
    for given_, part in zip(pieces.given, np.split(tokens, ends[:-1]), strict=True):
        text = words(tokenizer, part)
        found.append((text[:given_], text[given_:]))
    return found


def expected(tokenizer, record, nth_stay, hours):
    """The same by a plain reader of the record."""
    text = words(tokenizer, record)
    begins = [0, *(i for i, word in enumerate(text) if word == "</adm>")]
    begin = begins[nth_stay] + 1
    covariates_end = text.index("</covar>", begin) + 1
    codes_end = text.index("</code>", begin) + 1
    series_end = text.index("</ts>", begin)
    passed, window_end = 0.0, codes_end
    for i in range(codes_end, series_end):
        passed += tokenizer.hours_of[record[i]]
        is_time = tokenizer.hours_of[record[i]] > 0 or text[i].startswith(("+", "gap="))
        next_is_time = text[i + 1].startswith(("+", "gap="))
        if is_time and not next_is_time and hours and passed <= hours + 1e-6:
            window_end = i + 1
    window = text[codes_end:window_end]
    prompt = [*text[:covariates_end], FORECAST, *window, END_FORECAST]
    return prompt, [*text[covariates_end:codes_end], *text[window_end:]]


@pytest.mark.parametrize("time", ["clock", "gap"])
@pytest.mark.parametrize("hours", WINDOWS)
def test_what_is_known_comes_first_and_the_rest_is_asked(time, hours):
    cohort, tokenizer, records, forecasts = made(time=time)
    assert len(forecasts) == len(cohort.stays)
    stays = np.arange(len(forecasts))
    found = questions(tokenizer, records, forecasts, stays, np.full(len(stays), hours))
    first = np.searchsorted(forecasts.record, forecasts.record)
    windows = 0
    for stay in stays:
        record = records[int(forecasts.record[stay])]
        wanted = expected(tokenizer, record, int(stay - first[stay]), hours)
        assert found[stay] == wanted
        windows += len(wanted[0]) > wanted[0].index(FORECAST) + 2
    assert (windows > 5) == (hours > 0)


@settings(max_examples=30, deadline=None)
@given(n_ctx=st.integers(60, 200), hours=st.floats(0, 6), data=st.data())
def test_a_short_context_leaves_out_what_is_oldest(n_ctx, hours, data):
    _, tokenizer, records, forecasts = made(12)
    stays = np.array(data.draw(st.permutations(range(len(forecasts)))))
    whole = questions(tokenizer, records, forecasts, stays, np.full(len(stays), hours))
    short = questions(tokenizer, records, forecasts, stays, np.full(len(stays), hours), n_ctx)
    for (prompt, answer), (cut_prompt, cut_answer) in zip(whole, short, strict=True):
        assert len(cut_prompt) + len(cut_answer) <= n_ctx
        assert answer[: len(cut_answer)] == cut_answer
        if len(cut_prompt) == len(prompt):
            assert cut_prompt == prompt
            continue
        # What is kept is the end of each part; whole stays and whole time points are left out.
        mark, cut_mark = prompt.index(FORECAST), cut_prompt.index(FORECAST)
        stays_kept, window_kept = cut_prompt[1:cut_mark], cut_prompt[cut_mark + 1 : -1]
        assert cut_prompt[0] == ("<s>" if stays_kept == prompt[1:mark] else "<history>")
        assert prompt[mark - len(stays_kept) : mark] == stays_kept
        assert prompt[mark - len(stays_kept) - 1] in ("<s>", "</adm>")
        if window_kept and window_kept[0].startswith("elapsed"):
            window_kept = window_kept[1:]
            begin = len(prompt) - 1 - len(window_kept)
            assert prompt[begin - 1].startswith("+")
            assert not prompt[begin].startswith("+")
        assert prompt[len(prompt) - 1 - len(window_kept) : -1] == window_kept
        assert len(cut_prompt) <= 0.75 * n_ctx or not window_kept


def test_an_answer_never_tells_itself_in_the_prompt():
    _, tokenizer, records, forecasts = made()
    stays = np.arange(len(forecasts))
    for hours in WINDOWS:
        asked = questions(tokenizer, records, forecasts, stays, np.full(len(stays), hours))
        for prompt, _ in asked:
            begin = max((i for i, w in enumerate(prompt) if w == "</adm>"), default=0)
            known = prompt[begin:]
            assert "</label>" not in known
            assert not any(word.startswith(("icd9", "in_hospital_mortality")) for word in known)


def test_windows_are_drawn_anew_and_end_before_the_series():
    _, _, _, forecasts = made(60)
    stays = np.arange(len(forecasts))
    drawn = np.array([forecasts.draw_windows(stays, 0, epoch) for epoch in range(200)])
    last = np.zeros(len(stays))
    np.maximum.at(last, forecasts.step_stay, forecasts.step_hours)
    assert np.isin(drawn, WINDOWS).all()
    assert ((drawn < last) | (drawn == 0)).all()
    assert np.array_equal(drawn[3], forecasts.draw_windows(stays, 0, 3))
    assert not np.array_equal(drawn[3], forecasts.draw_windows(stays, 1, 3))
    for stay in np.flatnonzero(last > 1)[:10]:
        possible = [h for h in WINDOWS if h < last[stay]]
        seen, counts = np.unique(drawn[:, stay], return_counts=True)
        assert seen.tolist() == possible
        assert (abs(counts / 200 - 1 / len(possible)) < 5 * (0.25 / 200) ** 0.5).all()


def test_questions_and_further_segments_come_in_the_order_asked_for():
    _, tokenizer, records, _ = made(12)
    plan = Questions.of(tokenizer, records, np.arange(len(records)), 80, seed=0)
    assert len(plan.going_on)
    rows = np.random.default_rng(0).permutation(len(plan))
    together = plan.pieces(tokenizer, rows, epoch=2).assemble(records)
    alone = [
        plan.pieces(tokenizer, rows[i : i + 1], epoch=2).assemble(records) for i in range(len(rows))
    ]
    for column in range(3):
        assert np.array_equal(together[column], np.concatenate([a[column] for a in alone]))


def test_covariates_that_fill_the_context_are_refused():
    _, tokenizer, records, forecasts = made(long_records="truncate")
    rows = np.arange(len(records))
    longest = int((forecasts.covariates_end - forecasts.begin).max()) + 4
    least = int(np.ceil(longest / 0.75))
    with pytest.raises(UserError, match=rf"too short to forecast.*hparams.n_ctx={least} or more"):
        Questions.of(tokenizer, records, rows, least - 1, seed=0)
    plan = Questions.of(tokenizer, records, rows, least, seed=0)
    for epoch in range(5):
        sizes = plan.pieces(tokenizer, np.arange(len(plan)), epoch).sizes
        assert (sizes.sum(axis=1) <= least).all()


def test_only_some_records():
    _, tokenizer, records, forecasts = made()
    chosen = np.array([3, 4, 11])
    some = Forecasts.of(tokenizer, records, chosen)
    stays = np.flatnonzero(np.isin(forecasts.record, chosen))
    assert np.array_equal(some.record, forecasts.record[stays])
    hours = np.full(len(stays), 24.0)
    assert questions(tokenizer, records, some, np.arange(len(stays)), hours) == questions(
        tokenizer, records, forecasts, stays, hours
    )
