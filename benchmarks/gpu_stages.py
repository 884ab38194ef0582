"""The stages of gpu.py. One runs in one process: python benchmarks/gpu_stages.py STAGE FILE."""

import argparse
import contextlib
import importlib.util
import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from common import HERE, digest, write
from gpu_core import core_stage, make, truth
from gpu_model import graph_stage, share_stage
from gpu_rig import Rig, median
from torch import Tensor
from truth import EXACT, errors, gradients, in_double

from s4lite.init.diagonal import s4d_lin
from s4lite.ops.cauchy import cauchy
from s4lite.ops.genfunc import half_angles
from s4lite.ops.triton.exponentials import exponential_sums
from s4lite.ops.triton.fractions import fraction_sums
from s4lite.ops.vandermonde import log_discretize, vandermonde

ALLOWED = {torch.float32: 1e-5, torch.bfloat16: 2e-2}  # beyond it nothing is timed


def sums_cases(rig: Rig) -> dict[str, tuple[Callable, Callable, Callable, list[Tensor]]]:
    """The other two kernels: by Triton; by torch in float32; in float64; and their leaves."""
    H, n, L, dev = (2, 3, 70, rig.device) if rig.rehearse else (64, 32, 1000, rig.device)
    g = torch.Generator().manual_seed(0)
    dt = torch.empty(H, dtype=torch.float64).uniform_(-6.9, -2.3, generator=g).exp()
    nu, _ = log_discretize(s4d_lin(2 * n).expand(H, n), dt)
    weights = torch.randn(H, n, dtype=torch.complex128, generator=g).to(dev).requires_grad_()
    v = torch.randn(H, 4, n, dtype=torch.complex64, generator=g).to(dev).requires_grad_()
    poles = (dt[:, None] * s4d_lin(2 * n)).to(dev, torch.complex64).requires_grad_()
    w = half_angles(L, 0.5).to(dev)
    exponents = nu.to(dev).contiguous().requires_grad_()

    def fractions(v: Tensor, l: Tensor) -> Tensor:
        return torch.view_as_real(fraction_sums(v, l, w, backend="triton"))

    def sums(v: Tensor, l: Tensor) -> Tensor:
        return torch.view_as_real(cauchy(v, l, w))

    return {
        "exponential_sums": (
            lambda a, b: exponential_sums(a, b, L, backend="triton"),
            lambda a, b: vandermonde(a, b, L, torch.float32),
            lambda a, b: vandermonde(a, b, L, torch.float64),
            [weights, exponents],
        ),
        "fraction_sums": (fractions, sums, sums, [v, poles]),
    }


def correctness_stage(rig: Rig) -> dict[str, Any]:
    """Every kernel, forward and backward, on ugly sizes, against float64; the same bits twice.

    `wrong` is what may not be timed; `worse` misses the project's own bar, in float32.
    """
    found: dict[str, Any] = {}
    ugly = {
        torch.float32: [(5, 3, 1023), (33, 2, 130), (1, 7, 5000), (2, 1, 1)],
        torch.bfloat16: [(5, 3, 1023), (33, 2, 130)],
    }
    tiny = {torch.float32: [(3, 2, 99), (2, 1, 1)], torch.bfloat16: [(3, 2, 99)]}
    for dtype, shapes in (tiny if rig.rehearse else ugly).items():
        for shape in shapes:
            case = make(shape, 4 if rig.rehearse else 32, dtype, rig.device)
            got, again = case.both(case.fused()), case.both(case.fused())
            name = f"fused_chunks {shape} {str(dtype).split('.')[-1]}"
            want = truth(case, len(case.u))
            same = all(map(torch.equal, got, again))
            found[name] = errors(got, want) | {"same bits twice": same, "allowed": ALLOWED[dtype]}
            if dtype == torch.float32:
                found[name]["twin"] = errors(case.both(case.twin()), want)
    for name, (fast, twin, exact, leaves) in sums_cases(rig).items():
        wide = in_double(leaves)
        want = gradients(exact(*wide), wide)
        got, again = (gradients(fast(*leaves), leaves) for _ in range(2))
        same = all(map(torch.equal, got, again))
        found[name] = errors(got, want) | {"same bits twice": same, "allowed": 1e-5}
        found[name]["twin"] = errors(gradients(twin(*leaves), leaves), want)
    wrong, worse, kinds = [], [], ("value", "gradients")
    for name, case in found.items():
        told = [f"{k} {case[k]:.1e}" for k in kinds]
        told += [f"twin's {k} {e:.1e}" for k, e in case.get("twin", {}).items()]
        print(f"  {name}: {', '.join(told)}")
        right = max(case[k] for k in kinds) <= case["allowed"]
        wrong += [] if right and case["same bits twice"] else [name]
        over = [k for k, e in case.get("twin", {}).items() if not case[k] <= max(2 * e, EXACT)]
        worse += [name] if over else []
    return {"cases": found, "wrong": wrong, "worse": worse}


