"""The GPT: causal, the same with and without a cache, of the published size."""

import copy
import dataclasses

import pytest
import torch
from safetensors.torch import load_file, save_file

from synehrgy.model import BLOCK, GPT, Cache, GPTConfig, Packing, attention
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


def begun(model, records, lengths, dtype=torch.float32):
    """A cache of records [rows, time], each of which has begun with so many tokens."""
    cache = Cache(model.config, len(records), CPU, dtype)
    for row, n in enumerate(lengths):
        cache.begin(row, model.prefix(records[row, :n]) if n else None)
    return cache


def stepped(model, records, cache):
    """Logits [rows, vocabulary] after the next token of each record; the cache moves on."""
    at = cache.lengths.clone()
    return model.logits(model.step(records[torch.arange(len(records)), at], cache))


@torch.no_grad()
@pytest.mark.parametrize("prefill", [1, 2, BLOCK, BLOCK + 1])
def test_steps_give_the_logits_of_the_full_pass_to_the_end_of_the_context(any_model, prefill):
    model = any_model
    tokens = tokens_of(2, CONFIG.n_ctx)
    full = model(tokens)
    cache = begun(model, tokens, [prefill, prefill])
    for at in range(prefill, CONFIG.n_ctx):
        close(stepped(model, tokens, cache), full[:, at])
    assert cache.lengths.tolist() == [CONFIG.n_ctx] * 2


@torch.no_grad()
def test_rows_at_different_places_give_the_logits_of_the_full_pass(any_model):
    """Also where a row begins anew while the others go on."""
    model = any_model
    records = tokens_of(4, 90)
    full = model(records)
    everyone = torch.arange(4)
    cache = begun(model, records, [0, 1, 17, 64])
    for step in range(26):
        if step == 5:
            cache.begin(0, None)
        if step == 11:
            cache.begin(3, model.prefix(records[3, :33]))
            # Shorter than what stood there before.
            cache.begin(2, model.prefix(records[2, :3]))
        at = cache.lengths.clone()
        close(stepped(model, records, cache), full[everyone, at])
        assert torch.equal(cache.lengths, at + 1)
    assert cache.lengths.tolist() == [21, 27, 18, 48]


@torch.no_grad()
def test_a_row_may_begin_with_another_record(model):
    first, second = tokens_of(3, 60), tokens_of(3, 60, seed=2)
    cache = begun(model, first, [20, 0, 50])
    for _ in range(8):
        stepped(model, first, cache)
    cache.begin(2, model.prefix(second[2, :5]))
    both = torch.stack([first[0], first[1], second[2]])
    full = model(both)
    for _ in range(20):
        at = cache.lengths.clone()
        close(stepped(model, both, cache), full[torch.arange(3), at])


@torch.no_grad()
@pytest.mark.parametrize("n", [1, 15, 16, 17, CONFIG.n_ctx])
def test_a_prefix_is_what_the_cache_would_keep_after_that_many_steps(any_model, n):
    model = any_model
    tokens = tokens_of(1, n)
    cache = begun(model, tokens, [0])
    for _ in range(n):
        stepped(model, tokens, cache)
    found = model.prefix(tokens[0])
    assert len(found) == model.config.n_layer
    for layer, parts in enumerate(found):
        for part, held in zip(parts, (cache.keys[layer], cache.values[layer]), strict=True):
            assert part.shape == (model.config.key_heads, n, model.config.head_width)
            close(part, held[0, :, :n])


def in_dtype(model, dtype):
    return copy.deepcopy(model).to(dtype)


@torch.no_grad()
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_prefix_is_the_same_to_the_last_bit_whatever_was_asked_before(any_model, dtype):
    model = in_dtype(any_model, dtype)
    lengths = [1, 5, 16, 40]
    records = tokens_of(4, 60)
    expected = [model.prefix(records[i, :n].clone()) for i, n in enumerate(lengths)]
    cache = begun(model, records.flip(0), [7, 0, 50, 3], dtype)
    for _ in range(3):
        stepped(model, records.flip(0), cache)
    for i in (2, 0, 3, 1):
        found = model.prefix(records[i, : lengths[i]])
        for mine, theirs in zip(found, expected[i], strict=True):
            assert all(map(torch.equal, mine, theirs))


@torch.no_grad()
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_row_of_a_step_depends_on_no_other_to_the_last_bit(any_model, dtype):
    assert_rows_are_independent(in_dtype(any_model, dtype), dtype)


