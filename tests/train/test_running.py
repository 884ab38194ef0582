"""A run: interrupted in every way and at every place, it ends with the same bits."""

import contextlib
import functools
import json
import multiprocessing
import os
import resource
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from jobs import SETTINGS, job, last, send, told
from tiny import model, same

from s4lite import S4D, SequenceModel
from s4lite.nn.folders import BadFolder
from s4lite.recipes.parts import Part
from s4lite.train import line
from s4lite.train.checkpoints import newest, read_weights, states
from s4lite.train.job import Job
from s4lite.train.ledger import read
from s4lite.train.lock import Busy, held
from s4lite.train.running import evaluate_run, run

HERE = Path(__file__).parent
STEPS = 8  # two epochs of four batches


def go(made, folder, **options):
    return run(made, folder, **{"accelerator": "cpu", "progress": False} | options)


def curve(result):
    rows = read(result.folder / "tiny-s4d.json").curve
    return [{k: v for k, v in row.items() if k != "seconds"} for row in rows]


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """The run that nothing happened to."""
    return go(job(), tmp_path_factory.mktemp("whole") / "run")


def check_same(got, want, steps=STEPS):
    assert told(got) == told(want) and curve(got) == curve(want)
    assert same(last(got, steps), last(want, steps))


# ---------------------------------------------------------------- what a run leaves


def test_a_run_leaves_states_logs_a_model_and_a_line_in_the_ledger(whole):
    assert whole.finished and whole.epochs == 2 and whole.seconds > 0
    assert whole.scores.keys() == {"loss", "accuracy"} and "in the test" in whole.message
    names = {p.name for p in whole.folder.iterdir()}
    assert names == {"states", "logs", "model", "tiny-s4d.json", "lock"}
    assert [p.name for p in states(whole.folder)] == ["step-000000008", "step-000000004"]
    assert not (whole.folder / "lock").read_text()
    line = (whole.folder / "logs/piece-0/metrics.csv").read_text().splitlines()[0]
    assert "val/accuracy" in line and list((whole.folder / "logs/tensorboard").glob("events*"))
    kept = read(whole.folder / "tiny-s4d.json")
    assert kept.scores == whole.scores and kept.seeds == [3] and kept.recipe == "tiny"
    assert len(kept.curve) == 2 and kept.notes == [] and kept.chosen["epoch"] == whole.best["epoch"]
    assert kept.parameters == sum(p.numel() for p in job().build().parameters())
    assert kept.settings["learner"] == SETTINGS and kept.model == {"name": "s4d"}
    assert kept.hardware["cpu"] and kept.versions.keys() > {"lightning", "torch"}
    assert 0 < kept.wall_seconds == whole.seconds and kept.cpu_seconds > 0
    assert kept.task["sequences"] == {"train": 17, "val": 11, "test": 9} and not kept.more
    assert kept.task["shown"] == "<tiny: 12 x 1 a sample to 2>"


def test_the_best_epoch_is_chosen_on_validation_and_tested(whole):
    kept = read(whole.folder / "tiny-s4d.json")
    scores = [row["val"]["accuracy"] for row in kept.curve]
    assert whole.best["val"]["accuracy"] == max(scores)
    assert whole.best["epoch"] == scores.index(max(scores))
    for where in (whole.folder, whole.folder / "model"):
        assert evaluate_run(job(), where, accelerator="cpu") == whole.scores
    state = whole.folder / "states" / f"step-{whole.best['step']:09d}"
    assert evaluate_run(job(), state, split="val", accelerator="cpu") == whole.best["val"]


def test_the_model_that_is_left_is_the_averaged_one(whole):
    model = SequenceModel.from_pretrained(whole.folder / "model")
    weights = last(whole, whole.best["step"])
    mine = model.state_dict()
    assert all(torch.equal(mine[k], weights[f"average.model.{k}"]) for k in mine)
    assert not all(torch.equal(mine[k], weights[f"model.{k}"]) for k in mine)


