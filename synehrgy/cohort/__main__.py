"""``python -m synehrgy.cohort export <format> <cohort> <folder>``: a cohort for other tools."""

import argparse
import sys
from pathlib import Path

from synehrgy.cohort import EXPORTS
from synehrgy.errors import UserError


def main(arguments: list[str] | None = None) -> int:
    """Parse the command line and export; returns the exit status."""
    parser = argparse.ArgumentParser(prog="python -m synehrgy.cohort", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    export = commands.add_parser("export", help="write a cohort in another format")
    export.add_argument("format", choices=EXPORTS, help="format; docs/exports.md explains them")
    export.add_argument("cohort", type=Path, help="folder of a cohort, real or synthetic")
    export.add_argument("folder", type=Path, help="folder to write")
    options = parser.parse_args(arguments)
    try:
        files = EXPORTS[options.format](options.cohort, options.folder)
    except (UserError, OSError) as error:
        print(f"Error: {error}", file=sys.stderr)
        return 1
    print(f"Wrote {len(files):,} files to {options.folder}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
