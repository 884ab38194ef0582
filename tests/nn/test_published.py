"""Published settings and weights: equal to other people's numbers, or refused."""

import copy
import math
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor
from walking import close, draw, walk

from s4lite.init.nplr import nplr
from s4lite.nn.layer import S4, S4D
from s4lite.nn.model import SequenceModel
from s4lite.nn.published import (
    S4_UPDATED,
    S4_V1,
    S4_V4,
    from_state_spaces,
    translate,
    undo_c_tilde,
)
from s4lite.nn.published_block import check_block, find_block
from s4lite.ops.dplr import dplr_discretize, dplr_kernel_naive, real_form
from s4lite.ops.vandermonde import diag_kernel_naive

F32, F64, C128 = torch.float32, torch.float64, torch.complex128
GOLDEN = Path(__file__).parent.parent / "golden"
BLOCKS = ["s4block_dplr", "s4block_diag", "s4d_minimal"]
K = "layer.kernel."


def golden(name: str) -> dict[str, Tensor]:
    with np.load(GOLDEN / f"{name}.npz") as file:
        return {key: torch.from_numpy(file[key].copy()) for key in file}


def weights(name: str, after: bool = False) -> dict[str, Tensor]:
    file = golden(f"block_{name}")
    tags = ("sd_before::", "sd_after::") if after else ("sd_before::",)
    return {k.removeprefix(tag): x for tag in tags for k, x in file.items() if k.startswith(tag)}


def pairs(z: Tensor) -> Tensor:
    return torch.view_as_real(z)


def block(H=6, n=4, S=3, c=1, r=2, *, seed=0, mixer="glu", L=0) -> dict[str, Tensor]:
    """Random arrays of an S4Block; r = 0: diagonal."""

    def z(*shape: int) -> Tensor:
        return draw(*shape, seed=seed + len(shape))

    arrays = {
        "layer.D": z(1, H),
        K + "inv_dt": draw(H, 1, seed=seed + 7) - 3,
        K + "A_real": 0.3 * draw(S, n, seed=seed + 8),
        K + "A_imag": 3 * draw(S, n, seed=seed + 9),
        K + "B": draw(1, S, n, 2, seed=seed + 10),
        K + "C": draw(c, H, n, 2, seed=seed + 11),
    }
    if r:
        arrays[K + "P"] = draw(r, S, n, 2, seed=seed + 12)
        arrays[K + "l_kernel"] = torch.tensor(L)
    if mixer == "glu":
        arrays |= {"output_linear.0.weight": z(2 * H, H), "output_linear.0.bias": z(2 * H)}
    if mixer == "linear":
        arrays |= {"output_linear.weight": z(H, H), "output_linear.bias": z(H)}
    return arrays


def naive_kernels(arrays: dict[str, Tensor], L: int, softplus=False, disc="zoh") -> Tensor:
    """Kernels (c, H, L) of an S4Block in its own spelling, C being C, by dense matrix powers."""
    a = {name.removeprefix(K): x for name, x in arrays.items()}
    rows, S = [], len(a["A_real"])
    Lambda = torch.complex(-a["A_real"].exp(), -a["A_imag"])
    B, C = torch.view_as_complex(a["B"])[0], torch.view_as_complex(a["C"])
    dt = (F.softplus(a["inv_dt"]) if softplus else a["inv_dt"].exp())[:, 0]
    for h in range(C.shape[1]):
        system = (Lambda[h % S], B[h % S])
        if "P" in a:
            P = torch.view_as_complex(a["P"])[:, h % S].mT
            K_h = [dplr_kernel_naive(system[0], P, system[1], c, dt[h], L) for c in C[:, h]]
        else:
            K_h = [diag_kernel_naive(*system, c, dt[h], L, disc) for c in C[:, h]]
        rows.append(torch.stack(K_h))
    return torch.stack(rows, 1)


# ------------------------------------------------------------------ against golden numbers


@pytest.mark.parametrize("after", [False, True])
@pytest.mark.parametrize("name", BLOCKS)
def test_outputs_are_theirs(name, after):
    file, layer = golden(f"block_{name}"), from_state_spaces(weights(name, after))
    assert type(layer) is (S4 if name == "s4block_dplr" else S4D)
    assert layer.kernel.C.dtype == F64
    with torch.no_grad():
        close(layer(file["x"]), file["y"], 1e-11)
        close(walk(layer, file["x"])[0], file["y"], 1e-11)


