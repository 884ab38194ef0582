"""What holds for every layer and kernel, at sizes that nobody chose by hand.

Hypothesis draws the sizes, dtypes, lengths, cuts, rates and inits; the numbers themselves come from
a generator with a drawn seed. Runs are derandomized: the same cases every time.
"""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from s4lite import S4, S4D, SequenceModel, causal_conv, diag_kernel
from s4lite.ops.conv import causal_conv_naive
from s4lite.ops.dplr import dplr_kernel, dplr_kernel_naive
from s4lite.ops.scan import scan, scan_naive
from s4lite.ops.vandermonde import diag_kernel_naive

often = settings(max_examples=40, deadline=None, derandomize=True)
F32, F64 = torch.float32, torch.float64
TOLERANCE = {F32: 2e-5, F64: 1e-10}
seeds = st.integers(0, 2**32 - 1)
rates = st.floats(0.25, 4.0)


def draw(seed: int, *shape: int, dtype: torch.dtype = F64) -> torch.Tensor:
    """Normal numbers, the same in both precisions up to rounding."""
    g = torch.Generator().manual_seed(seed)
    full = torch.complex128 if dtype.is_complex else F64
    return torch.randn(*shape, generator=g, dtype=full).to(dtype)


def close(got: torch.Tensor, want: torch.Tensor, tol: float, scale: float = 0.0) -> None:
    """Equal up to tol times the largest entry, or `scale` if that is larger."""
    assert got.shape == want.shape and got.dtype == want.dtype
    gap = (got - want).abs().max() / max(float(want.abs().max()), scale, 1e-30)
    assert gap < tol, f"off by {gap:.1e}"


@st.composite
def layers(draw_from, **fixed):
    """A layer with drawn kind, sizes, init and dtype, its weights moved off their start."""
    kind = draw_from(st.sampled_from([S4, S4D]))
    named = ["legs", "legt", "lagt", "fout"] if kind is S4 else ["lin", "inv", "legs", "real"]
    H = draw_from(st.sampled_from([1, 2, 3, 4, 6]))
    dt_min = draw_from(st.sampled_from([1e-3, 1e-2, 0.2]))
    options = {
        "init": draw_from(st.sampled_from(named)),
        "n_ssm": draw_from(st.sampled_from([d for d in (1, 2, 3, H) if H % d == 0])),
        "clock": draw_from(st.sampled_from(["log", "softplus"])),
        "dt_min": dt_min,
        "dt_max": dt_min * draw_from(st.sampled_from([1.0, 10.0])),
        "dtype": draw_from(st.sampled_from([F32, F64])),
    }
    if kind is S4D:
        options["disc"] = draw_from(st.sampled_from(["zoh", "bilinear"]))
    torch.manual_seed(draw_from(seeds))
    layer = kind(H, 2 * draw_from(st.integers(1, 9)), **options, **fixed).eval()
    with torch.no_grad():
        for p in layer.kernel.parameters():
            _ = p.add_(0.1 * torch.randn_like(p))
    return layer


@st.composite
def signals(draw_from, layer, most: int = 70):
    """An input for the layer, and a state that remembers something."""
    batch, L, seed = draw_from(st.integers(1, 3)), draw_from(st.integers(1, most)), draw_from(seeds)
    state = layer.initial_state(batch)
    dtype = layer.D.dtype
    return draw(seed, batch, L, layer.d_model, dtype=dtype), draw(
        seed, *state.shape, dtype=state.dtype
    )


@often
@given(st.data(), rates)
def test_whole_is_steps_is_pieces(data, rate):
    layer = data.draw(layers())
    u, state = data.draw(signals(layer))
    cut = data.draw(st.integers(0, u.shape[1]))
    tol = TOLERANCE[u.dtype]
    with torch.no_grad():
        whole, end = layer(u, state, rate=rate, return_state=True)
        x, y = state, []
        for u_t in u.unbind(1):
            y_t, x = layer.step(u_t, x, rate=rate)
            y.append(y_t)
        close(torch.stack(y, 1), whole, tol)
        close(x, end, tol, float(state.abs().max()))
        x, y = state, []
        for piece in (u[:, :cut], u[:, cut:]):
            if piece.shape[1]:
                y_p, x = layer(piece, x, rate=rate, return_state=True)
                y.append(y_p)
        close(torch.cat(y, 1), whole, tol)
        close(x, end, tol, float(state.abs().max()))


