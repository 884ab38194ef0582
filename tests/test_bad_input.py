"""One table of bad input: what is refused, by which error, in which words; and nothing changes.

Every row calls a public function or a layer in a way that must not pass silently. The module tests
hold the fine points; this table holds the promise: whatever a user hands over by mistake, an error
of the right kind says what was wanted and what came, before anything has been changed.
"""

import copy
import functools
import math
import re

import pytest
import torch
from torch import nn

from s4lite import S4, S4D, S4Block, SequenceModel, Stack, causal_conv, diag_kernel
from s4lite.init.basis import project_steps, reconstruct, uniform
from s4lite.init.diagonal import s4d_inv, s4d_legs, s4d_lin, s4d_random, s4d_real
from s4lite.init.hippo import hippo, legs_memory, legs_transition
from s4lite.init.nplr import low_rank_term, nplr
from s4lite.ops.cauchy import cauchy
from s4lite.ops.conv import two_sided_conv
from s4lite.ops.discretize import bilinear, euler, zoh
from s4lite.ops.dplr import dplr_discretize, dplr_kernel, dplr_step, real_form
from s4lite.ops.genfunc import c_tilde, from_spectrum, half_angles, row_power, spectrum
from s4lite.ops.recurrence import recur
from s4lite.ops.recurrence import step as dense_step
from s4lite.ops.scan import diag_scan, scan

NAN, INF = math.nan, math.inf
LAYERS = {"S4": S4, "S4D": S4D}


@functools.cache
def made(kind: str, **options):
    """One small layer, block, stack or model of a kind; tests must leave it as it is."""
    torch.manual_seed(0)
    makers = {
        "block": lambda: S4Block(4, d_state=8),
        "stack": lambda: Stack(4, 2, d_state=8),
        "model": lambda: SequenceModel(3, 5, 4, 2, d_state=8),
        "tokens": lambda: SequenceModel(7, 5, 4, 1, d_state=8, embedding=True),
    }
    return (makers[kind] if kind in makers else lambda: LAYERS[kind](4, 8, **options))().eval()


def u(*shape: int, dtype: torch.dtype = torch.float32) -> torch.Tensor:
    return torch.ones(*(shape or (2, 10, 4)), dtype=dtype)


def z(*shape: int) -> torch.Tensor:
    return torch.ones(*shape, dtype=torch.complex64)


def with_entry(layer: nn.Module, name: str, value) -> dict:
    """The layer's state dict with one entry that does not fit."""
    return dict(layer.state_dict()) | {name: value}


