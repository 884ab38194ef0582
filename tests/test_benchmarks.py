"""The benchmarks: they run, refuse what is wrong, write what others can read, and go on again."""

import importlib.util
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
BENCHMARKS, RESULTS = ROOT / "benchmarks", ROOT / "benchmarks" / "results"
SCRIPTS = ("kernel", "conv", "layer", "model_step", "generate", "memory", "generators", "loading")
STAGES = ("correctness", "core", "share", "graph", "roofline", "tests")
needs_triton = pytest.mark.skipif(
    importlib.util.find_spec("triton") is None, reason="triton is not installed"
)


def call(*command: str) -> subprocess.CompletedProcess:
    return subprocess.run(
        [sys.executable, *command], capture_output=True, text=True, cwd=ROOT, env=environ()
    )


def environ() -> dict[str, str]:
    paths = [str(ROOT), str(BENCHMARKS), os.environ.get("PYTHONPATH", "")]
    return os.environ | {"PYTHONPATH": os.pathsep.join(paths)}


def stored() -> dict[str, float]:
    return {path.name: path.stat().st_mtime for path in RESULTS.iterdir()}


def check_schema(result: dict) -> None:
    """benchmark, sizes, environment, error, seconds by contender, claims: as the README says."""
    assert isinstance(result["benchmark"], str) and isinstance(result["sizes"], dict)
    assert {"cpu", "threads", "system", "python", "torch"} <= set(result["environment"])
    assert isinstance(result["error"], dict)
    assert result["error"] or not result["seconds"]  # no time without an error
    for times in result["seconds"].values():
        assert times and all(isinstance(t, float) and t > 0 for t in times)
    for text, holds in result["claims"].items():
        assert isinstance(text, str) and holds in (True, False, None)


@pytest.mark.slow
@pytest.mark.parametrize("script", SCRIPTS)
def test_smoke(script):
    before = stored()
    done = call(str(BENCHMARKS / f"{script}.py"), "--smoke")
    assert done.returncode == 0, done.stdout + done.stderr
    assert "error of" in done.stdout or script == "generators"  # that one approximates nothing
    assert "nothing is claimed, nothing is written" in done.stdout
    assert "PASS" not in done.stdout and stored() == before


@pytest.mark.parametrize("path", sorted(RESULTS.glob("*.json")), ids=lambda path: path.stem)
def test_stored_results_can_be_read(path):
    result = json.loads(path.read_text(encoding="utf-8"))
    check_schema(result)
    assert not result.get("rehearsal") and result["claims"]


WRONG = """
import torch
import conv, kernel, layer, truth, twins
from s4lite.ops.conv import causal_conv
from s4lite.ops.vandermonde import diag_kernel

for script in (conv, kernel, layer):
    try:
        script.main(["--help"])
    except SystemExit as stop:
        print("help", stop.code)

fast, twin = twins.KERNELS["S4D"]
twins.KERNELS["S4D"] = (lambda *leaves: 1.00001 * diag_kernel(*leaves), twin)
print("wrong value", kernel.main(["--smoke"]))

class Backward(torch.autograd.Function):
    @staticmethod
    def forward(ctx, y):
        return y.clone()
    @staticmethod
    def backward(ctx, g):
        return 1.00001 * g

conv.fused_conv = lambda u, K: Backward.apply(causal_conv(u, K))
print("wrong gradient", conv.main(["--smoke"]))

run, count = layer.run, []
def moody(module, u):
    y, *rest = run(module, u)
    count.append(0)
    return [y + 1e-7 * len(count), *rest]
layer.run = moody
print("moody", layer.main(["--smoke"]))

one, none = torch.ones(2), torch.tensor([1.0, float("nan")])
print("no number", truth.judge({"x": lambda: [none]}, None, [one])[1])
"""


@pytest.mark.slow
def test_what_is_wrong_is_not_timed():
    done = call("-c", WRONG)
    assert done.returncode == 0, done.stderr
    for case in ("wrong value 1", "wrong gradient 1", "moody 1"):
        assert case in done.stdout
    assert "two runs differ" in done.stdout and "error of the gradients" in done.stdout
    assert "error of the value inf, allowed 1.0e-06" in done.stdout
    assert done.stdout.count("help 0") == 3
    assert "FAIL" in done.stdout and " ms " not in done.stdout  # right ones are not timed either


PEERS = """
import sys
import layer, torch

class Broken(torch.nn.Module):
    def forward(self, u):
        raise NotImplementedError("not with this torch")

class Nothing(torch.nn.Linear):
    def forward(self, u):
        return super().forward(u) / 0

sys.modules["s5"] = None  # as if it were not installed
layer.mamba_layer = lambda d: (Broken(), "")
layer.CausalAttention = lambda d, heads, L: Nothing(d, d)
print("exit", layer.main(["--smoke"]))
print(layer.claimed(None, {"ratios": {}}))
"""


@pytest.mark.slow
def test_peers_that_are_missing_or_broken_are_left_out():
    done = call("-c", PEERS)
    assert done.returncode == 0 and "exit 0" in done.stdout, done.stdout + done.stderr
    for why in (
        "s5-pytorch S5 is left out: s5-pytorch is not installed",
        "mambapy Mamba is left out: it fails (NotImplementedError: not with this torch)",
        "torch attention is left out: it gives no numbers",
    ):
        assert why in done.stdout
    assert (
        "torch GRU  " in done.stdout
        and "at most 1.0x the time of s5-pytorch S5': None" in done.stdout
    )


