"""Layers on Triton, in processes of their own: the interpreter is chosen before triton is there."""

import importlib.util
from pathlib import Path

import pytest
import torch

CASES = Path(__file__).parent / "cases_layers.py"
needs_triton = pytest.mark.skipif(
    importlib.util.find_spec("triton") is None, reason="triton is not installed"
)


@needs_triton
def test_in_the_interpreter(run_python):
    out = run_python(
        "-m", "pytest", "-q", "-x", "-p", "no:cacheprovider", CASES, TRITON_INTERPRET="1"
    )
    assert " passed" in out


@needs_triton
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU")
def test_on_a_gpu(run_python):
    env = {"TRITON_INTERPRET": "0", "S4LITE_TEST_DEVICE": "cuda"}
    assert " passed" in run_python("-m", "pytest", "-q", "-p", "no:cacheprovider", CASES, **env)


MISSING = """
import sys
sys.modules["triton"] = None  # as if it were not installed
import torch
from s4lite.nn.layer import S4D
u = torch.ones(1, 9, 2)
print(S4D(2, 4)(u).shape == u.shape, S4D(2, 4, backend="torch")(u).shape == u.shape)
try:
    S4D(2, 4, backend="triton")(u)
except ModuleNotFoundError as error:
    print(error)
"""


def test_without_triton(run_python):
    out = run_python("-c", MISSING)
    assert out.startswith("True True\n") and 'pip install "s4lite[triton]"' in out


@needs_triton
def test_without_a_gpu_and_an_interpreter_triton_says_why(run_python):
    code = MISSING.split("\n", 3)[3].replace("ModuleNotFoundError", "ValueError")
    if not torch.cuda.is_available():
        assert "TRITON_INTERPRET=1" in run_python("-c", code, TRITON_INTERPRET="0")
