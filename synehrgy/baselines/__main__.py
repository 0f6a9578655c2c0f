"""``python -m synehrgy.baselines name=<name> data=<data>``: another generator's patients."""

from synehrgy.cli import run
from synehrgy.commands import baseline

if __name__ == "__main__":
    run("baseline", baseline)
