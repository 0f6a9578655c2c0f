"""What an extraction read, kept and dropped."""

from dataclasses import dataclass, field

from synehrgy.sources.counts import CohortCounts, line


@dataclass
class ExtractionSummary(CohortCounts):
    """Counts of an extraction, besides those of the cohort.

    Attributes:
        path: folder of the cohort.
        profile: ``paper`` or ``clinical``.
        split_rule: how patients were split.
        stays_listed: stays in the raw table.
        dropped: stays dropped, by reason, in the order of the rules.
        rows: rows read of each raw event table.
        unreadable: rows in a stay whose text is no value of its series, by series.
        impossible: rows in a stay outside the range of possible values, by series.
    """

    path: str
    profile: str
    split_rule: str
    stays_listed: int
    dropped: dict[str, int]
    rows: dict[str, int] = field(default_factory=dict)
    unreadable: dict[str, int] = field(default_factory=dict)
    impossible: dict[str, int] = field(default_factory=dict)

    def add_rejected(self, rows: list[tuple[str, int, int]]) -> None:
        """Add rows of a series' name, its unreadable and its impossible rows."""
        for name, unreadable, impossible in rows:
            for counts, n in ((self.unreadable, unreadable), (self.impossible, impossible)):
                if n:
                    counts[name] = counts.get(name, 0) + n

    def render(self) -> str:
        """The counts as compact text."""
        lines = [
            f"Cohort {self.path} ({self.profile} profile, {self.seconds:.1f} s)",
            line("rows read", {name.upper(): n for name, n in self.rows.items()}),
            f"  stays listed  {self.stays_listed:,}",
            *(f"    {-n:>8,}    {reason}" for reason, n in self.dropped.items()),
            f"  stays kept    {self.n_stays:,} of {self.n_patients:,} patients",
            f"  splits        {self.split_rule}",
            *self.lines(),
            line("unreadable", dict(sorted(self.unreadable.items()))),
            line("impossible", dict(sorted(self.impossible.items()))),
        ]
        return "\n".join(lines)

    def __str__(self) -> str:
        return self.render()