def layer_rows(kind: str):
    """Calls that S4 and S4D refuse alike."""
    layer = functools.partial(made, kind)
    two_way = functools.partial(made, kind, bidirectional=True)
    state = lambda batch=2: layer().initial_state(batch)  # noqa: E731
    return {
        # forward
        "no tensor": (lambda: layer()([1.0]), TypeError, "u as a torch.Tensor, got list"),
        "None": (lambda: layer()(None), TypeError, "got NoneType"),
        "two axes": (lambda: layer()(u(10, 4)), ValueError, r"\(batch, L, d_model\).*\(10, 4\)"),
        "four axes": (lambda: layer()(u(1, 2, 10, 4)), ValueError, r"got \(1, 2, 10, 4\)"),
        "channels": (lambda: layer()(u(2, 10, 3)), ValueError, r"the last 4; got \(2, 10, 3\)"),
        "length last": (lambda: layer()(u(2, 4, 10)), ValueError, r"got \(2, 4, 10\)"),
        "no sample": (lambda: layer()(u(2, 0, 4)), ValueError, r"none empty.*\(2, 0, 4\)"),
        "no batch": (lambda: layer()(u(0, 10, 4)), ValueError, r"none empty.*\(0, 10, 4\)"),
        "integers": (lambda: layer()(u().long()), TypeError, "floating.*int64"),
        "booleans": (lambda: layer()(u().bool()), TypeError, "floating.*bool"),
        "complex": (lambda: layer()(z(2, 10, 4)), TypeError, "float32, got torch.complex64"),
        "float64": (lambda: layer()(u().double()), TypeError, "float32, got torch.float64"),
        "bfloat16": (lambda: layer()(u().bfloat16()), TypeError, "float32, got torch.bfloat16"),
        "device": (lambda: layer()(u().to("meta")), ValueError, "one device"),
        # rate
        "rate 0": (lambda: layer()(u(), rate=0.0), ValueError, "rate finite and > 0, got 0"),
        "rate < 0": (lambda: layer()(u(), rate=-1.0), ValueError, "rate finite and > 0, got -1"),
        "rate NaN": (lambda: layer()(u(), rate=NAN), ValueError, "rate finite and > 0, got nan"),
        "rate inf": (lambda: layer()(u(), rate=INF), ValueError, "rate finite and > 0, got inf"),
        "rate str": (lambda: layer()(u(), rate="2"), TypeError, "rate as a number"),
        "rate bool": (lambda: layer()(u(), rate=True), TypeError, "rate as a number.*bool"),
        "rate axes": (lambda: layer()(u(), rate=u(2)), ValueError, r"rate as one number.*\(2,\)"),
        "rate integer": (lambda: layer()(u(), rate=torch.tensor(2)), TypeError, "rate.*int64"),
        # lengths
        "lengths long": (lambda: layer()(u(), lengths=[3, 11]), ValueError, "from 1 to L = 10"),
        "lengths 0": (lambda: layer()(u(), lengths=[0, 3]), ValueError, "from 1 to L = 10"),
        "lengths many": (lambda: layer()(u(), lengths=[3]), ValueError, r"\(2,\), one a sequence"),
        "lengths real": (lambda: layer()(u(), lengths=[3.0, 4.0]), TypeError, "whole numbers"),
        "lengths number": (lambda: layer()(u(), lengths=3), ValueError, "one a sequence"),
        "lengths str": (lambda: layer()(u(), lengths="ab"), TypeError, "whole numbers, got 'ab'"),
        # dt
        "dt shape": (lambda: layer()(u(), dt=u(2, 9)), ValueError, r"want dt .*\(2, 9\)"),
        "dt number": (lambda: layer()(u(), dt=1.0), TypeError, "dt as a torch.Tensor, got float"),
        "dt 0": (lambda: layer()(u(), dt=0 * u(2, 10)), ValueError, "dt finite and > 0, got 0"),
        "dt NaN": (lambda: layer()(u(), dt=NAN * u(10)), ValueError, "dt finite and > 0, got nan"),
        "dt integers": (lambda: layer()(u(), dt=u(10).long()), TypeError, "dt .*int64"),
        "dt two ways": (lambda: two_way()(u(), dt=u(10)), ValueError, "causal layer for dt"),
        # states
        "state batch": (lambda: layer()(u(), state(3)), ValueError, r"want state .*\(2, 4, 4\)"),
        "state real": (lambda: layer()(u(), state().real), ValueError, "want state torch.complex"),
        "state None": (lambda: layer().step(u(2, 4), None), TypeError, "state .*NoneType"),
        "state flag": (lambda: layer()(u(), True), TypeError, "state as a torch.Tensor, got bool"),
        "state width": (
            lambda: layer()(u(), state()[..., :3]),
            ValueError,
            r"\(2, 4, 4\).*\(2, 4, 3\)",
        ),
        "state two ways": (lambda: two_way()(u(), state()), ValueError, "bidirectional=True"),
        "return two ways": (
            lambda: two_way()(u(), return_state=True),
            ValueError,
            "causal layer for states",
        ),
        "initial two ways": (lambda: two_way().initial_state(1), ValueError, "bidirectional=True"),
        "initial batch 0": (lambda: layer().initial_state(0), ValueError, "batch >= 1, got 0"),
        "initial batch": (lambda: layer().initial_state(1.0), TypeError, "batch as an int"),
        # steps
        "step axes": (lambda: layer().step(u(), state()), ValueError, r"\(batch, d_model\)"),
        "step channels": (lambda: layer().step(u(2, 3), state()), ValueError, r"got \(2, 3\)"),
        "step rate": (lambda: layer().step(u(2, 4), state(), rate=0), ValueError, "rate .*> 0"),
        "step dt": (lambda: layer().step(u(2, 4), state(), dt=u(3)), ValueError, "want dt"),
        "step dt < 0": (lambda: layer().step(u(2, 4), state(), dt=-1.0), ValueError, "dt .*> 0"),
        "step two ways": (lambda: two_way().step(u(2, 4), state()), ValueError, "bidirectional"),
        # kernel
        "kernel L 0": (lambda: layer().kernel(0), ValueError, "L >= 1, got 0"),
        "kernel L real": (lambda: layer().kernel(3.0), TypeError, "L as an int, got float"),
        "kernel L bool": (lambda: layer().kernel(True), TypeError, "L as an int, got bool"),
        "kernel rate": (lambda: layer().kernel(3, NAN), ValueError, "rate .*got nan"),
        # loading
        "load nothing": (lambda: layer().load_state_dict({}), ValueError, "D: is missing"),
        "load no dict": (lambda: layer().load_state_dict([1]), TypeError, "mapping from names"),
        "load NaN": (
            lambda: layer().load_state_dict(with_entry(layer(), "D", NAN * u(4))),
            ValueError,
            "D: want finite values",
        ),
        "load shape": (
            lambda: layer().load_state_dict(with_entry(layer(), "D", u(5))),
            ValueError,
            r"D: want .*\(4,\), got .*\(5,\)",
        ),
        "load more": (
            lambda: layer().load_state_dict(with_entry(layer(), "Q", u(5))),
            ValueError,
            "Q: is unknown",
        ),
        "load clock": (
            lambda: layer().load_state_dict(with_entry(layer(), "kernel.log_dt", 800 * u(4))),
            ValueError,
            "kernel.log_dt: want logarithms",
        ),
        "load decay": (
            lambda: layer().load_state_dict(
                with_entry(layer(), "kernel.Lambda_log_re", 800 * u(1, 4))
            ),
            ValueError,
            "Lambda_log_re: want logarithms",
        ),
    }


