"""The diagonal kernel as a matrix product, against the Vandermonde table written down.

    python benchmarks/kernel.py [--H 128] [--N 64] [--L 16384] [--threads 2] [--repeats 5]

Both forms compute K = 2 Re sum_n w_n e^(l nu_n) for H channels, forward and backward, from the same
float32 parameters. First both are held against float64: kernel and all gradients. Only then are
they timed, in one process and in turn. The peak memory of each is measured in a process of its own:
the largest resident set with the work done, less the largest resident set of the same process just
before it, when libraries, threads and parameters are there already (a small problem has been run).

Prints PASS or FAIL for two claims at the default sizes, at least 15 times faster and at most a
tenth of the memory, writes benchmarks/results/kernel-<cpu>.json, and exits 1 if a claim fails.
"""

import argparse
import gc
import json
import statistics
import sys

import torch
from common import alternate, child, environment, peak_memory, ratios, save
from torch import Tensor

from s4lite.init.diagonal import s4d_lin
from s4lite.ops.vandermonde import diag_kernel

CLAIMED = 128, 64, 16384  # the sizes H, N, L at which the following is claimed
FASTER, SMALLER = 15.0, 0.1


def parameters(H: int, N: int) -> list[Tensor]:
    """dt, Re Lambda, Im Lambda and C of H channels, float32: one Lambda for all, as in a layer."""
    g, Lambda = torch.Generator().manual_seed(0), s4d_lin(N)
    dt = torch.empty(H).uniform_(-6.9, -2.3, generator=g).exp()  # from 0.001 to 0.1
    C = torch.randn(H, N // 2, 2, generator=g)
    start = dt, Lambda.real.float(), Lambda.imag.float(), C
    return [x.requires_grad_() for x in start]


def product(dt: Tensor, re: Tensor, im: Tensor, C: Tensor, L: int) -> Tensor:
    """The kernel by `diag_kernel`."""
    Lambda = torch.complex(re, im)
    return diag_kernel(Lambda, torch.ones_like(im), torch.view_as_complex(C), dt, L)


def table(dt: Tensor, re: Tensor, im: Tensor, C: Tensor, L: int) -> Tensor:
    """The kernel by an (H, n, L) table of exponentials, in the parameters' own precision."""
    Lambda = torch.complex(re, im)
    nu = dt[:, None] * Lambda
    w = torch.view_as_complex(C) * torch.expm1(nu) / Lambda
    V = torch.exp(nu[..., None] * torch.arange(L, dtype=dt.dtype))
    return 2 * torch.einsum("hn,hnl->hl", w, V).real


FORMS = {"product": product, "table": table}


def work(form: str, leaves: list[Tensor], L: int) -> tuple[Tensor, ...]:
    """Kernel and gradients of half its squared norm."""
    K = FORMS[form](*leaves, L)
    return K.detach(), *torch.autograd.grad(K.square().sum() / 2, leaves)


def errors(leaves: list[Tensor], L: int, block: int = 16) -> dict[str, float]:
    """Largest error of kernel and gradients of both forms, relative to the table in float64.

    The truth goes by blocks of channels: the whole table in complex128 would be large.
    """
    parts: list[tuple[Tensor, ...]] = []
    for h in range(0, len(leaves[0]), block):
        cut = [x[h : h + block] if x is leaves[0] or x is leaves[3] else x for x in leaves]
        parts.append(work("table", [x.detach().double().requires_grad_() for x in cut], L))
    columns = list(zip(*parts, strict=True))
    joined = [torch.cat(columns[0]), torch.cat(columns[1]), sum(columns[2]), sum(columns[3])]
    truth = [*joined, torch.cat(columns[4])]
    worst = {}
    for form in FORMS:
        gaps = [
            (a - b).abs().max() / b.abs().max()
            for a, b in zip(work(form, leaves, L), truth, strict=True)
        ]
        worst[form] = float(max(gaps))
    return worst


def memory(form: str, H: int, N: int, L: int, threads: int) -> None:
    """In a child process: print what one forward and backward pass adds to the resident set."""
    torch.set_num_threads(threads)
    leaves = parameters(H, N)
    work(form, parameters(2, N), 64)  # threads, kernels and libraries come to life
    gc.collect()
    before = peak_memory()
    work(form, leaves, L)
    print(json.dumps({"added": peak_memory() - before, "before": before}))


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--H", type=int, default=CLAIMED[0], help="channels")
    parser.add_argument("--N", type=int, default=CLAIMED[1], help="state size")
    parser.add_argument("--L", type=int, default=CLAIMED[2], help="length")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--repeats", type=int, default=5, help="rounds, at least 2")
    parser.add_argument("--memory", choices=FORMS, help=argparse.SUPPRESS)
    o = parser.parse_args()
    if o.memory:
        memory(o.memory, o.H, o.N, o.L, o.threads)
        return 0

    if o.repeats < 2:
        parser.error(f"want repeats >= 2, got {o.repeats}")
    torch.set_num_threads(o.threads)
    leaves = parameters(o.H, o.N)
    wrong = errors(leaves, o.L)
    print(f"H = {o.H}, N = {o.N}, L = {o.L}, float32, forward and backward, {o.threads} threads")
    print("error (kernel and gradients): " + ", ".join(f"{k} {v:.1e}" for k, v in wrong.items()))
    if wrong["product"] > 5e-6 or wrong["table"] > 1e-3:
        print("FAIL  the results are not right: nothing is timed")
        return 1

    sizes = ["--H", str(o.H), "--N", str(o.N), "--L", str(o.L), "--threads", str(o.threads)]
    added = {form: child(__file__, "--memory", form, *sizes)["added"] for form in FORMS}
    share = added["product"] / added["table"]
    calls = {form: lambda form=form: work(form, leaves, o.L) for form in FORMS}
    seconds = alternate(calls, o.repeats)
    speed = ratios(seconds["table"], seconds["product"])

    for form in FORMS:
        low, *_, high = (f"{1e3 * x:.0f}" for x in sorted(seconds[form]))
        time = f"{1e3 * statistics.median(seconds[form]):6.0f} ms ({low} to {high})"
        print(f"{form:8} {time}, peak memory + {added[form] / 2**20:.0f} MiB")
    spread = f"{speed['lowest']:.1f} to {speed['highest']:.1f}"
    print(f"table / product, round by round: median {speed['median']:.1f} ({spread})")
    fast = f"at least {FASTER:.0f} times faster (median: {speed['median']:.1f})"
    small = f"at most {SMALLER:.0%} of the peak memory ({share:.1%})"
    claims = {fast: speed["median"] >= FASTER, small: share <= SMALLER}
    name = "kernel"
    if (o.H, o.N, o.L) != CLAIMED:
        claims, name = {}, f"kernel-{o.H}-{o.N}-{o.L}"
        print("nothing is claimed at these sizes")
    for claim, holds in claims.items():
        print(f"{'PASS' if holds else 'FAIL'}  {claim}")
    result = {
        "benchmark": "diagonal kernel, forward and backward, float32",
        "sizes": {"H": o.H, "N": o.N, "L": o.L},
        "environment": environment(o.threads),
        "error": wrong,
        "seconds": seconds,
        "speedup": speed,
        "added_bytes": added,
        "memory_share": share,
        "claims": claims,
    }
    print(f"wrote {save(name, result).name}")
    return 0 if all(claims.values()) else 1


if __name__ == "__main__":
    sys.exit(main())
