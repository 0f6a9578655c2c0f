"""Token n-grams under the grammar: each token from the few before it, and valid records."""

from dataclasses import dataclass, fields
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors.numpy import load_file, save_file
from tqdm import tqdm

from synehrgy.baselines.baseline import Baseline, limited
from synehrgy.cohort import Cohort
from synehrgy.draws import Stream, uniforms
from synehrgy.errors import UserError
from synehrgy.generation.constraint import Constraint, RecordState
from synehrgy.settings import TokenSettings
from synehrgy.tokenizer import TOKENIZER_FILE, Records, Tokenizer, decode, encode

Ints = NDArray[np.int64]

_GRAMS_FILE = "grams.safetensors"
# Patients sampled side by side.
_BATCH = 256
# A record may be so much longer than the longest of the train split; then it is brought to an end.
_LONGEST = 1.2


@dataclass
class MarkovSettings:
    """What a token depends on.

    Attributes:
        order: tokens that the next one is drawn from.
        min_count: how often these must have been seen; if less, one fewer is looked at.
    """

    order: int = limited(4, minimum=1)
    min_count: int = limited(8, minimum=1)


@dataclass(frozen=True)
class _Grams:
    """Which tokens came after each context of some tokens, and how often.

    Attributes:
        contexts: the distinct contexts as numbers, ascending [contexts].
        starts: where the tokens of each begin [contexts + 1].
        tokens, counts: the tokens that came next, and how often.
    """

    contexts: Ints
    starts: Ints
    tokens: Ints
    counts: Ints

    @classmethod
    def of(cls, contexts: Ints, tokens: Ints) -> "_Grams":
        pairs = np.stack([contexts, tokens])
        order = np.lexsort(pairs[::-1])
        pairs = pairs[:, order]
        new = np.flatnonzero(np.r_[True, (np.diff(pairs) != 0).any(axis=0)])
        counts = np.diff(new, append=pairs.shape[1])
        pairs = pairs[:, new]
        starts = np.flatnonzero(np.r_[True, np.diff(pairs[0]) != 0])
        # Rows of an array are no arrays of their own, which would be saved as they are not.
        contexts, tokens = pairs[0][starts].copy(), pairs[1].copy()
        return cls(contexts, np.append(starts, len(new)), tokens, counts)

    def rows(self, contexts: Ints, n_tokens: int) -> NDArray[np.float64]:
        """Counts of the next tokens [contexts asked, tokens]; 0 for one that is not known."""
        found = np.zeros((len(contexts), n_tokens))
        at = np.minimum(np.searchsorted(self.contexts, contexts), len(self.contexts) - 1)
        known = np.flatnonzero(self.contexts[at] == contexts)
        first, last = self.starts[at[known]], self.starts[at[known] + 1]
        n = last - first
        entry = np.repeat(first - np.cumsum(n) + n, n) + np.arange(n.sum())
        found[np.repeat(known, n), self.tokens[entry]] = self.counts[entry]
        return found


