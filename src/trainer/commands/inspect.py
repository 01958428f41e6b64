"""`trainer inspect`: the parts of a run before training, and one step in every detail."""

from __future__ import annotations

import shlex
import shutil
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from trainer.config import arguments, secrets
from trainer.errors import refusal
from trainer.runs import vouching
from trainer.runs.open import open_run
from trainer.terminal import screen
from trainer.text import count, digits, number, numbers, show, size_of

if TYPE_CHECKING:
    from trainer.config.arguments import CommandLine
    from trainer.data import Batch
    from trainer.training.build import Built

FLAGS = (
    *("--graph", "-o", "--output", "--checkpoint", "--trust-code", "--force", "--json"),
    *arguments.CONFIG_DIR_FLAGS,
)
_OF_A_RUN = ("checkpoint", "trust_code", "force")


def main(argv: list[str]) -> int:
    """Run the command and return its exit code."""
    words = arguments.split(argv, FLAGS, "inspect")
    if "output" in words.flags and "graph" not in words.flags:
        raise refusal(f"-o {words.flags['output']}", "only works with --graph", "--graph -o FILE")
    of_run = bool(words.overrides) and "=" not in words.overrides[0]
    for flag in _OF_A_RUN:
        if flag in words.flags and not of_run:
            raise refusal(f"--{flag.replace('_', '-')}", "only works with a run", "trainer inspect RUN")
    with screen.busy("building"):
        built, batches = _of_run(words) if of_run else (_of_words(words), None)
    if "graph" in words.flags:
        return _show_graph(built, words)
    from trainer.analysis import inspection

    with screen.busy("taking a step"):
        found = inspection.look(built, batches)
    is_wrong = bool(found["step"].get("check", {}).get("wrong"))
    if "json" in words.flags:
        screen.as_json(found)
    else:
        _print(found)
        _next(words, of_run, is_wrong)
    return 1 if is_wrong else 0


def _of_words(words: CommandLine) -> Built:
    """Build the parts that the overrides describe."""
    catalog = words.catalog()
    choices = arguments.jobs(words, catalog)
    from trainer.config.compose import compose_jobs
    from trainer.session.prepare import prepare

    (job,) = compose_jobs(choices, catalog)
    for text in (*catalog.warnings(), *job.notes):
        screen.note(text)
    return prepare(job.settings, job.choices)


def _of_run(words: CommandLine) -> tuple[Built, Sequence[Batch] | None]:
    """Build the parts of a run at a checkpoint; of a failed run, before the failing step, with that step's batches."""
    name, *others = words.overrides
    if others:
        raise refusal(others[0], "can't change a run", "trainer inspect RUN, or trainer inspect KEY=VALUE ...")
    from trainer.analysis import failure, weights
    from trainer.session import restore

    rundir, stored = open_run(name, words.flags, words.command, screen.note)
    choices = rundir.read_status().get("choices") or {}
    if "checkpoint" not in words.flags and (kept := failure.kept(rundir)) is not None:
        vouching.require(rundir, kept.path)
        screen.note(f"{rundir.short} before step {kept.step + 1:,}, at which it failed")
        built = weights.built_at(kept, stored, choices)
        return built, failure.rows(kept, built)
    found, called = restore.choose(rundir, words.flags.get("checkpoint", "last"))
    screen.note(f"{rundir.short} at {called}")
    return weights.built_at(found, stored, choices), None


def _show_graph(built: Built, words: CommandLine) -> int:
    from trainer.analysis import graph

    passes = graph.passes(built)
    if (path := words.flags.get("output")) is not None:
        graph.write(passes[0], path)
        screen.say(f"wrote {path}")
        return 0
    if "json" in words.flags:
        screen.as_json([one.to_dict() for one in passes])
        return 0
    alike: dict[tuple[str, ...], int] = {}
    for place, one in enumerate(passes, 1):
        numbered = f"pass {place}: " if len(passes) > 1 else ""
        first = alike.setdefault(tuple(one.plan), place)
        as_before = f", as pass {first}" if first < place else ""
        screen.heading("graph", f"{numbered}{count(one.size, 'operation')}, {one.layers} deep{as_before}")
        if first == place:
            screen.tree(one.to_rich())
    shown = shlex.join(["trainer", "inspect", *secrets.words(words.overrides)])
    ending = "svg" if shutil.which("dot") else "gv"
    screen.next_commands({f"{shown} --graph -o graph.{ending}": "draw it", shown: "inspect a step"})
    return 0


