"""Pictures read one pixel at a time: sMNIST, pMNIST, sCIFAR and the Image task of LRA.

Home: chapter 17, "Pixels" (chapters/17_pixels.ipynb).
"""

import os
import tarfile
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from s4lite.data.files import DamagedData, Source, fetch, find
from s4lite.data.pictures import PictureTask, luma, read_cifar, read_idx

__all__ = [
    "CIFARFiles",
    "LRAImage",
    "SequentialCIFAR",
    "SequentialMNIST",
    "bit_reversal",
    "seeded_order",
]


def _check_count(n: int) -> None:
    """Raise TypeError or ValueError unless n is an int >= 1."""
    if isinstance(n, bool) or not isinstance(n, int):
        raise TypeError(f"want n as an int, got {type(n).__name__}")
    if n < 1:
        raise ValueError(f"want n >= 1, got {n}")


def bit_reversal(n: int) -> Tensor:
    """The numbers 0, ..., n - 1 in the order of their bits read backwards.

    Args:
        n  int  how many, >= 1
    Returns:
        order  (n,)  int64; with m bits for n <= 2^m: reversed 0, ..., 2^m - 1, without those >= n
    Raises:
        TypeError, ValueError: if n is no int, or < 1.

    Source: the S4 code; our eq-pixels-reversal.
    """
    _check_count(n)
    order = torch.zeros(1, dtype=torch.int64, device="cpu")
    while len(order) < n:
        order = torch.cat([2 * order, 2 * order + 1])
    return order[order < n]


def seeded_order(n: int, seed: int = 92916) -> Tensor:
    """0, ..., n - 1 as shuffled by NumPy's old generator, whose stream never changes.

    Args:
        n     int  how many, >= 1
        seed  int  92916 in most papers on recurrent nets
    Returns:
        order  (n,)  int64
    Raises:
        TypeError, ValueError: if n is no int or < 1, or seed is no int or not 0 to 2^32 - 1.
    """
    _check_count(n)
    if isinstance(seed, bool) or not isinstance(seed, int):
        raise TypeError(f"want seed as an int, got {type(seed).__name__}")
    return torch.from_numpy(np.random.RandomState(seed).permutation(n)).to(torch.int64)


_MNIST = {
    "train-images-idx3": "f68b3c2dcbeaaa9fbdd348bbdeb94873",
    "train-labels-idx1": "d53e105ee54ea40749a09fcbcd1e9432",
    "t10k-images-idx3": "9fb629c4189551a2d022fa330f9573f3",
    "t10k-labels-idx1": "ec29112dd5afa0611ce80d1b7f02629c",
}
_ORDERS = {None: "smnist", "bit-reversal": "pmnist", "seeded": "pmnist-seeded"}
_MNIST_SCALES = {"unit": (0.0, 1.0), "standard": (0.1307, 0.3081)}


def _mnist_source(name: str) -> Source:
    """One of the four files, at the mirror that torchvision uses."""
    file = f"{name}-ubyte.gz"
    places = (f"mnist/{file}", f"mnist/raw/{file}", f"raw/{file}", file)
    url = f"https://ossci-datasets.s3.amazonaws.com/mnist/{file}"
    licence = "usually given as CC BY-SA 3.0 (LeCun, Cortes and Burges)"
    return Source(f"MNIST/raw/{file}", url, f"md5:{_MNIST[name]}", licence, also=places)