def test_the_same_job_gives_the_same_bits_and_another_seed_others(whole, tmp_path):
    torch.manual_seed(99)
    check_same(go(job(), tmp_path / "again"), whole)
    other = go(job(seed=4), tmp_path / "other")
    assert not same(last(other, STEPS), last(whole, STEPS))


def test_a_finished_run_is_not_run_again(whole, capfd):
    before = {p: p.stat().st_mtime_ns for p in whole.folder.rglob("*") if p.name != "lock"}
    again = go(job(), whole.folder, resume=True)
    assert told(again) == told(whole) and "finished before" in again.message
    assert {p: p.stat().st_mtime_ns for p in before} == before
    with pytest.raises(
        FileExistsError, match=r"want an empty folder, or resume=True .* got tiny-s4d"
    ):
        go(job(), whole.folder)


def test_nothing_goes_to_the_standard_output(tmp_path, capfd):
    go(job(), tmp_path, progress=True)
    out, err = capfd.readouterr()
    assert out == "" and "lightning" not in err.lower()


# ---------------------------------------------------------------- pieces

VARIANTS = {
    "plain": {},
    "accumulated": {"accumulate": 3, "sizes": (29, 11, 9)},  # 7 batches: 3, 3 and 1
    "ragged": {"ragged": True, "buckets": True},
    "plateau": {"learner": {"lr": 1e-6, "schedule": "plateau", "patience": 1}, "epochs": 5},
    "workers": {"workers": 1, "epochs": 1},
    "shares": {"shares": 2, "epochs": 4},
    "half": {"precision": "bf16-mixed", "epochs": 1},
}  # fmt: skip


@pytest.mark.parametrize("name", VARIANTS)
def test_in_pieces_of_one_step_it_ends_with_the_same_bits(tmp_path, name):
    """Every state that can be kept is taken up once."""
    want = go(job(**VARIANTS[name]), tmp_path / "whole")
    count, got, spent = 0, None, (0.0, 0.0)
    while got is None or not got.finished:
        got = go(job(**VARIANTS[name]), tmp_path / "pieces", minutes=0, resume=True)
        count += 1
        kept = newest(tmp_path / "pieces")[0]["callbacks"]["Keeper"]
        now = kept["seconds"], kept["cpu_seconds"]
        assert got.finished or all(a > b for a, b in zip(now, spent, strict=True))  # they add up
        spent = now
    steps = {"accumulated": 6, "plateau": 20, "workers": 4, "half": 4}.get(name, STEPS)
    assert count == steps and got.epochs == want.epochs
    check_same(got, want, steps)


def test_a_piece_says_how_it_goes_on(tmp_path, capfd):
    made = job(record={"resume": "s4lite train tiny --resume"})
    got = go(made, tmp_path, minutes=0)
    said = "tiny-s4d: stopped, as its time is up; kept is step-000000001. Go on: s4lite train tiny"
    assert not got.finished and got.scores == {} and got.best == {} and got.epochs == 0
    assert got.message.startswith(said) and said in capfd.readouterr().err
    assert not (tmp_path / "tiny-s4d.json").exists()
    assert "resume=True" in go(job(record={}), tmp_path / "b", minutes=0).message


def test_resume_without_anything_begins(whole, tmp_path):
    check_same(go(job(), tmp_path / "new", resume=True), whole)


def test_no_resume_where_something_is(tmp_path):
    go(job(), tmp_path, minutes=0)
    with pytest.raises(FileExistsError, match=r"got a run that has come to step-000000001"):
        go(job(), tmp_path)


@pytest.mark.parametrize(
    ("said", "change"),
    [
        ("seed 3 there, 4 here", {"seed": 4}),
        ("epochs 2 there, 3 here", {"epochs": 3}),
        ("batch_size 4 there, 2 here", {"batch_size": 2}),
        ("learner .* there, .* here", {"learner": SETTINGS | {"lr": 0.01}}),
        ("model s4d there, s4 here", {"record": {"model": "s4", "recipe": "tiny", "size": "test"}}),
    ],
)
def test_another_job_does_not_go_on_here(tmp_path, said, change):
    go(job(), tmp_path, minutes=0)
    with pytest.raises(ValueError, match=f"want the job of the run in .*, got another: .*{said}"):
        go(job(**change), tmp_path, resume=True)


