"""A run directory: its name, its files and the lock that excludes a second writer. Without torch."""

from __future__ import annotations

import errno
import os
import re
import stat
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from trainer.errors import UsageError, refusal
from trainer.files import locks, plain_json, reading, writing
from trainer.files.json_fields import Fields
from trainer.files.plain_json import as_json
from trainer.files.sums import sealed
from trainer.runs import newest
from trainer.runs.newest import ID, RUNS
from trainer.runs.status import Status

FORMAT = 1
_FILES = (
    *("lock", "config.yaml", "status.json", "preprocess.json", "metrics.jsonl", "metrics.csv", "trainer.log"),
    *("sweep.json", "stop"),
)
REPLACED = ("config.yaml", "status.json", "preprocess.json", "metrics.csv", "code")

_JOB = re.compile(r"[0-9]{3,9}")


class InUse(UsageError):
    """Another process holds the lock of a run directory."""


@dataclass(frozen=True)
class Contents:
    """The first files of a run: configuration, status, the user's modules by path, and any preprocessing."""

    config: dict[str, Any]
    status: dict[str, Any]
    code: Mapping[str, bytes] = field(default_factory=dict)
    preprocess: dict[str, Any] | None = None


class RunDirectory:
    """The files of one run.

    Args:
        path: The directory.
    """

    def __init__(self, path: Path) -> None:
        self.path = path

    # Paths are computed on demand, because a listing creates ten thousand of these objects.
    @property
    def metrics(self) -> Path:
        """The file of metrics, one row per line."""
        return self.path / "metrics.jsonl"

    @property
    def checkpoints(self) -> Path:
        """The folder of checkpoints."""
        return self.path / "checkpoints"

    @property
    def failure(self) -> Path:
        """The folder of the step at which the run failed."""
        return self.path / "failure"

    @property
    def log(self) -> Path:
        """The log file."""
        return self.path / "trainer.log"

    @property
    def tensorboard(self) -> Path:
        """The folder of TensorBoard's event files."""
        return self.path / "tensorboard"

    @property
    def code(self) -> Path:
        """The folder of the user's own modules."""
        return self.path / "code"

    @property
    def _new_code(self) -> Path:
        return self.path / ".code.new"

    @property
    def _old_code(self) -> Path:
        return self.path / ".code.old"

    @property
    def _config(self) -> Path:
        return self.path / "config.yaml"

    @property
    def _preprocess(self) -> Path:
        return self.path / "preprocess.json"

    @property
    def short(self) -> str:
        """The name that a user types for this run: its last four letters, also with a job, or its path."""
        for folder, rest in ((self.path, ""), (self.path.parent, f"/{self.path.name}")):
            if ID.fullmatch(folder.name) and folder.parent == RUNS:
                return folder.name[-4:] + rest
        return f"./{self.path}" if str(self.path).startswith("-") else str(self.path)  # not a flag

    @property
    def exists(self) -> bool:
        """Whether this is a run: a directory with a config.yaml."""
        return os.path.isfile(f"{self.path}/config.yaml")

    def create(self, contents: Contents) -> None:
        """Create the directory with its first files.

        Raises:
            UsageError: The directory can't be created, or another process has just created it.
        """
        try:
            writing.make_folders(self.path)
            with self.lock("trainer run"):
                if self.exists:
                    raise refusal(f"run_dir={self.path}", "another process has just created it", "another run_dir")
                self.fill(contents, newest.announce(self.path))
        except OSError as error:
            raise refusal(f"run_dir={self.path}", f"can't be created: {error.strerror}") from error

    def fill(self, contents: Contents, created: str) -> None:
        """Write the first files; the caller holds the lock, or no other process knows the directory.

        Args:
            contents: The files.
            created: When the run was created.
        """
        writing.make_folders(self.checkpoints)
        self.write_code(contents.code)
        self.write_preprocess(contents.preprocess)
        self.write_status({"format": FORMAT, "id": self.path.name, "created": created, **contents.status})
        self.write_config(contents.config)  # last, because it turns the directory into a run

    def tidy(self) -> None:
        """Delete leftovers of interrupted writes, and restore missing folders; the caller holds the lock."""
        if not self.code.exists() and self._new_code.exists() and self._old_code.exists():
            writing.rename(self._new_code, self.code)
        for path in [p for name in REPLACED for p in self.path.glob(f".{name}.*")]:
            writing.remove_tree(path) if path.is_dir() else path.unlink(missing_ok=True)
        writing.make_folders(self.checkpoints)

    def read_config(self) -> dict[str, Any]:
        """Return the configuration as plain data."""
        from trainer.files import plain_yaml  # a listing needs no YAML

        try:
            loaded = plain_yaml.data(self._config)
        except OSError as error:
            raise UsageError(f"{self._config} can't be read: {error.strerror}") from error
        except ValueError as error:
            raise UsageError(f"{self._config} can't be read: {' '.join(str(error).split())}") from error
        if not isinstance(loaded, dict):
            raise UsageError(f"{self._config} is not a configuration")
        return {str(key): value for key, value in loaded.items()}

    def write_config(self, config: dict[str, Any]) -> None:
        """Replace the configuration."""
        from trainer.files import plain_yaml

        text = plain_yaml.text(config)
        writing.replace(self._config, text.encode())

    def read_status(self) -> dict[str, Any]:
        """Return the valid fields of status.json; {} if there is none yet or it can't be read."""
        return dict(self.status_as_needed())

    def status_as_needed(self) -> Mapping[str, Any]:
        """Return the same as `read_status`, but decode each field only when it is read: a listing needs few."""
        try:
            return Fields(f"{self.path}/status.json", Status)
        except (OSError, ValueError):
            return {}

    def write_status(self, status: dict[str, Any]) -> None:
        """Replace status.json, adding the sum of its content."""
        writing.replace(self.path / "status.json", as_json(sealed(status)))

    def read_preprocess(self) -> Any:
        """Return the content of preprocess.json, None if there is none.

        Raises:
            UsageError: The file can't be read.
        """
        try:
            return plain_json.preprocess_data(self._preprocess)
        except FileNotFoundError:
            return None
        except (OSError, ValueError) as error:
            raise UsageError(f"{self._preprocess} can't be read: {error}") from error

    def write_preprocess(self, preprocess: dict[str, Any] | None) -> None:
        """Replace preprocess.json; None leaves it unchanged."""
        if preprocess is not None:
            writing.replace(self._preprocess, as_json(preprocess, in_ascii=False))

    def remove_preprocess(self) -> None:
        """Delete preprocess.json, which is recreated from the data when needed."""
        self._preprocess.unlink(missing_ok=True)
        writing.sync_folder(self.path)

    def read_code(self) -> dict[str, bytes]:
        """Return the sources of the user's modules, by relative path.

        Raises:
            OSError: A file can't be read or is a symlink.
            Unreadable: The total size exceeds the limit.
        """
        sources: dict[str, bytes] = {}
        room = reading.MOST_CODE
        # If the process was killed between the two renames of `write_code`, the new folder is complete.
        code = self._new_code if self._old_code.exists() and not self.code.exists() else self.code
        if code.is_symlink():
            raise OSError(errno.ELOOP, "it is a symlink", str(code))
        for place, _, names in os.walk(code):
            for name in names:
                if name.endswith(".py"):  # other files are never imported
                    path = Path(place, name)
                    source = sources[path.relative_to(code).as_posix()] = reading.content(path, room)
                    room -= len(source)
        return dict(sorted(sources.items()))

    def write_code(self, sources: Mapping[str, bytes]) -> None:
        """Replace the sources of the user's modules atomically: readers see all old ones or all new ones."""
        if not sources and not self.code.exists():
            return
        writing.remove_tree(self._new_code)
        for name, source in sources.items():
            writing.make_folders((self._new_code / name).parent)
            writing.write(self._new_code / name, source)
            writing.sync_folder((self._new_code / name).parent)
        if self.code.exists():
            writing.rename(self.code, self._old_code)
        if sources:
            writing.rename(self._new_code, self.code)
        writing.remove_tree(self._old_code)

    @contextmanager
    def lock(self, command: str) -> Iterator[None]:
        """Keep other processes from writing to the directory during a block.

        Raises:
            InUse: Another process holds the lock; the message names it.
        """
        with self._lock_file(os.O_CREAT) as descriptor:
            before = locks.text(descriptor)
            locks.sign(descriptor, command)
            try:
                yield
            except UsageError:  # a refused command leaves everything unchanged
                locks.rewrite(descriptor, before)
                raise
            except BaseException:
                locks.release(descriptor, command)
                raise
            locks.release(descriptor, command)

    def require_free(self) -> None:
        """Check, without writing anything, that no other process holds the lock.

        Raises:
            InUse: Another process holds the lock; the message names it.
        """
        if (self.path / "lock").exists():  # else it has never been trained
            with self._lock_file():
                pass

    @contextmanager
    def _lock_file(self, flags: int = 0) -> Iterator[int]:
        self.require_own_files()
        try:
            descriptor = os.open(self.path / "lock", os.O_RDWR | os.O_NOFOLLOW | flags, 0o666)
        except OSError as error:
            raise UsageError(f"{self.path} can't be written to: {error.strerror}") from error
        try:
            if not locks.acquire(descriptor):
                raise InUse(f"{self.path} is in use by {locks.named(descriptor) or 'another process'}")
            yield descriptor
        finally:
            os.close(descriptor)

    def require_own_files(self) -> None:
        """Refuse a directory with symlinks, hard links or special files where the run writes or deletes.

        Raises:
            UsageError: There is one; the message names it.
        """
        folders = (self.checkpoints, self.failure, self.code, self._new_code, self._old_code, self.tensorboard)
        for path in (*(self.path / name for name in _FILES), *folders):
            _require_kind(path, stat.S_ISDIR if path in folders else stat.S_ISREG)
        below = (
            *self.checkpoints.glob("*"),
            *self.failure.glob("*"),
            *self.code.rglob("*"),
            *self.tensorboard.glob("*"),
        )
        for path in below:
            if path.is_symlink() or not (path.is_file() or path.is_dir()):
                _require_kind(path, stat.S_ISREG)

    def is_held(self) -> bool:
        """Return whether a live process holds the lock."""
        try:
            descriptor = reading.opened(self.path / "lock")
        except OSError:
            return False
        try:
            return locks.is_held(descriptor)
        finally:
            os.close(descriptor)


