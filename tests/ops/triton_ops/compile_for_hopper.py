"""Translate every kernel for compute capability 9.0, no GPU needed: name, stack, shared bytes."""

import inspect
import os
import re
import subprocess
import tempfile

import triton
import triton.language as tl
from triton.backends.compiler import GPUTarget
from triton.backends.nvidia import compiler

from s4lite.ops.triton import backend, exponentials, fractions, operators
from s4lite.ops.triton import chunk_kernels as chunks
from s4lite.ops.triton.rows import _cut

TOOL = os.path.join(os.path.dirname(compiler.__file__), "bin", "cuobjdump")
NUMBERS = backend._COUNTS | {"L", "n"}
DOUBLE = {operators._operators_kernel, operators._operator_grads_kernel}


def usage(kernel, constants: dict, signal: str, warps: int = 4) -> str:
    """Bytes of stack that a thread needs, and of shared memory that a program needs."""
    types, hints = {}, {}
    for place, name in enumerate(inspect.signature(kernel).parameters):
        number = name in NUMBERS or (name == "K" and "BN" in constants)
        pointer = signal if name in {"u", "v", "g", "y", "du"} else "*fp32"
        double = name == "nu" or (kernel in DOUBLE and name in {"Bb", "C", "out"})
        pointer = "*fp64" if double else "*i64" if name == "turn" else pointer
        types[name] = "constexpr" if name in constants else "i32" if number else pointer
        if types[name][0] == "*" or name == "L":
            hints[(place,)] = [["tt.divisibility", 16]]
    source = triton.compiler.ASTSource(backend.compiled(kernel), types, constants, hints)
    code = triton.compile(source, target=GPUTarget("cuda", 90, 32), options={"num_warps": warps})
    with tempfile.NamedTemporaryFile(suffix=".cubin") as file:
        file.write(code.asm["cubin"])
        file.flush()
        command = [TOOL, "-res-usage", file.name]
        said = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    return f"{re.search(r'STACK:([0-9]+)', said)[1]} {code.metadata.shared}"


SUMS = {"N": 32, "Q": 16, "R": 64, "PREC": "tf32x3"}
CAUCHY = {"JP": 16, "BN": 16, "BK": 16, "PREC": "tf32x3"}
SMALL = {"N": 32, "T": 64, "R": 16}
work = [
    (exponentials._exponentials_kernel, SUMS, "*fp32", 4, 0),
    (exponentials._moments_kernel, SUMS, "*fp32", 4, 0),
    (fractions._fractions_kernel, CAUCHY | {"BK": 64}, "*fp32", 4, 0),
    (fractions._fraction_grads_kernel, CAUCHY, "*fp32", 4, 0),
    (operators._operators_kernel, SMALL, "", 4, 0),
    (operators._operator_grads_kernel, SMALL, "", 4, 0),
    (chunks._chain_kernel, {"N": 32, "REVERSE": True, "FROM": False}, "", 4, 0),
]
for kind, signal, precision in [(tl.bfloat16, "*bf16", "tf32"), (tl.float32, "*fp32", "tf32x3")]:
    cut = _cut((64, 512, 1024), 32, 64, None, precision)
    shape = {"N": 32, "T": 64, "MMA": kind, "PREC": precision}
    there = {"FROM": True, "TOLD": True}
    sizes = [
        (chunks._states_kernel, {"R": cut.most, "REVERSE": False, "TOLD": False}),
        (chunks._states_kernel, {"R": cut.most, "REVERSE": True, "TOLD": True, "MMA": tl.float32}),
        (chunks._forward_kernel, {"R": cut.most, "FROM": True}),
        (chunks._adjoint_kernel, {"R": 16, "KEEP": True} | there),
        (chunks._weights_kernel, {"R": 16, "START": True} | there),
    ]
    work += [(k, shape | more, signal, cut.warps, cut.shared * 1024) for k, more in sizes]
for kernel, constants, signal, warps, most in work:
    print(kernel.__name__, signal or "-", usage(kernel, constants, signal, warps), most)
