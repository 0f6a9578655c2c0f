"""What the codes of a MEDS dataset mean for a cohort, declared in a YAML file.

``docs/meds.md`` explains the file; ``resources/`` has those of public extractions.
"""

import math
from collections.abc import Iterable
from dataclasses import dataclass, field, fields, replace
from importlib.resources import files
from pathlib import Path
from typing import Any, TypeVar

import yaml

from synehrgy.cohort import SPLITS as COHORT_SPLITS
from synehrgy.cohort import CodeSystem, Covariate, Label, Schema, Variable
from synehrgy.cohort.icd import is_icd
from synehrgy.cohort.meds import MAPPING_FILE
from synehrgy.errors import UserError, nearest
from synehrgy.files import read_yaml
from synehrgy.sources.extraction.cleaning import CLEANING, DUPLICATES
from synehrgy.sources.extraction.resources import ItemSet, read_labels, read_profile
from synehrgy.sources.meds.templates import Template

SHIPPED = ("mimic3", "mimic4")
# Of a mapping's file.
KEYS = (
    *("source", "stays", "covariates", "codes", "labels", "series"),
    *("blank", "hours", "splits"),
)
# Hours of the units of stays.length.
HOURS = {"hours": 1.0, "days": 24.0}

_T = TypeVar("_T")


@dataclass(frozen=True)
class AdmissionRule:
    """Admissions to the hospital, of which stays are parts.

    Attributes:
        id: column that names the admission of an event.
        begin, end: events at which one begins and ends.
    """

    id: str | None = None
    begin: Template | None = None
    end: Template | None = None


@dataclass(frozen=True)
class Keep:
    """Which stays are kept.

    Attributes:
        same: names of the templates of begin and end, or columns, that must not differ between
            the two.
        one_per_admission: only stays that are the only one of their admission.
        min_age: in years, of a covariate that counts from birth.
        with_series: only stays with a value of any series.
    """

    same: list[str] = field(default_factory=list)
    one_per_admission: bool = False
    min_age: float | None = None
    with_series: bool = False


@dataclass(frozen=True)
class StayRule:
    """What a stay is.

    Attributes:
        begin, end: events at which one begins and ends.
        id: column that names the stay of an event; without it stays are numbered.
        length: ``hours`` or ``days`` if the end has the length of the stay as its value; otherwise
            it is the time between begin and end.
        admission: the admission that it is a part of.
        events: which events are a stay's. ``time``: those between its begin and end (codes and
            labels: those of its admission, if there are admissions); ``id``: those with its id;
            ``admission``: those of its admission, at a time in the stay, but not of another stay.
        keep: which stays are kept.
    """

    begin: Template
    end: Template | None = None
    id: str | None = None
    length: str | None = None
    admission: AdmissionRule | None = None
    events: str = "time"
    keep: Keep = field(default_factory=Keep)


@dataclass(frozen=True)
class BirthAge:
    """Age at the beginning of a stay, counted from birth.

    Attributes:
        days_per_year: days that count as a year.
        highest: an age above it, or below zero, counts as this age; None: it is kept.
    """

    days_per_year: float = 365.25
    highest: float | None = None


@dataclass(frozen=True)
class CovariateRule:
    """A covariate, and where it comes from: birth, or the latest event until the stay begins.

    The level of a categorical one is what ``{level}`` stands for in the code, else the text of the
    event.
    """

    covariate: Covariate
    code: Template | None = None
    birth: BirthAge | None = None


@dataclass(frozen=True)
class LabelRule:
    """A label, and what makes it 1.

    Attributes:
        label: without the codes that define it.
        code: an event of the stay, with a value other than 0 if it has one.
        death: death during the ``stay``, or its ``admission``.
        codes: one of these codes, by their system.
        ccs: likewise, with all diagnoses of the ``systems`` in this category of HCUP's CCS.
    """

    label: Label
    code: Template | None = None
    death: str | None = None
    codes: dict[str, list[str]] = field(default_factory=dict)
    systems: list[str] = field(default_factory=list)
    ccs: int | None = None


