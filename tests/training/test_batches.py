"""Every token of every record is trained on once, and padding and heads never are."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from synehrgy.settings import TokenSettings
from synehrgy.tokenizer import Records, Tokenizer, encode
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
    segments, cutter = batcher.plan, None
    if long_records == "continue":
        cutter = Cutter(tokenizer, n_ctx)
    rows = np.array(data.draw(st.permutations(range(len(segments)))))
    found = []
    for batch in batcher.batches(rows):
        assert len(batch.packing.lengths) <= max_segments
        assert len(batch.inputs) == len(batch.targets) == sum(batch.packing.lengths)
        # A token more for each segment: the last is only a target.
        assert (
            len(batch.inputs) + len(batch.packing.lengths) <= max_tokens
            or len(batch.packing.lengths) == 1
        )
        assert batch.asked.tolist() == (batch.targets != IGNORE).nonzero()[:, 0].tolist()
        parts = (part.split(batch.packing.lengths) for part in (batch.inputs, batch.targets))
        for inputs, targets in zip(*(map(list, parts)), strict=True):
            found.append((inputs.tolist(), targets.tolist()))
    expected = []
    for i in rows:
        record = records[int(segments.record[i])].astype(np.int64)
        start, stop = int(segments.start[i]), int(segments.stop[i])
        head = cutter.head(record, start).tolist() if start else []
        whole = [*head, *record[start:stop].tolist()]
        # Of a head only the last token has a target, the first of what goes on.
        targets = [*([IGNORE] * (len(head) - 1)), *whole[max(len(head), 1) :]]
        expected.append((whole[:-1], targets))
    assert found == expected


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
    other = Batcher(tokenizer, mapped, batcher.plan, 4, 400)
    rows = np.arange(len(batcher.plan))
    for one, two in zip(batcher.batches(rows), other.batches(rows), strict=True):
        assert one.inputs.equal(two.inputs)
        assert one.targets.equal(two.targets)
    with pytest.raises(ValueError, match="read-only"):
        mapped.tokens[0] = 1
