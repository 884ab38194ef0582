"""The delay task of chapter 07: say at every moment what was heard `delay` samples ago.

    python chapters/runs/delay.py [--model legt lstm gru] [--delay 100 ...] [--seeds 0 1 2]
                                  [--effort K] [--updates N] [--batch N] [--out chapters/runs]
    python chapters/runs/delay.py --rates

Writes delay-<model>.json, after every cell (a delay and a seed), and skips the cells that are
there already: stop it whenever you like. One thread; a fixed number of updates for each delay, so
that a busy machine changes the times in the file and nothing else. `--effort 10` allows ten times
the updates and writes delay-<model>-x10.json. `--rates` only prints how the learning rates were
chosen: by the error on sequences for validation, which no test sees.

The metric is the relative RMS error on fresh sequences: 0 is perfect, 1 is what a model scores that
always says 0. Sequences are 2 delays long and scored from 1.25 delays on: the answer exists from
one delay on, and the sudden start of the signal gets a quarter of a delay to leave the window.
"""

import argparse
import json
import platform
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

import s4lite
from s4lite.data.signals import delay_task
from s4lite.nn.baselines import GRU, LSTM
from s4lite.nn.lmu import ParallelLMU

HERE = Path(__file__).resolve()
ROOT = HERE.parents[2]
CYCLES = 6  # at most so many cycles of the signal in a delay
N = 32  # state numbers of every model
BUDGET = {100: (3000, 16), 1000: (300, 16), 10_000: (50, 8), 100_000: (8, 4)}  # updates, batch
RATES = (3e-3, 1e-2, 3e-2)  # tried at delay 100, seed 0, with a quarter of the updates: --rates
RATE = {"legt": 3e-2, "lstm": 1e-2, "gru": 1e-2}
NOTES = {
    "legt": [
        "memory: ParallelLMU with N = 32 fixed Legendre numbers, window = delay + 1/2 samples "
        "(zero-order hold recalls half a sample early); nothing in it is trained",
        "error: read-out trained from a random start with the optimizer and updates in this file",
        "least_squares: the same read-out solved at once from one batch of training sequences",
        "closed_form: the sum of the N numbers, which is the far end of the window; no training",
    ],
    "rnn": [
        "one linear map in, the recurrent net, one linear map out; backpropagation through all "
        "2 x delay steps, nothing truncated",
        "gate biases start for memories of 1 to `delay` samples (chrono initialization)",
        "the number of updates falls with the delay, because an update costs as many sequential "
        "steps as the sequence is long: 3000, 300, 50 and 8 updates, times the effort. At 100,000 "
        "that is a few steps from the start, not a trained net",
    ],
}


class Recurrent(nn.Module):
    """A baseline between two linear maps: u (batch, L, 1) to y (batch, L, 1)."""

    def __init__(self, layer: nn.Module) -> None:
        super().__init__()
        self.into, self.layer = nn.Linear(1, layer.d_model), layer
        self.out = nn.Linear(layer.d_model, 1)

    def forward(self, u: Tensor) -> Tensor:
        """Map a signal to a signal."""
        return self.out(self.layer(self.into(u)))


