"""Peak memory of a process of its own."""

import gc
import json
import os
import re
import resource
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any


def _status(field: str) -> int | None:
    """Bytes that Linux tells of this process; None elsewhere."""
    status = Path("/proc/self/status")
    if not status.is_file():
        return None
    found = re.search(rf"{field}:\s+(\d+) kB", status.read_text(encoding="utf-8"))
    return None if found is None else 1024 * int(found[1])


def peak_memory() -> int:
    """Bytes of the largest resident set that this process has had.

    Linux counts `ru_maxrss` on from the process that started this one; `VmHWM` begins at exec.
    """
    if (found := _status("VmHWM")) is not None:
        return found
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else 1024 * peak


def added_by(small: Callable[[], Any], work: Callable[[], Any]) -> None:
    """In a child process: print by how much the work raises the mark above what was there before.

    The small problem goes first: threads, kernels and libraries come to life, and stay. What it
    has given back by then is not counted as there before (where the system says so, on Linux).
    """
    small()
    gc.collect()
    before = _status("VmRSS") or peak_memory()
    kept = work()
    print(json.dumps({"added": peak_memory() - before, "before": before, "kept": len(kept)}))


def child(script: str, *arguments: str, **environ: str) -> dict[str, Any]:
    """Run a script of this folder in a process of its own; return the JSON that it prints last."""
    command = [sys.executable, script, *arguments]
    done = subprocess.run(command, capture_output=True, text=True, env=os.environ | environ)
    if done.returncode:
        raise RuntimeError(f"{Path(script).name} {' '.join(arguments)} failed:\n{done.stderr}")
    return json.loads(done.stdout.strip().splitlines()[-1])
