"""The continuous-time responses: definition, naive twin, invariants, gradients, bad input."""

import math

import numpy as np
import pytest
import scipy.linalg
import scipy.signal
import torch
from torch.testing import assert_close

from s4lite.ops.simulate import expm, impulse_response, simulate, transfer_function

F64 = torch.float64


@pytest.fixture
def rng():
    return torch.Generator().manual_seed(0)


def normal(*shape, rng, dtype=F64):
    return torch.randn(*shape, generator=rng, dtype=dtype)


def stable(N, rng, *batch, dtype=F64):
    """Random matrices whose rightmost eigenvalue has real part -0.2."""
    A = normal(*batch, N, N, rng=rng, dtype=dtype)
    right = torch.linalg.eigvals(A).real.amax(-1)[..., None, None]
    return A - (right + 0.2) * torch.eye(N, dtype=dtype)


def system(N, M, P, rng, dtype=F64):
    shapes = [(N, M), (P, N), (P, M)]
    return stable(N, rng, dtype=dtype), *(normal(*s, rng=rng, dtype=dtype) for s in shapes)


def spring(m=0.2, b=0.16, k=8.0):
    A = torch.tensor([[0.0, 1.0], [-k / m, -b / m]], dtype=F64)
    return A, torch.tensor([0.0, 1 / m], dtype=F64), torch.tensor([1.0, 0.0], dtype=F64)


def state_naive(A, B, u, t, x0, nodes=16):
    """x(t[-1]) by Gauss quadrature of the solution formula, piece by piece, with scipy's expm."""
    z, weight = np.polynomial.legendre.leggauss(nodes)
    z, weight = (z + 1) / 2, weight / 2
    A, B, u, t, x0 = (v.numpy() for v in (A, B, u, t, x0))
    x = scipy.linalg.expm((t[-1] - t[0]) * A) @ x0
    for k in range(len(t) - 1):
        dt = t[k + 1] - t[k]
        flow = scipy.linalg.expm((t[-1] - t[k] - z * dt)[:, None, None] * A)
        drive = u[:, k, None] + z * (u[:, k + 1] - u[:, k])[:, None]
        x = x + dt * np.einsum("q,qij,jm,mq->i", weight, flow, B, drive)
    return torch.from_numpy(x)


# ---------------------------------------------------------------- expm


@pytest.mark.parametrize("size", [1e-9, 1e-4, 3e-3, 0.02, 0.045, 0.3, 1.0, 7.0])
@pytest.mark.parametrize("N", [1, 2, 7, 33])
def test_expm_is_scipys(N, size, rng):
    X = normal(N, N, rng=rng)
    X = size * X / X.abs().sum(0).max()  # 0.003 to 0.05: where torch's single matrices lose digits
    want = torch.from_numpy(scipy.linalg.expm(X.numpy()))
    assert_close(expm(X), want, rtol=0, atol=2e-15 * math.exp(size) * (1 + size))
    assert_close(expm(X + 0j), want + 0j, rtol=0, atol=2e-15 * math.exp(size) * (1 + size))


@pytest.mark.parametrize("angle", [0.01, 0.04, 0.5, 2.0])
def test_expm_is_accurate_in_float32(angle):
    J = torch.tensor([[0.0, -1.0], [1.0, 0.0]])
    want = torch.tensor([[math.cos(angle), -math.sin(angle)], [math.sin(angle), math.cos(angle)]])
    assert_close(expm(angle * J), want, rtol=0, atol=1e-6)


def test_expm_batches(rng):
    X = normal(3, 1, 4, 4, rng=rng)
    assert_close(expm(X), torch.stack([expm(x[0])[None] for x in X]), rtol=1e-13, atol=1e-14)


def test_expm_differentiates(rng):
    for X in (0.02 * normal(3, 3, rng=rng), normal(2, 3, 3, rng=rng)):
        assert torch.autograd.gradcheck(expm, X.requires_grad_())


@pytest.mark.parametrize("shape", [(3,), (2, 3), ()])
def test_expm_wants_squares(shape):
    with pytest.raises(ValueError, match=r"want X \(..., N, N\), got"):
        expm(torch.zeros(shape))


# ---------------------------------------------------------------- impulse response


