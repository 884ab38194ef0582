"""Folders and archives of recordings; all their samples in one file, read as many as are asked for.

Home: chapter 19, "Speech" (chapters/19_speech.ipynb).
"""

import gzip
import hashlib
import io
import os
import re
import struct
import tarfile
import zlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

from s4lite.data.files import DamagedData, atomic_write
from s4lite.data.shards import Shards, open_shard
from s4lite.data.task import Batch
from s4lite.data.waves import decimate, read_wav

__all__ = [
    "ClipSet",
    "content_digest",
    "read_batch",
    "save_array",
    "step_sums",
    "survey",
    "walk",
    "write_clips",
]


def walk(place: Path, pattern: str) -> Iterator[tuple[str, bytes]]:
    """Go through the files of a folder or a tar archive that have a name like this.

    Args:
        place    Path  a folder, in the order of its names; or an archive, in its own order
        pattern  str   regular expression of the whole name below it, parted by "/"
    Yields:
        name     str    the pattern's first group
        content  bytes
    Raises:
        DamagedData: if it is neither, or a damaged archive.
    """
    if place.is_dir():
        for path in sorted(place.rglob("*.*")):
            if found := re.fullmatch(pattern, path.relative_to(place).as_posix()):
                yield found[1], path.read_bytes()
        return
    try:
        with tarfile.open(place) as archive:
            for member in archive:
                found = re.fullmatch(pattern, member.name.removeprefix("./"))
                if found and member.isfile():
                    yield found[1], archive.extractfile(member).read()
    except (tarfile.TarError, gzip.BadGzipFile, EOFError, zlib.error) as error:
        raise DamagedData(f"want {place} as a whole archive, got: {error}") from None


def survey(place: Path, pattern: str, rate: int, longest: int) -> dict[str, tuple[int, str]]:
    """Read every recording of a folder or archive once, and refuse what does not belong there.

    Args:
        place, pattern  as for `walk`
        rate            int  samples a second that all must have [1/s]
        longest         int  samples that none may exceed
    Returns:
        dict  name -> how many samples, and their SHA-256
    Raises:
        DamagedData: if one is no such recording, or comes twice.
    """
    found: dict[str, tuple[int, str]] = {}
    for name, content in walk(place, pattern):
        try:
            clip = read_wav(content)
        except ValueError as error:
            raise DamagedData(f"want {name} in {place} as a recording: {error}") from None
        n, sound = len(clip.samples), clip.samples.astype("<i2").tobytes()
        if clip.rate != rate or n > longest or name in found:
            got = "it twice" if name in found else f"{n:,} at {clip.rate:,} a second"
            want = f"at most {longest:,} samples, {rate:,} a second"
            raise DamagedData(f"want {want}, got {got}: {name} in {place}")
        found[name] = n, hashlib.sha256(sound).hexdigest()
    return found


def content_digest(found: dict[str, tuple[int, str]]) -> str:
    """One digest of all clips, names and samples: the same however they are packed.

    Args:
        found  dict  as from `survey`
    Returns:
        str  "sha256:...", of the lines "<SHA-256 of the samples>  <name>" in the order of names
    """
    lines = "".join(f"{sound}  {name}\n" for name, (_, sound) in sorted(found.items()))
    return f"sha256:{hashlib.sha256(lines.encode()).hexdigest()}"


def save_array(path: str | os.PathLike[str], array: np.ndarray) -> None:
    """Write a small array as a .npy file, whole or not at all; a full disk is called so."""
    held = io.BytesIO()  # np.save itself would not say why it failed
    np.save(held, array, allow_pickle=False)
    atomic_write(path, lambda file: file.write(held.getvalue()))


def _head(n: int) -> bytes:
    """The head of a .npy file with n samples of 16 bits: 128 bytes."""
    text = f"{{'descr': '<i2', 'fortran_order': False, 'shape': ({n},), }}"
    return b"\x93NUMPY\x01\x00" + struct.pack("<H", 118) + text.ljust(117).encode() + b"\n"


