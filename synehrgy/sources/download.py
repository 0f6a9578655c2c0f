"""Published files: downloaded once, checked against their checksums, resumed where they broke off.

A file is written beside its place as ``NAME.part`` and renamed when it is complete and has the
checksum that is published, so that a file without ``.part`` is always whole.
"""

import hashlib
import http.client
import os
import re
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, NoReturn
from urllib.error import HTTPError
from urllib.request import Request, urlopen

from tqdm import tqdm

import synehrgy
from synehrgy.errors import UserError

try:
    import fcntl
except ImportError:  # Windows has no such locks
    fcntl = None  # type: ignore[assignment]

# Failures in a row without a single new byte before it gives up; after the n-th it waits
# FIRST_PAUSE * 2 ** n seconds, or as long as the server asks for, up to LONGEST_PAUSE.
TRIES = 4
FIRST_PAUSE = 1.0
LONGEST_PAUSE = 60.0
# Seconds without an answer or a byte after which a connection counts as broken.
PATIENCE = 30.0

_BLOCK = 1 << 18
# Answers that another try may change: too slow, too many requests, the server's own troubles.
_PASSING = {408, 429, *range(500, 600)}
_FAILURES = (http.client.HTTPException, OSError)


@dataclass(frozen=True)
class Published:
    """A file that somebody publishes.

    Attributes:
        url: where it is published, http or https.
        file: where it is to lie here.
        sha256: its checksum in hexadecimal digits; None if none is published.
        listed: the file here that the checksum is read from, if it is from one.
    """

    url: str
    file: Path
    sha256: str | None = None
    listed: Path | None = None

    @property
    def is_here(self) -> bool:
        """Whether it lies here, as published."""
        return self.file.is_file() and self.sha256 in (None, sha256_of(self.file))

    @property
    def part(self) -> Path:
        """What has come of it so far."""
        return self.file.with_name(f"{self.file.name}.part")


class _Broken(Exception):
    """A connection that failed and may work at another time; what has come is kept."""

    def __init__(self, reason: object, pause: float | None = None) -> None:
        super().__init__(str(reason) or type(reason).__name__)
        self.pause = pause


def download(files: Sequence[Published], remedy: str, progress: bool = True) -> None:
    """Get the files that are not here yet; those that are here as published are left alone.

    What came before a connection broke, or the program was stopped, is kept and gone on from. A
    file that is here but differs from what is published is replaced once the right one has come.

    Args:
        files: all below one folder, which is made if need be.
        remedy: what to do by hand if it fails, for the message.
        progress: whether to show a bar for each file.

    Raises:
        UserError: no network, no such file, a wrong checksum, or another download into the folder.
    """
    missing = [file for file in files if not file.is_here]
    if not missing:
        return
    folder = Path(os.path.commonpath([file.file.parent for file in files]))
    folder.mkdir(parents=True, exist_ok=True)
    with _alone_in(folder):
        if progress:
            print(f"Downloading into {folder}:", file=sys.stderr)
        try:
            for wanted in missing:
                _get(wanted, progress)
        except UserError as error:
            raise UserError(f"{error} {remedy}") from None


def sha256_of(file: Path) -> str:
    """The checksum of a file."""
    digest = hashlib.sha256()
    with file.open("rb") as content:
        while block := content.read(_BLOCK):
            digest.update(block)
    return digest.hexdigest()


def read_checksums(file: Path) -> dict[str, str]:
    """The checksums of a list as ``sha256sum`` writes it, such as PhysioNet's SHA256SUMS.txt.

    Returns:
        The checksum of each path.

    Raises:
        UserError: it is not such a list, as where a login page came instead.
    """
    found = {}
    try:
        lines = file.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"{file} cannot be read: {error}.") from None
    for number, line in enumerate(lines, start=1):
        row = re.fullmatch(r"([0-9a-fA-F]{64})\s+\*?(?:\./)?(\S.*)", line.strip())
        if row is None and line.strip():
            raise UserError(
                f"{file}, line {number}: expected a checksum and a file name, found "
                f"{line.strip()[:60]!r}. Remove the file and run again."
            )
        if row is not None:
            found[row[2]] = row[1].lower()
    return found


@contextmanager
def _alone_in(folder: Path) -> Iterator[None]:
    """Two processes that write the same file would spoil it."""
    if fcntl is None:
        yield
        return
    handle = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(handle)
        raise UserError(
            f"Another process is downloading into {folder}. Run again when it has finished."
        ) from None
    try:
        yield
    finally:
        os.close(handle)


