"""LegS: the matrix, its exact transition, and the memory of a signal's whole past."""

import itertools
import math
from pathlib import Path

import numpy as np
import pytest
import torch

from s4lite.init.basis import exponential, gauss, legendre, project, project_steps, uniform
from s4lite.init.hippo import legs, legs_memory, legs_transition
from s4lite.ops.discretize import bilinear
from s4lite.ops.simulate import expm

f64 = torch.float64
GOLDEN = Path(__file__).parent.parent / "golden" / "hippo_transition.npz"
METHODS = ["exact", "bilinear", "midpoint"]


@pytest.fixture
def rng():
    return torch.Generator().manual_seed(0)


def eye(N):
    return torch.eye(N, dtype=f64)


# ---- legs


@pytest.mark.parametrize("N", [4, 8, 64])
def test_legs_is_the_golden_matrix(N):
    with np.load(GOLDEN) as z:
        A, B = torch.from_numpy(z[f"A_legs_{N}"]), torch.from_numpy(z[f"B_legs_{N}"]).ravel()
    ours = legs(N)
    assert (ours[0] - A).abs().max() < 1e-12 and (ours[1] - B).abs().max() < 1e-12


@pytest.mark.parametrize("N", [1, 2, 7, 33, 99])
def test_legs_from_its_definition(N):
    """-A_nk = int (r phi_n)' phi_k, with NumPy's derivative."""
    r, w = gauss(N + 1)
    P = np.polynomial.legendre
    slope = [P.legval(2 * r.numpy() - 1, 2 * P.legder(row)) for row in np.eye(N)]
    root = (2 * torch.arange(N, dtype=f64) + 1).sqrt()
    phi, slope = legendre(N, r), torch.from_numpy(np.stack(slope, -1)) * root
    H = ((phi + r[:, None] * slope).T * w) @ phi
    A, B = legs(N)
    assert (A + H).abs().max() < 1e-13 * N**2
    assert torch.equal(B, legendre(N, torch.ones(1, dtype=f64))[0])


@pytest.mark.parametrize("N", [1, 2, 9, 100])
def test_legs_structure(N):
    A, B = legs(N)
    assert A.shape == (N, N) and B.shape == (N,) and A.dtype == B.dtype == f64
    assert torch.equal(A[:, 0], -B)  # a constant past stays
    assert torch.equal(A, A.tril()) and torch.equal(A.diagonal(), -torch.arange(1, N + 1).to(f64))
    energy = A + A.T + eye(N) + torch.outer(B, B)
    assert energy.abs().max() < 1e-12
    skew = A + torch.outer(B, B) / 2 + eye(N) / 2
    assert (skew + skew.T).abs().max() < 1e-12


