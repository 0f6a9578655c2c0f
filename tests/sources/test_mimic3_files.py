"""Forms of raw files, settings, and what is said when something is wrong with them."""

import gzip
import shutil
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import pandas as pd
import pyarrow.parquet as pq
import pytest

from synehrgy.cohort import read_cohort, read_schema
from synehrgy.errors import UserError
from synehrgy.files import REPOSITORY
from synehrgy.sources.database import database as database_beside
from synehrgy.sources.database import watched
from synehrgy.sources.mimic3 import extract
from synehrgy.sources.splits import Splits
from tests.sources.raw_database import (
    Database,
    admission,
    chart,
    code,
    database,
    frames,
    lab,
    patient,
    stay,
    write_database,
)

FORMS = ("csv", "csv.gz", "parquet")
TABLES = ("stays", "codes", "measurements")


def several_patients() -> Database:
    """Ten patients with a few events of every kind each."""
    numbers = range(1, 11)
    keys = {n: {"subject_id": n, "hadm_id": 10 * n} for n in numbers}
    return database(
        patients=[patient(n, gender="FM"[n % 2]) for n in numbers],
        admissions=[admission(n, 10 * n) for n in numbers],
        icustays=[stay(n, 10 * n, 100 * n) for n in numbers],
        diagnoses_icd=[code(text, i, 10 * n) for n in numbers for i, text in [(1, "0389")]],
        procedures_icd=[code("0066", 1, 10 * n) for n in numbers],
        chartevents=[
            chart(item, text, hours, **keys[n], icustay_id=100 * n, valueuom=unit)
            for n in numbers
            for hours, item, text, unit in [
                *((h, 211, str(60 + n + h), "BPM") for h in range(6)),
                (1, 184, "4 Spontaneously", None),
                (2, 676, "37.5", "Deg. C"),
                (2, 3420, "40", "%"),
                (3, 28, 'said "fine",\nthen slept', None),
            ]
        ],
        labevents=[lab(51221, "30.5", 2, **keys[n]) for n in numbers],
    )


def bytes_of(path: Path) -> list[bytes]:
    return [(path / f"{table}.parquet").read_bytes() for table in TABLES]


@pytest.fixture
def raw(tmp_path: Path) -> Path:
    return write_database(database(), tmp_path / "raw")


# Forms and settings


@pytest.mark.parametrize("profile", ["paper", "clinical"])
def test_the_cohort_is_the_same_from_every_form(tmp_path: Path, profile: str) -> None:
    for form in FORMS:
        raw = write_database(several_patients(), tmp_path / form, form)
        extract(raw, tmp_path / f"cohort-{form}", profile=profile, progress=False)
    first, *others = (bytes_of(tmp_path / f"cohort-{form}") for form in FORMS)
    assert others == [first, first]
    assert len(read_cohort(tmp_path / "cohort-csv").measurements) == 100


def test_parquet_is_preferred_to_csv_and_csv_to_gzip(tmp_path: Path) -> None:
    raw = tmp_path / "raw"
    for heart_rate, form in (("60", "csv.gz"), ("70", "csv"), ("80", "parquet")):
        write_database(database(chartevents=[chart(211, heart_rate)]), raw, form)
        extract(raw, tmp_path / "cohort", progress=False)
        cohort = read_cohort(tmp_path / "cohort")
        assert cohort.measurements["value"].tolist() == [float(heart_rate)]


def test_parquet_as_pandas_writes_it(tmp_path: Path) -> None:
    """Whole numbers with gaps as floats, columns without any value of no type, times as text."""
    raw = tmp_path / "raw"
    raw.mkdir()
    for name, frame in frames(several_patients()).items():
        keys = [column for column in frame if column.endswith("_id") and column != "row_id"]
        frame[keys] = frame[keys].astype("float64")
        frame.to_parquet(raw / f"{name.lower()}.parquet")
    extract(raw, tmp_path / "cohort", progress=False)
    assert len(read_cohort(tmp_path / "cohort").measurements) == 100


def test_a_folder_may_have_any_name(tmp_path: Path) -> None:
    raw = write_database(database(), tmp_path / "it's [raw]*, isn't it?")
    extract(raw, tmp_path / "its 'cohort'", progress=False)
    assert len(read_cohort(tmp_path / "its 'cohort'").stays) == 1


def test_windows_line_ends_and_a_byte_order_mark(tmp_path: Path, raw: Path) -> None:
    for file in raw.iterdir():
        file.write_bytes(b"\xef\xbb\xbf" + file.read_bytes().replace(b"\n", b"\r\n"))
    extract(raw, tmp_path / "cohort", progress=False)
    assert len(read_cohort(tmp_path / "cohort").measurements) == 1