@pytest.mark.parametrize(("m", "b", "k"), [(0.2, 0.16, 8.0), (1.0, 0.0, 4.0), (3.0, 1.0, 0.5)])
def test_impulse_response_of_the_spring(m, b, k):
    t = torch.linspace(0, 12, 999, dtype=F64)
    decay, pitch = b / (2 * m), math.sqrt(k / m - (b / (2 * m)) ** 2)
    want = torch.exp(-decay * t) * torch.sin(pitch * t) / (m * pitch)
    assert_close(impulse_response(*spring(m, b, k), t), want, rtol=0, atol=1e-12)


def test_impulse_response_at_critical_damping():
    m, k, t = 0.2, 8.0, torch.linspace(0, 3, 99, dtype=F64)
    want = t * torch.exp(-math.sqrt(k / m) * t) / m
    h = impulse_response(*spring(m, 2 * math.sqrt(k * m), k), t)
    assert_close(h, want, rtol=0, atol=1e-13)


@pytest.mark.parametrize("N", [1, 2, 16])
def test_impulse_response_is_its_definition(N, rng):
    A, B, C = stable(N, rng), normal(N, rng=rng), normal(N, rng=rng)
    t = torch.tensor([0.0, 3.0, 0.01, 0.7], dtype=F64)  # any order
    want = [C.numpy() @ scipy.linalg.expm(v * A.numpy()) @ B.numpy() for v in t.numpy()]
    assert_close(
        impulse_response(A, B, C, t), torch.tensor(want, dtype=F64), rtol=1e-12, atol=1e-13
    )


def test_impulse_response_is_a_sum_of_modes(rng):
    A, B, C = stable(6, rng), normal(6, rng=rng), normal(6, rng=rng)
    t = torch.linspace(0, 9, 99, dtype=F64)
    Lambda, V = torch.linalg.eig(A)
    loud = (C + 0j) @ V * torch.linalg.solve(V, B + 0j)
    want = torch.exp(t[:, None] * Lambda) @ loud
    assert_close(impulse_response(A, B, C, t) + 0j, want, rtol=0, atol=1e-12)


def test_impulse_response_forgets_coordinates(rng):
    A, B, C, T = stable(4, rng), normal(4, rng=rng), normal(4, rng=rng), normal(4, 4, rng=rng)
    t = torch.linspace(0, 5, 50, dtype=F64)
    mixed = torch.linalg.solve(T, A @ T), torch.linalg.solve(T, B), C @ T
    assert_close(impulse_response(*mixed, t), impulse_response(A, B, C, t), rtol=0, atol=1e-11)


def test_impulse_response_batches(rng):
    A, B, C = stable(3, rng, 2, 1), normal(5, 3, rng=rng), normal(3, rng=rng)
    t = torch.linspace(0, 2, 7, dtype=F64)
    h = impulse_response(A, B, C, t)
    assert h.shape == (2, 5, 7)
    assert_close(h[1, 4], impulse_response(A[1, 0], B[4], C, t), rtol=1e-12, atol=1e-13)


def test_impulse_response_of_complex_systems(rng):
    c128 = torch.complex128
    Lambda = torch.complex(-normal(4, rng=rng).abs(), normal(4, rng=rng))
    B, C = normal(4, rng=rng, dtype=c128), normal(4, rng=rng, dtype=c128)
    t = torch.linspace(0, 4, 33, dtype=F64)
    want = torch.exp(t[:, None] * Lambda) @ (C * B)  # C is not conjugated
    assert_close(impulse_response(torch.diag(Lambda), B, C, t), want, rtol=1e-12, atol=1e-13)


def test_impulse_response_keeps_the_dtype_of_the_system():
    A, B, C = (v.float() for v in spring())
    t = torch.linspace(0, 3, 9, dtype=F64)
    assert impulse_response(A, B, C, t).dtype == torch.float32
    assert impulse_response(A, B.double(), C, t).dtype == F64
    assert impulse_response(A, B + 0j, C, t).dtype == torch.complex64


# ---------------------------------------------------------------- transfer function


def test_transfer_function_of_spring_and_circuit():
    s = torch.complex(
        torch.linspace(-0.1, 3, 20, dtype=F64), torch.linspace(-20, 20, 20, dtype=F64)
    )
    assert_close(
        transfer_function(*spring(), 0.0, s), 1 / (0.2 * s**2 + 0.16 * s + 8), rtol=1e-12, atol=0
    )
    A, B, C = (
        torch.full((1, 1), -2.0, dtype=F64),
        torch.tensor([2.0], dtype=F64),
        -torch.ones(1, dtype=F64),
    )
    assert_close(transfer_function(A, B, C, 1.0, s), s / (2 + s), rtol=1e-12, atol=1e-15)


