"""The groups and their options, read from the config folders without Hydra."""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from trainer.errors import UsageError, nearest, refusal

GROUPS = {
    "model": "what is trained",
    "data": "what the model learns from",
    "loss": "what training minimizes",
    "optim": "how the weights are updated",
    "schedule": "how the learning rate changes",
    "device": "where to compute",
    "logger": "where metrics go besides metrics.jsonl; several as [a,b]",
    "experiment": "recipes that choose all of these together",
}

LAUNCHERS = (
    "basic",
    "joblib",
    "local",
    "processes",
    "vectorized",
)  # launchers that write no job to a file
SEVERAL = ("logger",)  # groups that take several options: logger=[tensorboard,csv]

# Names that other tools use; error messages suggest the option for them.
OTHER_NAMES = {
    "model": {"linear_regression": "linear", "perceptron": "mlp", "module": "two_layer", "net": "two_layer"},
    "data": {"null": "none", "mnist": "digits", "triples": "integer_triples", "synthetic": "random"},
    "loss": {
        "ce": "cross_entropy",
        "crossentropy": "cross_entropy",
        "nll": "cross_entropy",
        "mae": "l1",
        "l2": "mse",
        "smooth_l1": "huber",
        "bce_with_logits": "bce",
        "binary_cross_entropy": "bce",
        "sum_of_squares": "sse",
    },
    "optim": {
        "momentum": "sgd_momentum",
        "gradient_descent": "gd",
        "nag": "nesterov",
        "bfgs": "lbfgs",
        "l-bfgs": "lbfgs",
    },
    "schedule": {"none": "constant", "linear_warmup": "warmup_cosine", "warmup": "warmup_cosine"},
    "logger": {"null": "none", "tb": "tensorboard"},
    "device": {"gpu": "cuda", "metal": "mps", "apple": "mps"},
}


def names(choice: str) -> list[str]:
    """Return the options that a choice names: one, or several in brackets."""
    return [name.strip() for name in choice.strip("[]").split(",") if name.strip()]


def shipped_configs() -> Path:
    """Return the folder of the shipped configs: in the package if installed from a wheel, else beside src/."""
    package = Path(__file__).resolve().parents[1]
    inside = package / "configs"
    return inside if inside.is_dir() else package.parents[1] / "configs"


@dataclass(frozen=True)
class Catalog:
    """The options of every group in the shipped configs, in further folders and in ./configs, in that order."""

    extra: tuple[Path, ...] = ()
    shipped_only: bool = False

    @cached_property
    def folders(self) -> list[Path]:
        """The config folders that exist; the first one that has an option wins."""
        users = () if self.shipped_only else (*self.extra, Path("configs"))
        own = [folder.resolve() for folder in users if folder.is_dir()]
        return list(dict.fromkeys([shipped_configs(), *own]))

    def options(self, group: str) -> dict[str, Path]:
        """Return the file of each option of a group."""
        files: dict[str, Path] = {}
        for folder in self.folders:
            for file in sorted(filter(Path.is_file, (folder / group).glob("*.yaml"))):
                files.setdefault(file.stem, file)
        return files

    def defaults(self) -> dict[str, str]:
        """Return the default option of each group."""
        # Read without a YAML parser, because importing one would slow down every --help.
        text = (shipped_configs() / "config.yaml").read_text(encoding="utf-8")
        chosen = dict(re.findall(r"^  - (\w+): (\w+)$", text, re.MULTILINE))
        return {group: name for group, name in chosen.items() if name != "null"}

    def warnings(self) -> list[str]:
        """Return a warning for each of the user's files that is hidden by an option of the same name."""
        lines = []
        for folder in self.folders[1:]:
            for group in GROUPS:
                for file in sorted((folder / group).glob("*.yaml")):
                    used = self.options(group).get(file.stem, file)
                    if used != file:
                        whose = "the shipped " if self.is_shipped(used) else ""
                        lines.append(f"{file} is ignored: {whose}{group}={file.stem} has the same name")
        return lines

    @staticmethod
    def is_shipped(file: Path) -> bool:
        """Return whether the file of an option is shipped with the package."""
        return file.parents[1] == shipped_configs()

    def match(self, group: str, word: str) -> str:
        """Return the option that `word` names; case is ignored.

        Raises:
            UsageError: There is no such option; the message suggests the nearest.
        """
        options = self.options(group)
        by_lower = {name.lower(): name for name in options}
        if word in options or (group == "experiment" and word == "null"):
            return word
        if word.lower() in by_lower:
            return by_lower[word.lower()]
        raise self.unknown(group, word)

    def unknown(self, group: str, word: str) -> UsageError:
        """Return the error for an option that a group does not have."""
        options = self.options(group)
        near = OTHER_NAMES.get(group, {}).get(word.lower()) or nearest(word, options)
        suggestion = f"{group}={near}" if near else self.group_of(word)
        reason = f"no such {group}{self._misplaced(group, word)}"
        return refusal(f"{group}={word}", reason, options, suggestion)

    def _misplaced(self, group: str, word: str) -> str:
        """Return a remark about a file of that name in the wrong place; empty if there is none."""
        if not re.fullmatch(r"[\w-]+", word):
            return ""
        for folder in reversed(self.folders):
            for file in sorted(folder.rglob(f"{word}.y*ml")):
                if file.parent.name not in GROUPS or file.suffix != ".yaml":
                    return f"; move {near_path(file)} to {near_path(folder / group / word)}.yaml"
        return ""

    def group_of(self, word: str) -> str | None:
        """Return `group=option` for the first group that has an option called `word`; None if no group has one."""
        for group in GROUPS:
            names = {name.lower(): name for name in self.options(group)} | OTHER_NAMES.get(group, {})
            if word.lower() in names:
                return f"{group}={names[word.lower()]}"
        return None


def near_path(file: Path) -> str:
    """Return a path relative to the working directory if the path is below it."""
    return str(file.relative_to(Path.cwd()) if file.is_relative_to(Path.cwd()) else file)


def summary(file: Path) -> str:
    """Return the first comment line of an option's file, which describes it; empty if there is none."""
    try:
        lines = file.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return ""
    comments = (line.lstrip("# ").rstrip() for line in lines if line.startswith("#"))
    return next((comment for comment in comments if not comment.startswith("@package")), "")
