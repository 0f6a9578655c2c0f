"""Segments of records to padded batches."""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from synehrgy.tokenizer import Records, Tokenizer
from synehrgy.tokenizer.grammar import END_CODES, HISTORY, PAD
from synehrgy.tokenizer.segments import NO_ELAPSED, Segments
from synehrgy.training.augment import Augmentation

IGNORE = -100

Ints = NDArray[np.int64]


@dataclass(frozen=True)
class Batch:
    """Inputs and targets, int64 [segments, time]; targets are ``IGNORE`` at heads and padding."""

    inputs: Tensor
    targets: Tensor

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
        max_tokens: tokens per batch at most, padding included; a longer segment stands alone.
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
        self.pad = tokenizer.token(PAD)
        self.history, self.end_codes = tokenizer.token(HISTORY), tokenizer.token(END_CODES)

    def batches(self, rows: Ints, epoch: int = 0) -> Iterator[Batch]:
        """Split segments, longest first, into batches padded to the longest of each.

        Args:
            rows: numbers of the segments to use, in any order.
            epoch: for the augmentation.

        Yields:
            Batches; every row is in exactly one. A record of one token has nothing to predict.
        """
        lengths = self.segments.lengths[rows]
        order = np.argsort(-lengths, kind="stable")
        rows, lengths = rows[order], lengths[order]
        start = 0
        while start < len(rows):
            size = max(1, min(self.max_segments, self.max_tokens // int(lengths[start])))
            yield self._batch(self.segments.take(rows[start : start + size]), epoch)
            start += size

    def _batch(self, chosen: Segments, epoch: int) -> Batch:
        lengths, heads = chosen.lengths, chosen.head_lengths
        parts = [part for i in range(len(chosen)) for part in self._parts(chosen, i)]
        tokens, position = (np.concatenate(column) for column in zip(*parts, strict=True))
        record = np.repeat(chosen.record, lengths)
        if self.augmentation is not None:
            tokens = self.augmentation.shuffle(tokens, record, position, epoch)
        column = np.arange(lengths.max())
        filled = column < lengths[:, None]
        block = np.full(filled.shape, self.pad, dtype=np.int64)
        block[filled] = tokens
        # Position j predicts token j + 1, so the last token of a segment is only a target.
        asked = (column >= np.maximum(heads, 1)[:, None]) & filled
        targets = np.where(asked, block, IGNORE)[:, 1:]
        if self.augmentation is not None:
            block[filled] = self.augmentation.mask(tokens, record, position, epoch)
        return Batch(torch.from_numpy(block[:, :-1].copy()), torch.from_numpy(targets.copy()))

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
