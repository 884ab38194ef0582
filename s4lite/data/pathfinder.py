"""Pathfinder: are two discs the ends of one dashed contour, or of two?

Home: chapter 18, "Long Range Arena" (chapters/18_long_range_arena.ipynb).
"""

import functools
import itertools
import math
import os
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

from s4lite.data.contours import Ground, Grown, add_short, grow_pairs
from s4lite.data.dashes import Canvas, Kit, canvas, kit, nearest, shrink
from s4lite.data.draws import below, check_sizes, check_whole, child
from s4lite.data.shards import Shards, open_shard, shards_in
from s4lite.data.task import Batch, Splits, Task
from s4lite.data.workers import cores, in_order, progress

__all__ = ["Images", "Pathfinder", "PixelSet", "generate_pathfinder", "write_images"]


class Images(NamedTuple):
    """Images, their labels, and how they were made.

    pixels  (count, size, size)      uint8
    labels  (count,)                 uint8: 1 if one contour joins the discs
    discs   (count, 2, 2)            int16: where the discs are, (y, x)
    lines   (count, 2, dashes, 2, 2) float32: both ends of each dash of the long contours, (y, x)
    grown   (count,)                 int64: how many pairs of contours were begun for it
    """

    pixels: np.ndarray
    labels: np.ndarray
    discs: np.ndarray
    lines: np.ndarray
    grown: np.ndarray


def _stamp(c: Canvas, k: Kit, contours: Grown) -> np.ndarray:
    """Draw all contours (n, contours, dashes): (n, size, size) uint8, 255 for full coverage."""
    ground = Ground(0, c, k)
    out = np.zeros((len(contours.dash), ground.side**2), np.uint8)
    dash, place = (part.reshape(len(out), -1, *part.shape[3:]) for part in contours)
    for i in range(dash.shape[1]):
        rows = np.flatnonzero(dash[:, i] >= 0)[:, None]
        where = ground.square(place[rows[:, 0], i].astype(np.int64), k.width)
        out[rows, where] = np.maximum(out[rows, where], k.bar[dash[rows[:, 0], i]])
    inner = slice(k.gap, k.gap + c.size)
    return out.reshape(-1, ground.side, ground.side)[:, inner, inner]


def _discs(c: Canvas, at: np.ndarray) -> np.ndarray:
    """Draw discs at places (n, discs, 2): (n, size, size) from 0 to 1."""
    reach = math.ceil(c.marker) + 2
    y, x = np.mgrid[-2 * reach : 2 * reach + 1, -2 * reach : 2 * reach + 1]
    picture = shrink((x * x + y * y <= (2 * c.marker) ** 2).astype(float)) / 255
    out = np.zeros((len(at), c.size + 2 * reach, c.size + 2 * reach))
    across = np.arange(2 * reach + 1)
    for i in range(at.shape[1]):
        rows = np.arange(len(at))[:, None, None]
        where = rows, at[:, i, 0, None, None] + across[:, None], at[:, i, 1, None, None] + across
        out[where] = np.maximum(out[where], picture)
    return out[:, reach:-reach, reach:-reach]


_LANES = {32: 512, 64: 256, 128: 128, 256: 64}  # canvases at work at once; no part of what is drawn


