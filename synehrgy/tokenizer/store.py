"""Tokens at rest: memory-mapped arrays beside the cohort that can never be stale."""

import hashlib
import json
from collections.abc import Iterator
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from synehrgy.cohort import SPLITS, hash_of, read_cohort, read_schema
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
        tokenizer: fitted on the cohort's train split.
        records: all patients; the tokens stay on disk until they are used.
    """

    path: Path
    fingerprint: str
    tokenizer: Tokenizer
    records: Records

    def of_split(self, name: str) -> NDArray[np.int64]:
        """Indices of the records of a split."""
        return np.flatnonzero(self.records.splits == SPLITS.index(name))


def tokenise(cohort_path: Path, settings: TokenSettings) -> TokenStore:
    """The tokens of a cohort folder: those at hand if they fit, else made now.

    Each combination of cohort, settings and tokenizer version has a folder of its own under
    ``<cohort>/tokens``, named by its fingerprint.

    Raises:
        UserError: no cohort there, or one that no tokenizer can be fitted on.
    """
    cohort_path = Path(cohort_path)
    read_schema(cohort_path)
    # Settings may come with those of another stage, which make no difference to tokens.
    settings = TokenSettings(**{f.name: getattr(settings, f.name) for f in fields(TokenSettings)})
    fingerprint = fingerprint_of(cohort_path, settings)
    folder = cohort_path / TOKENS_FOLDER / fingerprint[:16]
    if not _is_whole(folder, fingerprint):
        cohort = read_cohort(cohort_path)
        tokenizer = Tokenizer.fit(cohort, settings)
        _write(folder, fingerprint, tokenizer, encode(tokenizer, cohort))
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


def fingerprint_of(cohort_path: Path, settings: TokenSettings) -> str:
    """What tells the tokens of a cohort from those of any other, and of other settings.

    Raises:
        UserError: a table of the cohort is missing.
    """
    digest = hashlib.blake2b(digest_size=32)
    digest.update(json.dumps([TOKENIZER_VERSION, asdict(settings)], sort_keys=True).encode())
    digest.update(hash_of(cohort_path).encode())
    return digest.hexdigest()


def _is_whole(folder: Path, fingerprint: str) -> bool:
    file = folder / _META_FILE
    if not file.exists():
        return False
    meta = read_json(file)
    return isinstance(meta, dict) and meta.get("fingerprint") == fingerprint


def _write(folder: Path, fingerprint: str, tokenizer: Tokenizer, records: Records) -> None:
    with new_folder(folder, replaceable=lambda path: (path / _META_FILE).exists()) as aside:
        for name in _ARRAYS:
            np.save(aside / f"{name}.npy", getattr(records, name), allow_pickle=False)
        tokenizer.save(aside / TOKENIZER_FILE)
        counts = {"dropped": records.dropped, "changed": records.changed}
        meta: dict[str, Any] = {"fingerprint": fingerprint, **counts}
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
    return TokenStore(folder, fingerprint, Tokenizer.load(folder / TOKENIZER_FILE), records)
