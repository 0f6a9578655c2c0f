"""What a training says of itself in words and pictures."""

import json

import numpy as np
import pytest
from matplotlib.image import imread

from synehrgy.cli import compose
from synehrgy.settings import TokenSettings
from synehrgy.tokenizer import Tokenizer, encode
from synehrgy.tokenizer.tokenizer import PARTS
from synehrgy.training.curves import draw_curves, unseen_tokens, warning
from synehrgy.training.loop import train
from tests.cohorts import small_cohort
from tests.conftest import train_overrides


def epochs(train_losses, val_losses):
    pairs = zip(train_losses, val_losses, strict=True)
    return [
        {"epoch": i, "steps_done": 10 * i, "train_loss": t, "val_loss": v, "val_loss_codes": v}
        for i, (t, v) in enumerate(pairs, start=1)
    ]


@pytest.mark.parametrize(
    ("train_losses", "val_losses", "expected"),
    [
        ([3, 2, 1.5], [3, 2.5, 2.2], None),
        ([3], [3], None),
        # A step back that is no more than noise.
        ([3, 2, 2.01], [3, 2.5, 2.6], None),
        ([3, 2, 2.5], [3, 2.5, 3], "Training got worse in epoch 3"),
        (
            [3, 2, 1.5, 1.2],
            [3, 2.5, 2.6, 2.7],
            "worse since epoch 2 .*learns its patients by heart",
        ),
        # Once is enough.
        ([3, 2, 1.5, 1.2, 1], [3, 2.5, 2.6, 2.7, 2.8], None),
        ([3, 2, 1.5, 1.2], [3, 2.5, 2.6, 2.4], None),
    ],
)
def test_warnings(train_losses, val_losses, expected):
    found = warning(epochs(train_losses, val_losses))
    if expected is None:
        assert found is None
    else:
        import re

        assert re.search(expected, found)


def test_tokens_that_training_never_sees_are_named():
    cohort = small_cohort(40)
    tokenizer = Tokenizer.fit(cohort, TokenSettings(min_code_count=1, time="gap"))
    seen = np.zeros(len(tokenizer.vocabulary), dtype=bool)
    seen[encode(tokenizer, cohort).tokens] = True
    everything = np.ones_like(seen)
    assert unseen_tokens(tokenizer, everything) is None
    code = tokenizer.vocabulary.index("icd9_diagnosis:0389")
    missing = everything.copy()
    missing[code] = False
    text = unseen_tokens(tokenizer, missing)
    assert text.startswith(f"1 of {len(seen)} tokens of the vocabulary never occur in training")
    assert "(1 of codes): such as icd9_diagnosis:0389" in text
    # What no record of this kind has is not missed, nor are rare times.
    technical = everything.copy()
    for name in ("<pad>", "<history>", "<forecast>", "</forecast>"):
        technical[tokenizer.vocabulary.index(name)] = False
    technical[tokenizer.part_of == PARTS.index("time")] = False
    assert unseen_tokens(tokenizer, technical) is None
    technical[tokenizer.part_of == PARTS.index("series")] = False
    assert "of series" in unseen_tokens(tokenizer, technical)
    assert unseen_tokens(tokenizer.as_trained(no_series=True), technical) is None


def test_a_share_of_the_patients_warns_of_their_tokens(cohort_folder, tmp_path, capsys):
    more = ["train.ratio=0.05", "train.epochs=1"]
    train(compose("train", train_overrides(cohort_folder, tmp_path, *more)))
    assert "tokens of the vocabulary never occur in training" in capsys.readouterr().out


def test_curves_are_a_picture(tmp_path):
    draw_curves(tmp_path, [[5, 3.0], [10, 2.0]], epochs([3, 2], [3, 2.5]))
    picture = imread(tmp_path / "learning_curve.png")
    assert picture.shape[1] > 600
    assert len(np.unique(picture[..., 0])) > 10
    # Nothing is left over from writing it aside.
    assert [path.name for path in tmp_path.iterdir()] == ["learning_curve.png"]


def test_a_run_shows_how_it_learned(trained, capsys):
    assert imread(trained / "learning_curve.png").ndim == 3
    metrics = [json.loads(line) for line in (trained / "metrics.jsonl").read_text().splitlines()]
    assert metrics[0]["steps_done"] * len(metrics) == metrics[-1]["steps_done"]
