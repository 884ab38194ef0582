"""The fused convolution: run by `test_triton.py`, in the interpreter or on a GPU."""

import os
from functools import partial

import pytest
import torch
from torch import Tensor

from s4lite.init.diagonal import s4d_lin
from s4lite.ops.diag_state import diag_step
from s4lite.ops.recurrence import recur
from s4lite.ops.triton.chunks import fused_chunks
from s4lite.ops.vandermonde import log_discretize

DEVICE = os.environ.get("S4LITE_TEST_DEVICE", "cpu")
F32, F64, C128, BF16 = torch.float32, torch.float64, torch.complex128, torch.bfloat16
fused = partial(fused_chunks, backend="triton", precision="ieee")
twin = partial(fused_chunks, backend="torch")
SIZES = [
    # batch, H, L, n, how
    (1, 1, 1, 1, {}),
    (5, 3, 1, 33, {}),
    (1, 3, 2, 32, {}),
    (5, 1, 2, 1, {"T": 16, "segments": 9}),
    (1, 1, 99, 33, {"T": 32}),
    (5, 3, 99, 4, {"T": 16, "segments": 3}),
    (5, 3, 99, 4, {"T": 128}),
    (1, 3, 1023, 32, {}),
    (5, 1, 1023, 33, {"segments": 4}),
    (20, 1, 128, 8, {"T": 16, "segments": 2}),  # several tiles of rows a program
    (3, 2, 257, 3, {"T": 16, "segments": 16}),  # a last segment of one chunk
]
every_size = pytest.mark.parametrize("size", SIZES, ids=str)


def draw(*shape: int, seed: int = 0, dtype: torch.dtype = F64) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=dtype).to(DEVICE)


def system(H: int, n: int) -> tuple[Tensor, Tensor, Tensor]:
    dt = torch.exp(-7 + 5 * torch.rand(H, dtype=F64, generator=torch.Generator().manual_seed(0)))
    nu, phi = log_discretize(s4d_lin(2 * n).expand(H, n), dt)
    return nu.to(DEVICE), phi.to(DEVICE), draw(H, n, dtype=C128)


def inputs(batch: int, H: int, L: int, n: int, dtype: torch.dtype = F32) -> list[Tensor]:
    """nu, Bb, C, u, x, D."""
    u = draw(batch, H, L, seed=1).to(dtype)
    return [*system(H, n), u, draw(batch, H, n, seed=2, dtype=C128), draw(H, seed=3)]


def both(function, args: list[Tensor], use_state: bool = True) -> list[Tensor]:
    """y, the last state, and the gradients of a random scalar by all arguments."""
    args = [z.detach().clone().requires_grad_() for z in args]
    y, x = function(*args[:5], D=args[5])
    loss = (y * draw(*y.shape, seed=4)).sum()
    if use_state:
        loss = loss + (x * draw(*x.shape, seed=5, dtype=C128).conj()).real.sum()
    return [y.detach(), x.detach(), *torch.autograd.grad(loss, args)]


def worst(got: list[Tensor], want: list[Tensor]) -> float:
    assert [z.shape for z in got] == [z.shape for z in want]
    gaps = [(a - b).abs().max() / b.abs().max() for a, b in zip(got, want, strict=True)]
    return max(gap.item() for gap in gaps)


def in_double(args: list[Tensor]) -> list[Tensor]:
    return [*args[:3], args[3].double(), *args[4:]]


@every_size
def test_output_state_and_gradients_are_those_of_the_convolution(size):
    *shape, how = size
    args = inputs(*shape)
    got = both(partial(fused, **how), args)
    assert got[0].dtype == F32 and got[1].dtype == torch.complex64
    assert worst(got, both(twin, in_double(args))) < 2e-6


@pytest.mark.parametrize("segments", [1, 5])
def test_is_the_recurrence_as_written(segments):
    nu, Bb, C, u, x, D = inputs(2, 1, 99, 3)
    y, last = fused(nu, Bb, C, u, x, D=D, T=16, segments=segments)
    Ab = torch.diag_embed(nu[0].exp())
    for b in range(2):
        want, end = recur(Ab, Bb[0], 2 * C[0], u[b, 0].to(C128), x[b, 0])
        assert (y[b, 0] - want.real - D * u[b, 0]).abs().max() < 1e-6 * want.abs().max()
        assert (last[b, 0] - end).abs().max() < 1e-6 * end.abs().max()


def test_gradients_where_nobody_asks_for_the_state():
    args = inputs(3, 2, 130, 5)
    got, want = (both(f, a, False) for f, a in ((fused, args), (twin, in_double(args))))
    assert worst(got, want) < 2e-6