FRESH = """
import sys
from pathlib import Path
import common, layer

common.RESULTS = Path(sys.argv[1])
sizes = ["--batch", "1", "--L", "20", "--H", "8", "--N", "4", "--repeats", "3"]
print("exit", layer.main(sizes))
o = layer.begin(layer.options("x"), [])
result = {"benchmark": "b", "sizes": {}, "error": {"e": 1.0}, "seconds": {}}
print("exit", common.finish(o, "failing", dict(result), {"no": False, "open": None}))
print("exit", common.finish(o, "open", dict(result), {"yes": True, "open": None}))
slow, fast = [2.0, 6.0, 40.0], [1.0, 2.0, 10.0]
assert common.ratios(slow, fast) == {"median": 3.0, "lowest": 2.0, "highest": 4.0}
order = []
seconds = common.alternate({k: lambda k=k: order.append(k) for k in "abc"}, 3)
assert order == list("abc" + "abc" + "bca" + "cab") and all(len(s) == 3 for s in seconds.values())
"""


@pytest.mark.slow
def test_what_is_written(tmp_path):
    done = call("-c", FRESH, str(tmp_path))
    assert done.returncode == 0, done.stderr
    assert [line for line in done.stdout.splitlines() if line.startswith("exit")] == [
        "exit 0",
        "exit 1",
        "exit 0",
    ]
    assert "FAIL     no" in done.stdout and "not run  open" in done.stdout
    (file,) = tmp_path.glob("layer-1-8-4-20-*.json")
    result = json.loads(file.read_text())
    check_schema(result)
    assert result["claims"] == {} and len(result["seconds"]["S4D"]) == 3
    assert {p.suffix for p in tmp_path.iterdir()} == {".json"}


def rehearse(folder: Path, *more: str) -> subprocess.CompletedProcess:
    return call(str(BENCHMARKS / "gpu.py"), "--rehearse", "--out", str(folder), *more)


@needs_triton
@pytest.mark.slow
def test_gpu_run_is_cut_off_and_goes_on(tmp_path):
    before = stored()
    command = [sys.executable, str(BENCHMARKS / "gpu.py"), "--rehearse", "--out", str(tmp_path)]
    first = subprocess.Popen(
        command,
        cwd=ROOT,
        env=environ(),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # jobs may ignore it
    )
    for _ in range(1200):
        if (tmp_path / "correctness.json").exists():
            break
        time.sleep(0.1)
    first.send_signal(signal.SIGINT)
    assert first.wait(60) != 0 and not (tmp_path / "share.json").exists()

    done = rehearse(tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "correctness: is there, skipped" in done.stdout and "tests: is" not in done.stdout
    assert {p.stem for p in tmp_path.glob("*.json")} == {*STAGES, "gpu"}
    for stage in STAGES:
        assert json.loads((tmp_path / f"{stage}.json").read_text())["rehearsal"] is True
    table = json.loads((tmp_path / "gpu.json").read_text())
    check_schema(table)
    assert table["rehearsal"] and set(table["claims"].values()) == {None}
    assert set(table["stages"]) == set(STAGES) and table["failed"] == {}
    assert table["stages"]["tests"]["passed"] and not table["stages"]["correctness"]["wrong"]

    roofline = tmp_path / "roofline.json"
    roofline.write_text(roofline.read_text().replace('"code": "', '"code": "x'))  # of other code
    done = rehearse(tmp_path, "--budget", "0")
    assert done.returncode == 2 and "roofline: not begun" in done.stdout
    assert stored() == before


CLAIMS = """
import gpu, json, sys
print(gpu.main([]) if not gpu.torch.cuda.is_available() else 3)
none = gpu.claims_of({})
assert len(none) == 18 and set(none.values()) == {None}
ratio = lambda x: {"median": x}
names = "core / copy, forward", "core / copies, forward and backward"
names = *names, "FFT / core, forward", "FFT / core, forward and backward"
core = {"ratios": {k: ratio(x) for k, x in zip(names, (2.5, 2, 6, 4))}}
core |= {"memory": {"extra share": 0.1}, "accuracy": {"output / rounding": 1.2}}
graph = {"S4D": {"host waits": "", "graph": True}, "S4": {"host waits": "here", "graph": True}}
stages = {"core": {name: core for name in gpu.SHAPES}, "correctness": {"wrong": ["x"], "worse": []}}
stages |= {"share": {"S4D": {"share": ratio(0.04)}}, "tests": {"passed": True}, "graph": graph}
found = list(gpu.claims_of(stages).values())
core = [False, True, True, False, True, True]
assert found == [False, True, *core, *core, True, True, False, True], found
"""


def test_claims_about_a_gpu():
    done = call("-c", CLAIMS)
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip().splitlines()[-1] == "3"


GATE = """
import common, gpu, json, sys
from pathlib import Path

folder = Path(sys.argv[1])
head = {"rehearsal": True, "code": common.digest(), "environment": {"gpu": gpu.NO_GPU}}
common.write(folder / "correctness.json", head | {"cases": {}, "wrong": ["x"], "worse": ["x"]})
found = gpu.done(folder / "correctness.json", True, gpu.NO_GPU)
assert found["wrong"] == ["x"] and gpu.done(folder / "correctness.json", True, "another") is None
assert gpu.done(folder / "correctness.json", False, gpu.NO_GPU) is None
kept, common.VERSIONS = common.VERSIONS, ()  # other libraries: stale
assert gpu.done(folder / "correctness.json", True, gpu.NO_GPU) is None
common.VERSIONS = kept
print("exit", gpu.main(["--rehearse", "--out", str(folder), "--stages", "core", "share"]))
"""


def test_what_is_wrong_on_a_gpu_is_not_timed(tmp_path):
    done = call("-c", GATE, str(tmp_path))
    assert done.returncode == 0, done.stderr
    for stage in ("core", "share"):
        assert f"{stage}: not timed: wrong results of x" in done.stdout
        assert not (tmp_path / f"{stage}.json").exists()
    assert "exit 1" in done.stdout
