"""Tokens to a model; see `python train.py --help`."""

from synehrgy.programs import train

if __name__ == "__main__":
    train()
