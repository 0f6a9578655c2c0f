"""The open MIMIC-III demo gives the published cohort."""

from pathlib import Path

import pandas as pd
import pytest

from benchmarks.extraction import usual_way
from synehrgy.cohort import Cohort, read_cohort
from synehrgy.sources.mimic3 import ExtractionSummary, extract

SHARED = Path(__file__).parents[2].parent / "shared" / "data"
DEMO, LISTS = SHARED / "mimic3-demo", SHARED / "benchmark-splits"

pytestmark = pytest.mark.skipif(
    not (DEMO.is_dir() and LISTS.is_dir()),
    reason="the open demo and the benchmark's split lists are not beside the repository",
)


@pytest.fixture(scope="module")
def demo(tmp_path_factory: pytest.TempPathFactory) -> tuple[Cohort, ExtractionSummary]:
    path = tmp_path_factory.mktemp("demo") / "cohort"
    summary = extract(DEMO, path, split_dir=LISTS, progress=False)
    return read_cohort(path), summary


def test_stays(demo: tuple[Cohort, ExtractionSummary]) -> None:
    cohort, summary = demo
    *by_rule, without_events = summary.dropped.values()
    assert summary.stays_listed - sum(by_rule) == 114
    assert without_events == 1
    assert len(cohort.stays) == summary.n_stays == 113
    # 89 patients have the 114 stays; the one of the stay without events has no other.
    assert cohort.n_patients == summary.n_patients == 88
    assert cohort.stays["split"].value_counts().to_dict() == {"train": 81, "test": 18, "val": 14}
    assert summary.stays == {"train": 81, "val": 14, "test": 18}
    assert cohort.stays["age"].between(18, 90).all()
    assert summary.rows == {"chartevents": 758_355, "labevents": 76_074}


def test_measurements(demo: tuple[Cohort, ExtractionSummary]) -> None:
    cohort, summary = demo
    assert cohort.counts()["measurements"] == summary.n_values == 105_775
    assert cohort.counts()["time_points"] == summary.time_points == 16_938
    counts = cohort.measurements["variable"].value_counts().to_dict()
    assert counts == summary.values
    assert counts["Heart Rate"] == 12_153
    assert counts["Respiratory rate"] == 12_344
    assert counts["Glucose"] == 2_978
    assert counts["Prothrombin time"] == 530
    assert counts["pH"] == 995
    assert counts["Neutrophils"] == 98


def test_codes_and_labels(demo: tuple[Cohort, ExtractionSummary]) -> None:
    cohort, summary = demo
    assert cohort.codes["system"].value_counts().to_dict() == summary.codes
    assert "0389" in set(cohort.codes["code"])
    for label, positives in summary.positives.items():
        assert cohort.stays[label].sum() == positives


def test_every_value_is_that_of_a_plain_implementation(
    demo: tuple[Cohort, ExtractionSummary],
) -> None:
    columns = ["stay_id", "hours", "variable"]
    measurements = demo[0].measurements
    level = measurements["level"].astype(object)
    found = measurements[columns].assign(
        variable=measurements["variable"].astype(str),
        value=measurements["value"].astype(object).where(level.isna(), level),
    )
    found = found.sort_values(columns, ignore_index=True)
    pd.testing.assert_frame_equal(found, usual_way(DEMO), check_dtype=False)


def test_the_clinical_profile(tmp_path: Path) -> None:
    extract(DEMO, tmp_path / "cohort", profile="clinical", progress=False)
    cohort = read_cohort(tmp_path / "cohort")
    values = cohort.measurements.groupby("variable", observed=True)["value"]
    assert values.median()["INR"] < 3 < 10 < values.median()["Prothrombin time"]
    assert values.min()["pH"] > 6.3
    assert values.max()["Systolic blood pressure"] < 350
    assert values.max()["Fraction inspired oxygen"] == 1
    assert values.min()["Temperature"] > 30
    assert len(cohort.measurements) > 105_000
