"""Tries every fault that a run must survive and prints a table of the results.

.venv/bin/python scripts/faults.py              all series, about half an hour on 2 cores
.venv/bin/python scripts/faults.py kills        the series whose names contain a word
.venv/bin/python scripts/faults.py --write      also writes the table into docs/runs.md
"""

from __future__ import annotations

import os
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "tests"))

import faults  # noqa: E402 (found in tests/)
import hostile  # noqa: E402
import torch  # noqa: E402
from conftest import Result  # noqa: E402

from trainer.cli import main as trainer_main  # noqa: E402

START, END = "<!-- faults -->", "<!-- end -->"
SERIES: dict[str, Callable[..., Iterator[str | None]]] = {
    "SIGKILL at random instants": lambda cli: faults.kills_at_random(cli, range(200)),
    "SIGKILL before and after every file operation of a save": faults.kills_at_operations,
    "SIGKILL before and after every file operation of a run with loggers": faults.kills_with_loggers,
    "every file operation fails in turn: ENOSPC, EIO, EROFS": faults.failing_operations,
    "a limit on the size of files": faults.limited_files,
    "a disk that is full": faults.small_disks,
    "power lost before and after every file operation, three states each": faults.power_losses,
    "a flipped bit and a cut in every KiB, files deleted and swapped": lambda cli: faults.corruptions(cli, stride=97),
    "six signals in six phases": faults.signals,
    "two writers at once": faults.writers,
    "hostile runs, whose code must not run": hostile.sprung,
}


def cli(*words: str) -> Result:
    """Call the command in this process and return what it printed."""
    kept = [os.dup(1), os.dup(2)]
    with tempfile.TemporaryFile("w+") as out, tempfile.TemporaryFile("w+") as err:
        try:
            os.dup2(out.fileno(), 1)
            os.dup2(err.fileno(), 2)
            code = trainer_main(list(words))
            sys.stdout.flush()
        finally:
            for number, descriptor in enumerate(kept, start=1):
                os.dup2(descriptor, number)
                os.close(descriptor)
        out.seek(0)
        err.seek(0)
        return Result(code, out.read(), err.read())


def main(argv: list[str]) -> int:
    """Run the series, print the table, and return 1 if anything did not survive."""
    torch.set_num_threads(1)
    asked = [word for word in argv if not word.startswith("--")]
    rows = []
    for name, series in SERIES.items():
        if asked and not any(word in name for word in asked):
            continue
        start, tried, wrong = time.perf_counter(), 0, 0
        with tempfile.TemporaryDirectory() as folder:
            os.chdir(folder)
            for problem in series(cli):
                tried += 1
                if problem is not None:
                    wrong += 1
                    print(f"  {name}: {problem}", flush=True)
            os.chdir(ROOT)
        print(f"{tried - wrong} of {tried}  {name}  ({time.perf_counter() - start:.0f} s)", flush=True)
        rows.append(f"| {name} | {tried:,} | {tried - wrong:,} |")
    table = "\n".join(["| fault | tried | survived |", "|---|---|---|", *rows])
    if "--write" in argv:
        page = ROOT / "docs" / "runs.md"
        before, _, rest = page.read_text().partition(START)
        page.write_text(f"{before}{START}\n{table}\n{END}{rest.partition(END)[2]}")
    print(f"\n{table}")
    return 1 if any(row.split("|")[2] != row.split("|")[3] for row in rows) else 0


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
