"""A database on disk for the rows of an extraction, so that memory does not grow with them."""

import signal
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext, suppress
from pathlib import Path
from tempfile import TemporaryDirectory
from threading import Event, Thread, current_thread, main_thread
from types import FrameType

import duckdb
from tqdm import tqdm

from synehrgy.errors import UserError
from synehrgy.sources.reading import first_line, sql_text

# Set by an interruption while a database is open.
_interrupted = Event()


@contextmanager
def _remembering_interruptions() -> Iterator[None]:
    """Remember Ctrl-C: DuckDB, which looks for it while a query runs, has been seen to lose it."""
    usual = signal.default_int_handler
    if current_thread() is not main_thread() or signal.getsignal(signal.SIGINT) is not usual:
        yield
        return

    def remember(number: int, frame: FrameType | None) -> None:
        _interrupted.set()
        usual(number, frame)

    signal.signal(signal.SIGINT, remember)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, usual)
        _interrupted.clear()


@contextmanager
def database(
    path: Path, memory_limit: str, threads: int | None
) -> Iterator[tuple[duckdb.DuckDBPyConnection, Path]]:
    """A database on disk beside ``path`` that is removed when the block ends.

    Yields:
        The connection, and the file that has the profile of the latest query.
    """
    path = path.resolve()
    path.parent.mkdir(parents=True, exist_ok=True)
    with TemporaryDirectory(dir=path.parent, prefix=f".{path.name}.") as folder:
        profile = Path(folder) / "profile.json"
        settings: dict[str, str | bool | int | float | list[str]] = {
            "memory_limit": memory_limit,
            "temp_directory": f"{folder}/spilled",
            # Rows are sorted when they are written, so their order before does not matter.
            "preserve_insertion_order": "false",
        }
        if threads is not None:
            settings["threads"] = threads
        try:
            connection = duckdb.connect(f"{folder}/events.duckdb", config=settings)
        except duckdb.Error as error:
            raise UserError(
                f"memory_limit={memory_limit} or threads={threads} is refused: {first_line(error)}."
                " Give a size such as 4GB, and a positive number or null."
            ) from None
        try:
            with connection, _remembering_interruptions():
                # A query's profile tells the rows it read.
                connection.execute(
                    f"SET enable_profiling = 'json'; SET profiling_output = {sql_text(profile)}"
                )
                # Progress is shown here, not by DuckDB, which in a notebook does not even count it
                # without a package of its own.
                with suppress(duckdb.InvalidInputException):
                    connection.execute("SET enable_progress_bar = true")
                    connection.execute("SET enable_progress_bar_print = false")
                yield connection, profile
        except duckdb.OutOfMemoryException as error:
            raise UserError(
                f"The memory limit {memory_limit} is too small, or the disk of {path.parent} is "
                f"full: {first_line(error)}. Raise memory_limit, lower threads or make room."
            ) from None
        except RuntimeError as error:
            # This is how DuckDB passes on an interruption by the keyboard.
            if str(error) == "Query interrupted":
                raise KeyboardInterrupt from None
            raise
        except duckdb.IOException as error:
            raise UserError(
                f"The temporary files beside {path} cannot be written: {first_line(error)}."
            ) from None


def count_rows(connection: duckdb.DuckDBPyConnection, table: str) -> int:
    """How many rows a table has."""
    ((count,),) = connection.execute(f"SELECT count(*) FROM {table}").fetchall()
    return int(count)


@contextmanager
def watched(connection: duckdb.DuckDBPyConnection, title: str, show: bool) -> Iterator[None]:
    """Show how far the query is that runs inside the block.

    Raises:
        KeyboardInterrupt: somebody interrupted it, and DuckDB went on.
    """
    with _progress(connection, title) if show else nullcontext():
        yield
    if _interrupted.is_set():
        raise KeyboardInterrupt


@contextmanager
def _progress(connection: duckdb.DuckDBPyConnection, title: str) -> Iterator[None]:
    form = "{desc}: {percentage:3.0f}%|{bar}| {elapsed}<{remaining}"
    done = Event()
    with tqdm(total=100.0, desc=title, bar_format=form) as bar:

        def watch() -> None:
            while not done.wait(0.2):
                bar.update(max(0.0, connection.query_progress() - bar.n))

        watcher = Thread(target=watch, daemon=True)
        watcher.start()
        try:
            yield
        finally:
            done.set()
            watcher.join()
        bar.update(100.0 - bar.n)
