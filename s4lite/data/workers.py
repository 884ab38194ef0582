"""Home: chapter 18, "Long Range Arena" (chapters/18_long_range_arena.ipynb)."""

import contextlib
import multiprocessing
import os
import sys
import threading
import warnings
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ProcessPoolExecutor
from itertools import islice

from s4lite.data.draws import check_whole

__all__ = ["cores", "in_order", "progress"]


"""Work shared out among processes, handed back in order, and watched while it lasts."""


def cores() -> int:
    """How many processor cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


@contextlib.contextmanager
def progress(what: str, total: int) -> Iterator[Callable[[int], object]]:
    """Show on stderr how far long work is, if it is a terminal and tqdm is installed.

    Args:
        what   str  is being made
        total  int  how many there will be
    Returns:
        context of a function done(n), to be told of every n that are finished
    """
    try:
        from tqdm import tqdm
    except ModuleNotFoundError:
        yield lambda n: None
        return
    with tqdm(total=total, desc=what, delay=2, disable=None, leave=False) as bar:
        yield bar.update


def in_order(call: Callable, jobs: Iterable, workers: int = 1) -> Iterator:
    """Yield call(job) for each job, in the order of the jobs, whoever does the work.

    Args:
        call     callable  of one argument; a function of a module, where workers > 1
        jobs     iterable  may be endless: it is read only a little ahead
        workers  int       processes, >= 1; 1 works in this one
    Returns:
        iterator over the results; closing it early gives up what was begun
    Raises:
        TypeError, ValueError: if workers is no int, or < 1.
    """
    check_whole(workers=workers)
    alone = (call(job) for job in jobs)
    return alone if workers == 1 else _pooled(call, iter(jobs), workers)


def _end_together() -> None:
    """In a worker: end when the process that started it does, be it killed."""

    def wait() -> None:
        multiprocessing.parent_process().join()
        os._exit(1)

    threading.Thread(target=wait, daemon=True).start()


def _pooled(call: Callable, jobs: Iterator, workers: int) -> Iterator:
    """Keep two jobs a worker in flight; forked where that is possible, as torch's loaders are."""
    method = "fork" if sys.platform == "linux" else "spawn"
    context = multiprocessing.get_context(method)
    pool = ProcessPoolExecutor(workers, mp_context=context, initializer=_end_together)
    try:
        with warnings.catch_warnings():  # Python 3.12 warns of any fork beside threads
            warnings.simplefilter("ignore", DeprecationWarning)
            waiting = deque(pool.submit(call, job) for job in islice(jobs, 2 * workers))
        while waiting:
            yield waiting.popleft().result()
            waiting.extend(pool.submit(call, job) for job in islice(jobs, 1))
    finally:
        pool.shutdown(cancel_futures=True)
