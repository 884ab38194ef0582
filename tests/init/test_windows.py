"""LegT, the LMU, LagT and FouT: the formulas, other people's numbers, and what is promised."""

import math
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
import torch
from scipy.special import eval_laguerre, eval_legendre

from s4lite.init.basis import exponential, project, reconstruct, uniform
from s4lite.init.hippo import fout, hippo, lagt, legs, legt, lmu
from s4lite.init.measures import MEASURES, basis, check_measure, fourier, laguerre
from s4lite.ops.discretize import bilinear, zoh
from s4lite.ops.simulate import expm

f64 = torch.float64
GOLDEN = Path(__file__).parent.parent / "golden" / "hippo_transition.npz"
SIZES = [1, 2, 3, 6, 7, 33, 64, 99]
WINDOWS = [0.3, 1.0, 2.0, 66.0]
every_measure = pytest.mark.parametrize("measure", MEASURES)
sliding = pytest.mark.parametrize("measure", ["legt", "lmu", "fout"])


def norm(X):
    return float(torch.linalg.matrix_norm(X, 2))


def ends(N):
    """phi(1) and phi(0)."""
    n = torch.arange(N, dtype=f64)
    near = (2 * n + 1).sqrt()
    return near, near * (1 - 2 * (n % 2))


# ---------------------------------------------------------------- the matrices


@pytest.mark.parametrize("N", [4, 8, 64])
@every_measure
def test_golden(measure, N):
    golden = np.load(GOLDEN)
    A, B = hippo(measure, N, window=1.0 if measure == "lmu" else None)  # the published LMU: 1
    want_A, want_B = golden[f"A_{measure}_{N}"], golden[f"B_{measure}_{N}"].ravel()
    assert np.abs(A.numpy() - want_A).max() < 1e-12
    assert np.abs(B.numpy() - want_B).max() < 1e-12


@pytest.mark.parametrize("window", WINDOWS)
@pytest.mark.parametrize("N", SIZES)
def test_legt_is_derivative_plus_guess(N, window):
    x, weight = np.polynomial.legendre.leggauss(N + 1)
    root = np.sqrt(2 * np.arange(N) + 1)
    family = [np.polynomial.Legendre.basis(n) for n in range(N)]
    phi = np.stack([p(x) for p in family]) * root[:, None]
    slope = np.stack([2 * p.deriv()(x) for p in family]) * root[:, None]
    far = root * (-1.0) ** np.arange(N)
    want = -((slope * weight / 2) @ phi.T + np.outer(far, far)) / window
    A, B = legt(N, window)
    assert np.abs(A.numpy() - want).max() < 2e-11 * np.abs(want).max()  # the quadrature's own
    assert torch.equal(A[:, 0], -B)  # a constant input is remembered exactly
    assert torch.allclose(B * window, torch.from_numpy(root), rtol=1e-15, atol=0)


@pytest.mark.parametrize("N", [*SIZES, 200])
def test_lmu_is_legt_in_other_coordinates(N):
    _, far = ends(N)
    for window in WINDOWS:
        (A, B), (A_m, B_m) = legt(N, window), lmu(N, window)
        gap_A = (far[:, None] * A / far - A_m).abs().max() / A_m.abs().max()
        gap_B = (far * B - B_m).abs().max() / B_m.abs().max()
        assert max(gap_A, gap_B) < 1e-12


def exact_lmu(N):
    """The delay network in whole numbers, as Voelker et al. print it, window 1."""
    A = [[(2 * i + 1) * (-1 if i < j else (-1) ** (i - j + 1)) for j in range(N)] for i in range(N)]
    return A, [(2 * i + 1) * (-1) ** i for i in range(N)]


@pytest.mark.parametrize("N", [1, 2, 5, 9, 14])
def test_lmu_is_the_pade_delay(N):
    """Its far end, as a series in s, is exp(-s) up to s^(2N - 1), and then has the stated error."""
    A, B = exact_lmu(N)
    ours = lmu(N, 1.0)
    assert ours[0].tolist() == A and ours[1].tolist() == B
    # moments C A^(-j-1) B in fractions: H(s) = -sum_j s^j C A^(-j-1) B
    rows = [[Fraction(x) for x in row] for row in A]
    x, moments = [Fraction(b) for b in B], []
    for _ in range(2 * N + 1):
        x = solve_exactly(rows, x)
        moments.append(-sum(x))
    for j in range(2 * N):
        assert moments[j] == Fraction((-1) ** j, math.factorial(j))
    f = math.factorial
    error = Fraction((-1) ** N * f(N) * f(N - 1), f(2 * N) * f(2 * N - 1))
    assert Fraction(1, f(2 * N)) - moments[2 * N] == error


