"""A task's data in batches: by address, resumed, shared out, exactly once where scored."""

import itertools
import multiprocessing
import os
import signal

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tiny import Tiny, data

from s4lite.train.data import EpochLoader, Order, batches_of


def epoch(order, e, start=None):
    order.set_epoch(e, start)
    return list(order)


@given(st.integers(1, 60), st.integers(1, 7), st.integers(1, 3), st.integers(0, 2**64 - 1))
def test_an_epoch_shows_everything_once_but_a_rest(n, b, world, seed):
    if n < b * world:
        return
    ranks = [Order(n, b, seed=seed, rank=r, world=world) for r in range(world)]
    for e in (0, 5):
        batches = [batch for order in ranks for batch in epoch(order, e)]
        seen = [i for batch in batches for i in batch]
        assert len(set(seen)) == len(seen) == n - n % (b * world) and set(seen) <= set(range(n))
        assert all(len(batch) == b for batch in batches)
        assert all(len(epoch(order, e)) == len(order) for order in ranks)


def test_the_order_is_a_function_of_seed_and_epoch_alone():
    a, b = Order(50, 4, seed=1), Order(50, 4, seed=1)
    torch.manual_seed(7), np.random.seed(7)
    want = [epoch(a, e) for e in range(3)]
    assert [epoch(b, e) for e in (2, 0, 1)] == [want[2], want[0], want[1]]
    assert want[0] != want[1] != want[2] and epoch(Order(50, 4, seed=2), 0) != want[0]


def test_the_order_is_the_same_on_every_machine():
    assert epoch(Order(10, 3, seed=0), 0) == [[7, 6, 5], [3, 4, 2], [8, 0, 9]]


@given(st.integers(1, 60), st.integers(1, 5), st.integers(1, 4), st.booleans())
def test_processes_together_see_what_one_sees(n, b, world, buckets):
    if n < b * world:
        return
    likes = {"seed": 4, "lengths": np.arange(n) * 7919 % 13 + 1 if buckets else None}
    one = Order(n, b * world, **likes)
    many = [Order(n, b, rank=r, world=world, **likes) for r in range(world)]
    for e in range(2):
        together = zip(*(epoch(order, e) for order in many), strict=True)
        assert [[i for batch in step for i in batch] for step in together] == epoch(one, e)


@pytest.mark.parametrize("lengths", [None, np.arange(40) % 9 + 1])
def test_an_epoch_is_taken_up_in_its_middle(lengths):
    order = Order(40, 6, seed=4, lengths=lengths)
    whole = epoch(order, 3)
    assert epoch(order, 3, start=4) == whole[4:] and len(order) == len(whole) == 6
    order.set_epoch(3)  # the same epoch: it stands where it stood
    assert list(order) == whole[4:]
    order.set_epoch(4)
    assert len(list(order)) == 6


@given(
    st.integers(1, 60),
    st.integers(1, 5),
    st.integers(1, 3),
    st.integers(1, 4),
    st.booleans(),
)
def test_shares_of_a_pass_are_the_pass_but_a_rest(n, b, world, k, buckets):
    if n < b * world * k:
        return
    likes = {"seed": 4, "lengths": np.arange(n) * 7919 % 13 + 1 if buckets else None}
    for rank in range(world):
        whole = Order(n, b, rank=rank, world=world, **likes)
        order = Order(n, b, rank=rank, world=world, shares=k, **likes)
        for number in (0, 3):
            shares = [epoch(order, number * k + i) for i in range(k)]
            assert {len(share) for share in shares} == {len(order)}
            assert len(whole) - k < k * len(order) <= len(whole)
            assert [*itertools.chain(*shares)] == epoch(whole, number)[: k * len(order)]
            assert epoch(order, number * k + k - 1, len(order) - 1) == shares[-1][-1:]


