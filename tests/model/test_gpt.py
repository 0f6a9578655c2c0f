"""The GPT: causal, the same with and without a cache, of the published size."""

import dataclasses

import pytest
import torch
from safetensors.torch import load_file, save_file

from synehrgy.model import GPT, Cache, GPTConfig, Packing, attention
from synehrgy.model import gpt as model_gpt

CONFIG = GPTConfig(vocab_size=50, n_ctx=300, n_layer=2, n_head=2, n_embd=16, dropout=0.3)
CPU = torch.device("cpu")


@pytest.fixture
def model():
    torch.manual_seed(0)
    made = GPT(CONFIG)
    # Larger weights than at the start of training, so that every position matters.
    with torch.no_grad():
        for parameter in made.parameters():
            parameter.mul_(3)
    return made.eval()


def tokens_of(batch, time, seed=1):
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(CONFIG.vocab_size, (batch, time), generator=generator)


def new_cache(batch):
    return Cache(CONFIG, batch, CPU, torch.float32)


def close(a, b):
    torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-5)


@pytest.fixture(
    params=[
        {},
        {"positions": "rotary", "qk_norm": True, "bias": False},
        {"mlp": "relu2", "norm": "rms", "tied": False},
        {"mlp": "swiglu", "n_kv_head": 1, "positions": "rotary"},
        {"n_head": 4, "n_kv_head": 2, "n_next": 3},
    ],
    ids=lambda choices: "-".join(choices) or "paper",
)
def any_model(request):
    """Models of all choices that a configuration offers, with weights that matter."""
    torch.manual_seed(0)
    made = GPT(dataclasses.replace(CONFIG, **request.param))
    with torch.no_grad():
        for parameter in made.parameters():
            parameter.mul_(3)
    return made.eval()


@torch.no_grad()
@pytest.mark.parametrize("lengths", [[7], [1, 1, 5], [40, 3, 17, 300, 1]])
def test_packing_changes_no_logits(any_model, lengths):
    model = any_model
    records = [tokens_of(1, length, seed=i) for i, length in enumerate(lengths)]
    packed = model.packed_hidden(torch.cat(records, dim=1)[0], Packing.of(lengths))
    for got, record in zip(packed.split(lengths), records, strict=True):
        close(model.logits(got), model(record)[0])


def test_packing_changes_no_gradients(any_model, monkeypatch):
    model = any_model
    lengths = [9, 1, 20]
    # Several blocks of queries in a record, and one too long to keep its attention weights.
    monkeypatch.setattr(attention, "_BLOCK", 6)
    monkeypatch.setattr(attention, "_KEEP", 9)
    records = [tokens_of(1, length, seed=i) for i, length in enumerate(lengths)]
    model.packed_hidden(torch.cat(records, dim=1)[0], Packing.of(lengths)).pow(2).sum().backward()
    packed = {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}
    model.zero_grad()
    sum(model.hidden(record).pow(2).sum() for record in records).backward()
    used = {name: p for name, p in model.named_parameters() if p.grad is not None}
    assert used.keys() == packed.keys()
    for name, parameter in used.items():
        torch.testing.assert_close(packed[name], parameter.grad, rtol=1e-3, atol=1e-3)


def test_a_packed_record_beyond_the_context_is_refused(model):
    with pytest.raises(ValueError, match="301 positions in a context of 300"):
        model.packed_hidden(tokens_of(1, 303)[0], Packing.of([301, 2]))


@torch.no_grad()
@pytest.mark.parametrize("at", [1, 10, 19])
def test_a_later_token_changes_no_earlier_logits(model, at):
    tokens = tokens_of(2, 20)
    other = tokens.clone()
    other[:, at:] = (other[:, at:] + 1) % CONFIG.vocab_size
    before, after = model(tokens), model(other)
    close(after[:, :at], before[:, :at])
    assert (after[:, at:] - before[:, at:]).abs().amax(dim=-1).min() > 1e-3


@torch.no_grad()
def test_every_earlier_token_matters(model):
    tokens = tokens_of(1, 12)
    last = model(tokens)[0, -1]
    for at in range(12):
        other = tokens.clone()
        other[0, at] = (other[0, at] + 1) % CONFIG.vocab_size
        assert (model(other)[0, -1] - last).abs().max() > 1e-4


@torch.no_grad()
def test_the_order_of_earlier_tokens_matters(model):
    tokens = tokens_of(1, 12)
    swapped = tokens[:, [1, 0, *range(2, 12)]]
    assert (model(swapped)[0, -1] - model(tokens)[0, -1]).abs().max() > 1e-4


@torch.no_grad()
def test_padding_on_the_right_changes_nothing_before_it(model):
    tokens = tokens_of(3, 30)
    padded = torch.cat([tokens, torch.full((3, 17), 7)], dim=1)
    close(model(padded)[:, :30], model(tokens))


