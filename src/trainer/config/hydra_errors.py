"""Turns errors of Hydra, OmegaConf and YAML into one line that says what to do."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager

import yaml
from hydra.errors import HydraException
from omegaconf.errors import OmegaConfBaseException

from trainer.errors import UsageError, refusal, unknown


@contextmanager
def explained() -> Iterator[None]:
    """Convert errors of Hydra, OmegaConf or YAML in a block to UsageErrors."""
    try:
        yield
    except yaml.YAMLError as error:
        raise UsageError(explain_yaml(error)) from error
    except UnicodeDecodeError as error:
        raise UsageError(f"a config file is not UTF-8: byte {error.start} is {error.object[error.start]:#x}") from error
    except (HydraException, OmegaConfBaseException) as error:
        raise UsageError(_explain(error)) from error
    except RecursionError as error:
        raise UsageError("an interpolation refers to itself; check the ${...} in what you changed") from error


def explain_yaml(error: yaml.YAMLError) -> str:
    """Return the file, line and column of a YAML error, and the problem."""
    mark = getattr(error, "problem_mark", None)
    problem = getattr(error, "problem", None) or str(error).splitlines()[0]
    where = f"{mark.name}, line {mark.line + 1}, column {mark.column + 1}: " if mark else ""
    return f"{where}{problem.strip()}"


def _explain(error: Exception) -> str:
    cause = error.__cause__ if isinstance(error.__cause__, OmegaConfBaseException | yaml.YAMLError) else error
    if isinstance(cause, yaml.YAMLError):
        return explain_yaml(cause)
    lines = [line.strip() for line in str(cause).splitlines() if line.strip()]
    text = lines[0] if lines else type(cause).__name__
    if text.endswith(":") and len(lines) > 1:
        text = f"{text} {lines[1]}"
    key = getattr(cause, "full_key", None)
    if match := re.search(r"Environment variable '([^']+)' not found", text):
        return f"{key or 'config'}: the environment variable {match[1]} is not set"
    if match := re.fullmatch(r"Value '(.*)' of type '\w+' could not be converted to (\w+)", text):
        what = {"Integer": "a whole number", "Float": "a number", "Boolean": "true or false"}.get(match[2], match[2])
        return str(refusal(f"{key}={match[1]}", f"is not {what}"))
    if "Interpolation key" in text or "InterpolationKeyError" in type(cause).__name__:
        return f"{key or 'config'}: {text}"
    if missing := getattr(error, "missing_cfg_file", None):
        options = [str(option) for option in getattr(error, "options", None) or []]
        group, _, option = missing.rpartition("/")
        return str(unknown(f"{group}={option}", "no such option", option, options, f"{group}="))
    return f"{key}: {text}" if key and key not in text else text
