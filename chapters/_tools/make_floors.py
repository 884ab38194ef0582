"""Make chapters/data/forecasting_floors.json out of the published series.

    python chapters/_tools/make_floors.py DATA_DIR [-o FOLDER]

DATA_DIR holds ETT-small/ETTh1.csv, ETTh2.csv, ETTm1.csv and WTH.csv; see s4lite.data.forecasting.
ECL is left out unless ECL.csv is there; if another one is missing or damaged, nothing is written.
Nothing is trained but linear maps, without and with a constant, which have one solution; so nobody
needs to run this, it is here to say exactly what was done.
"""

import argparse
import json
import sys
from pathlib import Path

import numpy as np
import torch

from s4lite.data.files import DamagedData, MissingData, atomic_write, digest_of
from s4lite.data.floors import _RIDGE, _stretches, floors
from s4lite.data.forecasting import Forecasting
from s4lite.data.series import published

FILE = "forecasting_floors.json"
HERE = Path(__file__).resolve().parent.parent / "data"
NAMES = ("etth1", "etth2", "ettm1", "weather", "ecl")
CONTEXT = 384  # of the S4 code's configuration
DIGITS = 5


def rounded(score: float) -> float:
    """As it is kept: the same on other machines."""
    return round(score, DIGITS)


def affine(task: Forecasting) -> dict[str, dict[str, float]]:
    """The linear map with a constant for each lead, fitted to training: its scores on each part."""
    parts, T = task.splits(), task.context
    both, n = 0.0, 0
    for x, y in _stretches(parts.train):
        one = torch.cat([x - x[:, -1:], torch.ones(len(x), 1).double(), y - x[:, -1:]], 1)
        both, n = both + one.mT @ one, n + len(x)
    ridge = _RIDGE * n * torch.eye(T + 1).double()
    ridge[T, T] = 0  # none on the constant
    W = torch.linalg.solve(both[: T + 1, : T + 1] + ridge, both[: T + 1, T + 1 :])
    scores = {}
    for split, part in parts._asdict().items():
        errors = [(x - x[:, -1:]) @ W[:T] + W[T] + x[:, -1:] - y for x, y in _stretches(part)]
        error = torch.cat(errors)
        scores[split] = {"mse": error.square().mean().item(), "mae": error.abs().mean().item()}
    return scores


def rounded_all(scores: dict[str, dict[str, float]]) -> dict[str, dict[str, float]]:
    """The scores of all kinds of forecasts."""
    return {kind: {m: rounded(x) for m, x in score.items()} for kind, score in scores.items()}


def of(folder: Path, name: str) -> dict:
    """The floors of a series at its published horizons, and what its scale is made of.

    Those of the test stand under the horizon itself, under "train" and "val" those of these
    parts; "scale" is the mean and the deviation of the training part, in the series' own units.
    """
    first = Forecasting(folder, series=name, download=False)
    entry = {"file": first.series.file, "digest": digest_of(first.path()), "horizons": {}}
    for horizon in published(name).horizons:
        task = Forecasting(folder, series=name, horizon=horizon, context=CONTEXT, download=False)
        map_ = affine(task)
        scores = {
            split: rounded_all(floors(task, split) | {"affine": map_[split]})
            for split in ("test", "train", "val")
        }
        windows = {"windows": len(task.splits().test)}
        entry["horizons"][str(horizon)] = windows | scores.pop("test") | scores
    table, parts = first.read()
    means, stds = [], []
    for part in parts:
        values = table.values[part.start : part.stop, 0]
        means.append(rounded(values.mean()))
        stds.append(rounded(values.std()))
    whole = Forecasting(folder, series=name, scale="whole", download=False)
    whole.read()
    entry["scale"] = {"mean": rounded(first.mean[0]), "std": rounded(first.std[0])}
    entry["parts"] = {"samples": [len(part) for part in parts], "mean": means, "std": stds}
    entry["train_over_whole"] = rounded(float((first.std / whole.std)[0] ** 2))
    return entry


def main(argv: list[str] | None = None) -> int:
    """Read the series, write the floors; 0 if they were written, 3 if a series is not to be had."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("data_dir", type=Path, help="folder with ETT-small/*.csv and WTH.csv")
    parser.add_argument("-o", "--out", type=Path, default=HERE, help=f"folder to write {FILE} into")
    given = parser.parse_args(argv)
    series = {}
    for name in NAMES:
        try:
            series[name] = of(given.data_dir, name)
        except (MissingData, DamagedData, NotADirectoryError) as error:
            print(error, file=sys.stderr)
            if name != "ecl" or not isinstance(error, MissingData):
                print(f"{name} is wanted: nothing was written", file=sys.stderr)
                return 3
        else:
            print(f"{name}: {len(series[name]['horizons'])} horizons", file=sys.stderr)
    about = {
        "command": "python chapters/_tools/make_floors.py DATA_DIR",
        "context": CONTEXT,
        "versions": {"python": sys.version.split()[0], "torch": torch.__version__}
        | {"numpy": np.__version__},
    }
    text = json.dumps(about | {"series": series}, indent=1) + "\n"
    atomic_write(given.out / FILE, lambda file: file.write(text.encode()))
    return 0


if __name__ == "__main__":
    sys.exit(main())
