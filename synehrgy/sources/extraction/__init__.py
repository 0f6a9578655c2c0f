"""From the raw tables of a database of intensive care to a cohort, whatever the database."""

from synehrgy.sources.extraction.hospital import Hospital
from synehrgy.sources.extraction.pipeline import extract
from synehrgy.sources.extraction.summary import ExtractionSummary
from synehrgy.sources.extraction.tables import Release

__all__ = ["ExtractionSummary", "Hospital", "Release", "extract"]
