"""What must be true of every baseline, whatever it generates."""

import re
from dataclasses import fields, replace

import pyarrow as pa
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from synehrgy.baselines import CODES, SERIES, STAYS, baselines
from synehrgy.cohort import read_cohort
from synehrgy.cohort.tables import TABLES, arrow_schema, conform
from synehrgy.errors import UserError
from tests.baselines.fast import FAST
from tests.cohorts import cohorts, small_cohort, write

CPU = torch.device("cpu")
NAMES = list(baselines())


def fitted(name, cohort):
    baseline = baselines()[name](**FAST.get(name, {}))
    train, val = cohort.select(split="train"), cohort.select(split="val")
    baseline.fit(train, val, seed=0, device=CPU, progress=False)
    return baseline


def same(one, other):
    for name in TABLES:
        tables = [
            conform(
                pa.Table.from_pandas(cohort.table(name), preserve_index=False),
                arrow_schema(name, cohort.schema),
                name,
            ).replace_schema_metadata(None)
            for cohort in (one, other)
        ]
        assert tables[0].equals(tables[1]), name


@pytest.fixture(scope="module", params=NAMES)
def known(request):
    return request.param, fitted(request.param, small_cohort(120))


def test_its_patients_are_a_valid_cohort_with_the_parts_that_it_covers(known, tmp_path):
    name, baseline = known
    covers = baselines()[name].covers
    found = baseline.sample(25, seed=1, device=CPU, progress=False)
    write(found, tmp_path / "cohort")
    same(read_cohort(tmp_path / "cohort"), found)
    assert found.n_patients == 25
    assert found.stays["split"].isna().all()
    schema = small_cohort(20).part(codes=CODES in covers, series=SERIES in covers).schema
    assert found.schema == replace(schema, name=found.schema.name, source=found.schema.source)
    assert (len(found.codes) > 0) == (CODES in covers)
    assert (len(found.measurements) > 0) == (SERIES in covers)
    assert (found.stays["stay_index"].max() > 0) == (STAYS in covers)


def test_a_seed_gives_the_same_patients_and_another_one_others(known):
    _, baseline = known
    first, again, other = (
        baseline.sample(12, seed=s, device=CPU, progress=False) for s in (1, 1, 2)
    )
    same(first, again)
    assert not first.stays.equals(other.stays)


def test_what_was_saved_samples_the_same(known, tmp_path):
    name, baseline = known
    baseline.save(tmp_path)
    files = [file for file in tmp_path.rglob("*") if file.is_file()]
    assert {file.suffix for file in files} <= {
        ".json",
        ".parquet",
        ".safetensors",
        ".yaml",
        ".jsonl",
    }
    loaded = baselines()[name].load(tmp_path, **FAST.get(name, {}))
    one, other = (b.sample(12, seed=1, device=CPU, progress=False) for b in (baseline, loaded))
    same(one, other)


@pytest.mark.parametrize("name", NAMES)
@settings(max_examples=8, suppress_health_check=list(HealthCheck))
@given(cohort=cohorts(), seed=st.integers(0, 9))
def test_any_schema_goes_through(name, cohort, seed, tmp_path_factory):
    baseline = baselines()[name](**FAST.get(name, {}))
    # Without validation patients, or with some of any kind.
    some = sorted(cohort.stays["subject_id"].unique())[: seed % 3]
    val = cohort.select(subjects=some)
    rest = cohort.select(subjects=sorted(set(cohort.stays["subject_id"]) - set(some)))
    if not rest.n_patients:
        rest, val = val, rest
    baseline.fit(rest, val, seed=seed, device=CPU, progress=False)
    found = baseline.sample(3, seed=seed, device=CPU, progress=False)
    folder = tmp_path_factory.mktemp("any") / "cohort"
    write(found, folder)
    same(read_cohort(folder), found)
    assert found.n_patients == 3


@pytest.mark.parametrize("name", NAMES)
def test_unknown_settings_are_refused_by_name(name):
    with pytest.raises(UserError, match=f"{name} has no setting 'epoch_s'"):
        baselines()[name](epoch_s=3)


@pytest.mark.parametrize(
    ("name", "wrong", "says"),
    [
        ("halo", {"n_heads": 3}, "halo: n_heads=3 must divide width=128"),
        ("promptehr", {"n_head": 3}, "promptehr: n_head=3 must divide width=128"),
        ("gpt_paper", {"n_head": 5}, "gpt_paper: n_head=5 must divide n_embd=384"),
        ("synehrgy", {"n_embd": 130}, "n_embd=130 must be a multiple of 4, twice n_head=2"),
        ("halo", {"batch_size": 0}, "halo: batch_size=0 must be at least 1"),
        ("halo", {"n_bins": 0}, "halo: n_bins=0 must be at least 1"),
        ("halo", {"step": 0.0}, "halo: step=0.0 must be above 0.0"),
        ("synehrgy", {"epochs": 0}, "synehrgy: epochs=0 must be at least 1"),
        ("synehrgy", {"n_ctx": 10}, "synehrgy: n_ctx=10 must be at least 16"),
        ("bootstrap", {"dropped": 1.5}, "bootstrap: dropped=1.5 must be at most 1.0"),
        ("bootstrap", {"noise": float("nan")}, "bootstrap: noise=nan must be a finite number"),
    ],
)
def test_settings_beyond_their_limits_are_refused_in_words(name, wrong, says):
    with pytest.raises(UserError, match=says):
        baselines()[name](**wrong)


@pytest.mark.parametrize("name", NAMES)
def test_every_number_among_the_settings_has_a_limit(name):
    for item in fields(baselines()[name].Settings):
        if not isinstance(item.default, bool):
            limits = {item.metadata.get(key) for key in ("minimum", "above", "maximum")}
            assert limits > {None}, item.name


def test_contexts_of_n_grams_have_numbers():
    cohort = small_cohort(40)
    with pytest.raises(
        UserError, match=r"markov: order=12 is too much .* Take order=(\d+)"
    ) as said:
        fit("markov", cohort, order=12)
    most = int(re.search(r"Take order=(\d+)", str(said.value))[1])
    fit("markov", cohort, order=most)


def fit(name, cohort, **settings):
    baseline = baselines()[name](**FAST.get(name, {}) | settings)
    train, val = cohort.select(split="train"), cohort.select(split="val")
    baseline.fit(train, val, seed=0, device=CPU, progress=False)


def test_settings_are_named_as_they_were_given():
    with pytest.raises(UserError, match=r"synehrgy: .* too short .* \(method\.n_ctx\)\.$"):
        fit("synehrgy", small_cohort(40), n_ctx=16)


def test_a_stopped_training_gives_no_advice_that_cannot_be_followed(monkeypatch, capsys):
    def stopped(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr("synehrgy.training.loop._fit", stopped)
    with pytest.raises(KeyboardInterrupt):
        fit("synehrgy", small_cohort(40))
    said = capsys.readouterr().out
    assert "Stopped; synehrgy is not kept. The same command begins it anew." in said
    assert "resume" not in said
    # What else training says is shown.
    assert "parameters" in said
