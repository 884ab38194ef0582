"""Triton: kernels in the interpreter, on a GPU where there is one, and in the compiler.

The interpreter has to be chosen before anybody imports triton. So the cases run in processes of
their own: `cases_chunks.py` and `cases_sums.py`, here started with TRITON_INTERPRET=1, and on a GPU
without it. To run them by hand, TRITON_INTERPRET=1 python -m pytest, and the path of one.
"""

import importlib.util
from pathlib import Path

import pytest
import torch

HERE = Path(__file__).parent
needs_triton = pytest.mark.skipif(
    importlib.util.find_spec("triton") is None, reason="triton is not installed"
)
CASES = ("cases_chunks.py", "cases_sums.py")


@needs_triton
@pytest.mark.slow
@pytest.mark.parametrize("cases", CASES)
def test_in_the_interpreter(run_python, cases):
    out = run_python(
        "-m", "pytest", "-q", "-x", "-p", "no:cacheprovider", HERE / cases, TRITON_INTERPRET="1"
    )
    assert " passed" in out


@needs_triton
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU")
@pytest.mark.parametrize("cases", CASES)
def test_on_a_gpu(run_python, cases):
    env = {"TRITON_INTERPRET": "0", "S4LITE_TEST_DEVICE": "cuda"}
    assert " passed" in run_python(
        "-m", "pytest", "-q", "-p", "no:cacheprovider", HERE / cases, **env
    )


@needs_triton
@pytest.mark.slow
def test_every_kernel_compiles_for_hopper(run_python, tmp_path):
    """And the sizes that the design is for with hardly a spill, in the memory that was counted."""
    env = {"TRITON_INTERPRET": "0", "TRITON_CACHE_DIR": str(tmp_path)}
    lines = [
        line.split() for line in run_python(HERE / "compile_for_hopper.py", **env).splitlines()
    ]
    assert len(lines) == 17
    fit = {"_exponentials_kernel", "_moments_kernel", "_fractions_kernel", "_states_kernel"}
    for name, signal, stack, shared, most in lines:
        bound = 0 if name in fit or signal == "*bf16" else 100  # a float64 sine has a table there
        assert int(stack) <= bound, f"{name} {signal} spills {stack} bytes"
        assert most == "0" or int(shared) <= int(most), f"{name} {signal} takes {shared} bytes"


def test_long_signals_on_a_cpu_go_by_chunks_and_give_the_same():
    from s4lite.ops.conv import causal_conv
    from s4lite.ops.triton.chunks import fused_chunks
    from s4lite.ops.vandermonde import vandermonde

    gen = torch.Generator().manual_seed(0)
    nu = torch.complex(-0.01 - torch.rand(16, 2, generator=gen), torch.ones(16, 2)).cdouble()
    C = torch.randn(16, 2, dtype=nu.dtype, generator=gen)
    u = torch.randn(16, 1 << 15, generator=gen)
    Bb, D = torch.ones_like(nu), torch.randn(16, generator=gen)
    y, _ = fused_chunks(nu, Bb, C, u, D=D)
    want = causal_conv(u.double(), vandermonde(C, nu, u.shape[-1])) + D[:, None] * u
    assert y.dtype == u.dtype and (y - want).abs().max() < 1e-6 * want.abs().max()
    short, _ = fused_chunks(nu, Bb, C, u[:, :-1], D=D)  # one sample less: by FFT
    assert (short - want[:, :-1]).abs().max() < 1e-6 * want.abs().max()


MISSING = """
import sys
sys.modules["triton"] = None  # as if it were not installed
import torch
from s4lite.ops.triton.backend import choose_backend, load_triton
from s4lite.ops.triton.chunks import fused_chunks
nu, one = torch.full((1, 2), -0.1 + 1j, dtype=torch.complex128), torch.ones(1, 2)
y, x = fused_chunks(nu, one, one, torch.ones(1, 9))
print(y.shape == (1, 9), choose_backend("auto", torch.device("cuda")))
for call in (load_triton, lambda: fused_chunks(nu, one, one, torch.ones(1, 9), backend="triton")):
    try:
        call()
    except ModuleNotFoundError as error:
        print(error)
"""


def test_without_triton_torch_serves_and_the_extra_is_named(run_python):
    out = run_python("-c", MISSING).splitlines()
    assert out[0] == "True torch"
    assert len(out) == 3 and all('pip install "s4lite[triton]"' in line for line in out[1:])


@needs_triton
def test_without_an_interpreter_the_cpu_is_refused(run_python):
    code = """
import torch
from s4lite.ops.triton.backend import choose_backend
print(choose_backend("auto", torch.device("cpu")))
try:
    choose_backend("triton", torch.device("cpu"))
except ValueError as error:
    print(error)
"""
    out = run_python("-c", code, TRITON_INTERPRET="0").splitlines()
    assert out[0] == "torch" and "cannot serve this call: no kernels on cpu" in out[1]


def test_importing_the_package_does_not_import_triton(run_python):
    code = "import s4lite.ops.triton.chunks, sys; print('triton' in sys.modules)"
    assert run_python("-c", code).strip() == "False"
