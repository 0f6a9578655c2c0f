"""A GPT decoder of SynEHRgy for transformers.

Pre-norm blocks with the choices of its configuration: learned or rotary positions, layer or RMS
norm, normalised queries and keys, heads of keys shared by several of queries, and several
feed-forward networks. This file stands by itself: it needs PyTorch and transformers only.
"""

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from transformers import DynamicCache, GenerationMixin, PretrainedConfig, PreTrainedModel
from transformers.modeling_outputs import CausalLMOutputWithPast

# Later versions of transformers call the keys and values of earlier tokens "cache".
_CACHE = next(
    name
    for name in ("cache", "past_key_values")
    if name in CausalLMOutputWithPast.__dataclass_fields__
)


class SynehrgyConfig(PretrainedConfig):
    """Shape of the model.

    Args:
        vocab_size, n_ctx: tokens it knows, and positions it has.
        n_layer, n_head, n_embd: blocks, attention heads, width of the residual stream.
        n_kv_head: heads of keys and values.
        dropout: of what is added to the residual stream, in training.
        positions: ``learned`` or ``rotary``.
        norm: ``layer`` or ``rms``.
        mlp: ``gelu``, ``relu2`` or ``swiglu``.
        qk_norm: queries and keys are normalised.
        bias: linear layers and layer norms have biases.
        tied: the output layer shares the weights of the token embedding.
    """

    model_type = "synehrgy"
    attribute_map = {  # noqa: RUF012
        "hidden_size": "n_embd",
        "num_hidden_layers": "n_layer",
        "num_attention_heads": "n_head",
        "num_key_value_heads": "n_kv_head",
        "max_position_embeddings": "n_ctx",
    }

    def __init__(
        self,
        vocab_size: int = 1,
        n_ctx: int = 1024,
        n_layer: int = 4,
        n_head: int = 4,
        n_embd: int = 384,
        n_kv_head: int = 4,
        dropout: float = 0.0,
        positions: str = "learned",
        norm: str = "layer",
        mlp: str = "gelu",
        qk_norm: bool = False,
        bias: bool = True,
        tied: bool = True,
        **kwargs: Any,
    ):
        self.vocab_size, self.n_ctx = vocab_size, n_ctx
        self.n_layer, self.n_head, self.n_embd, self.n_kv_head = n_layer, n_head, n_embd, n_kv_head
        self.dropout, self.positions, self.norm, self.mlp = dropout, positions, norm, mlp
        self.qk_norm, self.bias, self.tied = qk_norm, bias, tied
        # The model shares the weights itself.
        super().__init__(**{**kwargs, "tie_word_embeddings": False})


def _norm(config: SynehrgyConfig) -> nn.Module:
    if config.norm == "rms":
        return nn.RMSNorm(config.n_embd)
    return nn.LayerNorm(config.n_embd, bias=config.bias)


def _turned(x: Tensor, positions: Tensor) -> Tensor:
    """Heads [batch, time, heads, width] turned by their positions [batch, time]."""
    width = x.shape[-1]
    pairs = torch.arange(0, width, 2, device=x.device, dtype=torch.float32)
    angles = positions[:, :, None, None] * 10_000.0 ** (-pairs / width)
    cosine, sine = angles.cos().to(x.dtype), angles.sin().to(x.dtype)
    first, second = x.chunk(2, dim=-1)
    return torch.cat([first * cosine - second * sine, first * sine + second * cosine], dim=-1)


class Attention(nn.Module):
    """Causal self-attention of several heads."""

    def __init__(self, config: SynehrgyConfig, layer: int):
        super().__init__()
        self.config, self.layer = config, layer
        self.width = config.n_embd // config.n_head
        n_heads = config.n_head + 2 * config.n_kv_head
        self.qkv = nn.Linear(config.n_embd, n_heads * self.width, bias=config.bias)
        self.out = nn.Linear(config.n_embd, config.n_embd, bias=config.bias)

    def forward(self, x: Tensor, positions: Tensor, seen: Tensor, cache: Any) -> Tensor:
        """[batch, time, width] to the same shape; ``seen`` is what each token may look at."""
        config = self.config
        heads = self.qkv(x).unflatten(-1, (-1, self.width))
        scored, v = heads.split([config.n_head + config.n_kv_head, config.n_kv_head], dim=-2)
        if config.qk_norm:
            scored = F.layer_norm(scored, (self.width,)).to(v.dtype)
        if config.positions == "rotary":
            scored = _turned(scored, positions)
        q, k = scored.split([config.n_head, config.n_kv_head], dim=-2)
        q, k, v = (part.transpose(1, 2) for part in (q, k, v))
        if cache is not None:
            k, v = cache.update(k, v, self.layer)
        shared = config.n_head // config.n_kv_head
        k, v = (part.repeat_interleave(shared, dim=1) for part in (k, v))
        y = F.scaled_dot_product_attention(q, k, v, attn_mask=seen)
        return self.out(y.transpose(1, 2).reshape(x.shape))


