"""Settings: what is accepted, what is refused, and in which words."""

import dataclasses
from pathlib import Path

import pytest

from synehrgy.cli import CONFIG_DIR, EXAMPLES, GROUPS, compose, help_text, program_of
from synehrgy.errors import UserError, nearest
from synehrgy.files import REPOSITORY
from synehrgy.model import GPTConfig
from synehrgy.settings import (
    AGE_EDGES,
    CONFIGS,
    GAP_EDGES,
    TokenSettings,
    VariableSettings,
    check,
    walk,
)

# What each command cannot do without.
NEEDED = {
    "preprocess": [],
    "train": ["run_name=r"],
    "generate": ["model=r"],
    "evaluate": [],
    "baseline": ["name=markov"],
    "comparison": [],
}
CHOICES = [
    (command, name, file.stem)
    for command, names in GROUPS.items()
    for name in names
    for file in sorted((CONFIG_DIR / name).glob("*.yaml"))
]


def refused(command, *overrides):
    """The message with which these settings are refused."""
    with pytest.raises(UserError) as error:
        compose(command, [*NEEDED[command], *overrides])
    return str(error.value)


@pytest.mark.parametrize("command", CONFIGS)
def test_every_command_composes(command):
    config = compose(command, NEEDED[command])
    assert isinstance(config, CONFIGS[command])
    assert (CONFIG_DIR / f"config{command.capitalize()}.yaml").is_file()


@pytest.mark.parametrize(("command", "name", "choice"), CHOICES)
def test_every_shipped_file_composes(command, name, choice):
    config = compose(command, [*NEEDED[command], f"{name}={choice}"])
    # What a file calls itself is what one writes to choose it.
    assert getattr(config, name).name == choice


def test_no_shipped_file_is_left_out():
    groups = {name for names in GROUPS.values() for name in names}
    assert {file.parent.name for file in CONFIG_DIR.glob("*/*.yaml")} == groups
    top = {f"config{command.capitalize()}" for command in CONFIGS} | {"hydra_quiet"}
    assert {file.stem for file in CONFIG_DIR.glob("*.yaml")} == top


@pytest.mark.parametrize(
    ("command", "text"), [(c, text) for c, texts in EXAMPLES.items() for text in texts]
)
def test_examples_of_the_help_compose(command, text):
    program, *overrides = text.removeprefix(f"python {program_of(command)}").split(" ")
    assert program == ""
    assert isinstance(compose(command, overrides), CONFIGS[command])


@pytest.mark.parametrize(
    ("command", "wrong", "right"),
    [
        ("preprocess", "preprocess.bin_typ=uniform", "preprocess.bin_type"),
        ("preprocess", "data.rawdir=x", "data.raw_dir"),
        ("train", "hparams.minibatch=64", "hparams.mini_batch"),
        ("train", "n_ctx=1024", "hparams.n_ctx"),
        ("train", "modl=gpt", "model"),
        ("train", "soft_label=True", "soft_labels"),
        ("generate", "nsamples=5", "n_samples"),
        ("generate", "path.synthetic=x", "paths.synthetic"),
        ("evaluate", "sythetic=x", "synthetic"),
    ],
)
def test_unknown_setting_is_answered_with_the_nearest_name(command, wrong, right):
    message = refused(command, wrong)
    assert repr(wrong.split("=")[0]) in message
    assert f"Did you mean {right!r}?" in message
    assert f"{command}.py --help" in message


@pytest.mark.parametrize("command", CONFIGS)
def test_setting_that_is_near_to_nothing_is_answered_with_valid_names(command):
    message = refused(command, "qqqqqqqq=1")
    assert "Valid: " in message
    assert "paths.results" in message or " more." in message


@pytest.mark.parametrize(
    ("command", "text"),
    [
        ("train", "hparams.n_ctx=abc"),
        ("train", "hparams.n_ctx=1.5"),
        ("train", "hparams.lr=fast"),
        ("train", "overwrite=perhaps"),
        ("train", "seed=null"),
        ("train", "model.n_layer=[1]"),
        ("generate", "n_samples=many"),
        ("generate", "fix_covars=2.5"),
        ("preprocess", "preprocess.gap_edges=[0,late]"),
        ("preprocess", "preprocess.n_bins=ten"),
    ],
)
def test_wrong_type_names_the_key(command, text):
    assert text.split("=")[0] in refused(command, text)


