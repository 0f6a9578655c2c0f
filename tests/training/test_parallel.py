"""Several processes train as one, and go on with what one began."""

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

from synehrgy import processes
from synehrgy.cli import compose
from synehrgy.errors import UserError
from synehrgy.files import REPOSITORY
from synehrgy.training.loop import train
from tests.conftest import train_overrides

# Without dropout, whose draws belong to a process; one step of few records, of which there are
# fewer than processes could share evenly.
MORE = ["train.epochs=3", "hparams.n_ctx=64", "hparams.mini_batch=13", "hparams.precision=fp32"]
MUON = ["hparams.optimiser=muon"]


def start(cohort_folder, saved_models, *more):
    overrides = train_overrides(cohort_folder, saved_models, "wandb.mode=disabled", *MORE, *more)
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node=2"]
    return subprocess.Popen(
        [*torchrun, str(REPOSITORY / "train.py"), *overrides],
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        cwd=REPOSITORY,
    )


def finish(process):
    said, errors = process.communicate(timeout=120)
    assert process.returncode == 0, errors
    return said


def outcome(folder):
    lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    return load_file(folder / "model.safetensors"), lines


def assert_same(one, other):
    for mine, theirs in zip(one[1], other[1], strict=True):
        assert mine.keys() == theirs.keys()
        for key in mine.keys() - {"tokens_per_second"}:
            assert mine[key] == pytest.approx(theirs[key], rel=2e-3), key
    for name, weight in one[0].items():
        assert (weight - other[0][name]).norm() < 0.02 * weight.norm(), name


@pytest.fixture(scope="module")
def alone(cohort_folder, tmp_path_factory):
    folder = tmp_path_factory.mktemp("alone")
    with pytest.MonkeyPatch.context() as patch:
        patch.delenv("WANDB_API_KEY", raising=False)
        patch.setattr("synehrgy.training.tracking.wandb_key", lambda: None)
        return {
            optimiser: train(
                compose(
                    "train",
                    train_overrides(
                        cohort_folder,
                        folder,
                        *MORE,
                        f"run_name={optimiser}",
                        f"hparams.optimiser={optimiser}",
                    ),
                )
            )
            for optimiser in ("adamw", "muon")
        }


@pytest.mark.parametrize(("how", "optimiser"), [("ddp", "muon"), ("fsdp", "adamw")])
def test_two_processes_train_what_one_does(cohort_folder, tmp_path, alone, how, optimiser):
    # Several passes in a step, and not equally many in both.
    more = [f"hparams.parallel={how}", f"hparams.optimiser={optimiser}", "hparams.max_tokens=150"]
    said = finish(start(cohort_folder, tmp_path, *more))
    assert_same(outcome(tmp_path / "tiny"), outcome(alone[optimiser]))
    # One speaks for both.
    assert said.count("Next: python generate.py") == 1
    assert "in 2 processes" in said
    assert {path.name for path in (tmp_path / "tiny").iterdir()} == {
        path.name for path in alone[optimiser].iterdir()
    }


def interrupted(process, folder):
    """Stop after some steps, in the second epoch."""
    deadline = time.monotonic() + 120
    while not any(p.name > "00002-00000001" for p in folder.glob("checkpoints/[0-9]*")):
        assert process.poll() is None, process.stderr.read()
        assert time.monotonic() < deadline
        time.sleep(0.005)
    process.send_signal(signal.SIGTERM)
    process.communicate(timeout=120)
    names = [path.name for path in folder.glob("checkpoints/*")]
    assert len(names) == 1
    assert re.fullmatch(r"0000[23]-\d{8}", names[0])


@pytest.mark.parametrize("how", ["ddp", "fsdp"])
def test_what_two_began_one_goes_on_with(cohort_folder, tmp_path, alone, how):
    more = [f"hparams.parallel={how}", "hparams.optimiser=muon"]
    process = start(cohort_folder, tmp_path, *more, "train.save_minutes=0")
    interrupted(process, tmp_path / "tiny")
    overrides = train_overrides(cohort_folder, tmp_path, *MORE, *MUON, "resume=True")
    assert_same(outcome(train(compose("train", overrides))), outcome(alone["muon"]))


@pytest.mark.parametrize("how", ["ddp", "fsdp"])
def test_what_one_began_two_go_on_with(cohort_folder, tmp_path, monkeypatch, alone, how):
    from synehrgy.training.trainer import Trainer

    original, steps = Trainer.step, []

    def step(self, rows, epoch):
        if epoch == 2 and len(steps) == 2:
            raise KeyboardInterrupt
        steps.extend([epoch] * (epoch == 2))
        original(self, rows, epoch)

    more = ["hparams.optimiser=muon", "train.save_minutes=0"]
    with monkeypatch.context() as patch:
        patch.setattr(Trainer, "step", step)
        with pytest.raises(KeyboardInterrupt):
            train(compose("train", train_overrides(cohort_folder, tmp_path, *MORE, *more)))
    said = finish(start(cohort_folder, tmp_path, *MUON, "resume=True", f"hparams.parallel={how}"))
    assert "Going on with epoch 2 after 2 steps" in said
    assert_same(outcome(tmp_path / "tiny"), outcome(alone["muon"]))


def test_what_one_process_refuses_the_others_do_not_bury(cohort_folder, tmp_path, alone):
    more = [f"paths.saved_models={alone['muon'].parent}", "run_name=muon"]
    process = start(cohort_folder, tmp_path, *more)
    _, errors = process.communicate(timeout=120)
    assert process.returncode
    assert errors.count("Error: There is already a run 'muon'") == 1
    assert "Connection closed by peer" not in errors


def test_a_single_gpu_is_no_place_for_several_processes(monkeypatch):
    for name, value in {"WORLD_SIZE": "2", "RANK": "0", "LOCAL_RANK": "0"}.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(UserError, match="device=cuda:1: 2 processes"), processes.world("cuda:1"):
        pass


def test_more_processes_than_gpus_are_refused(monkeypatch):
    for name, value in {"WORLD_SIZE": "4", "RANK": "3", "LOCAL_RANK": "3"}.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    with (
        pytest.raises(UserError, match=r"4 processes on 2 GPUs.*nproc_per_node"),
        processes.world("auto"),
    ):
        pass


@pytest.mark.parametrize(("size", "said"), [(1, "all\nthe end\n"), (2, "all\n")])
def test_one_of_several_does_not_wait_for_the_end_of_the_interpreter(size, said):
    """Threads of a process group may abort it there."""
    program = (
        "import atexit; from synehrgy.processes import leave; "
        "atexit.register(print, 'the end'); print('all'); leave()"
    )
    result = subprocess.run(
        [sys.executable, "-c", program],
        env={**os.environ, "WORLD_SIZE": str(size)},
        capture_output=True,
        text=True,
        cwd=REPOSITORY,
    )
    assert (result.returncode, result.stdout) == (0, said)
