"""A model has the same logits in transformers as here, whatever its shape."""

import itertools
from dataclasses import fields, replace
from pathlib import Path

import pytest
import torch
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors.torch import save_file

from synehrgy.errors import UserError
from synehrgy.export.architectures import GPT2, LLAMA, OWN, architecture_of
from synehrgy.export.check import check_export
from synehrgy.export.hf import write_model
from synehrgy.export.words import tokenizer_config, tokenizer_json
from synehrgy.files import REPOSITORY, write_json
from synehrgy.model import GPT, GPTConfig
from synehrgy.model.gpt import MLPS, NORMS, POSITIONS
from synehrgy.settings import ModelSettings, TokenSettings
from synehrgy.tokenizer import Tokenizer
from synehrgy.training.checkpoint import Run
from tests.cohorts import small_cohort

N_CTX = 48
SHIPPED = {path.stem: path for path in (REPOSITORY / "configs" / "model").glob("*.yaml")}

# All that a shape chooses from, besides sizes.
CHOICES = {
    "positions": POSITIONS,
    "norm": NORMS,
    "mlp": MLPS,
    "qk_norm": (False, True),
    "bias": (False, True),
    "tied": (False, True),
    "n_kv_head": (None, 1),
}


@pytest.fixture(scope="module")
def tokenizer():
    return Tokenizer.fit(small_cohort(), TokenSettings(min_code_count=1))


def run_of(tokenizer, seed=0, **shape) -> Run:
    """A run whose weights are larger than fresh ones, so that each of them matters."""
    torch.manual_seed(seed)
    shape = {"n_layer": 2, "n_head": 2, "n_embd": 16, "n_ctx": N_CTX, **shape}
    model = GPT(GPTConfig(vocab_size=len(tokenizer.vocabulary), **shape)).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.3 * torch.randn_like(parameter))
    return Run(Path("run"), model, tokenizer, {})


def exported(run, folder):
    folder.mkdir()
    write_model(folder, run, architecture_of(run.model.config))
    return folder


def loaded(transformers, folder):
    """As a user loads it; with the code of the folder only where it has some."""
    trusted = {"trust_remote_code": True} if (folder / "modeling_synehrgy.py").exists() else {}
    return transformers.AutoModelForCausalLM.from_pretrained(folder, **trusted).eval()


def tokens_of(run, batch, time, seed=1):
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(run.model.config.vocab_size, (batch, time), generator=generator)


def close(theirs, ours):
    assert theirs.dtype == torch.float32
    torch.testing.assert_close(theirs, ours, rtol=1e-4, atol=1e-4)


def in_memory(transformers, run):
    """The same without the detour over files."""
    from synehrgy.export import modeling_synehrgy as code

    architecture, config = architecture_of(run.model.config), run.model.config
    module = code if architecture.has_code else transformers
    kind = getattr(module, architecture.model_class)
    given_settings = {**architecture.settings(config), "vocab_size": config.vocab_size}
    model = kind(kind.config_class(**given_settings)).eval()
    weights = architecture.weights_of(run.model)
    missing, unexpected = model.load_state_dict(weights, strict=False)
    assert not unexpected
    # Shared with the embedding of tokens.
    assert set(missing) <= ({"lm_head.weight"} if config.tied else set())
    model.tie_weights()
    return model


def test_the_choices_are_all_that_settings_have():
    sizes = {"name", "n_layer", "n_head", "n_embd", "dropout"}
    # What is shared in training is folded in where it ends.
    sizes |= {"shared"}
    assert {field.name for field in fields(ModelSettings)} - sizes == set(CHOICES)


