"""The vocabulary as a tokenizer of the ``tokenizers`` library: one token per line of text."""

from typing import Any

from synehrgy.tokenizer import Tokenizer
from synehrgy.tokenizer.grammar import END, PAD, START

# Read wherever they stand in a text, so no other token may have them in its name.
SPECIAL = (START, END, PAD)


def words_of(tokenizer: Tokenizer) -> list[str]:
    """The text of every token: its name, made unique, and on one line."""
    found: dict[str, int] = {}
    for token, name in enumerate(tokenizer.vocabulary):
        word = name
        if name not in SPECIAL or name in found:
            for mark in (*SPECIAL, "\n"):
                word = word.replace(mark, mark.strip("<>\n") or " ")
        # A covariate and a series may have the same name and level.
        while word in found:
            word += f" [{token}]"
        found[word] = token
    return list(found)


def tokenizer_json(tokenizer: Tokenizer) -> dict[str, Any]:
    """The content of ``tokenizer.json``: a text has a token per line, of which each is a word.

    A line that is no token has no number: to encode it is an error.
    """
    numbers = {word: token for token, word in enumerate(words_of(tokenizer))}
    plain = {"single_word": False, "lstrip": False, "rstrip": False, "normalized": False}
    return {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": [
            {"id": numbers[word], "content": word, **plain, "special": True}
            for word in sorted(SPECIAL, key=numbers.__getitem__)
        ],
        "normalizer": None,
        "pre_tokenizer": {
            "type": "Split",
            "pattern": {"String": "\n"},
            "behavior": "Removed",
            "invert": False,
        },
        "post_processor": None,
        # Ends each token with a new line.
        "decoder": {"type": "Replace", "pattern": {"Regex": r"\z"}, "content": "\n"},
        "model": {"type": "WordLevel", "vocab": numbers, "unk_token": ""},
    }


def tokenizer_config(n_ctx: int) -> dict[str, Any]:
    """The content of ``tokenizer_config.json``."""
    return {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "bos_token": START,
        "eos_token": END,
        "pad_token": PAD,
        "padding_side": "left",
        "model_max_length": n_ctx,
        "model_input_names": ["input_ids", "attention_mask"],
        "clean_up_tokenization_spaces": False,
    }