def test_a_finished_run_of_another_job(whole):
    with pytest.raises(ValueError, match="seed 3 there, 4 here"):
        go(job(seed=4), whole.folder, resume=True)


def test_other_data_does_not_go_on_here(tmp_path):
    go(job(), tmp_path, minutes=0)
    with pytest.raises(ValueError, match=r"sequences .*'val': 11.* there, .*'val': 10.* here"):
        go(job(sizes=(17, 10, 9)), tmp_path, resume=True)


# ---------------------------------------------------------------- what the line says


def test_a_part_of_the_data_and_a_stand_in_say_so(tmp_path):
    made = job()
    go(replace(made, task=Part(made.task, train=8)), tmp_path / "a")
    kept = read(tmp_path / "a" / "tiny-s4d.json")
    want = "a part of the sequences: <tiny: 12 x 1 a sample to 2>, of it 8 to train"
    assert kept.notes == [want] and kept.task["sequences"]["train"] == 8
    made.task.name = "tiny-stand-in"
    go(made, tmp_path / "b")
    assert read(tmp_path / "b" / "tiny-s4d.json").notes[0].startswith("a stand-in: <tiny-stand-in")
    go(replace(made, record={"notes": ["generated stand-in"]}), tmp_path / "c")
    assert read(tmp_path / "c" / "tiny-s4d.json").notes == ["generated stand-in"]


def test_pieces_by_other_code_or_machines_are_told(tmp_path, monkeypatch):
    for at in ("aaa", "aaa", "bbb"):
        monkeypatch.setattr(line, "commit", lambda at=at: at)
        go(job(), tmp_path, minutes=0, resume=True)
    while not go(job(), tmp_path, minutes=0, resume=True).finished:
        pass
    kept = read(tmp_path / "tiny-s4d.json")
    assert kept.notes == ["made in pieces on 2 states of code or machines, see pieces"]
    assert [place["commit"] for place in kept.more["pieces"]] == ["aaa", "bbb"]
    assert kept.commit == "bbb" and kept.more["pieces"][0]["hardware"] == kept.hardware


def test_the_commit_is_that_of_the_beginning(tmp_path, monkeypatch):
    monkeypatch.setattr(line, "commit", lambda: "before")
    change = lambda: monkeypatch.setattr(line, "commit", lambda: "after")  # noqa: E731
    go(job(at=5, event=change), tmp_path)
    assert read(tmp_path / "tiny-s4d.json").commit == "before"


def test_if_the_best_weights_are_damaged_the_others_are_tested(tmp_path, capfd):
    still = {"learner": {"lr": 1e-9, "ssm_lr": 1e-9}}  # so the first epoch is the best
    with pytest.raises(KeyboardInterrupt):
        go(job("test", at=3, event=send(signal.SIGINT), **still), tmp_path)
    os.truncate(tmp_path / "states" / "step-000000004" / "model.safetensors", 9)
    got = go(job(**still), tmp_path, resume=True)
    assert got.finished and got.best["step"] == 8
    note = "the weights kept of it were damaged: in place of epoch 1, the best, 2 was tested"
    assert read(tmp_path / "tiny-s4d.json").notes == [note]
    assert "It was the best; epoch 2 is tested in its place" in capfd.readouterr().err
    assert told(go(job(**still), tmp_path, resume=True)) == told(got)
    assert evaluate_run(job(**still), tmp_path, accelerator="cpu") == got.scores  # its model's


def test_a_model_that_no_file_can_hold_does_not_lose_the_run(tmp_path, capfd):
    layer = functools.partial(S4D, d_state=4)
    made = job(build=lambda: SequenceModel(1, 2, 4, 1, layer=layer), epochs=1)
    assert go(made, tmp_path).finished and not (tmp_path / "model").exists()
    assert "no model of its own is left: want layer as a number" in capfd.readouterr().err


