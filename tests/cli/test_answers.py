"""How commands answer: streams, codes, JSON that is JSON."""

import json
import math

import pytest
from typer import Exit

from s4lite.cli.answers import Answer, UsageError, answering, pairs_of, usage
from s4lite.data.files import DamagedData, MissingData


def ended(error, as_json=False):
    """The exit code of a command that raises."""
    with pytest.raises(Exit) as raised, answering(as_json):
        raise error
    return raised.value.exit_code


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (MissingData("no file"), 3),
        (DamagedData("bad file"), 3),
        (UsageError("no sense"), 2),
        (KeyboardInterrupt(), 130),
        (OSError("disk full"), 1),
        (ValueError("odd"), 1),
        (FloatingPointError("NaN"), 1),
        (ModuleNotFoundError("pip install"), 1),
        (NotImplementedError("later"), 1),
    ],
)
def test_codes(error, code, capsys):
    assert ended(error) == code
    out, err = capsys.readouterr()
    assert out == "" and err.startswith("s4lite: ") and "Traceback" not in err
    assert ended(error, as_json=True) == code
    said = json.loads(capsys.readouterr().out)
    assert said["code"] == code and said["error"]


def test_what_the_system_refuses_is_said_without_its_number(tmp_path, capsys):
    with pytest.raises(Exit), answering(False):
        (tmp_path / "no" / "file").read_bytes()
    said = capsys.readouterr().err
    assert said == f"s4lite: No such file or directory: {tmp_path / 'no' / 'file'}\n"


def test_what_nobody_foresaw_has_a_traceback():
    with pytest.raises(AssertionError), answering(False):
        raise AssertionError("a mistake of ours")


def test_traceback_on_demand(monkeypatch):
    monkeypatch.setenv("S4LITE_TRACEBACK", "1")
    with pytest.raises(ValueError, match="odd"), answering(False):
        raise ValueError("odd")


def test_only_the_answer_is_on_the_output(capsys):
    with answering(True) as answer:
        print("noise of a library")
        answer.facts, answer.lines = {"loss": math.nan, "ok": 1.5}, ["for people"]
    out, err = capsys.readouterr()
    assert json.loads(out) == {"loss": None, "ok": 1.5} and "NaN" not in out and "noise" in err
    with answering(False) as answer:
        answer.lines = ["for people"]
    assert capsys.readouterr().out == "for people\n"


def test_an_answer_may_carry_a_code(capsys):
    with pytest.raises(Exit) as raised, answering(True) as answer:
        answer.facts, answer.code = {"finished": False}, 4
    assert raised.value.exit_code == 4 and json.loads(capsys.readouterr().out)["finished"] is False


def test_errors_of_usage():
    for error in (ValueError("a"), TypeError("b"), NotImplementedError("c")):
        with pytest.raises(UsageError, match=str(error)), usage():
            raise error
    assert Answer(False).code == 0


def test_pairs():
    assert pairs_of(None) == {} and pairs_of(["a=1", " b = x=y "]) == {"a": "1", "b": "x=y"}
    assert pairs_of(["task.a=1"], ("task.",)) == {"task.a": "1"}
    with pytest.raises(UsageError, match="counts here"):
        pairs_of(["lr=1"], ("task.",))
    for words in (["a"], ["=1"], [" =1"], ["a=1", "a=2"], ["a=1", " a =2"]):
        with pytest.raises(UsageError, match="NAME=VALUE"):
            pairs_of(words)


@pytest.mark.parametrize("name", ["RANK", "SLURM_PROCID", "LOCAL_RANK"])
def test_one_of_several_processes_answers(name, monkeypatch, capsys):
    for rank, said in (("1", ""), ("0", "{}\n")):
        monkeypatch.setenv(name, rank)
        with answering(True):
            pass
        assert capsys.readouterr().out == said
