"""Published files: where they are, how one knows them, and how they get here whole.

Home: chapter 17, "Pixels" (chapters/17_pixels.ipynb).
"""

import errno
import functools
import hashlib
import importlib.util
import os
import sys
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import BinaryIO

from s4lite.data.whole import atomic_write, sweep

__all__ = [
    "DamagedData",
    "MissingData",
    "Source",
    "cache_dir",
    "data_folder",
    "digest_of",
    "fetch",
    "find",
]


class MissingData(FileNotFoundError):
    """A published file that is not in the folder and could not be had; the message says it all."""


class DamagedData(OSError):
    """A file of the right name with the wrong bytes; it is neither used nor touched."""


_HEX_DIGITS = {"md5": 32, "sha256": 64}


@dataclass(frozen=True)
class Source:
    """A file as somebody published it: its name, its address, and how one knows it.

    Args:
        name     str           its place below the data folder, parted by "/"
        url      str           http(s) address; "" if it must be fetched by hand
        digest   str           "sha256:..." or "md5:...", lower-case hexadecimal
        licence  str           under what terms it may be used
        note     str           one line for who has to fetch it by hand
        also     tuple of str  other places below the data folder where people keep it
    Raises:
        ValueError: if the digest, the address or a place has not this form.
    """

    name: str
    url: str
    digest: str
    licence: str = ""
    note: str = ""
    also: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        kind, _, value = self.digest.partition(":")
        if len(value) != _HEX_DIGITS.get(kind) or not set(value) <= set("0123456789abcdef"):
            raise ValueError(f'want digest "sha256:..." or "md5:...", got {self.digest!r}')
        if self.url and not self.url.startswith(("https://", "http://")):
            raise ValueError(f"want an http(s) address or none, got {self.url!r}")
        for place in (self.name, *self.also):
            path = PurePosixPath(place)
            if not path.name or path.is_absolute() or ".." in path.parts or "\\" in place:
                raise ValueError(f"want a place below the data folder, got {place!r}")

    @property
    def kind(self) -> str:
        """The kind of its digest, "sha256" or "md5"."""
        return self.digest.partition(":")[0]


def cache_dir() -> Path:
    """Where data is kept if no folder is named: $S4LITE_DATA, else the user's cache / "s4lite".

    Returns:
        Path  need not exist yet
    """
    if named := os.environ.get("S4LITE_DATA"):
        return Path(named).expanduser()
    if sys.platform == "win32":
        base = os.environ.get("LOCALAPPDATA") or Path.home() / "AppData" / "Local"
    elif sys.platform == "darwin":
        base = Path.home() / "Library" / "Caches"
    else:
        base = os.environ.get("XDG_CACHE_HOME", "")
        base = base if os.path.isabs(base) else Path.home() / ".cache"
    return Path(base) / "s4lite"


def data_folder(data_dir: str | os.PathLike[str] | None = None) -> Path:
    """The folder that a user means: the one named, or `cache_dir()`.

    Args:
        data_dir  path | None  a folder that need not exist yet; "~" is the user's home
    Returns:
        Path
    Raises:
        NotADirectoryError: if something else than a folder has that name.
        ValueError: if the name is empty.
    """
    if data_dir is not None and not os.fspath(data_dir):
        raise ValueError("want the name of a folder for the data, got an empty one")
    folder = cache_dir() if data_dir is None else Path(data_dir).expanduser()
    if folder.exists() and not folder.is_dir():
        raise NotADirectoryError(
            errno.ENOTDIR, "want a folder for the data, got a file", str(folder)
        )
    return folder


def digest_of(file: str | os.PathLike[str] | BinaryIO, kind: str = "sha256") -> str:
    """The digest of a file, in the form of `Source.digest`.

    Args:
        file  path | file  its path, or the file open for reading bytes, read from its beginning
        kind  str          "sha256" or "md5"
    Returns:
        str  such as "md5:d41d8cd98f00b204e9800998ecf8427e"
    Raises:
        ValueError: if it is to be another kind.
    """
    if kind not in _HEX_DIGITS:
        raise ValueError(f"want a digest of one of {list(_HEX_DIGITS)}, got {kind!r}")
    if isinstance(file, (str, os.PathLike)):
        with open(file, "rb") as opened:
            return digest_of(opened, kind)
    file.seek(0)
    new = functools.partial(hashlib.new, kind, usedforsecurity=False)
    return f"{kind}:{hashlib.file_digest(file, new).hexdigest()}"


