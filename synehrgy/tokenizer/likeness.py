"""What tokens have in common: bins of a series, values as high, codes of a category.

A model may give such tokens a common part of their embedding, and so learn of a rare one from those
that are like it. See ``synehrgy.model.embedding``.
"""

from collections import Counter
from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from synehrgy.cohort.icd import CATEGORY
from synehrgy.tokenizer.quantities import Bins
from synehrgy.tokenizer.tokenizer import Tokenizer, system_kind

# Points along a range of bins; a bin between two of them is part of both.
KNOTS = 5

# What tokens have in common, by name, and how much of it each has.
_Parts = dict[str, float]


def likeness(tokenizer: Tokenizer) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
    """The common parts that each token has.

    All tokens of a series have one part in common. Its bins have others, by where they lie between
    the lowest and the highest, and these again with the bins of all other series. The bins of a
    covariate have parts by where they lie, too. Codes of ICD have a part for each beginning that
    they share with others: 4280 one with all of 428, of 42 and of 4. Times have nothing in common:
    a quarter of an hour is charted for other reasons than 14 minutes.

    Args:
        tokenizer: of the tokens.

    Returns:
        Numbers of the parts, int64 [vocabulary, k], and how much of each a token has, float32
        [vocabulary, k]; 0 where a token has fewer than k parts. Parts are numbered from 0.
    """
    parts: list[_Parts] = [{} for _ in tokenizer.vocabulary]
    for token, name, amount in (*_quantities(tokenizer), *_codes(tokenizer)):
        parts[token][name] = amount
    counts = Counter(name for mine in parts for name in mine)
    number = {name: i for i, name in enumerate(name for name, n in counts.items() if n > 1)}
    kept = [[(number[name], x) for name, x in mine.items() if name in number] for mine in parts]
    width = max(1, *map(len, kept))
    index = np.zeros((len(parts), width), dtype=np.int64)
    amounts = np.zeros((len(parts), width), dtype=np.float32)
    for token, mine in enumerate(kept):
        for k, (which, amount) in enumerate(mine):
            index[token, k], amounts[token, k] = which, amount
    return index, amounts


def _quantities(tokenizer: Tokenizer) -> Iterator[tuple[int, str, float]]:
    """Token, part and amount of series and covariates."""
    for name in tokenizer.variables:
        word = tokenizer.variable_word(name)
        first, n = tokenizer.first_of_variable(name), tokenizer.n_of(word)
        yield from ((token, f"series {name}", 1.0) for token in range(first, first + n))
        if isinstance(tokenizer.variable_numbers.get(name), Bins):
            yield from _along(first, n, f"bins of {name}")
            # High is high, whatever the series.
            yield from _along(first, n, "bins of any series")
    for name, numbers in tokenizer.covariate_numbers.items():
        if isinstance(numbers, Bins):
            yield from _along(
                tokenizer.first_of_covariate(name), len(numbers.edges) - 1, f"bins of {name}, fixed"
            )


def _along(first: int, n: int, name: str) -> Iterator[tuple[int, str, float]]:
    """The parts of ordered tokens, which fade into one another from the first to the last."""
    knots = min(KNOTS, n)
    for i, place in enumerate(np.linspace(0, knots - 1, n)):
        for knot in range(knots):
            if (amount := 1 - abs(place - knot)) > 0:
                # Ranges of few bins have knots of their own.
                yield first + i, f"{name}: {knot} of {knots}", float(amount)


def _codes(tokenizer: Tokenizer) -> Iterator[tuple[int, str, float]]:
    for system, codes in tokenizer.codes.items():
        if not system.startswith(tuple(CATEGORY)):
            continue
        first = tokenizer.token(system_kind(system))
        for i, code in enumerate(codes):
            for end in range(1, len(code) + 1):
                yield first + i, f"{system} {code[:end]}", 1.0