def _pairs(keys: np.ndarray, c: Canvas, k: Kit, dashes: int) -> tuple[np.ndarray, Grown, Ground]:
    """Grow a pair on each canvas (n,): the tries each took, and the first that went well.

    Where few canvases are left, several tries of each are made at once, and the earliest counts.
    """
    n = len(keys)
    tries, left = np.zeros(n, np.int64), np.arange(n)
    grown = Grown(np.empty((n, 2, dashes), np.int16), np.empty((n, 2, dashes, 2), np.int16))
    ground = Ground(n, c, k)
    begun = 0
    while len(left):
        at_once = max(1, n // len(left))
        number = np.repeat(begun + np.arange(at_once), len(left))  # all first tries before a second
        rows = np.tile(left, at_once)
        kept, new, trial = grow_pairs(child(keys[rows], 16 + number), c, k, dashes)
        done, first = np.unique(rows[kept], return_index=True)
        grown.dash[done], grown.place[done] = new.dash[first], new.place[first]
        tries[done] = number[kept[first]] + 1
        ground.put(done, trial.take(first))
        left, begun = np.setdiff1d(left, done), begun + at_once
        if begun > 100_000:
            raise RuntimeError(f"got no two contours of {dashes} dashes in 100,000 tries")
    return tries, grown, ground


def _images(keys: np.ndarray, c: Canvas, margin: int, dashes: int, short: int) -> Images:
    """Make an image from each key (n,), all of one margin."""
    k, rows = kit(c.size, margin), np.arange(len(keys))
    grown_in, long, ground = _pairs(keys, c, k, dashes)
    clutter = [add_short(ground, child(child(keys, 4), i), short) for i in range(c.distractors)]
    label, which = (below(child(keys, i), 2) for i in (0, 1))
    ends = np.where(label == 1, which, 1 - which)
    at = np.stack([long.place[rows, which, 0], long.place[rows, ends, -1]], 1)
    light = np.maximum(c.target / 255 * _stamp(c, k, long), _discs(c, at.astype(np.int64)))
    for contour in clutter:
        np.maximum(light, c.distractor / 255 * _stamp(c, k, contour), out=light)
    low, high = light.min((1, 2), keepdims=True), light.max((1, 2), keepdims=True)
    pixels = nearest(255 * (light - low) / (high - low)).astype(np.uint8)
    place = long.place.astype(np.float32)
    lines = np.stack([place, place + k.tail[long.dash].astype(np.float32)], -2)
    return Images(pixels, label.astype(np.uint8), at.astype(np.int16), lines, grown_in)


def _some(job: tuple[int, int, int, int, int]) -> Images:
    """Make images first .. last - 1 of a seed."""
    seed, first, last, size, dashes = job
    c, keys = canvas(size), child(child(seed, 1), np.arange(first, last))
    margins = np.array(c.margins)[below(child(keys, 2), len(c.margins))]
    parts, order = [], []
    for margin in c.margins:
        mine = np.flatnonzero(margins == margin)
        if len(mine):
            parts.append(_images(keys[mine], c, margin, dashes, max(1, dashes * 4 // 14)))
            order.append(mine)
    back = np.argsort(np.concatenate(order))
    return Images(*(np.concatenate(field)[back] for field in zip(*parts, strict=True)))


def generate_pathfinder(
    count: int, seed: int, size: int = 32, *, contour: int = 14, start: int = 0, workers: int = 1
) -> Images:
    """Draw images number start, start + 1, ... of a seed.

    Args:
        count, seed  int  how many, >= 1; which, 0 to 2^63 - 1
        size         int  pixels a side: 32, 64, 128 or 256
        contour      int  dashes of the long contours, 2 to 14; 14 is the task "hard"
        start        int  number of the first image; image i is the same wherever one starts
        workers      int  processes; they change the time, never a byte
    Returns:
        Images
    Raises:
        TypeError, ValueError: if a number is not as said.

    Source: Linsley et al. 2018; settings by Tay et al. 2021.
    """
    check_whole(count=count), check_whole(0, 2**63 - 1, seed=seed, start=start)
    check_whole(2, 14, contour=contour)
    canvas(size)
    lanes = _LANES[size]
    jobs = (
        (seed, i, min(i + lanes, start + count), size, contour)
        for i in range(start, start + count, lanes)
    )
    parts = list(in_order(_some, jobs, workers))
    return Images(*(np.concatenate(field) for field in zip(*parts, strict=True)))


_EACH = {
    32: 20_000,
    64: 5_000,
    128: 1_000,
    256: 1_000,
}  # images a shard; each open one takes a handle


def write_images(shards: Shards, count: int, seed: int, size: int, workers: int) -> None:
    """Draw images 0 .. count - 1 and write them, shard by shard; those that are there stay.

    The folder then holds pixels-00000.npy, ... and labels-00000.npy, ..., and labels.npy of all.
    """
    each = _EACH[size]
    firsts = range(0, count, each)
    with progress(f"images of {size} x {size}", count) as done:
        for shard, first in enumerate(firsts):
            some = min(each, count - first)
            draw = functools.cache(
                functools.partial(
                    generate_pathfinder, some, seed, size, start=first, workers=workers
                )
            )
            shards.write(f"pixels-{shard:05d}.npy", lambda draw=draw: draw().pixels)
            shards.write(f"labels-{shard:05d}.npy", lambda draw=draw: draw().labels)
            done(some)
    names = [shards.folder / f"labels-{shard:05d}.npy" for shard in range(len(firsts))]
    shards.write("labels.npy", lambda: np.concatenate([np.load(name) for name in names]))


class PixelSet(Dataset):
    """Images of a split on the disk, as sequences: pairs (u (size^2, 1) float32, y int64).

    Args:
        shards   Shards  as `write_images` fills them
        size     int     pixels a side
        numbers  range   of its images
        center   bool    pixels from -1 to 1; otherwise from 0 to 1
    """

    def __init__(self, shards: Shards, size: int, numbers: range, center: bool) -> None:
        self.shards, self.size, self.numbers, self.center = shards, size, numbers, center
        self._open: dict[str, np.ndarray] = {}
        for name in ("labels.npy", *(f"pixels-{i // _EACH[size]:05d}.npy" for i in numbers[:1])):
            self._array(name)

    def _array(self, name: str) -> np.ndarray:
        if name not in self._open:
            self._open[name] = open_shard(self.shards, name)
        return self._open[name]

    def __getstate__(self) -> dict[str, Any]:
        return {**vars(self), "_open": {}}

    def __len__(self) -> int:
        return len(self.numbers)

    def __getitems__(self, indices: Sequence[int]) -> Batch:
        """A whole batch at once: u (batch, size^2, 1), y (batch,); torch's loaders ask for it."""
        at, each = [self.numbers[i] for i in indices], _EACH[self.size]
        rows = [self._array(f"pixels-{i // each:05d}.npy")[i % each] for i in at]
        u = torch.from_numpy(np.stack(rows)).flatten(1)[..., None].float()
        y = torch.from_numpy(self._array("labels.npy")[at].astype(np.int64))
        return Batch(u / 127.5 - 1 if self.center else u / 255, y, None)

    def __getitem__(self, i: int) -> tuple[Tensor, Tensor]:
        u, y, _ = self.__getitems__([i])
        return u[0], y[0]


class Pathfinder(Task):
    """The tasks Pathfinder (32 pixels a side), Path-X (128) and those between and beyond.

    Args:
        data_dir  path | None  where the drawn images are kept
        size      int          pixels a side: 32, 64, 128 or 256
        center    bool         pixels from -1 to 1; False: 0 to 1, as S4's last settings have it
        seed      int          of the draw
        sizes     (3,)         of train, val, test
        workers   int | None   processes that draw; None for all cores
        download  bool         unused: nothing is downloaded
    Raises:
        TypeError, ValueError: if an argument is not as said.
    """

    d_input, d_output = 1, 2

    def __init__(
        self,
        data_dir: str | os.PathLike[str] | None = None,
        *,
        size: int = 32,
        center: bool = True,
        seed: int = 0,
        sizes: tuple[int, int, int] = (160_000, 20_000, 20_000),
        workers: int | None = None,
        download: bool = True,
    ) -> None:
        super().__init__(data_dir, download=download)
        check_whole(workers=1 if workers is None else workers), check_whole(0, 2**63 - 1, seed=seed)
        if not isinstance(center, bool):
            raise TypeError(f"want center as True or False, got {center!r}")
        self.size, self.center, self.seed, self.sizes = canvas(size).size, center, seed, (*sizes,)
        check_sizes(self.sizes)
        self.length, self.name, self.workers = size**2, f"pathfinder{size}", workers or cores()
        facts = {"draw": 1, "seed": seed, "size": size, "count": sum(sizes), "each": _EACH[size]}
        self.shards = shards_in(self.data_dir / "pathfinder", self.name, facts)

    def prepare(self) -> None:
        """Draw the images, shard by shard, unless they are there; begun work is taken up again."""
        if self.shards.contents() is None:
            write_images(self.shards, sum(self.sizes), self.seed, self.size, self.workers)
            self.shards.finish()

    def splits(self) -> Splits:
        """Train, val and test: pairs of pixels (size^2, 1), row by row, and label."""
        self.prepare()
        parts = itertools.starmap(range, itertools.pairwise([0, *itertools.accumulate(self.sizes)]))
        return Splits(*(PixelSet(self.shards, self.size, part, self.center) for part in parts))
