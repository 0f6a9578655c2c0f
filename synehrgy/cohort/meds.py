"""A cohort as a dataset of the Medical Event Data Standard (MEDS), version 0.4.

https://github.com/Medical-Event-Data-Standard/meds
"""

import re
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from synehrgy import __version__
from synehrgy.cohort.calendar import MORTALITY, calendar, microseconds
from synehrgy.cohort.icd import CATEGORY
from synehrgy.cohort.io import read_parts, read_schema
from synehrgy.cohort.schema import Covariate, Schema
from synehrgy.cohort.tables import Cohort
from synehrgy.files import new_folder, read_json, write_json

MEDS_VERSION = "0.4.1"
ETL_NAME = "synehrgy"
SPLIT_NAMES = {"train": "train", "val": "tuning", "test": "held_out"}
UNKNOWN = "UNK"
ADMISSION, DISCHARGE = "ICU_ADMISSION", "ICU_DISCHARGE"
BIRTH, DEATH = "MEDS_BIRTH", "MEDS_DEATH"
SOURCE_IDS = ["hadm_id", "stay_id"]
STATIC = ("gender", "sex")

DATA = pa.schema(
    [
        pa.field("subject_id", pa.int64(), nullable=False),
        pa.field("time", pa.timestamp("us")),
        pa.field("code", pa.string(), nullable=False),
        pa.field("numeric_value", pa.float32()),
        pa.field("text_value", pa.large_string()),
        *(pa.field(name, pa.int64()) for name in SOURCE_IDS),
    ]
)
CODES = pa.schema(
    [
        pa.field("code", pa.string(), nullable=False),
        pa.field("description", pa.string()),
        pa.field("parent_codes", pa.list_(pa.string())),
    ]
)
SPLITS = pa.schema(
    [
        pa.field("subject_id", pa.int64(), nullable=False),
        pa.field("split", pa.string(), nullable=False),
    ]
)

# What codes mean: a description, and their parents in other vocabularies.
Described = dict[str, tuple[str, list[str]]]


def export_meds(cohort: Path, path: Path) -> list[Path]:
    """Write a cohort folder as a MEDS dataset, a thousand patients at a time.

    Dates are made up as in ``calendar.py``. A stay has its covariates and ``ICU_ADMISSION`` at
    admission, measurements at their hours, codes and labels at its end, where ``ICU_DISCHARGE``
    follows if its length is known. ``MEDS_BIRTH`` follows from the age, ``MEDS_DEATH`` is at the
    end of a last stay with the label ``in_hospital_mortality``. Gender has no time where it is the
    same in all stays. Train, val and test become ``train``, ``tuning`` and ``held_out``; patients
    without a split, as in synthetic cohorts, are in ``train``.

    Args:
        cohort: the cohort folder.
        path: the folder of the dataset; one that this function wrote is replaced.

    Returns:
        The files written.

    Raises:
        UserError: no cohort there, tables that break a rule, or ``path`` holds something else.
    """
    schema, _ = read_schema(cohort)
    about = ("dataset.json", "codes.parquet", "subject_splits.parquet")
    files = [Path("metadata") / name for name in about]
    described: Described = {}
    splits = []
    with new_folder(path, _is_ours) as folder:
        for name in ("data", "metadata"):
            (folder / name).mkdir()
        shards: Counter[str] = Counter()
        for part in read_parts(cohort):
            first = part.stays.drop_duplicates("subject_id")
            names = first["split"].map(SPLIT_NAMES).fillna("train")
            splits.append(pa.table([first["subject_id"], names], schema=SPLITS))
            events = _events(part, described)
            for name in names.unique():
                file = Path("data") / name / f"{shards[name]}.parquet"
                (folder / file).parent.mkdir(exist_ok=True)
                mine = pc.is_in(events["subject_id"], pa.array(first["subject_id"][names == name]))
                pq.write_table(events.filter(mine), folder / file, compression="zstd")
                shards[name] += 1
                files.append(file)
        write_json(folder / files[0], _dataset(schema))
        rows = [
            dict(zip(CODES.names, (code, *described[code]), strict=True))
            for code in sorted(described)
        ]
        pq.write_table(pa.Table.from_pylist(rows, CODES), folder / files[1])
        pq.write_table(pa.concat_tables([SPLITS.empty_table(), *splits]), folder / files[2])
    return [Path(path) / file for file in files]


