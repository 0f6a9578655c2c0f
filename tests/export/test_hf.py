"""A run goes out whole and comes back as it was."""

import json
import shutil

import pytest
import torch
import yaml
from safetensors.torch import load_file, save_file

from synehrgy.errors import UserError
from synehrgy.export import hf
from synehrgy.export.hf import export_hf, import_hf
from synehrgy.generation.sampler import sample
from synehrgy.settings import TrainConfig
from synehrgy.training.checkpoint import load_run
from tests.conftest import SHARED, train_overrides

CPU = torch.device("cpu")
SAME = ("model.safetensors", "model.json", "tokenizer.json", "run.json", "metrics.jsonl")


@pytest.fixture(scope="module")
def folder(trained, tmp_path_factory):
    """The small run, exported; read it, do not write to it."""
    path = tmp_path_factory.mktemp("export") / "hf"
    export_hf(trained, path)
    return path


@pytest.fixture
def copy(folder, tmp_path):
    return shutil.copytree(folder, tmp_path / "hf")


def contents(path):
    return {file.relative_to(path): file.read_bytes() for file in path.rglob("*") if file.is_file()}


def test_a_run_comes_back_byte_by_byte(trained, folder, tmp_path):
    back = import_hf(folder, tmp_path / "models" / "again")
    for name in SAME:
        assert (back / name).read_bytes() == (trained / name).read_bytes(), name
    config = load_run(back, CPU).config
    assert config["run_name"] == "again"
    assert config["data"]["path"].endswith("data/processed/mimic3")
    before = load_run(trained, CPU).config
    for group in ("model", "hparams", "train", "loss", "preprocess", "seed", "mode"):
        assert config[group] == before[group]
    # Out again, it is the same folder but for its name.
    export_hf(back, tmp_path / "hf")
    first, second = contents(folder), contents(tmp_path / "hf")
    assert first.keys() == second.keys()
    differing = {str(name) for name in first if first[name] != second[name]}
    assert differing == {"README.md", "synehrgy/config.yaml"}


def test_the_run_that_came_back_samples_the_same_patients(trained, folder, tmp_path):
    runs = [load_run(path, CPU) for path in (trained, import_hf(folder, tmp_path / "again"))]
    ours, theirs = (
        {one.patient: one.tokens.tolist() for one in sample(r.model, r.tokenizer, range(3))}
        for r in runs
    )
    assert ours == theirs


@pytest.mark.parametrize(
    "shape",
    [
        ["model=gpt", "model.n_layer=1", "model.n_head=2", "model.n_embd=16", "loss.n_next=3"],
        [
            *("model.positions=rotary", "model.norm=rms", "model.mlp=swiglu"),
            *("model.qk_norm=False", "model.tied=False", "model.bias=True"),
        ],
    ],
    ids=["gpt2", "llama"],
)
def test_other_architectures_come_back(shape, cohort_folder, tmp_path):
    from synehrgy.cli import compose
    from synehrgy.training.loop import train

    given = train_overrides(cohort_folder, tmp_path, "train.epochs=1", "wandb.mode=disabled")
    run = train(compose("train", [*given, *shape]))
    export_hf(run, tmp_path / "hf")
    assert not (tmp_path / "hf" / "modeling_synehrgy.py").exists()
    assert (tmp_path / "hf" / "synehrgy" / "ahead.safetensors").exists() == (
        "loss.n_next=3" in shape
    )
    back = import_hf(tmp_path / "hf", tmp_path / "again")
    for name in SAME:
        assert (back / name).read_bytes() == (run / name).read_bytes(), name


def test_nothing_says_where_or_by_whom(trained, folder, cohort_folder):
    config = yaml.safe_load((folder / "synehrgy" / "config.yaml").read_text(encoding="utf-8"))
    assert "paths" not in config
    assert "wandb" not in config
    assert config["data"].keys() == {"name", "source", "simulation"}
    # Whatever settings there will be, those that are paths are in the groups that go.
    known = TrainConfig.__dataclass_fields__.keys()
    assert known - config.keys() == {"paths", "wandb"}
    private = {str(trained.parent), str(cohort_folder), str(cohort_folder.parent)}
    for file in folder.rglob("*.*"):
        content = file.read_bytes() if file.is_file() else b""
        assert not [path for path in private if path.encode() in content], file


def test_files_are_all_known(folder):
    assert {path.name for path in folder.iterdir()} == hf._FILES


def test_without_values(trained, folder, tmp_path):
    export_hf(trained, tmp_path / "hf", values=False)
    names = ("covariate_numbers", "variable_numbers")

    def quantiles(path):
        content = json.loads((path / "synehrgy" / "tokenizer.json").read_text(encoding="utf-8"))
        bins = [*(one for name in names for one in content[name].values())]
        bins += [content["gaps"], content["seconds"]]
        return sum(len(q) for one in bins for q in one.get("quantiles", []))

    assert quantiles(folder) > 100
    assert quantiles(tmp_path / "hf") == 0
    assert (tmp_path / "hf" / "tokenizer.json").read_bytes() == (
        folder / "tokenizer.json"
    ).read_bytes()
    card = (tmp_path / "hf" / "README.md").read_text(encoding="utf-8")
    assert "without quantiles" in card
    back = load_run(import_hf(tmp_path / "hf", tmp_path / "again"), CPU)
    before = load_run(trained, CPU)
    assert back.tokenizer.vocabulary == before.tokenizer.vocabulary
    drawn = next(iter(sample(back.model, back.tokenizer, range(1))))
    assert drawn.tokens.tolist() == (
        next(iter(sample(before.model, before.tokenizer, range(1)))).tokens.tolist()
    )


