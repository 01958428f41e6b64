"""The `trainer` command: finds the subcommand; imports nothing heavy before that."""

from __future__ import annotations

import importlib
import os
import sys

from trainer import __version__, streams
from trainer.errors import TrainerError, UsageError, nearest, printable

COMMANDS = {
    "run": "train one model, or a sweep with -m",
    "resume": "continue a run or a sweep where it stopped, or go on longer",
    "list": "what can be selected: models, data, losses, optimizers, ...",
    "info": "versions, devices and threads",
}
MODULES = {"list": "trainer.listing"}

HELP = """Usage: trainer COMMAND ...

Trains a PyTorch model that a configuration describes, saves checkpoints, resumes exactly.

Commands:
{commands}

Start with:
  trainer run                                     one run with the defaults, a second or two
  trainer run model=dynamic optim=sgd_momentum    choose the model and the optimizer
  trainer run -m optim.lr=1e-5,1e-4 seed=0,1      a sweep: one run for each combination
  trainer resume last steps=1000                  go on, longer

trainer COMMAND --help says more.
"""


def main(argv: list[str] | None = None) -> int:
    """Run one command and return its exit code."""
    argv = sys.argv[1:] if argv is None else argv
    # The threads of NumPy's BLAS would spin against torch's; torch keeps the cores. Read when NumPy is imported.
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
    streams.prepare()
    try:
        code = _dispatch(argv)
        sys.stdout.flush()
        return code
    except BrokenPipeError:  # whoever read our output has left; the work is done
        streams.silence(sys.stdout)
        return 0
    except TrainerError as error:
        if os.environ.get("TRAINER_TRACEBACK"):
            raise
        lines = [f"error: {printable(str(error))}"]
        for more in getattr(error, "__notes__", ()):
            lines += map(printable, more.splitlines())
        print("\n".join(lines), file=sys.stderr)
        return error.exit_code
    except KeyboardInterrupt:
        return 130


def _dispatch(argv: list[str]) -> int:
    if not argv or argv[0] in ("-h", "--help", "help"):
        rows = "\n".join(f"  {name:<10} {what}" for name, what in COMMANDS.items())
        sys.stdout.write(HELP.format(commands=rows))
        return 0
    if argv[0] in ("-V", "--version"):
        print(f"trainer {__version__}")
        return 0
    name, rest = argv[0], argv[1:]
    if name not in COMMANDS:
        near = "run " + name if "=" in name else nearest(name, COMMANDS)
        hint = f"; did you mean `trainer {near}`?" if near else ""
        raise UsageError(f"{name}: no such command; allowed: {', '.join(COMMANDS)}{hint}")
    module = importlib.import_module(MODULES.get(name, f"trainer.{name}"))
    return int(module.main(rest))


if __name__ == "__main__":
    raise SystemExit(main())
