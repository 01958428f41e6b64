"""Completes the command line for the shell scripts that `trainer completion` writes.

A shell calls this at every press of TAB. Importing the settings, `re` or `pathlib` would take longer than starting
Python, so nothing is imported here: commands and flags are read from the help texts, groups and settings from the
declarations in the sources, and options from the config folders.
"""

from __future__ import annotations

import itertools
import os
import sys

from trainer.terminal.completion_paths import Candidates, listed, paths, run_folder, runs

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from typing import Any


SHELLS = ("bash", "zsh", "fish")
LAUNCHERS = {
    "local": "one job after another",
    "processes": "a job on each core",
    "vectorized": "jobs that differ only in numbers as one batched program",
    "basic": "Hydra's default",
}
METRICS = ("loss", "validation_loss", "validation_accuracy")
FLAG_VALUES = {
    "--metric": (*METRICS, "lr"),
    "--by": METRICS,  # of `trainer runs`; `trainer plot` takes settings
    "--checkpoint": ("best", "last"),
    "--format": ("safetensors", "pt2", "onnx"),
    "--cfg": ("job", "hydra", "all"),
    "--info": ("all", "config", "defaults", "defaults-tree", "plugins", "searchpath"),
}
FILE_FLAGS = ("--input", "--output", "-o", "--config-dir")
SETTING_FLAGS = ("--by", "--group-by", "--against")
_HERE = os.path.dirname(os.path.dirname(os.path.realpath(__file__)))  # the package
_ONLY_AST = 0x400  # ast.PyCF_ONLY_AST
_QUOTES = ("'", '"')
_SPECIAL = " \t!\"#$&'()*;<>?[\\]^`{|}"  # characters to quote in bash


def main(arguments: Sequence[str]) -> None:
    """Print a line for each completion: for bash the word, for other shells also a tab and its meaning.

    Args:
        arguments: The shell, then the words after `trainer`, the last of them incomplete.
    """
    shell, *words = arguments
    quoted = words[-1].startswith(_QUOTES)
    for word, what in after(words).items():
        if not word.isprintable():  # control characters of a file name would reach the terminal
            continue
        if shell == "bash":
            print(word if quoted else _escaped(word))
        else:
            print(word, what if what.isprintable() else "", sep="\t")


def after(words: Sequence[str]) -> Candidates:
    """Return the completions of the last word after `trainer`."""
    *given, word = (one.lstrip("'\"") for one in words)
    found = _possible(given, word)
    new = {text: what for text, what in found.items() if not _is_given(text, given)}
    fitting = {text: what for text, what in new.items() if text.startswith(word)}
    return fitting or {text: what for text, what in new.items() if text.lower().startswith(word.lower())}


def _escaped(word: str) -> str:
    return "".join("\\" + character if character in _SPECIAL else character for character in word)


def _is_given(text: str, given: Sequence[str]) -> bool:
    """Return whether a flag or a key has been typed already."""
    return any(word == text if text.startswith("-") else text.endswith("=") and word.startswith(text) for word in given)


def _possible(given: list[str], word: str) -> Candidates:
    """Return the words that may follow the given ones, whether or not they match the incomplete word."""
    commands = _table("cli", "COMMANDS")
    if not given and word.startswith("-"):
        return {"--help": "show help", "--version": "show the version"}
    if given in ([], ["help"]):
        return commands if given else {**commands, "help": "show the help of a command"}
    if given[0] not in commands:
        return {}
    valued = _table("config.arguments", "VALUED_FLAGS")
    if given[-1] in valued:
        return _flag_values(given[-1], word, given)
    manual = _manual(given[0])
    if word.startswith("-"):
        flag, equals, value = word.partition("=")
        return _prefixed(f"{flag}=", _flag_values(flag, value, given)) if equals else _flags(manual)
    others = [one for before, one in itertools.pairwise(given) if one[:1] != "-" and before not in valued]
    plain = [one for one in others if "=" not in one]
    return _arguments(_usage(manual), plain, given, word) or ({} if word else _flags(manual))


def _arguments(usage: str, plain: list[str], given: list[str], word: str) -> Candidates:
    """Return the arguments that a command's usage allows: RUN, GROUP, KEY=VALUE, ...

    Args:
        usage: The usage in the command's help.
        plain: The preceding words that are neither flags nor settings.
        given: All preceding words.
        word: The incomplete word.
    """
    takes, found = _takes(usage), Candidates()
    if given[0] == "ladder" and "--source" in given:
        return {
            line.split('"')[1]: "" for line in _source("commands.ladder").splitlines() if line.startswith("    Rung(")
        }
    if "RUN" in takes and (not plain or "RUN RUN" in usage or "RUN ..." in usage):
        found |= runs(word)
    if takes[3:4] == ["RUN"] and not plain:  # before anything else
        return found
    if "DIR" in takes and not plain:
        found |= paths(word, folders_only=True)
    if "SHELL" in takes and not plain:
        found |= dict.fromkeys(SHELLS, "")
    if "GROUP" in takes:
        groups = _table("config.catalog", "GROUPS")
        found |= (
            {**groups, "settings": "settings outside the groups"} if "=" not in word else _values(word, given, None)
        )
        found |= {f"{word}=": "an option of the group"} if word in groups and not plain else {}
    for kind in takes:
        if kind.endswith("KEY=VALUE"):
            run = run_folder(plain[0]) if "RUN" in takes and plain else None
            known = _settings(word, given, run)
            found |= {text: what for text, what in known.items() if text.startswith(kind.removesuffix("KEY=VALUE"))}
    if "KEY" in takes and not plain:  # the first word is a key without a value
        found = {text.removesuffix("=") if text != f"{word}=" else text: what for text, what in found.items()}
    return found


