"""Which tokens may come next: grammar, memory, and an end that is always reached in time."""

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from synehrgy.tokenizer import Tokenizer
from synehrgy.tokenizer.grammar import (
    END,
    END_ADMISSION,
    END_CODES,
    END_LABELS,
    PAD,
    START,
    UNREACHABLE,
)
from synehrgy.tokenizer.quantities import Digits
from synehrgy.tokenizer.segments import longest_head
from synehrgy.tokenizer.tokenizer import system_kind


class Constraint:
    """Masks of allowed tokens for a batch of unfinished records.

    A token is allowed if the grammar lets it follow, if it contradicts nothing that the record has
    said, and if the record can still be finished, or cut to go on in another segment, within the
    context. As long as the limit is far away this takes nothing from any valid continuation. After
    the end of a record only padding is allowed, so that finished rows of a batch need no special
    case.

    Args:
        tokenizer: whose grammar it is.
        n_ctx: context of the model.
        device: of the masks.
        rule_out: whether labels must agree with the codes that define them.
    """

    def __init__(
        self, tokenizer: Tokenizer, n_ctx: int, device: torch.device, rule_out: bool = False
    ):
        grammar = tokenizer.grammar
        self.tokenizer, self.n_ctx, self.device = tokenizer, n_ctx, device
        self.n_tokens = len(tokenizer.vocabulary)
        allowed = tokenizer.allowed.copy()
        allowed[[grammar.index(END), grammar.index(PAD)], tokenizer.token(PAD)] = True

        def to(array: np.ndarray) -> Tensor:
            return torch.from_numpy(np.ascontiguousarray(array)).to(device)

        # Fewest tokens after each until the record is at its end, and until it may be cut or ended.
        distance, to_cut = grammar.distance.copy(), grammar.to_cut.copy()
        # Padding after the end always fits.
        distance[grammar.index(PAD)] = to_cut[grammar.index(PAD)] = -UNREACHABLE
        reachable = distance < UNREACHABLE
        self._far = int(np.maximum(distance, to_cut)[reachable].max())
        self._to_end = to(distance[tokenizer.kind_of])
        self._to_cut = to(np.maximum(distance, to_cut)[tokenizer.kind_of])
        is_time = grammar.is_time[tokenizer.kind_of]
        self._allowed = to(allowed)
        # What comes after a complete time begins the next segment, if need be.
        self._after_time = to(~is_time)
        self._head = longest_head(tokenizer, n_ctx)
        self.kind_of = to(tokenizer.kind_of)
        self.once = to(grammar.once_in_admission[tokenizer.kind_of])
        self.variable_of = to(grammar.variable[tokenizer.kind_of])
        self.is_time = to(is_time)
        self.is_code = to(grammar.is_code[tokenizer.kind_of])
        self.n_variables = len(tokenizer.variables)
        self.free_series = grammar.once_in_timestep and self.n_variables > 0
        self.end_admission = tokenizer.token(END_ADMISSION)
        self.end_labels = tokenizer.token(END_LABELS)
        self.start = tokenizer.token(START)
        # First token, number of tokens and rule of each covariate that has one.
        self.rules = [
            (tokenizer.first_of_covariate(name), int(tokenizer.size[kind]), rule == "constant")
            for name, rule in tokenizer.rules.items()
            if not isinstance(tokenizer.covariate_numbers.get(name), Digits)
            for kind in [tokenizer.kind_of[tokenizer.first_of_covariate(name)]]
        ]
        defined = tokenizer.defined_labels
        self.n_labels = len(defined.tokens) if rule_out else 0
        self.label_tokens = to(defined.tokens)
        self.supported_by = to(defined.supported_by)
        self.implied = to(defined.implied_by).float()
        self._supported = self.supported_by.float()
        too_late = _after_support(tokenizer, defined.supported_by) & defined.explained[:, None]
        self._too_late = to(too_late)

    @property
    def longest_opening(self) -> int:
        """Tokens that a record may begin with so that it can still go on in a second context.

        Negative where the context is too short to continue any record.
        """
        return self.n_ctx - self._head - self._far - 3

    @property
    def can_go_on(self) -> bool:
        """Whether a record may go on in a second context."""
        continues = self.tokenizer.settings.long_records == "continue"
        return continues and self.longest_opening >= 1

    def mask(
        self, state: "RecordState", lengths: Tensor, last_segment: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Tokens that may come next.

        Args:
            state: of the records.
            lengths: int64 [batch]; tokens in the context of each so far.
            last_segment: bool [batch]; whether the record must end within this context.

        Returns:
            (mask, limited): bool [batch, vocabulary], at least one token in each row; and bool
            [batch], where the limit left fewer tokens than the record itself.
        """
        mask = self._allowed[self.kind_of[state.last]] & state.possible
        if self.free_series:
            mask &= self._not_measured(state)
        # The next context, which may be the last, begins with a head and what is begun here.
        going_on = self.n_ctx - self._head - state.run - 2
        room = torch.where(last_segment, self.n_ctx - lengths - 1, going_on)
        limited = room < self._far
        if self.some(limited):
            may_go_on = ~last_segment[:, None]
            fits = torch.where(may_go_on, self._to_cut, self._to_end) <= room[:, None]
            fits |= may_go_on & self.is_time[state.last][:, None] & self._after_time
            limited &= (mask & ~fits).any(1)
            mask &= fits
        return mask, limited

    def some(self, rows: Tensor) -> bool:
        """Whether any row has something to do; on a GPU, which is not waited for, always."""
        return rows.is_cuda or bool(rows.any())

    def _not_measured(self, state: "RecordState") -> Tensor:
        used = state.measured == state.point[:, None]
        # The digits of a number that is being written are no second value.
        here = self.variable_of[state.last]
        inside = torch.arange(self.n_variables, device=self.device) == here[:, None]
        column = self.variable_of.clamp(min=0)
        return ~((used & ~inside)[:, column] & (self.variable_of >= 0))

    def instead(self, state: "RecordState", chosen: Tensor, mask: Tensor) -> Tensor:
        """Codes that are still missing where a record is about to leave a label unexplained.

        This is asked of the labels that train records explain, too: ``Tokenizer.explained``.

        Ruling out the end of the codes would be wrong: a model that wants to end them would list
        one unlikely code after the other. So it may choose to end them, and where a label is then
        unexplained, one of the codes that explain it comes first; what was chosen follows it.

        Args:
            state: of the records, before the token.
            chosen: int64 [batch]; the token that was drawn.
            mask: bool [batch, vocabulary], as it was drawn from.

        Returns:
            bool [batch, vocabulary]; none in a row whose token may stand, or of which no code can
            explain the label.
        """
        unexplained = state.said & ~state.explained
        due = unexplained & self._too_late[:, chosen].T
        if not self.some(due):
            return torch.zeros_like(mask)
        explaining = (due.float() @ self._supported > 0) & mask
        # Of labels of several systems, those of the first come first.
        in_time = explaining & ~(unexplained.float() @ self._too_late.float() > 0)
        return torch.where(in_time.any(1, keepdim=True), in_time, explaining)


def _after_support(tokenizer: Tokenizer, supported_by: np.ndarray) -> np.ndarray:
    """Bool [label, vocabulary]: tokens after which no code can explain the label any more."""
    after = np.zeros_like(supported_by)
    after[:, tokenizer.token(END_CODES)] = True
    starts = [tokenizer.token(system_kind(system)) for system in tokenizer.codes]
    sizes = [len(codes) for codes in tokenizer.codes.values()]
    for start, size in zip(starts, sizes, strict=True):
        # A later system may not begin before the label is explained by an earlier one.
        after[:, start : start + size] |= ~supported_by[:, start:].any(axis=1, keepdims=True)
    return after


class RecordState:
    """What the records of a batch have said so far, as far as it restricts what may come.

    Args:
        constraint: that it is for.
        n: records, all of them still empty.
    """

    def __init__(self, constraint: Constraint, n: int):
        device = constraint.device
        self._constraint = constraint

        def filled(value: int | bool, *shape: int, kind: torch.dtype = torch.int64) -> Tensor:
            return torch.full(shape, value, dtype=kind, device=device)

        self.last = filled(constraint.start, n)
        # Tokens that contradict nothing that has been said.
        self.possible = filled(True, n, constraint.n_tokens, kind=torch.bool)
        # Tokens since the last place where the record may be cut.
        self.run = filled(0, n)
        # Time points so far, and in which of them each variable was measured last.
        self.point = filled(0, n, kind=torch.int32)
        n_measured = constraint.n_variables if constraint.free_series else 0
        self.measured = filled(-1, n, n_measured, kind=torch.int32)
        # A token that was chosen and waits for a code that explains a label, else -1.
        self.waiting = filled(-1, n)
        self.said = filled(False, n, constraint.n_labels, kind=torch.bool)
        self.explained = filled(False, n, constraint.n_labels, kind=torch.bool)

    _PARTS = ("last", "possible", "run", "point", "measured", "waiting", "said", "explained")

    @classmethod
    def after(
        cls, constraint: Constraint, beginnings: Sequence[NDArray[np.int64]]
    ) -> "RecordState":
        """The state of records that begin so."""
        state = cls(constraint, len(beginnings))
        lengths = np.array([len(tokens) for tokens in beginnings])
        padded = np.zeros((len(beginnings), lengths.max(initial=0)), dtype=np.int64)
        for row, tokens in enumerate(beginnings):
            padded[row, : len(tokens)] = tokens
        columns = torch.from_numpy(padded.T).to(constraint.device)
        moving = torch.from_numpy(np.arange(padded.shape[1])[:, None] < lengths)
        for column, rows in zip(columns, moving.to(constraint.device), strict=True):
            state.advance(column, rows)
        return state

    def keep(self, rows: Tensor) -> None:
        """Keep only these records (indices), in this order."""
        for name in self._PARTS:
            setattr(self, name, getattr(self, name)[rows])

    def replace(self, rows: Tensor, others: "RecordState") -> None:
        """Put other records in the place of these (indices)."""
        for name in self._PARTS:
            getattr(self, name)[rows] = getattr(others, name)

    def advance(self, tokens: Tensor, moving: Tensor) -> None:
        """Add a token to each record.

        Args:
            tokens: int64 [batch].
            moving: bool [batch]; records that the token belongs to, the others stay as they are.
        """
        c, at = self._constraint, tokens[:, None]
        after_time = c.is_time[self.last] & ~c.is_time[tokens]
        run = torch.where(after_time, 1, self.run + 1)
        self.run = torch.where(moving, torch.where(c.is_code[tokens], 0, run), self.run)
        again = self.possible.gather(1, at) & ~(c.once[tokens] & moving)[:, None]
        self.possible.scatter_(1, at, again)
        self._keep_to_rules(tokens, moving)
        self.point += (c.is_time[tokens] & moving).int()
        if c.free_series:
            variable = c.variable_of[tokens]
            now = torch.where(((variable >= 0) & moving)[:, None], self.point[:, None], -1)
            column = variable.clamp(min=0)[:, None]
            self.measured.scatter_(1, column, torch.maximum(now, self.measured.gather(1, column)))
        ended = ((tokens == c.end_admission) & moving)[:, None]
        if c.n_labels:
            self._follow_labels(tokens, moving)
            self.said, self.explained = self.said & ~ended, self.explained & ~ended
        if c.some(ended):
            self.possible |= ended & c.once
        self.last = torch.where(moving, tokens, self.last)

    def _keep_to_rules(self, tokens: Tensor, moving: Tensor) -> None:
        """Rule out what would contradict a covariate that has just been stated."""
        c = self._constraint
        for first, size, constant in c.rules:
            index = tokens - first
            mine = moving & (index >= 0) & (index < size)
            if c.some(mine):
                steps = torch.arange(size, device=c.device) - index[:, None]
                fits = steps == 0 if constant else steps >= 0
                self.possible[:, first : first + size] &= fits | ~mine[:, None]

    def _follow_labels(self, tokens: Tensor, moving: Tensor) -> None:
        """Note labels and what explains them; after the labels, rule out codes of the others."""
        c, mine = self._constraint, moving[:, None]
        self.said = self.said | (mine & (tokens[:, None] == c.label_tokens))
        self.explained = self.explained | (mine & c.supported_by[:, tokens].T)
        complete = (tokens == c.end_labels) & moving
        if c.some(complete):
            contradicting = (~self.said).float() @ c.implied > 0
            self.possible &= ~(contradicting & complete[:, None])
