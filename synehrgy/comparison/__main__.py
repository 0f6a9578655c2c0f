"""``python -m synehrgy.comparison data=<data>``: all generators on one cohort, in one table."""

from synehrgy.cli import run
from synehrgy.commands import comparison

if __name__ == "__main__":
    run("comparison", comparison)
