"""What must be true of every baseline, whatever it generates."""

from dataclasses import replace

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
