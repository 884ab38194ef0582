"""Pictures: the files of MNIST and CIFAR-10, greys of colours, and data sets of pixels.

Home: chapter 17, "Pixels" (chapters/17_pixels.ipynb).
"""

import gzip
import io
import math
import os
import pickle
import struct
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

from s4lite.data.task import Batch, Splits, Task, split_at

__all__ = ["Pickled", "PictureTask", "Pixels", "PlainUnpickler", "luma", "read_cifar", "read_idx"]


def luma(rgb: Tensor) -> Tensor:
    """The grey of a colour: 0.299 red + 0.587 green + 0.114 blue, in whole numbers.

    Args:
        rgb  (..., 3)  uint8
    Returns:
        grey  (...)  uint8, what Pillow's convert("L") says for all 2^24 colours
    Raises:
        TypeError, ValueError: if rgb is no uint8, or its last axis has not three entries.

    Error: rounded from a number that is at most 0.0015 off.
    Source: ITU-R BT.601; our eq-pixels-luma.
    """
    if rgb.dtype != torch.uint8:
        raise TypeError(f"want rgb as uint8, got {rgb.dtype}")
    if rgb.ndim < 1 or rgb.shape[-1] != 3:
        raise ValueError(f"want rgb (..., 3), got {tuple(rgb.shape)}")
    red, green, blue = rgb.to(torch.int32).unbind(-1)
    return ((19595 * red + 38470 * green + 7471 * blue + 32768) >> 16).to(torch.uint8)


def read_idx(path: str | os.PathLike[str]) -> Tensor:
    """Read a file of MNIST: gzip around a header (00 00 08, axes, their sizes) and the bytes.

    Args:
        path  path  such as train-images-idx3-ubyte.gz
    Returns:
        Tensor  uint8, of the shape that the header says
    Raises:
        ValueError: if it is no such file, or not a whole one.
    """
    try:
        content = gzip.decompress(Path(path).read_bytes())
    except (gzip.BadGzipFile, EOFError, zlib.error) as error:
        raise ValueError(f"want a whole gzip file, got {path}: {error}") from None
    start = 4 + 4 * content[3] if len(content) > 3 else 4
    if content[:3] != b"\0\0\x08" or len(content) < start:
        raise ValueError(f"want an idx file of bytes, got {content[:4].hex(' ')}... in {path}")
    shape = struct.unpack(f">{content[3]}I", content[4:start])
    if len(content) - start != math.prod(shape):
        got = f"{len(content) - start:,} bytes for {shape}"
        raise ValueError(f"want a whole idx file, got {got} in {path}")
    return torch.from_numpy(np.frombuffer(content, np.uint8, offset=start).copy()).reshape(shape)


class Pickled:
    """What a pickle has asked for, written down and not done.

    Args:
        name   str    of what it wanted, with its module
        args   tuple  what it wanted to call that with
        state  any    what it wanted to set in the result
    """

    __slots__ = ("args", "name", "state")

    def __init__(self, name: str, args: tuple = (), state: Any = None) -> None:
        self.name, self.args, self.state = name, args, state

    def __call__(self, *args: Any) -> "Pickled":
        return Pickled(self.name, args)

    def __setstate__(self, state: Any) -> None:
        self.state = state


class PlainUnpickler(pickle.Unpickler):
    """Reads plain containers, and arrays as `Pickled`; runs nothing, and refuses all other names.

    Args:
        file  binary file  as for pickle.Unpickler
    """

    allowed = frozenset(
        {"numpy.ndarray", "numpy.dtype", "numpy.core.multiarray._reconstruct", "_codecs.encode"}
    )

    def __init__(self, file: BinaryIO) -> None:
        super().__init__(file, encoding="latin1")  # as Python 2 wrote its strings

    def find_class(self, module: str, name: str) -> Any:
        """What stands for a name that a pickle asks for."""
        asked = f"{module}.{name}".replace("numpy._core.", "numpy.core.")
        if asked not in self.allowed:
            raise pickle.UnpicklingError(f"want arrays and plain data, got {module}.{name}")
        return Pickled(asked)


def _array_of(asked: Pickled) -> np.ndarray:
    """The array of bytes that a pickle tells of: `_reconstruct`, and a state with five entries."""
    _, shape, kind, by_columns, content = asked.state
    if asked.name != "numpy.core.multiarray._reconstruct" or kind.args[:1] != ("u1",):
        raise ValueError(f"want an array of bytes, got {asked.name} of {kind.args[:1]}")
    if isinstance(content, Pickled):  # newer pickles wrap the bytes in _codecs.encode
        content = content.args[0]
    content = content.encode("latin1") if isinstance(content, str) else bytes(content)
    return np.frombuffer(content, np.uint8).reshape(shape, order="F" if by_columns else "C").copy()


