"""The record grammar, written down once as a small automaton.

    record    := <s> admission+ </s>
    admission := covariate* </covar> outcome* phenotype* </label> code* </code>
                 timestep* </ts> </adm>
    timestep  := value+ gap

The state of the automaton is the kind of the last token: what may follow depends on nothing else.
Encoder, decoder, validator and the mask of the sampler all read this one object.
"""

import itertools
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

START, END = "<s>", "</s>"
END_COVARIATES, END_LABELS, END_CODES = "</covar>", "</label>", "</code>"
END_SERIES, END_ADMISSION = "</ts>", "</adm>"
PAD = "<pad>"
# No record has these yet; they keep the place that the published vocabulary gives them.
RESERVED = ("<history>", "<forecast>", "</forecast>")
SPECIAL = (
    *(START, END_COVARIATES, END_LABELS, END_CODES, END_SERIES, END_ADMISSION, END, PAD),
    *RESERVED,
)
GAP = "gap"

UNREACHABLE = np.iinfo(np.int32).max // 2


@dataclass(frozen=True)
class Grammar:
    """Which kind of token may follow which.

    Attributes:
        kinds: names of the kinds; a special token is a kind of its own.
        follows: bool [kind, kind]; ``follows[a, b]`` if a token of kind b may come right after
            one of kind a.
        distance: int32 [kind]; the fewest tokens that finish the record after one of that kind.
    """

    kinds: tuple[str, ...]
    follows: NDArray[np.bool_]
    distance: NDArray[np.int32]

    def index(self, kind: str) -> int:
        """Position of a kind in ``kinds``."""
        return self.kinds.index(kind)


def record_grammar(
    covariates: Sequence[str],
    outcomes: Sequence[str],
    phenotypes: Sequence[str],
    systems: Sequence[str],
    variables: Sequence[str],
    empty: Sequence[str] = (),
) -> Grammar:
    """Compile the automaton.

    Args:
        covariates, outcomes: kinds of which each admission has exactly one token each, in order.
        phenotypes: kinds of which an admission has at most one token each, in order.
        systems: kinds of which an admission has any number of tokens; all of the first system
            come before those of the second.
        variables: kinds of which a timestep has at most one token each, in order, and at least
            one in all.
        empty: kinds without a single token in the vocabulary, which therefore can not occur.
    """
    admission = [*covariates, END_COVARIATES]
    labels = [*outcomes, *phenotypes, END_LABELS]
    codes = [*systems, END_CODES]
    timestep = [*variables, END_SERIES]

    follows: dict[str, list[str]] = {START: admission[:1]}
    for this, then in itertools.pairwise(admission):
        follows[this] = [then]
    # What may come next inside the labels: the next outcome, then any later phenotype.
    for i, this in enumerate([END_COVARIATES, *labels[:-1]]):
        follows[this] = labels[i : i + 1] if i < len(outcomes) else labels[i:]
    follows[END_LABELS] = codes
    for i, system in enumerate(systems):
        follows[system] = codes[i:]
    follows[END_CODES] = follows[GAP] = timestep
    for i, variable in enumerate(variables):
        follows[variable] = [*variables[i + 1 :], GAP]
    follows[END_SERIES] = [END_ADMISSION]
    follows[END_ADMISSION] = [admission[0], END]

    kinds = (*SPECIAL, *covariates, *outcomes, *phenotypes, *systems, *variables, GAP)
    table = np.zeros((len(kinds), len(kinds)), dtype=bool)
    for this, successors in follows.items():
        for then in successors:
            table[kinds.index(this), kinds.index(then)] = then not in empty
    return Grammar(kinds, table, _distance(table, kinds.index(END)))


def _distance(follows: NDArray[np.bool_], end: int) -> NDArray[np.int32]:
    """Breadth-first search from the end of the record against the arrows."""
    distance = np.full(len(follows), UNREACHABLE, dtype=np.int32)
    distance[end] = 0
    queue = deque([end])
    while queue:
        then = queue.popleft()
        for this in np.flatnonzero(follows[:, then]):
            if distance[this] == UNREACHABLE:
                distance[this] = distance[then] + 1
                queue.append(int(this))
    return distance