class MLP(nn.Module):
    """The feed-forward network of a block."""

    def __init__(self, config: SynehrgyConfig):
        super().__init__()
        self.kind = config.mlp
        width, n_up = 4 * config.n_embd, 1
        if self.kind == "swiglu":
            width, n_up = round(width * 2 / 3 / 64) * 64 or 64, 2
        self.up = nn.Linear(config.n_embd, n_up * width, bias=config.bias)
        self.down = nn.Linear(width, config.n_embd, bias=config.bias)

    def forward(self, x: Tensor) -> Tensor:
        """[..., width] to the same shape."""
        hidden = self.up(x)
        if self.kind == "gelu":
            hidden = F.gelu(hidden, approximate="tanh")
        elif self.kind == "relu2":
            hidden = F.relu(hidden).square()
        else:
            gate, hidden = hidden.chunk(2, dim=-1)
            hidden = F.silu(gate) * hidden
        return self.down(hidden)


class Block(nn.Module):
    """Attention, then a feed-forward network, each on its residual."""

    def __init__(self, config: SynehrgyConfig, layer: int):
        super().__init__()
        self.norm_attention = _norm(config)
        self.attention = Attention(config, layer)
        self.norm_mlp = _norm(config)
        self.mlp = MLP(config)
        self.dropout = nn.Dropout(config.dropout)

    def forward(self, x: Tensor, positions: Tensor, seen: Tensor, cache: Any) -> Tensor:
        """[batch, time, width] to the same shape."""
        x = x + self.dropout(self.attention(self.norm_attention(x), positions, seen, cache))
        return x + self.dropout(self.mlp(self.norm_mlp(x)))


class SynehrgyForCausalLM(PreTrainedModel, GenerationMixin):
    """Token ids to the logits of the next token."""

    config_class = SynehrgyConfig
    _no_split_modules = ["Block"]  # noqa: RUF012

    def __init__(self, config: SynehrgyConfig):
        super().__init__(config)
        self.token_embedding = nn.Embedding(config.vocab_size, config.n_embd)
        if config.positions == "learned":
            self.position_embedding = nn.Embedding(config.n_ctx, config.n_embd)
        self.dropout = nn.Dropout(config.dropout)
        self.blocks = nn.ModuleList(Block(config, layer) for layer in range(config.n_layer))
        self.norm = _norm(config)
        if not config.tied:
            self.head = nn.Linear(config.n_embd, config.vocab_size, bias=False)
        self.post_init()

    def get_input_embeddings(self) -> nn.Module:
        """The embedding of tokens."""
        return self.token_embedding

    def set_input_embeddings(self, value: nn.Embedding) -> None:
        """Replace the embedding of tokens."""
        self.token_embedding = value

    def forward(
        self,
        input_ids: Tensor | None = None,
        attention_mask: Tensor | None = None,
        position_ids: Tensor | None = None,
        past_key_values: Any = None,
        cache: Any = None,
        inputs_embeds: Tensor | None = None,
        labels: Tensor | None = None,
        use_cache: bool | None = None,
        output_hidden_states: bool | None = None,
        logits_to_keep: int = 0,
        **kwargs: Any,
    ) -> CausalLMOutputWithPast:
        """Logits [batch, time, vocab_size], and the loss if there are labels.

        Args:
            input_ids: int64 [batch, time], those after what is in the cache.
            attention_mask: [batch, all tokens so far], 0 for padding; may be at either side.
            position_ids: int64 [batch, time]; default: counted without padding.
            past_key_values, cache: keys and values of earlier tokens; two names for the same.
            inputs_embeds: in place of ``input_ids``.
            labels: int64 [batch, time], shifted here; -100 where nothing is asked.
            use_cache: return keys and values.
            output_hidden_states: return the states after the embedding and after each block.
            logits_to_keep: of so many last tokens only; 0: of all.
            kwargs: what else the loss of transformers takes.
        """
        cache = past_key_values if cache is None else cache
        if cache is None and use_cache:
            cache = DynamicCache()
        x = self.token_embedding(input_ids) if inputs_embeds is None else inputs_embeds
        time, past = x.shape[1], 0 if cache is None else cache.get_seq_length()
        if past + time > self.config.n_ctx:
            raise ValueError(f"{past + time} positions in a context of {self.config.n_ctx}.")
        everything = torch.arange(past + time, device=x.device)
        now = everything[past:]
        seen = (everything <= now[:, None])[None]
        if attention_mask is not None:
            # Padding looks at itself, for a softmax over nothing is not defined.
            is_padding = attention_mask[:, None, : past + time] == 0
            seen = (seen & ~is_padding) | (everything == now[:, None])
            if position_ids is None:
                position_ids = (attention_mask.cumsum(dim=-1) - 1).clamp_min(0)[:, past:]
        positions = now[None] if position_ids is None else position_ids
        if self.config.positions == "learned":
            x = x + self.position_embedding(positions)
        x = self.dropout(x)
        states = [x]
        for block in self.blocks:
            x = block(x, positions, seen[:, None], cache)
            states.append(x)
        x = self.norm(x)
        states[-1] = x
        weight = self.token_embedding.weight if self.config.tied else self.head.weight
        logits = F.linear(x[:, -logits_to_keep:], weight)
        loss = None
        if labels is not None:
            loss = self.loss_function(logits, labels, vocab_size=self.config.vocab_size, **kwargs)
        return CausalLMOutputWithPast(
            loss=loss,
            logits=logits,
            hidden_states=tuple(states) if output_hidden_states else None,
            **{_CACHE: cache},
        )
