"""The softmax kernel of DSS: definition, naive twin, growing modes, its place beside S4D."""

import math

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.autograd import gradcheck, gradgradcheck

from s4lite.init.diagonal import s4d_inv, s4d_legs, s4d_lin, s4d_real
from s4lite.ops.dss import dss_kernel, dss_kernel_naive
from s4lite.ops.vandermonde import diag_kernel

F32, F64, C64, C128 = torch.float32, torch.float64, torch.complex64, torch.complex128
LENGTHS = [1, 2, 3, 64, 99, 1023, 4096]
INITS = {"legs": s4d_legs, "lin": s4d_lin, "inv": s4d_inv, "real": s4d_real}


def draw(*shape: int, seed: int = 0, dtype: torch.dtype = C128) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=dtype)


def both_sides(*shape: int, seed: int = 0) -> Tensor:
    """Poles that fade, and poles that grow."""
    re, im = draw(2, *shape, seed=seed, dtype=F64)
    return torch.complex(2 * re, 30 * im)


def by_hand(Lambda: Tensor, w: Tensor, dt: float, L: int) -> np.ndarray:
    """The definition in numpy, for modes that do not overflow."""
    rows = np.exp(dt * Lambda.numpy()[..., None] * np.arange(L))
    rows = rows / rows.sum(-1, keepdims=True)
    return 2 * (w.numpy()[..., None] * rows).sum(-2).real


def off(got: Tensor, want: Tensor) -> float:
    assert got.shape == want.shape
    return float((got - want).abs().max() / want.abs().max())


# ---- definition and twin -------------------------------------------------------------------------


@pytest.mark.parametrize("L", LENGTHS[:-1])
def test_both_are_the_definition(L):
    Lambda, w = both_sides(7, seed=1), draw(7, seed=2)
    want = torch.from_numpy(by_hand(Lambda, w, 0.01, L))
    assert off(dss_kernel_naive(Lambda, w, 0.01, L), want) < 1e-12
    assert off(dss_kernel(Lambda, w, 0.01, L), want) < 1e-12


@pytest.mark.parametrize("L", LENGTHS)
@pytest.mark.parametrize("name", INITS)
def test_as_naive_for_every_init_fading_and_growing(name, L):
    Lambda, w = INITS[name](64), draw(3, 32, seed=3)
    dt = torch.tensor([0.001, 0.01, 0.1], dtype=F64)
    for poles in (Lambda, -Lambda.conj()):
        K, naive = dss_kernel(poles, w, dt, L), dss_kernel_naive(poles, w, dt, L)
        assert K.shape == (3, L) and K.dtype == F64
        assert max(off(K[h], naive[h]) for h in range(3)) < 1e-11


def test_the_published_form():
    """Re sum w / lambda softmax, as in the paper: its w is 2 lambda times ours."""
    Lambda, theirs = both_sides(6, seed=4), draw(6, seed=5)
    rows = np.exp(0.02 * Lambda.numpy()[:, None] * np.arange(50))
    want = (theirs.numpy() / Lambda.numpy()) @ (rows / rows.sum(1, keepdims=True))
    K = dss_kernel(Lambda, theirs / (2 * Lambda), 0.02, 50)
    assert off(K, torch.from_numpy(want.real)) < 1e-12


def test_axes_broadcast():
    Lambda, w, dt = both_sides(5, seed=6), draw(2, 3, 5, seed=7), torch.rand(3, dtype=F64) + 0.01
    K = dss_kernel(Lambda, w, dt, 17)
    assert K.shape == (2, 3, 17)
    for i in range(2):
        for j in range(3):
            assert off(K[i, j], dss_kernel_naive(Lambda, w[i, j], dt[j], 17)) < 1e-12


# ---- what a softmax promises ---------------------------------------------------------------------


def test_weights_add_up_to_one():
    """A constant signal comes out as 2 Re sum w, whatever the poles."""
    for L in LENGTHS:
        Lambda, w = both_sides(9, seed=8), draw(9, seed=9)
        assert abs(dss_kernel(Lambda, w, 0.01, L).sum() - 2 * w.sum().real) < 1e-9


def test_growing_is_fading_read_backwards():
    Lambda, w = s4d_inv(32), draw(16, seed=10)
    assert off(dss_kernel(-Lambda, w, 0.03, 333), dss_kernel(Lambda, w, 0.03, 333).flip(-1)) < 1e-13


def test_a_steep_mode_does_not_overflow():
    for growth in (40.0, 1e4, 1e9):
        K = dss_kernel(torch.tensor([growth + 3j], dtype=C128), torch.ones(1), 0.1, 1000)
        assert K.isfinite().all() and K[-1] > 1.9 and K[:500].abs().max() < 1e-300
        K = dss_kernel(torch.tensor([-growth + 3j], dtype=C128), torch.ones(1), 0.1, 1000)
        assert K.isfinite().all() and K[0] > 1.9


def test_zero_whole_turns_and_both_sides_of_the_axis():
    L, w = 40, torch.ones(1)
    for lam in (0j, 2j * math.pi / 0.1, -6j * math.pi / 0.1):  # softmax of a constant row
        K = dss_kernel(torch.tensor([lam], dtype=C128), w, 0.1, L)
        assert (K - 2 / L).abs().max() < 1e-13
    sides = [
        dss_kernel(torch.tensor([s + 0.7j], dtype=C128), w.double(), 0.1, L)
        for s in (-1e-9, 0.0, 1e-9)
    ]
    assert off(sides[0], sides[1]) < 1e-7 and off(sides[2], sides[1]) < 1e-7