def solve_exactly(A, b):
    """Gauss in fractions."""
    rows = [[*row, value] for row, value in zip(A, b, strict=True)]
    for i in range(len(rows)):
        p = next(k for k in range(i, len(rows)) if rows[k][i])
        rows[i], rows[p] = rows[p], rows[i]
        rows[i] = [value / rows[i][i] for value in rows[i]]
        for k in range(len(rows)):
            if k != i and rows[k][i]:
                rows[k] = [v - rows[k][i] * w for v, w in zip(rows[k], rows[i], strict=True)]
    return [row[-1] for row in rows]


@pytest.mark.parametrize("N", SIZES)
def test_lagt_by_its_entries(N):
    A, B = lagt(N)
    for n in range(N):
        for k in range(N):
            assert A[n, k] == (-1 if k < n else -0.5 if k == n else 0)
    assert bool((B == 1).all())


@pytest.mark.parametrize("window", WINDOWS)
@pytest.mark.parametrize("N", [1, 3, 7, 33, 65])
def test_fout_by_its_waves(N, window):
    A, B = fout(N, window)
    for n in range(N):
        for k in range(N):
            j_n, j_k = (n + 1) // 2, (k + 1) // 2
            b_n, b_k = (0 if m and m % 2 == 0 else 1 if m == 0 else math.sqrt(2) for m in (n, k))
            turn = 2 * math.pi * j_n * (1 if n > k else -1) if j_n == j_k and n != k else 0
            assert abs(float(A[n, k]) * window - (turn - 2 * b_n * b_k)) < 1e-12 * (1 + abs(turn))
        assert abs(float(B[n]) * window - 2 * b_n) < 1e-14


@pytest.mark.parametrize("N", [2, 4, 6, 34, 64])
def test_even_fout_has_one_dead_state(N):
    A, B = fout(N)
    assert not A[1].any() and not A[:, 1].any() and B[1] == 0  # sin 0: eigenvalue 0, and unseen
    alive = [0, *range(2, N)]
    odd_A, odd_B = fout(N - 1)
    assert torch.equal(A[alive][:, alive], odd_A) and torch.equal(B[alive], odd_B)
    assert np.linalg.matrix_rank(odd_A.numpy()) == N - 1


# ---------------------------------------------------------------- energy and stability


@pytest.mark.parametrize("N", SIZES)
def test_energy_balances(N):
    near, far = ends(N)
    eye, outer = torch.eye(N, dtype=f64), torch.outer

    def check(A, want):
        assert ((A + A.mT) - want).abs().max() <= 1e-13 * want.abs().max()

    A, B = legs(N)
    check(A, -(eye + outer(B, B)))
    for window in WINDOWS:
        check(legt(N, window)[0], -(outer(near, near) + outer(far, far)) / window)
        A, B = fout(N, window)
        check(A, -window * outer(B, B))
    A, B = lagt(N)
    check(A, -outer(B, B))


@pytest.mark.parametrize("N", [1, 2, 3, 7, 33, 64, 99])
def test_strictly_stable(N):
    """|exp(t A)| < 1 for one t puts all eigenvalues to the left; no spectrum is computed."""
    assert norm(expm(2 * legs(N)[0])) < 0.4
    A, _ = legt(N, 1.0)
    assert norm(expm(A)) < 0.4 and norm(expm(0.25 * A)) <= 1 + 1e-9
    _, far = ends(N)
    A_m, _ = lmu(N, 1.0)
    assert norm(expm(A_m / far[:, None] * far)) < 0.4  # in LegT's coordinates; the same spectrum
    assert norm(expm((6.0 * N + 20) * lagt(N)[0])) < 1e-3
    odd = N - 1 + N % 2
    if odd:
        assert norm(expm(8.0 * fout(odd)[0])) < 0.5
    assert norm(expm(0.3 * fout(N)[0])) <= 1 + 1e-12


