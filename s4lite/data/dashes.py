"""Dashes, drawn once and for all: every way in which one can follow another, as small pictures.

Home: chapter 18, "Long Range Arena" (chapters/18_long_range_arena.ipynb).
"""

import functools
import math
from typing import NamedTuple

import numpy as np

__all__ = ["Canvas", "Kit", "canvas", "dashes", "kit", "nearest", "shrink", "widen"]


class Canvas(NamedTuple):
    """How images of one size are made.  [pixels, brightness 1 = white]

    size, padding       int    side; border that stays free
    length, thickness   int, float  of a dash
    margins             tuple  space between dashes: one of these, drawn for each image
    seed_distance       int    from the start of one contour to that of the other
    marker              float  radius of the discs
    continuity          float  how straight contours go
    distractors         int    short contours to be put in
    target, distractor  float  brightness of the dashes of the long contours, of the short ones
    """

    size: int
    padding: int
    length: int
    thickness: float
    margins: tuple[int, ...]
    seed_distance: int
    marker: float
    continuity: float
    distractors: int
    target: float
    distractor: float


_CANVASES = {
    32: (1, 2, 0.5, (1,), 7, 1.5, 1.0, 5, 1.5, 2.0),
    64: (1, 5, 1.0, (1,), 12, 2.5, 1.8, 5, 0.8, 0.8),
    128: (1, 5, 1.5, (2, 3), 20, 3.0, 1.8, 8, 0.9, 0.9),
    256: (22, 5, 2.0, (3,), 27, 5.0, 1.8, 7, 1.0, 1.0),
}


def canvas(size: int) -> Canvas:
    """The published settings for 32, 64, 128 or 256 pixels a side; ValueError for another size."""
    if size not in _CANVASES:
        raise ValueError(f"want size 32, 64, 128 or 256, got {size!r}")
    return Canvas(size, *_CANVASES[size])


_TIE = 1e-6  # what lies on an edge is decided alike on every machine, whatever its last digit


def nearest(x: np.ndarray) -> np.ndarray:
    """Round to the nearest whole numbers, (...) int64, halves up."""
    return np.floor(x + 0.5 + _TIE).astype(np.int64)


def shrink(fine: np.ndarray) -> np.ndarray:
    """Halve images: (..., 2 h + 1, 2 w + 1) in 0 .. 1 to (..., h + 1, w + 1) uint8, 255 for 1.

    Lanczos with three lobes, the middle pixel on the middle pixel; zeros around the images.
    """
    lag = np.arange(-5, 6) / 2
    weight = np.sinc(lag) * np.sinc(lag / 3)
    weight /= weight.sum()
    for axis in (-2, -1):
        width = [(5, 5) if a == axis % fine.ndim else (0, 0) for a in range(fine.ndim)]
        windows = np.lib.stride_tricks.sliding_window_view(np.pad(fine, width), 11, axis=axis)
        fine = np.moveaxis(np.moveaxis(windows @ weight, axis, -1)[..., ::2], -1, axis)
    return nearest(255 * fine.clip(0, 1)).astype(np.uint8)


def widen(images: np.ndarray, radius: int) -> np.ndarray:
    """Dilate images (..., h, w) by a disc: each pixel becomes the brightest one within a radius."""
    h, w = images.shape[-2:]
    width = [(0, 0)] * (images.ndim - 2) + [(radius, radius)] * 2
    padded, out = np.pad(images, width), images.copy()
    for dy in range(-radius, radius + 1):
        for dx in range(-radius, radius + 1):
            if dy * dy + dx * dx <= radius * radius:
                there = padded[..., radius + dy : radius + dy + h, radius + dx : radius + dx + w]
                np.maximum(out, there, out=out)
    return out


