"""A hospital's own tables: what comes out, what is refused, and what is left out."""

from copy import deepcopy
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest
import yaml
from hypothesis import HealthCheck, assume, given, settings

from synehrgy.cohort import Cohort, read_cohort, read_schema
from synehrgy.errors import UserError
from synehrgy.sources.splits import Splits
from synehrgy.sources.tables import IDENTIFIERS_FILE, buckets, extract_tables
from tests.cohorts import cohorts
from tests.conftest import SHARED
from tests.sources.hospital import (
    DECLARATION,
    VITALS,
    long_form,
    tables,
    write_hospital,
)

TABLES = ("stays", "codes", "measurements")


def extracted(folder: Path, **options) -> Cohort:
    extract_tables(folder, folder.parent / "cohort", progress=False, **options)
    return read_cohort(folder.parent / "cohort")


def refusal(folder: Path, **options) -> str:
    """What is said of these tables; no cohort may be left behind."""
    place = folder.parent / "refused"
    with pytest.raises(UserError) as error:
        extract_tables(folder, place / "cohort", progress=False, **options)
    assert not place.exists() or list(place.iterdir()) == []
    return str(error.value)


def rows(cohort: Cohort, name: str) -> pd.DataFrame:
    frame = cohort.table(name)
    return frame.astype(dict.fromkeys(frame.select_dtypes("category"), object))


def bytes_of(path: Path) -> list[bytes]:
    return [(path / f"{table}.parquet").read_bytes() for table in TABLES]


# What comes out


def test_stays(tmp_path):
    cohort = extracted(write_hospital(tmp_path / "raw"))
    stays = cohort.stays
    # In order of time within the patient, not in that of the file.
    assert stays["subject_id"].tolist() == [7, 7, 9, 12]
    assert stays["stay_id"].tolist() == [71, 70, 90, 120]
    assert stays["stay_index"].tolist() == [0, 1, 0, 0]
    assert stays["los_hours"].tolist() == [12.0, 24.0, 12.0, 24.0]
    assert stays["sex"].tolist()[:3] == ["F", "F", "M"]
    assert stays["sex"].isna().tolist() == [False, False, False, True]
    born = pd.to_datetime(["1960-01-01", "1960-01-01", "2001-05-05", "1938-07-07"])
    times = ["2024-01-01 08:00", "2024-03-05 10:00", "2024-02-02 23:30", "2024-02-29 00:00"]
    here = pd.to_datetime(times)
    np.testing.assert_allclose(stays["age"], (here - born).total_seconds() / 86400 / 365.25)
    # 5 is beyond the range; 3.0 is 3.
    np.testing.assert_array_equal(stays["triage"], [3, 2, 1, np.nan])
    assert stays["died"].tolist() == [0, 1, 0, 0]
    assert stays["split"].tolist() == Splits(None).assign([7, 7, 9, 12])


def test_codes_and_the_labels_that_they_define(tmp_path):
    cohort = extracted(write_hospital(tmp_path / "raw"))
    assert rows(cohort, "codes").to_numpy().tolist() == [
        [70, 0, "icd10_diagnosis", "E119"],
        [70, 1, "icd10_diagnosis", "I214"],
        [70, 2, "ops", "8-836"],
        [90, 0, "icd10_diagnosis", "A419"],
        [120, 0, "icd10_diagnosis", "A419"],
    ]
    assert cohort.stays["sepsis"].tolist() == [0, 0, 1, 1]
    sepsis = cohort.schema.labels[1]
    # What stands above a defining code in the hierarchy defines the label, too.
    assert (sepsis.title, sepsis.kind, sepsis.codes) == ("Sepsis!", "phenotype", ["A41", "A419"])
    assert cohort.schema.labels[0].kind == "outcome"
    titles = [system.title for system in cohort.schema.code_systems]
    assert titles == ["ICD-10 diagnosis", "OPS procedures"]


def test_measurements(tmp_path):
    cohort = extracted(write_hospital(tmp_path / "raw"))
    found = rows(cohort, "measurements").astype(object)
    assert found.where(found.notna(), None).to_numpy().tolist() == [
        [71, 0.25, "Alertness", None, "V"],
        [71, 0.25, "Pulse", 60.0, None],
        [71, 12.0, "Alertness", None, "P"],
        [70, 0.0, "Alertness", None, "A"],
        [70, 0.0, "Pulse", 88.0, None],
        [70, 6.5, "Alertness", None, "A"],
        [70, 6.5, "Pulse", 91.5, None],
        [90, 0.5, "Pulse", 130.0, None],
        [120, 12.0, "Alertness", None, "A"],
        [120, 12.0, "Pulse", 100.0, None],
    ]
    assert cohort.schema.name == "emergency"


