"""The commands as somebody uses them: train, interrupt, go on, score again, list, time."""

import json
import os
import shlex
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from small import WORDS, call, train

import s4lite
from s4lite.cli.lists import aligned
from s4lite.recipes.catalogue import names
from s4lite.train.ledger import read

NO_GPU = pytest.mark.skipif(torch.cuda.is_available(), reason="there is one")


def test_help_is_there_and_has_examples():
    assert "s4lite train smnist" in call("--help").stdout
    for command in (["train"], ["eval"], ["list"], ["bench"], ["data", "get"], ["data", "check"]):
        done = call(*command, "--help")
        assert (
            done.exit_code == 0
            and "Example" in done.stdout
            and f"s4lite {' '.join(command)}" in done.stdout
        )
    assert (
        call().exit_code == 2 and call("data").exit_code == 2
    )  # nothing asked: the help, as usage


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["train", "smnst"], "did you mean smnist"),
        (["train", "smnist", "--size", "huge"], "want a size among"),
        (["train", "smnist", "--model", "s5"], "want a model among"),
        (["train", "smnist", "--set", "lr"], "NAME=VALUE"),
        (["train", "smnist", "--set", "lr=fast"], "want lr as float"),
        (["train", "smnist", "--set", "schedule=plateau"], "no warmup with plateau"),
        (["train", "smnist", "--set", "warmup=-3"], "want warmup >= 0, got -3"),
        (["train", "smnist", "--set", "floor=2"], "want floor from 0 to 1, got 2.0"),
        (["train", "smnist", "--minutes", "-1"], "minutes"),
        (["train", "smnist", "--folder", __file__], "want a folder for the run, got a file"),
        (["train", "lra-listops", "--nodes", "2"], "torchrun"),
        (["eval", "nowhere"], "want a folder of a run"),
        (["list", "smnst"], "did you mean smnist"),
        (["list", "smnist", "--model", "lstn"], "did you mean lstm"),
        (["list", "--runs", "--folder", "nowhere"], "want a folder with results"),
        (["bench", "smnist", "--device", "abacus"], "abacus"),
        (["trian"], "No such command"),
        (["train", "smnist", "--seed", "-1"], "seed"),
    ],
)
def test_words_that_make_no_sense(words, says, tmp_path, monkeypatch):
    monkeypatch.delenv("MASTER_ADDR", raising=False)
    done = call(*words, *(["--data-dir", tmp_path] if words[0] in ("train", "bench") else []))
    assert done.exit_code == 2 and says in done.stderr and done.stdout == ""
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["--devices", "3", "--accelerator", "cpu"], "batch_size divisible by 3"),
        (["--accelerator", "abacus"], "abacus"),
        pytest.param(["--accelerator", "gpu"], "gpu", marks=NO_GPU),
        (["--shard-mib", "0"], "shard_mib"),
        (["--set", "precision=odd"], "odd"),
        (["--set", "dt_min=1.0"], "dt_min"),
    ],
)
def test_what_fails_before_it_begins_is_usage_and_leaves_no_run_behind(words, says, tmp_path):
    done = train(tmp_path, *words)
    assert done.exit_code == 2 and says in done.stderr
    assert not (tmp_path / "run").exists()


def test_missing_data_is_code_3_and_leaves_no_run_behind(tmp_path, monkeypatch):
    monkeypatch.setenv("S4LITE_DATA", str(tmp_path))
    import s4lite.data.files as files

    def offline(*args):
        raise files.MissingData("want a file, which is not there")

    monkeypatch.setattr(files, "_download", offline)
    done = call("train", "smnist", "--folder", tmp_path / "run", "--json")
    assert done.exit_code == 3 and json.loads(done.stdout)["code"] == 3
    assert not (tmp_path / "run").exists()


