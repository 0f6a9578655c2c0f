"""Outputs appear whole or not at all."""

import json
import os
from pathlib import Path

import pytest

from synehrgy.errors import UserError
from synehrgy.files import new_folder, read_json, write_json, write_text


def never(path):
    return False


def always(path):
    return True


@pytest.fixture
def earlier(tmp_path):
    """A folder of results that was there before."""
    path = tmp_path / "results"
    path.mkdir()
    (path / "old.txt").write_text("old")
    return path


def names(folder):
    return sorted(entry.name for entry in folder.iterdir())


def test_json_comes_back_with_umlauts_and_a_final_newline(tmp_path):
    file = tmp_path / "deep" / "er" / "file.json"
    content = {"Größe": [1, 2.5, None, True], "empty": {}}
    write_json(file, content)
    assert read_json(file) == content
    text = file.read_text(encoding="utf-8")
    assert "Größe" in text
    assert text.endswith("}\n")


@pytest.mark.parametrize("content", [float("nan"), float("inf"), {"a": object()}])
def test_what_is_not_json_leaves_the_earlier_file(tmp_path, content):
    file = tmp_path / "file.json"
    write_json(file, [1])
    with pytest.raises((ValueError, TypeError)):
        write_json(file, content)
    assert read_json(file) == [1]
    assert names(tmp_path) == ["file.json"]


@pytest.mark.parametrize("error", [OSError("disk full"), KeyboardInterrupt()])
def test_interrupted_text_leaves_the_earlier_file_and_nothing_else(tmp_path, monkeypatch, error):
    file = tmp_path / "file.txt"
    write_text(file, "old")

    def fail(*args):
        raise error

    monkeypatch.setattr("synehrgy.files.os.replace", fail)
    with pytest.raises(type(error)):
        write_text(file, "new")
    assert file.read_text() == "old"
    assert names(tmp_path) == ["file.txt"]


@pytest.mark.parametrize("content", [b'{"a": ', b"", b"\xff\xfe\x00"])
def test_damaged_json_is_named(tmp_path, content):
    file = tmp_path / "meta.json"
    file.write_bytes(content)
    with pytest.raises(UserError, match=r"meta\.json is damaged"):
        read_json(file)


def test_missing_json_is_named(tmp_path):
    with pytest.raises(UserError, match=r"gone\.json does not exist"):
        read_json(tmp_path / "gone.json")


def test_folder_appears_only_at_the_end(tmp_path):
    path = tmp_path / "a" / "results"
    with new_folder(path, never) as folder:
        (folder / "file").write_text("x")
        assert not path.exists()
    assert names(path) == ["file"]
    assert names(path.parent) == ["results"]


def test_earlier_folder_is_replaced_whole(earlier):
    with new_folder(earlier, always) as folder:
        (folder / "new.txt").write_text("new")
        assert names(earlier) == ["old.txt"]
    assert names(earlier) == ["new.txt"]
    assert names(earlier.parent) == ["results"]


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt, SystemExit])
def test_failure_leaves_the_earlier_folder_and_nothing_else(earlier, error):
    def fail():
        with new_folder(earlier, always) as folder:
            (folder / "half").write_text("x")
            raise error

    with pytest.raises(error):
        fail()
    assert names(earlier) == ["old.txt"]
    assert names(earlier.parent) == ["results"]


@pytest.mark.parametrize("error", [OSError("disk full"), KeyboardInterrupt()])
@pytest.mark.parametrize("failing", [1, 2])
def test_failure_between_the_renames_leaves_the_earlier_folder(
    earlier, monkeypatch, error, failing
):
    rename, calls = os.replace, []

    def fail_once(source, target):
        calls.append(target)
        if len(calls) == failing:
            raise error
        rename(source, target)

    monkeypatch.setattr("synehrgy.files.os.replace", fail_once)
    with pytest.raises(type(error)), new_folder(earlier, always) as folder:
        (folder / "new.txt").write_text("new")
    assert names(earlier) == ["old.txt"]
    assert names(earlier.parent) == ["results"]


def test_foreign_folder_is_refused_before_any_work(earlier):
    worked = []
    with pytest.raises(UserError, match="not written by this program"), new_folder(earlier, never):
        worked.append(1)
    assert worked == []
    assert names(earlier) == ["old.txt"]
    assert names(earlier.parent) == ["results"]


def test_file_in_the_way_is_refused(tmp_path):
    (tmp_path / "results").write_text("a file")
    with (
        pytest.raises(UserError, match="already exists"),
        new_folder(tmp_path / "results", always),
    ):
        pass
    assert (tmp_path / "results").read_text() == "a file"


def test_empty_folder_needs_no_permission(tmp_path):
    (tmp_path / "results").mkdir()
    with new_folder(tmp_path / "results", never) as folder:
        (folder / "file").write_text("x")
    assert names(tmp_path / "results") == ["file"]


def test_relative_path_means_the_place_at_the_beginning(tmp_path, monkeypatch):
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path)
    with new_folder(Path("results"), never) as folder:
        (folder / "file.json").write_text(json.dumps(1))
        monkeypatch.chdir(tmp_path / "elsewhere")
    assert names(tmp_path / "results") == ["file.json"]
    assert names(tmp_path / "elsewhere") == []


def test_link_to_a_folder_stays_a_link(earlier, tmp_path):
    link = tmp_path / "link"
    link.symlink_to(earlier)
    with new_folder(link, always) as folder:
        (folder / "new.txt").write_text("new")
    assert link.is_symlink()
    assert names(earlier) == ["new.txt"]