def _source(module: str) -> str:
    return _read(os.path.join(_HERE, f"{module.replace('.', os.sep)}.py"))


def _read(path: str) -> str:
    try:
        with open(path, encoding="utf-8", errors="replace") as file:
            return file.read()
    except OSError:
        return ""


def _table(module: str, name: str) -> dict[str, str]:
    """Return a dict of texts that a module of trainer declares."""
    text = _source(module).partition(f"\n{name} = ")[2].partition("}")[0]
    return dict(eval(f"{text}}}"))


def _manual(command: str) -> str:
    return _read(os.path.join(_HERE, "commands", f"{command}.txt"))


def _usage(manual: str) -> str:
    return manual.partition("\n\n")[0]


def _flags(manual: str) -> Candidates:
    """Return the flags in a help text, explained or in its usage."""
    found: Candidates = {}
    for line in manual.splitlines():
        if line.startswith("  -"):
            names, _, what = line.strip().partition("  ")
            flags = [name.partition("=")[0] for name in names.replace(",", " ").split() if name.startswith("-")]
            found |= dict.fromkeys(flags, what.strip().rstrip(",;"))
    words = _usage(manual).replace("[", " ").replace("]", " ").replace("=", " ").split()
    return {**{word: "" for word in words if word.startswith("-")}, **found, "--help": "show help"}


def _takes(usage: str) -> list[str]:
    """Return the arguments in a usage that belong to no flag: RUN, GROUP, KEY=VALUE, ..."""
    found, of_flag = [], False
    for token in usage.split():
        is_flag = token.lstrip("[").startswith("-")
        if not (of_flag or is_flag):
            found.append(token.strip("[]."))
        of_flag = is_flag and not token.endswith("]")
    return found


def _flag_values(flag: str, value: str, given: list[str]) -> Candidates:
    if flag in FILE_FLAGS:
        return paths(value, folders_only=flag == "--config-dir")
    if flag in SETTING_FLAGS and (flag, given[0]) != ("--by", "runs"):
        head, comma, last = value.rpartition(",")
        known = {text.rstrip("="): what for text, what in _settings(last, given, None).items()}
        return _prefixed(head + comma, known)
    return dict.fromkeys(FLAG_VALUES.get(flag, ()), "")


def _prefixed(prefix: str, found: Candidates) -> Candidates:
    return {prefix + text: what for text, what in found.items()}


def _settings(word: str, given: list[str], run: str | None) -> Candidates:
    """Return the completions of GROUP=OPTION or KEY=VALUE, up to the next `=`, `.` or `,`.

    Args:
        word: The incomplete word.
        given: The preceding words.
        run: The folder of the run whose settings are changed, if any.
    """
    key, equals, _ = word.partition("=")
    if equals:
        return _values(word, given, run)
    section, dot, _ = key.partition(".")
    if dot:
        return {f"{name}=": what for name, what in _keys(section, given, run).items()}
    declared, groups = _declared(), _table("config.catalog", "GROUPS")
    found = {f"{name}=": what for name, what in groups.items()}
    found |= {f"{name}=": what for name, (what, _) in declared.items() if "." not in name}
    sections = dict.fromkeys([*groups, *(name.partition(".")[0] for name in declared if "." in name)])
    found |= {f"{name}.": f"settings of {name}" for name in sections if name != "experiment"}
    if given[0] == "run" and (word or "-m" in given or "--multirun" in given):
        found["hydra/launcher="] = "where the jobs of a sweep run"
    return found


def _values(word: str, given: list[str], run: str | None) -> Candidates:
    """Return the completions of the last value in a word of the form KEY=VALUE,VALUE."""
    key, _, value = word.partition("=")
    before, _, last = value.lstrip("[").rpartition(",")
    end = "]" if value.startswith("[") else ""
    new = [(text, what) for text, what in _choices(key, last, given, run).items() if text not in before.split(",")]
    return _prefixed(word.removesuffix(last), {text + end: what for text, what in new})


def _choices(key: str, typed: str, given: list[str], run: str | None) -> Candidates:
    if key in _table("config.catalog", "GROUPS"):
        return {name: _summary(file) for name, file in _options(key, given).items()}
    if key == "hydra/launcher":
        return _launchers()
    if key == "init_from":
        return runs(typed)
    if key == "run_dir" or key.endswith("path"):
        return paths(typed, folders_only=key == "run_dir")
    declared = _declared()
    if key in declared:
        return dict.fromkeys(declared[key][1], "")
    what = _keys(key.partition(".")[0], given, run).get(key, "")
    return dict.fromkeys(("true", "false"), "") if what.startswith(("true", "false")) else {}


