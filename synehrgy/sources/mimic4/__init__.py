"""MIMIC-IV: from the raw tables to a cohort."""

from functools import partial

from synehrgy.sources.extraction import extract as extract_hospital
from synehrgy.sources.mimic4.hospital import MIMIC4

extract = partial(extract_hospital, MIMIC4)

__all__ = ["MIMIC4", "extract"]
