"""A draft of tables.yaml from tables alone."""

import pandas as pd
import pytest
import yaml

from synehrgy.cohort.__main__ import main
from synehrgy.cohort.schema import FIXED_STAY_COLUMNS
from synehrgy.errors import UserError
from synehrgy.sources.tables import draft, extract_tables
from tests.sources.hospital import VITALS, long_form, tables


def drafted(folder, frames, **options):
    folder.mkdir()
    for name, frame in frames.items():
        if name.endswith(".parquet"):
            frame.to_parquet(folder / name, index=False)
        else:
            frame.to_csv(folder / name, index=False, **options)
    said = draft(folder)
    return yaml.safe_load((folder / "tables.yaml").read_text(encoding="utf-8")), said


def test_a_hospital_is_understood(tmp_path):
    found, said = drafted(tmp_path / "raw", tables())
    assert found["stays"] == {
        "file": "stays.csv",
        "subject": "patient",
        "stay": "visit",
        "admitted": "arrived",
        "discharged": "left",
    }
    assert found["covariates"] == {
        "age": {"since": "born", "unit": "years"},
        "gender": {"column": "sex", "levels": ["f", "m"]},
        "triage": {},
    }
    assert found["labels"] == {"died": {}}
    assert found["measurements"] == [{"file": "vitals.csv", "stay": "visit", "time": "time"}]
    assert found["series"] == {"HR": {}, "AVPU": {"levels": ["A", "P", "v"]}}
    assert found["codes"][0]["code"] == "code"
    assert f"Next: correct it; python -m synehrgy.cohort check {tmp_path / 'raw'}" in said


def test_a_draft_may_be_all_that_is_needed(tmp_path):
    """Codes of one system, measurements in the long form with hours, Parquet."""
    found = tables()
    stays = found["stays.csv"].drop(columns=["arrived", "left", "born"])
    stays["died"] = ["1", "0", "0", "1"]
    long = long_form(VITALS)
    long["time"] = [str(0.5 * i) for i in range(len(long))]
    long = long.rename(columns={"time": "hours_since_admission"})
    codes = found["codes.csv"].query("kind == 'dx'").drop(columns=["kind", "rank"])
    frames = {"patients.parquet": stays, "dx.csv": codes, "labs.csv.gz": long}
    declared, _ = drafted(tmp_path / "raw", frames)
    assert declared["labels"] == {"died": {}}
    assert declared["codes"][0]["system"] == "icd10_diagnosis"
    (measurements,) = declared["measurements"]
    assert (measurements["variable"], measurements["value"]) == ("item", "result")
    summary = extract_tables(tmp_path / "raw", tmp_path / "cohort", progress=False)
    assert summary.values == {"AVPU": 5, "HR": 5}
    assert summary.positives == {"died": 2}


def test_tables_written_in_another_way(tmp_path):
    found = tables()
    vitals, stays = found["vitals.csv"], found["stays.csv"]
    vitals["HR"] = vitals["HR"].replace({"91.5": "91,5", "": "NA"})
    for frame, column in ((vitals, "time"), (stays, "arrived"), (stays, "left")):
        frame[column] = pd.to_datetime(frame[column]).dt.strftime("%d.%m.%Y %H:%M")
    stays["sex"] = stays["sex"].replace("m", "männlich")
    options = {"sep": ";", "encoding": "latin-1"}
    declared, _ = drafted(tmp_path / "raw", {"s.csv": stays, "v.csv": vitals}, **options)
    assert declared["csv"] == {"delimiter": ";", "decimal": ",", "encoding": "latin-1"}
    assert declared["missing"] == ["NA"]
    assert declared["time_format"] == ["%d.%m.%Y %H:%M"]
    assert declared["series"]["HR"] == {}


def test_what_cannot_be_guessed_is_said(tmp_path):
    stays = pd.DataFrame({"a": ["x", "y"], "note": ["some text", "other"], "b": ["1", "2"]})
    stays = pd.concat([stays] * 10, ignore_index=True)
    stays["note"] += stays.index.astype(str)
    found, said = drafted(tmp_path / "raw", {"only.csv": stays})
    assert found["stays"]["subject"] == found["stays"]["stay"] == "?"
    assert "stays.subject: which column?" in said
    assert "only.csv: the column note is left out." in said


def test_reserved_names_are_no_facts(tmp_path):
    stays = tables()["stays.csv"].rename(columns={"patient": "subject_id", "visit": "stay_id"})
    stays = stays.assign(stay_index="0", los_hours="5.5", hadm_id=["7", "8", "9", "9"], split="A")
    found, said = drafted(tmp_path / "with end", {"stays.csv": stays})
    assert "los_hours" not in found["stays"]
    assert found["stays"]["order"] == "stay_index"
    for column in ("los_hours", "hadm_id", "split"):
        assert f"the column {column} is left out: its name is reserved" in said
    assert f"check '{tmp_path / 'with end'}'" in said
    found, _ = drafted(tmp_path / "raw", {"stays.csv": stays.drop(columns=["left"])})
    assert found["stays"]["los_hours"] == "los_hours"
    assert not {*found["covariates"], *found.get("labels", {})} & set(FIXED_STAY_COLUMNS)
    assert main(["check", str(tmp_path / "raw"), "--no-figure"]) == 0


def test_refusals(tmp_path, capsys):
    with pytest.raises(UserError, match="has no tables"):
        draft(tmp_path)
    assert main(["declare", str(tmp_path / "nope")]) == 1
    assert f"{tmp_path / 'nope'} does not exist." in capsys.readouterr().err
    drafted(tmp_path / "raw", tables())
    before = (tmp_path / "raw" / "tables.yaml").read_bytes()
    assert main(["declare", str(tmp_path / "raw")]) == 1
    assert "is there already" in capsys.readouterr().err
    assert (tmp_path / "raw" / "tables.yaml").read_bytes() == before
    (tmp_path / "raw" / "tables.yaml").unlink()
    (tmp_path / "raw" / "more.csv").write_text("a;b;c\n1;2;3\n")
    with pytest.raises(UserError, match="several delimiters"):
        draft(tmp_path / "raw")
