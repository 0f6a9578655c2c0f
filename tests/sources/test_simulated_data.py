"""data=simulated, and fresh patients of the same hospital."""

import numpy as np
import pandas as pd
import pytest

from synehrgy.cli import compose
from synehrgy.cohort import read_cohort
from synehrgy.commands import preprocess
from synehrgy.errors import UserError
from synehrgy.sources import simulated_cohort
from synehrgy.sources.simulator import simulation


def settings_for(tmp_path, *more):
    return compose(
        "preprocess",
        [
            "data=simulated",
            f"data.raw_dir={tmp_path / 'raw'}",
            f"data.path={tmp_path / 'cohort'}",
            "data.simulation.n_patients=150",
            *more,
        ],
    )


def test_one_command_simulates_extracts_and_tokenises(tmp_path):
    said = preprocess(settings_for(tmp_path)).line
    assert "Next: python train.py data=simulated" in said
    cohort = read_cohort(tmp_path / "cohort")
    assert 80 < cohort.n_patients < 140
    assert set(cohort.stays["split"]) == {"train", "val", "test"}
    assert (tmp_path / "cohort" / "tokenizer.json").exists()
    # Downstream, simulated files are raw files like any other.
    assert cohort.schema.source == "mimic3"
    first = cohort.stays
    preprocess(settings_for(tmp_path))
    assert read_cohort(tmp_path / "cohort").stays.equals(first)
    preprocess(settings_for(tmp_path, "data.simulation.seed=1"))
    assert not read_cohort(tmp_path / "cohort").stays.equals(first)


def test_the_oracle_is_other_patients_of_the_same_hospital(tmp_path):
    one = read_cohort(simulated_cohort(tmp_path / "one", 600, seed=1, progress=False))
    two = read_cohort(simulated_cohort(tmp_path / "two", 600, seed=2, progress=False))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["one", "two"]
    assert one.stays["age"].head(50).tolist() != two.stays["age"].head(50).tolist()
    codes = [
        cohort.codes.groupby(["system", "code"], observed=True)["stay_id"].nunique()
        / len(cohort.stays)
        for cohort in (one, two)
    ]
    prevalence = pd.concat(codes, axis=1).fillna(0.0)
    assert np.corrcoef(prevalence.T)[0, 1] > 0.95


def test_a_failed_simulation_leaves_nothing(tmp_path, monkeypatch):
    def broken(*args, **kwargs):
        raise KeyboardInterrupt

    monkeypatch.setattr(simulation, "simulate_block", broken)
    with pytest.raises(KeyboardInterrupt):
        preprocess(settings_for(tmp_path))
    assert list(tmp_path.iterdir()) == []


def test_a_real_folder_is_never_simulated_over(tmp_path):
    (tmp_path / "raw").mkdir()
    (tmp_path / "raw" / "PATIENTS.csv").write_text("SUBJECT_ID\n1\n")
    with pytest.raises(UserError, match="not written by this program"):
        preprocess(settings_for(tmp_path))
    assert (tmp_path / "raw" / "PATIENTS.csv").exists()
