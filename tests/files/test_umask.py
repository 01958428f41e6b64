"""What is written for the user is for those whom the umask lets."""

from __future__ import annotations

import os
import stat
from pathlib import Path

import pytest


@pytest.mark.parametrize(
    ("mask", "file", "folder"), [(0o077, 0o600, 0o700), (0o022, 0o644, 0o755), (0o002, 0o664, 0o775)]
)
def test_every_output(cli, workdir, mask, file, folder):
    before = os.umask(mask)
    try:
        Path("houses.csv").write_text("area,price\n" + "".join(f"{n},{n * 2}\n" for n in range(20)))
        words = ("data=csv", "data.path=houses.csv", "data.target=price", "model=mlp", "steps=6", "optim.lr=1e-5")
        commands = (
            ("run", "run_dir=run", *words, "logger=[csv,tensorboard]"),
            ("resume", "run", "steps=8"),
            ("run", "-m", "run_dir=sweep", *words, "seed=0,1"),
            ("run", *words),
            *(("predict", "run", "--input", "houses.csv", "--output", f"out.{kind}") for kind in ("csv", "parquet")),
            *(("export", "run", "--format", kind, "--output", kind) for kind in ("safetensors", "pt2")),
            *(("plot", "run", "-o", f"curve.{kind}") for kind in ("png", "svg", "csv")),
            ("inspect", "run", "--graph", "-o", "graph.gv"),
            ("init", "example"),
        )
        for command in commands:
            result = cli(*command)
            assert result.code == 0, (command, result.err)
    finally:
        os.umask(before)
    found = {path: stat.S_IMODE(path.stat().st_mode) for path in sorted(workdir.rglob("*"))}
    assert {str(path): oct(mode) for path, mode in found.items() if mode != (folder if path.is_dir() else file)} == {}
    names = {path.name for path in found}
    assert {"lock", "metrics.csv", "trainer.log", "sweep.json", "out.csv", "model.pt2", "graph.gv"} <= names