def test_transfer_function_is_the_laplace_transform_of_the_impulse_response(rng):
    A, B, C = stable(4, rng), normal(4, rng=rng), normal(4, rng=rng)
    s = torch.tensor([0.5 + 0j, 1 + 2j], dtype=torch.complex128)
    z, w = (torch.from_numpy(v) for v in np.polynomial.legendre.leggauss(500))
    t, w = 40 * (z + 1), 40 * w  # [0, 80]: e^(-0.7 * 80) is gone
    h = impulse_response(A, B, C, t)
    want = (w * h * torch.exp(-s[:, None] * t)).sum(-1)
    assert_close(transfer_function(A, B, C, 0.0, s), want, rtol=1e-10, atol=1e-11)


def test_transfer_function_predicts_the_steady_answer_to_a_tone():
    A, B, C = spring(b=1.0)
    errors = []
    for dt in (4e-3, 2e-3):
        t = torch.arange(round(20 / dt) + 1, dtype=F64) * dt
        y, _ = simulate(
            A, B[:, None], C[None], torch.zeros(1, 1, dtype=F64), torch.cos(5 * t)[None], t
        )
        H = transfer_function(A, B, C, 0.0, torch.tensor([5j], dtype=torch.complex128))
        errors.append((y[0] - (H * torch.exp(5j * t)).real)[t > 15].abs().max() / H.abs())
    assert errors[1] < 1e-4
    assert 3.8 < errors[0] / errors[1] < 4.2  # straight lines for a cosine: second order


def test_transfer_function_forgets_coordinates(rng):
    A, B, C, T = stable(4, rng), normal(4, rng=rng), normal(4, rng=rng), normal(4, 4, rng=rng)
    s = 1j * torch.linspace(-5, 5, 9, dtype=F64)
    mixed = torch.linalg.solve(T, A @ T), torch.linalg.solve(T, B), C @ T
    assert_close(
        transfer_function(*mixed, 0.3, s), transfer_function(A, B, C, 0.3, s), rtol=0, atol=1e-11
    )


@pytest.mark.parametrize("shape", [(1, 1, 1), (2, 3, 4), (3, 1, 1), (1, 4, 1)])
def test_transfer_function_batches(shape, rng):
    batch, N, S = shape
    A, B = stable(N, rng, batch), normal(N, rng=rng)
    C, D = normal(5, 1, N, rng=rng), normal(batch, rng=rng)
    s = 1j * torch.linspace(0, 5, S, dtype=F64)
    H = transfer_function(A, B, C, D, s)
    assert H.shape == (5, batch, S)
    assert_close(
        H[2, -1], transfer_function(A[-1], B, C[2, 0], D[-1].item(), s), rtol=1e-12, atol=1e-13
    )


def test_transfer_function_keeps_a_batch_of_one():
    one = torch.ones(1, 1, 1, dtype=F64)  # shapes that linalg.solve could take for vectors
    H = transfer_function(-one, one[0, 0], one[0, 0], 0.0, torch.tensor([1j]))
    assert_close(H, torch.tensor([[1 / (1 + 1j)]], dtype=torch.complex128), rtol=1e-14, atol=0)


def test_transfer_function_takes_real_frequencies_and_keeps_precision():
    A, B, C = spring()
    H = transfer_function(A, B, C, 1, torch.tensor([0.0], dtype=F64))
    assert_close(H, torch.tensor([1 / 8 + 1 + 0j], dtype=torch.complex128), rtol=1e-14, atol=0)
    H = transfer_function(A.float(), B.float(), C.float(), 1.0, torch.tensor([0.0]))
    assert H.dtype == torch.complex64


def test_a_pole_is_refused():
    A, B, C = spring(m=1.0, b=0.0, k=4.0)
    with pytest.raises(torch.linalg.LinAlgError):
        transfer_function(A, B, C, 0.0, torch.tensor([2j], dtype=torch.complex128))


# ---------------------------------------------------------------- simulate

SIZES = [(1, 1, 1, 1), (1, 1, 1, 2), (2, 1, 1, 99), (5, 2, 3, 40), (16, 3, 2, 1023)]


