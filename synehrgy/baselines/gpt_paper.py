"""The published SynEHRgy (Karami, Atienza and Ionescu, arXiv 2411.13428, 2024) on our code.

Its settings: gaps between time points as bins, bins of equal width, numbers drawn evenly within a
bin, records cut at the context, the 50 likeliest tokens at each step. What is ours all the same:
the grammar rules out invalid tokens and ends each record in time, so that none is unfinished, as
28 % of those of the public code are; and codes that occur fewer than 6 times are left out by their
count in the train split, not in all patients.
"""

from dataclasses import dataclass
from typing import Any

from synehrgy.baselines.baseline import limited
from synehrgy.baselines.gpt import TrainedGPT
from synehrgy.settings import HyperParameters, ModelSettings, TokenSettings, TrainSettings


@dataclass
class GPTPaperSettings:
    """Shape, training and sampling as published.

    Attributes:
        n_layer, n_head, n_embd: shape of the transformer.
        n_ctx: tokens at which records are cut.
        mini_batch, n_accum: records of a step are their product.
        lr: peak learning rate.
        epochs: passes over the train split, at most.
        patience: epochs without a better validation loss before it stops.
        top_k: likeliest tokens that are drawn from.
    """

    n_layer: int = limited(4, minimum=1)
    n_head: int = limited(4, minimum=1, divides="n_embd")
    n_embd: int = limited(384, minimum=1)
    n_ctx: int = limited(1024, minimum=16)
    mini_batch: int = limited(64, minimum=1)
    n_accum: int = limited(2, minimum=1)
    lr: float = limited(3e-4, above=0.0)
    epochs: int = limited(20, minimum=1)
    patience: int = limited(5, minimum=1)
    top_k: int = limited(50, minimum=1)


class GPTPaper(TrainedGPT):
    """A GPT over tokens with the published settings."""

    name = "gpt_paper"
    title = "SynEHRgy as published"
    source = "Karami, Atienza and Ionescu, SynEHRgy, arXiv 2411.13428, 2024"
    Settings = GPTPaperSettings

    def tokens(self) -> TokenSettings:
        """Gaps as bins; records are cut."""
        return TokenSettings(time="gap", long_records="truncate")

    def config(self) -> dict[str, Any]:
        """Shape and training."""
        s = self.settings
        return {
            "model": ModelSettings("gpt", s.n_layer, s.n_head, s.n_embd),
            "hparams": HyperParameters(
                n_ctx=s.n_ctx,
                mini_batch=s.mini_batch,
                n_accum=s.n_accum,
                lr=s.lr,
                min_lr_ratio=0.1,
                optimiser="adamw",
            ),
            "train": TrainSettings(epochs=s.epochs, patience=s.patience),
        }

    def sampling(self) -> dict[str, Any]:
        """The likeliest tokens, one context per patient."""
        return {
            "top_k": self.settings.top_k,
            "value_decoding": "uniform",
            "max_segments": 1,
            "label_contradictions": "count",
            "value_contradictions": "leave",
        }
