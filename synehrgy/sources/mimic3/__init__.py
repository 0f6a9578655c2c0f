"""MIMIC-III: from the raw tables to a cohort."""

from functools import partial

from synehrgy.sources.extraction import ExtractionSummary
from synehrgy.sources.extraction import extract as extract_hospital
from synehrgy.sources.mimic3.hospital import MIMIC3

extract = partial(extract_hospital, MIMIC3)

__all__ = ["MIMIC3", "ExtractionSummary", "extract"]
