"""Sums of exponentials and of fractions: run by `test_triton.py`, interpreted or on a GPU."""

import os
from functools import partial

import pytest
import torch
from torch import Tensor

from s4lite.init.diagonal import s4d_inv, s4d_lin
from s4lite.init.nplr import nplr
from s4lite.ops.cauchy import _fold, cauchy, cauchy_naive
from s4lite.ops.genfunc import half_angles
from s4lite.ops.triton.exponentials import exponential_sums
from s4lite.ops.triton.fractions import fraction_sums
from s4lite.ops.vandermonde import log_discretize, vandermonde

DEVICE = os.environ.get("S4LITE_TEST_DEVICE", "cpu")
F32, F64, C64, C128 = torch.float32, torch.float64, torch.complex64, torch.complex128
sums = partial(exponential_sums, backend="triton", precision="ieee")
fractions = partial(fraction_sums, backend="triton", precision="ieee")


def draw(*shape: int, seed: int = 0, dtype: torch.dtype = C128) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=dtype).to(DEVICE)


def both(function, *args: Tensor) -> list[Tensor]:
    args = [z.detach().clone().requires_grad_() for z in args]
    out = function(*args)
    signs = draw(*out.shape, seed=9)
    loss = (out * (signs.conj() if out.is_complex() else signs.real)).real.sum()
    return [out.detach(), *torch.autograd.grad(loss, args)]


def errors(got: list[Tensor], want: list[Tensor]) -> list[float]:
    assert [z.shape for z in got] == [z.shape for z in want]
    pairs = zip(got, want, strict=True)
    return [((a - b).abs().max() / b.abs().max().clamp(min=1e-30)).item() for a, b in pairs]


def modes(H: int, n: int, init=s4d_lin) -> tuple[Tensor, Tensor]:
    dt = torch.exp(-7 + 5 * torch.rand(H, dtype=F64, generator=torch.Generator().manual_seed(0)))
    nu, phi = log_discretize(init(2 * n).expand(H, n), dt)
    return phi.to(DEVICE) * draw(H, n), nu.to(DEVICE)


@pytest.mark.parametrize("init", [s4d_lin, s4d_inv])
@pytest.mark.parametrize("L", [2, 99, 1023, 16384])
@pytest.mark.parametrize(("H", "n"), [(1, 2), (3, 33), (1, 32)])
def test_exponentials_are_as_good_as_the_twin(H, n, L, init):
    w, nu = modes(H, n, init)
    truth, twin = (both(lambda w, nu, d=d: vandermonde(w, nu, L, d), w, nu) for d in (F64, F32))
    ours = both(lambda w, nu: sums(w, nu, L), w, nu)
    assert ours[0].dtype == F32
    pairs = zip(errors(ours, truth), errors(twin, truth), strict=True)
    assert all(mine < max(1e-6, 2 * other) for mine, other in pairs)


def test_exponentials_of_one_lag_of_no_decay_and_of_many_axes():
    w, nu = modes(2, 1)
    assert torch.allclose(sums(w, nu, 1)[:, 0].double(), 2 * w.real.sum(-1))
    turning = torch.tensor([3.0j, -2.5j, 700j], dtype=C128, device=DEVICE)
    K = sums(torch.ones_like(turning), turning, 20000)
    assert (K - vandermonde(torch.ones_like(turning), turning, 20000)).abs().max() < 1e-5
    w, nu = draw(2, 1, 3), -draw(4, 3).abs() + 1j * draw(4, 3).real
    assert errors([sums(w, nu, 50)], [vandermonde(w, nu, 50)])[0] < 1e-6


@pytest.mark.parametrize("L", [1, 2, 99, 1023])
@pytest.mark.parametrize(("S", "n", "J"), [(1, 1, 1), (3, 33, 4), (1, 32, 9), (2, 16, 17)])
def test_fractions_are_as_good_as_the_twin(S, n, J, L):
    l = torch.complex(-draw(S, n).abs(), draw(S, n, seed=1).real)
    v, w = draw(S, J, n, seed=2), half_angles(L, 0.5).to(DEVICE)
    truth = both(lambda v, l: cauchy(v, l, w), v, l)
    twin = both(lambda v, l: _fold(v.to(C64), l.to(C64), w), v, l)  # float32 arithmetic
    ours = both(lambda v, l: fractions(v, l, w), v, l)
    assert ours[0].dtype == C64
    pairs = zip(errors(ours, truth), errors(twin, truth), strict=True)
    assert all(mine < max(1e-6, 2 * other) for mine, other in pairs)


@pytest.mark.parametrize("measure", ["legs", "fout"])
def test_fractions_of_the_poles_that_are_used(measure):
    Lambda, P, B, _ = nplr(measure, 64)
    l, v = 0.01 * Lambda.to(DEVICE), (P[:, 0].conj() * B)[None].to(DEVICE)
    w = half_angles(1000, 0.5).to(DEVICE)
    want = cauchy_naive(v, l, w)
    twin = errors([_fold(v.to(C64), l.to(C64), w)], [want])[0]
    assert errors([fractions(v, l, w)], [want])[0] < max(1e-6, 2 * twin)


def test_fractions_broadcast():
    l, w = -draw(4, 5).abs() + 1j, half_angles(20, 0.5).to(DEVICE)
    v = draw(2, 1, 3, 5)
    assert errors([fractions(v, l, w)], [cauchy(v, l, w)])[0] < 3e-6


def test_second_derivatives():
    """A kernel's backward gives a graph where one is wanted: that of the plain composition."""
    l, v = torch.complex(-draw(2, 3).abs(), draw(2, 3, seed=1).real), draw(2, 2, 3, seed=2)
    angles, (w, nu) = half_angles(20, 0.5).to(DEVICE), modes(2, 3)
    pairs = [
        (lambda *z: sums(*z, 30), lambda *z: vandermonde(*z, 30), (w, nu)),
        (lambda *z: fractions(*z, angles), lambda *z: cauchy(*z, angles), (v, l)),
    ]
    for ours, twin, args in pairs:
        found = []
        for function in (ours, twin):
            given = [z.detach().clone().requires_grad_() for z in args]
            loss = function(*given).abs().square().sum()
            first = torch.autograd.grad(loss, given, create_graph=True)
            again = sum((z * draw(*z.shape, seed=6).conj()).real.sum() for z in first)
            found.append([*(z.detach() for z in first), *torch.autograd.grad(again, given)])
        assert max(errors(*found)) < 3e-6


def test_what_cannot_be_served_is_refused_with_the_reason():
    w, nu = modes(1, 200)
    with pytest.raises(ValueError, match="n = 200 modes, at most 128"):
        sums(w, nu, 10)
    l, angles = -draw(3).abs() + 0j, half_angles(10, 0.5).to(DEVICE)
    with pytest.raises(ValueError, match="J = 65 sums"):
        fractions(draw(65, 3), l, angles)
    with pytest.raises(ValueError, match="w wants a gradient"):
        fractions(draw(1, 3), l, angles.clone().requires_grad_())
    with pytest.raises(ValueError, match="L >= 1"):
        sums(*modes(1, 3), 0)
    with pytest.raises(TypeError, match="complex"):
        fractions(draw(1, 3), l.real, angles)
