"""The errors that end a command: one line for the user, and an exit code."""

from __future__ import annotations

TYPE_CHECKING = False  # importing typing would slow down every --help
if TYPE_CHECKING:
    from collections.abc import Iterable

_LONGEST = 300  # characters of a quoted word


class TrainerError(Exception):
    """An error with a message of one line; the command ends with `exit_code`."""

    exit_code = 1


class UsageError(TrainerError):
    """A wrong word in the command or the configuration; nothing has been created."""

    exit_code = 2

    def __init__(self, message: str, key: str = "") -> None:
        """Store the message, and the dotted key of the wrong setting."""
        super().__init__(message)
        self.key = key

    def within(self, where: str) -> UsageError:
        """Return the same error with a prefix: the job or run it is about."""
        return UsageError(f"{where}: {self}", self.key)


class RunFailed(TrainerError):
    """Training can't continue; saved checkpoints remain."""


def printable(text: str) -> str:
    """Return a text on one line, with control characters escaped, which a terminal would execute."""
    return text if text.isprintable() else "".join(c if c.isprintable() else repr(c)[1:-1] for c in text)


def nearest(word: str, options: Iterable[str]) -> str | None:
    """Return the option most similar to `word`, ignoring case; None if none is similar."""
    import difflib  # not at the top: only errors need it

    by_lower = {option.lower(): option for option in options}
    close = difflib.get_close_matches(word.lower(), by_lower, n=1, cutoff=0.6)
    return by_lower[close[0]] if close else None


def refusal(what: str, reason: str, allowed: Iterable[str] | str = (), suggestion: str | None = None) -> UsageError:
    """Return an error with the message `what: reason; allowed: ...; did you mean ...?`.

    Args:
        what: The wrong word; a dotted key at its beginning becomes the key of the error.
        reason: Why it is wrong.
        allowed: The allowed words.
        suggestion: The most similar allowed word.
    """
    line = f"{what if len(what) <= _LONGEST else f'{what[:_LONGEST]} ...'}: {reason}"
    allowed = allowed if isinstance(allowed, str) else ", ".join(allowed)
    if allowed:
        line += f"; allowed: {allowed}"
    if suggestion:
        line += f"; did you mean {suggestion}?"
    import re  # not at the top: --help does not need it

    return UsageError(line, re.match(r"[\w.]*", what)[0])  # type: ignore[index]


def require(name: str, value: object, ok: bool, limits: str) -> None:
    """Raise a ValueError that names an argument and its limits, unless `ok`."""
    if not ok:
        raise ValueError(f"{name}={value} must be {limits}")


def lacking(what: str, packages: str, extra: str) -> UsageError:
    """Return an error that names missing packages and the extra that installs them."""
    return UsageError(f"{what}: needs {packages}: pip install {packages} (the extra `{extra}`)")


def unknown(what: str, reason: str, word: str, options: Iterable[str], prefix: str = "") -> UsageError:
    """Return an error for a word that is not among `options`; it suggests the nearest one, with `prefix` before it."""
    options = sorted(options)
    near = nearest(word, options)
    return refusal(what, reason, options, prefix + near if near else None)
