"""A synthetic cohort against a real one; see `python evaluate.py --help`."""

from synehrgy.programs import evaluate

if __name__ == "__main__":
    evaluate()
