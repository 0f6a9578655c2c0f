"""Starting from the weights of another run: fine-tuning, as on the records of another hospital."""

from dataclasses import fields

import numpy as np
import torch
from numpy.typing import NDArray

from synehrgy.errors import UserError
from synehrgy.model import GPT, GPTConfig
from synehrgy.tokenizer import Tokenizer
from synehrgy.tokenizer.bins import find_bins
from synehrgy.tokenizer.quantities import Bins
from synehrgy.training.checkpoint import Run

_NONE = -1

# What may differ between two models of one shape.
_FREE = ("vocab_size", "n_ctx", "dropout", "n_next", "n_kv_head")

# Weights with a row for each token of the vocabulary.
_BY_TOKEN = ("token_embedding.weight", "head.weight")
_BY_POSITION = "position_embedding.weight"


@torch.no_grad()
def start_from(run: Run, model: GPT, tokenizer: Tokenizer) -> str:
    """Give a fresh model the weights of a run where shapes and tokens allow it.

    A token takes the row of the token of the same name; a bin that there was not, the row of the
    old bin in which its middle lies; any other the mean row of its part of the record, with the
    small differences of its fresh weights.

    Returns:
        What could be taken over, in words.

    Raises:
        UserError: a model of another shape, or with a shorter context.
    """
    old = run.model.config
    new = model.config
    differing = [
        f"model.{field.name}={getattr(old, field.name)} there, {getattr(new, field.name)} here"
        for field in fields(GPTConfig)
        if field.name not in _FREE and getattr(old, field.name) != getattr(new, field.name)
    ]
    if old.key_heads != new.key_heads:
        differing.append(f"model.n_kv_head={old.key_heads} there, {new.key_heads} here")
    if differing:
        raise UserError(
            f"use_pretrained={run.path.name}: its model has another shape: {'; '.join(differing)}. "
            "Give the same."
        )
    if new.positions == "learned" and new.n_ctx > old.n_ctx:
        raise UserError(
            f"use_pretrained={run.path.name}: its model knows {old.n_ctx:,} positions, fewer than "
            f"hparams.n_ctx={new.n_ctx}. Take hparams.n_ctx={old.n_ctx} or less."
        )
    source = matching_tokens(run.tokenizer, tokenizer)
    found = torch.from_numpy(np.flatnonzero(source != _NONE))
    rows = torch.from_numpy(source)[found]
    weights = run.model.state_dict()
    for name, weight in model.state_dict().items():
        if name not in weights:
            continue
        taken = weights[name].to(weight.device)
        if name in _BY_TOKEN:
            for part in np.unique(tokenizer.part_of):
                mine = torch.from_numpy(np.flatnonzero(tokenizer.part_of == part))
                theirs = np.flatnonzero(run.tokenizer.part_of == part)
                if len(theirs):
                    weight[mine] += taken[torch.from_numpy(theirs)].mean(dim=0)
            weight[found] = taken[rows]
        elif name == _BY_POSITION:
            weight[:] = taken[: new.n_ctx]
        else:
            weight[:] = taken
    named = {name: i for i, name in enumerate(run.tokenizer.vocabulary)}
    same = sum(name in named for name in tokenizer.vocabulary)
    return (
        f"Starting from {run.path}: of {new.vocab_size:,} tokens it knows {same:,} by name and "
        f"{len(found) - same:,} as the nearest bin; {new.vocab_size - len(found):,} are new."
    )


def matching_tokens(old: Tokenizer, new: Tokenizer) -> NDArray[np.int64]:
    """Token of an old tokenizer that means the same as each of a new one, -1 for none."""
    named = {name: i for i, name in enumerate(old.vocabulary)}
    found = np.array([named.get(name, _NONE) for name in new.vocabulary], dtype=np.int64)
    for mine, theirs in zip(_binned(new, old), _binned(old, new), strict=True):
        (bins, start), (before, first) = mine, theirs
        middles = 0.5 * (bins.edges[:-1] + bins.edges[1:])
        part = slice(start, start + len(middles))
        nearest = first + find_bins(middles, before.edges)
        found[part] = np.where(found[part] == _NONE, nearest, found[part])
    return found


def _binned(tokenizer: Tokenizer, other: Tokenizer) -> list[tuple[Bins, int]]:
    """The numbers that both write in bins, each with its first token, in the same order."""
    found: list[tuple[Bins, int]] = []
    for name in sorted(tokenizer.variable_numbers.keys() & other.variable_numbers.keys()):
        numbers = tokenizer.variable_numbers[name]
        if isinstance(numbers, Bins) and isinstance(other.variable_numbers[name], Bins):
            found.append((numbers, tokenizer.first_of_variable(name)))
    for name in sorted(tokenizer.covariate_numbers.keys() & other.covariate_numbers.keys()):
        numbers = tokenizer.covariate_numbers[name]
        if isinstance(numbers, Bins) and isinstance(other.covariate_numbers[name], Bins):
            found.append((numbers, tokenizer.first_of_covariate(name)))
    if not (tokenizer.has_clock or other.has_clock):
        found.append((tokenizer.gaps, tokenizer.first_of(tokenizer.time_word)))
    return found
