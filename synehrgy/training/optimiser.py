"""How gradients move the weights: AdamW, or Muon for the matrices of the blocks."""

import math

import torch
from torch import Tensor, nn

from synehrgy.settings import HyperParameters
from synehrgy.training.parallel import as_held, whole


class Optimiser:
    """One optimiser for all weights of a model, whatever is inside.

    AdamW (Loshchilov and Hutter, 2019) or, for the matrices of the blocks, Muon (Jordan et al.,
    2024) with updates as large as AdamW's (Liu et al., 2025), so that both take the same rate.

    Args:
        model: on its device.
        hparams: rate, decay and kind of optimiser.
    """

    def __init__(self, model: nn.Module, hparams: HyperParameters):
        named = dict(model.named_parameters())
        self.names: dict[Tensor, str] = {parameter: name for name, parameter in named.items()}
        device = next(iter(named.values())).device
        matrices = {name: p for name, p in named.items() if p.dim() > 1}
        by_muon = [
            p for name, p in matrices.items() if hparams.optimiser == "muon" and "blocks." in name
        ]
        decayed = [p for p in matrices.values() if not any(p is other for other in by_muon)]
        # Biases and norms have one dimension; decaying them only hurts.
        vectors = [p for p in named.values() if p.dim() <= 1]
        groups = [
            {"params": decayed, "weight_decay": hparams.weight_decay},
            {"params": vectors, "weight_decay": 0.0},
        ]
        fused = device.type in ("cpu", "cuda")
        self.parts: list[torch.optim.Optimizer] = [
            torch.optim.AdamW(
                [group for group in groups if group["params"]],
                lr=hparams.lr,
                betas=(0.9, 0.95),
                fused=fused,
            )
        ]
        if by_muon:
            self.parts.append(
                torch.optim.Muon(
                    by_muon,
                    lr=hparams.lr,
                    weight_decay=hparams.weight_decay,
                    adjust_lr_fn="match_rms_adamw",
                )
            )

    def step(self, rate: float) -> None:
        """Move the weights along their gradients, and forget the gradients.

        Args:
            rate: learning rate of this step.
        """
        for part in self.parts:
            for group in part.param_groups:
                group["lr"] = rate
            part.step()
            part.zero_grad(set_to_none=True)

    def state(self) -> dict[str, Tensor]:
        """What it remembers, as ``<what>.<parameter>`` to tensor; all processes must ask."""
        return {
            f"{key}.{self.names[parameter]}": whole(tensor).contiguous()
            for part in self.parts
            for parameter, remembered in part.state.items()
            for key, tensor in remembered.items()
        }

    def load(self, state: dict[str, Tensor]) -> None:
        """Remember what ``state`` gave.

        Raises:
            KeyError: something for a parameter that there is not.
        """
        parameters = {name: parameter for parameter, name in self.names.items()}
        owner = {
            p: part for part in self.parts for group in part.param_groups for p in group["params"]
        }
        for full, tensor in state.items():
            key, _, name = full.partition(".")
            parameter = parameters[name]
            # Fused kernels of a GPU count their steps there.
            owner[parameter].state[parameter][key] = as_held(tensor, parameter)


def learning_rate(step: int, total: int, hparams: HyperParameters) -> float:
    """Linear warm-up, then a cosine down to ``min_lr_ratio`` of the peak.

    Down to nothing by default: the steps of the end are noise, and what is rare in a batch, such
    as the first tokens of a record, is then off by tens of percent (Bergsma et al., ICLR 2025).
    """
    warmup = round(hparams.warmup * total)
    if step < warmup:
        return hparams.lr * (step + 1) / warmup
    progress = (step - warmup) / max(1, total - warmup)
    cosine = 0.5 * (1 + math.cos(math.pi * min(1.0, progress)))
    return hparams.lr * (hparams.min_lr_ratio + (1 - hparams.min_lr_ratio) * cosine)