def test_train_then_all_that_follows(tmp_path):
    done = train(tmp_path, "--json")
    found = json.loads(done.stdout)
    assert done.exit_code == 0 and found["finished"] and 0 <= found["scores"]["accuracy"] <= 1
    (ledger,) = (p for p in (tmp_path / "run").glob("*.json") if p.name != "asked.json")
    held = json.loads(ledger.read_text())
    assert held["recipe"] == "lra-listops" and held["model"]["d_model"] == 4 and held["notes"]
    assert (
        held["command"].startswith("s4lite train lra-listops")
        and str(tmp_path) not in held["command"]
    )
    assert shlex.split(held["command"])[3:] == ["--size", "tiny", "--model", "s4d", *WORDS]
    assert held["published"]["value"] == 0.6052 and len(held["curve"]) == 2

    again = train(tmp_path)
    assert again.exit_code == 1 and "--resume" in again.stderr
    same = train(tmp_path, "--resume", "--json")
    assert same.exit_code == 0 and json.loads(same.stdout)["scores"] == found["scores"]
    other = train(tmp_path, "--resume", "--seed", "1")
    assert other.exit_code == 2 and "want the run that" in other.stderr

    scored = call("eval", tmp_path / "run", "--data-dir", tmp_path / "data", "--json")
    assert json.loads(scored.stdout)["accuracy"] == pytest.approx(found["scores"]["accuracy"])
    val = call("eval", tmp_path / "run", "--data-dir", tmp_path / "data", "--split", "val")
    assert val.exit_code == 0 and "accuracy" in val.stdout
    assert call("eval", tmp_path / "run", "--split", "train").exit_code == 2

    easier = ["--set", "task.max_length=15"]  # other data, and the network of the run
    other = call("eval", tmp_path / "run", *easier, "--data-dir", tmp_path / "data", "--json")
    assert other.exit_code == 0 and other.stdout != scored.stdout

    place = (tmp_path / "run", "--data-dir", tmp_path / "data", "--keep")
    for words in (["--rate", "2"], [*easier, "--split", "val"], ["--rate", "2"]):
        kept = call("eval", *place, *words)
        assert kept.exit_code == 0 and "kept in" in kept.stdout, kept.stderr
    line = read(next((tmp_path / "run").glob("lra*.json")))
    assert line.scores == found["scores"]
    first, last = line.evaluations  # one of a kind, the newer in the place of the older
    assert last["rate"] == 2.0 and last["overrides"] == {} and 0 <= last["scores"]["accuracy"] <= 1
    assert first["split"] == "val" and first["overrides"] == {"task.max_length": "15"}
    assert first["command"].endswith("--split val --rate 1 --set task.max_length=15")

    for place in (tmp_path, tmp_path / "run"):  # a folder of runs, and one run's
        listed = call("list", "--runs", "--folder", place)
        assert "lra-listops" in listed.stdout and "S4D-Lin 0.6052" in listed.stdout
        rows = json.loads(call("list", "--runs", "--folder", place, "--json").stdout)["runs"]
        assert [row["ours"] for row in rows] == [found["scores"]["accuracy"]]
    assert "no results" in call("list", "smnist", "--runs", "--folder", tmp_path).stdout


def test_stopped_in_time_is_code_4_and_can_go_on(tmp_path):
    done = train(tmp_path, "--minutes", "0.00001", "--json")
    found = json.loads(done.stdout)
    assert done.exit_code == 4 and not found["finished"] and "--resume" in found["message"]
    rest = train(tmp_path, "--resume", "--json")
    assert rest.exit_code == 0 and json.loads(rest.stdout)["finished"]
    whole = train(tmp_path / "whole", "--json", data=tmp_path / "data")
    assert json.loads(whole.stdout)["scores"] == json.loads(rest.stdout)["scores"]


