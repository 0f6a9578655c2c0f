"""The record grammar, written down once as a small automaton.

    record    := <s> admission+ </s>
    admission := covariate* </covar> outcome* phenotype* </label> code* </code>
                 timestep* </ts> length-of-stay? </adm>
    timestep  := value+ time

To forecast, what is known of the last stay stands before what is asked, between marks:

    ... covariate* </covar> <forecast> timestep* </forecast> outcome* ... the rest of the record

Each of the small words is a *word*: one token, or several where a number is written in digits or a
time in hours and minutes. The state of the automaton is the kind of the last token; what may come
next depends on the state and on a little memory, which is declared here too: what occurs once, and
what a later admission must not contradict. Encoder, decoder, validator and the mask of the sampler
all read this one object.
"""

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

START, END = "<s>", "</s>"
END_COVARIATES, END_LABELS, END_CODES = "</covar>", "</label>", "</code>"
END_SERIES, END_ADMISSION = "</ts>", "</adm>"
# Padding is never a target; as an input it also stands for a masked token.
PAD = "<pad>"
# Begins a segment that goes on with a long record.
HISTORY = "<history>"
# Around what is known of a stay whose future is asked: always given, never sampled.
FORECAST, END_FORECAST = "<forecast>", "</forecast>"
SPECIAL = (
    *(START, END_COVARIATES, END_LABELS, END_CODES, END_SERIES, END_ADMISSION, END, PAD, HISTORY),
    *(FORECAST, END_FORECAST),
)

UNREACHABLE = np.iinfo(np.int32).max // 2


@dataclass(frozen=True)
class Word:
    """A small automaton of kinds that states one fact.

    Attributes:
        kinds: all kinds of token in it.
        entries: kinds that it may begin with.
        exits: kinds that it may end with.
        arcs: which kinds may follow which inside it.
    """

    kinds: tuple[str, ...]
    entries: tuple[str, ...]
    exits: tuple[str, ...]
    arcs: dict[str, tuple[str, ...]] = field(default_factory=dict)

    @classmethod
    def of(cls, kind: str) -> "Word":
        """The word of one token."""
        return cls((kind,), (kind,), (kind,))


NOTHING = Word((), (), ())


@dataclass(frozen=True)
class Grammar:
    """Which kind of token may follow which, and what else a record keeps to.

    Attributes:
        kinds: names of the kinds; a special token is a kind of its own.
        follows: bool [kind, kind]; ``follows[a, b]`` if a token of kind b may come right after
            one of kind a.
        distance: int32 [kind]; the fewest tokens that finish the record after one of that kind.
        to_cut: int32 [kind]; the fewest tokens after one of that kind until it is settled that
            a long record may be cut, or is at its end. After a time it may be cut as soon as the
            next token shows that the time is complete.
        is_time: bool [kind]; tokens that state the time of a timestep.
        is_code: bool [kind]; tokens that state a code.
        variable: int64 [kind]; number of the variable that the kind states a value of, else -1.
        once_in_admission: bool [kind]; a token of this kind is not repeated within an admission.
        once_in_timestep: whether memory is needed for a variable to come once in a timestep; in
            the fixed order it is not.
    """

    kinds: tuple[str, ...]
    follows: NDArray[np.bool_]
    distance: NDArray[np.int32]
    to_cut: NDArray[np.int32]
    is_time: NDArray[np.bool_]
    is_code: NDArray[np.bool_]
    variable: NDArray[np.int64]
    once_in_admission: NDArray[np.bool_]
    once_in_timestep: bool

    def index(self, kind: str) -> int:
        """Position of a kind in ``kinds``."""
        return self.kinds.index(kind)


