"""Every token of every record is trained on once, and padding never is."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from synehrgy.tokenizer import Records
from synehrgy.training.batches import IGNORE, epoch_order, pad_batches

PAD = 0


def make_records(lengths: list[int]) -> Records:
    """Records whose tokens are all different, so that each can be found again."""
    offsets = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64)
    tokens = np.arange(1, offsets[-1] + 1, dtype=np.uint16)
    n = len(lengths)
    return Records(tokens, offsets, np.arange(n), np.zeros(n, dtype=np.int8))


@given(
    lengths=st.lists(st.integers(2, 40), min_size=1, max_size=30),
    max_records=st.integers(1, 8),
    max_tokens=st.integers(16, 200),
    n_ctx=st.integers(4, 50),
)
def test_each_target_appears_once_with_its_own_past(lengths, max_records, max_tokens, n_ctx):
    records = make_records(lengths)
    rows = np.arange(len(lengths))
    pairs = []
    for batch in pad_batches(records, rows, max_records, max_tokens, n_ctx, PAD):
        assert len(batch.inputs) <= max_records
        assert batch.inputs.shape == batch.targets.shape
        assert (batch.inputs.shape[1] + 1) * len(batch.inputs) <= max_tokens or len(
            batch.inputs
        ) == 1
        real = (batch.targets != IGNORE).numpy()
        assert batch.n_targets == real.sum()
        # Padding only ever stands after a record's tokens.
        assert np.all(np.diff(real.astype(int), axis=1) <= 0)
        pairs += zip(batch.inputs.numpy()[real], batch.targets.numpy()[real], strict=True)
    expected = [
        (token, token + 1)
        for start, length in zip(records.offsets, lengths, strict=False)
        for token in range(start + 1, start + min(length, n_ctx))
    ]
    assert sorted(pairs) == expected


def test_little_is_padded():
    lengths = np.random.default_rng(0).integers(20, 1000, 128).tolist()
    records = make_records(lengths)
    padded = sum(
        batch.inputs.numel() for batch in pad_batches(records, np.arange(128), 64, 8192, 1024, PAD)
    )
    assert padded < 1.15 * sum(lengths)


def test_order_belongs_to_seed_and_epoch():
    rows = np.arange(50)
    assert np.array_equal(epoch_order(rows, 1, 2), epoch_order(rows, 1, 2))
    assert not np.array_equal(epoch_order(rows, 1, 2), epoch_order(rows, 1, 3))
    assert not np.array_equal(epoch_order(rows, 1, 2), epoch_order(rows, 2, 2))
    assert sorted(epoch_order(rows, 1, 2)) == rows.tolist()


def test_records_are_read_from_disk(tmp_path):
    records = make_records([5, 9])
    np.save(tmp_path / "tokens.npy", records.tokens)
    mapped = Records(
        np.load(tmp_path / "tokens.npy", mmap_mode="r"),
        records.offsets,
        records.subject_ids,
        records.splits,
    )
    (batch,) = pad_batches(mapped, np.array([1]), 4, 100, 100, PAD)
    assert batch.targets.tolist() == [list(range(7, 15))]
    with pytest.raises(ValueError, match="read-only"):
        mapped.tokens[0] = 1
