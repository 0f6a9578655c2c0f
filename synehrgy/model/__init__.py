"""The GPT and its losses: token ids in, logits out, nothing about medicine."""

from synehrgy.model.attention import Packing
from synehrgy.model.gpt import GPT, Cache, GPTConfig
from synehrgy.model.losses import Loss, linear_cross_entropy

__all__ = ["GPT", "Cache", "GPTConfig", "Loss", "Packing", "linear_cross_entropy"]
