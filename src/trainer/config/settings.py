"""The settings of trainer: type, default, limits and meaning of each, in one place.

The settings of a selected option (model, data, loss, optim, schedule) are checked against the
signature of its class instead; see training/build.py.
"""

from __future__ import annotations

import dataclasses
import functools
import math
import typing
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, NamedTuple

from trainer.config import secrets
from trainer.config.annotations import choices, fits, misfit
from trainer.errors import refusal, unknown
from trainer.text import show

COMPONENTS = ("model", "data", "loss", "optim", "schedule")
LOGGER = "logger"  # a group that selects any number of components, each in a section under its name
OBJECT = "_object_"  # replaces _target_ where Python code has passed an object; names its class

# What changing a setting means when a run is resumed.
HARMLESS = "harmless"  # does not affect the computation
REPLANS = "re-plans"  # affects only the remaining steps
REFUSED = "refused"  # would make it a different run


def setting(
    default: Any,
    doc: str,
    *,
    least: float | None = None,
    most: float | None = None,
    above: float | None = None,
    resume: str = REFUSED,
) -> Any:
    """Declare a setting: default, meaning, limits, and the effect of changing it on resume."""
    limits = {"least": least, "most": most, "above": above}
    return field(default=default, metadata={"doc": doc, "resume": resume, **limits})


@dataclass(frozen=True)
class CheckpointSettings:
    """When checkpoints are saved and which are kept."""

    every: int | None = setting(1000, "steps between checkpoints", least=1, resume=HARMLESS)
    seconds: float | None = setting(300, "seconds between checkpoints", above=0, resume=HARMLESS)
    keep: int = setting(2, "newest checkpoints to keep", least=1, resume=HARMLESS)
    best: bool = setting(True, "also keep the checkpoint of the best evaluation", resume=HARMLESS)


@dataclass(frozen=True)
class DeviceSettings:
    """The device and the number format of the computation."""

    type: Literal["auto", "cpu", "cuda", "mps"] = setting(
        "auto", "auto is the first GPU, or the CPU if there is none", resume=REPLANS
    )
    index: int = setting(0, "the GPU to use if there are several", least=0, resume=REPLANS)
    dtype: Literal["float32", "float64", "bfloat16"] = setting("float32", "the number type of weights and data")
    amp: bool = setting(False, "compute in bfloat16 where it is safe (autocast)")
    threads: int | None = setting(None, "CPU threads; null is torch's default", least=1, most=4096, resume=REPLANS)
    deterministic: bool = setting(False, "refuse operations that are not deterministic", resume=REPLANS)


@dataclass(frozen=True)
class Settings:
    """A whole configuration: the settings of the root, its sections, and the selected components."""

    name: str | None = setting(None, "a label, shown in listings", resume=HARMLESS)
    seed: int = setting(0, "seeds everything random: data, weights, row order", least=0, most=2**32 - 1)
    steps: int | None = setting(
        None, "optimizer steps to train; null is 500 unless epochs is set", least=1, resume=REPLANS
    )
    epochs: int | None = setting(None, "passes over the training rows", least=1, resume=REPLANS)
    batch_size: int | None = setting(None, "rows per batch; null is all rows up to 4,096, else 256", least=1)
    accumulate: int = setting(1, "batches per optimizer step (gradient accumulation)", least=1)
    clip_norm: float | None = setting(None, "clip the norm of all gradients to this", above=0, resume=REPLANS)
    init_from: str | None = setting(None, "a run to take the initial weights from")
    log_every: int = setting(1, "steps between rows of metrics.jsonl", least=1, resume=HARMLESS)
    eval_every: int | None = setting(None, "steps between evaluations; null is once per epoch", least=1, resume=REPLANS)
    monitor: str | None = setting(None, "the metric for best, patience and plateau", resume=REPLANS)
    mode: Literal["min", "max"] | None = setting(
        None, "whether a lower or a higher monitored metric is better", resume=REPLANS
    )
    patience: int | None = setting(None, "evaluations without improvement before stopping", least=1, resume=REPLANS)
    on_nonfinite: Literal["stop", "skip"] = setting(
        "stop", "on a non-finite loss or gradient, stop the run or skip the step", resume=REPLANS
    )
    max_skips: int = setting(10, "maximum number of consecutive steps that may be skipped", least=1, resume=REPLANS)
    max_divergence: float = setting(
        1e6, "stop when |loss| exceeds this times max(1, |first loss|)", above=0, resume=REPLANS
    )
    compile: Literal["step"] | None = setting(
        None, "step compiles several steps into one program; pays off in long runs", resume=REPLANS
    )
    run_dir: str | None = setting(None, "the directory of the run; null is runs/<id>")
    resume: bool = setting(False, "continue the run in run_dir if there is one, else start it", resume=HARMLESS)
    max_jobs: int = setting(10_000, "maximum number of jobs in a sweep", least=1, resume=HARMLESS)
    checkpoint: CheckpointSettings = field(default_factory=CheckpointSettings)
    device: DeviceSettings = field(default_factory=DeviceSettings)
    model: dict[str, Any] = field(default_factory=dict)
    data: dict[str, Any] = field(default_factory=dict)
    loss: dict[str, Any] = field(default_factory=dict)
    optim: dict[str, Any] = field(default_factory=dict)
    schedule: dict[str, Any] = field(default_factory=dict)
    logger: dict[str, dict[str, Any]] = field(default_factory=dict)

    @property
    def selected(self) -> dict[str, dict[str, Any]]:
        """The selected components by the dotted names of their sections; there may be any number of loggers."""
        loggers = {f"{LOGGER}.{name}": section for name, section in self.logger.items()}
        return {**{group: getattr(self, group) for group in COMPONENTS}, **loggers}

    def to_dict(self) -> dict[str, Any]:
        """Return the settings as plain data, in the order of their declaration."""
        return {name: _plain(value) for name, value in vars(self).items()}


