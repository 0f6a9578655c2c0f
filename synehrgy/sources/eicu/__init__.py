"""eICU-CRD: from the raw tables to a cohort."""

from functools import partial

from synehrgy.sources.eicu.hospital import EICU
from synehrgy.sources.extraction import extract as extract_hospital

extract = partial(extract_hospital, EICU)

__all__ = ["EICU", "extract"]
