"""Ours: the modern GPT over whole records with all codes, behind the same interface.

Small by default, as the networks of the other baselines are: 5,000 patients in some twenty minutes
on two cores of a CPU.
"""

from dataclasses import dataclass
from typing import Any

from synehrgy.baselines.baseline import limited
from synehrgy.baselines.gpt import TrainedGPT
from synehrgy.errors import UserError
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

    n_layer: int = limited(2, minimum=1)
    n_head: int = limited(2, minimum=1, divides="n_embd")
    n_embd: int = limited(128, minimum=1)
    dropout: float = limited(0.0, minimum=0.0, maximum=0.9)
    n_ctx: int = limited(1024, minimum=16)
    mini_batch: int = limited(8, minimum=1)
    n_accum: int = limited(1, minimum=1)
    lr: float = limited(8e-3, above=0.0)
    weight_decay: float = limited(0.1, minimum=0.0)
    epochs: int = limited(6, minimum=1)
    patience: int = limited(3, minimum=1)
    code_shuffle: bool = True
    min_code_count: int = limited(1, minimum=1)
    n_bins: int = limited(20, minimum=1)


class Ours(TrainedGPT):
    """The modern GPT over whole records, in the shape of ``model=gpt_small``."""

    name = "synehrgy"
    title = "SynEHRgy"
    source = "this toolkit"
    Settings = SynEHRgySettings

    def __init__(self, **settings: Any) -> None:
        """Set it up; rotary positions need heads of even width."""
        super().__init__(**settings)
        s = self.settings
        if s.n_embd % (2 * s.n_head):
            raise UserError(
                f"{self.name}: n_embd={s.n_embd} must be a multiple of {2 * s.n_head}, twice "
                f"n_head={s.n_head}."
            )

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
            n_kv_head=s.n_head // 2 if s.n_head % 2 == 0 else 1,
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
