"""Folders that are whole or refused: written under another name, on the disk, then renamed.

Home: chapter 16, "A run that can be repeated" (chapters/16b_running.ipynb).
"""

import contextlib
import errno
import hashlib
import json
import os
import platform
import secrets
import shutil
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch

__all__ = ["BadFolder", "Folder", "few_of", "refused_of", "versions", "write_folder"]


class BadFolder(OSError):
    """A folder that is not what it should be; nothing of it was loaded. The message says why."""


def _sync(path: Path) -> None:
    """Wait until what a folder lists is on the disk, where the system can say so."""
    with contextlib.suppress(PermissionError):  # Windows opens no folders
        handle = os.open(path, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)


def _write(path: Path, content: bytes) -> dict[str, Any]:
    """Write a new file down to the disk; its size and digest."""
    with open(path, "xb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    return {"bytes": len(content), "sha256": hashlib.sha256(content).hexdigest()}


def _put(part: Path, path: Path) -> None:
    """Give a folder its name. One that has it moves aside, and goes when the new one stands."""
    old = _aside(path)
    if path.exists() and not any(path.iterdir()):
        path.rmdir()  # what may stand aside is still the only one
    elif path.exists():
        shutil.rmtree(old, ignore_errors=True)
        os.rename(path, old)
    try:
        os.rename(part, path)
    except OSError:
        if old.exists():
            os.rename(old, path)
        raise
    _sync(path.parent)
    shutil.rmtree(old, ignore_errors=True)


def _aside(path: Path) -> Path:
    """Where a folder stands for the moment in which another one takes its name."""
    return path.with_name(f".{path.name}.old")


def _place(path: str | os.PathLike[str]) -> Path:
    """Where a path leads: "~" is the user's home; a link, or "..", is followed."""
    path = Path(path).expanduser()
    return path.resolve() if path.is_symlink() or path.name in ("", "..") else path


def few_of(names: Iterable[str]) -> str:
    """The first few of some names, for a message.

    Args:
        names  iterable of str
    Returns:
        text  str
    """
    names = sorted(names)
    return ", ".join(names[:4]) + (", ..." if len(names) > 4 else "") or "nothing"


def refused_of(path: Path) -> str:
    """What there is to say of a folder that is refused, behind what came.

    Args:
        path  Path
    Returns:
        text  str
    """
    return f"cut short, damaged or from elsewhere. Nothing was loaded from {path}"


def versions() -> dict[str, str]:
    """The versions of Python, torch, numpy and s4lite that are running."""
    from s4lite import __version__

    named = {"python": platform.python_version(), "torch": str(torch.__version__)}
    return named | {"numpy": np.__version__, "s4lite": __version__}


def _refuse_foreign(path: Path, kind: str, index: str) -> None:
    """Raise FileExistsError if something stands there that is not ours alone: it would be lost."""
    if path.exists() and path.samefile(Path.cwd()):
        raise FileExistsError(errno.EEXIST, "want a new name, got the folder we are in", str(path))
    if not path.exists() or (path.is_dir() and not any(path.iterdir())):
        return
    try:
        ours = {*Folder(path, kind, index).files, index}
    except (BadFolder, NotADirectoryError):
        ours = set()
    if others := sorted({p.name for p in path.iterdir()} - ours) if path.is_dir() else [path.name]:
        raise FileExistsError(
            errno.EEXIST,
            f"want a new name, or a folder of {kind} alone, got {few_of(others)}",
            str(path),
        )


def _seal(about: Mapping[str, Any]) -> str:
    """The digest of an index, however its lines are laid out."""
    said = {name: each for name, each in about.items() if name != "sha256"}
    return hashlib.sha256(json.dumps(said, sort_keys=True).encode()).hexdigest()


def _fill(
    part: Path, files: Iterable[tuple[str, bytes]], about: Mapping[str, Any], index: str
) -> None:
    """Write files and their index into a new folder, down to the disk."""
    part.mkdir()
    listed = {name: _write(part / name, content) for name, content in files}
    plain = json.loads(json.dumps({**about, "files": listed}, allow_nan=False))
    _write(part / index, json.dumps(plain | {"sha256": _seal(plain)}, indent=1).encode())
    _sync(part)


@contextlib.contextmanager
def _or_nothing(part: Path, path: Path) -> Iterator[None]:
    """Whatever goes wrong, nothing of a new folder is left; of a full disk say that too."""
    try:
        yield
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
            raise
        what = f"{os.strerror(error.errno)}: no part of it was kept, and what stood there stands"
        raise OSError(error.errno, what, str(path)) from error
    finally:
        shutil.rmtree(part, ignore_errors=True)


def write_folder(
    path: str | os.PathLike[str],
    kind: str,
    files: Iterable[tuple[str, bytes]],
    facts: Mapping[str, Any],
    *,
    index: str = "manifest.json",
) -> None:
    """Write a folder of files, whole or not at all, and an index of their sizes and digests.

    Args:
        path   path      its folder is made if need be; an older one of this kind is replaced
        kind   str       what is in it, "checkpoint" for instance
        files  iterable  of (name, content)
        facts  dict      kept in the index, as JSON can hold it
        index  str       name of the index
    Raises:
        FileExistsError: if what has this name holds anything else: it would be lost.
        OSError: if the disk is full or may not be written; what stood there stands.
    """
    path = _place(path)
    _refuse_foreign(path, kind, index)
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f".{path.name}.{os.getpid()}-{secrets.token_hex(4)}.part")
    about = {"kind": kind, "format": 1, "versions": versions(), "facts": dict(facts)}
    with _or_nothing(part, path):
        _fill(part, files, about, index)
        _put(part, path)


