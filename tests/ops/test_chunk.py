"""Chunks: the recurrence, the convolution and everything between, with a state at both ends."""

import math

import pytest
import torch
from torch import Tensor
from torch.autograd import gradcheck, gradgradcheck

from s4lite.init.diagonal import s4d_inv, s4d_lin
from s4lite.init.nplr import nplr
from s4lite.ops import chunk_walk
from s4lite.ops.chunk import chunks_naive, diag_chunks, dplr_chunks
from s4lite.ops.conv import causal_conv
from s4lite.ops.diag_state import diag_last_state, diag_response, diag_step
from s4lite.ops.dplr import dplr_discretize, dplr_kernel
from s4lite.ops.dplr_state import dplr_last_state, dplr_response
from s4lite.ops.recurrence import recur
from s4lite.ops.vandermonde import log_discretize, vandermonde

F32, F64, C64, C128, BF16 = (
    torch.float32,
    torch.float64,
    torch.complex64,
    torch.complex128,
    torch.bfloat16,
)
LENGTHS = [1, 2, 99, 257]
SIZES = [None, 1, 2, 13, 64, 300]
DT = torch.tensor([0.1, 0.01, 0.001], dtype=F64)


def draw(*shape: int, seed: int = 0, dtype: torch.dtype = F64) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=dtype)


def close(got: Tensor, want: Tensor, tol: float = 1e-12) -> None:
    """Equal up to tol times the largest entry."""
    assert got.shape == want.shape and got.dtype == want.dtype
    gap = (got - want).abs().max() / want.abs().max()
    assert gap < tol, f"off by {gap:.1e}"


def off(got: Tensor, want: Tensor) -> float:
    return ((got - want).abs().max() / want.abs().max()).item()


def plane(z: Tensor) -> Tensor:
    """The real coordinates of a half spectrum."""
    return math.sqrt(2) * torch.cat([z.real, z.imag], -1)


