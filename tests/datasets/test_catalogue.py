import subprocess
import sys
from pathlib import Path

from xclip_module.config import DataConfig
from xclip_module.datasets.catalogue import load_corpus

ROOT = Path(__file__).parents[2]
# Every annotated video counts as missing unless it is there; the copies here hold a few.
LENIENT = {"name": "cholec80", "skip_unreadable": True}


def test_free_queries_replace_the_data_sets_own(copy):
    corpus = load_corpus(DataConfig(root=str(copy), queries="a bleeding; a clip", **LENIENT))
    assert [query.text for query in corpus.queries] == ["a bleeding", "a clip"]


def test_the_catalogue_is_quick_to_import_and_knows_no_retrieval():
    words = "import sys, xclip_module.datasets.catalogue; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", words], cwd=ROOT, capture_output=True, text=True, check=True)
    slow = {"torch", "transformers", "pandas", "matplotlib", "av", "xclip_module.datasets.retrieval"}
    assert not slow & set(done.stdout.split())