class Folder:
    """A folder that `write_folder` wrote, to be read with a check of every byte.

    Args:
        path   path  the folder
        kind   str   what must be in it
        index  str   name of its index
    Raises:
        FileNotFoundError: if there is no such folder.
        BadFolder: if it is something else, or what its index says is not there.

    facts  dict  as they were given
    files  dict  name -> bytes, sha256
    """

    def __init__(
        self, path: str | os.PathLike[str], kind: str, index: str = "manifest.json"
    ) -> None:
        path = _place(path)
        self.path = _aside(path) if not path.exists() and _aside(path).is_dir() else path
        about = _read_index(self.path, kind, index)
        self.facts, self.files, self.versions = about["facts"], about["files"], about["versions"]
        for name, file in self.files.items():
            at = self.path / name
            got = f"{at.stat().st_size:,} bytes" if at.is_file() else "no such file"
            if got != (want := f"{file['bytes']:,} bytes"):
                raise BadFolder(f"want {name} of {want}, got {got}: {refused_of(self.path)}")

    def read(self, name: str) -> bytes:
        """The content of a file; BadFolder if it is not what was written."""
        content = (self.path / name).read_bytes()
        want, got = self.files[name]["sha256"], hashlib.sha256(content).hexdigest()
        if got != want:
            said = f"want {name} with sha256 {want[:12]}..., got {got[:12]}..."
            raise BadFolder(f"{said}: {refused_of(self.path)}")
        return content


def _read_index(path: Path, kind: str, index: str) -> dict[str, Any]:
    """The index of a folder, if it is one of this kind."""
    if not path.exists():
        raise FileNotFoundError(errno.ENOENT, f"want a folder of kind {kind}, got none", str(path))
    if not path.is_dir():
        raise NotADirectoryError(
            errno.ENOTDIR, f"want a folder of kind {kind}, got a file", str(path)
        )
    if not (path / index).is_file():
        got = few_of(p.name for p in path.iterdir())
        raise BadFolder(f"want a {kind} with its {index}, got {got}: {refused_of(path)}")
    about = None
    try:
        with contextlib.suppress(json.JSONDecodeError, UnicodeDecodeError):
            about = json.loads((path / index).read_bytes())
        _check_index(about, kind, index)
    except ValueError as error:
        raise BadFolder(f"{error}: {refused_of(path)}") from error
    return about


def _check_index(about: Any, kind: str, index: str) -> None:
    """Raise ValueError unless this is an index as `write_folder` writes it, untouched."""
    kinds = {"kind": str, "format": int, "facts": dict, "files": dict, "versions": dict}
    if not (isinstance(about, dict) and all(isinstance(about.get(k), kinds[k]) for k in kinds)):
        raise ValueError(f"want an index {index}, got something else")
    if (about["kind"], about["format"]) != (kind, 1):
        got = f"{about['kind']} {about['format']}, by s4lite {about['versions'].get('s4lite')}"
        raise ValueError(f"want {kind} 1, got {got}")
    for name, file in about["files"].items():
        facts = (file.get("bytes"), file.get("sha256")) if isinstance(file, dict) else ()
        if Path(name).name != name or [*map(type, facts)] != [int, str]:
            raise ValueError(f"want files of this folder in the index, got {name}: {file}")
    if about.get("sha256", seal := _seal(about)) != seal:
        raise ValueError("want an index as it was written, got one that was changed")
