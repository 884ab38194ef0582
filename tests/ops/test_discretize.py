"""The four rules: their orders and constants, their naive twins, and what they promise."""

import numpy as np
import pytest
import torch
from scipy.linalg import expm
from scipy.signal import cont2discrete
from torch import Tensor
from torch.autograd import gradcheck
from torch.testing import assert_close

from s4lite.ops.discretize import backward_euler, bilinear, euler, zoh
from s4lite.ops.simulate import simulate

RULES = {"euler": euler, "backward_euler": backward_euler, "bilinear": bilinear, "zoh": zoh}
IMPLICIT = {name: RULES[name] for name in ("backward_euler", "bilinear", "zoh")}
# z = dt lambda -> factor of the state, and of dt B
SCALAR = {
    "euler": (lambda z: 1 + z, lambda z: 1 + 0 * z),
    "backward_euler": (lambda z: 1 / (1 - z), lambda z: 1 / (1 - z)),
    "bilinear": (lambda z: (1 + z / 2) / (1 - z / 2), lambda z: 1 / (1 - z / 2)),
    "zoh": (np.exp, lambda z: np.expm1(z) / z),
}
# rule minus exponential: c z^(p + 1) + ...
SLIP = {"euler": (-1 / 2, 1), "backward_euler": (1 / 2, 1), "bilinear": (1 / 12, 2)}

every_rule = pytest.mark.parametrize("rule", RULES.values(), ids=RULES)
every_name = pytest.mark.parametrize("name", RULES)


def draw(*shape: int, seed: int = 0, dtype: torch.dtype = torch.float64) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=dtype)


def dissipative(*shape: int, seed: int = 0, dtype: torch.dtype = torch.float64) -> Tensor:
    """A matrix with A + A^H <= 0, of rank two only, so that the bound is nearly attained."""
    R, S = draw(*shape, seed=seed, dtype=dtype), draw(*shape, seed=seed + 1, dtype=dtype)
    return S - S.mH - R[..., :2] @ R[..., :2].mH


def by_poles(name: str, A: Tensor, B: Tensor, dt: float) -> tuple[Tensor, Tensor]:
    """Naive twin: scalar formulas on the eigenvalues."""
    Lambda, V = np.linalg.eig(A.numpy())
    r, g = SCALAR[name]
    Ab = (V * r(dt * Lambda)) @ np.linalg.inv(V)
    Bb = dt * (V * g(dt * Lambda)) @ np.linalg.solve(V, B.numpy())
    if not A.is_complex():
        Ab, Bb = Ab.real, Bb.real
    return torch.from_numpy(Ab), torch.from_numpy(Bb)


def by_quadrature(A: Tensor, B: Tensor, dt: float) -> tuple[Tensor, Tensor]:
    """Naive twin of the hold: Gauss's rule on the integral of exp(s A) B."""
    nodes, weights = np.polynomial.legendre.leggauss(30)
    ages = dt * (nodes + 1) / 2
    Bb = sum(w * expm(s * A.numpy()) @ B.numpy() for s, w in zip(ages, weights, strict=True))
    return torch.from_numpy(expm(dt * A.numpy())), torch.from_numpy(dt / 2 * Bb)


def assert_near(ours: Tensor, truth: Tensor, tolerance: float) -> None:
    """Largest difference, relative to the largest entry."""
    assert ours.shape == truth.shape
    assert float((ours - truth).abs().max()) <= tolerance * float(truth.abs().max())


# ---- definition and naive twins ----------------------------------------------------------------


@every_name
@pytest.mark.parametrize(("N", "M"), [(1, 1), (2, 3), (7, 1), (33, 2)])
@pytest.mark.parametrize("dt", [1e-4, 0.03, 0.7])
@pytest.mark.parametrize("dtype", [torch.float64, torch.complex128])
def test_scalar_formulas_on_the_poles(name, N, M, dt, dtype):
    A, B = draw(N, N, seed=N, dtype=dtype) / N**0.5, draw(N, M, seed=N + 1, dtype=dtype)
    for ours, naive in zip(RULES[name](A, B, dt), by_poles(name, A, B, dt), strict=True):
        assert_near(ours, naive, 1e-12)
        assert ours.dtype == dtype


