import json
import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy as np
import safetensors
import torch

from xclip_module.features.store import FeatureStore


def test_two_writers_and_two_readers_never_see_a_torn_file(tmp_path):
    store, key, stop = FeatureStore(tmp_path), {"video": "x"}, time.monotonic() + 2.0
    arrays = [{"features": np.full((500, 64), n, np.float16)} for n in range(2)]
    store.save(key, arrays[0])
    torn, reads = [], []

    def write(mine):
        while time.monotonic() < stop:
            store.save(key, mine)

    def read():
        while time.monotonic() < stop:
            found = store.load(key)
            reads.append(1)
            if found is None or len(np.unique(found["features"])) != 1:
                torn.append(found)

    threads = [threading.Thread(target=write, args=(a,)) for a in arrays]
    threads += [threading.Thread(target=read) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(reads) > 100
    assert not torn


def test_a_kill_while_writing_leaves_the_store_usable(tmp_path):
    """A child that writes without end is killed at three moments; what is there afterwards is whole."""
    store = FeatureStore(tmp_path / "store")
    code = (
        "import sys, numpy as np; from pathlib import Path; from xclip_module.features.store import FeatureStore\n"
        f"store = FeatureStore(Path({str(store.folder)!r})); sys.stdout.write('go'); sys.stdout.flush()\n"
        "n = 0\n"
        "while True:\n"
        "    n += 1; store.save({'video': n % 3}, {'features': np.full((20000, 64), n % 3, np.float16)})\n"
    )
    for turn in range(3):
        child = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, cwd=Path(__file__).parents[2])
        child.stdout.read(2)
        time.sleep(0.05 + 0.07 * turn)
        child.kill()
        child.communicate()
        for n in range(3):
            found = store.load({"video": n})
            assert found is None or set(np.unique(found["features"])) == {n}
    store.save({"video": 0}, {"features": np.zeros((2, 2), np.float16)})
    assert store.load({"video": 0})["features"].shape == (2, 2)


def test_the_file_itself_tells_what_it_was_made_from(tmp_path):
    store = FeatureStore(tmp_path)
    key = {"video": "a/b.mp4", "weights": "abc", "fps": 1.0}
    store.save(key, {"features": np.zeros((2, 2), np.float16)})
    with safetensors.safe_open(store.path(key), framework="numpy") as file:
        assert json.loads(file.metadata()["key"]) == key


def test_stored_features_are_half_precision_tensors(tmp_path):
    store = FeatureStore(tmp_path)
    store.save({}, {"features": torch.ones(2, 3, dtype=torch.float16).numpy()})
    assert store.load({})["features"].dtype == np.float16


def test_writing_into_an_opened_array_does_not_reach_the_file(tmp_path):
    store = FeatureStore(tmp_path)
    stored = {"a": np.arange(5, dtype=np.uint8), "b": np.array(2.5), "c": np.zeros((0, 3), np.int64)}
    store.save({"video": "x"}, stored)
    for mapped in (True, False):
        found = store.load({"video": "x"}, mapped=mapped)
        assert set(found) == set(stored)
        for name, array in stored.items():
            np.testing.assert_array_equal(found[name], array)
            assert (found[name].dtype, found[name].shape) == (array.dtype, array.shape)
        found["a"][0] = 9
