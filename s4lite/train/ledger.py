"""What is written down of a run, so that it can be repeated and printed.

Home: chapter 16, "A run that can be repeated" (chapters/16b_running.ipynb).
"""

import json
import math
import os
import platform
import re
import subprocess
import typing
from collections.abc import Mapping
from dataclasses import MISSING, dataclass, field, fields
from pathlib import Path
from typing import Any

import numpy as np
import torch

from s4lite.data.files import atomic_write

__all__ = ["Run", "as_json", "commit", "hardware", "read", "score", "table", "write"]


@dataclass
class Run:
    """A run as a file of the ledger holds it.

    Args:
        name          str    <recipe>-<model>-<size>, -seedN behind it if there are several
        command       str    what repeats it
        commit        str    of the code; "" if unknown, "-dirty" behind it if files were changed
        seeds         list   of int
        hardware      dict   product names: cpu, threads, gpu, processes
        versions      dict   python, torch, numpy, s4lite, ...
        wall_seconds  float  over all pieces of an interrupted run
        cpu_seconds   float  the same, of all processors that the first process, its threads and
            its ended workers had; 0 if unknown
        parameters    int    numbers that are trained
        recipe, size  str    such as "smnist", "tiny"
        task, model   dict   among others name and metric
        settings      dict   everything that the result depends on
        overrides     dict   what was set otherwise than the recipe says
        curve         list   of an epoch's epoch, step, seconds, train, val
        chosen        dict   the row of the curve whose weights were tested
        scores        dict   of the test
        evaluations   list   of other tests of these weights: split, rate, overrides, scores, ...
        published     dict   value, source: the figure beside which it stands
        notes         list   of str: partial data, stand-ins, whatever must be known
        more          dict   other fields of the file

    Source: our eq-running-chosen.
    """

    name: str
    command: str
    commit: str
    seeds: list[int]
    hardware: dict[str, Any]
    versions: dict[str, str]
    wall_seconds: float
    parameters: int
    cpu_seconds: float = 0.0
    recipe: str = ""
    size: str = ""
    task: dict[str, Any] = field(default_factory=dict)
    model: dict[str, Any] = field(default_factory=dict)
    settings: dict[str, Any] = field(default_factory=dict)
    overrides: dict[str, Any] = field(default_factory=dict)
    curve: list[dict[str, Any]] = field(default_factory=list)
    chosen: dict[str, Any] = field(default_factory=dict)
    scores: dict[str, Any] = field(default_factory=dict)
    evaluations: list[dict[str, Any]] = field(default_factory=list)
    published: dict[str, Any] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)
    more: dict[str, Any] = field(default_factory=dict)


def as_json(value: Any) -> Any:
    """A value as JSON can hold it: what is no finite number becomes null, tuples become lists.

    Args:
        value  any  plain data; anything else by its `str`
    Returns:
        value  any
    """
    if isinstance(value, Mapping):
        return {str(key): as_json(each) for key, each in value.items()}
    if isinstance(value, (list, tuple)):
        return [as_json(each) for each in value]
    value = value.item() if isinstance(value, np.generic) else value
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    return value if value is None or isinstance(value, (bool, int)) else str(value)


def write(run: Run, path: str | os.PathLike[str]) -> Path:
    """Write a run's file, whole or not at all.

    Args:
        run   Run
        path  path  the file, or a folder in which it is called <name>.json
    Returns:
        path  Path  the file
    Raises:
        ValueError: if the name is none for a file.
        OSError: if it cannot be written; an older one stands.
    """
    if not re.fullmatch(r"[\w.+-]+", run.name):
        raise ValueError(f"want a name of letters, digits, '-', '_', '+', '.', got {run.name!r}")
    path = Path(path)
    path = path / f"{run.name}.json" if path.is_dir() else path
    empty = {
        f.name for f in fields(Run) if f.default is not MISSING or f.default_factory is not MISSING
    }
    held = {name: value for name, value in vars(run).items() if value or name not in empty}
    held |= held.pop("more", {})
    text = json.dumps(as_json(held), indent=1, ensure_ascii=False, allow_nan=False) + "\n"
    atomic_write(path, lambda file: file.write(text.encode()))
    return path


