"""Everything that wants a GPU, in one command of under eight minutes.

    python benchmarks/gpu.py [--out gpu-run] [--budget 470] [--stages core share ...]
    python benchmarks/gpu.py --rehearse            # no GPU: the plumbing, in Triton's interpreter

Stages, each in a process of its own (a crash takes one stage along, not the others): `correctness`
(all kernels, forward and backward, on ugly sizes, against float64; the same bits twice), `core`
(the fused convolution in bfloat16 at both sizes: accuracy, memory, times beside copies and torch's
FFT convolution), `share` (parameter work in a model's training step), `graph` (does the host ever
wait; CUDA graphs), `roofline` (copies and matrix products: what the machine can do), `tests` (the
project's own tests of its kernels and of the layers on them).

A stage writes DIR/<stage>.json when it is done, and is skipped when that is there and was made by
the same code, with the same libraries, on a GPU of the same name: so a run that is cut off, or
whose budget of seconds is used up, goes on where it was. Where `correctness` finds something wrong,
`core` and `share` are not begun, and `core` times nothing before its own results are right. After
every stage DIR/gpu.json has all
that is known; a run on a GPU writes the same to benchmarks/results/gpu-<name>.json, a rehearsal
never does, and marks all its numbers. Times are the device's (events; the host queues ahead),
medians of calls in turn, the second-level cache emptied before each; clocks are left alone.

Prints PASS, FAIL or not run for every claim; exits 1 if one fails or a stage does, 2 if stages are
left to do, 3 if there is no GPU.
"""

import argparse
import contextlib
import importlib.util
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import torch
from common import HERE, RESULTS, Claims, digest, file_name, say, write
from gpu_rig import NO_GPU

STAGES = ("correctness", "core", "share", "graph", "roofline", "tests")
SHAPES = ("batch 64, H 512, L 1024", "batch 4, H 512, L 16384")
TIMED = ("core", "share")  # not begun if `correctness` has found something wrong
LEAST = 15  # seconds that must be left for a stage to begin
Stages = dict[str, dict[str, Any]]


def done(file: Path, rehearse: bool, gpu: str) -> dict[str, Any] | None:
    """What a stage has written before, if it can be used: same code, same kind of machine."""
    try:
        found = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, json.JSONDecodeError):
        return None
    here = {"rehearsal": rehearse, "code": digest()}
    fits = all(found.get(key) == value for key, value in here.items())
    return found if fits and found["environment"].get("gpu") == gpu else None


def run_stage(stage: str, file: Path, rehearse: bool, seconds: float) -> str:
    """Run one stage in a process of its own: "", or why there is no result."""
    command = [sys.executable, str(HERE / "gpu_stages.py"), stage, str(file)]
    command += ["--rehearse"] if rehearse else []
    env = os.environ | {"TRITON_INTERPRET": "1" if rehearse else "0"}
    process = subprocess.Popen(
        command, env=env, stderr=subprocess.PIPE, text=True, start_new_session=True
    )
    try:
        _, said = process.communicate(timeout=seconds)
    except BaseException as error:  # out of time, or interrupted: its children go too
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.communicate()
        if isinstance(error, subprocess.TimeoutExpired):
            return f"stopped after {seconds:.0f} s: out of time"
        raise
    if process.returncode == 0:
        return ""
    print(said[-4000:], file=sys.stderr)
    last = said.strip().splitlines()[-1:] or [f"exit status {process.returncode}"]
    return last[0][:300]


def core_claims(name: str, case: dict[str, Any] | None) -> Claims:
    """The claims about the fused convolution at one size."""
    limits = [
        ("forward at most 2x a copy of input to output", "core / copy, forward", 2.0, -1),
        (
            "forward and backward at most 3x copies of 10 bytes an element",
            "core / copies, forward and backward",
            3.0,
            -1,
        ),
        ("forward at least 5x faster than torch's FFT", "FFT / core, forward", 5.0, 1),
        (
            "forward and backward at least 5x faster than torch's FFT",
            "FFT / core, forward and backward",
            5.0,
            1,
        ),
    ]
    claims: Claims = {}
    for text, key, limit, sign in limits:
        found = case and case["ratios"][key]["median"]
        holds = None if found is None else sign * found >= sign * limit
        claims[f"core, {name}: {text}{_number(found, '{:.2f}x')}"] = holds
    extra = case and case["memory"]["extra share"]
    text = "memory at most input, output and parameters' gradients, plus 20 %"
    holds = None if extra is None else extra <= 0.2
    claims[f"core, {name}: {text}{_number(extra, 'plus {:.1%}')}"] = holds
    error = case and case["accuracy"]["output / rounding"]
    text = "error in bfloat16 at most 2x that of rounding the exact output"
    holds = None if error is None else error <= 2
    claims[f"core, {name}: {text}{_number(error, '{:.2f}x')}"] = holds
    return claims


def _number(found: float | None, form: str) -> str:
    return "" if found is None else f" ({form.format(found)})"