def roofline_stage(rig: Rig) -> dict[str, Any]:
    """What the machine can do: copies of 1 GiB, and matrix products in four precisions.

    And what two events show with nothing between them: so much of every time is the clock's.
    """
    size = 2**12 if rig.rehearse else 2**28
    a, found = torch.randn(size, device=rig.device), {}
    b = torch.empty_like(a)
    copy = rig.times({"copy": lambda: b.copy_(a)}, 20)["copy"]
    found["copy, bytes a second"] = 8 * size / median(copy)
    found["nothing between two events, seconds"] = median(rig.times({"": lambda: None}, 20)[""])
    kinds = {
        "bfloat16": (torch.bfloat16, False, 8192),
        "tf32": (torch.float32, True, 8192),
        "float32": (torch.float32, False, 8192),
        "float64": (torch.float64, False, 4096),
    }
    before = torch.backends.cuda.matmul.allow_tf32
    for name, (dtype, tf32, n) in kinds.items():
        n = 32 if rig.rehearse else n
        x, y = (torch.randn(n, n, device=rig.device, dtype=dtype) for _ in range(2))
        torch.backends.cuda.matmul.allow_tf32 = tf32
        took = rig.times({"product": lambda x=x, y=y: x @ y}, 10)["product"]
        found[f"{name}, operations a second"] = 2 * n**3 / median(took)
    torch.backends.cuda.matmul.allow_tf32 = before
    for name, rate in found.items():
        print(f"  {name}: {rate:.3g}")
    return {"rates": found}


def tests_stage(rig: Rig) -> dict[str, Any]:
    """The project's own tests of its kernels on this device; in a rehearsal, one of them."""
    if importlib.util.find_spec("pytest") is None:
        return {"tests": {"left out": "pytest is not installed"}, "passed": None}
    ops, layers = Path("tests/ops/triton_ops"), Path("tests/nn/triton_layers/cases_layers.py")
    common = ["-q", "-p", "no:cacheprovider", "--no-header", "-W", "ignore"]
    device = "cpu" if rig.rehearse else "cuda"
    if not rig.rehearse and importlib.util.find_spec("xdist"):
        common += ["-n", str(min(8, os.cpu_count() or 1))]
    jobs = {
        "kernels": [str(ops / "cases_chunks.py"), str(ops / "cases_sums.py")],
        "layers": [str(layers)],
    }
    if rig.rehearse:
        jobs = {"kernels": [str(ops / "cases_chunks.py"), "-k", "bad_input"]}
    found, codes = {}, []
    for name, job in jobs.items():
        command = [sys.executable, "-m", "pytest", *common, *job]
        paths = [str(HERE.parent), os.environ.get("PYTHONPATH", "")]
        env = os.environ | {"S4LITE_TEST_DEVICE": device, "PYTHONPATH": os.pathsep.join(paths)}
        env["TRITON_DEFAULT_FP_FUSION"] = "1"
        done = subprocess.run(command, capture_output=True, text=True, env=env, cwd=HERE.parent)
        lines = (done.stdout + done.stderr).strip().splitlines()
        found[name] = {"status": done.returncode, "said": lines[-25:]}
        codes.append(done.returncode == 0)
        print(f"  {name}: {lines[-1] if lines else 'nothing said'}")
    return {"tests": found, "passed": all(codes)}


STAGES: dict[str, Callable[[Rig], dict[str, Any]]] = {
    "correctness": correctness_stage,
    "core": core_stage,
    "share": share_stage,
    "graph": graph_stage,
    "roofline": roofline_stage,
    "tests": tests_stage,
}


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("stage", choices=STAGES)
    parser.add_argument("file", type=Path)
    parser.add_argument("--rehearse", action="store_true")
    o = parser.parse_args(argv)
    with contextlib.suppress(AttributeError):
        sys.stdout.reconfigure(line_buffering=True)
    torch.set_num_threads(1)
    rig, start = Rig(o.rehearse), time.perf_counter()
    result = STAGES[o.stage](rig)
    head = {"stage": o.stage, "rehearsal": o.rehearse, "code": digest()}
    head["environment"] = rig.environment()
    took = {"took": round(time.perf_counter() - start, 1)}
    write(o.file, head | took | result)
    return 0


if __name__ == "__main__":
    sys.exit(main())
