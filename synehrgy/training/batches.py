"""Records to padded batches."""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from synehrgy.tokenizer import Records

IGNORE = -100


@dataclass(frozen=True)
class Batch:
    """Inputs and targets, int64 [records, time]; targets are ``IGNORE`` at the padding."""

    inputs: Tensor
    targets: Tensor

    @property
    def n_targets(self) -> int:
        """Tokens to predict."""
        return int((self.targets != IGNORE).sum())


def epoch_order(chosen: NDArray[np.int64], seed: int, epoch: int) -> NDArray[np.int64]:
    """The order of records in an epoch; the same seed and epoch give the same order."""
    return np.random.default_rng((seed, epoch)).permutation(chosen)


def pad_batches(
    records: Records,
    rows: NDArray[np.int64],
    max_records: int,
    max_tokens: int,
    n_ctx: int,
    pad: int,
) -> Iterator[Batch]:
    """Split records, longest first, into batches padded to the longest record of each.

    Args:
        records: of all splits.
        rows: indices of the records to use, in any order.
        max_records: records per batch at most.
        max_tokens: tokens per batch at most, padding included; a longer record stands alone.
        n_ctx: longest record in tokens; the rest is cut.
        pad: token at the padding.

    Yields:
        Batches; every row is in exactly one. A record of one token has nothing to predict.
    """
    lengths = np.minimum(np.diff(records.offsets)[rows], n_ctx)
    order = np.argsort(-lengths, kind="stable")
    rows, lengths = rows[order], lengths[order]
    start = 0
    while start < len(rows):
        width = int(lengths[start])
        size = max(1, min(max_records, max_tokens // width))
        used = lengths[start : start + size]
        block = np.full((len(used), width), pad, dtype=np.int64)
        for i, row in enumerate(rows[start : start + size]):
            block[i, : used[i]] = records[row][: used[i]]
        # Position j predicts token j + 1, so the last token of a record is only a target.
        targets = np.where(np.arange(1, width) < used[:, None], block[:, 1:], IGNORE)
        yield Batch(torch.from_numpy(block[:, :-1].copy()), torch.from_numpy(targets))
        start += size
