"""Weights & Biases is used when a key is there, and is never needed."""

import json

import pytest

from synehrgy.settings import WandbSettings
from synehrgy.training import tracking
from synehrgy.training.tracking import Tracker

# The fixture of all tests replaces this function.
wandb_key = tracking.wandb_key


class FakeRun:
    def __init__(self):
        self.logged, self.finished = [], None

    def log(self, metrics, step):
        self.logged.append((step, metrics))

    def finish(self, exit_code):
        self.finished = exit_code


@pytest.fixture
def fake(monkeypatch):
    run = FakeRun()
    monkeypatch.setenv("WANDB_API_KEY", "a key")
    monkeypatch.setattr("wandb.init", lambda **settings: setattr(run, "settings", settings) or run)
    return run


def lines(file):
    return [json.loads(line) for line in file.read_text().splitlines()]


def test_silent_without_a_key(tmp_path, monkeypatch):
    monkeypatch.setattr("wandb.init", lambda **settings: pytest.fail("wandb was started"))
    with Tracker(tmp_path / "m.jsonl", WandbSettings("project"), "run", {}) as tracker:
        tracker.log(epoch=1, val_loss=2.0)
    assert lines(tmp_path / "m.jsonl") == [{"epoch": 1, "val_loss": 2.0}]


def test_logs_with_a_key(tmp_path, fake):
    with Tracker(tmp_path / "m.jsonl", WandbSettings("project"), "run", {"seed": 1}) as tracker:
        tracker.log(epoch=3, val_loss=2.0)
    assert fake.settings["project"] == "project"
    assert fake.settings["name"] == "run"
    assert fake.settings["config"] == {"seed": 1}
    assert fake.logged == [(3, {"epoch": 3, "val_loss": 2.0})]
    assert fake.finished == 0
    assert lines(tmp_path / "m.jsonl") == [{"epoch": 3, "val_loss": 2.0}]


def test_a_failed_training_is_marked_as_failed(tmp_path, fake):
    with (
        pytest.raises(RuntimeError),
        Tracker(tmp_path / "m.jsonl", WandbSettings("project"), "run", {}),
    ):
        raise RuntimeError
    assert fake.finished == 1


def test_training_goes_on_without_their_server(tmp_path, monkeypatch, capsys):
    import wandb

    def unreachable(**settings):
        raise wandb.Error("no network")

    monkeypatch.setenv("WANDB_API_KEY", "a key")
    monkeypatch.setattr("wandb.init", unreachable)
    with Tracker(tmp_path / "m.jsonl", WandbSettings("project"), "run", {}) as tracker:
        tracker.log(epoch=1, val_loss=2.0)
    assert "Not logging to Weights & Biases: no network" in capsys.readouterr().out
    assert len(lines(tmp_path / "m.jsonl")) == 1


def test_a_diverged_loss_is_still_json(tmp_path):
    with Tracker(tmp_path / "m.jsonl", WandbSettings("project"), "run", {}) as tracker:
        tracker.log(epoch=1, val_loss=float("nan"), val_perplexity=float("inf"))
    assert lines(tmp_path / "m.jsonl") == [{"epoch": 1, "val_loss": None, "val_perplexity": None}]


def test_the_key_may_stand_in_a_file(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(tracking, "workspace", lambda: tmp_path / "nowhere")
    assert wandb_key() is None
    (tmp_path / ".env").write_text("WANDB_API_KEY=from-a-file\n")
    assert wandb_key() == "from-a-file"


def test_offline_needs_no_key_and_disabled_never_starts(tmp_path, fake, monkeypatch):
    monkeypatch.delenv("WANDB_API_KEY")
    with Tracker(tmp_path / "m.jsonl", WandbSettings(mode="offline"), "run", {}) as tracker:
        tracker.log(epoch=1, val_loss=2.0)
    assert fake.settings["mode"] == "offline"
    # Nothing of the machine, of the code or of what is printed goes along.
    told = fake.settings["settings"]
    assert (told.console, told.disable_git, told.disable_code) == ("off", True, True)
    assert (told.x_disable_meta, told.x_save_requirements) == (True, False)
    assert fake.logged == [(1, {"epoch": 1, "val_loss": 2.0})]
    monkeypatch.setenv("WANDB_API_KEY", "a key")
    monkeypatch.setattr("wandb.init", lambda **settings: pytest.fail("wandb was started"))
    with Tracker(tmp_path / "m.jsonl", WandbSettings(mode="disabled"), "run", {}) as tracker:
        tracker.log(epoch=1, val_loss=2.0)


def test_the_real_thing_offline(tmp_path):
    """Without a network a folder is written that can be uploaded later."""
    with Tracker(
        tmp_path / "m.jsonl", WandbSettings(mode="offline"), "run", {"seed": 1}
    ) as tracker:
        tracker.log(epoch=1, val_loss=2.0)
        tracker.summarise(folder="here")
    assert list((tmp_path / "wandb").glob("offline-run-*/*.wandb"))


def test_the_result_and_its_place_are_told(tmp_path, fake):
    fake.summary = {}
    with Tracker(tmp_path / "m.jsonl", WandbSettings(), "run", {}) as tracker:
        tracker.summarise(val_loss=1.5, folder="saved_models/run")
    assert fake.summary == {"val_loss": 1.5, "folder": "saved_models/run"}
