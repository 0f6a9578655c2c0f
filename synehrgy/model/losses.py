"""Cross-entropy over the vocabulary, without keeping the logits."""

from typing import Any, NamedTuple

import torch
from torch import Tensor

# Rows whose logits exist at a time: small enough for the cache of a CPU, and on a GPU for its
# memory, large enough to keep either busy.
_ROWS = (512, 16384)


class Loss(NamedTuple):
    """What is minimised, and what is reported.

    Attributes:
        objective: scalar with a gradient; summed over tokens.
        hard: float32 [n]; cross-entropy of each target, without a gradient.
    """

    objective: Tensor
    hard: Tensor


def linear_cross_entropy(
    hidden: Tensor, weight: Tensor, targets: Tensor, band: tuple[Tensor, Tensor] | None = None
) -> Loss:
    """Cross-entropy of ``hidden @ weight.T``, chunk by chunk.

    The logits of all tokens over the vocabulary are most of the memory of a training step, and
    reading them again and again a good part of its time. Here each chunk of logits is turned into
    its loss and its gradients at once and then forgotten, as in Liger Kernel (Hsu et al., 2024).

    With a band, the target of a token is spread over a few tokens (soft labels of SynEHRgy, arXiv
    2411.13428); this equals the cross-entropy against dense target distributions, without a matrix
    of the vocabulary squared.

    Args:
        hidden: [n, width]; its type is that of the products.
        weight: [vocabulary, width].
        targets: int64 [n].
        band: (tokens, weights), both [vocabulary, k]: tokens that share the target of each token,
            and their probabilities, which add up to 1.
    """
    objective, hard = _LinearCrossEntropy.apply(hidden, weight, targets, *(band or (None, None)))
    return Loss(objective, hard)


class _LinearCrossEntropy(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        hidden: Tensor,
        weight: Tensor,
        targets: Tensor,
        band_tokens: Tensor | None,
        band_weights: Tensor | None,
    ) -> tuple[Tensor, Tensor]:
        with torch.autocast(hidden.device.type, enabled=False):
            projection = weight.to(hidden.dtype)
            wanted = ctx.needs_input_grad[0] or ctx.needs_input_grad[1]
            d_hidden = torch.empty_like(hidden) if wanted else None
            d_weight = torch.zeros_like(weight, dtype=torch.float32) if wanted else None
            hard = hidden.new_empty(len(hidden), dtype=torch.float32)
            objective = hidden.new_zeros((), dtype=torch.float32)
            size = _ROWS[hidden.is_cuda]
            for start in range(0, len(hidden), size):
                part = slice(start, start + size)
                logits = hidden[part] @ projection.T
                probabilities = logits.softmax(dim=1, dtype=torch.float32)
                # The largest probability is that of the largest logit.
                top = logits.amax(dim=1, keepdim=True).float()
                normaliser = top - probabilities.amax(dim=1, keepdim=True).log()
                target = targets[part, None]
                hard[part] = (normaliser - logits.gather(1, target)).squeeze(1)
                if band_tokens is None or band_weights is None:
                    share = torch.ones_like(normaliser)
                    objective += hard[part].sum()
                else:
                    target, share = band_tokens[targets[part]], band_weights[targets[part]]
                    objective += ((normaliser - logits.gather(1, target)) * share).sum()
                if d_hidden is None or d_weight is None:
                    continue
                # Of the objective with respect to the logits: probabilities less targets.
                gradient = probabilities.scatter_add_(1, target, -share).to(hidden.dtype)
                d_hidden[part] = gradient @ projection
                d_weight += gradient.T @ hidden[part]
        if d_hidden is not None and d_weight is not None:
            ctx.save_for_backward(d_hidden, d_weight.to(weight.dtype))
        ctx.mark_non_differentiable(hard)
        return objective, hard

    @staticmethod
    def backward(ctx: Any, d_objective: Tensor, _: Tensor) -> tuple[Tensor | None, ...]:
        d_hidden, d_weight = ctx.saved_tensors
        return d_hidden * d_objective, d_weight * d_objective, None, None, None