@pytest.mark.parametrize(("N", "M", "P", "T"), SIZES[:4])
def test_simulate_is_its_definition(N, M, P, T, rng):
    A, B, C, D = system(N, M, P, rng)
    u, x0, t = normal(M, T, rng=rng), normal(N, rng=rng), torch.linspace(1, 5, T, dtype=F64)
    y, x = simulate(A, B, C, D, u, t, x0)
    assert_close(x[:, 0], x0, rtol=0, atol=0)
    assert_close(x[:, -1], state_naive(A, B, u, t, x0), rtol=1e-11, atol=1e-12)
    assert_close(y, C @ x + D @ u, rtol=1e-14, atol=1e-14)


@pytest.mark.parametrize("hold", ["linear", "zero"])
@pytest.mark.parametrize(("N", "M", "P", "T"), SIZES[1:])
def test_simulate_is_lsim(N, M, P, T, hold, rng):
    A, B, C, D = system(N, M, P, rng)
    u, x0, t = normal(M, T, rng=rng), normal(N, rng=rng), torch.linspace(0, 8, T, dtype=F64)
    y, x = simulate(A, B, C, D, u, t, x0, hold=hold)
    numbers = [v.numpy() for v in (A, B, C, D)]
    _, ys, xs = scipy.signal.lsim(
        numbers, u.T.numpy(), t.numpy(), x0.numpy(), interp=hold == "linear"
    )
    assert_close(y, torch.from_numpy(ys.reshape(T, P).T), rtol=1e-11, atol=1e-12)
    assert_close(x, torch.from_numpy(xs.reshape(T, N).T), rtol=1e-11, atol=1e-12)


@pytest.mark.parametrize("T", [2, 99, 4001])
@pytest.mark.parametrize("hold", ["linear", "zero"])
def test_the_step_response_of_the_spring_is_exact_at_every_grid(T, hold):
    A, B, C = spring()
    t = torch.linspace(0, 12, T, dtype=F64)
    y, x = simulate(
        A,
        B[:, None],
        C[None],
        torch.zeros(1, 1, dtype=F64),
        torch.ones(1, T, dtype=F64),
        t,
        hold=hold,
    )
    w = math.sqrt(40 - 0.16)
    want = (1 - torch.exp(-0.4 * t) * (torch.cos(w * t) + 0.4 / w * torch.sin(w * t))) / 8
    assert_close(y[0], want, rtol=0, atol=1e-12)
    assert_close(
        x[1], impulse_response(A, B, C, t), rtol=0, atol=1e-12
    )  # speed = derivative of the step


def test_holds_differ_and_mean_what_they_say():
    zero, one = torch.zeros(1, 1, dtype=F64), torch.ones(1, 1, dtype=F64)
    u, t = torch.tensor([[0.0, 1.0, 3.0]], dtype=F64), torch.tensor([0.0, 0.5, 1.0], dtype=F64)
    ramps = simulate(zero, one, one, zero, u, t)[1]  # x' = u: the area under the input
    stairs = simulate(zero, one, one, zero, u, t, hold="zero")[1]
    assert_close(ramps, torch.tensor([[0.0, 0.25, 1.25]], dtype=F64), rtol=0, atol=1e-15)
    assert_close(stairs, torch.tensor([[0.0, 0.0, 0.5]], dtype=F64), rtol=0, atol=1e-15)


@pytest.mark.parametrize("hold", ["linear", "zero"])
def test_simulate_is_linear(hold, rng):
    A, B, C, D = system(4, 2, 2, rng)
    t = torch.linspace(0, 3, 50, dtype=F64)
    u, v = normal(2, 50, rng=rng), normal(2, 50, rng=rng)
    p, q = normal(4, rng=rng), normal(4, rng=rng)

    def run(u, x0):
        return torch.cat(simulate(A, B, C, D, u, t, x0, hold=hold))

    assert_close(
        run(2 * u - 3 * v, 2 * p - 3 * q), 2 * run(u, p) - 3 * run(v, q), rtol=1e-12, atol=1e-12
    )