def _is_ours(path: Path) -> bool:
    about = path / "metadata" / "dataset.json"
    if {entry.name for entry in path.iterdir()} != {"data", "metadata"} or not about.is_file():
        return False
    content = read_json(about)
    return isinstance(content, dict) and content.get("etl_name") == ETL_NAME


def _dataset(schema: Schema) -> dict[str, Any]:
    return {
        "dataset_name": schema.name,
        "etl_name": ETL_NAME,
        "etl_version": __version__,
        "meds_version": MEDS_VERSION,
        "raw_source_id_columns": SOURCE_IDS,
    }


def coded(system: str, code: str) -> tuple[str, list[str]]:
    """A code of a code system, and its parents in the OMOP vocabularies.

    ICD codes are written as in the public extraction of MIMIC-IV: ``DIAGNOSIS//ICD//9//0389`` with
    the parent ``ICD9CM/038.9``, ``PROCEDURE//ICD//9//3893`` with ``ICD9Proc/38.93``. Others are
    ``<system>//<code>``.
    """
    found = re.fullmatch(r"icd(9|10)_(diagnosis|procedure)", system)
    if not found:
        return f"{system}//{code}", []
    version, kind = found.groups()
    vocabulary = {"diagnosis": "CM", "procedure": "Proc" if version == "9" else "PCS"}[kind]
    point = CATEGORY[f"icd9_{kind}" if version == "9" else "icd10"]
    point += version == "9" and code.startswith("E")
    pointed = vocabulary != "PCS" and len(code) > point
    norm = f"{code[:point]}.{code[point:]}" if pointed else code
    return f"{kind.upper()}//ICD//{version}//{code}", [f"ICD{version}{vocabulary}/{norm}"]


def _events(cohort: Cohort, described: Described) -> pa.Table:
    """All events of some patients in order of time; their codes are added to ``described``."""
    schema, stays, dates = cohort.schema, cohort.stays, calendar(cohort)
    every = np.arange(len(stays))
    index = stays["stay_index"].to_numpy()
    events = _Events(stays, described)
    # Events of one time keep the order in which they are added here.
    born = every[(index == 0) & ~np.isnat(dates.birth)]
    events.add(born, dates.birth[born], [BIRTH], ["Birth"], of_stay=False)
    events.add(every, dates.admission, [ADMISSION], ["Admission to the intensive care unit"])
    for covariate in schema.covariates:
        _add_covariate(events, covariate, dates.admission)
    _add_measurements(events, cohort, dates.admission)
    _add_codes(events, cohort, dates.end)
    for label in schema.labels:
        code = [f"LABEL//{label.column}"]
        events.add(every, dates.end, code, [label.title], number=stays[label.column].to_numpy())
    los = stays["los_hours"].to_numpy(dtype="float64", na_value=np.nan)
    left = every[~np.isnan(los)]
    discharge = dates.admission[left] + microseconds(los[left])
    events.add(left, discharge, [DISCHARGE], ["Discharge from the intensive care unit"])
    if MORTALITY in (label.column for label in schema.labels):
        last = np.append(index[1:] == 0, True)[: len(index)]
        dead = every[last & (stays[MORTALITY].to_numpy() == 1)]
        events.add(dead, dates.end[dead], [DEATH], ["Death"], of_stay=False)
    return events.table()


class _Events:
    """Collects events of stays."""

    def __init__(self, stays: pd.DataFrame, described: Described) -> None:
        self.stays = stays
        self.described = described
        self.tables = [pa.table([pa.nulls(0, _type(f.type)) for f in DATA], names=DATA.names)]

    def add(
        self,
        rows: np.ndarray,
        time: np.ndarray,
        codes: Sequence[str],
        descriptions: Sequence[str],
        parents: Sequence[list[str]] = (),
        which: np.ndarray | None = None,
        number: np.ndarray | None = None,
        text: pa.Array | None = None,
        of_stay: bool = True,
    ) -> None:
        """Add an event for each of ``rows``, the positions of their stays.

        Args:
            rows, time: an entry per event.
            codes, descriptions, parents: the codes that occur; no parents if not given.
            which: position in ``codes``, per event; the first if not given.
            number, text: values per event, NaN or null where there is none.
            of_stay: whether the events belong to the stay rather than to the patient.
        """
        n = len(rows)
        which = np.zeros(n, "int32") if which is None else which.astype("int32")
        for i in np.unique(which):
            self.described[codes[i]] = (descriptions[i], parents[i] if parents else [])
        stays = self.stays.iloc[rows]
        columns = [
            pa.array(stays["subject_id"]),
            pa.array(time),
            pa.DictionaryArray.from_arrays(which, pa.array(codes, pa.string())),
            pa.nulls(n) if number is None else pa.array(number, from_pandas=True),
            pa.nulls(n) if text is None else text,
            *(pa.array(stays[name], pa.int64()) if of_stay else pa.nulls(n) for name in SOURCE_IDS),
        ]
        types = [_type(field.type) for field in DATA]
        columns = [c.cast(t) for c, t in zip(columns, types, strict=True)]
        self.tables.append(pa.table(columns, names=DATA.names))

    def table(self) -> pa.Table:
        """All of them, by patient and time; those without a time come first."""
        table = pa.concat_tables(self.tables).unify_dictionaries()
        # As a number NaT is below every date.
        time = table["time"].to_numpy().astype("int64")
        order = np.lexsort([time, table["subject_id"].to_numpy()])
        return table.take(order).cast(DATA)


