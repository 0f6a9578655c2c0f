"""Cohorts looked at, for other tools, and of other tools.

``python -m synehrgy.cohort check <cohort, or folder of tables>``
``python -m synehrgy.cohort declare <folder of tables>``
``python -m synehrgy.cohort export <format> <cohort> <folder> [--overwrite]``
``python -m synehrgy.cohort import <folder of CSV files> <cohort> --like <cohort> [--overwrite]``
"""

import argparse
import shlex
import sys
from collections.abc import Sequence
from pathlib import Path

from synehrgy.cli import as_called
from synehrgy.cohort import EXPORTS, check_cohort, import_csv, is_cohort, read_schema
from synehrgy.cohort.io import SCHEMA_FILE
from synehrgy.errors import UserError

FIGURE = "check.png"


def main(arguments: Sequence[str] | None = None) -> int:
    """Parse the command line and do it; returns the exit status."""
    options = _parser().parse_args(arguments)
    try:
        return int(options.run(options))
    except (UserError, OSError) as error:
        print(as_called(f"Error: {error}"), file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("Interrupted.", file=sys.stderr)
        return 1


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m synehrgy.cohort",
        description="Cohorts looked at, for other tools, and of other tools.",
    )
    commands = parser.add_subparsers(dest="command", required=True)
    check = commands.add_parser("check", help="say what is wrong with a cohort, and what is in it")
    check.add_argument("folder", type=Path, help="a cohort, or tables with their tables.yaml")
    check.add_argument(
        "--declaration", type=Path, help="the file that explains the tables, if elsewhere"
    )
    check.add_argument("--figure", type=Path, help=f"PNG file; {FIGURE} in the folder if not given")
    check.add_argument("--no-figure", action="store_true", help="draw nothing")
    check.set_defaults(run=_check)
    declare = commands.add_parser("declare", help="write a draft of tables.yaml from tables")
    declare.add_argument("folder", type=Path, help="CSV or Parquet files of a hospital")
    declare.set_defaults(run=_declare)
    export = commands.add_parser("export", help="write a cohort in another format")
    export.add_argument("format", choices=EXPORTS, help="format; docs/exports.md explains them")
    export.add_argument("cohort", type=Path, help="folder of a cohort, real or synthetic")
    export.add_argument("folder", type=Path, help="folder to write")
    export.add_argument(
        "--overwrite", action="store_true", help="replace an earlier export of the same format"
    )
    export.set_defaults(run=_export)
    taken = commands.add_parser("import", help="read CSV files of another tool as a cohort")
    taken.add_argument("folder", type=Path, help="stays.csv, codes.csv, measurements.csv")
    taken.add_argument("cohort", type=Path, help="folder of the cohort to write")
    taken.add_argument("--like", type=Path, required=True, help="the real cohort to compare with")
    taken.add_argument("--overwrite", action="store_true", help="replace a cohort that is there")
    taken.set_defaults(run=_import)
    return parser


def _check(options: argparse.Namespace) -> int:
    # What a program may join, the rooms may not: clinical knowledge is no business of cohorts.
    from synehrgy.evaluation.clinical import known_limits
    from synehrgy.sources.tables import FILE, check_tables

    folder: Path = options.folder
    figure = None if options.no_figure else options.figure or folder / FIGURE
    if not is_cohort(folder) and ((folder / FILE).is_file() or options.declaration is not None):
        checked = check_tables(
            folder, declaration=options.declaration, limits_of=known_limits, figure=figure
        )
        following = ["data=tables", f"data.raw_dir={folder}"]
        if options.declaration is not None:
            following.append(f"data.declaration={options.declaration}")
    elif folder.is_dir() and not is_cohort(folder):
        raise UserError(
            f"{folder} is no cohort and has no {FILE}, which says what its tables are. "
            f"python -m synehrgy.cohort declare {shlex.quote(str(folder))} writes a draft of it."
        )
    else:
        limits = known_limits(read_schema(folder)[0])
        checked = check_cohort(folder, limits=limits, figure=figure)
        following = ["data=cohort", f"data.path={folder}"]
    print(as_called(checked.text))
    if checked.is_right and checked.has_train:
        print(as_called(f"Next: python preprocess.py {shlex.join(following)}"))
    return 0 if checked.is_right else 1


def _declare(options: argparse.Namespace) -> int:
    from synehrgy.sources.tables import draft

    print(as_called(draft(options.folder)))
    return 0


def _export(options: argparse.Namespace) -> int:
    cohort, folder = options.cohort, options.folder
    read_schema(cohort)
    if folder.exists() and folder.samefile(cohort):
        raise UserError(
            f"{cohort} and {folder} are the same folder: the export would replace its own cohort. "
            "Give another folder to write."
        )
    if folder.is_dir() and any(folder.iterdir()) and not options.overwrite:
        raise UserError(
            f"{folder} is not empty. --overwrite replaces an earlier export in it; give another "
            "folder to keep it."
        )
    files = EXPORTS[options.format](cohort, folder)
    print(f"Wrote {len(files):,} files to {folder}")
    return 0


def _import(options: argparse.Namespace) -> int:
    if not is_cohort(options.like):
        raise UserError(
            f"--like {options.like} is no cohort: it has no {SCHEMA_FILE}. Give the folder of the "
            "real cohort."
        )
    path = import_csv(options.folder, options.cohort, options.like, overwrite=options.overwrite)
    print(f"Cohort: {path}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
