"""Attention over the cache: plain softmax of what is written, whatever lies beside it."""

import dataclasses

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from synehrgy.model import cached
from synehrgy.model.cached import cached_attention

CAPACITY = 40
# float64 takes the general way, which is that of a GPU.
DTYPES = [torch.float32, torch.bfloat16, torch.float64]


@dataclasses.dataclass
class Case:
    """A batch before its next token."""

    q: torch.Tensor
    k: torch.Tensor
    v: torch.Tensor
    keys: torch.Tensor
    values: torch.Tensor
    lengths: torch.Tensor

    def attend(self, horizon=CAPACITY):
        return cached_attention(**vars(self), horizon=horizon)

    def rows(self, rows):
        """Copies of some of the rows, in another batch."""
        return Case(*(part[rows].clone() for part in vars(self).values()))

    def to(self, dtype):
        floats = (self.q, self.k, self.v, self.keys, self.values)
        return Case(*(part.to(dtype, copy=True) for part in floats), self.lengths.clone())


def case(lengths, dtype=torch.float32, n_head=4, key_heads=2, width=8, seed=0, scale=1.0):
    """Random tokens in the places that are filled; in all others, what none may read."""
    generator = torch.Generator().manual_seed(seed)

    def random(*shape):
        return torch.randn(len(lengths), *shape, generator=generator).mul(scale).to(dtype)

    q, k, v = (random(heads, width) for heads in (n_head, key_heads, key_heads))
    keys, values = random(key_heads, CAPACITY, width), random(key_heads, CAPACITY, width)
    for row, length in enumerate(lengths):
        keys[row, :, length:] = values[row, :, length:] = torch.nan
    return Case(q, k, v, keys, values, torch.tensor(lengths))


def expected(batch):
    """By definition, row by row and head by head, in double precision."""
    q, k, v, keys, values = (
        part.double() for part in (batch.q, batch.k, batch.v, batch.keys, batch.values)
    )
    y = torch.empty_like(q)
    shared = q.shape[1] // k.shape[1]
    for row, length in enumerate(batch.lengths.tolist()):
        for head in range(q.shape[1]):
            mine = head // shared
            seen = torch.cat([keys[row, mine, :length], k[row, mine][None]])
            told = torch.cat([values[row, mine, :length], v[row, mine][None]])
            weights = (seen @ q[row, head] / q.shape[2] ** 0.5).softmax(0)
            y[row, head] = weights @ told
    return y


def close(found, wanted, dtype):
    tolerance = {torch.bfloat16: 1e-2, torch.float32: 2e-5, torch.float64: 1e-12}[dtype]
    torch.testing.assert_close(found.double(), wanted, rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@settings(max_examples=40, deadline=None)
@given(
    lengths=st.lists(st.integers(0, CAPACITY - 1), min_size=1, max_size=6),
    heads=st.sampled_from([(1, 1), (4, 4), (4, 2), (6, 1)]),
    width=st.sampled_from([1, 2, 5, 8, 32, 96]),
    scale=st.sampled_from([0.1, 1.0, 10.0]),
    seed=st.integers(0, 1000),
)
def test_it_is_the_softmax_of_the_places_that_are_filled(dtype, lengths, heads, width, scale, seed):
    batch = case(lengths, dtype, *heads, width, seed, scale)
    wanted = expected(batch)
    found = batch.attend()
    assert found.dtype == dtype
    # bfloat16 rounds what is read and the result, not what is between.
    close(found / scale, wanted / scale, dtype)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_scores_too_large_for_an_exponential_are_no_trouble(dtype):
    batch = case([5, 0, 39], dtype, scale=40.0)
    wanted = expected(batch)
    close(batch.attend() / 40, wanted / 40, dtype)


@pytest.mark.parametrize("dtype", DTYPES)
def test_only_the_place_of_the_new_token_is_written(dtype):
    batch = case([3, 0, CAPACITY - 1], dtype)
    keys, values = batch.keys.clone(), batch.values.clone()
    for row, length in enumerate([3, 0, CAPACITY - 1]):
        keys[row, :, length], values[row, :, length] = batch.k[row], batch.v[row]
    batch.attend()
    torch.testing.assert_close(batch.keys, keys, rtol=0, atol=0, equal_nan=True)
    torch.testing.assert_close(batch.values, values, rtol=0, atol=0, equal_nan=True)
    assert batch.lengths.tolist() == [3, 0, CAPACITY - 1]


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@settings(max_examples=40, deadline=None)
@given(
    lengths=st.lists(st.integers(0, CAPACITY - 1), min_size=2, max_size=9),
    key_heads=st.sampled_from([1, 2, 4]),
    data=st.data(),
)
def test_a_row_depends_on_no_other_to_the_last_bit(dtype, lengths, key_heads, data):
    batch = case(lengths, dtype, key_heads=key_heads)
    whole = batch.rows(range(len(lengths))).attend()
    some = data.draw(st.lists(st.sampled_from(range(len(lengths))), min_size=1, max_size=12))
    assert torch.equal(batch.rows(some).attend(), whole[some])


def test_threads_change_no_bit():
    batch = case([39, 3, 17, 0, 25, 25, 1, 38])
    everyone = range(8)
    alone = batch.rows(everyone).attend()
    before = torch.get_num_threads()
    try:
        torch.set_num_threads(4)
        assert torch.equal(batch.rows(everyone).attend(), alone)
    finally:
        torch.set_num_threads(before)


@settings(max_examples=30, deadline=None)
@given(
    lengths=st.lists(st.integers(0, CAPACITY - 1), min_size=1, max_size=6),
    key_heads=st.sampled_from([1, 2, 4]),
    spare=st.integers(1, CAPACITY),
)
def test_the_way_of_a_gpu_is_the_same_softmax(lengths, key_heads, spare):
    batch = case(lengths, key_heads=key_heads)
    wanted = expected(batch)
    # What is not filled is zero at first in the cache, and numbers of earlier records later on.
    general = batch.to(torch.float64)
    for part in (general.keys, general.values):
        part.nan_to_num_(nan=7.0)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(cached, "_on_cpu", None)
        found = general.attend(horizon=min(max(lengths) + spare, CAPACITY))
    close(found, wanted, torch.float64)
    close(batch.attend(), found, torch.float32)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("key_heads", [1, 2, 4])
def test_a_gpu_gives_what_the_cpu_gives(dtype, key_heads):
    batch = case([39, 3, 17, 0, 25], dtype, key_heads=key_heads)
    for part in (batch.keys, batch.values):
        part.nan_to_num_(nan=7.0)
    wanted = expected(batch)
    there = Case(*(part.cuda() for part in vars(batch).values()))
    close(there.attend().cpu(), wanted, torch.bfloat16)
    close(batch.attend(), wanted, dtype)
