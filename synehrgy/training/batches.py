"""Segments of records to packed batches."""

import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from queue import Queue
from threading import Event, Thread
from typing import Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from synehrgy.model import Packing
from synehrgy.tokenizer import Records, Tokenizer
from synehrgy.tokenizer.segments import Pieces
from synehrgy.training.augment import Augmentation

IGNORE = -100

Ints = NDArray[np.int64]


@dataclass(frozen=True)
class Batch:
    """Segments packed one after the other, without padding.

    Attributes:
        inputs: int64 [n].
        targets: int64 [n]; the token after each input, ``IGNORE`` where it is given.
        asked: int64 [m]; positions of the targets that are not given.
        packing: of the n inputs into segments.
        asked_ahead: for each further token ahead, the positions that are asked and whose segment
            still goes on so much further.
    """

    inputs: Tensor
    targets: Tensor
    asked: Tensor
    packing: Packing
    asked_ahead: tuple[Tensor, ...] = ()

    def to(self, device: torch.device) -> "Batch":
        """The batch on a device; a copy to a GPU does not wait for what it still computes."""
        if device.type == "cpu":
            return self

        def moved(tensor: Tensor) -> Tensor:
            return tensor.pin_memory().to(device, non_blocking=True)

        packing = replace(
            self.packing,
            positions=moved(self.packing.positions),
            offsets=moved(self.packing.offsets),
        )
        ahead = tuple(map(moved, self.asked_ahead))
        return Batch(moved(self.inputs), moved(self.targets), moved(self.asked), packing, ahead)

    def without_targets(self) -> "Batch":
        """The same inputs, of which nothing is asked."""
        return replace(
            self,
            targets=torch.full_like(self.targets, IGNORE),
            asked=self.asked[:0],
            asked_ahead=tuple(asked[:0] for asked in self.asked_ahead),
        )


def trained_share(rows: Ints, ratio: float, seed: int) -> Ints:
    """The records of the train split that a run trains on, ascending."""
    chosen = np.random.default_rng(seed).permutation(rows)
    return np.sort(chosen[: math.ceil(ratio * len(rows))])


def epoch_order(chosen: NDArray[np.int64], seed: int, epoch: int) -> NDArray[np.int64]:
    """The order of segments in an epoch; the same seed and epoch give the same order."""
    return np.random.default_rng((seed, epoch)).permutation(chosen)


class Plan(Protocol):
    """What there is to train on: ``Segments`` of records, or ``Questions``."""

    def __len__(self) -> int: ...

    def pieces(self, tokenizer: Tokenizer, rows: Ints, epoch: int = 0) -> Pieces:
        """What some of its segments are put together from."""
        ...


class Batcher:
    """Makes batches of segments.

    Args:
        tokenizer: of the records.
        records: of all splits.
        plan: the segments of which batches are made.
        max_segments: segments per batch at most.
        max_tokens: tokens per batch at most; a longer segment stands alone.
        augmentation: in training; None for evaluation.
        n_next: tokens ahead that are asked for.
    """

    def __init__(
        self,
        tokenizer: Tokenizer,
        records: Records,
        plan: Plan,
        max_segments: int,
        max_tokens: int,
        augmentation: Augmentation | None = None,
        n_next: int = 1,
    ):
        self.tokenizer, self.records, self.plan = tokenizer, records, plan
        self.max_segments, self.max_tokens = max_segments, max_tokens
        self.augmentation, self.n_next = augmentation, n_next

    def n_targets(self, rows: Ints, epoch: int = 0) -> int:
        """Tokens to predict in some segments."""
        pieces = self.plan.pieces(self.tokenizer, rows, epoch)
        return int(_n_asked(pieces).sum())

    def n_batches(self, rows: Ints, epoch: int = 0) -> int:
        """Batches that some segments make."""
        pieces = self.plan.pieces(self.tokenizer, rows, epoch)
        return sum(1 for _ in self._split(pieces.sizes.sum(axis=1)))

    def batches(self, rows: Ints, epoch: int = 0) -> Iterator[Batch]:
        """Pack segments into batches, in their order.

        Args:
            rows: numbers of the segments to use.
            epoch: for the augmentation.

        Yields:
            Batches; every row is in exactly one. A segment of one token has nothing to predict and
            is left out.
        """
        pieces = self.plan.pieces(self.tokenizer, rows, epoch)
        for part in self._split(pieces.sizes.sum(axis=1)):
            yield self._batch(pieces.take(part), epoch)

    def _split(self, lengths: Ints) -> Iterator[Ints]:
        rows = np.flatnonzero(lengths > 1)
        lengths = lengths[rows]
        start = 0
        while start < len(rows):
            total = np.cumsum(lengths[start : start + self.max_segments])
            size = max(1, int(np.searchsorted(total, self.max_tokens, side="right")))
            yield rows[start : start + size]
            start += size

    def _batch(self, pieces: Pieces, epoch: int) -> Batch:
        tokens, record, position = pieces.assemble(self.records)
        inputs = tokens
        if self.augmentation is not None:
            tokens = self.augmentation.shuffle(tokens, record, position, epoch)
            inputs = self.augmentation.mask(tokens, record, position, epoch)
        # Position j predicts token j + 1: the last token of a segment is only a target, the first
        # only an input, and so is all that is given but its last token.
        lengths = pieces.sizes.sum(axis=1)
        ends = np.cumsum(lengths)
        place = np.arange(len(tokens)) - np.repeat(ends - lengths, lengths)
        is_input = np.ones(len(tokens), dtype=bool)
        is_input[ends - 1] = False
        asked = place >= np.repeat(np.maximum(pieces.given, 1), lengths)
        targets = np.where(asked, tokens, IGNORE)[1:][is_input[:-1]]
        found = np.flatnonzero(targets != IGNORE)
        left = np.repeat(np.cumsum(lengths - 1), lengths - 1)[found] - found
        return Batch(
            torch.from_numpy(inputs[is_input]),
            torch.from_numpy(targets),
            torch.from_numpy(found),
            Packing.of((lengths - 1).tolist()),
            tuple(torch.from_numpy(found[left > k]) for k in range(1, self.n_next)),
        )


def _n_asked(pieces: Pieces) -> Ints:
    return np.maximum(pieces.sizes.sum(axis=1) - np.maximum(pieces.given, 1), 0)


def ahead_of_time(batches: Iterable[Batch], device: torch.device) -> Iterator[Batch]:
    """Batches on a device; for a GPU they are made and moved while it computes on those before."""
    if device.type == "cpu":
        yield from batches
        return
    queue: Queue[Batch | BaseException | None] = Queue(maxsize=2)
    is_left = Event()

    def fill() -> None:
        try:
            for batch in batches:
                if is_left.is_set():
                    return
                queue.put(batch.to(device))
            queue.put(None)
        except Exception as error:
            queue.put(error)

    Thread(target=fill, daemon=True).start()
    try:
        while (item := queue.get()) is not None:
            if isinstance(item, BaseException):
                raise item
            yield item
    finally:
        # Whoever leaves early sets the thread free.
        is_left.set()
        while not queue.empty():
            queue.get_nowait()