@torch.no_grad()
def test_rows_of_a_batch_do_not_see_each_other(model):
    tokens = tokens_of(4, 25)
    close(model(tokens)[2:3], model(tokens[2:3]))


@torch.no_grad()
@pytest.mark.parametrize("prefill", [1, 2, Cache.BLOCK, Cache.BLOCK + 1])
def test_the_cache_gives_the_logits_of_the_full_pass(any_model, prefill):
    model = any_model
    # To the very end of the context, and so over two growths of the cache.
    tokens = tokens_of(2, CONFIG.n_ctx)
    full = model(tokens)
    cache = Cache(model.config, 2, CPU, torch.float32)
    close(model(tokens[:, :prefill], cache), full[:, :prefill])
    for at in range(prefill, CONFIG.n_ctx):
        close(model(tokens[:, at : at + 1], cache)[:, 0], full[:, at])
    assert cache.length == CONFIG.n_ctx


@torch.no_grad()
def test_the_cache_keeps_rows_in_the_order_asked_for(model):
    tokens = tokens_of(4, 140)
    cache = new_cache(4)
    model(tokens[:, :126], cache)
    # Across the growth at 128 positions; a row may be kept twice.
    rows = torch.tensor([3, 0, 3])
    cache.keep(rows)
    full = model(tokens[rows])
    for at in range(126, 140):
        close(model(tokens[rows, at : at + 1], cache)[:, 0], full[:, at])


@torch.no_grad()
def test_the_cache_never_reserves_more_than_the_context(model):
    cache = new_cache(3)
    model(tokens_of(3, CONFIG.n_ctx), cache)
    held = sum(data.numel() * data.element_size() for data in cache._layers)
    assert held == 3 * Cache.bytes_per_row(CONFIG, torch.float32)


@torch.no_grad()
def test_a_short_record_reserves_one_block(model):
    cache = new_cache(3)
    model(tokens_of(3, 5), cache)
    held = sum(data.numel() * data.element_size() for data in cache._layers)
    assert held * CONFIG.n_ctx == 3 * Cache.bytes_per_row(CONFIG, torch.float32) * Cache.BLOCK


@torch.no_grad()
def test_too_long_input_is_refused(model):
    with pytest.raises(ValueError, match="301 positions in a context of 300"):
        model(tokens_of(1, 301))
    cache = new_cache(1)
    model(tokens_of(1, 300), cache)
    with pytest.raises(ValueError, match="301 positions"):
        model(tokens_of(1, 1), cache)


@torch.no_grad()
def test_several_tokens_after_cached_ones_are_refused(model):
    # They would not see each other causally.
    cache = new_cache(1)
    model(tokens_of(1, 5), cache)
    with pytest.raises(ValueError, match="2 tokens at once after 5 cached"):
        model(tokens_of(1, 2), cache)


@pytest.mark.parametrize(
    ("choices", "message"),
    [
        ({"n_head": 4, "n_kv_head": 3}, "n_head=4 is not a multiple of n_kv_head=3"),
        ({"n_embd": 10, "positions": "rotary"}, "heads of even width, not 5"),
        ({"mlp": "relu"}, "mlp=relu is not one of gelu, relu2, swiglu"),
    ],
)
def test_choices_that_do_not_fit_together(choices, message):
    with pytest.raises(ValueError, match=message):
        dataclasses.replace(CONFIG, **choices)


@pytest.mark.parametrize("mlp", ["relu2", "swiglu"])
def test_feed_forward_networks_are_of_equal_size(mlp):
    config = GPTConfig(vocab_size=5, n_ctx=8, n_embd=384, bias=False)
    sizes = [GPT(dataclasses.replace(config, mlp=kind)).n_parameters for kind in ("gelu", mlp)]
    assert sizes[1] == pytest.approx(sizes[0], rel=0.01)


@torch.no_grad()
def test_rotary_positions_know_distance_only():
    torch.manual_seed(0)
    q, k = torch.randn(2, 1, 1, 8)

    def score(at, other):
        turned = (
            model_gpt.Rotate.apply(x, *model_gpt.rotations(torch.tensor([position]), 8))
            for x, position in ((q, at), (k, other))
        )
        return torch.mul(*turned).sum()

    one, other, further = score(3, 7), score(50, 54), score(3, 54)
    torch.testing.assert_close(one, other)
    assert (one - further).abs() > 1e-3


def test_a_rotation_has_its_gradient():
    x = torch.randn(4, 2, 6, dtype=torch.float64, requires_grad=True)
    turns = [part.double() for part in model_gpt.rotations(torch.arange(4), 6)]
    assert torch.autograd.gradcheck(lambda x: model_gpt.Rotate.apply(x, *turns), x)


