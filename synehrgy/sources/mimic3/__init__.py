"""MIMIC-III: from the raw tables to a cohort."""

from synehrgy.sources.mimic3.extraction import extract
from synehrgy.sources.mimic3.summary import ExtractionSummary

__all__ = ["ExtractionSummary", "extract"]
