"""A synthetic cohort against a real one; see `python evaluate.py --help`."""

from synehrgy.cli import run
from synehrgy.commands import evaluate

if __name__ == "__main__":
    run("evaluate", evaluate)