@pytest.mark.parametrize("bad", [(0, -1), (0, 7), (-1, 0)])
def test_bad_places_in_an_epoch(bad):
    with pytest.raises(ValueError, match=r"want (epoch|start) >= 0"):
        Order(40, 6).set_epoch(*bad)


def test_lengths_must_be_those_of_the_sequences():
    with pytest.raises(ValueError, match="want lengths of 40 sequences, got 39"):
        Order(40, 6, lengths=np.arange(39) + 1)
    with pytest.raises(ValueError, match="whole numbers"):
        Order(40, 6, lengths=np.ones(40))


def test_batches_of_like_lengths():
    sizes = np.arange(200) * 7919 % 97 + 1
    like = [np.ptp(sizes[batch]) for batch in epoch(Order(200, 8, lengths=sizes), 0)]
    plain = [np.ptp(sizes[batch]) for batch in epoch(Order(200, 8), 0)]
    assert np.mean(like) < 0.2 * np.mean(plain)


def contents(loader):
    return [(batch.u.sum().item(), batch.y.tolist()) for batch in loader]


def loader_of(*, ragged=False, batch_size=4, **options):
    module = data(Tiny(ragged), **options)
    module.batch_size = batch_size
    module.setup()
    return module.train_dataloader()


@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize("ragged", [False, True])
def test_a_loader_goes_on_where_another_stopped(workers, ragged):
    first, whole = loader_of(ragged=ragged, workers=workers), []
    assert isinstance(first, EpochLoader) and len(first) == 9
    for e in range(2):
        first.order.set_epoch(e)
        whole += contents(first)
    second = loader_of(ragged=ragged, workers=workers)
    for count, _ in enumerate(second):
        if count == 3:
            state = second.state_dict()
            break
    third = loader_of(ragged=ragged, workers=workers)
    third.load_state_dict(state)
    third.order.set_epoch(0)
    rest = contents(third)
    third.order.set_epoch(1)
    assert rest + contents(third) == whole[4:]
    assert third.state_dict()["epoch"] == 2 and third.state_dict()["seen"] == 0


def test_a_signal_to_all_leaves_the_loaders_at_work_and_a_second_one_ends_them():
    """A scheduler tells every process of a job to stop; the one that trains has to do it well."""
    loader = loader_of(workers=2)
    batches = iter(loader)
    got = [next(batches), next(batches)]  # one of each
    workers = multiprocessing.active_children()
    assert len(workers) == 2
    for number in (signal.SIGINT, signal.SIGUSR1, signal.SIGTERM):
        _ = [os.kill(worker.pid, number) for worker in workers]
    got += batches
    assert len(got) == 9 and all(worker.is_alive() for worker in workers)
    watching = signal.signal(signal.SIGCHLD, signal.SIG_DFL)  # torch's, which raises at any place
    try:
        _ = [os.kill(worker.pid, signal.SIGTERM) for worker in workers]
        _ = [worker.join(10) for worker in workers]
        assert not any(worker.is_alive() for worker in workers)
        del batches
    finally:
        signal.signal(signal.SIGCHLD, watching)


@pytest.mark.parametrize(
    "change", [{"batch_size": 5}, {"seed": 4}, {"buckets": False}, {"shares": 2}]
)
def test_the_middle_of_an_epoch_belongs_to_its_batches(change):
    state = loader_of(ragged=True).state_dict()
    loader_of(ragged=True, **change).load_state_dict(state)  # between epochs: why not
    with pytest.raises(ValueError, match="want the data of the run that is taken up"):
        loader_of(ragged=True, **change).load_state_dict(state | {"seen": 2})
    loader_of(ragged=True).load_state_dict(state | {"seen": 2})


def test_buckets_belong_to_their_lengths():
    first, other = loader_of(ragged=True), loader_of(ragged=True)
    sizes = first.dataset.lengths
    again = EpochLoader(first.dataset, Order(37, 4, seed=3, lengths=sizes.astype(np.int32)))
    again.load_state_dict(first.state_dict() | {"seen": 2})  # however they are stored
    other.order = Order(37, 4, seed=3, lengths=sizes[::-1])
    with pytest.raises(ValueError, match="buckets or shares it goes on between epochs only"):
        other.load_state_dict(first.state_dict() | {"seen": 2})