def dashes(angle: np.ndarray, length: int, width: float, reach: int) -> np.ndarray:
    """Draw dashes (n, 2 r + 1, 2 r + 1), 0 or 1, from the middle on in directions (n,), r = reach.

    y grows downwards; length, width and reach are in these pixels.
    """
    y, x = np.mgrid[-reach : reach + 1, -reach : reach + 1]
    c, s = np.cos(angle)[:, None, None], np.sin(angle)[:, None, None]
    along, aside = c * x + s * y, np.abs(c * y - s * x)
    there = (along > -0.5 - _TIE) & (along < length + 0.5 + _TIE) & (aside < width / 2 + _TIE)
    return there.astype(float)


class Kit(NamedTuple):
    """All dashes that can be drawn, as pictures to be stamped, and where each leads.

    Dashes 0 .. 359 are first ones: they start at their place, in whole degrees. The others are
    those that go on: they end at their place, one for each pixel of a circle around a pivot.

    width       int           of a picture
    gap         int           free pixels around a canvas, so that no index leaves it
    disc        (k, 2)        the circle: (y, x) from the pivot
    step        (n, 2)        from the pivot before a dash to the one behind it
    first       (360, 2, 2)   from the start of a first dash to its end, and to its pivot
    tail        (n, 2)        from a dash's place to its other end, not rounded
    weight      (n, k)        how likely the circle's pixels are behind each dash, not normalised
    bar, mask   (n, width^2)  uint8: the dash; what it occupies
    near        (n, ...)      uint8: where no other contour's dash may end
    """

    width: int
    gap: int
    disc: np.ndarray
    step: np.ndarray
    first: np.ndarray
    tail: np.ndarray
    weight: np.ndarray
    bar: np.ndarray
    mask: np.ndarray
    near: np.ndarray


def _circle(radius: int) -> np.ndarray:
    """The pixels (k, 2) that a circle around a pixel meets, sampled once a pixel of arc."""
    angle = np.arange(0, 2 * np.pi, 1 / radius)
    points = radius * np.stack([np.sin(angle), np.cos(angle)], 1)
    return np.unique(np.floor(points + _TIE).astype(np.int64), axis=0)


def _up(x: np.ndarray) -> np.ndarray:
    """Round up to whole numbers, but for what rounding errors added."""
    return np.ceil(x - _TIE).astype(np.int64)


@functools.cache
def kit(size: int, margin: int) -> Kit:
    """Prepare everything that depends on the size of the images and the margin alone.

    Source: Linsley et al. 2018; our eq-arena-turn.
    """
    c = canvas(size)
    disc = _circle(c.length + margin)
    degrees, onward = np.radians(np.arange(360)), np.arctan2(disc[:, 0], disc[:, 1])
    angle = np.concatenate([degrees, onward])
    ahead = np.stack([np.sin(angle), np.cos(angle)], 1)
    turn = np.abs(angle[:, None] - onward)
    turn = np.minimum(turn % (2 * np.pi), -turn % (2 * np.pi))
    weight = np.cos(np.minimum(c.continuity * turn, np.pi / 2)) ** 2
    head = _up(c.length * ahead[:360])
    first = np.stack([head, head + _up(-(c.length + margin) * ahead[:360])], 1)
    tail = np.concatenate([c.length * ahead[:360], -c.length * ahead[360:]])
    reach = c.length + math.ceil(c.thickness) + margin
    back = np.concatenate([degrees, onward + np.pi])  # those that go on are drawn from their end
    fine = dashes(back, 2 * c.length, 2 * c.thickness, 2 * reach)
    bar, mask = shrink(fine), shrink(widen(fine, 2 * margin))
    near = widen(np.pad(mask, ((0, 0), (margin, margin), (margin, margin))), margin)
    flat = [a.reshape(len(a), -1) for a in (bar, mask, near)]
    gap = 2 * c.length + 3 * margin + 2
    step = _up((c.length + 2 * margin) * ahead)
    return Kit(2 * reach + 1, gap, disc, step, first, tail, weight, *flat)
