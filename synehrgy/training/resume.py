"""A training that can be stopped at any moment and goes on as if it had not been.

A checkpoint is a folder ``checkpoints/<epoch>-<step>`` of a run: weights and optimiser as
safetensors, progress as JSON. Random numbers follow from the seed and the step, and so need not be
kept. It is written aside and renamed, so that it is whole or not there; the one before is removed
only then. It is the same whatever the number of processes that train.
"""

import os
import shutil
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from types import FrameType
from typing import Any

from omegaconf import OmegaConf
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import nn

from synehrgy.errors import UserError
from synehrgy.files import new_folder, read_json, read_yaml, write_json
from synehrgy.processes import World
from synehrgy.tokenizer.tokenizer import PARTS
from synehrgy.training.checkpoint import load_weights, weights_of
from synehrgy.training.optimiser import Optimiser

CHECKPOINTS = "checkpoints"
_PROGRESS, _WEIGHTS, _OPTIMISER = "progress.json", "model.safetensors", "optimiser.safetensors"

# Settings that may change from one start of a run to the next: they change where and how a step is
# computed, not which.
_FREE = (
    *("resume", "overwrite", "device", "train.save_minutes", "data.", "paths.", "wandb."),
    *("hparams.max_tokens", "hparams.compile", "hparams.parallel"),
)


def _nothing() -> list[list[float]]:
    return [[0.0] * len(PARTS), [0.0] * len(PARTS)]


@dataclass
class Progress:
    """How far a training has come.

    Attributes:
        epoch: that is being trained, from 1.
        step: optimiser steps done in it.
        steps_done: optimiser steps done in all.
        sums, seconds: of this epoch so far; losses summed over tokens, and tokens, of each part
            of the records.
        best, best_epoch: lowest validation loss so far, and where.
        metrics: of the epochs done.
        curve: steps done and the mean training loss since the row before, now and then.
        curve_sums: loss and tokens of this epoch at the last row.
    """

    epoch: int = 1
    step: int = 0
    steps_done: int = 0
    sums: list[list[float]] = field(default_factory=_nothing)
    seconds: float = 0.0
    best: float | None = None
    best_epoch: int = 0
    metrics: list[dict[str, Any]] = field(default_factory=list)
    curve: list[list[float]] = field(default_factory=list)
    curve_sums: list[float] = field(default_factory=lambda: [0.0, 0.0])

    def next_epoch(self) -> None:
        """Begin the next epoch."""
        self.epoch, self.step = self.epoch + 1, 0
        self.sums, self.seconds, self.curve_sums = _nothing(), 0.0, [0.0, 0.0]


def save_checkpoint(
    run: Path, progress: Progress, model: nn.Module, optimiser: Optimiser, world: World
) -> None:
    """Write a checkpoint of a run and remove those before it; all processes must call it.

    Raises:
        OSError: it cannot be written; the one before is still there.
    """
    path = run / CHECKPOINTS / f"{progress.epoch:05d}-{progress.step:08d}"
    weights, state = weights_of(model), optimiser.state()
    if not world.is_first or path.exists():
        return
    with new_folder(path, replaceable=lambda _: False) as aside:
        save_file(weights, aside / _WEIGHTS)
        save_file(state, aside / _OPTIMISER)
        write_json(aside / _PROGRESS, asdict(progress))
    for older in path.parent.iterdir():
        if older != path:
            shutil.rmtree(older, ignore_errors=True)


def load_checkpoint(run: Path, model: nn.Module, optimiser: Optimiser) -> Progress | None:
    """Put a model and its optimiser back to where they were.

    Returns:
        How far the training had come; None if the run has no checkpoint yet.

    Raises:
        UserError: a damaged checkpoint.
    """
    folder = run / CHECKPOINTS
    found = sorted(path.name for path in folder.glob("[0-9]*-[0-9]*")) if folder.is_dir() else []
    if not found:
        return None
    path = folder / found[-1]
    try:
        load_weights(model, load_file(path / _WEIGHTS))
        optimiser.load(load_file(path / _OPTIMISER))
        return Progress(**read_json(path / _PROGRESS))
    except (KeyError, TypeError, RuntimeError, SafetensorError, OSError) as error:
        raise UserError(
            f"{path} is damaged ({error}). Remove it to go on from an earlier checkpoint or, if "
            "there is none, from the beginning."
        ) from error


def refuse_other_config(file: Path, config: Any) -> None:
    """Refuse to go on with a run under other settings than it was begun with.

    Raises:
        UserError: names the settings that differ, with both values.
    """
    before = _flat(read_yaml(file))
    after = _flat(OmegaConf.to_container(OmegaConf.structured(config)))
    differing = [
        f"{key}={before.get(key)} then, {after.get(key)} now"
        for key in sorted(before.keys() | after.keys())
        if before.get(key) != after.get(key) and not key.startswith(_FREE)
    ]
    if differing:
        raise UserError(
            f"The run in {file.parent} was begun with other settings: {'; '.join(differing)}. "
            "Give the same ones, or another run_name."
        )


def _flat(content: Any, prefix: str = "") -> dict[str, Any]:
    if not isinstance(content, dict) or not content:
        return {prefix.removesuffix("."): content}
    found: dict[str, Any] = {}
    for key, value in content.items():
        found |= _flat(value, f"{prefix}{key}.")
    return found


class Stop:
    """Whether somebody has asked the training to stop."""

    requested = False


@contextmanager
def stopping_cleanly() -> Iterator[Stop]:
    """Turn Ctrl-C and SIGTERM into a request, which is answered between two steps.

    A second Ctrl-C interrupts at once. Outside the main thread signals are left as they are.
    """
    stop = Stop()
    if threading.current_thread() is not threading.main_thread():
        yield stop
        return

    def request(number: int, frame: FrameType | None) -> None:
        if stop.requested:
            raise KeyboardInterrupt
        stop.requested = True
        os.write(2, b"\nStopping after this step; once more stops at once.\n")

    before = {number: signal.signal(number, request) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield stop
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