def test_judging_a_run_of_which_only_the_model_is_left(whole, tmp_path):
    shutil.copytree(whole.folder, tmp_path / "run")
    shutil.rmtree(tmp_path / "run" / "states"), (tmp_path / "run" / "states").mkdir()
    assert evaluate_run(job(), tmp_path / "run", accelerator="cpu") == whole.scores


# ---------------------------------------------------------------- when it is over


def test_patience(tmp_path):
    still = {"lr": 1e-9, "ssm_lr": 1e-9}
    got = go(job(learner=still, epochs=9, patience=2), tmp_path)
    assert got.finished and got.epochs == 3 and got.best["epoch"] == 0
    kept = states(got.folder)  # the last two, and the best
    assert [int(p.name[-9:]) for p in kept] == [12, 8, 4]
    notes = read(tmp_path / "tiny-s4d.json").notes
    assert notes == ["over in epoch 3 of 9: no epoch was better for a while"]


def test_patience_of_a_run_that_was_stopped_in_between(tmp_path):
    still = {"lr": 1e-9, "ssm_lr": 1e-9}
    made = {"learner": still, "epochs": 9, "patience": 2}
    while not (got := go(job(**made), tmp_path, minutes=0, resume=True)).finished:
        pass
    assert got.epochs == 3


def test_the_time_of_a_recipe(tmp_path):
    got = go(job(max_minutes=1e-9, epochs=9), tmp_path)
    assert got.finished and got.epochs == 1 and got.best["step"] == 1
    notes = read(tmp_path / "tiny-s4d.json").notes
    assert got.scores and len(notes) == 1 and "over in epoch 1 of 9: its" in notes[0]


# ---------------------------------------------------------------- signals


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize("at", [2, 9, 14, 17, 24, 31])
def test_a_signal_saves_and_says_how_it_goes_on(whole, tmp_path, capfd, number, at):
    before = signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)
    with pytest.raises(
        KeyboardInterrupt, match=r"stopped, as asked; kept is step-.* Go on: "
    ) as stop:
        go(job(at=at, event=send(number)), tmp_path)
    assert (signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)) == before
    assert type(stop.value) is KeyboardInterrupt  # a shell's loop ends at no other
    step = int(states(tmp_path)[0].name[-9:])
    assert (
        step >= at // 4
        and f"{signal.Signals(number).name}: stopping behind" in capfd.readouterr().err
    )
    check_same(go(job(), tmp_path, resume=True), whole)
    assert "taking over" not in capfd.readouterr().err  # it left in order


def test_on_slurm_its_signal_stops_a_run_and_nothing_else_is_written(whole, tmp_path, monkeypatch):
    asked = {"NTASKS": "1", "JOB_NAME": "x", "JOB_ID": "7", "PROCID": "0", "LOCALID": "0"}
    for name, value in (asked | {"NODEID": "0", "NNODES": "1"}).items():
        monkeypatch.setenv(f"SLURM_{name}", value)
    with pytest.raises(KeyboardInterrupt, match="stopped, as asked; kept is"):
        go(job(at=9, event=send(signal.SIGUSR1)), tmp_path)
    assert not list(tmp_path.rglob("hpc*"))
    check_same(go(job(), tmp_path, resume=True), whole)


def test_twice_stops_at_once(whole, tmp_path):
    def twice():
        send(signal.SIGINT)(), send(signal.SIGINT)()

    with pytest.raises(KeyboardInterrupt, match="at once, as asked twice; nothing was kept"):
        go(job(at=2, event=twice), tmp_path / "a")
    with pytest.raises(KeyboardInterrupt, match="at once, as asked twice; kept is step-000000004"):
        go(job(at=25, event=twice), tmp_path / "b")
    check_same(go(job(), tmp_path / "b", resume=True), whole)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize("where", ["val", "test"])
def test_a_signal_during_validation_and_test(whole, tmp_path, where, number):
    with pytest.raises(KeyboardInterrupt, match=r"stopped.*as asked; kept is step-"):
        go(job(where, at=3, event=send(number)), tmp_path)
    assert not (tmp_path / "tiny-s4d.json").exists()
    check_same(go(job(), tmp_path, resume=True), whole)


