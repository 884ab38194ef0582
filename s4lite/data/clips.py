"""What tasks of spoken words have in common: where their clips are, and how they are heard.

Home: chapter 19, "Speech" (chapters/19_speech.ipynb).
"""

import functools
import hashlib
import math
import os
from pathlib import Path
from typing import Any

import numpy as np

from s4lite.data.draws import check_whole, child
from s4lite.data.files import DamagedData, cache_dir
from s4lite.data.recordings import ClipSet, save_array, step_sums, survey, write_clips
from s4lite.data.shards import Shards, open_shard, shards_in
from s4lite.data.task import Splits, Task

__all__ = [
    "ClipFiles",
    "ClipTask",
    "advice_on",
    "check_clip_options",
    "divide",
    "may_hold",
    "part_of",
    "scale_of",
    "write_task",
]


def part_of(place: Path) -> str:
    """What tells one part of the clips from another, without reading them: "a part: <SHA-256>".

    Args:
        place  Path  a folder: of the names in it, their sizes and times; or an archive: of its own
    """
    paths = sorted(p for p in place.rglob("*.*") if p.is_file()) if place.is_dir() else [place]
    digest = hashlib.sha256()
    for path in paths:
        seen, name = path.stat(), path.relative_to(place)
        digest.update(os.fsencode(f"{name} {seen.st_size} {seen.st_mtime_ns}\n"))
    return f"a part: {digest.hexdigest()}"


def advice_on(task: "ClipFiles") -> str:
    """What to do about clips that are not as they should be."""
    return (
        f"Nothing there was changed. Get them again from {task.origin}, or, without what is "
        "damaged, take them as a part: partial=True, or --set task.partial=true"
    )


def may_hold(shards: Shards) -> bool:
    """Whether arrays are there already, or may be written there."""
    if (shards.folder / shards.LIST).exists():
        return True
    nearest = next(folder for folder in shards.folder.parents if folder.exists())
    return os.access(nearest, os.W_OK | os.X_OK)


class ClipFiles(Task):
    """Recordings of one word each, found in a folder and written into `shards` once.

    Args:
        data_dir  path | None  where the published files are; None for the user's cache
        partial   bool         take as many clips as there are, and say so in the name
        download  bool         False: never download

    A subclass says how it is `recorded` [1/s], how long the `longest` clip is, whether all count as
    that long (`fixed`), which `words` there are and how files are called (`pattern`), what is
    `published` (their digest or number), where (`origin`), and has `place`, `label`, `parts` and
    `check`.
    """

    d_input, fixed, partitions = 1, False, ("official",)
    recorded: int
    longest: int
    words: tuple[str, ...]
    pattern: str
    published: Any
    sample_rate: int
    origin: str

    def __init__(
        self,
        data_dir: str | os.PathLike[str] | None = None,
        *,
        partial: bool = False,
        download: bool = True,
    ) -> None:
        super().__init__(data_dir, download=download)
        self.partial = partial

    def place(self) -> Path:
        """The folder or the archive that has the clips; downloads it if need be."""
        raise NotImplementedError

    @functools.cached_property
    def shards(self) -> Shards:
        """The folder of the arrays: below the data folder, or if that is read-only the cache."""
        published = part_of(self.place()) if self.partial else self.published
        facts = {"words": list(self.words), "longest": self.longest, "published": published}
        made = [
            shards_in(place / "speech", f"words{len(self.words)}", facts)
            for place in (self.data_dir, cache_dir())
        ]
        return made[0] if may_hold(made[0]) else made[1]

    def prepare(self) -> None:
        """Find, check and write all clips, unless that is done."""
        if self.shards.contents() is None:
            write_task(self)


def divide(partition: str, labels: np.ndarray, parts: np.ndarray) -> list[np.ndarray]:
    """Which clips are for training, for validation and for the test.

    Args:
        partition  str   "official": as `parts` says; "published": of each word 70, 15 and 15 %,
            drawn at random, always the same, from the clips with parts < 3
        labels     (n,)  which word it is
        parts      (n,)  0 training, 1 validation, 2 test; 3 more: shorter than the published want
    Returns:
        rows  list of three (m,) int64, ascending
    """
    if partition == "official":
        return [np.flatnonzero(parts % 3 == part) for part in range(3)]
    rows: list[list[np.ndarray]] = [[], [], []]
    for word in np.unique(labels):
        mine = np.flatnonzero((labels == word) & (parts < 3))
        mine = mine[np.argsort(child(child(19, int(word)), mine), kind="stable")]
        held = round(0.15 * len(mine))
        cuts = np.split(mine, [held, 2 * held])
        for part, cut in zip((2, 1, 0), cuts, strict=True):
            rows[part].append(cut)
    return [np.sort(np.concatenate(part)) for part in rows]