@pytest.mark.slow
def test_ctrl_c_in_a_real_process_saves_and_says_how_to_go_on(tmp_path):
    words = ["train", "lra-listops", *_with(epochs=400), "--data-dir", tmp_path / "data"]
    place = ["--folder", tmp_path / "a run"]
    env = os.environ | {"PYTHONPATH": str(Path(s4lite.__file__).parents[1]), "OMP_NUM_THREADS": "1"}
    line = [sys.executable, "-m", "s4lite", *map(str, [*words, *place])]
    process = subprocess.Popen(line, stdout=-1, stderr=-1, text=True, env=env, cwd=tmp_path)
    states = tmp_path / "a run" / "states"
    for _ in range(600):
        if states.is_dir() and any(p.name.startswith("step-") for p in states.iterdir()):
            break
        time.sleep(0.2)
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=120)
    assert process.returncode == 130 and out == "" and "Traceback" not in err
    how = next(line for line in err.splitlines() if "Go on: " in line).split("Go on: ")[1]
    told = shlex.split(how)
    assert told[:3] == ["s4lite", "train", "lra-listops"] and "--resume" in told
    process = subprocess.run(
        [sys.executable, "-m", *told, "--minutes", "0.01", "--json"],
        capture_output=True,
        text=True,
        env=env,
        cwd=tmp_path,
        timeout=120,
    )
    assert process.returncode == 4, process.stderr
    assert json.loads(process.stdout)["epochs"] >= 1


def _with(**changes):
    pairs = dict(word.split("=", 1) for word in WORDS if word != "--set") | changes
    return [word for name, value in pairs.items() for word in ("--set", f"{name}={value}")]


def test_a_folder_that_is_no_run_is_said_to_be_none(tmp_path):
    for text in ("", "{}", "[]", '{"recipe": "smnist"}', "\x00"):
        (tmp_path / "asked.json").write_text(text)
        for words in (["eval", tmp_path], ["train", "smnist", "--folder", tmp_path]):
            done = call(*words)
            assert done.exit_code == 2 and "asked.json" in done.stderr


def test_resume_on_nothing_begins_and_says_so(tmp_path):
    done = train(tmp_path, "--resume", "--minutes", "0.00001")
    assert done.exit_code == 4 and "nothing to take up" in done.stderr
    again = train(tmp_path, "--resume", "--minutes", "0.00001")
    assert "nothing to take up" not in again.stderr


def test_a_run_that_has_lost_its_words_goes_on_with_the_same_ones_only(tmp_path):
    assert train(tmp_path, "--minutes", "0.00001").exit_code == 4
    asked = tmp_path / "run" / "asked.json"
    words = asked.read_bytes()
    asked.unlink()
    other = train(tmp_path, "--resume", "--set", "dt_max=0.2")
    assert other.exit_code == 2 and "want the job of the run" in other.stderr
    assert not asked.exists() and "nothing to take up" not in other.stderr
    assert train(tmp_path, "--resume").exit_code == 0 and asked.read_bytes() == words


def test_data_with_one_bit_turned_over_is_neither_learned_nor_tested(tmp_path):
    assert train(tmp_path, "--minutes", "0.00001").exit_code == 4
    (path,) = (tmp_path / "data").rglob("test-tokens.npy")
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)  # as long as before, so it can be opened
    part = ["--set", "test=8", "--folder", tmp_path / "part"]
    judged = call("eval", tmp_path / "run", "--data-dir", tmp_path / "data")
    for done in (train(tmp_path, "--resume"), train(tmp_path, *part), judged):
        assert done.exit_code == 3 and f"want {path} with sha256" in done.stderr
        assert "it will be made again" in done.stderr and done.stdout == ""


def test_how_to_go_on_names_the_place_too(tmp_path):
    done = train(tmp_path, "--minutes", "0.00001", "--accelerator", "cpu", "--shard-mib", "2")
    told = shlex.split(done.stdout.split("Go on: ")[1].splitlines()[0])
    assert told[-4:] == ["--accelerator", "cpu", "--shard-mib", "2.0"]


