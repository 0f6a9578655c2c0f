"""``python -m synehrgy.cohort export``, as a user runs it."""

import subprocess
import sys

import pytest

from synehrgy.cohort import EXPORTS
from synehrgy.cohort.__main__ import main
from synehrgy.files import REPOSITORY
from tests.cohorts import small_cohort, write


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    path = tmp_path_factory.mktemp("export") / "cohort"
    write(small_cohort(20), path)
    return path


@pytest.mark.parametrize("name", EXPORTS)
def test_each_format_is_what_its_function_writes(name, folder, tmp_path, capsys):
    assert main(["export", name, str(folder), str(tmp_path / "command")]) == 0
    files = EXPORTS[name](folder, tmp_path / "function")
    shown = capsys.readouterr().out
    assert shown == f"Wrote {len(files)} files to {tmp_path / 'command'}\n"
    contents = [
        {f.relative_to(root): f.read_bytes() for f in root.rglob("*") if f.is_file()}
        for root in (tmp_path / "command", tmp_path / "function")
    ]
    assert contents[0] == contents[1]
    assert len(contents[0]) >= len(files) > 0


def test_errors_are_told_without_a_traceback(tmp_path):
    run = subprocess.run(
        [sys.executable, "-m", "synehrgy.cohort", "export", "meds", tmp_path, tmp_path / "out"],
        capture_output=True,
        text=True,
        cwd=REPOSITORY,
    )
    assert run.returncode == 1
    assert run.stderr.startswith("Error: ")
    assert "is not a cohort" in run.stderr
    assert "Traceback" not in run.stderr
    assert not (tmp_path / "out").exists()


def test_an_unknown_format_is_refused(folder, tmp_path, capsys):
    with pytest.raises(SystemExit) as refusal:
        main(["export", "excel", str(folder), str(tmp_path / "out")])
    assert refusal.value.code == 2
    assert "'excel'" in capsys.readouterr().err


@pytest.mark.parametrize("name", EXPORTS)
def test_what_is_in_a_folder_is_not_replaced_unasked(name, folder, tmp_path, capsys):
    target = tmp_path / "out"
    target.mkdir()
    assert main(["export", name, str(folder), str(target)]) == 0
    files = {f: f.stat().st_mtime_ns for f in target.rglob("*")}
    assert main(["export", name, str(folder), str(target)]) == 1
    assert f"{target} is not empty. --overwrite" in capsys.readouterr().err
    assert {f: f.stat().st_mtime_ns for f in target.rglob("*")} == files
    assert main(["export", name, str(folder), str(target), "--overwrite"]) == 0
    # What is no export stays even then.
    (target / "notes.txt").write_text("mine")
    assert main(["export", name, str(folder), str(target), "--overwrite"]) == 1
    assert (target / "notes.txt").read_text() == "mine"


@pytest.mark.parametrize("more", [[], ["--overwrite"]])
def test_a_cohort_is_not_exported_into_itself(folder, more, capsys):
    assert main(["export", "csv", str(folder), str(folder / ".." / "cohort"), *more]) == 1
    assert "are the same folder" in capsys.readouterr().err
    assert (folder / "cohort.json").exists()
