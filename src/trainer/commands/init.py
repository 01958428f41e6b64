"""`trainer init`: writes a small working project with a model of your own. Without torch."""

from __future__ import annotations

import shlex
from contextlib import suppress
from pathlib import Path

from trainer.config import arguments
from trainer.errors import UsageError, refusal
from trainer.files import writing
from trainer.terminal import screen

EXAMPLE = Path(__file__).parents[1] / "examples" / "my_model"
FILES = {
    "my_model.py": "a plain torch module",
    "configs/model/my_model.yaml": "makes it available as model=my_model",
    "configs/experiment/my_experiment.yaml": "the data to train it on, the settings",
    "test_my_model.py": "a test that trains it for a few steps",
}


def main(argv: list[str]) -> int:
    """Run the command and return its exit code."""
    words = arguments.split(argv, (), "init")
    if len(words.overrides) != 1:
        which = "one directory:" if words.overrides else "which directory?"
        raise UsageError(f"init: {which} `trainer init first`, or `trainer init .` for this one")
    folder = Path(words.overrides[0])
    write(folder)
    screen.heading(str(folder), "a model of your own")
    screen.rows(FILES)
    there = {} if folder.resolve() == Path.cwd() else {f"cd {shlex.quote(str(folder))}": "go there"}
    screen.next_commands({**there, "trainer run experiment=my_experiment": "train it", "pytest": "test it"})
    return 0


def write(folder: Path) -> None:
    """Write the files of the example into a directory, and create the directory if needed.

    Raises:
        UsageError: A file exists or can't be written; nothing has changed.
    """
    sources = {folder / name: (EXAMPLE / name).read_bytes() for name in FILES}
    for file in sources:
        if file.exists() or file.is_symlink():
            raise refusal(str(file), "exists and is not overwritten", "another directory")
    written: list[Path] = []
    try:
        for file, source in sources.items():
            written += [above for above in file.parents if not above.exists()][::-1]
            writing.make_folders(file.parent)
            written.append(file)
            writing.write(file, source)
    except OSError as error:
        for path in reversed(written):
            with suppress(OSError):
                path.rmdir() if path.is_dir() else path.unlink()
        raise refusal(f"init {folder}", f"{error.filename or folder}: {error.strerror}") from error
