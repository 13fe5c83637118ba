import threading
from itertools import count

import pytest

from avseg.threads import Behind, ahead


def test_ahead_keeps_the_order_and_uses_another_thread():
    found = list(ahead(((k, threading.get_ident()) for k in range(100)), 3))
    assert [k for k, _ in found] == list(range(100))
    assert {thread for _, thread in found} != {threading.get_ident()}


def test_ahead_raises_the_exception_after_the_items_before_it():
    def items():
        yield 1
        raise ValueError("third")

    found = ahead(items(), 2)
    assert next(found) == 1
    with pytest.raises(ValueError, match="third"):
        next(found)


def test_ahead_computes_no_more_than_the_queue_holds():
    computed, full = [], threading.Event()

    def items():
        for k in count():
            computed.append(k)
            if k == 5:
                full.set()
            yield k

    found = ahead(items(), 4)
    assert next(found) == 0
    assert full.wait(5)  # 0 was taken, 1 to 4 wait, 5 is computed and has no place
    assert not threading.Event().wait(0.1)
    assert computed == [0, 1, 2, 3, 4, 5]
    found.close()


def test_ahead_ends_its_thread_and_closes_the_items_when_it_is_closed():
    closed = []

    def items():
        try:
            yield from count()
        finally:
            closed.append(threading.current_thread())

    found = ahead(items(), 1)
    next(found)
    found.close()
    (thread,) = closed
    thread.join(5)
    assert not thread.is_alive()


def test_behind_runs_calls_in_order_in_one_thread():
    found = []
    with Behind(2) as behind:
        for k in range(50):
            behind.submit(lambda k=k: found.append((k, threading.get_ident())))
    assert [k for k, _ in found] == list(range(50))
    assert len({thread for _, thread in found} | {threading.get_ident()}) == 2


def test_behind_waits_for_the_oldest_call():
    started, release = threading.Event(), threading.Event()
    with Behind(1) as behind:
        behind.submit(lambda: (started.set(), release.wait(5)))
        assert started.wait(5)
        threading.Timer(0.1, release.set).start()
        behind.submit(lambda: None)
        assert release.is_set()


def test_behind_raises_the_exception_of_a_call_but_not_over_another():
    def fail():
        raise ValueError("in the thread")

    with pytest.raises(ValueError, match="in the thread"), Behind(3) as behind:
        behind.submit(fail)
    with pytest.raises(KeyError), Behind(3) as behind:  # noqa: PT012
        behind.submit(fail)
        raise KeyError
