"""One layer, forward and backward, beside other people's: S4D and S4, S5, Mamba, GRU, attention.

    python benchmarks/layer.py [--repeats 15] [--batch 4] [--H 128] [--N 64] [--L 1024]

Every layer maps (batch, L, H) to the same and is differentiated by its input and all its
parameters, as inside a network; float32. Ours have their default head (GELU, a map to 2 H, GLU);
s5-pytorch's S5 has none, its S5Block norms and a gated map; mambapy's block has norm, convolution,
gate and two maps (expansion 2, state 16: its defaults); attention is causal, with 8 heads. Before
anything is timed, ours are held against themselves in float64, with their naive twin (the kernel as
a table, autograd through the FFT) as the measure: errors at most twice the twin's or 1e-6; the same
bits twice. What others' layers compute is not ours to judge: values and gradients have to be finite
and of the right shape. A layer that is not installed or does not work is named and left out.

Prints PASS or FAIL for the claims at the default sizes: S4D at most 1.0x the time of s5-pytorch's
S5 of width 128 and state 64, S4 at most 2x ("not run" where it is left out). Writes
benchmarks/results/layer-<cpu>.json, and exits 1 if something is wrong or a claim fails.
"""

import argparse
import copy
import sys

import torch
from common import Claims, alternate, begin, finish, options, ratios, show_times, spread
from peers import CausalAttention, FirstOf, mamba_layer, s5_layer
from torch import Tensor, nn
from truth import RIGHT, judge, refuse
from twins import Naive, run

from s4lite.nn.layer import S4, S4D

CLAIMED = 4, 128, 64, 1024
SLOWER = {"S4D": 1.0, "S4": 2.0}  # times s5-pytorch's S5
RIVAL = "s5-pytorch S5"


def contenders(o: argparse.Namespace) -> tuple[dict[str, nn.Module], dict[str, str]]:
    """All layers that can be had, and why the others cannot."""
    torch.manual_seed(0)
    made = {
        "S4D": (S4D(o.H, o.N), ""),
        "S4": (S4(o.H, o.N), ""),
        RIVAL: s5_layer(o.H, o.N),
        "s5-pytorch S5Block": s5_layer(o.H, o.N, block=True),
        "mambapy Mamba": mamba_layer(o.H),
        "torch GRU": (FirstOf(nn.GRU(o.H, o.H, batch_first=True)), ""),
        "torch attention": (CausalAttention(o.H, 8, o.L), ""),
    }
    there = {name: layer for name, (layer, _) in made.items() if layer is not None}
    return there, {name: why for name, (layer, why) in made.items() if layer is None}


def check_ours(name: str, layer: nn.Module, u: Tensor, result: dict) -> bool:
    """Hold a layer of ours against float64; True if it is right."""
    exact = copy.deepcopy(layer).double()
    want = run(exact, u.detach().double().requires_grad_())
    twin = Naive(layer)
    found, complaints = judge({"fast": lambda: run(layer, u)}, lambda: run(twin, u), want)
    result["error"][name] = found
    return not refuse(name, found, complaints)


def what_is_wrong(layer: nn.Module, u: Tensor) -> str:
    """Say why somebody else's layer cannot be timed; "" if it can."""
    try:
        y, *grads = run(layer, u)
    except Exception as error:  # other versions of theirs, or of torch, fail in many ways
        return f"it fails ({type(error).__name__}: {str(error)[:80]})"
    if y.shape != u.shape:
        return f"want {tuple(u.shape)}, got {tuple(y.shape)}"
    return "" if all(bool(z.isfinite().all()) for z in (y, *grads)) else "it gives no numbers"


def time_all(layers: dict[str, nn.Module], u: Tensor, repeats: int) -> dict[str, list[float]]:
    """Seconds of all layers, in turn."""
    return alternate({n: lambda m=m: run(m, u) for n, m in layers.items()}, repeats)


def claimed(o: argparse.Namespace, result: dict) -> Claims:
    """What is claimed, and whether it holds."""
    claims: Claims = {RIGHT: True}
    for name, most in SLOWER.items():
        text, holds = f"{name} layer: at most {most:.1f}x the time of {RIVAL}", None
        if name in result["ratios"]:
            found = result["ratios"][name]["median"]
            text, holds = f"{text} ({found:.2f}x)", found <= most
        claims[text] = holds
    return claims


def main(argv: list[str] | None = None) -> int:
    parser = options(__doc__)
    for name, value in zip(("batch", "H", "N", "L"), CLAIMED, strict=True):
        parser.add_argument(f"--{name}", type=int, default=value, help=f"default {value}")
    o = begin(parser, argv)
    if o.smoke:
        o.batch, o.H, o.N, o.L = 2, 8, 8, 40
    layers, absent = contenders(o)
    sizes = {name: getattr(o, name) for name in ("batch", "H", "N", "L")}
    result: dict = {
        "benchmark": "one layer, forward and backward, float32",
        "sizes": sizes,
        "error": {},
    }
    print(", ".join(f"{k} = {v}" for k, v in sizes.items()) + f", {o.threads} thread(s)")
    g = torch.Generator().manual_seed(1)
    u = torch.randn(o.batch, o.L, o.H, generator=g).requires_grad_()
    right = [check_ours(name, layers[name], u, result) for name in ("S4D", "S4")]
    if not all(right):
        return 1
    for name in [name for name in layers if name not in SLOWER]:
        if why := what_is_wrong(layers[name], u):
            absent[name] = why
            del layers[name]
    for name, why in absent.items():
        print(f"  {name} is left out: {why}")
    seconds = time_all(layers, u, o.repeats)
    show_times(seconds)
    against = {n: t for n, t in seconds.items() if n != RIVAL and RIVAL in seconds}
    result["ratios"] = {name: ratios(t, seconds[RIVAL]) for name, t in against.items()}
    for name, ratio in result["ratios"].items():
        print(f"  {name} / {RIVAL}, round by round: {spread(ratio)}")
    brief = time_all(layers, u.detach()[:, : o.L // 8].requires_grad_(), o.repeats)
    print(f"  and at L = {o.L // 8}, where long convolutions have nothing to win:")
    show_times(brief)
    seconds |= {f"L = {o.L // 8} | {name}": t for name, t in brief.items()}
    numbers = {n: sum(p.numel() for p in layer.parameters()) for n, layer in layers.items()}
    result |= {"seconds": seconds, "parameters": numbers, "absent": absent}
    if tuple(sizes.values()) == CLAIMED:
        return finish(o, "layer", result, claimed(o, result))
    print("nothing is claimed at these sizes")
    return finish(o, "layer-" + "-".join(map(str, sizes.values())), result, {})


if __name__ == "__main__":
    sys.exit(main())
