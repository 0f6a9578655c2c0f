"""Whether records contradict themselves: rules that a patient's record keeps, and who breaks them.

Real records break rules, too: charting is late, cuffs and arterial lines disagree, codes are
billed twice. So each rule stands beside the share of real records that break it.

A rule is one small object of ``rules_of``. What is known about series, codes, sex and age is in
``resources/consistency.yaml``; a rule whose columns a cohort does not have is left out. Reading a
cohort from disk already refuses some of what is looked for here; a cohort made in memory may have
it.
"""

import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from synehrgy.cohort import Schema
from synehrgy.evaluation.clinical import age_of, death_of, knowledge, limits_of, plain, sex_of
from synehrgy.evaluation.kept import kept
from synehrgy.evaluation.patients import Floats, Patients

RULE_GROUPS = {
    "time": "Order of time",
    "labels_codes": "Labels against codes",
    "codes_demographics": "Codes against sex and age",
    "physiology": "Physiology",
    "duplicates": "Repeated and empty records",
}

# One minute in hours, to which times are charted: less after the end of a stay is rounding.
_MINUTE = 1 / 60

Rows = NDArray[np.int64]
Flags = NDArray[np.bool_]


@dataclass(frozen=True)
class Checked:
    """What a rule looked at.

    Attributes:
        stay: of each item, the row of its stay.
        broken: whether the item breaks the rule.
        describe: what is wrong with the items at these places, in words.
    """

    stay: Rows
    broken: Flags
    describe: Callable[[Rows], Iterable[str]]


@dataclass(frozen=True)
class Rule:
    """A rule that records should keep.

    Attributes:
        name: short and unique.
        title: what a record that breaks it has.
        group: one of ``RULE_GROUPS``.
        of: what its items are: stays, time points, values or codes.
        find: looks at patients.
    """

    name: str
    title: str
    group: str
    of: str
    find: Callable[[Patients], Checked] = field(repr=False)


def rules_of(schema: Schema) -> list[Rule]:
    """The rules that apply to cohorts of a schema."""
    return [*_time(schema), *_labels(schema), *_people(schema), *_series(schema), *_records(schema)]


# Order of time.


def _time(schema: Schema) -> list[Rule]:
    rules = [Rule("negative_length", "A stay of negative length", "time", "stays", _negative)]
    if schema.variables:
        rules += [
            Rule("before_start", "A value before the stay begins", "time", "time points", _before),
            Rule("backwards", "Time that runs backwards", "time", "time points", _backwards),
            Rule("after_end", "A value after the end of the stay", "time", "time points", _after),
        ]
    death = death_of(schema)
    if death is not None:
        find = partial(_stay_after_death, death)
        rules.append(Rule("stay_after_death", "A stay after a death", "time", "stays", find))
    if death is not None and schema.variables:
        title = "A value after the end of a stay that ended in death"
        late = partial(_after, died=death)
        rules.append(Rule("value_after_death", title, "time", "time points", late))
    return rules


def _negative(patients: Patients) -> Checked:
    los = patients.stays["los_hours"].to_numpy(np.float64)
    stay = np.flatnonzero(~np.isnan(los))
    return Checked(stay, los[stay] < 0, lambda at: [f"{x:g} hours" for x in los[stay[at]]])


def _at_hours(patients: Patients, broken: Flags) -> Checked:
    grid = patients.grid
    return Checked(grid.stay, broken, lambda at: [f"at {x:.2f} hours" for x in grid.hours[at]])


def _before(patients: Patients) -> Checked:
    return _at_hours(patients, patients.grid.hours < 0)


def _backwards(patients: Patients) -> Checked:
    grid = patients.grid
    fell = (np.diff(grid.stay) == 0) & (np.diff(grid.hours) < 0)
    broken = np.append(np.zeros(1, dtype=bool), fell)[: len(grid.stay)]
    return _at_hours(patients, broken)


