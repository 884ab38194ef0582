"""The fused convolution core on a GPU: what it is given, its truth, and its stage."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any
from unittest import mock

import torch
from common import ratios, show_times, spread
from gpu_rig import Rig
from torch import Tensor

from s4lite.init.diagonal import s4d_lin
from s4lite.ops.conv import causal_conv
from s4lite.ops.triton import chunks
from s4lite.ops.vandermonde import log_discretize, vandermonde

Shape = tuple[int, int, int]  # batch, H, L
FULL: dict[str, Shape] = {
    "batch 64, H 512, L 1024": (64, 512, 1024),
    "batch 4, H 512, L 16384": (4, 512, 16384),
}
TINY: dict[str, Shape] = {"batch 3, H 1, L 70": (3, 1, 70), "batch 1, H 1, L 200": (1, 1, 200)}


@dataclass
class Case:
    """Inputs of `fused_chunks` as leaves, and the gradient of its output."""

    nu: Tensor
    Bb: Tensor
    C: Tensor
    u: Tensor
    D: Tensor
    g: Tensor

    @property
    def leaves(self) -> list[Tensor]:
        return [self.u, self.nu, self.Bb, self.C, self.D]

    def fused(self, **options: Any) -> Tensor:
        """The output, by Triton's kernels."""
        return chunks.fused_chunks(
            self.nu, self.Bb, self.C, self.u, D=self.D, backend="triton", **options
        )[0]

    def twin(self) -> Tensor:
        """The output, by FFTs."""
        return chunks.fused_chunks(self.nu, self.Bb, self.C, self.u, D=self.D, backend="torch")[0]

    def both(self, y: Tensor) -> list[Tensor]:
        """An output, and the gradients for g."""
        grads = torch.autograd.grad(y, self.leaves, self.g, materialize_grads=True)
        return [y.detach(), *grads]

    def slice(self, start: int, stop: int, dtype: torch.dtype) -> "Case":
        """A part of the batch, its signals in another dtype; leaves of its own."""
        signals = [z.detach()[start:stop].to(dtype) for z in (self.u, self.g)]
        u, g = signals[0].requires_grad_(), signals[1]
        own = [z.detach().clone().requires_grad_() for z in (self.nu, self.Bb, self.C, self.D)]
        return Case(*own[:3], u, own[3], g)


def make(shape: Shape, n: int, dtype: torch.dtype, device: torch.device) -> Case:
    """A bank of S4D-Lin, signals of unit variance."""
    batch, H, L = shape
    g = torch.Generator().manual_seed(0)
    dt = torch.empty(H, dtype=torch.float64).uniform_(-6.9, -2.3, generator=g).exp()
    nu, phi = log_discretize(s4d_lin(2 * n).expand(H, n), dt)
    C = torch.randn(H, n, dtype=torch.complex128, generator=g)
    D = torch.randn(H, generator=g)
    signals = [torch.randn(batch, H, L, generator=g) for _ in range(2)]
    u, out = (z.to(device=device, dtype=dtype) for z in signals)
    leaves = [z.contiguous().to(device).requires_grad_() for z in (nu, phi, C)]
    return Case(*leaves, u.requires_grad_(), D.to(device).requires_grad_(), out)


def truth(case: Case, block: int) -> list[Tensor]:
    """Output and gradients by the convolution in float64, some of the batch at a time."""
    parts = []
    for i in range(0, len(case.u), block):
        part = case.slice(i, i + block, torch.float64)
        parts.append(part.both(part.twin()))
    y, du, *rest = zip(*parts, strict=True)
    return [torch.cat(y), torch.cat(du), *map(sum, rest)]


def core_of(case: Case) -> tuple[Callable[[], Tensor], list[Tensor]]:
    """The kernels alone, operators given: a call, and what it is differentiated by.

    `fused_chunks` makes its operators from the parameters, then hands all to `_FusedChunks`.
    This watches it do so once, and keeps what it hands over.
    """
    handed: list[tuple] = []
    real = chunks._FusedChunks

    class Watched:
        @staticmethod
        def apply(*args: Any) -> Any:
            handed.append(args)
            return real.apply(*args)

    with mock.patch.object(chunks, "_FusedChunks", Watched):
        case.fused()
    args, leaves = [], []
    for arg in handed[0]:
        if isinstance(arg, Tensor):
            wanted, arg = arg.requires_grad, arg.detach().contiguous()
            if wanted:
                leaves.append(arg.requires_grad_())
        args.append(arg)
    return (lambda: real.apply(*args)[0]), leaves


def fft_of(case: Case) -> tuple[Callable[[], Tensor], list[Tensor]]:
    """torch's FFT convolution of the same signals, the kernel given and no D: its least work."""
    K = vandermonde((case.C * case.Bb).detach(), case.nu.detach(), case.u.shape[-1], torch.float32)
    K.requires_grad_()
    return (lambda: causal_conv(case.u, K)), [case.u, K]