@torch.inference_mode()
@pytest.mark.parametrize("name", SHIPPED)
def test_shipped_models(name, transformers, tokenizer, tmp_path):
    shape = yaml.safe_load(SHIPPED[name].read_text(encoding="utf-8"))["model"]
    del shape["name"]
    shape.pop("shared", None)
    run = run_of(tokenizer, **shape)
    folder = exported(run, tmp_path / "model")
    model = loaded(transformers, folder)
    # At the size as shipped the logits of these weights are in the hundreds.
    tokens = tokens_of(run, 3, N_CTX)
    ours = run.model(tokens)
    theirs = model(tokens).logits
    torch.testing.assert_close(theirs, ours, rtol=1e-5, atol=1e-5 * float(ours.abs().max()))
    assert (folder / "modeling_synehrgy.py").exists() == (name != "gpt")
    assert type(model).__name__ == ("GPT2LMHeadModel" if name == "gpt" else "SynehrgyForCausalLM")


@torch.inference_mode()
def test_every_combination(transformers, tokenizer):
    """All that train.py accepts, each with all of its weights and the same logits."""
    kinds = set()
    for choices in itertools.product(*CHOICES.values()):
        run = run_of(tokenizer, **dict(zip(CHOICES, choices, strict=True)))
        kinds.add(architecture_of(run.model.config).model_class)
        tokens = tokens_of(run, 2, 9)
        close(in_memory(transformers, run)(tokens).logits, run.model(tokens))
    assert kinds == {one.model_class for one in (GPT2, LLAMA, OWN)}


@st.composite
def shapes(draw):
    """Any shape of a few weights."""
    n_head, width = draw(st.integers(1, 4)), 2 * draw(st.integers(1, 4))
    divisors = [n for n in range(1, n_head + 1) if n_head % n == 0]
    return {
        **{key: draw(st.sampled_from(values)) for key, values in CHOICES.items()},
        "n_kv_head": draw(st.sampled_from([None, *divisors])),
        "n_head": n_head,
        "n_embd": n_head * width,
        "n_layer": draw(st.integers(1, 3)),
        "n_next": draw(st.integers(1, 2)),
        "dropout": draw(st.sampled_from([0.0, 0.3])),
    }


