"""Streaming: S4 and S4D in pieces, in steps, with gradients, at other rates, at irregular times."""

import copy
import itertools
import math

import pytest
import torch
from torch import Tensor, nn
from walking import close, draw, walk

from s4lite.nn.layer import S4, S4D
from s4lite.nn.model import SequenceModel, Stack
from s4lite.ops.checks import can_look

F32, F64 = torch.float32, torch.float64
S4_INITS = [(S4, {"init": init}) for init in ("legs", "legt", "lagt", "fout")]
S4D_INITS = [
    (S4D, {"init": init, "disc": disc})
    for init in ("lin", "inv", "real", "random", "legs")
    for disc in ("zoh", "bilinear")
]
BOTH = [(S4, {}), (S4D, {"disc": "zoh"}), (S4D, {"disc": "bilinear"})]


def named(case) -> str:
    return "-".join([case[0].__name__, *case[1].values()])


every = pytest.mark.parametrize("case", S4_INITS + S4D_INITS, ids=named)
both = pytest.mark.parametrize("case", BOTH, ids=named)
LINEAR = {"activation": None, "mixer": None}


def make(case, d_model: int = 3, d_state: int = 16, *, dtype=F64, trained: bool = False, **options):
    """A layer of one kind; `trained`: all parameters have moved away from where they start."""
    kind, chosen = case
    torch.manual_seed(5)
    layer = kind(d_model, d_state, dtype=dtype, **chosen, **options)
    if trained:
        with torch.no_grad():
            for p in layer.parameters():
                p.add_(0.3 * torch.randn_like(p))
    return layer.eval()


def some_state(layer: nn.Module, batch: int = 2, seed: int = 3) -> Tensor:
    like = layer.initial_state(batch)
    g = torch.Generator().manual_seed(seed)
    return torch.randn(like.shape, generator=g, dtype=torch.complex128).to(like.dtype)


@torch.no_grad()
def in_pieces(layer: nn.Module, u: Tensor, chunk: int, state: Tensor | None, **run):
    y = []
    for piece in u.split(chunk, 1):
        out, state = layer(piece, state, return_state=True, **run)
        y.append(out)
    return torch.cat(y, 1), state


# ------------------------------------------------------------------ three ways, any pieces


@every
@pytest.mark.parametrize("dtype", [F64, F32])
@pytest.mark.parametrize("trained", [False, True])
def test_steps_chunks_and_the_whole_agree_from_a_random_state(case, dtype, trained):
    layer, tol = make(case, dtype=dtype, trained=trained), 1e-10 if dtype == F64 else 2e-5
    u, start = draw(2, 129, 3, dtype=dtype), some_state(layer)
    with torch.no_grad():
        y, end = layer(u, start, return_state=True)
        assert (y - layer(u)).abs().max() > 1e-2 * y.abs().max()  # the start is heard
    for chunk in (7, 64):
        pieces, last = in_pieces(layer, u, chunk, start)
        close(pieces, y, tol)
        close(last, end, tol)
    pieces, last = in_pieces(layer, u[:, :12], 1, start)
    close(pieces, y[:, :12], tol)
    stepped, last = walk(layer, u, start)
    close(stepped, y, tol)
    close(last, end, tol)


@every
@pytest.mark.parametrize("rate", [0.5, 2.0])
def test_steps_chunks_and_the_whole_agree_at_other_rates(case, rate):
    layer = make(case, trained=True)
    u, start = draw(2, 70, 3), some_state(layer)
    with torch.no_grad():
        y, end = layer(u, start, rate=rate, return_state=True)
        assert (y - layer(u, start)).abs().max() > 1e-3 * y.abs().max()
    for got, last in (in_pieces(layer, u, 33, start, rate=rate), walk(layer, u, start, rate=rate)):
        close(got, y, 1e-10)
        close(last, end, 1e-10)


