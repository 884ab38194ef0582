"""SequenceModel, Stack and S4Block: one model in three ways of running it, and what it refuses."""

import copy
import math
import pickle

import pytest
import torch
from torch import nn

from s4lite import S4D, S4Block, SequenceModel, Stack
from s4lite.nn.baselines import GRU
from s4lite.nn.checks import options_for
from s4lite.nn.ends import Encoder, PooledDecoder
from s4lite.nn.lssl import LSSL
from s4lite.nn.model import ModelState

F64 = torch.float64
REFUSAL = r"want .*got"  # every refusal says what was wanted and what came
POOLS = ["mean", "last", None]


def make(seed=0, **options):
    torch.manual_seed(seed)
    small = {"d_input": 3, "d_output": 5, "d_model": 8, "n_layers": 2, "d_state": 4, "dtype": F64}
    return SequenceModel(**{**small, **options}).eval()


def draw(*shape, seed=1, dtype=F64):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=dtype)


def walk(model, u, state=None, **options):
    state = model.initial_state(len(u)) if state is None else state
    outputs = []
    for u_t in u.unbind(1):
        y, state = model.step(u_t, state, **options)
        outputs.append(y)
    return torch.stack(outputs, 1), state


def close(a, b, tol=1e-12):
    assert a.shape == b.shape
    assert (a - b).detach().abs().max() <= tol * b.detach().abs().max().clamp(min=1)


# ------------------------------------------------------------------ one model, three ways


@pytest.mark.parametrize("prenorm", [True, False])
@pytest.mark.parametrize("pool", POOLS)
def test_steps_pieces_and_whole_agree(pool, prenorm):
    model, u = make(pool=pool, prenorm=prenorm, n_layers=6, dropout=0.3), draw(2, 60, 3)
    whole, end = model(u, return_state=True)
    steps, walked = walk(model, u)
    close(steps if pool is None else steps[:, -1], whole, 1e-11)
    pieces, state = [], None
    for piece in u.split([1, 40, 19], dim=1):
        y, state = model(piece, state, return_state=True)
        pieces.append(y)
    close(torch.cat(pieces, 1) if pool is None else pieces[-1], whole, 1e-11)
    for other in (walked, state):
        assert isinstance(other, ModelState)
        for a, b in zip(other.layers, end.layers, strict=True):
            close(a, b, 1e-11)
        close(other.total, end.total, 1e-11)
        assert torch.equal(other.count, end.count)


@pytest.mark.parametrize("pool", ["mean", "last"])
def test_every_step_gives_the_output_of_the_prefix(pool):
    model, u = make(pool=pool), draw(2, 9, 3)
    steps, _ = walk(model, u)
    for k in range(9):
        close(steps[:, k], model(u[:, : k + 1]), 1e-11)


def test_float32_stream_equals_the_whole():
    model, u = make(dtype=torch.float32, n_layers=3), draw(2, 196, 3, dtype=torch.float32)
    steps, _ = walk(model, u)
    close(steps[:, -1], model(u), 1e-5)


@pytest.mark.parametrize("pool", POOLS)
def test_rate_reaches_every_layer(pool):
    model, u = make(pool=pool), draw(2, 20, 3)
    fast = make(pool=pool)
    with torch.no_grad():
        for block in fast.stack.blocks:
            block.layer.kernel.log_dt += math.log(2.0)
    close(model(u, rate=2.0), fast(u))
    steps, _ = walk(model, u, rate=2.0)
    close(steps if pool is None else steps[:, -1], fast(u))
    assert (model(u) - fast(u)).abs().max() > 1e-3


# ------------------------------------------------------------------ uneven samples


def uneven(u, seed=4):
    gaps = 0.05 + 3 * torch.rand(u.shape[:2], generator=torch.Generator().manual_seed(seed))
    return gaps.double()


def walk_gaps(model, u, gaps, **options):
    state, outputs = model.initial_state(len(u)), []
    for u_t, d_t in zip(u.unbind(1), gaps.unbind(1), strict=True):
        y, state = model.step(u_t, state, dt=d_t, **options)
        outputs.append(y)
    return torch.stack(outputs, 1), state


