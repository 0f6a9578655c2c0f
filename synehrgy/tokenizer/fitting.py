"""What a tokenizer learns from a cohort, piece by piece."""

from collections import Counter
from collections.abc import Iterable, Mapping

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from synehrgy.cohort import Cohort, Schema, defines, parents
from synehrgy.errors import UserError, nearest
from synehrgy.settings import TokenSettings, VariableSettings
from synehrgy.tokenizer.bins import fit_edges
from synehrgy.tokenizer.clock import gap_hours, seconds_within
from synehrgy.tokenizer.quantities import Bins, Digits

# A label is asked to have its codes if this share of the train stays that have it do.
EXPLAINED_SHARE = 0.95

RULES = ("rising", "constant", "free")


def check_settings(schema: Schema, settings: TokenSettings) -> None:
    """Refuse settings that do not fit the cohort.

    Raises:
        UserError: edges that do not ascend, or names that the schema does not declare.
    """
    check_edges("gap_edges", settings.gap_edges)
    if settings.gap_edges[0] < 0:
        raise UserError(f"preprocess.gap_edges begin below 0: {settings.gap_edges}.")
    numbers = [c.name for c in schema.covariates if c.kind == "continuous"]
    defaults = TokenSettings()
    # The default edges and rules may name a covariate that this cohort lacks; others are a mistake.
    for name in settings.covariate_edges.keys() - defaults.covariate_edges.keys():
        if name not in numbers:
            raise UserError(
                f"preprocess.covariate_edges.{name}: the cohort has no continuous covariate "
                f"of this name.{nearest(name, numbers)}"
            )
    for name, edges in settings.covariate_edges.items():
        if edges is not None:
            check_edges(f"covariate_edges.{name}", edges)
    everything = [c.name for c in schema.covariates]
    for name, rule in settings.within_patient.items():
        where = f"preprocess.within_patient.{name}"
        if name not in everything and name not in defaults.within_patient:
            raise UserError(f"{where}: no covariate of the cohort.{nearest(name, everything)}")
        if rule not in RULES:
            raise UserError(f"{where}={rule} is none of {', '.join(RULES)}.")
        if rule == "rising" and name in everything and name not in numbers:
            raise UserError(f"{where}=rising, but it is no number.")
    series = [*numbers, *(v.name for v in schema.variables_of("continuous"))]
    for name, exception in settings.variables.items():
        where = f"preprocess.variables.{name}"
        if name not in series:
            raise UserError(
                f"{where}: no continuous series or covariate of the cohort.{nearest(name, series)}"
            )
        if exception.edges is not None:
            check_edges(f"variables.{name}.edges", exception.edges)
            if exception.bin_type is not None or exception.n_bins is not None:
                raise UserError(f"{where}: give either edges, or bin_type and n_bins.")


def check_edges(name: str, edges: list[float]) -> None:
    """Refuse edges that do not ascend.

    Raises:
        UserError: names the setting.
    """
    if len(edges) < 2 or not np.all(np.diff(edges) > 0) or not np.all(np.isfinite(edges)):
        raise UserError(f"preprocess.{name} must be at least two ascending numbers, got {edges}.")


def fit_numbers(
    values: NDArray[np.float64], settings: TokenSettings, exception: VariableSettings | None = None
) -> Bins | Digits:
    """How a continuous quantity is written.

    Args:
        values: finite numbers of the train split, at least one.
        settings: for all quantities.
        exception: for this one; what it leaves open is as for all.
    """
    exception = exception or VariableSettings()
    bin_type = exception.bin_type or settings.bin_type
    if exception.edges is not None:
        return Bins.fit(values, np.array(exception.edges, dtype=np.float64))
    if bin_type == "raw":
        return Digits.fit(values)
    rule = settings.outlier_rule if exception.outlier_rule is None else exception.outlier_rule
    return Bins.fit(values, fit_edges(values, bin_type, exception.n_bins or settings.n_bins, rule))


def fit_covariates(train: Cohort, settings: TokenSettings) -> dict[str, Bins | Digits]:
    """How each continuous covariate is written, of those with any value in the train split."""
    found = {}
    for covariate in train.schema.covariates:
        if covariate.kind != "continuous":
            continue
        values = train.stays[covariate.name].dropna().to_numpy()
        given = VariableSettings(edges=settings.covariate_edges.get(covariate.name))
        exception = settings.variables.get(covariate.name, given)
        if exception.edges is not None or len(values):
            found[covariate.name] = fit_numbers(values, settings, exception)
    return found


def fit_variables(train: Cohort, settings: TokenSettings) -> dict[str, Bins | Digits]:
    """How each continuous series is written, of those with any value in the train split."""
    continuous = {v.name for v in train.schema.variables_of("continuous")}
    values = train.measurements.groupby("variable", observed=True)["value"]
    found = {
        str(name): fit_numbers(v.to_numpy(), settings, settings.variables.get(str(name)))
        for name, v in values
        if name in continuous
    }
    # The order of the groups is that of the rows' categories, which the file must not show.
    return dict(sorted(found.items()))


def fit_gaps(train: Cohort, settings: TokenSettings) -> Bins:
    """Bins of the hours from one time point to the next, the first from admission."""
    points = _time_points(train)
    starts = (points["stay_id"].diff() != 0).to_numpy()
    gaps = gap_hours(starts, points["hours"].to_numpy())
    return Bins.fit(gaps, np.array(settings.gap_edges, dtype=np.float64))