@often
@given(st.data())
def test_causal_to_the_last_bit_that_fft_rounding_allows(data):
    layer = data.draw(layers())
    u, _ = data.draw(signals(layer))
    k = data.draw(st.integers(0, u.shape[1] - 1))
    other = u.clone()
    other[:, k:] = draw(1, *other[:, k:].shape, dtype=u.dtype)
    with torch.no_grad():
        y, z = layer(u), layer(other)
    close(z[:, :k], y[:, :k], TOLERANCE[u.dtype], float(y.abs().max())) if k else None
    close(layer(u[:, : k + 1]), y[:, : k + 1], TOLERANCE[u.dtype], float(y.detach().abs().max()))


@often
@given(st.data(), st.floats(-3, 3), st.floats(-3, 3))
def test_linear_in_signal_and_state_together(data, a, b):
    layer = data.draw(layers(activation=None, mixer=None))
    u, s = data.draw(signals(layer))
    v, t = draw(2, *u.shape, dtype=u.dtype), draw(3, *s.shape, dtype=s.dtype)
    with torch.no_grad():
        parts, both = a * layer(u, s) + b * layer(v, t), layer(a * u + b * v, a * s + b * t)
    size = max(float(layer(x, y).detach().abs().max()) for x, y in ((u, s), (v, t)))
    close(both, parts, 5 * TOLERANCE[u.dtype], size)


@often
@given(st.data(), rates)
def test_padding_changes_nothing_even_if_it_is_not_a_number(data, rate):
    layer = data.draw(layers())
    u, state = data.draw(signals(layer))
    lengths = data.draw(st.lists(st.integers(1, u.shape[1]), min_size=len(u), max_size=len(u)))
    padded = u.clone()
    for row, length in zip(padded, lengths, strict=True):
        row[length:] = math.nan
    with torch.no_grad():
        y, end = layer(padded, state, rate=rate, lengths=lengths, return_state=True)
        for b, length in enumerate(lengths):
            one, x = slice(b, b + 1), state[b : b + 1]
            own, last = layer(u[one, :length], x, rate=rate, return_state=True)
            close(y[one, :length], own, TOLERANCE[u.dtype])
            close(end[one], last, TOLERANCE[u.dtype], float(state.abs().max()))
            assert not y[b, length:].any()


@often
@given(st.data(), rates)
def test_equal_gaps_are_a_rate_and_unequal_ones_are_steps(data, rate):
    layer = data.draw(layers())
    u, state = data.draw(signals(layer, most=25))
    tol, (batch, L, _) = TOLERANCE[u.dtype], u.shape
    gaps = draw(data.draw(seeds), batch, L).exp()
    with torch.no_grad():
        equal = torch.full((L,), rate, dtype=F64)
        close(layer(u, state, dt=equal), layer(u, state, rate=rate), tol)
        y, end = layer(u, state, dt=gaps, return_state=True)
        x, walked = state, []
        for k in range(L):
            y_t, x = layer.step(u[:, k], x, dt=gaps[:, k])
            walked.append(y_t)
    close(torch.stack(walked, 1), y, tol)
    close(x, end, tol, float(state.abs().max()))


