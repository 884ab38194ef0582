"""Does a model ever wait for its data? Batches as training makes them, beside the step they feed.

    python benchmarks/loading.py [--repeats 3] [--batches 500] [--sequences 2000] [--smoke]

The batches come from `TaskData`, as in training: shuffled, gathered, padded, as numbers. Pixels are
random ones in the number and form of MNIST and CIFAR-10, reviews are random letters, as many as in
those of IMDB, ListOps and Pathfinder are drawn, spoken digits are noise of many lengths, a series
and a text are random numbers; all lie where they would, in memory or on the disk. First, a batch
is held against its sequences asked for one by one and padded, and against itself.

Loading is counted in processor time, so that a busy machine does not matter: in the process that
trains, on one core; and by two processes of its own that hand it over, on two cores, with what the
handing over takes on both sides, their start and the order of the epoch. It is held against

* the step of a small model on two cores, measured here: S4D, two blocks, H = 32, N = 16, and only
  the first eight sequences of the batch, which makes it harder to keep up with;
* the step of the published model on an H200, reckoned from below: every number of every block is
  moved once (42 bytes), goes through the FFTs and the matrices, one after the other, near the
  peaks of the machine. No program known to us is that fast; where loading keeps up with this step,
  it does with any. The estimates for eager and for compiled PyTorch are nine and five times longer.
  Below half a millisecond the launching of kernels decides, about a millisecond a layer in eager
  PyTorch, and nothing is claimed: that is so for the two layers of etth1.

Prints PASS or FAIL for every task, writes benchmarks/results/loading-<cpu>.json, and exits 1 if a
batch is wrong or a claim fails.
"""

import argparse
import gc
import math
import resource
import statistics
import sys
import tempfile
import time
import warnings
import wave
from pathlib import Path
from typing import Any

import numpy as np
import torch
from common import Claims, begin, finish, options
from torch import Tensor

from s4lite.data.documents import Text
from s4lite.data.forecasting import Windows
from s4lite.data.listops import ListOps
from s4lite.data.pathfinder import Pathfinder
from s4lite.data.pixels import LRAImage, SequentialCIFAR, SequentialMNIST
from s4lite.data.speech import FSDD
from s4lite.data.task import Batch, Splits, Task, pad
from s4lite.data.windows import TextWindows
from s4lite.nn.groups import param_groups
from s4lite.recipes.models import build
from s4lite.train.data import TaskData
from s4lite.train.objectives import objective

WANTED = 3  # times as fast as the step
RECKONED = "step on an H200, reckoned"
LAUNCHES = 0.5e-3  # seconds; launches, which are not reckoned, decide a shorter step
# task: the models, as (blocks, width, sequences a batch)
MODELS = {
    "smnist": {"4 x 128": (4, 128, 64), "6 x 512": (6, 512, 50)},
    "scifar": {"4 x 128": (4, 128, 50), "6 x 512": (6, 512, 50)},
    "lra-image": {"6 x 512": (6, 512, 50)},
    "listops": {"4 x 128": (4, 128, 50), "8 x 128": (8, 128, 50)},
    "text": {"4 x 128": (4, 128, 50), "6 x 256": (6, 256, 16)},
    "pathfinder": {"6 x 128": (6, 128, 64), "6 x 256": (6, 256, 64)},
    "path-x": {"4 x 96": (4, 96, 32), "6 x 256": (6, 256, 16)},
    "fsdd": {"4 x 128": (4, 128, 32), "6 x 128": (6, 128, 32)},
    "etth1": {"2 x 128": (2, 128, 50)},
    "enwik8": {"6 x 256": (6, 256, 32), "8 x 512": (8, 512, 16)},
}


class Made:
    """Random pixels in the place of the published ones."""

    count = 60_000

    def read(self) -> tuple[tuple[Tensor, Tensor], tuple[Tensor, Tensor]]:
        """Pixels and labels, of as many pictures as published."""
        rng = torch.Generator().manual_seed(0)
        form = (self.count, self.length, 1 if self.tokens else self.d_input)
        pixels = torch.randint(256, form, dtype=torch.uint8, generator=rng)
        labels = torch.randint(10, (self.count,), generator=rng)
        return (pixels, labels), (pixels[:100], labels[:100])

    def prepare(self) -> None:
        """Nothing is downloaded."""


def made(kind: type[Task], count: int, folder: str) -> Task:
    """A task of pictures whose pictures are made up."""
    return type(kind.__name__, (Made, kind), {"count": count})(folder)


def reviews(folder: Path, each: int) -> None:
    """A folder of reviews: letters at random, as many as in those of IMDB."""
    rng = torch.Generator().manual_seed(0)
    for part in ("train/neg", "train/pos", "test/neg", "test/pos"):
        (folder / "aclImdb" / part).mkdir(parents=True)
        for i in range(each):
            length = int(980 * math.exp(0.75 * torch.randn((), generator=rng)))  # median 980
            letters = torch.randint(32, 127, (max(length, 30),), generator=rng, dtype=torch.uint8)
            text = letters.numpy().tobytes()
            (folder / "aclImdb" / part / f"{i}_7.txt").write_bytes(text)


