"""Which scores stand in the table, and which generators each of them can be asked of."""

from dataclasses import dataclass

from synehrgy.baselines import CODES, SERIES, STAYS


@dataclass(frozen=True)
class Headline:
    """A column of the table.

    Attributes:
        score: its name in the evaluation.
        title: a short one.
        group: that it stands under.
        needs: parts that a generator must cover to be asked.
        goal: ``low`` or ``high``: which is better.
    """

    score: str
    title: str
    group: str
    needs: frozenset[str]
    goal: str = "low"


def _of(group: str, needs: set[str], *rows: tuple[str, str, str]) -> list[Headline]:
    return [Headline(score, title, group, frozenset(needs), goal) for score, title, goal in rows]


HEADLINES = [
    *_of(
        "Codes",
        {CODES},
        ("codes/js_distance", "distribution", "low"),
        ("codes/missing_tail", "tail missing", "low"),
        ("codes/pairs_error", "co-occurrence", "low"),
        ("two_sample/codes", "told apart", "low"),
    ),
    *_of(
        "Series",
        {SERIES},
        ("series/ks", "distribution", "low"),
        ("correlation/within", "correlation", "low"),
        ("dynamics/autocorrelation", "memory", "low"),
        ("two_sample/series", "told apart", "low"),
    ),
    *_of(
        "Records",
        {STAYS, CODES, SERIES},
        ("structure/mean", "structure", "low"),
        ("across/difference", "across types", "low"),
        ("consistency/any", "contradictions", "low"),
        ("two_sample/all", "told apart", "low"),
    ),
    *_of(
        "Utility",
        {SERIES},
        ("utility/outcome/tstr_auroc", "outcomes", "high"),
        ("utility/phenotype/tstr_macro_auroc", "phenotypes", "high"),
    ),
    *_of(
        "Privacy",
        set(),
        ("membership/density_ratio/auroc", "membership", "low"),
        ("memorisation/run/auroc", "shared runs", "low"),
        ("distances/privacy_loss", "neighbours", "low"),
    ),
]
SECONDS = {
    "seconds_to_fit": "seconds to fit",
    "seconds_per_1000": "seconds to sample 1,000",
}