class Markov(Baseline):
    """A Markov chain over tokens, with back-off to shorter contexts.

    The grammar sees to it that every record is valid and complete, as for our own models; labels
    and the codes that define them may contradict each other.
    """

    name = "markov"
    title = "Token n-grams under the grammar"
    Settings = MarkovSettings

    tokenizer: Tokenizer
    grams: list[_Grams]
    longest: int

    def fit(
        self, train: Cohort, val: Cohort, *, seed: int, device: torch.device, progress: bool
    ) -> None:
        """Count the tokens that follow each context of up to ``order`` tokens.

        Raises:
            UserError: an order with more contexts than there are numbers.
        """
        stays = train.stays.assign(split="train")
        cohort = Cohort(train.schema, stays, train.codes, train.measurements)
        self.tokenizer = Tokenizer.fit(cohort, TokenSettings())
        vocabulary, order = len(self.tokenizer.vocabulary), self.settings.order
        if vocabulary**order > 2**63:
            # Each context of so many tokens has a number of its own.
            most = next(k for k in range(order, 0, -1) if vocabulary**k <= 2**63)
            raise UserError(
                f"{self.name}: order={order} is too much for the {vocabulary:,} tokens of these "
                f"patients. Take order={most} or less."
            )
        records = encode(self.tokenizer, cohort)
        self.longest = int(records.lengths.max(initial=1) * _LONGEST) + 64
        tokens = records.tokens.astype(np.int64)
        place = np.arange(len(tokens)) - np.repeat(records.offsets[:-1], records.lengths)
        context = np.zeros(len(tokens), dtype=np.int64)
        self.grams = []
        for length in range(1, self.settings.order + 1):
            at = np.flatnonzero(place >= length)
            context[at] = self._longer(context[at], tokens[at - length], length)
            self.grams.append(_Grams.of(context[at], tokens[at]))

    def _longer(self, context: Ints, before: Ints, length: int) -> Ints:
        """The number of a context with one more token before it, as digits of a base."""
        return context + before * len(self.tokenizer.vocabulary) ** (length - 1)

    def sample(self, n: int, *, seed: int, device: torch.device, progress: bool) -> Cohort:
        """Walk from the start of a record to its end."""
        parts = []
        with tqdm(total=n, disable=not progress, unit="patient", desc="sampling") as bar:
            for first in range(0, n, _BATCH):
                numbers = np.arange(first, min(first + _BATCH, n))
                parts += self._walk(seed, numbers)
                bar.update(len(numbers))
        offsets = np.cumsum([0, *map(len, parts)])
        records = Records(
            np.concatenate(parts), offsets, np.arange(n) + 1, np.full(n, -1, dtype=np.int8)
        )
        return decode(self.tokenizer, records, seed=seed)

    def _walk(self, seed: int, numbers: Ints) -> list[Ints]:
        """Records of a batch."""
        vocabulary = len(self.tokenizer.vocabulary)
        constraint = Constraint(self.tokenizer, self.longest, torch.device("cpu"))
        state = RecordState(constraint, len(numbers))
        written = np.zeros((len(numbers), self.longest), dtype=np.int64)
        written[:, 0] = constraint.start
        length = np.ones(len(numbers), dtype=np.int64)
        end = self.tokenizer.token("</s>")
        rows = np.arange(len(numbers))
        while len(rows):
            lengths, last = torch.from_numpy(length[rows]), torch.ones(len(rows), dtype=torch.bool)
            allowed = constraint.mask(state, lengths, last)[0].numpy()
            weights = self._weights(written[rows], length[rows], allowed)
            sums = weights.cumsum(axis=1)
            u = uniforms(seed, Stream.SAMPLE, numbers[rows], length[rows])
            chosen = (sums <= u[:, None] * sums[:, -1:]).sum(axis=1).clip(0, vocabulary - 1)
            written[rows, length[rows]] = chosen
            length[rows] += 1
            state.advance(torch.from_numpy(chosen), torch.ones(len(rows), dtype=torch.bool))
            going = np.flatnonzero(chosen != end)
            if len(going) < len(rows):
                state.keep(torch.from_numpy(going))
                rows = rows[going]
        return [tokens[:k] for tokens, k in zip(written, length, strict=True)]

    def _weights(
        self, written: Ints, length: Ints, allowed: NDArray[np.bool_]
    ) -> NDArray[np.float64]:
        """Counts of the allowed tokens after the longest context that was seen often enough."""
        found = allowed.astype(np.float64)
        known = np.zeros(len(written), dtype=bool)
        context = np.zeros(len(written), dtype=np.int64)
        contexts = []
        at = np.arange(len(written))
        for size in range(1, len(self.grams) + 1):
            # Before the start of a record there is nothing, and no such context was counted.
            before = written[at, np.maximum(length - size, 0)]
            context = np.where(length >= size, self._longer(context, before, size), -1)
            contexts.append(context)
        for size in range(len(self.grams), 0, -1):
            open_rows = np.flatnonzero(~known & (contexts[size - 1] >= 0))
            if not len(open_rows):
                continue
            counts = self.grams[size - 1].rows(contexts[size - 1][open_rows], allowed.shape[1])
            counts *= allowed[open_rows]
            enough = counts.sum(axis=1) >= (self.settings.min_count if size > 1 else 1)
            found[open_rows[enough]] = counts[enough]
            known[open_rows[enough]] = True
        return found

    def save(self, folder: Path) -> None:
        """The counts and the tokenizer."""
        self.tokenizer.save(folder / TOKENIZER_FILE)
        arrays = {
            f"{i}.{field.name}": getattr(grams, field.name)
            for i, grams in enumerate(self.grams)
            for field in fields(_Grams)
        }
        arrays["longest"] = np.array([self.longest])
        save_file(arrays, folder / _GRAMS_FILE)

    @classmethod
    def load(cls, folder: Path, **settings: object) -> "Markov":
        """What ``save`` wrote."""
        found = cls(**settings)
        found.tokenizer = Tokenizer.load(folder / TOKENIZER_FILE)
        arrays = load_file(folder / _GRAMS_FILE)
        found.longest = int(arrays["longest"][0])
        found.grams = [
            _Grams(**{field.name: arrays[f"{i}.{field.name}"] for field in fields(_Grams)})
            for i in range(found.settings.order)
        ]
        return found
