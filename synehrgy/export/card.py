"""The card of a model: what it is, what it was made of, what is known about it and what is not."""

from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

import yaml

import synehrgy
from synehrgy.cohort import SPLITS
from synehrgy.comparison.headlines import HEADLINES
from synehrgy.export.facts import Facts
from synehrgy.tokenizer.tokenizer import PARTS

# Metrics of privacy, and what each asks.
FROM_PATIENTS = {
    "membership": "who was in the training data, from synthetic patients",
    "memorisation": "runs of tokens that were copied from the training data",
    "distances": "synthetic patients that are too near to real ones",
    "attributes": "what synthetic patients tell about a person who is partly known",
    "singling_out": "descriptions that fit one real person only",
}
FROM_MODEL = {
    "model_attacks": "who was in the training data, from the likelihoods of the model",
    "shadow": "the same, with shadow models (LiRA)",
    "canaries": "made-up patients that were planted in the training data",
}

_SIMULATED = """\
Trained on **simulated** patients: nobody in its training data ever lived, and no data use
agreement applies. Models of real data made with the same program are another matter."""

_REAL = """\
**Trained on records of patients. Do not publish it without permission.** A model holds what it was
trained on: it may repeat parts of records. The files of its vocabulary state bin edges and codes
that come from the training data{quantiles}. Whoever shares it answers for that."""

_CREDENTIALED = """\
MIMIC and eICU are credentialed data: the PhysioNet Credentialed Health Data Use Agreement forbids
to share them with anybody who has not signed. Models trained on them fall under the agreement until
it is shown that they reveal nobody. The place to share one is PhysioNet itself, as a project with
credentialed access under the same agreement (<https://physionet.org/about/publish/>); a private
repository elsewhere is no replacement. Only the open demos (`data=mimic3_demo`) are free, under the
Open Database License."""

_OTHER_DATA = """\
The terms of the hospital, its ethics board and the law that its patients live under decide who may
have this model."""

_LICENCE = """\
`license: other` in the head of this page is a blank: fill in the licence that you may give."""

_USE = """\
```python
from transformers import AutoModelForCausalLM, AutoTokenizer

folder = "<this folder>"
tokenizer = AutoTokenizer.from_pretrained(folder{trust})
model = AutoModelForCausalLM.from_pretrained(folder{trust})
record = model.generate(**tokenizer("<s>", return_tensors="pt"))
print(tokenizer.decode(record[0]))
```

Needs `transformers` 4.57 or later. A text has one token per line.{code}

**Warning: `generate` of transformers knows no grammar.** It draws any token that the model holds
possible: records may be cut off at the context of {n_ctx:,} tokens, state a code twice, let the age
fall or contradict themselves. Valid records, conditions, records beyond the context and tables
come from the sampler of SynEHRgy:

    python -m synehrgy.export from_hf <this folder> my-model
    python generate.py model=my-model {generate}"""

_CODE = """ \
`trust_remote_code=True` runs `modeling_synehrgy.py` of this folder: read it first."""

_FORECASTS = """\
The model was trained to forecast: a record is given up to `<forecast>`, the first hours of the
last stay and `</forecast>`, and the model writes what follows."""

_NO_EVALUATION = """\
**Not evaluated.** Nothing is known about the fidelity or utility of its patients;
`python evaluate.py model=<run>` compares them with real ones."""

_NO_GUARANTEE = """\
Training was not differentially private."""

_SPOILT = """\
Training added noise, but **nothing is guaranteed**, because of `{setting}`."""

_TOKENIZER_OUTSIDE = """\
The tokenizer (edges and quantiles of values, which codes there are) was fitted to the patients and
is outside of the guarantee."""

_NO_PRIVACY = """\
**No privacy was measured.** Neither membership nor memorisation was tested: nobody knows what this
model, or patients sampled from it, reveal about the patients that it was trained on.
`python evaluate.py model=<run>` measures both."""

_NO_MODEL_ATTACKS = """\
**No attack that knows the model was tried**, and who has this folder knows the model."""

_CITE = """\
```bibtex
@article{karami2024synehrgy,
  author  = {Karami, Hojjat and Atienza, David and Ionescu, Anisoara},
  title   = {{SynEHRgy}: Synthesizing Mixed-Type Structured Electronic Health Records using
             Decoder-Only Transformers},
  journal = {arXiv preprint arXiv:2411.13428},
  year    = {2024},
  url     = {https://arxiv.org/abs/2411.13428}
}
```"""

_CITE_DATA = """\
The data, as their page on PhysioNet asks; MIMIC-III: Johnson et al., *Scientific Data* 3, 160035
(2016). PhysioNet: Goldberger et al., *Circulation* 101 (23), e215-e220 (2000)."""


