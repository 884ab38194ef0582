"""Published speech files, where S4LITE_DATA_DIR names a folder that has them.

FSDD is checked whole. Of Speech Commands there may be a part only, such as the clips of its test
set: then it is checked as a part, and the numbers of the whole are not.
"""

import os

import numpy as np
import pytest
import torch

from s4lite.data.files import MissingData
from s4lite.data.shards import open_shard
from s4lite.data.speech import FSDD, SpeechCommands, official_part

FOLDER = os.environ.get("S4LITE_DATA_DIR")
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not FOLDER, reason="wants S4LITE_DATA_DIR, a folder with official files"),
]


def have(kind, **options):
    """The task, or a skip if its files are not in the folder."""
    task = kind(FOLDER, download=False, **options)
    try:
        task.place()
    except MissingData as error:
        pytest.skip(str(error).splitlines()[0])
    return task


def speakers(task):
    names = [name.decode() for name in open_shard(task.shards, "names.npy")]
    return [{names[row].split("/")[1][:8] for row in part.rows} for part in task.splits()]


def test_fsdd():
    task = have(FSDD)
    splits = task.splits()  # its digest, of names and samples, has been checked
    assert [len(part) for part in splits] == [2400, 300, 300]
    assert max(part.lengths.max() for part in splits) == task.length == 18_262
    assert min(part.lengths.min() for part in splits) == 1148
    labels = open_shard(task.shards, "labels.npy")
    for part, each in zip(splits, (240, 30, 30), strict=True):
        assert np.bincount(labels[part.rows]).tolist() == [each] * 10
    names = [name.decode() for name in open_shard(task.shards, "names.npy")]
    people = [{names[row].split("_")[1] for row in part.rows} for part in splits]
    assert people[0] == people[1] == people[2] and len(people[0]) == 6
    u = torch.cat([splits.train[i][0] for i in range(0, 2400)]).double()
    assert abs(u.mean()) < 1e-4 and abs(u.std(correction=0) - 1) < 1e-4


def test_fsdd_at_half_the_rate():
    full, half = have(FSDD), have(FSDD, sample_rate=4000)
    assert half.length == 9131 and half.rate == 2.0
    a, b = full.splits().test, half.splits().test
    assert np.array_equal(-(-a.lengths // 2), b.lengths) and a.scale == b.scale
    ratio = [(b[i][0].square().mean() / a[i][0].square().mean()).item() for i in range(300)]
    assert 0.6 < np.median(ratio) < 1.0001  # what lay above 2,000 cycles a second is gone
    assert max(ratio) < 1.02


def test_commands_whole():
    for classes in (10, 35):
        task = have(SpeechCommands, classes=classes)
        names = {path.name for path in task.place().iterdir()} if task.place().is_dir() else set()
        if "SPLIT.txt" in names or (names and len(names & set(task.words)) < classes):
            pytest.skip("a part of Speech Commands only")
        assert [len(part) for part in task.splits()] == list(task.published)
        for part, heard in enumerate(speakers(task)):
            assert {official_part(speaker) for speaker in heard} == {part}
    drawn = have(SpeechCommands, classes=10, partition="published").splits()
    assert sum(map(len, drawn)) == 34_975  # as the S4 code has it, of a full second


def test_commands_in_part():
    task = have(SpeechCommands, classes=10, partial=True)
    assert task.name == "sc10-partial"
    splits = task.splits()
    heard = speakers(task)
    assert not heard[0] & heard[1] and not heard[0] & heard[2] and not heard[1] & heard[2]
    batch = splits.train.__getitems__(range(0, len(splits.train), 50))
    assert batch.u.shape[1:] == (16_000, 1) and batch.lengths is None
    assert 0.8 < batch.u.std() < 1.2
    if sum(map(len, splits)) == 4074:  # the ten words of the published test set
        counts = np.bincount(open_shard(task.shards, "labels.npy"))
        assert counts.tolist() == [419, 405, 425, 406, 412, 396, 396, 402, 411, 402]
        assert {official_part(speaker) for part in heard for speaker in part} == {2}
        assert len(set.union(*heard)) == 239


def test_published_normalisation_on_real_clips():
    """Every moment has its own scale, and the surplus 2^15 makes that harmless (chapter 19)."""
    task = have(SpeechCommands, classes=10, partial=True, scale="published")
    std = task.splits().train.scale[1]
    meant, published = (x.max() / x.min() for x in (std - 0.32768 + 1e-5, std))
    assert std.shape == (16_000,) and meant > 5 and published < 2
    half = have(
        SpeechCommands, classes=10, partial=True, scale="published", sample_rate=8000,
        resample="plain",
    )  # fmt: skip
    full, fewer = task.splits().test[0][0], half.splits().test[0][0]
    assert torch.equal(full[::2], fewer)


def test_parts_at_random_share_speakers():
    task = have(SpeechCommands, classes=10, partial=True, partition="published")
    heard = speakers(task)
    assert len(heard[2] & heard[0]) > 0.8 * len(heard[2])