@both
def test_a_state_does_not_grow_and_is_all_that_is_needed(case):
    """Two layers that share weights: one heard the past, the other only got the state, by value."""
    layer = make(case)
    past, future = draw(2, 200, 3), draw(2, 50, 3, seed=2)
    with torch.no_grad():
        _, state = layer(past, return_state=True)
        assert state.shape == layer.initial_state(2).shape
        other = copy.deepcopy(layer)
        got = other(future, state.clone())
        close(got, layer(torch.cat([past, future], 1))[:, 200:], 1e-10)


@both
def test_prefill_then_steps(case):
    """A prompt in one go, then a loop that feeds on its own outputs; or all of it in steps."""
    model = SequenceModel(2, 2, 8, 2, pool=None, layer=case[0], d_state=16, dtype=F64, **case[1])
    model.eval()
    prompt = draw(1, 60, 2)

    @torch.no_grad()
    def speak(y_t, state):
        said = []
        for _ in range(20):
            said.append(y_t)
            y_t, state = model.step(y_t, state)
        return torch.stack(said, 1)

    with torch.no_grad():
        y, state = model(prompt, return_state=True)
    prefilled = speak(y[:, -1], state)
    y, state = walk(model, prompt)
    close(prefilled, speak(y[:, -1], state), 1e-10)


# ------------------------------------------------------------------ gradients


def slopes(layer, u, start, cuts, *, detach=False):
    start, u = start.clone().requires_grad_(), u.clone().requires_grad_()
    state, loss = start, 0.0
    for i, (a, b) in enumerate(itertools.pairwise(cuts)):
        state = state.detach() if detach and i else state
        y, state = layer(u[:, a:b], state, return_state=True)
        loss = loss + (y * y.detach().cos()).sum()
    return torch.autograd.grad(loss, [start, u, *layer.parameters()], materialize_grads=True)


@every
def test_gradients_through_a_kept_state_are_those_of_the_whole(case):
    """The outputs are the same with a detached state: only gradients tell the two apart."""
    layer = make(case)
    u, start = draw(2, 60, 3), some_state(layer)
    whole = slopes(layer, u, start, [0, 60])
    for cuts in ([0, 25, 60], [0, 1, 30, 31, 60]):
        for got, want in zip(slopes(layer, u, start, cuts), whole, strict=True):
            close(got, want, 1e-10)
    cut = slopes(layer, u, start, [0, 25, 60], detach=True)
    off = [(a - b).abs().max() / b.abs().max() for a, b in zip(cut, whole, strict=True)]
    assert off[0] > 1e-3 and off[1] > 1e-3  # by the start, and by the input


@both
def test_truncation_loses_nothing_of_C_and_D(case):
    """Their derivatives need states, which are handed on, and no adjoint (activation None)."""
    layer = make(case, **LINEAR)
    u, start = draw(2, 60, 3), some_state(layer)
    names = ["start", "u", *(name for name, _ in layer.named_parameters())]
    whole, cut = (slopes(layer, u, start, [0, 25, 60], detach=d) for d in (False, True))
    off = {
        name: ((a - b).abs().max() / b.abs().max()).item()
        for name, a, b in zip(names, cut, whole, strict=True)
    }
    assert off["kernel.C"] < 1e-12 and off["D"] < 1e-12
    assert min(off[name] for name in off if name.startswith("kernel") and name != "kernel.C") > 1e-3


@both
def test_gradients_through_steps_are_those_of_the_whole(case):
    layer = make(case)
    u, start = draw(2, 30, 3), some_state(layer)
    whole = slopes(layer, u, start, [0, 30])
    leaves = [start.clone().requires_grad_(), u.clone().requires_grad_()]
    state, loss = leaves[0], 0.0
    for u_t in leaves[1].unbind(1):
        y_t, state = layer.step(u_t, state)
        loss = loss + (y_t * y_t.detach().cos()).sum()
    got = torch.autograd.grad(loss, [*leaves, *layer.parameters()])
    for a, b in zip(got, whole, strict=True):
        close(a, b, 1e-10)


