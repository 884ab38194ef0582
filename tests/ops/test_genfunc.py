"""The generating function: all lags at once on a circle, there and back, and its one power."""

import math

import mpmath
import numpy as np
import pytest
import torch

from s4lite.init.hippo import hippo
from s4lite.ops.conv import kernel_naive
from s4lite.ops.discretize import bilinear
from s4lite.ops.genfunc import (
    c_tilde,
    check_matrix,
    check_tau,
    from_spectrum,
    genfunc,
    genfunc_naive,
    half_angles,
    row_power,
    spectrum,
)

F32, F64, C64, C128 = torch.float32, torch.float64, torch.complex64, torch.complex128
LENGTHS = [1, 2, 3, 99, 1023, 1024]
EVERY_LENGTH = pytest.mark.parametrize("L", LENGTHS)
TAUS = [0.0, 0.5, 3.0]
EVERY_TAU = pytest.mark.parametrize("tau", TAUS)
# FouT has a pole at 0, which stands on the undamped circle
MEASURES = [(m, tau) for m in ("legs", "legt", "lagt") for tau in TAUS]
MEASURES += [("fout", 0.5), ("fout", 3.0)]


@pytest.fixture
def rng():
    return torch.Generator().manual_seed(9)


def draw(rng, *shape, dtype=F64):
    return torch.randn(*shape, generator=rng, dtype=dtype)


def memory(rng, measure="legs", N=16, dt=1e-3, batch=()):
    """A, B of a memory, random C; Ab, Bb at a step so small that Ab^L is alive for long."""
    A, B = hippo(measure, N)
    Ab, Bb = bilinear(A, B[:, None], dt)
    return (A, B, draw(rng, *batch, N)), (Ab, Bb[:, 0])


def walk(C, Ab, L):
    """C Ab^L, by L steps."""
    row = C[..., None, :]
    for _ in range(L):
        row = row @ Ab
    return row[..., 0, :]


def close(got, want, tol=1e-12):
    """Equal up to tol times the largest value."""
    assert got.shape == want.shape and got.dtype == want.dtype
    gap = (got - want).abs().max() / want.abs().max()
    assert gap < tol, f"off by {gap:.1e}"


# ---------------------------------------------------------------- the sum as written


def test_naive_is_the_polynomial_of_the_kernel(rng):
    (_, _, C), (Ab, Bb) = memory(rng)
    K = kernel_naive(Ab, Bb, C, 30)
    z = torch.tensor([0, 1, -1, 1j, 0.3 - 0.6j, 1.02], dtype=C128)
    want = torch.from_numpy(np.polynomial.polynomial.polyval(z.numpy(), K.numpy()))
    close(genfunc_naive(Ab, Bb, C, z, 30), want)
    assert genfunc_naive(Ab, Bb, C, z.real, 30).dtype == F64


def test_naive_takes_complex_systems_without_a_conjugate():
    lam, one = torch.tensor([[0.9j]], dtype=C128), torch.ones(1, dtype=C128)
    z = torch.tensor([0.5 + 0.5j], dtype=C128)
    want = 1j * (1 - (0.9j * z) ** 7) / (1 - 0.9j * z)  # the geometric series
    close(genfunc_naive(lam, one, 1j * one, z, 7), want)


def test_naive_axes_broadcast(rng):
    (_, _, C), (Ab, Bb) = memory(rng, batch=(5, 1))
    z = torch.exp(1j * draw(rng, 3, 4))
    seen = genfunc_naive(Ab, Bb, C, z, 9)
    assert seen.shape == (5, 3, 4)
    close(seen[2, 1], genfunc_naive(Ab, Bb, C[2, 0], z[1], 9))


# ---------------------------------------------------------------- the nodes