def recordings(folder: Path, each: int) -> None:
    """A folder of spoken digits: noise, as long as those of FSDD."""
    rng = torch.Generator().manual_seed(0)
    (place := folder / "recordings").mkdir()
    for digit in range(10):
        for i in range(each):
            length = int(3300 * math.exp(0.35 * torch.randn((), generator=rng)))  # median 3,300
            noise = torch.randint(-9000, 9000, (length,), generator=rng, dtype=torch.int16)
            with wave.open(str(place / f"{digit}_jackson_{i}.wav"), "wb") as file:
                file.setnchannels(1), file.setsampwidth(2), file.setframerate(8000)
                file.writeframes(noise.numpy().tobytes())


class Given(Task):
    """A task with one data set for all its parts."""

    def __init__(self, folder: str, items: Any, metric: str, symbols: int = 0) -> None:
        super().__init__(folder)
        self.items, self.name, self.metric, self.tokens = items, metric, metric, symbols > 0
        self.d_input = self.d_output = symbols or 1
        self.length = len(items[0][0])

    def splits(self) -> Splits:
        """The same three times."""
        return Splits(self.items, self.items, self.items)


def series(folder: str) -> Task:
    """A day of a series from 384 hours, in windows as many as those of ETTh1."""
    rows = torch.randn(8640, 1, generator=torch.Generator().manual_seed(0))
    return Given(folder, Windows(rows, 1, range(8640), 384, 24, level=True), "mse")


def text(folder: str) -> Task:
    """The next byte, in windows of 2,048 bytes."""
    symbols = np.random.default_rng(0).integers(0, 205, 8_000_001).astype(np.uint8)
    return Given(folder, TextWindows(symbols, np.arange(0, 7_990_000, 2048), 2048), "bpc", 205)


