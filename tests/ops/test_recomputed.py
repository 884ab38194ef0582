"""Sums of fractions with a backward pass of their own: against the twin that keeps everything."""

import functools

import pytest
import torch
from torch import Tensor
from torch.autograd import gradcheck, gradgradcheck

from s4lite.init.nplr import nplr
from s4lite.ops import recomputed as ops
from s4lite.ops.cauchy import _by_tiles, _fold, _without_wires, cauchy_naive
from s4lite.ops.genfunc import half_angles
from s4lite.ops.recomputed import sum_fractions
from s4lite.ops.vandermonde import _powers

F64, C64, C128 = torch.float64, torch.complex64, torch.complex128
FOLD = functools.partial(_by_tiles, _fold)
REMOVE = functools.partial(_by_tiles, _without_wires)
DTS = torch.tensor([1e-3, 1e-2, 1e-1], dtype=F64)
every_measure = pytest.mark.parametrize("measure", ["legs", "legt", "lagt", "fout"])


def draw(*shape: int, seed: int = 0, dtype: torch.dtype = C128) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=dtype)


def leaves(*tensors: Tensor) -> list[Tensor]:
    return [x.detach().clone().requires_grad_() for x in tensors]


def gap(got: Tensor, want: Tensor) -> float:
    """Largest difference relative to the largest entry of each row, the worst row."""
    return float(rows(got, want).max())


def rows(got: Tensor, want: Tensor) -> Tensor:
    """Largest difference relative to the largest entry, row by row."""
    got, want = got.detach().to(C128), want.detach().to(C128)
    assert got.shape == want.shape
    return ((got - want).abs().amax(-1) / want.abs().amax(-1)).flatten()


def both(args: list[Tensor], w: Tensor, gamma: Tensor, *forms) -> list[list[Tensor]]:
    """Values and gradients of each form."""
    found = []
    for form in forms:
        out = form(*args, w)
        found.append([out, *torch.autograd.grad(out, args, gamma)])
    return found


