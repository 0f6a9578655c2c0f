"""``tables.yaml``: which file and column of a hospital's tables is what."""

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from omegaconf import MISSING

from synehrgy.cohort import CodeSystem, Covariate, Label, Schema, Variable
from synehrgy.errors import UserError, nearest
from synehrgy.settings import group, setting
from synehrgy.sources.tables.parsing import parse, read_texts

FILE = "tables.yaml"

# What may be left out and counted instead of refused, by what it is wrong with.
CODE_FAULTS = ("unknown_stay", "unknown_system", "unreadable_position")
VALUE_FAULTS = (
    "unknown_stay",
    "unreadable_time",
    "before_admission",
    "after_discharge",
    "unreadable_value",
    "unknown_level",
    "duplicate",
)
# Hours of each unit that a covariate can count the time before admission in.
UNIT_HOURS = {"hours": 1.0, "days": 24.0, "weeks": 168.0, "months": 730.5, "years": 8766.0}


@dataclass(frozen=True)
class CsvForm:
    """How CSV files are written."""

    delimiter: str = setting(",", "what separates the fields")
    decimal: str = setting(".", "the decimal point of numbers", choices=(".", ","))
    encoding: str = setting("utf-8", "of the text", choices=("utf-8", "latin-1", "utf-16"))


@dataclass(frozen=True)
class StaysTable:
    """The table with one row per stay; all but the file are names of columns."""

    file: str = setting(MISSING, "the file with one row per stay")
    subject: str = setting(MISSING, "column of the identifier of the patient")
    stay: str = setting(MISSING, "column of the identifier of the stay")
    order: str | None = setting(None, "column of a number that puts a patient's stays in order")
    admitted: str | None = setting(None, "column of the time of admission")
    discharged: str | None = setting(None, "column of the time of discharge")
    los_hours: str | None = setting(None, "column of the length of stay in hours")
    split: str | None = setting(None, "column that says train, val or test")


@dataclass(frozen=True)
class CovariateColumn:
    """A fact known at admission: a number, or one of some levels."""

    column: str | None = setting(None, "its column in the table of stays, if not called the same")
    since: str | None = setting(
        None, "column of a time, such as that of birth: the covariate is how long ago it was"
    )
    unit: str | None = setting(None, "unit of a number")
    levels: dict[str, list[str]] = setting({}, "levels, with their spellings in the table")
    range: list[float] = setting([], "lowest and highest possible number; others become empty")


@dataclass(frozen=True)
class LabelRule:
    """A yes-or-no fact about a stay: a column of its table, or defined by codes."""

    column: str | None = setting(None, "its column in the table of stays, if not called the same")
    present: list[str] = setting(["1", "true", "yes"], "what the column has where it is so")
    absent: list[str] = setting(["0", "false", "no"], "what it has where it is not")
    system: str | None = setting(None, "system of the codes that define it")
    codes: list[str] = setting([], "codes that define it; 'P36*': all that begin so")
    title: str | None = setting(None, "for people")
    kind: str | None = setting(
        None,
        "outcome (stated either way; the default of columns), or phenotype (stated where present)",
        choices=("outcome", "phenotype"),
    )


@dataclass(frozen=True)
class CodesTable:
    """A table with one row per code of a stay."""

    file: str = setting(MISSING, "the file with one row per code")
    stay: str = setting(MISSING, "column of the identifier of the stay")
    code: str = setting(MISSING, "column of the code")
    system: str | None = setting(None, "code system of all its rows, such as icd10_diagnosis")
    system_column: str | None = setting(None, "column of the code system, if there are several")
    systems: dict[str, list[str]] = setting({}, "code systems, with their spellings there")
    position: str | None = setting(None, "column of a number that puts a stay's codes in order")
    drop: list[str] = setting([], "rows that are left out and counted", choices=CODE_FAULTS)


