"""Clocks: positive steps in two ways of storing them, what they mean, start and refuse."""

import copy
import math
import pickle

import pytest
import torch
from torch import Tensor, nn
from torch.func import functional_call

from s4lite.nn.clock import Clocks, check_clocks, check_rate, initial_clocks, target_of

F32, F64 = torch.float32, torch.float64
NAMES = {"log": "log_dt", "softplus": "inv_dt"}
MEANS = {"log": math.exp, "softplus": lambda x: math.log1p(math.exp(x)) if x < 30 else x}

every_clock = pytest.mark.parametrize("clock", NAMES)


def make(d_model: int = 6, *, seed: int = 0, **options) -> Clocks:
    torch.manual_seed(seed)
    return Clocks(d_model, **{"dtype": F64, **options})


def stored(clocks: Clocks) -> nn.Parameter:
    return getattr(clocks, NAMES[clocks.clock])


def put(clocks: Clocks, values: list[float]) -> Clocks:
    with torch.no_grad():
        stored(clocks).copy_(torch.tensor(values, dtype=F64))
    return clocks


def close(got: Tensor, want: Tensor, tol: float = 1e-12) -> None:
    assert got.shape == want.shape
    gap = ((got - want) / want).abs().max()
    assert gap < tol, f"off by {gap:.1e}"


# ------------------------------------------------------------------ what the numbers mean


@every_clock
def test_steps_are_what_the_clock_says(clock):
    values = [-600.0, -30.0, -1.0, 0.0, 2.0, 25.0, 41.0]
    clocks = put(make(7, clock=clock), values)
    want = torch.tensor([MEANS[clock](x) for x in values], dtype=F64)
    close(clocks.steps(), want, 1e-14)
    for rate in (0.5, 3, torch.tensor(2.0)):
        close(clocks.steps(rate), float(rate) * want, 1e-14)
    assert list(dict(clocks.named_parameters())) == [NAMES[clock]] == list(clocks.slow)
    assert (clocks.clock, clocks.d_model) == (clock, 7) and clocks.steps().dtype == F64


@every_clock
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, F32, F64])
def test_steps_are_positive_for_every_value(clock, dtype):
    clocks = put(make(1401, clock=clock, dtype=dtype), list(range(-700, 701)))
    assert stored(clocks).dtype == dtype
    assert (clocks.steps() > 0).all() and clocks.steps().isfinite().all()


def test_a_softplus_clock_may_be_huge():
    close(put(make(2, clock="softplus"), [1e4, 1e30]).steps(), torch.tensor([1e4, 1e30], dtype=F64))


@every_clock
def test_gradients(clock):
    clocks = put(make(5, clock=clock), [-9.0, -3.0, 0.0, 4.0, 39.0])

    def run(values: Tensor, rate: Tensor) -> Tensor:
        return functional_call(clocks, {NAMES[clock]: values}, (rate,), strict=True)

    clocks.forward = clocks.steps
    inputs = stored(clocks).detach().clone().requires_grad_(), torch.tensor(0.7, dtype=F64)
    assert torch.autograd.gradcheck(run, (inputs[0] * 1.0, inputs[1].requires_grad_()))
    values = stored(clocks)
    slope = torch.autograd.grad(clocks.steps().sum(), values)[0]
    dt = clocks.steps().detach()
    close(slope, dt if clock == "log" else -torch.expm1(-dt), 1e-12)


def test_small_clocks_learn_alike_and_large_ones_do_not():
    """A push of 0.01 changes both by one percent at dt = 1e-3; at dt = 50 only the logarithm."""
    for dt, change in [(1e-3, 0.01), (50.0, 0.01 / 50)]:
        for clock in NAMES:
            clocks = make(1, clock=clock, dt_min=dt, dt_max=dt)
            before = clocks.steps().detach()
            with torch.no_grad():
                _ = stored(clocks).add_(0.01)
            moved = (clocks.steps() / before - 1).item()
            want = math.expm1(0.01) if clock == "log" else change
            assert abs(moved / want - 1) < 0.006, (clock, dt)


@every_clock
def test_an_optimizer_cannot_stop_a_clock(clock):
    clocks = make(clock=clock)
    optimizer = torch.optim.Adam(clocks.parameters(), lr=1.0)
    for _ in range(50):
        optimizer.zero_grad()
        clocks.steps().log().sum().backward()
        optimizer.step()
    assert (clocks.steps() > 0).all() and clocks.steps().max() < 1e-12


# ------------------------------------------------------------------ where they start


@every_clock
def test_they_start_evenly_over_octaves(clock):
    clocks = make(8000, clock=clock, dt_min=1 / 1024, dt_max=1.0)
    octave = clocks.steps().detach().log2()
    assert octave.min() > -10.00001 and octave.max() < 0.00001
    assert (torch.histc(octave, 10, -10, 0) / 8000 - 0.1).abs().max() < 0.02
    same = make(5, clock=clock, dt_min=0.01, dt_max=0.01).steps().detach()
    close(same, torch.full_like(same, 0.01), 1e-6)


@pytest.mark.parametrize(("lo", "hi"), [(1e-3, 1e-1), (1e-30, 1e-20), (1.0, 300.0)])
def test_one_seed_one_clock(lo, hi):
    log, soft = (make(500, clock=clock, dt_min=lo, dt_max=hi) for clock in NAMES)
    close(soft.steps(), log.steps().detach(), 1e-12)
    assert stored(soft).isfinite().all()


def test_initial_clocks_are_on_the_cpu_and_use_the_seed_once():
    for clock in NAMES:
        torch.manual_seed(3)
        a = initial_clocks(4, clock, 0.1, 0.2)
        torch.manual_seed(3)
        torch.empty(4).uniform_()
        assert a.shape == (4,) and a.device.type == "cpu"
        after = torch.get_rng_state()
        torch.manual_seed(3)
        _ = initial_clocks(4, clock, 0.1, 0.2)
        assert torch.equal(torch.get_rng_state(), after)


