"""A hospital's own tables: from CSV or Parquet files and ``tables.yaml`` to a cohort."""

from synehrgy.sources.tables.declaration import FILE, read_declaration
from synehrgy.sources.tables.draft import draft
from synehrgy.sources.tables.extraction import IDENTIFIERS_FILE, check_tables, extract_tables
from synehrgy.sources.tables.summary import TablesSummary

__all__ = [
    "FILE",
    "IDENTIFIERS_FILE",
    "TablesSummary",
    "check_tables",
    "draft",
    "extract_tables",
    "read_declaration",
]