@pytest.mark.parametrize("hold", ["linear", "zero"])
def test_simulate_is_time_invariant_and_causal(hold, rng):
    A, B, C, D = system(4, 1, 1, rng)
    t, u = torch.arange(60, dtype=F64) / 10, normal(1, 60, rng=rng)
    u[:, 0] = 0  # so that shifting brings in no ramp of its own
    y = simulate(A, B, C, D, u, t, hold=hold)[0]
    late = torch.cat([torch.zeros(1, 7, dtype=F64), u[:, :-7]], -1)
    assert_close(
        simulate(A, B, C, D, late, t + 3.0, hold=hold)[0][:, 7:], y[:, :-7], rtol=1e-12, atol=1e-12
    )
    other = u.clone()
    other[:, 31:] = 9.0
    assert torch.equal(simulate(A, B, C, D, other, t, hold=hold)[0][:, :31], y[:, :31])


@pytest.mark.parametrize("hold", ["linear", "zero"])
@pytest.mark.parametrize("cut", [0, 1, 31, 58])
def test_two_halves_with_the_state_handed_over_are_one_run(hold, cut, rng):
    A, B, C, D = system(5, 2, 1, rng)
    t, u, x0 = torch.arange(60, dtype=F64) / 10, normal(2, 60, rng=rng), normal(5, rng=rng)
    y, x = simulate(A, B, C, D, u, t, x0, hold=hold)
    head = simulate(A, B, C, D, u[:, : cut + 1], t[: cut + 1], x0, hold=hold)
    tail = simulate(A, B, C, D, u[:, cut:], t[cut:], head[1][:, -1], hold=hold)
    assert_close(torch.cat([head[0], tail[0][:, 1:]], -1), y, rtol=1e-11, atol=1e-12)
    assert_close(torch.cat([head[1], tail[1][:, 1:]], -1), x, rtol=1e-11, atol=1e-12)


def test_without_input_the_state_follows_the_exponential(rng):
    A, B, C, D = system(6, 1, 1, rng)
    t, x0 = torch.linspace(0, 4, 41, dtype=F64), normal(6, rng=rng)
    x = simulate(A, B, C, D, torch.zeros(1, 41, dtype=F64), t, x0)[1]
    assert_close(x, (expm(t[:, None, None] * A) @ x0).T, rtol=1e-11, atol=1e-12)


def test_a_state_in_energy_coordinates_never_grows(rng):
    S = normal(6, 6, rng=rng)
    A = S - S.T - torch.diag(normal(6, rng=rng) ** 2)  # A + A^T <= 0
    t = torch.linspace(0, 4, 400, dtype=F64)
    nothing = (
        torch.zeros(6, 1, dtype=F64),
        torch.zeros(1, 6, dtype=F64),
        torch.zeros(1, 1, dtype=F64),
    )
    x = simulate(A, *nothing, torch.zeros(1, 400, dtype=F64), t, normal(6, rng=rng))[1]
    assert (x.norm(dim=0).diff() <= 1e-13).all()


def test_simulate_batches(rng):
    A, B = stable(3, rng, 2, 1), normal(5, 3, 2, rng=rng)
    C, D = normal(2, 1, 1, 3, rng=rng), normal(1, 2, rng=rng)
    u, x0 = normal(5, 2, 20, rng=rng), normal(2, 5, 3, rng=rng)
    t = torch.linspace(0, 2, 20, dtype=F64)
    y, x = simulate(A, B, C, D, u, t, x0)
    assert y.shape == (2, 5, 1, 20) and x.shape == (2, 5, 3, 20)
    one = simulate(A[1, 0], B[4], C[1, 0], D, u[4], t, x0[1, 4])
    assert_close(y[1, 4], one[0], rtol=1e-11, atol=1e-12)
    assert_close(x[1, 4], one[1], rtol=1e-11, atol=1e-12)


def test_many_inputs_share_one_system(rng):
    A, B, C, D = system(3, 1, 1, rng)
    t, u = torch.linspace(0, 2, 9, dtype=F64), normal(4, 1, 9, rng=rng)
    y = simulate(A, B, C, D, u, t)[0]
    assert_close(y[3], simulate(A, B, C, D, u[3], t)[0], rtol=1e-12, atol=1e-13)


def test_simulate_runs_complex_systems(rng):
    A, B, C, D = system(4, 1, 1, rng)
    Lambda, V = torch.linalg.eig(A)
    modal = torch.diag(Lambda), torch.linalg.solve(V, B + 0j), (C + 0j) @ V, D
    t, u = torch.linspace(0, 5, 60, dtype=F64), normal(1, 60, rng=rng)
    y, x = simulate(*modal, u, t)
    assert y.dtype == x.dtype == torch.complex128
    assert_close(y, simulate(A, B, C, D, u, t)[0] + 0j, rtol=0, atol=1e-11)