def _after(patients: Patients, died: str | None = None) -> Checked:
    grid = patients.grid
    los = patients.stays["los_hours"].to_numpy(np.float64)
    judged = ~np.isnan(los)
    if died is not None:
        judged &= patients.stays[died].to_numpy() == 1
    keep = judged[grid.stay]
    stay, hours = grid.stay[keep], grid.hours[keep]

    def describe(at: Rows) -> list[str]:
        pairs = zip(hours[at], los[stay[at]], strict=True)
        return [f"at {hour:.2f} hours of a stay of {end:.2f}" for hour, end in pairs]

    return Checked(stay, hours > los[stay] + _MINUTE, describe)


def _earlier(patients: Patients, values: pd.Series, greatest: bool = False) -> pd.Series:
    """The last known value of the patient's earlier stays, or the greatest of them."""
    whose = patients.patient
    if greatest:
        values = values.groupby(whose).cummax()
    return values.groupby(whose).ffill().groupby(whose).shift()


def _stay_after_death(death: str, patients: Patients) -> Checked:
    before = _earlier(patients, patients.stays[death].astype(np.float64), greatest=True).to_numpy()
    stay = np.flatnonzero(~np.isnan(before))
    return Checked(stay, before[stay] == 1, lambda at: ["died in an earlier stay"] * len(at))


# Labels against the codes that define them.


def _labels(schema: Schema) -> list[Rule]:
    if not any(label.codes for label in schema.labels):
        return []
    group = "labels_codes"
    stated, coded = (partial(_at_odds, has_label) for has_label in (True, False))
    return [
        Rule("label_without_code", "A label without its codes", group, "stays", stated),
        Rule("code_without_label", "Codes of a label without the label", group, "stays", coded),
    ]


@kept
def labels_of(patients: Patients) -> tuple[Flags, Flags]:
    """Of the labels that have codes: which are stated, and which have a code: [stays, labels]."""
    labels = [label for label in patients.schema.labels if label.codes]
    words = pd.Index(patients.coded["code"].unique())
    defines = np.zeros((len(words), len(labels)), dtype=np.float32)
    for i, label in enumerate(labels):
        defining = label.definition.items()
        named = [f"{system}:{code}" for system, codes in defining for code in codes]
        found = words.get_indexer(pd.Index(named))
        defines[found[found >= 0], i] = 1.0
    stated = patients.stays[[label.column for label in labels]].to_numpy() == 1
    return stated, patients.presence(words) @ defines > 0


def _at_odds(has_label: bool, patients: Patients) -> Checked:
    stated, coded = labels_of(patients)
    titles = np.array([label.title for label in patients.schema.labels if label.codes])
    here, there = (stated, coded) if has_label else (coded, stated)
    stay = np.flatnonzero(here.any(axis=1))
    odd = here[stay] & ~there[stay]
    return Checked(stay, odd.sum(axis=1) > 0, lambda at: ["; ".join(titles[odd[i]]) for i in at])


# Codes against sex and age, and these between the stays of a patient.


def _people(schema: Schema) -> list[Rule]:
    group = "codes_demographics"
    rules = []
    age, sex = age_of(schema), sex_of(schema)
    systems = {system.name for system in schema.code_systems}
    for known in knowledge()["codes"]:
        has_codes = any(system in systems for system in known["codes"])
        if has_codes and (sex is not None if "not_sex" in known else age is not None):
            find = partial(_codes_against, known)
            rules.append(Rule(known["name"], known["title"], group, "stays with the codes", find))
    if age is not None:
        rules += [
            Rule("age_range", "An age that nobody has", group, "stays", partial(_ages, age)),
            Rule("younger", "Younger than before", group, "stays", partial(_younger, age)),
        ]
    for covariate in schema.covariates:
        if covariate.kind == "categorical":
            name, title = f"other_{covariate.name}", f"Another {covariate.name} than before"
            find = partial(_other_level, covariate.name)
            rules.append(Rule(name, title, group, "stays", find))
    return rules


def in_ranges(codes: Sequence[str], ranges: Iterable[object]) -> Flags:
    """Which codes lie in one of some ranges such as "640-679" or "V27"."""
    bare = [code.replace(".", "").upper() for code in codes]
    found = np.zeros(len(bare), dtype=bool)
    for text in ranges:
        low, _, high = str(text).partition("-")
        n, high = len(low), high or low
        m = len(high)
        found |= np.array([low <= code[:n] and code[:m] <= high for code in bare], dtype=bool)
    return found


