"""Order and masks that change with each epoch.

Every draw belongs to (seed, epoch, record, position), so an epoch is the same however it is split
into batches.
"""

import numpy as np
from numpy.typing import NDArray

from synehrgy.draws import Stream, uniforms
from synehrgy.settings import TrainSettings
from synehrgy.tokenizer import Tokenizer
from synehrgy.tokenizer.grammar import PAD
from synehrgy.tokenizer.tokenizer import label_kind

Ints = NDArray[np.int64]

_NO_GROUP = -1


class Augmentation:
    """Shuffles and masks the tokens of training.

    Args:
        tokenizer: whose tokens these are.
        settings: which shuffles, and how much is masked.
        seed: of the run.
    """

    def __init__(self, tokenizer: Tokenizer, settings: TrainSettings, seed: int):
        grammar = tokenizer.grammar
        # Tokens of one class that stand side by side may change places; -1 for those that stay.
        shuffled = np.full(len(grammar.kinds), _NO_GROUP, dtype=np.int64)
        if settings.ts_shuffle:
            shuffled[grammar.variable >= 0] = 0
        if settings.label_shuffle:
            for label in tokenizer.schema.labels_of("phenotype"):
                shuffled[grammar.index(label_kind(label.column))] = 1
        if settings.code_shuffle:
            systems = np.flatnonzero(grammar.is_code)
            shuffled[systems] = 2 + np.arange(len(systems))
        self.group_of = shuffled[tokenizer.kind_of]
        self.variable_of = grammar.variable[tokenizer.kind_of]
        self.any_shuffle = bool((shuffled != _NO_GROUP).any())
        self.mask_prob = settings.mask_prob
        self.pad = tokenizer.token(PAD)
        self.seed = seed

    def shuffle(self, tokens: Ints, record: Ints, position: Ints, epoch: int) -> Ints:
        """Tokens in a new order; what belongs together (the digits of a number) stays so.

        Args:
            tokens: of segments, one after the other.
            record: number of the record of each.
            position: place of each in its record, -1 for what its record does not have.
            epoch: of the training.
        """
        if not self.any_shuffle:
            return tokens
        group, variable = self.group_of[tokens], self.variable_of[tokens]
        at = np.flatnonzero(group != _NO_GROUP)
        same_record = np.diff(record[at]) == 0
        together = same_record & (np.diff(at) == 1) & (np.diff(position[at]) == 1)
        run = np.cumsum(np.concatenate([[1], ~(together & (np.diff(group[at]) == 0))]))[: len(at)]
        # A number in digits is several tokens of the same series side by side; of other facts
        # each token is one.
        inside = together & (np.diff(variable[at]) == 0) & (variable[at][1:] >= 0)
        first = np.flatnonzero(np.concatenate([[True], ~inside])[: len(at)])
        unit = np.cumsum(np.concatenate([[True], ~inside])[: len(at)]) - 1
        stream = Stream.EPOCH + 2 * epoch
        u = uniforms(self.seed, stream, record[at][first], position[at][first])
        # Keys of runs ascend, so each token stays within its run.
        order = np.lexsort((np.arange(len(at)), u[unit], run))
        shuffled = tokens.copy()
        shuffled[at] = tokens[at[order]]
        return shuffled

    def mask(self, inputs: Ints, record: Ints, position: Ints, epoch: int) -> Ints:
        """Inputs of which a share is replaced by padding, which stands for "not known"."""
        if not self.mask_prob:
            return inputs
        u = uniforms(self.seed, Stream.EPOCH + 2 * epoch + 1, record, position)
        return np.where((u < self.mask_prob) & (position >= 0), self.pad, inputs)