def test_eval_refuses_settings_that_it_would_not_hear(tmp_path):
    assert train(tmp_path, "--set", "seed=1").exit_code == 2  # it is an option, not a setting
    assert train(tmp_path).exit_code == 0
    place = ["eval", tmp_path / "run", "--data-dir", tmp_path / "data"]
    done = call(*place, "--set", "d_model=8")
    assert done.exit_code == 2 and "counts here" in done.stderr
    assert call(*place, "--set", "batch_size=3").exit_code == 0
    for rate in ("0", "-2", "nan"):
        done = call(*place, "--rate", rate)
        assert done.exit_code == 2 and "want rate finite and > 0" in done.stderr


def test_nothing_is_kept_of_a_run_that_is_not_finished(tmp_path):
    assert train(tmp_path, "--minutes", "0.00001").exit_code == 4
    done = call("eval", tmp_path / "run", "--data-dir", tmp_path / "data", "--keep")
    assert done.exit_code == 2 and "want a run that is finished, with one result" in done.stderr


def test_list_of_one_recipe():
    done = call("list", "lra-pathx")
    assert "v3-s4-pathx.yaml" in done.stdout and "S4D-Inv 0.928" in done.stdout
    assert "task.center" in done.stdout and "50000" in done.stdout
    found = json.loads(call("list", "etth1", "--model", "lstm", "--json").stdout)
    assert found["sizes"]["paper"]["prenorm"] is False and "d_state" not in found["settings"]
    assert "S4 0.061, 24 ahead" in call("list").stdout


def test_version():
    done = call("--version")
    assert done.exit_code == 0 and done.stdout.strip() == s4lite.__version__


def test_several_machines_are_explained_in_the_help():
    said = call("train", "--help").stdout
    assert "torchrun --nnodes 2" in said and "--devices 4" in said


def test_list_names_every_recipe():
    lines = call("list").stdout.splitlines()
    assert [line.split()[0] for line in lines[1:]] == list(names())
    rows = json.loads(call("list", "--json").stdout)["recipes"]
    assert [row["recipe"] for row in rows] == list(names())


def test_list_of_no_runs(tmp_path):
    done = call("list", "--runs", "--folder", tmp_path)
    assert done.exit_code == 0 and "no results" in done.stdout


def test_aligned():
    rows = [{"a": 1, "b": "xx"}, {"a": 222, "b": None}, {"a": 0.123456, "b": ["n", 2]}]
    assert aligned(rows) == ["a       b", "1       xx", "222", "0.1235  n; 2"]


def test_bench(tmp_path):
    done = call("bench", "lra-listops", *WORDS, "--data-dir", tmp_path, "--steps", 1, "--json")
    assert done.exit_code == 0 and json.loads(done.stdout)["sequences"] == 96
    assert not list(tmp_path.glob("run*"))


def python(code, *blocked):
    block = "".join(f"sys.modules[{name!r}] = None\n" for name in blocked)
    env = os.environ | {"PYTHONPATH": str(Path(s4lite.__file__).parents[1])}
    line = [sys.executable, "-c", f"import sys\n{block}{code}"]
    return subprocess.run(line, capture_output=True, text=True, env=env)


@pytest.mark.parametrize(
    ("missing", "words"), [("typer", ["list"]), ("lightning", ["train", "smnist"])]
)
def test_without_its_extra_the_command_line_says_one_line(missing, words):
    run = f"sys.argv = {['s4lite', *words]!r}\nfrom s4lite.__main__ import main\nmain()"
    done = python(run, missing)
    assert done.returncode == 1 and done.stdout == "" and len(done.stderr.splitlines()) == 1
    assert 'pip install "s4lite[train]"' in done.stderr


def test_list_and_help_do_not_wait_for_lightning():
    code = "from s4lite.cli.app import make_app\nfrom typer.testing import CliRunner\n"
    code += "run = CliRunner().invoke\nassert run(make_app(), ['list']).exit_code == 0\n"
    code += "assert run(make_app(), ['train', '--help']).exit_code == 0\n"
    code += "assert 'lightning' not in sys.modules"
    done = python(code)
    assert done.returncode == 0, done.stderr
