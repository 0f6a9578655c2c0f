"""Whether token sequences are records, and where and why they are not."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from synehrgy.tokenizer import grammar as g
from synehrgy.tokenizer.encode import NO_SPLIT, Records
from synehrgy.tokenizer.quantities import Digits
from synehrgy.tokenizer.tokenizer import Tokenizer

Ints = NDArray[np.int64]

# Tokens that are looked at together: bounds the memory.
CHUNK_TOKENS = 1_000_000


@dataclass(frozen=True)
class Fault:
    """Where and why a token sequence is not a record.

    Attributes:
        record: index of the record.
        position: index of the first wrong token within it.
        reason: in words.
    """

    record: int
    position: int
    reason: str


def validate(tokenizer: Tokenizer, tokens: ArrayLike) -> Fault | None:
    """The first fault of one token sequence; None for a record."""
    sequence = np.asarray(tokens, dtype=np.int64)
    one = Records(
        sequence.astype(np.uint32),
        np.array([0, len(sequence)]),
        np.zeros(1, dtype=np.int64),
        np.full(1, NO_SPLIT, dtype=np.int8),
    )
    return next(iter(find_faults(tokenizer, one)), None)


def find_faults(tokenizer: Tokenizer, records: Records, rules: bool = True) -> list[Fault]:
    """The first fault of each record that the grammar does not accept; empty if all are valid.

    Args:
        tokenizer: whose records these should be.
        records: token sequences, any at all.
        rules: whether to look for what contradicts something earlier, too (a code listed twice, an
            age that falls); without, only for what cannot be decoded.
    """
    return [
        replace(fault, record=fault.record + first)
        for first, part in records.chunks(CHUNK_TOKENS)
        for fault in _Search(tokenizer, part).run(rules)
    ]


class _Search:
    def __init__(self, tokenizer: Tokenizer, records: Records):
        self.tokenizer, self.records = tokenizer, records
        tokens = np.asarray(records.tokens).astype(np.int64)
        self.exists = tokens < len(tokenizer.vocabulary)
        self.tokens = tokens
        self.kind = tokenizer.kind_of.astype(np.int32)[np.where(self.exists, tokens, 0)]
        self.faults: dict[int, Fault] = {}

    def run(self, rules: bool) -> list[Fault]:
        self._form()
        if rules:
            self._repeated()
            self._contradicting()
        return [self.faults[record] for record in sorted(self.faults)]

    def _text(self, at: "int | np.integer[Any]") -> str:
        """A token in words."""
        return repr(self.tokenizer.vocabulary[self.tokens[at]]) if self.exists[at] else "'?'"

    def _add(self, at: Sequence[int] | Ints, reasons: Sequence[str]) -> None:
        owner = np.searchsorted(self.records.offsets, at, side="right") - 1
        for place, record, reason in zip(at, owner, reasons, strict=True):
            position = int(place - self.records.offsets[record])
            known = self.faults.get(int(record))
            if known is None or position < known.position:
                self.faults[int(record)] = Fault(int(record), position, reason)

    def _form(self) -> None:
        records, grammar = self.records, self.tokenizer.grammar
        unknown = np.flatnonzero(~self.exists)
        self._add(unknown, [f"token {self.tokens[at]} does not exist" for at in unknown])
        for empty in np.flatnonzero(records.lengths == 0):
            self.faults[int(empty)] = Fault(int(empty), 0, "it has no tokens")
        filled = records.lengths > 0
        begins, ends = records.offsets[:-1][filled], records.offsets[1:][filled] - 1
        wrong = begins[self.kind[begins] != grammar.index(g.START)]
        self._add(wrong, [f"it begins with {self._text(at)}" for at in wrong])
        wrong = ends[(self.kind[ends] != grammar.index(g.END)) | ~self.exists[ends]]
        self._add(wrong, [f"it ends with {self._text(at)}, not {g.END!r}" for at in wrong])
        fits = grammar.follows[self.kind[:-1], self.kind[1:]]
        fits[begins[begins > 0] - 1] = True
        broken = np.flatnonzero(~fits) + 1
        self._add(broken, [f"{self._text(at)} cannot follow {self._text(at - 1)}" for at in broken])

    def _repeated(self) -> None:
        grammar = self.tokenizer.grammar
        once = np.flatnonzero(grammar.once_in_admission[self.kind])
        admission = np.cumsum(self.kind == grammar.index(g.END_ADMISSION))
        owner = admission + self._record_of(np.arange(len(self.tokens)))
        self._repeats(once, owner[once], self.tokens[once], "stands in the admission already")
        if grammar.once_in_timestep:
            variable = grammar.variable[self.kind]
            begins = np.concatenate([[True], variable[1:] != variable[:-1]])[: len(variable)]
            values = np.flatnonzero((variable >= 0) & begins)
            point = np.cumsum(grammar.is_time[self.kind]) + owner
            self._repeats(values, point[values], variable[values], "is the second of its series")

    def _record_of(self, at: Ints) -> Ints:
        return np.searchsorted(self.records.offsets, at, side="right") - 1

    def _repeats(self, at: Ints, group: Ints, what: Ints, reason: str) -> None:
        """Faults where the same thing comes a second time within a group; groups ascend."""
        order = np.lexsort((at, what, group))
        again = (np.diff(group[order]) == 0) & (np.diff(what[order]) == 0)
        wrong = at[order[1:][again]]
        self._add(wrong, [f"{self._text(place)} {reason}" for place in wrong])

    def _contradicting(self) -> None:
        for name, rule in self.tokenizer.rules.items():
            numbers = self.tokenizer.covariate_numbers.get(name)
            if isinstance(numbers, Digits):
                # Numbers in digits are compared after decoding, where evaluation does.
                continue
            first = self.tokenizer.first_of_covariate(name)
            size = self.tokenizer.size[self.tokenizer.kind_of[first]]
            at = np.flatnonzero((self.tokens >= first) & (self.tokens < first + size))
            before, after = self.tokens[at[:-1]], self.tokens[at[1:]]
            same = np.diff(self._record_of(at)) == 0
            bad = same & (after < before if rule == "rising" else after != before)
            wrong = at[1:][bad]
            self._add(
                wrong,
                [
                    f"{self._text(now)} after {self._text(then)}: {name} is {rule}"
                    for now, then in zip(wrong, at[:-1][bad], strict=True)
                ],
            )


def label_contradictions(tokenizer: Tokenizer, records: Records) -> dict[str, int]:
    """Stays whose labels do not follow from their codes, though they should.

    Args:
        tokenizer: with ``defined_labels``.
        records: valid records.

    Returns:
        ``stays``: all; ``codes_without_label``: with a code that defines a label that the stay
        does not have; ``label_without_codes``: with a label that none of its codes explains, which
        in real records happens where such a code was too rare for the vocabulary.
    """
    defined, grammar = tokenizer.defined_labels, tokenizer.grammar
    tokens = np.asarray(records.tokens).astype(np.int64)
    kind = tokenizer.kind_of[tokens]
    stay = np.cumsum(kind == grammar.index(g.END_ADMISSION))
    n_stays = int(stay[-1]) if len(stay) else 0
    codes = np.flatnonzero(grammar.is_code[kind])
    without_label, without_codes = np.zeros((2, n_stays), dtype=bool)
    for token, implied_by, supported_by in zip(
        defined.tokens, defined.implied_by, defined.supported_by, strict=True
    ):
        said, implied, supported = np.zeros((3, n_stays), dtype=bool)
        said[stay[tokens == token]] = True
        implied[stay[codes[implied_by[tokens[codes]]]]] = True
        supported[stay[codes[supported_by[tokens[codes]]]]] = True
        without_label |= implied & ~said
        without_codes |= said & ~supported
    return {
        "stays": n_stays,
        "codes_without_label": int(without_label.sum()),
        "label_without_codes": int(without_codes.sum()),
    }
