"""The file operations of a save, one by one."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from conftest import Run
from faults import watched
from instants import SMALL, begin, on_row

from trainer.files import writing


def test_a_file_is_replaced_whole_or_not_at_all(tmp_path):
    file = tmp_path / "f"
    seen = []
    with watched(lambda name: seen.append(file.read_bytes() if file.exists() else None)):
        writing.replace(file, b"old")
        writing.replace(file, b"new")
    assert list(dict.fromkeys(seen)) == [None, b"old", b"new"]
    assert os.listdir(tmp_path) == ["f"]


def test_space_is_asked_for_before_anything_is_written(tmp_path):
    writing.require_space(tmp_path, 1000)
    with pytest.raises(OSError, match=r"are needed and .* are free"):
        writing.require_space(tmp_path, 2**62)


def test_a_file_is_never_written_over(tmp_path):
    writing.write(tmp_path / "f", b"one")
    with pytest.raises(FileExistsError):
        writing.write(tmp_path / "f", b"two")
    assert (tmp_path / "f").read_bytes() == b"one"


def test_removing_follows_no_links(tmp_path):
    (tmp_path / "mine").mkdir()
    (tmp_path / "other").mkdir()
    (tmp_path / "other/kept").write_text("")
    (tmp_path / "mine/link").symlink_to(tmp_path / "other")
    writing.remove_tree(tmp_path / "mine")
    assert sorted(os.listdir(tmp_path)) == ["other"]
    (tmp_path / "link").symlink_to(tmp_path / "other")
    writing.remove_tree(tmp_path / "link")
    assert (tmp_path / "other/kept").exists()


def test_folders_are_made_with_those_above_them(tmp_path):
    writing.make_folders(tmp_path / "a/b/c")
    writing.make_folders(tmp_path / "a/b/c")
    assert (tmp_path / "a/b/c").is_dir()
    (tmp_path / "file").write_text("")
    with pytest.raises(OSError, match="file"):
        writing.make_folders(tmp_path / "file/x")


def test_a_run_whose_directory_goes_says_so(cli):
    begin("run", *SMALL)
    with pytest.MonkeyPatch.context() as patch:
        on_row(lambda row: row["step"] == 6 and os.rename("run", "moved"), patch)
        result = cli("resume", "run")
    assert result.code == 1
    assert result.err.splitlines()[-1] == "error: run no longer exists: it was deleted or moved during training"
    assert cli("resume", "moved").code == 0


def test_what_a_failed_write_leaves_is_cleared_away(cli, monkeypatch):
    begin("run", "steps=2", "data.inputs=5")
    real = writing.write

    def full(path: Path, content: bytes) -> None:
        if path.name == "training.safetensors":
            path.write_bytes(content[:10])
            raise OSError(28, "No space left on device", str(path))
        real(path, content)

    with monkeypatch.context() as patch:
        patch.setattr(writing, "write", full)
        result = cli("resume", "run")
    assert result.code == 1
    assert result.err.splitlines()[-3].startswith("error: No space left on device: run/checkpoints/")
    assert os.listdir("run/checkpoints") == []
    assert Run(Path("run")).status["state"] == "failed"
    assert cli("resume", "run").code == 0
