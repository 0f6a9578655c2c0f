"""A MEDS dataset as a cohort."""

import shutil
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml
from hypothesis import given, settings

from synehrgy.cohort import Cohort, export_meds, read_cohort, read_parts
from synehrgy.errors import UserError
from synehrgy.sources.meds import extract_meds, extraction, joining
from tests.cohorts import cohorts, small_cohort, write
from tests.sources.meds_dataset import write_dataset

YEARS = 365.25 * 24
STAY = ["hadm_id", "icustay_id"]


def born(subject: int, years: float) -> list[Any]:
    return [subject, -years * YEARS, "MEDS_BIRTH"]


def in_unit(subject: int, *codes: tuple[float, str]) -> list[list[Any]]:
    """Events of the first stay of an admission, of which it has the number times ten and 100."""
    ids = [None, None, 10 * subject, 100 * subject]
    return [[subject, hours, code, *ids] for hours, code in codes]


def admitted(subject: int, *codes: tuple[float, str]) -> list[list[Any]]:
    return [[subject, hours, code, None, None, 10 * subject] for hours, code in codes]


def mimic4_shards() -> dict[str, list[list[Any]]]:
    """Patients as MIMIC_IV_MEDS extracts them; train/0 as newer releases, the others as older."""
    first = [
        [1, None, "GENDER//F"],
        born(1, 60),
        *admitted(1, (-5, "HOSPITAL_ADMISSION//EW EMER.//EMERGENCY ROOM")),
        *in_unit(1, (0, "ICU_ADMISSION//MICU")),
        [1, 1, "LAB//220045//bpm", 80.0, "80", 10, 100],
        [1, 1, "LAB//220739//UNK", 4.0, "Spontaneously", 10, 100],
        [1, 1, "LAB//223761//°F", 98.6, "98.6", 10, 100],
        *admitted(1, (2, "LAB//SPECIMEN_COLLECTED//50912")),
        [1, 3, "LAB//RESULT//50912//mg/dL", 1.2, "1.2", 10],
        [1, 3, "LAB//RESULT//50912//mg/dL", 9.9, "9.9"],
        # De-identified texts leave their number.
        [1, 3, "LAB//RESULT//50971//mEq/L", 4.5, "___", 10],
        [1, 4, "LAB//220045//bpm", 90.0, "90", 10, 999],
        *in_unit(1, (48, "ICU_DISCHARGE//MICU")),
        *admitted(
            1,
            (100, "DIAGNOSIS//ICD//10//A419"),
            (100, "DIAGNOSIS//ICD//9//4019"),
            (100, "PROCEDURE//ICD//10//02HV33Z"),
            (100, "HOSPITAL_DISCHARGE//DIED"),
        ),
        [1, 100, "MEDS_DEATH"],
    ]
    moved = [
        born(2, 60),
        *admitted(2, (-5, "HOSPITAL_ADMISSION//x//UNK")),
        *in_unit(2, (0, "ICU_ADMISSION//MICU"), (9, "ICU_DISCHARGE//SICU")),
    ]
    child = [
        born(3, 10),
        *admitted(3, (-5, "HOSPITAL_ADMISSION//x//UNK")),
        *in_unit(3, (0, "ICU_ADMISSION//MICU"), (9, "ICU_DISCHARGE//MICU")),
    ]
    twice = [
        born(4, 60),
        *admitted(4, (-5, "HOSPITAL_ADMISSION//x//UNK")),
        *in_unit(4, (0, "ICU_ADMISSION//MICU"), (9, "ICU_DISCHARGE//MICU")),
        [4, 20, "ICU_ADMISSION//MICU", None, None, 40, 401],
        [4, 30, "ICU_DISCHARGE//MICU", None, None, 40, 401],
    ]
    last = [
        [5, None, "GENDER//M"],
        born(5, 95),
        *admitted(5, (-5, "HOSPITAL_ADMISSION//x//UNK")),
        *in_unit(5, (0, "ICU_ADMISSION//MICU")),
        [5, 2, "LAB//50912//mg/dL", 2.5, None, 50],
        [5, 9, "ICU_DISCHARGE//MICU", None, None, 50, 500],
        *admitted(5, (20, "HOSPITAL_DISCHARGE//HOME")),
        [5, 21, "MEDS_DEATH"],
    ]
    return {"train/0": first, "tuning/0": [*moved, *child], "held_out/0": [*twice, *last]}