@pytest.mark.parametrize("settings", [{"threads": 1}, {"threads": 2}, {"memory_limit": "300MB"}])
def test_the_cohort_does_not_depend_on_threads_or_memory(
    tmp_path: Path, settings: dict[str, int | str]
) -> None:
    raw = write_database(several_patients(), tmp_path / "raw")
    extract(raw, tmp_path / "first", progress=False)
    extract(raw, tmp_path / "second", progress=False, **settings)  # type: ignore[arg-type]
    assert bytes_of(tmp_path / "first") == bytes_of(tmp_path / "second")


def test_the_cohort_does_not_depend_on_the_buckets(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    raw = write_database(several_patients(), tmp_path / "raw")
    extract(raw, tmp_path / "one", progress=False)
    monkeypatch.setattr("synehrgy.sources.extraction.events.BUCKET_ROWS", 25)
    extract(raw, tmp_path / "many", progress=False)
    for table in TABLES:
        one, many = (
            pq.ParquetFile(tmp_path / name / f"{table}.parquet") for name in ("one", "many")
        )
        assert one.read().equals(many.read())
        assert one.num_row_groups == 1
        assert many.num_row_groups == 4


def test_a_second_extraction_replaces_the_first(tmp_path: Path, raw: Path) -> None:
    extract(raw, tmp_path / "cohort", progress=False)
    extract(raw, tmp_path / "cohort", profile="clinical", name="other", progress=False)
    schema, provenance = read_schema(tmp_path / "cohort")
    assert schema.name == "other"
    assert provenance["config"]["profile"] == "clinical"
    assert provenance["sources"][0]["file"] == "PATIENTS.csv"
    assert sorted(entry.name for entry in tmp_path.iterdir()) == ["cohort", "raw"]


def test_progress_is_shown_on_request(
    tmp_path: Path, raw: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    extract(raw, tmp_path / "cohort", progress=False)
    assert capsys.readouterr() == ("", "")
    extract(raw, tmp_path / "cohort")
    assert "CHARTEVENTS: 100%" in capsys.readouterr().err


def test_tables_that_no_series_uses_need_not_exist(raw: Path) -> None:
    assert not [file for file in raw.iterdir() if "OUTPUTEVENTS" in file.name]


# Splits


def splits_of(tmp_path: Path, split_dir: Path | None) -> tuple[dict[int, str], str]:
    raw = write_database(several_patients(), tmp_path / "raw")
    summary = extract(raw, tmp_path / "cohort", split_dir=split_dir, progress=False)
    stays = read_cohort(tmp_path / "cohort").stays
    assert sum(summary.stays.values()) == len(stays)
    assert f"splits        {summary.split_rule}" in summary.render()
    return dict(zip(stays["subject_id"], stays["split"], strict=True)), summary.split_rule


def test_splits_by_the_lists(tmp_path: Path) -> None:
    (tmp_path / "testset.csv").write_text("1,1\n2,1\n3,0\n")
    (tmp_path / "valset.csv").write_text("1,1\n3,1\n4,0\n")
    splits, rule = splits_of(tmp_path, tmp_path)
    assert rule.startswith("by the lists")
    assert [splits[n] for n in range(1, 11)] == ["test", "test", "val", *["train"] * 7]


def test_one_list_is_enough(tmp_path: Path) -> None:
    (tmp_path / "valset.csv").write_text("5,1\n")
    splits, _ = splits_of(tmp_path, tmp_path)
    assert [n for n, split in splits.items() if split == "val"] == [5]
    assert "test" not in splits.values()


def test_splits_by_hash_without_lists(tmp_path: Path) -> None:
    splits, rule = splits_of(tmp_path, None)
    assert rule == "by hash"
    assert list(splits.values()) == Splits(None).assign(splits)


def test_a_folder_without_lists_is_refused(tmp_path: Path) -> None:
    """Splitting by hash instead would put patients of the benchmark's test split into training."""
    with pytest.raises(UserError, match=r"neither testset.csv nor valset.csv"):
        Splits(tmp_path)


def test_the_hash_of_a_patient_never_changes() -> None:
    splits = Splits(None).assign(range(1, 41))
    assert "".join(split[1] for split in splits) == HASHED


def test_the_hash_splits_70_15_15() -> None:
    splits = Counter(Splits(None).assign(range(100_000)))
    assert splits["train"] / 100_000 == pytest.approx(0.70, abs=0.01)
    assert splits["val"] / 100_000 == pytest.approx(0.15, abs=0.01)
    assert splits["test"] / 100_000 == pytest.approx(0.15, abs=0.01)


# The second letter of each split: t(r)ain, v(a)l, t(e)st.
HASHED = "errrrrerrearrrerrrrrarrerrrrrrarrrrrerra"


@pytest.mark.parametrize("content", ["subject,flag\n1,1\n", "1,1\n2\n", "1,2\n", "1.5,1\n", "1,\n"])
def test_a_bad_split_list_is_refused(tmp_path: Path, content: str) -> None:
    (tmp_path / "testset.csv").write_text(content)
    line = 2 if content.startswith("1,1\n2") else 1
    with pytest.raises(UserError, match=rf"testset.csv, line {line}: expected subject,flag"):
        splits_of(tmp_path, tmp_path)


def test_a_split_folder_that_does_not_exist_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"data\.split_dir"):
        splits_of(tmp_path, tmp_path / "nowhere")


# Errors


def cut_gzip(raw: Path) -> None:
    text = (raw / "CHARTEVENTS.csv").read_bytes() * 2000
    (raw / "CHARTEVENTS.csv").unlink()
    whole = gzip.compress(text)
    (raw / "CHARTEVENTS.csv.gz").write_bytes(whole[: len(whole) // 2])


def replace(file: str, old: str, new: str) -> Callable[[Path], None]:
    def change(raw: Path) -> None:
        text = (raw / file).read_text()
        assert old in text
        (raw / file).write_text(text.replace(old, new))

    return change


def append(file: str, line: str) -> Callable[[Path], None]:
    def change(raw: Path) -> None:
        with (raw / file).open("a") as rows:
            rows.write(line)

    return change


def numeric_codes(raw: Path) -> None:
    (raw / "DIAGNOSES_ICD.csv").unlink()
    codes = pd.DataFrame({"HADM_ID": [10], "SEQ_NUM": [1], "ICD9_CODE": [389]})
    codes.to_parquet(raw / "DIAGNOSES_ICD.parquet")


ERRORS: dict[str, tuple[Callable[[Path], object], str]] = {
    "missing folder": (shutil.rmtree, r"raw does not exist.*data\.raw_dir"),
    "missing file": (lambda raw: (raw / "LABEVENTS.csv").unlink(), r"lacks LABEVENTS.*ADMISSIONS"),
    "empty file": (lambda raw: (raw / "PATIENTS.csv").write_text(""), r"PATIENTS\.csv is empty"),
    "cut gzip": (cut_gzip, r"CHARTEVENTS\.csv\.gz.*(end of GZIP|end-of-stream).*Restore"),
    "no gzip": (
        lambda raw: (raw / "LABEVENTS.csv").rename(raw / "labevents.csv.gz"),
        r"labevents\.csv\.gz cannot be read: Not a gzipped file",
    ),
    "no parquet": (
        lambda raw: (raw / "LABEVENTS.csv").rename(raw / "labevents.parquet"),
        r"labevents\.parquet cannot be read",
    ),
    "missing column": (
        replace("ICUSTAYS.csv", "INTIME", "IN_TIME"),
        r"ICUSTAYS\.csv has no column INTIME\. Did you mean 'in_time'",
    ),
    "no header": (
        lambda raw: (raw / "LABEVENTS.csv").write_text("1,2,3\n"),
        r"LABEVENTS\.csv has no column SUBJECT_ID",
    ),
    "too few fields": (
        append("CHARTEVENTS.csv", "1,2,3\n"),
        r"CHARTEVENTS\.csv, line 3: expected 15 fields, found 3",
    ),
    "too many fields": (
        append("LABEVENTS.csv", "1,2,3,4,2150-01-01 00:00:00,6,7,8,9,10\n"),
        r"LABEVENTS\.csv, line 2: expected 9 fields, found 10",
    ),
    "no date": (
        replace("CHARTEVENTS.csv", "2150-01-01 01:00:00", "yesterday"),
        r"CHARTEVENTS\.csv, line 2: column CHARTTIME: 'yesterday' is not a date and time",
    ),
    "no whole number": (
        replace("ICUSTAYS.csv", ",100,", ",hundred,"),
        r"ICUSTAYS\.csv, line 2: column ICUSTAY_ID: 'hundred' is not a whole number",
    ),
    "no number": (
        replace("ICUSTAYS.csv", ",2.0", ",two"),
        r"ICUSTAYS\.csv, line 2: column LOS: 'two' is not a number",
    ),
    "open quote": (
        append("CHARTEVENTS.csv", '1,2,3,4,5,,,,"a b,,,,,,\n'),
        r"CHARTEVENTS\.csv, line 3: unterminated quote",
    ),
    "codes as numbers": (numeric_codes, r"ICD9_CODE must be text, is BIGINT.*leading zeros"),
    "no stays": (
        replace("ICUSTAYS.csv", "2150", "2090"),
        r"no stay passes the rules[\s\S]*-1 +younger than 18",
    ),
    "unknown gender": (replace("PATIENTS.csv", ",F,", ",X,"), r"gender is not a declared level"),
}


@pytest.mark.parametrize("what", ERRORS)
def test_an_error_says_what_is_wrong_and_leaves_nothing(
    tmp_path: Path, raw: Path, what: str
) -> None:
    damage, message = ERRORS[what]
    damage(raw)
    with pytest.raises(UserError, match=message):
        extract(raw, tmp_path / "out" / "cohort", progress=False)
    out = tmp_path / "out"
    assert not out.exists() or list(out.iterdir()) == []


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"profile": "papers"}, "Unknown profile 'papers'. Did you mean 'paper'"),
        ({"memory_limit": "much"}, "memory_limit=much"),
        ({"threads": 0}, "threads=0"),
    ],
)
def test_bad_settings(
    tmp_path: Path, raw: Path, settings: dict[str, int | str], message: str
) -> None:
    with pytest.raises(UserError, match=message):
        extract(raw, tmp_path / "cohort", progress=False, **settings)  # type: ignore[arg-type]
    assert [entry.name for entry in tmp_path.iterdir()] == ["raw"]