def making_rows(kind: str):
    """Arguments that neither S4 nor S4D takes."""
    make = LAYERS[kind]
    return {
        "d_model 0": (lambda: make(0), ValueError, "d_model >= 1, got 0"),
        "d_model real": (lambda: make(4.0), TypeError, "d_model as an int, got float"),
        "d_model bool": (lambda: make(True), TypeError, "d_model as an int, got bool"),
        "d_state 0": (lambda: make(4, 0), ValueError, "d_state >= 1, got 0"),
        "d_state odd": (lambda: make(4, 7), ValueError, "d_state even.*got 7"),
        "d_state real": (lambda: make(4, 8.0), TypeError, "d_state as an int"),
        "init name": (lambda: make(4, 8, init="hippo"), ValueError, "init .*got 'hippo'"),
        "init kind": (lambda: make(4, 8, init=3), (TypeError, ValueError), "init.*(int|3)"),
        "n_ssm": (lambda: make(4, 8, n_ssm=3), ValueError, "n_ssm to divide d_model"),
        "n_ssm 0": (lambda: make(4, 8, n_ssm=0), ValueError, "n_ssm >= 1, got 0"),
        "dt order": (lambda: make(4, 8, dt_min=0.1, dt_max=0.01), ValueError, "dt_min <= dt_max"),
        "dt_min 0": (lambda: make(4, 8, dt_min=0.0), ValueError, "dt_min finite and > 0, got 0"),
        "dt_min NaN": (lambda: make(4, 8, dt_min=NAN), ValueError, "dt_min .*got nan"),
        "dt_max inf": (lambda: make(4, 8, dt_max=INF), ValueError, "dt_max .*got inf"),
        "dt_max str": (lambda: make(4, 8, dt_max="1"), TypeError, "dt_max as a number"),
        "clock": (lambda: make(4, 8, clock="exp"), ValueError, 'clock "log" or "softplus", got'),
        "clock kind": (lambda: make(4, 8, clock=None), ValueError, "got None"),
        "activation": (lambda: make(4, 8, activation="tanh"), ValueError, "activation one of"),
        "mixer": (lambda: make(4, 8, mixer="conv"), ValueError, "mixer one of.*got 'conv'"),
        "dropout": (lambda: make(4, 8, dropout=1.5), ValueError, "dropout from 0 to 1, got 1.5"),
        "dropout NaN": (lambda: make(4, 8, dropout=NAN), ValueError, "dropout from 0 to 1"),
        "dropout bool": (lambda: make(4, 8, dropout=True), TypeError, "dropout as a number"),
        "two ways": (lambda: make(4, 8, bidirectional=1), TypeError, "bidirectional as a bool"),
        "dtype": (lambda: make(4, 8, dtype=torch.int32), TypeError, "floating dtype.*int32"),
        "dtype complex": (lambda: make(4, 8, dtype=torch.complex64), TypeError, "floating dtype"),
    }


