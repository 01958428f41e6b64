"""Completes runs, jobs of sweeps and paths on the command line."""

from __future__ import annotations

import os

Candidates = dict[str, str]  # words that may come next, with their meanings or ""


def runs(word: str) -> Candidates:
    """Return the words for a run: last, best, four letters, ids, jobs of a sweep and paths."""
    head, slash, _ = word.rpartition("/")
    if slash:
        folder = run_folder(head)
        jobs = sorted(name for name in listed(folder) if name.isdigit()) if folder else []
        best = {f"{head}/best": "the best job"} if jobs else {}
        return {**{f"{head}/{job}": "" for job in jobs}, **best, **paths(word, folders_only=True)}
    names = sorted(listed("runs"), reverse=True)
    found = {"last": "the newest run or sweep", "best": "the best run"} if names else {}
    ambiguous = set()
    for name in names:
        if not _is_id(name):
            found |= {name: ""} if _is_run(os.path.join("runs", name)) else {}
            continue
        letters = name[-4:]
        if letters in found:
            ambiguous.add(letters)
        found[letters] = name
        if word and name.startswith(word):
            found[name] = ""
    found = {name: what for name, what in found.items() if name not in ambiguous}
    if word in found and (folder := run_folder(word)) and os.path.isfile(os.path.join(folder, "sweep.json")):
        found[f"{word}/"] = "a job of this sweep"
    return {**found, **paths(word, folders_only=True)} if word or not names else found


def _is_id(name: str) -> bool:
    """Return whether a name has the form of a run id."""
    return len(name) == 20 and name[8] == name[15] == "-" and (name[:8] + name[9:15]).isdigit()


def _is_run(folder: str) -> bool:
    return any(os.path.isfile(os.path.join(folder, name)) for name in ("config.yaml", "sweep.json"))


def run_folder(word: str) -> str | None:
    """Return the folder of the run that a word names, None if it can't be found without reading the runs."""
    head, _, job = word.partition("/")
    names = sorted(listed("runs"))
    named = [name for name in names if head in (name, name[-4:])] or (names[-1:] if head == "last" else [])
    for folder in [*(os.path.join("runs", name, job) for name in named), word]:
        if _is_run(folder):
            return folder
    return None


def paths(word: str, folders_only: bool) -> Candidates:
    """Return the folders and files whose paths begin with a word; the folder of a run has no slash at its end."""
    head, slash, start = word.rpartition("/")
    found = {}
    for name in sorted(listed(os.path.expanduser(head + slash) or ".")):
        if name.startswith(".") and not start.startswith("."):
            continue
        text, path = head + slash + name, os.path.join(os.path.expanduser(head + slash), name)
        if os.path.isdir(path):
            found[text if folders_only and _is_run(path) else f"{text}/"] = ""
        elif not folders_only:
            found[text] = ""
    return found


def listed(folder: str) -> list[str]:
    try:
        return os.listdir(folder)
    except OSError:
        return []
