"""How a model is written for transformers: as one of its architectures, or with code of ours.

An architecture of transformers is taken where it has the very same weights and computes the same
with them; whoever loads the model then runs no code but that of transformers. Any other model takes
``modeling_synehrgy.py`` along.
"""

import re
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor

from synehrgy.model import GPT, GPTConfig

# What learns to predict tokens further ahead: training needs it, sampling does not.
AHEAD = "ahead."


@dataclass(frozen=True)
class Architecture:
    """A class of models and where it has the weights of ours.

    Attributes:
        model_class: its name, in transformers or in the code that goes with it.
        fits: whether it has all weights of a model, no others, and gives the same logits.
        settings: of a model, in the words of its ``config.json``.
        names: what it calls each part of ours; several share its rows from the first to the last.
            ``{}`` is the number of the block. None: as ours.
        transposed: whether it keeps the matrices of the blocks with a row per input.
        has_code: whether ``modeling_synehrgy.py`` goes with it.
    """

    model_class: str
    fits: Callable[[GPTConfig], bool]
    settings: Callable[[GPTConfig], dict[str, Any]]
    names: dict[str, list[str]] | None = None
    transposed: bool = False
    has_code: bool = False

    def weights_of(self, model: GPT) -> dict[str, Tensor]:
        """The weights of a model by its names, without those of tokens further ahead."""
        found = {}
        for name, weight in model.state_dict().items():
            if name.startswith(AHEAD):
                continue
            theirs = self._theirs(name)
            parts = weight.split(self._rows(model.config, weight, len(theirs)))
            for their, part in zip(theirs, parts, strict=True):
                # A copy, for parts of one weight share its memory.
                turned = part.T if self._is_turned(name, weight) else part
                found[their] = turned.clone(memory_format=torch.contiguous_format)
        return found

    def ours(self, config: GPTConfig, weights: dict[str, Tensor]) -> dict[str, Tensor]:
        """The inverse of ``weights_of``.

        Raises:
            KeyError: a weight is missing.
            ValueError: a weight of another shape.
        """
        with torch.device("meta"):
            expected = GPT(config).state_dict()
        found = {}
        for name, like in expected.items():
            if name.startswith(AHEAD):
                continue
            parts = [weights[their] for their in self._theirs(name)]
            if self._is_turned(name, like):
                parts = [part.T for part in parts]
            weight = torch.cat(parts).to(like.dtype).contiguous()
            if weight.shape != like.shape:
                raise ValueError(f"{name} has shape {[*weight.shape]}, not {[*like.shape]}")
            found[name] = weight
        return found

    def _theirs(self, name: str) -> list[str]:
        if self.names is None:
            return [name]
        place, _, kind = name.rpartition(".")
        block = re.fullmatch(r"blocks\.(\d+)\.(.+)", place)
        part, number = (block[2], block[1]) if block else (place, "")
        return [f"{theirs.format(number)}.{kind}" for theirs in self.names[part]]

    def _rows(self, config: GPTConfig, weight: Tensor, n_parts: int) -> list[int]:
        if n_parts == 3:
            heads = (config.n_head, config.key_heads, config.key_heads)
            return [n * config.head_width for n in heads]
        return [len(weight) // n_parts] * n_parts

    def _is_turned(self, name: str, weight: Tensor) -> bool:
        return self.transposed and name.startswith("blocks.") and weight.ndim == 2


GPT2 = Architecture(
    "GPT2LMHeadModel",
    lambda c: (
        (c.positions, c.norm, c.qk_norm, c.bias) == ("learned", "layer", False, True)
        and c.mlp in ("gelu", "relu2")
        and c.key_heads == c.n_head
    ),
    lambda c: {
        "model_type": "gpt2",
        "n_positions": c.n_ctx,
        "n_layer": c.n_layer,
        "n_head": c.n_head,
        "n_embd": c.n_embd,
        "activation_function": {"gelu": "gelu_pytorch_tanh", "relu2": "relu2"}[c.mlp],
        "layer_norm_epsilon": 1e-5,
        "embd_pdrop": c.dropout,
        "resid_pdrop": c.dropout,
        "attn_pdrop": 0.0,
        "tie_word_embeddings": c.tied,
    },
    {
        "token_embedding": ["transformer.wte"],
        "position_embedding": ["transformer.wpe"],
        "norm_attention": ["transformer.h.{}.ln_1"],
        "attention.qkv": ["transformer.h.{}.attn.c_attn"],
        "attention.out": ["transformer.h.{}.attn.c_proj"],
        "norm_mlp": ["transformer.h.{}.ln_2"],
        "mlp.up": ["transformer.h.{}.mlp.c_fc"],
        "mlp.down": ["transformer.h.{}.mlp.c_proj"],
        "norm": ["transformer.ln_f"],
        "head": ["lm_head"],
    },
    transposed=True,
)

LLAMA = Architecture(
    "LlamaForCausalLM",
    lambda c: (c.positions, c.norm, c.qk_norm, c.mlp) == ("rotary", "rms", False, "swiglu"),
    lambda c: {
        "model_type": "llama",
        "max_position_embeddings": c.n_ctx,
        "num_hidden_layers": c.n_layer,
        "num_attention_heads": c.n_head,
        "num_key_value_heads": c.key_heads,
        "head_dim": c.head_width,
        "hidden_size": c.n_embd,
        "intermediate_size": c.mlp_width,
        "hidden_act": "silu",
        "rope_parameters": {"rope_type": "default", "rope_theta": 10_000.0},
        "rms_norm_eps": torch.finfo(torch.float32).eps,
        "attention_bias": c.bias,
        "mlp_bias": c.bias,
        "tie_word_embeddings": c.tied,
    },
    {
        "token_embedding": ["model.embed_tokens"],
        "norm_attention": ["model.layers.{}.input_layernorm"],
        "attention.qkv": [f"model.layers.{{}}.self_attn.{part}_proj" for part in "qkv"],
        "attention.out": ["model.layers.{}.self_attn.o_proj"],
        "norm_mlp": ["model.layers.{}.post_attention_layernorm"],
        "mlp.up": ["model.layers.{}.mlp.gate_proj", "model.layers.{}.mlp.up_proj"],
        "mlp.down": ["model.layers.{}.mlp.down_proj"],
        "norm": ["model.norm"],
        "head": ["lm_head"],
    },
)


def _own_settings(config: GPTConfig) -> dict[str, Any]:
    shape = {**asdict(config), "n_kv_head": config.key_heads}
    del shape["n_next"]
    code = "modeling_synehrgy"
    return {
        "model_type": "synehrgy",
        "auto_map": {
            "AutoConfig": f"{code}.SynehrgyConfig",
            "AutoModelForCausalLM": f"{code}.SynehrgyForCausalLM",
        },
        **shape,
    }


OWN = Architecture("SynehrgyForCausalLM", lambda _: True, _own_settings, has_code=True)


def architecture_of(config: GPTConfig) -> Architecture:
    """The architecture that a model is written as."""
    return next(one for one in (GPT2, LLAMA, OWN) if one.fits(config))
