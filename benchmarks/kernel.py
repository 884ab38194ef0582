"""Kernels of S4D and S4, forward and backward, against their tables written down.

    python benchmarks/kernel.py [--threads 2] [--repeats 15] [--H 128] [--N 64] [--L 1024 16384]

Both forms compute the same kernel (H, L) and the gradients of half its squared norm, from the same
float32 parameters: `diag_kernel` and `dplr_kernel` with their own choice of route, and the naive
twins of `s4lite.ops.materialised`, which hold a number for every channel, mode and lag or node. All
are held against float64 first: an error may be twice that of the twin, or 1e-6 if that is more, for
the kernel and for the worst of all gradients, and two runs must give the same bits. Then they are
timed in one process and in turn (the longer length with a third of the rounds). Last, Cauchy sums
alone are timed beside pykeops, where that is installed, and peak memory is measured, S4D at the
longer length: each form in a process of its own.

Prints PASS or FAIL for the claims at the default sizes, writes
benchmarks/results/kernel-<cpu>.json, and exits 1 if something is wrong or a claim fails.
"""

import argparse
import sys
from collections.abc import Callable

import torch
from common import Claims, alternate, begin, finish, options, ratios, show_times, spread
from fresh import added_by, child
from peers import keops_sums
from torch import Tensor
from truth import EXACT, RIGHT, judge, refuse, relative
from twins import KERNELS, system, truth, work

from s4lite.ops.cauchy import cauchy, cauchy_naive
from s4lite.ops.genfunc import half_angles

CLAIMED = 128, 64, [1024, 16384]  # the sizes H, N, L at which the following is claimed
FASTER = {("S4D", 1024): 6, ("S4D", 16384): 40, ("S4", 1024): 4, ("S4", 16384): 40}
OTHERS = 1e-3  # error beyond which other people's sums are not worth timing
SMALLER = 0.1  # of the table's memory, S4D, the longer length


def forms(kind: str, o: argparse.Namespace, L: int) -> dict[str, Callable[[], list[Tensor]]]:
    """One kernel at one length, forward and backward: ours, and the table."""
    leaves = system(kind, o.H, o.N)
    calls = (lambda k=k: work(k, leaves, L) for k in KERNELS[kind])
    return dict(zip(("fast", "table"), calls, strict=True))


def check_kernel(kind: str, o: argparse.Namespace, L: int, result: dict) -> bool:
    """Hold one kernel at one length against float64; True if it is right."""
    calls, case = forms(kind, o, L), f"{kind}, L = {L}"
    want = truth(kind, system(kind, o.H, o.N), L)
    found, complaints = judge({"fast": calls["fast"]}, calls["table"], want)
    result["error"][case] = found
    return not refuse(case, found, complaints)


