"""Parameters of a bank of diagonal systems: what they mean, how they start, how they load."""

import copy
import math

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.func import functional_call

from s4lite.init.diagonal import s4d_inv, s4d_legs, s4d_lin, s4d_real
from s4lite.init.nplr import nplr
from s4lite.nn.kernel import DiagKernel, DiagParameters, initial_modes, initial_values
from s4lite.nn.loading import StrictLoading
from s4lite.ops.vandermonde import diag_kernel_naive

F64, C128 = torch.float64, torch.complex128
FIXED = {"lin": s4d_lin, "inv": s4d_inv, "real": s4d_real, "legs": s4d_legs}
INITS = [*FIXED, "random"]
CLOCKS = {"log": "log_dt", "softplus": "inv_dt"}
every_disc = pytest.mark.parametrize("disc", ["zoh", "bilinear"])
every_init = pytest.mark.parametrize("init", INITS)
every_clock = pytest.mark.parametrize("clock", CLOCKS)


def make(d_model: int = 4, d_state: int = 16, *, seed: int = 0, kind=DiagKernel, **options):
    torch.manual_seed(seed)
    return kind(d_model, d_state, **{"dtype": F64, **options})


def close(got: Tensor, want: Tensor, tol: float = 1e-12) -> None:
    assert got.shape == want.shape
    gap = (got - want).abs().max() / want.abs().max()
    assert gap < tol, f"off by {gap:.1e}"


def complex_of(pairs: Tensor) -> Tensor:
    return torch.complex(pairs[..., 0].double(), pairs[..., 1].double()).detach()


# ------------------------------------------------------------------ what the numbers mean


@every_clock
@every_init
@every_disc
def test_kernel_is_that_of_the_parameters(disc, init, clock):
    """From the stored numbers by hand, through dense matrix powers, at three rates."""
    bank = make(6, 16, init=init, disc=disc, clock=clock, n_ssm=3, channels=2)
    for p in (bank.Lambda_log_re, bank.Lambda_im, bank.B):
        nn.init.normal_(p, generator=torch.Generator().manual_seed(1))
    which = [0, 1, 2, 0, 1, 2]  # channel h uses set h mod n_ssm
    re, im = bank.Lambda_log_re.detach(), bank.Lambda_im.detach()
    Lambda = torch.complex(-re.exp(), im)[which]
    B, C, raw = complex_of(bank.B)[which], complex_of(bank.C), getattr(bank, CLOCKS[clock]).detach()
    dt = raw.exp() if clock == "log" else (1 + raw.exp()).log()
    for rate in (0.5, 1.0, 2.0):
        close(bank(99, rate), diag_kernel_naive(Lambda, B, C, rate * dt, 99, disc))


@every_clock
@every_disc
def test_poles_are_stable_for_every_value(disc, clock):
    bank = make(300, 64, disc=disc, clock=clock, n_ssm=300)
    for p in bank.parameters():
        nn.init.normal_(p, std=10.0, generator=torch.Generator().manual_seed(2))
    nu, Bb, _ = bank.system()
    assert (nu.real < 0).all() and Bb.isfinite().all()


@every_disc
def test_rate_multiplies_the_clock(disc):
    bank = make(disc=disc)
    faster = copy.deepcopy(bank)
    with torch.no_grad():
        faster.log_dt += math.log(2)
    close(bank(64, rate=2.0), faster(64))
    assert (bank(64, rate=2.0) - bank(64)).abs().max() > 0.01


@every_init
@every_disc
def test_scans_and_steps_take_any_gaps(disc, init):
    """By hand: every sample with a step of its own, from a state that is not zero."""
    bank, rng = make(3, 8, disc=disc, init=init), torch.Generator().manual_seed(3)
    u, gaps = (
        torch.randn(2, 3, 40, dtype=F64, generator=rng),
        torch.rand(2, 40, generator=rng) + 0.1,
    )
    x = start = torch.randn(2, 3, 4, dtype=C128, generator=rng)
    gaps[:, 7], y, y_step = 25.0, [], []
    Lambda, B, C = (each.detach() for each in bank.modes())
    for k in range(40):
        dt = (bank.steps(0.7).detach() * gaps[:, k : k + 1].double())[..., None]
        if disc == "zoh":
            Ab, Bb = torch.exp(dt * Lambda), torch.expm1(dt * Lambda) / Lambda * B
        else:
            Ab, Bb = (1 + dt * Lambda / 2) / (1 - dt * Lambda / 2), dt * B / (1 - dt * Lambda / 2)
        stepped = bank.step(u[..., k], x, 0.7, gaps[:, k])
        x = Ab * x + Bb * u[..., k, None]
        y.append(2 * (C[0] * x).sum(-1).real)
        y_step.append(stepped[0].detach())
        close(stepped[1].detach(), x)
    walked, end = bank.scan(u, gaps, start, 0.7)
    close(walked.detach(), torch.stack(y, -1))
    close(torch.stack(y_step, -1), torch.stack(y, -1))
    close(end.detach(), x)


