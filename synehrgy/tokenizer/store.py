"""Tokens at rest: memory-mapped arrays beside the cohort that can never be stale."""

import hashlib
import json
from collections.abc import Iterator
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from synehrgy.cohort import SPLITS, hash_of, is_cohort, read_cohort, read_schema
from synehrgy.errors import UserError
from synehrgy.files import new_folder, read_json, write_json
from synehrgy.settings import TokenOverrides, TokenSettings
from synehrgy.tokenizer.encode import Records, encode
from synehrgy.tokenizer.quantities import Digits
from synehrgy.tokenizer.tokenizer import TOKENIZER_VERSION, Tokenizer

TOKENIZER_FILE = "tokenizer.json"
TOKENS_FOLDER = "tokens"

_META_FILE = "meta.json"
_ARRAYS = ("tokens", "offsets", "subject_ids", "splits")
_REPORTED_CONTEXTS = (512, 1024, 2048, 4096, 8192)


@dataclass(frozen=True)
class TokenStore:
    """The tokens of a cohort and the tokenizer that made them.

    Attributes:
        path: folder of the arrays.
        fingerprint: of cohort, settings and version of the tokenizer.
        tokenizer: fitted on the cohort's train split, unless it was given.
        records: all patients; the tokens stay on disk until they are used.
        is_simulated: whether the cohort says that its patients are.
    """

    path: Path
    fingerprint: str
    tokenizer: Tokenizer
    records: Records
    is_simulated: bool = False

    def of_split(self, name: str) -> NDArray[np.int64]:
        """Indices of the records of a split."""
        return np.flatnonzero(self.records.splits == SPLITS.index(name))


def tokenise(cohort_path: Path, by: TokenSettings | Tokenizer) -> TokenStore:
    """The tokens of a cohort folder: those at hand if they fit, else made now.

    Each combination of cohort, settings (or tokenizer) and tokenizer version has a folder of its
    own under ``<cohort>/tokens``, named by its fingerprint.

    Args:
        cohort_path: folder of the cohort.
        by: settings of a tokenizer that is fitted to the train split, or a tokenizer, of which
            then nothing depends on this cohort.

    Raises:
        UserError: no cohort there, one that no tokenizer can be fitted on, or that the given one
            does not fit.
    """
    cohort_path = Path(cohort_path)
    read_schema(cohort_path)
    if isinstance(by, Tokenizer):
        by = by.as_trained()
    else:
        # Settings may come with those of another stage, which make no difference to tokens.
        by = TokenSettings(**{f.name: getattr(by, f.name) for f in fields(TokenSettings)})
    fingerprint = fingerprint_of(cohort_path, by)
    folder = cohort_path / TOKENS_FOLDER / fingerprint[:16]
    if not _is_whole(folder, fingerprint):
        cohort = read_cohort(cohort_path)
        tokenizer = by if isinstance(by, Tokenizer) else Tokenizer.fit(cohort, by)
        is_simulated = cohort.provenance.get("simulated") is True
        _write(folder, fingerprint, tokenizer, encode(tokenizer, cohort), is_simulated)
    return _open(folder, fingerprint)


def preprocess_tokens(cohort_path: Path, settings: TokenSettings) -> TokenStore:
    """Tokenise a cohort and make these tokens the ones that training takes unless told otherwise.

    ``<cohort>/tokenizer.json`` is what says so.
    """
    store = tokenise(cohort_path, settings)
    store.tokenizer.save(Path(cohort_path) / TOKENIZER_FILE)
    return store


def as_preprocessed(cohort_path: Path, overrides: TokenOverrides) -> TokenSettings:
    """The settings that the cohort was last tokenised with, changed where overrides are given."""
    file = Path(cohort_path) / TOKENIZER_FILE
    settings = Tokenizer.load(file).settings if file.exists() else TokenSettings()
    given = {f.name: getattr(overrides, f.name) for f in fields(overrides)}
    return replace(settings, **{k: v for k, v in given.items() if v not in (None, {})})