@pytest.mark.parametrize("clock", ["log", "softplus"])
@pytest.mark.parametrize("prenorm", [True, False])
@pytest.mark.parametrize("pool", POOLS)
def test_gaps_reach_every_layer(pool, prenorm, clock):
    model = make(pool=pool, prenorm=prenorm, clock=clock, init="legs", n_layers=3)
    u = draw(2, 40, 3)
    gaps, ones = uneven(u), torch.ones(40, dtype=F64)
    whole, end = model(u, dt=gaps, rate=0.5, return_state=True)
    steps, walked = walk_gaps(model, u, gaps, rate=0.5)
    close(steps if pool is None else steps[:, -1], whole, 1e-11)
    pieces, state = [], None
    for piece, d in zip(u.split([1, 30, 9], 1), gaps.split([1, 30, 9], 1), strict=True):
        y, state = model(piece, state, dt=d, rate=0.5, return_state=True)
        pieces.append(y)
    close(torch.cat(pieces, 1) if pool is None else pieces[-1], whole, 1e-11)
    for other in (walked, state):
        for a, b in zip(other.layers, end.layers, strict=True):
            close(a, b, 1e-11)
    close(model(u, dt=ones), model(u), 1e-11)
    close(model(u, dt=2 * ones), model(u, rate=2.0), 1e-11)
    assert (whole - model(u)).abs().max() > 1e-3


@pytest.mark.parametrize("pool", POOLS)
def test_padding_changes_nothing_with_gaps(pool):
    model, u, lengths = make(pool=pool), draw(3, 12, 3), [12, 5, 1]
    gaps = uneven(u)
    dirty, d = u.clone(), gaps.clone()
    for b, n in enumerate(lengths):
        dirty[b, n:], d[b, n:] = torch.nan, torch.nan
    y, end = model(dirty, dt=d, lengths=lengths, return_state=True)
    for b, n in enumerate(lengths):
        one = slice(b, b + 1)
        alone, own = model(u[one, :n], dt=gaps[one, :n], return_state=True)
        close(y[one, :n] if pool is None else y[one], alone, 1e-11)
        for a, s in zip(end.layers, own.layers, strict=True):
            close(a[one], s, 1e-11)


def test_tokens_may_come_unevenly():
    model, tokens = make(d_input=7, embedding=True), torch.tensor([[0, 6, 3, 3], [1, 2, 5, 4]])
    gaps = uneven(tokens)
    close(walk_gaps(model, tokens, gaps)[0][:, -1], model(tokens, dt=gaps))


def test_gradients_reach_the_gaps():
    model, u = make(), draw(2, 8, 3)
    gaps = uneven(u).requires_grad_()
    assert torch.autograd.gradcheck(lambda d: model(u, dt=d), (gaps,), fast_mode=True)


@pytest.mark.parametrize("build", [GRU, LSSL])
def test_layers_without_dt_are_named(build):
    options = {"d_state": 4} if build is LSSL else {}
    torch.manual_seed(0)
    model = SequenceModel(3, 5, 8, 2, layer=build, dtype=F64, **options).eval()
    u, dt = draw(2, 6, 3), torch.ones(6, dtype=F64)
    close(model(u, dt=None), model(u))
    state = model.initial_state(2)
    close(model.step(u[:, 0], state, dt=None)[0], model.step(u[:, 0], state)[0])
    for call in (lambda: model(u, dt=dt), lambda: model.step(u[:, 0], state, dt=1.0)):
        with pytest.raises(ValueError, match=rf"want a .*dt, got {build.__name__}"):
            call()


def test_a_dt_of_none_is_dropped():
    assert options_for(nn.Identity(), {"dt": None, "rate": 2.0}) == {"rate": 2.0}
    assert options_for(S4D(2, 2), {"dt": 1.0}) == {"dt": 1.0}
    with pytest.raises(ValueError, match="want a layer that takes dt, got Identity"):
        options_for(nn.Identity(), {"dt": 1.0})


# ------------------------------------------------------------------ padding


@pytest.mark.parametrize("bidirectional", [False, True])
@pytest.mark.parametrize("pool", POOLS)
def test_padding_changes_nothing(pool, bidirectional):
    model, u = make(pool=pool, bidirectional=bidirectional), draw(3, 12, 3)
    lengths = torch.tensor([12, 5, 1])
    for b, n in enumerate(lengths.tolist()):
        u[b, n:] = torch.nan  # garbage
    padded = model(u, lengths=lengths)
    for b, n in enumerate(lengths.tolist()):
        alone = model(u[b : b + 1, :n])
        close(padded[b : b + 1, :n] if pool is None else padded[b : b + 1], alone, 1e-11)