@pytest.mark.parametrize("N", [2, 5, 8, 13])
def test_strictly_stable_by_routh(N):
    """The same for LegT and the LMU in whole numbers: all signs of Routh's first column agree."""
    f = math.factorial
    row = [Fraction(math.comb(N, i) * f(N + i - 1), f(N - 1)) for i in range(N + 1)]
    for shift in (1, -3, 10):  # it is the characteristic polynomial: det(s I - A) at N + 1 places
        A = torch.tensor(exact_lmu(N)[0], dtype=f64)
        det = float(torch.linalg.det(shift * torch.eye(N, dtype=f64) - A))
        value = float(sum(c * shift ** (N - i) for i, c in enumerate(row)))
        assert abs(det / value - 1) < 1e-9
    above, below = row[0::2], row[1::2]
    for _ in range(N):
        assert above[0] > 0 and below[0] > 0
        wide = below + [Fraction(0)] * (len(above) - len(below))
        ratio = above[0] / below[0]
        above, below = below, [a - ratio * b for a, b in zip(above[1:], wide[1:], strict=True)]
        if not below:
            break


def test_trap_computed_spectra_lie():
    """Why the tests above use norms: the largest pole of LegT, N = 64, has modulus 120.92."""
    computed = torch.linalg.eigvals(legt(64, 1.0)[0]).abs().max()
    assert abs(float(computed) - 120.925) > 10


# ---------------------------------------------------------------- the bases


@every_measure
@pytest.mark.parametrize("N", SIZES)
def test_project_and_reconstruct_are_inverse(measure, N):
    for window in [None] if measure in ("legs", "lagt") else [None, 0.3, 66.0]:
        family = basis(measure, N, window)
        c = torch.eye(N, dtype=f64)
        if measure == "fout" and N % 2 == 0:
            c[1, 1] = 0  # sin 0 cannot be told from nothing
        again = project(lambda age, c=c, family=family: reconstruct(c, family, age), family)
        assert (again - c).abs().max() < 1e-10


def test_values_of_the_bases():
    age = torch.tensor([0.0, 0.2, 0.9, 1.5, 7.0], dtype=f64)
    n = np.arange(9)
    want = eval_laguerre(n, age[:, None].numpy()) * np.exp(-age[:, None].numpy() / 2)
    assert np.abs(laguerre(9).recall(age).numpy() - want).max() < 1e-13
    seen = (age <= 1.5)[:, None].numpy()
    want = eval_legendre(n, 2 * age[:, None].numpy() / 1.5 - 1) * seen
    delay = basis("lmu", 9, 1.5)
    assert np.abs(delay.recall(age).numpy() - want).max() < 1e-13
    assert np.abs(delay.gather(age).numpy() - want * (2 * n + 1) / 1.5).max() < 1e-12
    turn = 2 * math.pi * age / 1.5
    rows = [
        1 + 0 * turn,
        0 * turn,
        *(math.sqrt(2) * f(j * turn) for j in (1, 2) for f in (torch.cos, torch.sin)),
    ]
    want = torch.stack(rows, -1) * (age <= 1.5)[:, None]
    assert (fourier(6, 1.5).recall(age) - want).abs().max() < 1e-13
    assert (fourier(5, 1.5).recall(age) - want[:, [0, 2, 3, 4, 5]]).abs().max() < 1e-13
    assert torch.equal(basis("legt", 5).recall(age), uniform(5, 2.0).recall(age))
    assert torch.equal(basis("legs", 5).gather(age), exponential(5).gather(age))


def test_nothing_before_now():
    age = torch.tensor([-0.1, -1e-9], dtype=f64)
    for measure in MEASURES:
        assert not basis(measure, 5).recall(age).any() and not basis(measure, 5).gather(age).any()


@every_measure
def test_bases_keep_the_dtype_and_the_device_of_the_ages(measure):
    family = basis(measure, 6)
    age = torch.tensor([0.0, 0.3, 1.9, 2.5], dtype=f64)
    for values in (family.recall, family.gather):
        rough = values(age.float())
        assert rough.dtype == torch.float32 and (rough - values(age)).abs().max() < 1e-4
        assert values(age.to("meta")).device.type == "meta"
        batch = torch.rand(2, 5, dtype=f64)
        assert torch.equal(torch.func.vmap(values)(batch), values(batch))
    assert torch.autograd.gradcheck(family.gather, age[1:].clone().requires_grad_())


