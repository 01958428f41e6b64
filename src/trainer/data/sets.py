"""Data sets included in scikit-learn."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal

import torch

from trainer.data import files
from trainer.data.base import Data
from trainer.data.tables import Table
from trainer.errors import lacking

if TYPE_CHECKING:
    import polars as pl


class Sklearn(Table):
    """A table included in scikit-learn.

    Args:
        name: breast_cancer, diabetes, iris, linnerud or wine.
        standardize: Whether to scale numbers to mean 0 and standard deviation 1.
        validation: Fraction of the rows held out.
    """

    key = "data.name"

    def __init__(
        self,
        name: Literal["breast_cancer", "diabetes", "iris", "linnerud", "wine"] = "iris",
        standardize: bool = True,
        validation: float = 0.2,
    ) -> None:
        polars = files.load_polars()
        bunch = getattr(_sklearn_datasets("sklearn"), f"load_{name}")()
        columns = {str(column): bunch.data[:, index] for index, column in enumerate(bunch.feature_names)}
        if bunch.target.ndim > 1:
            targets = {str(column): bunch.target[:, index] for index, column in enumerate(bunch.target_names)}
        elif hasattr(bunch, "target_names"):
            targets = {"target": [str(bunch.target_names[index]) for index in bunch.target]}
        else:
            targets = {"target": bunch.target}
        self._frame: pl.DataFrame = polars.DataFrame({**columns, **targets})
        super().__init__(name, [*targets], standardize=standardize, validation=validation)

    def _read(self, path: str, key: str) -> pl.DataFrame:
        return self._frame


class Digits(Data):
    """1,797 images of handwritten digits, 64 pixels (8 x 8) from 0 to 1, in ten classes (sklearn's `load_digits`).

    Args:
        validation: Fraction of the images held out.

    Raises:
        UsageError: scikit-learn is missing.
    """

    def __init__(self, validation: float = 0.2) -> None:
        digits = _sklearn_datasets("digits").load_digits()
        x = torch.from_numpy(digits.data / 16)
        super().__init__(x, torch.from_numpy(digits.target), validation, [str(c) for c in digits.target_names])


def _sklearn_datasets(option: str) -> Any:
    try:
        import sklearn.datasets
    except ImportError as error:
        raise lacking(f"data={option}", "scikit-learn", "data") from error
    return sklearn.datasets
