"""The one kind of error that is meant for the person at the keyboard."""

import difflib
from collections.abc import Iterable


class UserError(Exception):
    """Wrong input or settings; the message says what is wrong, where, and what to do.

    The scripts print the message without a traceback and exit with status 1.
    """


def nearest(name: str, valid: Iterable[str]) -> str:
    """A hint such as ``" Did you mean 'hparams.n_ctx'?"``, or the valid names if none is near."""
    valid = list(valid)
    # People also forget the group ("n_ctx" for "hparams.n_ctx"): a same last part is near.
    same_leaf = [v for v in valid if v.rsplit(".", 1)[-1] == name.rsplit(".", 1)[-1]]
    by_lower = {v.lower(): v for v in reversed(valid)}
    found = difflib.get_close_matches(name.lower(), by_lower, n=1, cutoff=0.6)
    close = same_leaf or [by_lower[v] for v in found]
    if close:
        return f" Did you mean {close[0]!r}?"
    shown = ", ".join(valid[:20]) + (f" and {len(valid) - 20} more" if len(valid) > 20 else "")
    return f" Valid: {shown}."
