"""Tokens to a model; see `python train.py --help`."""

from synehrgy.cli import run
from synehrgy.commands import train

if __name__ == "__main__":
    run("train", train)