def _codes_against(known: dict[str, Any], patients: Patients) -> Checked:
    words: list[str] = []
    for system, ranges in known["codes"].items():
        prefix = f"{system}:"
        mine = [word for word in patients.coded["code"].unique() if word.startswith(prefix)]
        meant = in_ranges([word.removeprefix(prefix) for word in mine], ranges)
        words += [mine[i] for i in np.flatnonzero(meant)]
    has = patients.presence(pd.Index(words, dtype=object))
    stay = np.flatnonzero(np.diff(has.indptr))
    if "not_sex" in known:
        column, means = sex_of(patients.schema) or ("", {})
        fact = patients.stays[column].map(means)
        broken = fact == known["not_sex"]
    else:
        fact = patients.stays[age_of(patients.schema)]
        broken = (fact < known.get("below", -np.inf)) | (fact > known.get("above", np.inf))
    stay = stay[fact.notna().to_numpy()[stay]]

    def describe(at: Rows) -> list[str]:
        texts = []
        for i in stay[at]:
            who = fact.iloc[i] if "not_sex" in known else f"{fact.iloc[i]:.1f} years"
            codes = (words[k] for k in sorted(has.indices[has.indptr[i] : has.indptr[i + 1]]))
            texts.append(f"{who}: {', '.join(codes)}")
        return texts

    return Checked(stay, broken.to_numpy(bool)[stay], describe)


def _ages(column: str, patients: Patients) -> Checked:
    low, high = knowledge()["ages"]
    age = patients.stays[column].to_numpy(np.float64)
    stay = np.flatnonzero(~np.isnan(age))
    age = age[stay]
    return Checked(stay, (age < low) | (age > high), lambda at: [f"{x:.1f} years" for x in age[at]])


def _younger(column: str, patients: Patients) -> Checked:
    age = patients.stays[column].astype(np.float64)
    before = _earlier(patients, age, greatest=True)
    stay = np.flatnonzero((age.notna() & before.notna()).to_numpy())
    now, then = age.to_numpy()[stay], before.to_numpy()[stay]

    def describe(at: Rows) -> list[str]:
        return [f"{x:.1f} years after {y:.1f}" for x, y in zip(now[at], then[at], strict=True)]

    return Checked(stay, now < then, describe)


def _other_level(column: str, patients: Patients) -> Checked:
    level = patients.stays[column].astype(object)
    before = _earlier(patients, level)
    stay = np.flatnonzero((level.notna() & before.notna()).to_numpy())
    now, then = level.to_numpy()[stay], before.to_numpy()[stay]

    def describe(at: Rows) -> list[str]:
        return [f"{x} after {y}" for x, y in zip(now[at], then[at], strict=True)]

    return Checked(stay, (now != then).astype(bool), describe)


# Physiology: values that contradict each other at one time, and values that nobody has.


def _series(schema: Schema) -> list[Rule]:
    known = knowledge()
    variables = {plain(v.name): i for i, v in enumerate(schema.variables)}
    limits = {plain(name): by_unit for name, by_unit in known["ranges"].items()}
    rules = []

    def measured_in(name: str) -> str | None:
        """The unit of a continuous series; None if there is no such series."""
        i = variables.get(plain(name))
        if i is None or schema.variables[i].kind != "continuous":
            return None
        return plain(schema.variables[i].unit or "")

    def add(rule: dict[str, Any], series: list[str], find: Callable[..., Checked]) -> None:
        judged = partial(find, rule, [variables[plain(name)] for name in series])
        rules.append(Rule(rule["name"], rule["title"], "physiology", "time points", judged))

    for rule in known["descending"]:
        units = {measured_in(name) for name in rule["series"]}
        if None not in units and len(units) == 1:
            add(rule, rule["series"], _not_descending)
    for rule in known["totals"]:
        series = [rule["total"], *rule["parts"]]
        if all(plain(name) in variables for name in series):
            add(rule, series, _not_the_sum)
    for kind, find in (("wholes", _more_than_all), ("ratios", _off_ratio)):
        for rule in known[kind]:
            # Their numbers hold in the first unit of each series.
            if all(
                measured_in(name) == plain(next(iter(limits[plain(name)])))
                for name in rule["series"]
            ):
                add(rule, rule["series"], find)
    for name in known["ranges"]:
        i = variables.get(plain(name))
        allowed = None if i is None else limits_of(schema.variables[i])
        if i is not None and allowed is not None:
            title = f"{name} outside of what a person can have"
            outside = partial(_outside, i, allowed)
            rules.append(Rule(f"range_{plain(name)}", title, "physiology", "values", outside))
    return rules


