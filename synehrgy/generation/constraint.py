"""Which tokens may come next: the grammar, and an end that is always reached in time."""

import numpy as np
import torch
from torch import Tensor

from synehrgy.tokenizer import Tokenizer
from synehrgy.tokenizer.grammar import END, PAD, UNREACHABLE


class Constraint:
    """Masks of allowed tokens for a batch of unfinished records.

    A token is allowed if the grammar lets it follow and the record can still be finished within
    the length limit. As long as the limit is far away this takes nothing from any valid
    continuation. After the end of a record only padding is allowed, so that finished rows of a
    batch need no special case.

    Args:
        tokenizer: whose grammar it is.
        max_length: longest record in tokens.
        device: of the masks.
    """

    def __init__(self, tokenizer: Tokenizer, max_length: int, device: torch.device):
        grammar = tokenizer.grammar
        allowed = tokenizer.allowed.copy()
        distance = grammar.distance.copy()
        allowed[[grammar.index(END), grammar.index(PAD)], tokenizer.token(PAD)] = True
        distance[grammar.index(PAD)] = 0
        self.max_length = max_length
        self.kind_of = torch.from_numpy(tokenizer.kind_of).to(device)
        # The masks by number of tokens that may still come after the next one. From ``_far`` on
        # the limit rules nothing out.
        still_needed = distance[tokenizer.kind_of]
        self._far = int(distance[distance < UNREACHABLE].max())
        masks = [allowed & (still_needed <= room) for room in range(self._far + 1)]
        self._masks = torch.from_numpy(np.stack(masks)).to(device)

    def mask(self, last: Tensor, length: int) -> Tensor:
        """Tokens that may come next.

        Args:
            last: int64 [batch]; the last token of each record.
            length: tokens that the records have so far.

        Returns:
            bool [batch, vocabulary].
        """
        room = min(self.max_length - length - 1, self._far)
        return self._masks[room][self.kind_of[last]]

    def free(self, last: Tensor) -> Tensor:
        """Tokens that the grammar alone allows next, bool [batch, vocabulary]."""
        return self._masks[self._far][self.kind_of[last]]

    def is_restricting(self, length: int) -> bool:
        """Whether the length limit may rule tokens out at this length."""
        return self.max_length - length - 1 < self._far
