"""Pickles that would run something, and damaged ones."""

import io
import os
import pickle

import pytest

from xclip_module.datasets.retrieval.annotation_files import read_plain_pickle
from xclip_module.datasets.retrieval.captions import (
    read_msvd,
)
from xclip_module.errors import DataError

RAN = []


def run_me(word):
    RAN.append(word)


class Calls:
    """Pickled as "call this function"."""

    def __init__(self, function, *words):
        self.call = (function, words)

    def __reduce__(self):
        return self.call


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_a_pickle_that_would_run_code_is_refused_and_runs_nothing(tmp_path, protocol):
    path = tmp_path / "raw-captions.pkl"
    payload = {"vidA": [["a", "dog"]], "vidB": Calls(run_me, "ran")}
    path.write_bytes(pickle.dumps(payload, protocol))
    with pytest.raises(DataError, match=rf"pickle refused: .*raw-captions.pkl: it asks for {__name__}.run_me"):
        read_plain_pickle(path)
    assert RAN == []
    pickle.Unpickler(io.BytesIO(path.read_bytes())).load()
    assert RAN == ["ran"], "it does run where nobody refuses"
    RAN.clear()


def test_a_pickle_that_would_touch_the_disk_touches_nothing(tmp_path):
    path, made = tmp_path / "raw-captions.pkl", tmp_path / "made"
    path.write_bytes(pickle.dumps(Calls(os.mkdir, str(made))))
    (tmp_path / "test_list.txt").write_text("vidA\n")
    with pytest.raises(DataError, match="pickle refused"):
        read_msvd(tmp_path, "test")
    assert not made.exists()


@pytest.mark.parametrize("value", [{1, 2}, bytearray(b"x"), complex(1, 2), ValueError("x")])
def test_even_harmless_classes_are_no_plain_values(tmp_path, value):
    (tmp_path / "x.pkl").write_bytes(pickle.dumps(value, 2))
    with pytest.raises(DataError, match="pickle refused"):
        read_plain_pickle(tmp_path / "x.pkl")


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_plain_values_come_back(tmp_path, protocol):
    value = {"vidA": [["ein", "Häuschen"], []], "n": (1, 2.5, None, True, -(10**30))}
    (tmp_path / "x.pkl").write_bytes(pickle.dumps(value, protocol))
    assert read_plain_pickle(tmp_path / "x.pkl") == value


def test_python_2s_text_is_read_as_utf8(tmp_path):
    (tmp_path / "x.pkl").write_bytes(b"(dp0\nS'vidA'\np1\n(lp2\n(lp3\nS'na\\xc3\\xafve'\np4\naas.")
    assert read_plain_pickle(tmp_path / "x.pkl") == {"vidA": [["naïve"]]}


@pytest.mark.parametrize(
    "data",
    [
        *(b"", b"not a pickle", b"\x80\x04", b"\x80\x63.", b"PK\x03\x04zip", b"\x80\x02]q\x00(", b"h\xff."),
        *(b"\x80\x02K\x01b.", b"\x80\x02X\xff\xff\xff\x7fshort.", b"\x80\x04\x82\x01."),
        b"\x80\x02(K\x01K\x02K\x03d.",
    ],
)
def test_a_damaged_pickle_is_one_line(tmp_path, data):
    (tmp_path / "x.pkl").write_bytes(data)
    with pytest.raises(DataError, match=r"unreadable pickle: .*x\.pkl: damaged or no pickle|pickle refused") as caught:
        read_plain_pickle(tmp_path / "x.pkl")
    assert "\n" not in str(caught.value)
