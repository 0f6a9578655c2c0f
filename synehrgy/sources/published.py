"""What is open to all: the tables of PhysioNet's demos, and the splits of the mimic3-benchmarks."""

import os
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path, PurePosixPath
from urllib.parse import quote

from synehrgy.errors import UserError
from synehrgy.sources.download import Published, download, read_checksums

# Each project of PhysioNet has this list of all its files.
CHECKSUMS = "SHA256SUMS.txt"
SUFFIXES = (".csv.gz", ".csv")

# Harutyunyan et al., Scientific Data 6, 96 (2019); MIT licence. The same files since 2017.
BENCHMARK_URL = "https://raw.githubusercontent.com/YerevaNN/mimic3-benchmarks/master"
BENCHMARK_LISTS = {
    "mimic3benchmark/resources/testset.csv": (
        "206d879065dd7ae245e8d8b2bddf962b300f1c21c0351dc7b2ceaf9c308b243a"
    ),
    "mimic3models/resources/valset.csv": (
        "e4d70f15f5926b8512ee3542b427333cc7f8bf2109d98ee6568eaee54f650430"
    ),
}


def download_tables(url: str, folder: Path, names: Iterable[str], progress: bool = True) -> None:
    """Get the named tables of an open database, and the list of its checksums, into a folder.

    Args:
        url: folder of the files on a server, with a list ``SHA256SUMS.txt``, as PhysioNet has it.
        folder: where they go; what is there as published is left alone.
        names: of the tables, in lower case, without ``.csv`` or ``.csv.gz``; they may lie in
            folders, which they keep.
        progress: whether to show a bar for each file.

    Raises:
        UserError: a file that cannot be had, or is not as published; says what to do by hand.
    """
    names, base = list(names), url.rstrip("/")
    remedy = (
        f"By hand: put {CHECKSUMS}, {', '.join(name.upper() for name in names)} from {base}/ into "
        f"{folder}; or the tables into a folder of your own and give it as data.raw_dir=<folder>."
    )
    sums = Published(f"{base}/{CHECKSUMS}", folder / CHECKSUMS)
    was_here = sums.is_here
    download([sums], remedy, progress=False)
    try:
        checksums = read_checksums(sums.file)
    except UserError:
        if not was_here:
            # The page of a login or of an outage; the list may come at another time.
            sums.file.unlink()
        raise
    chosen = _chosen(checksums, names)
    if was_here and len(chosen) < len(names):
        # The list may have come from another address, or be an old one.
        lacking = ", ".join(name.upper() for name in names if name not in chosen)
        checksums = _anew(sums, f"{sums.file} lists no {lacking}", remedy)
        chosen = _chosen(checksums, names)
    if lacking := ", ".join(name.upper() for name in names if name not in chosen):
        raise UserError(f"{sums.file} lists no {lacking}. Is {base}/ the right address?")
    files = [
        Published(f"{base}/{quote(path)}", folder / path, checksums[path], sums.file)
        for path in chosen.values()
    ]
    download(files, remedy, progress)


def _chosen(checksums: Mapping[str, str], names: Sequence[str]) -> dict[str, str]:
    """The path of each table that a list has, by its name."""
    # Nothing that a server lists may lead out of the folder.
    listed = {path: PurePosixPath(path) for path in checksums}
    paths = {
        pure.name.lower(): path
        for path, pure in listed.items()
        if ".." not in pure.parts and not pure.is_absolute()
    }
    return {
        name: paths[name + suffix]
        for name in names
        for suffix in SUFFIXES
        if name + suffix in paths
    }


def _anew(sums: Published, why: str, remedy: str) -> dict[str, str]:
    """Fetch a list that is here once more, and read it; the old one stays until then.

    Raises:
        UserError: it cannot be had, or what comes is no list; begins with ``why``.
    """
    fresh = Published(sums.url, sums.file.with_name(f"{sums.file.name}.new"))
    leftovers = (fresh.file, fresh.part)
    for file in leftovers:
        file.unlink(missing_ok=True)
    try:
        try:
            download([fresh], remedy, progress=False)
        except UserError as error:
            raise UserError(f"{why}, and there is no newer list: {error}") from None
        try:
            found = read_checksums(fresh.file)
        except UserError:
            raise UserError(
                f"{why}, and {sums.url} is no list of checksums. Is it the right address?"
            ) from None
        os.replace(fresh.file, sums.file)
    finally:
        for file in leftovers:
            file.unlink(missing_ok=True)
    return found


def download_benchmark_lists(folder: Path, progress: bool = True) -> None:
    """Get the lists of the test and validation patients of the mimic3-benchmarks into a folder.

    Raises:
        UserError: a list that cannot be had, or is not as published; says what to do by hand.
    """
    files = [
        Published(f"{BENCHMARK_URL}/{path}", folder / Path(path).name, checksum)
        for path, checksum in BENCHMARK_LISTS.items()
    ]
    remedy = (
        f"By hand: put {' and '.join(file.url for file in files)} into {folder}, or into a folder "
        "of your own and give it as data.split_dir=<folder>."
    )
    download(files, remedy, progress)