def as_parquet(found, declared):
    """The same in Parquet, as pandas writes it: floats where numbers are missing, times as such."""
    stays, codes, vitals = found.pop("stays.csv"), found.pop("codes.csv"), found.pop("vitals.csv")
    for frame, columns in ((stays, ["arrived", "left", "born"]), (vitals, ["time"])):
        for column in columns:
            frame[column] = pd.to_datetime(frame[column])
    stays[["patient", "visit"]] = stays[["patient", "visit"]].astype("int64")
    codes["visit"], codes["rank"] = codes["visit"].astype("float64"), codes["rank"].astype("int64")
    vitals["HR"] = pd.to_numeric(vitals["HR"])
    found.update({"s.parquet": stays, "c.parquet": codes, "v.parquet": vitals})
    for key in ("stays", "codes", "measurements"):
        declared[key]["file"] = f"{key[0] if key != 'measurements' else 'v'}.parquet"


def as_gzip(found, declared):
    for name in list(found):
        found[f"{name}.gz"] = found.pop(name)
    for key in ("stays", "codes", "measurements"):
        declared[key]["file"] += ".gz"


def as_long(found, declared):
    found["vitals.csv"] = long_form(VITALS)
    declared["measurements"].update(variable="item", value="result")


def as_two_files(found, declared):
    """One series in a wide file, the other in a long one with hours."""
    found["vitals.csv"] = VITALS[["visit", "time", "HR"]]
    other = VITALS[["visit", "time", "AVPU"]]
    stays = tables()["stays.csv"].set_index("visit")["arrived"]
    hours = pd.to_datetime(other["time"]) - pd.to_datetime(other["visit"].map(stays))
    other = other.assign(time=(hours.dt.total_seconds() / 3600).astype(str))
    found["other.csv"] = long_form(other)
    form = {"file": "other.csv", "stay": "visit", "hours": "time"}
    declared["measurements"] = [
        declared["measurements"],
        {**form, "variable": "item", "value": "result"},
    ]


@pytest.mark.parametrize("change", [as_parquet, as_gzip, as_long, as_two_files])
def test_the_cohort_is_the_same_from_every_form(tmp_path, change):
    extracted(write_hospital(tmp_path / "raw"))
    first = bytes_of(tmp_path / "cohort")
    extracted(write_hospital(tmp_path / "other", change))
    assert bytes_of(tmp_path / "cohort") == first


def test_it_depends_on_neither_memory_nor_threads_nor_buckets(tmp_path, monkeypatch):
    folder = write_hospital(tmp_path / "raw")
    first = extracted(folder)
    monkeypatch.setattr(buckets, "BUCKET_ROWS", 3)
    again = extracted(folder, memory_limit="300MB", threads=1)
    assert pq.ParquetFile(tmp_path / "cohort" / "measurements.parquet").num_row_groups > 1
    for name in TABLES:
        pd.testing.assert_frame_equal(rows(again, name), rows(first, name))


def europe(found, declared):
    """Semicolons, decimal commas, another encoding and other dates."""
    vitals = found["vitals.csv"]
    vitals["HR"] = vitals["HR"].str.replace(".", ",").replace("1e2", "100")
    vitals["time"] = pd.to_datetime(vitals["time"]).dt.strftime("%d.%m.%Y %H:%M")
    stays = found["stays.csv"]
    for column in ("arrived", "left"):
        stays[column] = pd.to_datetime(stays[column]).dt.strftime("%d.%m.%Y %H:%M")
    stays["born"] = pd.to_datetime(stays["born"]).dt.strftime("%d.%m.%Y")
    stays["sex"] = stays["sex"].replace("m", "männlich").replace("", "k. A.")
    declared["covariates"]["sex"]["levels"]["M"] = ["männlich"]
    declared["missing"] = ["k. A."]
    declared["time_format"] = ["%d.%m.%Y %H:%M", "%d.%m.%Y"]
    declared["csv"] = {"delimiter": ";", "decimal": ",", "encoding": "latin-1"}