def test_mimic4_as_the_public_tools_extract_it(tmp_path: Path) -> None:
    splits = {1: "train", 2: "tuning", 3: "tuning", 4: "held_out", 5: "held_out"}
    folder = write_dataset(tmp_path / "meds", mimic4_shards(), STAY, splits)
    summary = extract_meds(folder, tmp_path / "cohort", mapping="mimic4", progress=False)
    assert summary is not None
    assert summary.dropped == {
        "not the same unit at the end": 1,
        "no admission to it": 0,
        "not the only stay of its admission": 2,
        "younger than 18, or of unknown age": 1,
        "no length of stay, or no usable event in it": 0,
    }
    assert summary.split_rule == "by the dataset"
    cohort = read_cohort(tmp_path / "cohort")
    stays = cohort.stays.set_index("subject_id")
    assert stays["stay_id"].to_dict() == {1: 100, 5: 500}
    assert stays["hadm_id"].to_dict() == {1: 10, 5: 50}
    assert stays["split"].to_dict() == {1: "train", 5: "test"}
    assert stays["age"].to_dict() == {1: 60.0, 5: 90.0}
    assert stays["gender"].to_dict() == {1: "F", 5: "M"}
    assert stays["los_hours"].to_dict() == {1: 48.0, 5: 9.0}
    assert stays["in_hospital_mortality"].to_dict() == {1: 1, 5: 0}
    phenotypes = [label.column for label in cohort.schema.labels_of("phenotype")]
    assert stays[phenotypes].sum(axis=1).to_dict() == {1: 2, 5: 0}
    assert stays.loc[1, ["septicemia", "essential_hypertension"]].tolist() == [1, 1]
    defined = {label.column: label.definition for label in cohort.schema.labels}
    assert defined["septicemia"] == {"icd10_diagnosis": ["A419"]}
    assert defined["essential_hypertension"] == {"icd9_diagnosis": ["4019"]}
    assert cohort.codes[["position", "system", "code"]].to_numpy().tolist() == [
        [0, "icd9_diagnosis", "4019"],
        [1, "icd10_diagnosis", "A419"],
        [2, "icd10_procedure", "02HV33Z"],
    ]
    told = cohort.measurements.astype(object).to_numpy().tolist()
    assert [[None if pd.isna(x) else x for x in row] for row in told] == [
        [100, 1.0, "Glasgow coma scale eye opening", None, "Spontaneously"],
        [100, 1.0, "Heart Rate", 80.0, None],
        [100, 1.0, "Temperature", pytest.approx(37.0), None],
        [100, 3.0, "Creatinine", 1.2, None],
        [100, 3.0, "Potassium", 4.5, None],
        [500, 2.0, "Creatinine", 2.5, None],
    ]
    assert cohort.provenance["config"]["raw_dir"] == str(folder)
    assert cohort.provenance["dataset"]["dataset_name"] == "hand"
    assert len(cohort.provenance["sources"]) == 3


def test_a_shard_may_lack_a_column_that_others_have(tmp_path: Path) -> None:
    shards = mimic4_shards()
    shards["train/1"] = [[6, None, "GENDER//F"], [6, 5, "LAB//220045//bpm", 80.0, "80"]]
    folder = write_dataset(tmp_path / "meds", shards, STAY)
    file = folder / "data" / "train" / "1.parquet"
    pq.write_table(pq.read_table(file).drop_columns(STAY), file)
    summary = extract_meds(folder, tmp_path / "cohort", mapping="mimic4", progress=False)
    assert summary is not None
    assert summary.n_stays == 2


def test_a_category_has_only_codes_with_a_description(tmp_path: Path) -> None:
    shards = mimic4_shards()
    described = {row[2]: "known" for rows in shards.values() for row in rows}
    folder = write_dataset(
        tmp_path / "meds", shards, STAY, described={**described, "DIAGNOSIS//ICD//10//A419": None}
    )
    extract_meds(folder, tmp_path / "cohort", mapping="mimic4", progress=False)
    stays = read_cohort(tmp_path / "cohort").stays
    assert stays["septicemia"].tolist() == [0, 0]
    assert stays["essential_hypertension"].tolist() == [1, 0]


