"""A cohort: three tables of patients and a schema that says what the columns mean.

Real, simulated and synthetic patients all have this form.
"""

from collections.abc import Callable
from pathlib import Path

from synehrgy.cohort.benchmark import check_benchmark, export_benchmark
from synehrgy.cohort.check import Checked, check_cohort
from synehrgy.cohort.describe import Limits
from synehrgy.cohort.export import export_csv
from synehrgy.cohort.icd import is_icd, parents
from synehrgy.cohort.import_csv import import_csv
from synehrgy.cohort.io import (
    CohortWriter,
    hash_of,
    is_cohort,
    read_cohort,
    read_parts,
    read_schema,
)
from synehrgy.cohort.meds import export_meds
from synehrgy.cohort.schema import (
    SPLITS,
    CodeSystem,
    Covariate,
    Label,
    Schema,
    Variable,
)
from synehrgy.cohort.tables import Cohort, defines

# Each writes a cohort folder to another folder and returns the files written.
EXPORTS: dict[str, Callable[[Path, Path], list[Path]]] = {
    "csv": export_csv,
    "meds": export_meds,
    "benchmark": export_benchmark,
}

__all__ = [
    "EXPORTS",
    "SPLITS",
    "Checked",
    "CodeSystem",
    "Cohort",
    "CohortWriter",
    "Covariate",
    "Label",
    "Limits",
    "Schema",
    "Variable",
    "check_benchmark",
    "check_cohort",
    "defines",
    "export_benchmark",
    "export_csv",
    "export_meds",
    "hash_of",
    "import_csv",
    "is_cohort",
    "is_icd",
    "parents",
    "read_cohort",
    "read_parts",
    "read_schema",
]
