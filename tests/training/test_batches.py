"""Every token of every record is trained on once, and padding and heads never are."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from synehrgy.settings import TokenSettings
from synehrgy.tokenizer import Records, Tokenizer, encode
from synehrgy.tokenizer.grammar import HISTORY, PAD
from synehrgy.tokenizer.segments import Cutter, cut_records
from synehrgy.training.batches import IGNORE, Batcher, epoch_order
from tests.cohorts import small_cohort


def batcher_of(n_patients=12, n_ctx=80, max_segments=4, max_tokens=400, **how):
    cohort = small_cohort(n_patients)
    tokenizer = Tokenizer.fit(cohort, TokenSettings(min_code_count=1, **how))
    records = encode(tokenizer, cohort)
    segments = cut_records(tokenizer, records, np.arange(len(records)), n_ctx)
    return tokenizer, records, Batcher(tokenizer, records, segments, max_segments, max_tokens)


@settings(max_examples=40, deadline=None)
@given(
    max_segments=st.integers(1, 8),
    max_tokens=st.integers(16, 400),
    n_ctx=st.integers(70, 200),
    long_records=st.sampled_from(["continue", "truncate"]),
    data=st.data(),
)
def test_each_target_appears_once_with_its_own_past(
    max_segments, max_tokens, n_ctx, long_records, data
):
    tokenizer, records, batcher = batcher_of(
        8, n_ctx, max_segments, max_tokens, long_records=long_records
    )
    segments, cutter = batcher.segments, None
    if long_records == "continue":
        cutter = Cutter(tokenizer)
    rows = np.array(data.draw(st.permutations(range(len(segments)))))
    seen = []
    for batch in batcher.batches(rows):
        assert len(batch.inputs) <= max_segments
        assert batch.inputs.shape == batch.targets.shape
        width = batch.inputs.shape[1] + 1
        assert width * len(batch.inputs) <= max_tokens or len(batch.inputs) == 1
        asked = (batch.targets != IGNORE).numpy()
        assert batch.n_targets == asked.sum()
        for inputs, targets in zip(batch.inputs.tolist(), batch.targets.tolist(), strict=True):
            seen.append((inputs, targets))
    expected = []
    for i in range(len(segments)):
        record = records[int(segments.record[i])].astype(np.int64)
        start, stop = int(segments.start[i]), int(segments.stop[i])
        head = cutter.head(record, start).tolist() if start else []
        expected.append([*head, *record[start:stop].tolist()])
    found = []
    pad = tokenizer.token(PAD)
    for inputs, targets in seen:
        n_head = next(j for j, t in enumerate(targets) if t != IGNORE)
        asked = [t for t in targets if t != IGNORE]
        # One stretch of targets: the head before, the padding after.
        assert targets[n_head : n_head + len(asked)] == asked
        whole = [*inputs[: n_head + 1], *asked]
        assert inputs[: len(whole) - 1] == whole[:-1]
        assert set(inputs[len(whole) - 1 :]) <= {pad, whole[-1]}
        found.append(whole)
        is_first = inputs[0] != tokenizer.token(HISTORY)
        # All of a head is given, the last of it to predict from.
        assert n_head == 0 or not is_first
    assert sorted(found) == sorted(expected)


def test_little_is_padded():
    cohort = small_cohort(300)
    tokenizer = Tokenizer.fit(cohort)
    records = encode(tokenizer, cohort)
    segments = cut_records(tokenizer, records, np.arange(len(records)), 160)
    batcher = Batcher(tokenizer, records, segments, 64, 8192)
    padded = sum(batch.inputs.numel() for batch in batcher.batches(np.arange(len(segments))))
    assert padded < 1.15 * segments.lengths.sum()


def test_order_belongs_to_seed_and_epoch():
    rows = np.arange(50)
    assert np.array_equal(epoch_order(rows, 1, 2), epoch_order(rows, 1, 2))
    assert not np.array_equal(epoch_order(rows, 1, 2), epoch_order(rows, 1, 3))
    assert not np.array_equal(epoch_order(rows, 1, 2), epoch_order(rows, 2, 2))
    assert sorted(epoch_order(rows, 1, 2)) == rows.tolist()


def test_records_are_read_from_disk(tmp_path):
    tokenizer, records, batcher = batcher_of()
    np.save(tmp_path / "tokens.npy", records.tokens)
    mapped = Records(
        np.load(tmp_path / "tokens.npy", mmap_mode="r"),
        records.offsets,
        records.subject_ids,
        records.splits,
    )
    other = Batcher(tokenizer, mapped, batcher.segments, 4, 400)
    rows = np.arange(len(batcher.segments))
    for one, two in zip(batcher.batches(rows), other.batches(rows), strict=True):
        assert one.inputs.equal(two.inputs)
        assert one.targets.equal(two.targets)
    with pytest.raises(ValueError, match="read-only"):
        mapped.tokens[0] = 1