WARD = """
source: ward
stays: {begin: "IN//{bed}", end: "OUT//*"}
covariates:
  - {name: age, kind: continuous, unit: years, birth: {}}
  - {name: sex, kind: categorical, levels: [f, m], code: SEX}
  - {name: weight, kind: continuous, unit: kg, code: "WEIGHT//*"}
codes: {systems: [{name: atc, title: ATC, code: "DRUG//{code}"}]}
labels:
  - {column: died, kind: outcome, death: stay}
  - {column: fall, kind: outcome, code: FALL}
  - {column: anticoagulant, title: Anticoagulant, kind: phenotype, systems: [atc], codes: [B01]}
series:
  - name: Temperature
    kind: continuous
    unit: C
    range: [30, 45]
    codes: ["TEMP//C", {code: "TEMP//F", multiply: 0.5, add: -10}]
  - {name: Mood, kind: categorical, levels: {good: [fine, ok], bad: [poor]}, codes: [MOOD]}
  - {name: Score, kind: categorical, levels: ["1", "2"], codes: ["SCORE*"]}
"""
WARD_ROWS = {
    "a": [
        [3, None, "SEX", None, "f"],
        born(3, 10),
        [3, -1, "WEIGHT//kg", 70],
        [3, 0, "IN//1"],
        [3, 1, "TEMP//C", 36.6],
        [3, 1, "TEMP//F", 94],
        [3, 2, "TEMP//C", 400],
        [3, 2, "MOOD", None, " OK "],
        [3, 3, "SCORE//x", 2],
        [3, 3, "MOOD", None, "unclear"],
        [3, 5, "DRUG//B01"],
        [3, 5, "DRUG//A02"],
        [3, 10, "OUT//home"],
        [3, 12, "TEMP//C", 38],
        [3, 20, "IN//1"],
        [3, 20, "WEIGHT//kg", 72],
        [3, 21, "TEMP//C", 39],
        [3, 25, "FALL"],
        [3, 30, "OUT//dead"],
        [3, 30, "MEDS_DEATH"],
    ],
    "b": [
        [2, 0, "IN//2"],
        [2, 0, "FALL", 0],
        [2, 2, "TEMP//C", 37],
        [2, 1000, "TEMP//C", 38],
        [2, 2000, "IN//2"],
    ],
}


@pytest.fixture
def ward(tmp_path: Path) -> Path:
    """A dataset without identifiers of stays, with its mapping."""
    folder = write_dataset(tmp_path / "ward", WARD_ROWS, splits={2: "tuning", 3: "train"})
    (folder / "metadata" / "mapping.yaml").write_text(WARD)
    return folder


def test_a_dataset_that_knows_only_times(ward: Path, tmp_path: Path) -> None:
    summary = extract_meds(ward, tmp_path / "cohort", name="ours", progress=False)
    assert summary is not None
    assert (summary.unreadable, summary.impossible) == ({"Mood": 1}, {"Temperature": 1})
    assert (summary.stays_listed, summary.dropped, summary.time_points) == (4, {}, 6)
    cohort = read_cohort(tmp_path / "cohort")
    assert (cohort.schema.name, cohort.schema.source) == ("ours", "ward")
    assert cohort.schema.labels[2].codes == ["B01"]
    told = cohort.stays.drop(columns="hadm_id").astype(object).to_numpy().tolist()
    first, second = 10_000_001, 10_000_002
    assert [[None if pd.isna(x) else x for x in row] for row in told] == [
        [2, first, 0, "val", None, None, None, 0, 0, 0, None],
        [2, second, 1, "val", None, None, None, 0, 0, 0, None],
        [3, 1, 0, "train", 10.0, "f", 70.0, 0, 0, 1, 10.0],
        [3, 2, 1, "train", pytest.approx(10 + 20 / YEARS), "f", 72.0, 1, 1, 0, 10.0],
    ]
    assert cohort.stays["hadm_id"].isna().all()
    assert cohort.codes.to_numpy().tolist() == [[1, 0, "atc", "B01"], [1, 1, "atc", "A02"]]
    told = cohort.measurements.astype(object).to_numpy().tolist()
    assert [[None if pd.isna(x) else x for x in row] for row in told] == [
        [first, 2.0, "Temperature", 37.0, None],
        [first, 1000.0, "Temperature", 38.0, None],
        [1, 1.0, "Temperature", pytest.approx(36.8), None],
        [1, 2.0, "Mood", None, "good"],
        [1, 3.0, "Score", None, "2"],
        [2, 1.0, "Temperature", 39.0, None],
    ]