def test_a_signal_before_the_first_step(tmp_path):
    with pytest.raises(KeyboardInterrupt, match="at once, as asked; nothing was kept"):
        go(job(build=send(signal.SIGINT)), tmp_path)
    with held(tmp_path):
        pass


def test_a_pool_of_workers_can_be_ended_while_a_run_listens(tmp_path):
    """Generators of data use such pools; they inherit what hears the signals."""

    def build():
        with multiprocessing.get_context("fork").Pool(1) as pool:
            assert pool.apply(abs, (-1,)) == 1
        return model(3)

    assert go(job(build=build, epochs=1), tmp_path).finished


# ---------------------------------------------------------------- damage, full disks


@pytest.mark.parametrize(
    "name", ["model.safetensors", "optimizer.safetensors", "trainer.pt", "manifest.json"]
)
def test_a_state_cut_short_costs_one_interval(whole, tmp_path, capfd, name):
    with pytest.raises(KeyboardInterrupt):
        go(job(at=26, event=send(signal.SIGINT)), tmp_path, checkpoint_minutes=0)
    newest = states(tmp_path)[0]
    os.truncate(newest / name, 100)
    got = go(job(), tmp_path, resume=True)
    said = capfd.readouterr().err
    assert f"Nothing was loaded from {newest}" in said and "going on from step-00000000" in said
    assert len(list((tmp_path / "states").glob("damaged-*"))) == 1
    check_same(got, whole)


def test_no_sound_state(tmp_path):
    go(job(), tmp_path, minutes=0)
    for path in states(tmp_path):
        os.truncate(path / "trainer.pt", 0)
    with pytest.raises(BadFolder, match="want a sound state to go on from, got none"):
        go(job(), tmp_path, resume=True)
    assert len(states(tmp_path)) == 1


@contextlib.contextmanager
def files_of_at_most(size):
    """The system refuses to write more than that into any file."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def test_a_state_that_cannot_be_written_leaves_the_one_before(whole, tmp_path, capfd):
    go(job(), tmp_path, minutes=0)
    before = sorted(p.name for p in (tmp_path / "states").iterdir())
    said = r"no part of it was kept.*; step-000000001 stands, and the run can be taken up there"
    with files_of_at_most(3000), pytest.raises(OSError, match=said):
        go(job(), tmp_path, minutes=0, resume=True)
    assert sorted(p.name for p in (tmp_path / "states").iterdir()) == before
    said = "stopped, as the disk is full; kept is step-000000001. Go on: run(job, "
    assert said in capfd.readouterr().err
    check_same(go(job(), tmp_path, resume=True), whole)


def test_not_even_the_first(tmp_path):
    with files_of_at_most(3000), pytest.raises(OSError, match="; none stands"):
        go(job(), tmp_path, minutes=0)
    assert not list((tmp_path / "states").iterdir())


SCRIPT = """
import sys
sys.path.insert(0, {here!r})
from jobs import job, send
from s4lite.train.running import run

if __name__ == "__main__":
    run(job({options}), {folder!r}, accelerator="cpu", {more})