MODEL = {
    "block channels": (lambda: made("block")(u(2, 10, 3)), ValueError, r"the last 4"),
    "block state": (lambda: made("block")(u(), u(2, 4, 4)), ValueError, "want state"),
    "block rate": (lambda: made("block")(u(), rate=-2.0), ValueError, "rate finite and > 0"),
    "block lengths": (lambda: made("block")(u(), lengths=[1, 12]), ValueError, "1 to L = 10"),
    "stack no layers": (lambda: Stack(4, 0), ValueError, "n_layers >= 1, got 0"),
    "stack d_state": (lambda: Stack(4, 1, d_state=5), ValueError, "d_state even"),
    "stack states": (
        lambda: made("stack")(u(), made("stack").initial_state(2)[:1]),
        ValueError,
        "tuple of 2 states",
    ),
    "stack list": (
        lambda: made("stack")(u(), list(made("stack").initial_state(2))),
        ValueError,
        "tuple of 2 states",
    ),
    "model input": (lambda: made("model")(u(2, 10, 4)), ValueError, r"the last 3"),
    "model axes": (lambda: made("model")(u(10, 3)), ValueError, r"got \(10, 3\)"),
    "model state": (
        lambda: made("model")(u(2, 10, 3), made("stack").initial_state(2)),
        TypeError,
        "ModelState",
    ),
    "model step": (
        lambda: made("model").step(u(2, 4), made("model").initial_state(2)),
        ValueError,
        r"the last 3",
    ),
    "model pool": (lambda: SequenceModel(3, 5, 4, 1, pool="max"), ValueError, 'pool "mean"'),
    "model width": (lambda: SequenceModel(3, 5, 0, 1), ValueError, ">= 1, got 0"),
    "model option": (lambda: SequenceModel(3, 5, 4, 1, d_stat=4), TypeError, "d_stat"),
    "tokens real": (lambda: made("tokens")(u(2, 10)), TypeError, "tokens as an int"),
    "tokens high": (lambda: made("tokens")(7 * u(2, 10).long()), ValueError, r"in 0 \.\. 6"),
    "tokens negative": (lambda: made("tokens")(-u(2, 10).long()), ValueError, r"in 0 \.\. 6"),
    "tokens axes": (lambda: made("tokens")(u(10).long()), ValueError, r"got \(10,\)"),
}

LAM, ONE = -0.5 + 1j * torch.arange(4), z(4)
PP, DT = z(4, 1), torch.tensor(0.01)
AB, BB, CC = 0.5 * torch.eye(3), torch.ones(3), torch.ones(3)

