"""Random numbers by address: each is a function of a seed and of the place where it is used.

Home: chapter 18, "Long Range Arena" (chapters/18_long_range_arena.ipynb).
"""

import math
from collections.abc import Sequence

import numpy as np

__all__ = ["below", "check_sizes", "check_whole", "child", "unit"]


_GOLDEN = 0x9E3779B97F4A7C15
_MIX1 = 0xBF58476D1CE4E5B9
_MIX2 = 0x94D049BB133111EB


def child(key: np.ndarray | int, index: np.ndarray | int) -> np.ndarray:
    """Make the keys of places: the key of place `index` below each `key`.

    Args:
        key    (...)  keys; at the top the seed, 0 to 2^64 - 1
        index  (...)  whole numbers >= 0, broadcast against key
    Returns:
        key  (...)  uint64; a one-to-one function of key, and of index, while the other is held

    Source: Steele, Lea and Flood 2014 (SplitMix64's output function); our eq-arena-child.
    """
    with np.errstate(over="ignore"):
        z = np.asarray(key).astype(np.uint64)
        z = z + (np.asarray(index).astype(np.uint64) + np.uint64(1)) * np.uint64(_GOLDEN)
        z = (z ^ (z >> np.uint64(30))) * np.uint64(_MIX1)
        z = (z ^ (z >> np.uint64(27))) * np.uint64(_MIX2)
        return z ^ (z >> np.uint64(31))


def unit(key: np.ndarray | int) -> np.ndarray:
    """Turn keys (...) into numbers uniform on [0, 1), (...) float64: their 53 upper bits."""
    return (np.asarray(key, np.uint64) >> np.uint64(11)) * 2.0**-53


def below(key: np.ndarray | int, n: np.ndarray | int) -> np.ndarray:
    """Turn keys (...) into whole numbers uniform on 0 .. n - 1, (...) int64; n < 2^31."""
    return (unit(key) * n).astype(np.int64)


def check_whole(low: int = 1, high: float = math.inf, **numbers: int) -> None:
    """Raise unless every argument named is a whole number from low to high.

    Raises:
        TypeError: if one is no int.
        ValueError: if one is out of range.
    """
    for name, n in numbers.items():
        if isinstance(n, bool) or not isinstance(n, int | np.integer):
            raise TypeError(f"want {name} as an int, got {type(n).__name__}")
        if not low <= n <= high:
            upper = "" if high == math.inf else f" and <= {high}"
            raise ValueError(f"want {name} >= {low}{upper}, got {n}")


def check_sizes(sizes: Sequence[int]) -> None:
    """Raise TypeError or ValueError unless sizes are three whole numbers >= 1."""
    if len(sizes) != 3:
        raise ValueError(f"want sizes of train, val and test, got {sizes!r}")
    for name, size in zip(("train", "val", "test"), sizes, strict=True):
        check_whole(**{f"size of {name}": size})
