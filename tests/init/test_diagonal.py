"""The starting poles, as the formulas say and as other people's code has them."""

import math
from pathlib import Path

import numpy as np
import pytest
import torch

from s4lite.init.diagonal import s4d_inv, s4d_legs, s4d_lin, s4d_random, s4d_real
from s4lite.init.hippo import hippo
from s4lite.init.nplr import nplr
from s4lite.ops.checks import check_state_size
from s4lite.ops.vandermonde import diag_kernel

GOLDEN = Path(__file__).parent.parent / "golden"
ALL = [s4d_legs, s4d_lin, s4d_inv, s4d_real, s4d_random]
every_init = pytest.mark.parametrize("init", ALL)


def drawn(N: int, seed: int = 0) -> torch.Tensor:
    return s4d_random(N, torch.Generator().manual_seed(seed))


@every_init
@pytest.mark.parametrize("N", [2, 4, 6, 64, 1024])
def test_shape_and_decay(init, N):
    Lambda = init(N)
    assert Lambda.shape == (N // 2,) and Lambda.dtype == torch.complex128
    if init is s4d_real:
        assert Lambda.tolist() == [complex(-n - 1) for n in range(N // 2)]
    else:
        assert bool((Lambda.real == -0.5).all())
    assert bool((Lambda.imag >= 0).all())


def test_formulas():
    assert s4d_lin(8).imag.tolist() == [math.pi * n for n in range(4)]
    for N in (2, 8, 64):
        want = [N / math.pi * (N / (2 * n + 1) - 1) for n in range(N // 2)]
        assert np.allclose(s4d_inv(N).imag, want, rtol=1e-15, atol=0)
    assert abs(float(s4d_inv(64).imag[0]) - 1283.4254) < 1e-3  # with N = 32 it would be 316


@pytest.mark.parametrize(("name", "init"), [("lin", s4d_lin), ("inv", s4d_inv), ("legs", s4d_legs)])
def test_golden_poles(name, init):
    theirs = np.load(GOLDEN / f"s4d_{name}_zoh_L64.npz")["A"][0]
    ours = init(64).numpy()
    if name == "legs":  # theirs start with the fastest
        ours = ours[::-1]
    assert np.abs(theirs.real - ours.real).max() < 1e-7
    gap = np.abs(-theirs.imag - ours.imag)  # the other half of each pair
    assert (gap < 1e-5 * np.abs(ours.imag) + 1.01e-4 * (ours.imag == 0)).all()


def test_lin_repeats_itself_and_inv_does_not():
    C = torch.randn(32, generator=torch.Generator().manual_seed(0), dtype=torch.complex128)
    echo = {}
    for init in (s4d_lin, s4d_inv):
        K = diag_kernel(init(64), torch.ones(32), C, 0.02, 500)
        echo[init] = float((K[100:] - K[:400] / math.e).abs().max() / K.abs().max())
    assert echo[s4d_lin] < 1e-12 and echo[s4d_inv] > 1e-2


@pytest.mark.parametrize("N", [2, 4, 6, 30, 64])
def test_legs_are_the_poles_of_the_normal_part(N):
    A, B = hippo("legs", N)
    normal = A + torch.outer(B, B) / 2
    assert (normal @ normal.mT - normal.mT @ normal).abs().max() < 1e-12 * N**4
    dense = torch.linalg.eigvals(normal)
    dense = dense[dense.imag > 0]
    assert (s4d_legs(N) - dense[dense.imag.argsort()]).abs().max() < 1e-13 * N**2
    assert torch.equal(s4d_legs(N), nplr("legs", N).Lambda)


def test_lin_is_fouriers_rotation_and_real_the_diagonal_of_legs():
    for N in (2, 8, 64):
        assert (nplr("fout", N).Lambda - 0.5 - s4d_lin(N)).abs().max() < 1e-13
        assert torch.equal(s4d_real(2 * N).real, hippo("legs", N)[0].diagonal())
        assert not s4d_real(N).imag.any()


@pytest.mark.parametrize("N", [16, 64, 256, 1024])
def test_inv_shares_the_fast_end_of_legs_and_not_the_middle(N):
    share = s4d_inv(N).imag.flip(0) / s4d_legs(N).imag - 1
    j = torch.arange(2)
    assert ((share.flip(0)[:2] * N / (2 * j + 1) + 1).abs() < 6 / N + 0.01).all()
    assert -0.23 < share.min() < -0.22


@pytest.mark.parametrize("N", [4, 16, 64])
def test_half_the_input_without_the_square_answers_alike(N):
    """A constant exactly, a tone with the relative error omega / sqrt(omega^2 + N^2)."""
    model, (A, B) = nplr("legs", N), hippo("legs", N)
    for omega in (0.0, 0.5, 7.0, 200.0):
        half = model.B / 2 / (1j * omega - model.Lambda)
        mirror = model.B / 2 / (1j * omega - model.Lambda.conj())
        ours = model.V @ half + model.V.conj() @ mirror
        legs = torch.linalg.solve(1j * omega * torch.eye(N) - A, B + 0j)
        foretold = omega / math.hypot(omega, N)
        assert abs((legs - ours).norm() / ours.norm() - foretold) < 1e-10
        if omega == 0:
            assert (ours - torch.eye(N)[0]).abs().max() < 1e-11


@pytest.mark.parametrize("N", [3, 5, 11, 30])
def test_half_the_input_is_off_after_steps_and_clicks_as_the_theorem_says(N):
    """thm-diagonal-half (3) and (4), from Lyapunov's equation for the dense matrices, N odd too."""
    A, B = hippo("legs", N)
    S, e_0 = A + torch.outer(B, B) / 2, torch.eye(N, dtype=torch.float64)[0]

    def product(P, a, Q, b):
        """The integral of e^(tP) a (e^(tQ) b)^T over t > 0."""
        one = torch.eye(N, dtype=torch.float64)
        both = torch.kron(P, one) + torch.kron(one, Q)
        return -torch.linalg.solve(both, torch.outer(a, b).flatten()).reshape(N, N)

    def squared_error(a, b):
        legs, half = product(A, a, A, a), product(S, b, S, b)
        return (legs + half - product(A, a, S, b) - product(S, b, A, a)).diagonal()

    n = torch.arange(N - 1, dtype=torch.float64)
    assert (squared_error(e_0, e_0)[:-1] * 2 * N**2 - 1).abs().max() < 1e-9
    clicks = (2 * n + 1) / 4 - (3 * n**2 + 3 * n + 1) / (2 * N**2)
    assert (squared_error(B, B / 2)[:-1] - clicks).abs().max() < 1e-9
    assert (product(A, B, A, B).diagonal() - 0.5).abs().max() < 1e-12
    assert abs(product(S, B / 2, S, B / 2).trace() / (N**2 / 4) - 1) < 1e-12  # eq-diagonal-comb


def test_random_is_drawn_uniformly_and_repeats_with_its_generator():
    assert torch.equal(drawn(64, 3), drawn(64, 3))
    assert not torch.equal(drawn(64, 3), drawn(64, 4))
    omega = torch.stack([drawn(32, seed).imag for seed in range(400)])
    assert (omega.diff(dim=1) >= 0).all() and omega.min() >= 0 and omega.max() < 16 * math.pi
    share = torch.histc(omega, bins=8, min=0, max=16 * math.pi) / omega.numel()
    assert (share - 1 / 8).abs().max() < 0.02
    torch.manual_seed(5)
    free = s4d_random(8)
    torch.manual_seed(5)
    assert torch.equal(free, s4d_random(8)) and not torch.equal(free, s4d_random(8))


def test_random_refuses_other_generators():
    for bad in (0, "cpu", np.random.default_rng(0)):
        with pytest.raises(TypeError, match="want generator a torch"):
            s4d_random(8, bad)


@pytest.mark.parametrize("call", [*ALL, check_state_size])
def test_bad_sizes(call):
    for N, error, message in [
        (3, ValueError, "want N even .*got 3"),
        (0, ValueError, "want N >= 1, got 0"),
        (-2, ValueError, "want N >= 1, got -2"),
        (4.0, TypeError, "want N as an int, got float"),
        (True, TypeError, "want N as an int, got bool"),
    ]:
        with pytest.raises(error, match=message):
            call(N)
    with pytest.raises(ValueError, match="want d_state even"):
        check_state_size(5, "d_state")


@every_init
def test_poles_are_on_the_cpu_whatever_the_default_device(init):
    with torch.device("meta"):
        assert init(8).device.type == "cpu" and init(8).isfinite().all()
        if init is not s4d_random:
            assert torch.equal(init(8), init(8).cpu())
