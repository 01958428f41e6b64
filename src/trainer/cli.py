"""The `trainer` command: finds the subcommand; for a help imports nothing but what shows it."""

from __future__ import annotations

import atexit
import contextlib
import gc
import importlib
import os
import signal
import sys

from trainer.errors import TrainerError, UsageError, nearest, printable
from trainer.terminal import help, streams
from trainer.version import __version__

COMMANDS = {
    "run": "train one model, or a sweep with -m",
    "resume": "continue a run or a sweep where it stopped, or longer",
    "runs": "show what has been run, best first",
    "show": "show one run or sweep: config, result, what made it, weights",
    "inspect": "show what a model is made of, and one step taken slowly",
    "compare": "show what differs between runs, side by side",
    "plot": "draw the curves of runs, in the terminal or in a file",
    "eval": "show how good a run's model is, on held-out rows or other data",
    "predict": "predict from new rows",
    "export": "write a model that other tools load",
    "verify": "check every checkpoint of a run",
    "reproduce": "run a run again and compare it, step by step",
    "trust": "show the code that a run would execute, and trust it",
    "ladder": "climb from hand-written gradients to a module, side by side",
    "init": "write a small example of a model of your own",
    "list": "show what can be selected and set",
    "explain": "show where a setting comes from and what it does",
    "info": "show versions, devices and threads",
    "completion": "print what lets TAB complete words in bash, zsh or fish",
}

HELP = """Usage: trainer COMMAND ...

Trains a PyTorch model that a configuration describes, shows how it goes, and
saves checkpoints from which it continues exactly where it stopped.

Commands:
{commands}

Start with:
  trainer run                                    the default model, seconds
  trainer run model=dynamic optim=sgd_momentum   another model and optimizer
  trainer run -m optim.lr=1e-5,1e-4 seed=0,1     a sweep, a run for each
  trainer resume last steps=1000                 go on longer with the newest
  trainer runs                                   what has been run, best first
  trainer plot last                              the curves of the newest
  trainer list                                   all models, data, losses, ...

`trainer COMMAND --help` says more.
"""


def main(argv: list[str] | None = None) -> int:
    """Run one command and return its exit code."""
    if argv is None:
        argv = sys.argv[1:]
        atexit.register(gc.freeze)  # the process is ours: a last search of all that torch has made frees nothing
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
        from trainer.config import secrets

        _trace()
        lines = [f"error: {printable(secrets.hide(str(error)))}"]
        for more in getattr(error, "__notes__", ()):
            lines += map(printable, more.splitlines())
        _complain(*lines)
        return error.exit_code
    except OSError as error:
        _trace()
        if (shortage := _shortage(error)) is not None:
            return _lacks_memory(shortage)
        _complain(f"error: {printable(f'{error.filename}: ' if error.filename else '')}{error.strerror or error}")
        streams.silence(sys.stdout)
        return 1
    except KeyboardInterrupt:
        _complain("interrupted")
        return 130
    except BaseException as error:  # polars and others raise what is no Exception
        if (shortage := _shortage(error)) is None:
            raise
        _trace()
        return _lacks_memory(shortage)


def _shortage(error: BaseException) -> str | None:
    from trainer.terminal import address_space

    return address_space.shortage(error)


def _lacks_memory(reason: str) -> int:
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
    if argv[0] in ("-V", "--version"):
        print(f"trainer {__version__}")
        return 0
    if sys.platform == "win32":  # before any import of fcntl and resource, which Windows lacks
        raise UsageError("trainer does not run on Windows, which has no fcntl and no fork; use Linux, also in WSL")
    from trainer.config import secrets
    from trainer.terminal import address_space

    address_space.watch()
    secrets.words(argv)  # to be hidden in every message from here on
    if name not in COMMANDS:
        near = "run " + name if "=" in name else nearest(name, COMMANDS)
        hint = f"; did you mean `trainer {near}`?" if near else ""
        raise UsageError(f"{name}: no such command; allowed: {', '.join(COMMANDS)}{hint}")
    _heed_interrupts()
    module = importlib.import_module(f"trainer.commands.{name}")
    return int(module.main(rest))


def _heed_interrupts() -> None:
    """Let SIGINT stop a command that a script started with `&`: its shell made it ignore the signal."""
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        with contextlib.suppress(ValueError):  # only the main thread may set it
            signal.signal(signal.SIGINT, signal.default_int_handler)


if __name__ == "__main__":
    raise SystemExit(main())
