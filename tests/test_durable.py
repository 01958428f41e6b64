"""What is left after a power loss, when nothing but what was synced has reached the disk."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from conftest import Run
from instants import SMALL, begin, on_row, require_same, trained

from trainer import checkpoint, durable


class Disk:
    """What a disk that loses all that was not synced holds: the names in a folder and a file's bytes, each as synced.

    Files are told apart by inode and are kept open, so that no number is used again.
    """

    def __init__(self, root: Path) -> None:
        self.root = root
        self.names: dict[int, dict[str, int]] = {}
        self.bytes: dict[int, bytes] = {}
        self.open: list[int] = []

    def sync(self, descriptor: int) -> None:
        path = Path(os.readlink(f"/proc/self/fd/{descriptor}"))
        inode = os.fstat(descriptor).st_ino
        self.open.append(os.dup(descriptor))
        if path.is_dir():
            self.names[inode] = {entry.name: entry.inode() for entry in os.scandir(path)}
            for entry in os.scandir(path):
                self.open.append(os.open(entry.path, os.O_RDONLY))
        else:
            self.bytes[inode] = path.read_bytes()

    def restore(self, target: Path) -> None:
        """Write what is left after a power loss now."""
        self._folder(self.root.stat().st_ino, target)

    def _folder(self, inode: int, target: Path) -> None:
        target.mkdir()
        for name, inner in self.names.get(inode, {}).items():
            if inner in self.bytes:
                (target / name).write_bytes(self.bytes[inner])
            elif inner in self.names:
                self._folder(inner, target / name)

    def close(self) -> None:
        for descriptor in self.open:
            os.close(descriptor)


@contextmanager
def unreliable(root: Path, act: Callable[[Disk], None]) -> Iterator[None]:
    """Keep track of what is synced below a folder, and call `act` before and after each sync."""
    disk, fsync = Disk(root), os.fsync

    def call(descriptor: int) -> None:
        act(disk)
        fsync(descriptor)
        disk.sync(descriptor)
        act(disk)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "fsync", call)
        try:
            yield
        finally:
            disk.close()


def test_a_power_loss_at_any_moment_loses_no_saved_checkpoint(cli):
    """At every moment: a run from which it goes on, no checkpoint that is not whole, never fewer steps than before."""
    root = Path("disk")
    root.mkdir()
    found = [0]
    images = []

    def look(disk: Disk) -> None:
        image = Path(f"image-{len(images):03d}")
        disk.restore(image)
        images.append(image)
        run = image / "runs/it"
        if not (run / "config.yaml").exists():
            assert found == [0]
            return
        assert json.loads((run / "status.json").read_text())["format"] == 1
        newest, problems = checkpoint.newest(run / "checkpoints")
        assert problems == []
        if newest is not None:
            assert newest.step >= found[-1]
            found.append(newest.step)
            assert (run / "metrics.jsonl").stat().st_size >= newest.training["metrics_bytes"]

    words = [word for word in SMALL if not word.startswith("checkpoint.every=")]
    with unreliable(root, look):
        trained(cli, "disk/runs/it", *words, "checkpoint.every=4", "checkpoint.keep=1")
    trained(cli, "straight", *words)
    assert sorted({*found}) == [0, 4, 8, 12, 16, 20, 23]
    for image in images[-1:None:-9]:
        if (image / "runs/it/config.yaml").exists():
            assert cli("resume", f"{image}/runs/it").code == 0
            require_same(image / "runs/it", "straight")
    last = images[-1] / "runs/it"
    assert Run(last).status["state"] == "done"


def test_a_file_is_replaced_whole_or_not_at_all(tmp_path):
    file = tmp_path / "f"
    seen = []
    with unreliable(
        tmp_path, lambda disk: seen.append((file.read_bytes() if file.exists() else None, dict(disk.bytes)))
    ):
        durable.replace(file, b"old")
        durable.replace(file, b"new")
    assert [now for now, _ in seen] == [None, None, b"old", b"old", b"old", b"old", b"new", b"new"]
    assert os.listdir(tmp_path) == ["f"]


def test_a_file_is_never_written_over(tmp_path):
    durable.write(tmp_path / "f", b"one")
    with pytest.raises(FileExistsError):
        durable.write(tmp_path / "f", b"two")
    assert (tmp_path / "f").read_bytes() == b"one"


def test_removing_follows_no_links(tmp_path):
    (tmp_path / "mine").mkdir()
    (tmp_path / "other").mkdir()
    (tmp_path / "other/kept").write_text("")
    (tmp_path / "mine/link").symlink_to(tmp_path / "other")
    durable.remove_tree(tmp_path / "mine")
    assert sorted(os.listdir(tmp_path)) == ["other"]
    (tmp_path / "link").symlink_to(tmp_path / "other")
    durable.remove_tree(tmp_path / "link")
    assert (tmp_path / "other/kept").exists()


def test_folders_are_made_with_those_above_them(tmp_path):
    durable.make_folders(tmp_path / "a/b/c")
    durable.make_folders(tmp_path / "a/b/c")
    assert (tmp_path / "a/b/c").is_dir()
    (tmp_path / "file").write_text("")
    with pytest.raises(OSError, match="file"):
        durable.make_folders(tmp_path / "file/x")


def test_a_run_whose_directory_goes_says_so(cli):
    begin("run", *SMALL)
    with pytest.MonkeyPatch.context() as patch:
        on_row(lambda row: row["step"] == 6 and os.rename("run", "moved"), patch)
        result = cli("resume", "run")
    assert result.code == 1
    assert result.err.splitlines()[-1] == "error: run is gone: something has deleted or moved it while it was trained"
    assert cli("resume", "moved").code == 0


def test_what_a_failed_write_leaves_is_cleared_away(cli, monkeypatch):
    begin("run", "steps=2", "data.inputs=5")
    real = durable.write

    def full(path: Path, content: bytes) -> None:
        if path.name == "training.safetensors":
            path.write_bytes(content[:10])
            raise OSError(28, "No space left on device", str(path))
        real(path, content)

    with monkeypatch.context() as patch:
        patch.setattr(durable, "write", full)
        result = cli("resume", "run")
    assert result.code == 1
    assert result.err.splitlines()[-3].startswith("error: No space left on device: run/checkpoints/")
    assert os.listdir("run/checkpoints") == []
    assert Run(Path("run")).status["state"] == "failed"
    assert cli("resume", "run").code == 0
