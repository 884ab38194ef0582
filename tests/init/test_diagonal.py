"""The starting poles, as the formulas say and as other people's code has them."""

import math
from pathlib import Path

import numpy as np
import pytest
import torch

from s4lite.init.diagonal import s4d_inv, s4d_lin
from s4lite.ops.checks import check_state_size
from s4lite.ops.vandermonde import diag_kernel

GOLDEN = Path(__file__).parent.parent / "golden"
every_init = pytest.mark.parametrize("init", [s4d_lin, s4d_inv])


@every_init
@pytest.mark.parametrize("N", [2, 4, 6, 64, 1024])
def test_shape_and_decay(init, N):
    Lambda = init(N)
    assert Lambda.shape == (N // 2,) and Lambda.dtype == torch.complex128
    assert bool((Lambda.real == -0.5).all())
    assert bool((Lambda.imag >= 0).all())


def test_formulas():
    assert s4d_lin(8).imag.tolist() == [math.pi * n for n in range(4)]
    for N in (2, 8, 64):
        want = [N / math.pi * (N / (2 * n + 1) - 1) for n in range(N // 2)]
        assert np.allclose(s4d_inv(N).imag, want, rtol=1e-15, atol=0)
    assert abs(float(s4d_inv(64).imag[0]) - 1283.4254) < 1e-3  # with N = 32 it would be 316


@pytest.mark.parametrize(("name", "init"), [("lin", s4d_lin), ("inv", s4d_inv)])
def test_golden_poles(name, init):
    theirs = np.load(GOLDEN / f"s4d_{name}_zoh_L64.npz")["A"][0]
    ours = init(64).numpy()
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


@pytest.mark.parametrize("call", [s4d_lin, s4d_inv, check_state_size])
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
        assert torch.equal(init(8), init(8).cpu()) and init(8).device.type == "cpu"