def read(path: str | os.PathLike[str]) -> Run:
    """Read a run's file; fields that `Run` does not know are in `more`.

    Args:
        path  path
    Returns:
        Run
    Raises:
        FileNotFoundError: if there is none.
        ValueError: if it is no run: not JSON, or a field is missing or of another kind.
    """
    try:
        held = json.loads(Path(path).read_bytes())
        named = {f.name for f in fields(Run)} - {"more"}
        own = {name: value for name, value in held.items() if name in named}
        run = Run(**own, more={name: v for name, v in held.items() if name not in named})
        _check_kinds(run)
        return run
    except (ValueError, TypeError, AttributeError) as error:
        raise ValueError(f"want a run's ledger in {path}, got something else: {error}") from error


def _check_kinds(run: Run) -> None:
    """Raise TypeError if a field is of another kind than `Run` says."""
    for name, hint in typing.get_type_hints(Run).items():
        kind, value = typing.get_origin(hint) or hint, getattr(run, name)
        kinds = (int, float) if kind is float else (kind,)
        if not isinstance(value, kinds) or isinstance(value, bool):
            want = " or ".join(each.__name__ for each in kinds)
            raise TypeError(f"want {name} as {want}, got {value!r:.40}")


def score(run: Run) -> float | None:
    """The test score of a run in its task's metric; None if it has none.

    Args:
        run  Run
    Returns:
        score  float | None
    """
    return run.scores.get(run.task.get("metric"))


def table(folder: str | os.PathLike[str]) -> list[dict[str, Any]]:
    """All runs of a ledger as rows, ours beside what was published.

    Args:
        folder  path  with a file a run
    Returns:
        rows  list of dicts  name, recipe, model, size, seeds, metric, ours, published, source,
            parameters, minutes, notes; by recipe, size, model, seeds
    Raises:
        ValueError: if a file is no run.
    """
    rows = []
    for each in map(read, sorted(Path(folder).glob("*.json"))):
        row = {"name": each.name, "recipe": each.recipe, "model": each.model.get("name", "")}
        row |= {"size": each.size, "seeds": each.seeds, "metric": each.task.get("metric", "")}
        row |= {"ours": score(each), "published": each.published.get("value")}
        row |= {"source": each.published.get("source", ""), "parameters": each.parameters}
        row |= {"minutes": each.wall_seconds / 60, "notes": each.notes}
        rows.append(row)
    return sorted(rows, key=lambda row: (row["recipe"], row["size"], row["model"], row["seeds"]))


def hardware(processes: int = 1, device: torch.device | str = "cpu") -> dict[str, Any]:
    """What a run runs on, by product name.

    Args:
        processes  int           of the run
        device     device | str  on which each computes
    Returns:
        hardware  dict  cpu, threads; gpu and processes where there are such
    """
    found, cpuinfo = {"cpu": platform.processor() or platform.machine()}, Path("/proc/cpuinfo")
    if cpuinfo.is_file():
        models = re.findall(r"^model name\s*:\s*(.+)$", cpuinfo.read_text(), re.MULTILINE)
        found |= {"cpu": models[0]} if models else {}
    found |= {"threads": torch.get_num_threads()}
    if torch.device(device).type == "cuda":
        found |= {"gpu": torch.cuda.get_device_name(device)}
    return found | ({"processes": processes} if processes > 1 else {})


def commit() -> str:
    """The commit of the s4lite that is running; "" if it is in no repository of its own.

    Returns:
        commit  str  "-dirty" behind it if files of the package were changed
    """
    import s4lite

    home = Path(s4lite.__file__).resolve().parents[1]

    def ask(*words: str) -> str:
        line = ["git", "-C", str(home), *words]
        return subprocess.run(line, capture_output=True, text=True, timeout=20).stdout.strip()

    try:
        at = ask("rev-parse", "HEAD") if ask("ls-files", "s4lite/__init__.py") else ""
        return at + "-dirty" * bool(at and ask("status", "--porcelain", "--", "s4lite"))
    except (OSError, subprocess.SubprocessError):
        return ""
