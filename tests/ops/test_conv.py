"""Kernel and causal convolution: three views of one system, and what they promise."""

import numpy as np
import pytest
import scipy.signal
import torch

from s4lite.ops.conv import causal_conv, causal_conv_naive, fft_length, kernel_naive
from s4lite.ops.discretize import bilinear, zoh
from s4lite.ops.recurrence import recur

F64 = torch.float64
LENGTHS = [1, 2, 99, 1023]
BOTH = pytest.mark.parametrize("conv", [causal_conv, causal_conv_naive])


@pytest.fixture
def rng():
    return torch.Generator().manual_seed(4)


def draw(rng, *shape, dtype=F64):
    return torch.randn(*shape, generator=rng, dtype=dtype)


def system(rng, *batch, N=8, rule=bilinear):
    G = draw(rng, *batch, N, N)
    Ab, Bb = rule(G - G.mT - 0.1 * torch.eye(N, dtype=F64), draw(rng, *batch, N, 1), 0.1)
    return Ab, Bb[..., 0], draw(rng, *batch, N)


def close(got, want, tol=1e-12):
    """Equal up to tol times the largest value."""
    assert got.shape == want.shape and got.dtype == want.dtype
    gap = (got - want).abs().max() / want.abs().max()
    assert gap < tol, f"off by {gap:.1e}"


# ---------------------------------------------------------------- the kernel


@pytest.mark.parametrize("dtype", [torch.float32, F64, torch.complex64, torch.complex128])
def test_kernel_is_matrix_powers(rng, dtype):
    Ab, Bb, C = (t.to(dtype) for t in system(rng))
    if dtype.is_complex:
        Bb, C = Bb + 1j * draw(rng, 8).to(dtype), C - 1j * draw(rng, 8).to(dtype)
    K = kernel_naive(Ab, Bb, C, 30)
    assert K.dtype == dtype
    powers = [np.linalg.matrix_power(Ab.numpy(), lag) for lag in range(30)]
    want = [(C.numpy() * (power @ Bb.numpy())).sum() for power in powers]
    tol = 1e-13 if K.real.dtype == F64 else 1e-5
    np.testing.assert_allclose(K.numpy(), want, rtol=0, atol=tol * K.abs().max())


def test_kernel_axes_broadcast(rng):
    Ab, Bb, C = system(rng, 5)
    C = draw(rng, 2, 1, 8)
    K = kernel_naive(Ab, Bb, C, 7)
    assert K.shape == (2, 5, 7)
    close(K[1, 3], kernel_naive(Ab[3], Bb[3], C[1, 0], 7))


def test_kernel_is_the_answer_to_a_click(rng):
    Ab, Bb, C = system(rng)
    click = torch.eye(1, 50, dtype=F64)[0]
    close(kernel_naive(Ab, Bb, C, 50), recur(Ab, Bb, C, click)[0])


def test_kernel_of_a_complex_system_has_no_conjugate():
    lam = torch.tensor([[0.9 * np.exp(0.3j)]])
    K = kernel_naive(lam, torch.tensor([1.0]), torch.tensor([1j]), 4)
    np.testing.assert_allclose(K.numpy(), 1j * lam.numpy()[0, 0] ** np.arange(4), rtol=1e-13)


def test_kernel_gradients(rng):
    args = [t.requires_grad_() for t in system(rng, 2, N=3)]
    assert torch.autograd.gradcheck(lambda *a: kernel_naive(*a, 5), args)


# ---------------------------------------------------------------- three views


@pytest.mark.parametrize("rule", [bilinear, zoh])
@pytest.mark.parametrize("L", LENGTHS)
def test_three_views_agree(rng, L, rule):
    Ab, Bb, C = system(rng, 4, rule=rule)  # 4 channels
    u = draw(rng, 3, 4, L)  # 3 sequences
    walk, _ = recur(Ab, Bb, C, u)
    K = kernel_naive(Ab, Bb, C, L)
    close(causal_conv_naive(u, K), walk)
    close(causal_conv(u, K), walk)


@pytest.mark.parametrize("L", LENGTHS)
def test_agrees_with_scipy(rng, L):
    u, K = draw(rng, L), draw(rng, L)
    want = torch.from_numpy(scipy.signal.fftconvolve(u.numpy(), K.numpy())[:L].copy())
    close(causal_conv(u, K), want)
    want = torch.from_numpy(scipy.signal.lfilter(K.numpy(), [1.0], u.numpy()))
    close(causal_conv(u, K), want)
    close(causal_conv_naive(u, K), want)


def test_recursive_filter_of_scipy_is_its_kernel(rng):
    """An all-pole filter: the recurrence in companion form, the kernel by a click."""
    poles = np.array([0.95 * np.exp(0.4j), 0.95 * np.exp(-0.4j), 0.7])
    bottom = np.poly(poles).real
    N = len(poles)
    Ab = torch.eye(N, dtype=F64).roll(1, 0)
    Ab[0] = torch.from_numpy(-bottom[1:])
    Bb = torch.eye(N, dtype=F64)[0]
    u = draw(rng, 200)
    want = torch.from_numpy(scipy.signal.lfilter([1.0], bottom, u.numpy()))
    close(causal_conv(u, kernel_naive(Ab, Bb, Bb, 200)), want)
    close(recur(Ab, Bb, Bb, u)[0], want)


