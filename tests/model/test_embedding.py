"""Embeddings with common parts: the same model, learnt together."""

import copy

import pytest
import torch

from synehrgy.model import GPT, GPTConfig, Packing
from synehrgy.model.embedding import folded, share_parts

INDEX = torch.tensor([[0, 1], [0, 2], [0, 0], [3, 0], [3, 1]])
AMOUNTS = torch.tensor([[1.0, 0.5], [1.0, 0.25], [0.0, 0.0], [1.0, 0.0], [1.0, 0.75]])
TOKENS = torch.tensor([[0, 3, 1, 4, 2, 2, 0]])


def model_of(**changes):
    torch.manual_seed(0)
    shape = {"n_layer": 2, "n_head": 2, "n_embd": 16, "dropout": 0.0}
    return GPT(GPTConfig(5, 16, **(shape | changes)))


def test_embeddings_are_sums_of_what_is_own_and_what_is_common():
    model = model_of()
    share_parts(model, INDEX, AMOUNTS, is_fresh=True)
    common = model.token_embedding.parametrizations.weight[0]
    own = model.token_embedding.parametrizations.weight.original
    dense = torch.zeros(5, 4)
    for token, (parts, amounts) in enumerate(zip(INDEX, AMOUNTS, strict=True)):
        for part, amount in zip(parts, amounts, strict=True):
            dense[token, part] += amount
    torch.testing.assert_close(model.token_embedding.weight, own + dense @ common.parts)
    # What has no part is its own.
    assert torch.equal(model.token_embedding.weight[2], own[2])


@pytest.mark.parametrize("tied", [True, False])
def test_what_is_folded_computes_the_same(tied):
    model = model_of(tied=tied)
    share_parts(model, INDEX, AMOUNTS, is_fresh=True)
    plain = model_of(tied=tied)
    plain.load_state_dict(folded(dict(model.state_dict())))
    assert torch.equal(plain(TOKENS), model(TOKENS))
    packing = Packing.of([4, 3], torch.device("cpu"))
    flat = TOKENS[0]
    assert torch.equal(plain.packed_hidden(flat, packing), model.packed_hidden(flat, packing))
    weights = dict(plain.state_dict())
    assert folded(weights) is weights


def test_a_model_that_knows_something_stays_what_it_is():
    model = model_of()
    before = model(TOKENS)
    share_parts(model, INDEX, AMOUNTS, is_fresh=False)
    torch.testing.assert_close(model(TOKENS), before)


def test_what_is_learnt_of_a_token_is_learnt_of_those_like_it():
    plain = model_of()
    shared = copy.deepcopy(plain)
    share_parts(shared, INDEX, AMOUNTS, is_fresh=True)
    moved = {}
    for name, model in (("plain", plain), ("shared", shared)):
        before = model.token_embedding.weight.detach().clone()
        optimiser = torch.optim.SGD(model.parameters(), 1.0)
        # Only token 0 is seen, and only as an input.
        model.hidden(torch.tensor([[0, 0]])).square().sum().backward()
        optimiser.step()
        moved[name] = (model.token_embedding.weight - before).detach().norm(dim=1) > 0
    assert moved["plain"].tolist() == [True, False, False, False, False]
    # Token 1 shares part 0 with it, and token 4 part 1.
    assert moved["shared"].tolist() == [True, True, False, False, True]
