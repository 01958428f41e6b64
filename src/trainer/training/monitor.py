"""The metric that best, patience and plateau follow, and whether there are enough evaluations for them."""

from __future__ import annotations

import math

from trainer.config.settings import Settings
from trainer.data import Data
from trainer.errors import refusal, unknown
from trainer.schedules import Plateau, Schedule
from trainer.text import count
from trainer.training.loop import Learner


def choose_monitor(settings: Settings, data: Data, schedule: Schedule) -> tuple[str | None, str]:
    """Return the metric for the best checkpoint, patience and plateau, and whether min or max is better.

    Raises:
        UsageError: The metric doesn't exist, or a setting needs one and no rows are held out.
    """
    available = ["validation_loss"] + (["validation_accuracy"] if data.classes else [])
    if data.held_out is None:
        watchers = {
            f"monitor={settings.monitor}": settings.monitor is not None,
            f"mode={settings.mode}": settings.mode is not None,
            f"patience={settings.patience}": settings.patience is not None,
            f"eval_every={settings.eval_every}": settings.eval_every is not None,
            "schedule=plateau": type(schedule).observe is not Schedule.observe,
        }
        for what, watches in watchers.items():
            if watches:
                raise refusal(what, "needs validation data", "data.validation=0.2")
        return None, "min"
    monitor = settings.monitor or "validation_loss"
    if monitor not in available:
        raise unknown(f"monitor={monitor}", "no such metric", monitor, available, "monitor=")
    return monitor, settings.mode or ("max" if monitor == "validation_accuracy" else "min")


def idle(run: Learner, schedule: str) -> list[str]:
    """Return a line for patience and for a schedule that follows the metric if too few evaluations are left for it.

    Args:
        run: The run, at the step from which it goes on.
        schedule: `schedule=OPTION`, for the line.
    """
    if run.validation is None or run.eval_every is None:
        return []
    left = (run.steps - 1) // run.eval_every - run.state.step // run.eval_every  # one after the last step is too late
    needed: dict[str, float] = {}
    if run.patience < math.inf:
        needed[f"patience={run.patience}"] = run.patience - run.state.stale + (run.state.best_step is None)
    if isinstance(run.schedule, Plateau):
        needed[schedule] = run.schedule.patience + 1 - run.schedule.stale + (run.schedule.best == math.inf)
    elif type(run.schedule).observe is not Schedule.observe:
        needed[schedule] = 1
    there = f"before the last step there are {left if left > 0 else 'none'}"
    return [
        f"{what} has no effect: it takes {count(int(least), 'evaluation')}, and {there} "
        f"(one every {count(run.eval_every, 'step')}, {count(run.steps, 'step')})"
        for what, least in needed.items()
        if least > max(left, 0)
    ]
