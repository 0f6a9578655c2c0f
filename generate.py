"""A model to synthetic patients; see `python generate.py --help`."""

from synehrgy.programs import generate

if __name__ == "__main__":
    generate()