@every_measure
@pytest.mark.parametrize(("J", "L", "tau"), [(1, 1, 0.5), (4, 2, 0.5), (9, 99, 0.5), (4, 1023, 18)])
def test_sums_and_gradients_are_those_of_the_table(measure, J, L, tau):
    args = leaves(draw(3, J, 32, seed=1), DTS[:, None] * nplr(measure, 64).Lambda)
    w, gamma = half_angles(L, float(tau)), draw(3, J, L // 2 + 1, seed=2)
    ours, table = both(args, w, gamma, functools.partial(sum_fractions, twin=FOLD), cauchy_naive)
    assert all(gap(x, y) < 1e-10 for x, y in zip(ours, table, strict=True))


@every_measure
@pytest.mark.parametrize("r", [1, 2, 3])
def test_wires_removed_and_differentiated(measure, r):
    args = leaves(draw(3, (r + 1) ** 2, 32, seed=3), DTS[:, None] * nplr(measure, 64).Lambda)
    w, gamma = half_angles(99, 0.5), draw(3, 50, seed=4)
    fast = functools.partial(sum_fractions, wires=True, twin=REMOVE)
    ours, twin = both(args, w, gamma, fast, REMOVE)
    assert all(gap(x, y) < 1e-9 for x, y in zip(ours, twin, strict=True))


@pytest.mark.parametrize("tile", [1, 1000, 1600, 2**22])
def test_tiles_change_nothing(monkeypatch, tile):
    args = leaves(draw(5, 4, 6, seed=5), draw(5, 6, seed=6) * 0.3 - 1.5)
    w, gamma = half_angles(201, 0.5), draw(5, 101, seed=7)
    fast = functools.partial(sum_fractions, wires=True, twin=REMOVE)
    (whole,) = both(args, w, gamma, fast)
    monkeypatch.setattr(ops, "_TILE", {"cpu": tile})
    (tiled,) = both(args, w, gamma, fast)
    assert all(gap(x, y) < 1e-12 for x, y in zip(tiled, whole, strict=True))


@pytest.mark.parametrize(
    ("v", "l"), [((4, 6), (6,)), ((3, 1, 4, 6), (2, 6)), ((2, 4, 6), (6,)), ((4, 6), (3, 2, 6))]
)
@pytest.mark.parametrize("wires", [False, True])
def test_axes_broadcast_and_gradients_come_back_to_their_shapes(v, l, wires):
    args = leaves(draw(*v, seed=8), draw(*l, seed=9) * 0.3 - 1.5)
    w, twin = half_angles(33, 0.5), REMOVE if wires else FOLD
    lead = torch.broadcast_shapes(v[:-2], l[:-1])
    gamma = draw(*lead, *(() if wires else (4,)), 17, seed=10)
    ours, plain = both(
        args, w, gamma, functools.partial(sum_fractions, wires=wires, twin=twin), twin
    )
    assert all(gap(x, y) < 1e-11 for x, y in zip(ours, plain, strict=True))


@pytest.mark.parametrize(("J", "wires"), [(3, False), (4, True), (9, True)])
def test_gradcheck(J, wires):
    args = leaves(draw(2, J, 3, seed=11), draw(2, 3, seed=12) * 0.3 - 1.5)
    twin = REMOVE if wires else FOLD
    call = lambda v, l: sum_fractions(v, l, half_angles(17, 0.5), wires=wires, twin=twin)  # noqa: E731
    assert gradcheck(call, args) and gradgradcheck(call, args, atol=1e-4)


def spectra(measure: str, seed: int) -> tuple[Tensor, Tensor]:
    """v and dt Lambda of eight true systems: only there does the wire forgive."""
    Lambda, P, B, _ = nplr(measure, 64)
    dt = torch.logspace(-3, -1, 8, dtype=F64)[:, None]
    left = [dt * x for x in (draw(8, 32, seed=seed), *P.mH)]
    return torch.stack([(x * y).to(C64) for x in left for y in (B, *P.mT)], -2), (dt * Lambda).to(
        C64
    )


@every_measure
@pytest.mark.parametrize("wires", [False, True])
@pytest.mark.parametrize("L", [1, 99, 1023])
def test_float32_rows_are_right_to_two_roundings_where_the_twin_loses_digits(measure, wires, L):
    """Denominators cancel next to poles, eq-speed-digits; so all arithmetic is float64."""
    twin, w = REMOVE if wires else FOLD, half_angles(L, 0.5)
    fast, gaps = functools.partial(sum_fractions, wires=wires, twin=twin), ([], [])
    for seed in (13, 14, 15, 16):
        args = spectra(measure, seed)
        gamma = draw(8, *(() if wires else args[0].shape[-2:-1]), len(w), seed=seed)
        gamma = gamma.to(C64)
        (truth,) = both(leaves(*(x.to(C128) for x in args)), w, gamma.to(C128), twin)
        forms = both(leaves(*args), w, gamma, fast, twin)
        assert all(x.dtype == C64 for x in forms[0])
        for form, found in zip(forms, gaps, strict=True):
            found += [rows(x, y).max() for x, y in zip(form, truth, strict=True)]
    assert max(gaps[0]) < 2 * 2.0**-23
    assert L == 1 or max(gaps[1]) > 5 * max(gaps[0])


def test_absurd_steps_leave_no_range():
    for size in (1e-12, 1.0, 1e8, 1e15):
        l = torch.tensor([-0.5 + 1000j, -1.0, -1e-3 + 1e-3j], dtype=C64) * size
        v, w = draw(2, 3, seed=15).to(C64) * size, half_angles(9, 0.5)
        truth = cauchy_naive(v.to(C128), l.to(C128), w)
        assert gap(sum_fractions(v, l, w, twin=FOLD), truth) < 1e-6


def test_only_one_leaf_may_ask():
    v, l, w = draw(4, 5, seed=16), draw(5, seed=17) * 0.3 - 1.5, half_angles(30, 0.5)
    pair = leaves(v, l)
    full = torch.autograd.grad(sum_fractions(*pair, w, twin=FOLD).abs().sum(), pair)
    for i in range(2):
        args = [v, l]
        args[i] = pair[i]
        out = sum_fractions(*args, w, twin=FOLD).abs().sum()
        (once,) = torch.autograd.grad(out, pair[i], create_graph=True)
        assert gap(once, full[i]) < 1e-12 and once.requires_grad


def test_the_same_bits_every_time():
    args, w = leaves(draw(4, 5, seed=18), draw(5, seed=19) * 0.3 - 1.5), half_angles(300, 0.5)
    runs = [
        both(args, w, draw(151, seed=20), functools.partial(sum_fractions, wires=True, twin=REMOVE))
        for _ in range(2)
    ]
    assert all(torch.equal(x, y) for x, y in zip(*(run[0] for run in runs), strict=True))


def test_powers_by_doubling_are_exact_to_some_eps():
    """Against the same numbers by repeated squaring of angles that are exact: e^(2^m nu)."""
    nu = torch.complex(-torch.rand(7, dtype=F64) * 1e-4, 300 * torch.rand(7, dtype=F64))
    for count, stride in ((1, 1), (2, 4), (33, 64)):
        E = _powers(nu, count, stride)
        assert E.shape == (count, 7)
        for k in range(count):
            want = torch.ones_like(nu)
            for m in range(7):
                want = want * torch.exp(2**m * stride * nu) if k >> m & 1 else want
            assert (E[k] - want).abs().max() < 1e-14
