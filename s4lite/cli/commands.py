"""The commands: train, eval, bench.

Home: chapter 16, "Recipes by name" (chapters/16c_recipes.ipynb).
"""

import contextlib
import dataclasses
import json
import os
import shlex
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any

import torch
from typer import Argument, Option

from s4lite.cli.answers import Answer, UsageError, answering, pairs_of, usage
from s4lite.data.files import atomic_write

__all__ = ["asked_of", "do_bench", "do_eval", "do_train"]


def do_train(
    recipe: Annotated[str, Argument(help="Name of the experiment; see: s4lite list")],
    size: Annotated[str, Option(help="tiny, small, paper; some have cpu")] = "tiny",
    model: Annotated[str, Option(help="s4, s4d, lstm, tcn, ckconv, transformer")] = "s4d",
    sets: Annotated[
        list[str] | None, Option("--set", metavar="NAME=VALUE", help="Change it: s4lite list NAME")
    ] = None,
    seed: Annotated[int, Option(min=0, help="Of weights, order and noise")] = 0,
    data_dir: Annotated[
        Path | None, Option(help="Published files; default S4LITE_DATA, or a cache")
    ] = None,
    folder: Annotated[Path | None, Option(help="Of this run; default runs/NAME")] = None,
    resume: Annotated[bool, Option("--resume", help="Go on, if it was begun")] = False,
    minutes: Annotated[float | None, Option(min=0, help="Stop cleanly after so long")] = None,
    accelerator: Annotated[str, Option(help="auto, cpu, gpu, mps")] = "auto",
    devices: Annotated[int, Option(min=1, help="Processes on this machine")] = 1,
    nodes: Annotated[int, Option(min=1, help="Machines")] = 1,
    shard_mib: Annotated[float | None, Option(help="Split checkpoints into such parts")] = None,
    as_json: Annotated[bool, Option("--json", help="One JSON object on the output")] = False,
) -> None:
    """Train, choose on validation, test once.

    The result is written down in the run's folder, as the ledger holds it.

    \b
    Examples:
      s4lite train smnist
      s4lite train fsdd --size tiny --model lstm --data-dir ~/data
      s4lite train etth1 --set task.horizon=168 --set lr=.004 --seed 1
      s4lite train scifar --size small --minutes 9      then the same again with --resume
      s4lite train scifar --size paper --devices 4      on four GPUs of this machine
    """
    with answering(as_json) as answer:
        asked = {"recipe": recipe, "size": size, "model": model, "seed": seed}
        made, place = _job_of(asked | {"overrides": pairs_of(sets)}, data_dir, folder)
        where = {"accelerator": accelerator, "devices": devices, "nodes": nodes}
        where |= {} if shard_mib is None else {"shard_mib": shard_mib}
        _train(answer, made, place, where, resume=resume, minutes=minutes)


_ASKED = "asked.json"


def _job_of(
    asked: dict[str, Any], data_dir: Path | None, folder: Path | None = None
) -> tuple[Any, Path]:
    """The job that was asked for, and its folder."""
    from s4lite.recipes.jobs import job

    facts = dict(asked)
    names = (facts.pop("recipe"), facts.pop("size"), facts.pop("model"))
    with usage():
        made = job(*names, **facts, data_dir=data_dir)
    place = Path("runs", made.name) if folder is None else folder
    made.record["asked"] = asked
    return made, place


def asked_of(folder: Path) -> dict[str, Any]:
    """What a run's folder was asked for; UsageError if it is no such folder."""
    path, wanted = folder / _ASKED, {"recipe", "size", "model", "seed", "overrides"}
    try:
        asked = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise UsageError(f"want a folder of a run, with {_ASKED}; got {folder}: {error}") from error
    if not (isinstance(asked, dict) and asked.keys() == wanted):
        raise UsageError(f"want {', '.join(sorted(wanted))} in {path}, got {asked!r:.99}")
    return asked


