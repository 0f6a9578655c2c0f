"""What the columns of a cohort mean. Everything is declared, nothing is hard-coded."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, fields, replace
from typing import Any

from synehrgy.errors import UserError, nearest

SCHEMA_VERSION = 1
SPLITS = ("train", "val", "test")

# Columns that every cohort has; no covariate or label may take one of these names.
FIXED_STAY_COLUMNS = ("subject_id", "stay_id", "hadm_id", "stay_index", "split", "los_hours")


@dataclass(frozen=True)
class Covariate:
    """A fact known at admission: ``continuous`` (with a unit) or ``categorical`` (levels)."""

    name: str
    kind: str
    unit: str | None = None
    levels: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class Label:
    """A yes-or-no fact about a stay, stored as an int8 column of 0 and 1.

    An ``outcome`` is stated either way in a record; a ``phenotype`` only where it is present.

    Attributes:
        column: name of its column in the stays table.
        title: for people.
        kind: ``outcome`` or ``phenotype``.
        system, codes: a label that follows from the codes is 1 exactly where the stay has any of
            these codes of this system. Empty for a label that has other reasons.
        also: codes of further systems that define it as well, by system, where a hospital changed
            from one system to another.
    """

    column: str
    title: str
    kind: str
    system: str | None = None
    codes: list[str] = field(default_factory=list)
    also: dict[str, list[str]] = field(default_factory=dict)

    @property
    def definition(self) -> dict[str, list[str]]:
        """The codes of each system that define it; none for a label that has other reasons."""
        return {} if self.system is None else {self.system: self.codes, **self.also}


@dataclass(frozen=True)
class Variable:
    """A series measured over time: ``continuous`` (with a unit) or ``categorical`` (levels)."""

    name: str
    kind: str
    unit: str | None = None
    levels: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class CodeSystem:
    """A coding system, such as ICD-9 diagnoses."""

    name: str
    title: str


@dataclass(frozen=True)
class Schema:
    """The declared columns of a cohort.

    The order of each list is the order in which records state these facts.

    Raises:
        UserError: a kind, name or level list that makes no sense.
    """

    name: str
    source: str
    covariates: list[Covariate] = field(default_factory=list)
    labels: list[Label] = field(default_factory=list)
    variables: list[Variable] = field(default_factory=list)
    code_systems: list[CodeSystem] = field(default_factory=list)

    def __post_init__(self) -> None:
        for what, items in (("covariate", self.covariates), ("variable", self.variables)):
            for item in items:
                _check_kind(what, item.name, item.kind, ("continuous", "categorical"))
                if (item.kind == "categorical") != bool(item.levels):
                    raise UserError(
                        f"{what} {item.name!r}: a categorical {what} declares its levels, "
                        "a continuous one has none."
                    )
                _check_unique(f"levels of {what} {item.name!r}", item.levels)
        for label in self.labels:
            _check_kind("label", label.column, label.kind, ("outcome", "phenotype"))
            # Files of cohorts may be written by hand.
            if not isinstance(label.also, dict):
                raise UserError(
                    f"label {label.column!r}: also must be codes by their system, such as "
                    f'{{"icd10_diagnosis": ["A41"]}}, is {label.also!r}. Leave it out if there are '
                    "none."
                )
            stated = [label.codes, *label.also.values()]
            if any(stated) if label.system is None else not all(stated):
                raise UserError(
                    f"label {label.column!r}: codes that define it and their system are declared "
                    "together."
                )
            systems = [system.name for system in self.code_systems]
            if label.system is not None:
                _check_unique(f"systems of label {label.column!r}", [label.system, *label.also])
            for system, codes in label.definition.items():
                if system not in systems:
                    raise UserError(
                        f"label {label.column!r}: {system!r} is no declared code system."
                        f"{nearest(system, systems)}"
                    )
                _check_unique(f"codes of label {label.column!r}", codes)
        columns = [c.name for c in self.covariates] + [label.column for label in self.labels]
        for column in columns:
            if column in FIXED_STAY_COLUMNS:
                raise UserError(
                    f"{column!r} is no name for a covariate or label: it is reserved for a column "
                    f"that every cohort has, as are {', '.join(FIXED_STAY_COLUMNS)}. Give it "
                    "another name."
                )
        _check_unique("columns of the stays table", columns)
        _check_unique("variables", [v.name for v in self.variables])
        _check_unique("code systems", [s.name for s in self.code_systems])

    def variables_of(self, kind: str) -> list[Variable]:
        """The variables of one kind, in declared order."""
        return [v for v in self.variables if v.kind == kind]

    def labels_of(self, kind: str) -> list[Label]:
        """The labels of one kind, in declared order."""
        return [label for label in self.labels if label.kind == kind]

    def part(self, *, codes: bool = True, series: bool = True) -> "Schema":
        """The declaration without code systems, without series, or without both.

        Labels that codes define stay, as facts whose reasons are not known any more.
        """
        found = self
        if not codes:
            labels = [replace(label, system=None, codes=[], also={}) for label in self.labels]
            found = replace(found, code_systems=[], labels=labels)
        return found if series else replace(found, variables=[])

    def to_dict(self) -> dict[str, Any]:
        """The declaration as plain JSON values."""
        content = asdict(self)
        for label in content["labels"]:
            if not label["also"]:
                del label["also"]
        return content

    @classmethod
    def from_dict(cls, content: dict[str, Any], where: str) -> "Schema":
        """Build a schema from JSON values; ``where`` names the file in errors."""
        known = {f.name for f in fields(cls)}
        content = {key: value for key, value in content.items() if key in known}
        kinds: dict[str, Any] = {
            "covariates": Covariate,
            "labels": Label,
            "variables": Variable,
            "code_systems": CodeSystem,
        }
        try:
            for key, kind in kinds.items():
                content[key] = [kind(**item) for item in content.get(key, [])]
            return cls(**content)
        except TypeError as error:
            raise UserError(f"{where}: the declaration of the columns is wrong: {error}.") from None
        except UserError as error:
            raise UserError(f"{where}: {error}") from None


def _check_kind(what: str, name: str, kind: str, valid: Sequence[str]) -> None:
    if kind not in valid:
        hint = nearest(str(kind), valid)
        raise UserError(f"{what} {name!r} has the unknown kind {kind!r}.{hint}")


def _check_unique(what: str, names: Sequence[str]) -> None:
    # A text is a sequence of texts, too.
    if isinstance(names, str) or not all(isinstance(name, str) and name for name in names):
        raise UserError(f"{what}: must be a list of non-empty text, got {names!r}.")
    repeated = sorted(name for name, count in Counter(names).items() if count > 1)
    if repeated:
        raise UserError(f"{what}: declared more than once: {', '.join(repeated)}.")
