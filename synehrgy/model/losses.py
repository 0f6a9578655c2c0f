"""Losses on logits."""

from torch import Tensor
from torch.nn import functional as F


def soft_cross_entropy(
    logits: Tensor, targets: Tensor, band_tokens: Tensor, band_weights: Tensor
) -> Tensor:
    """Cross-entropy against targets spread over a few tokens each, summed.

    Equal to the cross-entropy against dense target distributions, without a matrix of the
    vocabulary squared (soft labels of SynEHRgy, arXiv 2411.13428).

    Args:
        logits: [n, vocabulary].
        targets: int64 [n].
        band_tokens: int64 [vocabulary, width]; tokens that share the target of each token.
        band_weights: [vocabulary, width]; their probabilities, adding up to 1.

    Returns:
        Scalar: the sum over n.
    """
    log_probabilities = F.log_softmax(logits.float(), dim=-1)
    chosen = log_probabilities.gather(1, band_tokens[targets])
    return -(chosen * band_weights[targets]).sum()