class SequentialMNIST(PictureTask):
    """A digit, 784 pixels of grey one after the other: which of ten is it?

    Args:
        data_dir   path | None  as for `PictureTask`, and so the others
        permute    str | None   None: row by row (sMNIST); "bit-reversal": pMNIST as in the S4 code;
                                "seeded": pMNIST as in most papers on recurrent nets
        val_share  float        6,000 of the 60,000 training pictures by default
        scale      str          "unit": 0 (paper) to 1 (ink); "standard": less .1307, over .3081
    Raises:
        ValueError: if an option is none of these.

    Source: Le et al. 2015, sec. 4.2; our eq-pixels-raster, eq-pixels-reversal.
    """

    length, d_input = 784, 1

    def __init__(
        self,
        data_dir: str | os.PathLike[str] | None = None,
        permute: str | None = None,
        val_share: float = 0.1,
        *,
        scale: str = "unit",
        **options: Any,
    ) -> None:
        super().__init__(data_dir, val_share, **options)
        for option, known in ((permute, _ORDERS), (scale, _MNIST_SCALES)):
            if option not in known:
                raise ValueError(f"want one of {list(known)}, got {option!r}")
        self.permute, self.name, self.scale = permute, _ORDERS[permute], _MNIST_SCALES[scale]

    def sources(self) -> tuple[Source, ...]:
        """The four files of MNIST."""
        return tuple(map(_mnist_source, _MNIST))

    def order(self) -> Tensor:
        """Which pixel is read when: (784,)."""
        if self.permute is None:
            return torch.arange(self.length, device="cpu")
        return (bit_reversal if self.permute == "bit-reversal" else seeded_order)(self.length)

    def read(self) -> tuple[tuple[Tensor, Tensor], tuple[Tensor, Tensor]]:
        """Pixels (n, 784, 1) and labels (n,), of the training files and of the test files."""
        paths = [fetch(s, self.data_dir, download=self.download) for s in self.sources()]
        pictures, labels, held, held_labels = map(read_idx, paths)
        pixels = [x.flatten(1)[:, self.order(), None] for x in (pictures, held)]
        return (pixels[0], labels.long()), (pixels[1], held_labels.long())


_CIFAR = {
    "data_batch_1": "c99cafc152244af753f735de768cd75f",
    "data_batch_2": "d4bba439e000b95fd0a9bffe97cbabec",
    "data_batch_3": "54ebc095f3ab1f0389bbae665268c751",
    "data_batch_4": "634d18415352ddfa80567beed471001a",
    "data_batch_5": "482c414d41f54cd18b22e5b47cb7c3cb",
    "test_batch": "40351d587109b95175f43aff81a1287e",
}
_CIFAR_ARCHIVE = "https://www.cs.toronto.edu/~kriz/cifar-10-python.tar.gz"
_CIFAR_SCALES = {
    "pixels": ((0.4914, 0.4822, 0.4465), (0.247, 0.243, 0.261)),
    "pictures": ((0.4914, 0.4822, 0.4465), (0.2023, 0.1994, 0.201)),
}


def _cifar_source(name: str) -> Source:
    """A file of the unpacked folder."""
    file = f"cifar-10-batches-py/{name}"
    places = (f"CIFAR10/{file}", f"cifar10/{file}", f"cifar/{file}", name)
    note = f"it is one of the files in {_CIFAR_ARCHIVE}"
    return Source(file, "", f"md5:{_CIFAR[name]}", note=note, also=places)


def _cifar_archive() -> Source:
    """All of them in one file, as published."""
    file, digest = "cifar-10-python.tar.gz", "md5:c58f30108f718f92721af3b95e74349a"
    places = (f"CIFAR10/{file}", f"cifar10/{file}", f"cifar/{file}")
    licence = "none stated; cite Krizhevsky 2009"
    note = "the unpacked folder cifar-10-batches-py does as well, if its six batches are there"
    return Source(file, _CIFAR_ARCHIVE, digest, licence, note, places)


