"""A recipe of a second, as words of the command line."""

from typer.testing import CliRunner

from s4lite.cli.app import make_app

SETS = {"task.sizes": "(96,32,32)", "task.max_depth": 3, "task.max_args": 3, "task.workers": 1}
SETS |= {"task.min_length": 3, "task.max_length": 20, "d_model": 4, "n_layers": 1, "d_state": 4}
SETS |= {"epochs": 2, "batch_size": 16, "warmup": 2}
WORDS = [word for name, value in SETS.items() for word in ("--set", f"{name}={value}")]


def call(*words):
    """What the command line says to words; exceptions that nobody foresaw come through."""
    done = CliRunner().invoke(make_app(), [str(word) for word in words], prog_name="s4lite")
    if done.exception is not None and not isinstance(done.exception, SystemExit):
        raise done.exception
    return done


def train(folder, *words, data=None):
    place = ["--data-dir", data or folder / "data", "--folder", folder / "run"]
    return call("train", "lra-listops", *WORDS, *place, *words)