"""


def script(folder, options="", more="resume=True"):
    path = folder.parent / f"{folder.name}.py"
    path.write_text(SCRIPT.format(here=str(HERE), options=options, folder=str(folder), more=more))
    return [sys.executable, str(path)]


def test_a_disk_that_is_really_full(whole, tmp_path):
    """80 KiB of disk: room for a few states and the logs, and then for no more."""
    (disk := tmp_path / "disk").mkdir()
    mount = f"mount -t tmpfs -o size=80k tmpfs {disk}"
    alone = ["unshare", "-rm", "sh", "-c"]
    try:
        if subprocess.run([*alone, mount], capture_output=True).returncode:
            pytest.skip("no file system can be mounted here")
    except FileNotFoundError:
        pytest.skip("unshare is not here")
    line = script(tmp_path / "run", more="checkpoint_minutes=0")
    Path(line[1]).write_text(Path(line[1]).read_text().replace(f"{tmp_path}/run", f"{disk}/run"))
    line = " ".join(line)
    after = f"ls {disk}/run/states; cp -r {disk}/run {tmp_path}/saved; exit 7"
    done = subprocess.run(
        [*alone, f"{mount}; {line}; {after}"], capture_output=True, text=True, env=dict(os.environ)
    )
    assert done.returncode == 7, done.stderr
    said = "No space left on device: no part of it was kept, and what stood there stands; step-"
    assert said in done.stderr and "the disk is full; kept is step-" in done.stderr, done.stderr
    assert states(tmp_path / "saved")
    check_same(go(job(), tmp_path / "saved", resume=True), whole)


# ---------------------------------------------------------------- kill -9, and two in one folder


def wait_for(folder, step, process):
    until = time.monotonic() + 120
    while not any(int(p.name[-9:]) >= step for p in states(folder)):
        assert process.poll() is None, "it ended"
        assert time.monotonic() < until, "no state came"
        time.sleep(0.002)


def test_killed_in_the_middle_of_an_epoch_while_another_wants_in(whole, tmp_path, capfd):
    folder = tmp_path / "run"
    line = script(folder, "pause=0.05, workers=1", "checkpoint_minutes=0")
    process = subprocess.Popen(line, stderr=subprocess.DEVNULL, env=dict(os.environ))
    try:
        wait_for(folder, 5, process)
        with pytest.raises(Busy, match=f"in which process {process.pid} on .* since .* runs"):
            go(job(), folder, resume=True)
    finally:
        process.kill()
        process.wait()
    assert process.returncode == -signal.SIGKILL and not (folder / "tiny-s4d.json").exists()
    step = int(states(folder)[0].name[-9:])
    assert 5 <= step < STEPS
    got = go(job(), folder, resume=True)
    assert f"taking over from process {process.pid}" in capfd.readouterr().err
    check_same(got, whole)
    assert not list((folder / "states").glob(".*"))


KILLED = """
import os, signal, sys
sys.path.insert(0, {here!r})
from jobs import job
from s4lite.train.running import run

class Count:
    calls = 0

def dying(real):
    def called(*args, **options):
        Count.calls += 1
        if Count.calls == {at}:
            os.kill(os.getpid(), signal.SIGKILL)
        return real(*args, **options)
    return called

os.fsync, os.rename = dying(os.fsync), dying(os.rename)
run(job(), {folder!r}, accelerator="cpu", progress=False, checkpoint_minutes=0, resume=True)
"""


def test_what_one_that_was_killed_left_half_written_goes_even_if_it_left_no_state(tmp_path):
    part = tmp_path / "run" / "states" / ".step-000000004.12-34567890.part"
    part.mkdir(parents=True), (part / "model.safetensors").write_bytes(b"half")
    go(job(epochs=1), tmp_path / "run", resume=True)
    assert not part.exists()


def test_killed_while_it_writes_again_and_again(whole, tmp_path):
    """Each life is shorter than three states; each leaves one to go on from."""
    path, folder = tmp_path / "killed.py", tmp_path / "run"
    lives = []
    for at in (15, 9, 13):
        path.write_text(KILLED.format(here=str(HERE), at=at, folder=str(folder)))
        done = subprocess.run([sys.executable, str(path)], capture_output=True, text=True)
        assert done.returncode == -signal.SIGKILL, done.stderr
        lives.append(int(states(folder)[0].name[-9:]))
    assert lives == sorted(lives) and lives[0] > 0 and lives[-1] < STEPS
    check_same(go(job(), folder, resume=True), whole)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGUSR1])
def test_a_signal_to_all_processes_from_outside(whole, tmp_path, number):
    folder = tmp_path / "run"
    line = script(folder, "pause=0.05, workers=1", "checkpoint_minutes=0")
    options = {"stderr": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    env = {k: v for k, v in os.environ.items() if k != "TQDM_DISABLE"}
    process = subprocess.Popen(line, **options, env=env, start_new_session=True)
    wait_for(folder, 2, process)
    os.killpg(process.pid, number)  # as a terminal or a scheduler does: its workers get it too
    out, said = process.communicate(timeout=60)
    assert out == "" and "Epoch 0" in said  # the bars are on the error stream
    assert process.returncode and "Go on: run(job, " in said
    assert said.count("stopping behind the step") == 1 and "RuntimeError" not in said
    check_same(go(job(), folder, resume=True), whole)


@pytest.mark.skipif(sys.platform != "linux", reason="looks into /proc")
def test_a_loader_that_is_killed_ends_the_run_which_says_how_to_go_on(whole, tmp_path):
    folder = tmp_path / "run"
    line = script(folder, "pause=0.05, workers=1", "checkpoint_minutes=0")
    process = subprocess.Popen(line, stderr=subprocess.PIPE, text=True)
    wait_for(folder, 2, process)
    children = Path(f"/proc/{process.pid}/task/{process.pid}/children")
    while process.poll() is None:  # the first that is found
        with contextlib.suppress(FileNotFoundError, ProcessLookupError):
            _ = [os.kill(int(loader), signal.SIGKILL) for loader in children.read_text().split()]
        time.sleep(0.02)
    said = process.stderr.read()
    process.stderr.close()
    assert process.returncode == 1 and "DataLoader worker (pid" in said
    assert "stopped by an error; kept is step-" in said and "Go on: run(job, " in said
    check_same(go(job(), folder, resume=True), whole)


def test_one_run_a_folder_in_one_process(tmp_path):
    with held(tmp_path) as gone, pytest.raises(Busy, match="in which this process runs another"):
        assert gone == ""
        go(job(), tmp_path)
    go(job(), tmp_path, minutes=0)


def test_a_lock_that_was_left_is_taken_over(tmp_path):
    (tmp_path / "lock").write_text("process 1 on nowhere")
    with held(tmp_path) as gone:
        assert gone == "process 1 on nowhere"
    with held(tmp_path) as gone:
        assert gone == ""


# ---------------------------------------------------------------- two processes

TWO = """
import os, signal, sys
sys.path.insert(0, {here!r})
from jobs import job, send
from s4lite.train.running import run

