"""The first use is one process's at a time, later uses are everyone's."""

import pytest
from filelock import FileLock, Timeout

from mmdiffusion.metrics import first_use
from mmdiffusion.metrics.first_use import one_at_a_time


def is_held():
    """Whether somebody else would have to wait."""
    lock = FileLock(first_use.LOCK)
    try:
        lock.acquire(timeout=0)
    except Timeout:
        return True
    lock.release()
    return False


@pytest.fixture(autouse=True)
def own_lock(tmp_path, monkeypatch):
    monkeypatch.setattr(first_use, "LOCK", tmp_path / "lock")
    monkeypatch.setattr(first_use, "_used", set())


def test_only_the_first_use_holds_the_lock():
    for expected in (True, False, False):
        with one_at_a_time("peaks"):
            assert is_held() is expected
        assert not is_held()
    with one_at_a_time("tempo"):
        assert is_held()


def test_a_first_use_that_failed_is_none():
    with pytest.raises(ZeroDivisionError), one_at_a_time("peaks"):
        raise ZeroDivisionError
    assert not is_held()
    with one_at_a_time("peaks"):
        assert is_held()
