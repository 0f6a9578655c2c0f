"""Which split each patient belongs to."""

import csv
import re
from collections.abc import Iterable
from hashlib import blake2b
from pathlib import Path

from synehrgy.errors import UserError

TRAIN_SHARE, VAL_SHARE = 0.70, 0.15


class Splits:
    """Assigns patients to train, val and test.

    With ``testset.csv`` or ``valset.csv`` in ``split_dir``, each of rows ``subject,flag`` without a
    header: subjects flagged 1 in the first are test, of the rest those flagged 1 in the second val,
    all others train. With neither list: 70/15/15 by a hash of the subject id, which is the same on
    every machine and whatever other patients there are.

    Args:
        split_dir: folder of the lists; None: by hash.
        texts: whether subjects may be texts, and are not just whole numbers.

    Attributes:
        rule: ``by the lists in <folder>`` or ``by hash``.

    Raises:
        UserError: ``split_dir`` is given but does not exist or has no list, or a list has a row
            that is no ``subject,flag``.
    """

    def __init__(self, split_dir: Path | None, texts: bool = False) -> None:
        if split_dir is not None and not split_dir.is_dir():
            raise UserError(
                f"The folder of split lists {split_dir} does not exist. Give the folder of "
                "testset.csv and valset.csv (data.split_dir=...), or null to split by hash."
            )
        files = {
            split: split_dir / f"{split}set.csv"
            for split in ("test", "val")
            if split_dir is not None and (split_dir / f"{split}set.csv").is_file()
        }
        if split_dir is not None and not files:
            raise UserError(
                f"{split_dir} has neither testset.csv nor valset.csv. Give the folder of the split "
                "lists (data.split_dir=...), or null to split by hash."
            )
        self._listed = {split: _read_list(file, texts) for split, file in files.items()}
        self.rule = f"by the lists in {split_dir}" if files else "by hash"

    def assign(self, subjects: Iterable[int | str]) -> list[str]:
        """The split of each subject: ``train``, ``val`` or ``test``."""
        return [self._of(subject) for subject in subjects]

    def _of(self, subject: int | str) -> str:
        if not self._listed:
            return _split_by_hash(subject)
        for split, listed in self._listed.items():
            if _plain(subject) in listed:
                return split
        return "train"


def _split_by_hash(subject: int | str) -> str:
    digest = blake2b(str(subject).encode(), digest_size=8).digest()
    share = int.from_bytes(digest, "big") / 2**64
    if share < TRAIN_SHARE:
        return "train"
    return "val" if share < TRAIN_SHARE + VAL_SHARE else "test"


def _plain(subject: int | str) -> str:
    """A subject as text: a whole number without leading zeros, or zeros after its point."""
    text = re.sub(r"^(\d+)\.0+$", r"\1", str(subject).strip())
    return str(int(text)) if text.isdecimal() else text


def _read_list(file: Path, texts: bool) -> set[str]:
    """The subjects flagged 1."""
    listed = set()
    what = "an identifier" if texts else "a number"
    try:
        with file.open(encoding="utf-8-sig", newline="") as lines:
            for number, row in enumerate(csv.reader(lines), start=1):
                if not row:
                    continue
                if (
                    len(row) != 2
                    or not ((texts and row[0].strip()) or row[0].strip().isdecimal())
                    or row[1].strip() not in ("0", "1")
                ):
                    raise UserError(
                        f"{file}, line {number}: expected subject,flag ({what} and 0 or 1, no "
                        f"header), found {','.join(row)!r}. Use the benchmark's list as it is."
                    )
                if row[1].strip() == "1":
                    listed.add(_plain(row[0]))
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise UserError(f"{file} cannot be read: {error}.") from None
    return listed