def test_nan_in_the_padding_reaches_no_gradient():
    model, u = make(), draw(1, 12, 3)
    model(u[:, :5]).sum().backward()
    alone = [p.grad.clone() for p in model.parameters()]
    model.zero_grad()
    u[:, 5:] = torch.nan
    model(u, lengths=[5]).sum().backward()
    for a, p in zip(alone, model.parameters(), strict=True):
        close(p.grad, a, 1e-11)


@pytest.mark.parametrize("prenorm", [True, False])
def test_blocks_and_stacks_empty_the_padding(prenorm):
    torch.manual_seed(0)
    lengths = [6, 3]
    for module in (
        S4Block(4, d_state=4, prenorm=prenorm, dtype=F64),
        Stack(4, 2, d_state=4, prenorm=prenorm, dtype=F64),
    ):
        for p in module.parameters():
            p.data += 0.1  # a norm with a bias does not map zero to zero
        u = draw(2, 6, 4)
        u[1, 3:] = torch.nan
        y = module(u, lengths=lengths)
        y.square().sum().backward()
        padded = [p.grad.clone() for p in module.parameters()]
        assert (y[1, 3:] == 0).all()
        module.zero_grad()
        alone = module(u[:1]), module(u[1:, :3])
        (alone[0].square().sum() + alone[1].square().sum()).backward()
        close(y[:1], alone[0])
        close(y[1:, :3], alone[1])
        for a, p in zip(padded, module.parameters(), strict=True):
            close(a, p.grad, 1e-10)


def test_outputs_are_zero_beyond_the_lengths():
    y = make(pool=None)(draw(2, 6, 3), lengths=[6, 3])
    assert (y[1, 3:] == 0).all() and (y[1, :3] != 0).all()


def test_padding_tokens_may_be_anything():
    model = make(d_input=7, embedding=True)
    tokens = torch.tensor([[1, 2, 3, 4], [5, 6, -1, -1]])
    close(model(tokens, lengths=[4, 2])[1:], model(tokens[1:, :2]))


def test_states_end_where_each_sequence_ends():
    model, u, lengths = make(), draw(3, 12, 3), [12, 5, 1]
    _, end = model(u, lengths=lengths, return_state=True)
    for b, n in enumerate(lengths):
        _, alone = model(u[b : b + 1, :n], return_state=True)
        for a, s in zip(end.layers, alone.layers, strict=True):
            close(a[b : b + 1], s)
        close(end.total[b : b + 1], alone.total)
        assert end.count[b] == n


def test_bidirectional_padding_is_not_heard_through_biases():
    """Norms and GLUs have biases: what stands on padding inside the stack is not zero."""
    model, u = make(bidirectional=True, n_layers=3), draw(1, 6, 3)
    long = torch.cat([u, torch.zeros(1, 30, 3, dtype=F64)], 1)
    close(model(long, lengths=[6]), model(u), 1e-11)
    assert (model(long) - model(u)).abs().max() > 1e-3


# ------------------------------------------------------------------ parts


def test_causality_by_gradient():
    model = make(pool=None)
    u = draw(1, 15, 3).requires_grad_()
    (grad,) = torch.autograd.grad(model(u)[0, 7].sum(), u)
    future, past = grad[0, 8:].abs(), grad[0, :8].abs()  # the FFT's rounding is all of the future
    assert future.max() < 1e-14 * past.max() and (past > 1e-6 * past.max()).all()


@pytest.mark.parametrize("n_ssm", [1, 4])
def test_parameters_are_counted_by_the_formula(n_ssm):
    H, N, depth = 8, 6, 3
    model = SequenceModel(2, 7, H, depth, d_state=N, n_ssm=n_ssm)
    block = H * (N + 2) + 4 * n_ssm * N // 2 + 2 * H**2 + 2 * H + 2 * H
    want = H * 3 + depth * block + 2 * H + (H + 1) * 7
    assert sum(p.numel() for p in model.parameters()) == want


def test_block_is_the_equation():
    torch.manual_seed(0)
    u = draw(2, 10, 8)
    pre = S4Block(8, d_state=4, dtype=F64)
    close(pre(u), u + pre.layer(pre.norm(u)))
    post = S4Block(8, d_state=4, prenorm=False, dtype=F64)
    close(post(u), post.norm(u + post.layer(u)))


