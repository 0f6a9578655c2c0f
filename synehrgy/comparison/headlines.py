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
        goal: ``low`` or ``high``: which is better.
    """

    score: str
    title: str
    group: str
    goal: str = "low"

    @property
    def needs(self) -> frozenset[str]:
        """Parts that a generator must cover to be asked."""
        return needs_of(self.score)


_EVERYTHING = {STAYS, CODES, SERIES}
# By the beginning of the name of a score; privacy is asked of everyone.
_NEEDS = {
    "codes/": {CODES},
    "code_sequences/sequential": {STAYS, CODES},
    "code_sequences/recurrence": {STAYS, CODES},
    "code_sequences/": {CODES},
    "two_sample/codes": {CODES},
    "two_sample/series": {SERIES},
    "two_sample/": _EVERYTHING,
    "series/": {SERIES},
    "dynamics/": {SERIES},
    "correlation/": {SERIES},
    "co_observation/": {SERIES},
    "manifold/": {SERIES},
    "utility/": {SERIES},
    "sequence_utility/": {SERIES},
    "structure/": {STAYS},
    "across/": _EVERYTHING,
    "consistency/": _EVERYTHING,
}


def needs_of(score: str) -> frozenset[str]:
    """Parts that a generator must cover to be asked for a score."""
    name = score.removeprefix("published/")
    found = (needs for beginning, needs in _NEEDS.items() if name.startswith(beginning))
    return frozenset(next(found, set()))


def _of(group: str, *rows: tuple[str, str, str]) -> list[Headline]:
    return [Headline(score, title, group, goal) for score, title, goal in rows]


HEADLINES = [
    *_of(
        "Codes",
        ("codes/per_stay", "number per stay", "low"),
        ("codes/pairs_error", "co-occurrence", "low"),
        ("two_sample/codes", "told apart", "low"),
    ),
    *_of(
        "Series",
        ("series/ks", "distribution", "low"),
        ("correlation/within", "correlation", "low"),
        ("dynamics/autocorrelation", "memory", "low"),
        ("two_sample/series", "told apart", "low"),
    ),
    *_of(
        "Records",
        ("structure/mean", "structure", "low"),
        ("across/difference", "across types", "low"),
        ("consistency/any", "contradictions", "low"),
        ("two_sample/all", "told apart", "low"),
    ),
    *_of(
        "Utility",
        ("utility/outcome/tstr_auroc", "outcomes", "high"),
        ("utility/phenotype/tstr_macro_auroc", "phenotypes", "high"),
    ),
    *_of(
        "Privacy",
        ("membership/density_ratio/auroc", "membership", "low"),
        ("memorisation/run/auroc", "shared runs", "low"),
        ("distances/privacy_loss", "neighbours", "low"),
    ),
]
SECONDS = {
    "seconds_to_fit": "seconds to fit",
    "seconds_per_1000": "seconds to sample 1,000",
}