@both
def test_gradients_at_irregular_times_through_a_cut(case):
    layer = make(case)
    u, dt, start = draw(2, 60, 3), gaps(2, 60), some_state(layer)
    results = []
    for cuts in ([0, 60], [0, 25, 60]):
        leaves = [x.clone().requires_grad_() for x in (start, u, dt)]
        state, y = leaves[0], []
        for a, b in itertools.pairwise(cuts):
            out, state = layer(leaves[1][:, a:b], state, dt=leaves[2][:, a:b], return_state=True)
            y.append(out)
        loss = torch.cat(y, 1).square().sum()
        results.append(torch.autograd.grad(loss, [*leaves, *layer.parameters()]))
    for got, want in zip(*results, strict=True):
        close(got, want, 1e-10)


# ------------------------------------------------------------------ rates


def smooth(count: int) -> Tensor:
    """A smooth start from rest and two tones, (1, count, 3) over 20 units of time."""
    t = torch.linspace(0, 20, count + 1, dtype=F64)[1:, None]
    tones = torch.sin(1.3 * t + torch.arange(3)) + torch.cos(0.4 * t)
    return (t**4 / (1 + t**4) * tones)[None]


def no_wire(case, **options):
    layer = make(case, dt_min=0.05, dt_max=0.2, **LINEAR, **options)
    nn.init.zeros_(layer.D)  # a wire knows nothing of time
    return layer


@torch.no_grad()
def rate_gap(layer, count: int, means: bool, from_state: bool) -> float:
    u, rate, cut = smooth(count), 200 / count, count // 2 if from_state else 0
    fine = layer(u, rate=rate)[:, cut + 1 :: 2]
    state = layer(u[:, :cut], rate=rate, return_state=True)[1] if from_state else None
    rest = u[:, cut:]
    rest = (rest[:, 0::2] + rest[:, 1::2]) / 2 if means else rest[:, 1::2]
    return ((layer(rest, state, rate=2 * rate) - fine).norm() / fine.norm()).item()


@pytest.mark.parametrize("case", [*BOTH, (S4, {"init": "legt"}), (S4, {"init": "fout"})], ids=named)
@pytest.mark.parametrize("from_state", [False, True])
@pytest.mark.parametrize(("means", "order"), [(False, 1), (True, 2)])
def test_rate_two_has_an_order(case, from_state, means, order):
    """Not "within 5 %": a cached C-tilde or a halved clock would stay there at every step."""
    layer = no_wire(case)
    errors = [rate_gap(layer, count, means, from_state) for count in (800, 1600, 3200, 6400)]
    slopes = [math.log2(a / b) for a, b in itertools.pairwise(errors)]
    assert all(abs(slope - order) < 0.12 for slope in slopes), slopes


@both
def test_the_first_order_term_is_half_a_sample_of_lead(case):
    layer, count = no_wire(case), 6400
    with torch.no_grad():
        u, rate = smooth(count), 200 / count
        fine = layer(u, rate=rate)
        gap = layer(u[:, 1::2], rate=2 * rate)[:, 1:-1] - fine[:, 3:-1:2]
        foreseen = (fine[:, 4::2] - fine[:, 2:-2:2]) / 4  # half a step times the slope
    assert (gap - foreseen).norm() < 0.02 * gap.norm()


@pytest.mark.parametrize("case", [(S4D, {"disc": "zoh", "init": i}) for i in ("lin", "inv")])
def test_under_hold_rate_two_is_two_steps_with_the_input_held(case):
    layer = make(case)
    u, start = draw(2, 40, 3), some_state(layer)
    with torch.no_grad():
        held, state = layer(u.repeat_interleave(2, 1), start, return_state=True)
        y, end = layer(u, start, rate=2.0, return_state=True)
    close(y, held[:, 1::2])
    close(end, state)


# ------------------------------------------------------------------ irregular samples


def gaps(*shape: int, seed: int = 7) -> Tensor:
    """Times from the sample before, between 0.1 and 10 usual spacings, no two alike."""
    g = torch.Generator().manual_seed(seed)
    return 10 ** (2 * torch.rand(shape, generator=g, dtype=F64) - 1)