def fit_seconds(train: Cohort) -> Bins:
    """How the seconds within their minute are distributed over time points, as one bin."""
    found = seconds_within(_time_points(train)["hours"].to_numpy())
    return Bins.fit(found if len(found) else np.zeros(1), np.array([0.0, 60.0]))


def _time_points(cohort: Cohort) -> pd.DataFrame:
    rows = cohort.measurements[["stay_id", "hours"]]
    # Rows are sorted, so a time point's rows stand together.
    same = (rows["stay_id"].diff() == 0) & (rows["hours"].diff() == 0)
    return rows[~same]


def fit_codes(cohort: Cohort, train: Cohort, settings: TokenSettings) -> dict[str, list[str]]:
    """The codes kept of each system, in alphabetical order.

    With ``rare_codes=parent`` a rare code counts for its nearest parent, and this one, if it is
    still rare, for the next.
    """
    counted = train if settings.count_codes_in == "train" else cohort
    counts = counted.codes.groupby(["system", "code"], observed=True).size()
    least = 1 if settings.rare_codes == "keep" else settings.min_code_count
    kept: dict[str, list[str]] = {system.name: [] for system in cohort.schema.code_systems}
    for system in kept:
        if system not in counts.index.get_level_values("system"):
            continue
        of_system = Counter({str(code): int(n) for code, n in counts.xs(system).items()})
        if settings.rare_codes == "parent":
            _count_for_parents(system, of_system, least)
        kept[system] = sorted(code for code, count in of_system.items() if count >= least)
    return kept


def _count_for_parents(system: str, counts: Counter[str], least: int) -> None:
    for length in range(max(map(len, counts)), 1, -1):
        for code in [c for c in counts if len(c) == length and counts[c] < least]:
            above = parents(system, code)
            if above:
                counts[above[0]] += counts.pop(code)


def fit_rules(
    cohort: Cohort, wanted: dict[str, str], numbers: Mapping[str, Bins | Digits]
) -> dict[str, str]:
    """Which covariates keep their rule in the whole cohort, so that every stay can be encoded.

    One that is written in digits has none: its order would have to be kept over several tokens.

    Args:
        cohort: of all splits.
        wanted: ``rising``, ``constant`` or ``free`` by covariate; those that the cohort lacks are
            left out.
        numbers: how continuous covariates are written.
    """
    return {
        c.name: rule
        for c in cohort.schema.covariates
        if (rule := wanted.get(c.name, "free")) != "free"
        and not isinstance(numbers.get(c.name), Digits)
        and not n_broken(cohort, c.name, rule)
    }


def n_broken(cohort: Cohort, covariate: str, rule: str) -> int:
    """How many stays contradict the one before of the same patient that states the covariate."""
    stated = cohort.stays[["subject_id", covariate]].dropna()
    same = stated["subject_id"].diff() == 0
    values = stated[covariate]
    broken = values.diff() < 0 if rule == "rising" else values != values.shift()
    return int((same & broken).sum())


def fit_lengths_of_stay(cohort: Cohort) -> str:
    """Whether ``all``, ``some`` or ``none`` of the stays have a known length."""
    known = cohort.stays["los_hours"].notna()
    return "all" if known.all() else "some" if known.any() else "none"


def fit_nullable(cohort: Cohort) -> list[str]:
    """Covariates that some stay lacks, in declared order."""
    return [c.name for c in cohort.schema.covariates if cohort.stays[c.name].isna().any()]


def known_codes(system: str, codes: Iterable[str], kept: list[str], to_parent: bool) -> list[int]:
    """Place among the kept codes of each code or, where asked for, of its nearest kept parent.

    Returns:
        -1 for a code that has neither; places of parents are given as ``-2 - place``.
    """
    place = {code: i for i, code in enumerate(kept)}
    found = []
    for code in codes:
        at = place.get(code, -1)
        if at < 0 and to_parent:
            above = next((p for p in parents(system, code) if p in place), None)
            at = -1 if above is None else -2 - place[above]
        found.append(at)
    return found


def fit_stands_for(
    cohort: Cohort, kept: dict[str, list[str]], to_parent: bool
) -> dict[str, dict[str, list[str]]]:
    """The rare codes of the cohort that each kept code stands for, by system."""
    found: dict[str, dict[str, list[str]]] = {system: {} for system in kept}
    if not to_parent:
        return found
    listed = cohort.codes[["system", "code"]].drop_duplicates().astype(str)
    for system, codes in kept.items():
        mine = sorted(listed.loc[listed["system"] == system, "code"])
        for code, place in zip(mine, known_codes(system, mine, codes, True), strict=True):
            if place < -1:
                found[system].setdefault(codes[-2 - place], []).append(code)
    return found


def fit_explained(
    train: Cohort, kept: dict[str, list[str]], stands_for: dict[str, dict[str, list[str]]]
) -> list[str]:
    """Labels that the codes in the vocabulary explain wherever they are, but for a few stays.

    Where codes that define a label are too rare for the vocabulary, real records have the label
    without them, and so may generated ones.
    """
    stays, codes = train.stays, train.codes
    written = pd.Series(False, index=codes.index)
    for system, words in kept.items():
        known = {*words, *(c for cs in stands_for[system].values() for c in cs)}
        written |= (codes["system"] == system) & codes["code"].isin(known)
    explained = []
    for label in train.schema.labels:
        having = stays.loc[stays[label.column] == 1, "stay_id"]
        if label.system is None or not len(having):
            continue
        mine = defines(label, codes) & written
        if having.isin(codes.loc[mine, "stay_id"]).mean() >= EXPLAINED_SHARE:
            explained.append(label.column)
    return explained