def test_squared_relu_is_that_of_pytorch():
    x = torch.randn(50, requires_grad=True)
    found, expected = model_gpt.SquaredReLU.apply(x), torch.relu(x).square()
    torch.testing.assert_close(found, expected)
    weight = torch.randn(50)
    mine, theirs = (torch.autograd.grad((y * weight).sum(), x)[0] for y in (found, expected))
    torch.testing.assert_close(mine, theirs)


def test_dropout_zeroes_its_share_and_keeps_the_mean():
    torch.manual_seed(0)
    layer, x = model_gpt.Dropout(0.1), torch.ones(300_003, requires_grad=True)
    y = layer(x)
    share = (y == 0).float().mean().item()
    assert abs(share - 0.1) < 5 * (0.1 * 0.9 / len(x)) ** 0.5
    assert y[y != 0].unique().item() == pytest.approx(1 / 0.9, rel=1e-4)
    assert abs(y.mean().item() - 1) < 5 * (0.1 / 0.9 / len(x)) ** 0.5
    y.sum().backward()
    assert torch.equal(x.grad, y.detach())
    # Neighbours, of which four share a random number, are independent.
    kept = (y.detach() != 0).float()
    for distance in (1, 2, 3, 4):
        pair = (kept[distance:] * kept[:-distance]).mean().item()
        assert abs(pair - 0.81) < 5 * (0.81 * 0.19 * 3 / len(x)) ** 0.5
    assert torch.equal(layer.eval()(x), x)


def test_heads_must_divide_the_width():
    with pytest.raises(ValueError, match="n_embd=10 is not a multiple of n_head=4"):
        GPTConfig(vocab_size=5, n_ctx=8, n_embd=10, n_head=4)


def test_the_shape_of_the_paper_has_about_9_5_million_parameters():
    with torch.device("meta"):
        model = GPT(GPTConfig(vocab_size=5_115, n_ctx=1_024))
    width, layers = 384, 4
    block = 12 * width**2 + 13 * width
    expected = (5_115 + 1_024) * width + layers * block + 2 * width
    assert model.n_parameters == expected
    assert 9.4e6 < model.n_parameters < 9.5e6


def test_the_output_layer_is_the_token_embedding(model):
    names = [name for name, _ in model.named_parameters()]
    assert [name for name in names if "token_embedding" in name] == ["token_embedding.weight"]
    hidden = model.hidden(tokens_of(1, 4))
    close(model.logits(hidden), hidden @ model.token_embedding.weight.T)
    # A token that is never an input has its gradient from the output alone.
    model(torch.zeros(1, 3, dtype=torch.int64)).logsumexp(-1).sum().backward()
    assert model.token_embedding.weight.grad[1:].abs().sum(dim=1).min() > 0


def test_dropout_acts_in_training_only(model):
    tokens = tokens_of(2, 10)
    assert torch.equal(model(tokens), model(tokens))
    model.train()
    assert not torch.equal(model(tokens), model(tokens))
    model.eval()
    assert torch.equal(model(tokens), model(tokens))


def test_a_seed_makes_the_weights():
    made = []
    for seed in (0, 0, 1):
        torch.manual_seed(seed)
        made.append(GPT(CONFIG).state_dict())
    assert all(torch.equal(made[0][name], made[1][name]) for name in made[0])
    assert not torch.equal(
        made[0]["position_embedding.weight"], made[2]["position_embedding.weight"]
    )


def test_weights_begin_small_and_smaller_into_the_residual_stream():
    torch.manual_seed(0)
    model = GPT(GPTConfig(vocab_size=100, n_ctx=64, n_layer=8, n_head=2, n_embd=64))
    for name, parameter in model.named_parameters():
        if name.endswith("bias"):
            assert parameter.abs().max() == 0
        elif name.endswith(("attention.out.weight", "down.weight")):
            assert parameter.std().item() == pytest.approx(0.02 / 4, rel=0.1)
        elif "norm" not in name:
            assert parameter.std().item() == pytest.approx(0.02, rel=0.1)


@torch.no_grad()
def test_weights_survive_safetensors(model, tmp_path):
    save_file(model.state_dict(), tmp_path / "model.safetensors")
    other = GPT(CONFIG).eval()
    other.load_state_dict(load_file(tmp_path / "model.safetensors"))
    assert torch.equal(other(tokens_of(2, 30)), model(tokens_of(2, 30)))


def test_a_batch_can_be_learned_by_heart():
    torch.manual_seed(0)
    model = GPT(GPTConfig(vocab_size=20, n_ctx=16, n_layer=1, n_head=2, n_embd=32, dropout=0.0))
    tokens = tokens_of(4, 17) % 20
    optimiser = torch.optim.Adam(model.parameters(), lr=3e-2)
    for _ in range(40):
        logits = model(tokens[:, :-1])
        loss = torch.nn.functional.cross_entropy(logits.flatten(0, 1), tokens[:, 1:].flatten())
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    assert loss.item() < 0.1
