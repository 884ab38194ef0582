"""What there is, in tables: recipes, one of them, results.

Home: chapter 16, "Recipes by name" (chapters/16c_recipes.ipynb).
"""

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

from typer import Argument, Option

from s4lite.cli.answers import UsageError, answering, usage
from s4lite.recipes.catalogue import Figure, Recipe, names, recipe

__all__ = ["aligned", "do_list", "results", "told"]


def do_list(
    name: Annotated[str | None, Argument(help="Of one recipe: all that it holds")] = None,
    runs: Annotated[bool, Option("--runs", help="Results, beside what was published")] = False,
    folder: Annotated[Path | None, Option(help="With the results of runs")] = None,
    model: Annotated[str, Option(help="Whose settings are told")] = "s4d",
    as_json: Annotated[bool, Option("--json", help="One JSON object on the output")] = False,
) -> None:
    """List recipes, one of them, or results with --runs.

    Results stand beside what was published. They are looked for in chapters/runs or else in runs.

    \b
    Examples:
      s4lite list
      s4lite list scifar
      s4lite list --runs --folder chapters/runs
    """
    with answering(as_json) as answer:
        if runs:
            book = Path("chapters", "runs")
            rows = results(folder or (book if book.is_dir() else Path("runs")))
            answer.facts = {"runs": [row for row in rows if name in (None, row["recipe"])]}
        elif name:
            with usage():
                answer.facts, answer.lines = told(recipe(name), model)
            return
        else:
            answer.facts = {"recipes": [_row(recipe(each)) for each in names()]}
        (rows,) = answer.facts.values()
        hidden = {"recipe", "model", "size", "seeds", "source"} if runs else set()
        shown = [{k: v for k, v in row.items() if k not in hidden} for row in rows]
        answer.lines = aligned(shown) if rows else ["no results there yet"]


def _row(made: Recipe) -> dict[str, str]:
    """A recipe in a line."""
    good = (lambda f: f.score) if made.metric == "accuracy" else (lambda f: -f.score)
    best = max((f for f in made.figures if f.model), key=good, default=None)
    row = {"recipe": made.name, "sizes": " ".join(made.sizes), "metric": made.metric}
    return row | {"best printed": "" if best is None else _shown(best), "asks": made.asks}


def _shown(figure: Figure) -> str:
    """A printed figure in a few words."""
    ahead = f", {figure.horizon} ahead" * (figure.horizon is not None)
    return f"{figure.printed} {figure.score:g}{ahead}"


def results(folder: Path) -> list[dict[str, Any]]:
    """The finished runs of a folder as rows, ours beside what was published.

    Args:
        folder  Path  with the files of a ledger, or with folders of runs; or the folder of one run
    Returns:
        rows  list of dicts  recipe, model, size, seeds, name, metric, ours, published, source,
            parameters, minutes, notes; by recipe, size, model, seeds
    Raises:
        UsageError: if folder is none.
        ValueError: if a file is no run.
    """
    from s4lite.train.ledger import read, score

    if not folder.is_dir() and folder != Path("runs"):
        raise UsageError(f"want a folder with results, got {folder}")
    places = [folder, *(path.parent for path in folder.glob("*/asked.json"))]
    paths = [path for place in places for path in place.glob("*.json")]
    rows = []
    for each in (read(path) for path in paths if path.name != "asked.json"):
        row = {"recipe": each.recipe, "model": each.model.get("name", ""), "size": each.size}
        row |= {"seeds": each.seeds, "name": each.name, "metric": each.task.get("metric", "")}
        row |= {"ours": score(each), "published": _beside(each.published)}
        row |= {"source": each.published.get("source", ""), "parameters": each.parameters}
        rows += [row | {"minutes": each.wall_seconds / 60, "notes": each.notes}] * bool(each.recipe)
    return sorted(rows, key=lambda r: (r["recipe"], r["size"], r["model"], r["seeds"]))


def _beside(published: dict[str, Any]) -> str:
    """What was printed, by name: of this model, or else of those that there are."""
    figures = [published] if "value" in published else published.get("all", [])
    return "; ".join(f"{f.get('printed', '')} {f['value']:g}".strip() for f in figures[:2])


def told(made: Recipe, model: str) -> tuple[dict[str, Any], list[str]]:
    """All that a recipe holds: for JSON, and as lines.

    Args:
        made   Recipe
        model  str     whose settings are told
    Raises:
        ValueError: if model is unknown.
        NotImplementedError: if the task is not in this version of s4lite.
    """
    from s4lite.recipes.changes import settings_of
    from s4lite.recipes.parts import load

    sizes = {name: dataclasses.asdict(size) for name, size in made.sizes.items()}
    known = settings_of(made.sizes["tiny"], model, load(made.sizes["tiny"].made_by or made.task))
    apart = ("source", "notes")
    keys = [key for key in sizes["tiny"] if key not in apart]
    lines = [f"{made.name}: {made.asks} ({made.metric})", ""]
    lines += aligned([{"": k} | {name: str(held[k]) for name, held in sizes.items()} for k in keys])
    for name, held in sizes.items():
        lines += [f"  {name}: {text}" for text in (held["source"], *held["notes"]) if text]
    lines += ["", *(f"  printed: {_shown(f)} ({f.source})" for f in made.figures)]
    lines += ["", f"--set, for {model}: {', '.join(known)}"]
    return dataclasses.asdict(made) | {"settings": [*known]}, lines


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
