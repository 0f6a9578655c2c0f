"""What the lights of an evaluation say, counted and in words."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import pandas as pd

from synehrgy.evaluation.metric import GROUPS, SYNTHETIC, Scale

LIGHTS = ("good", "fair", "poor")
N_WORST = 3
MINUS = "\N{MINUS SIGN}"

# A row of a comparison inside a sentence.
ROW_NAMES = {
    "synthetic": "Synthetic",
    "test": "Real, held out",
    "oracle": "Oracle",
    "marginals": "Independent columns",
    "train": "Copy of train",
}
_OF_ROW = {
    "synthetic": "synthetic patients",
    "test": "held-out real patients",
    "oracle": "fresh patients of the true distribution",
    "marginals": "independent columns",
    "train": "a copy of the train split",
}
# Of a group by its worst light; a dot that is not green is never averaged away.
_VERDICTS = {
    "validity": {
        "good": "These records keep to the rules as well as real ones do.",
        "fair": "These records break some rules a little more often than real ones do.",
        "poor": "These records break rules that real ones keep to.",
    },
    "fidelity": {
        "good": "By these measures they are as close to real patients as other real patients are.",
        "fair": "Close to real patients, with differences that can be measured.",
        "poor": "In some respects they differ clearly from real patients.",
    },
    "utility": {
        "good": "What is learned from them holds for real patients, as well as from real ones.",
        "fair": "What is learned from them holds for real patients, but less well.",
        "poor": "For some purposes they do not replace real patients to learn from.",
    },
    "privacy": {
        "good": "No attack that was tried finds out more than chance allows.",
        "fair": "Some attacks find out slightly more than chance allows.",
        "poor": "Attacks find out about the patients behind them: do not share these records as "
        "they are.",
    },
}
# From which severity to which each light goes.
_SEVERITIES = {"good": (-np.inf, 0.0), "fair": (0.0, 1.0), "poor": (1.001, np.inf)}


def short(x: float) -> str:
    """Three digits that count, but all of a large number; with a true minus; empty for NaN."""
    if np.isnan(x):
        return ""
    if np.isinf(x):
        return "∞" if x > 0 else f"{MINUS}∞"
    text = f"{x:,.0f}" if abs(x) >= 1000 else f"{x:.3g}"
    if "e" in text:
        # Never 1e-05, which not everybody reads.
        text = f"{x:.6f}".rstrip("0").rstrip(".") if abs(x) >= 5e-7 else "0"
    return text.replace("-", MINUS) if float(text.replace(",", "") or 0) else "0"


def interval(low: float, high: float) -> str:
    """Such as "0.42 to 0.51": two digits of the width, in both ends; empty where there is none."""
    if np.isnan(low) or np.isnan(high):
        return ""
    if not 0 < high - low < np.inf or max(abs(low), abs(high)) >= 1000:
        return f"{short(low)} to {short(high)}"
    digits = min(max(1 - int(np.floor(np.log10(high - low))), 0), 6)
    ends = (f"{x:.{digits}f}" for x in (low, high))
    return " to ".join(end.replace("-", MINUS) if float(end) else "0" for end in ends)


@dataclass(frozen=True)
class Verdict:
    """Of one group.

    Attributes:
        group: its name.
        light: the worst of its lights; None if there is none.
        counts: scores by light.
        says: a sentence.
        worst: the scores of the worst lights, worst first, at most ``N_WORST``; columns of
            ``judged``.
    """

    group: str
    light: str | None
    counts: dict[str, int]
    says: str
    worst: pd.DataFrame


def is_published(score: str) -> bool:
    """Whether a score is in the form in which it was published."""
    return score.startswith("published/")


def rows_of(scores: pd.DataFrame) -> list[str]:
    """The rows of a comparison that there are scores of, in the order in which they are shown."""
    there = set(scores["row"])
    return [row for row in ROW_NAMES if row in there]


def judged(scores: pd.DataFrame, scales: Mapping[str, Scale]) -> pd.DataFrame:
    """The scores with what they are judged by.

    Args:
        scores: of an ``Evaluation``.
        scales: by the name of the score. A score without one is left out.

    Returns:
        ``scores`` with the columns ``aim`` (the number that the score should reach, NaN if not
        known) and ``severity``: 0 or less is good, up to 1 fair, above 1 poor, NaN without a light.
    """
    known = scores[scores["score"].isin(list(scales))].reset_index(drop=True)
    values = known.set_index(["score", "row"])["value"].to_dict()
    aims, severities = [], []
    for score, value, light in known[["score", "value", "light"]].itertuples(index=False):
        scale = scales[score]
        aim = scale.reference
        if isinstance(aim, str):
            aim = values.get((score, aim), np.nan)
        aims.append(float(aim))
        # The light has the last word: one whose interval reaches what is good is fair, however far
        # off it is.
        low, high = _SEVERITIES.get(light, (np.nan, np.nan))
        severities.append(np.clip(_severity(scale, value, float(aim)), low, high))
    return known.assign(aim=np.array(aims, float), severity=np.array(severities, float))


def _severity(scale: Scale, value: float, aim: float) -> float:
    off = scale.off(value, aim)
    good, poor = float(scale.good or 0.0), float(scale.poor or 0.0)
    # Where good and poor meet there is nothing between them, and any step beyond counts much.
    return (off - good) / max(poor - good, 0.1 * abs(poor), 1e-6)


def verdicts(scores: pd.DataFrame) -> list[Verdict]:
    """One per group, from the synthetic patients' lights.

    Args:
        scores: of ``judged``.
    """
    return [_verdict(group, _lit(scores, SYNTHETIC, group)) for group in GROUPS]


def _verdict(group: str, lit: pd.DataFrame) -> Verdict:
    counts = count_lights(lit)
    light = worst_light(counts)
    if light is None:
        return Verdict(group, None, counts, "Nothing of this was judged.", lit)
    says = _VERDICTS[group][light]
    worst = lit[lit["light"] != "good"].sort_values(["severity", "score"], ascending=[False, True])
    return Verdict(group, light, counts, says, worst.head(N_WORST))


def controls(scores: pd.DataFrame) -> dict[tuple[str, str], dict[str, int]]:
    """Lights of the rows beside the synthetic ones, by (row, group); what has none is left out."""
    found = {}
    for row in ROW_NAMES:
        for group in GROUPS:
            counts = count_lights(_lit(scores, row, group))
            if any(counts.values()):
                found[row, group] = counts
    return found


def _lit(scores: pd.DataFrame, row: str, group: str) -> pd.DataFrame:
    mine = (scores["row"] == row) & (scores["group"] == group) & scores["light"].isin(LIGHTS)
    return scores[mine]


def count_lights(lit: pd.DataFrame) -> dict[str, int]:
    """How many are good, fair and poor."""
    return {light: int((lit["light"] == light).sum()) for light in LIGHTS}


def worst_light(counts: Mapping[str, int]) -> str | None:
    """The worst that there is; None if there is none."""
    return next((light for light in reversed(LIGHTS) if counts[light]), None)


def counted(counts: Mapping[str, int]) -> str:
    """Such as "3 good, 1 fair, 0 poor"."""
    return ", ".join(f"{counts[light]} {light}" for light in LIGHTS)


def aim_in_words(scale: Scale) -> str:
    """What a score should reach."""
    if isinstance(scale.reference, str):
        return f"what {_OF_ROW.get(scale.reference, scale.reference)} have"
    return short(scale.reference)


def beside(scale: Scale, value: float, aim: float) -> str:
    """A value and what it should be, such as "0.71; chance would be 0.5"."""
    if np.isnan(aim):
        return short(value)
    if isinstance(scale.reference, str):
        return f"{short(value)}, where {_OF_ROW.get(scale.reference)} have {short(aim)}"
    return f"{short(value)}, where {short(aim)} is ideal"


def thresholds_in_words(scale: Scale) -> dict[str, str]:
    """What is good, fair and poor; empty where there is no light."""
    if scale.good is None or scale.poor is None:
        return {}
    side = {"high": "below it", "low": "above it"}.get(scale.goal, "from it")
    good = f"at most {short(scale.good)} {side}"
    if scale.good == 0:
        good = {"high": "it or more", "low": "it or less"}.get(scale.goal, "it exactly")
    fair = "" if scale.poor == scale.good else f"at most {short(scale.poor)} {side}"
    poor = f"more than {short(scale.poor)} {side}"
    return {"good": good, "fair": fair, "poor": poor}
