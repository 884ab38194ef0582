"""Causal convolution with a long kernel: FFTs of good and of bad lengths, chunks, forward and back.

    python benchmarks/conv.py [--threads 1] [--repeats 15] [--batch 4] [--H 128] [--N 64]

At L = 256, 1000, 1024, 4096, 4099 (a prime) and 16,384, float32, for signals (batch, H, L) and the
kernel of an S4D layer: `causal_conv` (three FFTs of a good length, autograd's backward pass: the
twin), `fused_conv` (its own backward pass), the same FFTs padded to a power of two and to exactly 2
L - 1, and `diag_chunks`, which needs no kernel of L lags. The first four are differentiated by
signal and kernel; all are timed with the kernel given, the chunks with the work that makes their
operators. All are held against the convolution in float64 first, values and gradients: errors at
most twice those of the twin or 1e-6, the same bits twice. The other paddings are there for
comparison: their errors are printed, and if they are above 1e-4 something is wrong.

Nothing is claimed about time; writes benchmarks/results/conv-<cpu>.json, exits 1 if something is
wrong.
"""

import argparse
import sys

import torch
from common import Claims, alternate, begin, finish, options, ratios, show_times, spread
from torch import Tensor
from truth import RIGHT, errors, gradients, in_double, judge, refuse
from twins import system

from s4lite.ops.chunk import diag_chunks
from s4lite.ops.conv import causal_conv
from s4lite.ops.fused_conv import fused_conv
from s4lite.ops.vandermonde import log_discretize, vandermonde

LENGTHS = 256, 1000, 1024, 4096, 4099, 16384
CHUNKS = "diag_chunks"


def padded(u: Tensor, K: Tensor, n: int) -> Tensor:
    """The convolution through FFTs of n samples."""
    y_hat = torch.fft.rfft(u, n) * torch.fft.rfft(K, n)
    return torch.fft.irfft(y_hat, n)[..., : u.shape[-1]]


def chunked(leaves: list[Tensor]) -> list[Tensor]:
    """By chunks: output, gradient by the signal, and by exponents and weights."""
    nu, Bb, C, u = leaves
    return gradients(diag_chunks(nu, Bb, C, u)[0], [u, nu, Bb, C])


def by_kernel(leaves: list[Tensor]) -> list[Tensor]:
    """The same through the kernel."""
    nu, Bb, C, u = leaves
    K = vandermonde(C * Bb, nu, u.shape[-1], torch.promote_types(u.dtype, torch.float32))
    return gradients(causal_conv(u, K), [u, nu, Bb, C])


def contenders(o: argparse.Namespace, L: int) -> tuple[dict, list[Tensor], list[Tensor]]:
    """The FFT forms of (u, K) at one length; u and K; exponents, weights and u for the chunks."""
    Lambda, B, C, dt = (x.detach() for x in system("S4D", o.H, o.N))
    nu, phi = log_discretize(Lambda, dt)
    modes = [x.to(torch.complex128).contiguous() for x in (nu, phi * B, C)]
    g = torch.Generator().manual_seed(1)
    u = torch.randn(o.batch, o.H, L, generator=g).requires_grad_()
    K = vandermonde(modes[2] * modes[1], nu, L, torch.float32).requires_grad_()
    power = 1 << (2 * L - 2).bit_length()
    forms = {
        "causal_conv": lambda u, K: causal_conv(u, K),
        "fused_conv": lambda u, K: fused_conv(u, K),
        "FFT of a power of two": lambda u, K: padded(u, K, power),
        "FFT of 2 L - 1": lambda u, K: padded(u, K, 2 * L - 1),
    }
    return forms, [u, K], [*(z.requires_grad_() for z in modes), u]


def check_length(o: argparse.Namespace, L: int, result: dict) -> bool:
    """Hold all at one length against float64; True if all are right."""
    forms, pair, leaves = contenders(o, L)
    calls = {n: lambda f=f: gradients(f(*pair), pair) for n, f in forms.items()}
    wide, twin = in_double(pair), calls.pop("causal_conv")
    want = gradients(causal_conv(*wide), wide)
    found, bad = judge({"fused_conv": calls.pop("fused_conv")}, twin, want)
    for name, call in calls.items():
        found[name] = errors(call(), want)
        bad += [f"{name}: far from the truth"] if not max(found[name].values()) < 1e-4 else []
    chunks, more = judge(
        {CHUNKS: lambda: chunked(leaves)}, lambda: by_kernel(leaves), by_kernel(in_double(leaves))
    )
    result["error"] |= {f"L = {L}": found, f"{CHUNKS}, L = {L}": chunks}
    wrong = refuse(f"L = {L}", found, bad), refuse(f"L = {L}", {CHUNKS: chunks[CHUNKS]}, more)
    return not any(wrong)


def time_length(o: argparse.Namespace, L: int, result: dict) -> None:
    """Time all at one length, in turn."""
    forms, pair, leaves = contenders(o, L)
    calls = {n: lambda f=f: gradients(f(*pair), pair) for n, f in forms.items()}
    seconds = alternate(calls | {CHUNKS: lambda: chunked(leaves)}, o.repeats)
    with torch.no_grad():
        ways = {f"{n}, forward": lambda f=f: f(*pair) for n, f in list(forms.items())[:2]}
        ways[f"{CHUNKS}, forward"] = lambda: diag_chunks(*leaves)
        seconds |= alternate(ways, o.repeats)
    show_times({f"L = {L} {name}": t for name, t in seconds.items()})
    result["seconds"] |= {f"L = {L} | {name}": t for name, t in seconds.items()}
    faster = ratios(seconds["causal_conv"], seconds["fused_conv"])
    result["ratios"][f"L = {L}"] = faster
    print(f"  L = {L}: causal_conv / fused_conv, forward and backward: {spread(faster)}")


def main(argv: list[str] | None = None) -> int:
    parser = options(__doc__)
    for name, value in (("batch", 4), ("H", 128), ("N", 64)):
        parser.add_argument(f"--{name}", type=int, default=value, help=f"default {value}")
    o = begin(parser, argv)
    lengths = LENGTHS
    if o.smoke:
        o.batch, o.H, o.N, lengths = 2, 3, 8, (33, 127)
    sizes = {"batch": o.batch, "H": o.H, "N": o.N, "L": list(lengths)}
    head = "causal convolution, forward and backward, float32"
    result: dict = {"benchmark": head, "sizes": sizes, "error": {}, "seconds": {}, "ratios": {}}
    print(", ".join(f"{k} = {v}" for k, v in sizes.items()) + f", {o.threads} thread(s)")
    right = [check_length(o, L, result) for L in lengths]  # all of them, before any time
    if not all(right):
        return 1
    for L in lengths:
        time_length(o, L, result)
    claims: Claims = {RIGHT: True}
    standard = (o.batch, o.H, o.N) == (4, 128, 64)
    name = "conv" if standard else f"conv-{o.batch}-{o.H}-{o.N}"
    return finish(o, name, result, claims)


if __name__ == "__main__":
    sys.exit(main())