@every_rule
def test_what_the_docstring_says_it_solves(rule):
    A, B, dt = draw(5, 5, seed=1), draw(5, 2, seed=2), 0.3
    eye, (Ab, Bb) = torch.eye(5, dtype=A.dtype), rule(A, B, dt)
    left, right = {
        euler: (eye, eye + dt * A),
        backward_euler: (eye - dt * A, eye),
        bilinear: (eye - dt / 2 * A, eye + dt / 2 * A),
        zoh: (eye, torch.from_numpy(expm(dt * A.numpy()))),
    }[rule]
    assert_near(left @ Ab, right, 1e-14)
    if rule is zoh:
        assert_near(A @ Bb, (Ab - eye) @ B, 1e-13)
    else:
        assert_near(left @ Bb, dt * B, 1e-13)


@every_name
@pytest.mark.parametrize("dt", [0.01, 0.5])
def test_scipy(name, dt):
    A, B = draw(6, 6, seed=3), draw(6, 2, seed=4)
    system = A.numpy(), B.numpy(), np.zeros((1, 6)), np.zeros((1, 2))
    theirs = cont2discrete(system, dt, {"backward_euler": "backward_diff"}.get(name, name))[:2]
    for ours, scipy in zip(RULES[name](A, B, dt), theirs, strict=True):
        assert_near(ours, torch.from_numpy(scipy), 1e-13)


@every_rule
def test_a_constant_input_comes_to_the_true_rest(rule):
    A, B = dissipative(6, 6, seed=5) - 0.2 * torch.eye(6, dtype=torch.float64), draw(6, 2, seed=6)
    Ab, Bb = rule(A, B, 0.4)
    rest = torch.linalg.solve(torch.eye(6, dtype=A.dtype) - Ab, Bb)
    assert_near(rest, -torch.linalg.solve(A, B), 1e-11)


# ---- orders --------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", SLIP)
def test_powers_have_the_derived_order_and_constant(name):
    c, p = SLIP[name]
    A, counts = dissipative(4, 4, seed=7), [256, 512, 1024]
    truth = torch.from_numpy(expm(A.numpy()))
    gaps = [RULES[name](A, A, 1 / k)[0].matrix_power(k) - truth for k in counts]
    size = torch.stack([gap.norm() for gap in gaps])
    order = (size[:-1] / size[1:]).log2()
    assert_close(order, torch.full_like(order, p), atol=0.05, rtol=0)
    predicted = c * counts[-1] ** -p * A.matrix_power(p + 1) @ truth
    assert_near(gaps[-1], predicted, 0.05)


@pytest.mark.parametrize("rule", [bilinear, zoh])
@pytest.mark.parametrize(("reading", "order"), [("end", 1), ("middle", 2), ("mean", 2)])
def test_driven_order_hangs_on_half_a_sample(rule, reading, order):
    A = torch.tensor([[0.0, 1.0], [-4.0, -0.4]], dtype=torch.float64)
    B = torch.tensor([[0.0], [1.0]], dtype=torch.float64)
    both = np.zeros((4, 4))  # the oscillator that makes u(t) = sin 3t, stacked below the system
    both[:2, :2], both[1, 2], both[2, 3], both[3, 2] = A, 1.0, 3.0, -3.0
    truth, errors = torch.from_numpy(expm(2 * both)[:2, 3:]), []
    for count in (512, 1024):
        dt = 2 / count
        end = dt * np.arange(1, count + 1)
        u = {"end": np.sin(3 * end), "middle": np.sin(3 * (end - dt / 2))}
        u["mean"] = (np.sin(3 * end) + np.sin(3 * (end - dt))) / 2
        Ab, Bb = rule(A, B, dt)
        x = torch.zeros_like(B)
        for u_k in u[reading].tolist():
            x = Ab @ x + Bb * u_k
        errors.append(float((x - truth).norm()))
    assert np.log2(errors[0] / errors[1]) == pytest.approx(order, abs=0.05)


