"""A device to measure on: a GPU, or for the rehearsal a CPU with Triton's interpreter."""

import subprocess
import time
from collections.abc import Callable
from typing import Any

import torch
from common import environment

NO_GPU = "none: a rehearsal"


class Rig:
    """How long something takes on the device, and how much memory.

    Every timed call stands between two events. Before it, the second-level cache is filled with
    something else by reading a buffer of four times its size (read, not written: nothing is then
    left to be written back at the call's expense), and the device is kept waiting while the host
    queues the call: what is timed is the device's work, not Python's. Clocks are left alone.
    """

    def __init__(self, rehearse: bool) -> None:
        self.rehearse = rehearse
        self.device = torch.device("cpu" if rehearse else "cuda")
        if not rehearse:
            props = torch.cuda.get_device_properties(0)
            self.cache = getattr(props, "L2_cache_size", 2**26)
            self.other = torch.ones(max(4 * self.cache, 2**26) // 4, device="cuda")

    def wait(self) -> None:
        """Until the device has done all that was asked for."""
        if not self.rehearse:
            torch.cuda.synchronize()

    def once(self, call: Callable[[], Any], cycles: int) -> float:
        """Seconds of one call."""
        if self.rehearse:
            start = time.perf_counter()
            call()
            return time.perf_counter() - start
        begin, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        self.other.sum()
        torch.cuda._sleep(cycles)
        begin.record()
        call()
        end.record()
        torch.cuda.synchronize()
        return begin.elapsed_time(end) / 1e3

    def host_time(self, call: Callable[[], Any]) -> float:
        """Seconds that the host needs to queue a call, the device idle."""
        self.wait()
        start = time.perf_counter()
        call()
        took = time.perf_counter() - start
        self.wait()
        return took

    def times(self, calls: dict[str, Callable[[], Any]], rounds: int) -> dict[str, list[float]]:
        """Seconds of each call, all in turn, another one first in every round; warmed up."""
        rounds = 1 if self.rehearse else rounds
        found: dict[str, list[float]] = {name: [] for name in calls}
        cycles = {}
        for name, call in calls.items():
            for _ in range(0 if self.rehearse else 3):
                call()
            host = 0.0 if self.rehearse else self.host_time(call)
            cycles[name] = int(min(1.5 * host + 1e-4, 0.2) * 2e9)  # at some 2 GHz
        names = list(calls)
        for i in range(rounds):
            k = i % len(names)
            for name in names[k:] + names[:k]:
                found[name].append(self.once(calls[name], cycles[name]))
        return found

    def added_memory(self, call: Callable[[], Any]) -> int | None:
        """Bytes that a call adds at its peak to what is allocated before it; None on a CPU."""
        if self.rehearse:
            call()
            return None
        call()  # compiled, and libraries have their workspaces
        self.wait()
        before = torch.cuda.memory_allocated()
        torch.cuda.reset_peak_memory_stats()
        kept = call()
        self.wait()
        added = torch.cuda.max_memory_allocated() - before
        del kept
        return added

    def environment(self) -> dict[str, Any]:
        """Hardware and versions, for the record."""
        if self.rehearse:
            return environment(torch.get_num_threads()) | {"gpu": NO_GPU}
        props = torch.cuda.get_device_properties(0)
        found = {
            "gpu": props.name,
            "multiprocessors": props.multi_processor_count,
            "memory": props.total_memory,
            "cache": self.cache,
            "cuda": torch.version.cuda,
        }
        query = "driver_version,clocks.sm,clocks.max.sm,clocks.mem,power.draw,temperature.gpu"
        try:  # read only
            command = ["nvidia-smi", f"--query-gpu={query}", "--format=csv,noheader"]
            done = subprocess.run(command, capture_output=True, text=True, timeout=20)
            found["nvidia-smi"] = {query: done.stdout.strip()}
        except (OSError, subprocess.TimeoutExpired):
            pass
        return environment(torch.get_num_threads()) | found


def median(times: list[float]) -> float:
    """The middle one."""
    return sorted(times)[len(times) // 2]
