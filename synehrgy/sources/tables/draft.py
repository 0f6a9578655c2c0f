"""A draft of ``tables.yaml``, guessed from the names and the first rows of a folder's tables."""

import gzip
import re
import shlex
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import duckdb
import pandas as pd
import yaml

from synehrgy.cohort import SPLITS
from synehrgy.cohort.schema import FIXED_STAY_COLUMNS
from synehrgy.errors import UserError
from synehrgy.files import write_text
from synehrgy.sources.reading import SUFFIXES
from synehrgy.sources.tables.declaration import FILE, CsvForm, Declaration, LabelRule, StaysTable
from synehrgy.sources.tables.raw import open_table, reading

# Rows that guesses are made from.
SAMPLE = 20_000

# More different texts are no levels; more series are not listed.
MOST_LEVELS, MOST_SERIES = 12, 200

# What stands where nothing can be guessed.
UNKNOWN = "?"

# What names of columns look like.
NAMES = {
    "subject": r"subject|patient|person|child|infant|baby|mrn|^pat|^pid$",
    "stay": r"stay|encounter|visit|case|episode|hadm|^(admission|adm)(_?(id|no|nr|number))?$",
    "admitted": r"admi|in_?time|arriv|start|begin",
    "discharged": r"disch|out_?time|^left|leav|end",
    "since": r"birth|born|dob",
    "code": r"code|icd|diag|proc|ops|atc",
    "hours": r"hour|offset|^h$|^t$",
    "item": r"item|variable|param|label|test|series|measure|name|signal",
    "value": r"^val|value|result|reading",
    "split": r"split|fold|set$",
}
YES_NO = {*LabelRule().present, *LabelRule().absent}
EITHER_WAY = ("%d/%m/%Y %H:%M", "%m/%d/%Y %H:%M")
FORMATS = ("%d.%m.%Y %H:%M", "%d.%m.%Y %H:%M:%S", "%d.%m.%Y", "%m/%d/%Y %H:%M", "%d/%m/%Y %H:%M")
NO_VALUE = ("NA", "N/A", "n/a", "NaN", "nan", "NULL", "null", "None", "-", ".")
ICD = {
    "icd10_diagnosis": r"[A-Z][0-9][0-9A-Z](\.?[0-9A-Z]{1,4})?",
    "icd9_diagnosis": r"([0-9]{3}|V[0-9]{2}|E[0-9]{3})(\.?[0-9]{1,2})?",
}


@dataclass(frozen=True)
class Sample:
    """The first rows of a table, as text; what means that there is no value is missing.

    Attributes:
        file: name of the file.
        rows: its columns.
        form: how cells are written.
    """

    file: str
    rows: pd.DataFrame
    form: Declaration

    @property
    def columns(self) -> list[str]:
        """Names of the columns."""
        return [str(column) for column in self.rows]

    def is_number(self, column: str) -> bool:
        """Whether everything in a column is a number."""
        return self.numbers(column) is not None

    def numbers(self, column: str) -> pd.Series | None:
        """A column as numbers; None if there is none of this name, or if it has anything else."""
        if column not in self.rows:
            return None
        texts = self.rows[column].dropna()
        if self.form.csv.decimal == ",":
            texts = texts.str.replace(",", ".")
        found = pd.to_numeric(texts, errors="coerce")
        return found.reindex(self.rows.index) if len(texts) and found.notna().all() else None

    def is_time(self, column: str) -> bool:
        """Whether everything in a column is a date and time."""
        texts = self.rows[column].dropna()
        if not len(texts) or self.is_number(column):
            return False
        formats = self.form.time_format or ["ISO8601"]
        return any(pd.to_datetime(texts, format=f, errors="coerce").notna().all() for f in formats)

    def find(self, what: str, *, time: bool | None = None, but: Iterable[str] = ()) -> str | None:
        """The first column whose name looks like ``what``, and which is a time or is none."""
        found = (
            column
            for column in self.columns
            if re.search(NAMES[what], column.lower())
            and column not in but
            and (time is None or self.is_time(column) == time)
        )
        return next(found, None)

    def values(self, column: str) -> dict[str, Any] | None:
        """How a column's values are declared: numbers, or levels; None if they are neither."""
        return None if self.is_time(column) else _values(self, self.rows[column])


def draft(folder: Path) -> str:
    """Write ``tables.yaml`` beside tables, for a person to correct.

    Args:
        folder: of CSV or Parquet files.

    Returns:
        What was written, what could not be guessed, and what to do next.

    Raises:
        UserError: no such folder, no tables, files that cannot be read, or a ``tables.yaml`` that
            is there already.
    """
    folder = Path(folder)
    target = folder / FILE
    if not folder.is_dir():
        what = "is a file" if folder.exists() else "does not exist"
        raise UserError(f"{folder} {what}. Give the folder of the tables.")
    if target.exists():
        raise UserError(f"{target} is there already. Rename it to have a new draft written.")
    names = sorted(f.name for f in folder.glob("*") if f.name.lower().endswith(SUFFIXES))
    if not names:
        raise UserError(f"{folder} has no tables; they end with {', '.join(SUFFIXES)}.")
    form = _form(folder, names)
    samples = [Sample(name, _rows(folder, name, form), form) for name in names]
    unsure: list[str] = []
    content = {**_written(form), **_content(samples, unsure)}
    dumped = yaml.safe_dump(
        content, sort_keys=False, allow_unicode=True, default_flow_style=None, width=100
    )
    head = [f"# A draft, guessed from {SAMPLE:,} rows of each table at most. What it means:"]
    head += ["# docs/own-data.md", *(f"# - {sentence}" for sentence in unsure)]
    write_text(target, "\n".join([*head, dumped]))
    said = "".join(f"\n  - {sentence}" for sentence in unsure)
    check = f"python -m synehrgy.cohort check {shlex.quote(str(folder))}"
    return f"Draft: {target}{said}\nNext: correct it; {check}"


