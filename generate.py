"""A model to synthetic patients; see `python generate.py --help`."""

from synehrgy.cli import run
from synehrgy.commands import generate

if __name__ == "__main__":
    run("generate", generate)