def _said(patients: Patients, where: Flags, columns: list[int]) -> Callable[[Rows], list[str]]:
    """Values of some series in words."""
    variables = [patients.schema.variables[i] for i in columns]
    points = np.flatnonzero(where)

    def describe(at: Rows) -> list[str]:
        grid, texts = patients.grid, []
        for point in points[at]:
            pairs = zip(variables, grid.values[point, columns], strict=True)
            values = [
                f"{v.name} {v.levels[int(x)] if v.levels else format(x, '.4g')}"
                for v, x in pairs
                if not np.isnan(x)
            ]
            texts.append(f"at {grid.hours[point]:.2f} hours: {', '.join(values)}")
        return texts

    return describe


def _not_descending(rule: dict[str, Any], columns: list[int], patients: Patients) -> Checked:
    values = patients.grid.values[:, columns]
    where = (~np.isnan(values)).sum(axis=1) >= 2
    # A missing value is no less than the one before it, and so does not stand in between.
    lowest = np.fmin.accumulate(values[where], axis=1)
    broken = (values[where][:, 1:] > lowest[:, :-1]).any(axis=1)
    return Checked(patients.grid.stay[where], broken, _said(patients, where, columns))


def _not_the_sum(rule: dict[str, Any], columns: list[int], patients: Patients) -> Checked:
    points = np.stack([_points(rule, patients, i) for i in columns], axis=1)
    where = np.isnan(points).sum(axis=1) == 0
    broken = points[where, 0] != points[where, 1:].sum(axis=1)
    return Checked(patients.grid.stay[where], broken, _said(patients, where, columns))


def _points(rule: dict[str, Any], patients: Patients, column: int) -> Floats:
    """What the values of a series count; NaN where there is none or its level has no points."""
    variable = patients.schema.variables[column]
    values = patients.grid.values[:, column].astype(np.float64)
    if variable.kind == "continuous":
        return values
    stated = {
        plain(level): points
        for name, levels in rule["points"].items()
        if plain(name) == plain(variable.name)
        for level, points in levels.items()
    }
    worth = [stated.get(plain(level), _leading_number(level)) for level in variable.levels]
    known = ~np.isnan(values)
    values[known] = np.array(worth, dtype=np.float64)[values[known].astype(np.int64)]
    return values


def _leading_number(level: str) -> float:
    """The number that a text such as "4 Spontaneously" begins with; NaN if there is none."""
    found = re.match(r"\s*(\d+)", level)
    return float(found[1]) if found else np.nan


def _more_than_all(rule: dict[str, Any], columns: list[int], patients: Patients) -> Checked:
    values = patients.grid.values[:, columns]
    where = (~np.isnan(values)).sum(axis=1) >= 2
    broken = np.nansum(values[where], axis=1) > rule["most"]
    return Checked(patients.grid.stay[where], broken, _said(patients, where, columns))


def _off_ratio(rule: dict[str, Any], columns: list[int], patients: Patients) -> Checked:
    values = patients.grid.values[:, columns].astype(np.float64)
    where = ~np.isnan(values).any(axis=1) & (values[:, -1] > 0)
    ratio = values[where, :-1].prod(axis=1) / values[where, -1]
    low, high = rule["range"]
    broken = (ratio < low) | (ratio > high)
    return Checked(patients.grid.stay[where], broken, _said(patients, where, columns))


def _outside(column: int, limits: list[tuple[float, float]], patients: Patients) -> Checked:
    values = patients.grid.values[:, column]
    where = ~np.isnan(values)
    # As exact as the values are: a limit of 0.2 holds 0.2.
    inside = [
        (values[where] >= np.float32(a)) & (values[where] <= np.float32(b)) for a, b in limits
    ]
    broken = ~np.any(inside, axis=0)
    return Checked(patients.grid.stay[where], broken, _said(patients, where, [column]))