def _written(form: Declaration) -> dict[str, Any]:
    """How cells are written, as far as it is not the default."""
    default = asdict(CsvForm())
    csv = {key: value for key, value in asdict(form.csv).items() if value != default[key]}
    found = {"csv": csv, "missing": form.missing, "time_format": form.time_format}
    return {key: value for key, value in found.items() if value}


def _rows(folder: Path, name: str, form: Declaration) -> pd.DataFrame:
    table = open_table(folder, name, "a table", form)
    # Names of their own, as DuckDB takes "HR" and "hr" for the same.
    texts = {f"t{i}": table.text(column, "a column") for i, column in enumerate(table.columns)}
    listed = ", ".join(f"{sql} AS {column}" for column, sql in texts.items())
    with reading(table):
        rows = duckdb.execute(f"SELECT {listed} FROM {table.source} LIMIT {SAMPLE}").df()
    return rows.set_axis(list(table.columns), axis=1)


def _form(folder: Path, names: list[str]) -> Declaration:
    """How the cells of the tables are written."""
    csv = [name for name in names if not name.lower().endswith(".parquet")]
    encoding = "utf-8" if all(_is_utf8(folder / name) for name in csv) else "latin-1"
    delimiters = {_delimiter(folder / name, encoding) for name in csv}
    if len(delimiters) > 1:
        shown = " ".join(sorted(delimiters))
        raise UserError(f"The CSV files of {folder} have several delimiters, {shown}: take one.")
    stays = StaysTable(UNKNOWN, UNKNOWN, UNKNOWN)
    written = CsvForm(next(iter(delimiters), ","), ".", encoding)
    cells = [
        texts.dropna()
        for name in names
        for _, texts in _rows(folder, name, Declaration(stays, csv=written)).items()
    ]
    decimal = "," if any(texts.str.fullmatch(r"-?\d+,\d+").any() for texts in cells) else "."
    missing = [text for text in NO_VALUE if any((texts == text).any() for texts in cells)]
    known = [texts[~texts.isin(missing)] for texts in cells]
    fitting = [
        [f for f in FORMATS if pd.to_datetime(t, format=f, errors="coerce").notna().all()]
        for t in known
        if len(t)
    ]
    formats = [f for f in FORMATS if any(f in found for found in fitting)]
    if set(EITHER_WAY) <= set(formats):
        # Days up to 12 are months as well; what some column can only be, all are.
        sure = [f for f in EITHER_WAY if any({*found} & {*EITHER_WAY} == {f} for found in fitting)]
        kept = sure[0] if sure else EITHER_WAY[0]
        formats = [f for f in formats if f == kept or f not in EITHER_WAY]
    written = CsvForm(written.delimiter, decimal, encoding)
    return Declaration(stays, csv=written, missing=missing, time_format=formats)


def _first_bytes(file: Path) -> bytes:
    with gzip.open(file) if file.suffix.lower() == ".gz" else file.open("rb") as opened:
        return bytes(opened.read(1 << 20))


def _is_utf8(file: Path) -> bool:
    # The last character may be cut.
    return "\ufffd" not in _first_bytes(file).decode("utf-8", "replace")[:-4]


def _delimiter(file: Path, encoding: str) -> str:
    header = _first_bytes(file).decode(encoding, "replace").splitlines()[:1] or [""]
    found = max((",", ";", "\t", "|"), key=header[0].count)
    return found.replace("\t", r"\t")


def _values(sample: Sample, texts: pd.Series) -> dict[str, Any] | None:
    known = texts.dropna()
    if not len(known):
        return None
    plain = known.str.replace(",", ".") if sample.form.csv.decimal == "," else known
    if pd.to_numeric(plain, errors="coerce").notna().all():
        return {}
    levels = sorted(known.unique())
    return {"levels": levels} if len(levels) <= MOST_LEVELS else None


