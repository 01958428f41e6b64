"""Which words in a table mean that a cell is empty: data.missing."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from trainer.data.files import MISSING, load_polars
from trainer.errors import refusal

if TYPE_CHECKING:
    import polars as pl

UNSAID = tuple(MISSING)  # what configurations mean that were written before there was the setting


@dataclass(frozen=True)
class Words:
    """The words that mean an empty cell, the empty text first.

    Args:
        numbers: Those in columns of numbers.
        names: Those in columns of text and of classes.
        categorical: Those in columns whose type is a category: what is missing there has no name to begin with.
    """

    numbers: list[str]
    names: list[str]
    categorical: list[str]

    def of_names(self, column: pl.Series) -> list[str]:
        """Return those of a column that holds names."""
        polars = load_polars()
        return self.categorical if column.dtype in (polars.Categorical, polars.Enum) else self.names


def words_of(given: Sequence[Any] | None) -> Words:
    """Return the words that `data.missing` lists; None is the usual ones for numbers, and none for names.

    Raises:
        UsageError: It is no list of words and numbers.
    """
    if given is None:
        return Words(MISSING, [""], [""])
    wrong = isinstance(given, str) or any(not isinstance(word, str | int | float | None) for word in given)
    if wrong:
        raise refusal(f"data.missing={given}", "is not a list of words", "data.missing=[NA,-999]")
    words = list(dict.fromkeys(spelling for word in ("", *given) for spelling in _spellings(word)))
    return Words(words, words, [] if given is UNSAID else words)


def _spellings(word: Any) -> tuple[str, ...]:
    """Return how a word stands in a file: YAML takes null and true for values, in whatever case."""
    if isinstance(word, str):
        return (word.strip(),)
    text = "null" if word is None else str(word).lower()
    return (text, text.upper(), text.capitalize())
