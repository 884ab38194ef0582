"""From a recipe's name, a size and a model to a job that can be run.

Home: chapter 16, "Recipes by name" (chapters/16c_recipes.ipynb).
"""

import dataclasses
import functools
import hashlib
import os
import re
import shlex
from dataclasses import fields, replace
from typing import Any

from torch import nn

from s4lite.data.task import Splits
from s4lite.nn.groups import param_groups
from s4lite.recipes.catalogue import Network, Recipe, Size, Walk, choose, recipe
from s4lite.recipes.changes import change
from s4lite.recipes.models import build, layers
from s4lite.recipes.parts import load, task_for
from s4lite.train.job import Job
from s4lite.train.module import Settings

__all__ = ["beside", "job", "planned", "run_name"]


_HIGHEST = {"lstm": 2e-3, "tcn": 2e-3, "ckconv": 4e-3, "transformer": 1e-3}  # rates
_RATES = ("lr", "ssm_lr", "clock_lr", "weight_decay")
_LEARNER = sorted({f.name for f in fields(Walk)} & {f.name for f in fields(Settings)})


def planned(
    name: str, size: str = "tiny", model: str = "s4d", overrides: dict[str, Any] | None = None
) -> tuple[Recipe, Size, dict[str, Any]]:
    """Look up a recipe and its size, and change it for a model and by name.

    Args:
        name, size, model  str   as in the catalogue, and of `layers()`
        overrides          dict  as for `change`
    Returns:
        recipe, size, options  Recipe, Size and the layer's own options
    Raises:
        ValueError: if a name is unknown, or a value does not fit.
        NotImplementedError: if the task is not in this version of s4lite.
    """
    made, wanted = recipe(name), dict(overrides or {})
    base = made.sizes[choose("size", size, tuple(made.sizes))]
    if choose("model", model, tuple(layers())) in _HIGHEST:
        base = replace(base, lr=min(base.lr, _HIGHEST[model]))
    return made, *change(base, model, load(base.made_by or made.task), wanted)


def job(
    name: str,
    size: str = "tiny",
    model: str = "s4d",
    *,
    seed: int = 0,
    overrides: dict[str, Any] | None = None,
    data_dir: str | os.PathLike[str] | None = None,
    download: bool = True,
) -> Job:
    """Make a job: everything that `train.running.run` needs. Nothing is read or written.

    Args:
        name, size, model  str          "smnist", "tiny", "s4d"; see `names()` and `layers()`
        seed               int          of weights, order and noise
        overrides          dict         name -> value, or its text: {"lr": 0.004}
        data_dir           path | None  folder with the published files; None for the user's cache
        download           bool         False: never download
    Returns:
        Job
    Raises:
        ValueError: if a name is unknown, or a value does not fit.
        NotImplementedError: if the task is not in this version of s4lite.
    """
    made, chosen, options = planned(name, size, model, overrides)
    task = task_for(made, chosen, data_dir, download=download)
    learner = {each: getattr(chosen, each) for each in _LEARNER}
    _ = Settings(**learner, total=chosen.warmup + 1)  # says now what it would say in an hour
    _ = param_groups(nn.Linear(1, 1), **{k: learner[k] for k in _RATES})
    net = {f.name: getattr(chosen, f.name) for f in fields(Network)} | chosen.layer | options
    walk = {"epochs": chosen.epochs, "batch_size": chosen.batch_size, "patience": chosen.stop}
    names = ("accumulate", "workers", "precision", "buckets", "shares")
    walk |= {each: getattr(chosen, each) for each in names}
    record = _record(made, size, chosen, seed, {"name": model} | net, overrides or {})
    called = run_name(made, size, model, overrides or {}) + f"-seed{seed}" * bool(seed)
    run = {"name": called, "seed": seed, "record": record}
    make = functools.partial(build, model, task, **net)
    return Job(task=task, build=make, learner=learner, **walk, **run)


def beside(made: Recipe, model: str, horizon: int | None = None) -> dict[str, Any]:
    """What was published, as the ledger holds it: for this model, and for all.

    Args:
        made, model  Recipe, str
        horizon      int | None  of a forecast: figures of another one do not count
    Returns:
        dict  value, source, printed of the first figure for this model, if there is one; others
    """
    figures = [f for f in made.figures if f.horizon == horizon]
    facts = [{k: v for k, v in dataclasses.asdict(f).items() if v is not None} for f in figures]
    own = [f for f in facts if f["model"] == model][:1]
    told = [f | {"value": f["score"]} for f in facts]
    others = [{k: f[k] for k in ("printed", "value", "source", "mae") if k in f} for f in told]
    first = {k: own[0][k] for k in ("printed", "source", "mae") if k in own[0]} if own else {}
    first |= {"value": own[0]["score"]} if own else {}
    return first | ({"all": others} if others else {})


def run_name(made: Recipe, size: str, model: str, overrides: dict[str, Any]) -> str:
    """What a run is called: what it is a stand-in for, and what was changed, is in its name.

    Args:
        made, size, model  as in `planned`
        overrides          dict  as for `change`
    Returns:
        name  str  for files: letters, digits, dots, - and _
    """
    stand_in = "-stand-in" * bool(made.sizes[size].made_by)
    changed = "".join(f"-{k.removeprefix('task.')}{v}" for k, v in sorted(overrides.items()))
    name = re.sub(r"[^\w.-]+", "_", f"{made.name}{stand_in}-{model}-{size}{changed}")
    digest = hashlib.sha256(name.encode()).hexdigest()[:8]
    return name if len(name) <= 100 else f"{name[:91]}-{digest}"


def _record(
    made: Recipe,
    size: str,
    chosen: Size,
    seed: int,
    net: dict[str, Any],
    overrides: dict[str, Any],
) -> dict[str, Any]:
    """What the ledger takes over of a recipe."""
    model, name = net["name"], ["s4lite", "train", made.name]
    command = [*name, "--size", size, "--model", model]
    command += [word for k, v in overrides.items() for word in ("--set", f"{k}={v}")]
    command += ["--seed", str(seed)] * bool(seed)
    parts = [f"{n:,} for {k}" for k in Splits._fields if (n := getattr(chosen, k))]
    notes = [*chosen.notes, *[f"a part of the sequences: {', '.join(parts)}"] * bool(parts)]
    if size != "paper":
        notes.append(f"size {size} is a recipe of ours, not a published one")
    if chosen.source and model not in ("s4", "s4d"):
        notes.append(f"the published recipe is for S4; here the layer is {model}")
    if overrides:
        changed = ", ".join(f"{k}={v}" for k, v in overrides.items())
        notes.append(f"changed by name, whatever the notes before say: {changed}")
    asked = {"recipe": made.name, "size": size, "model": net, "overrides": dict(overrides)}
    more = {"notes": notes, "source": chosen.source, "command": shlex.join(command)}
    return asked | more | {"published": beside(made, model, chosen.task.get("horizon"))}
