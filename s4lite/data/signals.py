"""Signals to test memories with: smooth ones, rare events, and a delay to reproduce.

Home: chapter 01, "Long sequences" (chapters/01_long_sequences.ipynb).
"""

import math
from numbers import Real
from typing import Any

import torch
from torch import Tensor

__all__ = ["band_limited", "delay_task", "events"]


_TONES = 32  # cosines in a smooth signal


def _check_counts(**counts: int) -> None:
    """Raise unless every argument is a whole number, at least 1."""
    for name, n in counts.items():
        if isinstance(n, bool) or not isinstance(n, int):
            raise TypeError(f"want {name} as an int, got {type(n).__name__}")
        if n < 1:
            raise ValueError(f"want {name} >= 1, got {n}")


def _check_cycles(cycles: float) -> None:
    """Raise unless cycles is a finite number > 0."""
    if isinstance(cycles, bool) or not isinstance(cycles, Real):
        raise TypeError(f"want cycles as a number, got {type(cycles).__name__}")
    if not 0 < cycles < math.inf:
        raise ValueError(f"want cycles finite and > 0, got {cycles}")


def _place(generator: torch.Generator | None) -> dict[str, Any]:
    """Where random numbers are drawn: on the generator's device, or on the CPU."""
    return {"generator": generator, "device": generator.device if generator else "cpu"}


def _onsets(batch: int, L: int, count: int, width: int, like: dict[str, Any]) -> Tensor:
    """Draw when pulses begin: (batch, count), uniform among all times that fit."""
    slots = L - count * (width - 1)  # each pulse shrunk to one sample: choose, then widen again
    at = torch.rand(batch, slots, dtype=torch.float64, **like).argsort(-1)[:, :count]
    return at.sort(-1).values + (width - 1) * torch.arange(count, device=at.device)


def band_limited(
    batch: int,
    L: int,
    cycles: float,
    generator: torch.Generator | None = None,
    *,
    dtype: torch.dtype | None = None,
) -> Tensor:
    """Draw smooth signals: cosines of random pitch, amplitude and phase, of mean square 1.

    Args:
        batch, L   int                 how many; samples in each, >= 1
        cycles     float               highest pitch, > 0; sense ends at L / 2  [cycles per L]
        generator  torch.Generator     for the draws; None for torch's own
        dtype      torch.dtype         of the result; None for torch's default
    Returns:
        u  (batch, L)  each row of mean square 1
    Raises:
        TypeError, ValueError: if a count is no int or < 1, or cycles not finite and > 0.

    Source: our eq-long-cosines.
    """
    _check_counts(batch=batch, L=L)
    _check_cycles(cycles)
    like = {"dtype": torch.float64, **_place(generator)}
    pitch, phase = (torch.rand(_TONES, batch, 1, **like) * top for top in (cycles, 1.0))
    size = torch.randn(_TONES, batch, 1, **like)
    t, u = torch.arange(L, dtype=torch.float64, device=like["device"]) / L, 0.0
    for f, p, a in zip(pitch, phase, size, strict=True):
        u = u + a * torch.cos(2 * math.pi * (f * t + p))
    return (u / u.square().mean(-1, keepdim=True).sqrt()).to(dtype or torch.get_default_dtype())


def events(
    batch: int,
    L: int,
    count: int,
    generator: torch.Generator | None = None,
    *,
    width: int = 8,
    dtype: torch.dtype | None = None,
) -> Tensor:
    """Draw quiet lines with short pulses: smooth bumps of height 1, never two at once.

    Args:
        batch, L   int              how many; samples in each
        count      int              pulses in each, count * width <= L
        generator  torch.Generator  for the draws; None for torch's own
        width      int              samples in a pulse, >= 1
        dtype      torch.dtype      of the result; None for torch's default
    Returns:
        u  (batch, L)  0 but for the pulses, whose times are uniform among all that fit
    Raises:
        TypeError, ValueError: if a number is no int or < 1, or the pulses do not fit.
    """
    _check_counts(batch=batch, L=L, count=count, width=width)
    if count * width > L:
        raise ValueError(f"want count * width <= L, got {count} * {width} > {L}")
    at = _onsets(batch, L, count, width, _place(generator))
    inside = torch.arange(width, device=at.device)
    bump = torch.sin(math.pi * (inside.double() + 0.5) / width).square()
    u = torch.zeros(batch, L, dtype=torch.float64, device=at.device)
    u = u.scatter(1, (at[..., None] + inside).flatten(1), (bump / bump.max()).repeat(batch, count))
    return u.to(dtype or torch.get_default_dtype())


def delay_task(
    batch: int,
    L: int,
    delay: int,
    cycles: float,
    generator: torch.Generator | None = None,
    *,
    dtype: torch.dtype | None = None,
) -> tuple[Tensor, Tensor]:
    """Draw the task of saying, at every moment, what was heard `delay` samples ago.

    Args:
        batch, L   int              how many sequences; samples in each
        delay      int              how long ago, 1 to L  [samples]
        cycles     float            highest pitch, > 0  [cycles per delay]
        generator  torch.Generator  for the draws; None for torch's own
        dtype      torch.dtype      of the result; None for torch's default
    Returns:
        u  (batch, L, 1)  smooth signals, of mean square 1
        y  (batch, L, 1)  y[k] = u[k - delay], and 0 before
    Raises:
        TypeError, ValueError: if a number is not as said.
    """
    _check_counts(batch=batch, L=L, delay=delay)
    if delay > L:
        raise ValueError(f"want delay <= L = {L}, got {delay}")
    _check_cycles(cycles)
    u = band_limited(batch, L, cycles * L / delay, generator, dtype=dtype)
    y = torch.cat([torch.zeros_like(u[:, :delay]), u[:, : L - delay]], dim=1)
    return u[..., None], y[..., None]