def test_a_cut_signal_is_the_whole_signal():
    nu, Bb, C, u, _, _ = inputs(2, 3, 200, 5)
    whole, end = fused(nu, Bb, C, u, T=32)
    first, x = fused(nu, Bb, C, u[..., :77], T=16)
    rest, x = fused(nu, Bb, C, u[..., 77:199], x, T=64)
    y_t, x = diag_step(nu, Bb, C, u[..., 199], x)
    y = torch.cat([first, rest, y_t[..., None]], -1)
    assert (y - whole).abs().max() < 2e-6 * whole.abs().max()
    assert (x - end).abs().max() < 2e-6 * end.abs().max()


def test_causal_and_linear():
    nu, Bb, C, u, _, _ = inputs(1, 2, 150, 4)
    y = fused(nu, Bb, C, u, T=16, segments=3)[0]
    late = u.clone()
    late[..., 100:] += 1
    assert torch.equal(fused(nu, Bb, C, late, T=16, segments=3)[0][..., :100], y[..., :100])
    assert torch.allclose(fused(nu, Bb, C, -2 * u, T=16, segments=3)[0], -2 * y)


def test_leading_axes_broadcast_like_the_twin():
    nu, Bb, C = system(3, 4)
    u, D = draw(2, 5, 3, 40).float(), draw(3)
    y, x = fused(nu[0], Bb, C[0], u, D=D, T=16)
    want, end = twin(nu[0], Bb, C[0], u.double(), D=D)
    assert y.shape == (2, 5, 3, 40) and x.shape == (2, 5, 3, 4)
    assert worst([y, x], [want, end]) < 2e-6
    y, x = fused(nu[0], Bb[0], C[0], u[0, 0, 0], T=16)
    assert y.shape == (40,) and x.shape == (4,)
    strange = u.transpose(-1, -2).contiguous().transpose(-1, -2)  # time is not the fast axis
    assert torch.equal(fused(nu, Bb, C, strange, T=16)[0], fused(nu, Bb, C, u, T=16)[0])


@pytest.mark.parametrize(("L", "n", "segments"), [(1023, 32, 1), (1023, 32, 4), (99, 33, None)])
def test_bfloat16_is_within_twice_the_rounding_of_the_output(L, n, segments):
    args = inputs(5, 3, L, n, BF16)
    for keep in (5, 4):  # with and without an initial state
        args[4] = args[4] if keep == 5 else torch.zeros_like(args[4])
        y = fused(*args[:5], D=args[5], segments=segments)[0]
        exact = twin(*in_double(args)[:5], D=args[5])[0]
        rms = [(z.double() - exact).square().mean((0, 2)).sqrt() for z in (y, exact.to(BF16))]
        assert y.dtype == BF16 and (rms[0] < 2 * rms[1]).all()


def test_bfloat16_gradients():
    args = inputs(5, 2, 99, 8, BF16)
    got, want = both(fused, args), both(twin, in_double(args))
    assert got[2 + 3].dtype == BF16
    assert worst(got, want) < 2e-2


@pytest.mark.skipif(DEVICE == "cpu", reason="the interpreter multiplies in float32")
@pytest.mark.parametrize(("precision", "tol"), [("tf32", 1e-2), ("tf32x3", 1e-5)])
def test_precision_of_float32(precision, tol):
    args = inputs(20, 3, 1000, 32)
    got = both(partial(fused_chunks, backend="triton", precision=precision), args)
    assert worst(got, both(twin, in_double(args))) < tol


def test_two_runs_give_the_same_bits():
    args = inputs(20, 2, 130, 5)
    assert all(map(torch.equal, both(fused, args), both(fused, args)))


def test_what_cannot_be_served_is_refused_with_the_reason():
    nu, Bb, C, u, _, _ = inputs(1, 2, 20, 3)
    with pytest.raises(ValueError, match=r"cannot serve this call: u is torch\.float64"):
        fused(nu, Bb, C, u.double())
    with pytest.raises(ValueError, match="200 modes, want at most 128"):
        fused(*system(1, 200), u[:, :1])
    with pytest.raises(ValueError, match=r"torch\.func"):
        torch.func.vmap(lambda v: fused(nu, Bb, C, v)[0])(u)
    with pytest.raises(ValueError, match=r"torch\.compile"):
        torch.compile(lambda v: fused(nu, Bb, C, v)[0], backend="eager")(u)
    with pytest.raises(ValueError, match="too large for 32-bit addresses"):
        fused(nu.new_zeros(1, 1) - 1, Bb[:1, :1], C[:1, :1], u[:1, :1, :1].expand(1 << 27, 1, 1))


