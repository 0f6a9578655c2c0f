"""Attention inside packed records: that of PyTorch, record by record."""

import inspect

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn import functional as F

from synehrgy.model import Packing, attention
from synehrgy.model.attention import packed_attention


def heads(n, dtype=torch.float32, n_head=4, n_kv_head=4, width=8):
    generator = torch.Generator().manual_seed(n)
    sizes = (n_head, n_kv_head, n_kv_head)
    return [
        torch.randn(n, size, width, generator=generator).to(dtype).requires_grad_()
        for size in sizes
    ]


def expected(q, k, v, lengths):
    found = []
    for parts in zip(*(x.split(lengths) for x in (q, k, v)), strict=True):
        q_, k_, v_ = (part.transpose(0, 1)[None] for part in parts)
        y = F.scaled_dot_product_attention(q_, k_, v_, is_causal=True, enable_gqa=True)
        found.append(y[0].transpose(0, 1))
    return torch.cat(found)


@settings(max_examples=60, deadline=None)
@given(
    lengths=st.lists(st.integers(1, 40), min_size=1, max_size=5),
    block=st.integers(1, 50),
    keep=st.integers(0, 50),
    n_kv_head=st.sampled_from([1, 2, 4]),
)
def test_it_is_that_of_each_record(lengths, block, keep, n_kv_head):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(attention, "_BLOCK", block)
        patch.setattr(attention, "_KEEP", keep)
        inputs = heads(sum(lengths), n_kv_head=n_kv_head)
        found, wanted = packed_attention(*inputs, Packing.of(lengths)), expected(*inputs, lengths)
        torch.testing.assert_close(found, wanted, rtol=1e-4, atol=1e-5)
        direction = torch.randn_like(found)
        mine, theirs = (torch.autograd.grad((y * direction).sum(), inputs) for y in (found, wanted))
        for a, b in zip(mine, theirs, strict=True):
            torch.testing.assert_close(a, b, rtol=1e-3, atol=1e-4)


def test_half_precision_is_close():
    lengths = [300, 20]
    inputs = heads(320, torch.bfloat16)
    found = packed_attention(*inputs, Packing.of(lengths)).float()
    full = [x.detach().float().requires_grad_() for x in inputs]
    wanted = expected(*full, lengths)
    assert (found - wanted).norm() < 0.02 * wanted.norm()
    direction = torch.randn_like(wanted)
    mine = torch.autograd.grad((found * direction).sum(), inputs)
    theirs = torch.autograd.grad((wanted * direction).sum(), full)
    for a, b in zip(mine, theirs, strict=True):
        assert (a.float() - b).norm() < 0.03 * b.norm()


def test_packing_knows_places():
    packing = Packing.of([3, 1, 2])
    assert packing.positions.tolist() == [0, 1, 2, 0, 0, 1]
    assert packing.offsets.tolist() == [0, 3, 4, 6]
    assert packing.offsets.dtype == torch.int32
    assert packing.longest == 3


def test_on_a_gpu_the_kernel_for_variable_lengths_is_asked_for_the_same(monkeypatch):
    """No GPU here: its kernel is stood in for by one that reads the same arguments."""
    import torch.nn.attention.varlen as varlen

    lengths = [5, 9, 1]
    inputs = heads(15, torch.bfloat16, n_kv_head=2)
    signature = inspect.signature(varlen.varlen_attn)
    packing = Packing.of(lengths)

    def kernel(*given, **named):
        # As the real one would read them.
        q, k, v, first_q, first_k, most_q, most_k = signature.bind(*given, **named).args
        window_size, enable_gqa = named["window_size"], named["enable_gqa"]
        assert window_size == (-1, 0)
        assert enable_gqa
        assert most_q == most_k == 9
        assert first_q is first_k is packing.offsets
        return expected(q, k, v, first_q.diff().tolist())

    monkeypatch.setattr(varlen, "varlen_attn", kernel)
    monkeypatch.setattr(attention, "_has_kernel", lambda q: True)
    found = packed_attention(*inputs, packing)
    assert torch.equal(found, expected(*inputs, lengths))
    monkeypatch.undo()
    torch.testing.assert_close(packed_attention(*inputs, packing), found, rtol=0.05, atol=0.05)
