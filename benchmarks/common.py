"""What the benchmarks share: timing in turn, memory of a fresh process, environment, JSON."""

import json
import os
import platform
import re
import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

RESULTS = Path(__file__).resolve().parent / "results"


def processor() -> str:
    """The product name of the CPU."""
    try:
        for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
            if line.startswith("model name"):
                return line.split(":", 1)[1].strip()
    except OSError:
        pass
    return platform.processor() or platform.machine()


def environment(threads: int) -> dict[str, Any]:
    """Hardware and versions, for the record."""
    return {
        "cpu": processor(),
        "threads": threads,
        "system": f"{platform.system()} {platform.machine()}",
        "python": platform.python_version(),
        "torch": torch.__version__,
    }


def alternate(calls: dict[str, Callable[[], Any]], repeats: int) -> dict[str, list[float]]:
    """Seconds of each call: one warm-up each, then all of them in turn, `repeats` times.

    In turn, because a busy machine then disturbs all alike.
    """
    seconds: dict[str, list[float]] = {name: [] for name in calls}
    for call in calls.values():
        call()
    for _ in range(repeats):
        for name, call in calls.items():
            start = time.perf_counter()
            call()
            seconds[name].append(time.perf_counter() - start)
    return seconds


def ratios(slow: list[float], fast: list[float]) -> dict[str, float]:
    """Median and extremes of slow / fast, round by round."""
    each = sorted(s / f for s, f in zip(slow, fast, strict=True))
    return {"median": statistics.median(each), "lowest": each[0], "highest": each[-1]}


def peak_memory() -> int:
    """Bytes of the largest resident set that this process has had.

    Linux counts `ru_maxrss` on from the process that started this one; `VmHWM` begins at exec.
    """
    status = Path("/proc/self/status")
    if status.is_file():
        found = re.search(r"VmHWM:\s+(\d+) kB", status.read_text(encoding="utf-8"))
        if found:
            return 1024 * int(found[1])
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else 1024 * peak


def child(script: str, *arguments: str, **environ: str) -> dict[str, Any]:
    """Run a script of this folder in a process of its own; return the JSON that it prints last."""
    command = [sys.executable, script, *arguments]
    done = subprocess.run(command, capture_output=True, text=True, env=os.environ | environ)
    if done.returncode:
        raise RuntimeError(f"{Path(script).name} {' '.join(arguments)} failed:\n{done.stderr}")
    return json.loads(done.stdout.strip().splitlines()[-1])


def save(name: str, result: dict[str, Any]) -> Path:
    """Write results/<name>-<cpu>.json."""
    cpu = re.sub(r"[^a-z0-9]+", "-", processor().lower()).strip("-")
    RESULTS.mkdir(exist_ok=True)
    path = RESULTS / f"{name}-{cpu}.json"
    path.write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")
    return path
