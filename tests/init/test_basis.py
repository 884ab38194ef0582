"""Legendre polynomials, Gauss's rule, and pasts summed up in N numbers and drawn again."""

import math
from fractions import Fraction

import numpy as np
import pytest
import torch
from scipy.special import eval_legendre

from s4lite.init.basis import (
    Basis,
    check_signal,
    exponential,
    gauss,
    legendre,
    project,
    project_steps,
    reconstruct,
    uniform,
)

f64 = torch.float64
both = pytest.mark.parametrize("make", [lambda N: uniform(N, 7.0), exponential])


@pytest.fixture
def rng():
    return torch.Generator().manual_seed(0)


def root(N):
    return (2 * torch.arange(N, dtype=f64) + 1).sqrt()


# ---- legendre and gauss


@pytest.mark.parametrize("N", [1, 2, 3, 33, 129, 257])
def test_legendre_is_the_definition(N):
    r = torch.cat([torch.linspace(0, 1, 41, dtype=f64), torch.tensor([1e-9, 1 - 1e-9], dtype=f64)])
    n = np.arange(N)
    want = torch.from_numpy(eval_legendre(n, 2 * r.numpy()[:, None] - 1)) * root(N)
    phi = legendre(N, r)
    assert phi.shape == (43, N) and (phi - want).abs().max() < 1e-12 * N
    assert (phi[40] - root(N)).abs().max() < 1e-14  # r = 1
    sign = (-1.0) ** torch.arange(N)
    assert (phi[0] - sign * root(N)).abs().max() < 1e-14  # r = 0


def test_legendre_in_fractions():
    """P_n(2r - 1) at r = 1/3 by the sum over binomials of Rodrigues, without rounding."""
    r = Fraction(1, 3)
    for n in (0, 1, 5, 20, 63):
        exact = sum(math.comb(n, j) ** 2 * (r - 1) ** (n - j) * r**j for j in range(n + 1))
        got = legendre(n + 1, torch.tensor([1 / 3], dtype=f64))[0, n]
        assert abs(got - math.sqrt(2 * n + 1) * float(exact)) < 1e-13


def test_legendre_axes_dtype_and_gradient(rng):
    r = torch.rand(2, 3, 5, generator=rng)
    assert legendre(4, r).shape == (2, 3, 5, 4) and legendre(4, r).dtype == torch.float32
    gap = (legendre(64, r) - legendre(64, r.to(f64))).abs().max()
    assert gap < 1e-7 * 64**2.5  # its slope at the ends, times the rounding of r
    x = torch.rand(3, generator=rng, dtype=f64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda x: legendre(6, x), x)


@pytest.mark.parametrize("Q", [1, 2, 3, 64, 99, 257])
def test_gauss_is_exact_below_2Q(Q):
    r, w = gauss(Q)
    assert r.dtype == w.dtype == f64 and bool((r.diff() > 0).all()) and bool((w > 0).all())
    for d in {0, 1, Q, 2 * Q - 1}:
        assert abs((w * r**d).sum() - 1 / (d + 1)) < 1e-14
    if Q < 20:
        assert abs((w * r ** (2 * Q)).sum() - 1 / (2 * Q + 1)) > 1e-13  # and not beyond
    phi = legendre(Q, r)
    assert ((phi.T * w) @ phi - torch.eye(Q, dtype=f64)).abs().max() < 1e-12


def test_gauss_nodes_are_not_shared():
    r, w = gauss(5)
    r.zero_(), w.zero_()
    assert gauss(5)[0].min() > 0 and abs(gauss(5)[1].sum() - 1) < 1e-15


# ---- bases, project, reconstruct


@both
@pytest.mark.parametrize("N", [1, 2, 9, 64, 100])
def test_project_and_reconstruct_are_inverse(make, N, rng):
    basis = make(N)
    assert isinstance(basis, Basis) and basis.N == N
    c = torch.randn(2, 3, N, generator=rng, dtype=f64)
    again = project(lambda age: reconstruct(c, basis, age), basis)
    assert again.shape == c.shape and (again - c).abs().max() < 1e-10
    narrow = project(lambda age: reconstruct(c, basis, age), make(max(1, N - 1)))
    assert (narrow - c[..., : max(1, N - 1)]).abs().max() < 1e-10  # fewer: the first of the same


