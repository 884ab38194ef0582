"""What trained models of spoken digits answer, clip by clip: fsdd-heard.npz.

    python chapters/runs/models/fsdd_heard.py FOLDER        FOLDER has the published clips
    python chapters/runs/models/fsdd_heard.py FOLDER --check 7     the first 7 against the file

Fourteen ways to listen with the same weights; loudness is scaled by the same two numbers in all.
The file is made from the clips of the Free Spoken Digit Dataset (Jackson et al., CC BY-SA 4.0).
"""

import argparse
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from s4lite.data.shards import open_shard
from s4lite.data.speech import FSDD
from s4lite.data.waves import low_pass
from s4lite.nn.model import SequenceModel

HERE = Path(__file__).parent
FILE, LARGE = HERE / "fsdd-heard.npz", "fsdd-s4d-cpu"
SMALL, FEW = ("fsdd-s4d-tiny", "fsdd-s4d-tiny-discbilinear"), ("full", "low", "half", "quarter")
WAYS = {  # sample rate, way to come to it, rate that the model is told
    "full": (8000, "filter", 1.0),
    "low": (8000, "filter", 1.0),  # all samples, of what half of them could hold
    "half": (4000, "filter", 2.0),
    "mean": (4000, "mean", 2.0),
    "plain": (4000, "plain", 2.0),
    "untold": (4000, "filter", 1.0),
    "quarter": (2000, "filter", 4.0),
    "rate 1.4": (4000, "filter", 1.4),
    "rate 1.7": (4000, "filter", 1.7),
    "rate 2.4": (4000, "filter", 2.4),
    "rate 2.8": (4000, "filter", 2.8),
    "no slow": (8000, "filter", 1.0),  # a third of each layer's filters silenced, by their clocks
    "no middle": (8000, "filter", 1.0),
    "no fast": (8000, "filter", 1.0),
}


def loaded(name: str, way: str) -> SequenceModel:
    """A model; without a third of its filters if the way says so."""
    model = SequenceModel.from_pretrained(HERE / name).eval()
    for block in model.stack.blocks:
        kernel = block.layer.kernel
        slow, middle, fast = kernel.log_dt.argsort().tensor_split(3)
        cut = {"no slow": slow, "no middle": middle, "no fast": fast}.get(way)
        if cut is not None:
            kernel.C.data[:, cut] = 0
    return model


def filtered(u: Tensor, lengths: Tensor) -> Tensor:
    """A sound (batch, L, 1), at all samples, without what half of them could not hold."""
    taps = low_pass(2).to(u)
    padded = F.pad(u.mT, (len(taps) // 2 - 1, len(taps) // 2))
    real = torch.arange(u.shape[1]) < lengths[:, None]
    return F.conv1d(padded, taps[None, None]).mT.where(real[..., None], 0)


@torch.no_grad()
def heard(
    folder: Path, split: str, way: str, most: int | None = None, name: str = LARGE
) -> tuple[Tensor, Tensor]:
    """What the readout sees, (n, H), and the answers (n,), of the first clips of a split."""
    rate_hz, how, rate = WAYS[way]
    splits, model = FSDD(folder, sample_rate=rate_hz, resample=how).splits(), loaded(name, way)
    clips = getattr(splits, split)
    rows = np.argsort(clips.lengths[:most])
    seen = torch.zeros(len(rows), model.decoder.map.in_features)
    for some in np.array_split(rows, -(-len(rows) // 10)):
        u, _, _ = clips.__getitems__(some)
        lengths = torch.from_numpy(clips.lengths[some])
        u = filtered(u, lengths) if way == "low" else u
        x = model.stack(model.encoder(u, "batch L", lengths), rate=rate, lengths=lengths)
        seen[some] = x.sum(1) / lengths[:, None]
    return seen, model.decoder.map(seen).argmax(-1)


def everything(folder: Path, most: int | None = None) -> dict[str, np.ndarray]:
    """What the file holds of the first clips: what the readout sees, and the answers."""
    tests = {way: heard(folder, "test", way, most) for way in WAYS}
    seen = {"test": tests["full"][0], "val": heard(folder, "val", "full", most)[0]}
    found = {f"seen_{split}": x.half().numpy() for split, x in seen.items()}
    said = {LARGE: [answers for _, answers in tests.values()]}
    said |= {name: [heard(folder, "test", way, most, name)[1] for way in FEW] for name in SMALL}
    return found | {name: torch.stack(x, 1).to(torch.uint8).numpy() for name, x in said.items()}


def main() -> int:
    """Write the file, or check its beginning."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--check", type=int, help="only so many clips, write nothing")
    asked = parser.parse_args()
    found = everything(asked.folder, asked.check)
    if asked.check:
        there = np.load(FILE)
        near = {k: np.allclose(there[k][: asked.check], x, atol=5e-3) for k, x in found.items()}
        print(near)
        return 0 if all(near.values()) else 1
    task = FSDD(asked.folder)
    splits, names = task.splits(), open_shard(task.shards, "names.npy")
    found |= {f"names_{split}": names[getattr(splits, split).rows] for split in ("val", "test")}
    found |= {"ways": list(WAYS), "few": list(FEW), "scale": [float(x) for x in splits.test.scale]}
    np.savez_compressed(FILE, **found)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
