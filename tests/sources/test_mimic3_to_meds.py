"""MIMIC-III as a MEDS dataset, and the cohort that comes of it."""

import shutil
from pathlib import Path

import meds
import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest

from synehrgy.cohort import read_cohort
from synehrgy.errors import UserError
from synehrgy.files import read_json
from synehrgy.sources.meds import extract_meds
from synehrgy.sources.mimic3 import extract, to_meds
from synehrgy.sources.mimic3.__main__ import main
from synehrgy.sources.mimic3.to_meds import to_meds as convert
from tests.conftest import SHARED
from tests.sources.meds_dataset import check_dataset
from tests.sources.raw_database import (
    Database,
    admission,
    at,
    chart,
    code,
    database,
    lab,
    patient,
    stay,
    write_database,
)

DEMO, LISTS = SHARED / "data" / "mimic3-demo", SHARED / "data" / "benchmark-splits"
IDS = {"subject_id": 1, "hadm_id": 10, "icustay_id": 100}


def everything() -> Database:
    """One patient with an event of each kind."""
    period = {**IDS, "starttime": at(2), "endtime": at(3)}
    return database(
        patients=[patient(dod="2150-01-05 00:00:00")],
        admissions=[
            admission(
                **{"admission_type": "EMERGENCY", "admission_location": "ER", "insurance": "Own"},
                **{"discharge_location": None, "language": None, "ethnicity": "WHITE"},
                **{"edregtime": at(-3), "edouttime": at(-0.5), "deathtime": at(119)},
            )
        ],
        chartevents=[
            chart(211, "80.5", 1, valuenum="80.5", valueuom="BPM"),
            chart(184, "4 Spontaneously", 1, valuenum="4"),
        ],
        labevents=[lab(50912, "1.2", 1, valuenum="1.2", valueuom="mg/dL", hadm_id=None)],
        outputevents=[{**IDS, "charttime": at(5), "itemid": 40055, "value": 39, "valueuom": "ml"}],
        inputevents_mv=[
            {**period, "itemid": 225158, "rate": 10, "rateuom": "mL/hour", "patientweight": 80}
        ],
        inputevents_cv=[{**IDS, "charttime": at(6), "itemid": 30013, "amount": 7}],
        procedureevents_mv=[{**period, "itemid": 225792}],
        prescriptions=[{**IDS, "startdate": at(0), "enddate": None, "drug": "Heparin"}],
        transfers=[
            {**IDS, "eventtype": "admit", "curr_careunit": None, "curr_wardid": 5, "intime": at(0)}
        ],
        drgcodes=[
            {**IDS, "drg_type": "HCFA", "drg_code": "1", "description": "Something"},
            {**IDS, "drg_type": "HCFA", "drg_code": "2", "description": None},
        ],
        diagnoses_icd=[code("4019", 2), code("0389", 1), code(" ", 3), code("V5861", 4)],
        d_items=[{"itemid": 211, "label": "Heart Rate"}],
        d_labitems=[{"itemid": 50912, "label": "Creatinine", "loinc_code": "2160-0"}],
        d_icd_procedures=[{"icd9_code": "9604", "long_title": "Insertion of a tube"}],
        d_icd_diagnoses=[
            {"icd9_code": "0389", "long_title": "Septicemia"},
            {"icd9_code": "99592", "long_title": "Severe sepsis"},
        ],
    )


@pytest.mark.parametrize("form", ["csv", "parquet"])
def test_every_kind_of_event(tmp_path: Path, form: str) -> None:
    raw = write_database(everything(), tmp_path / "raw", form)
    found = convert(raw, tmp_path / "meds", progress=False)
    assert (found.patients, found.shards, found.absent) == (1, 1, [])
    events = check_dataset(tmp_path / "meds")
    assert len(events) == found.events
    begin = pd.Timestamp(at(0))
    hours = (events["time"] - begin) / pd.Timedelta(hours=1)
    told = [
        (None if np.isnan(h) else round(h, 3), c, *(None if pd.isna(x) else x for x in (n, t)))
        for h, c, n, t in zip(
            hours, events["code"], events["numeric_value"], events["text_value"], strict=True
        )
    ]
    born = told.pop(1)
    assert born[1] == meds.birth_code
    assert born[0] < -60 * 365 * 24
    assert told == [
        (None, "GENDER//F", None, None),
        (-3, "ED_REGISTRATION", None, None),
        (-1, "HOSPITAL_ADMISSION//EMERGENCY//ER", None, None),
        (-1, "INSURANCE//Own", None, None),
        (-1, "RACE//WHITE", None, None),
        (-0.5, "ED_OUT", None, None),
        (0, "TRANSFER_TO//admit//UNK", None, None),
        (0, "ICU_ADMISSION//MICU", None, None),
        (0, "MEDICATION//START//Heparin", None, None),
        (1, "LAB//184//UNK", 4, "4 Spontaneously"),
        (1, "LAB//211//BPM", 80.5, "80.5"),
        (1, "LAB//50912//mg/dL", np.float32(1.2), "1.2"),
        (2, "INFUSION_START//225158", 10, None),
        (2, "SUBJECT_WEIGHT_AT_INFUSION//KG", 80, None),
        (2, "PROCEDURE//START//225792", None, None),
        (3, "INFUSION_END//225158", None, None),
        (3, "PROCEDURE//END//225792", None, None),
        (5, "SUBJECT_FLUID_OUTPUT//40055//ml", 39, None),
        (6, "INFUSION_END//30013", 7, None),
        (48, "ICU_DISCHARGE//MICU", 2, "2.0"),
        (119, "DIAGNOSIS//ICD//9//0389", None, None),
        (119, "DIAGNOSIS//ICD//9//4019", None, None),
        (119, "DIAGNOSIS//ICD//9//V5861", None, None),
        (119, "PROCEDURE//ICD//9//9604", None, None),
        (119, "DRG//HCFA//1//Something", None, None),
        (119, "DRG//HCFA//2//UNK", None, None),
        (119, "HOSPITAL_DISCHARGE//UNK", None, None),
        (119, "MEDS_DEATH", None, None),
    ]
    of = events.set_index("code")
    assert of.loc["LAB//211//BPM", ["hadm_id", "icustay_id"]].tolist() == [10, 100]
    assert of.loc["LAB//50912//mg/dL", ["hadm_id", "icustay_id"]].isna().all()
    assert of.loc["DIAGNOSIS//ICD//9//4019", ["hadm_id", "seq_num"]].tolist() == [10, 2]
    assert of.loc["ICU_ADMISSION//MICU", "wardid"] == 5
    assert of.loc["INFUSION_START//225158", "unit"] == "mL/hour"


