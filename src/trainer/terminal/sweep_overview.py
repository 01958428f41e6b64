"""Shows the progress of a sweep, read from the status.json files of its jobs, wherever they run."""

from __future__ import annotations

import sys
import time
from contextlib import ExitStack
from pathlib import Path

from rich.console import Group, RenderableType
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.text import Text

from trainer.runs.entries import RunSummary, entry
from trainer.terminal import screen
from trainer.text import duration, number, typed

_ENDED = ("done", "failed", "stopped")
_WINDOW = 32  # unfinished jobs to read at a time; launchers start them in order


class Overview(ExitStack[None]):
    """Shows a live table of a sweep's jobs on a terminal, elsewhere a line when a job ends; call it periodically.

    Args:
        path: The sweep's directory.
        names: Its jobs in the order in which they start.
    """

    def __init__(self, path: Path, names: list[str]) -> None:
        super().__init__()
        self._path = path
        self._entries = {name: entry(path / name) for name in names}
        self._open = [name for name, e in self._entries.items() if e.state != "done"]
        self._kept = len(names) - len(self._open)
        self._start = time.perf_counter()
        self._live = None
        if screen.is_live():
            to_screen = sys.stdout.isatty()  # keep output of models in a file or pipe
            self._live = Live(console=screen.stderr, auto_refresh=False, transient=True, redirect_stdout=to_screen)

    def __enter__(self) -> Overview:
        """Start the display; on exit, read the jobs once more and clear it."""
        if self._live is not None:
            self.enter_context(self._live)
        self.callback(self._look)
        return self

    def __call__(self) -> None:
        """Show the current state of the jobs."""
        self._look()
        if self._live is not None:
            self._live.update(self._render(), refresh=True)

    def _look(self) -> None:
        unfinished = 0
        for name in list(self._open):
            if unfinished == _WINDOW:
                break
            now = self._entries[name] = entry(self._path / name)
            unfinished += now.state not in _ENDED
            if now.state in _ENDED:
                self._open.remove(name)
                if self._live is None:
                    what = f"{name} {typed(now.swept)}".rstrip()
                    screen.note(f"{what}: {now.state} at step {now.step:,}{_result(now)}")

    def _render(self) -> RenderableType:
        entries = list(self._entries.values())
        ended = [e for e in entries if e.state in _ENDED]
        failed = sum(e.state == "failed" for e in ended)
        table = screen.columns(("job",), unbroken=("job",))
        table.expand = True
        table.add_column("", ratio=2, no_wrap=True, overflow="ellipsis")
        table.add_column("", ratio=1, min_width=6)
        table.add_column("step", justify="right", no_wrap=True)
        table.add_column("", ratio=2, no_wrap=True, overflow="ellipsis")
        for e in self._shown(entries):
            bar = ProgressBar(total=max(e.steps, 1), completed=e.step)
            table.add_row(e.name, Text(typed(e.swept)), bar, f"{e.step:,}/{e.steps:,}", Text(_now(e)))
        elapsed = time.perf_counter() - self._start
        line = f"{len(ended)} of {len(entries)} jobs ended"
        line += f", {failed} failed" if failed else ""
        ended_now = len(ended) - self._kept
        if ended_now and self._open:
            line += f", about {duration(elapsed / ended_now * len(self._open))} left"
        return Group(table, Text(line, style="cyan"))

    def _shown(self, entries: list[RunSummary]) -> list[RunSummary]:
        room = max(screen.stderr.size.height - 4, 3)
        if len(entries) <= room:
            return entries
        running = [e for e in entries if e.state == "running"][:room]
        others = [e for e in reversed(entries) if e.state in _ENDED][: room - len(running)]
        return sorted([*running, *others], key=lambda e: int(e.name))


def _now(e: RunSummary) -> str:
    return f"{e.state}{_result(e)}" if e.state in ("waiting", "failed") else _result(e).strip()


def _result(e: RunSummary) -> str:
    if e.error is not None:
        return f": {e.error}"
    return "".join(f"  {name.replace('_', ' ')} {number(value)}" for name, value in e.metrics.items())