def test_float32_stays_float32_and_close(rng):
    A, B, C, D = system(8, 1, 1, rng)
    t, u = torch.linspace(0, 10, 999, dtype=F64), normal(1, 999, rng=rng)
    want = simulate(A, B, C, D, u, t)[0]
    y = simulate(*(v.float() for v in (A, B, C, D, u)), t.float())[0]
    assert y.dtype == torch.float32
    assert (y - want).abs().max() < 1e-5 * want.abs().max()


@pytest.mark.parametrize("hold", ["linear", "zero"])
@pytest.mark.parametrize("dtype", [torch.float64, torch.complex128])
def test_simulate_differentiates(hold, dtype, rng):
    A, B, C, D = system(3, 2, 1, rng, dtype)
    t = torch.linspace(0, 1, 3, dtype=F64)
    free = [v.requires_grad_() for v in (A, B, C, D, normal(2, 3, rng=rng, dtype=dtype))]
    x0 = normal(3, rng=rng, dtype=dtype).requires_grad_()

    def run(*free):
        return simulate(*free[:5], t, free[5], hold=hold)

    assert torch.autograd.gradcheck(run, (*free, x0))


def test_the_other_responses_differentiate(rng):
    A, B, C = stable(3, rng), normal(3, rng=rng), normal(3, rng=rng)
    t = torch.tensor([0.0, 0.3, 1.0], dtype=F64)
    s = torch.tensor([0.1 + 1j, 2j], dtype=torch.complex128)
    free = [v.requires_grad_() for v in (A, B, C)]
    assert torch.autograd.gradcheck(lambda *free: impulse_response(*free, t), free)
    D = torch.tensor(0.3, dtype=F64, requires_grad=True)
    s.requires_grad_()
    assert torch.autograd.gradcheck(transfer_function, (*free, D, s))


# ---------------------------------------------------------------- bad input

A, B, C = spring()
D, T = torch.zeros(1, 1, dtype=F64), torch.linspace(0, 1, 5, dtype=F64)
GOOD = {"A": A, "B": B[:, None], "C": C[None], "D": D, "u": torch.ones(1, 5, dtype=F64), "t": T}
META = torch.device("meta")


@pytest.mark.parametrize(
    ("change", "error", "says"),
    [
        ({"A": A[0]}, ValueError, r"want A \(..., N, N\).*got A \(2,\)"),
        ({"A": A[:1]}, ValueError, r"got A \(1, 2\)"),
        ({"B": B}, ValueError, r"B \(..., N, M\).*B \(2,\)"),
        ({"B": torch.ones(3, 1, dtype=F64)}, ValueError, r"B \(3, 1\)"),
        ({"C": torch.ones(1, 3, dtype=F64)}, ValueError, r"C \(..., P, N\).*C \(1, 3\)"),
        ({"D": torch.zeros(2, 1, dtype=F64)}, ValueError, r"D \(..., P, M\).*D \(2, 1\)"),
        ({"u": torch.ones(2, 5, dtype=F64)}, ValueError, r"u \(..., M, T\).*u \(2, 5\)"),
        ({"u": torch.ones(1, 4, dtype=F64)}, ValueError, r"u \(1, 4\), t \(5,\)"),
        ({"u": torch.ones(5, dtype=F64)}, ValueError, r"u \(5,\)"),
        ({"u": torch.ones(1, 0, dtype=F64), "t": T[:0]}, ValueError, r"t \(0,\)"),
        ({"x0": torch.ones(3, dtype=F64)}, ValueError, r"x0 \(..., N\).*x0 \(3,\)"),
        (
            {"A": A.expand(2, 2, 2), "u": torch.ones(3, 1, 5, dtype=F64)},
            ValueError,
            r"u \(3, 1, 5\)",
        ),
        ({"t": T[None]}, ValueError, r"want t \(T,\) of real numbers"),
        ({"t": T + 0j}, ValueError, r"want t \(T,\) of real numbers"),
        ({"t": T**2}, ValueError, r"want t increasing in equal steps, got steps in"),
        ({"t": T.flip(0)}, ValueError, r"want t increasing in equal steps"),
        ({"t": T * 0}, ValueError, r"want t increasing in equal steps"),
        ({"t": T * math.nan}, ValueError, r"want t increasing in equal steps"),
        ({"hold": "cubic"}, ValueError, r'want hold "linear" or "zero", got \'cubic\''),
        ({"A": A.tolist()}, TypeError, r"want A as a torch.Tensor, got list"),
        (
            {"u": torch.ones(1, 5, dtype=torch.int64)},
            TypeError,
            r"want u of a floating or complex",
        ),
        (
            {"u": torch.ones(1, 5, dtype=F64, device=META)},
            ValueError,
            r"want all tensors on one device",
        ),
    ],
)
def test_simulate_refuses(change, error, says):
    with pytest.raises(error, match=says):
        simulate(**{**GOOD, **change})