@dataclass(frozen=True)
class SystemRule:
    """A code system; ``{code}`` in its template stands for the code."""

    system: CodeSystem
    code: Template


@dataclass(frozen=True)
class CodeRule:
    """Codes of stays.

    Attributes:
        systems: in the order in which a stay lists them.
        order: column with the order in a system; without it that of the events.
        position: column with the position in the stay, which is then taken as it is.
    """

    systems: list[SystemRule] = field(default_factory=list)
    order: str | None = None
    position: str | None = None

    def plain(self, system: str, code: str) -> str:
        """A code as cohorts have it: of ICD in capitals and without its point.

        Where positions are stated, the dataset is a cohort's, whose codes come back as they were.
        """
        if self.position is not None or not is_icd(system):
            return code
        return code.replace(".", "").upper()


@dataclass(frozen=True)
class SeriesCode:
    """A code of a series: its values are multiplied, then added to, to be in the series' unit."""

    code: Template
    multiply: float = 1.0
    add: float = 0.0


@dataclass(frozen=True)
class SeriesRule:
    """A series: how its values are cleaned, and its codes.

    Attributes:
        items: its name, unit, levels and cleaning, as for raw tables; its own items count only
            where the series are those ``items_of`` another source.
        codes: its codes.
        exact: its levels are the texts of the events, compared as they are.
    """

    items: ItemSet
    codes: list[SeriesCode] = field(default_factory=list)
    exact: bool = False


@dataclass(frozen=True)
class Mapping:
    """What the codes of a dataset mean.

    Attributes:
        source: what the cohort says that it comes from.
        stays, covariates, codes, labels, series: as above, the lists in the order of the cohort.
        item_codes: templates with ``{item}`` that find all series by the numbers of their items.
        empty: texts that count as no value.
        blank: texts in whose place the number of the event counts.
        hours: column with the exact hours since the beginning of the stay, where the time of the
            event is not exact enough.
        splits: the cohort's split by the dataset's.
        text: the file.
    """

    source: str
    stays: StayRule
    covariates: list[CovariateRule]
    codes: CodeRule
    labels: list[LabelRule]
    series: list[SeriesRule]
    item_codes: list[Template]
    empty: list[str]
    blank: list[str]
    hours: str | None
    splits: dict[str, str]
    text: str

    def schema(self, name: str, defining: dict[str, dict[str, list[str]]]) -> Schema:
        """The columns of the cohort.

        Args:
            name: of the cohort.
            defining: codes that make a label 1, by its column and the code system.
        """
        return Schema(
            name=name,
            source=self.source,
            covariates=[rule.covariate for rule in self.covariates],
            labels=[_declared(rule, defining) for rule in self.labels],
            variables=[
                Variable(s.items.name, s.items.kind, s.items.unit, list(s.items.levels))
                for s in self.series
            ],
            code_systems=[rule.system for rule in self.codes.systems],
        )

    @property
    def columns(self) -> list[str]:
        """Columns of events that it needs besides those of the standard."""
        stays = self.stays
        names = [
            *(stays.id, self.hours, self.codes.order, self.codes.position),
            stays.admission.id if stays.admission is not None else None,
            *(name for name in stays.keep.same if name not in stays.begin.names),
        ]
        return list(dict.fromkeys(name for name in names if name is not None))


def _declared(rule: LabelRule, defining: dict[str, dict[str, list[str]]]) -> Label:
    found = defining.get(rule.label.column, rule.codes)
    by_system = [(system, codes) for system, codes in found.items() if codes]
    if not by_system:
        return rule.label
    (system, codes), *others = by_system
    return replace(rule.label, system=system, codes=codes, also=dict(others))


