"""What is in a cohort, as text."""

from collections.abc import Iterable, Iterator
from typing import Any

import pandas as pd

from synehrgy.cohort.describe import Description
from synehrgy.cohort.schema import SPLITS


def report(about: Description) -> str:
    """What is in a cohort: patients, covariates, labels, codes and series."""
    schema, stays = about.schema, about.stays
    n_patients = stays["subject_id"].nunique()
    per_patient = stays.groupby("subject_id").size()
    lines = [
        f"{schema.name} ({schema.source}): {n_patients:,} patients, {len(stays):,} stays, "
        f"at most {per_patient.max()} of a patient",
        f"  splits            {_splits(stays)}",
        f"  length of stay    {_numbers(stays['los_hours'], 'hours')}",
    ]
    lines += ["", *_section("covariates", _covariates(about))]
    lines += ["", *_section("labels", _labels(about))]
    lines += ["", *_section("codes", _codes(about))]
    lines += ["", *_section("series", _series(about))]
    if schema.variables_of("categorical"):
        lines += ["", *_section("series of levels", _level_series(about))]
    return "\n".join(lines)


def in_words(title: str, sentences: Iterable[str], none: str) -> str:
    """Sentences below a title; a text where there are none."""
    return "\n".join([title, *([f"  - {sentence}" for sentence in sentences] or [f"  {none}"])])


def _section(title: str, table: Iterable[tuple[str, ...]]) -> list[str]:
    """Rows of texts as aligned columns; the first row has the titles of the columns."""
    header, *rows = table
    if not rows:
        return [f"{title}: none"]
    lines = [(title, *header[1:]), *((f"  {name}", *cells) for name, *cells in rows)]
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    return ["  ".join(map(str.ljust, line, widths)).rstrip() for line in lines]


def _splits(stays: pd.DataFrame) -> str:
    first = stays.drop_duplicates("subject_id")["split"]
    if first.isna().all():
        return "none"
    counts = first.value_counts(dropna=False)
    return ", ".join(
        f"{s} {counts.get(s, 0):,} ({_share(counts.get(s, 0), len(first))})" for s in SPLITS
    )


def _covariates(about: Description) -> Iterator[tuple[str, ...]]:
    yield "", "missing", "values"
    for covariate in about.schema.covariates:
        values = about.stays[covariate.name]
        if covariate.kind == "continuous":
            found = _numbers(values, covariate.unit or "")
        else:
            counts = values.value_counts()
            found = _levels({level: int(counts.get(level, 0)) for level in covariate.levels})
        yield covariate.name, _share(values.isna().sum(), len(values)), found


def _labels(about: Description) -> Iterator[tuple[str, ...]]:
    stays = about.stays
    yield "", "stays", "all", *SPLITS, "from"
    for label in about.schema.labels:
        has = stays[label.column] == 1
        by_split = (
            _share(has[stays["split"] == s].sum(), (stays["split"] == s).sum()) for s in SPLITS
        )
        n_codes = sum(map(len, label.definition.values()))
        source = f"{n_codes:,} codes" if n_codes else "a column"
        yield label.column, f"{has.sum():,}", _share(has.sum(), len(has)), *by_split, source


def _codes(about: Description) -> Iterator[tuple[str, ...]]:
    yield "", "codes", "different", "stays", "commonest"
    for system in about.schema.code_systems:
        if system.name not in about.codes.index:
            yield system.name, "0", "0", "0 %", ""
            continue
        row: Any = about.codes.loc[system.name]
        share = _share(row["n_stays"], len(about.stays))
        commonest = ", ".join(row["commonest"][:5])
        yield system.name, f"{row['n']:,.0f}", f"{row['n_codes']:,}", share, commonest


def _series(about: Description) -> Iterator[tuple[str, ...]]:
    yield "", "unit", "values", "stays", "per stay", "lowest", "1 %", "median", "99 %", "highest"
    for variable in about.schema.variables_of("continuous"):
        n_stays = int(about.stays_of.get(variable.name, 0))
        if not n_stays:
            yield variable.name, variable.unit or "", "0", *[""] * 7
            continue
        row: Any = about.numbers.loc[variable.name]
        ends = (f"{row[c]:.4g}" for c in ("lowest", "low", "median", "high", "highest"))
        yield variable.name, variable.unit or "", *_amount(about, int(row["n"]), n_stays), *ends


def _level_series(about: Description) -> Iterator[tuple[str, ...]]:
    yield "", "values", "stays", "per stay", "levels"
    for variable in about.schema.variables_of("categorical"):
        mine = about.levels[about.levels["variable"] == variable.name]
        counts = dict(zip(mine["level"], mine["n"].astype(int), strict=True))
        n_stays = int(about.stays_of.get(variable.name, 0))
        yield variable.name, *_amount(about, sum(counts.values()), n_stays), _levels(counts)


def _amount(about: Description, n: int, n_stays: int) -> tuple[str, str, str]:
    """Values, share of the stays with any, and values of each of these."""
    per_stay = f"{n / n_stays:.1f}" if n_stays else ""
    return f"{n:,}", _share(n_stays, len(about.stays)), per_stay


def _numbers(values: pd.Series, unit: str) -> str:
    known = values.dropna()
    if not len(known):
        return "unknown"
    low, median, high = known.quantile([0.01, 0.5, 0.99])
    text = f"median {median:.4g} {unit}".rstrip()
    text += f", 1-99 %: {low:.4g} to {high:.4g}, range {known.min():.4g} to {known.max():.4g}"
    missing = len(values) - len(known)
    return text + (f", unknown in {missing:,}" if missing and unit == "hours" else "")


def _levels(counts: dict[str, int]) -> str:
    total = sum(counts.values())
    shown = sorted(counts.items(), key=lambda item: -item[1])
    text = ", ".join(f"{level} {_share(n, total)}" for level, n in shown[:6])
    return text + (f" and {len(shown) - 6} more" if len(shown) > 6 else "")


def _share(n: float, total: float) -> str:
    return f"{n / total:.1%}" if total else "-"