def card_of(facts: Facts) -> str:
    """The card as Markdown with a YAML header, as the Hugging Face Hub reads it."""
    tags = ["synehrgy", "electronic-health-records", "synthetic-data", "medical"]
    header = {"library_name": "transformers", "license": "other", "tags": tags}
    n_parameters = facts.about["n_parameters"] / 1e6
    written = "the futures of patients' stays" if facts.forecasts else "whole patients"
    sections = {
        "Before you share or use it": _warning(facts),
        "Use": _use(facts),
        "Data": _data(facts),
        "Tokens": _tokens(facts),
        "Model": _model(facts),
        "Training": _training(facts),
        "Evaluation": _evaluation(facts),
        "Privacy": _privacy(facts),
        "Cite": [_CITE, *([_CITE_DATA] if facts.is_credentialed else [])],
    }
    parts = [
        f"---\n{yaml.safe_dump(header, sort_keys=False)}---",
        f"# {facts.run.path.name}",
        f"A decoder of {n_parameters:.2f} million parameters that writes {written} (covariates, "
        "labels, codes and irregular time series) as sequences of tokens, made with SynEHRgy "
        f"{synehrgy.__version__}. For methods, teaching and software, not for clinical "
        "conclusions.",
    ]
    for title, texts in sections.items():
        parts += [f"## {title}", *texts]
    return "\n\n".join(parts) + "\n"


def _warning(facts: Facts) -> list[str]:
    if facts.is_simulated:
        return [_SIMULATED, _LICENCE]
    quantiles = ", and quantiles of its values" if facts.values else ""
    texts = [
        _REAL.format(quantiles=quantiles),
        _CREDENTIALED if facts.is_credentialed else _OTHER_DATA,
    ]
    if (before := facts.run.config["use_pretrained"]) is not None:
        texts.append(
            f"It began with the weights of another run, `{before}`: the terms of that run's data "
            "apply, too."
        )
    return [*texts, _LICENCE]


def _use(facts: Facts) -> list[str]:
    has_code = facts.architecture.has_code
    generate = "mode=forecast data.path=<a cohort>" if facts.forecasts else "n_samples=1000"
    text = _USE.format(
        trust=", trust_remote_code=True" if has_code else "",
        code=_CODE if has_code else "",
        n_ctx=facts.run.model.config.n_ctx,
        generate=generate,
    )
    return [text, *([_FORECASTS] if facts.forecasts else [])]


def _data(facts: Facts) -> list[str]:
    config, schema = facts.run.config, facts.run.tokenizer.schema
    source = "simulated" if facts.about.get("simulated") is True else schema.source
    about = (
        f"Data set `{config['data']['name']}`, source `{source}`: {len(schema.covariates)} "
        f"covariates, {len(schema.labels)} labels, {len(schema.variables)} series and "
        f"{len(schema.code_systems)} code systems."
    )
    if facts.counts is None or facts.splits is None:
        return [
            about,
            "**The size of the training data is not stated**: the cohort was not at hand when this "
            "card was written.",
        ]
    there = [split for split in SPLITS if split in facts.splits.index]
    numbers = [(s, *(f"{n:,}" for n in facts.splits.loc[s])) for s in there]
    texts = [
        about,
        _table(("split", "patients", "stays"), numbers),
        f"All splits together have {facts.counts['codes']:,} codes and "
        f"{facts.counts['measurements']:,} measurements. The model was trained on train; "
        f"{_chosen(facts)}; test was not seen.",
    ]
    if (ratio := config["train"]["ratio"]) < 1:
        texts.append(f"Of the patients of train a share of {ratio:g} was used (`train.ratio`).")
    return texts


def _chosen(facts: Facts) -> str:
    if facts.about.get("privacy") is not None:
        return "val was looked at, and chose nothing"
    return "val chose the best epoch"


def _tokens(facts: Facts) -> list[str]:
    tokenizer = facts.run.tokenizer
    keys = ("bin_type", "n_bins", "time", "long_records", "rare_codes", "min_code_count")
    codes = ", ".join(f"{len(codes):,} of `{name}`" for name, codes in tokenizer.codes.items())
    quantiles = (
        "keeps quantiles of the values inside each bin"
        if facts.values
        else "was written without quantiles: generated values are spread evenly over their bin"
    )
    rare = (
        ""
        if tokenizer.settings.rare_codes == "drop"
        else " **Codes rarer than `min_code_count` are named, too**: some may be of one patient."
    )
    return [
        _table(("setting", ""), [(f"`{key}`", getattr(tokenizer.settings, key)) for key in keys]),
        f"A vocabulary of {len(tokenizer.vocabulary):,} tokens; codes: {codes or 'none'}.{rare}",
        "`tokenizer.json` names the tokens for transformers. `synehrgy/tokenizer.json` turns "
        f"records into tables again; it {quantiles}. Bin edges and codes come from the training "
        "data in either case.",
    ]


def _model(facts: Facts) -> list[str]:
    config, architecture = facts.run.model.config, facts.architecture
    code = "`modeling_synehrgy.py`" if architecture.has_code else "transformers"
    shape = {**asdict(config), "n_kv_head": config.key_heads}
    rows = [
        ("class", f"`{architecture.model_class}` of {code}"),
        ("parameters", f"{facts.about['n_parameters']:,}"),
        *((f"`{key}`", value) for key, value in shape.items()),
    ]
    return [_table(("", ""), rows)]