def record_grammar(
    covariates: Sequence[Word],
    outcomes: Sequence[str],
    phenotypes: Sequence[str],
    systems: Sequence[str],
    variables: Sequence[Word],
    time: Word,
    stay: Word = NOTHING,
    elapsed: Sequence[str] = (),
    *,
    stay_optional: bool = True,
    free_labels: bool = False,
    free_series: bool = False,
    empty: Sequence[str] = (),
) -> Grammar:
    """Compile the automaton.

    Args:
        covariates: words of which each admission has exactly one each, in order.
        outcomes: kinds of which each admission has exactly one token each, in order.
        phenotypes: kinds of which an admission has at most one token each.
        systems: kinds of which an admission has any number of tokens, none of them twice; all of
            the first system come before those of the second.
        variables: words of which a timestep has at most one each, and at least one in all.
        time: word that ends a timestep.
        stay: word that states how long the stay lasted after the last timestep.
        elapsed: kinds that stand only at the head of a segment.
        stay_optional: whether a stay may end without it.
        free_labels, free_series: whether phenotypes, and variables within a timestep, may come in
            any order instead of the declared one.
        empty: kinds without a single token in the vocabulary, which therefore can not occur.
    """
    labels = [*outcomes, *phenotypes, END_LABELS]
    codes = [*systems, END_CODES]
    follows: dict[str, set[str]] = {}

    def link(before: Sequence[str], after: Sequence[str]) -> None:
        for this in before:
            follows.setdefault(this, set()).update(after)

    for word in (*covariates, *variables, time, stay):
        for this, then in word.arcs.items():
            link([this], then)
    opening = covariates[0].entries if covariates else (END_COVARIATES,)
    for i, word in enumerate(covariates):
        last = i + 1 == len(covariates)
        link(word.exits, (END_COVARIATES,) if last else covariates[i + 1].entries)
    link((START, END_ADMISSION), opening)
    # What may come next inside the labels: the next outcome, then any later phenotype.
    link([END_FORECAST], labels[:1] if outcomes else labels)
    for i, label in enumerate([END_COVARIATES, *labels[:-1]]):
        if i < len(outcomes):
            link([label], labels[i : i + 1])
        elif free_labels and i > len(outcomes):
            link([label], [then for then in labels[len(outcomes) :] if then != label])
        else:
            link([label], labels[i:])
    for i, system in enumerate([END_LABELS, *systems]):
        link([system], codes[max(i - 1, 0) :])
    starts = [entry for word in variables for entry in word.entries]
    link([END_CODES, *time.exits], [*starts, END_SERIES])
    for i, word in enumerate(variables):
        others = [w for w in variables if w is not word] if free_series else variables[i + 1 :]
        link(word.exits, [*(entry for other in others for entry in other.entries), *time.entries])
    link([END_SERIES], stay.entries)
    if stay_optional or not stay.kinds:
        link([END_SERIES], [END_ADMISSION])
    link(stay.exits, [END_ADMISSION])
    link([END_ADMISSION], [END])

    kinds = (
        *SPECIAL,
        *(kind for word in covariates for kind in word.kinds),
        *(*outcomes, *phenotypes, *systems),
        *(kind for word in variables for kind in word.kinds),
        *(*time.kinds, *stay.kinds, *elapsed),
    )
    place = {kind: i for i, kind in enumerate(kinds)}
    table = np.zeros((len(kinds), len(kinds)), dtype=bool)
    for before, successors in follows.items():
        for after in successors:
            table[place[before], place[after]] = after not in empty
    variable = np.full(len(kinds), -1, dtype=np.int64)
    for i, word in enumerate(variables):
        variable[[place[kind] for kind in word.kinds]] = i
    is_time, is_code = (np.isin(kinds, [*group]) for group in (time.kinds, systems))
    return Grammar(
        kinds,
        table,
        distance=_distance(table, [place[END]]),
        to_cut=_distance(
            table, [*np.flatnonzero(is_code).tolist(), place[END]], np.flatnonzero(is_time).tolist()
        ),
        is_time=is_time,
        is_code=is_code,
        variable=variable,
        once_in_admission=is_code | (np.isin(kinds, phenotypes) & free_labels),
        once_in_timestep=free_series,
    )


def _distance(
    follows: NDArray[np.bool_], goals: Sequence[int], one_before: Sequence[int] = ()
) -> NDArray[np.int32]:
    """Breadth-first search against the arrows, from goals and from what is one step before any."""
    distance = np.full(len(follows), UNREACHABLE, dtype=np.int32)
    distance[[*one_before]] = 1
    distance[goals] = 0
    queue = deque([*goals, *one_before])
    while queue:
        then = queue.popleft()
        for this in np.flatnonzero(follows[:, then]):
            if distance[this] == UNREACHABLE:
                distance[this] = distance[then] + 1
                queue.append(int(this))
    return distance