@pytest.mark.parametrize("name", INITS)
def test_fading_modes_are_s4d_with_c_rescaled(name):
    Lambda, w, L = INITS[name](16), draw(8, seed=11), 77
    C = w * Lambda / torch.expm1(L * 0.02 * Lambda)
    K = diag_kernel(Lambda, torch.ones(8), C, 0.02, L)
    assert off(K, dss_kernel(Lambda, w, 0.02, L)) < 1e-12


def test_the_length_is_part_of_the_model():
    Lambda, w = s4d_lin(16), draw(8, seed=12)
    short, long = dss_kernel(Lambda, w, 0.002, 100), dss_kernel(Lambda, w, 0.002, 200)
    assert off(long[:100], short) > 0.1


# ---- gradients and dtypes ------------------------------------------------------------------------


def test_gradients():
    Lambda = torch.tensor([-0.4 + 3j, 0.9 - 2j, 0.2j, 0j, -2 + 50j], dtype=C128)
    parts = [Lambda, draw(2, 1, 5, seed=13), torch.tensor([0.05, 0.3], dtype=F64)]
    parts = [x.clone().requires_grad_() for x in parts]
    assert gradcheck(lambda *args: dss_kernel(*args, 6), parts)
    assert gradgradcheck(lambda *args: dss_kernel(*args, 6), parts, atol=1e-4)


@pytest.mark.parametrize("L", LENGTHS)
def test_float32_against_float64(L):
    Lambda, w = both_sides(32, seed=14).to(C64), draw(32, seed=15, dtype=C64)
    K = dss_kernel(Lambda, w, torch.tensor(0.01), L)
    exact = dss_kernel(Lambda.to(C128), w.to(C128), torch.tensor(0.01).double(), L)
    assert K.dtype == F32
    assert float((K - exact).abs().max()) < 3e-6 * float(exact.abs().max() + w.abs().sum() / L)


def test_nothing_as_large_as_the_table_is_kept():
    sizes: list[int] = []
    Lambda, w = s4d_inv(64).requires_grad_(), draw(4, 32, seed=16).requires_grad_()
    keep = lambda x: sizes.append(x.numel()) or x  # noqa: E731
    with torch.autograd.graph.saved_tensors_hooks(keep, lambda x: x):
        dss_kernel(Lambda, w, 0.01, 16384)
    assert max(sizes) < 16384 * 8  # two kernels in float64; the table: 4 * 32 * 16384


def test_compiles_in_one_graph():
    Lambda, w = both_sides(4, seed=17), draw(4, seed=18)
    quick = torch.compile(dss_kernel, backend="eager", fullgraph=True)
    assert off(quick(Lambda, w, 0.05, 33), dss_kernel(Lambda, w, 0.05, 33)) < 1e-14


# ---- bad input -----------------------------------------------------------------------------------

POLES, W = torch.tensor([-0.5 + 1j, 0.5 + 2j], dtype=C128), torch.ones(2, dtype=C128)


@pytest.mark.parametrize("kernel", [dss_kernel, dss_kernel_naive])
@pytest.mark.parametrize(
    ("args", "error", "message"),
    [
        ((POLES.real, W, 0.1, 4), TypeError, "want Lambda complex"),
        ((POLES.tolist(), W, 0.1, 4), TypeError, "want Lambda as a torch.Tensor, got list"),
        ((POLES, W.real.long(), 0.1, 4), TypeError, "want w of a floating or complex dtype"),
        ((POLES, W, 0.1 + 0j, 4), TypeError, "want dt as a number or a tensor, got complex"),
        ((POLES, W, torch.tensor(0.1j), 4), TypeError, "want dt real"),
        ((POLES, W, 0.1, 4.0), TypeError, "want L as an int, got float"),
        ((POLES, W, 0.1, 0), ValueError, "want L >= 1, got 0"),
        ((POLES, W, 0.0, 4), ValueError, "want dt finite and > 0, got 0"),
        ((POLES, W, torch.tensor(-1.0), 4), ValueError, "want dt finite and > 0, got -1"),
        ((POLES, W[:1], 0.1, 4), ValueError, r"want Lambda, w \(..., n\) of one width"),
        ((POLES, W, torch.ones(3), 4), None, None),
        ((POLES.expand(2, 2), W, torch.ones(3), 4), ValueError, "want leading axes that broadcast"),
        ((POLES * math.nan, W, 0.1, 4), ValueError, r"want dt Lambda finite .*, got nan.* among 2"),
        ((POLES * math.inf, W, 0.1, 4), ValueError, "want dt Lambda finite"),
        ((POLES * 1e300, W, 1e10, 4), ValueError, "want dt Lambda finite"),  # the product is not
        ((POLES * 1e300, W, 1.0, 4), ValueError, "want dt Lambda finite .*got -5e.299"),
    ],
)
def test_bad_input(kernel, args, error, message):
    if error is None:
        assert kernel(*args).shape == (3, 4)
        return
    with pytest.raises(error, match=message):
        kernel(*args)


def test_a_sum_that_vanishes_is_refused():
    for L, turns in ((8, 1), (99, 2), (16384, 5)):
        lam = torch.tensor([2j * math.pi * turns / L / 0.1], dtype=C128)
        with pytest.raises(ValueError, match="whole turns in L steps"):
            dss_kernel(lam, torch.ones(1), 0.1, L)
        beside = dss_kernel(lam - 0.01, torch.ones(1).double(), 0.1, L)
        assert off(beside, dss_kernel_naive(lam - 0.01, torch.ones(1).double(), 0.1, L)) < 1e-9
