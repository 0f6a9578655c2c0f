"""A cohort: three tables of patients and a schema that says what the columns mean.

Real, simulated and synthetic patients all have this form.
"""

from synehrgy.cohort.export import export_csv
from synehrgy.cohort.icd import parents
from synehrgy.cohort.io import CohortWriter, is_cohort, read_cohort, read_parts, read_schema
from synehrgy.cohort.schema import (
    SPLITS,
    CodeSystem,
    Covariate,
    Label,
    Schema,
    Variable,
)
from synehrgy.cohort.tables import Cohort

__all__ = [
    "SPLITS",
    "CodeSystem",
    "Cohort",
    "CohortWriter",
    "Covariate",
    "Label",
    "Schema",
    "Variable",
    "export_csv",
    "is_cohort",
    "parents",
    "read_cohort",
    "read_parts",
    "read_schema",
]