# ---- the hold is exact ---------------------------------------------------------------------------


def singular() -> dict[str, Tensor]:
    A = draw(5, 5, seed=8)
    return {
        "zero": torch.zeros(3, 3, dtype=torch.float64),
        "nilpotent": torch.diag(torch.ones(4, dtype=torch.float64), 1),
        "rank lost": A - A.mean(1, keepdim=True),
        "invertible": A,
    }


@pytest.mark.parametrize("kind", singular())
@pytest.mark.parametrize("dt", [1e-3, 0.2, 2.0])
def test_zoh_is_exact_for_a_staircase(kind, dt):
    A = singular()[kind] / 2
    B, u = draw(len(A), 2, seed=9), draw(99, 2, seed=10)
    Ab, Bb = zoh(A, B, dt)
    _, one = by_quadrature(A, B, dt)
    x = torch.zeros(len(A), dtype=A.dtype)
    whole = torch.zeros_like(x)
    for k in range(20):
        x = Ab @ x + Bb @ u[k]
        whole += torch.from_numpy(expm(dt * (19 - k) * A.numpy())) @ one @ u[k]
    assert_near(x, whole, 1e-12)


def test_zoh_of_a_falling_stone():
    """No spring, no friction: the school's dt^2 / 2, from a matrix without an inverse."""
    position_and_speed = torch.tensor([[0.0, 1.0, 0.0], [0.0, 0.0, 1.0]], dtype=torch.float64)
    both = torch.cat(zoh(position_and_speed[:, :2], position_and_speed[:, 2:], 0.3), -1)
    expected = torch.tensor([[1.0, 0.3, 0.045], [0.0, 1.0, 0.3]], dtype=torch.float64)
    assert_close(both, expected, atol=1e-15, rtol=0)


def test_two_held_steps_are_one_of_twice_the_size():
    A, B = draw(7, 7, seed=11), draw(7, 3, seed=12)
    (Ab, Bb), (Ab2, Bb2) = zoh(A, B, 0.15), zoh(A, B, 0.3)
    assert_near(Ab @ Ab, Ab2, 1e-13)
    assert_near(Ab @ Bb + Bb, Bb2, 1e-13)


@pytest.mark.parametrize("size", np.geomspace(1e-6, 10, 29))
@pytest.mark.parametrize("scale", [0.0, 1e-8, 1.0, 1e8])
def test_zoh_keeps_its_digits_at_every_norm(size, scale):
    """Norms of 0.01 to 0.05 meet a wrong coefficient of torch.linalg.matrix_exp (pytorch issue
    196592) unless the matrix comes in a batch; a large B costs squarings unless scaled."""
    A = draw(3, 3, seed=13)
    A, B = A / torch.linalg.matrix_norm(A, 1), scale * draw(3, 1, seed=14)
    Ab, Bb = zoh(A, B, float(size))
    assert_near(Ab, torch.from_numpy(expm(size * A.numpy())), 1e-14)
    assert_near(Bb, by_quadrature(A, B, float(size))[1], 2e-14)


def test_zoh_keeps_its_digits_in_a_batch_of_norms():
    A, B, sizes = draw(3, 3, seed=13), draw(3, 1, seed=14), torch.logspace(-6, 1, 29).double()
    A = A / torch.linalg.matrix_norm(A, 1)
    Ab, Bb = zoh(A, B, sizes)
    for size, x, y in zip(sizes.tolist(), Ab, Bb, strict=True):
        assert_near(x, torch.from_numpy(expm(size * A.numpy())), 1e-14)
        assert_near(y, by_quadrature(A, B, size)[1], 2e-14)