@pytest.mark.parametrize("name", BLOCKS)
def test_gradients_are_theirs(name):
    file = golden(f"block_{name}")
    leaves = {k: x.clone() for k, x in weights(name, after=True).items()}
    floats = {k: x.requires_grad_() for k, x in leaves.items() if x.is_floating_point()}
    layer, x = from_state_spaces(weights(name)), file["x"].clone().requires_grad_()
    y = torch.func.functional_call(layer, translate(leaves), x)
    (file["w"] * y).sum().backward()
    want = {k.removeprefix("grad::"): g for k, g in file.items() if k.startswith("grad::")}
    assert floats.keys() | {"x"} == want.keys()
    for key, leaf in (floats | {"x": x}).items():
        close(leaf.grad, want[key], 1e-10)


def test_before_and_after_are_one_layer():
    first, second = (from_state_spaces(weights("s4block_dplr", after)) for after in (False, True))
    for name, x in first.state_dict().items():
        close(second.state_dict()[name], x, 1e-11)
    assert (
        weights("s4block_dplr", True)[K + "C"] - weights("s4block_dplr")[K + "C"]
    ).abs().max() > 1


def test_two_sided_output_is_theirs():
    file = golden("bidirectional_s4d_lin_zoh_L64")
    arrays = {
        "layer.D": file["D"],
        K + "inv_dt": file["dt"].log(),
        K + "A_real": (-file["A"].real).log(),
        K + "A_imag": -file["A"].imag,
        K + "B": pairs(file["B"]),
        K + "C": pairs(file["C"]),
    }
    layer = from_state_spaces(arrays, activation=None)
    assert layer.bidirectional and len(layer.head) == 2
    close(layer(file["u"].mT).mT, file["y"], 1e-11)
    turned = from_state_spaces(arrays | {K + "C": arrays[K + "C"].flip(0)}, activation=None)
    assert (turned(file["u"].mT).mT - file["y"]).abs().max() > 0.1


@pytest.mark.parametrize("name", BLOCKS)
def test_float32_weights_make_a_float32_layer(name):
    file = golden(f"block_{name}")
    single = {k: x.float() if x.is_floating_point() else x for k, x in weights(name, True).items()}
    layer = from_state_spaces(single)
    assert {p.dtype for p in layer.parameters()} == {F32}
    close(layer(file["x"].float()).double(), file["y"], 2e-5)


# ------------------------------------------------------------------ against the naive twin


@pytest.mark.parametrize("S", [1, 3, 6])
@pytest.mark.parametrize(("r", "c"), [(0, 1), (1, 1), (2, 2), (3, 1), (0, 2)])
def test_kernels_of_any_block(S, r, c):
    arrays = block(S=S, r=r, c=c)
    layer = from_state_spaces(arrays)
    assert layer.bidirectional == (c == 2) and len(layer.kernel.B) == S
    for L in (1, 2, 99):
        close(layer.kernel(L), naive_kernels(arrays, L), 1e-11)


@pytest.mark.parametrize("r", [0, 2])
def test_either_clock(r):
    arrays = block(r=r)
    layer = from_state_spaces(arrays, clock="softplus")
    assert layer.kernel.clock == "softplus"
    close(layer.kernel(50), naive_kernels(arrays, 50, softplus=True), 1e-11)
    dt = arrays[K + "inv_dt"].exp()
    same = from_state_spaces(arrays | {K + "inv_dt": torch.log(torch.expm1(dt))}, clock="softplus")
    close(same.kernel(50), from_state_spaces(arrays).kernel(50), 1e-11)


@pytest.mark.parametrize("disc", ["zoh", "bilinear"])
def test_either_discretization_of_a_diagonal_block(disc):
    arrays = block(r=0)
    close(
        from_state_spaces(arrays, disc=disc).kernel(50), naive_kernels(arrays, 50, disc=disc), 1e-11
    )


def test_bilinear_may_be_said_for_a_low_rank_block():
    arrays = block()
    assert torch.equal(
        from_state_spaces(arrays, disc="bilinear").kernel(9), from_state_spaces(arrays).kernel(9)
    )


