"""Where a Triton kernel can run, and if not, why not.

Home: chapter 14, "On a GPU: Triton" (chapters/14c_triton.ipynb).
"""

from __future__ import annotations

import functools
import importlib.util
import inspect
from collections.abc import Callable
from types import ModuleType
from typing import TYPE_CHECKING

import torch
from torch import Tensor

if TYPE_CHECKING:
    pass

__all__ = ["choose_backend", "compiled", "interpreting", "load_triton"]


def load_triton() -> ModuleType:
    """Import triton, or say what brings it.

    Returns:
        triton  module  with `triton.language` loaded
    Raises:
        ModuleNotFoundError: if it is not installed.
    """
    try:
        import triton
        import triton.language
    except ModuleNotFoundError:
        raise ModuleNotFoundError(
            'the Triton backend needs triton: pip install "s4lite[triton]"'
        ) from None
    return triton


def interpreting() -> bool:
    """Tell whether kernels run in Triton's interpreter, on the CPU, one program after the other.

    Returns:
        bool  True if TRITON_INTERPRET=1 was set before triton was imported
    Raises:
        ModuleNotFoundError: if triton is not installed.
    """
    return bool(load_triton().knobs.runtime.interpret)


_COUNTS = {
    "H",
    "J",
    "S",
    "rows",
    "nc",
    "whole",
    "tiles",
    "blocks",
    "jump",
}  # any number: one kernel


@functools.cache
def compiled(kernel: Callable) -> Callable:
    """Hand a kernel to Triton on its first use; until then it is a plain function.

    Args:
        kernel  function  written in Triton's language, which it calls `tl`
    Returns:
        launcher  callable  to be launched as launcher[grid](...)
    Raises:
        ModuleNotFoundError: if triton is not installed.
    """
    triton, names = load_triton(), kernel.__globals__
    names["tl"] = triton.language
    for name in kernel.__code__.co_names:  # helpers that it calls
        if inspect.isfunction(names.get(name)):
            names[name] = compiled(names[name])
    return triton.jit(kernel, do_not_specialize=_COUNTS & set(inspect.signature(kernel).parameters))


@functools.cache
def _installed() -> bool:
    return importlib.util.find_spec("triton") is not None


def _why_no_launch(device: torch.device) -> str:
    """Say why no kernel can be launched on a device; "" if one can."""
    if not _installed():
        return 'triton is not installed: pip install "s4lite[triton]"'
    if interpreting():
        return "" if device.type in ("cpu", "cuda") else f"no interpreter on {device.type}"
    if device.type != "cuda":
        return f"no kernels on {device.type}, but TRITON_INTERPRET=1 interprets them on the CPU"
    if torch.version.hip is not None or torch.cuda.get_device_capability(device) < (8, 0):
        return "it wants an Nvidia GPU of compute capability 8.0 or more"
    return ""


def choose_backend(backend: str, device: torch.device, why_not: str = "") -> str:
    """Decide which backend serves a call.

    Args:
        backend  str     "auto", "torch" or "triton"
        device   device  of the tensors
        why_not  str     why Triton cannot serve this call; "" if it can
    Returns:
        backend  str  "torch" or "triton"; from "auto" Triton on a GPU that can serve, else torch
    Raises:
        ValueError: if backend is unknown, or is "triton" and cannot serve: with the reason.
        ModuleNotFoundError: if backend is "triton" and triton is not installed.
    """
    if backend not in ("auto", "torch", "triton"):
        raise ValueError(f'want backend "auto", "torch" or "triton", got {backend!r}')
    if backend == "torch" or (backend == "auto" and device.type != "cuda"):
        return "torch"
    if backend == "triton":
        load_triton()
    why_not = why_not or _why_no_launch(device)
    if backend == "triton" and why_not:
        raise ValueError(f'backend "triton" cannot serve this call: {why_not}')
    return "torch" if why_not else "triton"


def _derive(plain: Callable, inputs: tuple, grads: tuple) -> list[Tensor | None]:
    """Gradients by all inputs that have a graph themselves: those of a plain composition."""
    out = list(plain(*inputs))
    pairs = [(z, g) for z, g in zip(out, grads, strict=True) if g is not None and z.requires_grad]
    ask = [z for z in inputs if isinstance(z, Tensor) and z.requires_grad]
    outputs, weights = zip(*pairs, strict=True)
    found = iter(torch.autograd.grad(outputs, ask, weights, create_graph=True, allow_unused=True))
    return [next(found) if isinstance(z, Tensor) and z.requires_grad else None for z in inputs]


def _shared_memory(device: torch.device) -> int | None:
    """Shared memory that a program may have, in kB; None where it does not count."""
    if _why_no_launch(device) or interpreting():
        return None
    properties = load_triton().runtime.driver.active.utils.get_device_properties
    return properties(device.index or 0)["max_shared_mem"] // 1024


def _transformed() -> str:
    """Say which transform wants to see every step; "" if none."""
    if torch.compiler.is_compiling():
        return "inside torch.compile"
    inside = torch._C._are_functorch_transforms_active()
    return "inside a torch.func transform" if inside else ""