@pytest.mark.parametrize("measure", ["lagt", "fout"])
def test_ages_without_end_and_without_value(measure):
    values = basis(measure, 5).recall(torch.tensor([math.inf, math.nan, 0.0], dtype=f64))
    assert not values[0].any() and values[1].isnan().any() and values[2, 0] == 1


def test_laguerre_far_away():
    """At age 1900 e^(-age/2) alone is 0 in float64; L_599 makes up for it (value: 300 digits)."""
    value = laguerre(600).recall(torch.tensor([1900.0], dtype=f64))[0, -1]
    assert abs(float(value) + 0.0018330489489494673) < 1e-12
    assert laguerre(600).recall(torch.tensor([1900.0]))[0, -1].isfinite()  # float32: rough, finite


@pytest.mark.parametrize("N", SIZES)
@pytest.mark.parametrize("measure", ["legs", "lagt"])
def test_without_an_edge_gather_is_the_kernel(measure, N):
    A, B = hippo(measure, N)
    ages = torch.tensor([0.0, 0.01, 0.5, 3.0, 20.0], dtype=f64)
    K = torch.stack([expm(age * A) @ B for age in ages])
    assert (basis(measure, N).gather(ages) - K).abs().max() < 1e-11 * K.abs().max()


@sliding
def test_with_an_edge_gather_comes_close(measure):
    ages = (torch.arange(1500, dtype=f64) + 0.5) / 500
    gaps = []
    for N in (9, 33, 99):
        A, B = hippo(measure, N)
        E, k = expm(0.002 * A), expm(0.001 * A) @ B
        K = torch.stack([k, *((k := E @ k) for _ in ages[1:])])[:, :5]
        ideal = basis(measure, N).gather(ages)[:, :5]
        gaps.append(float((K - ideal).norm() / ideal.norm()))
    assert gaps[0] > 1.6 * gaps[1] > 2.5 * gaps[2]  # about N^-1/2, as a jump allows


@sliding
def test_memory_is_the_projection_of_a_smooth_past(measure):
    """Online and by projection: the same numbers, for a slow tone that has been on for long."""
    N, window, omega = 33, 3.0, 2 * math.pi * 4 / 3.0  # four cycles: closed on the ring too
    A, B = hippo(measure, N, window=window)
    shifted = 1j * omega * torch.eye(N, dtype=f64) - A
    c = torch.linalg.solve(shifted, B + 0j)
    family = basis(measure, N, window)
    want = project(lambda age: torch.exp(-1j * omega * age), family)
    assert (c - want).abs().max() < 1e-10
    age = torch.linspace(0, window, 50, dtype=f64)
    assert (reconstruct(c, family, age) - torch.exp(-1j * omega * age)).abs().max() < 1e-9


@pytest.mark.parametrize("s", [0.5, 3j, 1 + 7j])
def test_fout_converges_tone_by_tone_and_the_simple_guess_does_not(s):
    """To 1 and to 2 / (3 - exp(-s)) times what the window holds, with an error of order 1 / N."""
    fade = np.exp(-s)
    n = torch.arange(1, 4, dtype=f64)  # the window's own numbers: int exp(-s rho) psi(rho)
    cos = math.sqrt(2) * s * (1 - fade) / (s**2 + (2 * math.pi * n) ** 2)
    true = torch.cat([torch.tensor([(1 - fade) / s]), cos + 0j])
    seen = [0, 1, 3, 5]  # 1, cos 1, cos 2, cos 3
    for N in (65, 257):
        A, B = fout(N, 1.0)
        b, eye = B / 2, torch.eye(N, dtype=torch.complex128)
        c = torch.linalg.solve(s * eye - A, B + 0j)[seen]
        assert (c / true - 1).abs().max() < 3 / N
        c = torch.linalg.solve(s * eye - A - torch.outer(b, b), b + 0j)[seen]
        assert (c / true - 2 / (3 - fade)).abs().max() < 3 / N


# ---------------------------------------------------------------- window, dtype, bad input


