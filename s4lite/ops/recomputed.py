"""Sums of fractions in real arithmetic, tile by tile, with a backward pass that makes them again.

Home: chapter 14, "Speed: count first" (chapters/14_speed.ipynb).
"""

import math
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, nullcontext

import torch
from torch import Tensor

__all__ = ["sum_fractions"]


def _apart(v: Tensor, l: Tensor) -> tuple[Tensor, Tensor, list[int]]:
    """Systems first, axes on which only v varies next: v (S, E, J, n), l (S, n), order of axes."""
    lead = torch.broadcast_shapes(v.shape[:-2], l.shape[:-1])
    own = (1,) * (len(lead) - l.ndim + 1) + tuple(l.shape[:-1])
    order = sorted(range(len(lead)), key=lambda i: own[i] != lead[i])
    v, l = v.expand(*lead, *v.shape[-2:]).permute(*order, -2, -1), l.reshape(-1, l.shape[-1])
    return v.reshape(len(l), -1, *v.shape[-2:]), l, order


def _weights(v: Tensor, l: Tensor) -> tuple[Tensor, Tensor]:
    """Rows of p and q (S, 2 E J, n), (1, Re l, |l|^2) (S, n, 3), over a power of two; float64."""
    v, l = v.to(torch.complex128), l.to(torch.complex128)
    m = l.real.square() + l.imag.square()
    size = torch.exp2(-torch.log2(1 + m.detach()).round())  # keeps |D|^2 in range, costs no digit
    p, q = v.real, -(v * l.conj()[:, None, None]).real
    rows = 2 * torch.stack([p, q], 2) * size[:, None, None, None]
    b = torch.stack([torch.ones_like(m), l.real, m], -1) * size[..., None]
    return rows.flatten(1, 3), b


def _nodes(w: Tensor) -> tuple[Tensor, Tensor]:
    """(4 s^2, -4 s c, c^2) as (real, imaginary) (2, 3, K), and 2 s, c, e^w, complex128 (3, K)."""
    w = w.to(torch.complex128)
    s2, c = 2 * torch.sinh(w), torch.cosh(w)
    x, plain = torch.stack([s2 * s2, -2 * s2 * c, c * c]), torch.stack([s2, c, torch.exp(w)])
    return torch.stack([x.real, x.imag]), plain


_TILE = {"cpu": 2**21}  # bytes of F that exist at a time, as measured; elsewhere 2^26