def test_codes_are_described_with_their_parents(tmp_path: Path) -> None:
    raw = write_database(everything(), tmp_path / "raw")
    convert(raw, tmp_path / "meds", progress=False)
    table = pq.read_table(tmp_path / "meds" / meds.code_metadata_filepath).to_pylist()
    found = {row["code"]: (row["description"], row["parent_codes"]) for row in table}
    assert found["LAB//211//BPM"] == ("Heart Rate", [])
    assert found["LAB//50912//mg/dL"] == ("Creatinine", ["LOINC/2160-0"])
    assert found["DIAGNOSIS//ICD//9//0389"] == ("Septicemia", ["ICD9CM/038.9"])
    assert found["DIAGNOSIS//ICD//9//4019"] == (None, ["ICD9CM/401.9"])
    assert found["PROCEDURE//ICD//9//9604"] == ("Insertion of a tube", ["ICD9Proc/96.04"])
    # A code that could occur: what is in a category does not depend on who has it.
    assert found["DIAGNOSIS//ICD//9//99592"] == ("Severe sepsis", ["ICD9CM/995.92"])
    assert found["DRG//HCFA//1//Something"] == (None, [])
    about = read_json(tmp_path / "meds" / meds.dataset_metadata_filepath)
    meds.DatasetMetadataSchema.validate(about)
    assert about["dataset_name"] == "MIMIC-III"


def several(n: int = 7) -> Database:
    """Patients whose rows stand in no order."""
    numbers = [*range(2, n + 1), 1]
    return database(
        patients=[patient(i, gender="FM"[i % 2]) for i in numbers],
        admissions=[admission(i, 10 * i, admission_type="ELECTIVE") for i in numbers],
        icustays=[stay(i, 10 * i, 100 * i) for i in numbers],
        diagnoses_icd=[code("0389", 1, 10 * i) for i in numbers],
        procedures_icd=[code("9604", 1, 10 * i) for i in numbers],
        chartevents=[
            chart(211, str(70 + i + h), h, subject_id=i, hadm_id=10 * i, icustay_id=100 * i)
            for h in (2, 1, 3)
            for i in numbers
        ],
    )


def bytes_of(folder: Path) -> dict[str, bytes]:
    return {
        f.relative_to(folder).as_posix(): f.read_bytes() for f in folder.rglob("*") if f.is_file()
    }


def test_shards_hold_groups_of_patients_by_split(tmp_path: Path) -> None:
    raw = write_database(several(20), tmp_path / "raw")
    found = convert(raw, tmp_path / "meds", patients_per_shard=4, progress=False)
    events = check_dataset(tmp_path / "meds")
    assert events["subject_id"].nunique() == found.patients == 20
    sizes = events.groupby("shard")["subject_id"].nunique()
    assert sizes.max() == 4
    splits = pq.read_table(tmp_path / "meds" / meds.subject_splits_filepath).to_pydict()
    split_of = dict(zip(*splits.values(), strict=True))
    of_shard = events["shard"].str.split("/").str[0]
    assert (events["subject_id"].map(split_of) == of_shard).all()
    raw_cohort, cohort = tmp_path / "raw-cohort", tmp_path / "cohort"
    extract(raw, raw_cohort, progress=False)
    extract_meds(tmp_path / "meds", cohort, mapping="mimic3", name="mimic3", progress=False)
    assert_same(raw_cohort, cohort)


