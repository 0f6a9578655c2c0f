"""A record as people read it: a line per section and per time point."""

import numpy as np
from numpy.typing import NDArray

from synehrgy.tokenizer import grammar as g
from synehrgy.tokenizer.encode import Records
from synehrgy.tokenizer.segments import NO_ELAPSED, Cutter, Segments, cut_records
from synehrgy.tokenizer.tokenizer import Tokenizer

_CLOSERS = (g.END_COVARIATES, g.END_LABELS, g.END_CODES)


def show_record(tokenizer: Tokenizer, tokens: NDArray[np.integer], most_points: int) -> str:
    """The text of a record's tokens.

    Args:
        tokenizer: that the record was made with.
        tokens: of one record.
        most_points: time points shown per admission; the others are only counted.

    Returns:
        Lines, indented by admission; each time point has the hours since admission before it.
    """
    lines: list[str] = []
    words: list[str] = []
    hours, n_points = 0.0, 0
    grammar, kinds = tokenizer.grammar, tokenizer.kind_of[tokens]

    def close(prefix: str = "    ") -> None:
        lines.append(prefix + "  ".join(words))
        words.clear()

    for i, token in enumerate(tokens.tolist()):
        kind = grammar.kinds[kinds[i]]
        words.append(tokenizer.vocabulary[token])
        hours += float(tokenizer.hours_of[token])
        is_last_of_time = grammar.is_time[kinds[i]] and not grammar.is_time[kinds[i + 1]]
        if kind in (g.START, g.END):
            close("")
        elif kind in _CLOSERS:
            close()
        elif is_last_of_time:
            n_points += 1
            close(f"    {hours:8.2f} h  ")
            if n_points > most_points:
                lines.pop()
        elif kind == g.END_SERIES:
            if n_points > most_points:
                lines.append(f"      ... {n_points - most_points:,} more time points")
        elif kind == g.END_ADMISSION:
            close()
            hours, n_points = 0.0, 0
    return "\n".join(lines)


def show_segments(tokenizer: Tokenizer, records: Records, row: int, n_ctx: int) -> str:
    """Where a record is cut for a context, and what each segment begins with.

    Raises:
        UserError: a context too short for the record.
    """
    segments = cut_records(tokenizer, records, np.array([row]), n_ctx)
    tokens = records[row].astype(np.int64)
    total = len(tokens)
    lines = [f"with n_ctx={n_ctx}: {len(segments)} segments of {total:,} tokens"]
    for i in range(len(segments)):
        lines.append(_segment_line(tokenizer, segments, tokens, i, n_ctx))
    lost = total - int(segments.stop[-1])
    if lost:
        lines.append(f"  {lost:,} tokens are cut off (preprocess.long_records=truncate)")
    return "\n".join(lines)


def _segment_line(
    tokenizer: Tokenizer, segments: Segments, tokens: NDArray[np.int64], i: int, n_ctx: int
) -> str:
    start, stop = int(segments.start[i]), int(segments.stop[i])
    line = f"  tokens {start:,} to {stop - 1:,}"
    if not start:
        return line
    head = [tokenizer.vocabulary[token] for token in Cutter(tokenizer, n_ctx).head(tokens, start)]
    what = "codes" if segments.elapsed[i] == NO_ELAPSED else "series"
    return f"{line}, going on with the {what} after: {'  '.join(head)}"


def show_vocabulary(tokenizer: Tokenizer) -> str:
    """How many tokens there are of which kind, with an example of each."""
    groups: dict[str, list[str]] = {}
    for kind, size, first in zip(
        tokenizer.grammar.kinds, tokenizer.size, tokenizer.first, strict=True
    ):
        # Parts of a number in digits belong to their series: "digit 2:variable:Heart Rate".
        parts = [p for p in kind.split(":") if not p.startswith(("sign", "zero ", "digit "))]
        name = "special" if kind in g.SPECIAL else parts[0]
        groups.setdefault(name, []).extend(tokenizer.vocabulary[first : first + size])
    width = max(map(len, groups))
    lines = [
        f"{name:{width}}  {len(texts):6,}  {texts[0]}" + (f" ... {texts[-1]}" if texts[1:] else "")
        for name, texts in groups.items()
        if texts
    ]
    return "\n".join([*lines, f"{'all':{width}}  {len(tokenizer.vocabulary):6,}"])