def test_states_of_scans_are_states():
    for dtype in (torch.bfloat16, torch.float32, F64):
        bank = make(dtype=dtype)
        u, gaps = torch.randn(2, 4, 9, dtype=bank.real_dtype), torch.ones(2, 9)
        y, x = bank.scan(u, gaps)
        bank.check_state(x, 2)
        assert y.dtype == bank.real_dtype


def test_zoh_at_rate_two_is_two_steps_with_the_input_held():
    bank = make()
    (nu, Bb, _), (nu2, Bb2, _) = bank.system(), bank.system(2.0)
    close(nu2.exp(), nu.exp() ** 2)
    close(Bb2, (1 + nu.exp()) * Bb)


def test_sets_of_poles_made_equal_are_one_set():
    one, free = make(8), make(8, n_ssm=8, seed=1)
    state = {k: v.expand(free.state_dict()[k].shape) for k, v in one.state_dict().items()}
    free.load_state_dict(state)
    assert torch.equal(one(50), free(50))


def test_system_is_float64_whatever_the_parameters():
    bank = make(dtype=torch.bfloat16)
    assert all(x.dtype == C128 for x in bank.system())
    assert bank.real_dtype == bank(9).dtype == torch.float32
    assert bank.initial_state(2).dtype == torch.complex64
    assert make().real_dtype == F64 and make().initial_state(2).dtype == C128


@every_clock
@every_disc
def test_gradients_of_every_view_reach_every_parameter(disc, clock):
    bank = make(2, 4, channels=1, disc=disc, clock=clock)
    gaps = torch.rand(3, 6, dtype=F64, generator=torch.Generator().manual_seed(4)) + 0.2
    u, x = torch.randn(3, 2, 6, dtype=F64), torch.randn(3, 2, 2, dtype=C128)
    names, values = zip(*bank.named_parameters(), strict=True)

    class Views(nn.Module):
        def __init__(self):
            super().__init__()
            self.bank = bank

        def forward(self, u, x, gaps):
            y, last = self.bank.step(u[..., 0], x, rate=0.5, gaps=gaps[:, 0])
            ends = self.bank.last_state(u, last, lengths=torch.tensor([6, 1, 4]))
            walked, end = self.bank.scan(u, gaps, ends, rate=0.7)
            return self.bank(5), y, walked, self.bank.response(end, 7)

    def run(u, x, gaps, *values):
        named = {f"bank.{name}": value for name, value in zip(names, values, strict=True)}
        return functional_call(Views(), named, (u, x, gaps))

    inputs = [v.detach().clone().requires_grad_() for v in (u, x, gaps, *values)]
    assert torch.autograd.gradcheck(run, inputs)
    for grad in torch.autograd.grad(sum(y.square().sum() for y in run(*inputs)), inputs):
        assert grad.abs().max() > 0


# ------------------------------------------------------------------ where they start


@pytest.mark.parametrize("init", FIXED)
def test_named_modes(init):
    poles, B = initial_modes(init, 64)
    assert poles.dtype == B.dtype == C128
    close(poles, FIXED[init](64), 1e-15)
    close(B, nplr("legs", 64).B if init == "legs" else torch.ones(32, dtype=C128), 1e-15)
    bank = make(4, 64, init=init, n_ssm=2)
    Lambda, weights, _ = bank.modes()
    close(Lambda.detach(), poles.expand(4, 32), 1e-15)
    close(weights.detach(), B.expand(4, 32), 1e-15)


