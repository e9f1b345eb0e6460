import json

import pytest

from xclip_module.datasets.retrieval.captions import read_activitynet, read_didemo
from xclip_module.errors import DataError


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ({"duration": "long", "sentences": ["x"]}, "val_1.json: v_a: duration: found 'long', expected a number"),
        ({"duration": float("nan"), "sentences": ["x"]}, "wrong duration"),
        ({"duration": 3}, "no sentences: .*v_a"),
        ({"duration": 3, "sentences": [None]}, "expected text"),
    ],
)
def test_wrong_activitynet_entries_are_named(tmp_path, value, message):
    (tmp_path / "val_ids.json").write_text('["v_a"]')
    (tmp_path / "val_1.json").write_text(json.dumps({"v_a": value}))
    with pytest.raises(DataError, match=message):
        read_activitynet(tmp_path, "val")


def test_a_list_and_captions_of_different_splits_are_an_error(tmp_path):
    (tmp_path / "test_list.txt").write_text("a.mp4\n")
    (tmp_path / "test_data.json").write_text('[{"video": "b.mp4", "description": "x"}]')
    with pytest.raises(DataError, match="no video of the list has a sentence"):
        read_didemo(tmp_path, "test")
