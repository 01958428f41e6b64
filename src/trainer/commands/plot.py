"""`trainer plot`: charts of runs, in the terminal or in a file. Without torch."""

from __future__ import annotations

import re
import shlex
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from trainer.charts import image_file, text_chart
from trainer.charts.picture import HeatMap, Picture
from trainer.charts.plan import numbers_of, picture_of, planned
from trainer.config import arguments
from trainer.errors import UsageError, refusal
from trainer.files import writing
from trainer.runs import directory, entries, find
from trainer.terminal import screen

FLAGS = ("-o", "--output", "--metric", "--by", "--against", "--curves", "--title", "--size")
CSV = ".csv"
_SIZE = re.compile(r"(\d+(?:\.\d+)?)x(\d+(?:\.\d+)?)")
_SMALLEST, _LARGEST = 2.0, 50.0  # inches


def main(argv: list[str]) -> int:
    """Run the command and return its exit code."""
    words = arguments.split(argv, FLAGS, "plot")
    flags = words.flags
    if not words.overrides:
        raise words.which_run()
    file = _file(flags["output"]) if "output" in flags else None
    size = _size(flags["size"], file) if "size" in flags else None
    paths = list(dict.fromkeys(map(find.find, words.overrides)))
    found = entries.entries(paths)
    if not found:
        raise UsageError(f"plot: {paths[0]} has no jobs")
    plan = replace(planned(found, flags, is_sweep=len(paths) == 1 and directory.is_sweep(paths[0])), track=screen.track)
    if file is not None and file.suffix.lower() == CSV:
        _write(file, numbers_of(plan, flags).encode())
        screen.say(f"wrote {file}")
        return 0
    picture, notes = picture_of(plan, flags.get("title", ""))
    if file is None:
        _show(picture)
    else:
        _write(file, image_file.draw(picture, file.suffix.lower(), size))
        screen.say(f"wrote {file}, {_size_text(size or image_file.default_size(picture), file)}")
    for note in notes:
        screen.say(note)
    if file is None:
        screen.next_commands({shlex.join(["trainer", "plot", *argv, "-o", "curve.png"]): "save it as a picture"})
    else:
        screen.next_commands({_as_csv(argv, file): "save its numbers"})
    return 0


def _as_csv(argv: Sequence[str], file: Path) -> str:
    """Return the command that writes the numbers of a picture."""
    words = list(argv)
    for flag in ("-o", "--output", "--size"):
        for index, word in enumerate(words):
            if word.partition("=")[0] == flag:
                del words[index : index + (1 if "=" in word else 2)]
                break
    return shlex.join(["trainer", "plot", *words, "-o", str(file.with_suffix(CSV))])


def _file(name: str) -> Path:
    """Return the file to write.

    Raises:
        UsageError: Its ending is no known format, or its folder does not exist.
    """
    file = Path(name)
    if file.suffix.lower() not in (*image_file.SUFFIXES, CSV):
        allowed, near = [*image_file.SUFFIXES, CSV], f"-o {file.stem or 'curve'}.png"
        raise refusal(f"-o {name}", "has no known ending", allowed, near)
    if not file.parent.is_dir():
        raise refusal(f"-o {name}", f"no such folder: {file.parent.absolute()}")
    if file.is_dir():
        raise refusal(f"-o {name}", "is a folder")
    return file


def _size(text: str, file: Path | None) -> tuple[float, float]:
    """Return a width and a height in inches.

    Raises:
        UsageError: The text is not a size, the size is out of range, or no picture is written.
    """
    if file is None or file.suffix.lower() == CSV:
        raise refusal(f"--size={text}", "only works for a picture in a file", "-o FILE.png as well")
    limits = f"WIDTHxHEIGHT in inches, {_SMALLEST:g} to {_LARGEST:g} each"
    match = _SIZE.fullmatch(text)
    if match is None:
        raise refusal(f"--size={text}", "is not a size", limits, "6x4")
    width, height = float(match[1]), float(match[2])
    if not all(_SMALLEST <= side <= _LARGEST for side in (width, height)):
        pixels = f"{width / image_file.PIXELS:g}x{height / image_file.PIXELS:g}" if width > _LARGEST else None
        raise refusal(
            f"--size={text}", f"is out of range; a PNG has {image_file.PIXELS} pixels per inch", limits, pixels
        )
    return width, height


def _write(file: Path, content: bytes) -> None:
    """Write a file atomically.

    Raises:
        UsageError: The file can't be written.
    """
    try:
        writing.replace(file, content)
    except OSError as error:
        raise refusal(f"-o {file}", f"can't be written: {error.strerror}") from error


def _size_text(size: tuple[float, float], file: Path) -> str:
    if file.suffix.lower() == ".png":
        return f"{int(size[0] * image_file.PIXELS):,} x {int(size[1] * image_file.PIXELS):,} pixels"
    return f"{size[0]:g} x {size[1]:g} inches"


def _show(picture: Picture) -> None:
    if picture.title:
        screen.say(picture.title)
    if picture.legend:
        screen.say(f"lines: {picture.legend}")
    for part in picture.parts:
        if isinstance(part, HeatMap):
            screen.say(f"{part.z_label}: {part.y_label} down, {part.x_label} across")
            whole, means = (
                screen.columns(("",), part.columns, text_chart.rows(part, spread), unbroken=("",))
                for spread in (True, False)
            )
            screen.table(whole if screen.fits(whole) else means)
        else:
            text_chart.charts([part], screen.stdout)