def write_clips(
    shards: Shards, place: Path, pattern: str, found: dict[str, tuple[int, str]]
) -> list[str]:
    """Write the samples of all clips, in the order of their names, and where each begins.

    Args:
        shards          Shards  gets "waves.npy" (S,) int16, "starts.npy", "sizes.npy" (n,) int64
        place, pattern  as for `walk`
        found           dict    as from `survey`
    Returns:
        names  list of n str, sorted
    Raises:
        DamagedData: if the clips are no longer those that were found; nothing of them is kept.
    """
    names = sorted(found)
    sizes = np.array([found[name][0] for name in names], np.int64)
    starts = sizes.cumsum() - sizes
    at, head = dict(zip(names, starts.tolist(), strict=True)), _head(int(sizes.sum()))

    def fill(file: BinaryIO) -> None:
        file.write(head)
        for name, content in walk(place, pattern):
            sound = read_wav(content).samples.astype("<i2").tobytes()
            if found.get(name) != (len(sound) // 2, hashlib.sha256(sound).hexdigest()):
                raise DamagedData(f"{name} in {place} was changed while it was read")
            file.seek(len(head) + 2 * at.pop(name))
            file.write(sound)
        if at:
            raise DamagedData(f"{min(at)} in {place} was removed while it was read")

    atomic_write(shards.folder / "waves.npy", fill)
    save_array(shards.folder / "starts.npy", starts), save_array(shards.folder / "sizes.npy", sizes)
    return names


def step_sums(shards: Shards, rows: np.ndarray, length: int) -> np.ndarray:
    """Sums over clips, moment by moment, of the samples and of their squares: exact.

    Args:
        shards  Shards  as `write_clips` fills it
        rows    (m,)    which clips
        length  int     samples that are read of each; behind its end a clip is zero
    Returns:
        sums  (2, length)  int64, of m_k and of m_k^2

    Source: our eq-speech-sums.
    """
    waves, starts, sizes = (
        np.load(shards.folder / f"{name}.npy", mmap_mode="r")
        for name in ("waves", "starts", "sizes")
    )
    sums = np.zeros((2, length), np.int64)
    for row in rows:
        n = min(int(sizes[row]), length)
        samples = waves[starts[row] : starts[row] + n].astype(np.int64)
        sums[0, :n] += samples
        sums[1, :n] += samples * samples
    return sums


class ClipSet(Dataset):
    """Clips on the disk and their labels: items (u (L_i, 1) float32, y ()).

    Args:
        shards  Shards  finished, as `write_clips` fills it, with "labels.npy"
        rows    (m,)    which clips, and in which order
        length  int     samples that are read of each, as recorded
        fixed   bool    True: all are that long, a shorter one is followed by silence
        factor  int     one sample of so many is kept
        how     str     in which way, see `decimate`
        scale   tuple   (mean, std), numbers or (L,): (u - mean) / std

    `lengths` (m,) are those of the items. A copy sent to another process takes no data along, and
    opens the files there.
    """

    def __init__(
        self,
        shards: Shards,
        rows: np.ndarray,
        length: int,
        *,
        fixed: bool = False,
        factor: int = 1,
        how: str = "filter",
        scale: tuple[Any, Any] = (0.0, 1.0),
    ) -> None:
        self.shards, self.rows, self.fixed = shards, np.asarray(rows), fixed
        self.length, self.factor, self.how = length, factor, how
        self.scale = tuple(torch.as_tensor(x, dtype=torch.float32, device="cpu") for x in scale)
        sizes = np.minimum(self._array("sizes")[self.rows], length)
        self.lengths = -(-(np.full_like(sizes, length) if fixed else sizes) // factor)

    def _array(self, name: str) -> np.ndarray:
        if (place := f"_{name}") not in self.__dict__:
            self.__dict__[place] = open_shard(self.shards, f"{name}.npy")
        return self.__dict__[place]

    def __getstate__(self) -> dict[str, Any]:
        return {name: value for name, value in vars(self).items() if name[0] != "_"}

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, i: int) -> tuple[Tensor, Tensor]:
        batch = read_batch(self, [i])
        return batch.u[0], batch.y[0]

    def __getitems__(self, indices: Sequence[int]) -> Batch:
        """A whole batch at once, which is what a DataLoader asks for."""
        return read_batch(self, indices)


def read_batch(clips: ClipSet, indices: Sequence[int]) -> Batch:
    """Read clips from the disk: u (batch, L, 1), y (batch,) and their lengths.

    Raises:
        ValueError, IndexError: if there are no indices, or one is beyond the set.
        DamagedData: if the arrays are not as they were written.

    Source: our eq-speech-quantum.
    """
    if not len(indices):
        raise ValueError("want at least one item, got none")
    rows = clips.rows[np.asarray(indices)]
    waves, starts, sizes = (clips._array(name) for name in ("waves", "starts", "sizes"))
    counts = np.minimum(sizes[rows], clips.length)
    block = np.zeros((len(rows), clips.length if clips.fixed else counts.max()), np.float32)
    for row, n, line in zip(rows, counts, block, strict=True):
        line[:n] = waves[starts[row] : starts[row] + n]
    u = decimate(torch.from_numpy(block).mul_(2.0**-15), clips.factor, clips.how)
    mean, std = clips.scale
    u = u.sub(mean).div_(std)
    y = torch.from_numpy(clips._array("labels")[rows].astype(np.int64))
    lengths = torch.from_numpy(clips.lengths[np.asarray(indices)])
    if bool((lengths == u.shape[1]).all()):
        return Batch(u[..., None], y, None)
    real = torch.arange(u.shape[1], device="cpu") < lengths[:, None]
    return Batch(u.where(real, 0)[..., None], y, lengths)
