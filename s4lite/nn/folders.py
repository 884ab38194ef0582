"""Folders that are whole or refused: written under another name, on the disk, then renamed.

Home: chapter 16, "A run that can be repeated" (chapters/16b_running.ipynb).
"""

import contextlib
import errno
import hashlib
import json
import math
import os
import platform
import re
import secrets
import shutil
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

__all__ = ["BadFolder", "Folder", "read_tensors", "tensor_files", "versions", "write_folder"]


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
    if path.exists():
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


def _some(names: Iterable[str]) -> str:
    """The first few of some names."""
    names = sorted(names)
    return ", ".join(names[:4]) + (", ..." if len(names) > 4 else "") or "nothing"


def _told(path: Path) -> str:
    """What there is to say of a folder that is refused."""
    return f"cut short, damaged or from elsewhere. Nothing was loaded from {path}"


def versions() -> dict[str, str]:
    """The versions of Python, torch, numpy and s4lite that are running."""
    from s4lite import __version__

    named = {"python": platform.python_version(), "torch": torch.__version__}
    return named | {"numpy": np.__version__, "s4lite": __version__}


def _refuse_foreign(path: Path, kind: str, index: str) -> None:
    """Raise FileExistsError if something stands there that is not ours alone: it would be lost."""
    if not path.exists() or (path.is_dir() and not any(path.iterdir())):
        return
    try:
        ours = {*Folder(path, kind, index).files, index}
    except (BadFolder, NotADirectoryError):
        ours = set()
    if others := sorted({p.name for p in path.iterdir()} - ours) if path.is_dir() else [path.name]:
        raise FileExistsError(
            errno.EEXIST,
            f"want a new name, or a folder of {kind} alone, got {_some(others)}",
            str(path),
        )


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
    path = Path(path)
    _refuse_foreign(path, kind, index)
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f".{path.name}.{os.getpid()}-{secrets.token_hex(4)}.part")
    try:
        part.mkdir()
        listed = {name: _write(part / name, content) for name, content in files}
        about = {"kind": kind, "format": 1, "versions": versions(), "facts": dict(facts)}
        text = json.dumps(about | {"files": listed}, indent=1, allow_nan=False)
        _write(part / index, text.encode())
        _sync(part), _put(part, path)
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
            raise
        what = f"{os.strerror(error.errno)}: no part of it was kept, and what stood there stands"
        raise OSError(error.errno, what, str(path)) from error
    finally:
        shutil.rmtree(part, ignore_errors=True)


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
        path = Path(path)
        self.path = _aside(path) if not path.exists() and _aside(path).is_dir() else path
        about = _read_index(self.path, kind, index)
        self.facts, self.files, self.versions = about["facts"], about["files"], about["versions"]
        for name, file in self.files.items():
            at = self.path / Path(name).name
            got = f"{at.stat().st_size:,} bytes" if at.is_file() else "no such file"
            if got != (want := f"{file['bytes']:,} bytes"):
                raise BadFolder(f"want {name} of {want}, got {got}: {_told(self.path)}")

    def read(self, name: str) -> bytes:
        """The content of a file; BadFolder if it is not what was written."""
        content = (self.path / name).read_bytes()
        want, got = self.files[name]["sha256"], hashlib.sha256(content).hexdigest()
        if got != want:
            said = f"want {name} with sha256 {want[:12]}..., got {got[:12]}..."
            raise BadFolder(f"{said}: {_told(self.path)}")
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
        got = _some(p.name for p in path.iterdir())
        raise BadFolder(f"want a {kind} with its {index}, got {got}: {_told(path)}")
    try:
        about = json.loads((path / index).read_bytes())
        found = {name: about[name] for name in ("kind", "format", "facts", "files", "versions")}
    except (ValueError, TypeError, KeyError) as error:
        raise BadFolder(f"want an index {index}, got something else: {_told(path)}") from error
    if (found["kind"], found["format"]) != (kind, 1):
        got = f"{found['kind']} {found['format']}, by s4lite {found['versions'].get('s4lite')}"
        raise BadFolder(f"want {kind} 1, got {got}: {_told(path)}")
    return found


def tensor_files(
    stem: str, tensors: Mapping[str, Tensor], limit: float | None = None
) -> Iterator[tuple[str, bytes]]:
    """Tensors as one safetensors file, or as several of at most `limit` bytes.

    Args:
        stem     str           of the names: stem.safetensors, or stem-00001-of-00002.safetensors
        tensors  dict          name -> tensor; of a larger one than a file come pieces, by rows
        limit    float | None  bytes; a single row may be longer
    Returns:
        files  iterator  of (name, content)
    Raises:
        ValueError: if limit is not > 0.
    """
    from safetensors.torch import save

    if limit is not None and not limit > 0:
        raise ValueError(f"want shards of more than nothing, got {limit:g} bytes")
    shards = [dict(tensors)] if limit is None else list(_deal(tensors, limit))
    for i, shard in enumerate(shards):
        tail = "" if len(shards) == 1 else f"-{i + 1:05d}-of-{len(shards):05d}"
        plain = {
            k: x.detach().cpu().clone(memory_format=torch.contiguous_format)
            for k, x in shard.items()
        }
        yield f"{stem}{tail}.safetensors", save(plain)


def _deal(tensors: Mapping[str, Tensor], limit: float) -> Iterator[dict[str, Tensor]]:
    """Tensors in groups of at most `limit` bytes, with what the file says of each."""
    group, size = {}, 0
    for name, x in tensors.items():
        room = max(1.0, limit - 256 - len(name))
        count = min(math.ceil(x.nbytes / room), len(x)) if x.ndim and x.nbytes > room else 1
        rows = math.ceil(len(x) / count) if count > 1 else 0
        for i, piece in enumerate(x.split(rows) if rows else [x]):
            cost = piece.nbytes + 256 + len(name)
            if group and size + cost > limit:
                yield group
                group, size = {}, 0
            group[f"{name}#{i:05d}" if rows else name] = piece
            size += cost
    yield group


def read_tensors(folder: Folder, stem: str) -> dict[str, Tensor]:
    """The tensors that `tensor_files` made files of, on the CPU, with the same bits.

    Args:
        folder  Folder  where the files are
        stem    str     of their names
    Returns:
        tensors  dict  name -> tensor
    Raises:
        BadFolder: if a file is not what was written, or none is there.
    """
    from safetensors.torch import load

    names = sorted(
        n for n in folder.files if re.fullmatch(rf"{stem}(-\d+-of-\d+)?\.safetensors", n)
    )
    if not names:
        raise BadFolder(f"want {stem}.safetensors, got {_some(folder.files)}: {_told(folder.path)}")
    tensors, pieces = {}, {}
    for key, x in (item for name in names for item in load(folder.read(name)).items()):
        name, mark, _ = key.rpartition("#")
        if mark:
            pieces.setdefault(name, {})[key] = x
        else:
            tensors[key] = x
    return tensors | {k: torch.cat([v[i] for i in sorted(v)]) for k, v in pieces.items()}
