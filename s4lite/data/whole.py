"""Files that are written whole or not at all.

Home: chapter 17, "Pixels" (chapters/17_pixels.ipynb).
"""

import contextlib
import errno
import glob
import os
import secrets
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import BinaryIO

__all__ = ["atomic_write", "sweep"]


def _hold(file: BinaryIO, *, wait: bool = False) -> bool:
    """Hold an open file until it is closed or its process ends; False if somebody else does."""
    try:
        import fcntl

        fcntl.flock(file, fcntl.LOCK_EX if wait else fcntl.LOCK_EX | fcntl.LOCK_NB)
    except (ModuleNotFoundError, OSError):  # Windows; or this disk knows no locks
        return False
    return True


def sweep(path: str | os.PathLike[str]) -> None:
    """Remove what killed processes have left of a file: what nobody holds, or is a day old.

    Args:
        path  path  the file, which need not be there; what is left stands beside it
    """
    path = Path(path)
    for part in path.parent.glob(f".{glob.escape(path.name)}.*.part"):
        with contextlib.suppress(OSError), open(part, "r+b") as file:  # not ours, or just swept
            if _hold(file) or time.time() - part.stat().st_mtime > 86_400:
                if sys.platform == "win32":  # which removes and renames nothing that is open
                    file.close()
                part.unlink()


def _open_part(path: Path) -> tuple[Path, BinaryIO]:
    """Make a file beside `path`, in a folder made if need be, and hold it against `sweep`."""
    for _ in range(9):
        part = path.with_name(f".{path.name}.{os.getpid()}-{secrets.token_hex(4)}.part")
        with contextlib.suppress(FileNotFoundError):  # another failed and took its folder along
            path.parent.mkdir(parents=True, exist_ok=True)
            file = open(part, "x+b")  # noqa: SIM115
            if not _hold(file, wait=True) or part.exists():
                return part, file
            file.close()  # swept before it was held
    raise OSError(errno.ENOENT, os.strerror(errno.ENOENT), str(part))


def atomic_write(path: str | os.PathLike[str], write: Callable[[BinaryIO], object]) -> None:
    """Write a whole file or nothing: under another name first, renamed once it is on the disk.

    Args:
        path   path      the file; its folder is made if need be, an older file is replaced
        write  callable  gets the open binary file (readable too) and fills it
    Raises:
        OSError: if the disk is full or the folder may not be written; nothing is left behind.
        Exception: what `write` raises; nothing is left behind, no new folder either.
    """
    path = Path(path)
    made = [folder for folder in path.parents if not folder.exists()]
    sweep(path)
    try:
        part, file = _open_part(path)
        try:
            with file:
                write(file)
                file.flush()
                os.fsync(file.fileno())
                if sys.platform == "win32":
                    file.close()
                os.replace(part, path)  # still held
        finally:
            part.unlink(missing_ok=True)
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
            what = f"{os.strerror(error.errno)}, and no part of the file was kept"
            raise OSError(error.errno, what, str(path)) from error
        raise
    finally:
        for folder in made:
            with contextlib.suppress(OSError):  # something is in it, as it should be
                folder.rmdir()