@dataclass(frozen=True)
class MeasurementsTable:
    """A table with one row per value (long) or per time point (wide)."""

    file: str = setting(MISSING, "the file with one row per value or per time point")
    stay: str = setting(MISSING, "column of the identifier of the stay")
    hours: str | None = setting(None, "column of the hours since admission")
    time: str | None = setting(None, "column of the time, instead of hours")
    variable: str | None = setting(None, "column that names the series, in the long form")
    value: str | None = setting(None, "column of the value, in the long form")
    drop: list[str] = setting([], "values that are left out and counted", choices=VALUE_FAULTS)


@dataclass(frozen=True)
class Series:
    """A series measured over time: numbers, or levels."""

    called: list[str] = setting(
        [], "its columns (wide) or names in the column of the series (long), if not called the same"
    )
    unit: str | None = setting(None, "unit of its numbers")
    levels: dict[str, list[str]] = setting({}, "levels, with their spellings in the tables")
    range: list[float] = setting([], "lowest and highest possible number; others are left out")


@dataclass(frozen=True)
class Declaration:
    """What a folder of tables holds.

    Raises:
        UserError: keys that do not go together.
    """

    stays: StaysTable = setting(MISSING, "the table with one row per stay")
    name: str | None = setting(None, "name of the cohort; null: that of the data set")
    csv: CsvForm = group(CsvForm)
    missing: list[str] = setting([], "texts that mean that there is no value, besides empty cells")
    time_format: list[str] = setting([], "such as '%d.%m.%Y %H:%M', if times are not in ISO 8601")
    covariates: dict[str, CovariateColumn] = setting({}, "facts known at admission")
    labels: dict[str, LabelRule] = setting({}, "yes-or-no facts about stays")
    codes: list[CodesTable] = setting([], "tables of codes")
    code_systems: dict[str, str] = setting({}, "titles of the code systems")
    measurements: list[MeasurementsTable] = setting([], "tables of measurements")
    series: dict[str, Series] = setting({}, "series to take from them")

    def __post_init__(self) -> None:
        for problem in self._problems():
            raise UserError(problem)
        self.schema("", {})

    @property
    def systems(self) -> list[str]:
        """Names of the code systems, in the order in which they are declared."""
        names = ([t.system] if t.system else t.systems for t in self.codes)
        return list(dict.fromkeys(name for of_table in names for name in of_table))

    def names_of(self, series: str) -> list[str]:
        """What a series is called in the tables."""
        return self.series[series].called or [series]

    def schema(self, name: str, defining: dict[str, list[str]]) -> Schema:
        """The columns of the cohort.

        Args:
            name: of the cohort, if the file gives none.
            defining: the codes that define labels, by their column.
        """

        def label_of(column: str, rule: LabelRule) -> Label:
            codes = defining.get(column, [])
            by_kind = rule.kind or ("phenotype" if rule.codes else "outcome")
            system = rule.system if codes else None
            return Label(column, rule.title or _title(column), by_kind, system, codes)

        return Schema(
            name=self.name or name,
            source="tables",
            covariates=[
                Covariate(n, "categorical" if c.levels else "continuous", c.unit, list(c.levels))
                for n, c in self.covariates.items()
            ],
            labels=[label_of(column, rule) for column, rule in self.labels.items()],
            variables=[
                Variable(n, "categorical" if s.levels else "continuous", s.unit, list(s.levels))
                for n, s in sorted(self.series.items())
            ],
            code_systems=[
                CodeSystem(system, self.code_systems.get(system, _title(system)))
                for system in self.systems
            ],
        )

    def _problems(self) -> Iterator[str]:
        stays = self.stays
        if stays.discharged and stays.los_hours:
            yield "stays: give either discharged or los_hours."
        if stays.discharged and not stays.admitted:
            yield "stays.discharged needs stays.admitted, the time that it is counted from."
        if len(self.csv.delimiter) != 1 and self.csv.delimiter != r"\t":
            yield f"csv.delimiter must be one character, is {self.csv.delimiter!r}."
        for name, covariate in self.covariates.items():
            yield from self._problems_of_covariate(f"covariates.{name}", covariate)
        for name, label in self.labels.items():
            yield from self._problems_of_label(f"labels.{name}", label)
        for table in self.codes:
            where = f"codes ({table.file})"
            if bool(table.system) == bool(table.system_column):
                yield f"{where}: give either system or, where a column says which, system_column."
            if bool(table.system_column) != bool(table.systems):
                yield f"{where}: system_column and systems, its meanings, go together."
            yield from _repeated(f"{where}.systems", table.systems.values())
        for system in self.code_systems:
            if system not in self.systems:
                hint = nearest(system, self.systems)
                yield f"code_systems.{system} is the system of no table of codes.{hint}"
        yield from self._problems_of_series()

    def _problems_of_covariate(self, where: str, covariate: CovariateColumn) -> Iterator[str]:
        if covariate.since is not None:
            if covariate.column is not None or covariate.levels:
                yield f"{where}: since stands instead of column and levels."
            if covariate.unit not in UNIT_HOURS:
                yield f"{where}: since needs a unit, one of {', '.join(UNIT_HOURS)}."
            if self.stays.admitted is None:
                yield f"{where}: since needs stays.admitted, the time that it is counted to."
        yield from _problems_of_values(where, covariate)

    def _problems_of_label(self, where: str, label: LabelRule) -> Iterator[str]:
        if bool(label.system) != bool(label.codes):
            yield f"{where}: system and codes go together."
        if label.codes and label.column:
            yield f"{where}: give either column or codes."
        if label.system and label.system not in self.systems:
            hint = nearest(label.system, self.systems)
            yield f"{where}.system: {label.system!r} is the system of no table of codes.{hint}"
        yield from _repeated(f"{where}: present and absent", [label.present, label.absent])

    def _problems_of_series(self) -> Iterator[str]:
        if bool(self.measurements) != bool(self.series):
            yield "measurements (their tables) and series (what to take from them) go together."
        for table in self.measurements:
            where = f"measurements ({table.file})"
            if bool(table.hours) == bool(table.time):
                yield f"{where}: give either hours or time, a column each."
            if table.time and not self.stays.admitted:
                yield f"{where}: time needs stays.admitted, the time that hours are counted from."
            if bool(table.variable) != bool(table.value):
                yield f"{where}: variable and value go together (long form); the wide has neither."
        yield from _repeated("series.*.called", map(self.names_of, self.series))
        for name, series in self.series.items():
            yield from _problems_of_values(f"series.{name}", series)


