"""Ours: the modern GPT over whole records with all codes, behind the same interface.

Small by default, as the networks of the other baselines are: 5,000 patients in some twenty minutes
on two cores of a CPU.
"""

from dataclasses import dataclass
from typing import Any

from synehrgy.baselines.gpt import TrainedGPT
from synehrgy.settings import HyperParameters, ModelSettings, TokenSettings, TrainSettings


@dataclass
class SynEHRgySettings:
    """Shape, training and tokens; the rest is as ``train.py`` and ``generate.py`` have it.

    Attributes:
        n_layer, n_head, n_embd: shape of the transformer.
        dropout: in training.
        n_ctx: context in tokens; longer records go on in further segments.
        mini_batch, n_accum: records or segments of a step are their product.
        lr: peak learning rate.
        weight_decay: of the matrices.
        epochs: passes over the train split, at most.
        patience: epochs without a better validation loss before it stops.
        code_shuffle: codes of a stay in a new random order in each epoch: they are then learnt less
            by heart, and come without the order that they were listed in.
        min_code_count: codes that occur less often are rare, and stand for themselves all the same.
        n_bins: bins of each series, of equal counts.
    """

    n_layer: int = 2
    n_head: int = 2
    n_embd: int = 128
    dropout: float = 0.0
    n_ctx: int = 1024
    mini_batch: int = 8
    n_accum: int = 1
    lr: float = 8e-3
    weight_decay: float = 0.1
    epochs: int = 6
    patience: int = 3
    code_shuffle: bool = True
    min_code_count: int = 1
    n_bins: int = 20


class Ours(TrainedGPT):
    """The modern GPT over whole records, in the shape of ``model=gpt_small``."""

    name = "synehrgy"
    title = "SynEHRgy"
    source = "this toolkit"
    Settings = SynEHRgySettings

    def tokens(self) -> TokenSettings:
        """All codes, whole records, times to the minute, bins of equal counts."""
        s = self.settings
        return TokenSettings(
            bin_type="quantile", n_bins=s.n_bins, rare_codes="keep", min_code_count=s.min_code_count
        )

    def config(self) -> dict[str, Any]:
        """The shape of ``model=gpt_small``, as large as the settings say."""
        s = self.settings
        model = ModelSettings(
            "gpt_small",
            s.n_layer,
            s.n_head,
            s.n_embd,
            s.dropout,
            n_kv_head=max(s.n_head // 2, 1),
            positions="rotary",
            qk_norm=True,
            bias=False,
            shared=True,
        )
        return {
            "model": model,
            "hparams": HyperParameters(
                n_ctx=s.n_ctx,
                mini_batch=s.mini_batch,
                n_accum=s.n_accum,
                lr=s.lr,
                weight_decay=s.weight_decay,
                optimiser="muon",
            ),
            "train": TrainSettings(
                epochs=s.epochs, patience=s.patience, code_shuffle=s.code_shuffle
            ),
        }

    def sampling(self) -> dict[str, Any]:
        """As ``generate.py`` does by default."""
        return {}
