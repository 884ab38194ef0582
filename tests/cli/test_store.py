"""The commands for data: what is missing, damaged, drawn; and that looking writes nothing."""

import json

import pytest
from small import WORDS, call

from s4lite.cli.store import look_at
from s4lite.data.documents import Text
from s4lite.data.files import DamagedData, MissingData
from s4lite.data.listops import ListOps
from s4lite.data.retrieval import Retrieval
from s4lite.data.speech import FSDD
from s4lite.recipes.catalogue import names

SHAPE = [w for word in WORDS if word.startswith("task.") for w in ("--set", word)]


def files(folder):
    return sorted(str(path) for path in folder.rglob("*"))


def test_check_of_an_empty_folder(tmp_path):
    done = call("data", "check", "--data-dir", tmp_path, "--json")
    found = json.loads(done.stdout)
    assert done.exit_code == 3 and list(found) == list(names()) and files(tmp_path) == []
    assert (
        found["smnist"]["found"] == "missing" and found["lra-listops"]["found"] == "not drawn yet"
    )
    assert str(tmp_path) in found["smnist"]["said"] and "md5:" in found["smnist"]["said"]


def test_check_of_what_needs_no_files_is_fine(tmp_path):
    done = call("data", "check", "lra-listops", "lra-pathfinder", "--data-dir", tmp_path)
    assert done.exit_code == 0 and "not drawn yet" in done.stdout


def test_generate_then_check_then_damage(tmp_path):
    place = ["--data-dir", tmp_path, *SHAPE]
    assert call("data", "generate", "lra-listops", *place).exit_code == 0
    there = files(tmp_path)
    done = call("data", "check", "lra-listops", *place)
    assert done.exit_code == 0 and "ready" in done.stdout and files(tmp_path) == there
    assert (
        call("data", "generate", "lra-listops", *place).exit_code == 0 and files(tmp_path) == there
    )
    path = next(tmp_path.rglob("train-tokens.npy"))
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)
    done = call("data", "check", "lra-listops", *place)
    assert done.exit_code == 3 and "damaged" in done.stdout and "train-tokens.npy" in done.stdout


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["generate", "smnist"], "use: s4lite data get"),
        (["generate", "lra-listops", "smnist"], "use: s4lite data get"),
        (["get", "smnst"], "did you mean smnist"),
        (["check", "lra-listops", "--size", "huge"], "want a size"),
        (["generate", "lra-listops", "--set", "task.depth=2"], "want a setting"),
        (["generate", "lra-listops", "--set", "lr=.1"], "counts here"),
    ],
)
def test_words_that_make_no_sense(words, says, tmp_path):
    done = call("data", *words, "--data-dir", tmp_path)
    assert done.exit_code == 2 and says in done.stderr and files(tmp_path) == []


def test_get_of_what_is_drawn_draws_it(tmp_path):
    done = call("data", "get", "lra-listops", "--data-dir", tmp_path, *SHAPE, "--json")
    assert done.exit_code == 0 and str(tmp_path) in json.loads(done.stdout)["lra-listops"]["folder"]
    assert files(tmp_path)


def test_looking_at_reviews_and_pairs_writes_nothing(tmp_path):
    with pytest.raises(MissingData):
        look_at(Text(tmp_path, download=False))
    with pytest.raises(MissingData, match="RetrievalStandIn"):
        look_at(Retrieval(tmp_path, download=False))
    for part in ("train/pos", "train/neg", "test/pos", "test/neg"):
        (tmp_path / "aclImdb" / part).mkdir(parents=True)
        (tmp_path / "aclImdb" / part / "0_1.txt").write_text("good")
    there = files(tmp_path)
    assert look_at(Text(tmp_path, each=1, download=False)) == "files are there"
    with pytest.raises(DamagedData):
        look_at(Text(tmp_path, download=False))
    assert files(tmp_path) == there
    assert (
        look_at(ListOps(tmp_path, sizes=(20, 5, 5), max_depth=3, min_length=2, max_length=20))
        == "not drawn yet"
    )


def test_a_part_of_the_recordings_is_not_called_whole(tmp_path):
    """A folder with the right name and too few clips is damaged, not ready."""
    folder = tmp_path / "speech_commands_v0.02"
    folder.mkdir()
    for name in ("validation_list.txt", "testing_list.txt"):
        (folder / name).write_text("")
    done = call("data", "check", "sc10", "--data-dir", tmp_path)
    assert done.exit_code == 3 and "damaged" in done.stdout
    (tmp_path / "recordings").mkdir()
    with pytest.raises(DamagedData, match="3,000 clips"):
        look_at(FSDD(tmp_path, download=False))


def test_the_published_lists_are_looked_for_not_drawn(tmp_path):
    task = ListOps(tmp_path, source="published")
    with pytest.raises(MissingData, match=r"basic_train\.tsv"):
        look_at(task)
    for split in ("train", "val", "test"):
        (tmp_path / f"basic_{split}.tsv").write_text("Source\tTarget\n")
    assert look_at(task) == "files are there" and len(files(tmp_path)) == 3
