"""Krylov sequences: naive and doubled, the state at the end, and what they refuse."""

import math

import pytest
import torch
from torch import Tensor

from s4lite.init.hippo import hippo
from s4lite.ops.discretize import bilinear
from s4lite.ops.krylov import advance, krylov, krylov_last_state, krylov_naive
from s4lite.ops.recurrence import recur

F64 = torch.float64


def draw(*shape: int, seed: int = 0, dtype: torch.dtype = F64) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=F64).to(dtype)


def tame(*shape: int, seed: int = 0) -> Tensor:
    """Random matrices (..., N, N) of norm about 1."""
    return draw(*shape, seed=seed) / (2 * math.sqrt(shape[-1]))


@pytest.mark.parametrize("L", [1, 2, 3, 99, 1023])
@pytest.mark.parametrize("N", [1, 5, 32])
def test_columns_are_powers(N, L):
    Ab, x = tame(N, N), draw(N, seed=1)
    for road in (krylov_naive, krylov):
        X = road(Ab, x, L)
        assert X.shape == (N, L)
        for lag in {0, L // 2, L - 1}:
            want = torch.linalg.matrix_power(Ab, lag) @ x
            torch.testing.assert_close(X[:, lag], want, rtol=1e-9, atol=1e-13)


def test_leading_axes_broadcast():
    Ab, x = tame(3, 4, 4), draw(2, 1, 4, seed=1)
    X = krylov(Ab, x, 17)
    assert X.shape == (2, 3, 4, 17)
    torch.testing.assert_close(X, krylov_naive(Ab, x, 17), rtol=0, atol=1e-13)
    torch.testing.assert_close(X[1, 2], krylov_naive(Ab[2], x[1, 0], 17), rtol=0, atol=1e-13)


@pytest.mark.parametrize("road", [krylov_naive, krylov])
def test_gradients(road):
    values = [tame(2, 3, 3).requires_grad_(), draw(2, 3, seed=1).requires_grad_()]
    assert torch.autograd.gradcheck(lambda Ab, x: road(Ab, x, 7), values)


@pytest.mark.parametrize("dt", [1e-1, 1e-3, 1e-4])
def test_float32_powers_of_a_contraction(dt):
    """Bilinear LegS, N = 64, L = 16384: doubling in float32 is no worse than 1e-5."""
    A, B = hippo("legs", 64)
    Ab, Bb = bilinear(A, B[:, None], dt)
    X = krylov_naive(Ab, Bb[:, 0], 16384)
    gap = (krylov(Ab.float(), Bb[:, 0].float(), 16384) - X).norm(dim=0).max()
    assert gap < 1e-5 * X.norm(dim=0).max()


def test_complex():
    Ab = torch.complex(tame(3, 3), tame(3, 3, seed=1))
    X = krylov(Ab, draw(3), 9)
    assert X.dtype == torch.complex128
    torch.testing.assert_close(X, krylov_naive(Ab, draw(3), 9))


@pytest.mark.parametrize("most", [1, 2, 7, 8, 1000])
def test_advance_takes_each_row_its_own_steps(most):
    Ab, x = tame(2, 4, 4), draw(3, 2, 4, seed=1)
    steps = torch.tensor([[0, 1], [most, most // 2], [most - 1, most]])
    got = advance(Ab, x, steps, most)
    for b, h in [(b, h) for b in range(3) for h in range(2)]:
        want = torch.linalg.matrix_power(Ab[h], int(steps[b, h])) @ x[b, h]
        torch.testing.assert_close(got[b, h], want, rtol=1e-9, atol=1e-13)


@pytest.mark.parametrize("L", [1, 2, 99, 300])
def test_last_state_is_where_the_recurrence_ends(L):
    Ab, Bb, u, x = tame(3, 5, 5), draw(3, 5, seed=1), draw(2, 3, L, seed=2), draw(2, 3, 5, seed=3)
    for start in (None, x):
        want = recur(Ab, Bb, Bb, u, start)[1]
        torch.testing.assert_close(krylov_last_state(Ab, Bb, u, start), want, rtol=0, atol=1e-12)


def test_last_state_of_padded_signals():
    Ab, Bb, u, x = tame(3, 5, 5), draw(3, 5, seed=1), draw(3, 3, 40, seed=2), draw(3, 3, 5, seed=3)
    lengths = [40, 1, 17]
    got = krylov_last_state(Ab, Bb, u, x, lengths)
    for b, n in enumerate(lengths):
        want = recur(Ab, Bb, Bb, u[b, :, :n], x[b])[1]
        torch.testing.assert_close(got[b], want, rtol=0, atol=1e-12)


def test_last_state_keeps_the_widest_dtype():
    """Neither a signal, nor a state, nor Bb is cut down to what Ab is."""
    Ab, Bb, u, x = tame(4, 4), draw(4, seed=1), draw(2, 30, seed=2), draw(2, 4, seed=3)
    want = krylov_last_state(Ab, Bb, u, x)
    single, tol = [v.float().double() for v in (Ab, Bb, u, x)], {"rtol": 0, "atol": 1e-12}
    exact = krylov_last_state(*single)
    for keep in range(4):
        mixed = [v if i == keep else v.float() for i, v in enumerate(single)]
        torch.testing.assert_close(krylov_last_state(*mixed), exact, **tol)
    for turn in ([1, 1, 1j, 1j], [1, 1j, 1, 1j]):
        got = krylov_last_state(*(v * t for v, t in zip((Ab, Bb, u, x), turn, strict=True)))
        torch.testing.assert_close(got, 1j * want, **tol)
    torch.testing.assert_close(
        advance(Ab.float(), x, torch.tensor(5), 9),
        advance(Ab.float().double(), x, torch.tensor([5, 5]), 9),
    )


@pytest.mark.parametrize(
    ("call", "error", "said"),
    [
        (lambda: krylov(torch.eye(3), torch.ones(4), 5), ValueError, r"want Ab \(..., N, N\)"),
        (lambda: krylov(torch.eye(3), torch.ones(3), 0), ValueError, "want L >= 1, got 0"),
        (lambda: krylov(torch.eye(3), torch.ones(3), 2.0), TypeError, "want L as an int"),
        (lambda: krylov_naive(torch.eye(3), [1, 1, 1], 5), TypeError, "want Bb as a torch.Tensor"),
        (lambda: krylov_naive(torch.eye(3), torch.ones(3), 0), ValueError, "want L >= 1, got 0"),
        (
            lambda: krylov_last_state(torch.eye(2), torch.ones(2), torch.ones(4), lengths=[3]),
            ValueError,
            r"want u \(batch, H, L\)",
        ),
        (
            lambda: krylov_last_state(torch.eye(2), torch.ones(2), torch.ones(1, 1, 4), None, [5]),
            ValueError,
            "want lengths from 1 to L = 4",
        ),
        (
            lambda: krylov_last_state(torch.eye(2), torch.ones(3, 2), torch.ones(5, 4)),
            ValueError,
            r"want leading axes that broadcast, got system and state \(3,\), u \(5, 4\)",
        ),
        (
            lambda: advance(torch.eye(2), torch.ones(2), torch.tensor(1), 0),
            ValueError,
            "want most >= 1",
        ),
        (
            lambda: advance(torch.eye(2), torch.ones(2), torch.tensor(9), 3),
            ValueError,
            "want steps from 0 to most = 3, got 9",
        ),
        (
            lambda: advance(torch.eye(2), torch.ones(2, 2), torch.tensor([0, -1]), 3),
            ValueError,
            "want steps from 0 to most = 3",
        ),
        (
            lambda: advance(torch.eye(2), torch.ones(2, 2), torch.tensor([1, 2, 3]), 3),
            ValueError,
            r"want steps \(\) or one for each state x, got \(3,\)",
        ),
        (
            lambda: advance(torch.eye(2), torch.ones(2), torch.tensor(1.0), 3),
            TypeError,
            "want steps as a tensor of whole numbers, int32 or int64, got torch.float32",
        ),
        (lambda: advance(torch.eye(2), torch.ones(2), 1, 3), TypeError, "want steps .* got int"),
    ],
)
def test_bad_input(call, error, said):
    with pytest.raises(error, match=said):
        call()
