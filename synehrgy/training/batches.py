"""Segments of records to packed batches."""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from synehrgy.tokenizer import Records, Tokenizer
from synehrgy.tokenizer.grammar import END_CODES, HISTORY
from synehrgy.tokenizer.segments import NO_ELAPSED, Segments
from synehrgy.training.augment import Augmentation

IGNORE = -100

Ints = NDArray[np.int64]


@dataclass(frozen=True)
class Batch:
    """Segments packed one after the other, without padding.

    Attributes:
        inputs: int64 [n].
        targets: int64 [n]; the token after each input, ``IGNORE`` inside the heads of segments.
        lengths: inputs of each segment.
    """

    inputs: Tensor
    targets: Tensor
    lengths: list[int]

    @property
    def n_targets(self) -> int:
        """Tokens to predict."""
        return int((self.targets != IGNORE).sum())


def epoch_order(chosen: NDArray[np.int64], seed: int, epoch: int) -> NDArray[np.int64]:
    """The order of segments in an epoch; the same seed and epoch give the same order."""
    return np.random.default_rng((seed, epoch)).permutation(chosen)


class Batcher:
    """Makes batches of segments.

    Args:
        tokenizer: of the records.
        records: of all splits.
        segments: of which batches are made.
        max_segments: segments per batch at most.
        max_tokens: tokens per batch at most; a longer segment stands alone.
        augmentation: in training; None for evaluation.
    """

    def __init__(
        self,
        tokenizer: Tokenizer,
        records: Records,
        segments: Segments,
        max_segments: int,
        max_tokens: int,
        augmentation: Augmentation | None = None,
    ):
        self.records, self.segments = records, segments
        self.max_segments, self.max_tokens = max_segments, max_tokens
        self.augmentation = augmentation
        self.history, self.end_codes = tokenizer.token(HISTORY), tokenizer.token(END_CODES)

    def batches(self, rows: Ints, epoch: int = 0) -> Iterator[Batch]:
        """Pack segments into batches, in their order.

        Args:
            rows: numbers of the segments to use.
            epoch: for the augmentation.

        Yields:
            Batches; every row is in exactly one. A segment of one token has nothing to predict and
            is left out.
        """
        lengths = self.segments.lengths[rows]
        rows, lengths = rows[lengths > 1], lengths[lengths > 1]
        start = 0
        while start < len(rows):
            total = np.cumsum(lengths[start : start + self.max_segments])
            size = max(1, int(np.searchsorted(total, self.max_tokens, side="right")))
            yield self._batch(self.segments.take(rows[start : start + size]), epoch)
            start += size

    def _batch(self, chosen: Segments, epoch: int) -> Batch:
        lengths, heads = chosen.lengths, chosen.head_lengths
        parts = [part for i in range(len(chosen)) for part in self._parts(chosen, i)]
        tokens, position = (np.concatenate(column) for column in zip(*parts, strict=True))
        record = np.repeat(chosen.record, lengths)
        inputs = tokens
        if self.augmentation is not None:
            tokens = self.augmentation.shuffle(tokens, record, position, epoch)
            inputs = self.augmentation.mask(tokens, record, position, epoch)
        # Position j predicts token j + 1: the last token of a segment is only a target, the first
        # only an input, and so is all of a head but its last token.
        ends = np.cumsum(lengths)
        starts = ends - lengths
        place = np.arange(len(tokens)) - np.repeat(starts, lengths)
        is_input = np.ones(len(tokens), dtype=bool)
        is_input[ends - 1] = False
        asked = place >= np.repeat(np.maximum(heads, 1), lengths)
        targets = np.where(asked, tokens, IGNORE)[1:][is_input[:-1]]
        return Batch(
            torch.from_numpy(inputs[is_input]), torch.from_numpy(targets), (lengths - 1).tolist()
        )

    def _parts(self, chosen: Segments, i: int) -> Iterator[tuple[Ints, Ints]]:
        """Pieces of a segment: their tokens, and the place of each in its record."""
        record = self.records[int(chosen.record[i])]
        if chosen.facts_stop[i] > chosen.facts_start[i]:
            facts = np.arange(chosen.facts_start[i], chosen.facts_stop[i])
            yield np.array([self.history]), np.array([-1])
            yield record[facts].astype(np.int64), facts
            if chosen.elapsed[i] != NO_ELAPSED:
                yield np.array([self.end_codes, chosen.elapsed[i]]), np.array([-1, -1])
        body = np.arange(chosen.start[i], chosen.stop[i])
        yield record[chosen.start[i] : chosen.stop[i]].astype(np.int64), body