def make(model: str, delay: int) -> nn.Module:
    """Build a model with N numbers of state: an LSTM's are h and c, so it has N/2 units."""
    if model == "legt":
        return ParallelLMU(1, N, delay + 0.5, length=2 * delay, activation=None)
    return Recurrent(LSTM(N // 2, chrono=delay) if model == "lstm" else GRU(N, chrono=delay))


def scored(y: Tensor, delay: int) -> Tensor:
    """The part of a signal (batch, L, 1) that counts."""
    return y[:, delay + delay // 4 :]


def relative_rms(y: Tensor, want: Tensor, delay: int) -> Tensor:
    """RMS error over the RMS of what was wanted."""
    y, want = scored(y, delay), scored(want, delay)
    return ((y - want).square().mean() / want.square().mean()).sqrt()


def numbers(seed: int, delay: int) -> torch.Generator:
    """The random numbers of a seed's training sequences."""
    return torch.Generator().manual_seed(1_000_000 * (seed + 1) + delay)


def train(net: nn.Module, delay: int, updates: int, batch: int, rate: float, draw) -> list:
    """Adam with clipped gradients; give back the curve: [update, relative RMS on its batch]."""
    adam, curve = torch.optim.Adam(net.parameters(), lr=rate), []
    for i in range(updates):
        u, y = delay_task(batch, 2 * delay, delay, CYCLES, draw)
        out, y = scored(net(u), delay), scored(y, delay)
        loss = (out - y).square().mean()
        adam.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(net.parameters(), 1.0)
        adam.step()
        if i % max(1, updates // 50) == 0 or i == updates - 1:
            curve.append([i + 1, round((loss.detach() / y.square().mean()).sqrt().item(), 6)])
    return curve


@torch.no_grad()
def recall(net: ParallelLMU, delay: int, batch: int, draw) -> dict[str, nn.Module]:
    """The same memory with two other read-outs: solved from one batch, and in closed form."""
    u, y = delay_task(batch, 2 * delay, delay, CYCLES, draw)
    net.encode.weight.fill_(1.0)
    net.encode.bias.zero_()
    m = scored(net.memory(u.mT)[:, 0].mT, delay).flatten(0, 1).double()  # (moments, N)
    w = torch.linalg.lstsq(m, scored(y, delay).flatten().double(), driver="gelsd").solution
    read = {"least_squares": w, "closed_form": torch.ones(N)}
    return {
        name: lambda u, w=w: net.memory(u.mT)[:, 0].mT @ w.float()[:, None]
        for name, w in read.items()
    }


def cell(model: str, delay: int, seed: int, updates: int, batch: int) -> dict:
    """Train and test once."""
    start, _ = time.perf_counter(), torch.manual_seed(seed)
    draw, net = numbers(seed, delay), make(model, delay)
    run = {"seed": seed, "curve": train(net, delay, updates, batch, RATE[model], draw)}
    u, y = delay_task(batch, 2 * delay, delay, CYCLES, torch.Generator().manual_seed(77 + seed))
    with torch.no_grad():
        run["error"] = relative_rms(net(u), y, delay).item()
        others = recall(net, delay, batch, draw) if model == "legt" else {}
        run |= {name: relative_rms(f(u), y, delay).item() for name, f in others.items()}
    run["parameters"] = sum(p.numel() for p in net.parameters())
    return run | {"seconds": round(time.perf_counter() - start, 1), "commit": commit()}


def rates(model: str, delay: int = 100) -> dict[float, float]:
    """The error on sequences for validation after a quarter of the updates, for each rate."""
    (updates, batch), errors = BUDGET[delay], {}
    u, y = delay_task(batch, 2 * delay, delay, CYCLES, torch.Generator().manual_seed(5))
    for rate in RATES:
        _ = torch.manual_seed(0)
        net = make(model, delay)
        train(net, delay, updates // 4, batch, rate, numbers(0, delay))
        with torch.no_grad():
            errors[rate] = relative_rms(net(u), y, delay).item()
    return errors


def commit() -> str:
    """The commit of the working tree; "-dirty" if the package or this file differ from it."""
    git = ["git", "-C", str(ROOT)]
    try:
        head = subprocess.run([*git, "rev-parse", "HEAD"], capture_output=True, check=True)
        paths = ["--", "s4lite", "chapters/runs/delay.py"]
        changed = subprocess.run([*git, "status", "--porcelain", *paths], capture_output=True)
    except (OSError, subprocess.CalledProcessError):
        return "unknown"
    return head.stdout.decode().strip() + ("-dirty" if changed.stdout.strip() else "")


def cpu() -> str:
    """The public name of the processor."""
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.exists() else []
    names = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()


def header(model: str, effort: int) -> dict:
    """All of the file but its cells."""
    return {
        "name": name_of(model, effort),
        "command": " ".join(["python", "chapters/runs/delay.py", *sys.argv[1:]]),
        "commit": commit(),
        "hardware": {"cpu": cpu(), "threads": torch.get_num_threads()},
        "versions": {
            "python": platform.python_version(),
            "torch": torch.__version__,
            "numpy": np.__version__,
            "s4lite": s4lite.__version__,
        },
        "task": {
            "cycles_per_delay": CYCLES,
            "length": "2 x delay",
            "scored": "from 1.25 x delay on",
            "metric": "relative RMS error on fresh sequences",
        },
        "effort": effort,
        "model": {"name": model, "state_numbers": N},
        "optimizer": {"name": "Adam", "lr": RATE[model], "clip_grad_norm": 1.0},
        "notes": NOTES["legt" if model == "legt" else "rnn"],
    }


def name_of(model: str, effort: int) -> str:
    """The name of a ledger."""
    return f"delay-{model}" + (f"-x{effort}" if effort > 1 else "")


def write(path: Path, model: str, effort: int, delays: dict) -> None:
    """Write the ledger, whole or not at all."""
    runs = [run for each in delays.values() for run in each["runs"]]
    ledger = header(model, effort) | {
        "seeds": sorted({run["seed"] for run in runs}),
        "parameters": runs[0]["parameters"],
        "wall_seconds": round(sum(run["seconds"] for run in runs), 1),
        "delays": dict(sorted(delays.items(), key=lambda item: int(item[0]))),
    }
    draft = path.with_suffix(".part")
    draft.write_text(json.dumps(ledger, indent=1) + "\n")
    draft.replace(path)


def main() -> None:
    """Read the command line, and fill in what is missing."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", nargs="+", choices=list(RATE), default=list(RATE))
    parser.add_argument("--delay", nargs="+", type=int, default=list(BUDGET))
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2])
    parser.add_argument("--effort", type=int, default=1, help="multiplies the updates")
    parser.add_argument("--updates", type=int, help="for all delays, in place of the budget")
    parser.add_argument("--batch", type=int)
    parser.add_argument("--out", type=Path, default=HERE.parent)
    parser.add_argument("--rates", action="store_true", help="print how they were chosen")
    args = parser.parse_args()
    torch.set_num_threads(1)
    for model in args.model:
        if args.rates:
            print(model, {rate: round(error, 3) for rate, error in rates(model).items()})
            continue
        path = args.out / f"{name_of(model, args.effort)}.json"
        delays = json.loads(path.read_text())["delays"] if path.exists() else {}
        for delay, seed in [(delay, seed) for delay in args.delay for seed in args.seeds]:
            updates, batch = BUDGET.get(delay, (100, 8))
            updates = (args.updates or updates) * args.effort
            plan = {"updates": updates, "batch": args.batch or batch}
            each = delays.setdefault(str(delay), plan | {"runs": []})
            if any(each[name] != plan[name] for name in plan):
                raise SystemExit(f"{path} holds delay {delay} with another budget than {plan}")
            if seed not in [run["seed"] for run in each["runs"]]:
                each["runs"].append(cell(model, delay, seed, **plan))
                write(path, model, args.effort, delays)
                last = each["runs"][-1]
                print(
                    f"{path.stem}, delay {delay}, seed {seed}: {last['error']:.4f} "
                    f"({last['seconds']} s)",
                    flush=True,
                )


if __name__ == "__main__":
    main()