def test_any_layer_stands_in_a_block():
    class Flip(nn.Module):
        def __init__(self, d_model, dropout, gain):
            super().__init__()
            self.gain = gain

        def forward(self, u, state=None, **options):
            return self.gain * u.flip(1)

    stack, u = Stack(4, 2, layer=Flip, gain=2.0), draw(1, 5, 4, dtype=torch.float32)
    x = u
    for block in stack.blocks:
        x = x + 2 * block.norm(x).flip(1)
    close(stack(u), stack.norm(x), 1e-6)


def test_tokens():
    model = make(d_input=7, embedding=True)
    tokens = torch.tensor([[0, 6, 3, 3], [1, 2, 5, 4]])
    steps, _ = walk(model, tokens)
    close(steps[:, -1], model(tokens))
    assert model(tokens.int()).shape == (2, 5)


def test_mean_pool_is_the_mean():
    torch.manual_seed(0)
    decoder, x = PooledDecoder(3, 2, dtype=F64), draw(2, 9, 3)
    y, total, count = decoder(x, *decoder.initial_state(2))
    close(y, decoder.map(x.mean(1)))
    close(total, x.sum(1))
    assert count.tolist() == [[9.0], [9.0]]


def test_count_does_not_saturate_in_bfloat16():
    decoder = PooledDecoder(2, 2, dtype=torch.bfloat16)
    state = decoder.initial_state(1)
    _, *state = decoder(torch.ones(1, 1000, 2, dtype=torch.bfloat16), *state)
    _, _, count = decoder(torch.ones(1, 1, 2, dtype=torch.bfloat16), *state)
    assert count.item() == 1001


def test_dropout_is_tied_along_time_and_off_in_eval():
    torch.manual_seed(0)
    block, u = S4Block(64, d_state=4, dropout=0.5), draw(1, 6, 64, dtype=torch.float32)
    dropped = (block(u) - u) == 0
    assert 0 < dropped.sum() < dropped.numel()
    assert (dropped == dropped[:, :1]).all()
    block.eval()
    assert torch.equal(block(u), block(u))


# ------------------------------------------------------------------ the habitat


def test_forward_and_step_change_no_parameter():
    model, u = make(dropout=0.1), draw(2, 20, 3)
    before = {k: v.clone() for k, v in model.state_dict().items()}
    model(u, return_state=True, rate=0.5)
    model(u[:, :7], lengths=[7, 3])
    walk(model, u[:, :3])
    after = model.state_dict()
    assert before.keys() == after.keys()
    assert all(torch.equal(before[k], after[k]) for k in before)


def test_copies_and_checkpoints(tmp_path):
    model, u = make(), draw(2, 20, 3)
    y = model(u)
    assert torch.equal(copy.deepcopy(model)(u), y)
    assert torch.equal(pickle.loads(pickle.dumps(model))(u), y)
    torch.save(model.state_dict(), tmp_path / "model.pt")
    other = make(seed=5)
    assert not torch.equal(other(u), y)
    other.load_state_dict(torch.load(tmp_path / "model.pt", weights_only=True))
    assert torch.equal(other(u), y)


def test_gradients_reach_every_parameter():
    model = make()
    model(draw(2, 20, 3)).square().sum().backward()
    for name, p in model.named_parameters():
        assert p.grad is not None and p.grad.isfinite().all() and p.grad.abs().max() > 0, name


def test_gradient_flows_through_a_state():
    model, u = make(pool="last"), draw(1, 20, 3)
    head = u[:, :10].clone().requires_grad_()
    _, state = model(head, return_state=True)
    y, _ = model(u[:, 10:], state, return_state=True)
    (grad,) = torch.autograd.grad(y.sum(), head)
    whole = u.clone().requires_grad_()
    (truth,) = torch.autograd.grad(model(whole).sum(), whole)
    close(grad, truth[:, :10], 1e-10)


def test_autocast_and_low_precision():
    model, u = make(dtype=torch.float32), draw(2, 50, 3, dtype=torch.float32)
    y = model(u)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        low = model(u)
        step, _ = model.step(u[:, 0], model.initial_state(2))
    assert low.dtype == step.dtype == torch.bfloat16
    close(low.float(), y, 0.05)
    half = copy.deepcopy(model).bfloat16()
    close(half(u.bfloat16()).float(), y, 0.1)
    close(copy.deepcopy(model).double()(u.double()).float(), y, 1e-5)


