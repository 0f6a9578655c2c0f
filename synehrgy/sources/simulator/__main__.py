"""``python -m synehrgy.sources.simulator``: write the raw files alone."""

import argparse
import sys

from synehrgy.cli import as_called
from synehrgy.errors import UserError
from synehrgy.sources.simulator.simulation import simulate
from synehrgy.sources.simulator.writing import FORMATS


def main(arguments: list[str] | None = None) -> int:
    """Parse the command line, simulate, say what was written; returns the exit status."""
    parser = argparse.ArgumentParser(
        prog="python -m synehrgy.sources.simulator",
        description="Write a simulated raw database in the form of MIMIC-III v1.4.",
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    parser.add_argument("raw_dir", help="folder to write")
    parser.add_argument("--n-patients", type=int, default=3000, help="rows of PATIENTS")
    parser.add_argument("--seed", type=int, default=0, help="same seed, same bytes")
    parser.add_argument(
        "--noise-share",
        type=float,
        default=0.0,
        help="share of CHARTEVENTS rows of items that no series uses (real: about 0.83)",
    )
    parser.add_argument("--file-format", choices=FORMATS, default="parquet", help="of all files")
    parser.add_argument(
        "--chunk-patients", type=int, default=256, help="patients in a task for a process"
    )
    parser.add_argument("--processes", type=int, default=1, help="processes that simulate")
    parser.add_argument("--no-progress", action="store_true", help="show no progress bar")
    options = vars(parser.parse_args(arguments))
    progress = not options.pop("no_progress")
    try:
        summary = simulate(**options, progress=progress)
    except (UserError, OSError) as error:
        print(as_called(f"Error: {error}"), file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("Interrupted.", file=sys.stderr)
        return 1
    print(
        f"Wrote {summary.rows['PATIENTS']:,} patients and {summary.event_rows:,} event rows to "
        f"{summary.raw_dir}."
    )
    following = f"python preprocess.py data=mimic3 data.raw_dir={summary.raw_dir}"
    print(as_called(f"Next: {following} data.path=<folder of the cohort>"))
    return 0


if __name__ == "__main__":
    sys.exit(main())
