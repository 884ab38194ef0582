"""The commands for data: get, check, generate.

Home: chapter 16, "Recipes by name" (chapters/16c_recipes.ipynb).
"""

from dataclasses import replace
from pathlib import Path
from typing import Annotated

import numpy as np
from typer import Argument, Option

from s4lite.cli.answers import UsageError, answering, pairs_of, usage
from s4lite.data.documents import read_reviews
from s4lite.data.files import DamagedData, MissingData, fetch, find
from s4lite.data.recordings import survey
from s4lite.data.release import find_listops
from s4lite.data.retrieval import find_pairs
from s4lite.data.shards import verify
from s4lite.data.task import Task
from s4lite.recipes.catalogue import choose, names, recipe
from s4lite.recipes.changes import change
from s4lite.recipes.parts import load, task_for

__all__ = ["do_check", "do_generate", "do_get", "look_at"]


_DRAWN = ("ListOps", "Pathfinder", "RetrievalStandIn")


def _task_of(
    name: str, size: str, words: list[str] | None, data_dir: Path | None, download: bool = True
) -> Task:
    """The task of a recipe's size, whole."""
    with usage():
        made = recipe(name)
        base = made.sizes[choose("size", size, tuple(made.sizes))]
        wanted = pairs_of(words, ("task.",))
        chosen, _ = change(base, "s4d", load(base.made_by or made.task), wanted)
        whole = replace(chosen, train=None, val=None, test=None)
        return task_for(made, whole, data_dir, download=download)


def look_at(task: Task) -> str:
    """Look at the data of a task, without writing any: what there is, in a word or two.

    Args:
        task  Task  made with download=False
    Returns:
        "ready" if it can be used at once (digests checked), "files are there" if it has to be
        prepared first, "not drawn yet" if it is generated
    Raises:
        MissingData, DamagedData: if files are missing or damaged.
    """
    shards = getattr(task, "shards", None)
    if shards is not None and shards.contents() is not None:
        verify(shards)
        return "ready"
    published = getattr(task, "source", "drawn") == "published"
    if type(task).__name__ in _DRAWN and not published:
        return "not drawn yet"
    places = [getattr(task, name) for name in ("place", "path") if hasattr(task, name)]
    if hasattr(task, "pattern"):  # recordings: each is read, and all are counted
        found = survey(place := places[0](), task.pattern, task.recorded, task.longest)
        task.check(place, found, np.array(task.parts(place, found), np.uint8))
    elif type(task).__name__ == "Text":
        read_reviews(task.data_dir, each=task.each, download=False)
    elif published or type(task).__name__ == "Retrieval":
        (find_listops if published else find_pairs)(task.data_dir)
    elif places:
        places[0]()
    elif hasattr(task, "text"):
        load("data.corpora:read_corpus")(task.text, task.data_dir, download=False)
    elif not (hasattr(task, "batches") and all(find(s, task.data_dir) for s in task.batches())):
        for source in task.sources():
            fetch(source, task.data_dir, download=False)
    return "ready" if shards is None else "files are there"


def do_get(
    recipes: Annotated[list[str], Argument(help="Names of experiments; see: s4lite list")],
    size: Annotated[str, Option(help="Whose options count")] = "tiny",
    sets: Annotated[
        list[str] | None,
        Option("--set", metavar="task.NAME=VALUE", help="Change the task: s4lite list NAME"),
    ] = None,
    data_dir: Annotated[
        Path | None, Option(help="Where to look, and to put it; default as in train")
    ] = None,
    as_json: Annotated[bool, Option("--json", help="One JSON object on the output")] = False,
) -> None:
    """Find or download published files.

    What is missing is downloaded, what has to be prepared is prepared.

    \b
    Example:
      s4lite data get smnist scifar --data-dir ~/data
    """
    with answering(as_json) as answer:
        for name in recipes:
            task = _task_of(name, size, sets, data_dir)
            task.prepare()
            answer.facts[name] = {"task": repr(task), "folder": str(task.data_dir)}
            answer.lines.append(f"{name}: {task!r} in {task.data_dir}")


def do_generate(
    recipes: Annotated[list[str], Argument(help="lra-listops, lra-pathfinder, lra-pathx, ...")],
    size: Annotated[str, Option(help="Whose options count")] = "tiny",
    sets: Annotated[
        list[str] | None,
        Option("--set", metavar="task.NAME=VALUE", help="Change the task: s4lite list NAME"),
    ] = None,
    data_dir: Annotated[Path | None, Option(help="Where to put it; default as in train")] = None,
    as_json: Annotated[bool, Option("--json", help="One JSON object on the output")] = False,
) -> None:
    """Draw the data that is generated.

    The same bytes on every machine, whatever the number of processes.

    \b
    Examples:
      s4lite data generate lra-listops lra-pathfinder
      s4lite data generate lra-pathx --size paper --set task.workers=16
    """
    with answering(as_json) as answer:
        tasks = {name: _task_of(name, size, sets, data_dir) for name in recipes}
        for name, task in tasks.items():
            if type(task).__name__ not in _DRAWN:
                raise UsageError(f"want a task that is generated, got {name}; use: s4lite data get")
        for name, task in tasks.items():
            task.prepare()
            answer.facts[name] = {"task": repr(task), "folder": str(task.shards.folder)}
            answer.lines.append(f"{name}: {task!r} in {task.shards.folder}")


def do_check(
    recipes: Annotated[list[str] | None, Argument(help="Names; none for all")] = None,
    size: Annotated[str, Option(help="Whose options count")] = "tiny",
    sets: Annotated[
        list[str] | None,
        Option("--set", metavar="task.NAME=VALUE", help="Change the task: s4lite list NAME"),
    ] = None,
    data_dir: Annotated[Path | None, Option(help="Where to look; default as in train")] = None,
    as_json: Annotated[bool, Option("--json", help="One JSON object on the output")] = False,
) -> None:
    """Check that data is there, and sound.

    Nothing is written. Ends with code 3 if something that was asked for is missing or damaged.

    \b
    Examples:
      s4lite data check --data-dir ~/data
      s4lite data check lra-text
    """
    with answering(as_json) as answer:
        for name in recipes or names():
            said = ""
            try:
                found = look_at(_task_of(name, size, sets, data_dir, download=False))
            except (MissingData, DamagedData) as error:
                found, said = "damaged" if isinstance(error, DamagedData) else "missing", str(error)
                answer.code = 3
            except UsageError as error:
                if recipes:
                    raise
                found, said = "not in this version", str(error)
            answer.facts[name] = {"found": found, "said": said}
            answer.lines.append(f"{name:17} {found}" + f"\n{said}" * bool(said and recipes))