def test_tables_written_in_another_way(tmp_path):
    extracted(write_hospital(tmp_path / "raw"))
    first = bytes_of(tmp_path / "cohort")
    found, declared = tables(), deepcopy(DECLARATION)
    europe(found, declared)
    folder = write_hospital(tmp_path / "other", frames={}, declaration=declared)
    for name, frame in found.items():
        frame.to_csv(folder / name, index=False, sep=";", encoding="latin-1")
    extracted(folder)
    assert bytes_of(tmp_path / "cohort") == first


def test_what_is_spelt_in_several_ways_is_there_once(tmp_path):
    """Numbers that are levels or names of series, as data frames write them."""

    def change(found, declared):
        codes = {"A": "1", "v": "2.0", "P": "3", "": ""}
        long = long_form(VITALS.assign(AVPU=VITALS["AVPU"].map(codes)))
        long["item"] = long["item"].map({"HR": "220045", "AVPU": "226755.0"})
        found["vitals.csv"] = long
        declared["measurements"].update(variable="item", value="result")
        declared["series"]["Pulse"]["called"] = ["220045", "220045.0"]
        levels = {"A": ["1", "1.0"], "V": ["2", "2.0"], "P": ["3"]}
        declared["series"]["Alertness"] = {"called": "226755", "levels": levels}

    extracted(write_hospital(tmp_path / "raw"))
    first = bytes_of(tmp_path / "cohort")
    extracted(write_hospital(tmp_path / "other", change))
    assert bytes_of(tmp_path / "cohort")[2] == first[2]


def test_identifiers_that_are_texts_are_numbered(tmp_path):
    def change(found, declared):
        found["stays.csv"]["patient"] = ["P-7", "P-7", "P-9", "P-12"]
        for frame in found.values():
            frame["visit"] = "v" + frame["visit"]

    cohort = extracted(write_hospital(tmp_path / "raw", change))
    known = pq.read_table(tmp_path / "cohort" / IDENTIFIERS_FILE).to_pandas()
    assert known["subject"].tolist() == ["P-12", "P-7", "P-7", "P-9"]
    assert known["stay"].tolist() == ["v120", "v71", "v70", "v90"]
    assert known["subject_id"].tolist() == cohort.stays["subject_id"].tolist() == [1, 2, 2, 3]
    assert known["stay_id"].tolist() == cohort.stays["stay_id"].tolist()
    # A patient's split does not depend on how many others there are.
    assert cohort.stays["split"].tolist() == Splits(None).assign(known["subject"])


def test_numbers_with_leading_zeros_are_texts_where_they_differ(tmp_path):
    def change(found, declared):
        found["stays.csv"]["patient"] = ["7", "7", "007", "12"]

    assert extracted(write_hospital(tmp_path / "raw", change)).n_patients == 3


def test_splits_by_a_column(tmp_path):
    def change(found, declared):
        found["stays.csv"]["fold"] = ["val", "val", "train", "test"]
        declared["stays"]["split"] = "fold"

    folder = write_hospital(tmp_path / "raw", change)
    assert extracted(folder).stays["split"].tolist() == ["val", "val", "train", "test"]
    assert "not both" in refusal(folder, split_dir=tmp_path)


def test_splits_by_lists_of_identifiers(tmp_path):
    (tmp_path / "lists").mkdir()
    (tmp_path / "lists" / "testset.csv").write_text("P 9,1\nP 7,0\n")

    def change(found, declared):
        found["stays.csv"]["patient"] = ["P 7", "P 7", "P 9", "P 12"]

    cohort = extracted(write_hospital(tmp_path / "raw", change), split_dir=tmp_path / "lists")
    assert cohort.stays["split"].tolist() == ["train", "train", "train", "test"]


def test_the_order_of_stays_by_number_or_by_row(tmp_path):
    def by_number(found, declared):
        found["stays.csv"]["nth"] = ["1", "2", "1", "1"]
        declared["stays"]["order"] = "nth"

    cohort = extracted(write_hospital(tmp_path / "raw", by_number))
    assert cohort.stays["stay_id"].tolist()[:2] == [70, 71]

    def by_row(found, declared):
        del found["vitals.csv"], found["codes.csv"], declared["covariates"]["age"]
        for key in ("codes", "code_systems", "measurements", "series"):
            del declared[key]
        del declared["labels"]["sepsis"]
        declared["stays"] = {"file": "stays.csv", "subject": "patient", "stay": "visit"}

    cohort = extracted(write_hospital(tmp_path / "bare", by_row))
    assert cohort.stays["stay_id"].tolist()[:2] == [70, 71]
    assert cohort.stays["los_hours"].isna().all()
    assert (len(cohort.codes), len(cohort.measurements)) == (0, 0)