@every_clock
def test_devices_dtypes_copies(clock):
    clocks = make(clock=clock)
    for twin in (copy.deepcopy(clocks), pickle.loads(pickle.dumps(clocks))):
        assert torch.equal(twin.steps(), clocks.steps()) and twin.slow == clocks.slow
    assert make(clock=clock, device="meta").steps().is_meta
    with torch.device("meta"):
        assert stored(make(clock=clock)).is_meta
        assert not stored(make(clock=clock, device="cpu")).is_meta
    assert stored(make(clock=clock, dtype=None)).dtype == F32
    close(copy.deepcopy(clocks).float().steps(), clocks.steps(), 1e-5)
    assert copy.deepcopy(clocks).half().steps().dtype == F64


# ------------------------------------------------------------------ all or nothing


@every_clock
@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf, -800.0, 800.0])
def test_loading_refuses_what_is_no_clock(clock, value):
    name, fine = NAMES[clock], clock == "softplus" and value == 800
    for module, prefix in [(make(clock=clock), ""), (nn.Sequential(make(clock=clock)), "0.")]:
        before = {k: v.clone() for k, v in module.state_dict().items()}
        new = {prefix + name: torch.full((6,), value, dtype=F64)}
        if fine:  # a softplus of 800 is 800
            module.load_state_dict(new)
            assert torch.equal(module.state_dict()[prefix + name], new[prefix + name])
            continue
        with pytest.raises(ValueError, match=f"nothing was loaded into Clocks: {prefix}{name}: "):
            module.load_state_dict(new)
        assert all(torch.equal(v, before[k]) for k, v in module.state_dict().items())


def test_one_kind_does_not_load_into_the_other():
    log, soft = make(), make(clock="softplus")
    with pytest.raises(ValueError, match="inv_dt: is missing; log_dt: is unknown"):
        soft.load_state_dict(log.state_dict())


def test_what_a_message_says():
    with pytest.raises(ValueError, match="inv_dt: want inverse softplus of finite numbers > 0"):
        make(clock="softplus").load_state_dict({"inv_dt": torch.full((6,), -800.0)})
    with pytest.raises(ValueError, match="log_dt: want logarithms of finite numbers > 0, got 800"):
        make().load_state_dict({"log_dt": torch.full((6,), 800.0)})


# ------------------------------------------------------------------ bad input

REFUSED = {
    "no channels": ({"d_model": 0}, ValueError, "want d_model >= 1, got 0"),
    "d_model 4.0": ({"d_model": 4.0}, TypeError, "want d_model as an int, got float"),
    "n_ssm": ({"n_ssm": 4}, ValueError, "want n_ssm to divide d_model, got n_ssm=4, d_model=6"),
    "no n_ssm": ({"n_ssm": 0}, ValueError, "want n_ssm >= 1, got 0"),
    "clock": ({"clock": "exp"}, ValueError, 'want clock "log" or "softplus", got \'exp\''),
    "no clock": ({"clock": None}, ValueError, 'want clock "log" or "softplus", got None'),
    "a list": ({"clock": ["log"]}, ValueError, r"want clock .*got \['log'\]"),
    "dt_min 0": ({"dt_min": 0}, ValueError, "want dt_min finite and > 0, got 0"),
    "dt_min NaN": ({"dt_min": math.nan}, ValueError, "want dt_min finite and > 0, got nan"),
    "dt_max inf": ({"dt_max": math.inf}, ValueError, "want dt_max finite and > 0, got inf"),
    "a word": ({"dt_max": "1"}, TypeError, "want dt_max as a number"),
    "range": ({"dt_min": 0.2}, ValueError, "want dt_min <= dt_max, got dt_min=0.2, dt_max=0.1"),
    "int64": ({"dtype": torch.int64}, TypeError, r"want a floating dtype .*got torch\.int64"),
    "half": (
        {"clock": "softplus", "dt_max": 1e5, "dtype": torch.float16},
        ValueError,
        r"want clocks that torch\.float16 can hold, got dt from 0\.001 to 100000",
    ),
}


@pytest.mark.parametrize("case", REFUSED)
@pytest.mark.parametrize("check", [Clocks, check_clocks])
def test_bad_arguments_are_refused_before_the_first_draw(case, check):
    options, error, message = REFUSED[case]
    before = torch.get_rng_state()
    with pytest.raises(error, match=message):
        check(**{"d_model": 6, **options})
    assert torch.equal(torch.get_rng_state(), before)


def test_unknown_options():
    with pytest.raises(TypeError, match="ticks"):
        Clocks(6, ticks=3)


def test_checks_pass_what_is_good():
    assert check_clocks(4) is None and check_clocks(4, 2, 0.01, 0.01, clock="softplus") is None
    assert check_rate(2, torch.ones(1)) is None
    assert target_of(None, torch.bfloat16).dtype == torch.bfloat16


@every_clock
def test_bad_rates(clock):
    clocks = make(clock=clock)
    for rate in (0.0, -1.0, math.nan, math.inf, torch.tensor(-1.0)):
        with pytest.raises(ValueError, match="want rate finite and > 0, got"):
            clocks.steps(rate)
    for rate in (torch.ones(6), torch.ones(1), torch.ones((), device="meta")):
        with pytest.raises(ValueError, match="want rate as one number, got a tensor"):
            clocks.steps(rate)
    for rate in (True, None, "2", torch.tensor(2), torch.tensor(1j)):
        with pytest.raises(TypeError, match="want rate"):
            clocks.steps(rate)