def find_mapping(mapping: str | None, raw_dir: Path, profile: str) -> Mapping:
    """Read the mapping of this name or file; that of the dataset itself for None.

    Args:
        mapping: one of ``SHIPPED`` or a YAML file.
        raw_dir: folder of the dataset.
        profile: of series that are those of another source.

    Raises:
        UserError: no such mapping, or one that declares what cannot be.
    """
    if mapping in SHIPPED:
        text = (files(__package__) / "resources" / f"{mapping}.yaml").read_text(encoding="utf-8")
        return read_mapping(yaml.safe_load(text), str(mapping), profile, text)
    own = raw_dir / MAPPING_FILE
    if mapping is None and not own.is_file():
        raise UserError(
            f"{raw_dir} has no mapping of its own ({MAPPING_FILE}). Say what its codes mean: "
            f"data.meds.mapping=<{', '.join(SHIPPED)} or a YAML file>; docs/meds.md explains it."
        )
    file = own if mapping is None else Path(mapping).expanduser()
    if not file.is_file():
        raise UserError(
            f"data.meds.mapping={mapping}: no such file, and none of the mappings that there are: "
            f"{', '.join(SHIPPED)}."
        )
    return read_mapping(read_yaml(file), str(file), profile, file.read_text(encoding="utf-8"))


def read_mapping(content: dict[str, Any], where: str, profile: str, text: str) -> Mapping:
    """Build a mapping from the content of its file; ``where`` names the file in errors.

    Raises:
        UserError: a key that there is not, one that is missing, or what cannot be.
    """
    try:
        _check_keys("the mapping", content, KEYS, needed=("source", "stays"))
        codes = _codes(content.get("codes") or {})
        systems = [rule.system.name for rule in codes.systems]
        series, item_codes, empty = _series(content.get("series") or [], profile)
        found = Mapping(
            source=str(content["source"]),
            stays=_stays(content["stays"]),
            covariates=[_covariate(entry) for entry in content.get("covariates") or []],
            codes=codes,
            labels=[
                rule for entry in content.get("labels") or [] for rule in _labels(entry, systems)
            ],
            series=series,
            item_codes=item_codes,
            empty=empty,
            blank=_texts("blank", content.get("blank") or []),
            hours=content.get("hours"),
            splits=content.get("splits", {"train": "train", "tuning": "val", "held_out": "test"}),
            text=text,
        )
        if any(rule.death == "admission" for rule in found.labels) and not _has_times(found.stays):
            raise UserError("labels: death: admission needs stays.admission with begin and end.")
        for split in found.splits.values():
            _check_choice("splits", split, COHORT_SPLITS)
        ages = [rule for rule in found.covariates if rule.birth is not None]
        if found.stays.keep.min_age is not None and len(ages) != 1:
            raise UserError("stays.keep.min_age needs one covariate with birth.")
        found.schema("mapping", {})
    except UserError as error:
        raise UserError(f"{where}: {error}") from None
    except (TypeError, AttributeError, ValueError) as error:
        raise UserError(f"{where} is no mapping: {error}.") from None
    return found


def _has_times(stays: StayRule) -> bool:
    admission = stays.admission
    return admission is not None and None not in (admission.begin, admission.end)


def _stays(content: dict[str, Any]) -> StayRule:
    _check_keys("stays", content, [item.name for item in fields(StayRule)], needed=("begin",))
    times = ("begin", "end")
    made = {**content, "keep": _build(Keep, "stays.keep", content.get("keep") or {})}
    if content.get("admission") is not None:
        made["admission"] = _build(AdmissionRule, "stays.admission", content["admission"], times)
    rule = _build(StayRule, "stays", made, times)
    _check_choice("stays.events", rule.events, ("time", "id", "admission"))
    if rule.length is not None:
        _check_choice("stays.length", rule.length, HOURS)
        if rule.end is None:
            raise UserError("stays.length is the value of stays.end, which is missing.")
    has_admission = rule.admission is not None and rule.admission.id is not None
    if rule.id is None and rule.events != "time":
        raise UserError(f"stays.events: {rule.events} needs stays.id.")
    if not has_admission and (rule.events == "admission" or rule.keep.one_per_admission):
        raise UserError("stays: events: admission and one_per_admission need stays.admission.id.")
    if rule.keep.same and rule.end is None:
        raise UserError("stays.keep.same compares with stays.end, which is missing.")
    for name in rule.keep.same:
        if name in rule.begin.names and rule.end is not None and name not in rule.end.names:
            raise UserError(f"stays.keep.same: {{{name}}} stands in stays.begin, but not in end.")
    return rule