def test_zoh_and_simulate_hold_the_same_staircase():
    """The hold's u_k ends at t_k, that of `simulate` begins there: one index apart."""
    A, B, u = dissipative(3, 3, seed=40), draw(3, 2, seed=41), draw(2, 50, seed=42)
    Ab, Bb = zoh(A, B, 0.2)
    C, D, t = torch.eye(3).double(), torch.zeros(3, 2).double(), 0.2 * torch.arange(51).double()
    later = torch.cat([u, torch.zeros(2, 1)], 1)  # u[k] from t[k] on; the last is not used
    states = simulate(A, B, C, D, later, t, hold="zero")[1]
    x = torch.zeros(3, dtype=A.dtype)
    for k in range(50):
        x = Ab @ x + Bb @ u[:, k]
        assert_near(states[:, k + 1], x, 1e-12)


# ---- stability -----------------------------------------------------------------------------------


@pytest.mark.parametrize("rule", IMPLICIT.values(), ids=IMPLICIT)
@pytest.mark.parametrize("dtype", [torch.float64, torch.complex128])
@pytest.mark.parametrize("dt", [1e-3, 0.1, 3.0, 1000.0])
def test_dissipative_systems_contract(rule, dtype, dt):
    A = dissipative(50, 8, 8, seed=15, dtype=dtype)
    assert torch.linalg.matrix_norm(rule(A, A, dt)[0], 2).max() <= 1 + 1e-12


def test_euler_lengthens_what_only_turns():
    A = dissipative(8, 8, seed=16)
    assert torch.linalg.matrix_norm(euler(A - A.mT, A, 0.1)[0], 2) > 1.001


def test_bilinear_and_zoh_conserve_energy():
    A = draw(6, 6, seed=17)
    for rule in (bilinear, zoh):
        Ab = rule(A - A.mT, A, 0.7)[0]
        assert_near(Ab.mT @ Ab, torch.eye(6, dtype=A.dtype), 1e-13)


@pytest.mark.parametrize(
    ("rule", "z", "stable"),
    [
        (euler, -1.99, True), (euler, -2.01, False),
        (euler, -0.5 + 0.5j, True), (euler, -0.01 + 0.2j, False),
        (backward_euler, -100 + 1j, True), (backward_euler, 2.01, True),
        (backward_euler, 1.99, False),
        (bilinear, -1e-3 + 50j, True), (bilinear, 1e-3 + 50j, False), (bilinear, -1e6, True),
        (zoh, -1e-3 + 50j, True), (zoh, 1e-3 + 50j, False),
    ],
)  # fmt: skip
def test_stability_regions(rule, z, stable):
    A = torch.tensor([[complex(z)]], dtype=torch.complex128)
    assert bool(rule(A, A, 1.0)[0].abs() < 1) is stable


# ---- dtypes, gradients, batches ------------------------------------------------------------------


@every_rule
@pytest.mark.parametrize("dtype", [torch.float64, torch.complex128])
def test_gradients(rule, dtype):
    A, B = draw(2, 1, 3, 3, seed=18, dtype=dtype), draw(4, 3, 2, seed=19, dtype=dtype)
    dt = 0.1 + draw(2, 4, seed=20).abs()
    assert gradcheck(rule, [x.requires_grad_() for x in (A, B, dt)])


def test_gradient_of_zoh_where_a_has_no_inverse():
    A, B = torch.zeros(3, 3, dtype=torch.float64), draw(3, 1, seed=21)
    dt = torch.tensor(0.4, dtype=torch.float64)
    assert gradcheck(zoh, [x.requires_grad_() for x in (A, B, dt)])
    assert gradcheck(lambda A, B: zoh(A, B, 0.4), [A, torch.zeros_like(B).requires_grad_()])


