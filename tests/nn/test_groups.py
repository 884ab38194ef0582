"""Parameter groups: every parameter once, each of the right kind, and what is refused."""

import math

import pytest
import torch
from torch import nn

from s4lite.nn import baselines
from s4lite.nn.attention_place import AsAttention
from s4lite.nn.groups import param_groups, parameter_kinds
from s4lite.nn.layer import S4, S4D
from s4lite.nn.lmu import LMU
from s4lite.nn.lssl import LSSL
from s4lite.nn.model import SequenceModel

SLOW = {"Lambda_log_re", "Lambda_im", "B", "P"}
LAYERS = [(S4, {}), (S4, {"clock": "softplus", "n_ssm": 4, "bidirectional": True}), (S4D, {})]
LAYERS += [(S4D, {"clock": "softplus", "mixer": "linear"}), (LSSL, {})]


def model_of(layer=S4, **options) -> SequenceModel:
    torch.manual_seed(0)
    return SequenceModel(7, 3, 4, 2, layer=layer, d_state=8, embedding=True, **options)


def by_kind(model: nn.Module, *args, **options) -> dict[str, dict]:
    return {group["name"]: group for group in param_groups(model, *args, **options)}


def naive_kind(layer: type, name: str) -> str:
    own = name.rsplit(".", 1)[-1]
    if own in ("log_dt", "inv_dt"):
        return "clock"
    if own in ({"A", "B"} if layer is LSSL else SLOW) and ".kernel." in name:
        return "slow"
    plain = own == "bias" or ".norm." in name or name == "encoder.map.weight"
    return "plain" if plain else "decayed"


@pytest.mark.parametrize(("layer", "options"), LAYERS)
def test_every_parameter_once_and_of_its_kind(layer, options):
    model = model_of(layer, **options)
    kinds = parameter_kinds(model)
    assert kinds == {n: naive_kind(layer, n) for n, _ in model.named_parameters()}
    assert {"decayed", "plain", "slow", "clock"} == set(kinds.values())
    got = [id(p) for group in param_groups(model, 0.01) for p in group["params"]]
    assert sorted(got) == sorted(id(p) for p in model.parameters())
    assert {n for n, kind in kinds.items() if kind == "decayed"} >= {
        f"stack.blocks.{i}.layer.{end}"
        for i in (0, 1)
        for end in ("kernel.C", "D", "head.2.weight")
    }


def test_rates_and_decay():
    groups = by_kind(model_of(), 0.01, 2e-3, 0.05)
    want = {"decayed": (0.01, 0.05), "plain": (0.01, 0), "slow": (2e-3, 0), "clock": (2e-3, 0)}
    assert {k: (g["lr"], g["weight_decay"]) for k, g in groups.items()} == want
    groups = by_kind(model_of(), 0.01)
    assert groups["slow"]["lr"] == groups["clock"]["lr"] == 1e-3
    assert all(g["weight_decay"] == 0 for g in groups.values())


def test_the_small_rate_never_exceeds_the_other():
    groups = by_kind(model_of(), 1e-4, 1e-3)
    assert {g["lr"] for g in groups.values()} == {1e-4}


def test_clocks_have_their_own_rate_where_asked():
    groups = by_kind(model_of(), 0.01, 1e-3, 0.1, clock_lr=0.02)
    assert groups["clock"]["lr"] == 0.02 and groups["clock"]["weight_decay"] == 0
    assert groups["slow"]["lr"] == 1e-3


def test_frozen_parameters_are_left_out_and_empty_groups_too():
    model = model_of()
    for name, p in model.named_parameters():
        p.requires_grad_(name.endswith("kernel.P"))
    (group,) = param_groups(model, 0.01)
    assert group["name"] == "slow" and len(group["params"]) == 2


