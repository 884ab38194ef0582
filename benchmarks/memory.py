"""How much memory a kernel of 65,536 lags needs, as a multiple of the kernel itself.

    python benchmarks/memory.py [--H 16] [--N 64] [--L 65536] [--threads 1]

The usual implementation of a diagonal kernel writes an (H, N/2, L) table down, that of the full S4
an (H, 4, L) or an (H, N/2, L) one. What is measured here is everything that a kernel of ours,
(H, L) in float32, has in memory on its way: the largest resident set of a process of its own with
the work done, less that of the same process just before, divided by the bytes of the kernel. The C
library is told to give freed blocks of 64 KiB and more back at once (MALLOC_MMAP_THRESHOLD_); else
some of what counted would be free blocks that it keeps. Before anything is measured, every kernel
is held against the float64 one.

Prints PASS or FAIL for the claim that no road reaches N/2 times the kernel, forward or with the
backward pass, writes benchmarks/results/memory-<cpu>.json, and exits 1 if the claim fails.
"""

import argparse
import gc
import json
import sys

import torch
from common import child, environment, peak_memory, save
from torch import Tensor

from s4lite.init.nplr import nplr
from s4lite.ops.dplr import dplr_kernel
from s4lite.ops.vandermonde import diag_kernel

CLAIMED = 16, 64, 65536  # the sizes H, N, L at which the following is claimed
ROADS = {"diagonal": "", "dense": "dense", "cauchy": "cauchy", "circle": "circle"}
ERRORS = {"diagonal": 5e-6, "dense": 5e-6, "cauchy": 2e-5, "circle": 2e-5}


def parameters(H: int, N: int) -> list[Tensor]:
    """Lambda, P, B as in a layer (one for all channels), C and dt of H channels; all leaves."""
    g, start = torch.Generator().manual_seed(0), nplr("legs", N)
    C = torch.randn(H, N // 2, dtype=torch.complex64, generator=g)
    dt = torch.empty(H).uniform_(-6.9, -2.3, generator=g).exp()  # from 0.001 to 0.1
    shared = [x.to(torch.complex64) for x in (start.Lambda, start.P, start.B)]
    return [x.requires_grad_() for x in (*shared, C, dt)]


def kernel(road: str, leaves: list[Tensor], L: int) -> Tensor:
    """The kernel (H, L) by one of the roads."""
    Lambda, P, B, C, dt = leaves
    if road == "diagonal":
        return diag_kernel(Lambda, B, C, dt, L)
    return dplr_kernel(Lambda, P, B, C, dt, L, route=ROADS[road])


def error(road: str, leaves: list[Tensor], L: int) -> float:
    """Largest error of the float32 kernel, relative to the largest entry of the float64 one."""
    exact = [x.detach().to(torch.promote_types(x.dtype, torch.float64)) for x in leaves]
    with torch.no_grad():
        truth = kernel("diagonal" if road == "diagonal" else "dense", exact, L)
        return float((kernel(road, leaves, L) - truth).abs().max() / truth.abs().max())


def memory(road: str, way: str, H: int, N: int, L: int, threads: int) -> None:
    """In a child process: print what one pass adds to the resident set."""
    torch.set_num_threads(threads)
    small, leaves = parameters(2, N), parameters(H, N)
    work = {
        "forward": lambda x, L: kernel(road, [y.detach() for y in x], L),
        "backward": lambda x, L: torch.autograd.grad(kernel(road, x, L).square().sum(), x[3:]),
    }[way]
    work(small, 1024)  # threads, kernels and libraries come to life
    gc.collect()
    before = peak_memory()
    kept = work(leaves, L)
    print(json.dumps({"added": peak_memory() - before, "of": len(kept)}))


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--H", type=int, default=CLAIMED[0], help="channels")
    parser.add_argument("--N", type=int, default=CLAIMED[1], help="state size")
    parser.add_argument("--L", type=int, default=CLAIMED[2], help="length")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--memory", nargs=2, metavar=("ROAD", "WAY"), help=argparse.SUPPRESS)
    o = parser.parse_args()
    if o.memory:
        memory(*o.memory, o.H, o.N, o.L, o.threads)
        return 0

    torch.set_num_threads(o.threads)
    leaves = parameters(o.H, o.N)
    wrong = {road: error(road, leaves, o.L) for road in ROADS}
    print(f"H = {o.H}, N = {o.N}, L = {o.L}, float32, {o.threads} threads")
    print("error: " + ", ".join(f"{road} {e:.1e}" for road, e in wrong.items()))
    if any(wrong[road] > ERRORS[road] for road in ROADS):
        print("FAIL  the results are not right: nothing is measured")
        return 1

    size, sizes = 4 * o.H * o.L, [f"--{k}={v}" for k, v in vars(o).items() if k != "memory"]
    share: dict[str, dict[str, float]] = {road: {} for road in ROADS}
    print("peak memory as a multiple of the kernel's own:")
    for road in ROADS:
        for way in ("forward", "backward"):
            job = "--memory", road, way, *sizes
            added = child(__file__, *job, MALLOC_MMAP_THRESHOLD_="65536")["added"]
            share[road][way] = added / size
        print(f"  {road:9} " + ", ".join(f"{way} {x:5.1f}" for way, x in share[road].items()))
    worst, limit = max(x for ways in share.values() for x in ways.values()), o.N / 2
    claim = f"all below N/2 = {limit:g} times the kernel ({worst:.1f})"
    claims, name = {claim: worst < limit}, "memory"
    if (o.H, o.N, o.L) != CLAIMED:
        claims, name = {}, f"memory-{o.H}-{o.N}-{o.L}"
        print("nothing is claimed at these sizes")
    for claim, holds in claims.items():
        print(f"{'PASS' if holds else 'FAIL'}  {claim}")
    result = {
        "benchmark": "peak memory of kernels as a multiple of the kernel, float32",
        "sizes": {"H": o.H, "N": o.N, "L": o.L},
        "environment": environment(o.threads),
        "error": wrong,
        "share": share,
        "claims": claims,
    }
    print(f"wrote {save(name, result).name}")
    return 0 if all(claims.values()) else 1


if __name__ == "__main__":
    sys.exit(main())
