"""``python -m synehrgy.tokenizer show``, as a user runs it."""

import subprocess
import sys

import pytest

from synehrgy.cohort import read_cohort
from synehrgy.files import REPOSITORY
from synehrgy.settings import TokenSettings
from synehrgy.tokenizer import Tokenizer, encode, preprocess_tokens
from synehrgy.tokenizer.__main__ import main
from tests.cohorts import small_cohort, write
from tests.tokens import words


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    path = tmp_path_factory.mktemp("show") / "cohort"
    write(small_cohort(20), path)
    preprocess_tokens(path, TokenSettings(min_code_count=1))
    return path


def test_every_token_of_the_record_is_shown_in_order(folder, capsys):
    assert main(["show", str(folder), "--patient", "12", "--points", "99"]) == 0
    text = capsys.readouterr().out
    cohort = read_cohort(folder).select(subjects=[12])
    tokenizer = Tokenizer.load(folder / "tokenizer.json")
    record = encode(tokenizer, cohort)[0]
    assert text.startswith(f"Patient 12: {len(record):,} tokens, by {folder / 'tokenizer.json'}")
    body = text.split("\n\n")[1]
    shown = [w for line in body.splitlines() for w in line.strip().split("  ") if w]
    # The time of each point stands before its tokens.
    shown = [
        w.strip() for w in shown if not w.strip().replace(".", "").removesuffix(" h").isdigit()
    ]
    assert shown == words(tokenizer, record)
    times = [
        float(line.split(" h  ")[0])
        for line in body.splitlines()
        if " h  " in line and "." in line.split(" h  ")[0]
    ]
    assert times[: len(set(times))]
    expected = cohort.measurements[["stay_id", "hours"]].drop_duplicates()["hours"].round(2)
    assert times == expected.tolist()


def test_long_series_are_counted_and_cuts_are_shown(folder, capsys):
    arguments = ["show", str(folder), "--points", "1", "--n-ctx", "60", "--vocabulary"]
    assert main(arguments) == 0
    text = capsys.readouterr().out
    assert "more time points" in text
    assert "going on with the series after: <history>  age=" in text
    tokenizer = Tokenizer.load(folder / "tokenizer.json")
    assert text.rstrip().endswith(f"{len(tokenizer.vocabulary):,}")
    counts = [int(line.split()[1]) for line in text.split("\n\n")[-1].splitlines()]
    assert sum(counts[:-1]) == counts[-1]


def test_digits_and_published_settings_can_be_shown(folder, tmp_path, capsys):
    settings = TokenSettings(bin_type="raw", time="gap", long_records="truncate")
    Tokenizer.fit(read_cohort(folder), settings).save(tmp_path / "tokenizer.json")
    arguments = ["show", str(folder), "--tokenizer", str(tmp_path / "tokenizer.json")]
    assert main([*arguments, "--n-ctx", "50"]) == 0
    text = capsys.readouterr().out
    assert "gap=(" in text
    assert "pH=7.__  pH=_." in text
    assert "tokens are cut off" in text


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--patient", "120"], "has no patient 120. Did you mean"),
        (["--tokenizer", "nowhere.json"], "nowhere.json does not exist"),
        (["--n-ctx", "16"], "n_ctx=16 is too short"),
        (["--tokenizer", "."], "tokenizer.json does not exist"),
    ],
)
def test_mistakes_are_told(folder, capsys, arguments, message):
    assert main(["show", str(folder), *arguments]) == 1
    assert message in capsys.readouterr().err


def test_a_synthetic_cohort_needs_the_tokenizer_of_its_model(folder, tmp_path, capsys):
    cohort = small_cohort(5)
    cohort.stays["split"] = None
    write(cohort, tmp_path / "synthetic")
    assert main(["show", str(tmp_path / "synthetic")]) == 1
    assert "--tokenizer saved_models/<run>/tokenizer.json" in capsys.readouterr().err
    given = ["--tokenizer", str(folder / "tokenizer.json")]
    assert main(["show", str(tmp_path / "synthetic"), *given]) == 0


def test_the_module_runs(folder):
    command = [sys.executable, "-m", "synehrgy.tokenizer", "show", str(folder)]
    done = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, check=True)
    assert "</covar>" in done.stdout