def test_shared_parameters_come_once_and_the_careful_kind_wins():
    tied = nn.Sequential(nn.Embedding(5, 4), S4(4, 8), nn.Linear(4, 5))
    tied[2].weight = tied[0].weight
    kinds = parameter_kinds(tied)
    assert kinds["0.weight"] == "plain" and "2.weight" not in kinds
    one = S4(4, 8)
    one.listens = nn.Linear(2, 2)
    one.listens.weight = one.kernel.B  # a plain weight and a slow parameter in one
    names = [n for n, p in one.named_parameters() if p is one.kernel.B]
    assert len(names) == 1 and parameter_kinds(one)[names[0]] == "slow"
    layer = S4D(4, 8)
    twice = nn.ModuleList([layer, layer])
    ids = [id(p) for group in param_groups(twice, 0.01) for p in group["params"]]
    assert len(ids) == len(set(ids)) == len(list(layer.parameters()))


@pytest.mark.parametrize(
    "module",
    [
        nn.LayerNorm(4), nn.BatchNorm1d(4), nn.GroupNorm(2, 4), nn.RMSNorm(4), nn.SyncBatchNorm(4),
        nn.InstanceNorm1d(4, affine=True), nn.Embedding(3, 4), nn.EmbeddingBag(3, 4),
    ],
)  # fmt: skip
def test_norms_and_embeddings_do_not_decay(module):
    assert set(parameter_kinds(module).values()) == {"plain"}


def test_a_norm_of_ones_own_does_not_decay():
    class Final(nn.LayerNorm):
        pass

    assert set(parameter_kinds(Final(4)).values()) == {"plain"}


def transformer() -> nn.Module:
    block = nn.TransformerEncoderLayer(8, 2, 16, batch_first=True)
    block.self_attn = AsAttention(S4(8, 8))
    return nn.TransformerEncoder(block, 2, enable_nested_tensor=False)


NAMES = ("RNN", "LSTM", "GRU", "DilatedConv", "CKConv", "Attention", "NeuralODE")
MODELS = {name: lambda name=name: getattr(baselines, name)(4) for name in NAMES}
MODELS |= {"LMU": lambda: LMU(4, 8), "LSSL": lambda: LSSL(4, 8), "Transformer": transformer}


@pytest.mark.parametrize("optimizer", [torch.optim.AdamW, torch.optim.SGD])
@pytest.mark.parametrize("name", MODELS)
def test_any_model_every_parameter_once(name, optimizer):
    model = MODELS[name]()
    next(model.parameters()).requires_grad_(False)
    for whole in (model, torch.compile(model)):  # wrapped, not compiled: nothing runs
        groups = param_groups(whole, 0.01)
        got = [id(p) for group in groups for p in group["params"]]
        assert sorted(got) == sorted(id(p) for p in model.parameters() if p.requires_grad)
    for p in model.parameters():
        p.grad = torch.ones_like(p) if p.requires_grad else None
    optimizer(groups).step()
    assert all(p.isfinite().all() for p in model.parameters())


def test_a_layer_in_the_place_of_attention_keeps_its_slow_parameters():
    kinds = parameter_kinds(transformer())
    at = "layers.1.self_attn.layer.kernel."
    assert {kinds[at + name] for name in SLOW} == {"slow"} and kinds[at + "log_dt"] == "clock"


def test_biases_do_not_decay_and_weights_do():
    for module in (nn.Linear(2, 3), nn.Conv1d(2, 3, 1), nn.LSTM(2, 3), nn.MultiheadAttention(4, 2)):
        for name, kind in parameter_kinds(module).items():
            assert kind == ("plain" if "bias" in name else "decayed"), name


def test_a_foreign_attribute_named_slow_is_nothing():
    module = nn.Linear(2, 2)
    module.slow = True
    assert parameter_kinds(module) == {"weight": "decayed", "bias": "plain"}


@pytest.mark.parametrize("optimizer", [torch.optim.AdamW, torch.optim.SGD, torch.optim.Adam])
def test_optimizers_take_them_and_do_what_they_say(optimizer):
    model = model_of().double()
    before = {n: p.detach().clone() for n, p in model.named_parameters()}
    made = optimizer(param_groups(model, 0.1, 1e-3, 0.5))
    for p in model.parameters():
        p.grad = torch.zeros_like(p)
    made.step()
    kinds = parameter_kinds(model)
    moved = {n for n, p in model.named_parameters() if not torch.equal(p, before[n])}
    assert moved == {n for n, kind in kinds.items() if kind == "decayed"}
    factor = 1 - 0.1 * 0.5  # AdamW and SGD; Adam's decay is part of its gradient
    if optimizer is not torch.optim.Adam:
        for n in moved:
            assert torch.allclose(dict(model.named_parameters())[n], factor * before[n], atol=1e-12)


