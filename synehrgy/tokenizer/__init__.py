"""Records to tokens and back: bins, vocabulary, grammar, encoding, decoding."""

from synehrgy.tokenizer.decode import Fault, decode, find_faults
from synehrgy.tokenizer.encode import Records, encode
from synehrgy.tokenizer.grammar import Grammar
from synehrgy.tokenizer.store import (
    TOKENIZER_FILE,
    TokenStore,
    as_preprocessed,
    lengths_report,
    preprocess_tokens,
    tokenise,
)
from synehrgy.tokenizer.tokenizer import Tokenizer

__all__ = [
    "TOKENIZER_FILE",
    "Fault",
    "Grammar",
    "Records",
    "TokenStore",
    "Tokenizer",
    "as_preprocessed",
    "decode",
    "encode",
    "find_faults",
    "lengths_report",
    "preprocess_tokens",
    "tokenise",
]
