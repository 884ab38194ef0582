"""What the benchmarks share: options, timing in turn, environment, claims, JSON.

Whoever imports this gets the package of this very tree, installed or not.
"""

import argparse
import hashlib
import json
import os
import platform
import re
import statistics
import sys
import time
from collections.abc import Callable
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import torch

HERE = Path(__file__).resolve().parent
RESULTS = HERE / "results"
sys.path.insert(1, str(HERE.parent))

LOAD = round(os.getloadavg()[0], 2) if hasattr(os, "getloadavg") else None  # before our own work
VERSIONS = ("torch", "numpy", "triton", "s5-pytorch", "mambapy", "pykeops")
Claims = dict[str, bool | None]  # what is claimed, with the number found; None: not run


def options(doc: str, *, threads: int = 1, repeats: int = 15) -> argparse.ArgumentParser:
    """The options that every benchmark has."""
    about = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(description=doc, formatter_class=about)
    parser.add_argument("--threads", type=int, default=threads, help=f"default {threads}")
    parser.add_argument("--repeats", type=int, default=repeats, help=f"rounds, default {repeats}")
    parser.add_argument(
        "--smoke", action="store_true", help="tiny sizes, one round: nothing claimed or written"
    )
    return parser


def begin(parser: argparse.ArgumentParser, argv: list[str] | None) -> argparse.Namespace:
    """Read the options, and set the number of threads."""
    o = parser.parse_args(argv)
    o.repeats = 1 if o.smoke else o.repeats
    if o.repeats < 1 or o.threads < 1:
        parser.error(f"want repeats and threads >= 1, got {o.repeats} and {o.threads}")
    torch.set_num_threads(o.threads)
    return o


def processor() -> str:
    """The product name of the CPU."""
    try:
        for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
            if line.startswith("model name"):
                return line.split(":", 1)[1].strip()
    except OSError:
        pass
    return platform.processor() or platform.machine()


def versions() -> dict[str, str]:
    """Versions of Python and of the libraries that are there."""
    found = {"python": platform.python_version()}
    for name in VERSIONS:
        try:
            found[name] = torch.__version__ if name == "torch" else version(name)
        except PackageNotFoundError:
            continue
    return found


def environment(threads: int) -> dict[str, Any]:
    """Hardware, how busy it was, and versions, for the record."""
    return {
        "date": time.strftime("%Y-%m-%d", time.gmtime()),
        "cpu": processor(),
        "threads": threads,
        "cores": os.cpu_count(),
        "load": LOAD,
        "system": f"{platform.system()} {platform.machine()}",
        **versions(),
    }


def alternate(calls: dict[str, Callable[[], Any]], repeats: int) -> dict[str, list[float]]:
    """Seconds of each call: one warm-up each, then all of them in turn, `repeats` times.

    In turn, because a busy machine then disturbs all alike; and every round begins with another
    one, so that nobody always follows the same neighbour.
    """
    seconds: dict[str, list[float]] = {name: [] for name in calls}
    for call in calls.values():
        call()
    names = list(calls)
    for i in range(repeats):
        k = i % len(names)
        for name in names[k:] + names[:k]:
            start = time.perf_counter()
            calls[name]()
            seconds[name].append(time.perf_counter() - start)
    return seconds


def ratios(slow: list[float], fast: list[float]) -> dict[str, float]:
    """Median and extremes of slow / fast, round by round."""
    each = sorted(s / f for s, f in zip(slow, fast, strict=True))
    return {"median": statistics.median(each), "lowest": each[0], "highest": each[-1]}


def show_times(seconds: dict[str, list[float]], unit: float = 1e3, name: str = "ms") -> None:
    """Print the median and the spread of every contender."""
    width = max(map(len, seconds))
    for contender, times in seconds.items():
        t = sorted(unit * s for s in times)
        spread = f"({t[0]:.3g} to {t[-1]:.3g})"
        print(f"  {contender:{width}}  {statistics.median(t):8.4g} {name}  {spread}")


def spread(ratio: dict[str, float]) -> str:
    """A ratio in words."""
    return f"{ratio['median']:.2f} ({ratio['lowest']:.2f} to {ratio['highest']:.2f})"


def say(claims: Claims) -> None:
    """Print PASS, FAIL or not run for every claim."""
    words = {True: "PASS   ", False: "FAIL   ", None: "not run"}
    for claim, holds in claims.items():
        print(f"{words[holds]}  {claim}")


def finish(o: argparse.Namespace, name: str, result: dict[str, Any], claims: Claims) -> int:
    """Print the claims, write results/<name>-<cpu>.json, return the exit status."""
    if o.smoke:
        print("smoke: nothing is claimed, nothing is written")
        return 0
    say(claims)
    head = {"benchmark": result.pop("benchmark"), "sizes": result.pop("sizes")}
    result = {**head, "environment": environment(o.threads), **result, "claims": claims}
    print(f"wrote {write(RESULTS / file_name(name, processor()), result).name}")
    return 1 if False in claims.values() else 0


def file_name(name: str, hardware: str) -> str:
    """<name>-<hardware>.json, the product's name in small letters and dashes."""
    return f"{name}-{re.sub(r'[^a-z0-9]+', '-', hardware.lower()).strip('-')}.json"


def write(path: Path, result: dict[str, Any]) -> Path:
    """Write JSON whole or not at all: a run that is cut off leaves no half of a file."""
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_suffix(".part")
    part.write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")
    part.replace(path)
    return path


def digest() -> str:
    """A fingerprint of package, benchmarks and versions: results of other code are stale."""
    files = sorted([*HERE.glob("*.py"), *(HERE.parent / "s4lite").rglob("*.py")])
    parts = [json.dumps(versions()).encode(), *(file.read_bytes() for file in files)]
    return hashlib.sha256(b"".join(parts)).hexdigest()[:16]