def test_a_step_of_adam_is_the_rate_of_the_group():
    model = model_of().double()
    before = {n: p.detach().clone() for n, p in model.named_parameters()}
    made = torch.optim.AdamW(param_groups(model, 0.1, 1e-3, clock_lr=1e-2), eps=1e-14)
    generator = torch.Generator().manual_seed(0)
    for p in model.parameters():
        p.grad = torch.randn(p.shape, generator=generator, dtype=p.dtype)
    made.step()
    want = {"decayed": 0.1, "plain": 0.1, "slow": 1e-3, "clock": 1e-2}
    for n, p in model.named_parameters():
        step = (p.detach() - before[n]).abs()
        assert (step - want[parameter_kinds(model)[n]]).abs().max() < 1e-9, n


def test_schedulers_keep_the_ratio():
    made = torch.optim.AdamW(param_groups(model_of(), 0.1, 1e-3))
    half = torch.optim.lr_scheduler.LambdaLR(made, lambda step: 0.5)
    assert sorted(half.get_last_lr()) == [5e-4, 5e-4, 0.05, 0.05]


BAD = {
    "no module": (lambda: param_groups([1], 0.1), TypeError, "model as an nn.Module, got list"),
    "lr a bool": (lambda: param_groups(model_of(), True), TypeError, "want lr as a number"),
    "lr a str": (lambda: param_groups(model_of(), "0.1"), TypeError, "want lr as a number"),
    "lr None": (lambda: param_groups(model_of(), None), TypeError, "want lr as a number"),
    "lr a tensor": (lambda: param_groups(model_of(), torch.ones(())), TypeError, "want lr"),
    "lr zero": (lambda: param_groups(model_of(), 0.0), ValueError, "want lr finite and > 0"),
    "lr < 0": (lambda: param_groups(model_of(), -0.1), ValueError, "want lr finite and > 0"),
    "lr NaN": (lambda: param_groups(model_of(), math.nan), ValueError, "want lr finite"),
    "lr inf": (lambda: param_groups(model_of(), math.inf), ValueError, "want lr finite"),
    "ssm_lr None": (lambda: param_groups(model_of(), 0.1, None), TypeError, "ssm_lr as a number"),
    "ssm_lr a list": (lambda: param_groups(model_of(), 0.1, [1]), TypeError, "ssm_lr as a number"),
    "ssm_lr zero": (lambda: param_groups(model_of(), 0.1, 0), ValueError, "want ssm_lr finite"),
    "ssm_lr NaN": (lambda: param_groups(model_of(), 0.1, math.nan), ValueError, "want ssm_lr"),
    "decay < 0": (
        lambda: param_groups(model_of(), 0.1, 0.1, -1),
        ValueError,
        "weight_decay finite",
    ),
    "decay NaN": (lambda: param_groups(model_of(), 0.1, 0.1, math.nan), ValueError, "weight_decay"),
    "decay None": (lambda: param_groups(model_of(), 0.1, 0.1, None), TypeError, "weight_decay as"),
    "clock_lr 0": (
        lambda: param_groups(model_of(), 0.1, clock_lr=0),
        ValueError,
        "clock_lr finite",
    ),
    "clock_lr str": (lambda: param_groups(model_of(), 0.1, clock_lr="a"), TypeError, "clock_lr as"),
    "nothing to train": (lambda: param_groups(nn.ReLU(), 0.1), ValueError, "parameters to train"),
    "all frozen": (
        lambda: param_groups(nn.Linear(1, 1).requires_grad_(False), 0.1),
        ValueError,
        "parameters to train, got Linear",
    ),
    "kinds of a list": (lambda: parameter_kinds([]), TypeError, "model as an nn.Module"),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_input(name):
    call, error, message = BAD[name]
    with pytest.raises(error, match=message):
        call()