def naive_in_its_dtype(name: str, A: Tensor, B: Tensor, dt: float) -> tuple[Tensor, Tensor]:
    """The formulas as papers print them, with an inverse."""
    eye = torch.eye(A.shape[-1], dtype=A.dtype)
    if name == "euler":
        return eye + dt * A, dt * B
    if name == "zoh":
        Ab = torch.linalg.matrix_exp(dt * A)
        return Ab, torch.linalg.inv(A) @ (Ab - eye) @ B
    half = dt if name == "backward_euler" else dt / 2
    inverse = torch.linalg.inv(eye - half * A)
    return inverse @ (eye if name == "backward_euler" else eye + half * A), inverse @ (dt * B)


@every_name
def test_float32_error_is_at_most_twice_the_naive_one(name):
    A, B = dissipative(100, 16, 16, seed=22) / 4, draw(100, 16, 2, seed=23)
    for dt in (0.01, 0.1, 1.0):
        exact = RULES[name](A, B, dt)
        ours = RULES[name](A.float(), B.float(), dt)
        naive = naive_in_its_dtype(name, A.float(), B.float(), dt)
        for true, x, y in zip(exact, ours, naive, strict=True):
            assert x.dtype == torch.float32
            floor = torch.finfo(torch.float32).eps * true.abs().max()
            assert (x - true).abs().max() <= 2 * torch.maximum((y - true).abs().max(), floor)


@every_rule
def test_batch_axes_broadcast(rule):
    A, B, dt = draw(3, 1, 4, 4, seed=24), draw(5, 4, 2, seed=25), 0.05 + draw(3, 5, seed=26).abs()
    kept = A.clone(), B.clone(), dt.clone()
    Ab, Bb = rule(A, B, dt)
    assert Ab.shape == (3, 5, 4, 4) and Bb.shape == (3, 5, 4, 2)
    for i in range(3):
        for j in range(5):
            one = rule(A[i, 0], B[j], float(dt[i, j]))
            assert_close((Ab[i, j], Bb[i, j]), one, atol=1e-14, rtol=1e-12)
    assert all(torch.equal(x, y) for x, y in zip((A, B, dt), kept, strict=True))


@every_rule
def test_a_step_per_channel_and_a_step_as_number_or_tensor(rule):
    A, B, dt = draw(4, 4, seed=27), draw(4, 1, seed=28), torch.logspace(-3, -1, 6)
    Ab, Bb = rule(A, B, dt)  # dt in float32, A in float64
    assert Ab.shape == (6, 4, 4) and Bb.shape == (6, 4, 1) and Ab.dtype == torch.float64
    for h in range(6):
        for step in (float(dt[h]), dt[h]):
            assert_close(rule(A, B, step), (Ab[h], Bb[h]), atol=1e-14, rtol=1e-12)


@every_rule
def test_dtypes_meet(rule):
    A, B = draw(3, 3, seed=29), draw(3, 1, seed=30)
    assert rule(A.float(), B, 0.1)[0].dtype == torch.float64
    long_dt = torch.tensor(0.1, dtype=torch.float64)
    assert rule(A.float(), B.float(), long_dt)[0].dtype == torch.float32
    for x, y in zip(rule(A, B.to(torch.complex128), 0.1), rule(A, B, 0.1), strict=True):
        assert x.dtype == torch.complex128
        assert_close(x, y.to(x.dtype), atol=1e-15, rtol=1e-13)


@every_rule
def test_autocast_does_not_round_the_matrices(rule):
    A, B = draw(4, 4, seed=31).float(), draw(4, 1, seed=32).float()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        inside = rule(A, B, 0.1)
    assert all(torch.equal(x, y) for x, y in zip(inside, rule(A, B, 0.1), strict=True))


# ---- bad input -----------------------------------------------------------------------------------

SQUARE, COLUMN = torch.eye(3), torch.ones(3, 1)
INTEGER = "of a floating or complex dtype, got torch"