def _type(kind: pa.DataType) -> pa.DataType:
    """The type in memory of a column: few texts occur, so they are kept as a dictionary."""
    text = pa.types.is_string(kind) or pa.types.is_large_string(kind)
    return pa.dictionary(pa.int32(), pa.string()) if text else kind


def _add_covariate(events: _Events, covariate: Covariate, admission: np.ndarray) -> None:
    column, name = events.stays[covariate.name], covariate.name.upper()
    rows = np.flatnonzero(column.notna())
    if covariate.kind == "continuous":
        unit = covariate.unit or UNKNOWN
        number = column.to_numpy()[rows]
        events.add(rows, admission[rows], [f"{name}//{unit}"], [covariate.name], number=number)
        return
    time = admission.copy()
    if covariate.name.lower() in STATIC:
        # Told once, without a time, where it is the same in all stays.
        subject = events.stays["subject_id"]
        same = column.groupby(subject).transform("nunique").to_numpy() == 1
        time[same] = np.datetime64("NaT")
        first = ~events.stays.assign(known=column.notna()).duplicated(["subject_id", "known"])
        rows = np.flatnonzero(column.notna() & (first | ~same))
    events.add(
        rows,
        time[rows],
        [f"{name}//{level}" for level in covariate.levels],
        [f"{covariate.name}: {level}" for level in covariate.levels],
        which=pd.Index(covariate.levels).get_indexer(pd.Index(column.iloc[rows])),
    )


def _add_measurements(events: _Events, cohort: Cohort, admission: np.ndarray) -> None:
    measured, declared = cohort.measurements, cohort.schema.variables
    rows = _positions(events.stays, measured)
    levels, level = measured["level"].cat.categories, measured["level"].cat.codes.to_numpy()
    # A level that is a number, such as a coma score, is both text and number.
    numbers = np.append(pd.to_numeric(pd.Series(levels), errors="coerce"), np.nan)
    value = measured["value"].to_numpy()
    names = measured["variable"].cat
    place = pd.Index([v.name for v in declared]).get_indexer(names.categories)
    events.add(
        rows,
        admission[rows] + microseconds(measured["hours"].to_numpy()),
        [f"MEASUREMENT//{v.name}//{v.unit or UNKNOWN}" for v in declared],
        [v.name + (f" ({v.unit})" if v.unit else "") for v in declared],
        which=place[names.codes.to_numpy()],
        number=np.where(np.isnan(value), numbers[level], value),
        text=pa.DictionaryArray.from_arrays(
            pa.array(level.astype("int32"), mask=level < 0), pa.array(list(levels), pa.string())
        ),
    )


def _add_codes(events: _Events, cohort: Cohort, end: np.ndarray) -> None:
    if cohort.codes.empty:
        # pandas 2 knows no index of several levels without entries.
        return
    titles = {system.name: system.title for system in cohort.schema.code_systems}
    rows = _positions(events.stays, cohort.codes)
    which, keys = pd.MultiIndex.from_frame(cohort.codes[["system", "code"]]).factorize()
    known = [coded(system, code) for system, code in keys]
    events.add(
        rows,
        end[rows],
        [code for code, _ in known],
        [f"{titles[system]}: {code}" for system, code in keys],
        parents=[parents for _, parents in known],
        which=which,
    )


def _positions(stays: pd.DataFrame, frame: pd.DataFrame) -> np.ndarray:
    return pd.Index(stays["stay_id"]).get_indexer(pd.Index(frame["stay_id"]))