# ---------------------------------------------------------------- invariants


@BOTH
def test_linear(rng, conv):
    u, v, K = draw(rng, 99), draw(rng, 99), draw(rng, 99)
    close(conv(2 * u - 3 * v, K), 2 * conv(u, K) - 3 * conv(v, K))
    close(conv(u, 2 * K - 3 * v), 2 * conv(u, K) - 3 * conv(u, v))


@BOTH
@pytest.mark.parametrize("L", [2, 99, 1023])
def test_causal(rng, conv, L):
    """Whatever comes at `now` or later leaves the outputs before `now` as they are."""
    u, K = draw(rng, L), draw(rng, L)
    for now in {1, L // 2, L - 1}:
        later = u.clone()
        later[now:] = 10 * draw(rng, L - now)
        gap = (conv(later, K) - conv(u, K)).abs()
        assert gap[:now].max() < 1e-12
        assert gap[now] > 1e-6


@BOTH
def test_time_invariant(rng, conv):
    u, K = draw(rng, 80), draw(rng, 99)
    late = torch.cat([torch.zeros(19, dtype=F64), u])
    assert conv(late, K)[:19].abs().max() < 1e-13
    close(conv(late, K)[19:], conv(u, K))


@pytest.mark.parametrize("L", [*range(1, 70), 999, 1000, 1001, 1023, 1024, 1025])
def test_the_last_product_never_comes_round(L):
    """Clicks at the end: one sample of padding too few would put a 1 at the beginning."""
    last = torch.zeros(L, dtype=F64)
    last[-1] = 1
    y = causal_conv(last, last)
    if L == 1:
        assert y.item() == 1
    else:
        assert y.abs().max() < 1e-14


@BOTH
def test_kernel_longer_than_the_signal_is_cut(rng, conv):
    u, K = draw(rng, 20), draw(rng, 33)
    close(conv(u, K), conv(u, K[:20]))


@BOTH
@pytest.mark.parametrize("M", [1, 2, 7, 98])
def test_kernel_shorter_than_the_signal_is_zero_beyond(rng, conv, M):
    u, K = draw(rng, 99), draw(rng, M)
    close(conv(u, K), conv(u, torch.cat([K, torch.zeros(99 - M, dtype=F64)])))


@BOTH
def test_leading_axes_broadcast(rng, conv):
    u, K = draw(rng, 3, 1, 5, 20), draw(rng, 2, 1, 20)
    y = conv(u, K)
    assert y.shape == (3, 2, 5, 20)
    close(y[2, 1, 4], conv(u[2, 0, 4], K[1, 0]))


# ---------------------------------------------------------------- precision


@pytest.mark.parametrize("L", [99, 1023])
def test_float32_error_at_most_twice_the_twins(rng, L):
    """Largest error over 32 signals, with a kernel that rings for a third of the length."""
    u = draw(rng, 32, L).float()
    K = (draw(rng, 32, L) * torch.exp(-3 * torch.arange(L) / L)).float()
    truth = causal_conv_naive(u.double(), K.double())
    fast, twin = ((conv(u, K) - truth).abs().max() for conv in (causal_conv, causal_conv_naive))
    assert twin > 0
    assert fast <= 2 * twin


@pytest.mark.parametrize("L", LENGTHS)
def test_float32_error_is_within_an_eps_of_the_norms(rng, L):
    u, K = draw(rng, 32, L).float(), draw(rng, 32, L).float()
    gap = (causal_conv(u, K) - causal_conv_naive(u.double(), K.double())).abs().amax(-1)
    assert (gap <= torch.finfo(torch.float32).eps * u.norm(dim=-1) * K.norm(dim=-1)).all()


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_is_computed_in_float32(rng, dtype):
    u, K = draw(rng, 2, 99).to(dtype), draw(rng, 2, 99).to(dtype)
    y = causal_conv(u, K)
    assert y.dtype == dtype
    assert torch.equal(y, causal_conv(u.float(), K.float()).to(dtype))


def test_mixed_precision_comes_back_as_the_signals(rng):
    u, K = draw(rng, 99), draw(rng, 99)
    assert causal_conv(u.bfloat16(), K.float()).dtype == torch.bfloat16
    assert causal_conv(u, K.float()).dtype == F64
    y = causal_conv(u.float(), K)  # a float64 kernel: computed in float64, rounded once
    assert torch.equal(y, causal_conv_naive(u.float().double(), K).float())


def test_autocast_changes_nothing(rng):
    u, K = draw(rng, 99).float(), draw(rng, 99).float()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        y = causal_conv(u, K)
    assert torch.equal(y, causal_conv(u, K))


# ---------------------------------------------------------------- gradients, compilation


@BOTH
@pytest.mark.parametrize("L, M", [(1, 1), (2, 2), (9, 9), (9, 4), (4, 9)])
def test_gradients(rng, conv, L, M):
    u, K = draw(rng, 2, L).requires_grad_(), draw(rng, M).requires_grad_()
    assert torch.autograd.gradcheck(conv, (u, K))


def test_second_gradients(rng):
    u, K = draw(rng, 5).requires_grad_(), draw(rng, 5).requires_grad_()
    assert torch.autograd.gradgradcheck(causal_conv, (u, K))


def test_compiles_to_one_graph_at_every_length(rng):
    compiled = torch.compile(causal_conv, fullgraph=True, backend="aot_eager")
    for L in LENGTHS:
        u, K = draw(rng, 3, L).requires_grad_(), draw(rng, L).requires_grad_()
        close(compiled(u, K).detach(), causal_conv(u, K).detach())
        got = torch.autograd.grad(compiled(u, K).sum(), (u, K))
        want = torch.autograd.grad(causal_conv(u, K).sum(), (u, K))
        for a, b in zip(got, want, strict=True):
            close(a, b)


def test_arguments_are_left_alone(rng):
    u, K = draw(rng, 9), draw(rng, 12)
    copies = u.clone(), K.clone()
    causal_conv(u, K), causal_conv_naive(u, K)
    assert torch.equal(u, copies[0]) and torch.equal(K, copies[1])


# ---------------------------------------------------------------- FFT lengths


def is_good(n):
    if n % 2:
        return n == 1
    for prime in (2, 3, 5):
        while n % prime == 0:
            n //= prime
    return n == 1


def test_fft_length_is_the_smallest_good_one():
    good = [n for n in range(1, 5001) if is_good(n)]
    want = [next(g for g in good if g >= n) for n in range(1, 4801)]
    assert [fft_length(n) for n in range(1, 4801)] == want


@pytest.mark.parametrize("n", [2**20 + 1, 10**6 - 1, 3**13, 5**9 + 1])
def test_fft_length_of_long_signals(n):
    got = fft_length(n)
    assert type(got) is int and is_good(got) and n <= got < 1.05 * n
    assert not any(is_good(m) for m in range(n, got))


@pytest.mark.parametrize("n, error", [(0, ValueError), (-3, ValueError), (2.0, TypeError)])
def test_fft_length_refuses(n, error):
    with pytest.raises(error, match="want n"):
        fft_length(n)


# ---------------------------------------------------------------- bad input

GOOD = torch.ones(4)
BAD = {
    "u empty": (GOOD[:0], GOOD, ValueError, r"L, M >= 1, no axis empty; got u \(0,\)"),
    "K empty": (GOOD, torch.ones(3, 0), ValueError, r"L, M >= 1.*K \(3, 0\)"),
    "no batch": (GOOD.expand(0, -1), GOOD, ValueError, r"no axis empty; got u \(0, 4\)"),
    "u a number": (torch.tensor(1.0), GOOD, ValueError, r"u \(\), K"),
    "K a number": (GOOD, torch.tensor(1.0), ValueError, r"K \(\)"),
    "axes": (torch.ones(2, 4), torch.ones(3, 4), ValueError, r"broadcast.*\(2, 4\).*\(3, 4\)"),
    "u integers": (GOOD.long(), GOOD, TypeError, "u.*int64"),
    "K booleans": (GOOD, GOOD.bool(), TypeError, "K.*bool"),
    "K a list": (GOOD, [1.0], TypeError, "K.*list"),
    "devices": (GOOD, GOOD.to("meta"), ValueError, "K on meta"),
}


@BOTH
@pytest.mark.parametrize("name", BAD)
def test_bad_signals_are_refused_in_words(conv, name):
    u, K, error, words = BAD[name]
    with pytest.raises(error, match=words):
        conv(u, K)


def test_complex_signals_are_for_the_naive_sum_only(rng):
    u = draw(rng, 4, dtype=torch.complex128)
    for args in [(u, u.real), (u.real, u), (u, u)]:
        with pytest.raises(TypeError, match="want u and K real, got"):
            causal_conv(*args)
        assert causal_conv_naive(*args).dtype == torch.complex128


@pytest.mark.parametrize("L, error", [(0, ValueError), (-1, ValueError), (2.0, TypeError)])
def test_kernel_refuses_the_length(rng, L, error):
    with pytest.raises(error, match="want L"):
        kernel_naive(*system(rng), L)


def test_kernel_refuses_the_system(rng):
    Ab, Bb, C = system(rng)
    with pytest.raises(ValueError, match=r"C \(\.\.\., N\)"):
        kernel_naive(Ab, Bb, C[:3], 4)
    with pytest.raises(TypeError, match="Ab"):
        kernel_naive(Ab.long(), Bb, C, 4)


def test_one_graph_serves_many_lengths():
    torch._dynamo.reset()
    counters = torch._dynamo.utils.counters
    counters.clear()
    compiled = torch.compile(causal_conv, fullgraph=True, backend="eager")
    for L in range(33, 257, 7):
        u = torch.randn(2, L, dtype=torch.float64)
        assert (compiled(u, u) - causal_conv(u, u)).abs().max() < 1e-12
    assert counters["stats"]["unique_graphs"] <= 8  # three octaves, two lengths in each
