"""The format of status.json."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, TypedDict


class Sums(TypedDict):
    """The SHA-256 of the settings in config.yaml, and of preprocess.json if there is one."""

    config: str
    preprocess: str | None


class Start(TypedDict, total=False):
    """The entry for one start of a run."""

    from_step: int
    command: str
    overrides: list[str]
    versions: dict[str, Any]
    machine: dict[str, Any]
    git: str | None
    started: str
    seconds: float
    config: dict[str, Any]
    sums: Sums


class Best(TypedDict):
    """The best evaluation so far."""

    step: int
    metric: str
    value: float | None


class File(TypedDict):
    """The entry for a data file."""

    bytes: int
    sha256: str


class DataFacts(TypedDict, total=False):
    """The entry for the data; tables add more fields."""

    rows: int
    inputs: int | None
    outputs: int | None
    classes: dict[str, int]
    files: dict[str, File]


class Help(TypedDict):
    """Settings with which a failed run would have continued, and the result of trying them."""

    words: dict[str, str]
    text: str


class Moment(TypedDict):
    """A step before a run failed."""

    step: int
    loss: float | None
    norm: float | None


class Step(TypedDict):
    """The step at which a run failed, counted from 1."""

    step: int


class Diagnosis(Step, total=False):
    """The diagnosis of a failed run, as far as it got."""

    where: str
    history: list[Moment]
    from_step: int
    helps: list[Help]
    problem: str


class HasStatus:
    """Names the results in the content of status.json."""

    status: Mapping[str, Any]

    @property
    def state(self) -> str:
        """How training ended: `done`, or `stopped` by an interrupt."""
        return str(self.status["state"])

    @property
    def step(self) -> int:
        """Finished steps."""
        return int(self.status["step"])

    @property
    def metrics(self) -> dict[str, float | None]:
        """The last training loss and the metrics of the last evaluation, by name: `loss`, `validation_loss`, ..."""
        return dict(self.status["metrics"])


class Status(TypedDict, total=False):
    """The content of status.json; readers skip fields of other types."""

    format: int
    id: str
    created: str
    name: str | None
    state: str
    step: int
    steps: int
    epoch: int
    metrics: dict[str, float | None]
    best: Best | None
    skipped: int
    parameters: int
    rows: dict[str, int | None]
    error: str | None
    diagnosis: Diagnosis | None
    choices: dict[str, str]
    swept: dict[str, str]
    config: dict[str, Any]
    sums: Sums
    sums_before: Sums
    code: dict[str, str]
    data: DataFacts
    segments: list[Start]
    sha256: str
