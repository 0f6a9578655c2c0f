"""Canaries: patients made up for a training, whose memory of them can be measured afterwards.

Canaries of Carlini et al. ("The Secret Sharer", USENIX Security 2019): a record that a model can
only know from having been trained on it. Here a canary has the form of a patient of the train split
(its stays, its time points and what is measured at each), and codes and values drawn uniformly from
the vocabulary, so that it is valid and nobody's. From each form two are drawn: one is planted among
the training records, the other is held out.
"""

from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from synehrgy.errors import UserError
from synehrgy.tokenizer import Records, Tokenizer, TokenStore, joined
from synehrgy.tokenizer import grammar as g

CANARIES_FILE = "canaries.parquet"

# In place of a split: planted, so that it is trained on, and nobody's.
PLANTED = -2

# What is drawn of a canary has so many bits at least: no two are alike, and none is a real patient.
_LEAST_BITS = 64.0

Ints = NDArray[np.int64]


@dataclass(frozen=True)
class Canaries:
    """Made-up patients, those with an even number planted, the next one of the same form held out.

    Attributes:
        records: their tokens.
        drawn: bool [tokens]; which of them were drawn, and not taken from the form.
        planted: bool [n]; which of them were trained on.
    """

    records: Records
    drawn: NDArray[np.bool_]
    planted: NDArray[np.bool_]

    def save(self, folder: Path) -> None:
        """Write them to the folder of a run."""
        ends = self.records.offsets[1:-1]
        pd.DataFrame(
            {
                "planted": self.planted,
                "tokens": np.split(np.asarray(self.records.tokens), ends),
                "drawn": np.split(self.drawn, ends),
            }
        ).to_parquet(folder / CANARIES_FILE, index=False)

    @classmethod
    def load(cls, folder: Path) -> "Canaries":
        """Read those of a run.

        Raises:
            UserError: it has none.
        """
        file = folder / CANARIES_FILE
        if not file.exists():
            raise UserError(f"{folder} has no canaries: it was not trained with train.canaries.")
        table = pd.read_parquet(file)
        lengths = table["tokens"].map(len).to_numpy(np.int64)
        tokens, drawn = (np.concatenate(table[name].to_list()) for name in ("tokens", "drawn"))
        return cls(_records(tokens, lengths), drawn, table["planted"].to_numpy(np.bool_))


def make_canaries(
    tokenizer: Tokenizer, records: Records, rows: Ints, n: int, seed: int
) -> Canaries:
    """Draw ``n`` canaries to plant and as many to hold out.

    Args:
        tokenizer: of the records.
        records: valid ones.
        rows: numbers of the records whose form they may have.
        n: how many forms.
        seed: of the draws.

    Raises:
        UserError: no record has enough codes and values to tell canaries apart.
    """
    rng = np.random.default_rng(seed)
    grammar = tokenizer.grammar
    is_drawn = (grammar.is_code | (grammar.variable >= 0)) & (tokenizer.size > 1)
    bits_of = np.where(is_drawn, np.log2(np.maximum(tokenizer.size, 1)), 0.0)[tokenizer.kind_of]
    bits = np.array([bits_of[records[row]].sum() for row in rows])
    rows = rows[bits >= _LEAST_BITS]
    if not len(rows):
        raise UserError(
            "train.canaries: no record of the train split has enough codes or values to make "
            "canaries that differ from each other."
        )
    forms = np.repeat(rng.choice(rows, size=n, replace=n > len(rows)), 2)
    tokens = np.concatenate([records[row] for row in forms]).astype(np.int64)
    kind = tokenizer.kind_of[tokens]
    drawn = is_drawn[kind]
    found = tokens.copy()
    found[drawn] = (tokenizer.first[kind] + rng.integers(0, tokenizer.size[kind]))[drawn]
    # No code twice in a stay: those of a system in a stay are drawn together.
    stay = np.cumsum((kind == grammar.index(g.END_ADMISSION)) | (kind == grammar.index(g.END)))
    codes = np.flatnonzero(grammar.is_code[kind] & drawn)
    begins = np.flatnonzero(np.diff(stay[codes], prepend=-1) | np.diff(kind[codes], prepend=-1))
    for together in np.split(codes, begins[1:]) if len(codes) else []:
        system = kind[together[0]]
        chosen = rng.choice(tokenizer.size[system], size=len(together), replace=False)
        found[together] = tokenizer.first[system] + chosen
    made = _records(found.astype(tokenizer.dtype), records.lengths[forms])
    return Canaries(made, drawn, np.arange(2 * n) % 2 == 0)


def plant(store: TokenStore, canaries: Canaries, repeats: int) -> TokenStore:
    """The records of a store, and after them each planted canary so many times."""
    chosen = np.repeat(np.flatnonzero(canaries.planted), repeats)
    lengths = canaries.records.lengths[chosen]
    parts = [canaries.records[i] for i in chosen.tolist()]
    tokens = np.concatenate([np.empty(0, store.tokenizer.dtype), *parts])
    return replace(store, records=joined([store.records, _records(tokens, lengths)]))


def planted(records: Records) -> Ints:
    """Numbers of the records that are canaries."""
    return np.flatnonzero(records.splits == PLANTED)


def _records(tokens: NDArray[np.unsignedinteger], lengths: Ints) -> Records:
    n = len(lengths)
    return Records(
        tokens,
        np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64),
        # Nobody's.
        np.arange(-n, 0, dtype=np.int64),
        np.full(n, PLANTED, dtype=np.int8),
    )
