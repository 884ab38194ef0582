"""Translate every kernel for compute capability 9.0, no GPU needed: prints name and stack bytes."""

import inspect
import os
import re
import subprocess
import tempfile

import triton
import triton.language as tl
from triton.backends.compiler import GPUTarget
from triton.backends.nvidia import compiler

from s4lite.ops.triton import backend, exponentials, fractions
from s4lite.ops.triton import chunk_kernels as chunks

TOOL = os.path.join(os.path.dirname(compiler.__file__), "bin", "cuobjdump")
NUMBERS = {"H", "L", "rows", "S", "nc", "late", "tiles", "J", "n"}


def stack(kernel, constants: dict, signal: str) -> int:
    """Bytes of stack that a thread of the kernel needs."""
    types, hints = {}, {}
    for place, name in enumerate(inspect.signature(kernel).parameters):
        number = name in NUMBERS or (name == "K" and "BN" in constants)
        pointer = signal if name in {"u", "v", "g", "y", "du"} else "*fp32"
        pointer = "*i64" if name == "turn" else pointer
        types[name] = "constexpr" if name in constants else "i32" if number else pointer
        if types[name][0] == "*" or name in ("H", "L"):
            hints[(place,)] = [["tt.divisibility", 16]]
    source = triton.compiler.ASTSource(backend.compiled(kernel), types, constants, hints)
    code = triton.compile(source, target=GPUTarget("cuda", 90, 32), options={"num_warps": 4})
    with tempfile.NamedTemporaryFile(suffix=".cubin") as file:
        file.write(code.asm["cubin"])
        file.flush()
        command = [TOOL, "-res-usage", file.name]
        usage = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    return int(re.search(r"STACK:(\d+)", usage)[1])


SUMS = {"N": 32, "Q": 16, "R": 64, "PREC": "tf32x3"}
CAUCHY = {"JP": 16, "BN": 16, "BK": 16, "PREC": "tf32x3"}
work = [
    (exponentials._exponentials_kernel, SUMS, "*fp32"),
    (exponentials._moments_kernel, SUMS, "*fp32"),
    (fractions._fractions_kernel, CAUCHY | {"BK": 64}, "*fp32"),
    (fractions._fraction_grads_kernel, CAUCHY, "*fp32"),
]
for kind, signal, precision in [(tl.bfloat16, "*bf16", "tf32"), (tl.float32, "*fp32", "tf32x3")]:
    shape = {"N": 32, "T": 64, "MMA": kind, "PREC": precision}
    for reverse in (False, True):
        work.append((chunks._states_kernel, shape | {"R": 64, "REVERSE": reverse}, signal))
    work.append((chunks._forward_kernel, shape | {"R": 64}, signal))
    work.append((chunks._adjoint_kernel, shape | {"R": 16}, signal))
    work.append((chunks._weights_kernel, shape | {"R": 16}, signal))
for kernel, constants, signal in work:
    print(kernel.__name__, signal, stack(kernel, constants, signal))
