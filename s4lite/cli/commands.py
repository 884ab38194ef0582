"""The commands: train, eval, list, bench.

Home: chapter 16, "Recipes by name" (chapters/16c_recipes.ipynb).
"""

import dataclasses
import json
import shlex
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any

import torch
from typer import Argument, Option

from s4lite.cli.answers import Answer, UsageError, answering, pairs_of, usage
from s4lite.data.files import atomic_write
from s4lite.recipes.catalogue import Recipe, names, recipe

__all__ = ["aligned", "do_bench", "do_eval", "do_list", "do_train"]


def do_train(
    recipe: Annotated[str, Argument(help="Name of the experiment; see: s4lite list")],
    size: Annotated[str, Option(help="tiny, small, paper; some have cpu")] = "tiny",
    model: Annotated[str, Option(help="s4, s4d, lstm, tcn, ckconv, transformer")] = "s4d",
    sets: Annotated[list[str] | None, Option("--set", metavar="NAME=VALUE")] = None,
    seed: Annotated[int, Option(min=0, help="Of weights, order and noise")] = 0,
    data_dir: Annotated[Path | None, Option(help="Folder with the published files")] = None,
    folder: Annotated[Path | None, Option(help="Of this run; default runs/NAME")] = None,
    resume: Annotated[bool, Option("--resume", help="Go on where the run stopped")] = False,
    minutes: Annotated[float | None, Option(help="Stop cleanly after so long")] = None,
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
    """
    with answering(as_json) as answer:
        asked = {"recipe": recipe, "size": size, "model": model, "seed": seed}
        made, place = _job_of(asked | {"overrides": pairs_of(sets)}, data_dir, folder)
        how = {"minutes": minutes, "devices": devices, "nodes": nodes, "shard_mib": shard_mib}
        _train(answer, made, place, resume=resume, accelerator=accelerator, **how)


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
    tail = f"-seed{made.seed}" * bool(made.seed)
    place = Path("runs", made.name + tail) if folder is None else folder
    made.record["asked"] = asked
    return made, place


def _train(answer: Answer, made: Any, place: Path, **how: Any) -> None:
    """Run a job in its folder, and fill in the answer."""
    from s4lite.train.running import run

    asked, path = made.record.pop("asked"), place / _ASKED
    if path.exists() and (there := json.loads(path.read_text())) != asked:
        raise UsageError(f"want the run that {place} holds, {there}; got {asked}. Use --folder")
    made.task.prepare()  # what fails here leaves no run behind
    if not path.exists():
        atomic_write(path, lambda file: file.write(json.dumps(asked, indent=1).encode()))
    words = [made.record["command"], "--folder", shlex.quote(str(place)), "--resume"]
    made.record["resume"] = " ".join([*words, "--data-dir", shlex.quote(str(made.task.data_dir))])
    result = run(made, place, **how)
    answer.facts = {"name": made.name, "notes": made.record["notes"]} | dataclasses.asdict(result)
    answer.code = 0 if result.finished else 4
    answer.lines = [result.message, *(f"  note: {note}" for note in made.record["notes"])]
    answer.lines += [f"  {result.epochs} epochs, {result.seconds / 60:.1f} minutes, in {place}"]


def do_eval(
    folder: Annotated[Path, Argument(help="Of a run, as `train` made it")],
    split: Annotated[str, Option(help="test or val")] = "test",
    rate: Annotated[float, Option(help="2: every second sample was kept")] = 1.0,
    sets: Annotated[list[str] | None, Option("--set", metavar="NAME=VALUE")] = None,
    data_dir: Annotated[Path | None, Option(help="Folder with the published files")] = None,
    as_json: Annotated[bool, Option("--json", help="One JSON object on the output")] = False,
) -> None:
    """Score the best weights of a run again.

    On the split that was held out, on other data, or at another rate.

    \b
    Examples:
      s4lite eval runs/smnist-s4d-tiny
      s4lite eval runs/fsdd-s4d-tiny --rate 2 --set task.sample_rate=4000
    """
    with answering(as_json) as answer:
        from s4lite.train.running import evaluate_run

        if not (path := folder / _ASKED).is_file():
            raise UsageError(f"want a folder of a run, with {_ASKED}; got {folder}")
        asked = json.loads(path.read_text())
        if split not in ("test", "val"):
            raise UsageError(f"want split test or val, got {split!r}")
        first, _ = _job_of(asked, data_dir)  # whose network it is, whatever the task is now
        asked["overrides"] |= pairs_of(sets)
        made = replace(_job_of(asked, data_dir)[0], build=first.build)
        answer.facts = evaluate_run(made, folder, split=split, rate=rate)
        scores = ", ".join(f"{name} {value:.4f}" for name, value in answer.facts.items())
        answer.lines = [f"{folder.name}, {split}: {scores}"]


def do_list(
    runs: Annotated[bool, Option("--runs", help="Results, beside what was published")] = False,
    folder: Annotated[Path | None, Option(help="With the results of runs")] = None,
    as_json: Annotated[bool, Option("--json", help="One JSON object on the output")] = False,
) -> None:
    """List recipes, or results with --runs.

    Results stand beside what was published.

    \b
    Examples:
      s4lite list
      s4lite list --runs --folder chapters/runs
    """
    with answering(as_json) as answer:
        if runs:
            from s4lite.train.ledger import table

            book = Path("chapters", "runs")
            rows = table(folder or (book if book.is_dir() else Path("runs")))
            rows = [row for row in rows if row["recipe"]]
        else:
            rows = [_row(recipe(name)) for name in names()]
        answer.facts = {"runs" if runs else "recipes": rows}
        hidden = {"recipe", "model", "size", "seeds"} if runs else set()
        shown = [{k: v for k, v in row.items() if k not in hidden} for row in rows]
        answer.lines = aligned(shown) if rows else ["no results there yet"]


def _row(made: Recipe) -> dict[str, str]:
    """A recipe in a line."""
    good = (lambda f: f.score) if made.metric == "accuracy" else (lambda f: -f.score)
    best = max((f for f in made.figures if f.model), key=good, default=None)
    printed = "" if best is None else f"{best.printed} {best.score:g}"
    row = {"recipe": made.name, "sizes": " ".join(made.sizes), "metric": made.metric}
    return row | {"best printed": printed, "asks": made.asks}


def aligned(rows: Sequence[dict[str, Any]]) -> list[str]:
    """Rows with the same keys, at least one, as lines of a table."""
    heads = list(rows[0])
    cells = [heads, *([_cell(row.get(head)) for head in heads] for row in rows)]
    widths = [max(len(line[i]) for line in cells) for i in range(len(heads))]
    pairs = [zip(line, widths, strict=True) for line in cells]
    return ["  ".join(text.ljust(width) for text, width in pair).rstrip() for pair in pairs]


def _cell(value: Any) -> str:
    """A value in a table."""
    if isinstance(value, list | tuple):
        return "; ".join(map(_cell, value))
    return "" if value is None else f"{value:.4g}" if isinstance(value, float) else str(value)


def do_bench(
    recipe: Annotated[str, Argument(help="Name of the experiment; see: s4lite list")],
    size: Annotated[str, Option(help="tiny, small, paper; some have cpu")] = "tiny",
    model: Annotated[str, Option(help="s4, s4d, lstm, tcn, ckconv, transformer")] = "s4d",
    sets: Annotated[list[str] | None, Option("--set", metavar="NAME=VALUE")] = None,
    data_dir: Annotated[Path | None, Option(help="Folder with the published files")] = None,
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
