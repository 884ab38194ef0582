"""What a run keeps while it goes: its clocks."""

import threading
import time

from s4lite.train.keeping import Clock, both_clocks


def work(seconds):
    """Keep a processor busy for as many of its seconds."""
    until = time.thread_time() + seconds
    while time.thread_time() < until:
        pass


def test_sleep_is_on_the_wall_and_work_of_threads_is_on_both():
    start = both_clocks()
    time.sleep(0.3)
    rested = both_clocks()
    workers = [threading.Thread(target=work, args=(0.2,)) for _ in range(2)]
    _ = [each.start() for each in workers], [each.join() for each in workers]
    worked = both_clocks()
    wall, cpu = (b - a for a, b in zip(start, rested, strict=True))
    assert wall >= 0.3 and cpu < 0.2
    assert worked[1] - rested[1] >= 0.35


def test_a_pause_counts_on_neither_and_a_state_brings_both_back(tmp_path):
    clock = Clock(tmp_path, "loss", "min", None, {})
    assert clock.spent() == (0.0, 0.0)
    clock.start()
    work(0.1)
    clock.pause()
    kept = clock.spent()
    work(0.1)
    assert clock.spent() == kept and kept[0] >= 0.09 and kept[1] >= 0.08
    again = Clock(tmp_path, "loss", "min", None, {})
    again.load_state_dict(clock.state_dict())
    assert again.spent() == kept
    again.start()
    assert again.spent()[0] > kept[0]
