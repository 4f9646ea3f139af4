from __future__ import annotations

import threading

import pytest

from d2csr.upscaling.image_writer import WriteQueue

PATIENCE = 10


class Gates:
    """Writes that wait until their gate opens."""

    def __init__(self, count: int) -> None:
        self.open = [threading.Event() for _ in range(count)]
        self.begun = [threading.Event() for _ in range(count)]
        self.written: list[int] = []

    def submit(self, queue: WriteQueue, number: int, size: int = 1) -> None:
        def write() -> None:
            self.begun[number].set()
            assert self.open[number].wait(PATIENCE)
            self.written.append(number)

        queue.submit(write, size)

    def submit_in_thread(self, queue: WriteQueue, number: int, size: int = 1) -> threading.Thread:
        thread = threading.Thread(target=self.submit, args=(queue, number, size))
        thread.start()
        return thread


def test_several_writes_run_at_once() -> None:
    gates = Gates(3)
    queue = WriteQueue(threads=3)
    for number in range(3):
        gates.submit(queue, number)
    assert all(event.wait(PATIENCE) for event in gates.begun)
    for gate in gates.open:
        gate.set()
    queue.close()
    assert sorted(gates.written) == [0, 1, 2]


@pytest.mark.parametrize(("threads", "size", "accepted"), [(1, 1, 2), (3, 1, 4), (3, 40, 2), (3, 30, 3), (3, 1000, 2)])
def test_results_wait_up_to_a_number_and_a_size(threads: int, size: int, accepted: int) -> None:
    """The first two are accepted whatever their size is, so that writing and computing overlap."""
    gates = Gates(accepted + 1)
    queue = WriteQueue(threads, max_bytes=100)
    for number in range(accepted):
        gates.submit(queue, number, size)
    blocked = gates.submit_in_thread(queue, accepted, size)
    blocked.join(0.1)
    assert blocked.is_alive()
    gates.open[0].set()
    blocked.join(PATIENCE)
    assert not blocked.is_alive()
    for gate in gates.open:
        gate.set()
    queue.close()
    assert sorted(gates.written) == list(range(accepted + 1))


def test_a_cancelled_queue_finishes_only_what_has_begun() -> None:
    gates = Gates(2)
    queue = WriteQueue(threads=1)
    for number in range(2):
        gates.submit(queue, number)
    assert gates.begun[0].wait(PATIENCE)
    threading.Timer(0.1, gates.open[0].set).start()
    queue.close(cancel=True)
    assert gates.written == [0]
    assert not gates.begun[1].is_set()


def test_a_defect_is_raised_and_ends_no_other_write() -> None:
    queue, written = WriteQueue(threads=2), []

    def fail() -> None:
        raise ZeroDivisionError

    queue.submit(fail, 1)

    def go_on() -> None:
        for number in range(5):
            queue.submit(lambda number=number: written.append(number), 1)
        queue.close()

    with pytest.raises(ZeroDivisionError):
        go_on()
    queue.close(cancel=True)
    assert sorted(written) == list(range(len(written)))
    assert len(written) >= 2