OPS = {
    "diag_kernel L": (lambda: diag_kernel(LAM, ONE, ONE, DT, 0), ValueError, "L >= 1"),
    "diag_kernel dt": (lambda: diag_kernel(LAM, ONE, ONE, -DT, 9), ValueError, "dt .*> 0"),
    "diag_kernel real": (lambda: diag_kernel(LAM.real, ONE, ONE, DT, 9), TypeError, "complex"),
    "diag_kernel pole": (lambda: diag_kernel(1 + LAM, ONE, ONE, DT, 9), ValueError, "Re Lambda"),
    "diag_kernel NaN": (lambda: diag_kernel(NAN * LAM, ONE, ONE, DT, 9), ValueError, "finite pol"),
    "diag_kernel width": (lambda: diag_kernel(LAM, ONE[:3], ONE, DT, 9), ValueError, "one width"),
    "diag_kernel disc": (
        lambda: diag_kernel(LAM, ONE, ONE, DT, 9, "foh"),
        ValueError,
        "disc .*got 'foh'",
    ),
    "diag_kernel axes": (
        lambda: diag_kernel(LAM.expand(3, 4), ONE.expand(2, 4), ONE, DT, 9),
        ValueError,
        "broadcast",
    ),
    "dplr_kernel L": (lambda: dplr_kernel(LAM, PP, ONE, ONE, DT, -1), ValueError, "L >= 1"),
    "dplr_kernel dt": (lambda: dplr_kernel(LAM, PP, ONE, ONE, 0.0, 9), ValueError, "dt .*> 0"),
    "dplr_kernel P": (lambda: dplr_kernel(LAM, ONE, ONE, ONE, DT, 9), ValueError, "P|width"),
    "dplr_kernel rank": (
        lambda: dplr_kernel(LAM, z(4, 0), ONE, ONE, DT, 9),
        ValueError,
        r"r >= 1, got \(4, 0\)",
    ),
    "dplr_kernel pole": (
        lambda: dplr_kernel(LAM + 1, PP, ONE, ONE, DT, 9),
        ValueError,
        "Re Lambda <= 0",
    ),
    "dplr_kernel real": (
        lambda: dplr_kernel(LAM.real, PP, ONE, ONE, DT, 9),
        TypeError,
        "Lambda complex",
    ),
    "dplr_kernel route": (
        lambda: dplr_kernel(LAM, PP, ONE, ONE, DT, 9, route="fft"),
        ValueError,
        "route .*got 'fft'",
    ),
    "dplr_kernel circle": (
        lambda: dplr_kernel(LAM.to(torch.complex128), PP, ONE, ONE, DT, 9, route="circle"),
        ValueError,
        "float64 kernel",
    ),
    "dplr_step state": (
        lambda: dplr_step(LAM, PP, ONE, ONE, DT, u(1)[0], torch.ones(4)),
        TypeError,
        "x complex",
    ),
    "dplr_step input": (
        lambda: dplr_step(LAM, PP, ONE, ONE, DT, z(1)[0], ONE),
        TypeError,
        "u_t real",
    ),
    "dplr_discretize dt": (lambda: dplr_discretize(LAM, PP, ONE, INF), ValueError, "dt finite"),
    "real_form width": (lambda: real_form(LAM, PP, ONE, ONE[:2]), ValueError, "one width"),
    "cauchy axes": (lambda: cauchy(ONE, LAM, half_angles(9)), ValueError, r"want v \(\.\.\., J"),
    "cauchy real": (lambda: cauchy(z(2, 4), LAM.real, half_angles(9)), TypeError, "l and w com"),
    "half_angles L": (lambda: half_angles(0), ValueError, "L >= 1"),
    "half_angles tau": (lambda: half_angles(9, -1.0), ValueError, "tau from 0 to 36"),
    "spectrum empty": (lambda: spectrum(u(0)), ValueError, "L >= 1"),
    "from_spectrum": (lambda: from_spectrum(z(4), 9), ValueError, r"L // 2 \+ 1"),
    "c_tilde shape": (lambda: c_tilde(CC[:2], AB, 9), ValueError, "want"),
    "row_power L": (lambda: row_power(CC, AB, -1), ValueError, "want L"),
    "causal_conv empty": (lambda: causal_conv(u(0), u(3)), ValueError, "L, M >= 1"),
    "causal_conv complex": (lambda: causal_conv(z(3), u(3)), TypeError, "u and K real"),
    "causal_conv axes": (lambda: causal_conv(u(2, 9), u(3, 9)), ValueError, "broadcast"),
    "causal_conv list": (lambda: causal_conv([1.0], u(3)), TypeError, "u as a torch.Tensor"),
    "two_sided_conv": (lambda: two_sided_conv(u(9), u(8), u(9)), ValueError, "as long as u"),
    "zoh dt": (lambda: zoh(AB, BB[:, None], NAN), ValueError, "dt finite and > 0, got nan"),
    "zoh shape": (lambda: zoh(AB[:2], BB[:, None], 0.1), ValueError, r"want A \(\.\.\., N, N\)"),
    "zoh column": (lambda: zoh(AB, BB, 0.1), ValueError, r"B \(\.\.\., N, M\)"),
    "bilinear half": (lambda: bilinear(AB.half(), BB[:, None].half(), 0.1), TypeError, "double"),
    "euler dt": (lambda: euler(AB, BB[:, None], z(1)[0]), TypeError, "dt real"),
    "recur empty": (lambda: recur(AB, BB, CC, u(0)), ValueError, "length of u >= 1"),
    "recur width": (lambda: recur(AB, BB[:2], CC, u(5)), ValueError, r"want Ab \(\.\.\., N, N\)"),
    "step state": (lambda: dense_step(AB, BB, CC, u(1)[0], BB[:2]), ValueError, r"\(\.\.\., 3\)"),
    "scan lengths": (lambda: scan(u(5), u(4)), ValueError, "want"),
    "scan integers": (lambda: scan(u(5), u(5).long()), TypeError, "int64"),
    "scan empty": (lambda: scan(u(0), u(0)), ValueError, "want"),
    "scan start": (lambda: scan(u(2, 5), u(2, 5), u(3)), ValueError, "want"),
    "diag_scan dt": (lambda: diag_scan(LAM, ONE, ONE, -u(5), u(5)), ValueError, "dt"),
    "diag_scan dt length": (lambda: diag_scan(LAM, ONE, ONE, u(4), u(5)), ValueError, "dt|L"),
    "diag_scan input": (lambda: diag_scan(LAM, ONE, ONE, u(5), z(5)), TypeError, "u.*real|real.*u"),
    "diag_scan start": (lambda: diag_scan(LAM, ONE, ONE, u(5), u(5), u(4)), TypeError, "complex"),
}

