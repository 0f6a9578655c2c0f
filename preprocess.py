"""Raw tables to a cohort and its tokens; see `python preprocess.py --help`."""

from synehrgy.programs import preprocess

if __name__ == "__main__":
    preprocess()