@pytest.mark.parametrize("mixer", ["glu", "linear", None])
@pytest.mark.parametrize("activation", ["gelu", "silu", None])
def test_output_maps(mixer, activation):
    arrays, u = block(mixer=mixer), draw(2, 20, 6)
    layer = from_state_spaces(arrays, activation=activation)
    act = {"gelu": F.gelu, "silu": F.silu, None: lambda v: v}[activation]
    v = act(layer.filter(u.mT).mT)
    if mixer == "glu":
        v = F.glu(v @ arrays["output_linear.0.weight"].mT + arrays["output_linear.0.bias"], -1)
    if mixer == "linear":
        v = v @ arrays["output_linear.weight"].mT + arrays["output_linear.bias"]
    close(layer(u), v)
    wide = {k: x[..., None] if k.endswith("weight") else x for k, x in arrays.items()}
    close(from_state_spaces(wide, activation=activation)(u), v)  # a convolution of width one


@pytest.mark.parametrize("L", [1, 7, 64, 1000])
@pytest.mark.parametrize("S", [2, 6])
def test_c_tilde_of_any_length_is_undone(L, S):
    arrays = block(S=S, c=2)
    plain = from_state_spaces(arrays)
    Lambda, P, B, C = (x.detach() for x in plain.kernel.modes())
    row = real_form(Lambda, P, B, C)[2]
    Ab, _ = dplr_discretize(Lambda, P, B, plain.kernel.steps().detach())
    gap = torch.eye(8, dtype=F64) - torch.linalg.matrix_power(Ab, L)
    re, im = (row[..., None, :] @ gap)[..., 0, :].chunk(2, -1)
    Ct = torch.complex(re, im) / math.sqrt(2)  # conjugated, as an S4Block stores it
    tilde = arrays | {K + "C": pairs(Ct), K + "l_kernel": torch.tensor(L)}
    close(from_state_spaces(tilde).kernel(99), plain.kernel(99), 1e-10)


# ------------------------------------------------------------------ what a loaded layer is


def test_dropout_and_nothing_else_is_free():
    layer = from_state_spaces(weights("s4block_diag"), dropout=0.3)
    assert layer.head[1].p == 0.3 and layer.training


def test_the_callers_random_numbers_and_weights_stay():
    arrays = block()
    kept = copy.deepcopy(arrays)
    torch.manual_seed(3)
    want = torch.rand(3)
    torch.manual_seed(3)
    layer = from_state_spaces(arrays)
    assert torch.equal(torch.rand(3), want)
    with torch.no_grad():
        for p in layer.parameters():
            p.zero_()
    assert all(torch.equal(x, kept[k]) for k, x in arrays.items())


def test_parameters_are_fine_as_values():
    arrays = {
        k: torch.nn.Parameter(x) if x.is_floating_point() else x for k, x in block(L=5).items()
    }
    layer = from_state_spaces(arrays)
    assert all(p.is_leaf and p.requires_grad for p in layer.parameters())


def test_a_loaded_layer_streams_trains_and_saves():
    layer, u = from_state_spaces(block(), dropout=0.0), draw(2, 30, 6)
    y, state = layer(u, return_state=True)
    first, at = layer(u[:, :11], return_state=True)
    close(torch.cat([first, layer(u[:, 11:], at)], 1), y, 1e-11)
    state.abs().sum().backward()
    assert all(p.grad is not None for name, p in layer.kernel.named_parameters() if name != "C")
    again = from_state_spaces(block(seed=1))
    again.load_state_dict(layer.state_dict())
    assert torch.equal(again(u), layer(u))
    assert layer(u, rate=2.0).shape == u.shape
    close(layer(u, dt=torch.ones(30, dtype=F64)), y, 1e-11)


def test_prefixes():
    whole = {f"model.{i}.{k}": x for i in (0, 1) for k, x in block(seed=i).items()}
    whole |= {"encoder.weight": torch.zeros(2, 2)}
    for prefix in ("model.1", "model.1."):
        got, want = from_state_spaces(whole, prefix=prefix), from_state_spaces(block(seed=1))
        assert torch.equal(got.kernel(9), want.kernel(9))
    one = {f"module.{k}": x for k, x in weights("s4d_minimal").items()} | {
        "head.bias": torch.zeros(3)
    }
    assert find_block(one).keys() == weights("s4d_minimal").keys()
    assert find_block(block(), "").keys() == block().keys()
    wrapped = {f"module._orig_mod.model.layers.10.layer.{k}": x for k, x in block().items()}
    assert find_block(wrapped).keys() == block().keys()
    assert find_block(wrapped, "module._orig_mod.model.layers.10.layer").keys() == block().keys()


