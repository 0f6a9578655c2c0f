"""Every token has a name of its own in the tokenizer for transformers, and texts come back."""

import json

import pytest
from hypothesis import given

from synehrgy.cohort import Covariate, Variable
from synehrgy.export.words import SPECIAL, tokenizer_config, tokenizer_json, words_of
from synehrgy.files import write_json
from synehrgy.settings import TokenSettings
from synehrgy.tokenizer import Tokenizer, encode
from tests.cohorts import SMALL_SCHEMA, build, cohorts, small_cohort


@pytest.fixture(scope="module")
def tokenizers():
    return pytest.importorskip("tokenizers")


def read(tokenizers, tokenizer):
    return tokenizers.Tokenizer.from_str(json.dumps(tokenizer_json(tokenizer)))


def test_names_are_those_of_the_vocabulary():
    tokenizer = Tokenizer.fit(small_cohort())
    assert words_of(tokenizer) == tokenizer.vocabulary


@given(cohorts())
def test_any_vocabulary_comes_back(tokenizers, cohort):
    tokenizer = Tokenizer.fit(cohort, TokenSettings(min_code_count=1))
    theirs = read(tokenizers, tokenizer)
    everything = [*range(len(tokenizer.vocabulary))]
    text = theirs.decode(everything, skip_special_tokens=False)
    assert text.splitlines() == [theirs.id_to_token(token) for token in everything]
    assert theirs.encode(text).ids == everything


def test_names_that_are_alike_or_hold_marks(tokenizers):
    schema = SMALL_SCHEMA
    levels = ["a", "</s>", "<s>x", "two\nlines", "two lines", "a\rb"]
    schema = type(schema)(
        name="odd",
        source="test",
        covariates=[Covariate("g", "categorical", levels=levels)],
        variables=[Variable("g", "categorical", levels=levels)],
    )
    cohort = build(schema, [(1, 1, None, 0, "train", "a", 5.0)], [], [(1, 0.0, "g", None, "a")])
    tokenizer = Tokenizer.fit(cohort)
    assert len(set(tokenizer.vocabulary)) < len(tokenizer.vocabulary)
    words = words_of(tokenizer)
    assert len(set(words)) == len(words)
    assert [word for word in words if any(mark in word for mark in SPECIAL)] == [
        name for name in tokenizer.vocabulary if name in SPECIAL
    ]
    ids = [*range(len(words))]
    theirs = read(tokenizers, tokenizer)
    assert theirs.encode(theirs.decode(ids, skip_special_tokens=False)).ids == ids


def test_a_record_as_text(transformers, tmp_path):
    """Through transformers, as a user reads one."""
    cohort = small_cohort()
    tokenizer = Tokenizer.fit(cohort)
    write_json(tmp_path / "tokenizer.json", tokenizer_json(tokenizer))
    write_json(tmp_path / "tokenizer_config.json", tokenizer_config(160))
    theirs = transformers.AutoTokenizer.from_pretrained(tmp_path)
    record = encode(tokenizer, cohort)[0].tolist()
    text = theirs.decode(record)
    assert text.splitlines() == [tokenizer.vocabulary[token] for token in record]
    assert theirs(text)["input_ids"] == record
    marks = (theirs.bos_token, theirs.eos_token, theirs.pad_token)
    assert marks == ("<s>", "</s>", "<pad>")
    assert theirs.model_max_length == 160
    both = theirs(["<s>", "<s>\n</covar>"], padding=True)
    assert both["attention_mask"] == [[0, 1], [1, 1]]
    assert "token_type_ids" not in both
    shown = theirs.decode(record, skip_special_tokens=True).splitlines()
    assert shown == text.splitlines()[1:-1]
    # No other word stands for one that is none.
    with pytest.raises(Exception, match="Missing"):
        theirs("Heart Rat=(1, 2]")