@settings(max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(shape=shapes(), seed=st.integers(0, 3), left=st.integers(0, 5))
@torch.inference_mode()
def test_any_shape(transformers, tokenizer, tmp_path_factory, shape, seed, left):
    """From files: logits, padding at the left, and generation with a cache."""
    run = run_of(tokenizer, seed, **shape)
    model = loaded(transformers, exported(run, tmp_path_factory.mktemp("any") / "model"))
    tokens = tokens_of(run, 2, 12, seed)
    ours = run.model(tokens)
    close(model(tokens).logits, ours)

    pad = torch.full((2, left), model.config.pad_token_id)
    mask = torch.cat([torch.zeros_like(pad), torch.ones_like(tokens)], dim=1)
    padded = torch.cat([pad, tokens], dim=1)
    # Positions are counted by generate, if the model does not do so itself.
    positions = (mask.cumsum(dim=1) - 1).clamp_min(0)
    theirs = model(padded, attention_mask=mask, position_ids=positions).logits
    close(theirs[:, left:], ours)

    greedy = {"do_sample": False, "max_length": left + 20, "eos_token_id": None}
    cached, plain = (
        model.generate(padded, attention_mask=mask, use_cache=use_cache, **greedy)
        for use_cache in (True, False)
    )
    assert cached.shape == (2, left + 20)
    assert torch.equal(cached, plain)


@torch.inference_mode()
@pytest.mark.parametrize("name", ["own", "gpt2", "llama"])
def test_generation_is_that_of_the_model(name, transformers, tokenizer, tmp_path):
    shape = {
        "own": {"positions": "rotary", "qk_norm": True, "bias": False, "n_kv_head": 1},
        "gpt2": {},
        "llama": {"positions": "rotary", "norm": "rms", "mlp": "swiglu", "n_kv_head": 1},
    }[name]
    run = run_of(tokenizer, **shape)
    model = loaded(transformers, exported(run, tmp_path / "model"))
    tokens = tokens_of(run, 3, 4)
    found = model.generate(tokens, do_sample=False, eos_token_id=None)
    # Up to the context, by the settings of the folder.
    assert found.shape == (3, N_CTX)
    wanted = run.model(found)[:, 3:-1].argmax(dim=-1)
    assert torch.equal(found[:, 4:], wanted)
    if name == "own":
        with pytest.raises(ValueError, match=f"{N_CTX + 1} positions in a context of {N_CTX}"):
            model(tokens_of(run, 1, N_CTX + 1))


def test_the_code_learns_as_the_model_does(transformers, tokenizer, tmp_path):
    """The loss of labels, its gradients, and what is saved again."""
    shape = {"positions": "rotary", "qk_norm": True, "bias": False, "mlp": "relu2"}
    run = run_of(tokenizer, **shape, tied=False)
    model = loaded(transformers, exported(run, tmp_path / "model"))
    tokens = tokens_of(run, 2, 10)
    loss = model(tokens, labels=tokens).loss
    logits = run.model(tokens)[:, :-1].flatten(0, 1)
    expected = torch.nn.functional.cross_entropy(logits, tokens[:, 1:].flatten())
    torch.testing.assert_close(loss, expected)
    loss.backward()
    expected.backward()
    gradients = dict(model.named_parameters())
    for place, parameter in run.model.named_parameters():
        torch.testing.assert_close(gradients[place].grad, parameter.grad, rtol=1e-3, atol=1e-4)
    states = model(tokens, output_hidden_states=True).hidden_states
    assert [state.shape for state in states] == [(2, 10, 16)] * 3
    torch.testing.assert_close(states[-1], run.model.hidden(tokens), rtol=1e-4, atol=1e-4)
    model.save_pretrained(tmp_path / "again")
    again = loaded(transformers, tmp_path / "again")
    close(again(tokens).logits, run.model(tokens))


@pytest.mark.parametrize("shape", [{}, {"positions": "rotary", "norm": "rms", "mlp": "swiglu"}])
def test_weights_come_back(tokenizer, shape):
    run = run_of(tokenizer, **shape, n_kv_head=1 if shape else None, n_next=2)
    config = run.model.config
    architecture = architecture_of(config)
    weights = architecture.weights_of(run.model)
    # Nothing shares memory, which safetensors refuses.
    assert len({weight.untyped_storage().data_ptr() for weight in weights.values()}) == len(weights)
    back = architecture.ours(config, weights)
    kept = {k: w for k, w in run.model.state_dict().items() if not k.startswith("ahead.")}
    assert back.keys() == kept.keys()
    assert all(torch.equal(back[name], kept[name]) for name in kept)


def test_weights_of_another_shape_do_not_come_back(tokenizer):
    run = run_of(tokenizer)
    weights = GPT2.weights_of(run.model)
    with pytest.raises(ValueError, match=r"token_embedding\.weight has shape"):
        GPT2.ours(replace(run.model.config, vocab_size=7), weights)
    with pytest.raises(KeyError, match=r"transformer\.h\.2"):
        GPT2.ours(replace(run.model.config, n_layer=3), weights)


@pytest.mark.parametrize("spoilt", ["weights", "words"])
def test_the_check_finds_what_is_off(spoilt, transformers, tokenizer, tmp_path):
    run = run_of(tokenizer)
    folder = exported(run, tmp_path / "model")
    words = tokenizer_json(tokenizer)
    write_json(folder / "tokenizer.json", words)
    write_json(folder / "tokenizer_config.json", tokenizer_config(N_CTX))
    check_export(folder, run, GPT2, transformers)
    if spoilt == "weights":
        weights = GPT2.weights_of(run.model)
        weights["transformer.h.0.mlp.c_fc.weight"][0, 0] += 1
        save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    else:
        numbers = words["model"]["vocab"]
        last, before = [*numbers][-1], [*numbers][-2]
        numbers[last], numbers[before] = numbers[before], numbers[last]
        write_json(folder / "tokenizer.json", words)
    says = {"weights": "computes other logits", "words": "numbers the tokens in another way"}
    with pytest.raises(UserError, match=says[spoilt]):
        check_export(folder, run, GPT2, transformers)
