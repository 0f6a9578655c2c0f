"""What `pip install` gives: commands that work in any folder, without the repository."""

import os
import site
import subprocess
import sys
import tarfile
import venv
import zipfile
from pathlib import Path

import pytest

from synehrgy.cohort import read_cohort
from synehrgy.files import REPOSITORY

pytest.importorskip("hatchling", reason="hatchling builds the package; see requirements.txt")

COMMANDS = ("preprocess", "train", "generate", "evaluate")


def call(*command: object, cwd: Path, code: int = 0, **environment: str) -> str:
    """Run a program; its output and, after it, its errors."""
    known = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
    done = subprocess.run(
        [str(part) for part in command],
        cwd=cwd,
        env={**known, "WANDB_MODE": "disabled", "OMP_NUM_THREADS": "1", **environment},
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == code, done.stdout + done.stderr
    return done.stdout + done.stderr


@pytest.fixture(scope="module")
def dist(tmp_path_factory) -> Path:
    """The source distribution, and the wheel that is built from it alone."""
    folder = tmp_path_factory.mktemp("dist")
    path = {"PYTHONPATH": os.environ.get("PYTHONPATH", "")}
    build = [sys.executable, "-m", "hatchling", "build", "--target", "sdist", "--directory", folder]
    call(*build, cwd=REPOSITORY, **path)
    (sdist,) = folder.glob("*.tar.gz")
    alone = ["--no-deps", "--no-index", "--no-build-isolation", "--wheel-dir", folder]
    call(sys.executable, "-m", "pip", "wheel", *alone, sdist, cwd=folder, **path)
    return folder


@pytest.fixture(scope="module")
def programs(dist, tmp_path_factory) -> Path:
    """Folder of the programs of an environment in which the wheel is installed."""
    folder = tmp_path_factory.mktemp("environment")
    venv.create(folder, symlinks=True)
    programs = folder / ("Scripts" if os.name == "nt" else "bin")
    python = [sys.executable, "-m", "pip", "--python", programs / "python"]
    (wheel,) = dist.glob("*.whl")
    call(*python, "install", "--no-deps", "--no-index", wheel, cwd=folder)
    (packages,) = folder.rglob("site-packages")
    # What it depends on is taken from the environment of the tests.
    (packages / "dependencies.pth").write_text("\n".join(site.getsitepackages()) + "\n")
    where = call(programs / "python", "-c", "import synehrgy; print(synehrgy.__file__)", cwd=folder)
    assert Path(where.strip()).is_relative_to(packages)
    return programs


def test_the_four_commands_in_a_folder_of_one_s_own(programs, tmp_path):
    """Each names the next as it is to be called, and finds what the last has written."""

    def run(command: str) -> str:
        program, *arguments = command.split(" ")
        return call(programs / program, *arguments, cwd=tmp_path)

    said = run("synehrgy-preprocess data=simulated data.simulation.n_patients=60")
    assert "Next: synehrgy-train data=simulated run_name=<a name>\n" in said
    said = run(
        "synehrgy-train data=simulated run_name=first model=gpt_tiny train.epochs=1 "
        "hparams.n_ctx=128 hparams.n_accum=1 device=cpu"
    )
    assert "Next: synehrgy-generate model=first n_samples=1000\n" in said
    said = run("synehrgy-generate model=first n_samples=8 max_segments=1")
    assert "Next: synehrgy-evaluate model=first\n" in said
    said = run("synehrgy-evaluate model=first preset=quick metrics=[structure]")
    assert f"Next: open {tmp_path}/Results/first-structure/report.html" in said
    # The other programs of the package, too, know where one stands and how it is called.
    python = [programs / "python", "-m"]
    said = call(*python, "synehrgy.export", "hf", "first", "exported", cwd=tmp_path)
    assert "Model for transformers: exported" in said
    said = call(*python, "synehrgy.export", "from_hf", "exported", "copy", cwd=tmp_path)
    assert "Next: synehrgy-generate model=copy n_samples=1000\n" in said
    assert (tmp_path / "saved_models" / "copy" / "run.json").exists()
    config = (tmp_path / "saved_models" / "copy" / "config.yaml").read_text()
    assert f"saved_models: {tmp_path}/saved_models\n" in config
    # Everything is where one stands.
    assert {path.name for path in tmp_path.iterdir()} == {
        *("data", "saved_models", "Results", "exported"),
    }
    assert {path.name for path in (tmp_path / "data").iterdir()} == {
        *("raw", "processed", "synthetic"),
    }
    assert read_cohort(tmp_path / "data" / "synthetic" / "first").n_patients == 8
    (package,) = programs.parent.rglob("site-packages/synehrgy")
    assert not {"data", "saved_models", "Results"} & {path.name for path in package.iterdir()}


@pytest.mark.parametrize("command", COMMANDS)
def test_help_names_the_command_as_it_is_called(programs, command, tmp_path):
    said = call(programs / f"synehrgy-{command}", "--help", cwd=tmp_path)
    assert said.startswith(f"synehrgy-{command}: ")
    assert f"Usage: synehrgy-{command} key=value" in said
    assert "  synehrgy-" in said.split("Examples:")[1]
    assert ".py" not in said
    assert list(tmp_path.iterdir()) == []


def test_mistakes_name_the_commands_too(programs, tmp_path):
    train = programs / "synehrgy-train"
    said = call(train, "run_name=x", "data.path=nowhere", cwd=tmp_path, code=1)
    assert "Run synehrgy-preprocess first" in said
    said = call(train, "hparams.nctx=12", cwd=tmp_path, code=1)
    assert "no setting of synehrgy-train. Did you mean 'hparams.n_ctx'?" in said
    assert "All settings: synehrgy-train --help" in said


def test_flags_of_hydra_work(programs, tmp_path):
    said = call(programs / "synehrgy-train", "--cfg", "job", "run_name=x", cwd=tmp_path)
    assert "run_name: x" in said
    assert "synthetic: ${repo:data/synthetic}" in said


def test_the_wheel_holds_what_the_package_reads(dist):
    (wheel,) = dist.glob("*.whl")
    inside = set(zipfile.ZipFile(wheel).namelist())
    for file in (REPOSITORY / "synehrgy").rglob("*"):
        if file.is_file() and "__pycache__" not in file.parts:
            assert str(file.relative_to(REPOSITORY)) in inside
    for file in (REPOSITORY / "configs").rglob("*.yaml"):
        assert f"synehrgy/{file.relative_to(REPOSITORY)}" in inside
    tops = {name.split("/")[0] for name in inside}
    assert {top for top in tops if not top.endswith(".dist-info")} == {"synehrgy"}


def test_no_patient_is_in_a_distribution(dist):
    """Whatever lies in the folders of data, models and results stays at home."""
    (sdist,) = dist.glob("*.tar.gz")
    with tarfile.open(sdist) as archive:
        inside = {name.partition("/")[2] for name in archive.getnames()}
    folders = ("data", "saved_models", "Results")
    kept = {name for name in inside if name.split("/")[0] in folders}
    assert kept == {f"{folder}/README.md" for folder in folders}
    assert "configs/data/mimic3.yaml" in inside
