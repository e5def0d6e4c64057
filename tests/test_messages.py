"""One message for what went wrong in the processes around this one."""

import errno
import os
import signal

import pytest
from torch.utils.data import DataLoader, Dataset

from mmdiffusion import cli
from mmdiffusion.messages import clear_message, failure, shortened
from tests.helpers import command


class Failing(Dataset):
    """Data whose worker process dies, or finds too many damaged files."""

    def __init__(self, is_killed):
        self.is_killed = is_killed

    def __len__(self):
        return 4

    def __getitem__(self, index):
        if self.is_killed:
            os.kill(os.getpid(), signal.SIGKILL)
        raise ValueError(
            "3 of 4 samples are damaged, max_bad_fraction is 0.1: expected fewer. Damaged: a.png: truncated"
        )


def loaded(is_killed):
    list(DataLoader(Failing(is_killed), num_workers=1))


def test_a_killed_worker_is_named():
    with pytest.raises(RuntimeError) as caught:
        loaded(True)
    message = failure(str(caught.value))
    assert message is not None
    assert message.startswith("a process that reads data was ended: DataLoader worker (pid")
    assert "expected fewer num_workers" in message
    assert "\n" not in message


def test_a_damaged_sample_in_a_worker_is_one_message():
    with pytest.raises(ValueError, match="Caught ValueError in DataLoader worker process 0") as caught:
        loaded(False)
    message = clear_message(str(caught.value))
    assert message.startswith("3 of 4 samples are damaged")
    assert message.endswith("a.png: truncated")


def test_a_lost_process_is_named():
    text = "[../third_party/gloo/gloo/transport/tcp/pair.cc:534] Connection closed by peer [127.0.0.1]:41234"
    message = failure(text)
    assert message is not None
    assert message.startswith("another process of this training has ended")


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT], ids=errno.errorcode.get)
def test_a_full_disk_is_named_wherever_it_is_found(monkeypatch, number):
    def full(args):
        raise OSError(number, os.strerror(number), "metrics.csv")

    monkeypatch.setattr(cli, "execute", full)
    status, _, err = command("fit", "--run", "runs/a")
    assert status == 1
    assert err.startswith("mmdiffusion: error: there is no room on the disk: ")
    assert "metrics.csv" in err
    assert err.endswith("make some. `mmdiffusion fit --run runs/a` goes on\n")


@pytest.mark.parametrize("number", [errno.EACCES, errno.ENOTDIR, errno.EISDIR, errno.EEXIST])
def test_a_path_that_cannot_be_used_is_named(monkeypatch, number):
    def wrong(args):
        raise OSError(number, os.strerror(number), "metrics.csv")

    monkeypatch.setattr(cli, "execute", wrong)
    status, _, err = command("fit")
    assert status == 2
    assert err == f"mmdiffusion: error: metrics.csv cannot be used: {os.strerror(number)}; give another path\n"


@pytest.mark.parametrize("given", [(errno.EIO, "metrics.csv"), (errno.EPERM, None)], ids=["another", "no path"])
def test_another_error_of_the_system_keeps_its_traceback(monkeypatch, given):
    number, path = given

    def wrong(args):
        raise OSError(number, os.strerror(number), path)

    monkeypatch.setattr(cli, "execute", wrong)
    with pytest.raises(OSError, match=os.strerror(number)):
        command("fit")


def test_a_mistake_of_ours_keeps_its_traceback(monkeypatch):
    assert failure("mat1 and mat2 shapes cannot be multiplied") is None

    def wrong(args):
        raise RuntimeError("mat1 and mat2 shapes cannot be multiplied")

    monkeypatch.setattr(cli, "execute", wrong)
    with pytest.raises(RuntimeError, match="mat1"):
        command("fit")


def test_a_failure_around_us_ends_with_status_1(monkeypatch):
    def lost(args):
        raise RuntimeError("DataLoader worker (pid 7) is killed by signal: Killed. ")

    monkeypatch.setattr(cli, "execute", lost)
    status, _, err = command("fit")
    assert status == 1
    assert err.startswith("mmdiffusion: error: a process that reads data was ended: DataLoader worker (pid 7)")
    assert "`mmdiffusion fit --run FOLDER` goes on" in err


def test_long_values_are_shortened():
    assert shortened("a" * 100) == "a" * 57 + "..."
    assert shortened(3) == "3"
