"""What tests of files share: processes of their own, and what is in a folder."""

import multiprocessing
import os
import signal
import sys
from pathlib import Path

import pytest

from s4lite.data.whole import atomic_write

CONTENT = bytes(range(256)) * 400  # 100 kB
posix = pytest.mark.skipif(sys.platform == "win32", reason="needs fork")


def names(folder: Path) -> list[str]:
    return sorted(str(p.relative_to(folder)) for p in folder.rglob("*") if p.is_file())


def folders(folder: Path) -> list[str]:
    return sorted(str(p.relative_to(folder)) for p in folder.rglob("*"))


def in_child(work) -> int:
    """Run `work` in a process of its own; its exit code."""
    child = multiprocessing.get_context("fork").Process(target=work)
    child.start()
    child.join(60)
    return child.exitcode


def killed_while_writing(path: Path) -> None:
    """Let a process begin the file and be killed."""

    def work():
        def write(file):
            file.write(CONTENT)
            file.flush()
            os.kill(os.getpid(), signal.SIGKILL)

        atomic_write(path, write)

    assert in_child(work) == -signal.SIGKILL
    assert [name for name in names(path.parent) if name.endswith(".part")]