def test_addresses_are_counted_with_the_segments():
    from s4lite.ops.triton.rows import _cut

    assert _cut((512, 512, 1024), 32, 64, None, "tf32").fits  # 2^28 states
    assert not _cut((1 << 16, 512, 1024), 32, 64, None, "tf32").fits
    assert not _cut((64, 4096, 1 << 16), 32, 64, 1 << 10, "tf32").fits
    assert not _cut((1 << 20, 1, 64), 16, 64, None, "tf32").fits  # a grid has 65,535 rows


def test_second_derivatives_in_bfloat16_see_the_operators():
    args, found = inputs(1, 2, 40, 3, BF16), []
    for function, given in [(partial(fused, T=16), args), (twin, in_double(args))]:
        given = [z.detach().clone().requires_grad_() for z in given]
        y, _ = function(*given[:5], D=given[5])
        (by_C,) = torch.autograd.grad(y.double().square().sum(), given[2], create_graph=True)
        found.append(torch.autograd.grad(by_C.abs().square().sum(), given[:3]))
    assert worst(list(found[0]), list(found[1])) < 5e-2


@pytest.mark.parametrize("how", [{}, {"segments": 3}])
@pytest.mark.parametrize("L", [9, 48, 53])
def test_second_derivatives(L, how):
    """Of y and of the state, in every argument: those of the twin."""
    args, found = inputs(2, 2, L, 3), []
    for function, given in [(partial(fused, T=16, **how), args), (twin, in_double(args))]:
        given = [z.detach().clone().requires_grad_() for z in given]
        y, x = function(*given[:5], D=given[5])
        loss = (y * draw(*y.shape, seed=4)).sum().square() + x.abs().square().sum()
        first = torch.autograd.grad(loss, given, create_graph=True)
        again = sum((z * draw(*z.shape, seed=6, dtype=C128).conj()).real.sum() for z in first)
        found.append([*(z.detach() for z in first), *torch.autograd.grad(again, given)])
    assert worst(*found) < 5e-6


def test_autocast_changes_nothing():
    args, found = inputs(2, 2, 70, 3), []
    for on in (False, True):
        given = [z.detach().clone().requires_grad_() for z in args]
        with torch.autocast(DEVICE, dtype=BF16, enabled=on):
            y, x = fused(*given[:5], D=given[5], T=16, segments=2)
        loss = y.square().sum() + x.abs().square().sum()
        found.append([y, x, *torch.autograd.grad(loss, given)])
    assert all(map(torch.equal, *found))


def test_compiled_the_plain_composition_serves():
    nu, Bb, C, u, x, D = inputs(2, 2, 70, 3)
    run = torch.compile(partial(fused_chunks, D=D), backend="aot_eager", fullgraph=True)
    assert worst([*run(nu, Bb, C, u, x)], [*twin(nu, Bb, C, u.double(), x, D=D)]) < 2e-6


@pytest.mark.parametrize("segments", [1, 3])
def test_slow_modes_keep_their_phase(segments):
    """Nothing fades, for 600 chunks: m and m^D need more digits than float32 has."""
    nu = 1j * torch.tensor([[0.0003, 0.011, 0.5, 700.0]], dtype=F64, device=DEVICE).to(C128)
    Bb, C, x = draw(1, 4, dtype=C128), draw(1, 4, seed=1, dtype=C128), draw(1, 1, 4, dtype=C128)
    u = torch.zeros(1, 1, 9600, device=DEVICE)
    y, last = fused(nu, Bb, C, u, x, T=16, segments=segments)
    bound = 1e-5 if DEVICE == "cuda" else 1e-4  # the interpreter rounds fma twice
    assert worst([y, last], [*twin(nu, Bb, C, u.double(), x)]) < bound


# ------------------------------------------------------------------ operators


@pytest.mark.parametrize("T", [16, 32, 64, 128])
@pytest.mark.parametrize(("H", "n"), [(1, 1), (3, 33), (2, 100)])
def test_operators_are_those_of_the_twin(H, n, T):
    from s4lite.ops.triton.operators import _ChunkOperators, _plain_operators

    N, found = max(16, 1 << (n - 1).bit_length()), []
    for make in (_ChunkOperators.apply, _plain_operators):
        given = [z.clone().requires_grad_() for z in system(H, n)]
        out = make(*given, N, T)
        signs = [draw(*z.shape, seed=i) for i, z in enumerate(out)]
        loss = sum((z * s).sum() for z, s in zip(out, signs, strict=True))
        found.append([*(z.detach() for z in out), *torch.autograd.grad(loss, given)])
    ours, want = found
    assert worst([*ours[:3], *ours[4:]], [*want[:3], *want[4:]]) < 1e-6
    m = [z[3][:, :2].double() + z[3][:, 2:].double() for z in found]
    assert (m[0] - m[1]).abs().max() < 2.0**-46
    assert not ours[1][:, :, n:].any() and not ours[2][:, :, n:].any()