@sliding
@pytest.mark.parametrize("N", [1, 7, 34])
def test_only_step_over_window_matters(measure, N):
    (A, B), (A_1, B_1) = hippo(measure, N, window=5.0), hippo(measure, N, window=1.0)
    assert torch.allclose(5 * A, A_1, rtol=1e-14, atol=0) and torch.allclose(5 * B, B_1, rtol=1e-14)
    for rule in (zoh, bilinear):
        wide, narrow = rule(A, B[:, None], 0.1), rule(A_1, B_1[:, None], 0.02)
        assert all((x - y).abs().max() < 1e-12 for x, y in zip(wide, narrow, strict=True))


@every_measure
def test_one_door(measure):
    single = {"legs": legs, "legt": legt, "lmu": lmu, "lagt": lagt, "fout": fout}[measure]
    A, B = hippo(measure, 7)
    assert A.shape == (7, 7) and B.shape == (7,) and A.dtype == B.dtype == f64
    assert all(torch.equal(x, y) for x, y in zip((A, B), single(7), strict=True))
    for dtype in (torch.float32, torch.bfloat16, torch.complex64):
        A_d, B_d = hippo(measure, 7, dtype=dtype)
        assert torch.equal(A_d, A.to(dtype)) and torch.equal(B_d, B.to(dtype))  # rounded once


@every_measure
def test_default_dtype_does_not_matter(measure):
    before = torch.get_default_dtype()
    want = hippo(measure, 9)
    values = basis(measure, 9).gather(torch.tensor([0.3], dtype=f64))
    try:
        torch.set_default_dtype(torch.float16)
        got = hippo(measure, 9)
        again = basis(measure, 9).gather(torch.tensor([0.3], dtype=f64))
    finally:
        torch.set_default_dtype(before)
    assert all(torch.equal(x, y) for x, y in zip(want, got, strict=True))
    assert torch.equal(values, again)


@pytest.mark.parametrize("call", [hippo, basis])
def test_unknown_measure_lists_the_known(call):
    for name in ("leg", "LegS", "", None, 3):
        with pytest.raises(ValueError, match="want measure among legs, legt, lmu, lagt, fout; got"):
            call(name, 4)


@every_measure
@pytest.mark.parametrize("call", [hippo, basis])
def test_bad_sizes(call, measure):
    for N, error, message in [
        (0, ValueError, "want N >= 1, got 0"),
        (-3, ValueError, "want N >= 1, got -3"),
        (4.0, TypeError, "want N as an int, got float"),
        (True, TypeError, "want N as an int, got bool"),
        ("8", TypeError, "want N as an int, got str"),
    ]:
        with pytest.raises(error, match=message):
            call(measure, N)


@sliding
def test_bad_windows(measure):
    single = {"legt": legt, "lmu": lmu, "fout": fout}[measure]
    for call in (
        lambda window: hippo(measure, 4, window=window),
        lambda window: basis(measure, 4, window),
        lambda window: single(4, window),
    ):
        for window in (0, 0.0, -1.0, math.nan, math.inf):
            with pytest.raises(ValueError, match="want window finite and > 0, got"):
                call(window)
        for window in ("2", True, 2j, torch.tensor(2.0)):
            with pytest.raises(
                TypeError, match=f"want window as a number, got a {type(window).__name__}"
            ):
                call(window)


@pytest.mark.parametrize("measure", ["legs", "lagt"])
def test_no_window_without_an_edge(measure):
    for call in (lambda: hippo(measure, 4, window=2.0), lambda: basis(measure, 4, 2.0)):
        with pytest.raises(ValueError, match=f"want no window for {measure}.*got 2.0"):
            call()
    assert check_measure(measure) is None and check_measure("legt") == 2.0


def test_bad_dtypes_and_points():
    for dtype in (torch.int64, torch.bool, "float32", None):
        with pytest.raises(TypeError, match="want a floating or complex dtype, got"):
            hippo("legt", 4, dtype=dtype)
    with pytest.raises(TypeError):
        hippo("legt", 4, 2.0)  # window by name only
    for call in (lambda p: laguerre(4, p), lambda p: fourier(4, 1.0, p)):
        with pytest.raises(ValueError, match="got 0"):
            call(0)
    assert len(laguerre(4, 11).nodes) == len(fourier(4, 1.0, 11).nodes) == 11