def test_what_a_whole_file_holds_beside_the_blocks_is_left_alone():
    whole = {f"model.layers.{i}.layer.{k}": x for i in (1, 10) for k, x in block(seed=i).items()}
    whole |= {f"model.layers.{i}.norm.weight": torch.ones(6) for i in (1, 10)}
    for i in (1, 10):  # 1 is no prefix of 10
        layer = from_state_spaces(whole, prefix=f"model.layers.{i}.layer")
        assert torch.equal(layer.kernel(9), from_state_spaces(block(seed=i)).kernel(9))


def test_loading_does_not_depend_on_the_default_device():
    file = [block(L=9, c=2), block(r=0), weights("s4d_minimal")]
    with torch.device("meta"):
        layer, *others = [from_state_spaces(arrays) for arrays in file]
    assert {p.device.type for x in (layer, *others) for p in x.parameters()} == {"cpu"}
    assert torch.equal(layer.kernel(9), from_state_spaces(block(L=9, c=2)).kernel(9))


def test_what_is_loaded_owns_its_numbers():
    arrays = {k: x.requires_grad_(x.is_floating_point()) for k, x in block(L=9).items()}
    layer = from_state_spaces(arrays)
    assert all(p.is_leaf and p.requires_grad for p in layer.parameters())
    before = {k: x.detach().clone() for k, x in arrays.items()}
    with torch.no_grad():
        for p in layer.parameters():
            p.zero_()
    assert all(torch.equal(x, before[k]) for k, x in arrays.items())


def test_sizes():
    want = {"H": 6, "n": 4, "S": 3, "c": 2, "r": 2, "G": 12}
    assert check_block(block(c=2)) == want
    assert check_block(weights("s4d_minimal")) == {"H": 8, "n": 8, "S": 8, "c": 1, "r": 0, "G": 16}


def test_undo_is_differentiable():
    system = nplr("legs", 6)
    parts = (
        draw(2, 3, 2),
        system.Lambda.real - 0.1,
        system.Lambda.imag,
        pairs(system.P),
        draw(2).exp() / 9,
    )
    leaves = [x.detach().clone().requires_grad_() for x in parts]

    def undo(Ct: Tensor, re: Tensor, im: Tensor, P: Tensor, dt: Tensor) -> Tensor:
        Ct, P = torch.view_as_complex(Ct), torch.view_as_complex(P)
        return pairs(undo_c_tilde(Ct, torch.complex(re, im), P, dt, 20))

    Ct = draw(2, 3, 2).requires_grad_()
    assert torch.autograd.gradcheck(undo, [Ct, *leaves[1:]])


@pytest.mark.parametrize("measure", ["legs", "legt", "lagt", "fout"])
@pytest.mark.parametrize("L", [1, 99, 1024])
def test_undo_solves_what_it_says(measure, L):
    Lambda, P, _, _ = nplr(measure, 64)
    Lambda, Ct, dt = (
        Lambda - 1e-3,
        torch.view_as_complex(draw(3, 32, 2)),
        torch.tensor(0.02, dtype=F64),
    )
    C = undo_c_tilde(Ct, Lambda, P, dt, L)
    full, column = torch.cat([Lambda, Lambda.conj()]), torch.cat([P, P.conj()])
    X = dt / 2 * (torch.diag(full) - column @ column.mH)
    I = torch.eye(64, dtype=C128)
    power = torch.linalg.matrix_power(torch.linalg.solve(I - X, I + X), L)
    close((torch.cat([C, C.conj()], -1) @ (I - power))[:, :32], Ct, 1e-9)


# ------------------------------------------------------------------ settings


