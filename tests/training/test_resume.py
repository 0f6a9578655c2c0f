"""A stopped training goes on to the very weights of one that was not."""

import json
import os
import re
import signal
import subprocess
import sys
import time

import pytest
import torch
from safetensors.torch import load_file

from synehrgy.cli import compose
from synehrgy.errors import UserError
from synehrgy.files import REPOSITORY
from synehrgy.training import loop, resume
from synehrgy.training.loop import train
from synehrgy.training.trainer import Trainer
from tests.conftest import train_overrides

# Dropout, so that the random state matters; each step kept, so that every moment can be tried.
MORE = ["train.epochs=3", "model.dropout=0.2", "hparams.n_ctx=64", "hparams.mini_batch=32"]


def settings(cohort_folder, saved_models, *more):
    overrides = train_overrides(cohort_folder, saved_models, *MORE, "train.save_minutes=0", *more)
    return compose("train", overrides)


def outcome(folder):
    """Final weights, and the metrics but for the speed."""
    lines = (folder / "metrics.jsonl").read_text().splitlines()
    metrics = [json.loads(line) for line in lines]
    for line in metrics:
        del line["tokens_per_second"]
    return load_file(folder / "model.safetensors"), metrics


def same(one, other):
    return one[1] == other[1] and all(torch.equal(one[0][name], other[0][name]) for name in one[0])