# Repeated and empty records.


def _records(schema: Schema) -> list[Rule]:
    group = "duplicates"
    rules = []
    if schema.code_systems:
        rules += [
            Rule("repeated_code", "The same code twice in a stay", group, "codes", _repeated_code),
            Rule("no_code", "A stay without codes", group, "stays", _no_code),
        ]
    if schema.variables:
        title = "Two values of one series at one time"
        rules += [
            Rule("repeated_value", title, group, "stays", _repeated_value),
            Rule("no_value", "A stay without measurements", group, "stays", _no_value),
        ]
    title = "A stay of a patient who repeats another in everything"
    return [*rules, Rule("repeated_patient", title, group, "stays", _repeated_patient)]


def _repeated_code(patients: Patients) -> Checked:
    coded = patients.coded
    codes = coded["code"].to_numpy()
    return Checked(coded["stay"].to_numpy(), coded.duplicated().to_numpy(), lambda at: codes[at])


def _of_all_stays(broken: Flags, text: str) -> Checked:
    return Checked(np.arange(len(broken)), broken, lambda at: [text] * len(at))


def _no_code(patients: Patients) -> Checked:
    has = np.bincount(patients.coded["stay"], minlength=len(patients.stays))
    return _of_all_stays(has == 0, "no codes")


def _no_value(patients: Patients) -> Checked:
    has = np.bincount(patients.grid.stay, minlength=len(patients.stays))
    return _of_all_stays(has == 0, "no measurements")


def _repeated_value(patients: Patients) -> Checked:
    n = len(patients.stays)
    rows = np.bincount(patients.stay_rows(patients.cohort.measurements), minlength=n)
    grid = patients.grid
    kept_values = np.bincount(grid.stay, grid.observed.sum(axis=1), minlength=n)
    return _of_all_stays(rows > kept_values, "two values of one series at one time")


def _repeated_patient(patients: Patients) -> Checked:
    """Patients alike in all that they have; of those alike, the first does not count.

    Patients without codes and measurements are not judged: there is too little of them.
    """
    n, whose, index = len(patients), patients.patient, patients.stays["stay_index"].to_numpy()
    grid, coded = patients.grid, patients.coded
    has_codes, has_points, has_values = (
        np.bincount(rows, weights, minlength=len(index))
        for rows, weights in (
            (coded["stay"], None),
            (grid.stay, None),
            (grid.stay, grid.observed.sum(axis=1)),
        )
    )
    facts = patients.stays.drop(columns=["subject_id", "stay_id", "hadm_id", "split"])
    facts = facts.assign(**{".codes": has_codes, ".points": has_points, ".values": has_values})
    alike = _hashed(whose, facts, n)
    filled = np.bincount(whose, has_codes + has_points, minlength=n) > 0
    # Few are alike in this much, and only these are compared in the rest.
    close = filled & pd.Series(alike).duplicated(keep=False).to_numpy()
    some = close[whose[grid.stay]]
    points = pd.DataFrame(grid.values[some]).assign(hours=grid.hours[some])
    points["index"] = index[grid.stay[some]]
    alike += _hashed(whose[grid.stay[some]], points, n)
    codes = coded[close[whose[coded["stay"]]]]
    listed = pd.DataFrame({"code": codes["code"], "place": codes.groupby("stay").cumcount()})
    listed["index"] = index[codes["stay"]]
    alike += _hashed(whose[codes["stay"]], listed, n)
    again = close & pd.Series(alike).where(close).duplicated().to_numpy()
    first = pd.Series(patients.subjects).groupby(alike).transform("first").to_numpy()
    stay = np.flatnonzero(filled[whose])

    def describe(at: Rows) -> list[str]:
        return [f"a copy of patient {subject}" for subject in first[whose[stay[at]]]]

    return Checked(stay, again[whose[stay]], describe)


def _hashed(whose: Rows, rows: pd.DataFrame, n: int) -> NDArray[np.uint64]:
    """One number of all rows of each of n patients, whatever their order."""
    found = np.zeros(n, dtype=np.uint64)
    np.add.at(found, whose, pd.util.hash_pandas_object(rows, index=False).to_numpy(np.uint64))
    return found