def test_admissions_that_only_times_tell(ward: Path, tmp_path: Path) -> None:
    """A stay without an admission is dropped; codes are those until the end of the admission."""
    rows = [
        [7, -5, "H_IN"],
        [7, 0, "IN//1"],
        [7, 1, "TEMP//C", 37],
        [7, 10, "OUT//home"],
        [7, 20, "DRUG//B01"],
        [7, 21, "H_OUT"],
        [7, 22, "DRUG//A02"],
        [7, 100, "IN//1"],
        [7, 101, "TEMP//C", 38],
        [8, 0, "IN//1"],
    ]
    write_dataset(ward, {"a": rows, "b": []})
    mapping = yaml.safe_load(WARD)
    mapping["stays"]["admission"] = {"begin": "H_IN", "end": "H_OUT"}
    mapping["labels"][0]["death"] = "admission"
    (ward / "metadata" / "mapping.yaml").write_text(yaml.safe_dump(mapping))
    summary = extract_meds(ward, tmp_path / "cohort", progress=False)
    assert summary is not None
    assert summary.dropped == {"no admission to it": 2}
    cohort = read_cohort(tmp_path / "cohort")
    assert cohort.stays["subject_id"].tolist() == [7]
    assert cohort.codes["code"].tolist() == ["B01"]
    assert cohort.measurements["value"].tolist() == [37]


def test_without_splits_of_its_own_it_is_split_by_hash(ward: Path, tmp_path: Path) -> None:
    (ward / "metadata" / "subject_splits.parquet").unlink()
    summary = extract_meds(ward, tmp_path / "cohort", progress=False)
    assert summary is not None
    assert summary.split_rule == "by hash"
    lists = tmp_path / "lists"
    lists.mkdir()
    (lists / "testset.csv").write_text("2,1\n3,0\n")
    extract_meds(ward, tmp_path / "cohort", split_dir=lists, progress=False)
    assert read_cohort(tmp_path / "cohort").stays["split"].tolist() == ["test"] * 2 + ["train"] * 2


def assert_same(expected: Cohort, found: Cohort) -> None:
    assert found.schema == expected.schema
    for name in ("stays", "codes", "measurements"):
        frames = [cohort.table(name) for cohort in (expected, found)]
        plain = [
            frame.astype({c: object for c, kind in frame.dtypes.items() if str(kind) == "category"})
            for frame in frames
        ]
        pd.testing.assert_frame_equal(*plain, check_exact=True)


def there_and_back(cohort: Path, folder: Path) -> Cohort:
    export_meds(cohort, folder / "meds")
    extract_meds(folder / "meds", folder / "back", progress=False)
    return read_cohort(folder / "back")


@settings(max_examples=12)
@given(cohort=cohorts())
def test_an_export_comes_back_as_it_was(
    cohort: Cohort, tmp_path_factory: pytest.TempPathFactory
) -> None:
    """Stays, covariates, labels, codes with their places, hours, values, levels, splits, schema."""
    folder = tmp_path_factory.mktemp("meds")
    write(cohort, folder / "cohort")
    found = there_and_back(folder / "cohort", folder)
    expected = read_cohort(folder / "cohort")
    assert_same(replace(expected, schema=replace(expected.schema, name="meds")), found)


def test_the_demo_comes_back_as_it_was(demo_cohort: Path, tmp_path: Path) -> None:
    found = there_and_back(demo_cohort, tmp_path)
    expected = read_cohort(demo_cohort)
    assert_same(replace(expected, schema=replace(expected.schema, name="meds")), found)
    assert found.schema.labels[1].codes == expected.schema.labels[1].codes != []


# Shards