@pytest.fixture(scope="module")
def uninterrupted(cohort_folder, tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        patch.delenv("WANDB_API_KEY", raising=False)
        patch.setattr("synehrgy.training.tracking.wandb_key", lambda: None)
        folder = train(settings(cohort_folder, tmp_path_factory.mktemp("whole")))
    # Nothing to resume is left of a run that has finished.
    assert not (folder / "checkpoints").exists()
    return outcome(folder)


def stopped_after(monkeypatch, n_steps, error=KeyboardInterrupt):
    """Let training break after so many steps, in the middle of an optimiser step."""
    original, steps = Trainer.step, []

    def step(self, rows, epoch):
        if len(steps) == n_steps:
            raise error
        steps.append(epoch)
        return original(self, rows, epoch)

    monkeypatch.setattr(Trainer, "step", step)


@pytest.mark.parametrize("n_steps", [0, 1, 4, 5, 8, 11])
def test_broken_off_anywhere_it_goes_on_to_the_same_weights(
    cohort_folder, tmp_path, monkeypatch, uninterrupted, n_steps
):
    with monkeypatch.context() as patch:
        stopped_after(patch, n_steps)
        with pytest.raises(KeyboardInterrupt):
            train(settings(cohort_folder, tmp_path))
    torch.manual_seed(12345)
    folder = train(settings(cohort_folder, tmp_path, "resume=True"))
    assert same(outcome(folder), uninterrupted)
    assert len(json.loads((folder / "run.json").read_text())["resumed"]) == 1


def test_broken_off_in_validation_and_twice(cohort_folder, tmp_path, monkeypatch, uninterrupted):
    for n in (2, 1):
        with monkeypatch.context() as patch:
            calls = []

            def evaluate(self, after_batch=None, calls=calls, n=n, original=Trainer.evaluate):
                calls.append(n)
                if len(calls) == n:
                    raise KeyboardInterrupt
                return original(self, after_batch)

            patch.setattr(Trainer, "evaluate", evaluate)
            with pytest.raises(KeyboardInterrupt):
                train(settings(cohort_folder, tmp_path, "resume=True"))
    folder = train(settings(cohort_folder, tmp_path, "resume=True"))
    assert same(outcome(folder), uninterrupted)


def test_a_full_disk_leaves_the_checkpoint_before(
    cohort_folder, tmp_path, monkeypatch, uninterrupted
):
    original, saved = resume.save_file, []

    def disk_full(tensors, path):
        saved.append(path)
        if len(saved) == 20:
            path.write_bytes(b"half")
            raise OSError("No space left on device")
        original(tensors, path)

    with monkeypatch.context() as patch:
        patch.setattr(resume, "save_file", disk_full)
        with pytest.raises(OSError, match="No space left"):
            train(settings(cohort_folder, tmp_path))
    names = [path.name for path in (tmp_path / "tiny" / "checkpoints").iterdir()]
    assert len(names) == 1
    assert re.fullmatch(r"\d{5}-\d{8}", names[0])
    folder = train(settings(cohort_folder, tmp_path, "resume=True"))
    assert same(outcome(folder), uninterrupted)


def command(cohort_folder, saved_models, *more):
    given = train_overrides(cohort_folder, saved_models, "wandb.mode=disabled", *MORE, *more)
    return [sys.executable, str(REPOSITORY / "train.py"), *given]


def start(cohort_folder, saved_models, *more):
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    return subprocess.Popen(
        command(cohort_folder, saved_models, *more),
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def wait_for_steps(process, folder, least):
    """Until a checkpoint after so many steps of the first epoch, or a later one, is there."""
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline:
        found = [path.name for path in folder.glob("checkpoints/[0-9]*")]
        if any(name >= f"00001-{least:08d}" for name in found):
            return
        assert process.poll() is None, process.stdout.read()
        time.sleep(0.002)
    raise AssertionError("no checkpoint came")


def test_killed_it_goes_on_to_the_same_weights(cohort_folder, tmp_path):
    """As a user sees it, with SIGKILL: nothing of the process has a chance to clean up."""
    whole = start(cohort_folder, tmp_path / "whole", "train.epochs=12")
    said = whole.communicate(timeout=300)[0]
    assert whole.returncode == 0, said
    folder = tmp_path / "cut" / "tiny"
    often = ("train.epochs=12", "train.save_minutes=0")
    process = start(cohort_folder, tmp_path / "cut", *often)
    wait_for_steps(process, folder, 3)
    process.send_signal(signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL
    again = start(cohort_folder, tmp_path / "cut", *often, "resume=True")
    said = again.communicate(timeout=300)[0]
    assert again.returncode == 0, said
    assert "Going on with epoch" in said
    assert same(outcome(folder), outcome(tmp_path / "whole" / "tiny"))


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_asked_to_stop_it_saves_and_says_how_to_go_on(cohort_folder, tmp_path, number):
    folder = tmp_path / "tiny"
    process = start(cohort_folder, tmp_path, "train.epochs=200", "train.save_minutes=0")
    wait_for_steps(process, folder, 2)
    process.send_signal(number)
    said = process.communicate(timeout=120)[0]
    assert process.returncode == 1
    assert "Traceback" not in said
    line = next(line for line in said.splitlines() if "Go on with:" in line)
    assert line.endswith("resume=True")
    assert "train.py" in line
    assert "run_name=tiny" in line
    assert len(list((folder / "checkpoints").iterdir())) == 1
    assert json.loads((folder / "run.json").read_text())["finished"] is None


@pytest.mark.parametrize(
    ("program", "processes", "command"),
    [
        ("train.py", "1", "python train.py"),
        ("/a b/train.py", "1", "python '/a b/train.py'"),
        ("train.py", "4", "torchrun --standalone --nproc_per_node=4 train.py"),
        ("/bin/synehrgy-train", "1", "synehrgy-train"),
        (
            "/bin/synehrgy-train",
            "4",
            "torchrun --standalone --nproc_per_node=4 --no-python synehrgy-train",
        ),
    ],
)
def test_how_to_go_on_is_as_it_was_begun(monkeypatch, program, processes, command):
    given = ["run_name=tiny", "overwrite=True", "train.epochs=3"]
    monkeypatch.setattr(sys, "argv", [program, *given])
    monkeypatch.setenv("WORLD_SIZE", processes)
    found = loop._resume_command(compose("train", given))
    assert found == f"{command} run_name=tiny train.epochs=3 resume=True"


def test_another_config_is_refused_with_its_keys(cohort_folder, tmp_path, monkeypatch):
    with monkeypatch.context() as patch:
        stopped_after(patch, 3)
        with pytest.raises(KeyboardInterrupt):
            train(settings(cohort_folder, tmp_path))
    with pytest.raises(UserError, match=r"hparams\.lr=0.003 then, 0.1 now.*seed=0 then, 4 now"):
        train(settings(cohort_folder, tmp_path, "resume=True", "hparams.lr=0.1", "seed=4"))
    with pytest.raises(UserError, match="resume=True to go on with it"):
        train(settings(cohort_folder, tmp_path))
    # What changes no result may change.
    other = ["resume=True", "train.save_minutes=5"]
    folder = train(settings(cohort_folder, tmp_path, *other))
    with pytest.raises(UserError, match=r"finished .*: nothing to resume"):
        train(settings(cohort_folder, tmp_path, "resume=True"))
    assert json.loads((folder / "run.json").read_text())["finished"]


def test_a_damaged_checkpoint_is_named(cohort_folder, tmp_path, monkeypatch):
    with monkeypatch.context() as patch:
        stopped_after(patch, 3)
        with pytest.raises(KeyboardInterrupt):
            train(settings(cohort_folder, tmp_path))
    (path,) = (tmp_path / "tiny" / "checkpoints").iterdir()
    (path / "optimiser.safetensors").write_bytes(b"half")
    with pytest.raises(UserError, match=r"00001-00000003 is damaged"):
        train(settings(cohort_folder, tmp_path, "resume=True"))


def test_resuming_what_never_began_begins(cohort_folder, tmp_path, capsys, uninterrupted):
    folder = train(settings(cohort_folder, tmp_path, "resume=True"))
    assert "nothing to resume yet" in capsys.readouterr().out
    assert same(outcome(folder), uninterrupted)


def test_killed_while_the_folder_is_made_it_begins_anew(
    cohort_folder, tmp_path, monkeypatch, uninterrupted
):
    """Either all that describes a run is there, or nothing is."""
    with monkeypatch.context() as patch:

        def killed(self, path):
            raise KeyboardInterrupt

        patch.setattr("synehrgy.tokenizer.Tokenizer.save", killed)
        with pytest.raises(KeyboardInterrupt):
            train(settings(cohort_folder, tmp_path))
    assert not (tmp_path / "tiny").exists()
    folder = train(settings(cohort_folder, tmp_path, "resume=True"))
    assert same(outcome(folder), uninterrupted)