def _plain(value: Any) -> Any:
    """Return a deep copy as plain data, as dataclasses.asdict does, but several times faster."""
    if isinstance(value, dict):
        return {key: _plain(inner) for key, inner in value.items()}
    if isinstance(value, list):
        return [_plain(inner) for inner in value]
    return _plain(vars(value)) if dataclasses.is_dataclass(value) else value


SECTIONS: dict[str, type] = {"checkpoint": CheckpointSettings, "device": DeviceSettings}


def defaults() -> dict[str, Any]:
    """Return all settings at their defaults, with empty components: the start of config.yaml."""
    return Settings().to_dict()


def documented() -> dict[str, tuple[Any, str]]:
    """Return each setting's default and meaning by its dotted key."""
    found = {}
    for prefix, section in {"": Settings, **{f"{name}.": section for name, section in SECTIONS.items()}}.items():
        kinds = typing.get_type_hints(section)
        for declared in dataclasses.fields(section):
            if "doc" in declared.metadata:
                words = choices(kinds[declared.name])
                doc = declared.metadata["doc"] + (f": {', '.join(words)}" if words else "")
                found[prefix + declared.name] = (declared.default, doc)
    return found


def check(values: dict[str, Any]) -> Settings:
    """Turn plain data into Settings.

    Raises:
        UsageError: A key is unknown, or a value has the wrong type or is out of range.
    """
    root = dict(values)
    _require_loggers(root.get(LOGGER))
    for name, section in SECTIONS.items():
        root[name] = _check_section(section, root.get(name, {}), f"{name}.")
    settings: Settings = _check_section(Settings, root, "")
    for name, value in vars(settings).items():
        _require_plain(value, name)
    secrets.know(settings.to_dict())
    if settings.steps is not None and settings.epochs is not None:
        raise refusal(f"steps={settings.steps} epochs={settings.epochs}", "only one of them can set the length")
    return settings


def resume_kind(key: str) -> str:
    """Return what changing a dotted key means when a run is resumed."""
    head, _, tail = key.partition(".")
    if head in ("optim", "schedule") and tail not in ("", "_target_", OBJECT):
        return REPLANS
    if head == "schedule":
        return REPLANS
    if head == LOGGER:
        return HARMLESS
    if head in COMPONENTS:
        return REFUSED
    return declared(key).resume


class Declared(NamedTuple):
    """The declaration of a setting.

    Args:
        owner: The class that declares it.
        name: Its name in that class.
        kind: Its type.
        doc: Its meaning.
        limits: The range of its value in words; empty if it has none.
        resume: What changing it means when a run is resumed.
    """

    owner: type[Any]
    name: str
    kind: Any
    doc: str
    limits: str
    resume: str


def declared(key: str) -> Declared:
    """Return the declaration of a setting of trainer.

    Raises:
        UsageError: There is no such setting.
    """
    head, _, tail = key.partition(".")
    owner, name, prefix = (SECTIONS[head], tail, f"{head}.") if head in SECTIONS else (Settings, key, "")
    fields = {f.name: f for f in dataclasses.fields(owner)}
    if name not in fields:
        raise unknown(key, "no such setting", name, fields, prefix)
    metadata = fields[name].metadata
    return Declared(owner, name, _kinds(owner)[name], metadata["doc"], _limits(metadata), metadata["resume"])