def write_task(task: ClipFiles) -> None:
    """Write the arrays of a task: clips, labels, parts, names and sums.

    Raises:
        MissingData, DamagedData: if its clips are not there, or not those that it wants.
    """
    place = task.place()
    try:
        found = survey(place, task.pattern, task.recorded, task.longest)
        parts = np.array(task.parts(place, found), np.uint8)
    except DamagedData as error:
        raise DamagedData(f"{error}. {advice_on(task)}") from None
    names = sorted(found)
    if not task.partial:
        task.check(place, found, parts)
    if len(np.unique(parts % 3)) < 3:
        got = np.bincount(parts % 3, minlength=3).tolist()
        why = f"want clips for training, validation and test in {place}, got {got}"
        raise DamagedData(f"{why}. {advice_on(task)}")
    write_clips(task.shards, place, task.pattern, found)
    arrays = {"parts": parts, "names": np.array([name.encode() for name in names])}
    arrays["labels"] = np.array([task.label(name) for name in names], np.uint8)
    for partition in task.partitions:
        rows = divide(partition, arrays["labels"], parts)[0]
        arrays[f"sums-{partition}"] = step_sums(task.shards, rows, task.longest)
    for name, array in arrays.items():
        save_array(task.shards.folder / f"{name}.npy", array)
    task.shards.finish()


def check_clip_options(task: ClipFiles, resample: str, scale: str) -> int:
    """Raise unless the options of a `ClipTask` are known ones.

    Returns:
        factor  int  one sample of so many is kept
    """
    scales = ["set", "published", "unit"] if task.fixed else ["set", "unit"]
    for option, known in ((resample, ["filter", "mean", "plain"]), (scale, scales)):
        if option not in known:
            raise ValueError(f"want one of {known}, got {option!r}")
    check_whole(sample_rate=task.sample_rate)
    factor, rest = divmod(task.recorded, task.sample_rate)
    if rest:
        raise ValueError(f"want a whole part of {task.recorded} a second, got {task.sample_rate}")
    return factor


class ClipTask(ClipFiles):
    """Spoken words to be told apart, sample by sample; the base of the tasks below.

    Args:
        data_dir     path | None  as for `ClipFiles`, and so partial and download
        sample_rate  int | None   samples a second, a whole part of `recorded`; None: all [1/s]
        resample     str          how to come to fewer: "filter"; "mean"; "plain" as published
        scale        str          "set": less the mean of all training samples, over their
            deviation; "published": moment by moment, see `scale_of`; "unit": -1 to 1
    Raises:
        TypeError, ValueError: if an option is not as said.

    `rate` is what a model that was trained on `recorded` samples a second is to be given.
    """

    def __init__(
        self,
        data_dir: str | os.PathLike[str] | None = None,
        *,
        sample_rate: int | None = None,
        resample: str = "filter",
        scale: str = "set",
        **options: Any,
    ) -> None:
        super().__init__(data_dir, **options)
        self.sample_rate = self.recorded if sample_rate is None else sample_rate
        self.factor = check_clip_options(self, resample, scale)
        self.resample, self.scale, self.rate = resample, scale, float(self.factor)
        self.partition, self.length = "official", -(-self.longest // self.factor)
        self.d_output = len(self.words)
        self.name += f"-{self.sample_rate}" * (self.factor > 1) + "-partial" * self.partial

    def splits(self) -> Splits:
        """Training, validation and test: items (u (L_i, 1) float32, y ())."""
        self.prepare()
        labels, parts = (open_shard(self.shards, f"{name}.npy") for name in ("labels", "parts"))
        rows = divide(self.partition, labels, parts)
        how = {"fixed": self.fixed, "factor": self.factor, "how": self.resample}
        scale = scale_of(self, rows[0])
        return Splits(*(ClipSet(self.shards, r, self.longest, scale=scale, **how) for r in rows))


def scale_of(task: "ClipTask", rows: np.ndarray) -> tuple[Any, Any]:
    """Mean and deviation that a task's samples are scaled by, from its training clips.

    Args:
        task  ClipTask  prepared
        rows  (n,)      its training clips
    Returns:
        mean, std  numbers; for the scale "published" (length,) each, of every moment that is kept,
            and to the deviation 0.32768 is added
    Source: the S4 code; our eq-speech-sums, eq-speech-twice.
    """
    if task.scale == "unit":
        return 0.0, 1.0
    s1, s2 = open_shard(task.shards, f"sums-{task.partition}.npy")
    if task.scale == "published":
        s1, s2, n = s1[:: task.factor], s2[:: task.factor], len(rows)
        std = np.sqrt(np.maximum(s2 - s1.astype(float) ** 2 / n, 0) / max(n - 1, 1)) / 2**15
        return s1 / n / 2**15, std + 2**15 * 1e-5
    sizes = open_shard(task.shards, "sizes.npy")[rows]
    n = len(rows) * task.longest if task.fixed else int(sizes.sum())
    mean = int(s1.sum()) / n
    return mean / 2**15, math.sqrt(max(int(s2.sum()) / n - mean**2, 1.0)) / 2**15