@EVERY_LENGTH
@EVERY_TAU
def test_nodes_lie_on_the_damped_circle_clockwise(L, tau):
    w = half_angles(L, tau)
    assert w.shape == (L // 2 + 1,) and w.dtype == C128
    z = torch.exp(-2 * w)
    assert (z**L - math.exp(-tau)).abs().max() < 1e-12
    assert (z.imag <= 1e-15).all()  # clockwise from z > 0: the lower half
    assert z[0].real > 0 and w[0].imag == 0
    assert (w.imag.diff() > 0).all()
    assert ((w[-1].imag - math.pi / 2).abs() < 1e-15) == (L % 2 == 0)


@pytest.mark.parametrize("L", [99, 1024, 65536])
def test_nodes_are_good_to_the_last_digit(L):
    """Against 40 digits. Powers of the first node would be off by up to L eps."""
    z = torch.exp(-2 * half_angles(L, 0.5))
    with mpmath.workdps(40):
        for k in {0, 1, 2, L // 3, L // 4, L // 2}:
            want = mpmath.exp(-(2j * mpmath.pi * k + mpmath.mpf("0.5")) / L)
            assert abs(mpmath.mpc(complex(z[k])) - want) < 4.5e-16


# ---------------------------------------------------------------- there and back


@EVERY_LENGTH
@EVERY_TAU
def test_spectrum_is_the_sum_at_the_nodes(rng, L, tau):
    K = draw(rng, 2, L)
    z, want = torch.exp(-2 * half_angles(L, tau)), 0
    for lag in reversed(range(L)):  # Horner
        want = want * z + K[:, lag, None]
    close(spectrum(K, tau), want)


@EVERY_LENGTH
@EVERY_TAU
def test_back_is_the_inverse_of_there(rng, L, tau):
    K = draw(rng, 3, 2, L)
    close(from_spectrum(spectrum(K, tau), L, tau), K, 1e-13)
    one = K[1, 0].clone()
    close(from_spectrum(spectrum(one, tau), L, tau), one, 1e-13)


@EVERY_LENGTH
def test_back_is_the_sum_over_the_whole_circle(rng, L):
    """K_l = mean of K_hat z^-l, over all L nodes: the other half by conjugation."""
    K = draw(rng, L)
    half = spectrum(K)
    whole = torch.cat([half, half[1 : (L + 1) // 2].flip(0).conj()])
    angle = 2 * math.pi / L * torch.arange(L, dtype=F64)
    inverse = torch.exp(1j * torch.outer(torch.arange(L, dtype=F64), angle))
    want = (inverse @ whole).real / L
    close(want, K, 1e-11)
    close(from_spectrum(half, L), want, 1e-11)


def test_the_other_sign_reverses_the_lags(rng):
    for L in (9, 10):
        K = draw(rng, L)
        wrong = from_spectrum(spectrum(K).conj(), L)  # values at exp(+2 pi i k / L)
        close(wrong, K[-torch.arange(L) % L])
        assert (wrong - K).abs().max() > 0.1


@pytest.mark.parametrize("dtype", [F32, torch.bfloat16, torch.float16])
@EVERY_TAU
def test_single_and_half_precision_are_computed_in_float32(rng, dtype, tau):
    K = draw(rng, 8, 99).to(dtype)
    K_hat = spectrum(K, tau)
    assert K_hat.dtype == C64
    close(K_hat, spectrum(K.double(), tau).to(C64), 1e-6)
    back = from_spectrum(K_hat, 99, tau)
    assert back.dtype == F32
    close(back, K.float(), 2e-6 * math.exp(tau))


# ---------------------------------------------------------------- the one power


@pytest.mark.parametrize("L", [1, 2, 3, 7, 8, 99, 1023, 1024])
@pytest.mark.parametrize("measure", ["legs", "legt", "lagt", "fout"])
def test_row_power_is_the_walk(rng, measure, L):
    (_, _, C), (Ab, _) = memory(rng, measure)
    close(row_power(C, Ab, L), walk(C, Ab, L))


def test_row_power_axes_broadcast(rng):
    Ab = bilinear(draw(rng, 5, 4, 4) - 3 * torch.eye(4), draw(rng, 5, 4, 1), 0.1)[0]
    C = draw(rng, 2, 1, 4)
    row = row_power(C, Ab, 6)
    assert row.shape == (2, 5, 4)
    close(row[1, 3], walk(C[1, 0], Ab[3], 6))
    shared = row_power(draw(rng, 7, 4), Ab[0], 6)
    assert shared.shape == (7, 4)
    close(row_power(C[0, 0], Ab, 6), walk(C[0, 0].expand(5, 4), Ab, 6))


def test_row_power_of_complex_matrices_has_no_conjugate(rng):
    C, Ab = draw(rng, 3, dtype=C128), draw(rng, 3, 3, dtype=C128) / 3
    close(row_power(C, Ab, 13), walk(C, Ab, 13))
    assert row_power(C.real, Ab, 2).dtype == C128


def test_row_power_squares_in_float64(rng):
    """In float32 the squarings would lose L eps, three digits: asserted, so that this can fail."""
    (_, _, C), (Ab, _) = memory(rng, "fout", N=32, dt=1e-4)
    C, Ab, L = C.float(), Ab.float(), 2**14
    want = row_power(C.double(), Ab.double(), L)
    power = Ab
    for _ in range(14):
        power = power @ power
    assert ((C @ power).double() - want).norm() > 1e-5 * want.norm()
    close(row_power(C, Ab, L), want.float(), 2e-7)


@EVERY_LENGTH
@EVERY_TAU
def test_c_tilde_by_its_definition(rng, L, tau):
    (_, _, C), (Ab, _) = memory(rng, batch=(3,))
    close(c_tilde(C, Ab, L, tau), C - math.exp(-tau) * walk(C, Ab, L))


def test_c_tilde_in_float32_is_rounded_once(rng):
    """Ab^2 is near I: a difference of rounded rows would keep half of the digits only."""
    (_, _, C), (Ab, _) = memory(rng, "lagt", dt=1e-4)
    C, Ab = C.float(), Ab.float()
    got = c_tilde(C, Ab, 2)
    assert got.dtype == F32
    want = c_tilde(C.double(), Ab.double(), 2)
    assert ((C - row_power(C, Ab, 2)).double() - want).norm() > 1e-6 * want.norm()
    close(got, want.float(), 1e-7)


def test_c_tilde_doubles(rng):
    (_, _, C), (Ab, _) = memory(rng)
    once = c_tilde(C, Ab, 99)
    close(once + row_power(once, Ab, 99), c_tilde(C, Ab, 198))


# ---------------------------------------------------------------- the real thing


@pytest.mark.parametrize("dt", [1e-3, 1e-1])
@EVERY_LENGTH
@pytest.mark.parametrize("measure, tau", MEASURES)
def test_kernel_through_the_nodes(rng, measure, tau, L, dt):
    (A, B, C), (Ab, Bb) = memory(rng, measure, dt=dt, batch=(2,))
    K = kernel_naive(Ab, Bb, C, L)
    close(from_spectrum(genfunc(A, B, C, dt, L, tau), L, tau), K, 1e-11)


@pytest.mark.parametrize("L", [1, 2, 99, 100])
@EVERY_TAU
def test_genfunc_is_the_sum_at_the_nodes(rng, L, tau):
    (A, B, C), (Ab, Bb) = memory(rng, N=64)
    want = genfunc_naive(Ab, Bb, C, torch.exp(-2 * half_angles(L, tau)), L)
    close(genfunc(A, B, C, 1e-3, L, tau), want)


@pytest.mark.parametrize("measure", ["legs", "legt", "lagt"])
def test_without_c_tilde_the_tail_comes_round(rng, measure):
    """So the tests above do see C-tilde: Ab^L is far from zero."""
    (A, B, C), (Ab, Bb) = memory(rng, measure)
    L, w = 99, half_angles(99)
    X, z = 1e-3 / 2 * A, torch.exp(-2 * w)[:, None, None]
    M = (1 - z) * torch.eye(16) - (1 + z) * X
    x = torch.linalg.solve(M, 1e-3 * B[:, None].to(C128))[..., 0]
    forgot = from_spectrum((C * x).sum(-1), L)
    K = kernel_naive(Ab, Bb, C, L)
    assert (forgot - K).abs().max() > 0.1 * K.abs().max()
    eye = torch.eye(16, dtype=F64)
    folded = torch.linalg.solve(eye - torch.linalg.matrix_power(Ab, L), Bb)
    close(forgot, kernel_naive(Ab, folded, C, L), 1e-10)  # sum over j of K[l + j L]


def test_minus_one_is_a_node_like_any_other(rng):
    (A, B, C), (Ab, Bb) = memory(rng)
    K = kernel_naive(Ab, Bb, C, 100)
    at = genfunc(A, B, C, 1e-3, 100)[-1]
    close(at.real, 1e-3 / 2 * c_tilde(C, Ab, 100) @ B)
    close(at.real, ((-1.0) ** torch.arange(100) * K).sum(), 1e-11)
    assert at.imag.abs() < 1e-14


def test_a_start_state_goes_through_the_same_resolvent(rng):
    (A, _, C), (Ab, _) = memory(rng)
    x0, dt = draw(rng, 16), 1e-3
    left = from_spectrum(genfunc(A, (x0 + dt / 2 * A @ x0) / dt, C, dt, 99, 0.5), 99, 0.5)
    close(left, kernel_naive(Ab, Ab @ x0, C, 99), 1e-11)


def test_genfunc_axes_broadcast(rng):
    A = draw(rng, 3, 1, 4, 4)
    A = A - A.mT - 0.1 * torch.eye(4)
    B, C, dt = (
        draw(rng, 5, 4),
        draw(rng, 2, 1, 1, 4),
        torch.tensor([[0.1], [0.2], [0.3]], dtype=F64),
    )
    K_hat = genfunc(A, B, C, dt, 9, 0.5)
    assert K_hat.shape == (2, 3, 5, 5)
    close(K_hat[1, 2, 4], genfunc(A[2, 0], B[4], C[1, 0, 0], 0.3, 9, 0.5))
    only_B = genfunc(A[0, 0], B, C[0, 0, 0], 0.1, 9)
    close(only_B[3], genfunc(A[0, 0], B[3], C[0, 0, 0], 0.1, 9))
    only_dt = genfunc(A[0, 0], B[0], C[0, 0, 0], dt[:, 0], 9)
    close(only_dt[1], genfunc(A[0, 0], B[0], C[0, 0, 0], 0.2, 9))


def test_smallest_system_with_batch_axes(rng):
    """Shapes in which columns could be taken for a batch of vectors: N = L = 1."""
    A, B, C = -(draw(rng, 3, 1, 1, 1) ** 2), draw(rng, 3, 1), draw(rng, 1)
    K_hat = genfunc(A, B, C, 1.0, 1, 0.5)
    assert K_hat.shape == (3, 3, 1)
    _, Bb = bilinear(A, B[:, None], 1.0)
    close(K_hat, (C * Bb[..., 0]).to(C128))


def test_near_one_nothing_cancels():
    """One pole, slow, and nodes close to z = 1: 1 - z by subtraction would lose five digits."""
    one, dt, L = torch.ones(1, dtype=F64), 1e-9, 2**16
    got = genfunc(-one[None], one, one, dt, L, 0.5)
    Ct = c_tilde(one, bilinear(-one[None], one[None], dt)[0], L, 0.5).item()
    with mpmath.workdps(40):
        X, tau = -mpmath.mpf(dt) / 2, mpmath.mpf("0.5")
        for k in (0, 1, 2, 99):
            z = mpmath.exp(-(2j * mpmath.pi * k + tau) / L)
            want = complex(Ct * dt / ((1 - z) - (1 + z) * X))
            assert abs(complex(got[k]) - want) < 1e-14 * abs(want)


@EVERY_TAU
def test_float32_in_is_computed_in_float64(rng, tau):
    (A, B, C), _ = memory(rng, batch=(2,))
    single = [t.float() for t in (A, B, C)]
    dt = torch.tensor(1e-3)
    got = genfunc(*single, dt, 1023, tau)
    assert got.dtype == C64
    want = genfunc(*(t.double() for t in single), dt.double(), 1023, tau)
    close(got, want.to(C64), 1e-7)
    assert genfunc(single[0], B, single[2], dt, 3).dtype == C128


# ---------------------------------------------------------------- gradients, compilation


@pytest.mark.parametrize("L", [1, 2, 5, 6])
@pytest.mark.parametrize("tau", [0.0, 0.5])
def test_gradients(rng, L, tau):
    K = draw(rng, 2, L).requires_grad_()
    assert torch.autograd.gradcheck(lambda K: spectrum(K, tau), K)
    K_hat = draw(rng, 2, L // 2 + 1, dtype=C128).requires_grad_()
    assert torch.autograd.gradcheck(lambda K_hat: from_spectrum(K_hat, L, tau), K_hat)
    C, Ab = draw(rng, 2, 3).requires_grad_(), (draw(rng, 3, 3) / 3).requires_grad_()
    assert torch.autograd.gradcheck(lambda C, Ab: c_tilde(C, Ab, L, tau), (C, Ab))
    assert torch.autograd.gradcheck(lambda C, Ab: row_power(C, Ab, L), (C, Ab))


@pytest.mark.parametrize("L, tau", [(1, 0.0), (4, 0.0), (5, 0.5)])
def test_gradients_through_the_resolvent(rng, L, tau):
    A = draw(rng, 3, 3)
    args = [A - A.mT - torch.eye(3), draw(rng, 3), draw(rng, 2, 3), torch.tensor(0.1).double()]
    for t in args:
        t.requires_grad_()
    assert torch.autograd.gradcheck(lambda *a: genfunc(*a, L, tau), args)
    assert torch.autograd.gradcheck(lambda *a: genfunc_naive(*a, L), [*args[:3], draw(rng, 4)])


@pytest.mark.parametrize("L", [1, 99, 100])
def test_compiles_to_one_graph(rng, L):
    """Everything that a layer calls in each forward."""
    (_, _, C), (Ab, _) = memory(rng)

    def run(C, Ab, K):
        K_hat = spectrum(K, 0.5) * torch.exp(-half_angles(L, 0.5))
        return c_tilde(C, Ab, L, 0.5), from_spectrum(K_hat, L, 0.5)

    K = draw(rng, L)
    compiled = torch.compile(run, fullgraph=True, backend="aot_eager")
    for got, want in zip(compiled(C, Ab, K), run(C, Ab, K), strict=True):
        close(got, want)


def test_compiles_for_many_lengths_and_widths(rng):
    """The second length makes L a symbol, the second batch its axes."""
    run = torch.compile(
        lambda C, Ab, K, L: (c_tilde(C, Ab, L, 0.5), from_spectrum(spectrum(K, 0.5), L, 0.5)),
        fullgraph=True,
        backend="aot_eager",
    )
    for H, L in ((2, 9), (3, 10), (5, 33)):
        (_, _, C), (Ab, _) = memory(rng, N=4 + H, batch=(H,))
        K = draw(rng, H, L)
        row, back = run(C, Ab, K, L)
        close(row, c_tilde(C, Ab, L, 0.5))
        close(back, K)


def test_the_resolvent_compiles_to_one_graph(rng):
    (A, B, C), _ = memory(rng, N=4)
    run = torch.compile(genfunc, fullgraph=True, backend="aot_eager")
    close(run(A, B, C, 0.1, 9, 0.5), genfunc(A, B, C, 0.1, 9, 0.5))


def test_arguments_are_left_alone(rng):
    (A, B, C), (Ab, Bb) = memory(rng)
    given = [A, B, C, Ab, Bb]
    copies = [t.clone() for t in given]
    genfunc(A, B, C, 0.1, 9, 0.5), genfunc_naive(Ab, Bb, C, C, 9), c_tilde(C, Ab, 9)
    from_spectrum(spectrum(C, 0.5), 16, 0.5)
    assert all(torch.equal(a, b) for a, b in zip(given, copies, strict=True))


# ---------------------------------------------------------------- bad input

M, V, Z = torch.eye(3) / 2, torch.ones(3), torch.ones(5, dtype=C64)
BAD = {
    "row, C short": (lambda: row_power(V[:2], M, 4), ValueError, r"C \(\.\.\., N\).*C \(2,\)"),
    "row, Ab a vector": (lambda: row_power(V, V, 4), ValueError, r"Ab \(\.\.\., N, N\).*Ab \(3,\)"),
    "row, Ab oblong": (lambda: row_power(V, M[:2], 4), ValueError, r"Ab \(2, 3\)"),
    "row, N = 0": (lambda: row_power(V[:0], M[:0, :0], 4), ValueError, r"N >= 1"),
    "row, axes": (
        lambda: row_power(V.expand(2, 3), M.expand(5, 3, 3), 4),
        ValueError,
        r"broadcast; got Ab \(5, 3, 3\), C \(2, 3\)",
    ),
    "row, integers": (lambda: row_power(V.long(), M, 4), TypeError, "C.*int64"),
    "row, a list": (lambda: row_power([1.0], M, 4), TypeError, "C.*list"),
    "row, devices": (lambda: row_power(V.to("meta"), M, 4), ValueError, "C on meta"),
    "row, L = 0": (lambda: row_power(V, M, 0), ValueError, "L >= 1, got 0"),
    "row, L no int": (lambda: row_power(V, M, 4.0), TypeError, "L as an int, got float"),
    "tilde, L": (lambda: c_tilde(V, M, -1), ValueError, "L >= 1"),
    "tilde, tau": (lambda: c_tilde(V, M, 4, -0.1), ValueError, "tau from 0 to 36, got -0.1"),
    "tilde, shapes": (lambda: c_tilde(V[:2], M, 4), ValueError, r"C \(2,\)"),
    "half, L": (lambda: half_angles(0), ValueError, "L >= 1"),
    "half, tau": (lambda: half_angles(4, 37.0), ValueError, "tau from 0 to 36, got 37"),
    "there, complex": (lambda: spectrum(Z), TypeError, "K real, got torch.complex64"),
    "there, integers": (lambda: spectrum(V.long()), TypeError, "K.*int64"),
    "there, empty": (lambda: spectrum(V[:0]), ValueError, r"L >= 1, no axis empty; got \(0,\)"),
    "there, no batch": (lambda: spectrum(V.expand(0, -1)), ValueError, r"axis empty; got \(0, "),
    "back, no batch": (lambda: from_spectrum(Z.expand(0, -1), 8), ValueError, r"got \(0, 5\)"),
    "there, a number": (lambda: spectrum(V[0]), ValueError, r"L >= 1, no axis empty; got \(\)"),
    "there, tau": (lambda: spectrum(V, math.nan), ValueError, "tau from 0 to 36, got nan"),
    "back, real": (lambda: from_spectrum(V, 4), TypeError, "K_hat complex, got torch.float32"),
    "back, L": (lambda: from_spectrum(Z, 0), ValueError, "L >= 1"),
    "back, L too long": (
        lambda: from_spectrum(Z, 10),
        ValueError,
        r"2 \+ 1\), no axis empty; got \(5,\) for L = 10",
    ),
    "back, L too short": (lambda: from_spectrum(Z, 7), ValueError, r"got \(5,\) for L = 7"),
    "back, a number": (lambda: from_spectrum(Z[0], 1), ValueError, r"got \(\) for L = 1"),
    "back, tau": (lambda: from_spectrum(Z, 8, math.inf), ValueError, "tau from 0 to 36, got inf"),
    "all, B short": (
        lambda: genfunc(M, V[:2], V, 0.1, 4),
        ValueError,
        r"B, C \(\.\.\., N\).*B \(2,\)",
    ),
    "all, complex": (lambda: genfunc(M, V, 1j * V, 0.1, 4), TypeError, "A, B and C real, got"),
    "all, dt": (lambda: genfunc(M, V, V, 0.0, 4), ValueError, "dt finite and > 0"),
    "all, dt complex": (lambda: genfunc(M, V, V, Z[0], 4), TypeError, "dt real"),
    "all, dt axes": (lambda: genfunc(M.expand(2, 3, 3), V, V, V, 4), ValueError, "broadcast"),
    "all, L": (lambda: genfunc(M, V, V, 0.1, 0), ValueError, "L >= 1"),
    "all, L no int": (lambda: genfunc(M, V, V, 0.1, "4"), TypeError, "L as an int, got str"),
    "all, tau": (lambda: genfunc(M, V, V, 0.1, 4, 99), ValueError, "tau from 0 to 36, got 99"),
    "all, pole": (lambda: genfunc(0 * M, V, V, 0.1, 4), ValueError, "want tau > 0"),
    "naive, C": (lambda: genfunc_naive(M, V, V[:2], Z, 4), ValueError, r"got .*\(2,\)"),
    "naive, z a number": (lambda: genfunc_naive(M, V, V, Z[0], 4), ValueError, r"z \(\.\.\., J\)"),
    "naive, z integers": (lambda: genfunc_naive(M, V, V, V.long(), 4), TypeError, "z.*int64"),
    "naive, axes": (
        lambda: genfunc_naive(M.expand(2, 3, 3), V, V, Z.expand(3, 5), 4),
        ValueError,
        r"broadcast; got system \(2,\), z \(3, 5\)",
    ),
    "naive, L": (lambda: genfunc_naive(M, V, V, Z, 0), ValueError, "L >= 1"),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_input_is_refused_in_words(name):
    call, error, words = BAD[name]
    with pytest.raises(error, match=words):
        call()


@pytest.mark.parametrize("tau", [True, "0.5", None, 1j, torch.tensor(0.5)])
def test_tau_is_a_number(tau):
    with pytest.raises(TypeError, match="want tau as a number, got"):
        check_tau(tau)


def test_tau_may_be_a_whole_number_and_its_ends_are_in():
    for tau in (0, 1, 36, np.float64(0.5)):
        check_tau(tau)
    K = torch.ones(4, dtype=F64)
    assert from_spectrum(spectrum(K, 36), 4, 36).isfinite().all()


def test_check_matrix_says_the_dtype():
    assert check_matrix(A=M, B=V.double(), C=Z[:3]) == C128
    assert check_matrix(A=M.half(), B=V.half()) == torch.float16
