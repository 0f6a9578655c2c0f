"""A cohort as a dataset of the Medical Event Data Standard (MEDS), version 0.4.

https://github.com/Medical-Event-Data-Standard/meds

Nothing is lost: with the mapping beside it, ``data=meds`` makes the same cohort of the dataset.
What the columns of the standard cannot hold stands in others, or in the text.
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
import yaml

from synehrgy import __version__
from synehrgy.cohort.calendar import MORTALITY, calendar, microseconds
from synehrgy.cohort.icd import CATEGORY
from synehrgy.cohort.io import read_parts, read_schema, reading
from synehrgy.cohort.meds_mapping import (
    ADMISSION,
    BIRTH,
    DEATH,
    DISCHARGE,
    covariate_codes,
    label_code,
    mapping_of,
    series_code,
    system_prefix,
)
from synehrgy.cohort.schema import Covariate, Schema
from synehrgy.cohort.tables import Cohort
from synehrgy.files import new_folder, read_json, write_json, write_text

MEDS_VERSION = "0.4.1"
ETL_NAME = "synehrgy"
SPLIT_NAMES = {"train": "train", "val": "tuning", "test": "held_out"}
# Patients without a split, where others have one.
UNASSIGNED = "unassigned"
MAPPING_FILE = Path("metadata") / "mapping.yaml"
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
        # Hours since admission where the microseconds of the time do not tell them.
        pa.field("hours", pa.float64()),
        # Place of a code in the list of the stay.
        pa.field("position", pa.int32()),
    ]
)
EXTENSIONS = ["hours", "position"]
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
    same in all stays. Train, val and test become ``train``, ``tuning`` and ``held_out``; without
    any split, as in synthetic cohorts, all are in ``train``.

    ``metadata/mapping.yaml`` says how to read all that as a cohort again.

    Args:
        cohort: the cohort folder.
        path: the folder of the dataset; one that this function wrote is replaced.

    Returns:
        The files written.

    Raises:
        UserError: no cohort there, tables that break a rule, names that would be the same code, or
            ``path`` holds something else.
    """
    schema, _ = read_schema(cohort)
    with reading(Path(cohort) / "stays.parquet"):
        split = pq.read_table(Path(cohort) / "stays.parquet", columns=["split"])["split"]
    has_splits = split.null_count < len(split)
    mapping = mapping_of(schema, SPLIT_NAMES if has_splits else {})
    about = ("dataset.json", "codes.parquet", "subject_splits.parquet")
    files = [*(Path("metadata") / name for name in about), MAPPING_FILE]
    described: Described = {}
    splits = []
    with new_folder(path, _is_ours) as folder:
        for name in ("data", "metadata"):
            (folder / name).mkdir()
        shards: Counter[str] = Counter()
        for part in read_parts(cohort):
            first = part.stays.drop_duplicates("subject_id")
            names = first["split"].map(SPLIT_NAMES).fillna(UNASSIGNED if has_splits else "train")
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
        text = yaml.safe_dump(mapping, sort_keys=False, width=100)
        write_text(folder / MAPPING_FILE, text)
    return [Path(path) / file for file in files]


def _is_ours(path: Path) -> bool:
    about = path / "metadata" / "dataset.json"
    if {entry.name for entry in path.iterdir()} != {"data", "metadata"} or not about.is_file():
        return False
    content = read_json(about)
    # Others of our programs write datasets, too, but no mapping.
    is_export = isinstance(content, dict) and content.get("etl_name") == ETL_NAME
    return is_export and (path / MAPPING_FILE).is_file()


def _dataset(schema: Schema) -> dict[str, Any]:
    return {
        "dataset_name": schema.name,
        "etl_name": ETL_NAME,
        "etl_version": __version__,
        "meds_version": MEDS_VERSION,
        "raw_source_id_columns": SOURCE_IDS,
        "other_extension_columns": EXTENSIONS,
    }


