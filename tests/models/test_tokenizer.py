import csv
import json
from pathlib import Path

import pytest
from transformers import AutoTokenizer

from xclip_module.errors import WeightsError
from xclip_module.models import load_tokenizer
from xclip_module.models.demo_model import write_demo_model
from xclip_module.models.tokenizer import END, START, byte_letters

DATA = Path(__file__).parents[2] / "data"
MERGES = ["t h", "th e</w>", "h o", "o k</w>", "ho ok</w>"]


@pytest.fixture
def merges_file(tmp_path):
    path = tmp_path / "bpe_simple_vocab_16e6.txt"
    path.write_text("#version: 0.2\n" + "\n".join(MERGES) + "\n")
    return path


@pytest.fixture
def hugging_face_folder(tmp_path):
    """The same vocabulary as transformers stores it."""
    letters = byte_letters()
    pieces = [*letters, *(x + "</w>" for x in letters), *(m.replace(" ", "") for m in MERGES), START, END]
    (tmp_path / "vocab.json").write_text(json.dumps({piece: number for number, piece in enumerate(pieces)}))
    (tmp_path / "merges.txt").write_text("#version: 0.2\n" + "\n".join(MERGES) + "\n")
    (tmp_path / "config.json").write_text('{"model_type": "clip"}')
    return tmp_path


def test_pieces_are_numbered_as_clip_numbers_them(merges_file):
    """512 byte pieces, then merges in file order, then start and end; padding is 0."""
    tokens = load_tokenizer(merges_file)(["the hook"], 6)
    the, hook = 512 + MERGES.index("th e</w>"), 512 + MERGES.index("ho ok</w>")
    assert tokens.input_ids.tolist() == [[517, the, hook, 518, 0, 0]]
    assert tokens.mask.tolist() == [[True] * 4 + [False] * 2]
    assert tokens.cut == {}


@pytest.mark.parametrize("text", ["The  hook\n", "the hook", "THE HOOK", "the&nbsp;hook"])
def test_case_spaces_and_entities_do_not_matter(merges_file, text):
    tokenizer = load_tokenizer(merges_file)
    assert tokenizer([text], 6).input_ids.tolist() == tokenizer(["the hook"], 6).input_ids.tolist()


def test_curly_quotes_become_straight_as_in_the_released_cleaning(merges_file):
    tokenizer = load_tokenizer(merges_file)
    assert tokenizer(["“the” hook’s"], 12).input_ids.tolist() == tokenizer(['"the" hook\'s'], 12).input_ids.tolist()


def test_a_long_text_keeps_its_end_token_and_says_what_was_cut(merges_file):
    tokens = load_tokenizer(merges_file)(["the hook the hook", "the"], 4)
    assert tokens.input_ids[0].tolist() == [517, 513, 516, 518]
    assert tokens.cut == {"the hook the hook": "the hook"}


@pytest.mark.parametrize("text", ["the hook", "2 clips, 10 mm!", "cystic-duct's naïve 東京", ""])
def test_merges_file_hugging_face_files_and_transformers_itself_agree(merges_file, hugging_face_folder, text):
    ours = [load_tokenizer(source)([text], 40).input_ids.tolist() for source in (merges_file, hugging_face_folder)]
    theirs = AutoTokenizer.from_pretrained(hugging_face_folder, local_files_only=True)(text)["input_ids"]
    assert ours[0] == ours[1]
    assert ours[0][0][: len(theirs)] == theirs


def test_the_demo_tokenizer_spells_out_what_it_never_saw(tmp_path):
    write_demo_model(tmp_path, ["the hook peels the gallbladder", "a clip closes the duct"])
    tokens = load_tokenizer(tmp_path)(["the hook", "zzz", "東"], 12)
    assert tokens.mask.sum(1).tolist() == [4, 5, 5]


def test_the_shipped_demo_tokenizer_is_what_its_sentences_give_in_any_process(tmp_path):
    """Its weights know these very numbers."""
    with (DATA / "prompts" / "clinical.csv").open(newline="", encoding="utf-8") as file:
        write_demo_model(tmp_path, [row["text"] for row in csv.DictReader(file)])
    for name in ("tokenizer.json", "config.json"):
        assert (tmp_path / name).read_text() == (DATA / "demo" / "model" / name).read_text()


def test_a_folder_without_tokenizer_says_what_was_looked_for(tmp_path):
    with pytest.raises(WeightsError, match=r"neither tokenizer.json nor vocab.json.*--model.tokenizer=FOLDER"):
        load_tokenizer(tmp_path)


def test_a_broken_merges_file_is_one_clear_line(tmp_path):
    (tmp_path / "merges.txt.gz").write_bytes(b"not gzip")
    with pytest.raises(WeightsError, match="unreadable merges file"):
        load_tokenizer(tmp_path / "merges.txt.gz")


@pytest.mark.parametrize("text", ["", "{}", "not json", "[]"])
def test_a_damaged_tokenizer_file_is_one_line(tmp_path, text):
    (tmp_path / "tokenizer.json").write_text(text)
    with pytest.raises(WeightsError, match="unreadable tokenizer: ") as caught:
        load_tokenizer(tmp_path)
    assert str(tmp_path) in str(caught.value)
