"""The GPT and its losses: token ids in, logits out, nothing about medicine."""

from synehrgy.model.attention import Packing
from synehrgy.model.gpt import BLOCK, GPT, Cache, GPTConfig, Prefix
from synehrgy.model.losses import Loss, linear_cross_entropy

__all__ = [
    "BLOCK",
    "GPT",
    "Cache",
    "GPTConfig",
    "Loss",
    "Packing",
    "Prefix",
    "linear_cross_entropy",
]
