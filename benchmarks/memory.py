"""Peak memory of kernels and of whole layers at 65,536 samples.

    python benchmarks/memory.py [--threads 1] [--L 65536]

*Kernels* of 16 channels, N = 64, as a multiple of the kernel's own bytes, by every route. The usual
implementation of a diagonal kernel writes an (H, N/2, L) table down, that of the full S4 an (H, 4,
L) or an (H, N/2, L) one. *Layers*, S4D and S4, N = 64, batch 1, 128 channels, forward and backward
with the gradient by the input, as a multiple of the input's bytes; and beside them what they are
built of: `causal_conv`, `fused_conv` (with D) and `diag_chunks` on signals of that size.

What is measured is everything in memory at once, whoever allocated it: the largest resident set of
a process of its own with the work done, less what was resident just before, when the same work had
been done at a 64th of the length (libraries and threads are there then). The C library is told to
give freed blocks of 64 KiB and more back at once (MALLOC_MMAP_THRESHOLD_); else some of what
counted would be free blocks that it keeps. First, every kernel is held against the float64 one, and
every other value and gradient against its own float64 self, by the rule of twice the twin's error
or 1e-6 (the larger sizes at an eighth of the length: errors do not depend on it, memory of the
naive twins does).

Prints PASS or FAIL for the claims that no route of a kernel reaches N/2 times the kernel, and that
no layer takes more than 12 times its input. Writes benchmarks/results/memory-<cpu>.json, and exits
1 if something is wrong or a claim fails.
"""

import argparse
import copy
import sys
from collections.abc import Callable

import torch
from common import Claims, begin, finish, options
from fresh import added_by, child
from torch import Tensor, nn
from truth import RIGHT, gradients, in_double, judge, refuse, relative
from twins import Naive, run, system

from s4lite.nn.layer import S4, S4D
from s4lite.ops.chunk import diag_chunks
from s4lite.ops.conv import causal_conv
from s4lite.ops.dplr import dplr_kernel
from s4lite.ops.fused_conv import fused_conv
from s4lite.ops.vandermonde import diag_kernel, log_discretize, vandermonde

KERNEL, LAYER, CLAIMED, MOST = (16, 64), (128, 64), 65536, 12  # (H, N), (H, N), L, times the input
ROUTES = {"diagonal": "", "dense": "dense", "cauchy": "cauchy", "circle": "circle"}
ERRORS = {"diagonal": 5e-6, "dense": 5e-6, "cauchy": 2e-5, "circle": 2e-5}
LAYERS = {"S4D": S4D, "S4": S4}
PARTS = ("causal_conv", "fused_conv", "diag_chunks")


def kernel(route: str, leaves: list[Tensor], L: int) -> Tensor:
    """The kernel (H, L) by one of the routes."""
    Lambda, P, B, C, dt = leaves
    if route == "diagonal":
        return diag_kernel(Lambda, B, C, dt, L)
    return dplr_kernel(Lambda, P, B, C, dt, L, route=ROUTES[route])


def kernel_error(route: str, leaves: list[Tensor], L: int) -> float:
    """Largest error of the float32 kernel, relative to the largest entry of the float64 one."""
    with torch.no_grad():
        want = kernel("diagonal" if route == "diagonal" else "dense", in_double(leaves), L)
        return relative(kernel(route, leaves, L), want)


def kernel_work(route: str, way: str, H: int, N: int, L: int) -> list[Tensor]:
    """What is measured of a kernel."""
    leaves = system("S4", H, N)
    if way == "forward":
        return [kernel(route, [x.detach() for x in leaves], L)]
    return gradients(kernel(route, leaves, L), leaves[3:])


def layer_of(kind: str, H: int, N: int) -> nn.Module:
    torch.manual_seed(0)
    return LAYERS[kind](H, N)


def part_work(part: str, H: int, N: int) -> Callable[..., list[Tensor]]:
    """Forward and backward of something a layer is built of, as a function of u."""
    Lambda, B, C, dt = (x.detach() for x in system("S4D", H, N))
    nu, phi = log_discretize(Lambda, dt)
    modes = [x.to(torch.complex128).contiguous() for x in (nu, phi * B, C)]
    D = torch.ones(H)

    def walk(u: Tensor) -> list[Tensor]:
        leaves = [x.clone().requires_grad_() for x in modes]
        if part == "diag_chunks":
            return gradients(diag_chunks(*leaves, u)[0], [u, *leaves])
        K = vandermonde(modes[2] * modes[1], modes[0], u.shape[-1], u.dtype).requires_grad_()
        if part == "fused_conv":
            return gradients(fused_conv(u, K, D.to(u.dtype)), [u, K])
        return gradients(causal_conv(u, K), [u, K])

    return walk


