"""Do the generated tasks of the Long Range Arena obey their laws, and how fast are they drawn?

    python benchmarks/generators.py [--expressions 20000] [--images 20000] [--large 1000] [--smoke]

ListOps: the share of trees kept, the quantiles of the lengths and the shares of the values, beside
the exact law of the lengths; every value is computed again by a parser of its own, from text; the
ladder of baselines. Pathfinder: labels, dashes counted in the pixels, a linear reader of pooled
pixels and a reader of the distance of the discs, each on images that it was not fitted to.

Speed is that of one core, in seconds of processor time, so that a busy machine does not count; the
time on 16 cores is that divided by 16. Prints PASS or FAIL for every claim, writes
benchmarks/results/generators-<cpu>.json, and exits 1 if a claim fails.
"""

import math
import sys
import time
from typing import Any

import numpy as np
from common import begin, finish, options

from s4lite.data.ladder import known_to_depth
from s4lite.data.listops import generate_listops
from s4lite.data.pathfinder import Images, generate_pathfinder
from s4lite.data.trees import VOCABULARY

CORES = 16
WANTED = {32: 10 * 60, 128: 60 * 60}  # seconds for 200,000 images on 16 cores


def parse(words: list[str]) -> int:
    """The value of an expression, by recursion over its words; eats them."""
    word = words.pop(0)
    if not word.startswith("["):
        return int(word)
    args = []
    while words[0] != "X":
        args.append(parse(words))
    words.pop(0)
    median = lambda a: int(np.median(a))  # noqa: E731
    rule = {"[MIN": min, "[MAX": max, "[MED": median, "[SM": lambda a: sum(a) % 10}
    return rule[word](args)


def length_law(top: int = 2000) -> np.ndarray:
    """The probability that a tree has n tokens, n = 0 .. top - 1, by convolution."""
    digit = (np.arange(top) == 1).astype(float)
    p = digit
    for _ in range(9):
        power, lists = p, np.zeros(top)
        for _ in range(9):
            power = np.convolve(power, p)[:top]
            lists += power / 9
        p = 0.75 * digit + 0.25 * np.pad(lists, (2, 0))[:top]
    return p


def expressions(count: int) -> tuple[dict[str, Any], dict[str, bool]]:
    """What ListOps is like."""
    start = time.process_time()
    drawn = generate_listops(count, 0)
    seconds = time.process_time() - start
    law, each = length_law()[501:], np.diff(drawn.ends, prepend=0)
    kept, share = law.sum(), count / drawn.attempts
    exact = [int(501 + np.searchsorted(law.cumsum(), q * kept)) for q in (0.05, 0.5, 0.95)]
    got = np.percentile(each, [5, 50, 95])
    texts = ([VOCABULARY[t] for t in drawn.expression(i)] for i in range(min(count, 2000)))
    right = all(parse(text) == value for text, value in zip(texts, drawn.values, strict=False))
    test, pool = (generate_listops(2000, seed) for seed in (1, 2))
    ladder = {f"depth {k}": known_to_depth(test, pool, k) for k in range(5)}
    labels = np.bincount(drawn.values, minlength=10) / count
    facts = {
        "kept": share,
        "kept, exact": float(kept),
        "mean length": float(each.mean()),
        "mean length, exact": float((np.arange(501, 2000) * law).sum() / kept),
        "lengths at 5, 50, 95 %": got.tolist(),
        "lengths at 5, 50, 95 %, exact": exact,
        "shares of the values": labels.round(4).tolist(),
        "most frequent value": float((test.values == np.bincount(pool.values).argmax()).mean()),
        "ladder": ladder,
        "expressions a second and core": count / seconds,
        "seconds for 100,000 on 16 cores": 1e5 * seconds / count / CORES,
    }
    claims = {
        "8.2 % +- 0.5 of the trees are kept": abs(share - 0.082) < 0.005,
        "the exact share is kept": abs(share - kept) < 5 * math.sqrt(kept / drawn.attempts),
        "lengths as the exact law says": bool(np.abs(got / exact - 1).max() < 0.03),
        "values as another parser finds them": right,
        "0 and 9 make 17 % each, the others 7 to 9.5 %": bool(
            np.abs(labels[[0, 9]] - 0.17).max() < 0.015
            and 0.06 < labels[1:9].min() <= labels[1:9].max() < 0.1
        ),
        "the root's operator alone gives 36.5 % +- 3": abs(ladder["depth 0"] - 0.365) < 0.03,
    }
    return facts, claims