def _declared() -> dict[str, tuple[str, list[str]]]:
    """Return the meanings and, for a choice, the words of the declared settings, by dotted key."""
    tree: Any = compile(_source("config.settings"), "settings", "exec", _ONLY_AST)
    classes = {node.name: node.body for node in tree.body if hasattr(node, "bases")}
    found = {}

    def read(name: str, prefix: str) -> None:
        for line in classes[name]:
            if not hasattr(line, "annotation"):
                continue
            if getattr(line.annotation, "id", "") in classes:
                read(line.annotation.id, f"{line.target.id}.")
            elif line.value.func.id == "setting":
                found[prefix + line.target.id] = (line.value.args[1].value, _words(line.annotation))

    read("Settings", "")
    return found


def _words(annotation: Any) -> list[str]:
    """Return the words that an annotation allows: those of a Literal, or true and false."""
    if hasattr(annotation, "left"):
        return _words(annotation.left) + _words(annotation.right)
    if hasattr(annotation, "slice"):
        return [item.value for item in getattr(annotation.slice, "elts", [annotation.slice])]
    return ["true", "false"] if getattr(annotation, "id", None) == "bool" else []


def _config_folders(given: list[str]) -> list[str]:
    """Return the config folders in the order in which options are looked up."""
    inside = os.path.join(_HERE, "configs")
    shipped = inside if os.path.isdir(inside) else os.path.join(_HERE, "..", "..", "configs")
    extra = [word.removeprefix("--config-dir=") for word in given if word.startswith("--config-dir=")]
    extra += [word for flag, word in itertools.pairwise(given) if flag in ("--config-dir", "-cd")]
    return [shipped, *extra, "configs"]


def _options(group: str, given: list[str]) -> dict[str, str]:
    """Return the files of a group by option name."""
    found: dict[str, str] = {}
    for folder in _config_folders(given):
        for name in sorted(listed(os.path.join(folder, group))):
            if name.endswith(".yaml"):
                found.setdefault(name.removesuffix(".yaml"), os.path.join(folder, group, name))
    return found


def _summary(file: str) -> str:
    comments = (line.lstrip("# ") for line in _read(file).splitlines() if line.startswith("#"))
    return next((comment for comment in comments if not comment.startswith("@package")), "")


def _keys(section: str, given: list[str], run: str | None) -> Candidates:
    """Return the dotted settings of a section: the declared ones, else those in the files of the selected options."""
    declared = {name: what for name, (what, _) in _declared().items() if name.startswith(f"{section}.")}
    if declared:
        return declared
    found: Candidates = {}
    if run is not None:
        found = _leaves(_read(os.path.join(run, "config.yaml")) or _read(os.path.join(run, "000", "config.yaml")))
    else:
        for name in _selected(section, given):
            text = _read(_options(section, given).get(name, ""))
            package = text.partition("# @package ")[2].partition("\n")[0]
            found |= _prefixed(f"{package or section}.", _leaves(text))
        for file in _experiments(given):
            found |= _leaves(_read(file))
    return {name: what for name, what in found.items() if name.startswith(f"{section}.") and "._" not in name}


def _selected(group: str, given: list[str]) -> list[str]:
    """Return the selected options of a group: the typed ones, else those of the experiment, else the default."""
    found = _typed(group, given)
    for file in [*_experiments(given), os.path.join(_config_folders([])[0], "config.yaml")]:
        for line in [] if found else _read(file).splitlines():
            key, _, name = line.strip().removeprefix("- ").removeprefix("override /").partition(": ")
            found += [name.partition(" #")[0].strip()] if key == group else []
    return found


def _experiments(given: list[str]) -> list[str]:
    options = _options("experiment", given)
    return [options[name] for name in _typed("experiment", given) if name in options]


def _typed(group: str, given: Iterable[str]) -> list[str]:
    values = [word.partition("=")[2].strip("[]") for word in given if word.startswith(f"{group}=")]
    return [name for value in values for name in value.split(",")]


def _leaves(text: str) -> Candidates:
    """Return the value and the comment of each dotted key in the text of a YAML file."""
    found: Candidates = {}
    above: list[tuple[int, str]] = []
    for line in text.splitlines():
        name, colon, value = line.strip().partition(":")
        if not colon or not name.isidentifier():
            continue
        indent = len(line) - len(line.lstrip())
        above = [*(one for one in above if one[0] < indent), (indent, name)]
        found.pop(".".join(name for _, name in above[:-1]), None)
        found[".".join(name for _, name in above)] = value.strip().replace(" # ", ": ")
    return found


def _launchers() -> Candidates:
    """Return the launchers of trainer, of Hydra and of installed plugins."""
    found = dict(LAUNCHERS)
    for folder in sys.path:
        for plugin in sorted(listed(os.path.join(folder, "hydra_plugins"))):
            stored = _read(os.path.join(folder, "hydra_plugins", plugin, "config.py")).split('group="hydra/launcher"')
            found |= {text.partition('name="')[2].partition('"')[0]: f"of {plugin}" for text in stored[1:]}
    return found