INIT = {
    "hippo measure": (lambda: hippo("leg", 4), ValueError, "measure among .*got 'leg'"),
    "hippo N": (lambda: hippo("legs", 0), ValueError, "N >= 1, got 0"),
    "hippo N real": (lambda: hippo("legs", 4.0), TypeError, "N as an int"),
    "hippo window": (lambda: hippo("legs", 4, window=1.0), ValueError, "no window for legs"),
    "hippo window 0": (lambda: hippo("legt", 4, window=0.0), ValueError, "window"),
    "hippo dtype": (lambda: hippo("legs", 4, dtype=torch.int64), TypeError, "dtype"),
    "nplr lmu": (lambda: nplr("lmu", 4), ValueError, "legt"),
    "nplr odd": (lambda: nplr("legs", 5), ValueError, "N even"),
    "nplr dtype": (lambda: nplr("legs", 4, dtype=torch.float64), TypeError, "complex64 or"),
    "low_rank_term": (lambda: low_rank_term("chebt", 4), ValueError, "measure among"),
    "transition 0": (lambda: legs_transition(4, 0.0, 1.0), ValueError, "t0 > 0, got 0"),
    "transition order": (lambda: legs_transition(4, 2.0, 1.0), ValueError, "t0 <= t1"),
    "memory method": (lambda: legs_memory(u(9), 4, "euler"), ValueError, "method among"),
    "memory NaN": (lambda: legs_memory(NAN * u(9), 4), ValueError, "finite"),
    "project empty": (lambda: project_steps(u(0), 4), ValueError, "L >= 1"),
    "uniform window": (lambda: uniform(4, 0), ValueError, "window > 0, got 0"),
    "reconstruct": (lambda: reconstruct(u(3), uniform(4, 1.0), u(2)), ValueError, "want c"),
    "lin odd": (lambda: s4d_lin(3), ValueError, "N even"),
    "inv bool": (lambda: s4d_inv(True), TypeError, "N as an int"),
    "legs odd": (lambda: s4d_legs(3), ValueError, "N even"),
    "real 0": (lambda: s4d_real(0), ValueError, "N >= 1"),
    "random seed": (lambda: s4d_random(4, 3), TypeError, "torch.Generator"),
}

TABLE = {
    **{f"{kind}: {n}": row for kind in LAYERS for n, row in layer_rows(kind).items()},
    **{f"{kind}(): {n}": row for kind in LAYERS for n, row in making_rows(kind).items()},
    **MODEL,
    **OPS,
    **INIT,
}


def test_the_table_is_as_long_as_promised():
    assert len(TABLE) >= 200


@pytest.mark.parametrize("row", TABLE)
def test_bad_input_is_refused_in_words_and_changes_nothing(row):
    call, error, words = TABLE[row]
    made.cache_clear()
    kinds = [*LAYERS, "block", "stack", "model", "tokens"]
    before = {kind: copy.deepcopy(made(kind).state_dict()) for kind in kinds}
    seed = torch.random.get_rng_state()
    with pytest.raises(error) as caught:
        call()
    assert re.search(words, str(caught.value)), f"{words!r} not in {str(caught.value)!r}"
    said = str(caught.value)
    assert ("want" in said and "got" in said) or isinstance(caught.value, TypeError) or row in SAYS
    for kind in kinds:
        for name, value in made(kind).state_dict().items():
            assert torch.equal(value, before[kind][name]), f"{kind}.{name} has changed"
    if "(): " in row:  # a layer that was refused has not used up the seed
        assert torch.equal(torch.random.get_rng_state(), seed)


SAYS = {row for row in TABLE if ": load " in row}  # these list what is wrong, entry by entry
