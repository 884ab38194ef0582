"""Random numbers by address, and work shared out among processes: promises and refusals."""

import itertools
import math
import os
import subprocess
import sys
import time
import types
from pathlib import Path

import numpy as np
import pytest

from s4lite.data.draws import below, check_sizes, check_whole, child, unit
from s4lite.data.workers import cores, in_order, progress


def splitmix64(seed: int, count: int) -> list[int]:
    """The published generator in whole numbers: one output after the other."""
    out, state = [], seed
    for _ in range(count):
        state = (state + 0x9E3779B97F4A7C15) % 2**64
        z = state
        z = (z ^ (z >> 30)) * 0xBF58476D1CE4E5B9 % 2**64
        z = (z ^ (z >> 27)) * 0x94D049BB133111EB % 2**64
        out.append(z ^ (z >> 31))
    return out


@pytest.mark.parametrize("seed", [0, 1, 2**63 - 1, 2**64 - 1])
def test_children_are_the_outputs_of_splitmix(seed):
    assert child(seed, np.arange(50)).tolist() == splitmix64(seed, 50)


def test_first_output_of_seed_zero_is_the_published_one():
    assert int(child(0, 0)) == 0xE220A8397B1DCDAF


def test_keys_broadcast_and_differ():
    keys = child(child(3, np.arange(300))[:, None], np.arange(300))
    assert keys.shape == (300, 300) and keys.dtype == np.uint64
    assert len(np.unique(keys)) == 300 * 300


def test_units_are_uniform_and_below_one():
    x = unit(child(1, np.arange(200_000)))
    assert x.min() >= 0 and x.max() < 1
    assert abs(x.mean() - 0.5) < 5 / math.sqrt(12 * len(x))
    assert unit(np.array(2**64 - 1, np.uint64)) == 1 - 2**-53


@pytest.mark.parametrize("n", [1, 2, 7, 360])
def test_below_hits_every_number_alike(n):
    x = below(child(2, np.arange(100_000)), n)
    often = np.bincount(x, minlength=n) / 100_000
    assert len(often) == n and np.abs(often - 1 / n).max() < 5 * math.sqrt(1 / n / 100_000)


def test_check_whole():
    check_whole(0, 5, a=0, b=np.int64(5))
    with pytest.raises(TypeError, match="want a as an int, got float"):
        check_whole(a=1.0)
    with pytest.raises(TypeError, match="got bool"):
        check_whole(a=True)
    with pytest.raises(ValueError, match="want a >= 1, got 0"):
        check_whole(a=0)
    with pytest.raises(ValueError, match="want a >= 0 and <= 5, got 6"):
        check_whole(0, 5, a=6)


def test_check_sizes():
    check_sizes((1, 2, 3))
    with pytest.raises(ValueError, match="want sizes of train, val and test"):
        check_sizes((1, 2))
    with pytest.raises(ValueError, match="size of val >= 1, got 0"):
        check_sizes((1, 0, 3))


def slow_square(x: int) -> tuple[int, int]:
    return x * x, os.getpid()


@pytest.mark.parametrize("workers", [1, 2, 3])
def test_results_come_in_order(workers):
    results = [*in_order(slow_square, range(40), workers)]
    assert [value for value, _ in results] == [x * x for x in range(40)]
    assert (os.getpid() in {who for _, who in results}) == (workers == 1)


@pytest.mark.parametrize("workers", [1, 2])
def test_endless_jobs_are_read_only_a_little_ahead(workers):
    read = []
    jobs = (read.append(i) or i for i in itertools.count())
    results = in_order(slow_square, jobs, workers)
    assert [next(results)[0] for _ in range(5)] == [0, 1, 4, 9, 16]
    results.close()
    assert len(read) <= 5 + 2 * workers


def fail(x: int) -> int:
    raise RuntimeError(f"job {x}")


@pytest.mark.parametrize("workers", [1, 2])
def test_errors_come_through(workers):
    with pytest.raises(RuntimeError, match="job 0"):
        list(in_order(fail, range(3), workers))


ORPHANS = """
import os, time
from s4lite.data.workers import in_order

def who(x):
    time.sleep(0.01)
    return os.getpid()

results = in_order(who, iter(int, 1), 3)
print(*{next(results) for _ in range(60)}, flush=True)
time.sleep(60)
"""


def at_work(process: Path) -> bool:
    """Is there such a process?  One that has ended may be listed until somebody asks after it."""
    try:
        return "\nState:\tZ" not in (process / "status").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return False


@pytest.mark.skipif(sys.platform != "linux", reason="looks into /proc")
def test_workers_of_one_that_is_killed_end_too():
    line = [sys.executable, "-c", ORPHANS]
    with subprocess.Popen(line, stdout=subprocess.PIPE, text=True) as process:
        workers = [Path("/proc", number) for number in process.stdout.readline().split()]
        assert workers and all(map(at_work, workers))
        process.kill()
    late = time.monotonic() + 20
    while any(map(at_work, workers)) and time.monotonic() < late:
        time.sleep(0.05)
    assert not any(map(at_work, workers))


def test_workers_are_checked_at_once():
    with pytest.raises(ValueError, match="want workers >= 1, got 0"):
        in_order(slow_square, [1], 0)
    assert cores() >= 1


def test_progress_tells_what_is_done(monkeypatch):
    told = []

    class Bar:
        def __init__(self, **options):
            told.append(options)

        def __enter__(self):
            return self

        def __exit__(self, *_):
            told.append("closed")

        def update(self, n):
            told.append(n)

    monkeypatch.setitem(sys.modules, "tqdm", types.SimpleNamespace(tqdm=Bar))
    with pytest.raises(KeyError), progress("things", 7) as done:
        done(3), done(4)
        raise KeyError
    options, *rest = told
    assert (options["total"], options["desc"], options["disable"]) == (7, "things", None)
    assert rest == [3, 4, "closed"]


def test_progress_is_silent_without_tqdm_or_a_terminal(monkeypatch, capfd):
    with progress("things", 2) as done:
        done(2)
    monkeypatch.setitem(sys.modules, "tqdm", None)
    with progress("things", 2) as done:
        done(2)
    assert capfd.readouterr() == ("", "")