def rounding(case: Case, want: list[Tensor]) -> dict[str, float]:
    """Errors of output and input gradient, as multiples of rounding the exact ones: worst channel.

    And the largest errors of the parameters' gradients, relative to their largest entries.
    """
    got = case.both(case.fused())
    found = {}
    for name, a, b in zip(("output", "input gradient"), got, want, strict=False):
        rms = [(z.double() - b).square().mean((0, 2)).sqrt() for z in (a, b.to(a.dtype))]
        found[f"{name} / rounding"] = float((rms[0] / rms[1]).max())
    names = ("nu", "Bb", "C", "D")
    for name, a, b in zip(names, got[2:], want[2:], strict=True):
        found[f"gradient by {name}"] = float((a - b).abs().max() / b.abs().max())
    return found


def scratch(rig: Rig, case: Case) -> dict[str, float | None]:
    """Memory of forward and backward beyond what must be there."""
    sizes = [z.numel() * z.element_size() for z in case.leaves]
    outputs = sizes[0] + sum(sizes)  # y; then the gradients by u and by the parameters
    added = rig.added_memory(lambda: case.both(case.fused()))
    allowed = 2 * sizes[0] + sum(sizes[1:])  # input, output, parameters' gradients
    extra = None if added is None else (added - outputs) / allowed
    return {"added": added, "outputs": outputs, "allowed": allowed, "extra share": extra}


def time_core(rig: Rig, case: Case) -> dict[str, list[float]]:
    """Seconds of copies, of the core, of the whole call and of the FFT, forward and both ways."""
    u, rounds = case.u.detach(), 30
    y, wide = torch.empty_like(u), torch.empty(5 * u.numel() // 2, dtype=u.dtype, device=u.device)
    other = torch.empty_like(wide)
    core, leaves = core_of(case)
    fft, by_fft = fft_of(case)
    with torch.no_grad():
        forward = rig.times(
            {
                "copy": lambda: y.copy_(u),
                "core, forward": core,
                "whole call, forward": case.fused,
                "FFT, forward": fft,
            },
            rounds,
        )
    both = rig.times(
        {
            "copy of 10 bytes an element": lambda: other.copy_(wide),
            "core, forward and backward": lambda: torch.autograd.grad(core(), leaves, case.g),
            "whole call, forward and backward": lambda: case.both(case.fused()),
            "FFT, forward and backward": lambda: torch.autograd.grad(fft(), by_fft, case.g),
        },
        rounds,
    )
    return forward | both


def profile(rig: Rig, case: Case) -> dict[str, float]:
    """Microseconds of the device's kernels in one forward and backward pass of the core."""
    if rig.rehearse:
        return {}
    core, leaves = core_of(case)
    kind = torch.profiler.ProfilerActivity.CUDA
    with torch.profiler.profile(activities=[kind]) as seen:
        torch.autograd.grad(core(), leaves, case.g)
        rig.wait()
    rows = [(e.key, getattr(e, "self_device_time_total", 0.0)) for e in seen.key_averages()]
    return dict(sorted(rows, key=lambda row: -row[1])[:12])


def core_stage(rig: Rig) -> dict[str, Any]:
    """Right, then times, memory and accuracy, for both shapes."""
    result: dict[str, Any] = {}
    for name, shape in (TINY if rig.rehearse else FULL).items():
        case = make(shape, 4 if rig.rehearse else 32, torch.bfloat16, rig.device)
        want = truth(case, max(1, 2**22 // (shape[1] * shape[2])))
        found: dict[str, Any] = {"accuracy": rounding(case, want)}
        first, again = case.both(case.fused()), case.both(case.fused())
        found["same bits twice"] = all(map(torch.equal, first, again))
        del want, first, again
        print(f"{name}: " + ", ".join(f"{k} {v:.2g}" for k, v in found["accuracy"].items()))
        if max(v for k, v in found["accuracy"].items() if k.startswith("gradient")) > 2e-2:
            raise RuntimeError(f"{name}: the gradients are not right, nothing is timed")
        if not found["same bits twice"] or found["accuracy"]["output / rounding"] > 10:
            raise RuntimeError(f"{name}: the results are not right, nothing is timed")
        found["memory"] = scratch(rig, case)
        found["seconds"] = time_core(rig, case)
        show_times(found["seconds"], 1e6, "us")
        found["ratios"] = compare(found["seconds"])
        for pair, ratio in found["ratios"].items():
            print(f"  {pair}: {spread(ratio)}")
        try:
            found["kernels"] = profile(rig, case)
        except Exception as error:  # the profiler is a guest: measurements stand without it
            found["kernels"] = {f"no profile: {error}"[:200]: 0.0}
        result[name] = found
    return result


def compare(seconds: dict[str, list[float]]) -> dict[str, dict[str, float]]:
    """The ratios that the claims are about, round by round."""
    wide, both = seconds["copy of 10 bytes an element"], seconds["core, forward and backward"]
    core = seconds["core, forward"]
    pairs = {
        "core / copy, forward": (core, seconds["copy"]),
        "core / copies, forward and backward": (both, wide),
        "FFT / core, forward": (seconds["FFT, forward"], core),
        "FFT / core, forward and backward": (seconds["FFT, forward and backward"], both),
    }
    return {name: ratios(*pair) for name, pair in pairs.items()}
