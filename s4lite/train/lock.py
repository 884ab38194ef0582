"""One run a folder.

Home: chapter 16, "A run that can be repeated" (chapters/16b_running.ipynb).
"""

import contextlib
import errno
import os
import socket
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

__all__ = ["Busy", "held"]


_HELD: set[str] = set()


class Busy(RuntimeError):
    """Another run is at work in a folder; the message says which."""


def _lock(file: Any) -> bool:
    """Take the lock of an open file for this process, until it is closed or the process ends."""
    try:
        import fcntl

        fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except ModuleNotFoundError:  # Windows
        import msvcrt

        try:
            file.seek(2**30)  # a byte that nobody reads
            msvcrt.locking(file.fileno(), msvcrt.LK_NBLCK, 1)
        except OSError:
            return False
    except OSError as error:
        if error.errno not in (errno.EACCES, errno.EAGAIN):
            raise
        return False
    return True


@contextlib.contextmanager
def held(folder: str | os.PathLike[str]) -> Iterator[str]:
    """Hold a folder for one run.

    Args:
        folder  path  is made if need be
    Returns:
        gone  str  who held it and is gone without a word, killed for instance; "" if nobody
    Raises:
        Busy: if somebody is at work there.

    The system gives the lock back when a process ends, however it ends. So there is nothing to
    clean up by hand.
    """
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    name = str(folder.resolve())
    if name in _HELD:
        raise Busy(f"want a folder for one run, got {folder}, in which this process runs another")
    with open(folder / "lock", "a+") as file:
        free = _lock(file)
        file.seek(0)
        who = file.read().strip()
        if not free:
            raise Busy(f"want a folder for one run, got {folder}, in which {who or 'another'} runs")
        me = f"process {os.getpid()} on {socket.gethostname()}"
        try:
            _HELD.add(name)
            file.truncate(0), file.write(f"{me} since {time.strftime('%F %T')}"), file.flush()
            yield who
        finally:  # not reached by who is killed
            _HELD.discard(name), file.truncate(0)
