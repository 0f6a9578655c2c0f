"""Cohorts for other tools, and of other tools.

``python -m synehrgy.cohort export <format> <cohort> <folder>``
``python -m synehrgy.cohort import <folder of CSV files> <cohort> --like <real cohort>``
"""

import argparse
import sys
from pathlib import Path

from synehrgy.cohort import EXPORTS, import_csv
from synehrgy.errors import UserError


def main(arguments: list[str] | None = None) -> int:
    """Parse the command line and export; returns the exit status."""
    parser = argparse.ArgumentParser(
        prog="python -m synehrgy.cohort", description="Cohorts for other tools, and of other tools."
    )
    commands = parser.add_subparsers(dest="command", required=True)
    export = commands.add_parser("export", help="write a cohort in another format")
    export.add_argument("format", choices=EXPORTS, help="format; docs/exports.md explains them")
    export.add_argument("cohort", type=Path, help="folder of a cohort, real or synthetic")
    export.add_argument("folder", type=Path, help="folder to write")
    taken = commands.add_parser("import", help="read CSV files of another tool as a cohort")
    taken.add_argument("folder", type=Path, help="stays.csv, codes.csv, measurements.csv")
    taken.add_argument("cohort", type=Path, help="folder of the cohort to write")
    taken.add_argument("--like", type=Path, required=True, help="the real cohort to compare with")
    options = parser.parse_args(arguments)
    try:
        if options.command == "import":
            print(f"Cohort: {import_csv(options.folder, options.cohort, options.like)}")
            return 0
        files = EXPORTS[options.format](options.cohort, options.folder)
    except (UserError, OSError) as error:
        print(f"Error: {error}", file=sys.stderr)
        return 1
    print(f"Wrote {len(files):,} files to {options.folder}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