@pytest.mark.parametrize(
    ("change", "error", "says"),
    [
        ({"B": B[:, None]}, ValueError, r"B \(..., N\).*B \(2, 1\)"),
        ({"C": torch.ones(3, dtype=F64)}, ValueError, r"C \(3,\)"),
        ({"t": T[None]}, ValueError, r"want t \(T,\)"),
        ({"t": T[:0]}, ValueError, r"t \(0,\)"),
        ({"t": T - 0.5}, ValueError, r"want t finite and >= 0, got values in \[-0.5, 0.5\]"),
        ({"t": T * math.inf}, ValueError, r"want t finite and >= 0"),
        ({"t": torch.arange(5)}, TypeError, r"want t of a floating"),
        ({"A": None}, TypeError, r"want A as a torch.Tensor, got NoneType"),
    ],
)
def test_impulse_response_refuses(change, error, says):
    with pytest.raises(error, match=says):
        impulse_response(**{**{"A": A, "B": B, "C": C, "t": T}, **change})


@pytest.mark.parametrize(
    ("change", "error", "says"),
    [
        ({"s": 1j}, TypeError, r"want s as a torch.Tensor, got complex"),
        ({"s": T[None] + 1j}, ValueError, r"want s \(S,\), got \(1, 5\)"),
        ({"A": A[:1]}, ValueError, r"A \(1, 2\)"),
        ({"A": [[1.0]]}, TypeError, r"want A as a torch.Tensor"),
        ({"D": torch.tensor(1)}, TypeError, r"want D of a floating"),
        ({"D": torch.zeros(1, device=META)}, ValueError, r"want all tensors on one device"),
    ],
)
def test_transfer_function_refuses(change, error, says):
    with pytest.raises(error, match=says):
        transfer_function(**{**{"A": A, "B": B, "C": C, "D": 0.0, "s": T + 1j}, **change})


def test_grids_may_be_rounded_but_not_uneven():
    uneven = T.clone()
    uneven[2] += 1e-4
    with pytest.raises(ValueError, match="equal steps"):
        simulate(**{**GOOD, "t": uneven})
    u = torch.ones(1, 9001, dtype=torch.float32)
    t = torch.linspace(500, 509, 9001, dtype=torch.float32)  # every step is rounded to 6e-5
    y, _ = simulate(*(GOOD[name].float() for name in "ABCD"), u, t)
    assert y.isfinite().all()


def test_a_refusal_changes_nothing():
    before = {name: v.clone() for name, v in GOOD.items()}
    with pytest.raises(ValueError, match="equal steps"):
        simulate(**{**GOOD, "t": T**2})
    simulate(**GOOD)
    assert all(torch.equal(v, before[name]) for name, v in GOOD.items())


def test_half_precision_is_refused():
    half = {"dtype": torch.float16}
    A, B, C, D = (
        -torch.eye(2, **half),
        torch.ones(2, 1, **half),
        torch.ones(1, 2, **half),
        torch.zeros(1, 1, **half),
    )
    with pytest.raises(TypeError, match=r"want single or double precision, got torch.float16"):
        simulate(A, B, C, D, torch.ones(1, 5, **half), torch.arange(5).half())


@pytest.mark.parametrize("D", ["a", None])
def test_a_wire_is_a_number(D):
    A = -torch.eye(2)
    with pytest.raises(TypeError, match=r"want D as a tensor or a number, got"):
        transfer_function(A, torch.ones(2), torch.ones(2), D, torch.tensor([1j]))
