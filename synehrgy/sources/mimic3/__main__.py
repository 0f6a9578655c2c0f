"""``python -m synehrgy.sources.mimic3 to_meds <raw dir> <folder>``: MIMIC-III as MEDS."""

import argparse
import signal
import sys
from pathlib import Path

from synehrgy.cli import as_called
from synehrgy.errors import UserError
from synehrgy.sources.mimic3.to_meds import to_meds


def main(arguments: list[str] | None = None) -> int:
    """Parse the command line, convert, say what was written; returns the exit status."""
    parser = argparse.ArgumentParser(
        prog="python -m synehrgy.sources.mimic3", description="MIMIC-III for other tools."
    )
    commands = parser.add_subparsers(dest="command", required=True)
    command = commands.add_parser(
        "to_meds",
        help="write the raw tables as a dataset of the Medical Event Data Standard",
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    command.add_argument("raw_dir", type=Path, help="folder of the raw tables")
    command.add_argument("folder", type=Path, help="folder to write")
    command.add_argument("--split-dir", type=Path, help="folder of testset.csv and valset.csv")
    command.add_argument("--patients-per-shard", type=int, default=1000, help="at most")
    command.add_argument("--memory-limit", default="4GB", help="the rest goes to disk")
    command.add_argument("--threads", type=int, help="threads to use, if not all cores")
    command.add_argument("--no-progress", action="store_true", help="show no progress bars")
    options = vars(parser.parse_args(arguments))
    del options["command"]
    progress = not options.pop("no_progress")
    try:
        found = to_meds(**options, progress=progress)
    except (UserError, OSError) as error:
        print(as_called(f"Error: {error}"), file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("Interrupted. The same command goes on where it was.", file=sys.stderr)
        return 1
    if found.absent:
        print(f"Without the tables that are not there: {', '.join(found.absent)}")
    print(
        f"Wrote {found.events:,} events of {found.patients:,} patients in {found.shards:,} shards "
        f"to {found.folder}"
    )
    following = f"python preprocess.py data=meds data.raw_dir={found.folder}"
    print(as_called(f"Next: {following} data.meds.mapping=mimic3"))
    return 0


if __name__ == "__main__":
    # A stopped job of a cluster cleans up like an interrupted one.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    sys.exit(main())
