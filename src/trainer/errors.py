"""What a user did wrong or what a run met, as one line and an exit code."""

from __future__ import annotations

TYPE_CHECKING = False  # typing's own would be imported with every help
if TYPE_CHECKING:
    from collections.abc import Iterable

_LONGEST = 300  # characters of what is quoted


class TrainerError(Exception):
    """Something to tell the user in one line; `exit_code` ends the command."""

    exit_code = 1


class UsageError(TrainerError):
    """A wrong word in the command or the configuration; nothing has been created."""

    exit_code = 2

    def __init__(self, message: str, key: str = "") -> None:
        """Keep the message, and the dotted key of the setting that is to blame."""
        super().__init__(message)
        self.key = key

    def within(self, where: str) -> UsageError:
        """Return the same refusal with what it holds for put before it."""
        return UsageError(f"{where}: {self}", self.key)


class RunFailed(TrainerError):
    """Training met something it can't go on from; what was saved before stays."""


def printable(text: str) -> str:
    """Return one line without control characters, which a terminal would obey."""
    return text if text.isprintable() else "".join(c if c.isprintable() else repr(c)[1:-1] for c in text)


def nearest(word: str, options: Iterable[str]) -> str | None:
    """Return the option most like `word`, whatever the case, or None if none is."""
    import difflib  # most commands go right and do without it

    by_lower = {option.lower(): option for option in options}
    close = difflib.get_close_matches(word.lower(), by_lower, n=1, cutoff=0.6)
    return by_lower[close[0]] if close else None


def refusal(what: str, reason: str, allowed: Iterable[str] | str = (), suggestion: str | None = None) -> UsageError:
    """Build the one line `what: reason; allowed: ...; did you mean ...?`."""
    line = f"{what if len(what) <= _LONGEST else f'{what[:_LONGEST]} ...'}: {reason}"
    allowed = allowed if isinstance(allowed, str) else ", ".join(allowed)
    if allowed:
        line += f"; allowed: {allowed}"
    if suggestion:
        line += f"; did you mean {suggestion}?"
    import re  # a help does without it

    return UsageError(line, re.match(r"[\w.]*", what)[0])  # type: ignore[index]


def require(name: str, value: object, ok: bool, limits: str) -> None:
    """Raise a ValueError that names an argument and its limits, unless `ok`."""
    if not ok:
        raise ValueError(f"{name}={value} must be {limits}")


def lacking(what: str, packages: str, extra: str) -> UsageError:
    """Refuse what needs packages that are not installed, naming the extra that they are of."""
    return UsageError(f"{what}: needs {packages}: pip install {packages} (the extra `{extra}`)")


def unknown(what: str, reason: str, word: str, options: Iterable[str], prefix: str = "") -> UsageError:
    """Refuse a word that is not among `options`, suggesting the nearest, with `prefix` put before it."""
    options = sorted(options)
    near = nearest(word, options)
    return refusal(what, reason, options, prefix + near if near else None)