def _train(answer: Answer, made: Any, place: Path, where: dict[str, Any], **how: Any) -> None:
    """Run a job in its folder, and fill in the answer."""
    from s4lite.train.running import run

    _check_launch(where["nodes"])
    if place.is_file():
        raise UsageError(f"want a folder for the run, got a file: {place}")
    asked, path = made.record.pop("asked"), place / _ASKED
    there = asked if (new := not path.exists()) else asked_of(place)
    if other := [k for k in asked if there[k] != asked[k]]:
        both = "; ".join(f"{k} {there[k]} there, {asked[k]} here" for k in other)
        raise UsageError(f"want the run that {place} holds, got another: {both}. Use --folder")
    if new and how["resume"] and not (place / "states").exists():
        print(f"s4lite: nothing to take up in {place}, so it begins")
    made.task.prepare()  # what fails here leaves no run behind
    if new:
        atomic_write(path, lambda file: file.write(json.dumps(asked, indent=1).encode()))
    words = [made.record["command"], "--folder", shlex.quote(str(place)), "--resume"]
    words += ["--data-dir", shlex.quote(str(made.task.data_dir)), *_options(where)]
    made.record["resume"] = " ".join(words)
    with _swept(place, new):
        result = run(made, place, **where, **how)
    answer.facts = {"name": made.name, "notes": made.record["notes"]} | dataclasses.asdict(result)
    answer.code = 0 if result.finished else 4
    answer.lines = [result.message, *(f"  note: {note}" for note in made.record["notes"])]
    answer.lines += [f"  {result.epochs} epochs, {result.seconds / 60:.1f} minutes, in {place}"]


def _check_launch(nodes: int) -> None:
    """Raise UsageError if there are several machines, and nobody to bring them together."""
    launched = ("TORCHELASTIC_RUN_ID", "SLURM_NTASKS", "MASTER_ADDR")
    if nodes > 1 and not any(name in os.environ for name in launched):
        raise UsageError(
            f"want --nodes {nodes} under torchrun or SLURM, or with MASTER_ADDR and NODE_RANK set, "
            "on each machine; see: s4lite train --help"
        )


def _options(where: dict[str, Any]) -> list[str]:
    """Where a run is at work, as words of the command line; what is usual is left out."""
    usual = {"accelerator": "auto", "devices": 1, "nodes": 1}
    named = {name: value for name, value in where.items() if value != usual.get(name)}
    return [w for k, v in named.items() for w in (f"--{k.replace('_', '-')}", str(v))]


@contextlib.contextmanager
def _swept(place: Path, new: bool) -> Iterator[None]:
    """If a new run fails before it has begun, that is one of usage, and its folder goes again."""
    from lightning.fabric.utilities.exceptions import MisconfigurationException

    lost = new and (place / "states").exists()  # a run whose words are lost
    try:
        yield
    except (ValueError, MisconfigurationException) as error:
        left = {path.name for path in place.glob("*")}
        if lost:  # and these were others
            (place / _ASKED).unlink(missing_ok=True)
        if new and left <= {_ASKED, "lock"}:
            with contextlib.suppress(OSError):  # another process of the same run was faster
                for name in left:
                    (place / name).unlink(missing_ok=True)
                place.rmdir()
        elif not (lost or isinstance(error, MisconfigurationException)):
            raise
        raise UsageError(str(error)) from error


def _result_in(folder: Path) -> Path:
    """The file with the result of a finished run; UsageError if its folder has none."""
    found = [path for path in folder.glob("*.json") if path.name != _ASKED]
    if len(found) != 1:
        raise UsageError(
            f"want a run that is finished, with one result; got {len(found)} in {folder}"
        )
    return found[0]


def _keep(path: Path, how: dict[str, Any], scores: dict[str, float]) -> Path:
    """Write an evaluation into a run's file, in the place of an older one of the same kind."""
    from s4lite.train.ledger import as_json, commit, read, write

    line, how = read(path), as_json(how)
    command = ["s4lite", "eval", f"runs/{line.name}", "--split", how["split"]]
    command += ["--rate", f"{how['rate']:g}"]
    command += [word for k, v in how["overrides"].items() for word in ("--set", f"{k}={v}")]
    others = [each for each in line.evaluations if any(each[k] != how[k] for k in how)]
    new = how | {"command": shlex.join(command), "commit": commit(), "scores": scores}
    line.evaluations = [*others, new]
    return write(line, path)


