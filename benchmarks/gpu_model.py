"""Two stages of gpu.py: the share of parameter work in a model step; waiting for the host."""

from collections.abc import Callable
from contextlib import contextmanager
from inspect import signature
from typing import Any
from unittest import mock

import torch
import torch.nn.functional as F
from common import ratios, show_times, spread
from gpu_rig import Rig
from torch import Tensor, nn
from twins import run

from s4lite.nn.groups import param_groups
from s4lite.nn.layer import S4, S4D
from s4lite.nn.model import SequenceModel
from s4lite.ops.triton import chunks
from s4lite.ops.triton.operators import chunk_operators

LAYERS = {"S4D": S4D, "S4": S4}
FULL, TINY = (64, 512, 1024, 6), (2, 1, 20, 2)  # batch, H, L, layers
T = 64  # samples of a chunk


def model_of(kind: str, rig: Rig, H: int, layers: int) -> nn.Module:
    """A model of S4D or S4 layers."""
    torch.manual_seed(0)
    options = layer_options(kind, rig) | {"layer": LAYERS[kind]}
    return SequenceModel(1, 10, H, layers, **options).to(rig.device)


def layer_options(kind: str, rig: Rig) -> dict[str, Any]:
    """Sizes; and in a rehearsal Triton by name, since on a CPU nobody else would choose it."""
    by_name = rig.rehearse and "backend" in signature(S4D).parameters and kind == "S4D"
    more = {"backend": "triton"} if by_name else {}
    return {"d_state": 8 if rig.rehearse else 64, **more}


def under_autocast(rig: Rig) -> torch.autocast:
    """bfloat16 where the layers allow it."""
    return torch.autocast(rig.device.type, torch.bfloat16)


def stepper(rig: Rig, model: nn.Module, batch: int, L: int) -> Callable[[], None]:
    """A training step in bfloat16; the learning rate is 0, so that all rounds do the same work."""
    groups = param_groups(model, lr=1e-3, weight_decay=0.01)
    for group in groups:
        group["lr"] = 0.0
    adam = torch.optim.AdamW(groups)
    u = torch.randn(batch, L, 1, device=rig.device)
    labels = torch.zeros(batch, dtype=torch.long, device=rig.device)

    def step() -> None:
        adam.zero_grad(set_to_none=True)
        with under_autocast(rig):
            loss = F.cross_entropy(model(u).float(), labels)
        loss.backward()
        adam.step()

    return step


def systems(kernels: list[nn.Module]) -> list[Tensor]:
    """Exponents, input and output weights of all layers' systems, one after the other."""
    parts = zip(*(kernel.system() for kernel in kernels), strict=True)
    nu, Bb, C = (torch.cat(list(x), -2) for x in parts)
    return [nu, Bb, C[0]]


def parameter_work(kind: str, model: nn.Module, L: int, together: bool) -> Callable[[], Any]:
    """From the parameters of all layers to what convolves, and the gradients back.

    S4D: the operators of chunks; S4: kernels of L lags. Together, or one layer after the other.
    """
    kernels = [block.layer.kernel for block in model.stack.blocks]
    sets = [kernels] if together else [[kernel] for kernel in kernels]

    def made(group: list[nn.Module]) -> list[Tensor]:
        if kind == "S4D":
            return list(chunk_operators(*systems(group), T))
        return [kernel(L) for kernel in group]

    def work() -> None:
        for group in sets:
            leaves = [p for kernel in group for p in kernel.parameters()]
            total = sum(z.square().sum() for z in made(group))
            torch.autograd.grad(total, leaves)

    return work


@contextmanager
def watched() -> Any:
    """Collect the dtypes of the signals that reach the fused convolution's kernels."""
    seen: set[str] = set()
    real = chunks._FusedChunks

    class Watched:
        @staticmethod
        def apply(u: Tensor, *args: Any) -> Any:
            seen.add(str(u.dtype))
            return real.apply(u, *args)

    with mock.patch.object(chunks, "_FusedChunks", Watched):
        yield seen


def share_stage(rig: Rig) -> dict[str, Any]:
    """Time of a training step, and of the parameter work in it, for S4D and S4."""
    batch, H, L, layers = TINY if rig.rehearse else FULL
    found: dict[str, Any] = {"batch": batch, "H": H, "L": L, "layers": layers}
    for kind in LAYERS:
        model = model_of(kind, rig, H, layers)
        step = stepper(rig, model, batch, L)
        with watched() as dtypes:
            step()
        calls = {"step": step}
        calls["parameter work, together"] = parameter_work(kind, model, L, True)
        calls["parameter work, by layer"] = parameter_work(kind, model, L, False)
        if kind == "S4":  # kernels of different layers are separate calls either way
            del calls["parameter work, by layer"]
        seconds = rig.times(calls, 10)
        show_times({f"{kind} {name}": t for name, t in seconds.items()})
        share = ratios(seconds["parameter work, together"], seconds["step"])
        print(f"  {kind}: parameter work is {spread(share)} of a step")
        print(f"  {kind}: signals that reached the fused kernels: {sorted(dtypes) or 'none'}")
        reached = {"reached the fused kernels": sorted(dtypes)}
        found[kind] = {"seconds": seconds, "share": share} | reached
        del model, step, calls
    return found


def waits_for_host(rig: Rig, call: Callable[[], Any]) -> str:
    """Say who makes the host wait for the device during a call; "" if nobody does."""
    call()
    rig.wait()
    if rig.rehearse:
        return ""
    torch.cuda.set_sync_debug_mode("error")
    try:
        call()
    except RuntimeError as error:
        return str(error)[:300]
    finally:
        torch.cuda.set_sync_debug_mode("default")
    return ""


def graphed(rig: Rig, call: Callable[[], list[Tensor]]) -> bool:
    """Whether a CUDA graph of a call replays to the bits of the call itself."""
    want = [z.clone() for z in call()]
    if rig.rehearse:
        return all(map(torch.equal, want, call()))
    side = torch.cuda.Stream()
    side.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(side):
        for _ in range(3):
            call()
    torch.cuda.current_stream().wait_stream(side)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        got = call()
    for z in got:
        z.fill_(float("nan"))
    graph.replay()
    rig.wait()
    return all(map(torch.equal, want, got))


def graph_stage(rig: Rig) -> dict[str, Any]:
    """Layers, forward and backward: does the host wait, and do CUDA graphs repeat them?"""
    batch, H, L, _ = TINY if rig.rehearse else (8, 128, 1000, 0)
    found: dict[str, Any] = {}
    calls: dict[str, Callable[[], list[Tensor]]] = {}
    for kind, make in LAYERS.items():
        torch.manual_seed(0)
        layer = make(H, **layer_options(kind, rig)).to(rig.device)
        u = torch.randn(batch, L, H, device=rig.device).requires_grad_()
        calls[kind] = lambda layer=layer, u=u: run(layer, u)
        found[kind] = {"host waits": waits_for_host(rig, calls[kind])}
        print(f"  {kind}: host waits: {found[kind]['host waits'] or 'never'}")
    for kind, call in calls.items():  # last: a capture that fails may take the process along
        try:
            found[kind]["graph"] = graphed(rig, call)
        except Exception as error:
            found[kind] |= {"graph": False, "why": str(error)[:300]}
        print(f"  {kind}: a CUDA graph repeats it: {found[kind]['graph']}")
    return found
