"""Buckets: every index once, same order on every machine, little padding, fair shares."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.utils.data import DataLoader, Dataset

from s4lite.data.buckets import BucketSampler, deal, padding_waste
from s4lite.data.task import pad

LENGTHS = np.random.default_rng(0).integers(500, 2000, 1000)


def batches(sampler: BucketSampler, epoch: int = 0, start: int = 0) -> list[list[int]]:
    sampler.set_epoch(epoch, start=start)
    return list(sampler)


@settings(max_examples=60, deadline=None)
@given(
    n=st.integers(1, 60),
    batch_size=st.integers(1, 9),
    pool=st.integers(1, 5),
    world=st.integers(1, 4),
    epoch=st.integers(0, 3),
    shuffle=st.booleans(),
)
def test_everyone_has_a_share_and_nobody_is_lost(n, batch_size, pool, world, epoch, shuffle):
    lengths = np.random.default_rng(n).integers(1, 50, n)
    options = {"pool": pool, "world": world, "shuffle": shuffle, "drop_last": False}
    ranks = [BucketSampler(lengths, batch_size, rank=r, **options) for r in range(world)]
    shares = [batches(sampler, epoch) for sampler in ranks]
    assert [len(share) for share in shares] == [len(sampler) for sampler in ranks]
    assert len({len(share) for share in shares}) == 1
    seen = [i for share in shares for batch in share for i in batch]
    assert set(seen) == set(range(n)) and max(len(b) for s in shares for b in s) <= batch_size
    if world == 1:
        assert len(seen) == n


@settings(max_examples=60, deadline=None)
@given(n=st.integers(1, 60), batch_size=st.integers(1, 9), world=st.integers(1, 3))
def test_full_batches_only(n, batch_size, world):
    lengths = np.arange(1, n + 1)
    if n < batch_size * world:
        with pytest.raises(ValueError, match="a batch a process"):
            BucketSampler(lengths, batch_size, world=world)
        return
    shares = [
        batches(BucketSampler(lengths, batch_size, rank=r, world=world)) for r in range(world)
    ]
    seen = [i for share in shares for batch in share for i in batch]
    assert all(len(batch) == batch_size for share in shares for batch in share)
    assert len(seen) == len(set(seen)) == n - n % (batch_size * world)


def test_what_is_left_out_changes():
    sampler = BucketSampler(np.arange(1, 12), 5, pool=3)
    out = {min(set(range(11)) - {i for b in batches(sampler, e) for i in b}) for e in range(60)}
    assert len(out) >= 9  # nobody is left out for ever, long or short


def test_order_is_a_function_of_seed_and_epoch():
    sampler = BucketSampler(LENGTHS, 32, seed=4, pool=5)
    first, second = batches(sampler, 0), batches(sampler, 1)
    assert first != second and batches(sampler, 0) == first
    torch.manual_seed(0), np.random.seed(0)
    assert batches(BucketSampler(torch.tensor(LENGTHS), 32, seed=4, pool=5), 1) == second
    assert batches(BucketSampler(LENGTHS, 32, seed=5, pool=5), 0) != first


def test_same_order_on_every_machine():
    lengths = [500 + i * 7919 % 1500 for i in range(1000)]
    assert next(iter(BucketSampler(lengths, 32, seed=4, pool=5)))[:4] == [222, 401, 759, 512]


@pytest.mark.parametrize("start", [0, 1, 17, 31, 99])
def test_an_epoch_is_taken_up(start):
    sampler = BucketSampler(LENGTHS, 32, pool=5)
    whole = batches(sampler, 3)
    rest = batches(sampler, 3, start)
    assert rest == whole[start:]
    sampler.set_epoch(3, start=start)
    assert len(sampler) == len(rest)
    assert batches(sampler, 4) != whole and len(batches(sampler, 4)) == len(whole)


def test_ranks_do_equal_work_at_the_same_time():
    two = [batches(BucketSampler(LENGTHS, 16, pool=20, rank=r, world=2)) for r in (0, 1)]
    longest = np.array([[LENGTHS[b].max() for b in share] for share in two])
    assert np.abs(longest[0] - longest[1]).mean() < 0.05 * longest.mean()
    assert not {i for b in two[0] for i in b} & {i for b in two[1] for i in b}


def test_waste_falls_with_the_pool_and_is_that_of_padding():
    waste = [padding_waste(LENGTHS, BucketSampler(LENGTHS, 20, pool=p)) for p in (1, 3, 10, 50)]
    assert waste == sorted(waste, reverse=True) and waste[0] > 0.25 and waste[-1] < 0.02
    order = batches(BucketSampler(LENGTHS, 20, pool=3))
    made = [pad([(torch.ones(int(LENGTHS[i])), 0) for i in b]) for b in order]
    air = 1 - sum(float(b.u.sum()) for b in made) / sum(b.u.numel() for b in made)
    assert abs(air - waste[1]) < 1e-6


def test_pool_of_one_is_plain_shuffling():
    sampler = BucketSampler(LENGTHS, 20, pool=1)
    flat = [LENGTHS[b].mean() for b in batches(sampler)]
    assert abs(np.mean(flat) - LENGTHS.mean()) < 1 and np.std(flat) < 2.5 * LENGTHS.std() / 20**0.5


def test_batches_are_shuffled_and_mixed():
    order = batches(BucketSampler(LENGTHS, 20, pool=50))
    mean = np.array([LENGTHS[b].mean() for b in order])
    assert abs(np.corrcoef(mean, np.arange(len(mean)))[0, 1]) < 0.5
    partners = [
        next(set(b) for b in batches(BucketSampler(LENGTHS, 20, pool=5), e) if 7 in b)
        for e in (0, 1)
    ]
    assert len(partners[0] & partners[1]) < 10


def test_unshuffled_is_from_short_to_long():
    order = batches(BucketSampler(LENGTHS, 30, shuffle=False))
    flat = [LENGTHS[i] for b in order for i in b]
    assert flat == sorted(flat) and len(flat) == len(LENGTHS)


def test_deal_without_anything_left():
    assert deal(np.array([3, 1]), 4, 1, None, 1, True) == []


class Rows(Dataset):
    def __len__(self):
        return len(LENGTHS)

    def __getitem__(self, i):
        return torch.ones(int(LENGTHS[i])), i


@pytest.mark.parametrize("workers", [0, 2])
def test_in_a_loader(workers):
    sampler = BucketSampler(LENGTHS, 25, pool=10)
    loader = DataLoader(Rows(), batch_sampler=sampler, collate_fn=pad, num_workers=workers)
    got = [batch.y.tolist() for batch in loader]
    assert got == list(sampler) and len(loader) == len(sampler)


def test_who_looks_for_a_sampler_finds_set_epoch():
    sampler = BucketSampler(LENGTHS, 25)
    first = list(sampler)
    DataLoader(Rows(), batch_sampler=sampler).batch_sampler.sampler.set_epoch(1)
    assert list(sampler) != first


@pytest.mark.parametrize(
    ("args", "change", "error", "message"),
    [
        (([], 2), {}, ValueError, r"want lengths \(n,\)"),
        (([[1, 2]], 2), {}, ValueError, r"want lengths \(n,\)"),
        (([1.5, 2.0], 1), {}, ValueError, "whole numbers"),
        (([3, 0, 2], 1), {}, ValueError, r"whole numbers >= 1, got \[3, 0, 2\]"),
        (([1, 2], 1), {"seed": 2**63}, ValueError, "want seed >= 0 and <= "),
        (([1, 2], 0), {}, ValueError, "want batch_size >= 1"),
        (([1, 2], 1), {"pool": 0}, ValueError, "want pool >= 1"),
        (([1, 2], 1), {"rank": 1}, ValueError, "want rank >= 0 and <= 0, got 1"),
        (([1, 2], 1), {"world": 3}, ValueError, "a batch a process"),
        (([1, 2], 1), {"seed": 0.5}, TypeError, "want seed as an int"),
        (([1, 2], 1), {"seed": -1}, ValueError, "want seed >= 0"),
    ],
)
def test_bad_input(args, change, error, message):
    with pytest.raises(error, match=message):
        BucketSampler(*args, **change)


def test_bad_epoch_and_no_batch():
    sampler = BucketSampler([1, 2], 1)
    with pytest.raises(ValueError, match="want epoch >= 0"):
        sampler.set_epoch(-1)
    with pytest.raises(TypeError, match="want start as an int"):
        sampler.set_epoch(0, start=1.0)
    with pytest.raises(ValueError, match="want at least one batch, got none"):
        padding_waste([1, 2], [])
    with pytest.raises(ValueError, match=r"want lengths \(n,\)"):
        padding_waste([], [[0]])
