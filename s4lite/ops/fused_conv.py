"""Causal convolution through blocks of channels that stay in cache; no spectra are kept.

Home: chapter 14, "Causal convolution: fewer bytes" (chapters/14a_convolution.ipynb).
"""

import itertools
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from s4lite.ops.checks import check_tensors
from s4lite.ops.conv import _check_signals, fft_length

__all__ = ["fused_conv"]


@dataclass(frozen=True)
class _Ring:
    """How two kernels lie on a ring of n lags: the past from 0 on, the future at the end."""

    past: int
    future: int
    n: int
    dtype: torch.dtype  # of the transforms

    def kernel(self, K: Tensor, K_backward: Tensor | None) -> Tensor:
        """The lags of both; of the past alone if that is all, zeros not written."""
        K = K[..., : self.past]
        if K_backward is None:
            return K
        K = F.pad(K, (0, self.n - self.past - self.future))
        return torch.cat([K, K_backward[..., : self.future].flip(-1)], -1)


def _ring(u: Tensor, K: Tensor, K_backward: Tensor | None) -> _Ring:
    """A good ring, large enough by eq-conv-ring; its length is a multiple of 4, mostly of 8."""
    L, dtype = u.shape[-1], torch.promote_types(u.dtype, K.dtype)
    past, future = min(L, K.shape[-1]), 0
    if K_backward is not None:
        future = min(L - 1, K_backward.shape[-1])
        dtype = torch.promote_types(dtype, K_backward.dtype)
    n = 4 * fft_length((L + max(past - 1, future) + 3) // 4)
    return _Ring(past, future, n, torch.promote_types(dtype, torch.float32))


def _plain(u: Tensor, K: Tensor, D: Tensor | None, K_backward: Tensor | None) -> Tensor:
    """All at once, known to autograd: the twin of `_Blocks`."""
    ring = _ring(u, K, K_backward)
    u_hat = torch.fft.rfft(u.to(ring.dtype), ring.n)
    K_hat = torch.fft.rfft(ring.kernel(K, K_backward).to(ring.dtype), ring.n)
    y = torch.fft.irfft(u_hat * K_hat, ring.n)[..., : u.shape[-1]]
    return (y if D is None else y + D[..., None].to(ring.dtype) * u).to(u.dtype)


_BLOCK = 1 << 20  # bytes of padded signals in a block, on a CPU
_ROWS = 4  # signals in a block at least, eq-conv-block
_SMALL = 1 << 16  # samples in all up to which autograd stays in cache and does as well

_Box = tuple[slice, ...]


def _cut(sizes: list[int], room: int) -> list[_Box]:
    """Cut axes into boxes of at most `room` entries; the last axis stays whole longest."""
    steps = []
    for size in reversed(sizes):
        steps.append(min(size, max(1, room)))
        room //= size
    axes = zip(sizes, reversed(steps), strict=True)
    cuts = [[slice(i, min(i + step, size)) for i in range(0, size, step)] for size, step in axes]
    return list(itertools.product(*cuts))


def _at(x: Tensor | None, box: _Box) -> Tensor | None:
    """The part of x in a box of its leading axes; an axis of size 1 belongs to every box."""
    if x is None:
        return None
    sides = zip(x.shape, box, strict=False)
    return x[tuple(slice(None) if size == 1 else side for size, side in sides)]


def _groups(u: Tensor, K: Tensor, ring: _Ring) -> Iterator[tuple[_Box, list[_Box]]]:
    """Boxes of kernels, and with each the boxes of signals that it filters."""
    block = _BLOCK if u.device.type == "cpu" else 64 * _BLOCK
    room = max(_ROWS, block // (ring.n * ring.dtype.itemsize))
    own = [size > 1 for size in K.shape[:-1]]
    sizes = list(zip(u.shape[:-1], own, strict=True))
    kernels, others = [s if o else 1 for s, o in sizes], [1 if o else s for s, o in sizes]
    shared = _cut(others, room)
    for box in _cut(kernels, room // math.prod(others)):
        mixed = [zip(own, box, other, strict=True) for other in shared]
        yield box, [tuple(a if mine else b for mine, a, b in sides) for sides in mixed]


def _spectra(ring: _Ring, *signals: Tensor) -> tuple[list[Tensor], list[Tensor]]:
    """Signals (..., any), copied once into rows of zeros; their transforms, in one call."""
    rows, device = [math.prod(x.shape[:-1]) for x in signals], signals[0].device
    stage = torch.zeros(sum(rows), ring.n, dtype=ring.dtype, device=device)
    copies = []
    for x, part in zip(signals, stage.split(rows), strict=True):
        copies.append(part.view(*x.shape[:-1], ring.n)[..., : x.shape[-1]].copy_(x))
    parts = zip(signals, torch.fft.rfft(stage).split(rows), strict=True)
    return copies, [part.view(*x.shape[:-1], ring.n // 2 + 1) for x, part in parts]


def _finish(y: Tensor, hat: Tensor, n: int, D: Tensor | None, x: Tensor) -> None:
    """Transform back and write the first samples to y, with D x added directly, eq-conv-direct."""
    part = torch.fft.irfft(hat, n)[..., : y.shape[-1]]
    if D is None:
        y.copy_(part)
    elif y.dtype == part.dtype and y.stride(-1) == 1:
        torch.addcmul(part, D[..., None].to(part.dtype), x, out=y)
    else:
        y.copy_(part.addcmul_(D[..., None].to(part.dtype), x))


def _forward(u: Tensor, K: Tensor, D: Tensor | None, K_backward: Tensor | None) -> Tensor:
    """y, block by block, in u's layout: strided if u is."""
    ring, y = _ring(u, K, K_backward), torch.empty_like(u)
    for group, boxes in _groups(u, K, ring):
        kernel, K_hat = [ring.kernel(_at(K, group), _at(K_backward, group))], None
        for box in boxes:
            (x, *_), (hat, *found) = _spectra(ring, _at(u, box), *kernel)
            kernel, K_hat = [], found[0] if found else K_hat
            _finish(y[box], hat.mul_(K_hat), ring.n, _at(D, box), x)
            del x, hat, found, _  # else they live on beside those of the next block
    return y


def _box_backward(
    ring: _Ring,
    g: Tensor,
    u: Tensor | None,
    du: Tensor | None,
    D: Tensor | None,
    kernel: Tensor | None,
    K_hat: Tensor | None,
) -> tuple[Tensor | None, Tensor | None]:
    """One box of eq-conv-spectra: write du; return conj(K^), for the next box, and conj(u^) g^."""
    signals = [z for z in (g, u, kernel) if z is not None]
    copies, hats = _spectra(ring, *signals)
    told = None if u is None else hats[1].conj_physical_().mul_(hats[0])
    if du is not None:
        K_hat = K_hat if kernel is None else hats[-1].conj_physical_()
        _finish(du, hats[0].mul_(K_hat), ring.n, D, copies[0])
    return K_hat, told


def _group_backward(
    ring: _Ring,
    group: _Box,
    boxes: list[_Box],
    g: Tensor,
    leaves: Sequence[Tensor | None],
    found: Sequence[Tensor | None],
) -> None:
    """All boxes that share a kernel: write their du, and the kernel's derivatives."""
    (u, K, D, K_backward), (du, dK, back) = leaves, found
    kernel = None if du is None else ring.kernel(_at(K, group), _at(K_backward, group))
    K_hat = total = None
    for box in boxes:
        heard = None if dK is None and back is None else _at(u, box)
        K_hat, told = _box_backward(
            ring, _at(g, box), heard, _at(du, box), _at(D, box), kernel, K_hat
        )
        kernel = None
        if told is not None:
            told = told.sum_to_size(*_at(K, group).shape[:-1], told.shape[-1])
            total = told if total is None else total.add_(told)
    if total is not None:
        lags = torch.fft.irfft(total, ring.n)
    if dK is not None:
        _at(dK, group)[..., : ring.past] = lags[..., : ring.past]
    if back is not None:
        _at(back, group)[..., : ring.future] = lags[..., ring.n - ring.future :].flip(-1)


def _backward(g: Tensor, leaves: Sequence[Tensor | None], need: Sequence[bool]) -> list:
    """Derivatives by u, K, D and K_backward, those that are needed, group by group."""
    u, K, D, K_backward = leaves
    ring, du = _ring(u, K, K_backward), torch.empty_like(u) if need[0] else None
    dK = torch.zeros_like(K) if need[1] else None
    dD = torch.zeros_like(D, dtype=ring.dtype) if need[2] else None
    back = torch.zeros_like(K_backward) if need[3] else None
    for group, boxes in _groups(u, K, ring):
        for box in boxes if need[2] else []:
            here = _at(dD, box)
            product = _at(g, box).to(ring.dtype) * _at(u, box)
            here += product.sum(-1).sum_to_size(here.shape)
        if need[0] or need[1] or need[3]:
            _group_backward(ring, group, boxes, g, leaves, (du, dK, back))
    return [du, dK, None if dD is None else dD.to(D.dtype), back]


class _Blocks(torch.autograd.Function):
    """`_plain` in little memory: kept are u, K, D and K_backward, and nothing else."""

    @staticmethod
    def forward(ctx, *leaves: Tensor | None) -> Tensor:
        ctx.save_for_backward(*leaves)
        return _forward(*leaves)

    @staticmethod
    def backward(ctx, g: Tensor) -> tuple[Tensor | None, ...]:
        leaves, need = ctx.saved_tensors, ctx.needs_input_grad
        if not torch.is_grad_enabled():
            return tuple(_backward(g, leaves, need))
        ask = [z for z, wanted in zip(leaves, need, strict=True) if wanted]
        found = iter(torch.autograd.grad(_plain(*leaves), ask, g, create_graph=True))
        return tuple(next(found) if wanted else None for wanted in need)


def _check(u: Tensor, K: Tensor, D: Tensor | None, K_backward: Tensor | None) -> torch.Size:
    """Raise unless all are real and fit; the leading axes of the output."""
    given = {"u": u, "K": K} | ({} if D is None else {"D": D})
    given |= {} if K_backward is None else {"K_backward": K_backward}
    check_tensors(**given)
    for name, x in given.items():
        if x.is_complex():
            raise TypeError(f"want {name} real, got {x.dtype}")
    _check_signals(u, K)
    if K_backward is not None:
        _check_signals(u, K_backward)
        if K.shape[:-1] != K_backward.shape[:-1]:
            got = f"{tuple(K.shape)} and {tuple(K_backward.shape)}"
            raise ValueError(f"want K and K_backward with the same leading axes, got {got}")
    axes = torch.broadcast_shapes(u.shape[:-1], K.shape[:-1])
    try:
        full = axes if D is None else torch.broadcast_shapes(axes, D.shape)
    except RuntimeError:
        full = (0,)
    if 0 in full:
        got = f"D {tuple(D.shape)}, u {tuple(u.shape)}, K {tuple(K.shape)}"
        raise ValueError(f"want D (...) that fits u (..., L) and K (..., M), got {got}")
    return full


def fused_conv(
    u: Tensor, K: Tensor, D: Tensor | None = None, *, K_backward: Tensor | None = None
) -> Tensor:
    """Causal convolution plus D u, through blocks of channels that stay in cache.

    Args:
        u           (..., L)  input signal, real; any strides
        K           (..., M)  kernel of past and present, real, M >= 1; zero beyond its end
        D           (...)     gain of the direct path, real; none if None
        K_backward  (..., P)  kernel of the future, from the next sample on, real; K's leading axes
    Returns:
        y  (..., L)  y[k] = sum over j <= k of K[k - j] u[j] + D u[k]
                     + sum over j > k of K_backward[j - k - 1] u[j], in u's dtype
    Raises:
        TypeError: if one is no floating tensor (complex, integer).
        ValueError: if shapes or devices do not fit, or an axis is empty.

    Error:  of the sums as `causal_conv`'s; of D u, one rounding. Computed in the widest of the
            signals' dtypes and float32, rounded to u's dtype once.
    Cost:   forward two real FFTs a signal and one a kernel, backward three and two. Kept for the
            way back: the arguments. Alive beside them: up to seven blocks of 1 MiB of padded
            signals each, or of 4 signals if that is more (on a GPU of 64 MiB).
    Source: our eq-conv-ring, eq-conv-spectra, eq-conv-direct, eq-conv-block.

    Up to _SMALL samples, under torch.compile and in torch.func: the same sums in one piece.
    """
    full = _check(u, K, D, K_backward)
    u = u.expand(*full, -1)
    K, K_backward = (z if z is None else z[(None,) * (u.ndim - z.ndim)] for z in (K, K_backward))
    D = D if D is None else D[(None,) * (len(full) - D.ndim)]
    plain = torch.compiler.is_compiling() or torch._C._are_functorch_transforms_active()
    run = _plain if plain or u.numel() <= _SMALL else _Blocks.apply
    return run(u, K, D, K_backward)
