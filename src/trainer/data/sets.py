"""Data sets that come with scikit-learn."""

from __future__ import annotations

from typing import Any, Literal

import torch

from trainer.data import files
from trainer.data.base import Data
from trainer.data.tables import Table
from trainer.errors import lacking


class Sklearn(Table):
    """A table that comes with scikit-learn.

    Args:
        name: breast_cancer, diabetes, iris, linnerud or wine.
        standardize: Whether numbers get the mean 0 and the deviation 1.
        validation: Fraction of the rows held out.
    """

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
        frame = polars.DataFrame({**columns, **targets})
        source = f"data.name={name}"
        super().__init__(frame, [*targets], standardize=standardize, validation=validation, source=source)


class Digits(Data):
    """1,797 images of handwritten digits, 8 x 8 values from 0 to 1, in ten classes (scikit-learn's `load_digits`).

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
