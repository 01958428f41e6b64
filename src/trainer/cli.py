"""The `trainer` command: runs a subcommand and prints errors as one line; `--help` imports almost nothing."""

from __future__ import annotations

import atexit
import contextlib
import gc
import importlib
import os
import signal
import sys

from trainer.errors import TrainerError, UsageError, cut, nearest, printable
from trainer.terminal import help, streams
from trainer.version import __version__

COMMANDS = {
    "run": "train one model, or a sweep with -m",
    "resume": "continue a run or a sweep, or train it longer",
    "runs": "list all runs, best first",
    "show": "show a run or a sweep: settings, results, checkpoints, weights",
    "inspect": "show the layers of a model, and one training step in detail",
    "compare": "show the differences between runs, side by side",
    "plot": "plot the curves of runs, in the terminal or to a file",
    "eval": "evaluate a trained model, on held-out rows or other data",
    "predict": "predict from new rows",
    "export": "export a trained model for other tools",
    "verify": "check the files and checkpoints of a run for damage",
    "reproduce": "repeat a run and compare it with the original, step by step",
    "trust": "show the code a run would execute, and add it to your trust list",
    "ladder": "compare six versions of a network, from NumPy to a module",
    "init": "write a small example project",
    "list": "list the options and settings",
    "explain": "show where a setting comes from and what it does",
    "info": "show versions, devices and threads",
    "completion": "print the TAB completion script for bash, zsh or fish",
}

_FEWEST = 10  # columns of a terminal

HELP = """Usage: trainer COMMAND ...

Trains PyTorch models from a configuration, shows the progress, and saves
checkpoints from which training resumes bit for bit.

Commands:
{commands}

Start with:
  trainer run                                    train the default model
  trainer run model=dynamic optim=sgd_momentum   another model and optimizer
  trainer run -m optim.lr=1e-5,1e-4 seed=0,1     a sweep of four jobs
  trainer resume last steps=1000                 train the newest run longer
  trainer runs                                   list all runs, best first
  trainer plot last                              the curves of the newest run
  trainer list                                   all models, data, losses, ...

Details: `trainer COMMAND --help`.
"""


def main(argv: list[str] | None = None) -> int:
    """Run one command and return its exit code."""
    if argv is None:
        argv = sys.argv[1:]
        atexit.register(gc.freeze)  # skip the last garbage collection, which would search all of torch in vain
    # NumPy's BLAS threads would compete with torch's for the cores. NumPy reads this when it is imported.
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
    if os.environ.get("COLUMNS", "").strip() in map(str, range(_FEWEST)):
        del os.environ["COLUMNS"]  # no text fits; rich and textwrap would print nothing, or fail
    streams.prepare()
    try:
        code = _dispatch(argv)
        sys.stdout.flush()
        return code
    except BrokenPipeError:  # the reader of the output has closed it
        streams.silence(sys.stdout)
        return 0
    except TrainerError as error:
        from trainer.config import secrets

        _trace()
        lines = [f"error: {printable(secrets.hide(str(error)))}"]
        for more in getattr(error, "__notes__", ()):
            lines += map(printable, more.splitlines())
        _complain(*lines)
        return error.exit_code
    except OSError as error:
        _trace()
        file = printable(f"{error.filename}: ") if error.filename else ""
        return _system_error(_shortage(error) or f"{file}{error.strerror or error}")
    except KeyboardInterrupt:
        _complain("interrupted")
        return 130
    except BaseException as error:  # polars and others raise errors that do not derive from Exception
        if (shortage := _shortage(error)) is None:
            raise
        _trace()
        return _system_error(shortage)


def _shortage(error: BaseException) -> str | None:
    from trainer.terminal import address_space

    return address_space.shortage(error)


def _system_error(reason: str) -> int:
    _complain(f"error: {reason}")
    streams.silence(sys.stdout)
    return 1


def _trace() -> None:
    if os.environ.get("TRAINER_TRACEBACK"):
        import traceback

        _complain(traceback.format_exc().rstrip())


def _complain(*lines: str) -> None:
    print(*lines, sep="\n", file=streams.Stream("stderr", OSError), flush=True)


def _dispatch(argv: list[str]) -> int:
    if argv[:1] == ["help"]:
        argv = [*argv[1:2], "--help"]
    if not argv or argv[0] in ("-h", "--help"):
        rows = "\n".join(f"  {name:<12} {what}" for name, what in COMMANDS.items())
        sys.stdout.write(HELP.format(commands=rows))
        return 0
    name, rest = argv[0], argv[1:]
    if name in COMMANDS and help.is_asked(rest):
        sys.stdout.write(help.text(name, rest))
        return 0
    if name in ("-V", "--version"):
        print(f"trainer {__version__}")
        return 0
    if sys.platform == "win32":  # before any import of fcntl and resource, which Windows lacks
        raise UsageError("trainer does not run on Windows, which has no fcntl and no fork; use Linux, also in WSL")
    from trainer.config import secrets
    from trainer.terminal import address_space

    address_space.watch()
    secrets.words(argv)  # hides them in every message from here on
    if name not in COMMANDS:
        near = f"run {_for_a_shell(name)}" if "=" in name else nearest(name, COMMANDS)
        hint = f"; did you mean `trainer {near}`?" if near else ""
        raise UsageError(f"{cut(name)}: no such command; allowed: {', '.join(COMMANDS)}{hint}")
    _enable_interrupts()
    from trainer import termination

    try:
        with termination.raising():
            module = importlib.import_module(f"trainer.commands.{name}")
            return int(module.main(rest))
    except termination.Terminated as ended:
        _complain(f"ended by {ended.signal.name}")
        streams.silence(sys.stdout)
        return 128 + ended.signal


def _for_a_shell(word: str) -> str:
    from trainer import quoting

    return quoting.shell(word)


def _enable_interrupts() -> None:
    """Let SIGINT stop a command started with `&` in a script, whose shell makes it ignore the signal."""
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        with contextlib.suppress(ValueError):  # only the main thread may set it
            signal.signal(signal.SIGINT, signal.default_int_handler)


if __name__ == "__main__":
    raise SystemExit(main())
