"""Contours of dashes that grow on many canvases at once, and keep out of each other's way.

Home: chapter 18, "Long Range Arena" (chapters/18_long_range_arena.ipynb).
"""

import copy
import math
from typing import NamedTuple

import numpy as np

from s4lite.data.dashes import Canvas, Kit, nearest
from s4lite.data.draws import below, child, unit

__all__ = [
    "Ground",
    "Grown",
    "Tips",
    "add_short",
    "extend",
    "grow_pairs",
    "start_pair",
    "start_short",
]


class Ground:
    """Canvases on which dashes are placed: what is occupied, and where dashes may not end.

    Args:
        n     int  how many canvases
        c, k  Canvas, Kit
    """

    def __init__(self, n: int, c: Canvas, k: Kit) -> None:
        self.c, self.k, self.side = c, k, c.size + 2 * k.gap
        margin = (math.isqrt(k.near.shape[1]) - k.width) // 2
        self.layers = []  # occupied, and near to it: each (n, side^2)
        for free in (c.padding, c.padding + margin):
            edge = np.full((self.side, self.side), 255, np.uint8)
            edge[k.gap + free : -k.gap - free, k.gap + free : -k.gap - free] = 0
            self.layers.append(np.tile(edge.ravel(), (n, 1)))

    def take(self, which: np.ndarray) -> "Ground":
        """A copy of some of the canvases."""
        other = copy.copy(self)
        other.layers = [layer[which] for layer in self.layers]
        return other

    def put(self, which: np.ndarray, other: "Ground") -> None:
        """Put canvases (of `take`) back."""
        for mine, new in zip(self.layers, other.layers, strict=True):
            mine[which] = new

    def flat(self, place: np.ndarray) -> np.ndarray:
        """Index of a pixel (..., 2) in a canvas laid flat."""
        return (place[..., 0] + self.k.gap) * self.side + place[..., 1] + self.k.gap

    def square(self, place: np.ndarray, width: int) -> np.ndarray:
        """Indices (n, width^2) of the squares around places (n, 2) in canvases laid flat."""
        across = np.arange(width) - width // 2
        return self.flat(place)[:, None] + (across[:, None] * self.side + across).ravel()

    def free(self, rows: np.ndarray, dash: np.ndarray, place: np.ndarray) -> np.ndarray:
        """Do dashes (m,) at places (m, 2) on canvases (m,) stand clear of the others?  (m,) bool"""
        below = self.layers[0][rows[:, None], self.square(place, self.k.width)]
        return (below.astype(np.int16) + self.k.mask[dash]).max(1) < 1.8 * 255

    def occupy(self, rows: np.ndarray, dash: np.ndarray, place: np.ndarray) -> None:
        """Place dashes (m,) at places (m, 2) on canvases (m,), no two of them the same."""
        for layer, pictures in zip(self.layers, (self.k.mask, self.k.near), strict=True):
            where = rows[:, None], self.square(place, math.isqrt(pictures.shape[1]))
            layer[where] = np.maximum(layer[where], pictures[dash])


_TRIES = 3  # places looked at for a dash before its contour is given up


class Tips(NamedTuple):
    """Where contours (n,) end: their last dash, its place (n, 2), and the pivot before it (n, 2).

    The last dash is not yet on the ground: the next one may touch it.
    """

    dash: np.ndarray
    place: np.ndarray
    pivot: np.ndarray

    def take(self, which: np.ndarray) -> "Tips":
        """Some of them."""
        return Tips(*(part[which] for part in self))


def extend(
    ground: Ground, rows: np.ndarray, tips: Tips, keys: np.ndarray
) -> tuple[Tips, np.ndarray]:
    """Add a dash to a contour on each of some canvases, and put the dash before it on the ground.

    Args:
        ground  Ground  changed where there was room
        rows    (m,)    on which of its canvases, no two of them the same
        tips    Tips    of m contours
        keys    (m,)    for the draws
    Returns:
        tips  Tips  the new ones
        done  (m,)  bool; where it is False there was no room, and the tip means nothing

    Source: Linsley et al. 2018; our eq-arena-turn.
    """
    k = ground.k
    pivot = tips.pivot + k.step[tips.dash]
    place = pivot[:, None] + k.disc
    share = k.weight[tips.dash] * (255 - ground.layers[1][rows[:, None], ground.flat(place)])
    share = share.cumsum(1)
    new, done = np.zeros(len(rows), np.int64), np.zeros(len(rows), bool)
    todo = np.flatnonzero(share[:, -1] > 0.0255)
    for t in range(_TRIES):
        draw = unit(child(keys[todo], t)) * share[todo, -1]
        new[todo] = (share[todo] > draw[:, None]).argmax(1)
        done[todo] = ground.free(rows[todo], 360 + new[todo], place[todo, new[todo]])
        todo = todo[~done[todo]]
    ground.occupy(rows[done], tips.dash[done], tips.place[done])
    return Tips(360 + new, place[np.arange(len(new)), new], pivot), done


class Grown(NamedTuple):
    """Contours on n canvases: the dashes of each, and their places.

    dash   (n, contours, dashes)     int16, -1 for none; see `Kit`
    place  (n, contours, dashes, 2)  int16, (y, x)
    """

    dash: np.ndarray
    place: np.ndarray


