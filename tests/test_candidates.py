"""TAB scripts of before the modules moved: they type nothing, and the terminal says how to write them again."""

from __future__ import annotations

import os
import pty
import subprocess
import sys
from pathlib import Path

import pytest

import trainer

PACKAGE = str(Path(trainer.__file__).parents[1])
CODE = f"import sys; sys.path += {[PACKAGE]!r}; from trainer.candidates import main; main(sys.argv[1:])"
ASK = [sys.executable, "-I", "-S", "-c", CODE]  # as the scripts did


def test_without_a_terminal_the_cure_is_on_stderr():
    done = subprocess.run([*ASK, "zsh", "run", ""], capture_output=True, text=True, check=True, start_new_session=True)
    assert done.stdout == ""
    assert done.stderr == "trainer: this TAB script is from an older version; replace it: trainer completion zsh\n"


@pytest.mark.filterwarnings("ignore:This process.*forkpty:DeprecationWarning")
def test_on_a_terminal_nothing_is_typed_and_the_cure_is_shown(tmp_path):
    typed = tmp_path / "typed"
    process, terminal = pty.fork()
    if process == 0:
        os.dup2(os.open(typed, os.O_CREAT | os.O_WRONLY), 1)
        os.dup2(os.open(os.devnull, os.O_WRONLY), 2)
        os.execv(sys.executable, [*ASK, "bash", "ru"])
    shown = b""
    try:
        while part := os.read(terminal, 1000):
            shown += part
    except OSError:  # how a terminal ends
        pass
    assert os.waitstatus_to_exitcode(os.waitpid(process, 0)[1]) == 0
    os.close(terminal)
    assert typed.read_bytes() == b""
    assert b"replace it: trainer completion bash" in shown