@pytest.mark.parametrize("settings", [S4_V1, S4_UPDATED, S4_V4])
@pytest.mark.parametrize("layer", [S4, S4D])
def test_settings_are_arguments(settings, layer):
    made = layer(4, **settings)
    assert (
        made.bidirectional == settings["bidirectional"] and made.kernel.clock == settings["clock"]
    )
    assert made.kernel.B.shape == (settings["n_ssm"], 32, 2) and made.kernel.d_state == 64
    glu = isinstance(made.head[-1], torch.nn.GLU)
    assert glu == (settings["mixer"] == "glu") and made(torch.zeros(1, 9, 4)).shape == (1, 9, 4)


def test_published_counts():
    """307K (S4) and 306K (S4D) on Speech Commands; 7.9M of version 1 with its own P, Q and B."""

    def count(*sizes: int, **options) -> int:
        model = SequenceModel(*sizes, device="meta", **options)
        return sum(p.numel() for p in model.parameters())

    speech = (1, 35, 128, 6)
    assert round(count(*speech, layer=S4, **S4_UPDATED) / 1e3) == 307
    assert round(count(*speech, layer=S4D, **S4_UPDATED | {"init": "lin"}) / 1e3) == 306
    v1 = count(3, 10, 1024, 6, layer=S4, prenorm=False, **S4_V1) + 6 * (3 * 1024 * 64 - 2 * 64)
    assert round(v1 / 1e5) == 79


# ------------------------------------------------------------------ what is refused


def without(name: str) -> dict[str, Tensor]:
    return {k: x for k, x in block().items() if k != name}


def with_(name: str, x) -> dict:
    return block() | {name: x}


def still(L: int, m: float) -> dict[str, Tensor]:
    """Strings that swing m times in L samples and (nearly) do not fade, without low rank."""
    arrays, one = block(L=L), torch.ones(3, 4, dtype=F64)
    dt = arrays[K + "inv_dt"][0].exp().item()
    arrays[K + "inv_dt"] = arrays[K + "inv_dt"][0].expand(6, 1)
    arrays[K + "P"] = torch.zeros_like(arrays[K + "P"])
    return arrays | {
        K + "A_real": -50 * one,
        K + "A_imag": 2 / dt * math.tan(math.pi * m / L) * one,
    }


def minimal(**new) -> dict[str, Tensor]:
    return weights("s4d_minimal") | {k.replace("__", "."): x for k, x in new.items()}


def z64(*shape: int) -> Tensor:
    return torch.zeros(shape, dtype=F64)