class CIFARFiles(PictureTask):
    """The files of CIFAR-10, out of the published archive or from the folder that it unpacks to.

    Args:
        data_dir, val_share, seed, download  as for `PictureTask`
    """

    length = 1024

    def sources(self) -> tuple[Source, ...]:
        """The archive of CIFAR-10."""
        return (_cifar_archive(),)

    def batches(self) -> tuple[Source, ...]:
        """What is needed of it: five files for training, one for the test."""
        return tuple(map(_cifar_source, _CIFAR))

    def prepare(self) -> None:
        """Look for the unpacked folder, or get the archive."""
        if not self._unpacked():
            super().prepare()

    def _unpacked(self) -> list[Path]:
        """The six files, their digests checked; none of them if it takes the archive."""
        try:
            paths = [find(source, self.data_dir) for source in self.batches()]
        except DamagedData:
            if not find(*self.sources(), self.data_dir):
                raise
            return []  # the archive is there, and sound
        return paths if all(paths) else []

    def contents(self) -> list[bytes]:
        """The bytes of the six files, their digests checked."""
        if paths := self._unpacked():
            return [path.read_bytes() for path in paths]
        archive = fetch(*self.sources(), self.data_dir, download=self.download)
        with tarfile.open(archive) as opened:
            return [opened.extractfile(source.name).read() for source in self.batches()]


class SequentialCIFAR(CIFARFiles):
    """A small photograph, 1,024 pixels one after the other: which of ten kinds of thing is it?

    Args:
        data_dir   path | None  as for `PictureTask`, and so the others
        grayscale  bool         False: three numbers a pixel (sCIFAR); True: one
        val_share  float        5,000 of the 50,000 training pictures by default
        scale      str          "pixels": over the deviation of all pixels; "pictures": over the
                                mean of those inside each picture; in grey "pixels" only
    Raises:
        TypeError, ValueError: if an option is none of these.

    Source: Gu et al. 2022 (S4), appendix D; our eq-pixels-raster, eq-pixels-variance.
    """

    def __init__(
        self,
        data_dir: str | os.PathLike[str] | None = None,
        grayscale: bool = False,
        val_share: float = 0.1,
        *,
        scale: str = "pixels",
        **options: Any,
    ) -> None:
        super().__init__(data_dir, val_share, **options)
        if not isinstance(grayscale, bool):
            raise TypeError(f"want grayscale as True or False, got {grayscale!r}")
        if scale not in _CIFAR_SCALES or (grayscale and scale != "pixels"):
            raise ValueError(
                f'want scale in {list(_CIFAR_SCALES)}, in grey "pixels", got {scale!r}'
            )
        self.grayscale, self.d_input = grayscale, 1 if grayscale else 3
        self.scale = (122.6 / 255, 61 / 255) if grayscale else _CIFAR_SCALES[scale]
        self.name = "scifar-gray" if grayscale else "scifar"

    def read(self) -> tuple[tuple[Tensor, Tensor], tuple[Tensor, Tensor]]:
        """Pixels (n, 1024, d) and labels (n,), of the training files and of the test file."""
        parts = []
        for content in self.contents():
            pixels, labels = read_cifar(content)
            pixels = luma(pixels)[..., None] if self.grayscale else pixels
            parts.append((pixels.flatten(1, 2), labels))
        *train, test = parts
        return tuple(map(torch.cat, zip(*train, strict=True))), test


class LRAImage(SequentialCIFAR):
    """The Image task of Long Range Arena: CIFAR-10 in grey, 1,024 pixels.

    Args:
        data_dir, val_share  as for `SequentialCIFAR`
        tokens               bool  False: numbers, as the S4 code has it; True: 256 symbols, as the
                                   arena's own code has it
    Raises:
        TypeError, ValueError: if an option is none of these.

    Source: Tay et al. 2021, sec. 2.2.4; our eq-pixels-luma.
    """

    def __init__(
        self,
        data_dir: str | os.PathLike[str] | None = None,
        val_share: float = 0.1,
        *,
        tokens: bool = False,
        **options: Any,
    ) -> None:
        super().__init__(data_dir, True, val_share, **options)
        if not isinstance(tokens, bool):
            raise TypeError(f"want tokens as True or False, got {tokens!r}")
        self.name, self.tokens = "lra-image", tokens
        if tokens:
            self.d_input, self.scale = 256, None