@pytest.mark.parametrize("N", [1, 3, 17, 100])
@pytest.mark.parametrize("p", [0, 1, 2, 16])
def test_powers_obey_the_equation(N, p):
    """f = t^p has the summary t^p v, so p v = A v + B."""
    A, B = legs(N)
    r, w = gauss(N // 2 + p + 1)
    v = (w * r**p) @ legendre(N, r)
    assert (p * v - A @ v - B).abs().max() < 1e-13 * N**2


def test_legs_dtypes():
    A, B = legs(5, dtype=torch.float32)
    assert A.dtype == B.dtype == torch.float32
    assert torch.equal(A, legs(5)[0].to(torch.float32))
    assert legs(5, dtype=torch.complex128)[0].dtype == torch.complex128


@pytest.mark.parametrize("N", [1, 9, 64])
def test_kernel_is_the_warped_legendre(N):
    """e^(tau A) B = e^-tau phi(e^-tau)."""
    A, B = legs(N)
    ages = torch.linspace(0, 12, 49, dtype=f64)
    kernel = expm(ages[:, None, None] * A) @ B
    assert (kernel - exponential(N).gather(ages)).abs().max() < 1e-12
    assert (kernel - torch.exp(-ages)[:, None] * legendre(N, torch.exp(-ages))).abs().max() < 1e-12


# ---- legs_transition


@pytest.mark.parametrize("N", [1, 2, 9, 64, 128])
@pytest.mark.parametrize("t0, t1", [(3.0, 3.0), (3, 4), (199.0, 200.0), (1e-6, 2e-6), (0.01, 7.0)])
def test_transition_is_the_exponential(N, t0, t1):
    A, _ = legs(N)
    E = legs_transition(N, t0, t1)
    assert (E - expm(A * math.log(t1 / t0))).abs().max() < 2e-12
    assert torch.equal(E, E.tril())
    assert torch.linalg.matrix_norm(E, 2) <= math.sqrt(t0 / t1) + 1e-12
    assert (E.diagonal() - (t0 / t1) ** torch.arange(1.0, N + 1, dtype=f64)).abs().max() < 1e-12


def test_transitions_compose():
    whole = legs_transition(20, 1.0, 6.0)
    parts = legs_transition(20, 2.5, 6.0) @ legs_transition(20, 1.0, 2.5)
    assert (whole - parts).abs().max() < 1e-13


def test_transition_is_the_projection_of_a_past_that_went_silent(rng):
    u = torch.randn(30, generator=rng, dtype=f64)
    silent = torch.cat([u, torch.zeros(12, dtype=f64)])
    moved = legs_transition(16, 30.0, 42.0) @ project_steps(u, 16)
    assert (moved - project_steps(silent, 16)).abs().max() < 1e-13


# ---- legs_memory


@pytest.mark.parametrize(
    ("N", "L"), [(8, 200), (32, 200), (64, 200), (1, 1), (5, 1), (3, 2), (64, 99), (7, 1023)]
)
def test_exact_memory_is_the_direct_projection(N, L, rng):
    u = torch.randn(3, L, generator=rng, dtype=f64)
    c = legs_memory(u, N)
    assert c.shape == (3, L, N)
    for k in {1, 2, (L + 1) // 2, L - L // 7, L} & set(range(1, L + 1)):
        assert (c[:, k - 1] - project_steps(u[:, :k], N)).abs().max() < 1e-12


def test_memory_beyond_one_chunk(rng):
    """N = 128 makes its steps 64 at a time: the seam must not show."""
    u = torch.randn(150, generator=rng, dtype=f64)
    c = legs_memory(u, 128)
    for k in (63, 64, 65, 128, 129, 150):
        assert (c[k - 1] - project_steps(u[:k], 128)).abs().max() < 1e-12


def memory_naive(u, N, method):
    """One step after the other, from the formulas."""
    A, B = legs(N)
    c = torch.zeros(N, dtype=f64) if method == "bilinear" else u[0] * eye(N)[0]
    for k in range(1 if method == "bilinear" else 2, len(u) + 1):
        if method == "exact":
            f = u[k - 1] * eye(N)[0]
            c = f + expm(A * math.log(k / (k - 1))) @ (c - f)
        else:
            q = 1 / k if method == "bilinear" else 1 / (k - 0.5)
            right = (eye(N) + q / 2 * A) @ c + q * B * u[k - 1]
            c = torch.linalg.solve(eye(N) - q / 2 * A, right)
    return c


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize(("N", "L"), [(1, 1), (1, 5), (6, 1), (6, 2), (9, 99)])
def test_memory_against_naive(method, N, L, rng):
    u = torch.randn(L, generator=rng, dtype=f64)
    for k in {1, L}:
        gap = legs_memory(u, N, method)[k - 1] - memory_naive(u[:k], N, method)
        assert gap.abs().max() < 1e-12


@pytest.mark.parametrize(("method", "order"), [("exact", 2), ("bilinear", 1), ("midpoint", 2)])
def test_order_for_smooth_signals(method, order):
    smooth = lambda r: torch.sin(7 * r) + r**2 * torch.exp(-r)  # noqa: E731
    r, w = gauss(64)
    truth = (w * smooth(r)) @ legendre(8, r)
    errors = []
    for L in (200, 400, 800):
        c = legs_memory(smooth((torch.arange(L, dtype=f64) + 0.5) / L), 8, method)
        errors.append(float((c[-1] - truth).norm()))
    for one, half in itertools.pairwise(errors):
        assert abs(math.log2(one / half) - order) < 0.05


@pytest.mark.parametrize("method", METHODS)
def test_memory_is_linear_and_causal(method, rng):
    u, v = torch.randn(2, 40, generator=rng, dtype=f64)
    both = legs_memory(2 * u - 3 * v, 6, method)
    parts = 2 * legs_memory(u, 6, method) - 3 * legs_memory(v, 6, method)
    assert (both - parts).abs().max() < 1e-12
    later = u.clone()
    later[25:] += 1
    changed = (legs_memory(later, 6, method) - legs_memory(u, 6, method)).abs().amax(1) > 0
    assert changed.tolist() == [False] * 25 + [True] * 15


def test_memory_does_not_know_the_unit_of_time(rng):
    u = torch.randn(20, generator=rng, dtype=f64)
    slow = legs_memory(u.repeat_interleave(3), 10)
    assert (slow[2::3] - legs_memory(u, 10)).abs().max() < 1e-13


@pytest.mark.parametrize("method", ["exact", "midpoint"])
def test_constants_stay(method):
    c = legs_memory(torch.full((50,), 3.0, dtype=f64), 12, method)
    assert (c - 3 * eye(12)[0]).abs().max() < 1e-12


def test_the_first_number_is_the_mean(rng):
    """By the exact and the midpoint rule without error; by A/k only 2k/(2k+1) of it."""
    u = torch.randn(70, generator=rng, dtype=f64)
    k = torch.arange(1, 71, dtype=f64)
    mean = u.cumsum(0) / k
    for method, share in [("exact", 1), ("midpoint", 1), ("bilinear", 2 * k / (2 * k + 1))]:
        assert (legs_memory(u, 5, method)[:, 0] - share * mean).abs().max() < 1e-13


def test_fewer_numbers_are_the_first_of_more(rng):
    u = torch.randn(60, generator=rng, dtype=f64)
    for method in METHODS:
        gap = legs_memory(u, 20, method)[:, :9] - legs_memory(u, 9, method)
        assert gap.abs().max() < 1e-12


def test_error_grows_by_the_squared_surprise(rng):
    """d/dt int_0^t (f - fhat)^2 = (f(t) - fhat(now))^2, for a smooth f."""
    f = lambda s: torch.cos(6 * s) + s  # noqa: E731
    N, T, B = 5, 2.0, legs(5)[1]
    z, w = gauss(80)
    surprise = [
        f(T * x) - B @ project(lambda age, x=x: f(T * x - age), uniform(N, float(T * x))) for x in z
    ]
    c = project(lambda age: f(T - age), uniform(N, T))
    lost = T * ((w * f(T * z) ** 2).sum() - c @ c)
    assert abs(T * (w * torch.stack(surprise) ** 2).sum() - lost) < 1e-10 and lost > 0.1


@pytest.mark.parametrize("method", METHODS)
def test_memory_axes_dtypes_gradient(method, rng):
    u = torch.randn(2, 3, 11, generator=rng)
    low = legs_memory(u, 5, method)
    assert low.shape == (2, 3, 11, 5) and low.dtype == torch.float32
    assert (low - legs_memory(u.to(f64), 5, method)).abs().max() < 1e-6
    assert (low[1, 2] - legs_memory(u[1, 2], 5, method)).abs().max() < 1e-6
    z = torch.complex(u[0, 0], u[0, 1])
    split = torch.complex(*(legs_memory(x, 5, method) for x in (z.real, z.imag)))
    assert (legs_memory(z, 5, method) - split).abs().max() < 1e-6
    wide = u[0, :2, :6].to(f64).requires_grad_()
    assert torch.autograd.gradcheck(lambda u: legs_memory(u, 4, method), wide)


def test_bilinear_memory_is_chapter_threes_rule(rng):
    A, B = legs(7)
    Ab, Bb = bilinear(A, B[:, None], 1 / 5)
    u = torch.randn(5, generator=rng, dtype=f64)
    c = legs_memory(u, 7, "bilinear")
    assert (c[4] - Ab @ c[3] - Bb[:, 0] * u[4]).abs().max() < 1e-13


# ---- bad input


@pytest.mark.parametrize(
    "call",
    [legs, lambda N: legs_transition(N, 1.0, 2.0), lambda N: legs_memory(torch.zeros(3), N)],
)
def test_bad_sizes(call):
    for N, error, message in [
        (0, ValueError, "want N >= 1, got 0"),
        (-2, ValueError, "want N >= 1, got -2"),
        (4.0, TypeError, "want N as an int, got float"),
        (2.5, TypeError, "want N as an int, got float"),
        (True, TypeError, "want N as an int, got bool"),
        ("4", TypeError, "want N as an int, got str"),
    ]:
        with pytest.raises(error, match=message):
            call(N)


def test_bad_dtypes():
    for dtype in (torch.int64, torch.bool, "float32", None):
        with pytest.raises(TypeError, match="want a floating or complex dtype, got"):
            legs(4, dtype=dtype)


def test_bad_times():
    for zero in (0, 0.0, -0.0):
        with pytest.raises(ValueError, match=r"want t0 > 0, got 0: .* start from c = f\(0\) e_0"):
            legs_transition(4, zero, 1.0)
    for t0, t1, message in [
        (-1.0, 1.0, "want t0 finite and > 0, got -1"),
        (math.nan, 1.0, "want t0 finite and > 0, got nan"),
        (1.0, math.inf, "want t1 finite and > 0, got inf"),
        (2.0, 1.0, "want t0 <= t1, got 2.0 and 1.0"),
    ]:
        with pytest.raises(ValueError, match=message):
            legs_transition(4, t0, t1)
    for t0 in ("1", True, False):
        with pytest.raises(TypeError, match="want t0 as a number"):
            legs_transition(4, t0, 2.0)
    for t0, t1 in [(torch.tensor(1.0), 2.0), (1.0, torch.tensor([2.0, 3.0]))]:
        with pytest.raises(TypeError, match="want t0 and t1 as numbers, got a Tensor"):
            legs_transition(4, t0, t1)


def test_bad_memories():
    u = torch.zeros(2, 9)
    with pytest.raises(ValueError, match="want method among exact, bilinear, midpoint, got 'zoh'"):
        legs_memory(u, 4, "zoh")
    u[0, 8] = math.inf
    with pytest.raises(ValueError, match="want u finite, got 1 of 18 values NaN or infinite"):
        legs_memory(u, 4)
    with pytest.raises(ValueError, match=r"want u \(..., L\) with L >= 1, got \(0,\)"):
        legs_memory(torch.zeros(0), 4)
    with pytest.raises(TypeError, match=r"want u of a floating or complex dtype, got torch\.int64"):
        legs_memory(torch.arange(4), 4)