def test_the_declaration_may_lie_elsewhere(tmp_path):
    folder = write_hospital(tmp_path / "raw")
    (folder / "tables.yaml").rename(tmp_path / "mine.yaml")
    assert "declare" in refusal(folder)
    assert extracted(folder, declaration=tmp_path / "mine.yaml").n_patients == 3
    _, provenance = read_schema(tmp_path / "cohort")
    assert yaml.safe_load(provenance["config"]["declaration"])["name"] == "emergency"
    assert [source["file"] for source in provenance["sources"]] == [
        *("stays.csv", "codes.csv", "vitals.csv"),
    ]


@pytest.mark.skipif(not SHARED.is_dir(), reason="the open MIMIC-III demo is not beside the project")
def test_the_open_demo_as_tables_of_one_s_own(tmp_path):
    """Real tables, with all that is wrong with them."""
    raw = SHARED / "data" / "mimic3-demo"
    stays = {"file": "ICUSTAYS.csv.gz", "subject": "subject_id", "stay": "icustay_id"}
    measured = {"file": "CHARTEVENTS.csv.gz", "stay": "icustay_id", "time": "charttime"}
    declared = {
        "stays": {**stays, "admitted": "intime", "discharged": "outtime"},
        "measurements": {**measured, "variable": "itemid", "value": "value"},
        "series": {"Heart Rate": {"called": ["211", "220045"], "unit": "bpm"}},
    }
    file = tmp_path / "demo.yaml"
    file.write_text(yaml.safe_dump(declared))
    with pytest.raises(UserError, match="'2169-05-06 23:17:00' is before the admission"):
        extract_tables(raw, tmp_path / "cohort", declaration=file, progress=False)
    declared["measurements"]["drop"] = ["unknown_stay", "before_admission", "after_discharge"]
    file.write_text(yaml.safe_dump(declared))
    extract_tables(raw, tmp_path / "cohort", declaration=file, progress=False)
    found = read_cohort(tmp_path / "cohort").measurements

    columns = ["icustay_id", "itemid", "charttime", "value"]
    chart = pd.read_csv(raw / "CHARTEVENTS.csv.gz", usecols=columns, low_memory=False)
    rates = chart[chart["itemid"].isin([211, 220045]) & chart["value"].notna()]
    rates = rates.merge(pd.read_csv(raw / "ICUSTAYS.csv.gz"), on="icustay_id")
    times = {c: pd.to_datetime(rates[c]) for c in ("charttime", "intime", "outtime")}
    within = times["charttime"].between(times["intime"], times["outtime"])
    hours = (times["charttime"] - times["intime"]).dt.total_seconds()[within] / 3600
    expected = pd.DataFrame(
        {"stay_id": rates["icustay_id"], "hours": hours, "value": rates["value"].astype(float)}
    ).dropna()
    keys = ["stay_id", "hours", "value"]
    one, other = (f[keys].sort_values(keys, ignore_index=True) for f in (found, expected))
    pd.testing.assert_frame_equal(one, other, check_dtype=False)
    assert len(one) > 15_000