def _covariate(content: dict[str, Any]) -> CovariateRule:
    known = ("name", "kind", "unit", "levels", "code", "birth")
    _check_keys("a covariate", content, known, needed=("name", "kind"))
    name, birth = content["name"], content.get("birth")
    if ("code" in content) == (birth is not None):
        raise UserError(f"covariate {name!r} has a code, or counts from birth: birth: {{}}.")
    levels = _texts(f"covariate {name!r}: levels", content.get("levels") or [])
    covariate = Covariate(str(name), content["kind"], content.get("unit"), levels)
    age = None if birth is None else _build(BirthAge, f"covariate {name!r}: birth", birth)
    return CovariateRule(covariate, _template(content.get("code")), age)


def _labels(content: dict[str, Any], systems: list[str]) -> list[LabelRule]:
    if "phenotypes_of" in content:
        _check_keys("labels", content, ("phenotypes_of", "systems"), needed=("systems",))
        _check_choice("labels: phenotypes_of", content["phenotypes_of"], ("mimic3",))
        return [
            rule
            for found in read_labels()
            if found.ccs is not None
            for rule in _labels(
                {
                    **{"column": found.column, "title": found.title, "kind": "phenotype"},
                    **{"ccs": found.ccs, "systems": content["systems"]},
                },
                systems,
            )
        ]
    known = ("column", "title", "kind", "code", "death", "systems", "codes", "ccs")
    _check_keys("a label", content, known, needed=("column", "kind"))
    column = str(content["column"])
    what = f"label {column!r}"
    codes = content.get("codes") or {}
    named = list(content.get("systems") or (codes if isinstance(codes, dict) else []))
    if not isinstance(codes, dict):
        codes = dict.fromkeys(named, codes)
    rule = LabelRule(
        Label(column, str(content.get("title", column)), content["kind"]),
        code=_template(content.get("code")),
        death=content.get("death"),
        codes={system: _texts(f"{what}: codes", of) for system, of in codes.items()},
        systems=named,
        ccs=content.get("ccs"),
    )
    if rule.ccs is not None and not isinstance(rule.ccs, int):
        raise UserError(f"{what}: ccs is the number of a category, not {rule.ccs!r}.")
    reasons = [rule.death, rule.ccs, rule.code or content.get("codes")]
    if sum(map(bool, reasons)) != 1:
        raise UserError(f"{what} needs one of code, death, codes of systems, and ccs of systems.")
    if rule.death is not None:
        _check_choice(f"{what}: death", rule.death, ("stay", "admission"))
    for name in rule.systems:
        _check_choice(f"{what}: systems", name, systems)
    if (content.get("codes") or rule.ccs) and not rule.systems:
        raise UserError(f"{what}: codes, and ccs, need systems.")
    return [rule]


def _codes(content: dict[str, Any]) -> CodeRule:
    _check_keys("codes", content, ("systems", "order", "position"))
    systems = []
    for entry in content.get("systems") or []:
        known = ("name", "title", "code")
        _check_keys("a code system", entry, known, needed=("name", "code"))
        template = Template(entry["code"])
        if template.names != {"code"}:
            raise UserError(f"code system {entry['name']!r}: {entry['code']!r} needs {{code}}.")
        title = entry.get("title", entry["name"])
        systems.append(SystemRule(CodeSystem(entry["name"], title), template))
    return CodeRule(systems, content.get("order"), content.get("position"))


def _series(content: Any, profile: str) -> tuple[list[SeriesRule], list[Template], list[str]]:
    if isinstance(content, dict):
        _check_keys("series", content, ("items_of", "codes"), needed=("items_of", "codes"))
        _check_choice("series.items_of", content["items_of"], SHIPPED)
        templates = [Template(text) for text in content["codes"]]
        for template in templates:
            if not {"item"} <= template.names <= {"item", "unit"}:
                raise UserError(f"series.codes: {template.text!r} needs {{item}}.")
        found = read_profile(f"synehrgy.sources.{content['items_of']}", profile)
        return [SeriesRule(items) for items in found.item_sets], templates, found.empty
    return [_one_series(entry) for entry in content], [], []