def _get(wanted: Published, progress: bool) -> None:
    wanted.file.parent.mkdir(parents=True, exist_ok=True)
    # What was here before may be of another version of the file, so a wrong one gets another try.
    for _ in range(2):
        _get_all(wanted, progress)
        found = sha256_of(wanted.part)
        if wanted.sha256 in (None, found):
            os.replace(wanted.part, wanted.file)
            return
        wanted.part.unlink()
    hint = ""
    if wanted.listed is not None:
        hint = f" If it was published anew, remove {wanted.listed} and run the same command again."
    raise UserError(
        f"{wanted.url} came with the SHA-256 {found}, published is {wanted.sha256}: it was altered "
        f"on the way or has changed, and is not used.{hint}"
    )


def _get_all(wanted: Published, progress: bool) -> None:
    """Make ``wanted.part`` complete, over as many connections as it takes."""
    failures = 0
    with (
        wanted.part.open("ab") as part,
        tqdm(
            desc=wanted.file.name,
            disable=not progress,
            unit="B",
            unit_scale=True,
            unit_divisor=1024,
        ) as bar,
    ):
        while True:
            before = part.tell()
            try:
                _get_more(wanted.url, part, bar)
                return
            except _Broken as error:
                failures = 1 if part.tell() > before else failures + 1
                if failures >= TRIES:
                    raise UserError(
                        f"{wanted.url} cannot be downloaded: {error}. What has come is kept: check "
                        "the network and run the same command again."
                    ) from None
                pause = FIRST_PAUSE * 2.0 ** (failures - 1) if error.pause is None else error.pause
                tqdm.write(
                    f"{wanted.file.name}: {error}. Going on in {pause:.0f} s.", file=sys.stderr
                )
                time.sleep(pause)


def _get_more(url: str, part: BinaryIO, bar: "tqdm[NoReturn]") -> None:
    """One connection: append what is still missing, as far as it goes.

    Raises:
        _Broken: the connection failed or broke off.
        UserError: the server has no such file, or does not give it away.
    """
    start = part.tell()
    with _answer(url, start) as response:
        if response.status == 416:
            # Nothing comes after what is here: it is complete, or of no use; the checksum tells.
            return
        if response.status == 206 and _first_byte(response) != start:
            _empty(part)
            raise _Broken(f"other bytes came than those from {start:,} on")
        if response.status != 206 and start:
            # A server without ranges sends everything again.
            _empty(part)
        length = response.headers.get("Content-Length")
        total = part.tell() + int(length) if length else None
        bar.total, bar.n = total, part.tell()
        bar.refresh()
        while block := _block(response):
            part.write(block)
            bar.update(len(block))
        if total is not None and part.tell() < total:
            raise _Broken(f"the connection broke off after {part.tell():,} of {total:,} bytes")


def _answer(url: str, start: int) -> Any:
    """The server's answer to a request for the bytes from ``start`` on: 200, 206 or 416."""
    if not url.startswith(("http://", "https://")):
        raise UserError(f"{url!r} is no address that begins with http:// or https://.")
    # Compressed on the way, other bytes would be counted than those of the file.
    headers = {"User-Agent": f"SynEHRgy/{synehrgy.__version__}", "Accept-Encoding": "identity"}
    if start:
        headers["Range"] = f"bytes={start}-"
    try:
        return urlopen(Request(url, headers=headers), timeout=PATIENCE)
    except HTTPError as error:
        if error.code == 416 and start:
            return error
        with error:
            reason = f"the server answers {error.code} {error.reason}"
            if error.code in _PASSING:
                asked = error.headers.get("Retry-After", "")
                pause = min(float(asked), LONGEST_PAUSE) if asked.isdigit() else None
                raise _Broken(reason, pause) from None
        raise UserError(f"{url} cannot be downloaded: {reason}.") from None
    except _FAILURES as error:
        raise _Broken(getattr(error, "reason", error)) from None


def _block(response: Any) -> bytes:
    try:
        return bytes(response.read1(_BLOCK))
    except _FAILURES as error:
        raise _Broken(error) from None


def _first_byte(response: Any) -> int | None:
    found = re.match(r"bytes (\d+)-", response.headers.get("Content-Range", ""))
    return int(found[1]) if found else None


def _empty(part: BinaryIO) -> None:
    part.seek(0)
    part.truncate()
