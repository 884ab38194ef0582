"""The command line: s4lite train | eval | data | list | bench.

Home: chapter 16, "Recipes by name" (chapters/16c_recipes.ipynb).
"""

import importlib
from typing import Annotated

import typer
from typer import Exit, Option

from s4lite.cli.commands import do_bench, do_eval, do_train
from s4lite.cli.lists import do_list
from s4lite.cli.store import do_check, do_generate, do_get

__all__ = ["main", "make_app"]


_HELP = """Experiments with state space models on long sequences, by name.

\b
Examples:
  s4lite list                                   which experiments there are
  s4lite list smnist                            one of them, and what --set may change
  s4lite train smnist --size tiny --model s4d   train, choose, test, write down
  s4lite train smnist --resume                  go on where it was interrupted
  s4lite eval runs/smnist-s4d-tiny              score it again
  s4lite data get smnist --data-dir ~/data      fetch and check the files
  s4lite list --runs                            results, beside the published ones

Exit codes: 0 done, 1 failed, 2 usage, 3 data missing or damaged, 4 stopped after --minutes, 130
interrupted and saved."""


_MANY = """\b
On two machines with eight GPUs each, on both (N is 0 and 1), in a folder that both see:
  torchrun --nnodes 2 --node-rank N --nproc-per-node 8 --rdzv-backend c10d
    --rdzv-endpoint HOST:29500 -m s4lite train scifar --devices 8 --nodes 2"""


def make_app() -> typer.Typer:
    """The commands, to be called with words or tried out in tests."""
    style = {"no_args_is_help": True, "rich_markup_mode": None, "add_completion": False}
    app = typer.Typer(help=_HELP, pretty_exceptions_enable=False, **style)
    app.command("train", epilog=_MANY)(do_train)
    for name, do in (("eval", do_eval), ("list", do_list), ("bench", do_bench)):
        app.command(name)(do)
    data = typer.Typer(help="Get, check or generate data.", **style)
    for name, do in (("get", do_get), ("check", do_check), ("generate", do_generate)):
        data.command(name)(do)
    app.add_typer(data, name="data")
    app.callback(help=_HELP)(_version)
    return app


def _say_version(wanted: bool) -> None:
    """Print the version, and end."""
    if wanted:
        print(importlib.import_module("s4lite").__version__)
        raise Exit


def _version(
    version: Annotated[
        bool, Option("--version", is_eager=True, callback=_say_version, help="Print it, and end")
    ] = False,
) -> None:
    """Options of the program as a whole."""


def main() -> None:
    """Run the words of the command line."""
    make_app()(prog_name="s4lite")
