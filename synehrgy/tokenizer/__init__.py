"""Records to tokens and back: bins, vocabulary, grammar, encoding, decoding."""

from synehrgy.tokenizer.decode import decode
from synehrgy.tokenizer.encode import Records, encode, joined
from synehrgy.tokenizer.fitting import check_settings
from synehrgy.tokenizer.grammar import Grammar
from synehrgy.tokenizer.store import (
    TOKENIZER_FILE,
    TokenStore,
    are_of,
    as_preprocessed,
    losses_report,
    preprocess_tokens,
    tokenise,
    tokens_report,
)
from synehrgy.tokenizer.tokenizer import Tokenizer
from synehrgy.tokenizer.validate import Fault, find_faults, label_contradictions, validate

__all__ = [
    "TOKENIZER_FILE",
    "Fault",
    "Grammar",
    "Records",
    "TokenStore",
    "Tokenizer",
    "are_of",
    "as_preprocessed",
    "check_settings",
    "decode",
    "encode",
    "find_faults",
    "joined",
    "label_contradictions",
    "losses_report",
    "preprocess_tokens",
    "tokenise",
    "tokens_report",
    "validate",
]