def coded(system: str, code: str) -> tuple[str, list[str]]:
    """A code of a code system, and its parents in the OMOP vocabularies.

    ICD codes are written as in the public extraction of MIMIC-IV: ``DIAGNOSIS//ICD//9//0389`` with
    the parent ``ICD9CM/038.9``, ``PROCEDURE//ICD//9//3893`` with ``ICD9Proc/38.93``. Others are
    ``<system>//<code>``. The parents of a code with its point are those of one without.
    """
    prefix = system_prefix(system)
    found = re.fullmatch(r"icd(9|10)_(diagnosis|procedure)", system)
    if not found:
        return prefix + code, []
    version, kind = found.groups()
    written, code = code, code.replace(".", "")
    vocabulary = {"diagnosis": "CM", "procedure": "Proc" if version == "9" else "PCS"}[kind]
    point = CATEGORY[f"icd9_{kind}" if version == "9" else "icd10"]
    point += version == "9" and code.startswith("E")
    pointed = vocabulary != "PCS" and len(code) > point
    norm = f"{code[:point]}.{code[point:]}" if pointed else code
    return prefix + written, [f"ICD{version}{vocabulary}/{norm}"]


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
        code, number = [label_code(label)], stays[label.column].to_numpy(dtype="float64")
        events.add(every, dates.end, code, [label.title], number=number)
    los = stays["los_hours"].to_numpy(dtype="float64", na_value=np.nan)
    left = every[~np.isnan(los)]
    discharge = dates.admission[left] + microseconds(los[left])
    title = ["Discharge from the intensive care unit"]
    events.add(left, discharge, [DISCHARGE], title, number=los[left])
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
        hours: np.ndarray | None = None,
        position: np.ndarray | None = None,
        of_stay: bool = True,
    ) -> None:
        """Add an event for each of ``rows``, the positions of their stays.

        Args:
            rows, time: an entry per event.
            codes, descriptions, parents: the codes that occur; no parents if not given.
            which: position in ``codes``, per event; the first if not given.
            number, text: values per event, NaN or null where there is none; a number that 32 bits
                may not hold gets its text.
            hours, position: columns of their own, NaN where there is nothing to say.
            of_stay: whether the events belong to the stay rather than to the patient.
        """
        n = len(rows)
        which = np.zeros(n, "int32") if which is None else which.astype("int32")
        for i in np.unique(which):
            self.described[codes[i]] = (descriptions[i], parents[i] if parents else [])
        stays = self.stays.iloc[rows]
        texts = pa.nulls(n, pa.string()) if text is None else text.cast(pa.string())
        if number is not None:
            texts = pc.coalesce(texts, _exact_text(number))
            with np.errstate(over="ignore"):
                number = number.astype("float32")
            number = np.where(np.isfinite(number), number, np.float32(np.nan))
        columns = [
            pa.array(stays["subject_id"]),
            pa.array(time),
            pa.DictionaryArray.from_arrays(which, pa.array(codes, pa.string())),
            pa.nulls(n) if number is None else pa.array(number, from_pandas=True),
            texts.dictionary_encode(),
            *(pa.array(stays[name], pa.int64()) if of_stay else pa.nulls(n) for name in SOURCE_IDS),
            pa.nulls(n) if hours is None else pa.array(hours, from_pandas=True),
            pa.nulls(n) if position is None else pa.array(position),
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


def _exact_text(number: np.ndarray) -> pa.Array:
    """The text of numbers of more than six digits, which 32 bits may not hold; null for others."""
    few = np.isnan(number)
    for decimals in range(7):
        few |= (np.abs(number) < 10.0 ** (6 - decimals)) & (np.round(number, decimals) == number)
    return pa.array(number, mask=few).cast(pa.string())


def _add_covariate(events: _Events, covariate: Covariate, admission: np.ndarray) -> None:
    column, codes = events.stays[covariate.name], covariate_codes(covariate)
    rows = np.flatnonzero(column.notna())
    if covariate.kind == "continuous":
        number = column.to_numpy()[rows]
        events.add(rows, admission[rows], codes, [covariate.name], number=number)
        return
    descriptions = [f"{covariate.name}: {level}" for level in covariate.levels]
    which = pd.Index(covariate.levels).get_indexer(pd.Index(column))
    told = rows
    if covariate.name.lower() in STATIC:
        # Told once, without a time, where it is known and the same in all stays.
        stays = column.groupby(events.stays["subject_id"])
        same = (stays.transform("nunique") == 1) & (
            stays.transform("count") == stays.transform("size")
        )
        once = np.flatnonzero(same & (events.stays["stay_index"] == 0))
        never = np.full(len(once), np.datetime64("NaT"), dtype=admission.dtype)
        events.add(once, never, codes, descriptions, which=which[once], of_stay=False)
        told = np.flatnonzero(column.notna() & ~same)
    events.add(told, admission[told], codes, descriptions, which=which[told])


def _add_measurements(events: _Events, cohort: Cohort, admission: np.ndarray) -> None:
    measured, declared = cohort.measurements, cohort.schema.variables
    rows = _positions(events.stays, measured)
    levels, level = measured["level"].cat.categories, measured["level"].cat.codes.to_numpy()
    # A level that is a number, such as a coma score, is both text and number.
    numbers = np.append(pd.to_numeric(pd.Series(levels), errors="coerce"), np.nan)
    value, hours = measured["value"].to_numpy(), measured["hours"].to_numpy()
    names = measured["variable"].cat
    place = pd.Index([v.name for v in declared]).get_indexer(names.categories)
    since = microseconds(hours)
    told = since.astype("int64") / 3.6e9 == hours
    events.add(
        rows,
        admission[rows] + since,
        [series_code(v) for v in declared],
        [v.name + (f" ({v.unit})" if v.unit else "") for v in declared],
        which=place[names.codes.to_numpy()],
        number=np.where(np.isnan(value), numbers[level], value),
        text=pa.DictionaryArray.from_arrays(
            pa.array(level.astype("int32"), mask=level < 0), pa.array(list(levels), pa.string())
        ),
        hours=np.where(told, np.nan, hours),
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
        position=cohort.codes["position"].to_numpy(),
    )


def _positions(stays: pd.DataFrame, frame: pd.DataFrame) -> np.ndarray:
    return pd.Index(stays["stay_id"]).get_indexer(pd.Index(frame["stay_id"]))
