"""What the ledger holds, as tables: for the chapters, and for the README.

    from _tools.results import found, show

    show("scifar", "lra-image")          # a table of these experiments, ours beside the printed
    (run,) = found("fsdd", size="cpu")   # one experiment, with all its seeds

`python chapters/_tools/results.py README.md` writes the table between the two marks there, and
`--check` only says whether it stands as it should. No number is typed anywhere: all come from
chapters/runs.
"""

import argparse
import math
import sys
from dataclasses import dataclass
from pathlib import Path

if __name__ == "__main__":  # as a script, the path begins in this folder
    sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from s4lite.recipes.catalogue import names
from s4lite.train.ledger import Run, read, score

RUNS = Path(__file__).resolve().parents[1] / "runs"
MARKS = "<!-- results: written by chapters/_tools/results.py -->", "<!-- end of results -->"
_SEEN = ("is a recipe of ours, not a published one", "changed by name")  # in other columns


@dataclass(frozen=True)
class Found:
    """An experiment with all the seeds that were run of it.

    Args:
        runs  list of Run  alike but for their seeds, in the order of these; at least one
    """

    runs: list[Run]

    @property
    def first(self) -> Run:
        """The run of the first seed: recipe, size, model, settings and curve stand there."""
        return self.runs[0]

    @property
    def metric(self) -> str:
        """What the scores are in."""
        return self.first.task["metric"]

    @property
    def scores(self) -> list[float]:
        """Test scores, one a seed."""
        return [score(run) for run in self.runs]

    @property
    def mean(self) -> float:
        """Their mean."""
        return sum(self.scores) / len(self.runs)

    @property
    def doubt(self) -> float | None:
        """Two standard deviations of an accuracy on so many test sequences; None for others."""
        count = self.first.task.get("sequences", {}).get("test")
        if self.metric != "accuracy" or not count:
            return None
        return 2 * math.sqrt(self.mean * (1 - self.mean) / count)

    @property
    def minutes(self) -> float:
        """Of a processor, for one seed."""
        return sum(run.cpu_seconds for run in self.runs) / len(self.runs) / 60

    @property
    def notes(self) -> list[str]:
        """What must be said with the scores."""
        told = {note: None for run in self.runs for note in run.notes}
        return [note for note in told if not any(seen in note for seen in _SEEN)]

    @property
    def stand_in(self) -> bool:
        """Whether the data was generated in the place of published data."""
        return "stand-in" in self.first.task["name"]

    @property
    def title(self) -> str:
        """Recipe, and what was set otherwise than it says."""
        changed = (f"{k.removeprefix('task.')} {v}" for k, v in self.first.overrides.items())
        return ", ".join([self.first.recipe + "-stand-in" * self.stand_in, *changed])

    @property
    def beside(self) -> list[tuple[str, float]]:
        """What was printed, of this model first; nothing stands beside a stand-in."""
        told = {} if self.stand_in else self.first.published
        own = [told] if "value" in told else []
        others = [each for each in told.get("all", []) if each["printed"] != told.get("printed")]
        return [(each["printed"], each["value"]) for each in own + others]


def found(
    *recipes: str, size: str | None = None, model: str | None = None, folder: Path = RUNS
) -> list[Found]:
    """The experiments of a ledger, in the order of the catalogue; seeds together.

    Args:
        recipes      str         names; none for all
        size, model  str | None  only those
        folder       Path        with a file a run
    """
    kept: dict[tuple, list[Run]] = {}
    for run in (read(path) for path in sorted(folder.glob("*.json"))):
        wanted = run.recipe in (recipes or names()) and score(run) is not None
        wanted &= size in (None, run.size) and model in (None, run.model.get("name"))
        if wanted:
            changed = tuple(sorted((k, str(v)) for k, v in run.overrides.items()))
            place = names().index(run.recipe)
            kept.setdefault((place, run.size, run.model.get("name", ""), changed), []).append(run)
    order = sorted(kept, key=lambda key: (key[0], -len(key[1]), key[1:3], _numbers(key[3])))
    return [Found(sorted(kept[key], key=lambda run: run.seeds)) for key in order]


def _numbers(changed: tuple) -> list:
    """Changes, so that 48 comes before 168."""
    return [(k, float(v) if v.replace(".", "", 1).isdigit() else math.inf, v) for k, v in changed]


def told(metric: str, value: float, doubt: float | None = None) -> str:
    """A score for people: accuracies in percent.

    Args:
        metric  str           of `train.objectives`
        value   float
        doubt   float | None  put behind it
    """
    if metric == "accuracy":
        behind = "" if doubt is None else f" ± {100 * doubt:.1f}"
        return f"{100 * value:.1f}{behind} %"
    return f"{value:.1f}" if metric == "perplexity" else f"{value:.3f}"


def ours(each: Found) -> str:
    """The score of an experiment; of several seeds the mean, and from which to which."""
    text = told(each.metric, each.mean, each.doubt)
    if len(each.runs) == 1:
        return text
    low, high = (told(each.metric, f(each.scores)) for f in (min, max))
    return f"{text} ({low.removesuffix(' %')} to {high}, {len(each.runs)} seeds)"


def beside(each: Found, most: int = 2) -> str:
    """The printed figures of an experiment."""
    return "; ".join(f"{name} {told(each.metric, value)}" for name, value in each.beside[:most])


def table(experiments: list[Found]) -> str:
    """A markdown table of experiments, and below it what must be known of them, numbered.

    Args:
        experiments  list of Found
    """
    heads = ["experiment", "network", "ours", "printed elsewhere", "CPU minutes"]
    lines, known = [heads, ["---"] * len(heads)], {}
    for each in experiments:
        run = each.first
        marks = " ".join(str(known.setdefault(note, len(known) + 1)) for note in each.notes)
        title = f"{each.title}, {run.size}" + f" ({marks})" * bool(marks)
        unit = "" if each.metric == "accuracy" else f"{each.metric} "
        minutes = f"{each.minutes:.1f}" if each.minutes else ""
        network = f"{run.model['name']}, {run.parameters:,}"
        lines.append([title, network, unit + ours(each), beside(each), minutes])
    rows = [f"| {' | '.join(line)} |" for line in lines]
    notes = [f"{number}. {note}" for note, number in known.items()]
    return "\n".join(rows + [""] * bool(notes) + notes)


def show(*recipes: str, **which) -> None:
    """Show the table of some experiments in a chapter; arguments as of `found`."""
    from IPython.display import display

    text = table(found(*recipes, **which))
    display({"text/markdown": text, "text/plain": text}, raw=True)


def readme(text: str) -> str:
    """A README with the table of all results between its marks.

    Raises:
        ValueError: if the marks are not there.
    """
    if not all(mark in text for mark in MARKS):
        raise ValueError(f"want {MARKS[0]} and {MARKS[1]}, got a text without them")
    before, rest = text.split(MARKS[0])
    _, after = rest.split(MARKS[1])
    return f"{before}{MARKS[0]}\n{table(found())}\n{MARKS[1]}{after}"


def main() -> int:
    """Write the table of a README, or check it."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("readme", type=Path)
    parser.add_argument("--check", action="store_true", help="write nothing")
    asked = parser.parse_args()
    there = asked.readme.read_text(encoding="utf-8")
    if there == (wanted := readme(there)):
        return 0
    if asked.check:
        sys.stderr.write(f"the results of {asked.readme} are not those of the ledger\n")
        return 1
    asked.readme.write_text(wanted, encoding="utf-8")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