def _training(facts: Facts) -> list[str]:
    config, about, best = facts.run.config, facts.about, facts.best
    hparams = config["hparams"]
    rows = [
        ("asked", "futures of stays" if facts.forecasts else "whole patients"),
        ("epochs", f"{len(facts.epochs)}, of which number {best['epoch']} is kept"),
        ("validation loss", f"{best['val_loss']:.4f} nats per token"),
        ("validation perplexity", _number(best["val_perplexity"])),
        ("training loss in that epoch", f"{best['train_loss']:.4f}"),
        ("optimiser", f"{hparams['optimiser']}, learning rate {hparams['lr']:g}"),
        ("records or segments per step", hparams["mini_batch"] * hparams["n_accum"]),
        ("seed", about["seed"]),
        ("began", about["started"]),
        ("ended", about["finished"] or "stopped before its end"),
        ("versions", ", ".join(f"{name} {v}" for name, v in about["versions"].items())),
    ]
    keys = [(part, f"val_loss_{part}") for part in PARTS]
    parts = [(part, f"{best[key]:.4f}") for part, key in keys if key in best]
    texts = [_table(("", ""), rows), _table(("part of the record", "validation loss"), parts)]
    if n := config["train"]["canaries"]:
        texts.append(
            f"**{n:,} made-up patients (canaries) were planted in the training data**: this is a "
            "run for audits. What it learnt of them it may also write; share one without."
        )
    return texts


def _evaluation(facts: Facts) -> list[str]:
    about = facts.evaluation
    if about is None:
        return [_NO_EVALUATION]
    if "scores" not in about:
        # That of forecasts has single figures.
        figures = [(f"`{name}`", _number(value)) for name, value in about["metrics"].items()]
        return [f"Forecasts of stays of {about['split']}.", _table(("score", "value"), figures)]
    scores = {(score["score"], score["row"]): score for score in about["scores"]}
    rows = []
    for headline in (h for h in HEADLINES if h.group != "Privacy"):
        mine = scores.get((headline.score, "synthetic"))
        if mine is None or mine["value"] is None:
            continue
        held_out = scores.get((headline.score, "test"), {"value": None})["value"]
        title = f"{headline.group}: {headline.title}"
        rows.append((title, f"`{headline.score}`", *_numbers(mine), _number(held_out)))
    return [
        f"{about['patients']['synthetic']:,} patients from the sampler of SynEHRgy against real "
        f"ones (`preset={about['config']['preset']}`, {about['made']}). Held out: the same score "
        "of real patients that the model was not trained on, the best that can be expected.",
        _table(("", "score", "value", "95 % interval", "light", "held out"), rows),
    ]


def _privacy(facts: Facts) -> list[str]:
    return [*_guarantee(facts), *_measured(facts)]


def _guarantee(facts: Facts) -> list[str]:
    """What training promises of each patient, if it does."""
    found = facts.about.get("privacy")
    if found is None:
        return [_NO_GUARANTEE]
    if found["spoilt_by"] is not None:
        return [_SPOILT.format(setting=found["spoilt_by"])]
    text = (
        f"**Trained with differential privacy**: for each patient of the train split the weights "
        f"are ({found['epsilon']:.3g}, {found['delta']:.2g})-differentially private, whoever the "
        f"others are (DP-SGD on whole patients; noise {found['noise']:.3g}, clip "
        f"{found['clip']:g}, rate {found['rate']:.3g}, {found['steps']:,} steps)."
    )
    if found["covers_tokenizer"]:
        return [f"{text} The tokenizer was made without them."]
    return [f"{text} {_TOKENIZER_OUTSIDE}"]


def _measured(facts: Facts) -> list[str]:
    rows, measured = [], set()
    for score in (facts.evaluation or {}).get("scores", []):
        metric = score["metric"]
        if metric not in {**FROM_PATIENTS, **FROM_MODEL} or score["row"] != "synthetic":
            continue
        if score["value"] is not None and score["light"] is not None:
            measured.add(metric)
            rows.append((f"`{score['score']}`", *_numbers(score)))
    if not rows:
        return [_NO_PRIVACY]
    missing = [
        f"- `{metric}`: {asks}"
        for metric, asks in {**FROM_PATIENTS, **FROM_MODEL}.items()
        if metric not in measured
    ]
    texts = [_table(("score", "value", "95 % interval", "light"), rows)]
    if missing:
        texts += ["Not measured:", "\n".join(missing)]
    if not measured & set(FROM_MODEL):
        texts.append(_NO_MODEL_ATTACKS)
    return [*texts, "An attack that finds nothing proves nothing: there may be a better one."]


def _numbers(score: dict[str, Any]) -> tuple[str, str, str]:
    """Value, interval and light of a score."""
    low, high = (_number(score[end]) for end in ("low", "high"))
    return _number(score["value"]), f"{low} to {high}" if low else "", score["light"] or ""


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:.3f}"


def _table(head: Sequence[str], rows: Sequence[Sequence[object]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join(f"| {' | '.join(map(str, line))} |" for line in lines)