@torch.no_grad()
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_rows_of_the_published_model_are_independent_to_the_last_bit(dtype):
    """Its matrices are large enough for the kernels that split them."""
    torch.manual_seed(0)
    model = GPT(GPTConfig(vocab_size=5_115, n_ctx=64, n_layer=1)).eval().to(dtype)
    assert_rows_are_independent(model, dtype, n_steps=2)


def assert_rows_are_independent(model, dtype, n_steps=4):
    """The same record gives the same logits in any place of batches of whole blocks."""
    n_rows = 3 * BLOCK
    records = tokens_of(n_rows, 40)
    lengths = [i % 4 * 5 for i in range(n_rows)]
    expected, cache = [], begun(model, records, lengths, dtype)
    for _ in range(n_steps):
        expected.append(stepped(model, records, cache))
    generator = torch.Generator().manual_seed(3)
    for n in (BLOCK, 2 * BLOCK):
        rows = torch.randperm(n_rows, generator=generator)[:n]
        cache = begun(model, records[rows], [lengths[i] for i in rows.tolist()], dtype)
        for logits in expected:
            assert torch.equal(stepped(model, records[rows], cache), logits[rows])


@torch.no_grad()
def test_the_cache_keeps_rows_in_the_order_asked_for(model):
    tokens = tokens_of(4, 140)
    cache = begun(model, tokens, [120, 0, 60, 126])
    # A row may be kept twice.
    rows = torch.tensor([3, 0, 3])
    cache.keep(rows)
    assert cache.lengths.tolist() == [126, 120, 126]
    full = model(tokens[rows])
    for _ in range(14):
        at = cache.lengths.clone()
        close(stepped(model, tokens[rows], cache), full[torch.arange(3), at])


def held_by(cache):
    """Bytes of keys and values."""
    return sum(part.untyped_storage().nbytes() for part in (*cache.keys, *cache.values))


@torch.no_grad()
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_the_cache_holds_its_bytes_per_row_and_never_grows(any_model, dtype):
    model = in_dtype(any_model, dtype)
    per_row = Cache.bytes_per_row(model.config, dtype)
    width = model.config.key_heads * model.config.head_width
    assert per_row == 2 * CONFIG.n_layer * CONFIG.n_ctx * width * dtype.itemsize
    records = tokens_of(3, CONFIG.n_ctx)
    cache = begun(model, records, [0, 290, 5], dtype)
    places = [part.data_ptr() for part in (*cache.keys, *cache.values)]
    assert held_by(cache) == 3 * per_row
    for _ in range(10):
        stepped(model, records, cache)
    cache.begin(1, model.prefix(records[1, :70]))
    assert held_by(cache) == 3 * per_row
    assert places == [part.data_ptr() for part in (*cache.keys, *cache.values)]
    cache.keep(torch.tensor([2]))
    assert held_by(cache) == per_row


@torch.no_grad()
def test_a_cache_of_fewer_positions_is_smaller_and_gives_the_same(model):
    cache = Cache(CONFIG, 2, CPU, torch.float32, capacity=12)
    assert held_by(cache) == 2 * Cache.bytes_per_row(CONFIG, torch.float32, 12)
    assert 25 * held_by(cache) == 2 * Cache.bytes_per_row(CONFIG, torch.float32)
    tokens = tokens_of(2, 12)
    full = model(tokens)
    for at in range(12):
        close(stepped(model, tokens, cache), full[:, at])


@pytest.fixture
def nothing_is_there_by_chance():
    """Memory that is not written holds no numbers, which by chance it mostly does."""
    torch.use_deterministic_algorithms(True)
    assert torch.empty(3).isnan().all()
    yield
    torch.use_deterministic_algorithms(False)


@torch.no_grad()
@pytest.mark.usefixtures("nothing_is_there_by_chance")
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_steps_read_only_what_was_written_also_the_way_of_a_gpu(any_model, dtype):
    """Double precision goes that way, which is the general kernel behind a mask."""
    model = in_dtype(any_model, dtype)
    records = tokens_of(3, 60)
    full = model(records)
    cache = begun(model, records, [0, 17, 30], dtype)
    cache.horizon = 45
    for _ in range(14):
        at = cache.lengths.clone()
        close(stepped(model, records, cache), full[torch.arange(3), at])


@torch.no_grad()
def test_too_long_input_is_refused(model):
    with pytest.raises(ValueError, match="301 positions in a context of 300"):
        model(tokens_of(1, 301))
    with pytest.raises(ValueError, match="301 positions in a context of 300"):
        model.prefix(tokens_of(1, 301)[0])


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