def diagonal(N: int = 8, H: int = 3, poles=s4d_lin, seed: int = 1) -> tuple[Tensor, ...]:
    """nu, Bb, C of H systems, and the same as a dense system of the full spectrum."""
    nu, phi = log_discretize(poles(N), DT[:H])
    Bb, C = phi * draw(H, N // 2, seed=seed, dtype=C128), draw(H, N // 2, seed=7, dtype=C128)
    dense = [torch.cat([z, z.conj()], -1) for z in (nu.exp(), Bb, C)]
    return (nu, Bb, C), (torch.diag_embed(dense[0]), *dense[1:])


def low_rank(N: int = 8, H: int = 3, measure: str = "legs") -> tuple[Tensor, ...]:
    """Lambda, P, B, C, dt of H systems, and the same as a dense real system."""
    Lambda, P, B, _ = nplr(measure, N)
    C = draw(H, N // 2, seed=7, dtype=C128)
    row = math.sqrt(2) * torch.cat([C.real, -C.imag], -1)
    return (Lambda, P, B, C, DT[:H]), (*dplr_discretize(Lambda, P, B, DT[:H]), row)


def packings(L: int) -> list:
    mixed = torch.zeros(2, L, dtype=torch.bool)
    mixed[0, [0, L // 3, L // 2]] = True  # the second row has no start at all
    often = torch.rand(2, L, generator=torch.Generator().manual_seed(3)) < 0.3
    return [None, [], [0], [L - 1], sorted({L // 3, L // 2}), mixed, often]


# ------------------------------------------------------------------ the judge


@pytest.mark.parametrize("L", [1, 2, 20])
@pytest.mark.parametrize("start", [True, False])
def test_the_judge_is_the_recurrence(L, start):
    _, dense = low_rank()
    u, x = draw(2, 3, L), draw(2, 3, 8, seed=2) if start else None
    for got, want in zip(chunks_naive(*dense, u, x), recur(*dense, u, x), strict=True):
        close(got, want)


def test_the_judge_runs_packed_sequences_as_if_each_were_alone():
    _, dense = low_rank()
    u, x = draw(2, 3, 20), draw(2, 3, 8, seed=2)
    parts = [recur(*dense, u[..., :7], x), recur(*dense, u[..., 7:8]), recur(*dense, u[..., 8:])]
    y, last = chunks_naive(*dense, u, x, starts=[7, 8])
    close(y, torch.cat([part[0] for part in parts], -1))
    close(last, parts[-1][1])


# ------------------------------------------------------------------ exactness


@pytest.mark.parametrize("L", LENGTHS)
@pytest.mark.parametrize("T", SIZES)
@pytest.mark.parametrize("start", [True, False])
def test_diagonal_chunks_are_the_materialised_system(L, T, start):
    system, dense = diagonal()
    u, x = draw(2, 3, L), draw(2, 3, 4, seed=2, dtype=C128) if start else None
    whole = torch.cat([x, x.conj()], -1) if start else None
    for starts in packings(L):
        y, last = diag_chunks(*system, u, x, T=T, starts=starts)
        want, end = chunks_naive(*dense, u, whole, starts=starts)
        close(y, want.real.contiguous())
        close(last, end[..., :4])


@pytest.mark.parametrize("L", LENGTHS)
@pytest.mark.parametrize("T", SIZES)
@pytest.mark.parametrize("start", [True, False])
def test_low_rank_chunks_are_the_materialised_system(L, T, start):
    system, dense = low_rank()
    u, x = draw(2, 3, L), draw(2, 3, 4, seed=2, dtype=C128) if start else None
    for starts in packings(L):
        y, last = dplr_chunks(*system, u, x, T=T, starts=starts)
        want, end = chunks_naive(*dense, u, plane(x) if start else None, starts=starts)
        close(y, want)
        close(plane(last), end)


@pytest.mark.parametrize("measure", ["legs", "legt", "lagt", "fout"])
def test_the_four_views_agree(measure):
    L, (system, dense) = 1023, low_rank(16, measure=measure)
    Lambda, P, B, C, dt = system
    u, x = draw(2, 3, L), draw(2, 3, 8, seed=2, dtype=C128)
    y, last = dplr_chunks(*system, u, x)
    close(y, recur(*dense, u, plane(x))[0], 1e-11)
    by_fft = causal_conv(u, dplr_kernel(*system, L)) + dplr_response(Lambda, P, C, dt, x, L)
    close(y, by_fft, 1e-11)
    close(last, dplr_last_state(Lambda, P, B, dt, u, x), 1e-11)


@pytest.mark.parametrize("poles", [s4d_lin, s4d_inv])
def test_the_four_views_agree_on_a_diagonal_system(poles):
    L, ((nu, Bb, C), _) = 1023, diagonal(16, poles=poles)
    u, x = draw(2, 3, L), draw(2, 3, 8, seed=2, dtype=C128)
    y, last = diag_chunks(nu, Bb, C, u, x)
    close(y, causal_conv(u, vandermonde(C * Bb, nu, L)) + diag_response(nu, C, x, L))
    close(last, diag_last_state(nu, Bb, u, x))
    for k in range(40):
        y_k, x = diag_step(nu, Bb, C, u[..., k], x)
        close(y[..., k].contiguous(), y_k)


def test_pieces_are_the_whole():
    (nu, Bb, C), _ = diagonal()
    system, _ = low_rank()
    u, x = draw(2, 3, 200), draw(2, 3, 4, seed=2, dtype=C128)
    runs = [lambda u, x: diag_chunks(nu, Bb, C, u, x), lambda u, x: dplr_chunks(*system, u, x)]
    for run in runs:
        want, end = run(u, x)
        y, state = [], x
        for piece in u.split([64, 1, 63, 70, 2], -1):
            y_piece, state = run(piece, state)
            y.append(y_piece)
        close(torch.cat(y, -1), want)
        close(state, end)


def test_nothing_crosses_a_start_and_nothing_comes_from_the_future():
    (nu, Bb, C), _ = diagonal()
    system, _ = low_rank()
    u, x = draw(2, 3, 150), draw(2, 3, 4, seed=2, dtype=C128)
    other = u.clone()
    other[..., :70] = 1e6 * draw(2, 3, 70, seed=5)
    for run in (diag_chunks, dplr_chunks):
        args = (nu, Bb, C) if run is diag_chunks else system
        y, last = run(*args, u, x, starts=[70])
        y_other, last_other = run(*args, other, 1e6 * x, starts=[70])
        assert torch.equal(y[..., 70:], y_other[..., 70:]) and torch.equal(last, last_other)
        assert (y - y_other)[..., :70].abs().max() > 1
        later = torch.cat([u[..., :100], other[..., :50]], -1)
        assert torch.equal(run(*args, u, x)[0][..., :100], run(*args, later, x)[0][..., :100])


def test_a_list_of_starts_is_a_mask_in_every_row():
    (nu, Bb, C), _ = diagonal()
    u = draw(2, 3, 90)
    mask = torch.zeros(2, 90, dtype=torch.bool)
    mask[:, [5, 33]] = True
    want = diag_chunks(nu, Bb, C, u, starts=mask)
    for starts in ([33, 5], (5, 33, 33), torch.tensor([5, 33])):
        for got, w in zip(diag_chunks(nu, Bb, C, u, starts=starts), want, strict=True):
            assert torch.equal(got, w)


SHAPES = [((), (), (40,), ()), ((3,), (3,), (40,), (3,)), ((), (), (2, 3, 40), (3,))]
SHAPES += [((3,), (2, 1), (5, 1, 1, 40), (3,)), ((1,), (3,), (2, 3, 40), (2, 1))]


@pytest.mark.parametrize("shapes", SHAPES)
def test_leading_axes_broadcast(shapes):
    system, response, signal, state = shapes
    nu, phi = log_discretize(s4d_lin(4), torch.full(system, 0.05, dtype=F64))
    C, x = draw(*response, 2, dtype=C128), draw(*state, 2, seed=2, dtype=C128)
    u = draw(*signal, seed=3)
    full = torch.broadcast_shapes(system, response, signal[:-1], state)
    y, last = diag_chunks(nu, phi, C, u, x, T=7)
    want = [z.expand(*full, -1) for z in (nu, phi, C, u, x)]
    close(y, diag_chunks(*want, T=7)[0])
    close(last, diag_chunks(*want, T=7)[1])
    Lambda, P, B, _ = nplr("legs", 4)
    y, last = dplr_chunks(Lambda, P, B, C, torch.full(system, 0.05, dtype=F64), u, x, T=7)
    assert y.shape == (*full, 40) and last.shape == (*full, 2)
    args = (Lambda, P, B, C.expand(*full, -1), torch.full(full, 0.05, dtype=F64))
    close(y, dplr_chunks(*args, u.expand(*full, -1), x.expand(*full, -1), T=7)[0])


def test_the_chunk_is_one_step_if_it_has_one_sample_and_the_convolution_if_it_has_all():
    W, _, M = (z[0] for z in chunk_parts(1))
    (nu, Bb, C), _ = diagonal(H=1)
    close(M, nu[0].exp())
    close(W[0, 0], 2 * (C * Bb).real.sum())
    close(W[0, 1::2] + 1j * W[0, 2::2], Bb[0])
    W, *_ = (z[0] for z in chunk_parts(50))
    close(draw(50) @ W[:, :50], causal_conv(draw(50), vandermonde(C * Bb, nu, 50))[0])


def chunk_parts(T: int) -> tuple[Tensor, ...]:
    from s4lite.ops.chunk import _diag_operators

    return _diag_operators(*diagonal(H=1)[0], T, F64)


@pytest.mark.parametrize("L, T", [(1, 1), (5, 8), (64, 64), (200, 64)])
def test_chunks_are_no_longer_than_the_rule_or_the_signal(L, T):
    u = draw(2, 3, L)
    for run, args in [(diag_chunks, diagonal()[0]), (dplr_chunks, low_rank()[0])]:
        assert torch.equal(run(*args, u)[0], run(*args, u, T=T)[0])
    close(dplr_chunks(*low_rank(128, 1)[0], u)[0], dplr_chunks(*low_rank(128, 1)[0], u, T=3)[0])


def test_short_sequences_are_cut_short():
    """Sequences of two samples in chunks of 64 would cost 32 times the memory and the work."""
    from s4lite.ops.chunk import _cut_up

    assert _cut_up(None, list(range(0, 100, 2)), draw(2, 3, 100), 64)[0] == 2
    assert _cut_up(None, [50], draw(2, 3, 100), 64)[0] == 64
    assert _cut_up(None, torch.ones(2, 100, dtype=torch.bool), draw(2, 3, 100), 64)[0] == 1


# ------------------------------------------------------------------ derivatives


def leaves(*z: Tensor) -> list[Tensor]:
    return [w.detach().clone().requires_grad_() for w in z]


@pytest.mark.parametrize(
    "starts", [None, [3], torch.tensor([[0, 0, 1, 0, 1, 0, 0], [1] + 6 * [0]]).bool()]
)
def test_first_and_second_derivatives(starts):
    (nu, Bb, C), _ = diagonal(4, 2)
    system, _ = low_rank(4, 2)
    u, x = draw(2, 2, 7), draw(2, 2, 2, seed=2, dtype=C128)
    args = leaves(nu, Bb, C, u, x)
    assert gradcheck(lambda *a: diag_chunks(*a, T=3, starts=starts), args)
    assert gradgradcheck(lambda *a: diag_chunks(*a, T=3, starts=starts), args)
    args = leaves(*system, u, x)
    assert gradcheck(lambda *a: dplr_chunks(*a, T=3, starts=starts), args)
    assert gradgradcheck(lambda *a: dplr_chunks(*a, T=3, starts=starts), args)


def test_derivatives_where_axes_broadcast():
    nu, phi = log_discretize(s4d_lin(4), DT[:1])
    args = leaves(nu, phi, draw(2, 2, dtype=C128), draw(3, 1, 7), draw(2, 2, seed=2, dtype=C128))
    assert gradcheck(lambda *a: diag_chunks(*a, T=3), args)


@pytest.mark.parametrize("L, group", [(300, 1), (300, 3), (7, 1), (64, 2)])
def test_the_lean_backward_is_autograds(L, group):
    from s4lite.ops.chunk import _diag_operators, _dplr_operators
    from s4lite.ops.dplr_state import _squares

    _, (Ab, Bb, row) = low_rank()
    cut = chunk_walk._Cut(16, group, 1, F64, None)
    u = draw(2, 3, L)
    for system, x in [
        (_diag_operators(*diagonal()[0], 16, F64), draw(3, 2, 4, dtype=C128)),
        (_dplr_operators(Ab, Bb, row, _squares(Ab, 16), 16, F64), draw(3, 2, 8)),
    ]:
        args, grads = leaves(u, x, *system), []
        for run in (chunk_walk._Chunks.apply, chunk_walk._in_one):
            out = run(cut, *args)
            weights = [draw(*z.shape, seed=i, dtype=z.dtype) for i, z in enumerate(out)]
            grads.append(torch.autograd.grad(out, args, weights, materialize_grads=True))
        for got, want in zip(*grads, strict=True):
            assert (got - want).abs().max() <= 1e-13 * want.abs().max()


def test_torch_func_sees_the_same_derivative():
    (nu, Bb, C), _ = diagonal()
    u, w = draw(2, 3, 90), draw(2, 3, 90, seed=4)
    got = torch.func.grad(lambda C: (diag_chunks(nu, Bb, C, u)[0] * w).sum())(C)
    (C_leaf,) = leaves(C)
    (want,) = torch.autograd.grad((diag_chunks(nu, Bb, C_leaf, u)[0] * w).sum(), C_leaf)
    close(got, want)


def test_the_backward_keeps_a_state_only_every_few_chunks():
    """What autograd holds for a signal of 8192 samples: the signal itself and little more."""
    kept = {}

    def hold(z: Tensor) -> Tensor:
        kept[z.untyped_storage().data_ptr()] = z.untyped_storage().nbytes()
        return z

    (nu, Bb, C), _ = diagonal(8)
    u = draw(1, 3, 1 << 15, dtype=F32).requires_grad_()
    with torch.autograd.graph.saved_tensors_hooks(hold, lambda z: z):
        diag_chunks(nu, Bb, C.to(C64).requires_grad_(), u)
    assert sum(kept.values()) - 4 * u.numel() < 0.6 * 4 * u.numel()


@pytest.mark.parametrize("shared", [False, True])
def test_matrices_made_again_in_blocks_are_the_same(shared):
    """From 32,768 samples a system on, 16 channels at a time: values and derivatives as before."""
    H, L = 18, 1 << 15
    Lambda, P, B, _ = nplr("legs", 4)
    args = [Lambda, P, B.expand(H, -1), draw(H, 2, dtype=C128)]
    args += [torch.tensor(0.05, dtype=F64) if shared else torch.linspace(0.01, 0.1, H, dtype=F64)]
    u, w, found = draw(H, L + 5), draw(H, L + 5, seed=4), []
    for starts in (None, [0]):  # with starts, another last hand-over
        for pieces in (1, 3):
            given = leaves(*args)
            y, x = [], None
            for part in u.split(-(-u.shape[-1] // pieces), -1):  # thirds are below the threshold
                out, x = dplr_chunks(*given, part, x, T=8, starts=starts if x is None else None)
                y.append(out)
            loss = (torch.cat(y, -1) * w).sum() + x.real.sum()
            found.append([x, *torch.autograd.grad(loss, given)])
    for other in found[1:]:
        for got, want in zip(other, found[0], strict=True):
            close(got, want, 1e-11)


# ------------------------------------------------------------------ precision


def naive(dense: tuple[Tensor, ...], u: Tensor, dtype: torch.dtype) -> Tensor:
    return chunks_naive(*(z.to(dtype) for z in dense), u)[0].real.contiguous()


@pytest.mark.parametrize("L", [99, 1023])
@pytest.mark.parametrize("T", [None, 16, 200])
def test_float32_is_as_exact_as_the_materialised_twin(L, T):
    """Outputs and gradients: at most twice the twin's error, or 1e-6."""
    (nu, Bb, C), dense = diagonal(16)
    system, real = low_rank(16)
    u, g = draw(2, 3, L), draw(2, 3, L, seed=4)

    def both(run, u, C):
        u, C = leaves(u, C)
        y = run(u, C)
        return [y.detach(), *torch.autograd.grad(y, (u, C), g.to(y.dtype))]

    def twin(u, C, dtype=C64):
        full = torch.cat([C, C.conj()], -1)
        return chunks_naive(dense[0].to(dtype), dense[1].to(dtype), full, u)[0].real

    truth = both(lambda u, C: twin(u, C, C128), u, C)
    low = both(twin, u.float(), C.to(C64))
    ours = both(lambda u, C: diag_chunks(nu, Bb, C, u, T=T)[0], u.float(), C.to(C64))
    for got, bad, want in zip(ours, low, truth, strict=True):
        assert off(got, want) <= max(2 * off(bad, want), 1e-6)
    want, bad = naive(real, u, F64), naive(real, u.float(), F32)
    assert off(dplr_chunks(*system, u.float(), T=T)[0], want) <= max(2 * off(bad, want), 1e-6)


def test_a_mode_that_never_fades_does_not_drift():
    """Handed on in float32, the state would be off by 1e-5 after 1024 chunks."""
    L = 1 << 16
    nu, phi = log_discretize(1j * s4d_lin(64).imag, DT)
    C, u = draw(3, 32, dtype=C128), draw(3, L)
    want = causal_conv(u, vandermonde(C * phi, nu, L))
    assert off(diag_chunks(nu, phi, C, u.float())[0], want) < 1.5e-6


def test_bfloat16_signals_are_computed_in_float32():
    (nu, Bb, C), _ = diagonal()
    system, _ = low_rank()
    u = draw(2, 3, 150).to(BF16)
    for run, args in [(diag_chunks, (nu, Bb, C.to(C64))), (dplr_chunks, system)]:
        (v,) = leaves(u)
        y, last = run(*args, v)
        want, end = run(*args, u.float())
        assert y.dtype == BF16 and last.dtype == C64
        assert torch.equal(y, want.to(BF16)) and torch.equal(last, end)
        y.float().square().sum().backward()
        assert v.grad.dtype == BF16 and v.grad.isfinite().all()


def test_autocast_changes_nothing():
    u = draw(2, 3, 150, dtype=F32)
    for run, args in [(diag_chunks, diagonal()[0]), (dplr_chunks, low_rank()[0])]:
        results = []
        for on in (False, True):
            (v,) = leaves(u)
            with torch.autocast("cpu", dtype=BF16, enabled=on):
                y, _ = run(*args, v)
                results.append([y, *torch.autograd.grad(y.square().sum(), v)])
        assert all(torch.equal(a, b) for a, b in zip(*results, strict=True))


def test_compiled_graphs_are_whole_and_give_the_same():
    u = draw(2, 3, 150)
    for run, args in [(diag_chunks, diagonal()[0]), (dplr_chunks, low_rank()[0])]:
        compiled = torch.compile(run, backend="aot_eager", fullgraph=True)
        for got, want in zip(compiled(*args, u), run(*args, u), strict=True):
            close(got, want)


def test_runs_are_deterministic():
    (nu, Bb, C), _ = diagonal()
    u = draw(2, 3, 1023, dtype=F32)
    results = []
    for _ in range(2):
        args = leaves(nu, Bb, C, u)
        y, last = diag_chunks(*args, starts=[500])
        results.append([y, last, *torch.autograd.grad(y.sum() + last.abs().sum(), args)])
    assert all(torch.equal(a, b) for a, b in zip(*results, strict=True))


# ------------------------------------------------------------------ bad input

(NU, BB, C_ROW), _ = diagonal()
SYSTEM, _ = low_rank()
U = draw(2, 3, 10)
BAD = [
    ({"u": U.to(C128)}, TypeError, "want u real, got torch.complex128"),
    ({"u": U.long()}, TypeError, "want u of a floating or complex dtype"),
    ({"u": U[..., :0]}, ValueError, "want the length of u >= 1, got 0"),
    ({"u": draw(2, 4, 10)}, ValueError, "want leading axes that broadcast"),
    ({"x": draw(3, 4)}, TypeError, "want x complex, got torch.float64"),
    ({"x": draw(3, 5, dtype=C128)}, ValueError, "of one width n >= 1"),
    ({"T": 0}, ValueError, "want T >= 1, got 0"),
    ({"T": 2.0}, TypeError, "want T as an int, got float"),
    ({"starts": [10]}, ValueError, "want starts from 0 to L - 1 = 9"),
    ({"starts": [-1]}, ValueError, "want starts from 0 to L - 1 = 9"),
    ({"starts": [1.5]}, TypeError, "want starts as booleans \\(batch, L\\) or a list of ints"),
    ({"starts": [True]}, TypeError, "want starts as booleans \\(batch, L\\) or a list of ints"),
    ({"starts": 3}, TypeError, "want starts as booleans \\(batch, L\\) or a list of ints"),
    ({"starts": torch.zeros(2, 9).bool()}, ValueError, "want starts \\(batch, L\\)"),
    ({"starts": torch.zeros(2, 10)}, TypeError, "want starts as booleans"),
]


@pytest.mark.parametrize("change, error, message", BAD)
def test_bad_input_is_refused(change, error, message):
    given = {"u": U, "x": None} | change
    u, x = given.pop("u"), given.pop("x")
    with pytest.raises(error, match=message):
        diag_chunks(NU, BB, C_ROW, u, x, **given)
    with pytest.raises(error, match=message):
        dplr_chunks(*SYSTEM, u, x, **given)


def test_bad_systems_are_refused():
    with pytest.raises(ValueError, match="with Re nu <= 0"):
        diag_chunks(-NU, BB, C_ROW, U)
    with pytest.raises(TypeError, match="want nu complex"):
        diag_chunks(NU.real, BB, C_ROW, U)
    Lambda, P, B, C, dt = SYSTEM
    with pytest.raises(ValueError, match="Re Lambda <= 0"):
        dplr_chunks(-Lambda, P, B, C, dt, U)
    with pytest.raises(ValueError, match="want dt finite and > 0"):
        dplr_chunks(Lambda, P, B, C, -dt, U)
    with pytest.raises(ValueError, match="want leading axes that broadcast"):
        chunks_naive(*low_rank()[1], draw(2, 4, 10))
    with pytest.raises(TypeError, match="want starts as booleans"):
        chunks_naive(*low_rank()[1], U, starts=["a"])
