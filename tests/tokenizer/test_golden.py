"""Golden files: tokenizers and records as they were; a change here needs a new tokenizer version.

    python -m tests.tokenizer.test_golden

writes them anew.
"""

from pathlib import Path

import pytest

from synehrgy.cohort import Cohort
from synehrgy.settings import TokenSettings
from synehrgy.tokenizer import Tokenizer, encode
from tests.cohorts import small_cohort
from tests.tokens import words

FOLDER = Path(__file__).parent / "golden"
SETTINGS = {
    "default": TokenSettings(),
    "published": TokenSettings(time="gap", long_records="truncate"),
    "raw": TokenSettings(bin_type="raw", rare_codes="keep"),
}


def _cohort() -> Cohort:
    return small_cohort(12)


def _record_lines(name: str) -> str:
    cohort = _cohort()
    tokenizer = Tokenizer.fit(cohort, SETTINGS[name])
    records = encode(tokenizer, cohort)
    return "\n".join(" | ".join(words(tokenizer, records[i])) for i in range(len(records))) + "\n"


@pytest.mark.parametrize("name", SETTINGS)
def test_the_tokenizer_is_the_same_to_the_byte(name):
    golden = (FOLDER / f"{name}.tokenizer.json").read_bytes()
    assert Tokenizer.fit(_cohort(), SETTINGS[name]).to_json().encode() == golden


@pytest.mark.parametrize("name", SETTINGS)
def test_the_records_are_the_same(name):
    assert _record_lines(name) == (FOLDER / f"{name}.records.txt").read_text(encoding="utf-8")


if __name__ == "__main__":
    FOLDER.mkdir(exist_ok=True)
    for _name, _settings in SETTINGS.items():
        Tokenizer.fit(_cohort(), _settings).save(FOLDER / f"{_name}.tokenizer.json")
        text = _record_lines(_name)
        (FOLDER / f"{_name}.records.txt").write_text(text, encoding="utf-8")