def read_cifar(content: bytes) -> tuple[Tensor, Tensor]:
    """Read a file of CIFAR-10, as pickled by its authors; nothing in it is run.

    Args:
        content  bytes  of data_batch_1, ..., test_batch
    Returns:
        pixels  (n, 32, 32, 3)  uint8: row, column, and red, green, blue
        labels  (n,)            int64, 0 to 9
    Raises:
        ValueError: if it is something else.
    """
    try:
        batch = PlainUnpickler(io.BytesIO(content)).load()
        pixels, labels = _array_of(batch["data"]), batch["labels"]
    except Exception as error:  # of bytes of any kind one may expect any
        raise ValueError(f"want a file of CIFAR-10, got {type(error).__name__}: {error}") from None
    fits = isinstance(labels, list) and pixels.shape == (len(labels), 3072)
    if not (fits and all(type(x) is int and 0 <= x < 10 for x in labels)):
        raise ValueError("want rows of 3072 bytes and as many labels from 0 to 9, got others")
    planes = torch.from_numpy(pixels).unflatten(1, (3, 32, 32))
    return planes.permute(0, 2, 3, 1).contiguous(), torch.tensor(labels, dtype=torch.int64)


def _spread_out(scale: tuple, pixels: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and deviation for every pixel and channel (L, d), so that nothing is broadcast later."""
    whole = torch.ones(pixels.shape[1:], dtype=torch.float32, device=pixels.device)
    mean, std = (whole.new_tensor(x) for x in scale)
    if not {mean.shape, std.shape} <= {(), (pixels.shape[2],)} or not (std > 0).all():
        want = f"want mean and std > 0, each a number or {pixels.shape[2]}"
        raise ValueError(f"{want}, got {scale}")
    return whole * mean, whole * std


class Pixels(Dataset):
    """Pictures as sequences: kept as bytes, made into numbers when a batch is asked for.

    Args:
        pixels  (n, L, d)     uint8
        labels  (n,)          int64
        index   (m,)          int64, which of them belong to this set
        scale   tuple | None  (mean, std), numbers or one a channel: (pixels/255 - mean)/std;
                              None: the bytes are symbols, d = 1
    Raises:
        TypeError, ValueError: if the parts do not fit.

    A DataLoader over it wants `collate_fn=task.collate`: the batch is ready when it gets there.

    Source: our eq-pixels-scale.
    """

    def __init__(self, pixels: Tensor, labels: Tensor, index: Tensor, scale: tuple | None) -> None:
        if pixels.dtype != torch.uint8 or pixels.ndim != 3 or labels.shape != pixels.shape[:1]:
            got = f"{pixels.dtype} {tuple(pixels.shape)} and labels {tuple(labels.shape)}"
            raise ValueError(f"want uint8 pixels (n, L, d) and n labels, got {got}")
        if index.dtype != torch.int64 or index.ndim != 1:
            raise TypeError(f"want index (m,) as int64, got {index.dtype} {tuple(index.shape)}")
        if len(index) and not 0 <= index.min() <= index.max() < len(pixels):
            raise ValueError(f"want places in index from 0 to {len(pixels) - 1}, got others")
        if scale is None and pixels.shape[2] != 1:
            raise ValueError(f"want one symbol a pixel, got {pixels.shape[2]}")
        self.pixels, self.labels, self.index = pixels, labels, index
        self.scale = None if scale is None else _spread_out(scale, pixels)

    def __len__(self) -> int:
        return len(self.index)

    def __getitem__(self, i: int) -> tuple[Tensor, Tensor]:
        """u (L, d) float32 or, of symbols, (L,) int64; and the label ()."""
        batch = self.__getitems__([i])
        return batch.u[0], batch.y[0]

    def __getitems__(self, indices: Sequence[int]) -> Batch:
        """A whole batch at once, which is what a DataLoader asks for."""
        chosen = self.index[torch.as_tensor(indices, dtype=torch.int64, device=self.index.device)]
        x, y = (rows.index_select(0, chosen) for rows in (self.pixels, self.labels))  # whole rows
        if self.scale is None:
            return Batch(x[..., 0].to(torch.int64), y, None)
        u, (mean, std) = x.to(torch.float32).div_(255), self.scale
        return Batch(u.sub_(mean).div_(std), y, None)


class PictureTask(Task):
    """Pictures read in some order; the base of the tasks below.

    Args:
        data_dir   path | None  folder with the published files; None for the user's cache
        val_share  float        of the training pictures, held out for validation
        seed       int          of that choice; with 42 it is the one of the S4 code
        download   bool         False: never download
    Raises:
        TypeError, ValueError: if val_share is not between 0 and 1, or seed is no int.
    """

    d_output = 10
    scale: tuple | None = (0.0, 1.0)

    def __init__(
        self,
        data_dir: str | os.PathLike[str] | None = None,
        val_share: float = 0.1,
        *,
        seed: int = 42,
        download: bool = True,
    ) -> None:
        super().__init__(data_dir, download=download)
        if not 0 < val_share < 1:
            raise ValueError(f"want 0 < val_share < 1, got {val_share}")
        if isinstance(seed, bool) or not isinstance(seed, int):
            raise TypeError(f"want seed as an int, got {type(seed).__name__}")
        self.val_share, self.seed = val_share, seed

    def read(self) -> tuple[tuple[Tensor, Tensor], tuple[Tensor, Tensor]]:
        """Pixels (n, L, d) and labels (n,), of the training files and of the test files."""
        raise NotImplementedError

    def splits(self) -> Splits:
        """Training, validation (drawn from the training files by `split_at`), test."""
        (pixels, labels), held = self.read()
        first, second = split_at(len(labels), self.val_share, self.seed)
        train, val = (Pixels(pixels, labels, part, self.scale) for part in (first, second))
        return Splits(
            train, val, Pixels(*held, torch.arange(len(held[1]), device="cpu"), self.scale)
        )