def do_eval(
    folder: Annotated[Path, Argument(help="Of a run, as `train` made it")],
    split: Annotated[str, Option(help="test or val")] = "test",
    rate: Annotated[float, Option(help="2: every second sample was kept")] = 1.0,
    sets: Annotated[
        list[str] | None,
        Option("--set", metavar="NAME=VALUE", help="task. ..., batch_size, workers"),
    ] = None,
    data_dir: Annotated[
        Path | None, Option(help="Published files; default S4LITE_DATA, or a cache")
    ] = None,
    keep: Annotated[
        bool, Option("--keep", help="Write it into the result of the run, too")
    ] = False,
    as_json: Annotated[bool, Option("--json", help="One JSON object on the output")] = False,
) -> None:
    """Score the best weights of a run again.

    On the split that was held out, on other data, or at another rate.

    \b
    Examples:
      s4lite eval runs/smnist-s4d-tiny
      s4lite eval runs/fsdd-s4d-tiny --rate 2 --set task.sample_rate=4000 --keep
    """
    with answering(as_json) as answer:
        from s4lite.train.running import evaluate_run

        asked = asked_of(folder)
        if split not in ("test", "val"):
            raise UsageError(f"want split test or val, got {split!r}")
        if not 0 < rate < float("inf"):
            raise UsageError(f"want rate finite and > 0, got {rate}")
        line = _result_in(folder) if keep else None  # before any work
        first, _ = _job_of(asked, data_dir)  # whose network it is, whatever the task is now
        asked["overrides"] |= (changed := pairs_of(sets, ("task.", "batch_size", "workers")))
        made = replace(_job_of(asked, data_dir)[0], build=first.build)
        answer.facts = evaluate_run(made, folder, split=split, rate=rate)
        scores = ", ".join(f"{name} {value:.4f}" for name, value in answer.facts.items())
        answer.lines = [f"{folder.name}, {split}: {scores}"]
        if line:
            how = {"split": split, "rate": rate, "overrides": changed}
            answer.lines.append(f"kept in {_keep(line, how, answer.facts)}")


def do_bench(
    recipe: Annotated[str, Argument(help="Name of the experiment; see: s4lite list")],
    size: Annotated[str, Option(help="tiny, small, paper; some have cpu")] = "tiny",
    model: Annotated[str, Option(help="s4, s4d, lstm, tcn, ckconv, transformer")] = "s4d",
    sets: Annotated[
        list[str] | None, Option("--set", metavar="NAME=VALUE", help="Change it: s4lite list NAME")
    ] = None,
    data_dir: Annotated[
        Path | None, Option(help="Published files; default S4LITE_DATA, or a cache")
    ] = None,
    steps: Annotated[int, Option(min=1, help="That are timed")] = 10,
    device: Annotated[str, Option(help="cpu, cuda, mps")] = "cpu",
    as_json: Annotated[bool, Option("--json", help="One JSON object on the output")] = False,
) -> None:
    """Time a few steps, to foresee a run.

    How long would all of it take, and does loading keep up?

    \b
    Example:
      s4lite bench lra-pathfinder --size small --device cuda
    """
    with answering(as_json) as answer:
        from s4lite.recipes.bench import bench

        asked = {"recipe": recipe, "size": size, "model": model, "overrides": pairs_of(sets)}
        made, _ = _job_of(asked, data_dir)
        try:
            torch.zeros(1, device=device)
        except (RuntimeError, AssertionError) as error:
            raise UsageError(f"want a device that torch finds here, got {device!r}") from error
        answer.facts = bench(made, steps, device)
        texts = {name: f"{value:,.5g}" for name, value in answer.facts.items()}
        answer.lines = [made.name, *(f"  {name:16} {text}" for name, text in texts.items())]