def test_operators_of_fast_turning_modes():
    """700 radians a sample: a float32 angle would be off by 0.005 after 100 of them."""
    from s4lite.ops.triton.operators import _chunk_operators, chunk_operators

    nu = -1e-4 + 1j * torch.tensor([[700.0, -123.4, 3.2]], dtype=F64, device=DEVICE)
    Bb, C = draw(1, 3, dtype=C128), draw(1, 3, seed=1, dtype=C128)
    got = chunk_operators(nu, Bb, C, 128)
    K, I, O, _ = _chunk_operators(nu, Bb, C, 128)
    assert worst([got.K, got.I[:, :, :3], got.O[:, :, :3]], [K, I, O]) < 1e-6


def test_operators_of_all_layers_at_once():
    from s4lite.ops.triton.operators import chunk_operators

    layers = [inputs(2, 3, 70, 5) for _ in range(2)]
    layers[1][:3] = (0.7 * z for z in layers[1][:3])
    nu, Bb, C = (torch.stack(z) for z in zip(*(z[:3] for z in layers), strict=True))
    stacked = [z.clone().requires_grad_() for z in (nu, Bb, C)]
    made, loss, want = chunk_operators(*stacked, 16), 0.0, []
    for i, (*_, u, x, D) in enumerate(layers):
        how = {"D": D, "T": 16}
        y, last = fused(nu[i], Bb[i], C[i], u, x, operators=made.layer(i), **how)
        alone = fused(nu[i], Bb[i], C[i], u, x, **how)
        assert torch.equal(y, alone[0]) and torch.equal(last, alone[1])
        loss = loss + y.square().sum()
        own = [z[i].clone().requires_grad_() for z in (nu, Bb, C)]
        want.append(torch.autograd.grad(fused(*own, u, x, **how)[0].square().sum(), own))
    got = torch.autograd.grad(loss, stacked)
    assert worst([*got], [torch.stack(z) for z in zip(*want, strict=True)]) < 1e-6


def test_bad_operators():
    from s4lite.ops.triton.operators import chunk_operators

    nu, Bb, C, u, _, _ = inputs(1, 2, 20, 3)
    with pytest.raises(ValueError, match="want operators for T = 64, got T = 16"):
        fused(nu, Bb, C, u, operators=chunk_operators(nu, Bb, C, 16))
    with pytest.raises(ValueError, match="want operators of 2 systems of 3 modes"):
        fused(nu, Bb, C, u, operators=chunk_operators(nu[:1], Bb[:1], C[:1]))
    with pytest.raises(ValueError, match="want T 16, 32, 64 or 128, got 48"):
        chunk_operators(nu, Bb, C, 48)
    with pytest.raises(ValueError, match="n = 200 modes, want at most 128"):
        chunk_operators(*system(1, 200))


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"T": 48}, ValueError, "want T 16, 32, 64 or 128, got 48"),
        ({"precision": "fp8"}, ValueError, 'want precision "tf32x3"'),
        ({"segments": 0}, ValueError, "want segments >= 1"),
        ({"backend": "cuda"}, ValueError, 'want backend "auto", "torch" or "triton"'),
        ({"u": torch.zeros(2, 0)}, ValueError, "the length of u"),
        ({"C": torch.zeros(0, 3, dtype=C128), "u": torch.zeros(7)}, ValueError, "axes|empty"),
        ({"u": torch.zeros(3, 7)}, ValueError, "leading axes that broadcast"),
        ({"u": torch.zeros(2, 7, dtype=C128)}, TypeError, "want u and D real"),
        ({"x": torch.zeros(2, 3)}, TypeError, "want x complex"),
        ({"D": torch.zeros(3)}, ValueError, "leading axes that broadcast"),
    ],
)
def test_bad_input(change, error, message):
    nu, Bb, C = (z.cpu() for z in system(2, 3))
    call = {"nu": nu, "Bb": Bb, "C": C, "u": torch.zeros(2, 7)} | change
    with pytest.raises(error, match=message):
        fused_chunks(**call)
