"""A synthetic task of a few milliseconds, and a trainer without any noise, for the tests here."""

import logging
import warnings

import torch
from lightning import Trainer
from lightning.pytorch.callbacks import Callback
from torch.utils.data import Dataset

from s4lite import SequenceModel
from s4lite.data.task import Splits, Task
from s4lite.train.data import TaskData
from s4lite.train.module import Learner

for name in ("lightning.pytorch", "lightning.fabric"):
    logging.getLogger(name).setLevel(logging.ERROR)
warnings.filterwarnings("ignore", module="lightning")


class Signs(Dataset):
    """Sequences of three numbers or more, and whether their first is positive."""

    def __init__(self, n, seed, ragged=False):
        rng = torch.Generator().manual_seed(seed)
        sizes = torch.randint(3, 12, (n,), generator=rng) if ragged else torch.full((n,), 6)
        self.u = [torch.randn(int(k), 1, generator=rng) for k in sizes]
        if ragged:
            self.lengths = sizes.numpy()
        self.calls = []

    def __len__(self):
        return len(self.u)

    def __getitem__(self, i):
        self.calls.append(i)
        return self.u[i], int(self.u[i][0, 0] > 0)


class Tiny(Task):
    """37 sequences to learn from, 11 to choose by, 9 to test with."""

    name, d_input, d_output, length, metric = "tiny", 1, 2, 12, "accuracy"

    def __init__(self, ragged=False, sizes=(37, 11, 9)):
        super().__init__(download=False)
        self.parts = Splits(*(Signs(n, i, ragged) for i, n in enumerate(sizes)))

    def splits(self):
        return self.parts


def model(seed=0, dropout=0.2):
    torch.manual_seed(seed)
    return SequenceModel(1, 2, 4, 1, d_state=4, dropout=dropout)


def learner(**settings):
    likes = {"lr": 0.02, "schedule": "cosine", "total": 27, "warmup": 3, "seed": 5}
    return Learner(model(), "accuracy", **likes | {"weight_decay": 0.01} | settings)


def data(task=None, **options):
    return TaskData(task or Tiny(), 4, **{"seed": 3} | options)


def trainer(folder, **options):
    quiet = {"logger": False, "enable_progress_bar": False, "enable_model_summary": False}
    where = {"accelerator": "cpu", "devices": 1, "default_root_dir": folder}
    likes = {"enable_checkpointing": False, "max_epochs": 3, "use_distributed_sampler": False}
    return Trainer(**quiet | where | likes | options)


def weights(learner):
    return {name: p.detach().clone() for name, p in learner.state_dict().items()}


def same(a, b):
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


class Keep(Callback):
    """Write a checkpoint behind a step, in all processes."""

    def __init__(self, path, step):
        self.path, self.step = path, step

    def on_train_batch_end(self, trainer, *args):
        if trainer.global_step == self.step:
            trainer.save_checkpoint(self.path)