@every
@pytest.mark.parametrize("dtype", [F64, F32])
def test_dt_of_ones_is_the_regular_layer(case, dtype):
    layer, tol = make(case, dtype=dtype), 1e-10 if dtype == F64 else 2e-5
    u, start = draw(2, 99, 3, dtype=dtype), some_state(layer)
    with torch.no_grad():
        y, end = layer(u, start, return_state=True)
        for ones in (torch.ones(99), torch.ones(2, 99, dtype=F64)):
            got, last = layer(u, start, dt=ones, return_state=True)
            close(got, y, tol)
            close(last, end, tol)


@every
@pytest.mark.parametrize("rate", [1.0, 0.5])
def test_dt_in_one_go_is_a_walk_and_chunks(case, rate):
    layer = make(case, trained=True)
    u, dt, start = draw(2, 70, 3), gaps(2, 70), some_state(layer)
    with torch.no_grad():
        y, end = layer(u, start, dt=dt, rate=rate, return_state=True)
        state, stepped = start, []
        for k in range(70):
            y_t, state = layer.step(u[:, k], state, dt=dt[:, k], rate=rate)
            stepped.append(y_t)
        close(torch.stack(stepped, 1), y, 1e-10)
        close(state, end, 1e-10)
        first, middle = layer(u[:, :31], start, dt=dt[:, :31], rate=rate, return_state=True)
        second, last = layer(u[:, 31:], middle, dt=dt[:, 31:], rate=rate, return_state=True)
        close(torch.cat([first, second], 1), y, 1e-10)
        close(last, end, 1e-10)


@both
def test_each_row_has_times_of_its_own(case):
    layer = make(case)
    u, dt = draw(2, 40, 3), gaps(2, 40)
    with torch.no_grad():
        y = layer(u, dt=dt)
        for b in range(2):
            close(layer(u[b : b + 1], dt=dt[b]), y[b : b + 1])
        assert (layer(u, dt=dt.flip(0)) - y).abs().max() > 1e-2 * y.abs().max()


@both
def test_dt_is_a_rate_for_every_sample(case):
    layer = make(case)
    u, start = draw(2, 40, 3), some_state(layer)
    with torch.no_grad():
        want, end = layer(u, start, rate=1.7, return_state=True)
        got, last = layer(u, start, dt=torch.full((40,), 1.7, dtype=F64), return_state=True)
    close(got, want, 1e-10)
    close(last, end, 1e-10)


@torch.no_grad()
def jittered(layer, count: int, known: bool) -> float:
    """The error at irregular times, of means of neighbours, against a ten times finer grid."""
    g = torch.Generator().manual_seed(8)
    at = 10 * torch.arange(1, count + 1) + torch.randint(-4, 5, (count,), generator=g)
    at[-1] = 10 * count
    signal, rate = smooth(10 * count), 200 / count
    dt = torch.diff(at, prepend=torch.zeros(1, dtype=at.dtype)).double() / 10

    def mean(u):
        return (u + torch.cat([0 * u[:, :1], u[:, :-1]], 1)) / 2

    truth = layer(mean(signal), rate=rate / 10)[:, at - 1]
    y = layer(mean(signal[:, at - 1]), rate=rate, dt=dt if known else torch.ones_like(dt))
    return ((y - truth).norm() / truth.norm()).item()


@both
def test_jitter_that_is_told_leaves_order_two(case):
    layer = no_wire(case)
    told = [jittered(layer, count, True) for count in (200, 400, 800)]
    assert all(math.log2(a / b) > 1.7 for a, b in itertools.pairwise(told))
    assert jittered(layer, 800, False) > 5 * told[-1]