def _tiles(rows: Tensor, b: Tensor, x: Tensor) -> Iterator[tuple]:
    """By tiles: systems, nodes, F (m, 2k) = Re, Im of 1 / D, room (m, k), sums (s, 2 E J, 2k)."""
    (S, n, _), K = b.shape, x.shape[-1]
    most = max(1, _TILE.get(b.device.type, 2**26) // (2 * b.element_size()))  # fractions
    width = -(-K // min(K, -(-n * K // most)))
    step = max(1, most // (n * width))
    numbers, room = (b.new_empty(k * min(step, S) * n * width) for k in (2, 1))
    for at in (slice(k, min(k + width, K)) for k in range(0, K, width)):
        k, conj = at.stop - at.start, torch.cat([x[0, :, at], -x[1, :, at]], -1)
        for some in (slice(i, min(i + step, S)) for i in range(0, S, step)):
            D = b[some].flatten(0, 1)
            F, q = numbers[: 2 * len(D) * k].view(-1, 2 * k), room[: len(D) * k].view(-1, k)
            torch.mm(D, conj, out=F)  # conj(D), a product of rank three
            re, im = F[:, :k], F[:, k:]
            torch.mul(re, re, out=q).addcmul_(im, im).reciprocal_()
            re.mul_(q), im.mul_(q)
            yield some, at, F, q, torch.bmm(rows[some], F.view(-1, n, 2 * k))


def _table(sums: Tensor, E: int, s2: Tensor, c: Tensor) -> Tensor:
    """rho (s, E, J, k) from the sums of p F and of q F."""
    z = torch.complex(*sums.chunk(2, -1)).unflatten(1, (E, 2, -1))
    return torch.addcmul(s2 * z[:, :, 0], c, z[:, :, 1])


def _unwired(rho: Tensor, c: Tensor) -> tuple[Tensor, list[tuple[Tensor, Tensor]]]:
    """Remove the wires from rho (s, E, (r + 1)^2, k); what each took out and let in, over c."""
    size, ways = math.isqrt(rho.shape[2]), []
    rho = rho.unflatten(2, (size, size))
    for j in range(size - 1, 0, -1):
        loop = (c / (1 + c * rho[:, :, j, j]))[:, :, None]
        out, into = loop * rho[:, :, :j, j], rho[:, :, j, :j]
        ways.append((out, loop * into))
        rho = rho[:, :, :j, :j] - out[:, :, :, None] * into[:, :, None]
    return rho[:, :, 0], ways


def _shares(ways: list[tuple[Tensor, Tensor]], one: Tensor) -> Tensor:
    """d K_hat / d rho (s, E, (r + 1)^2, k), an outer product, eq-speed-wires; one (s, E, 1, k)."""
    left = right = one
    for out, into in reversed(ways):
        left = torch.cat([left, -(left * out).sum(2, keepdim=True)], 2)
        right = torch.cat([right, -(right * into).sum(2, keepdim=True)], 2)
    return (left[:, :, :, None] * right[:, :, None]).flatten(2, 3)


def _tile_back(
    F: Tensor, q: Tensor, room: Tensor, rows: Tensor, x: Tensor, G: Tensor
) -> tuple[Tensor, Tensor]:
    """Gradients of rows (s, R, n) and b (s, n, 3) from G (s, R, 2k); F and q are used up."""
    n, k = rows.shape[-1], q.shape[-1]
    H = room[: F.numel()].view(-1, n, 2 * k)
    torch.bmm(rows.mT, G, out=H)
    d_rows, H = G @ F.view(-1, n, 2 * k).mT, H.view(-1, 2 * k)
    re, im, H_re, H_im, cross = F[:, :k], F[:, k:], H[:, :k], H[:, k:], F[:, :k] * F[:, k:]
    torch.mul(re, re, out=q).addcmul_(im, im, value=-1)  # F^2 = q + 2 i cross
    torch.mul(q, H_re, out=re).addcmul_(cross, H_im, value=2)
    torch.mul(q, H_im, out=im).addcmul_(cross, H_re, value=-2)
    return d_rows, -(F @ torch.cat([x[0], x[1]], -1).mT).view(-1, n, 3)


def _all_back(
    rows: Tensor, b: Tensor, x: Tensor, nodes: Tensor, g: Tensor, wires: bool
) -> tuple[Tensor, Tensor]:
    """Gradients of rows and b from g (S, E, J or 1, K), tile by tile, every table made again."""
    d_rows, d_b, room = torch.zeros_like(rows), torch.zeros_like(b), None
    for some, at, F, q, sums in _tiles(rows, b, x):
        (s2, c, e), G = nodes[:, at].conj(), g[some, ..., at]
        if wires:
            ways = _unwired(_table(sums, g.shape[1], s2.conj(), c.conj()), c.conj())[1]
            G = _shares(ways, torch.ones_like(G)).conj() * (e * G)
        G = torch.stack([s2 * G, c * G], 2).flatten(1, 3)
        G, room = torch.cat([G.real, G.imag], -1), torch.empty_like(F) if room is None else room
        found = _tile_back(F, q, room.flatten(), rows[some], x[..., at], G)
        d_rows[some] += found[0]
        d_b[some] += found[1]
    return d_rows, d_b


class _Sums(torch.autograd.Function):
    """Sums of fractions, wires removed or not; kept for the backward pass: v, l and w."""

    @staticmethod
    def forward(ctx, v: Tensor, l: Tensor, w: Tensor, wires: bool, twin: Callable) -> Tensor:
        ctx.save_for_backward(v, l, w)
        ctx.how = wires, twin
        vs, ls, order = _apart(v, l)
        (rows, b), (x, nodes) = _weights(vs, ls), _nodes(w)
        E, J = vs.shape[1:3]
        found = v.new_empty(len(ls), E, 1 if wires else J, len(w))  # rounded here, and only here
        for some, at, _, _, sums in _tiles(rows, b, x):
            s2, c, e = nodes[:, at]
            rho = _table(sums, E, s2, c)
            found[some, ..., at] = e * _unwired(rho, c)[0] if wires else rho
        lead = torch.broadcast_shapes(v.shape[:-2], l.shape[:-1])
        found = found.reshape(*(lead[i] for i in order), *found.shape[-2:])
        return found.permute(*(order.index(i) for i in range(len(order))), -2, -1)

    @staticmethod
    def backward(ctx, g: Tensor) -> tuple[Tensor | None, ...]:
        (v, l, w), (wires, twin) = ctx.saved_tensors, ctx.how
        if torch.is_grad_enabled():  # a second derivative is wanted: let autograd see all steps
            ask = [z for z in (v, l) if z.requires_grad]
            g = g[..., 0, :] if wires else g
            d = iter(torch.autograd.grad(twin(v, l, w), ask, g, create_graph=True))
            return *(next(d) if z.requires_grad else None for z in (v, l)), None, None, None
        with torch.enable_grad():
            leaves = [z.detach().requires_grad_() for z in (v, l)]
            vs, ls, order = _apart(*leaves)
            real = _weights(vs, ls)
        g = g.to(torch.complex128).permute(*order, -2, -1)
        g = g.reshape(*vs.shape[:2], *g.shape[-2:])
        with _exactly(v.device):
            d = _all_back(*(z.detach() for z in real), *_nodes(w), g, wires)
        return *torch.autograd.grad(real, leaves, d), None, None, None


def _exactly(device: torch.device) -> AbstractContextManager:
    """No autocast: these products need their digits."""
    if torch.amp.is_autocast_available(device.type):
        return torch.autocast(device.type, enabled=False)
    return nullcontext()


def sum_fractions(
    v: Tensor, l: Tensor, w: Tensor, *, wires: bool = False, twin: Callable
) -> Tensor:
    """Sum fractions over conjugate pairs in real arithmetic; arguments are not looked at.

    Args:
        v      (..., J, n)  numerators, one of each pair, complex
        l      (..., n)     poles times step size, one of each pair, in v's dtype
        w      (K,)         half angles of the nodes, complex128
        wires  bool         remove the wires: v are the (r + 1)^2 sums of a low rank system
        twin   callable     the same of v, l, w by plain operations; for second derivatives,
                            torch.compile, torch.func and gradients of w
    Returns:
        rho  (..., J, K)  as `cauchy`; with `wires` K_hat (..., K), as `dplr_spectrum`

    Error:  all arithmetic is float64 and rounded once, to v's dtype: 1e-7 of a row in complex64,
            gradients too (not with the twin, which works in v's dtype).
    Cost:   14 + 8 J operations a pair and node forward, 38 + 24 J back; 2^21 bytes of them, or one
            node's, exist at a time (CPU); kept for the backward pass: the arguments.
    Source: our eq-speed-fraction, eq-speed-wires, eq-speed-backward.
    """
    plain = torch.compiler.is_compiling() or torch._C._are_functorch_transforms_active()
    if plain or (w.requires_grad and torch.is_grad_enabled()):
        return twin(v, l, w)
    with _exactly(v.device):
        found = _Sums.apply(v, l, w, wires, twin)
    return found[..., 0, :] if wires else found
