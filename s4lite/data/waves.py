"""Recorded sound: WAV files as numbers, and fewer samples a second.

Home: chapter 19, "Speech" (chapters/19_speech.ipynb).
"""

import io
import math
import os
import wave
from pathlib import Path
from typing import BinaryIO, NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from s4lite.data.draws import check_whole
from s4lite.data.files import atomic_write

__all__ = ["Wave", "decimate", "low_pass", "read_wav", "write_wav"]


class Wave(NamedTuple):
    """A recording of one channel.

    samples  (n,)  int16
    rate     int   how many of them a second [1/s]
    """

    samples: np.ndarray
    rate: int


def read_wav(file: str | os.PathLike[str] | bytes) -> Wave:
    """Read a WAV file of one channel with 16 bits a sample.

    Args:
        file  path | bytes  where it is, or what is in it
    Returns:
        Wave  at least one sample
    Raises:
        ValueError: if it is another file, of another form, or not a whole one.

    Source: our eq-speech-quantum.
    """
    content = file if isinstance(file, bytes) else Path(file).read_bytes()
    where = f"{len(content):,} bytes" if isinstance(file, bytes) else str(file)
    try:
        with wave.open(io.BytesIO(content)) as opened:
            form, rate, n = opened.getparams()[:2], opened.getframerate(), opened.getnframes()
            frames = opened.readframes(n)
    except (wave.Error, EOFError, RuntimeError) as error:  # the last: it promises what is not there
        why = str(error) or "its parts do not fit together"
        raise ValueError(f"want a WAV file, got {where}: {why}") from None
    if form != (1, 2) or rate < 1:
        got = f"{form[0]} of {8 * form[1]}, {rate} a second"
        raise ValueError(f"want one channel of 16 bits, got {got}: {where}")
    if not n or len(frames) != 2 * n:
        raise ValueError(f"want {n:,} samples (at least 1), got {len(frames) // 2:,}: {where}")
    return Wave(np.frombuffer(frames, "<i2").astype(np.int16), rate)


def write_wav(path: str | os.PathLike[str], samples: np.ndarray, rate: int) -> None:
    """Write a WAV file that `read_wav` reads: whole or not at all.

    Args:
        path     path  its folder is made if need be
        samples  (n,)  int16, n >= 1
        rate     int   samples a second, >= 1 [1/s]
    Raises:
        TypeError, ValueError: if samples or rate are not as said; nothing is written.
        OSError: if it cannot be written; nothing is left behind.
    """
    samples = np.asarray(samples)
    check_whole(rate=rate)
    if samples.dtype != np.int16 or samples.ndim != 1 or not len(samples):
        raise ValueError(f"want int16 samples (n,), got {samples.dtype} {samples.shape}")

    def write(file: BinaryIO) -> None:
        with wave.open(file, "wb") as opened:
            opened.setparams((1, 2, rate, len(samples), "NONE", ""))
            opened.writeframes(samples.astype("<i2").tobytes())

    atomic_write(path, write)


def low_pass(factor: int, zeros: int = 32) -> Tensor:
    """Make the filter that leaves out what `factor` times fewer samples a second cannot hold.

    Args:
        factor  int  >= 2
        zeros   int  crossings of zero on either side, >= 8; the more, the sharper
    Returns:
        h  (T,)  float64, symmetric, sum 1; T = 2 zeros factor, and one more if factor is odd
    Raises:
        TypeError, ValueError: if a number is not as said.

    Error:  from pi/factor on less than 1e-3; up to (1 - 4.5/zeros) pi/factor within 1e-3 of 1.
    Source: Kaiser 1974; our eq-speech-sinc.
    """
    check_whole(2, factor=factor), check_whole(8, zeros=zeros)
    T, stop = 2 * zeros * factor + factor % 2, 66.0
    t = torch.arange(T, dtype=torch.float64, device="cpu") - (T - 1) / 2
    edge = math.pi / factor - (stop - 8) / (2.285 * (T - 1)) / 2
    beta = 0.1102 * (stop - 8.7)
    window = torch.kaiser_window(T, False, beta, dtype=torch.float64, device="cpu")
    h = torch.sinc(edge / math.pi * t) * window
    return h / h.sum()


_WAYS = ("filter", "mean", "plain")


def _filtered(u: Tensor, h: Tensor, factor: int, count: int, block: int = 64) -> Tensor:
    """The answers of a filter, one a group: `block` of them at once, as a matrix product."""
    block = min(block, count)
    before, blocks, more = (len(h) - factor) // 2, -(-count // block), (block - 1) * factor
    after = (blocks * block - 1) * factor + len(h) - before - u.shape[-1]
    taps = F.pad(h, (more, more)).unfold(0, len(h) + more, factor).flip(0)  # row b: h, b later
    spans = F.pad(u, (before, after)).unfold(-1, len(h) + more, block * factor)
    return (spans @ taps.T).flatten(-2)[..., :count]


def decimate(u: Tensor, factor: int, how: str = "filter") -> Tensor:
    """Keep one sample of `factor`: after a filter, as a mean, or as it is.

    Args:
        u       (..., L)  floating; taken as zero outside
        factor  int       >= 1; 1 changes nothing
        how     str       "filter": `low_pass`, centred on each group of `factor` samples;
                          "mean": the mean of the group; "plain": its first sample
    Returns:
        v  (..., ceil(L / factor))
    Raises:
        TypeError, ValueError: if u is not floating or empty, or an option is not as said.

    Error:  "plain" folds all that lies beyond the new limit, see eq-speech-fold. A NaN spoils its
        group; with "filter" up to some 130 answers about it.
    Source: our eq-speech-mean, eq-speech-sinc, eq-speech-centre.
    """
    check_whole(factor=factor)
    if how not in _WAYS:
        raise ValueError(f"want one of {list(_WAYS)}, got {how!r}")
    if not u.is_floating_point():
        raise TypeError(f"want u floating, got {u.dtype}")
    if u.ndim < 1 or not u.shape[-1]:
        raise ValueError(f"want u (..., L), L >= 1, got {tuple(u.shape)}")
    if factor == 1 or how == "plain":
        return u[..., ::factor]
    count = -(-u.shape[-1] // factor)
    if how == "mean":
        groups = F.pad(u, (0, count * factor - u.shape[-1])).unflatten(-1, (count, factor))
        return groups.mean(-1)
    return _filtered(u, low_pass(factor).to(u), factor, count)