@pytest.mark.parametrize("init", ["lin", "inv", "real", "legs"])
def test_a_missing_sample_is_a_longer_gap_without_input(init):
    """Under hold: u = 0 over any pieces of the gap is one fade; the last value held is not."""
    layer = make((S4D, {"init": init, "disc": "zoh"}))
    state, nothing = some_state(layer), torch.zeros(2, 3, dtype=F64)
    with torch.no_grad():
        one = layer.step(nothing, state, dt=3.0)[1]
        three = layer(nothing[:, None].expand(2, 3, 3), state, return_state=True)[1]
        pieces = layer.step(nothing, layer.step(nothing, state, dt=0.7)[1], dt=2.3)[1]
        nu = layer.kernel.system()[0]
        held = layer.step(nothing + 1, state, dt=3.0)[1]
    for got in (three, pieces, (3 * nu).exp() * state):
        close(got, one)
    assert (held - one).abs().max() > 1e-3


# ------------------------------------------------------------------ rows of unequal length


@every
def test_padding_changes_no_bit_and_rows_are_as_alone(case):
    layer = make(case, d_model=4)
    lengths, u, dt, start = [5, 50, 17], draw(3, 50, 4), gaps(3, 50), some_state(layer, 3)
    real = torch.arange(50) < torch.tensor(lengths)[:, None]
    outs = []
    with torch.no_grad():
        for rubbish in (0.0, math.nan, -1e30):
            padded, times = u.where(real[..., None], rubbish), dt.where(real, rubbish)
            regular = layer(padded, start, lengths=lengths, return_state=True)
            irregular = layer(padded, start, dt=times, lengths=lengths, return_state=True)
            outs.append([*regular, *irregular])
        for other in outs[1:]:
            assert all(torch.equal(x, y) for x, y in zip(outs[0], other, strict=True))
        for b, L in enumerate(lengths):
            row, at = slice(b, b + 1), {"dt": dt[b : b + 1, :L]}
            alone = [
                *layer(u[row, :L], start[row], return_state=True),
                *layer(u[row, :L], start[row], return_state=True, **at),
            ]
            for i, want in enumerate(alone):
                close(outs[0][i][row] if i % 2 else outs[0][i][row, :L], want)
            assert (outs[0][0][b, L:] == 0).all() and (outs[0][2][b, L:] == 0).all()


@both
def test_a_stream_of_rows_that_ended_at_their_own_places_goes_on(case):
    stack = Stack(4, 2, layer=case[0], d_state=16, dtype=F64, **case[1]).eval()
    lengths, first, then = [3, 20, 11], draw(3, 20, 4), draw(3, 30, 4, seed=2)
    with torch.no_grad():
        _, state = stack(first, lengths=lengths, return_state=True)
        y = stack(then, state)
        for b, L in enumerate(lengths):
            whole = torch.cat([first[b : b + 1, :L], then[b : b + 1]], 1)
            close(y[b : b + 1], stack(whole)[:, L:], 1e-10)


# ------------------------------------------------------------------ what is refused


@pytest.mark.parametrize("case", BOTH[:2], ids=named)
def test_what_a_stream_refuses(case):
    layer, u = make(case), draw(2, 9, 3)
    state = some_state(layer)
    two_sided = make(case, bidirectional=True)
    for bad, said in [
        (-torch.ones(9), "> 0"),
        (torch.zeros(9), "> 0"),
        (torch.full((9,), math.nan), "> 0"),
        (torch.full((9,), math.inf), "> 0"),
        (torch.ones(8), "want dt"),
        (torch.ones(3, 9), "want dt"),
    ]:
        assert can_look(bad)
        with pytest.raises(ValueError, match=said):
            layer(u, dt=bad)
    with pytest.raises(TypeError, match="want dt"):
        layer(u, dt=torch.ones(9).long())
    for call in (
        lambda: two_sided(u, state),
        lambda: two_sided(u, dt=torch.ones(9)),
        lambda: two_sided(u, return_state=True),
        lambda: two_sided.step(u[:, 0], state),
    ):
        with pytest.raises(ValueError, match="causal"):
            call()
    with pytest.raises(ValueError, match="want state"):
        layer(u, state[:1])
    with pytest.raises(ValueError, match="want state"):
        layer(u, state.to(torch.complex64))
