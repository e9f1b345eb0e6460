"""MSR-VTT's and LSMDC's own files with a few short videos and a tiny model, for trainings that take seconds."""

import json

from support.barcode import write_video
from support.models_factory import TINY
from xclip_module.models.demo_model import write_demo_model
from xclip_module.models.saving import spec_to_json

COLOURS = ("red", "green", "blue", "grey", "white", "black", "brown")
DOINGS = ("{} lights blink", "somebody looks at {} lights")
SLOTS = 4


def write_videos(folder, names):
    """Still pictures that differ in half of their cells; of 1, 2, 3, 4 and 5 seconds in turn."""
    folder.mkdir(parents=True, exist_ok=True)
    for number, name in enumerate(names):
        shown = (number * 40503 + 12345) % 65536
        write_video(folder / f"{name}.mp4", frames=[shown] * (5 * (1 + number % 5)), size=(48, 48), rate=5)


def write_model(folder):
    """Shape and tokenizer of a model whose clips have 4 slots."""
    texts = [doing.format(colour) for colour in COLOURS for doing in DOINGS]
    vocabulary = write_demo_model(folder, texts).vocabulary
    spec = TINY._replace(vocabulary=vocabulary, frames=SLOTS, words=8)
    (folder / "config.json").write_text(json.dumps({"format": "xclip_module.two_tower", "spec": spec_to_json(spec)}))


def write_msrvtt(root, *, count=7, test=None):
    """Two sentences a training video; the test table holds the same videos, or those of the numbers `test`."""
    (root / "annotations").mkdir(parents=True)
    train = [f"video{n}" for n in range(count)]
    judged = train if test is None else [f"video{n}" for n in test]
    pairs = [(name, doing.format(colour)) for name, colour in zip(train, COLOURS, strict=False) for doing in DOINGS]
    sentences = [{"video_id": name, "caption": text} for name, text in pairs]
    (root / "annotations" / "MSRVTT_data.json").write_text(json.dumps({"videos": [], "sentences": sentences}))
    (root / "annotations" / "MSRVTT_train.9k.csv").write_text("\n".join(["video_id", *train]) + "\n")
    rows = [f"ret{n},msr{n},{name},{DOINGS[0].format(COLOURS[n])}" for n, name in enumerate(judged)]
    text = "\n".join(["key,vid_key,video_id,sentence", *rows]) + "\n"
    (root / "annotations" / "MSRVTT_JSFUSION_test.csv").write_text(text)
    write_videos(root / "videos", dict.fromkeys([*train, *judged]))
    return _arguments(root, "msrvtt-9k")


def write_lsmdc(root):
    """Four training clips, one of them with two sentences, two of val and two of test."""
    (root / "annotations").mkdir(parents=True)
    clips = [f"clip{n}" for n in range(8)]
    tables = {"annos_training": [0, 1, 2, 3, 3], "annos_val": [4, 5], "challenge_1000_publictect": [6, 7]}
    for name, numbers in tables.items():
        lines = [f"{clips[n]}\t0\t1\t0\t1\t{DOINGS[k % 2].format(COLOURS[n % 7])}" for k, n in enumerate(numbers)]
        (root / "annotations" / f"LSMDC16_{name}.csv").write_text("\n".join(lines) + "\n")
    write_videos(root / "videos", clips)
    return _arguments(root, "lsmdc")


def _arguments(root, name):
    write_model(root / "model")
    return [
        *(f"--data.name={name}", f"--data.root={root / 'videos'}", f"--data.annotations={root / 'annotations'}"),
        *(f"--data.frames_per_clip={SLOTS}", f"--model.weights=untrained:{root / 'model'}", "--eval.bootstrap=0"),
        *("--finetune.batch_size=7", "--finetune.epochs=3", "--finetune.lr=1e-3", "--finetune.pretrained_lr_scale=1"),
        *("--finetune.log_every_steps=1", f"--finetune.cache={root / 'frames'}"),
    ]