def test_random_modes_follow_the_seed_and_fill_the_band():
    torch.manual_seed(5)
    (poles, B), other = initial_modes("random", 2000), initial_modes("random", 2000)[0]
    torch.manual_seed(5)
    assert torch.equal(initial_modes("random", 2000)[0], poles) and not torch.equal(poles, other)
    assert (poles.real == -0.5).all() and (B == 1).all()
    assert (poles.imag >= 0).all() and (poles.imag < 1000 * math.pi).all()
    share = torch.histc(poles.imag, 4, 0, 1000 * math.pi) / 1000
    assert (share - 0.25).abs().max() < 0.05


@every_init
def test_modes_are_on_the_cpu_under_any_default_device(init):
    with torch.device("meta"):
        assert all(x.device.type == "cpu" for x in initial_modes(init, 8))
        assert all(p.is_meta for p in make(init=init).parameters())


def test_given_poles():
    poles = torch.tensor([-0.1 + 3j, -2 - 1j], dtype=torch.complex64)
    nu, _, _ = make(3, 4, init=poles, disc="zoh").system()
    dt = make(3, 4, init=poles).log_dt.detach().exp()
    close(nu, dt[:, None] * poles.to(C128))


def test_clocks_are_spread_evenly_over_octaves():
    bank = make(8000, 2, dt_min=1 / 1024, dt_max=1.0)
    octave = bank.log_dt.detach() / math.log(2)
    assert octave.min() >= -10 and octave.max() <= 0
    share = torch.histc(octave, 10, -10, 0) / 8000
    assert (share - 0.1).abs().max() < 0.02
    same = make(5, 2, dt_min=0.01, dt_max=0.01).log_dt
    close(same.exp(), torch.full_like(same, 0.01), 1e-6)


def test_output_weights_start_circular_with_variance_one():
    C = complex_of(make(100, 64, channels=2).C)
    assert abs(C.abs().square().mean() - 1) < 0.05
    assert C.mean().abs() < 0.05 and (C * C).mean().abs() < 0.05


def test_shapes_and_dtypes_of_the_start():
    values = initial_values(*initial_modes("legs", 6), 8, 2, 3)
    shapes = {"Lambda_log_re": (2, 3), "Lambda_im": (2, 3), "B": (2, 3, 2), "C": (3, 8, 3, 2)}
    assert {k: v.shape for k, v in values.items()} == shapes
    for clock, name in CLOCKS.items():
        bank = make(8, 6, n_ssm=2, channels=3, dtype=torch.bfloat16, clock=clock)
        for key, p in bank.named_parameters():
            assert p.dtype == torch.bfloat16 and not p.is_complex()
            assert p.shape == (shapes | {name: (8,)})[key]
        assert bank.slow == (name, "Lambda_log_re", "Lambda_im", "B")
        assert set(bank.slow) | {"C"} == set(dict(bank.named_parameters()))
    assert all(p.dtype == torch.float32 for p in make(dtype=None).parameters())
    assert all(p.is_meta for p in make(device="meta").parameters())
    a, b = make(dtype=torch.float32), make()  # one seed, one model, in any precision
    for p, q in zip(a.parameters(), b.parameters(), strict=True):
        close(p.double(), q, 1e-6)


