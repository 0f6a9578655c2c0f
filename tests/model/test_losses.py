"""The banded loss is the dense one."""

import pytest
import torch
from torch.nn import functional as F

from synehrgy.model import soft_cross_entropy
from synehrgy.settings import TokenSettings
from synehrgy.tokenizer import Tokenizer
from tests.cohorts import small_cohort


@pytest.fixture(scope="module")
def band():
    tokenizer = Tokenizer.fit(small_cohort(30), TokenSettings(min_code_count=1))
    tokens, weights = tokenizer.soft_targets()
    return torch.from_numpy(tokens), torch.from_numpy(weights)


def dense(band):
    tokens, weights = band
    return torch.zeros(len(tokens), len(tokens)).scatter_add_(1, tokens, weights)


def inputs(size, scale=1.0):
    generator = torch.Generator().manual_seed(0)
    logits = scale * torch.randn(64, size, generator=generator)
    return logits.requires_grad_(), torch.randint(size, (64,), generator=generator)


def test_banded_loss_and_gradient_are_those_of_dense_targets(band):
    logits, targets = inputs(len(band[0]))
    loss = soft_cross_entropy(logits, targets, *band)
    (gradient,) = torch.autograd.grad(loss, logits)
    expected = F.cross_entropy(logits, dense(band)[targets], reduction="sum")
    (expected_gradient,) = torch.autograd.grad(expected, logits)
    torch.testing.assert_close(loss, expected)
    torch.testing.assert_close(gradient, expected_gradient, rtol=1e-4, atol=1e-6)


def test_one_hot_band_is_the_hard_loss():
    size = 40
    logits, targets = inputs(size)
    tokens = torch.arange(size)[:, None].expand(size, 7).clone()
    tokens[:, 1:] = 0
    weights = torch.zeros(size, 7)
    weights[:, 0] = 1
    found = soft_cross_entropy(logits, targets, tokens, weights)
    torch.testing.assert_close(found, F.cross_entropy(logits, targets, reduction="sum"))


def test_loss_of_half_precision_logits_is_computed_in_full(band):
    logits, targets = inputs(len(band[0]), scale=30.0)
    half = logits.detach().bfloat16()
    loss = soft_cross_entropy(half, targets, *band)
    assert loss.dtype == torch.float32
    torch.testing.assert_close(loss, soft_cross_entropy(half.float(), targets, *band))


def test_extreme_logits_stay_finite(band):
    logits, targets = inputs(len(band[0]), scale=1e4)
    assert torch.isfinite(soft_cross_entropy(logits, targets, *band))


def test_loss_of_nothing_is_0(band):
    logits = torch.zeros(0, len(band[0]))
    assert soft_cross_entropy(logits, torch.zeros(0, dtype=torch.int64), *band) == 0
