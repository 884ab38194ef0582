"""Make chapters/data/forecasting_looks.json: the test's error at each look at validation.

    python chapters/_tools/make_looks.py DATA_DIR [-o FOLDER]

DATA_DIR holds ETT-small/ETTh1.csv. A run of the ledger is tested once, with the weights that
validation chose. Here the same networks are trained again, by the same steps, and the test is
scored at each look: for chapter 20 to show how much hangs on the choice. Nothing is chosen by it.
It takes about half an hour of one core.
"""

import argparse
import json
import sys
from pathlib import Path
from typing import Any

import torch
from lightning import Callback, LightningModule, Trainer
from torch.utils.data import Dataset

from s4lite.data.files import DamagedData, MissingData, atomic_write
from s4lite.recipes.jobs import job as made
from s4lite.train.data import TaskData
from s4lite.train.job import Job
from s4lite.train.module import Learner
from s4lite.train.pieces import quiet

FILE = "forecasting_looks.json"
HERE = Path(__file__).resolve().parent.parent / "data"
CASES = ({}, {"task.inputs": "s4", "task.context": 384})  # as the author said, and as released
LOOKS = 15  # three passes
DIGITS = 5


@torch.no_grad()
def error(model: torch.nn.Module, part: Dataset) -> float:
    """The mean squared error of a model's forecasts of a part."""
    was, total, count = model.training, 0.0, 0
    model.eval()
    for first in range(0, len(part), 50):
        batch = part.__getitems__(range(first, min(first + 50, len(part))))
        off = model(batch.u)[:, -batch.y.shape[1] :] - batch.y
        total, count = total + off.square().sum().item(), count + off.numel()
    model.train(was)
    return total / count


class Looks(Callback):
    """Scores the test behind each validation."""

    def __init__(self, test: Dataset) -> None:
        self.test, self.rows = test, []

    def on_train_epoch_end(self, trainer: Trainer, learner: LightningModule) -> None:
        """Add a row."""
        val = trainer.callback_metrics["val/mse"].item()
        row = {"val": val, "test": error(learner.model, self.test)}
        self.rows.append({name: round(value, DIGITS) for name, value in row.items()})


def looks(job: Job, count: int) -> list[dict[str, float]]:
    """Train a job as a run does, for so many looks: the errors of validation and test at each."""
    job.task.prepare()
    data = TaskData(job.task, job.batch_size, seed=job.seed, shares=job.shares)
    torch.manual_seed(job.seed)
    total = job.epochs * data.steps()
    learner = Learner(job.build(), "mse", **{"seed": job.seed} | job.learner | {"total": total})
    watch = Looks(data.parts.test)
    silent = {"logger": False, "enable_progress_bar": False, "enable_model_summary": False}
    silent |= {"enable_checkpointing": False, "num_sanity_val_steps": 0, "accelerator": "cpu"}
    with quiet():
        Trainer(max_epochs=count, callbacks=[watch], use_distributed_sampler=False, **silent).fit(
            learner, data
        )
    return watch.rows


def of(folder: Path, overrides: dict[str, Any]) -> dict[str, Any]:
    """The looks of one case: the paper's recipe for a day of ETTh1, with some things changed."""
    likes = {"data_dir": folder, "download": False, "overrides": overrides}
    job = made("etth1", "paper", "s4", **likes)
    return {"command": job.record["command"], "rows": looks(job, LOOKS)}


def main(argv: list[str] | None = None) -> int:
    """Train, and write what was seen; 0 if it was written, 3 if the series is not to be had."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("data_dir", type=Path, help="folder with ETT-small/ETTh1.csv")
    parser.add_argument("-o", "--out", type=Path, default=HERE, help=f"folder to write {FILE} into")
    given = parser.parse_args(argv)
    try:
        cases = [of(given.data_dir, overrides) for overrides in CASES]
    except (MissingData, DamagedData, NotADirectoryError) as wrong:
        print(wrong, "nothing was written", sep="\n", file=sys.stderr)
        return 3
    about = {"command": "python chapters/_tools/make_looks.py DATA_DIR", "looks": LOOKS}
    about["versions"] = {"python": sys.version.split()[0], "torch": torch.__version__}
    text = json.dumps(about | {"cases": cases}, indent=1) + "\n"
    atomic_write(given.out / FILE, lambda file: file.write(text.encode()))
    return 0


if __name__ == "__main__":
    sys.exit(main())