UNSTABLE = torch.tensor([0.1 + 1j, -1 + 0j], dtype=C128)
REFUSED = {
    "no d_model": ({"d_model": 0}, ValueError, "want d_model >= 1, got 0"),
    "d_model 4.0": ({"d_model": 4.0}, TypeError, "want d_model as an int, got float"),
    "odd d_state": ({"d_state": 5}, ValueError, "want d_state even.* got 5"),
    "zero d_state": ({"d_state": 0}, ValueError, "want d_state >= 1, got 0"),
    "negative d_state": ({"d_state": -2}, ValueError, "want d_state >= 1, got -2"),
    "d_state 4.0": ({"d_state": 4.0}, TypeError, "want d_state as an int, got float"),
    "n_ssm no divisor": ({"n_ssm": 3}, ValueError, "want n_ssm to divide d_model, got n_ssm=3"),
    "no n_ssm": ({"n_ssm": 0}, ValueError, "want n_ssm >= 1, got 0"),
    "no channels": ({"channels": 0}, ValueError, "want channels >= 1, got 0"),
    "dt_min > dt_max": ({"dt_min": 0.2}, ValueError, "want dt_min <= dt_max, got dt_min=0.2"),
    "dt_min 0": ({"dt_min": 0.0}, ValueError, "want dt_min finite and > 0, got 0.0"),
    "dt_min < 0": ({"dt_min": -1.0}, ValueError, "want dt_min finite and > 0, got -1.0"),
    "dt_min NaN": ({"dt_min": math.nan}, ValueError, "want dt_min finite and > 0, got nan"),
    "dt_max NaN": ({"dt_max": math.nan}, ValueError, "want dt_max finite and > 0, got nan"),
    "dt_max inf": ({"dt_max": math.inf}, ValueError, "want dt_max finite and > 0, got inf"),
    "unknown disc": ({"disc": "euler"}, ValueError, 'want disc "zoh" or "bilinear", got \'euler\''),
    "unknown init": ({"init": "hippo"}, ValueError, "want init one of .*'legs'.*'hippo'"),
    "meta poles": ({"init": UNSTABLE.to("meta")}, ValueError, "want init as .* on meta"),
    "unknown clock": ({"clock": "exp"}, ValueError, 'want clock "log" or "softplus", got \'exp\''),
    "unknown option": ({"speed": 2}, TypeError, "speed"),
    "random, odd": ({"init": "random", "d_state": 5}, ValueError, "want d_state even.* got 5"),
    "random, channels": ({"init": "random", "channels": 0}, ValueError, "want channels >= 1"),
    "random, dt_min": ({"init": "random", "dt_min": 0.2}, ValueError, "want dt_min <= dt_max"),
    "dtype": ({"dtype": torch.int64}, TypeError, r"want a floating dtype .*got torch\.int64"),
    "complex": ({"dtype": torch.complex64}, TypeError, r"want a floating dtype .*complex64"),
    "no dtype": ({"dtype": "float32"}, TypeError, "want a floating dtype .*got 'float32'"),
    "half": (
        {"d_state": 512, "init": "inv", "dtype": torch.float16},
        ValueError,
        r"want poles and weights that torch\.float16 can hold, got .*83280",
    ),
    "no init": ({"init": None}, TypeError, "want init as a torch.Tensor, got NoneType"),
    "integer poles": ({"init": torch.tensor([-1, -2])}, TypeError, "want init .*got torch.int64"),
    "real poles": (
        {"init": -torch.ones(2)},
        ValueError,
        r"want init as complex .*got torch.float32",
    ),
    "too many poles": (
        {"init": s4d_lin(8)},
        ValueError,
        r"want init as complex poles \(2,\).*\(4,\)",
    ),
    "unstable poles": (
        {"init": UNSTABLE},
        ValueError,
        r"want finite poles with Re < 0, got .*0\.1",
    ),
    "pole at Re 0": ({"init": UNSTABLE - 0.1}, ValueError, "want finite poles with Re < 0, got"),
    "NaN pole": ({"init": UNSTABLE * math.nan}, ValueError, "want finite poles with Re < 0, got"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_bad_arguments_are_refused(case):
    options, error, message = REFUSED[case]
    before = torch.get_rng_state()
    with pytest.raises(error, match=message):
        DiagParameters(**{"d_model": 4, "d_state": 4, "dt_max": 0.1, **options})
    assert torch.equal(torch.get_rng_state(), before)


def test_bad_use_is_refused():
    bank = make()
    for rate in (0.0, -1.0, math.nan, math.inf):
        with pytest.raises(ValueError, match="want rate finite and > 0, got"):
            bank(9, rate)
    for rate in (torch.tensor([[1.0], [3.0]]), torch.ones(1), torch.ones((), device="meta")):
        with pytest.raises(ValueError, match="want rate as one number, got a tensor"):
            bank.system(rate)
    for rate in (True, None, "2", torch.tensor(2), torch.tensor(1j)):
        with pytest.raises(TypeError, match="want rate"):
            bank.system(rate)
    with pytest.raises(ValueError, match="want nu finite"):
        bank(9, 1e308)
    close(bank(9, torch.tensor(2.0)), bank(9, 2.0))
    for L, error in [(0, ValueError), (2.0, TypeError), (True, TypeError)]:
        with pytest.raises(error, match="want L"):
            bank(L)
    with pytest.raises(ValueError, match="want batch >= 1, got 0"):
        bank.initial_state(0)


@pytest.mark.parametrize("value", [math.nan, math.inf, 800.0, -math.inf])
@pytest.mark.parametrize("name", ["log_dt", "inv_dt", "Lambda_log_re"])
def test_broken_parameters_are_noticed(name, value):
    """An optimizer may diverge: on the CPU, where looking is free, the next kernel says so."""
    bank = make(clock="softplus" if name == "inv_dt" else "log")
    with torch.no_grad():
        getattr(bank, name)[..., 0] = value
    if (name, value) in [("inv_dt", 800.0), ("Lambda_log_re", -math.inf)]:  # slow, or undamped
        assert bank(9).isfinite().all()
        return
    with pytest.raises(ValueError, match=r"want dt finite|want finite poles"):
        bank(9)


# ------------------------------------------------------------------ all or nothing


class Nest(StrictLoading):
    """A bank beside another layer, which stands first and would be loaded first."""

    def __init__(self):
        super().__init__()
        self.first = nn.Linear(2, 2)
        self.bank = make(2, 4)


def spoil(state: dict[str, Tensor], how: str) -> dict[str, Tensor]:
    state = {name: value + 1 for name, value in state.items()}
    key = "bank.log_dt"
    if how == "missing":
        del state[key]
    elif how == "unknown":
        state["bank.extra"] = torch.zeros(1)
    else:
        bad = {"NaN": state[key] * math.nan, "inf": state[key] / 0, "shape": state[key][:1]}
        bad |= {"integers": state[key].long(), "complex": state[key] * 1j, "a list": [0.0, 0.0]}
        state[key] = bad[how]
    return state


SPOILT = {
    "missing": "bank.log_dt: is missing",
    "unknown": "bank.extra: is unknown",
    "NaN": "bank.log_dt: want finite values, got NaN or inf",
    "inf": "bank.log_dt: want finite values, got NaN or inf",
    "shape": r"bank.log_dt: want torch.float64 \(2,\), got torch.float64 \(1,\)",
    "integers": r"bank.log_dt: want torch.float64 \(2,\), got torch.int64 \(2,\)",
    "complex": r"bank.log_dt: want torch.float64 \(2,\), got torch.complex128 \(2,\)",
    "a list": "bank.log_dt: want a tensor, got list",
}


@pytest.mark.parametrize("how", SPOILT)
def test_a_spoilt_state_dict_changes_nothing(how):
    nest = Nest()
    before = copy.deepcopy(nest.state_dict())
    with pytest.raises(ValueError, match=f"nothing was loaded into Nest: {SPOILT[how]}"):
        nest.load_state_dict(spoil(before, how))
    assert all(torch.equal(value, before[name]) for name, value in nest.state_dict().items())


def test_a_good_state_dict_is_loaded_whole():
    nest = Nest()
    better = {name: value + 1 for name, value in nest.state_dict().items()}
    assert not any(nest.load_state_dict(better))
    assert all(torch.equal(value, better[name]) for name, value in nest.state_dict().items())
    nest.load_state_dict({name: value.float() for name, value in better.items()})  # other precision
    assert nest.bank.log_dt.dtype == F64


def test_loading_can_be_partial_if_asked_for():
    nest = Nest()
    before = copy.deepcopy(nest.state_dict())
    some = {"bank.log_dt": before["bank.log_dt"] + 1, "elsewhere": torch.zeros(1)}
    missing, unexpected = nest.load_state_dict(some, strict=False)
    assert len(missing) == len(before) - 1 and unexpected == ["elsewhere"]
    assert torch.equal(nest.bank.log_dt, before["bank.log_dt"] + 1)
    with pytest.raises(ValueError, match="want finite values"):
        nest.load_state_dict({"bank.log_dt": some["bank.log_dt"] * math.nan}, strict=False)
    assert torch.equal(nest.bank.log_dt, before["bank.log_dt"] + 1)


def test_a_part_of_a_plain_module_refuses_too():
    plain = nn.Sequential(make(2, 4))
    before = copy.deepcopy(plain.state_dict())
    for how in ("NaN", "shape", "integers"):
        spoilt = spoil({k.replace("0.", "bank."): v for k, v in before.items()}, how)
        spoilt = {k.replace("bank.", "0."): v for k, v in spoilt.items()}
        with pytest.raises(
            ValueError, match=r"nothing was loaded into DiagKernel: 0\.log_dt: want"
        ):
            plain.load_state_dict(spoilt)
        assert all(torch.equal(value, before[name]) for name, value in plain.state_dict().items())


def test_loading_can_replace_parameters_of_a_meta_model():
    bank, empty = make(), make(device="meta")
    empty.load_state_dict(bank.state_dict(), assign=True)
    assert torch.equal(empty(30), bank(30))


def test_numbers_survive_a_file(tmp_path):
    bank, other = make(), make(seed=1)
    torch.save(bank.state_dict(), tmp_path / "bank.pt")
    other.load_state_dict(torch.load(tmp_path / "bank.pt", weights_only=True))
    assert torch.equal(bank(77), other(77))
    np.savez(tmp_path / "bank.npz", **{k: v.numpy() for k, v in bank.state_dict().items()})
    arrays = np.load(tmp_path / "bank.npz")  # real arrays: any format will do
    assert all(arrays[name].dtype == np.float64 for name in arrays)


@pytest.mark.parametrize("value", [800.0, -800.0])
@pytest.mark.parametrize("name", ["log_dt", "Lambda_log_re"])
def test_a_logarithm_must_mean_a_number(name, value):
    """exp(800) is inf and exp(-800) is 0, in float64 too."""
    for module, key in [
        (make(), name),
        (Nest(), f"bank.{name}"),
        (nn.Sequential(make()), f"0.{name}"),
    ]:
        before = copy.deepcopy(module.state_dict())
        spoilt = {k: v + 1 for k, v in before.items()}
        spoilt[key] = torch.full_like(spoilt[key], value)
        with pytest.raises(ValueError, match=f"{key}: want logarithms of finite numbers > 0, got"):
            module.load_state_dict(spoilt)
        assert all(torch.equal(v, before[k]) for k, v in module.state_dict().items())


def test_values_must_be_finite_after_the_cast():
    bank = make(dtype=torch.float32)
    before = copy.deepcopy(bank.state_dict())
    spoilt = {k: v.double() + 1 for k, v in before.items()}
    spoilt["C"] = spoilt["C"] * 1e300
    with pytest.raises(ValueError, match=r"C: want finite values, got .* in torch\.float32"):
        bank.load_state_dict(spoilt)
    assert all(torch.equal(v, before[k]) for k, v in bank.state_dict().items())


def test_meta_values_load_only_where_nothing_is_lost():
    bank, empty = make(), make(device="meta").state_dict()
    before = copy.deepcopy(bank.state_dict())
    spoilt = {k: v + 1 for k, v in before.items()} | {"C": empty["C"]}
    for module, prefix in [(bank, ""), (nn.Sequential(bank), "0.")]:
        with pytest.raises(ValueError, match="C: want values, got a meta tensor"):
            module.load_state_dict({prefix + k: v for k, v in spoilt.items()})
        assert all(torch.equal(v, before[k]) for k, v in bank.state_dict().items())
    make(device="meta").load_state_dict(empty, assign=True)
    bank.load_state_dict(spoilt, assign=True)
    assert bank.C.is_meta and torch.equal(bank.B, before["B"] + 1)


@pytest.mark.parametrize("given", [[1, 2], {1: 2}, None])
def test_no_state_dict(given):
    with pytest.raises(TypeError, match="want state_dict as a mapping from names, got"):
        make().load_state_dict(given)


class Unusual(StrictLoading):
    """What a state dict may hold besides plain tensors."""

    def __init__(self):
        super().__init__()
        self.lazy, self.bank, self.kept = nn.LazyLinear(2), make(2, 4), {"seen": 3}

    def get_extra_state(self):
        return self.kept

    def set_extra_state(self, state):
        self.kept = state


def test_extra_state_and_lazy_parameters_load():
    full, empty = Unusual(), Unusual()
    full.kept = {"seen": 4}
    empty.load_state_dict(full.state_dict())  # lazy into lazy
    full.lazy(torch.ones(1, 3))
    empty.load_state_dict(full.state_dict())
    assert empty.kept == {"seen": 4} and torch.equal(empty.lazy.weight, full.lazy.weight)
    with pytest.raises(ValueError, match=r"lazy\.bias: want values, got an uninitialized"):
        full.load_state_dict(Unusual().state_dict())


def test_the_default_device_holds_all_or_nothing():
    with torch.device("meta"):
        assert all(p.is_meta for p in make().parameters())
        assert not any(p.is_meta for p in make(device="cpu").parameters())
        here = make(device="cpu").state_dict()
    assert all(torch.equal(v, here[k]) for k, v in make().state_dict().items())  # one seed
