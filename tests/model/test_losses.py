"""The chunked loss is the dense one, hard and soft, with its gradients."""

import pytest
import torch
from torch.nn import functional as F

from synehrgy.model import linear_cross_entropy, losses
from synehrgy.settings import TokenSettings
from synehrgy.tokenizer import Tokenizer
from tests.cohorts import small_cohort

WIDTH = 16


@pytest.fixture(scope="module")
def band():
    tokenizer = Tokenizer.fit(small_cohort(30), TokenSettings(min_code_count=1))
    tokens, weights = tokenizer.soft_targets()
    return torch.from_numpy(tokens), torch.from_numpy(weights)


@pytest.fixture(autouse=True)
def _several_chunks(monkeypatch):
    monkeypatch.setattr(losses, "_ROWS", (20, 20))


def dense(band):
    tokens, weights = band
    return torch.zeros(len(tokens), len(tokens)).scatter_add_(1, tokens, weights)


def inputs(size, n=64, scale=1.0):
    generator = torch.Generator().manual_seed(0)
    hidden = scale * torch.randn(n, WIDTH, generator=generator)
    weight = torch.randn(size, WIDTH, generator=generator)
    targets = torch.randint(size, (n,), generator=generator)
    return hidden.requires_grad_(), weight.requires_grad_(), targets


@pytest.mark.parametrize("soft", [False, True])
def test_loss_and_gradients_are_those_of_dense_targets(band, soft):
    hidden, weight, targets = inputs(len(band[0]))
    loss = linear_cross_entropy(hidden, weight, targets, band if soft else None)
    logits = hidden @ weight.T
    goal = dense(band)[targets] if soft else targets
    expected = F.cross_entropy(logits, goal, reduction="sum")
    torch.testing.assert_close(loss.objective, expected)
    torch.testing.assert_close(loss.hard, F.cross_entropy(logits, targets, reduction="none"))
    assert not loss.hard.requires_grad
    # Scaled, as a caller may do before it goes backward.
    found = torch.autograd.grad(3 * loss.objective, (hidden, weight))
    wanted = torch.autograd.grad(3 * expected, (hidden, weight))
    for mine, theirs in zip(found, wanted, strict=True):
        torch.testing.assert_close(mine, theirs, rtol=1e-4, atol=1e-5)


def test_a_band_of_the_token_itself_is_the_hard_loss():
    size = 40
    hidden, weight, targets = inputs(size)
    tokens = torch.arange(size)[:, None].expand(size, 7).clone()
    tokens[:, 1:] = 0
    weights = torch.zeros(size, 7)
    weights[:, 0] = 1
    soft = linear_cross_entropy(hidden, weight, targets, (tokens, weights))
    hard = linear_cross_entropy(hidden, weight, targets)
    torch.testing.assert_close(soft.objective, hard.objective)
    mine, theirs = (torch.autograd.grad(x.objective, (hidden, weight)) for x in (soft, hard))
    for a, b in zip(mine, theirs, strict=True):
        torch.testing.assert_close(a, b)


def test_half_precision_is_close_and_adds_up_in_full(band):
    hidden, weight, targets = inputs(len(band[0]), n=400)
    exact = linear_cross_entropy(hidden, weight, targets)
    half = linear_cross_entropy(hidden.bfloat16(), weight, targets)
    assert half.objective.dtype == half.hard.dtype == torch.float32
    assert half.objective.item() == pytest.approx(exact.objective.item(), rel=1e-2)
    gradient, wanted = (torch.autograd.grad(x.objective, weight)[0] for x in (half, exact))
    assert gradient.dtype == torch.float32
    assert (gradient - wanted).norm() < 0.02 * wanted.norm()


@pytest.mark.parametrize("soft", [False, True])
def test_extreme_logits_stay_finite(band, soft):
    hidden, weight, targets = inputs(len(band[0]), scale=1e4)
    loss = linear_cross_entropy(hidden, weight, targets, band if soft else None)
    assert torch.isfinite(loss.objective)
    assert torch.isfinite(torch.autograd.grad(loss.objective, hidden)[0]).all()


def test_loss_of_nothing_is_0(band):
    hidden, weight, targets = inputs(len(band[0]), n=0)
    loss = linear_cross_entropy(hidden, weight, targets, band)
    assert loss.objective == 0
    assert len(loss.hard) == 0
    loss.objective.backward()
    assert weight.grad.abs().sum() == 0


@torch.no_grad()
def test_without_gradients_it_computes_none(band):
    hidden, weight, targets = inputs(len(band[0]))
    loss = linear_cross_entropy(hidden, weight, targets)
    assert not loss.objective.requires_grad