@pytest.mark.parametrize(
    ("command", "text", "allowed"),
    [
        ("train", "hparams.n_ctx=15", "at least 16"),
        ("train", "hparams.lr=0", "above 0"),
        ("train", "hparams.lr=nan", "finite"),
        ("train", "model.dropout=0.95", "at most 0.9"),
        ("train", "model.dropout=-0.1", "at least 0"),
        ("train", "hparams.warmup=nan", "finite"),
        ("train", "seed=-1", "at least 0"),
        ("generate", "n_samples=0", "at least 1"),
        ("generate", "temperature=0", "above 0"),
        ("generate", "temperature=nan", "finite"),
        ("generate", "top_p=1.01", "at most 1"),
        ("generate", "repetition_penalty=0.9", "at least 1"),
        ("generate", "bin_type=uniforms", "Did you mean 'uniform'?"),
        ("generate", "format=xlsx", "parquet, csv"),
        ("preprocess", "preprocess.min_code_count=0", "at least 1"),
        ("preprocess", "preprocess.bin_type=rough", "uniform, quantile, raw"),
        ("preprocess", "preprocess.variables.pH.n_bins=0", "at least 1"),
        ("train", "preprocess.variables.pH.bin_type=rough", "uniform, quantile, raw"),
        ("preprocess", "preprocess.time=hourly", "clock, gap"),
        ("train", "preprocess.long_records=split", "continue, truncate"),
        ("train", "train.mask_prob=1.5", "at most 1"),
        ("generate", "value_decoding=median", "empirical, uniform, center"),
        ("preprocess", "data.source=mimik3", "Did you mean 'mimic3'?"),
        ("evaluate", "split=valid", "val, test"),
    ],
)
def test_value_out_of_range_names_key_value_and_what_is_allowed(command, text, allowed):
    message = refused(command, text)
    assert message.startswith(text)
    assert allowed in message


@pytest.mark.parametrize("text", ["hparams.n_ctx=16", "model.dropout=0.9", "hparams.warmup=0"])
def test_limits_themselves_are_allowed(text):
    assert compose("train", ["run_name=r", text]).run_name == "r"


def test_soft_labels_is_short_for_loss_soft_labels():
    for key in ("soft_labels", "loss.soft_labels"):
        assert compose("train", ["run_name=r", f"{key}=True"]).loss.soft_labels is True
        assert compose("train", ["run_name=r", f"{key}=False"]).loss.soft_labels is False


@pytest.mark.parametrize("command", ["generate", "evaluate"])
def test_model_is_short_for_run_name(command):
    for key in ("model", "run_name"):
        assert compose(command, [f"{key}=demo"]).run_name == "demo"


def test_model_of_training_is_a_shape():
    config = compose("train", ["run_name=r", "model=gpt_tiny", "model.n_layer=3"])
    assert (config.model.name, config.model.n_layer) == ("gpt_tiny", 3)
    message = refused("train", "model=gtp")
    assert "configs/model/gtp.yaml" in message
    assert "Did you mean 'gpt'?" in message


@pytest.mark.parametrize(
    ("command", "one", "other"),
    [
        ("generate", "model=a", "run_name=b"),
        ("evaluate", "run_name=a", "model=b"),
        ("train", "soft_labels=True", "loss.soft_labels=False"),
    ],
)
def test_two_names_of_a_setting_must_not_disagree(command, one, other):
    with pytest.raises(UserError) as error:
        compose(command, [*(["run_name=r"] if command == "train" else []), one, other])
    assert one in str(error.value)
    assert other in str(error.value)


def test_two_names_of_a_setting_may_agree():
    assert compose("generate", ["model=a", "run_name=a"]).run_name == "a"


@pytest.mark.parametrize(
    ("command", "name"), [("train", "run_name"), ("generate", "model")], ids=["train", "generate"]
)
def test_missing_value_is_asked_for_by_the_name_one_writes(command, name):
    with pytest.raises(UserError, match=f"^{name}=... is needed: ") as error:
        compose(command)
    assert "???" not in str(error.value)


@pytest.mark.parametrize("text", ["model", "a b=c", "seed=[1", "model=a=b"])
def test_what_is_no_setting_at_all_is_quoted(text):
    with pytest.raises(UserError) as error:
        compose("generate", [text])
    assert text in str(error.value)


@pytest.mark.parametrize("name", ["../up", "/root", "", ".hidden", "a/b", "a b"])
@pytest.mark.parametrize("command", ["train", "generate", "evaluate"])
def test_name_of_a_run_is_a_name_of_one_folder(command, name):
    with pytest.raises(UserError, match="run_name"):
        compose(command, [f'run_name="{name}"'])


