"""``python -m synehrgy.tokenizer show <cohort>``: the tokens of a patient, to read."""

import argparse
import sys
from pathlib import Path

import numpy as np

from synehrgy.cli import as_called
from synehrgy.cohort import read_cohort
from synehrgy.errors import UserError, nearest
from synehrgy.settings import TokenSettings
from synehrgy.tokenizer import TOKENIZER_FILE, Tokenizer, encode
from synehrgy.tokenizer.show import show_record, show_segments, show_vocabulary


def main(arguments: list[str] | None = None) -> int:
    """Parse the command line and print; returns the exit status."""
    parser = argparse.ArgumentParser(prog="python -m synehrgy.tokenizer", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    show = commands.add_parser("show", help="print a patient's record as tokens")
    show.add_argument("cohort", type=Path, help="folder of a cohort, real or synthetic")
    show.add_argument("--patient", type=int, help="subject_id; default: one of median length")
    show.add_argument(
        "--tokenizer",
        type=Path,
        help="tokenizer.json of a cohort or of a model; default: that of the cohort, or a new one",
    )
    show.add_argument("--points", type=_count, default=5, help="time points shown per admission")
    show.add_argument(
        "--n-ctx", type=_count, help="also show how the record is cut for this context"
    )
    show.add_argument("--vocabulary", action="store_true", help="also count the vocabulary")
    options = parser.parse_args(arguments)
    try:
        print(as_called(_show(options)))
    except (UserError, OSError) as error:
        print(as_called(f"Error: {error}"), file=sys.stderr)
        return 1
    return 0


def _count(text: str) -> int:
    if not text.isdigit():
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number of 0 or more")
    return int(text)


def _show(options: argparse.Namespace) -> str:
    cohort = read_cohort(options.cohort)
    beside = options.cohort / TOKENIZER_FILE
    if options.tokenizer is not None:
        # The folder of a cohort or a model means the file in it.
        is_folder = options.tokenizer.is_dir()
        file = options.tokenizer / TOKENIZER_FILE if is_folder else options.tokenizer
        tokenizer, whose = Tokenizer.load(file), str(file)
    elif beside.exists():
        tokenizer, whose = Tokenizer.load(beside), str(beside)
    elif (cohort.stays["split"] == "train").any():
        tokenizer, whose = Tokenizer.fit(cohort, TokenSettings()), "default settings"
    else:
        raise UserError(
            f"{options.cohort} has neither a {TOKENIZER_FILE} nor a train split to fit one on. "
            "Give that of its model: --tokenizer saved_models/<run>/tokenizer.json."
        )
    if options.patient is None:
        records = encode(tokenizer, cohort)
        if not len(records):
            raise UserError(f"{options.cohort} has no patient.")
        row = int(np.argsort(records.lengths, kind="stable")[len(records) // 2])
    else:
        known = cohort.stays["subject_id"].unique().tolist()
        if options.patient not in known:
            hint = nearest(str(options.patient), [str(subject) for subject in known])
            raise UserError(f"{options.cohort} has no patient {options.patient}.{hint}")
        records, row = encode(tokenizer, cohort.select(subjects=[options.patient])), 0
    parts = [
        f"Patient {records.subject_ids[row]}: {len(records[row]):,} tokens, by {whose}",
        show_record(tokenizer, records[row], options.points),
    ]
    if options.n_ctx is not None:
        parts.append(show_segments(tokenizer, records, row, options.n_ctx))
    if options.vocabulary:
        parts.append(show_vocabulary(tokenizer))
    return "\n\n".join(parts)


if __name__ == "__main__":
    sys.exit(main())