def test_compile_graph_with_gaps():
    torch.compiler.reset()
    model, u = make(dtype=torch.float32, n_layers=1), draw(2, 33, 3, dtype=torch.float32)
    options = {"fullgraph": True, "backend": "aot_eager"}
    fast, gaps = torch.compile(model, **options), uneven(u)
    close(fast(u, dt=gaps), model(u, dt=gaps), 1e-5)


@pytest.mark.slow
def test_compile_fullgraph():
    model, u = make(dtype=torch.float32, n_layers=1), draw(2, 33, 3, dtype=torch.float32)
    fast = torch.compile(model, fullgraph=True)
    close(fast(u), model(u), 1e-5)


# ------------------------------------------------------------------ refusals


@pytest.mark.parametrize(
    ("bad", "error", "says"),
    [
        ({"d_input": 0}, ValueError, "d_input"),
        ({"d_output": 0}, ValueError, "d_output"),
        ({"d_output": 2.0}, TypeError, "d_output"),
        ({"d_model": 0}, ValueError, "d_model"),
        ({"n_layers": 0}, ValueError, "n_layers"),
        ({"n_layers": True}, TypeError, "n_layers"),
        ({"pool": "max"}, ValueError, "max"),
        ({"d_state": 5}, ValueError, "even"),
        ({"init": "legz"}, ValueError, "legz"),
        ({"disc": "euler"}, ValueError, "euler"),
        ({"dt_min": 1.0, "dt_max": 0.1}, ValueError, "dt_min"),
        ({"dropout": 1.5}, ValueError, "1.5"),
        ({"surprise": 1}, TypeError, "surprise"),
    ],
)
def test_bad_arguments(bad, error, says):
    with pytest.raises(error, match=says):
        make(**bad)


@pytest.mark.parametrize(
    ("u", "error"),
    [
        (torch.zeros(2, 9, dtype=F64), ValueError),
        (torch.zeros(2, 9, 4, dtype=F64), ValueError),
        (torch.zeros(2, 0, 3, dtype=F64), ValueError),
        (torch.zeros(2, 9, 3, dtype=torch.int64), TypeError),
        (torch.zeros(2, 9, 3), TypeError),
        (torch.zeros(2, 9, 3, dtype=F64, device="meta"), ValueError),
        ([[0.0]], TypeError),
    ],
)
def test_bad_input(u, error):
    model = make()
    before = copy.deepcopy(model.state_dict())
    with pytest.raises(error, match=REFUSAL):
        model(u)
    assert all(torch.equal(before[k], v) for k, v in model.state_dict().items())


@pytest.mark.parametrize("make_part", [S4Block, lambda d, **o: Stack(d, 2, **o)])
@pytest.mark.parametrize(
    ("shape", "like", "error"),
    [
        ((2, 9, 7), {}, ValueError),
        ((2, 9), {}, ValueError),
        ((2, 0, 8), {}, ValueError),
        ((2, 9, 8), {"dtype": torch.float64}, TypeError),
        ((2, 9, 8), {"dtype": torch.int64}, TypeError),
        ((2, 9, 8), {"device": "meta"}, ValueError),
    ],
)
def test_blocks_speak_before_their_norm_does(make_part, shape, like, error):
    part = make_part(8, d_state=4)
    with pytest.raises(error, match=REFUSAL):
        part(torch.zeros(shape, **like))
    if len(shape) == 3 and 0 not in shape:
        with pytest.raises(error, match=REFUSAL):
            part.step(torch.zeros(shape, **like)[:, 0], part.initial_state(2))


@pytest.mark.parametrize("d_model", [0, -1, 2.0, True])
def test_bad_widths(d_model):
    for build in (lambda: S4Block(d_model), lambda: Stack(d_model, 2)):
        with pytest.raises((TypeError, ValueError), match=REFUSAL):
            build()


@pytest.mark.parametrize(
    ("tokens", "error"),
    [
        (torch.zeros(2, 9), TypeError),
        (torch.zeros(2, 9, 1, dtype=torch.int64), ValueError),
        (torch.zeros(2, 0, dtype=torch.int64), ValueError),
        (torch.full((2, 9), 7), ValueError),
        (torch.full((2, 9), -1), ValueError),
        (torch.zeros(2, 9, dtype=torch.int64, device="meta"), ValueError),
        ("abc", TypeError),
    ],
)
def test_bad_tokens(tokens, error):
    with pytest.raises(error, match=REFUSAL):
        make(d_input=7, embedding=True)(tokens)


