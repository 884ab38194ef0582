"""One training step of a whole model, and the share of it that goes into kernels and parameters.

    python benchmarks/model_step.py [--threads 1] [--repeats 9] [--batch 4] [--H 128] [--L 1024]

A `SequenceModel` (encoder, four blocks with norm, layer and residual, mean, decoder), N = 64, with
S4D, with S4, and with torch's GRU and causal attention in the same place; a step is forward,
cross-entropy, backward, AdamW with the parameter groups of `param_groups`. Beside it, in turn: the
parameter work alone, which is making the kernels of all layers from their parameters and back to
the gradients. First, loss and gradients of one step are held against the model in float64, with the
naive twin (kernels as tables, autograd through the FFT) as the measure; the same bits twice.

Nothing is claimed about time; writes benchmarks/results/model-step-<cpu>.json, exits 1 if wrong.
"""

import argparse
import copy
import sys
from collections.abc import Callable

import torch
import torch.nn.functional as F
from common import Claims, alternate, begin, finish, options, ratios, show_times, spread
from torch import Tensor, nn
from truth import RIGHT, judge, refuse
from twins import naive_model

from s4lite.nn.baselines import GRU, Attention
from s4lite.nn.groups import param_groups
from s4lite.nn.layer import S4, S4D
from s4lite.nn.model import SequenceModel

LAYERS = {"S4D": S4D, "S4": S4, "GRU": GRU, "attention": Attention}
CLASSES, DEPTH = 10, 4


def model_of(kind: str, o: argparse.Namespace) -> nn.Module:
    """A model with this layer in all blocks."""
    torch.manual_seed(0)
    more = {"d_state": o.N} if kind in ("S4D", "S4") else {}
    return SequenceModel(1, CLASSES, o.H, DEPTH, layer=LAYERS[kind], **more)


def loss_and_gradients(model: nn.Module, u: Tensor, labels: Tensor) -> list[Tensor]:
    """The loss of one batch, and the gradients of all parameters."""
    loss = F.cross_entropy(model(u), labels)
    return [loss.detach(), *torch.autograd.grad(loss, list(model.parameters()))]


def stepper(model: nn.Module, u: Tensor, labels: Tensor) -> Callable[[], None]:
    """A training step: the learning rate is 0, so that all rounds do the same work."""
    groups = param_groups(model, lr=1e-3, weight_decay=0.01)
    for group in groups:
        group["lr"] = 0.0
    adam = torch.optim.AdamW(groups)

    def step() -> None:
        adam.zero_grad(set_to_none=True)
        F.cross_entropy(model(u), labels).backward()
        adam.step()

    return step


def parameter_work(model: nn.Module, L: int) -> Callable[[], list[Tensor]]:
    """Kernels of all layers from their parameters, and gradients back to these."""
    kernels = [block.layer.kernel for block in model.stack.blocks]
    g = torch.randn(1, kernels[0].d_model, L, generator=torch.Generator().manual_seed(2))

    def work() -> list[Tensor]:
        found = []
        for kernel in kernels:
            leaves = list(kernel.parameters())
            found += torch.autograd.grad(kernel(L), leaves, g)
        return found

    return work


def check(kind: str, model: nn.Module, batch: tuple[Tensor, Tensor], result: dict) -> bool:
    """Hold a model of ours against itself in float64; True if it is right."""
    u, labels = batch
    want = loss_and_gradients(copy.deepcopy(model).double(), u.double(), labels)
    naive = naive_model(model)
    order = [dict(naive.named_parameters())[name] for name in _names(model)]

    def twin() -> list[Tensor]:
        loss = F.cross_entropy(naive(u), labels)
        return [loss.detach(), *torch.autograd.grad(loss, order)]

    fast = {"fast": lambda: loss_and_gradients(model, u, labels)}
    found, complaints = judge(fast, twin, want)
    result["error"][kind] = found
    return not refuse(kind, found, complaints)


def _names(model: nn.Module) -> list[str]:
    """Names of a model's parameters, as its naive copy has them."""
    names = []
    for name, _ in model.named_parameters():
        stem, dot, rest = name.partition(".layer.")
        names.append(f"{stem}.layer.layer.{rest}" if dot else name)
    return names


def main(argv: list[str] | None = None) -> int:
    parser = options(__doc__, repeats=9)
    for name, value in (("batch", 4), ("H", 128), ("N", 64), ("L", 1024)):
        parser.add_argument(f"--{name}", type=int, default=value, help=f"default {value}")
    o = begin(parser, argv)
    if o.smoke:
        o.batch, o.H, o.N, o.L = 2, 8, 8, 40
    sizes = {name: getattr(o, name) for name in ("batch", "H", "N", "L")} | {"layers": DEPTH}
    head = "one training step of a model, float32"
    result: dict = {"benchmark": head, "sizes": sizes, "error": {}}
    print(", ".join(f"{k} = {v}" for k, v in sizes.items()) + f", {o.threads} thread(s)")
    g = torch.Generator().manual_seed(1)
    u = torch.randn(o.batch, o.L, 1, generator=g)
    batch = u, torch.randint(CLASSES, (o.batch,), generator=g)
    models = {kind: model_of(kind, o) for kind in LAYERS}
    right = [check(kind, models[kind], batch, result) for kind in ("S4D", "S4")]
    if not all(right):
        return 1
    calls = {kind: stepper(model, *batch) for kind, model in models.items()}
    ours = ("S4D", "S4")
    calls |= {f"{kind}, parameter work": parameter_work(models[kind], o.L) for kind in ours}
    seconds = alternate(calls, o.repeats)
    show_times(seconds)
    share = {k: ratios(seconds[f"{k}, parameter work"], seconds[k]) for k in ("S4D", "S4")}
    for kind, ratio in share.items():
        print(f"  {kind}: parameter work is {spread(ratio)} of a step")
    result |= {"seconds": seconds, "parameter_share": share}
    claims: Claims = {RIGHT: True}
    standard = tuple(sizes.values()) == (4, 128, 64, 1024, DEPTH)
    name = "model-step" if standard else "model-step-" + "-".join(map(str, sizes.values()))
    return finish(o, name, result, claims)


if __name__ == "__main__":
    sys.exit(main())