def tasks(folder: str, o: argparse.Namespace) -> dict[str, Task]:
    """The tasks, none of them prepared; large pictures are fewer."""
    n, few = o.sequences, max(32, o.sequences // 16)
    photos = min(50_000, 25 * n)
    return {
        "smnist": made(SequentialMNIST, photos * 6 // 5, folder),
        "scifar": made(SequentialCIFAR, photos, folder),
        "lra-image": made(LRAImage, photos, folder),
        "listops": ListOps(folder, sizes=(n, 10, 10)),
        "text": Text(folder, each=n // 2),
        "pathfinder": Pathfinder(folder, sizes=(n, 10, 10)),
        "path-x": Pathfinder(folder, size=128, sizes=(few, 2, 2)),
        "fsdd": FSDD(folder, partial=True),
        "etth1": series(folder),
        "enwik8": text(folder),
    }


def wrong(task: Task, batch_size: int) -> float:
    """The largest difference of a batch and of its sequences, asked for one by one."""
    data = TaskData(task, batch_size)
    data.setup()
    batch, again = (next(iter(data.train_dataloader())) for _ in range(2))
    rows = next(iter(data.order()))
    naive = pad([data.parts.train[i] for i in rows])
    pairs = [(a, b) for other in (naive, again) for a, b in zip(batch, other, strict=True)]
    if any((a is None) != (b is None) for a, b in pairs):
        return math.inf
    pairs = [(a, b) for a, b in pairs if a is not None]
    if any(a.shape != b.shape or a.dtype != b.dtype for a, b in pairs):
        return math.inf
    return max(float((a.double() - b.double()).abs().max()) for a, b in pairs)


def of_children() -> float:
    """Processor time of the processes that were started here and have ended."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def loading(task: Task, batch_size: int, workers: int, o: argparse.Namespace) -> list[float]:
    """Seconds a batch, on one core or shared by two, of `--repeats` rounds."""
    data, seconds = TaskData(task, batch_size, workers=workers), []
    data.setup()
    for epoch in range(o.repeats + 1):
        ours, theirs = time.process_time(), of_children()
        seen, loader = 0, data.train_dataloader()
        while seen < o.batches:  # small sets: several epochs
            loader.order.set_epoch(epoch + seen)
            for _ in loader:
                seen += 1
                if seen == o.batches:
                    break
        ours = time.process_time() - ours
        del loader
        gc.collect()  # the loading processes end, and are counted
        seconds.append((ours + of_children() - theirs) / seen / max(1, workers))
    return seconds[1:]


def step_here(task: Task, batch: Batch, o: argparse.Namespace) -> list[float]:
    """Seconds that a step of a small model takes on two cores, by processor time."""
    lengths = None if batch.lengths is None else batch.lengths[:8]
    u, y = batch.u[:8, : None if lengths is None else int(lengths.max())], batch.y[:8]
    if o.smoke:
        u, y, lengths = u[:, :50], y if y.ndim == 1 else y[:, :50], None
    torch.manual_seed(0)
    model, goal = build("s4d", task, d_model=32, n_layers=2, d_state=16), objective(task.metric)
    adam, seconds = torch.optim.AdamW(param_groups(model, lr=1e-3, weight_decay=0.01)), []
    torch.set_num_threads(2)
    for _ in range(1 + o.repeats):
        start = time.process_time()
        adam.zero_grad(set_to_none=True)
        goal.loss(goal.sums(model(u, lengths=lengths), y)).backward()
        adam.step()
        seconds.append((time.process_time() - start) / 2)
    torch.set_num_threads(o.threads)
    return seconds[1:]


def step_reckoned(depth: int, width: int, batch: int, length: float) -> float:
    """Seconds below which no step on an H200 is known to go; the kernels are not even counted."""
    numbers = depth * width * batch * length
    moved = 42 * numbers / (0.85 * 4.3e12)  # bytes, forward and backward, at 85 % of 4.3 TB/s
    transforms = 25 * math.log2(2 * length) * numbers / (0.4 * 67e12)  # FLOP in float32
    matrices = 12 * width * numbers / (0.6 * 788e12)  # FLOP in bfloat16
    return moved + transforms + matrices


def measure(name: str, task: Task, o: argparse.Namespace) -> dict[str, Any]:
    """All about one task: errors, seconds, and how many times faster loading is than the step."""
    found: dict[str, Any] = {"error": {}, "seconds": {}, "ratios": {}}
    models = list(MODELS[name].items())[: 1 if o.smoke else None]
    for model, (depth, width, batch_size) in models:
        case = f"{name}, {model}, batch {batch_size}"
        found["error"][case] = wrong(task, batch_size)
        times = {"one core": loading(task, batch_size, 0, o)}
        times["two cores"] = loading(task, batch_size, 2, o)
        data = TaskData(task, batch_size)
        data.setup()
        one = next(iter(data.train_dataloader()))
        times["small step on two cores"] = step_here(task, one, o)
        lengths = getattr(data.parts.train, "lengths", None)
        length = task.length if lengths is None else float(lengths.mean())
        times[RECKONED] = [step_reckoned(depth, width, batch_size, length)]
        middle = {key: statistics.median(seconds) for key, seconds in times.items()}
        best = min(middle["one core"], middle["two cores"])
        found["seconds"] |= {f"{case} | {key}": seconds for key, seconds in times.items()}
        found["ratios"][case] = {k: s / best for k, s in middle.items() if "step" in k}
        print(case, *(f"{key} {1e3 * s:.3g} ms" for key, s in middle.items()), sep="\n  ")
    return found


def claimed(result: dict[str, Any]) -> Claims:
    """Loading is as fast as wanted, for every task: the smallest ratio of its models."""
    least: dict[str, float] = {}
    claims: Claims = {}
    text = f"at least {WANTED} times as fast as"
    for case, ratios in result["ratios"].items():
        name, kept = case.split(",")[0], dict(ratios)
        if result["seconds"][f"{case} | {RECKONED}"][0] < LAUNCHES:
            ratio = kept.pop(RECKONED)
            claims[f"{case}: {text} a {RECKONED} without launches ({ratio:.1f})"] = None
        least[name] = min(least.get(name, math.inf), *kept.values())
    each = f"{text} any of its steps"
    return claims | {f"{name}: {each} ({x:.1f})": x >= WANTED for name, x in least.items()}


def main(argv: list[str] | None = None) -> int:
    """Make, check, load, print and save."""
    parser = options(__doc__, repeats=3)
    parser.add_argument("--batches", type=int, default=500, help="of a round, default 500")
    parser.add_argument("--sequences", type=int, default=2000, help="of a task that is drawn")
    o = begin(parser, argv)
    if o.smoke:
        o.batches, o.sequences = 3, 140
    warnings.filterwarnings("ignore", message=".*fork.*", category=DeprecationWarning)
    sizes = {"batches": o.batches, "sequences": o.sequences}
    result: dict[str, Any] = {"benchmark": "loading", "sizes": sizes}
    result |= {"error": {}, "seconds": {}, "ratios": {}}
    with tempfile.TemporaryDirectory() as folder:
        reviews(Path(folder), o.sequences // 2)
        recordings(Path(folder), o.sequences // 10)
        for name, task in tasks(folder, o).items():
            task.prepare()
            for key, found in measure(name, task, o).items():
                result[key] |= found
    for case, error in result["error"].items():
        print(f"error of {case}: {error:g}")
    if any(result["error"].values()):
        print("a batch is wrong: nothing is claimed")
        return 1
    return finish(o, "loading", result, claimed(result))


if __name__ == "__main__":
    sys.exit(main())
