"""How commands answer: JSON or lines, and an exit code.

Home: chapter 16, "Recipes by name" (chapters/16c_recipes.ipynb).
"""

import contextlib
import dataclasses
import json
import os
import sys
from collections.abc import Iterator, Sequence

from typer import Exit

from s4lite.data.files import DamagedData, MissingData

__all__ = ["Answer", "UsageError", "answering", "pairs_of", "usage"]


class UsageError(ValueError):
    """A word on the command line that makes no sense."""


_ENDS = ((KeyboardInterrupt, 130), (MissingData, 3), (DamagedData, 3), (UsageError, 2))
_MENDABLE = (OSError, ValueError, RuntimeError, ArithmeticError, ModuleNotFoundError)


class Answer:
    """What a command says in the end.

    Args:
        as_json  bool  one JSON object; otherwise lines for people

    facts, lines  dict, list  to be filled: for JSON, for people
    code          int         the exit code
    """

    def __init__(self, as_json: bool) -> None:
        self.as_json, self.facts, self.lines, self.code = as_json, {}, [], 0

    def fail(self, error: BaseException) -> None:
        """Take an error for an answer."""
        self.code = next((code for kind, code in _ENDS if isinstance(error, kind)), 1)
        self.lines = []
        if (result := getattr(error, "result", None)) is not None:
            self.facts |= dataclasses.asdict(result)
        parts = (getattr(error, name, None) for name in ("strerror", "filename"))
        text = ": ".join(str(part) for part in parts if part) or str(error)
        text = text or ("interrupted" if self.code == 130 else type(error).__name__)
        self.facts |= {"error": text, "code": self.code}
        print(f"s4lite: {text}", file=sys.stderr)

    def say(self) -> None:
        """Print what is to be said on the output; of several processes the first does."""
        ranks = (os.environ.get(name) for name in ("RANK", "SLURM_PROCID", "LOCAL_RANK"))
        if next((rank for rank in ranks if rank is not None), "0") != "0":
            return
        text = "\n".join(self.lines)
        if self.as_json:
            plain = json.dumps(self.facts, default=str)  # NaN is no JSON: it becomes null
            text = json.dumps(json.loads(plain, parse_constant=lambda _: None))
        if text:
            print(text, flush=True)


@contextlib.contextmanager
def answering(as_json: bool) -> Iterator[Answer]:
    """Run a command: what it prints goes to the error stream, what it answers to the output.

    Args:
        as_json  bool  as for `Answer`
    Raises:
        typer.Exit: with the exit code, unless that is 0.
    """
    answer = Answer(as_json)
    try:
        with contextlib.redirect_stdout(sys.stderr):
            yield answer
    except (KeyboardInterrupt, *_MENDABLE) as error:
        if os.environ.get("S4LITE_TRACEBACK"):
            raise
        answer.fail(error)
    answer.say()
    if answer.code:
        raise Exit(answer.code)


@contextlib.contextmanager
def usage() -> Iterator[None]:
    """Take errors in here for errors of the command line."""
    try:
        yield
    except (ValueError, TypeError, NotImplementedError) as error:
        raise UsageError(str(error)) from error


def pairs_of(words: Sequence[str] | None, only: Sequence[str] = ("",)) -> dict[str, str]:
    """Read words of the form NAME=VALUE.

    Args:
        words  sequence | None  of str
        only   sequence         beginnings of the names that count here
    Raises:
        UsageError: if one has not this form, a name comes twice, or would not be heard.
    """
    found: dict[str, str] = {}
    for word in words or ():
        name, equals, value = (part.strip() for part in word.partition("="))
        if not (name and equals) or name in found:
            raise UsageError(f"want --set NAME=VALUE, each name once, got {word!r}")
        if not name.startswith(tuple(only)):
            raise UsageError(f"want a setting that counts here ({', '.join(only)}), got {name!r}")
        found[name] = value
    return found