def claims_of(stages: Stages) -> Claims:
    """Everything that is claimed about a GPU; None where the stage has not run."""
    right, share = stages.get("correctness"), stages.get("share")
    graph, tests = stages.get("graph"), stages.get("tests")
    claims: Claims = {
        "all kernels right on ugly sizes, same bits twice": right and not right["wrong"],
        "their float32 errors at most twice the twin's or 1e-6": right and not right["worse"],
    }
    for name in SHAPES:
        claims |= core_claims(name, stages.get("core", {}).get(name))
    part = share and share["S4D"]["share"]["median"]
    text = f"S4D: parameter work of all layers under 5 % of a model step{_number(part, '{:.1%}')}"
    claims[text] = None if part is None else part < 0.05
    for kind in ("S4D", "S4"):
        case = graph and graph[kind]
        text = f"{kind} layer: the host never waits, a CUDA graph repeats its bits"
        claims[text] = None if case is None else not case["host waits"] and bool(case["graph"])
    claims["the project's tests of its kernels and layers pass on this device"] = (
        tests and tests["passed"]
    )
    return claims


def summary(stages: Stages, failed: dict[str, str], rehearse: bool) -> dict[str, Any]:
    """All that is known, as one table."""
    claims = claims_of({} if rehearse else stages)
    first = next(iter(stages.values()), {"environment": {}})
    return {
        "benchmark": "GPU: correctness, fused convolution, parameter share, graphs, roofline",
        "rehearsal": rehearse,
        "sizes": {"core": list(SHAPES)},
        "environment": first["environment"],
        "error": stages.get("correctness", {}).get("cases", {}),
        "seconds": {},
        "stages": stages,
        "failed": failed,
        "claims": claims,
    }


def why_no_gpu() -> str:
    """Say why nothing can be measured here; "" if it can."""
    if importlib.util.find_spec("triton") is None:
        return 'triton is not installed: pip install "s4lite[triton]"'
    return "" if torch.cuda.is_available() else "torch sees no CUDA GPU"


def gpu_name(rehearse: bool) -> str:
    """The GPU's name, asked by a process that ends: this one holds no memory on the device."""
    if rehearse:
        return NO_GPU
    ask = "import torch; print(torch.cuda.get_device_name(0))"
    done = subprocess.run([sys.executable, "-c", ask], capture_output=True, text=True, check=True)
    return done.stdout.strip()


def walk(o: argparse.Namespace, folder: Path) -> tuple[Stages, dict[str, str]]:
    """Run or skip the stages in order; what they found, and what became of the others."""
    stages, failed, end = {}, {}, time.monotonic() + o.budget
    gpu = gpu_name(o.rehearse)
    for stage in STAGES:
        file, left = folder / f"{stage}.json", end - time.monotonic()
        found = done(file, o.rehearse, gpu)
        wrong = stages.get("correctness", {}).get("wrong")
        if wrong and stage in TIMED:
            failed[stage] = f"not timed: wrong results of {', '.join(wrong)}"
            print(f"{stage}: {failed[stage]}", flush=True)
            continue
        if found:
            print(f"{stage}: is there, skipped", flush=True)
        elif stage not in o.stages:
            continue
        elif left < LEAST:
            failed[stage] = f"not begun: {max(left, 0):.0f} s left"
            print(f"{stage}: {failed[stage]}", flush=True)
        else:
            print(f"{stage} ({left:.0f} s left)", flush=True)
            why = run_stage(stage, file, o.rehearse, left)
            found = None if why else done(file, o.rehearse, gpu)
            if found is None:
                failed[stage] = why or "it left no result that can be used"
                print(f"{stage}: FAILED: {failed[stage]}", flush=True)
        if found:
            stages[stage] = found
        write(folder / "gpu.json", summary(stages, failed, o.rehearse))
    return stages, failed


def main(argv: list[str] | None = None) -> int:
    about = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=about)
    parser.add_argument("--out", type=Path, help="folder of the stages' files, default gpu-run")
    parser.add_argument("--budget", type=float, default=470, help="seconds, default 470")
    parser.add_argument("--stages", nargs="+", choices=STAGES, default=STAGES)
    parser.add_argument("--rehearse", action="store_true", help="no GPU: tiny sizes, nothing kept")
    o = parser.parse_args(argv)
    why = "" if o.rehearse else why_no_gpu()
    if why:
        print(f"{why}; `--rehearse` tries everything out without one")
        return 3
    with contextlib.ExitStack() as stack:
        if o.out is None and o.rehearse:
            o.out = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        folder = (o.out or Path("gpu-run")).resolve()
        folder.mkdir(parents=True, exist_ok=True)
        stages, failed = walk(o, folder)
        result = summary(stages, failed, o.rehearse)
    late = [s for s, text in failed.items() if text.startswith(("not begun", "stopped after"))]
    broken = bool(set(failed) - set(late))
    if o.rehearse:
        print(f"rehearsal: {len(stages)} of {len(STAGES)} stages ran; its numbers mean nothing")
    else:
        report(stages, result, folder)
    if False in result["claims"].values() or broken:
        return 1
    return 0 if len(stages) == len(STAGES) else 2


def report(stages: Stages, result: dict[str, Any], folder: Path) -> None:
    """Say what holds, and keep the table."""
    say(result["claims"])
    if "share" in stages:
        found = stages["share"]["S4"]["share"]["median"]
        print(f"S4: parameter work is {found:.1%} of a model step (no claim)")
    name = file_name("gpu", result["environment"].get("gpu", "unknown"))
    print(f"wrote {folder / 'gpu.json'} and {write(RESULTS / name, result).name}")


if __name__ == "__main__":
    sys.exit(main())