def _require_kind(path: Path, is_kind: Callable[[int], bool]) -> None:
    try:
        found = path.lstat()
    except OSError:
        return  # does not exist yet
    is_link = stat.S_ISLNK(found.st_mode) or (stat.S_ISREG(found.st_mode) and found.st_nlink > 1)
    if is_link or not is_kind(found.st_mode):
        what = "a link" if is_link else "not the kind of file that belongs there"
        raise UsageError(f"{path} is {what}: a run writes, reads and deletes only in its own directory")


def require_run(path: Path, what: str, write: Callable[[str], str] = str) -> RunDirectory:
    """Return the directory of a run.

    Args:
        path: The directory of a run or a sweep.
        what: The words that named it, for the message.
        write: Writes the name of a job as the user would type it instead.

    Raises:
        UsageError: It is a sweep; names its best job and the first ones.
    """
    rundir = RunDirectory(path)
    if is_sweep(path):
        names = [f"{rundir.short}/best", *(RunDirectory(job).short for job in jobs(path)[:8])]
        raise refusal(what, "is a sweep of several jobs", list(map(write, names)))
    return rundir


def is_sweep(path: Path) -> bool:
    """Return whether a directory is a sweep."""
    return os.path.isfile(f"{path}/sweep.json")


def jobs(path: Path) -> list[Path]:
    """Return the job directories of a sweep, in order."""
    with os.scandir(path) as found:
        names = [one.name for one in found if _JOB.fullmatch(one.name) and one.is_dir(follow_symlinks=False)]
    return [path / name for name in sorted(names, key=int)]


def is_run(path: Path) -> bool:
    """Return whether a directory is a run or a sweep."""
    return RunDirectory(path).exists or is_sweep(path)


def every() -> list[Path]:
    """Return the directories of all runs and sweeps in ./runs, by name."""
    return named("")


def named(word: str) -> list[Path]:
    """Return those of them that have this name or end in these four letters; of "", all."""
    names = sorted(os.listdir(RUNS)) if RUNS.is_dir() else []
    return [path for name in names if word in ("", name, name[-4:]) and is_run(path := RUNS / name)]