def time_kernel(kind: str, o: argparse.Namespace, L: int, result: dict) -> None:
    """Time both forms of one kernel at one length, in turn."""
    case = f"{kind}, L = {L}"
    seconds = alternate(forms(kind, o, L), max(1, o.repeats // (3 if L > 4096 else 1)))
    show_times({f"{case} {name}": t for name, t in seconds.items()})
    result["seconds"] |= {f"{case} | {name}": t for name, t in seconds.items()}
    result["ratios"][case] = ratios(seconds["table"], seconds["fast"])
    print(f"  {case}: table / fast, round by round: {spread(result['ratios'][case])}")


def check_sums(o: argparse.Namespace, L: int, result: dict) -> dict[str, Callable[[], Tensor]]:
    """Cauchy sums alone, forward: ours, the table, pykeops, if they are right; else nothing."""
    Lambda, P, B, C, dt = (x.detach() for x in system("S4", o.H, o.N))
    v = (C[:, None] * torch.stack([B, P[:, 0].conj()])) * dt[:, None, None]
    l, w = dt[:, None] * Lambda, half_angles(L, 0.5)
    want = cauchy_naive(v[:8].to(torch.complex128), l[:8].to(torch.complex128), w)
    keops, why = (None, "left out by --smoke") if o.smoke else keops_sums()
    calls = {"fast": lambda: cauchy(v, l, w), "table": lambda: cauchy_naive(v, l, w.to(v.dtype))}
    calls |= {"pykeops": lambda: keops(v, l, w)} if keops else {}
    gaps = {name: relative(call()[:8], want) for name, call in calls.items()}
    if gaps.get("pykeops", 0) > OTHERS:
        why = f"its sums are off by {gaps['pykeops']:.1e}"
        del calls["pykeops"]
    if "pykeops" not in calls:
        result["absent"]["pykeops"] = why
        print(f"  pykeops is left out: {why}")
    allowed = max(2 * gaps["table"], EXACT)
    bad = [] if gaps["fast"] <= allowed else [f"fast: error above the allowed {allowed:.1e}"]
    case, found = f"Cauchy sums, L = {L}", {name: {"value": gap} for name, gap in gaps.items()}
    result["error"][case] = found
    return {} if refuse(case, found, bad) else calls


def time_sums(calls: dict[str, Callable], o: argparse.Namespace, L: int, result: dict) -> None:
    """Time Cauchy sums alone, in turn."""
    seconds, case = alternate(calls, o.repeats), f"Cauchy sums, L = {L}"
    show_times({f"{case} {name}": t for name, t in seconds.items()})
    result["seconds"] |= {f"{case} | {name}": t for name, t in seconds.items()}


def memory(o: argparse.Namespace, L: int) -> dict[str, int]:
    """Bytes that one pass of S4D's kernel adds to a fresh process, by form."""
    sizes = [f"--threads={o.threads}", f"--H={o.H}", f"--N={o.N}", f"--L={L}"]
    return {form: child(__file__, "--form", form, *sizes)["added"] for form in ("fast", "table")}


def parse(argv: list[str] | None) -> argparse.Namespace:
    parser = options(__doc__, threads=2, repeats=15)
    parser.add_argument("--H", type=int, default=CLAIMED[0], help="channels, default 128")
    parser.add_argument("--N", type=int, default=CLAIMED[1], help="state size, default 64")
    parser.add_argument("--L", type=int, nargs="+", default=CLAIMED[2], help="lengths")
    parser.add_argument("--form", choices=("fast", "table"), help=argparse.SUPPRESS)
    return begin(parser, argv)


def main(argv: list[str] | None = None) -> int:
    o = parse(argv)
    if o.form:  # in a child process
        kernel = KERNELS["S4D"][o.form == "table"]
        leaves, few = system("S4D", o.H, o.N), max(8, o.L[0] // 64)
        added_by(lambda: work(kernel, leaves, few), lambda: work(kernel, leaves, o.L[0]))
        return 0
    if o.smoke:
        o.H, o.N, o.L = 3, 8, [33, 300]
    result: dict = {
        "benchmark": "kernels of S4D and S4, forward and backward, float32",
        "sizes": {"H": o.H, "N": o.N, "L": o.L},
        "error": {},
        "seconds": {},
        "ratios": {},
        "absent": {},
    }
    print(f"H = {o.H}, N = {o.N}, float32, forward and backward, {o.threads} threads")
    cases = [(kind, L) for kind in KERNELS for L in o.L]
    right = [check_kernel(kind, o, L, result) for kind, L in cases]
    sums = check_sums(o, max(o.L), result)
    if not all(right) or not sums:
        return 1  # not one time is printed before everything is right
    for kind, L in cases:
        time_kernel(kind, o, L, result)
    time_sums(sums, o, max(o.L), result)
    added = memory(o, max(o.L))
    share = added["fast"] / max(added["table"], 1)
    result |= {"added_bytes": added, "memory_share": share}
    print(f"  peak memory of S4D, L = {max(o.L)}: {share:.1%} of the table's")
    claims: Claims = {RIGHT: True}
    for (kind, L), times in FASTER.items():
        found = result["ratios"].get(f"{kind}, L = {L}", {"median": 0})["median"]
        claims[f"{kind} kernel, L = {L:,}: at least {times}x faster ({found:.1f}x)"] = (
            found >= times
        )
    claims[f"S4D kernel: at most {SMALLER:.0%} of the peak memory ({share:.1%})"] = share <= SMALLER
    if (o.H, o.N, o.L) == CLAIMED:
        return finish(o, "kernel", result, claims)
    print("nothing is claimed at these sizes")
    return finish(o, f"kernel-{o.H}-{o.N}-{'-'.join(map(str, o.L))}", result, {})


if __name__ == "__main__":
    sys.exit(main())