@pytest.fixture
def shards(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An export in four shards or more, whose patients do not follow each other."""
    write(small_cohort(12), tmp_path / "expected")
    parts = partial(read_parts, n_patients=6)
    with monkeypatch.context() as patch:
        patch.setattr("synehrgy.cohort.meds.read_parts", parts)
        export_meds(tmp_path / "expected", tmp_path / "meds")
    return tmp_path / "meds"


def test_shards_are_shared_and_joined(
    shards: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "cohort"
    n = len(list((shards / "data").rglob("*.parquet")))
    assert n >= 4
    taken: list[str] = []
    extract_shard = extraction._extract_shard

    def count(work: Any, shard: str) -> None:
        taken.append(shard)
        extract_shard(work, shard)

    monkeypatch.setattr(extraction, "_extract_shard", count)
    share = partial(extract_meds, shards, path, name="small", n_workers=2, progress=False)
    assert share(worker=0) is None
    assert not path.exists()
    assert share(worker=1) is None
    assert len(taken) == len(set(taken)) == n
    # One file is another since: only its shard is extracted again.
    changed = sorted((shards / "data").rglob("*.parquet"))[0]
    changed.touch()
    # Rows that come from the sort in small batches, within stays.
    monkeypatch.setattr(joining, "BATCH_ROWS", 7)
    share()
    assert len(taken) == n + 1
    assert_same(read_cohort(tmp_path / "expected"), read_cohort(path))
    assert sorted(f.name for f in tmp_path.iterdir()) == ["cohort", "expected", "meds"]


def test_an_interrupted_extraction_goes_on(
    shards: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "cohort"
    extract_shard, taken = extraction._extract_shard, []

    def fail_at_third(work: Any, shard: str) -> None:
        if len(taken) == 2:
            raise KeyboardInterrupt
        taken.append(shard)
        extract_shard(work, shard)

    with monkeypatch.context() as patch:
        patch.setattr(extraction, "_extract_shard", fail_at_third)
        with pytest.raises(KeyboardInterrupt):
            extract_meds(shards, path, name="small", progress=False)
    assert not path.exists()
    again: list[str] = []
    monkeypatch.setattr(
        extraction,
        "_extract_shard",
        lambda work, shard: again.append(shard) or extract_shard(work, shard),
    )
    extract_meds(shards, path, name="small", progress=False)
    assert not set(taken) & set(again)
    assert_same(read_cohort(tmp_path / "expected"), read_cohort(path))


def test_a_patient_in_two_shards_is_refused(shards: Path, tmp_path: Path) -> None:
    shutil.copy(shards / "data" / "train" / "0.parquet", shards / "data" / "train" / "9.parquet")
    with pytest.raises(UserError, match="Subject 10 is in more than one shard"):
        extract_meds(shards, tmp_path / "cohort", progress=False)
    assert not (tmp_path / "cohort").exists()


# What is said when something is wrong


def test_no_stay_at_all(ward: Path, tmp_path: Path) -> None:
    (ward / "metadata" / "mapping.yaml").write_text(WARD.replace("IN//", "INTO//"))
    with pytest.raises(UserError, match="no stay is kept"):
        extract_meds(ward, tmp_path / "cohort", progress=False)
    assert sorted(f.name for f in tmp_path.iterdir()) == ["ward"]


def test_the_schema_can_be_refused_at_once(ward: Path, tmp_path: Path) -> None:
    def refuse(schema: Any) -> None:
        raise UserError(f"no {schema.variables[0].name}, please")

    with pytest.raises(UserError, match="no Temperature, please"):
        extract_meds(ward, tmp_path / "cohort", declared=refuse, progress=False)
    assert sorted(f.name for f in tmp_path.iterdir()) == ["ward"]


def test_files_appear_together_with_the_cohort(ward: Path, tmp_path: Path) -> None:
    extract_meds(ward, tmp_path / "cohort", progress=False, complete=lambda f: (f / "more").touch())
    assert (tmp_path / "cohort" / "more").exists()


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (lambda f: shutil.rmtree(f), "does not exist or is not a folder"),
        (lambda f: shutil.rmtree(f / "data"), "is no MEDS dataset: it has no file data"),
        (lambda f: (f / "data" / "a.parquet").write_text("x"), "cannot be read as Parquet"),
        (lambda f: (f / "metadata" / "dataset.json").write_text("{"), "dataset.json is damaged"),
        (lambda f: (f / "metadata" / "mapping.yaml").unlink(), "has no mapping of its own"),
        (
            lambda f: (f / "metadata" / "mapping.yaml").write_text(WARD + "hours: minutes\n"),
            "no shard has a column 'minutes', which the mapping needs",
        ),
        (
            lambda f: rewritten(f, lambda t: t.drop_columns("code")),
            "has no column 'code', which the standard needs",
        ),
        (
            lambda f: rewritten(f, lambda t: t.set_column(1, "time", pa.array(["x"] * len(t)))),
            "column 'time' must be a timestamp, is string",
        ),
        (
            lambda f: rewritten(f, lambda t: t.set_column(0, "subject_id", t["code"])),
            "cannot be read as MEDS",
        ),
        (
            lambda f: (f / "metadata" / "subject_splits.parquet").write_text("x"),
            "subject_splits.parquet cannot be read",
        ),
    ],
)
def test_a_dataset_that_cannot_be_used(ward: Path, tmp_path: Path, change: Any, says: str) -> None:
    change(ward)
    with pytest.raises(UserError, match=says):
        extract_meds(ward, tmp_path / "cohort", progress=False)
    assert not (tmp_path / "cohort").exists()


def rewritten(folder: Path, change: Any) -> None:
    file = folder / "data" / "a.parquet"
    pq.write_table(change(pq.read_table(file)), file)


def test_workers_are_numbered_from_zero(ward: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="workers are numbered from 0 to"):
        extract_meds(ward, tmp_path / "cohort", worker=2, n_workers=2, progress=False)


def test_a_mapping_may_be_a_file_anywhere(ward: Path, tmp_path: Path) -> None:
    file = tmp_path / "mine.yaml"
    content = yaml.safe_load(WARD)
    content["series"][0]["range"] = [0, 500]
    file.write_text(yaml.safe_dump(content))
    extract_meds(ward, tmp_path / "cohort", mapping=str(file), progress=False)
    cohort = read_cohort(tmp_path / "cohort")
    assert np.nanmax(cohort.measurements["value"]) == 400
    assert cohort.provenance["mapping"] == file.read_text()


def test_columns_may_be_called_as_those_of_a_query(tmp_path: Path) -> None:
    cohort = small_cohort(30)
    schema = cohort.schema
    names = [*(c.name for c in schema.covariates), *(x.column for x in schema.labels)]
    odd_names = dict(zip(names, ("place", "row", "birth", "a", "A"), strict=True))
    odd = replace(
        cohort,
        schema=replace(
            schema,
            covariates=[replace(c, name=odd_names[c.name]) for c in schema.covariates],
            labels=[replace(x, column=odd_names[x.column]) for x in schema.labels],
        ),
        stays=cohort.stays.rename(columns=odd_names),
    )
    write(odd, tmp_path / "odd")
    export_meds(tmp_path / "odd", tmp_path / "meds")
    extract_meds(tmp_path / "meds", tmp_path / "again", progress=False)
    again = read_cohort(tmp_path / "again")
    pd.testing.assert_frame_equal(again.stays, read_cohort(tmp_path / "odd").stays)


PRESSURES = {
    "source": "ward",
    "stays": {"begin": "IN", "end": "OUT"},
    "codes": {"systems": [{"name": "icd10_diagnosis", "code": "DX//{code}"}]},
    "labels": [{"column": "sepsis", "kind": "phenotype", "codes": {"icd10_diagnosis": ["A41.9"]}}],
    "series": [
        {"name": "SBP", "kind": "continuous", "clean": "systolic", "codes": ["BP [mmHg]"]},
        {"name": "DBP", "kind": "continuous", "clean": "diastolic", "codes": ["BP [mmHg]"]},
    ],
}


def pressures(tmp_path: Path, **changed: Any) -> Path:
    rows = [
        [1, 0, "IN"],
        [1, 1, "BP [mmHg]", None, "120/80"],
        [1, 2, "DX//a41.9"],
        [1, 9, "OUT"],
    ]
    content = {**PRESSURES, **changed}
    (tmp_path / "mapping.yaml").write_text(yaml.safe_dump(content))
    return write_dataset(tmp_path / "meds", {"train/0": rows}, splits={1: "train"})


def test_one_code_may_be_of_two_series(tmp_path: Path) -> None:
    folder, mapping = pressures(tmp_path), str(tmp_path / "mapping.yaml")
    extract_meds(folder, tmp_path / "cohort", mapping=mapping, progress=False)
    cohort = read_cohort(tmp_path / "cohort")
    told = cohort.measurements[["variable", "value"]].astype(object).to_numpy().tolist()
    assert told == [["DBP", 80.0], ["SBP", 120.0]]
    # Codes of ICD are those of other cohorts, however they are written.
    assert cohort.codes["code"].tolist() == ["A419"]
    assert cohort.stays["sepsis"].tolist() == [1]
    assert cohort.schema.labels[0].definition == {"icd10_diagnosis": ["A419"]}


def test_a_split_that_the_mapping_does_not_know(tmp_path: Path) -> None:
    folder = pressures(tmp_path, splits={"tune": "val"})
    with pytest.raises(UserError, match=r"has the split 'train', of which the mapping says"):
        extract_meds(
            folder, tmp_path / "cohort", mapping=str(tmp_path / "mapping.yaml"), progress=False
        )


def test_categories_need_descriptions(tmp_path: Path) -> None:
    folder = write_dataset(
        tmp_path / "meds", mimic4_shards(), STAY, described={"DIAGNOSIS//ICD//10//A419": None}
    )
    with pytest.raises(UserError, match=r"codes\.parquet describes no code"):
        extract_meds(folder, tmp_path / "cohort", mapping="mimic4", progress=False)
