"""Generation, one sample after the other: a step of S4 and S4D, and tokens a second of a model.

    python benchmarks/generate.py [--threads 1] [--repeats 15] [--H 256] [--N 64]

A step maps one sample (1, H) and the state to the output and the next state, in eval mode and
without gradients: `S4D.step` and `S4.step` (head included) beside `torch.nn.GRUCell(H, H)`; what is
timed is 32 steps in a row. Then tokens a second of a model that feeds on its own output: embedding,
four layers, decoder, argmax, once with our blocks and their `step`, once with a four-layer
`torch.nn.GRU` that is given one token at a time. First, the steps of each layer are held against
its own float64 forward pass over the whole sequence, with the recurrence in float32 as published
code has it (discretized once, one complex multiplication a mode; dense for S4) as the measure; the
same bits twice.

Prints PASS or FAIL for the claim that a step of S4 and of S4D takes at most 3 times that of the GRU
cell, writes benchmarks/results/generate-<cpu>.json, exits 1 if something is wrong or a claim fails.
"""

import copy
import statistics
import sys
from collections.abc import Callable

import torch
from common import Claims, alternate, begin, finish, options, ratios, show_times, spread
from torch import Tensor, nn
from truth import RIGHT, judge, refuse

from s4lite.nn.layer import S4, S4D
from s4lite.nn.model import SequenceModel
from s4lite.ops.dplr import dplr_discretize, real_form
from s4lite.ops.vandermonde import log_discretize

CLAIMED, SLOWER, STEPS, TOKENS, DEPTH = (256, 64), 3.0, 32, 256, 4


def steps(layer: nn.Module, u: Tensor) -> Tensor:
    """Outputs of u (L, 1, H), one step at a time."""
    state, out = layer.initial_state(1), []
    for u_t in u:
        y, state = layer.step(u_t, state)
        out.append(y)
    return torch.stack(out)


def cell_steps(cell: nn.GRUCell, u: Tensor) -> Tensor:
    """The same with a recurrent cell."""
    x, out = u.new_zeros(1, cell.hidden_size), []
    for u_t in u:
        x = cell(u_t, x)
        out.append(x)
    return torch.stack(out)


def plain_steps(layer: nn.Module, u: Tensor) -> Tensor:
    """The naive twin: the recurrence in float32, discretized once."""
    *modes, C = layer.kernel.modes()
    dt, C = layer.kernel.steps(), C[0]
    if len(modes) == 2:  # diagonal
        nu, phi = log_discretize(modes[0], dt, layer.kernel.disc)
        Ab, Bb, Cx = (z.to(torch.complex64) for z in (nu.exp(), phi * modes[1], 2 * C))
        x, advance = torch.zeros_like(Bb), lambda x: Ab * x
    else:
        Ab, Bb = dplr_discretize(*modes, dt)
        Ab, Bb, Cx = (z.float() for z in (Ab, Bb, real_form(*modes, C)[2]))
        x, advance = torch.zeros_like(Bb), lambda x: (Ab @ x[..., None])[..., 0]
    out = []
    for u_t in u:
        x = advance(x) + Bb * u_t[0, :, None]
        y = (Cx * x).sum(-1).real + layer.D * u_t[0]
        out.append(layer.head(y[None, None])[0])
    return torch.stack(out)


class GRUModel(nn.Module):
    """Embedding, a GRU, a decoder."""

    def __init__(self, vocabulary: int, H: int, layers: int) -> None:
        super().__init__()
        self.embedding, self.decoder = nn.Embedding(vocabulary, H), nn.Linear(H, vocabulary)
        self.gru = nn.GRU(H, H, layers, batch_first=True)

    def initial_state(self, batch: int) -> Tensor:
        return torch.zeros(self.gru.num_layers, batch, self.gru.hidden_size)

    def step(self, token: Tensor, state: Tensor) -> tuple[Tensor, Tensor]:
        y, state = self.gru(self.embedding(token)[:, None], state)
        return self.decoder(y[:, 0]), state