def _print(found: Mapping[str, Any]) -> None:
    screen.heading("model", f"{found['model']}: {count(found['numbers'], 'parameter')}, {size_of(found['bytes'])}")
    screen.table(_layers(found["layers"]))
    screen.heading("parameters", "")
    screen.table(_held(found["parameters"]))
    optimizer = found["optimizer"]
    screen.heading("optimizer", f"{optimizer['option']}: {optimizer['class']}")
    screen.rows({"settings": " ".join(f"{k}={show(v)}" for k, v in optimizer["settings"].items() if v is not None)})
    step = found["step"]
    screen.heading(f"step {step['step']:,}", f"{step['rows']}, lr {number(step['lr'])}")
    lines = {"prediction": _tensor(found["prediction"]), "target": _tensor(found["targets"])}
    if "loss" in step:
        lines["loss"] = number(step["loss"])
    if "problem" in step:
        screen.rows({**lines, "problem": step["problem"], **({"first": step["first"]} if step["first"] else {})})
        return
    clipped = f", clipped to {number(step['clipped_to'])}" if step["clipped_to"] is not None else ""
    lines["norm"] = f"{number(step['norm'])} of all gradients{clipped}"
    screen.rows(lines)
    screen.table(_updates(step["weights"]))
    screen.rows({"loss after": number(step["loss_after"]), "checked": _checked(step["check"])})


def _layers(layers: Sequence[Mapping[str, Any]]) -> Any:
    """Return the table of the layers in the order in which a forward pass calls them."""
    lines = []
    for one in layers:
        again = f" (use {one['use']})" if one["use"] > 1 else ""
        into = ", ".join(map(_shape, one["inputs"])) or "-"
        out = "-" if one["outputs"] is None else _shape(one["outputs"])
        lines.append((f"{one['name'] or 'the model'}{again}", one["class"], into, out, f"{one['numbers']:,}"))
    return screen.columns(("layer", "class", "in", "out"), ("parameters",), lines)


def _held(held: Sequence[Mapping[str, Any]]) -> Any:
    """Return the table of the model's parameters and buffers."""
    whole = all("values" in one for one in held)
    headings = ("numbers", "bytes", "value") if whole else ("numbers", "bytes", "mean", "std", "largest")
    lines = []
    for one in held:
        note = "" if one["kind"] == "trained" else f" ({one['kind']})"
        cells = [f"{one['numbers']:,}", f"{one['bytes']:,}"]
        cells += [numbers(one["values"])] if whole else [_rounded(one, key) for key in ("mean", "spread", "largest")]
        lines.append((f"{one['name']}{note}", _shape(one["shape"]), *cells))
    return screen.columns(("name", "shape"), headings, lines)


def _updates(weights: Sequence[Mapping[str, Any]]) -> Any:
    """Return the table of gradients and updates: all numbers, or their statistics if there are many."""
    if all("values" in one["before"] for one in weights):
        by = any(one["of_the_prediction"] for one in weights)
        headings = ("value", *(("of the prediction",) if by else ()), "gradient", "update", "new value")
        keys = ("before", *(("of_the_prediction",) if by else ()), "gradient", "update", "after")
        lines = [(one["name"], *(_whole(one[key]) for key in keys)) for one in weights]
        return screen.columns(("name",), headings, lines)
    headings = ("gradient: mean", "std", "largest", "update: std", "largest")
    lines = []
    for one in weights:
        gradient, update = one["gradient"] or {}, one["update"]
        cells = [_rounded(gradient, key) for key in ("mean", "spread")] + [_extreme(gradient)]
        lines.append((one["name"], *cells, _rounded(update, "spread"), _extreme(update)))
    return screen.columns(("name",), headings, lines)


def _whole(facts: Mapping[str, Any] | None) -> str:
    return "none" if facts is None else digits(facts["values"])


def _checked(check: Mapping[str, Any]) -> str:
    if "problem" in check:
        return f"no: {check['problem']}"
    worst = max(check["differences"], key=lambda one: one["difference"])
    if check["wrong"]:
        wrong = ", ".join(check["wrong"])
        away = f"finite differences deviate by {worst['difference']:.1g} of it"
        return f"wrong: the gradient of {wrong} does not match the loss; {away}"
    return f"the gradients match the loss: finite differences agree to {worst['difference']:.1g}"


def _next(words: CommandLine, of_run: bool, is_wrong: bool) -> None:
    typed = shlex.join(secrets.words(words.overrides))
    commands = {f"trainer inspect {typed}".rstrip() + " --graph": "see the autograd graph"}
    if of_run:
        commands[f"trainer show {typed}"] = "see the whole run"
    elif not is_wrong:
        commands[f"trainer run {typed}".rstrip()] = "train it"
    screen.next_commands(commands)


def _tensor(facts: Mapping[str, Any]) -> str:
    """Return a tensor as text: its numbers if there are few, else its shape, mean and std."""
    if "values" in facts:
        return numbers(facts["values"])
    if "mean" not in facts:
        return _shape(facts["shape"])
    return f"{_shape(facts['shape'])}, mean {_rounded(facts, 'mean')}, std {_rounded(facts, 'spread')}"


def _shape(sizes: Sequence[int]) -> str:
    return " x ".join(f"{size:,}" for size in sizes) or "1 number"


def _rounded(facts: Mapping[str, Any], key: str) -> str:
    value = facts.get(key)
    return "" if value is None else f"{value:.3g}"


def _extreme(facts: Mapping[str, Any]) -> str:
    """Return the number furthest from zero as text."""
    ends = [facts[key] for key in ("smallest", "largest") if facts.get(key) is not None]
    return f"{max(ends, key=abs):.3g}" if ends else ""
