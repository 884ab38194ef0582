"""What is computed from parameters alone, kept with a copy of them: never out of date.

Home: chapter 14, "One step at a time" (chapters/14e_steps.ipynb).
"""

import functools
import weakref
from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.autograd import forward_ad

__all__ = ["Record", "is_eager", "is_itself", "is_plain", "kept"]


class Record(NamedTuple):
    """An answer, with the question to which it belongs.

    key     tuple  what else it depends on: what it is, the rate, options
    asked   tuple  of each parameter: name, dtype, integers of that size, its bits
    answer  any    made from these very bits
    """

    key: tuple
    asked: tuple[tuple[str, torch.dtype, torch.dtype, Tensor], ...]
    answer: Any


_BITS = {2: torch.int16, 4: torch.int32, 8: torch.int64}
_MOST = 4  # answers kept for one kernel: some rates, some lengths of blocks
_ROOM = 1 << 27  # bytes for all of them


@functools.cache
def _records() -> weakref.WeakKeyDictionary:
    """The records of every kernel alive, beside it: copies, pickles, state dicts know nothing."""
    return weakref.WeakKeyDictionary()


def _size(answer: Any) -> int:
    """Bytes of the tensors in an answer."""
    if isinstance(answer, tuple):
        return sum(map(_size, answer))
    return answer.nbytes if isinstance(answer, Tensor) else 0


def _fitting(records: tuple[Record, ...]) -> tuple[Record, ...]:
    """The first few of these, as long as there is room for them."""
    held, room = [], _ROOM
    for record in records[:_MOST]:
        if (size := _size(record.answer)) <= room:
            held.append(record)
            room -= size
    return tuple(held)


def is_plain(p: Tensor | None, grad: bool) -> bool:
    """May p be looked at, and does no derivative go through it?"""
    if type(p) not in (Tensor, nn.Parameter) or not p.is_cpu or p.is_neg():
        return False
    return not (grad and p.requires_grad)


def _unchanged(kernel: nn.Module, record: Record, grad: bool) -> bool:
    """Do the parameters hold the same bits as when the record was made?"""
    own = kernel._parameters
    for name, dtype, integers, bits in record.asked:
        p = own.get(name)
        if not is_plain(p, grad) or p.dtype is not dtype:
            return False
        if not torch.equal(p.view(integers), bits):
            return False
    return True


def is_eager() -> bool:
    """Do operations run one by one on real numbers: no compiler, transform, tangent or tracer?"""
    if torch.compiler.is_compiling() or torch._C._are_functorch_transforms_active():
        return False
    if forward_ad._current_level >= 0 or torch._C._get_tracing_state() is not None:
        return False
    if not torch._C._len_torch_dispatch_stack():
        return True
    keys = torch._C._TorchDispatchModeKey  # modes that only look on may stay
    return all(
        torch._C._get_dispatch_mode(k) is None for k in (keys.FAKE, keys.PROXY, keys.FUNCTIONAL)
    )


_OWN = frozenset({"modes", "steps", "system", "folded", "chunks", "forward"})


def is_itself(kernel: nn.Module) -> bool:
    """Do class, parameters and options say all about a kernel, nothing patched or inherited?"""
    return "folded" in type(kernel).__dict__ and _OWN.isdisjoint(kernel.__dict__)


def _make(kernel: nn.Module, names: tuple[str, ...], key: tuple, make: Callable) -> Record:
    """Copy the parameters, and compute from the copies."""
    with torch.inference_mode(False), torch.no_grad():
        copies = {name: kernel._parameters[name].detach().clone() for name in names}
        twin = object.__new__(type(kernel))
        twin.__dict__.update(kernel.__dict__, **copies)  # found before the parameters
        asked = ((k, p.dtype, _BITS[p.element_size()], p) for k, p in copies.items())
        return Record(key, tuple((k, t, i, p.view(i)) for k, t, i, p in asked), make(twin))


def kept(kernel: nn.Module, key: tuple, make: Callable, besides: tuple[str, ...] = ()) -> Any:
    """Compute something from a kernel's parameters, or know it still: never out of date.

    Args:
        kernel   nn.Module  its own parameters are all that `make` looks at
        key      tuple      all else that the result depends on
        make     callable   kernel -> result; is handed a twin of the kernel that holds copies
        besides  tuple      names of parameters that the result does not depend on
    Returns:
        result  any  what make(kernel) would be, or None: nothing can be kept here and now

    Nothing is kept under compilation, transforms, tracers, for parameters that ask for gradients,
    or beyond the CPU; under other dispatch modes nothing new. The result is shared: read it only.

    Cost:   a view and a comparison for each parameter; at most 128 MiB for each kernel.
    Source: our eq-steps-kept.
    """
    if not is_eager():
        return None
    held, grad = _records().get(kernel, ()), torch.is_grad_enabled()
    for record in held:
        if record.key == key and _unchanged(kernel, record, grad):
            return record.answer
    names = tuple(name for name in kernel._parameters if name not in besides)
    plain = all(is_plain(kernel._parameters[name], grad) for name in names)
    if not plain or torch._C._len_torch_dispatch_stack():  # a mode may change what is computed
        return None
    record = _make(kernel, names, key, make)
    others = (other for other in held if other.key != key)
    _records()[kernel] = _fitting((record, *others))  # one tuple for another, for other threads
    return record.answer
