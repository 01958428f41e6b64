"""Data files of a run that have moved: a file with the same size and SHA-256 at another path is the same data."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from trainer.files import fingerprint

Data = Mapping[str, Any]


def moved(files: Mapping[str, Any], stored: Data, changed: Data) -> dict[str, str]:
    """Return the settings of data that name another path of the same content: the new path by key.

    Args:
        files: The fingerprints of the files of `stored`, by path.
        stored: The settings of the data of a run.
        changed: Other settings of data.
    """
    found = {}
    for key, new in changed.items():
        old = stored.get(key)
        if isinstance(old, str) and isinstance(new, str) and old != new and str(Path(old)) in files:
            with suppress(OSError, ValueError):  # a path without a readable file is another file
                if fingerprint.of(Path(new)) == files[str(Path(old))]:
                    found[key] = new
    return found


def is_same(files: Mapping[str, Any], stored: Data, changed: Data) -> bool:
    """Return whether settings select the same data, possibly from files at other paths; arguments as for `moved`."""
    return {**changed, **{key: stored[key] for key in moved(files, stored, changed)}} == stored


def left(files: Mapping[str, Any], stored: Data, changed: Data) -> set[str]:
    """Return the paths of files that have moved and are not read any more; arguments as for `moved`."""
    before = {str(Path(stored[key])) for key in moved(files, stored, changed)}
    return before - {str(Path(value)) for value in changed.values() if isinstance(value, str)}


def followed(own: Data, files: Mapping[str, Any], stored: Data, now: Data, recorded: Mapping[str, Any]) -> Data:
    """Return earlier settings of the data of a run, with the paths that its files have now.

    Args:
        own: The earlier settings.
        files: The fingerprints recorded for them.
        stored: The settings in config.yaml.
        now: The current settings, with the paths at which the files lie.
        recorded: The fingerprints of the files of `stored`, by path.
    """
    known = {**recorded, **files}
    same = {
        key: now[key]
        for key, path in own.items()
        if isinstance(path, str)
        and isinstance(stored.get(key), str)
        and known.get(str(Path(path))) is not None
        and known[str(Path(path))] == recorded.get(str(Path(stored[key])))
    }
    return {**own, **same}


def remarks(files: Mapping[str, Any], stored: Data, changed: Data) -> Iterator[str]:
    """Yield a remark for each file that has moved; arguments as for `moved`."""
    for key, new in moved(files, stored, changed).items():
        size = files[str(Path(stored[key]))]["bytes"]
        how = "the same SHA-256" if size <= fingerprint.WHOLE else "the same SHA-256 of samples, 256 MiB of the file"
        yield f"data.{key}={new}: the same data as {stored[key]}, by {how}"