def test_what_is_finished_is_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    raw = write_database(several(), tmp_path / "raw")
    convert(raw, tmp_path / "whole", patients_per_shard=2, progress=False)
    module = to_meds
    write, staged = module._write_shard, []

    def fail_at_third(connection, work, number, shard):  # type: ignore[no-untyped-def]
        if number == 2:
            raise KeyboardInterrupt
        write(connection, work, number, shard)

    with monkeypatch.context() as patch:
        patch.setattr(module, "_write_shard", fail_at_third)
        with pytest.raises(KeyboardInterrupt):
            convert(raw, tmp_path / "meds", patients_per_shard=2, progress=False)
    assert not (tmp_path / "meds").exists()
    partial = tmp_path / "meds.partial"
    done = {file: file.stat().st_mtime_ns for file in partial.rglob("data/*/*.parquet")}
    assert len(done) == 2
    stage = module._selected
    monkeypatch.setattr(
        module, "_selected", lambda *arguments: staged.append(1) or stage(*arguments)
    )
    convert(raw, tmp_path / "meds", patients_per_shard=2, progress=False)
    assert not staged
    for file, time in done.items():
        assert (tmp_path / "meds" / file.relative_to(partial)).stat().st_mtime_ns == time
    assert bytes_of(tmp_path / "meds") == bytes_of(tmp_path / "whole")
    assert sorted(f.name for f in tmp_path.iterdir()) == ["meds", "raw", "whole"]


def test_other_files_or_settings_begin_anew(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    raw = write_database(several(), tmp_path / "raw")
    with monkeypatch.context() as patch:
        patch.setattr(to_meds, "_write_metadata", lambda *_: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            convert(raw, tmp_path / "meds", patients_per_shard=2, progress=False)
    assert (tmp_path / "meds.partial" / "plan.json").exists()
    convert(raw, tmp_path / "meds", patients_per_shard=3, progress=False)
    convert(raw, tmp_path / "direct", patients_per_shard=3, progress=False)
    assert bytes_of(tmp_path / "meds") == bytes_of(tmp_path / "direct")


def test_nothing_is_replaced(tmp_path: Path) -> None:
    raw = write_database(database(), tmp_path / "raw")
    (tmp_path / "meds").mkdir()
    with pytest.raises(UserError, match="is there already"):
        convert(raw, tmp_path / "meds", progress=False)
    (tmp_path / "other.partial").mkdir()
    (tmp_path / "other.partial" / "notes.txt").write_text("mine")
    with pytest.raises(UserError, match="was not written by this program"):
        convert(raw, tmp_path / "other", progress=False)


def test_the_command(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    raw = write_database(several(), tmp_path / "raw")
    folder = tmp_path / "meds"
    assert main(["to_meds", str(raw), str(folder), "--no-progress"]) == 0
    shown = capsys.readouterr().out
    assert "Without the tables that are not there: TRANSFERS, DRGCODES, OUTPUTEVENTS" in shown
    assert f"of 7 patients in 2 shards to {folder}" in shown
    assert "Next: python preprocess.py data=meds" in shown
    assert main(["to_meds", str(raw), str(folder), "--no-progress"]) == 1
    assert capsys.readouterr().err.startswith(f"Error: {folder} is there already")
    shutil.rmtree(folder)
    (raw / "PATIENTS.csv").unlink()
    assert main(["to_meds", str(raw), str(folder), "--no-progress"]) == 1
    assert "lacks PATIENTS" in capsys.readouterr().err


def assert_same(raw: Path, other: Path) -> None:
    """The same cohort, to the last bit."""
    expected, found = read_cohort(raw), read_cohort(other)
    assert found.schema == expected.schema
    for name in ("stays", "codes", "measurements"):
        pd.testing.assert_frame_equal(found.table(name), expected.table(name), check_exact=True)


@pytest.mark.skipif(
    not (DEMO.is_dir() and LISTS.is_dir()),
    reason="the open demo and the benchmark's split lists are not beside the repository",
)
def test_the_demo_is_the_same_cohort_by_both_ways(demo_cohort: Path, tmp_path: Path) -> None:
    """Nothing differs: not a stay, code, label or value, nor what the schema says of them."""
    folder = tmp_path / "meds"
    found = convert(DEMO, folder, split_dir=LISTS, patients_per_shard=30, progress=False)
    # 757,355 charts would be 758,355 rows, all of which are events; so are all labs and outputs.
    assert found.events == len(check_dataset(folder))
    table = pq.read_table(folder / "data", columns=["code"], partitioning=None)["code"].to_pylist()
    assert sum(code.startswith("LAB//") for code in table) == 758_355 + 76_074
    path = tmp_path / "cohort"
    summary = extract_meds(folder, path, mapping="mimic3", name="mimic3_demo", progress=False)
    assert summary is not None
    assert summary.dropped["not the only stay of its admission"] == 11
    assert_same(demo_cohort, path)
    clinical = [tmp_path / "raw-clinical", tmp_path / "clinical"]
    extract(DEMO, clinical[0], split_dir=LISTS, profile="clinical", progress=False)
    extract_meds(
        folder, clinical[1], mapping="mimic3", name="mimic3", profile="clinical", progress=False
    )
    assert_same(*clinical)
