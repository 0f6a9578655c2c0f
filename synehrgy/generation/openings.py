"""How records may begin, and how likely each beginning is."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from synehrgy.generation.constraint import Constraint, RecordState
from synehrgy.generation.sampler import Sampling, probabilities
from synehrgy.model import GPT
from synehrgy.tokenizer import Tokenizer
from synehrgy.tokenizer.grammar import END_COVARIATES, START
from synehrgy.tokenizer.quantities import Digits
from synehrgy.tokenizer.tokenizer import label_kind

# More openings than this are not told one by one.
MOST_OPENINGS = 50_000

# Openings that go through the model at a time.
_AT_ONCE = 2048


@dataclass(frozen=True)
class Openings:
    """Beginnings of records.

    Attributes:
        tokens: the beginnings, ``<s>`` included.
        weights: float64 [n]; the probability of each.
    """

    tokens: list[NDArray[np.int64]]
    weights: NDArray[np.float64]

    def __len__(self) -> int:
        return len(self.tokens)

    @property
    def total(self) -> float:
        """Probability of them all."""
        return float(self.weights.sum())

    def among(self, fits: Sequence[bool] | NDArray[np.bool_]) -> "Openings":
        """Some of them."""
        chosen = np.flatnonzero(np.asarray(fits, dtype=bool))
        return Openings([self.tokens[i] for i in chosen], self.weights[chosen])

    def draw(self, u: float) -> NDArray[np.int64]:
        """One of them in proportion to its weight, given a draw in (0, 1)."""
        cumulative = np.cumsum(self.weights)
        place = int(np.searchsorted(cumulative, u * cumulative[-1], side="right"))
        # By rounding the last sum may be missed, and then what is drawn must be possible still.
        return self.tokens[min(place, int(np.flatnonzero(self.weights)[-1]))]


@torch.inference_mode()
def model_openings(
    model: GPT, tokenizer: Tokenizer, how: Sampling, max_segments: int = 64
) -> Openings | None:
    """Every way in which the model may state covariates and outcomes of the first stay.

    Args:
        model: in evaluation mode.
        tokenizer: the model's.
        how: how tokens are drawn.
        max_segments: contexts that a record may take.

    Returns:
        The openings with their probabilities, up to where a phenotype or a number in digits may
        come; None if there are too many.
    """
    device = model.token_embedding.weight.device
    constraint = Constraint(tokenizer, model.config.n_ctx, device)
    is_last = max_segments == 1 or not constraint.can_go_on
    is_opening = torch.from_numpy(_opening_tokens(tokenizer)).to(device)
    tokens = torch.full((1, 1), constraint.start, device=device)
    weights = torch.ones(1, dtype=torch.float64, device=device)
    while tokens.shape[1] < model.config.n_ctx:
        found_tokens, found_weights = [], []
        for part, weight in zip(tokens.split(_AT_ONCE), weights.split(_AT_ONCE), strict=True):
            allowed, chance = _next(model, constraint, part, how, is_last)
            if bool((allowed & ~is_opening).any()):
                return Openings([*tokens.cpu().numpy()], weights.cpu().numpy())
            row, token = (chance > 0).nonzero(as_tuple=True)
            found_tokens.append(torch.cat([part[row], token[:, None]], dim=1))
            found_weights.append(weight[row] * chance[row, token])
            if sum(map(len, found_tokens)) > MOST_OPENINGS:
                return None
        tokens, weights = torch.cat(found_tokens), torch.cat(found_weights)
    return Openings([*tokens.cpu().numpy()], weights.cpu().numpy())


def _next(
    model: GPT, constraint: Constraint, tokens: torch.Tensor, how: Sampling, is_last: bool
) -> tuple[torch.Tensor, torch.Tensor]:
    """What may come after these beginnings, and its probability, both [n, vocabulary]."""
    state = RecordState.after(constraint, [*tokens.cpu().numpy()])
    length = torch.full((len(tokens),), tokens.shape[1], device=tokens.device)
    allowed, _ = constraint.mask(state, length, torch.full_like(length, is_last, dtype=torch.bool))
    seen = torch.zeros_like(allowed).scatter(1, tokens, True)
    logits = model.logits(model.hidden(tokens)[:, -1])
    return allowed, probabilities(logits, allowed, seen, how).double()


def _opening_tokens(tokenizer: Tokenizer) -> NDArray[np.bool_]:
    """Bool [vocabulary]: tokens of covariates (but digits) and of outcomes, and what is between."""
    names = [label_kind(label.column) for label in tokenizer.schema.labels_of("outcome")]
    for covariate in tokenizer.schema.covariates:
        if not isinstance(tokenizer.covariate_numbers.get(covariate.name), Digits):
            names += tokenizer.covariate_word(covariate.name).kinds
    kinds = [tokenizer.grammar.index(name) for name in (*names, END_COVARIATES, START)]
    return np.isin(tokenizer.kind_of, kinds)