def accuracy(X: np.ndarray, label: np.ndarray) -> float:
    """Fit labels linearly on the first half, and say how often the sign is right on the second."""
    X = np.c_[(X - X.mean(0)) / (X.std(0) + 1e-9), np.ones(len(X))]
    half, y = len(X) // 2, 2.0 * label - 1
    gram = X[:half].T @ X[:half] + 1e-3 * half * np.eye(X.shape[1])
    weights = np.linalg.solve(gram, X[:half].T @ y[:half])
    return float(((X[half:] @ weights > 0) == (y[half:] > 0)).mean())


def readers(images: Images) -> dict[str, float]:
    """How often stupid readers are right."""
    n, size, _ = images.pixels.shape
    pooled = images.pixels.reshape(n, 8, size // 8, 8, size // 8).mean((2, 4)).reshape(n, -1)
    apart = np.linalg.norm(np.diff(images.discs.astype(float), axis=1)[:, 0], axis=-1)
    boxes = np.digitize(apart, np.quantile(apart, np.linspace(0, 1, 17)[1:-1]))
    return {
        "linear, pooled pixels": accuracy(pooled, images.labels),
        "linear, brightness": accuracy(images.pixels.mean((1, 2))[:, None], images.labels),
        "distance of the discs, 16 boxes": accuracy(np.eye(16)[boxes], images.labels),
    }


def contours(size: int, count: int) -> tuple[dict[str, Any], dict[str, bool]]:
    """What Pathfinder of a size is like."""
    generate_pathfinder(1, 9, size)  # the pictures of dashes, made once
    start = time.process_time()
    images = generate_pathfinder(count, 0, size)
    rate = count / (time.process_time() - start)
    gaps = np.linalg.norm(np.diff(images.lines.mean(3), axis=2), axis=-1)  # dash to dash
    ones, sigma = float(images.labels.mean()), 0.5 / math.sqrt(count)
    facts = {
        "images a second and core": rate,
        "seconds for 200,000 on 16 cores": 2e5 / rate / CORES,
        "pairs of contours begun for an image": float(images.grown.mean()),
        "ones": ones,
        "dashes in a contour": images.lines.shape[2],
        "from dash to dash, least, mean, most": [float(f(gaps)) for f in (np.min, np.mean, np.max)],
        "mean grey value": float(images.pixels.mean()),
        "pixels above 0": float((images.pixels > 0).mean()),
        "right answers": readers(images),
    }
    linear = facts["right answers"]["linear, pooled pixels"]
    claims = {
        f"{size}: labels balanced within 4 sigma": abs(ones - 0.5) < 4 * sigma,
        f"{size}: linear reader at chance within 4 sigma": abs(linear - 0.5) < 4 * 2**0.5 * sigma,
        f"{size}: 14 dashes in every long contour": images.lines.shape[1:3] == (2, 14),
    }
    if size in WANTED:
        fast = facts["seconds for 200,000 on 16 cores"] < WANTED[size]
        claims[f"{size}: 200,000 on 16 cores in {WANTED[size] // 60} minutes"] = fast
    return facts, claims


def main(argv: list[str] | None = None) -> int:
    """Draw, check, print and save."""
    ask = options(__doc__, repeats=1)
    ask.add_argument("--expressions", type=int, default=20_000)
    ask.add_argument("--images", type=int, default=20_000, help="of 32 pixels a side")
    ask.add_argument("--large", type=int, default=1_000, help="of 64, 128 and 256 pixels a side")
    o = begin(ask, argv)
    if o.smoke:
        o.expressions, o.images, o.large = 200, 200, 4
    sizes = {"expressions": o.expressions, "images": o.images, "large": o.large}
    result: dict[str, Any] = {"benchmark": "generated tasks of the Long Range Arena"}
    result |= {"sizes": sizes, "error": {}, "seconds": {}}
    result["listops"], claims = expressions(o.expressions)
    for size in (32, 64, 128, 256):
        found, more = contours(size, o.images if size == 32 else o.large)
        result[f"pathfinder{size}"], claims = found, claims | more
    for task in ("listops", *(f"pathfinder{size}" for size in (32, 64, 128, 256))):
        print(task, *(f"  {name}: {value}" for name, value in result[task].items()), sep="\n")
    return finish(o, "generators", result, {name: bool(holds) for name, holds in claims.items()})


if __name__ == "__main__":
    sys.exit(main())
