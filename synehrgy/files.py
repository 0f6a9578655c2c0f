"""Outputs appear whole or not at all: everything is written aside and then renamed."""

import json
import os
import shutil
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import yaml

from synehrgy.errors import UserError

PACKAGE = Path(__file__).resolve().parent
REPOSITORY = PACKAGE.parent
# A wheel carries the files of settings inside the package; a checkout has them beside it.
INSTALLED = (PACKAGE / "configs").is_dir()
CONFIG_DIR = (PACKAGE if INSTALLED else REPOSITORY) / "configs"


def workspace() -> Path:
    """The folder of ``data/``, ``saved_models/`` and ``Results/``.

    The repository, whatever the working directory; of an installed package the working directory.
    """
    return Path.cwd() if INSTALLED else REPOSITORY


def write_text(path: Path, text: str) -> None:
    """Write a text file in one step."""
    write_bytes(path, text.encode())


def write_bytes(path: Path, content: bytes) -> None:
    """Write a file in one step."""
    path.parent.mkdir(parents=True, exist_ok=True)
    aside = path.with_name(f".{path.name}.{uuid.uuid4().hex[:8]}")
    try:
        aside.write_bytes(content)
        os.replace(aside, path)
    finally:
        aside.unlink(missing_ok=True)


def write_json(path: Path, content: Any) -> None:
    """Write JSON in one step: indented, UTF-8, refusing NaN, which is not JSON."""
    text = json.dumps(content, indent=2, ensure_ascii=False, allow_nan=False)
    write_text(path, text + "\n")


def read_json(path: Path) -> Any:
    """Read a JSON file; a UserError names the file when it is missing or damaged."""
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise UserError(f"{path} does not exist.") from None
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise UserError(
            f"{path} is damaged ({error}). Restore it from a copy, or make it anew."
        ) from error


def read_yaml(path: Path) -> dict[str, Any]:
    """Read a YAML file of settings; a UserError names the file when it is missing or damaged."""
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise UserError(f"{path} does not exist.") from None
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise UserError(f"{path} is damaged: {error}") from error
    if not isinstance(content, dict):
        raise UserError(f"{path} is damaged: it holds no settings.")
    return content


@contextmanager
def new_folder(path: Path, replaceable: Callable[[Path], bool]) -> Iterator[Path]:
    """Yield a temporary folder that becomes ``path`` when the block ends without an error.

    An earlier folder at ``path`` is replaced if it is empty or ``replaceable(path)``; anything
    else is somebody's own data and is refused with a UserError before any work is done.
    After an error or an interruption neither the temporary folder nor a part of it remains, and
    an earlier folder is as it was.
    """
    # Resolved once: the place meant is the one meant now, even if the working directory changes.
    path = path.resolve()
    if path.is_file() or (path.is_dir() and any(path.iterdir()) and not replaceable(path)):
        raise UserError(
            f"{path} already exists and was not written by this program, so it is not replaced. "
            "Choose another folder or remove it."
        )
    path.parent.mkdir(parents=True, exist_ok=True)
    aside = path.with_name(f".{path.name}.{uuid.uuid4().hex[:8]}.partial")
    replaced = path.with_name(f"{aside.name}.replaced")
    aside.mkdir()
    try:
        yield aside
        try:
            if path.exists():
                os.replace(path, replaced)
            os.replace(aside, path)
        except BaseException:
            # Also on an interruption: the earlier folder must never be lost between two renames.
            if replaced.exists() and not path.exists():
                os.replace(replaced, path)
            raise
    finally:
        shutil.rmtree(aside, ignore_errors=True)
        if path.exists():
            shutil.rmtree(replaced, ignore_errors=True)