@settings(max_examples=15, deadline=None, derandomize=True)
@given(
    st.data(), st.booleans(), st.sampled_from([S4, S4D]), st.sampled_from(["mean", "last", None])
)
def test_a_model_is_the_same_sample_by_sample(data, prenorm, layer, pool):
    torch.manual_seed(data.draw(seeds))
    sizes = [data.draw(st.integers(1, 5)) for _ in range(4)]
    model = SequenceModel(*sizes, prenorm=prenorm, layer=layer, pool=pool, d_state=4, dtype=F64)
    u = draw(data.draw(seeds), 2, data.draw(st.integers(1, 20)), sizes[0])
    with torch.no_grad():
        whole, end = model.eval()(u, return_state=True)
        state, steps = model.initial_state(2), []
        for u_t in u.unbind(1):
            y_t, state = model.step(u_t, state)
            steps.append(y_t)
    close(steps[-1] if pool else torch.stack(steps, 1), whole, 1e-10)
    close(state.total, end.total, 1e-10)


def system(seed: int, H: int, n: int, r: int) -> tuple[torch.Tensor, ...]:
    """Lambda, P, B, C of H systems, any stable ones: slow, fast, and one pole on the axis."""
    c128 = torch.complex128
    re, im = draw(seed, 2, H, n)
    Lambda = torch.complex(-torch.exp(2 * re - 2), 10 * im)
    Lambda[:, 0] = 1j * im[:, 0]
    shapes = (H, n, r), (H, n), (H, n)
    return Lambda, *(draw(seed + k, *s, dtype=c128) for k, s in enumerate(shapes, 1))


sizes = st.tuples(seeds, st.integers(1, 3), st.integers(1, 6), st.integers(1, 3))


@often
@given(
    sizes, st.integers(1, 300), st.floats(1e-3, 0.5), st.sampled_from(["cauchy", "dense", "auto"])
)
def test_a_dplr_kernel_is_matrix_powers(size, L, dt, route):
    args = *system(*size), torch.full((size[1],), dt, dtype=F64)
    scale = float((args[2].abs().sum(-1) * args[3].abs().sum(-1)).max()) * dt
    close(dplr_kernel(*args, L, route=route), dplr_kernel_naive(*args, L), 1e-11, scale)


@often
@given(sizes, st.integers(1, 300), st.floats(1e-3, 0.5), st.sampled_from(["zoh", "bilinear"]))
def test_a_diagonal_kernel_is_powers(size, L, dt, disc):
    Lambda, _, B, C = system(*size)
    args = Lambda, B, C, torch.full((size[1],), dt, dtype=F64)
    scale = float((B.abs() * C.abs()).sum(-1).max()) * dt
    close(diag_kernel(*args, L, disc), diag_kernel_naive(*args, L, disc), 1e-11, scale)


@often
@given(seeds, st.integers(1, 90), st.integers(1, 90), st.sampled_from([F32, F64]))
def test_a_convolution_is_its_sum(seed, L, M, dtype):
    u, K = draw(seed, 2, L, dtype=dtype), draw(seed + 1, M, dtype=dtype)
    scale = float(u.norm() * K.norm())
    close(causal_conv(u, K), causal_conv_naive(u, K), TOLERANCE[dtype], scale)


@often
@given(seeds, st.integers(1, 90), st.booleans())
def test_a_scan_is_its_loop(seed, L, is_complex):
    dtype = torch.complex128 if is_complex else F64
    a, b, x = (draw(seed + k, 2, L, dtype=dtype) for k in range(3))
    a = a / a.abs().clamp(min=1)
    close(scan(a, b, x[:, 0]), scan_naive(a, b, x[:, 0]), 1e-12)


@pytest.mark.parametrize("kind", [S4, S4D])
@pytest.mark.parametrize("L", [1, 2, 99, 1023])
def test_two_directions_are_two_causal_filters(kind, L):
    torch.manual_seed(0)
    both = kind(3, 8, bidirectional=True, activation=None, mixer=None, dtype=F64)
    u = draw(5, 2, L, 3)
    K = both.kernel(L)
    with torch.no_grad():
        ahead = causal_conv(u.mT, K[0])
        back = causal_conv(u.mT.flip(-1), K[1]).flip(-1)  # from the sample itself on: one too early
        back = torch.nn.functional.pad(back[..., 1:], (0, 1))
        close(both(u), (ahead + back).mT + both.D * u, 1e-12)
