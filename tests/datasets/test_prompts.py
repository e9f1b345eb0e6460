from pathlib import Path

import pytest

from xclip_module.datasets.cholec80.corpus import PHASES, TOOLS
from xclip_module.datasets.prompts import prompt_file, prompt_sets, read_background, read_prompts
from xclip_module.errors import DataError

ROOT = Path(__file__).parents[2]


def test_prompts_need_a_sentence_for_every_class(tmp_path):
    path = tmp_path / "prompts.csv"
    path.write_text("query,text\nHook,a hook\nClipper,\n")
    with pytest.raises(DataError, match="missing Clipper, Grasper"):
        read_prompts(path, ("Hook", "Clipper", "Grasper"))


def test_every_shipped_prompt_is_there_and_fits_the_models():
    texts = read_prompts(ROOT / "data" / "prompts" / "clinical.csv", (*PHASES, *TOOLS))
    assert len(set(texts.values())) == 14
    assert all(len(text.split()) <= 20 for text in texts.values())


def test_two_prompt_files_of_one_name_stay_two_sets(tmp_path):
    paths = [str(tmp_path / folder / "own.csv") for folder in "ab"]
    assert list(prompt_sets(["clinical", *paths])) == ["clinical", *paths]
    assert list(prompt_sets([paths[0], paths[0]])) == ["own"]
    assert {"class_names", "clinical", "templates"} == set(prompt_sets(["all"]))


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("text\na tool, in the belly\nan organ, in the dark\n", "row 2"),
        ("text\na tool\nan organ, in the dark\n", "row 3"),
        ("sentence\na tool\n", "no column text"),
        ("text\n\n", "no background sentence"),
    ],
)
def test_a_sentence_with_a_bare_comma_is_refused_and_never_cut(tmp_path, text, words):
    path = tmp_path / "own.csv"
    path.write_text(text)
    with pytest.raises(DataError, match=words):
        read_background(str(path))
    path.write_text('text\n"a tool, in the belly"\n')
    assert read_background(str(path)) == ("a tool, in the belly",)


def test_a_class_with_two_sentences_is_refused(tmp_path):
    path = tmp_path / "own.csv"
    path.write_text("query,text\na,one\na,two\n")
    with pytest.raises(DataError, match="two sentences for one class"):
        read_prompts(path, ["a"])


def test_only_a_bare_name_means_a_shipped_prompt_set(tmp_path):
    assert prompt_file("clinical").is_file()
    assert prompt_file(str(tmp_path / "clinical")) == tmp_path / "clinical"
