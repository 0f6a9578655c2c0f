"""Canaries are valid, nobody's, and planted as often as asked."""

import json

import numpy as np
import pytest
import torch

from synehrgy.cli import compose
from synehrgy.errors import UserError
from synehrgy.processes import World
from synehrgy.settings import TokenSettings
from synehrgy.tokenizer import Tokenizer, encode, find_faults, joined, tokenise
from synehrgy.tokenizer.segments import without_series
from synehrgy.training.canaries import Canaries, make_canaries, plant, planted
from synehrgy.training.loop import new_model, train
from synehrgy.training.trainer import Trainer
from tests.cohorts import small_cohort
from tests.conftest import train_overrides


def made(n=30, seed=0, **settings):
    cohort = small_cohort(60)
    tokenizer = Tokenizer.fit(cohort, TokenSettings(**settings))
    records = encode(tokenizer, cohort)
    return tokenizer, records, make_canaries(tokenizer, records, np.arange(40), n, seed)


@pytest.mark.parametrize("time", ["clock", "gap"])
@pytest.mark.parametrize("bin_type", ["uniform", "raw"])
def test_canaries_are_valid_and_nobodys(time, bin_type):
    tokenizer, records, canaries = made(time=time, bin_type=bin_type)
    assert find_faults(tokenizer, canaries.records) == []
    assert len(canaries.records) == 60
    texts = {canaries.records[i].tobytes() for i in range(60)}
    real = {records[i].tobytes() for i in range(len(records))}
    assert len(texts) == 60
    assert not texts & real


def test_one_is_planted_and_one_of_the_same_form_is_held_out():
    tokenizer, _, canaries = made()
    assert canaries.planted.sum() == 30
    kinds = [tokenizer.kind_of[canaries.records[i]] for i in range(60)]
    drawn = np.split(canaries.drawn, canaries.records.offsets[1:-1])
    for one, other in zip(range(0, 60, 2), range(1, 60, 2), strict=True):
        assert canaries.planted[one]
        assert not canaries.planted[other]
        assert (kinds[one] == kinds[other]).all()
        same = canaries.records[one] == canaries.records[other]
        assert same[~drawn[one]].all()
        assert same[drawn[one]].mean() < 0.5
    parts = {tokenizer.part_of[t] for t in canaries.records.tokens[canaries.drawn]}
    assert len(parts) == 2


def test_what_is_drawn_is_uniform():
    tokenizer, _, canaries = made(n=400)
    heart = tokenizer.first_of_variable("Heart Rate")
    tokens = np.asarray(canaries.records.tokens)
    size = tokenizer.size[tokenizer.kind_of[heart]]
    counts = np.bincount(tokens[(tokens >= heart) & (tokens < heart + size)] - heart)
    assert len(counts) == size
    assert counts.min() > 0.8 * counts.mean()


def test_the_same_seed_makes_the_same_ones():
    (_, _, one), (_, _, again), (_, _, other) = made(), made(), made(seed=1)
    assert (one.records.tokens == again.records.tokens).all()
    assert one.records.tokens.tobytes() != other.records.tokens.tobytes()


def test_records_with_nothing_to_draw_are_refused():
    tokenizer, records, _ = made()
    codes = tokenizer.grammar.is_code[tokenizer.kind_of[records.tokens]]
    empty = without_series(tokenizer.as_trained(no_series=True), records)
    short = np.flatnonzero(np.add.reduceat(codes, records.offsets[:-1]) * np.log2(6) < 64)
    assert len(short)
    with pytest.raises(UserError, match=r"train\.canaries: no record"):
        make_canaries(tokenizer, empty, short, 3, 0)


def test_they_stand_after_the_records_as_often_as_asked(cohort_folder):
    store = tokenise(cohort_folder, TokenSettings())
    canaries = make_canaries(store.tokenizer, store.records, store.of_split("train"), 5, 0)
    found = plant(store, canaries, 3)
    rows = planted(found.records)
    assert len(rows) == 15
    assert rows[0] == len(store.records)
    for i, row in enumerate(rows):
        assert (found.records[row] == canaries.records[2 * (i // 3)]).all()
    for i in range(len(store.records)):
        assert (found.records[i] == store.records[i]).all()
    for split in ("train", "val", "test"):
        assert (found.of_split(split) == store.of_split(split)).all()
    assert len(planted(plant(store, canaries, 0).records)) == 0


def test_all_of_them_are_trained_on_beside_the_share_of_patients(cohort_folder):
    store = tokenise(cohort_folder, TokenSettings())
    canaries = make_canaries(store.tokenizer, store.records, store.of_split("train"), 5, 0)

    def trained(tokens):
        overrides = train_overrides(cohort_folder, cohort_folder.parent, "train.ratio=0.5")
        config = compose("train", overrides)
        trainer = Trainer(
            config, new_model(config, store.tokenizer), tokens, World(torch.device("cpu"))
        )
        return np.unique(trainer.train_batches.plan.record)

    before, after = trained(store), trained(plant(store, canaries, 2))
    assert (after[: len(before)] == before).all()
    assert len(after) == len(before) + 10


def test_a_run_keeps_its_canaries(cohort_folder, tmp_path):
    more = ["train.canaries=4", "train.canary_repeats=2", "train.epochs=1"]
    folder = train(compose("train", train_overrides(cohort_folder, tmp_path, *more)))
    kept = Canaries.load(folder)
    store = tokenise(cohort_folder, TokenSettings())
    made = make_canaries(store.tokenizer, store.records, store.of_split("train"), 4, 0)
    assert (kept.records.tokens == made.records.tokens).all()
    assert (kept.records.offsets == made.records.offsets).all()
    assert (kept.drawn == made.drawn).all()
    assert (kept.planted == made.planted).all()
    assert json.loads((folder / "run.json").read_text())["finished"]


def test_a_run_without_has_none(trained):
    with pytest.raises(UserError, match=r"not trained with train\.canaries"):
        Canaries.load(trained)


def test_records_are_joined_in_order():
    _, records, _ = made()
    again = joined([records.part(5, 9), records.part(9, 9), records.part(0, 2)])
    for i, row in enumerate([5, 6, 7, 8, 0, 1]):
        assert (again[i] == records[row]).all()
        assert again.subject_ids[i] == records.subject_ids[row]
        assert again.splits[i] == records.splits[row]
    assert len(again) == 6
