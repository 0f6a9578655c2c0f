"""Raw tables to a cohort and its tokens; see `python preprocess.py --help`."""

from synehrgy.cli import run
from synehrgy.commands import preprocess

if __name__ == "__main__":
    run("preprocess", preprocess)