def signal(what: str, H: int, L: int) -> Tensor:
    """The input: (1, L, H) of a layer, (1, H, L) of what it is built of."""
    shape = (1, L, H) if what in LAYERS else (1, H, L)
    return torch.randn(shape, generator=torch.Generator().manual_seed(1)).requires_grad_()


def work(what: str, way: str, H: int, N: int, L: int) -> list[Tensor]:
    """What a child process does."""
    if what in ROUTES:
        return kernel_work(what, way, H, N, L)
    u = signal(what, H, L)
    return run(layer_of(what, H, N), u) if what in LAYERS else part_work(what, H, N)(u)


def check_layer(what: str, H: int, N: int, L: int, result: dict) -> bool:
    """Hold a layer, or a part of one, against float64; True if it is right."""
    u = signal(what, H, L)
    wide = u.detach().double().requires_grad_()
    if what in LAYERS:
        layer = layer_of(what, H, N)
        fast, twin = (lambda: run(layer, u)), (lambda: run(Naive(layer), u))
        want = run(copy.deepcopy(layer).double(), wide)
    else:
        part = part_work(what, H, N)
        fast, twin, want = (lambda: part(u)), None, part(wide)
    found, complaints = judge({"fast": fast}, twin, want)
    result["error"][what] = found
    return not refuse(what, found, complaints)


def check_kernels(H: int, N: int, L: int, result: dict) -> bool:
    """Hold all routes against float64; True if they are right."""
    leaves = system("S4", H, N)
    gaps = {route: kernel_error(route, leaves, L) for route in ROUTES}
    result["error"] |= {route: {"fast": {"value": gap}} for route, gap in gaps.items()}
    bad = [r for r, gap in gaps.items() if not gap <= ERRORS[r]]
    return not refuse("kernel", {r: {"value": gap} for r, gap in gaps.items()}, bad)


def measure(what: str, way: str, o: argparse.Namespace, size: int) -> float:
    """Added bytes of a fresh process, as a multiple of `size`."""
    job = "--work", what, way, f"--threads={o.threads}", f"--L={o.L}"
    job = (*job, "--smoke") if o.smoke else job
    return child(__file__, *job, MALLOC_MMAP_THRESHOLD_="65536")["added"] / size


def claimed(share: dict, N: int) -> Claims:
    """What is claimed, and whether it holds."""
    worst, limit = max(x for route in ROUTES for x in share[route].values()), N / 2
    claims: Claims = {
        RIGHT: True,
        f"kernels: all below N/2 = {limit:g} times the kernel ({worst:.1f})": worst < limit,
    }
    for kind in LAYERS:
        found = share[kind]["backward"]
        text = f"{kind} layer: at most {MOST} times its input ({found:.1f})"
        claims[text] = found <= MOST
    return claims


def main(argv: list[str] | None = None) -> int:
    parser = options(__doc__, repeats=1)
    parser.add_argument("--L", type=int, default=CLAIMED, help="length, default 65536")
    parser.add_argument("--work", nargs=2, metavar=("WHAT", "WAY"), help=argparse.SUPPRESS)
    o = begin(parser, argv)
    (H, N), (d, n) = ((2, 8), (8, 8)) if o.smoke else (KERNEL, LAYER)
    o.L = min(o.L, 512) if o.smoke else o.L
    if o.work:
        size = (H, N) if o.work[0] in ROUTES else (d, n)
        few = max(8, o.L // 64)  # all else alike: other widths may bring other libraries to life
        added_by(lambda: work(*o.work, *size, few), lambda: work(*o.work, *size, o.L))
        return 0

    sizes = {"kernels": {"H": H, "N": N}, "layers": {"batch": 1, "H": d, "N": n}, "L": o.L}
    head = "peak memory of kernels and layers, float32"
    result: dict = {"benchmark": head, "sizes": sizes, "error": {}, "seconds": {}, "share": {}}
    print(f"L = {o.L}, kernels: H = {H}, N = {N}; layers: batch 1, H = {d}, N = {n}")
    ready = [check_kernels(H, N, o.L, result)]
    ready += [check_layer(what, d, n, max(1, o.L // 8), result) for what in (*LAYERS, *PARTS)]
    if not all(ready):
        return 1
    jobs = [(r, way, 4 * H * o.L) for r in ROUTES for way in ("forward", "backward")]
    jobs += [(what, "backward", 4 * d * o.L) for what in (*LAYERS, *PARTS)]
    jobs = [jobs[0], jobs[-1]] if o.smoke else jobs
    print("peak memory as a multiple of the kernel's own (layers and parts: of the input's):")
    for what, way, size in jobs:
        share = measure(what, way, o, size)
        result["share"].setdefault(what, {})[way] = share
        print(f"  {what:12} {way:9} {share:6.1f}")
    if o.smoke or o.L != CLAIMED:
        return finish(o, f"memory-{o.L}", result, {})
    return finish(o, "memory", result, claimed(result["share"], N))


if __name__ == "__main__":
    sys.exit(main())
