"""What the numbers of a training say: a figure, and warnings in words."""

import io
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from synehrgy.files import write_bytes
from synehrgy.tokenizer import Tokenizer
from synehrgy.tokenizer.grammar import START, Grammar
from synehrgy.tokenizer.tokenizer import PARTS

CURVE_FILE = "learning_curve.png"

# Epochs of worse validation and better training that are more than noise.
_OVERFIT_EPOCHS = 2

# Tokens named in a warning.
_EXAMPLES = 4


def warning(metrics: Sequence[dict[str, Any]]) -> str | None:
    """What a modeller should know after the last of these epochs; None if all is well."""
    if len(metrics) < 2:
        return None
    train = [m["train_loss"] for m in metrics]
    val = [m["val_loss"] for m in metrics]
    if train[-1] > train[-2] * 1.02:
        return (
            f"Training got worse in epoch {metrics[-1]['epoch']} (loss {train[-2]:.3f} to "
            f"{train[-1]:.3f}): it may diverge. A lower hparams.lr is steadier."
        )
    best = int(np.argmin(val))
    since = len(val) - 1 - best
    if since == _OVERFIT_EPOCHS and all(
        a > b for a, b in zip(train[best:], train[best + 1 :], strict=False)
    ):
        return (
            f"Validation has got worse since epoch {metrics[best]['epoch']} while training got "
            "better: the model learns its patients by heart. The best epoch is kept; a smaller "
            "model, more model.dropout or more patients help."
        )
    return None


def unseen_tokens(tokenizer: Tokenizer, seen: NDArray[np.bool_]) -> str | None:
    """Which tokens of the vocabulary training never sees, in words; None if it sees all.

    Args:
        tokenizer: whose vocabulary it is.
        seen: bool [vocabulary]; tokens of the records that are trained on.
    """
    grammar = tokenizer.grammar
    # What no record of this kind can have, as time without series, is not missed, and no more are
    # rare times: each is one of a thousand steps of a clock, most of which few patients need.
    expected = _reachable(grammar)[tokenizer.kind_of] & (tokenizer.part_of != PARTS.index("time"))
    unseen = np.flatnonzero(expected & ~seen)
    if not len(unseen):
        return None
    counts = np.bincount(tokenizer.part_of[unseen], minlength=len(PARTS))
    kinds = ", ".join(f"{n:,} of {part}" for part, n in zip(PARTS, counts, strict=True) if n)
    names = ", ".join(tokenizer.vocabulary[token] for token in unseen[:_EXAMPLES])
    return (
        f"{len(unseen):,} of {len(tokenizer.vocabulary):,} tokens of the vocabulary never occur in "
        f"training ({kinds}): such as {names}. The model can only guess them."
    )


def _reachable(grammar: Grammar) -> NDArray[np.bool_]:
    """Kinds of token that a record can have, bool [kind]."""
    found = np.zeros(len(grammar.kinds), dtype=bool)
    found[grammar.index(START)] = True
    for _ in grammar.kinds:
        found |= grammar.follows[found].any(axis=0)
    return found


def draw_curves(
    folder: Path, steps: Sequence[Sequence[float]], metrics: Sequence[dict[str, Any]]
) -> None:
    """Write the learning curves of a run as a picture.

    Args:
        folder: of the run.
        steps: optimiser steps done and the mean training loss since the row before.
        metrics: of each epoch, with ``steps_done``.
    """
    from matplotlib.figure import Figure

    figure = Figure(figsize=(10, 4), layout="constrained")
    whole, parts = figure.subplots(1, 2)
    at = [m["steps_done"] for m in metrics]
    if steps:
        whole.plot(*zip(*steps, strict=True), color="tab:blue", lw=1, label="training")
    whole.plot(at, [m["val_loss"] for m in metrics], "o-", color="tab:orange", label="validation")
    whole.set(xlabel="optimiser steps", ylabel="loss (nats per token)")
    # The fall of the first steps would hide all that comes after it.
    shown = [m["val_loss"] for m in metrics] + [loss for _, loss in steps[len(steps) // 20 :]]
    low, high = min(shown), max(shown)
    margin = 0.05 * (high - low) + 1e-3
    whole.set_ylim(low - margin, high + margin)
    whole.legend()
    for part in PARTS:
        losses = [m.get(f"val_loss_{part}") for m in metrics]
        if any(loss is not None for loss in losses):
            parts.plot(at, [np.nan if x is None else x for x in losses], "o-", label=part)
    parts.set(xlabel="optimiser steps", ylabel="validation loss by part of the record")
    parts.set_ylim(bottom=0)
    parts.legend(loc="upper left", bbox_to_anchor=(1, 1), frameon=False)
    picture = io.BytesIO()
    figure.savefig(picture, format="png", dpi=120)
    write_bytes(folder / CURVE_FILE, picture.getvalue())