@settings(max_examples=20, suppress_health_check=list(HealthCheck))
@given(cohort=cohorts())
def test_any_cohort_comes_back_from_its_tables(cohort, tmp_path_factory):
    """Whatever is declared, in long and in wide form."""
    folder = tmp_path_factory.mktemp("any")
    schema, stays = cohort.schema, cohort.stays.copy()
    for item in (*schema.covariates, *schema.variables):
        assume(len({level.strip() for level in item.levels}) == len(item.levels))
    late = cohort.measurements.groupby("stay_id")["hours"].max()
    ends = stays["stay_id"].map(late)
    stays["los_hours"] = stays["los_hours"].where(~(stays["los_hours"] < ends), ends)
    stays["split"] = stays["split"].fillna("test")
    codes = rows(cohort, "codes")
    codes["code"] = codes["code"].str.replace(" ", "_")
    codes = codes.drop_duplicates(["stay_id", "system", "code"])
    codes["position"] = codes.groupby("stay_id").cumcount().astype("int32")
    measured = rows(cohort, "measurements")
    # Cells have no blanks around them, names in the cohort may.
    spelt = {
        item.name: {level: f"{item.name!r}{i}" for i, level in enumerate(item.levels)}
        for item in (*schema.covariates, *schema.variables)
    }
    called = {variable.name: f"v{i}" for i, variable in enumerate(schema.variables)}
    written = stays.copy()
    for covariate in schema.covariates:
        if covariate.levels:
            written[covariate.name] = stays[covariate.name].map(spelt[covariate.name])
    text = measured["value"].astype(object)
    for variable in schema.variables_of("categorical"):
        mine = measured["variable"] == variable.name
        text[mine] = measured.loc[mine, "level"].map(spelt[variable.name])
    long = measured[["stay_id", "hours"]].assign(
        variable=measured["variable"].map(called), text=text
    )
    wide = long.pivot(index=["stay_id", "hours"], columns="variable", values="text")
    wide = wide.reindex(columns=list(called.values())).reset_index()

    def values(item):
        if item.levels:
            return {"levels": {level: [s] for level, s in spelt[item.name].items()}}
        return {"unit": item.unit} if item.unit else {}

    declared = {
        "name": schema.name,
        "stays": {
            "file": "stays.csv",
            "subject": "subject_id",
            "stay": "stay_id",
            "order": "stay_index",
            "los_hours": "los_hours",
            "split": "split",
        },
        "covariates": {c.name: values(c) for c in schema.covariates},
        "labels": {x.column: {"kind": x.kind, "title": x.title} for x in schema.labels},
        "series": {v.name: {"called": called[v.name], **values(v)} for v in schema.variables},
    }
    if schema.code_systems:
        declared["codes"] = {
            "file": "codes.csv",
            "stay": "stay_id",
            "code": "code",
            "system_column": "system",
            "systems": {system.name: [] for system in schema.code_systems},
        }
    shuffled = written.sample(frac=1, random_state=0)
    frames = {"stays.csv": shuffled, "codes.csv": codes, "long.csv": long, "wide.csv": wide}
    for form, columns in (("long", {"variable": "variable", "value": "text"}), ("wide", {})):
        if schema.variables and (form == "wide" or long["variable"].nunique() == len(called)):
            start = {"file": f"{form}.csv", "stay": "stay_id", "hours": "hours"}
            declared["measurements"] = {**start, **columns}
        elif schema.variables:
            continue
        folder_of = write_hospital(folder / form, frames=frames, declaration=declared)
        found = extracted(folder_of)
        # Stays without codes, labels and series come back, too.
        pd.testing.assert_frame_equal(found.stays, stays.reset_index(drop=True))
        pd.testing.assert_frame_equal(rows(found, "codes"), codes.reset_index(drop=True))
        pd.testing.assert_frame_equal(rows(found, "measurements"), measured)
        assert sorted(found.schema.variables, key=str) == sorted(schema.variables, key=str)
        assert found.schema.covariates == schema.covariates
        assert found.schema.labels == schema.labels


def test_what_is_missing_and_levels_however_numbers_are_written(tmp_path):
    def spelt(found, declared):
        declared["missing"] = ["99"]
        found["vitals.csv"]["HR"] = ["99.0", "91.5", "60", "", "130", "99"]
        declared["covariates"]["triage"] = {"levels": {"urgent": ["1.0", "2"], "other": ["3", "5"]}}

    cohort = extracted(write_hospital(tmp_path / "h", spelt))
    pulse = cohort.measurements.query("variable == 'Pulse'")
    assert sorted(pulse["value"]) == [60, 91.5, 130]
    assert cohort.stays["triage"].value_counts().to_dict() == {"urgent": 2, "other": 2}


def test_times_of_parquet_beside_a_format_of_others(tmp_path):
    def mixed(found, declared):
        stays = found.pop("stays.csv")
        for column in ("arrived", "left", "born"):
            stays[column] = pd.to_datetime(stays[column])
        found["stays.parquet"] = stays
        declared["stays"]["file"] = "stays.parquet"
        declared["time_format"] = ["%d.%m.%Y %H:%M"]
        times = pd.to_datetime(found["vitals.csv"]["time"])
        found["vitals.csv"]["time"] = times.dt.strftime("%d.%m.%Y %H:%M")

    mine = extracted(write_hospital(tmp_path / "mixed" / "h", mixed))
    plain = extracted(write_hospital(tmp_path / "plain" / "h"))
    pd.testing.assert_frame_equal(rows(mine, "measurements"), rows(plain, "measurements"))
