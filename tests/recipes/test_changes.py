"""Changes by name: types, ranges, and names that do not count."""

import math

import pytest

from s4lite.data.listops import ListOps
from s4lite.data.pixels import SequentialMNIST
from s4lite.recipes.catalogue import Size, recipe
from s4lite.recipes.changes import change, read_value, settings_of

GOOD = [
    (".004", float, 0.004),
    ("3", float, 3.0),
    ("1e-3", float, 1e-3),
    ("-2", int, -2),
    ("7", int | None, 7),
    ("None", int | None, None),
    ("none", float | None, None),
    ("true", bool, True),
    ("False", bool, False),
    ("inv", str, "inv"),
    ("12", str, "12"),
    ("bit-reversal", str | None, "bit-reversal"),
    ("(8,9,10)", tuple[int, int, int], (8, 9, 10)),
    ("[8, 9, 10]", tuple[int, int, int], (8, 9, 10)),
    ((1, 2, 3), tuple[int, int, int], (1, 2, 3)),
    (4, float, 4.0),
]
BAD = [
    ("4.5", int),
    ("1", bool),
    ("yes", bool),
    ("True", int),
    ("True", float),
    ("nan", float),
    ("inf", float),
    ("1e999", float),
    ("", int),
    ("fast", float | None),
    ("(8,9)", tuple[int, int, int]),
    ("(8,9,'x')", tuple[int, int, int]),
    (True, int),
    (math.nan, float),
    ("__import__('os')", int),
]


@pytest.mark.parametrize(("text", "hint", "want"), GOOD, ids=str)
def test_values_become_what_is_wanted(text, hint, want):
    found = read_value("x", text, hint)
    assert found == want and type(found) is type(want)


@pytest.mark.parametrize(("text", "hint"), BAD, ids=str)
def test_other_values_are_refused(text, hint):
    with pytest.raises(ValueError, match=r"want x as .*, got"):
        read_value("x", text, hint)


def test_a_change_is_made_in_one_place():
    tiny = recipe("smnist").sizes["tiny"]
    words = {"lr": ".004", "epochs": "7", "init": "inv", "task.permute": "seeded", "train": "none"}
    size, options = change(tiny, "s4d", SequentialMNIST, words)
    assert (size.lr, size.epochs, size.train) == (0.004, 7, None) and options == {"init": "inv"}
    assert size.task == {"permute": "seeded"} and tiny.task == {} and tiny.lr == 0.01
    assert change(tiny, "s4d", SequentialMNIST, {}) == (tiny, {})


@pytest.mark.parametrize(
    ("model", "name", "says"),
    [
        ("s4d", "learning_rate", "want a setting among"),
        ("s4d", "d_stat", "did you mean d_state"),
        ("lstm", "d_state", "that counts for lstm"),
        ("transformer", "dt_min", "that counts for transformer"),
        ("tcn", "bidirectional", "that counts for tcn"),
        ("s4d", "task.permut", "did you mean task.permute"),
        ("s4d", "task", "want a setting that counts"),
        ("s4d", "source", "want a setting that counts"),
        ("s4d", "task.data_dir", "want a setting among"),
        ("s4dd", "lr", "want a model among"),
    ],
)
def test_names_that_nobody_would_hear(model, name, says):
    with pytest.raises(ValueError, match=says):
        change(Size(), model, SequentialMNIST, {name: "1"})


def test_ranges_are_checked_too():
    with pytest.raises(ValueError, match="want epochs >= 1"):
        change(Size(), "s4d", SequentialMNIST, {"epochs": "0"})


def test_every_setting_of_a_layer_and_a_task_has_a_name():
    known = settings_of(Size(), "s4", SequentialMNIST)
    assert {
        "lr",
        "d_state",
        "init",
        "min_decay",
        "task.permute",
        "task.scale",
        "task.val_share",
    } <= known.keys()
    assert not {"task.data_dir", "device", "dtype", "layer", "source", "notes"} & known.keys()
    assert "heads" in settings_of(Size(), "transformer", SequentialMNIST)
    tiny = recipe("lra-listops").sizes["tiny"]
    assert settings_of(tiny, "s4d", ListOps)["task.max_depth"] is int  # known by the recipe alone