@pytest.mark.parametrize("ragged", [False, True])
def test_only_where_there_are_lengths_there_are_buckets(ragged):
    assert (loader_of(ragged=ragged).order.buckets is not None) == ragged
    assert loader_of(ragged=ragged, buckets=False).order.buckets is None


@settings(deadline=None, max_examples=20)
@given(st.integers(1, 23), st.integers(1, 6), st.booleans())
def test_scores_see_everything_exactly_once(n, batch, ragged):
    task = Tiny(ragged, sizes=(4, n, n))
    module = data(task, eval_batch=batch)
    module.setup()
    loaders = module.val_dataloader(), module.test_dataloader()
    for part, loader in zip(task.parts[1:], loaders, strict=True):
        sizes = [len(batch.y) for batch in loader]
        assert sorted(part.calls) == list(range(n)) and sum(sizes) == n and max(sizes) <= batch


class Place:
    """What `TaskData` asks a trainer: which of how many processes."""

    def __init__(self, rank, world):
        self.global_rank, self.world_size = rank, world


@settings(deadline=None, max_examples=30)
@given(st.integers(1, 23), st.integers(1, 9), st.integers(1, 4), st.booleans())
def test_scores_are_shared_out_and_nobody_has_nothing(n, batch, world, ragged):
    task, shares = Tiny(ragged, sizes=(4, n, 4)), []
    for rank in range(world):
        module = data(task, eval_batch=batch)
        module.setup()
        module.trainer = Place(rank, world)
        if n < world:
            with pytest.raises(ValueError, match=f"each of {world} processes, got {n}"):
                module.val_dataloader()
            return
        shares.append(list(module.val_dataloader().batch_sampler))
    assert sorted(i for share in shares for rows in share for i in rows) == list(range(n))
    assert all(share for share in shares)
    assert max(len(rows) for share in shares for rows in share) <= batch


def test_padded_batches_have_little_padding_when_scored():
    module = data(Tiny(ragged=True, sizes=(4, 40, 4)))
    module.setup()
    places = [(batch.u.shape[1] * len(batch.y), batch.lengths) for batch in module.val_dataloader()]
    used = sum(width if lengths is None else int(lengths.sum()) for width, lengths in places)
    assert used > 0.9 * sum(width for width, _ in places)


def test_steps_of_an_epoch():
    assert [data().steps(world) for world in (1, 2, 3)] == [9, 4, 3]
    assert [data(shares=k).steps() for k in (1, 2, 4, 9)] == [9, 4, 2, 1]


@pytest.mark.parametrize(
    ("error", "message", "arguments"),
    [
        (ValueError, "want at least 12 sequences for a batch, got 10", {"batch_size": 12}),
        (ValueError, "want batch_size >= 1", {"batch_size": 0}),
        (ValueError, "want rank >= 0 and <= 1, got 2", {"rank": 2, "world": 2}),
        (ValueError, "want seed >= 0", {"seed": -1}),
        (ValueError, "want seed >= 0 and <= 18446744073709551615", {"seed": 2**64}),
        (TypeError, "want world as an int", {"world": 1.0}),
    ],
)
def test_bad_orders(error, message, arguments):
    with pytest.raises(error, match=message):
        Order(10, **{"batch_size": 2} | arguments)


@pytest.mark.parametrize("name", ["workers", "seed", "eval_batch", "shares"])
def test_bad_numbers(name):
    with pytest.raises(ValueError, match=f"want {name}"):
        data(**{name: -1})


def test_batches_of_an_order_are_lists_of_plain_numbers():
    for lengths in (None, np.arange(9) + 1):
        batches = batches_of(Order(9, 2, lengths=lengths))
        assert all(type(i) is int for batch in batches for i in batch)
