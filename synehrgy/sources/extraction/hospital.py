"""What distinguishes one database of intensive care from another, for the extraction."""

from dataclasses import dataclass

from synehrgy.sources.extraction.resources import Profile, read_profile
from synehrgy.sources.extraction.tables import Release


@dataclass(frozen=True)
class Hospital:
    """A database: its files, and the queries from them to stays, codes and events.

    Attributes:
        name: as what a cohort's ``source`` names it.
        package: the package whose ``resources/items.yaml`` has the raw items of the series.
        release: its files.
        stay_tables: raw tables that are read as they are, before the events; a table of their name
            is there for the queries below.
        steps: one query per inclusion rule, by the name of the table that it makes, with the reason
            for which it drops stays. The first reads ``listed``.
        listed: the raw table with a row per stay.
        stays: query of the stays after the last step: ``place`` (their number by patient and time),
            ``subject_id``, ``stay_id``, ``hadm_id``, ``timeline`` (of what shares a clock: stays
            and events of the same timeline have comparable times), ``admission`` (which an event
            must name to be of the stay), ``starts`` and ``ends`` in seconds, ``los_hours``,
            ``age``, ``gender`` and ``in_hospital_mortality``.
        code_systems: titles of the code systems, in the order in which a stay lists them.
        codes: query of the codes: ``stay_id``, ``system``, ``rank`` (their order within the
            system) and ``code``; the table ``stays`` is there.
        diagnoses: query of the diagnoses, ``system`` and ``code``, that may define labels; the
            table ``codes`` is there.
        events: by raw event table, the query of its events: ``timeline``, ``admission`` and
            ``stay_id`` (as in the stays; an event without ``stay_id`` is of the stay of its
            admission), ``item``, ``time`` in seconds, ``value`` as text and ``valueuom``, its unit
            as charted. ``{table}`` is the raw table.
    """

    name: str
    package: str
    release: Release
    stay_tables: tuple[str, ...]
    listed: str
    steps: dict[str, tuple[str, str]]
    stays: str
    code_systems: dict[str, str]
    codes: str
    diagnoses: str
    events: dict[str, str]

    def profile(self, name: str) -> Profile:
        """The series of a profile with this database's items."""
        return read_profile(self.package, name)