def go(made, name, **options):
    return run(made, {out!r} + name, accelerator="cpu", devices=2, progress=False, **options)

if __name__ == "__main__":
    much = {{"sizes": (80, 13, 9), "learner": {settings}, "dropout": 0.0}}
    whole = go(job(**much), "/whole")
    first = go(job(**much), "/pieces", minutes=0)
    assert not first.finished and "step-000000008" in first.message
    only = send(signal.SIGINT) if int(os.environ.get("LOCAL_RANK", 0)) == 0 else lambda: None
    try:
        go(job(**much, at=3, event=only), "/pieces", resume=True)
        raise AssertionError("not interrupted")
    except KeyboardInterrupt as stop:
        assert "step-000000016" in str(stop), stop
    second = go(job(**much), "/pieces", resume=True)
    assert second.scores == whole.scores and second.finished
"""


@pytest.mark.slow
def test_two_processes_stop_together_go_on_and_are_one(tmp_path):
    settings = {"lr": 0.02, "schedule": "cosine", "ema": 0.9, "clip": 1.0}
    (path := tmp_path / "two.py").write_text(
        TWO.format(here=str(HERE), out=str(tmp_path), settings=settings)
    )
    done = subprocess.run(
        [sys.executable, str(path)], capture_output=True, text=True, env=dict(os.environ)
    )
    assert done.returncode == 0, done.stderr[-4000:]
    whole, parts = tmp_path / "whole", tmp_path / "pieces"
    steps = 40
    both = [read_weights(folder / "states" / f"step-{steps:09d}") for folder in (whole, parts)]
    assert same(*both)
    kept = [read(folder / "tiny-s4d.json") for folder in (whole, parts)]
    assert kept[0].hardware["processes"] == 2 and kept[0].scores == kept[1].scores
    drop = [[row["val"] for row in each.curve] for each in kept]
    assert drop[0] == drop[1]
    one = go(job(sizes=(80, 13, 9), learner=settings, dropout=0.0), tmp_path / "one")
    assert abs(one.scores["loss"] - kept[0].scores["loss"]) < 1e-3
    # between epochs one process can go on with what two have begun
    shutil.rmtree(whole / "states" / f"step-{steps:09d}")
    (whole / "tiny-s4d.json").unlink()
    fewer = go(job(sizes=(80, 13, 9), learner=settings, dropout=0.0), whole, resume=True)
    assert fewer.finished and abs(one.scores["loss"] - fewer.scores["loss"]) < 1e-3


# ---------------------------------------------------------------- judging, bad input


def test_judging_at_another_rate_and_split(whole):
    plain = evaluate_run(job(), whole.folder, accelerator="cpu")
    assert evaluate_run(job(), whole.folder, rate=2.0, accelerator="cpu") != plain
    assert evaluate_run(job(), whole.folder, split="val", accelerator="cpu") == whole.best["val"]


def test_judging_a_run_that_is_not_finished(tmp_path):
    go(job(), tmp_path, minutes=0)
    assert evaluate_run(job(), tmp_path, accelerator="cpu").keys() == {"loss", "accuracy"}


def test_judging_what_is_not_there(whole, tmp_path):
    with pytest.raises(FileNotFoundError, match="want a folder"):
        evaluate_run(job(), tmp_path / "none", accelerator="cpu")
    with pytest.raises(ValueError, match="want weights of the job's model"):
        evaluate_run(job(learner={}), whole.folder, accelerator="cpu")
    with pytest.raises(ValueError, match='want split "test" or "val", got \'train\''):
        evaluate_run(job(), whole.folder, split="train")
    shutil.copytree(whole.folder / "model", tmp_path / "model")
    os.truncate(tmp_path / "model" / "model.safetensors", 50)
    with pytest.raises(BadFolder, match=r"want model\.safetensors"):
        evaluate_run(job(), tmp_path / "model")


@pytest.mark.parametrize(
    ("error", "message", "change"),
    [
        (ValueError, "want epochs >= 1", {"epochs": 0}),
        (TypeError, "want batch_size as an int", {"batch_size": 2.0}),
        (ValueError, "want accumulate >= 1", {"accumulate": 0}),
        (ValueError, "want patience >= 1", {"patience": 0}),
        (ValueError, "want no total in learner", {"learner": {"total": 3}}),
        (ValueError, "want max_minutes > 0 or None, got 0", {"max_minutes": 0}),
        (ValueError, "want a name of letters", {"name": "a/b"}),
        (ValueError, "of 200 bytes at most", {"name": "ä" * 101}),
    ],
)
def test_bad_jobs(error, message, change):
    with pytest.raises(error, match=message):
        job(**change)


@pytest.mark.parametrize(
    ("error", "message", "options"),
    [
        (ValueError, "want batch_size divisible by 3 processes, got 4", {"devices": 3}),
        (ValueError, "want devices >= 1", {"devices": 0}),
        (ValueError, "want checkpoint_minutes >= 0", {"checkpoint_minutes": -1}),
        (ValueError, "want minutes >= 0", {"minutes": float("nan")}),
        (ValueError, "want shard_mib > 0", {"shard_mib": 0}),
        (TypeError, "unexpected keyword argument 'minuts'", {"minuts": 3}),
    ],
)
def test_bad_ways_to_run(tmp_path, error, message, options):
    with pytest.raises(error, match=message):
        go(job(), tmp_path / "new", **options)
    assert not (tmp_path / "new").exists()


def test_bad_settings_leave_nothing(tmp_path):
    with pytest.raises(ValueError, match="want clip > 0"):
        go(job(learner={"clip": -1}), tmp_path)
    assert {p.name for p in tmp_path.iterdir()} <= {"lock"}


def test_jobs_are_frozen():
    assert isinstance(job(), Job)
    with pytest.raises(AttributeError):
        job().epochs = 3


def test_shards_of_a_run(whole, tmp_path):
    got = go(job(), tmp_path, shard_mib=0.001)
    assert len(list(states(tmp_path)[0].glob("model-*.safetensors"))) > 1
    check_same(got, whole)


def test_the_ledger_is_json_for_people(whole):
    text = (whole.folder / "tiny-s4d.json").read_text()
    assert json.loads(text)["scores"] == whole.scores and str(whole.folder) not in text