def tokens_report(store: TokenStore) -> str:
    """Token count, lengths, what truncation at usual contexts would lose, and what has no token."""
    records, tokenizer = store.records, store.tokenizer
    lengths = records.lengths
    total = int(lengths.sum())
    if not total:
        return "0 tokens"
    at = [5, 25, 50, 75, 95, 100]
    percentiles = zip(at, np.percentile(lengths, at), strict=True)
    beyond = [
        (n, np.mean(lengths <= n), np.maximum(lengths - n, 0).sum() / total)
        for n in _REPORTED_CONTEXTS
    ]
    continued = tokenizer.settings.long_records == "continue"
    n_codes = ", ".join(f"{system} {len(codes):,}" for system, codes in tokenizer.codes.items())
    lines = [
        f"{total:,} tokens in {len(records):,} records, {lengths.mean():,.0f} on average",
        f"vocabulary of {len(tokenizer.vocabulary):,}; codes: {n_codes or 'none'}",
        "tokens per record by percentile: " + "  ".join(f"{p}%: {v:,.0f}" for p, v in percentiles),
        "records that fit into a context: " + "  ".join(f"{n}: {fit:.1%}" for n, fit, _ in beyond),
        f"tokens beyond it ({'continued' if continued else 'cut off'}):    "
        + "  ".join(f"{n}: {share:.1%}" for n, _, share in beyond),
    ]
    lines += [losses] if (losses := losses_report(records)) else []
    return "\n".join([*lines, *_rules_report(tokenizer)])


def losses_report(records: Records) -> str:
    """What has no token or says less than the cohort, by reason; empty if nothing does."""
    lines = [f"no token: {n:,} {what}" for what, n in sorted(records.dropped.items()) if n]
    lines += [f"less exact: {n:,} {what}" for what, n in sorted(records.changed.items()) if n]
    return "\n".join(lines)


def _rules_report(tokenizer: Tokenizer) -> Iterator[str]:
    """Rules that were asked for and are not kept."""
    declared = {c.name for c in tokenizer.schema.covariates}
    for name, rule in sorted(tokenizer.settings.within_patient.items() - tokenizer.rules.items()):
        if name not in declared or rule == "free":
            continue
        in_digits = isinstance(tokenizer.covariate_numbers.get(name), Digits)
        reason = "is written in digits" if in_digits else f"is not {rule} in every patient"
        yield f"{name} {reason}, so records are not asked for {rule} {name}"


def fingerprint_of(cohort_path: Path, by: TokenSettings | Tokenizer) -> str:
    """What tells the tokens of a cohort from those of any other, and of other settings.

    Raises:
        UserError: a table of the cohort is missing.
    """
    digest = hashlib.blake2b(digest_size=32)
    # How a model was trained on its tokens makes no difference to them.
    made_by = by.as_trained().to_json() if isinstance(by, Tokenizer) else asdict(by)
    digest.update(json.dumps([TOKENIZER_VERSION, made_by], sort_keys=True).encode())
    digest.update(hash_of(cohort_path).encode())
    return digest.hexdigest()


def are_of(fingerprint: str, cohort_path: Path, by: TokenSettings | Tokenizer) -> bool:
    """Whether tokens of a fingerprint are of the cohort that a folder holds now."""
    return is_cohort(cohort_path) and fingerprint_of(cohort_path, by) == fingerprint


def _is_whole(folder: Path, fingerprint: str) -> bool:
    file = folder / _META_FILE
    if not file.exists():
        return False
    meta = read_json(file)
    return isinstance(meta, dict) and meta.get("fingerprint") == fingerprint


def _write(
    folder: Path, fingerprint: str, tokenizer: Tokenizer, records: Records, is_simulated: bool
) -> None:
    with new_folder(folder, replaceable=lambda path: (path / _META_FILE).exists()) as aside:
        for name in _ARRAYS:
            np.save(aside / f"{name}.npy", getattr(records, name), allow_pickle=False)
        tokenizer.save(aside / TOKENIZER_FILE)
        counts = {"dropped": records.dropped, "changed": records.changed}
        meta: dict[str, Any] = {"fingerprint": fingerprint, "simulated": is_simulated, **counts}
        write_json(aside / _META_FILE, meta)


def _open(folder: Path, fingerprint: str) -> TokenStore:
    arrays = {}
    for name in _ARRAYS:
        file = folder / f"{name}.npy"
        try:
            arrays[name] = np.load(file, mmap_mode="r", allow_pickle=False)
        except (OSError, ValueError, EOFError) as error:
            raise UserError(
                f"{file} cannot be read ({error}). Delete {folder} and run the command again."
            ) from None
    meta = read_json(folder / _META_FILE)
    records = Records(**arrays, dropped=meta["dropped"], changed=meta["changed"])
    tokenizer = Tokenizer.load(folder / TOKENIZER_FILE)
    # Without the mark of an earlier version nobody knows, and then they count as real.
    return TokenStore(folder, fingerprint, tokenizer, records, meta.get("simulated", False))