def test_the_wrong_folder(tmp_path: Path) -> None:
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos" / "cat.jpg").touch()
    with pytest.raises(UserError, match=r"no MIMIC-III tables. Expected PATIENTS.*Found: cat.jpg"):
        extract(tmp_path / "photos", tmp_path / "cohort", progress=False)


def test_somebodys_own_folder_is_not_replaced(tmp_path: Path, raw: Path) -> None:
    (tmp_path / "thesis").mkdir()
    (tmp_path / "thesis" / "chapter").touch()
    with pytest.raises(UserError, match="not replaced"):
        extract(raw, tmp_path / "thesis", progress=False)
    assert sorted(entry.name for entry in tmp_path.iterdir()) == ["raw", "thesis"]


def test_an_earlier_cohort_survives_an_error(tmp_path: Path, raw: Path) -> None:
    extract(raw, tmp_path / "cohort", progress=False)
    append("CHARTEVENTS.csv", "1,2,3\n")(raw)
    with pytest.raises(UserError, match="line 3"):
        extract(raw, tmp_path / "cohort", progress=False)
    assert len(read_cohort(tmp_path / "cohort").stays) == 1


def test_an_interruption_leaves_nothing(tmp_path: Path) -> None:
    raw = write_database(database(), tmp_path / "raw")
    table = frames(database())["CHARTEVENTS"].rename(columns=str.upper)
    line = table.to_csv(index=False, header=False)
    with (raw / "CHARTEVENTS.csv").open("a") as rows:
        for _ in range(400):
            rows.write(line * 25_000)
    # Whoever starts the tests in the background has told them to ignore Ctrl-C.
    program = (
        "import signal, sys; signal.signal(signal.SIGINT, signal.default_int_handler); "
        "from synehrgy.sources.mimic3 import extract; extract(*sys.argv[1:], threads=1)"
    )
    out = tmp_path / "out"
    process = subprocess.Popen(
        [sys.executable, "-c", program, str(raw), str(out / "cohort")],
        cwd=REPOSITORY,
        stderr=subprocess.PIPE,
        text=True,
    )
    while not (out.exists() and len(list(out.iterdir())) == 2):
        assert process.poll() is None
        time.sleep(0.01)
    time.sleep(0.1)
    process.send_signal(signal.SIGINT)
    _, error = process.communicate(timeout=30)
    assert "KeyboardInterrupt" in error
    assert process.returncode != 0
    assert list(out.iterdir()) == []


def test_a_cut_gzip_file_is_refused_by_an_old_duckdb_too(
    tmp_path: Path, raw: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It would take the rows that are there for all."""
    monkeypatch.setattr("synehrgy.sources.reading._TAKES_CUT_FILES", True)
    cut_gzip(raw)
    with pytest.raises(UserError, match=r"CHARTEVENTS\.csv\.gz cannot be read: .*end-of-stream"):
        extract(raw, tmp_path / "cohort", progress=False)


@pytest.fixture
def _ctrl_c() -> Iterator[None]:
    """Ctrl-C as in a terminal, also where the tests run in the background."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.usefixtures("_ctrl_c")
def test_an_interruption_that_duckdb_loses_is_remembered(tmp_path: Path) -> None:
    with (
        pytest.raises(KeyboardInterrupt),
        database_beside(tmp_path / "cohort", "1GB", 1) as (connection, _),
        watched(connection, "Reading", show=False),
        suppress(KeyboardInterrupt),
    ):
        signal.raise_signal(signal.SIGINT)
    # The next one begins anew.
    with (
        database_beside(tmp_path / "cohort", "1GB", 1) as (connection, _),
        watched(connection, "Reading", show=False),
    ):
        connection.execute("SELECT 1")
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