def _content(samples: list[Sample], unsure: list[str]) -> dict[str, Any]:
    """What the tables are; what could not be guessed is added to ``unsure``."""
    key = _key(samples)
    stays = _stays_of(samples, key)
    content: dict[str, Any] = _stays(stays, key, unsure)
    codes, measurements, series = [], [], {}
    for sample in samples:
        if sample is stays:
            continue
        mine = key if key in sample.rows else sample.find("stay", time=False) or UNKNOWN
        start = {"file": sample.file, "stay": mine}
        code = sample.find("code", time=False, but=[mine])
        moment = _moment(sample, "admitted" in content["stays"], mine)
        if code is not None and moment is None:
            codes.append({**start, "code": code, "system": _system(sample, code, unsure)})
        elif moment is not None:
            where, found = _series(sample, [mine, *moment.values()], unsure)
            measurements.append({**start, **moment, **where})
            series.update(found)
        else:
            unsure.append(f"{sample.file} was not understood: is it one of codes or measurements?")
    if codes:
        content["codes"] = codes
    if measurements:
        content.update(measurements=measurements, series=series)
    return content


def _key(samples: list[Sample]) -> str:
    """The column of the stay: the one named so that most tables have."""
    named = [c for s in samples if (c := s.find("stay", time=False)) is not None]
    shared = [c for s in samples for c in s.columns if not re.search(NAMES["subject"], c.lower())]
    counted = pd.Series(named or [c for c in shared if shared.count(c) > 1]).value_counts()
    return str(counted.index[0]) if len(counted) else UNKNOWN


def _stays_of(samples: list[Sample], key: str) -> Sample:
    """The table that has each stay once, and the patient of each."""
    have = [s for s in samples if key in s.rows and s.rows[key].is_unique] or samples
    return next((s for s in have if s.find("subject", but=[key]) is not None), have[0])


def _stays(sample: Sample, key: str, unsure: list[str]) -> dict[str, Any]:
    stays: dict[str, str] = {"file": sample.file}
    stays["subject"] = sample.find("subject", time=False, but=[key]) or UNKNOWN
    stays["stay"] = key
    for what in ("admitted", "discharged"):
        column = sample.find(what, time=True, but=stays.values())
        if column is not None:
            stays[what] = column
    # Tables of another tool may have what a cohort has under the same name.
    order = sample.numbers("stay_index")
    if order is not None and order.notna().all():
        stays["order"] = "stay_index"
    los = sample.numbers("los_hours")
    if los is not None and los.min() >= 0 and "discharged" not in stays:
        stays["los_hours"] = "los_hours"
    split = sample.find("split")
    if split is not None and sample.rows[split].isin(SPLITS).all():
        stays["split"] = split
    unsure += [f"stays.{what}: which column?" for what, c in stays.items() if c == UNKNOWN]
    covariates: dict[str, Any] = {}
    labels: dict[str, Any] = {}
    for column in sample.columns:
        values = sample.values(column)
        if column in stays.values():
            continue
        if column in FIXED_STAY_COLUMNS:
            unsure.append(
                f"{sample.file}: the column {column} is left out: its name is reserved. To take "
                "it, give it another name: {<name>: {column: " + column + "}}."
            )
            continue
        if re.search(NAMES["since"], column.lower()) and "admitted" in stays:
            covariates["age"] = {"since": column, "unit": "years"}
        elif _says_yes_or_no(sample.rows[column]):
            labels[column] = {}
        elif values is None:
            unsure.append(f"{sample.file}: the column {column} is left out.")
        elif column.lower() == "sex":
            # By this name other parts know it.
            covariates["gender"] = {"column": column, **values}
        else:
            covariates[column] = values
    parts = {"stays": stays, "covariates": covariates, "labels": labels}
    return {name: part for name, part in parts.items() if part}


def _says_yes_or_no(texts: pd.Series) -> bool:
    found = set(texts.dropna().str.lower())
    return len(found) > 1 and found <= YES_NO


def _moment(sample: Sample, has_admission: bool, key: str) -> dict[str, str] | None:
    """The column that says when a row was measured."""
    hours = sample.find("hours", time=False, but=[key])
    if hours is not None and sample.is_number(hours):
        return {"hours": hours}
    times = [column for column in sample.columns if sample.is_time(column)]
    return {"time": times[0]} if times and has_admission else None


def _system(sample: Sample, code: str, unsure: list[str]) -> str:
    texts = sample.rows[code].dropna().str.upper()
    for system, form in ICD.items():
        if texts.str.fullmatch(form).mean() > 0.9:
            return system
    unsure.append(
        f"{sample.file}: the code system was not recognised and is called after the file."
    )
    return sample.file.split(".")[0]


def _series(
    sample: Sample, taken: list[str], unsure: list[str]
) -> tuple[dict[str, str], dict[str, Any]]:
    """The columns of the long form, if it is one, and the series."""
    value = sample.find("value", time=False, but=taken)
    item = sample.find("item", time=False, but=[*taken, *([value] if value else [])])
    if value is None or item is None:
        found = {c: sample.values(c) for c in sample.columns if c not in taken}
        where = {}
    else:
        names = sample.rows[item].value_counts().index[:MOST_SERIES]
        by_name = sample.rows.groupby(item)[value]
        found = {str(name): _values(sample, by_name.get_group(name)) for name in names}
        where = {"variable": item, "value": value}
    unsure += [
        f"{sample.file}: {name} is left out: neither numbers nor few levels."
        for name, values in found.items()
        if values is None
    ]
    return where, {name: values for name, values in found.items() if values is not None}