def _one_series(content: dict[str, Any]) -> SeriesRule:
    known = ("name", "kind", "unit", "levels", "clean", "duplicates", "range", "codes")
    _check_keys("a series", content, known, needed=("name", "kind", "codes"))
    what = f"series {content['name']!r}"
    levels = content.get("levels") or []
    exact = not isinstance(levels, dict)
    if isinstance(levels, dict):
        _texts(f"{what}: levels", list(levels))
        spelt = {
            level: [_plain(text) for text in _texts(f"{what}: spellings of {level}", of)]
            for level, of in levels.items()
        }
    else:
        # Exact levels are compared before they are cleaned, which then finds their position.
        named = _texts(f"{what}: levels", levels)
        spelt = {level: [str(place)] for place, level in enumerate(named)}
    continuous = content["kind"] == "continuous"
    clean = content.get("clean", "number" if continuous else "level")
    _check_choice(f"{what}: clean", clean, CLEANING)
    duplicates = content.get("duplicates", "median" if continuous else "highest")
    _check_choice(f"{what}: duplicates", duplicates, DUPLICATES)
    lowest, highest = content.get("range") or (-math.inf, math.inf)
    codes = [
        SeriesCode(Template(entry))
        if isinstance(entry, str)
        else _build(SeriesCode, f"{what}: codes", entry, ("code",), needed=("code",))
        for entry in _listed(f"{what}: codes", content["codes"])
    ]
    items = ItemSet(
        name=str(content["name"]),
        kind=content["kind"],
        unit=content.get("unit"),
        levels=spelt,
        clean=clean,
        convert=(),
        duplicates=duplicates,
        items={},
        preferred=(),
        units={},
        range=(float(lowest), float(highest)),
    )
    return SeriesRule(items, codes, exact and not continuous)


def _texts(what: str, value: Any) -> list[str]:
    if not isinstance(value, list) or not all(isinstance(text, str) for text in value):
        raise UserError(f"{what}: a list of texts is needed, in quotes if need be, not {value!r}.")
    return value


def _listed(what: str, value: Any) -> list[Any]:
    if not isinstance(value, list):
        raise UserError(f"{what}: a list is needed, not {value!r}.")
    return value


def _plain(text: object) -> str:
    return str(text).strip().lower()


def _template(text: Any) -> Template | None:
    return None if text is None else Template(str(text))


def _build(
    kind: type[_T],
    what: str,
    content: dict[str, Any],
    templates: Iterable[str] = (),
    needed: Iterable[str] = (),
) -> _T:
    """An instance of a dataclass from keys of a file; ``templates`` names those of codes."""
    types = {item.name: item.type for item in fields(kind)}  # type: ignore[arg-type]
    _check_keys(what, content, types, needed)
    made = dict(content)
    for key, value in content.items():
        if key in templates:
            made[key] = _template(value)
        elif types[key] is bool and not isinstance(value, bool):
            raise UserError(f"{what}: {key} is true or false, not {value!r}.")
        elif types[key] in (float, float | None) and value is not None:
            if isinstance(value, bool) or not isinstance(value, (int, float)):
                raise UserError(f"{what}: {key} is a number, not {value!r}.")
            made[key] = float(value)
    return kind(**made)


def _check_keys(what: str, content: Any, known: Iterable[str], needed: Iterable[str] = ()) -> None:
    if not isinstance(content, dict):
        raise UserError(f"{what}: expected keys with values, found {content!r}.")
    for key in content:
        if key not in known:
            raise UserError(f"{what} has no key {key!r}.{nearest(str(key), known)}")
    for key in needed:
        if key not in content:
            raise UserError(f"{what}: {key} is missing.")


def _check_choice(what: str, value: Any, valid: Iterable[str]) -> None:
    if value not in valid:
        raise UserError(f"{what}: {value!r} is not known.{nearest(str(value), valid)}")