load = from_state_spaces
V3 = ("log_dt", "inv_w_real", "w_imag", "B", "C", "P")
BAD = {
    "a list": (lambda: load([]), TypeError, "state_dict as a mapping"),
    "None": (lambda: load(None), TypeError, "state_dict as a mapping"),
    "a module": (lambda: load(S4D(4, 8)), TypeError, "state_dict as a mapping"),
    "numbers for names": (lambda: load({1: z64(1)}), TypeError, "mapping from names"),
    "nothing": (lambda: load({}), ValueError, "S4Block or S4D of state-spaces.*got nothing"),
    "other weights": (lambda: load({"weight": z64(2)}), ValueError, "S4Block or S4D.*got weight"),
    "our weights": (lambda: load(S4(4, 8).state_dict()), ValueError, "Lambda_im: is unknown"),
    "prefix an int": (lambda: load(block(), prefix=1), TypeError, "prefix as a str or None"),
    "prefix elsewhere": (lambda: load(block(), prefix="a.b"), ValueError, "under 'a.b.'"),
    "prefix of a part": (
        lambda: load({f"a.b.{k}": x for k, x in block().items()}, prefix="a"),
        ValueError,
        r"under 'a.', got blocks under \['a.b.'\]",
    ),
    "version 3": (
        lambda: load({f"a.{i}.kernel.kernel.{k}": z64(1, 4) for i in "01" for k in V3}),
        ValueError,
        r"names of version 4, got a.0.kernel.kernel.inv_w_real .*convert_v3_to_v4",
    ),
    "two blocks": (
        lambda: load({f"{i}.{k}": x for i in "ab" for k, x in block().items()}),
        ValueError,
        r"want prefix, one of \['a.', 'b.'\]: there are 2 blocks",
    ),
    "no clock": (lambda: load(without(K + "inv_dt")), ValueError, "inv_dt: is missing"),
    "no C": (lambda: load(without(K + "C")), ValueError, "kernel.C: is missing"),
    "no D": (lambda: load(without("layer.D")), ValueError, "layer.D: is missing"),
    "no P": (lambda: load(without(K + "P")), ValueError, "kernel.P: is missing"),
    "no length": (lambda: load(without(K + "l_kernel")), ValueError, "l_kernel: is missing"),
    "no bias": (lambda: load(without("output_linear.0.bias")), ValueError, "0.bias: is missing"),
    "no weight": (lambda: load(without("output_linear.0.weight")), ValueError, "0.weight: is miss"),
    "free Q": (lambda: load(with_(K + "Q", z64(2, 3, 4, 2))), ValueError, "kernel.Q: is unknown"),
    "a gate": (lambda: load(with_("input_gate.weight", z64(6, 6))), ValueError, "is unknown"),
    "bottleneck": (lambda: load(with_("input_linear.weight", z64(6, 9))), ValueError, "is unknown"),
    "an act": (lambda: load(with_("output_linear.1.weight", z64(6))), ValueError, "is unknown"),
    "old names": (
        lambda: load({K + "kernel.log_dt": z64(6), K + "kernel.w": z64(6, 4, 2)}),
        ValueError,
        "kernel.log_A_real: is missing; kernel.w: is unknown",
    ),
    "H of D": (lambda: load(with_("layer.D", z64(1, 5))), ValueError, "want .* got"),
    "rows of D": (lambda: load(with_("layer.D", z64(2, 6))), ValueError, r"layer.D: want \(1, H\)"),
    "a clock a string": (
        lambda: load(with_(K + "inv_dt", z64(6, 4))),
        ValueError,
        r"want \(H, 1\)",
    ),
    "n of A_imag": (
        lambda: load(with_(K + "A_imag", z64(3, 5))),
        ValueError,
        "A_imag: want .*n = 4",
    ),
    "S of B": (lambda: load(with_(K + "B", z64(1, 2, 4, 2))), ValueError, "B: want .*S = 3"),
    "B complex": (
        lambda: load(with_(K + "B", torch.zeros(1, 3, 4, dtype=C128))),
        ValueError,
        "B: want a real floating tensor, got torch.complex128",
    ),
    "axes of C": (
        lambda: load(with_(K + "C", z64(6, 4, 2))),
        ValueError,
        r"C: want \(c, H, n, 2\)",
    ),
    "C of three": (lambda: load(block(c=3)), ValueError, "1 or 2 directions, got C with 3 rows"),
    "C of none": (lambda: load(block(c=0)), ValueError, "no empty axis"),
    "S not a divisor": (
        lambda: load(block(S=4)),
        ValueError,
        "n_ssm to divide the channels, got 4",
    ),
    "rank 0": (lambda: load(with_(K + "P", z64(0, 3, 4, 2))), ValueError, "of rank >= 1"),
    "pairs of three": (lambda: load(with_(K + "P", z64(2, 3, 4, 3))), ValueError, "P: want"),
    "gate of H rows": (
        lambda: load(with_("output_linear.0.weight", z64(6, 6)) | {"output_linear.0.bias": z64(6)}),
        ValueError,
        "want 12 rows of a gated output map, got 6",
    ),
    "a wide convolution": (
        lambda: load(with_("output_linear.0.weight", z64(12, 6, 3))),
        ValueError,
        r"output_linear.0.weight: want \(G, H\)",
    ),
    "length a float": (lambda: load(with_(K + "l_kernel", z64())), ValueError, "a whole number"),
    "length an int": (lambda: load(with_(K + "l_kernel", 0)), ValueError, "whole number, got int"),
    "length < 0": (lambda: load(block(L=-1)), ValueError, "want l_kernel >= 0"),
    "integers": (
        lambda: load(with_("layer.D", torch.zeros(1, 6, dtype=torch.int64))),
        ValueError,
        "layer.D: want a real floating tensor, got torch.int64",
    ),
    "an array": (lambda: load(with_("layer.D", np.zeros((1, 6)))), ValueError, "got ndarray"),
    "NaN": (lambda: load(with_("layer.D", z64(1, 6) + math.nan)), ValueError, "D: want finite"),
    "inf": (lambda: load(with_(K + "P", z64(2, 3, 4, 2) - math.inf)), ValueError, "P: want finite"),
    "no values": (
        lambda: load({k: x.to("meta") for k, x in block().items()}),
        ValueError,
        "got a meta tensor",
    ),
    "two dtypes": (lambda: load(with_("layer.D", torch.zeros(1, 6))), ValueError, "one dtype"),
    "clock unknown": (lambda: load(block(), clock="exp"), ValueError, "clock one of .*got 'exp'"),
    "clock None": (lambda: load(block(), clock=None), ValueError, "clock one of"),
    "clock a list": (lambda: load(block(), clock=["log"]), ValueError, "clock one of"),
    "softplus in s4d.py": (lambda: load(minimal(), clock="softplus"), ValueError, r"\['log'\]"),
    "disc unknown": (lambda: load(block(r=0), disc="euler"), ValueError, "disc one of"),
    "zoh with low rank": (lambda: load(block(), disc="zoh"), ValueError, r"\['bilinear'\]"),
    "bilinear in s4d.py": (lambda: load(minimal(), disc="bilinear"), ValueError, r"\['zoh'\]"),
    "disc empty": (lambda: load(block(), disc=""), ValueError, "disc one of"),
    "activation": (lambda: load(block(), activation="tanh"), ValueError, "want activation one of"),
    "dropout": (lambda: load(block(), dropout=2.0), ValueError, "dropout from 0 to 1"),
    "dropout a str": (lambda: load(block(), dropout="a"), TypeError, "dropout as a number"),
    "no such argument": (lambda: load(block(), n_ssm=1), TypeError, "n_ssm"),
    "a clock that stands": (
        lambda: load(with_(K + "inv_dt", z64(6, 1) - 800)),
        ValueError,
        "logarithms of finite",
    ),
    "a clock too fast": (
        lambda: load(with_(K + "inv_dt", z64(6, 1) + 800)),
        ValueError,
        "logarithms of finite",
    ),
    "poles too far": (lambda: load(with_(K + "A_real", z64(3, 4) + 800)), ValueError, "logarithms"),
    "standing, with C-tilde": (
        lambda: load(block(L=9) | {K + "inv_dt": z64(6, 1) - 800}),
        ValueError,
        "dt",
    ),
    "C-tilde of a still string": (
        lambda: load(still(64, 5)),
        ValueError,
        r"I - Ab\^64 with a sing",
    ),
    "C-tilde of no string": (lambda: load(still(64, 0)), ValueError, r"I - Ab\^64 with a sing"),
    "minimal, no C": (
        lambda: load({k: x for k, x in minimal().items() if k != "kernel.C"}),
        ValueError,
        "kernel.C: is missing",
    ),
    "minimal, with B": (lambda: load(minimal(kernel__B=z64(8, 8, 2))), ValueError, "B: is unknown"),
    "minimal, H": (lambda: load(minimal(D=z64(7))), ValueError, "want .*got"),
    "undo: L": (
        lambda: undo_c_tilde(torch.ones(2), *nplr("legs", 4)[:2], torch.tensor(0.1), 0),
        ValueError,
        "L >= 1",
    ),
    "undo: real poles": (
        lambda: undo_c_tilde(z64(2), z64(2), z64(2, 1), torch.tensor(0.1), 4),
        TypeError,
        "complex",
    ),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_input(name):
    call, error, message = BAD[name]
    with pytest.raises(error, match=message):
        call()


def test_a_nearly_still_string_is_undone():
    layer = from_state_spaces(still(64, 5.5))
    assert all(x.isfinite().all() for x in layer.state_dict().values())


@pytest.mark.parametrize("L", [1, 64, 1000, 16384])
def test_a_slow_string_is_refused_by_its_fading_whatever_the_length(L):
    P, Ct = torch.zeros(2, 1, dtype=C128), torch.ones(2, dtype=C128)
    for fade, known in [(2.0**-28, True), (2.0**-30, False)]:  # in one step of 1; 2^-29 is the edge
        system = torch.tensor([-fade, -0.5 + 2j], dtype=C128), P, z64() + 1
        if known:
            C = undo_c_tilde(Ct, *system, L)
            want = -1 / torch.special.expm1(z64() - L * fade)
            assert abs(C[0] - want) < 8 * 2.0**-25 * want
        else:
            with pytest.raises(ValueError, match="can be undone"):
                undo_c_tilde(Ct, *system, L)