def test_bad_options():
    model, u = make(), draw(2, 9, 3)
    for options in (
        {"lengths": [9, 10]},
        {"lengths": [0, 9]},
        {"lengths": [9]},
        {"rate": -1.0},
        {"dt": torch.zeros(9)},
        {"dt": torch.ones(8)},
        {"dt": torch.ones(9) * torch.nan},
    ):
        with pytest.raises(ValueError, match=REFUSAL):
            model(u, **options)
    with pytest.raises(TypeError, match=REFUSAL):
        model(u, lengths=[9.0, 9.0])
    with pytest.raises(TypeError, match=REFUSAL):
        model(u, dt=1.0)
    with pytest.raises(TypeError, match="want return_state as a bool"):
        model(u, return_state="no")
    for nothing in (1.0, None, [[1.0, 2.0, 3.0]]):
        with pytest.raises(TypeError, match=REFUSAL):
            model.step(nothing, model.initial_state(2))
    with pytest.raises(TypeError, match="surprise"):
        model(u, surprise=1)
    with pytest.raises(TypeError, match="lengths"):
        model.step(u[:, 0], model.initial_state(2), lengths=[1, 1])
    with pytest.raises(TypeError, match=REFUSAL):
        model(u, state=model.initial_state(2).layers)
    state = model.initial_state(2)
    for wrong in (
        {"total": state.total[:1]},
        {"total": state.total[:, :1]},
        {"total": state.total.float()},
        {"count": state.count[0]},
        {"count": state.count.to("meta")},
    ):
        with pytest.raises(ValueError, match=REFUSAL):
            model(u, state=state._replace(**wrong))
        with pytest.raises(ValueError, match=REFUSAL):
            model.step(u[:, 0], state._replace(**wrong))
    for wrong in ({"count": 1.0}, {"layers": None}):
        with pytest.raises(TypeError, match=REFUSAL):
            model(u, state=state._replace(**wrong))
    with pytest.raises(ValueError, match=REFUSAL):
        model.stack(draw(2, 9, 8), 0)
    with pytest.raises(ValueError, match=REFUSAL):
        model(u, state=model.initial_state(3))
    with pytest.raises(ValueError, match=REFUSAL):
        model(u, state=make(n_layers=3).initial_state(2))
    with pytest.raises(ValueError, match=REFUSAL):
        model.initial_state(0)


def test_bidirectional_refuses_to_stream():
    model, u = make(bidirectional=True), draw(2, 9, 3)
    with pytest.raises(ValueError, match="bidirectional"):
        model.step(u[:, 0], model.initial_state(2))
    with pytest.raises(ValueError, match="bidirectional"):
        model(u, return_state=True)


@pytest.mark.parametrize("fault", ["nan", "shape", "missing", "unknown", "integer"])
def test_a_state_dict_is_loaded_whole_or_not_at_all(fault):
    model, good = make(), make(seed=3).state_dict()
    name = "stack.blocks.1.layer.kernel.log_dt"
    bad = {k: v.clone() for k, v in good.items()}
    if fault == "nan":
        bad[name][0] = torch.nan
    elif fault == "shape":
        bad[name] = bad[name][:3]
    elif fault == "missing":
        del bad[name]
    elif fault == "unknown":
        bad["surprise"] = torch.zeros(1)
    else:
        bad[name] = bad[name].long()
    before = {k: v.clone() for k, v in model.state_dict().items()}
    with pytest.raises(ValueError, match="nothing was loaded"):
        model.load_state_dict(bad)
    assert all(torch.equal(before[k], v) for k, v in model.state_dict().items())


def test_encoder_names_the_axes():
    encoder = Encoder(3, 4)
    with pytest.raises(ValueError, match=r"batch, L, d_input.*got \(2, 3\)"):
        encoder(torch.zeros(2, 3), "batch L")
    with pytest.raises(ValueError, match=r"batch, d_input.*got \(2, 1, 3\)"):
        encoder(torch.zeros(2, 1, 3), "batch")


def test_default_layer_is_the_diagonal_one():
    assert isinstance(S4Block(4, d_state=4).layer, S4D)