class Change(NamedTuple):
    """A setting that has changed since the run was started."""

    key: str
    old: Any
    new: Any


def differences(stored: Settings, changed: Settings) -> list[Change]:
    """Return the settings that differ, in the order of the schema."""
    old, new = flat(stored.to_dict()), flat(changed.to_dict())
    shown = flat(secrets.tree(changed.to_dict()))  # a secret given again is no change
    keys = (key for key in {**old, **new} if old.get(key) not in (new.get(key), shown.get(key)))
    return [Change(key, old.get(key), new.get(key)) for key in keys]


def flat(tree: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    """Return nested settings as one dict by dotted key."""
    found: dict[str, Any] = {}
    for key, value in tree.items():
        found.update(flat(value, f"{prefix}{key}.") if isinstance(value, dict) else {f"{prefix}{key}": value})
    return found


@functools.cache
def _kinds(cls: type[Any]) -> dict[str, Any]:
    return typing.get_type_hints(cls)


def _check_section(cls: Any, values: Any, prefix: str) -> Any:
    fields = {f.name: f for f in dataclasses.fields(cls)}
    types_ = _kinds(cls)
    if not isinstance(values, dict):
        raise refusal(f"{prefix[:-1]}={show(values)}", "is a section", f"{prefix}KEY=VALUE")
    for key in values:
        if key not in fields:
            raise unknown(f"{prefix}{key}", "no such setting", str(key), fields, prefix)
    checked = {}
    for key, value in values.items():
        kind, limits = types_[key], fields[key].metadata
        ok, value = fits(value, kind)
        if not ok and key in (*COMPONENTS, LOGGER) and isinstance(value, str):
            reason = "is the name of an option, but this section holds its settings"
            raise refusal(
                f"{key}={value}", reason, f"{key}={value} in the command, - override /{key}: {value} in defaults"
            )
        if not ok:
            raise misfit(f"{prefix}{key}", value, kind)
        if isinstance(value, int | float) and not isinstance(value, bool):
            _check_limits(f"{prefix}{key}", value, limits)
        checked[key] = value
    return cls(**checked)


def _limits(declared: Mapping[str, Any]) -> str:
    words = {"least": "at least", "above": "above", "most": "at most"}
    ends = [f"{word} {declared[name]:,}" for name, word in words.items() if declared.get(name) is not None]
    return " and ".join(ends)


def _check_limits(what: str, value: float, limits: Mapping[str, Any]) -> None:
    least, most, above = limits.get("least"), limits.get("most"), limits.get("above")
    if not math.isfinite(value):
        raise refusal(f"{what}={value}", "is not finite", _limits(limits) or "a finite number")
    if (
        (least is not None and value < least)
        or (above is not None and value <= above)
        or (most is not None and value > most)
    ):
        raise refusal(f"{what}={show(value)}", "is out of range", _limits(limits))


def _require_loggers(sections: Any) -> None:
    """Refuse a setting of a logger that was not chosen."""
    if not isinstance(sections, dict):
        return  # refused later for its type
    loggers = [name for name, section in sections.items() if isinstance(section, dict) and "_target_" in section]
    for name, section in sections.items():
        if name not in loggers:
            what = f"{LOGGER}.{name}" + ("" if isinstance(section, dict) else f"={show(section)}")
            allowed = [f"{LOGGER}.{known}.KEY" for known in loggers] or f"{LOGGER}=OPTION"
            raise refusal(what, "no such logger was chosen", allowed)


def _require_plain(value: Any, key: str) -> None:
    """Refuse a value that config.yaml can't hold: non-finite numbers, interpolations, control characters, objects."""
    if type(value) in SECTIONS.values():
        value = vars(value)
    if isinstance(value, dict):
        for name, inner in value.items():
            _require_plain(inner, f"{key}.{name}")
    elif isinstance(value, list):
        for inner in value:
            _require_plain(inner, key)
    elif isinstance(value, float) and not math.isfinite(value):
        raise refusal(f"{key}={value}", "is not finite", "a finite number")
    elif isinstance(value, str) and ("${" in value or not value.isprintable()):
        raise refusal(f"{key}={value}", "holds ${" if "${" in value else "holds a control character", "plain text")
    elif not (value is None or isinstance(value, bool | int | float | str)):
        raise refusal(f"{key}={show(value)}", f"is a {type(value).__name__}", "text, numbers, lists and sections")