def speaker(model: nn.Module, count: int) -> Callable[[], Tensor]:
    """Let a model say `count` tokens, each the likeliest after those before."""

    def say() -> Tensor:
        token, state, said = torch.zeros(1, dtype=torch.long), model.initial_state(1), []
        for _ in range(count):
            y, state = model.step(token, state)
            token = y.argmax(-1)
            said.append(token)
        return torch.cat(said)

    return say


def models(H: int, N: int) -> dict[str, nn.Module]:
    """Models of four layers over tokens."""
    torch.manual_seed(0)
    kinds = {"S4D": S4D, "S4": S4}
    made = {
        name: SequenceModel(
            TOKENS, TOKENS, H, DEPTH, layer=layer, d_state=N, pool=None, embedding=True
        )
        for name, layer in kinds.items()
    }
    return {k: m.eval() for k, m in (made | {"GRU": GRUModel(TOKENS, H, DEPTH)}).items()}


def main(argv: list[str] | None = None) -> int:
    parser = options(__doc__)
    parser.add_argument("--H", type=int, default=CLAIMED[0], help="channels, default 256")
    parser.add_argument("--N", type=int, default=CLAIMED[1], help="state size, default 64")
    o = begin(parser, argv)
    o.H, o.N = (8, 8) if o.smoke else (o.H, o.N)
    count = 3 if o.smoke else STEPS
    torch.manual_seed(0)
    layers = {"S4D": S4D(o.H, o.N).eval(), "S4": S4(o.H, o.N).eval()}
    cell, long = nn.GRUCell(o.H, o.H), torch.randn(8 * count, 1, o.H)
    u = long[:count]
    head = "generation: steps of a layer and of a model, batch 1, float32"
    result: dict = {"benchmark": head, "sizes": {"H": o.H, "N": o.N}, "error": {}, "ratios": {}}
    print(f"H = {o.H}, N = {o.N}, batch 1, {o.threads} thread(s)")
    exact = {name: copy.deepcopy(layer).double() for name, layer in layers.items()}
    talk = {n: speaker(m, 8 * count) for n, m in models(o.H, o.N).items()}
    with torch.inference_mode():
        right = True
        for name, layer in layers.items():
            want = [exact[name](long.double().transpose(0, 1)).transpose(0, 1)]
            ours = {"fast": lambda layer=layer: [steps(layer, long)]}
            found, bad = judge(ours, lambda layer=layer: [plain_steps(layer, long)], want)
            result["error"][name] = found
            right = not refuse(name, found, bad) and right
        if not right:
            return 1
        calls = {name: lambda layer=layer: steps(layer, u) for name, layer in layers.items()}
        calls["torch GRUCell"] = lambda: cell_steps(cell, u)
        times = {n: [s / count for s in t] for n, t in alternate(calls, 3 * o.repeats).items()}
        show_times(times, 1e6, "us a step")
        said = {n: [s / (8 * count) for s in t] for n, t in alternate(talk, o.repeats).items()}
    for name in layers:
        result["ratios"][name] = ratios(times[name], times["torch GRUCell"])
        print(f"  step of {name} / GRUCell: {spread(result['ratios'][name])}")
    rate = {f"{n} model": 1 / statistics.median(t) for n, t in said.items()}
    print("  tokens a second, 4 layers: " + ", ".join(f"{n} {r:.0f}" for n, r in rate.items()))
    result["seconds"] = times | {f"{n} model, a token": t for n, t in said.items()}
    result["tokens_per_second"] = rate
    if (o.H, o.N) != CLAIMED:
        return finish(o, f"generate-{o.H}-{o.N}", result, {})
    claims: Claims = {RIGHT: True}
    for name in layers:
        found = result["ratios"][name]["median"]
        claims[f"{name}.step: at most {SLOWER:g}x a GRUCell ({found:.2f}x)"] = found <= SLOWER
    return finish(o, "generate", result, claims)


if __name__ == "__main__":
    sys.exit(main())