def test_weights_trained_on_elsewhere_come_back(transformers, copy, trained, tmp_path):
    model = transformers.AutoModelForCausalLM.from_pretrained(copy, trust_remote_code=True)
    with torch.no_grad():
        model.norm.weight.mul_(2)
    model.save_pretrained(tmp_path / "tuned")
    with pytest.raises(UserError, match="copy the folder synehrgy of the export"):
        import_hf(tmp_path / "tuned", tmp_path / "run")
    shutil.copytree(copy / "synehrgy", tmp_path / "tuned" / "synehrgy")
    back = load_run(import_hf(tmp_path / "tuned", tmp_path / "run"), CPU)
    before = load_run(trained, CPU).model.norm.weight
    torch.testing.assert_close(back.model.norm.weight, 2 * before)


def _lose(folder, name):
    weights = load_file(folder / "model.safetensors")
    del weights[name]
    save_file(weights, folder / "model.safetensors")


SPOILS = {
    "no weights": (lambda f: (f / "model.safetensors").unlink(), "does not exist"),
    "torn weights": (
        lambda f: (f / "model.safetensors").write_bytes(b"torn"),
        r"model.safetensors is damaged",
    ),
    "a weight is missing": (
        lambda f: _lose(f, "blocks.1.mlp.down.weight"),
        r"does not hold the weights .* 'blocks.1.mlp.down.weight'",
    ),
    "edited tokenizer": (
        lambda f: (f / "synehrgy" / "tokenizer.json").write_text("{}"),
        "is not a tokenizer",
    ),
    "another shape": (
        lambda f: (f / "synehrgy" / "model.json").write_text('{"version": 2, "n_embd": 3}'),
        r"model.json is damaged",
    ),
    "no data in the configuration": (
        lambda f: (f / "synehrgy" / "config.yaml").write_text("seed: 0\n"),
        r"config.yaml is damaged: it has no 'data'",
    ),
    "an empty run.json": (
        lambda f: (f / "synehrgy" / "run.json").write_text("{}"),
        r"run.json is damaged: it has no 'finished'",
    ),
    "later version": (
        lambda f: (f / "synehrgy" / "model.json").write_text('{"version": 99}'),
        "has version 99 of its format",
    ),
}


@pytest.mark.parametrize("spoilt", SPOILS)
def test_damage_is_named_and_nothing_is_written(spoilt, copy, tmp_path):
    spoil, says = SPOILS[spoilt]
    spoil(copy)
    with pytest.raises(UserError, match=says):
        import_hf(copy, tmp_path / "models" / "run")
    assert not (tmp_path / "models").exists() or not [*(tmp_path / "models").iterdir()]


@pytest.mark.parametrize("place", ["save_file", "card_of", "_write_own"])
def test_an_interrupted_export_leaves_nothing(place, trained, folder, tmp_path, monkeypatch):
    target = shutil.copytree(folder, tmp_path / "hf")
    before = contents(target)

    def stop(*_, **__):
        raise KeyboardInterrupt

    monkeypatch.setattr(hf, place, stop)
    for path, overwrite in ((target, True), (tmp_path / "new", False)):
        with pytest.raises(KeyboardInterrupt):
            export_hf(trained, path, overwrite=overwrite)
    assert [*tmp_path.iterdir()] == [target]
    assert contents(target) == before


def test_an_earlier_run_is_kept_unless_told(folder, trained, tmp_path):
    run = shutil.copytree(trained, tmp_path / "run")
    (run / "notes").write_text("mine")
    with pytest.raises(UserError, match="There is already a run"):
        import_hf(folder, run)
    assert (run / "notes").exists()
    import_hf(folder, run, overwrite=True)
    assert not (run / "notes").exists()
    with pytest.raises(UserError, match="a name has letters"):
        import_hf(folder, tmp_path / "~run")


@pytest.mark.skipif(not SHARED.is_dir(), reason="the open MIMIC-III demo is not beside the project")
def test_a_run_of_the_open_demo(transformers, demo_cohort, tmp_path):
    """Real vocabulary: checked by transformers itself, and back."""
    from synehrgy.cli import compose
    from synehrgy.training.loop import train

    given = [
        *(f"data.path={demo_cohort}", "data=mimic3_demo", f"paths.saved_models={tmp_path}"),
        *("run_name=demo", "model=gpt_tiny", "device=cpu", "train.epochs=1", "wandb.mode=disabled"),
        *("hparams.n_ctx=256", "train.ratio=0.1"),
    ]
    run = train(compose("train", given))
    facts = export_hf(run, tmp_path / "hf", checked=True)
    assert facts.is_credentialed
    card = (tmp_path / "hf" / "README.md").read_text(encoding="utf-8")
    assert "PhysioNet Credentialed Health Data Use Agreement" in card
    assert "a share of 0.1 was used" in card
    back = import_hf(tmp_path / "hf", tmp_path / "again")
    assert (back / "model.safetensors").read_bytes() == (run / "model.safetensors").read_bytes()