@pytest.mark.parametrize("command", CONFIGS)
def test_default_paths_lie_in_the_repository_wherever_one_stands(command, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    config = compose(command, NEEDED[command])
    paths = [getattr(config.paths, item.name) for item in dataclasses.fields(config.paths)]
    if command != "generate" and hasattr(config, "data"):
        paths.append(config.data.path)
    assert paths
    assert all(Path(path).is_relative_to(REPOSITORY) for path in paths)


def test_given_paths_belong_to_the_working_directory(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", "/users/ada")
    assert compose("evaluate", ["real=some/folder"]).real == f"{tmp_path}/some/folder"
    models = compose("train", ["run_name=r", "paths.saved_models=x"]).paths.saved_models
    assert models == f"{tmp_path}/x"
    for text, expected in {
        '"/a/run=1/b c"': "/a/run=1/b c",
        "/a/b (1)/c": "/a/b (1)/c",
        "/a/it's [x]": "/a/it's [x]",
        "~/mimic": "/users/ada/mimic",
    }.items():
        assert compose("evaluate", [f"real={text}"]).real == expected


@pytest.mark.parametrize("command", CONFIGS)
def test_help_lists_every_setting_with_its_meaning(command):
    lines = help_text(command).splitlines()
    for key, item in walk(CONFIGS[command]).items():
        name = item.metadata["alias"] or key
        line = next(line for line in lines if line.strip().startswith(f"{name}="))
        assert item.metadata["help"] in line
        for choice in item.metadata["choices"] or ():
            assert choice in line
    for name in GROUPS[command]:
        assert any(line.strip().startswith(f"{name}= ") for line in lines)
    assert str(REPOSITORY) not in "\n".join(lines)


def test_published_command_line_of_training():
    config = compose(
        "train",
        [
            *("hparams.n_ctx=1024", "hparams.mini_batch=64", "run_name='synehrgy-mimic'"),
            *("data=mimic3", "preprocess.bin_type=uniform", "model=gpt", "soft_labels=False"),
        ],
    )
    assert (config.hparams.n_ctx, config.hparams.mini_batch) == (1024, 64)
    assert (config.run_name, config.data.name) == ("synehrgy-mimic", "mimic3")
    assert config.preprocess.bin_type == "uniform"
    assert config.model.name == "gpt"
    assert config.loss.soft_labels is False


def test_published_command_line_of_generation():
    config = compose(
        "generate",
        [
            *('model="synehrgy-mimic"', "n_samples=30000", "bin_type=uniform"),
            *("fix_covars=False", "batch_size=1024"),
        ],
    )
    assert (config.run_name, config.n_samples) == ("synehrgy-mimic", 30_000)
    assert (config.bin_type, config.fix_covars) == ("uniform", False)
    assert config.batch_size == 1024


def test_the_papers_model_has_its_settings():
    config = compose("train", ["run_name=r", "model=gpt"])
    assert (config.model.n_layer, config.model.n_head, config.model.n_embd) == (4, 4, 384)
    hparams = config.hparams
    assert (hparams.n_ctx, hparams.mini_batch * hparams.n_accum, hparams.lr) == (1024, 128, 3e-4)
    assert config.hparams.optimiser == "adamw"
    # Those of GPT-2, in all else.
    shape = dataclasses.asdict(config.model)
    del shape["name"]
    assert not shape.pop("shared")
    assert GPTConfig(10, 20, **shape) == GPTConfig(10, 20)
    assert (config.train.epochs, config.train.patience, config.train.gclip) == (20, 5, 1.0)


def test_edges_of_a_covariate_can_be_added_and_replaced():
    added = compose("preprocess", ["preprocess.covariate_edges.weight=[0,50,100]"])
    assert added.preprocess.covariate_edges == {"age": AGE_EDGES, "weight": [0.0, 50.0, 100.0]}
    replaced = compose("preprocess", ["preprocess.covariate_edges.age=[0,50,100]"])
    assert replaced.preprocess.covariate_edges == {"age": [0.0, 50.0, 100.0]}


def test_one_configuration_does_not_share_its_lists_with_another():
    TokenSettings().gap_edges.append(1e9)
    TokenSettings().covariate_edges["age"] = []
    assert TokenSettings().gap_edges == GAP_EDGES
    assert TokenSettings().covariate_edges == {"age": AGE_EDGES}


def test_range_is_checked_of_configurations_made_in_code_too():
    config = compose("generate", ["model=r"])
    config.top_p = 1.5
    with pytest.raises(UserError, match=r"top_p=1\.5"):
        check(config)


def test_nearest_prefers_the_same_last_part():
    assert nearest("n_ctx", ["n_ct", "hparams.n_ctx"]) == " Did you mean 'hparams.n_ctx'?"
    assert nearest("zzz", []) == " Valid: ."
    assert nearest("zzz", [f"long_name_{i}" for i in range(30)]).endswith(
        "long_name_19 and 10 more."
    )


def test_exceptions_by_series_are_given_in_either_form():
    pairs = [
        ("{pH: {n_bins: 3}}", {"pH": VariableSettings(n_bins=3)}),
        ("{Heart Rate: {bin_type: raw}}", {"Heart Rate": VariableSettings(bin_type="raw")}),
        ("{pH: {edges: [7.0, 7.4]}}", {"pH": VariableSettings(edges=[7.0, 7.4])}),
    ]
    for command, more in (("preprocess", []), ("train", ["run_name=x"])):
        for text, expected in pairs:
            config = compose(command, [*more, f"preprocess.variables={text}"])
            assert config.preprocess.variables == expected
        dotted = ["preprocess.variables.pH.n_bins=3", "preprocess.variables.pH.bin_type=quantile"]
        config = compose(command, [*more, *dotted])
        both = {"pH": VariableSettings(bin_type="quantile", n_bins=3)}
        assert config.preprocess.variables == both
        forced = compose(command, [*more, "++preprocess.variables.pH.n_bins=5"])
        assert forced.preprocess.variables == {"pH": VariableSettings(n_bins=5)}
    with pytest.raises(UserError, match=r"preprocess\.variables\.pH=raw: give its settings"):
        compose("preprocess", ["preprocess.variables.pH=raw"])
    with pytest.raises(UserError, match=r"preprocess\.variables\.pH\.bintype: .* not in"):
        compose("preprocess", ["preprocess.variables.pH.bintype=raw"])


@pytest.mark.parametrize(
    "name",
    ["Temp: C", "a=b", "FiO2 (%), set", "x:y=z", "a.b", r"back\\slash", "[1]", "{n}", " pH "],
)
@pytest.mark.parametrize("quote", ["'", '"'])
def test_any_name_of_a_series_can_be_quoted(name, quote):
    both = f"{{{quote}{name}{quote}: {{bin_type: 'raw'}}, pH: {{n_bins: 3}}}}"
    found = compose("preprocess", [f"preprocess.variables={both}"]).preprocess.variables
    assert found == {name: VariableSettings(bin_type="raw"), "pH": VariableSettings(n_bins=3)}
    edges = f"preprocess.covariate_edges={{{quote}{name}{quote}: [0.0, 1.0]}}"
    assert compose("preprocess", [edges]).preprocess.covariate_edges == {name: [0.0, 1.0]}
    forced = compose("preprocess", [f"++preprocess.variables={both}"]).preprocess.variables
    assert forced == found


@pytest.mark.parametrize(
    "text",
    [
        "preprocess.variables.Heart Rate.n_bins=5",
        "preprocess.variables.Temp:C.n_bins=5",
        "preprocess.variables.a=b.n_bins=5",
        "preprocess.variables={Temp: C: {n_bins: 5}}",
        "preprocess.variables={a=b: {n_bins: 5}}",
        "++preprocess.variables={a=b: {n_bins: 5}}",
    ],
)
def test_a_name_that_needs_quotes_is_told_so(text):
    message = refused("preprocess", text)
    assert message.startswith(f"'{text}' is not of the form key=value")
    assert "goes into braces and quotes: \"preprocess.variables={'A name': ...}\"." in message


@pytest.mark.parametrize("name", ["it's", "T °C", "a;b"])
def test_a_name_that_no_command_line_takes_is_told_so(name):
    message = refused("preprocess", f'preprocess.variables={{"{name}": {{n_bins: 3}}}}')
    assert f"such as {name!r}, cannot be given on the command line" in message


def test_a_whole_mapping_replaces_the_default():
    def edges(*overrides):
        return compose("preprocess", overrides).preprocess.covariate_edges

    assert edges("preprocess.covariate_edges={}") == {}
    assert edges("preprocess.covariate_edges={bmi: [15.0, 40.0]}") == {"bmi": [15.0, 40.0]}
    assert edges("preprocess.covariate_edges.age=null") == {"age": None}
    both = edges("preprocess.covariate_edges={}", "preprocess.covariate_edges.age=[18,90]")
    assert both == {"age": [18.0, 90.0]}


def test_shuffles_have_their_published_names():
    given = ["label_shuffle=True", "ts_shuffle=True", "code_shuffle=True", "ignore_ts=True"]
    config = compose("train", ["run_name=x", *given, "mask_prob=0.1"]).train
    assert config.label_shuffle
    assert config.ts_shuffle
    assert config.code_shuffle
    assert config.ignore_ts
    assert config.mask_prob == 0.1


def test_decoding_is_named_with_and_without_its_command():
    for key in ("value_decoding", "generate.value_decoding"):
        assert compose("generate", ["model=x", f"{key}=center"]).value_decoding == "center"
    assert compose("generate", ["model=x", "generate.max_segments=3"]).max_segments == 3
