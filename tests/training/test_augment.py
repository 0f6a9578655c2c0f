"""Shuffles and masks: fresh in each epoch, the same for a seed, and nothing changes its meaning."""

import dataclasses

import numpy as np
import pytest

from synehrgy.settings import TokenSettings, TrainSettings
from synehrgy.tokenizer import Tokenizer, decode, encode, find_faults
from synehrgy.tokenizer.grammar import PAD
from synehrgy.tokenizer.segments import cut_records
from synehrgy.training.augment import Augmentation
from synehrgy.training.batches import Batcher
from tests.cohorts import small_cohort
from tests.tokens import words

SHUFFLES = ("label_shuffle", "ts_shuffle", "code_shuffle")


def everything(bin_type="uniform", n_patients=40):
    cohort = small_cohort(n_patients)
    tokenizer = Tokenizer.fit(cohort, TokenSettings(min_code_count=1, bin_type=bin_type))
    tokenizer = tokenizer.as_trained(["labels", "series"])
    records = encode(tokenizer, cohort)
    record = np.repeat(np.arange(len(records)), records.lengths)
    position = np.arange(len(record)) - records.offsets[record]
    return cohort, tokenizer, records, record, position


def shuffled(tokenizer, records, record, position, epoch=1, seed=0, **how):
    augmentation = Augmentation(tokenizer, TrainSettings(**how), seed)
    tokens = augmentation.shuffle(records.tokens.astype(np.int64), record, position, epoch)
    return dataclasses.replace(records, tokens=tokens.astype(tokenizer.dtype))


@pytest.mark.parametrize("how", SHUFFLES)
@pytest.mark.parametrize("bin_type", ["uniform", "raw"])
def test_a_shuffle_moves_only_what_it_may(how, bin_type):
    _, tokenizer, records, record, position = everything(bin_type)
    new = shuffled(tokenizer, records, record, position, **{how: True})
    assert not np.array_equal(new.tokens, records.tokens)
    assert find_faults(tokenizer, new) == []
    # Decoded, the patients are the same but for the order of listing of their codes.
    one, other = (decode(tokenizer, r, value_decoding="center") for r in (records, new))
    assert one.stays.equals(other.stays)
    assert one.measurements.equals(other.measurements)
    listed = [
        f.groupby(["stay_id", "system"], observed=True)["code"].agg(list)
        for f in (one.codes, other.codes)
    ]
    assert listed[0].map(sorted).equals(listed[1].map(sorted))
    assert listed[0].equals(listed[1]) == (how != "code_shuffle")
    moved = {
        word.partition("=")[0].partition(":")[0]
        for old, now in zip(
            words(tokenizer, records.tokens), words(tokenizer, new.tokens), strict=True
        )
        for word in (old, now)
        if old != now
    }
    expected = {
        "label_shuffle": {"septicemia", "shock"},
        "ts_shuffle": {"Glasgow coma scale total", "Heart Rate", "Lactate", "pH"},
        "code_shuffle": {"icd9_diagnosis", "icd9_procedure"},
    }
    assert moved == expected[how]


def test_every_order_comes_equally_often():
    _, tokenizer, records, record, position = everything()
    first = {}
    text = words(tokenizer, records.tokens)
    both = [i for i in range(len(text) - 1) if (text[i], text[i + 1]) == ("septicemia", "shock")]
    assert both
    n = 0
    for epoch in range(1, 101):
        new = shuffled(tokenizer, records, record, position, epoch, label_shuffle=True)
        for i in both:
            word = tokenizer.vocabulary[new.tokens[i]]
            first[word] = first.get(word, 0) + 1
            n += 1
    assert abs(first["shock"] / n - 0.5) < 4 * 0.5 / np.sqrt(n)


def test_epochs_differ_and_a_seed_repeats_them():
    _, tokenizer, records, record, position = everything()

    def run(epoch, seed):
        how = dict.fromkeys(SHUFFLES, True)
        return shuffled(tokenizer, records, record, position, epoch, seed, **how).tokens.tolist()

    assert run(1, 0) == run(1, 0)
    assert run(1, 0) != run(2, 0)
    assert run(1, 0) != run(1, 1)


def test_without_augmentation_nothing_changes():
    _, tokenizer, records, record, position = everything()
    new = shuffled(tokenizer, records, record, position)
    assert np.array_equal(new.tokens, records.tokens)


def test_masks_hide_inputs_and_keep_targets():
    _, tokenizer, records, *_ = everything()
    segments = cut_records(tokenizer, records, np.arange(len(records)), 80)
    pad = tokenizer.token(PAD)

    def batches(mask_prob, epoch=1):
        augmentation = Augmentation(tokenizer, TrainSettings(mask_prob=mask_prob), seed=0)
        batcher = Batcher(tokenizer, records, segments, 8, 4000, augmentation)
        return [*batcher.batches(np.arange(len(segments)), epoch)]

    plain, masked = batches(0.0), batches(0.3)
    hidden = total = 0
    for before, after in zip(plain, masked, strict=True):
        assert before.targets.equal(after.targets)
        changed = (before.inputs != after.inputs).numpy()
        assert set(after.inputs.numpy()[changed]) == {pad}
        hidden, total = hidden + changed.sum(), total + len(changed)
    assert abs(hidden / total - 0.3) < 0.02
    other = batches(0.3, epoch=2)
    assert any(not a.inputs.equal(b.inputs) for a, b in zip(masked, other, strict=True))


def test_an_epoch_does_not_depend_on_how_it_is_batched():
    _, tokenizer, records, *_ = everything()
    segments = cut_records(tokenizer, records, np.arange(len(records)), 80)
    how = TrainSettings(mask_prob=0.2, **dict.fromkeys(SHUFFLES, True))

    def texts(max_segments):
        augmentation = Augmentation(tokenizer, how, seed=0)
        batcher = Batcher(tokenizer, records, segments, max_segments, 4000, augmentation)
        found = []
        for batch in batcher.batches(np.arange(len(segments))[::-1], epoch=3):
            parts = (part.split(batch.packing.lengths) for part in (batch.inputs, batch.targets))
            found += [(i.tolist(), t.tolist()) for i, t in zip(*(map(list, parts)), strict=True)]
        return found

    assert texts(1) == texts(8)
