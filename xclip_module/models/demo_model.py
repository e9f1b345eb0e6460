"""The shape and tokenizer of the small model that the demo runs: `python -m xclip_module.models.demo_model`."""

import csv
import json
from collections.abc import Sequence
from pathlib import Path

from tokenizers import Tokenizer, models, pre_tokenizers, trainers

from xclip_module.models.saving import FORMAT, spec_to_json
from xclip_module.models.spec import Tower, TwoTowerSpec
from xclip_module.models.tokenizer import END, START, byte_letters, clip_tokenizer, clip_vocabulary
from xclip_module.run import storage

_VOCABULARY = 1024
_PRIVATE = 0xE000  # first letter of Unicode's private use area


def write_demo_model(folder: Path, sentences: Sequence[str]) -> TwoTowerSpec:
    """Writes config.json and tokenizer.json, no weights, and returns the shape.

    The tokenizer is CLIP's kind (byte-level pairs, lower case) with merges learned from `sentences`; any other text is
    spelled out, so nothing is unknown to it. The same sentences give the same files.
    """
    merges = _learn_merges(sentences, byte_letters())
    vocabulary = clip_vocabulary(merges)
    tokenizer = clip_tokenizer(vocabulary, merges)
    storage.write_text(folder / "tokenizer.json", tokenizer.to_str(pretty=True) + "\n")
    spec = TwoTowerSpec(
        vision=Tower(width=128, layers=3, heads=2, hidden=512),
        text=Tower(width=128, layers=2, heads=2, hidden=512),
        embed=128,
        image=112,
        patch=16,
        context=77,
        vocabulary=len(vocabulary),
        words=32,
        frames=4,
        masked=True,
    )
    storage.write_json(folder / "config.json", {"format": FORMAT, "spec": spec_to_json(spec)})
    return spec


def _learn_merges(sentences: Sequence[str], letters: Sequence[str]) -> list[tuple[str, str]]:
    """Byte pairs by frequency, the same in every process.

    The library numbers letters with an end-of-word suffix as a hash map yields them, and breaks ties by number; so a
    word's last letter is trained as a letter of its own, whose number is its place.
    """
    clip = clip_tokenizer({START: 0, END: 1}, [])
    last = {letter: chr(_PRIVATE + number) for number, letter in enumerate(letters)}
    words = [
        word[:-1] + last[word[-1]]
        for sentence in sentences
        for word, _ in clip.pre_tokenizer.pre_tokenize_str(clip.normalizer.normalize_str(sentence))
    ]
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    trainer = trainers.BpeTrainer(
        vocab_size=_VOCABULARY - 2,  # of the two special tokens
        min_frequency=1,
        show_progress=False,
        initial_alphabet=[*letters, *last.values()],
        special_tokens=[],
    )
    tokenizer.train_from_iterator(words, trainer)
    back = {private: letter + "</w>" for letter, private in last.items()}
    learned = json.loads(tokenizer.to_str())["model"]["merges"]
    return [(first, second[:-1] + back[second[-1]] if second[-1] in back else second) for first, second in learned]


def main() -> None:
    """Writes data/demo/model from the sentences of data/prompts/clinical.csv; trained weights beside must be anew."""
    data = Path(__file__).parents[2] / "data"
    with (data / "prompts" / "clinical.csv").open(newline="", encoding="utf-8") as file:
        sentences = [row["text"] for row in csv.DictReader(file)]
    write_demo_model(data / "demo" / "model", sentences)


if __name__ == "__main__":
    main()
