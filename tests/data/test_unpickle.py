"""Pickles from outside: arrays come back, code does not run."""

import os
import pickle

import numpy as np
import pytest

from mmdiffusion.data.unpickle import load_pickle

CONTENT = {"poses": np.arange(6, dtype=np.float32).reshape(2, 3), "loss": 0.5, "names": ["a", "b"], "n": np.float64(3)}


class Evil:
    def __reduce__(self):
        return os.mkdir, ("evil",)


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_arrays_and_plain_values_come_back(tmp_path, protocol):
    path = tmp_path / "a.pkl"
    path.write_bytes(pickle.dumps(CONTENT, protocol))
    read = load_pickle(path)
    assert read.keys() == CONTENT.keys()
    assert read["poses"].dtype == np.float32
    np.testing.assert_array_equal(read["poses"], CONTENT["poses"])
    assert (read["loss"], read["names"], read["n"]) == (0.5, ["a", "b"], 3)


def test_names_of_old_numpy_are_read(tmp_path):
    path = tmp_path / "a.pkl"
    path.write_bytes(pickle.dumps(CONTENT, 2).replace(b"numpy._core.", b"numpy.core."))
    np.testing.assert_array_equal(load_pickle(path)["poses"], CONTENT["poses"])


def test_code_is_refused_and_does_not_run(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "a.pkl"
    path.write_bytes(pickle.dumps({"poses": Evil()}))
    with pytest.raises(ValueError, match=r"a\.pkl is no pickle of arrays and plain values: it names posix\.mkdir"):
        load_pickle(path)
    assert not (tmp_path / "evil").exists()


@pytest.mark.parametrize("stored", [b"", b"no pickle", pickle.dumps(CONTENT)[:-20]])
def test_damaged_pickle_is_named(tmp_path, stored):
    path = tmp_path / "a.pkl"
    path.write_bytes(stored)
    with pytest.raises(ValueError, match=r"a\.pkl is no pickle"):
        load_pickle(path)


def test_objects_in_arrays_are_refused_when_they_are_classes(tmp_path):
    path = tmp_path / "a.pkl"
    path.write_bytes(pickle.dumps(np.array([Evil()], dtype=object)))
    with pytest.raises(ValueError, match="expected NumPy arrays and plain values only"):
        load_pickle(path)
