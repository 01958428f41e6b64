"""Map-style Datasets of torch, fed through DataLoader and its workers in the order of Batches."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, IterableDataset, Subset

from trainer import randomness
from trainer.data.base import Data, in_default_dtype
from trainer.data.batches import Rows
from trainer.errors import refusal
from trainer.files import safe_start


class Items(Data):
    """The items of a Dataset, pairs of an input and a target; each item is fetched with separately seeded generators.

    Args:
        dataset: Has __getitem__(index) and __len__; __getitems__(indices), if present, fetches whole batches, each with
            separately seeded generators; an attribute `classes`, if present, names the classes.
        validation: Fraction of the items held out.
        workers: Number of processes that fetch items; 0 fetches them in this process.
        classes: Number of classes if a target is one integer; None takes them from the dataset.

    Raises:
        UsageError: The dataset is not map-style, or its items are not pairs.
    """

    def __init__(
        self, dataset: Dataset[Any], validation: float = 0.0, workers: int = 0, classes: int | None = None
    ) -> None:
        name = type(dataset).__name__
        if isinstance(dataset, IterableDataset) or not hasattr(dataset, "__len__"):
            raise refusal(f"data: {name}", "is not map-style: it needs __getitem__(index) and __len__()")
        if workers < 0:
            raise refusal(f"data.workers={workers}", "is out of range", "at least 0")
        self._dataset, self._workers, self._count = dataset, workers, len(dataset)
        if self._count == 0:
            raise refusal(f"data: {name}", "has no items")
        item = self._item(0)
        if not isinstance(item, tuple | list) or len(item) != 2:
            raise refusal(f"data: {name}", "its items are not pairs of an input and a target")
        x, y = (in_default_dtype(torch.as_tensor(part)) for part in item)
        names = None
        if y.ndim == 0 and not y.is_floating_point():
            own = getattr(dataset, "classes", None)
            names = [str(i) for i in range(classes)] if classes else None if own is None else [str(c) for c in own]
            if names is None:
                what = f"data: the targets of {name} are whole numbers"
                raise refusal(what, "the number of classes is unknown", "data.classes=NUMBER")
        super().__init__(x[None], torch.zeros(1, dtype=torch.long) if names else y[None], validation, names)

    def prepare(self, seed: int, kept: Any = None) -> None:
        """Split the items."""
        super().prepare(seed)
        self._seed = seed

    @property
    def rows(self) -> int:
        """Number of items."""
        return self._count

    def part(self, rows: Tensor | None, form: Callable[[Tensor], Tensor], device: torch.device) -> Rows:
        """Return a source of batches over some items, which are fetched when needed."""
        numbers = torch.arange(self.rows) if rows is None else rows
        return Fetched(self._dataset, numbers, self.formed(form), device, self._workers, self._seed)

    def formed(self, form: Callable[[Tensor], Tensor]) -> Callable[[Tensor], Tensor]:
        """Return a function that converts fetched targets to the form that the loss expects."""

        def turned(y: Tensor) -> Tensor:
            return form(y.long() if self.classes is not None else y[:, None] if y.ndim == 1 else y)

        return turned

    @property
    def balance(self) -> dict[str, int]:
        """Always empty, because counting would fetch every item."""
        return {}

    def _item(self, index: int) -> Any:
        with randomness.isolated(index):
            return self._dataset[index]


class Fetched(Rows):
    """Items that DataLoader fetches ahead in the announced order.

    Args:
        dataset: The dataset.
        numbers: The numbers of the items.
        form: Converts targets to the form that the loss expects.
        device: The device of the batches.
        workers: Number of processes that fetch items; 0 fetches them in this process.
        seed: Seeds an item's generators, together with the epoch and the item's number.
    """

    fixed = False

    def __init__(
        self,
        dataset: Dataset[Any],
        numbers: Tensor,
        form: Callable[[Tensor], Tensor],
        device: torch.device,
        workers: int,
        seed: int,
    ) -> None:
        # Subset defines __getitems__ even if its dataset doesn't.
        is_batched = hasattr(dataset, "__getitems__") and not isinstance(dataset, Subset)
        seeded = _SeededBatches if is_batched else _Seeded
        self._seeded, self._numbers, self._form = seeded(dataset, seed), numbers, form
        self._workers, self._dtype = workers, torch.get_default_dtype()
        self._target, self._epoch = device, 0
        self._ahead: Iterator[Any] = iter(())
        self._expected: list[list[tuple[int, int]]] = []

    def __len__(self) -> int:
        """Return the number of items."""
        return len(self._numbers)

    def expect(self, epoch: int, batches: Sequence[Tensor]) -> None:
        """Start fetching batches."""
        self._epoch = epoch
        self._expected = [self._keys(rows) for rows in batches]
        # DataLoader draws a seed, and must not draw it from the generator of the training.
        loader = DataLoader(
            self._seeded,
            batch_sampler=list(self._expected),
            num_workers=self._workers,
            generator=torch.Generator(),
            worker_init_fn=safe_start.lift,
        )
        with safe_start.safe_path():  # on some systems, workers are new interpreters
            self._ahead = iter(loader) if self._workers else iter(())

    def take(self, rows: Tensor) -> tuple[Tensor, Tensor]:
        """Return items, given by their positions, as a batch."""
        keys = self._keys(rows)
        if self._workers and self._expected[:1] == [keys]:
            self._expected.pop(0)
            x, y = next(self._ahead)
        else:
            with randomness.isolated(0):
                x, y = torch.utils.data.default_collate(self._seeded.fetched(keys))
        return self._cast(x), self._form(self._cast(y))

    def _keys(self, rows: Tensor) -> list[tuple[int, int]]:
        return [(self._epoch, number) for number in self._numbers[rows].tolist()]

    def _cast(self, values: Tensor) -> Tensor:
        return values.to(self._target, self._dtype) if values.is_floating_point() else values.to(self._target)


class _Seeded(Dataset[Any]):
    """A dataset whose items draw from generators seeded by (seed, epoch, index)."""

    def __init__(self, dataset: Dataset[Any], seed: int) -> None:
        self._dataset, self._seed = dataset, seed

    def __getitem__(self, key: tuple[int, int]) -> Any:
        self._reseed(key)
        return self._dataset[key[1]]

    def fetched(self, keys: list[tuple[int, int]]) -> Any:
        """Return the items of a batch."""
        return [self[key] for key in keys]

    def _reseed(self, key: tuple[int, int]) -> None:
        epoch, index = key
        randomness.reseed(randomness.derived(self._seed, randomness.ITEM + epoch, index))


class _SeededBatches(_Seeded):
    """A dataset that fetches whole batches, with generators seeded by (seed, epoch, first index)."""

    def __getitems__(self, keys: list[tuple[int, int]]) -> Any:
        self._reseed(keys[0])
        return self._dataset.__getitems__([index for _, index in keys])  # type: ignore[attr-defined]

    fetched = __getitems__