@pytest.mark.parametrize("N", [1, 2, 9, 64, 100])
@pytest.mark.parametrize("window", [1e-3, 7.0, 1e5])
def test_polynomials_come_back(N, window):
    basis, age = uniform(N, window), torch.linspace(0, window, 99, dtype=f64)
    for d in {0, N // 2, N - 1}:
        power = lambda age, d=d: (1 - 2 * age / window) ** d  # noqa: E731
        back = reconstruct(project(power, basis), basis, age)
        assert (back - power(age)).abs().max() < 1e-10
        warped = lambda age, d=d: (1 - 2 * torch.exp(-age)) ** d  # noqa: E731
        back = reconstruct(project(warped, exponential(N)), exponential(N), age)
        assert (back - warped(age)).abs().max() < 1e-10


@both
def test_gather_is_dual_to_recall(make):
    basis = make(12)
    gather, recall = basis.gather(basis.nodes), basis.recall(basis.nodes)
    gram = (gather.T * basis.weights) @ recall
    assert (gram - torch.eye(12, dtype=f64)).abs().max() < 1e-12


@both
def test_projection_is_the_best(make, rng):
    """Any other numbers are worse, in the measure of the basis."""
    basis = make(5)
    past = torch.sin(3 * basis.nodes) + (basis.nodes > 0.4)
    measure = basis.weights * basis.gather(basis.nodes)[:, 0]  # phi_0 = 1: its weight alone
    error = lambda c: (measure * (past - c @ basis.recall(basis.nodes).T) ** 2).sum()  # noqa: E731
    c = project(lambda age: past, basis)
    for _ in range(20):
        slip = torch.randn(5, generator=rng, dtype=f64)
        assert abs(error(c + slip) - error(c) - slip @ slip) < 1e-10


def test_nothing_outside_of_the_past():
    ages = torch.tensor([-0.1, 0.0, 2.0, 2.1], dtype=f64)
    assert (uniform(3, 2.0).recall(ages).abs().sum(1) > 0).tolist() == [False, True, True, False]
    assert (exponential(3).recall(ages).abs().sum(1) > 0).tolist() == [False, True, True, True]


def test_the_edge_belongs_to_the_past():
    """3 * 0.1 > 0.3 and float32(0.1) > 0.1: rounding must not cut the beginning off."""
    want = legendre(4, torch.zeros(1, dtype=f64))
    late = torch.tensor([3 * 0.1], dtype=f64)
    assert late > 0.3 and torch.equal(uniform(4, 0.3).recall(late), want)
    ages = torch.linspace(0, 0.1, 4)
    assert ages[-1].to(f64) > 0.1
    drawn = reconstruct(torch.eye(4, dtype=f64), uniform(4, 0.1), ages)[:, -1]
    assert (drawn - want[0]).abs().max() < 1e-12
    for off in (-1e-9, 0.3 * (1 + 2e-6)):  # the future, and what is truly older
        assert not uniform(4, 0.3).recall(torch.tensor([off], dtype=f64)).any()


@both
def test_ages_that_are_nothing_or_far(make):
    """NaN in, NaN out (no silent zero); far outside the gradient is 0, not NaN."""
    basis, c = make(64), torch.ones(64, dtype=f64)
    age = torch.tensor([math.nan, 1.0, math.inf, 1e9, -900.0], dtype=f64, requires_grad=True)
    past = reconstruct(c, basis, age)
    assert past.isnan().tolist() == [True, False, False, False, False]
    past[[1, 3, 4]].sum().backward()
    assert bool(age.grad[[1, 3, 4]].isfinite().all()) and not age.grad[[3, 4]].any()


def test_bases_compare_by_identity():
    basis = uniform(4, 1.0)
    assert basis == basis and basis != uniform(4, 1.0) and len({basis, basis}) == 1


def test_dtypes_and_gradients(rng):
    basis, age = uniform(6, 2.0), torch.linspace(0, 2, 7, dtype=f64)
    c = torch.randn(2, 6, generator=rng)
    low = reconstruct(c, basis, age.to(torch.float32))
    assert low.dtype == torch.float32 and low.shape == (2, 7)
    assert (low - reconstruct(c.to(f64), basis, age)).abs().max() < 1e-5
    assert reconstruct(c.to(torch.complex64), basis, age).dtype == torch.complex64
    wide = c.to(f64).requires_grad_()
    assert torch.autograd.gradcheck(lambda c: reconstruct(c, basis, age), wide)
    values = torch.randn(len(basis.nodes), generator=rng, dtype=f64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda v: project(lambda _: v, basis), values)
    assert project(lambda age: age.to(torch.float32), basis).dtype == torch.float32


def test_points():
    assert len(uniform(4, 1.0).nodes) == 40 and len(uniform(4, 1.0, points=7).nodes) == 7
    assert len(exponential(4, points=9).weights) == 9
    jump = lambda age: (age < 0.3).to(f64)  # noqa: E731
    want = torch.cat([torch.zeros(7, dtype=f64), torch.ones(3, dtype=f64)])
    fine = project(jump, uniform(4, 1.0, points=400))
    assert (fine - project_steps(want, 4)).abs().max() < 0.01


# ---- project_steps


def steps_naive(u, N):
    """One quadrature a stair."""
    r, w = gauss(N)
    stairs = (torch.arange(len(u))[:, None] + r) / len(u)
    return u @ (legendre(N, stairs) * w[:, None]).sum(1) / len(u)


@pytest.mark.parametrize(("N", "L"), [(1, 1), (2, 1), (5, 2), (9, 99), (64, 200), (128, 1023)])
def test_project_steps_is_the_integral(N, L, rng):
    u = torch.randn(L, generator=rng, dtype=f64)
    c = project_steps(u, N)
    assert c.shape == (N,) and (c - steps_naive(u, N)).abs().max() < 1e-13
    assert abs(c[0] - u.mean()) < 1e-14
    assert (c**2).sum() <= (u**2).mean() * (1 + 1e-12)  # Bessel
    assert (project_steps(u, N + 3)[:N] - c).abs().max() < 1e-14  # more numbers leave the old ones
    sign = (-1.0) ** torch.arange(N)
    assert (project_steps(u.flip(0), N) - sign * c).abs().max() < 1e-13  # time reversed
    twice = project_steps(u.repeat_interleave(2), N)
    assert (twice - c).abs().max() < 1e-13  # the same staircase, told in finer steps


def test_project_steps_axes_dtype_gradient(rng):
    u = torch.randn(2, 3, 17, generator=rng)
    low = project_steps(u, 5)
    assert low.shape == (2, 3, 5) and low.dtype == torch.float32
    assert (low - project_steps(u.to(f64), 5)).abs().max() < 1e-6
    assert (project_steps(u, 5)[1, 2] - project_steps(u[1, 2], 5)).abs().max() < 1e-6
    z = torch.randn(7, generator=rng, dtype=torch.complex128)
    split = torch.complex(project_steps(z.real, 4), project_steps(z.imag, 4))
    assert (project_steps(z, 4) - split).abs().max() < 1e-14
    wide = u[0, :1].to(f64).requires_grad_()
    assert torch.autograd.gradcheck(lambda u: project_steps(u, 4), wide)


# ---- bad input


@pytest.mark.parametrize(
    "call",
    [
        lambda N: legendre(N, torch.zeros(2)),
        gauss,
        lambda N: uniform(N, 1.0),
        exponential,
        lambda N: project_steps(torch.zeros(3), N),
    ],
)
def test_bad_sizes(call):
    for N, error, message in [
        (0, ValueError, "want . >= 1, got 0"),
        (-3, ValueError, "want . >= 1, got -3"),
        (4.0, TypeError, "want . as an int, got float"),
        (True, TypeError, "want . as an int, got bool"),
    ]:
        with pytest.raises(error, match=message):
            call(N)


def test_bad_windows():
    with pytest.raises(ValueError, match=r"want window > 0, got 0: .* c = f\(0\) e_0"):
        uniform(4, 0.0)
    for window in (-1.0, math.nan, math.inf):
        with pytest.raises(ValueError, match="want window finite and > 0, got"):
            uniform(4, window)
    for window in ("1", True, False, None, torch.tensor(2.0), torch.tensor([2.0, 3.0])):
        with pytest.raises(TypeError, match="want window as a number"):
            uniform(4, window)
    with pytest.raises(ValueError, match="want Q >= 1, got 0"):
        exponential(4, points=0)


def test_bad_signals():
    u = torch.zeros(4, 9)
    u[1, 3] = math.nan
    with pytest.raises(ValueError, match="want u finite, got 1 of 36 values NaN or infinite"):
        project_steps(u, 4)
    with pytest.raises(ValueError, match="want f finite, got"):
        project(lambda age: age / 0, uniform(3, 1.0))
    with pytest.raises(ValueError, match=r"want u \(..., L\) with L >= 1, got \(2, 0\)"):
        project_steps(torch.zeros(2, 0), 4)
    with pytest.raises(ValueError, match=r"want u \(..., L\) with L >= 1, got \(\)"):
        project_steps(torch.tensor(1.0), 4)
    with pytest.raises(TypeError, match=r"want u of a floating or complex dtype, got torch\.int64"):
        project_steps(torch.arange(3), 4)
    with pytest.raises(TypeError, match=r"want v as a torch\.Tensor, got list"):
        check_signal(v=[1.0])
    with pytest.raises(TypeError, match=r"want r real, got torch\.complex64"):
        legendre(3, torch.zeros(2, dtype=torch.complex64))


def test_bad_shapes():
    basis = uniform(3, 1.0)
    with pytest.raises(ValueError, match=r"want f\(age\) \(..., Q\) at ages \(Q,\), got \(5,\)"):
        project(lambda age: age[:5], basis)
    age = torch.zeros(2, dtype=f64)
    with pytest.raises(ValueError, match=r"want c \(..., 3\), age \(T,\); got \(4,\), \(2,\)"):
        reconstruct(torch.zeros(4), basis, age)
    with pytest.raises(ValueError, match=r"want c \(..., 3\), age \(T,\); got \(3,\), \(1, 2\)"):
        reconstruct(torch.zeros(3), basis, age[None])
    with pytest.raises(TypeError, match=r"want age real, got torch\.complex128"):
        reconstruct(torch.zeros(3), basis, age + 1j)
    with pytest.raises(
        TypeError, match=r"want age of a floating or complex dtype, got torch\.int64"
    ):
        reconstruct(torch.zeros(3), basis, torch.arange(2))