def read_declaration(file: Path) -> Declaration:
    """Read ``tables.yaml``.

    Raises:
        UserError: names the file and the key, and what is valid.
    """
    content = read_texts(file)
    try:
        return parse(Declaration, content)
    except UserError as error:
        raise UserError(f"{file}: {error}") from None


def spelling(text: str) -> str:
    """A text as it is compared: without blanks around it, and ``1.0`` as ``1``.

    Data frames write whole numbers so where some are missing.
    """
    return re.sub(r"^(-?[0-9]+)\.0+$", r"\1", text.strip())


def _title(name: str) -> str:
    text = re.sub(r"^icd(9|10)", r"ICD-\1", name).replace("_", " ")
    return text[:1].upper() + text[1:]


def _problems_of_values(where: str, declared: CovariateColumn | Series) -> Iterator[str]:
    if declared.levels and (declared.unit or declared.range):
        yield f"{where}: levels have no unit and no range."
    yield from _repeated(f"{where}.levels", declared.levels.values())


def _repeated(where: str, groups: Iterable[list[str]]) -> Iterator[str]:
    """Spellings that would mean two things."""
    seen: set[str] = set()
    for names in groups:
        mine = {spelling(name) for name in names}
        for name in sorted(mine & seen):
            yield f"{where}: {name!r} stands for two things."
        seen |= mine