def find(source: Source, data_dir: str | os.PathLike[str] | None = None) -> Path | None:
    """Look for a published file in a folder, and check its bytes.

    Args:
        source    Source       what to look for, in all its usual places
        data_dir  path | None  where; None for `cache_dir()`
    Returns:
        Path | None  the file, its digest checked; None if there is no file of that name
    Raises:
        DamagedData: if there is one with another digest, and no sound one.
        NotADirectoryError: if data_dir is no folder.
    """
    folder, damaged = data_folder(data_dir), []
    for place in (source.name, *source.also):
        path = folder / place
        if not path.is_file():
            continue
        if (got := digest_of(path, source.kind)) == source.digest:
            return path
        damaged.append(f"  {path}\n    {got}, {path.stat().st_size:,} bytes")
    if damaged:
        raise DamagedData(
            f"want {source.name} with {source.digest}, got\n" + "\n".join(damaged) + "\nIt was not "
            "used, and is left as it was. Move it away and get it again: "
            + (source.url or source.note or "by hand")
        )
    return None


def _missing(source: Source, folder: Path, why: str) -> MissingData:
    """What there is to say of a file that is not there."""
    address = source.url or "none; it has to be asked for"
    lines = [f"want {source.name}, which is not there, and {why}"]
    lines += [f"  folder   {folder}", f"  address  {address}", f"  digest   {source.digest}"]
    lines += [f"  note     {source.note}"] * bool(source.note)
    lines += ["Put it there under that name, or name the folder that has it: data_dir, --data-dir,"]
    return MissingData("\n".join(lines) + " or S4LITE_DATA.")


def _download(source: Source, folder: Path, file: BinaryIO) -> None:
    """Fill an open file from the source's address, with a progress bar, and check it."""
    try:
        import pooch
        import requests
    except ModuleNotFoundError as error:
        why = f'to download it takes pip install "s4lite[train]" ({error.name} is not here)'
        raise _missing(source, folder, why) from error
    bar = importlib.util.find_spec("tqdm") is not None
    try:
        pooch.HTTPDownloader(progressbar=bar, chunk_size=1 << 18)(source.url, file, None)
    except requests.RequestException as error:
        offline = isinstance(error, requests.ConnectionError)
        why = f"downloading it failed: {'no connection' if offline else error}"
        raise _missing(source, folder, why) from error
    file.flush()
    if (got := digest_of(file, source.kind)) != source.digest:
        raise DamagedData(
            f"want {source.name} with {source.digest}, got {got}, {file.seek(0, 2):,} bytes, "
            f"from {source.url}. Nothing of it was kept; try again, or fetch it another way."
        )


def fetch(
    source: Source, data_dir: str | os.PathLike[str] | None = None, *, download: bool = True
) -> Path:
    """Find a published file in a folder, or download it there: checked and whole, or not at all.

    Args:
        source    Source       what is wanted
        data_dir  path | None  the folder; None for `cache_dir()`
        download  bool         False: only look
    Returns:
        Path  the file, its digest checked
    Raises:
        MissingData: if it is not there and cannot be had, or the folder may not be written.
        DamagedData: if it is there, or arrives, with another digest.
        OSError: if it cannot be written for another reason, such as a full disk.

    Processes may fetch the same file at once: each writes its own, and the last one stays. What
    killed ones have left is removed.
    """
    folder = data_folder(data_dir)
    if path := find(source, folder):
        if download:
            sweep(folder / source.name)
        return path
    if not (download and source.url):
        why = "downloading is switched off" if source.url else "nobody offers it for download"
        raise _missing(source, folder, why)
    try:
        atomic_write(folder / source.name, lambda file: _download(source, folder, file))
    except OSError as error:
        if error.errno not in (errno.EACCES, errno.EPERM, errno.EROFS):
            raise
        why = f"the folder may not be written ({error.strerror})"
        raise _missing(source, folder, why) from error
    return folder / source.name
