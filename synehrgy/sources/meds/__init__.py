"""The Medical Event Data Standard (MEDS): from a dataset to a cohort."""

from synehrgy.sources.meds.extraction import extract_meds

__all__ = ["extract_meds"]
