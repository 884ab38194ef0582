"""Timing a recipe before it is run.

Home: chapter 16, "Recipes by name" (chapters/16c_recipes.ipynb).
"""

import itertools
import time
from typing import Any

import numpy as np
import torch
from torch import nn

from s4lite.data.draws import check_whole
from s4lite.data.task import Batch
from s4lite.train.data import TaskData
from s4lite.train.job import Job
from s4lite.train.objectives import objective

__all__ = ["bench"]


def bench(job: Job, steps: int = 10, device: str | torch.device = "cpu") -> dict[str, Any]:
    """Time a few training steps of a job, and how fast its data comes.

    Args:
        job     Job           as `recipes.jobs.job` makes it; its data is prepared if need be
        steps   int           that are timed, after two that are not; at most an epoch's
        device  str | device  where the network runs
    Returns:
        dict  parameters, sequences, steps_per_epoch, step_ms, load_ms, load_times (how often
            the loading of a batch goes into a step), minutes (of training steps in the whole run)
    Raises:
        TypeError, ValueError: if steps is no int, or < 1.
    """
    check_whole(steps=steps)
    likes = {name: getattr(job, name) for name in ("seed", "workers", "buckets", "shares")}
    data = TaskData(job.task, job.batch_size, **likes)
    data.prepare_data(), data.setup("fit"), torch.manual_seed(job.seed)
    net, per_epoch = job.build().to(device).train(), data.steps()
    batches, loading = [], []
    start = time.perf_counter()
    for batch in itertools.islice(data.train_dataloader(), min(steps + 2, per_epoch)):
        loading.append(time.perf_counter() - start)
        batches.append(batch)
        start = time.perf_counter()
    walking = _walk(net, batches, job, device)
    step, load = (float(np.mean(x[2:] or x)) for x in (walking, loading))
    count = sum(p.numel() for p in net.parameters())
    found = {"parameters": count, "sequences": len(data.parts.train), "steps_per_epoch": per_epoch}
    found |= {"step_ms": 1e3 * step, "load_ms": 1e3 * load, "load_times": step / load}
    return found | {"minutes": job.epochs * per_epoch * step / 60}


def _walk(net: nn.Module, batches: list[Batch], job: Job, device: Any) -> list[float]:
    """Seconds of each training step."""
    goal, seconds = objective(job.task.metric), []
    optimizer = torch.optim.AdamW(net.parameters(), 1e-6)
    for batch in batches:
        start = time.perf_counter()
        u, y, lengths = (x if x is None else x.to(device) for x in batch)
        loss = goal.loss(goal.sums(net(u) if lengths is None else net(u, lengths=lengths), y))
        optimizer.zero_grad(), loss.backward(), optimizer.step()
        if torch.device(device).type == "cuda":
            torch.cuda.synchronize()
        seconds.append(time.perf_counter() - start)
    return seconds