@every_rule
@pytest.mark.parametrize(
    ("A", "B", "dt", "error", "message"),
    [
        (SQUARE[0], COLUMN, 0.1, ValueError, r"want A \(\.\.\., N, N\).*got A \(3,\)"),
        (SQUARE, COLUMN[:, 0], 0.1, ValueError, r"want .*B \(\.\.\., N, M\).*B \(3,\)"),
        (SQUARE[:2], COLUMN, 0.1, ValueError, r"A \(2, 3\)"),
        (SQUARE, torch.ones(4, 1), 0.1, ValueError, r"B \(4, 1\)"),
        (SQUARE[None].expand(2, 3, 3), COLUMN.expand(5, 3, 1), 0.1, ValueError, "broadcast.*A"),
        (SQUARE.expand(2, 3, 3), COLUMN, torch.ones(4), ValueError, r"broadcast.*dt \(4,\)"),
        (SQUARE, COLUMN, 0.0, ValueError, "want dt finite and > 0, got 0"),
        (SQUARE, COLUMN, -0.1, ValueError, "want dt finite and > 0"),
        (SQUARE, COLUMN, float("nan"), ValueError, "want dt finite and > 0, got nan"),
        (SQUARE, COLUMN, float("inf"), ValueError, "want dt finite and > 0"),
        (SQUARE, COLUMN, torch.tensor([0.1, 0.0]), ValueError, "want dt finite and > 0"),
        (SQUARE, COLUMN, torch.tensor([0.1, float("nan")]), ValueError, "want dt finite and > 0"),
        (SQUARE.long(), COLUMN, 0.1, TypeError, f"want A {INTEGER}.int64"),
        (SQUARE, COLUMN.bool(), 0.1, TypeError, f"want B {INTEGER}.bool"),
        (SQUARE, COLUMN, torch.tensor(1), TypeError, f"want dt {INTEGER}.int64"),
        (SQUARE, COLUMN, torch.tensor(1 + 1j), TypeError, "want dt real, got torch.complex64"),
        (SQUARE.numpy(), COLUMN, 0.1, TypeError, "want A as a torch.Tensor, got ndarray"),
        (SQUARE, [[1.0]], 0.1, TypeError, "want B as a torch.Tensor, got list"),
        (SQUARE.bfloat16(), COLUMN.bfloat16(), 0.1, TypeError, "single or double.*bfloat16"),
        (SQUARE, COLUMN.to("meta"), 0.1, ValueError, "want all.* on one device.*B on meta"),
        (SQUARE, COLUMN, torch.ones((), device="meta"), ValueError, "one device.*dt on meta"),
    ],
)  # fmt: skip
def test_bad_input_says_what_was_wanted_and_what_came(rule, A, B, dt, error, message):
    with pytest.raises(error, match=message):
        rule(A, B, dt)


@pytest.mark.parametrize("shape", [((0, 0), (0, 1)), ((2, 2), (2, 0))])
@pytest.mark.parametrize("rule", [euler, backward_euler, bilinear, zoh])
def test_empty_systems_are_refused(rule, shape):
    with pytest.raises(ValueError, match=r"N and M >= 1, got"):
        rule(torch.zeros(shape[0]), torch.zeros(shape[1]), 0.1)


@pytest.mark.slow
@pytest.mark.parametrize("rule", [euler, backward_euler, bilinear])
def test_a_tensor_of_steps_compiles_in_one_graph(rule):
    A, B = -torch.eye(3, dtype=torch.float64), torch.ones(3, 1, dtype=torch.float64)
    dt = torch.tensor([0.1, 0.2])
    for a in (A, A.to(torch.complex128)):
        got = torch.compile(rule, fullgraph=True)(a, B, dt)
        for one, other in zip(got, rule(a, B, dt), strict=True):
            assert one.dtype == other.dtype and (one - other).abs().max() < 1e-14
