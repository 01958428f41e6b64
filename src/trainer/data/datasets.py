"""A map-style Dataset of torch, fed in our own order through DataLoader and its workers."""

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
    """The items of a Dataset, pairs of an input and a target; each is drawn under generators of its own.

    Args:
        dataset: Has __getitem__(index) and __len__. If it has __getitems__(indices), that fetches whole batches, each
            under generators of its own; if it has `classes`, they name the classes.
        validation: Fraction of the items held out.
        workers: Processes that fetch items; 0 fetches them in this one.
        classes: Number of classes, for targets that are one whole number; None takes the dataset's own.
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
                raise refusal(what, "how many classes there are is not known", "data.classes=NUMBER")
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
        """Return some of the items, fetched when they are taken."""
        numbers = torch.arange(self.rows) if rows is None else rows
        return Fetched(self._dataset, numbers, self.formed(form), device, self._workers, self._seed)

    def formed(self, form: Callable[[Tensor], Tensor]) -> Callable[[Tensor], Tensor]:
        """Return a function that turns fetched targets into what the loss takes."""

        def turned(y: Tensor) -> Tensor:
            return form(y.long() if self.classes is not None else y[:, None] if y.ndim == 1 else y)

        return turned

    @property
    def balance(self) -> dict[str, int]:
        """Empty: to know it, every item would have to be fetched."""
        return {}

    def _item(self, index: int) -> Any:
        with randomness.isolated(index):
            return self._dataset[index]


class Fetched(Rows):
    """Items that DataLoader fetches ahead, in the order that was announced.

    Args:
        dataset: Where they are.
        numbers: Which of them.
        form: Turns targets into what the loss takes.
        device: Where batches are needed.
        workers: Processes that fetch; 0 fetches here.
        seed: Of what an item draws, with the epoch and its number.
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
        # A Subset has __getitems__ whether or not there is anything to gain.
        is_batched = hasattr(dataset, "__getitems__") and not isinstance(dataset, Subset)
        seeded = _SeededBatches if is_batched else _Seeded
        self._seeded, self._numbers, self._form = seeded(dataset, seed), numbers, form
        self._workers, self._dtype = workers, torch.get_default_dtype()
        self._target, self._epoch = device, 0
        self._ahead: Iterator[Any] = iter(())
        self._expected: list[list[tuple[int, int]]] = []

    def __len__(self) -> int:
        """Return how many there are."""
        return len(self._numbers)

    def expect(self, epoch: int, batches: Sequence[Tensor]) -> None:
        """Start to fetch batches."""
        self._epoch = epoch
        self._expected = [self._keys(rows) for rows in batches]
        # A generator of its own: DataLoader draws a seed, which would otherwise come from the training's.
        loader = DataLoader(
            self._seeded,
            batch_sampler=list(self._expected),
            num_workers=self._workers,
            generator=torch.Generator(),
            worker_init_fn=safe_start.lift,
        )
        with safe_start.safe_path():  # its workers are forked or started anew, as the system does
            self._ahead = iter(loader) if self._workers else iter(())

    def take(self, rows: Tensor) -> tuple[Tensor, Tensor]:
        """Return some items as a batch."""
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
    """A dataset whose items draw from generators that depend on (seed, epoch, index) alone."""

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
    """A dataset that fetches whole batches, each under generators that depend on (seed, epoch, first index) alone."""

    def __getitems__(self, keys: list[tuple[int, int]]) -> Any:
        self._reseed(keys[0])
        return self._dataset.__getitems__([index for _, index in keys])  # type: ignore[attr-defined]

    fetched = __getitems__
