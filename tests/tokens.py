"""Token sequences made for tests, by plain loops that share nothing with the vectorised code."""

import numpy as np

from synehrgy.tokenizer import Records
from synehrgy.tokenizer import grammar as g


def records_of(tokenizer, *sequences):
    """Sequences of tokens as records of patients 0, 1, ..."""
    tokens = [np.array(s, dtype=tokenizer.dtype) for s in sequences]
    offsets = np.concatenate([[0], np.cumsum([len(s) for s in sequences])]).astype(np.int64)
    n = len(sequences)
    return Records(np.concatenate(tokens), offsets, np.arange(n), np.full(n, -1, dtype=np.int8))


def words(tokenizer, sequence):
    """Tokens as text."""
    return [tokenizer.vocabulary[token] for token in sequence]


class Memory:
    """What a record has said so far that a further token may contradict."""

    def __init__(self, tokenizer):
        self.tokenizer = tokenizer
        self.stated, self.measured, self.last_variable = set(), set(), None
        self.covariates = {}

    def contradicts(self, token):
        """Whether the token is a second time or contradicts an earlier admission."""
        kind = self.tokenizer.grammar.kinds[self.tokenizer.kind_of[token]]
        if token in self.stated:
            return True
        variable = self._variable(kind)
        free = "series" in self.tokenizer.free_order
        if free and variable in self.measured and variable != self.last_variable:
            return True
        what, _, name = kind.partition(":")
        before = self.covariates.get(name) if what == "covariate" else None
        rule = self.tokenizer.rules.get(name)
        return before is not None and (
            (rule == "rising" and token < before) or (rule == "constant" and token != before)
        )

    def add(self, token):
        """Remember a token."""
        kind = self.tokenizer.grammar.kinds[self.tokenizer.kind_of[token]]
        what, _, name = kind.partition(":")
        if what == "code" or (what == "label" and "labels" in self.tokenizer.free_order):
            self.stated.add(token)
        elif what == "covariate":
            self.covariates[name] = token
        elif kind == g.END_ADMISSION:
            self.stated.clear()
        elif what == "gap":
            self.measured.clear()
        self.last_variable = self._variable(kind)
        if self.last_variable is not None:
            self.measured.add(self.last_variable)

    @staticmethod
    def _variable(kind):
        what, _, name = kind.partition("variable:")
        is_value = what in ("", "sign:") or what.startswith(("zero ", "digit "))
        return name if name and is_value else None


def walk(tokenizer, rng, soft_limit):
    """A random record: allowed tokens only, and the shortest way out from the limit on."""
    distance = tokenizer.grammar.distance[tokenizer.kind_of]
    sequence, memory = [tokenizer.token(g.START)], Memory(tokenizer)
    while sequence[-1] != tokenizer.token(g.END):
        allowed = np.flatnonzero(tokenizer.allowed[tokenizer.kind_of[sequence[-1]]])
        allowed = np.array([token for token in allowed if not memory.contradicts(token)])
        if len(sequence) >= soft_limit:
            allowed = allowed[distance[allowed] == distance[allowed].min()]
        sequence.append(int(rng.choice(allowed)))
        memory.add(sequence[-1])
    return sequence


def first_fault(tokenizer, sequence):
    """Position of the first token, from the left, that cannot stand there; None in a record."""
    memory = Memory(tokenizer)
    for i, token in enumerate(sequence):
        if token >= len(tokenizer.vocabulary):
            return i
        if i == 0:
            fits = token == tokenizer.token(g.START)
        else:
            fits = tokenizer.allowed[tokenizer.kind_of[sequence[i - 1]], token]
            fits = fits and not memory.contradicts(token)
        if not fits or (i == len(sequence) - 1 and token != tokenizer.token(g.END)):
            return i
        memory.add(token)
    return None