def start_pair(keys: np.ndarray, c: Canvas, k: Kit) -> list[Tips]:
    """Begin two contours (n,): the first in the middle of the canvas, the second not far from it.

    The start of the first, and the end of its first dash, stand at least 2 seed distances from the
    edge; where no pixel does, the pivot of the tip is far outside, so that it cannot go on.
    """
    tips = []
    for s in range(2):
        dash = below(child(keys, 4 * s), 360)
        if s == 0:
            low = 2 * c.seed_distance - np.minimum(k.first[dash, 0], 0)
            room = c.size - 4 * c.seed_distance - np.abs(k.first[dash, 0])
            spot = child(keys[:, None], np.array([1, 2]))
            place = np.where(room > 0, low + below(spot, room.clip(1)), -10 * c.size)
        else:
            angle = np.radians(below(child(keys, 5), 360))
            around = c.seed_distance * np.stack([np.sin(angle), np.cos(angle)], 1)
            place = place + nearest(around)
        tips.append(Tips(dash, place, place + k.first[dash, 1]))
    return tips


def grow_pairs(
    keys: np.ndarray, c: Canvas, k: Kit, dashes: int
) -> tuple[np.ndarray, Grown, Ground]:
    """Grow two contours on each canvas, by turns; a canvas where one gets stuck is lost.

    Args:
        keys    (n,)    for the draws, one a canvas
        c, k    Canvas, Kit
        dashes  int     of each contour
    Returns:
        kept    (m,)    which canvases were not lost
        grown   Grown   the contours of these
        ground  Ground  these, with all dashes on them

    Source: Linsley et al. 2018.
    """
    tips = start_pair(keys, c, k)
    kept = np.flatnonzero((tips[0].place > 0).all(1))
    tips, ground = [tip.take(kept) for tip in tips], Ground(len(keys), c, k)
    grown = Grown(
        np.full((len(keys), 2, dashes), -1, np.int16), np.zeros((len(keys), 2, dashes, 2), np.int16)
    )
    for d in range(dashes):
        for s in range(2):
            if d:
                tips[s], done = extend(ground, kept, tips[s], child(keys[kept], 8 + 2 * d + s))
                kept, tips = kept[done], [tip.take(done) for tip in tips]
            grown.dash[kept, s, d], grown.place[kept, s, d] = tips[s].dash, tips[s].place
    for tip in tips:
        ground.occupy(kept, tip.dash, tip.place)
    return kept, Grown(*(part[kept] for part in grown)), ground.take(kept)


_LOOKS = 32  # places looked at together for the start of a short contour; eight times


def start_short(ground: Ground, keys: np.ndarray) -> tuple[Tips, np.ndarray]:
    """Begin a contour anywhere on each canvas where a dash fits: tips (n,), done (n,) bool."""
    c, k, n = ground.c, ground.k, len(keys)
    dash, place = below(child(keys, 0), 360), np.zeros((n, 2), np.int64)
    done = np.zeros(n, bool)
    for look in range(8):
        todo = np.flatnonzero(~done)
        if not len(todo):
            break
        spots = child(
            child(keys[todo], 1 + look)[:, None, None], np.arange(2 * _LOOKS).reshape(-1, 2)
        )
        at = below(spots, c.size)
        clear = ground.layers[0][todo[:, None], ground.flat(at)] <= 0.3 * 255
        for i in np.flatnonzero(clear.any(0)):
            test = np.flatnonzero(clear[:, i] & ~done[todo])
            rows, spot = todo[test], at[test, i]
            below_it = ground.layers[0][rows[:, None], ground.square(spot, k.width)]
            done[rows] = (np.where(k.mask[dash[rows]] == 255, below_it, 0) <= 0.3 * 255).all(1)
            place[rows] = spot
    return Tips(dash, place, place + k.first[dash, 1]), done


def add_short(ground: Ground, keys: np.ndarray, dashes: int, tries: int = 5) -> Grown:
    """Put one more contour on each canvas, or leave it as it is if `tries` tries fail."""
    n = len(keys)
    grown = Grown(np.full((n, 1, dashes), -1, np.int16), np.zeros((n, 1, dashes, 2), np.int16))
    left = np.arange(n)
    for t in range(tries):
        trial, key = ground.take(left), child(keys[left], t)
        tips, done = start_short(trial, child(key, 0))
        alive = np.flatnonzero(done)
        tips, dash, place = tips.take(alive), [tips.dash[alive]], [tips.place[alive]]
        for d in range(1, dashes):
            tips, done = extend(trial, alive, tips, child(key[alive], d))
            alive, tips = alive[done], tips.take(done)
            dash = [*(old[done] for old in dash), tips.dash]
            place = [*(old[done] for old in place), tips.place]
        trial.occupy(alive, tips.dash, tips.place)
        ground.put(left[alive], trial.take(alive))
        grown.dash[left[alive], 0] = np.stack(dash, 1)
        grown.place[left[alive], 0] = np.stack(place, 1)
        left = np.delete(left, alive)
    return grown
