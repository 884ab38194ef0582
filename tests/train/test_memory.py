"""Memory that is free and not given back."""

import ctypes
import os
import sys
from pathlib import Path

import pytest
import torch

from s4lite.train import memory
from s4lite.train.memory import Trimming, trim_memory

GLIBC = sys.platform == "linux" and hasattr(ctypes.CDLL(None), "malloc_trim")


def resident():
    """Bytes of memory that this process has."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


@pytest.mark.skipif(not GLIBC, reason="another C library")
def test_what_is_free_between_what_is_kept_comes_back():
    begin = resident()
    blocks = [torch.zeros(20_000) for _ in range(4000)]
    kept, full = blocks[::40], resident()
    del blocks
    assert resident() - begin > 0.5 * (full - begin)  # so there is something to be told
    assert trim_memory() and resident() - begin < 0.2 * (full - begin)
    assert all((each == 0).all() for each in kept)


def test_where_it_cannot_be_told_it_says_so(monkeypatch):
    def none(_):
        raise OSError("no such library")

    monkeypatch.setattr(ctypes, "CDLL", none)
    assert trim_memory() is False
    monkeypatch.setattr(ctypes, "CDLL", lambda _: object())
    assert trim_memory() is False


def test_it_is_told_every_few_batches_and_behind_validation(monkeypatch):
    told = []
    monkeypatch.setattr(memory, "trim_memory", lambda: told.append(1))
    each = Trimming(every=3)
    for i in range(7):
        each.on_train_batch_end(None, None, None, None, i)
    assert len(told) == 2
    each.on_validation_end(None, None)
    assert len(told) == 3
