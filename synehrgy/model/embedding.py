"""Embeddings of tokens that are alike, as the sum of a part of their own and of common ones."""

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils import parametrize

from synehrgy.model.gpt import GPT

_NAME = "token_embedding"
_PLACE = f"{_NAME}.parametrizations.weight"
_OWN, _INDEX, _AMOUNTS, _PARTS = (
    f"{_PLACE}.{name}" for name in ("original", "0.index", "0.amounts", "0.parts")
)

# Of a fresh embedding this share of the spread is a token's own; the rest is common.
_OWN_SHARE = 0.5


class CommonParts(nn.Module):
    """Adds common parts to the embeddings of tokens.

    The idea is that of factored embeddings (Bilmes and Kirchhoff, 2003; of characters and words,
    Bojanowski et al., 2017): what is learnt of a part is learnt of all tokens that have it.

    Args:
        index: int64 [tokens, k]; numbers of the parts of each token.
        amounts: float32 [tokens, k]; how much of each.
        width: of the embedding.
    """

    index: Tensor
    amounts: Tensor

    def __init__(self, index: Tensor, amounts: Tensor, width: int):
        super().__init__()
        self.register_buffer("index", index)
        self.register_buffer("amounts", amounts)
        n_parts = int(index.max()) + 1
        self.parts = nn.Parameter(torch.empty(n_parts, width, device=index.device))
        nn.init.normal_(self.parts, std=0.02)

    def forward(self, own: Tensor) -> Tensor:
        """What tokens have of their own [tokens, width], to their embeddings."""
        return own + _common(self.index, self.amounts, self.parts)


def _common(index: Tensor, amounts: Tensor, parts: Tensor) -> Tensor:
    return F.embedding_bag(index, parts, per_sample_weights=amounts, mode="sum")


def share_parts(model: GPT, index: Tensor, amounts: Tensor, *, is_fresh: bool) -> None:
    """Let the tokens of a model share parts of their embedding while it is trained.

    Args:
        model: not shared yet; its other weights stay as they are.
        index, amounts: as ``CommonParts`` takes them, on any device.
        is_fresh: whether its embeddings are random; those that are not stay what they are.
    """
    embedding = model.token_embedding
    device = embedding.weight.device
    common = CommonParts(index.to(device), amounts.to(device), model.config.n_embd)
    with torch.no_grad():
        if is_fresh:
            embedding.weight.mul_(_OWN_SHARE)
        else:
            embedding.weight.sub_(_common(common.index, common.amounts, common.parts))
    parametrize.register_parametrization(embedding, "weight", common)


def folded(weights: dict[str, Tensor]) -> dict[str, Tensor]:
    """The weights of a model that shares nothing and computes the same.

    Args:
        weights: of a model, with or without common parts, by name.
    """
    if _OWN not in weights:
        return weights
    common = _common(weights[_INDEX], weights[_AMOUNTS], weights[_PARTS])
    others = {name: w for name, w in weights.items() if not name.startswith(_PLACE)}
    return {f"{_NAME}.weight": weights[_OWN] + common, **others}
