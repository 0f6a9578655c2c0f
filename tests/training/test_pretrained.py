"""Starting from the weights of another run, as on the records of another hospital."""

import dataclasses
import json
import shutil

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from synehrgy.cli import compose
from synehrgy.errors import UserError
from synehrgy.settings import TokenSettings
from synehrgy.tokenizer import Tokenizer
from synehrgy.training.checkpoint import load_run
from synehrgy.training.loop import new_model, train
from synehrgy.training.pretrained import matching_tokens, start_from
from synehrgy.training.trainer import Trainer
from tests.cohorts import small_cohort, write
from tests.conftest import train_overrides

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def pretrained(trained):
    return load_run(trained, CPU)


def fresh(folder, tokenizer, *more):
    torch.manual_seed(5)
    return new_model(compose("train", train_overrides(folder, folder, *more)), tokenizer)


def test_the_same_tokens_take_all_weights(pretrained, cohort_folder):
    model = fresh(cohort_folder, pretrained.tokenizer)
    said = start_from(pretrained, model, pretrained.tokenizer)
    n = len(pretrained.tokenizer.vocabulary)
    assert f"of {n} tokens it knows {n} by name" in said
    for name, weight in pretrained.model.state_dict().items():
        assert torch.equal(model.state_dict()[name], weight), name


def test_another_hospital_takes_what_it_shares(pretrained, cohort_folder):
    cohort = small_cohort(60)
    shifted = cohort.measurements.assign(value=cohort.measurements["value"] * 1.1)
    codes = cohort.codes.assign(code=cohort.codes["code"].astype(str).replace({"0389": "99999"}))
    other = dataclasses.replace(cohort, measurements=shifted, codes=codes)
    tokenizer = Tokenizer.fit(other, TokenSettings(min_code_count=1, n_bins=7))
    model = fresh(cohort_folder, tokenizer)
    before = model.token_embedding.weight.clone()
    start_from(pretrained, model, tokenizer)
    old, rows = pretrained.tokenizer, pretrained.model.token_embedding.weight
    new = model.token_embedding.weight
    source = matching_tokens(old, tokenizer)
    names = tokenizer.vocabulary
    for token, name in enumerate(names):
        if name in old.vocabulary:
            assert source[token] == old.vocabulary.index(name)
    # A bin that there was not is the old one around its middle.
    start = tokenizer.first_of_variable("Heart Rate")
    edges, before_edges = (t.variable_numbers["Heart Rate"].edges for t in (tokenizer, old))
    for i, middle in enumerate(0.5 * (edges[:-1] + edges[1:])):
        at = int(np.clip(np.searchsorted(before_edges, middle) - 1, 0, len(before_edges) - 2))
        found = source[start + i] - old.first_of_variable("Heart Rate")
        assert found == at or names[start + i] in old.vocabulary
    # A code that nobody has seen is like the codes are on average.
    unknown = names.index("icd9_diagnosis:99999")
    assert source[unknown] == -1
    mean = rows[torch.from_numpy(old.part_of == 2)].mean(dim=0)
    torch.testing.assert_close(new[unknown], before[unknown] + mean)
    known = np.flatnonzero(source >= 0)
    assert torch.equal(new[torch.from_numpy(known)], rows[torch.from_numpy(source[known])])


def test_bins_of_time_are_matched_too():
    edges = [[0.0, 1.0, 4.0, 100.0], [0.0, 2.0, 6.0, 50.0]]
    old, new = (
        Tokenizer.fit(small_cohort(40), TokenSettings(time="gap", gap_edges=e)) for e in edges
    )
    source = matching_tokens(old, new)
    first, start = old.first_of(old.time_word), new.first_of(new.time_word)
    # Their middles are 1, 4 and 28 hours; bins are closed on the right.
    assert (source[start : start + 3] - first).tolist() == [0, 1, 2]


def test_fine_tuning_begins_where_the_other_run_ended(trained, cohort_folder, tmp_path):
    """On the same patients, and as a user does it."""
    ended = [json.loads(line) for line in (trained / "metrics.jsonl").read_text().splitlines()]
    overrides = train_overrides(
        *(cohort_folder, trained.parent, "run_name=tuned", "use_pretrained=tiny"),
        *("train.epochs=1", "hparams.lr=1e-9", f"paths.saved_models={trained.parent}"),
    )
    folder = train(compose("train", overrides))
    (line,) = map(json.loads, (folder / "metrics.jsonl").read_text().splitlines())
    best = min(m["val_loss"] for m in ended)
    assert line["val_loss"] == pytest.approx(best, rel=1e-3)
    one, other = (load_file(f / "model.safetensors") for f in (trained, folder))
    torch.testing.assert_close(one["norm.weight"], other["norm.weight"])


def test_resuming_does_not_need_the_run_it_began_from(
    trained, cohort_folder, tmp_path, monkeypatch
):
    base = tmp_path / "base"
    shutil.copytree(trained, base)
    more = ["run_name=tuned", "use_pretrained=base", "train.epochs=3", "train.save_minutes=0"]
    overrides = train_overrides(cohort_folder, tmp_path, *more)
    original, steps = Trainer.step, []

    def step(self, rows, epoch):
        if len(steps) == 4:
            raise KeyboardInterrupt
        steps.append(epoch)
        original(self, rows, epoch)

    with monkeypatch.context() as patch:
        patch.setattr(Trainer, "step", step)
        with pytest.raises(KeyboardInterrupt):
            train(compose("train", overrides))
    shutil.rmtree(base)
    folder = train(compose("train", [*overrides, "resume=True"]))
    assert json.loads((folder / "run.json").read_text())["epochs"] == 3


def test_what_does_not_fit_is_refused_with_its_keys(pretrained, cohort_folder):
    tokenizer = pretrained.tokenizer
    with pytest.raises(UserError, match=r"model.n_layer=2 there, 3 here; .*model.n_embd=64 there"):
        start_from(
            pretrained,
            fresh(cohort_folder, tokenizer, "model.n_layer=3", "model.n_embd=32"),
            tokenizer,
        )
    with pytest.raises(UserError, match="There is no trained run 'nobody'"):
        train(
            compose("train", train_overrides(cohort_folder, cohort_folder, "use_pretrained=nobody"))
        )


def test_a_longer_context_needs_positions_that_reach_it(cohort_folder, tmp_path):
    for positions, fails in (("learned", True), ("rotary", False)):
        more = [f"model.positions={positions}", "train.epochs=1", f"run_name={positions}"]
        folder = train(compose("train", train_overrides(cohort_folder, tmp_path, *more)))
        run = load_run(folder, CPU)
        longer = fresh(cohort_folder, run.tokenizer, *more[:1], "hparams.n_ctx=500")
        if fails:
            with pytest.raises(
                UserError, match=r"knows 160 positions, fewer than hparams.n_ctx=500"
            ):
                start_from(run, longer, run.tokenizer)
        else:
            assert "it knows" in start_from(run, longer, run.tokenizer)
            shorter = fresh(cohort_folder, run.tokenizer, *more[:1], "hparams.n_ctx=100")
            start_from(run, shorter, run.tokenizer)


def test_a_cohort_without_one_of_the_parts(pretrained, cohort_folder, tmp_path):
    cohort = small_cohort(60)
    bare = dataclasses.replace(cohort, codes=cohort.codes.iloc[:0])
    write(bare, tmp_path / "bare")
    tokenizer = Tokenizer.fit(bare, TokenSettings())
    model = fresh(cohort_folder, tokenizer)
    start_from(pretrained, model, tokenizer)
    assert torch.isfinite(model.token_embedding.weight).all()
