"""Sentences to token ids: CLIP's byte-pair encoding and any tokenizer that a checkpoint brings.

B texts, W word slots.
"""

import gzip
import html
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import ftfy
import numpy as np
import torch
from tokenizers import Regex, Tokenizer, models, normalizers, pre_tokenizers
from torch import Tensor

from xclip_module.errors import WeightsError
from xclip_module.models.damage import weights_errors

START, END = "<|startoftext|>", "<|endoftext|>"
# OpenAI's list has more lines than CLIP uses: 49,152 - 256 - 2 merges.
_MERGES = 49152 - 256 - 2
# What CLIP takes for a word before it looks for pairs; \p{N} alone: every digit is a word of its own.
_PIECES = r"<\|startoftext\|>|<\|endoftext\|>|'s|'t|'re|'ve|'m|'ll|'d|[\p{L}]+|[\p{N}]|[^\s\p{L}\p{N}]+"


class Tokens(NamedTuple):
    """input_ids: [B, W] int64, 0 in empty slots.  mask: [B, W] bool.  cut: what did not fit, by text."""

    input_ids: Tensor
    mask: Tensor
    cut: dict[str, str]


class ClipTokenizer:
    """[start] pieces [end], padded with 0; a text that is too long loses its last pieces, never the end token.

    Source: CLIP (Radford et al. 2021) and the data loaders of CLIP4Clip (Luo et al. 2022). Unlike those, what is cut
    is handed back.
    """

    def __init__(self, tokenizer: Tokenizer):
        """Wraps a tokenizer that has CLIP's two special tokens."""
        start, end = tokenizer.token_to_id(START), tokenizer.token_to_id(END)
        if start is None or end is None:
            raise WeightsError("not a CLIP tokenizer", why=f"found no {START} and {END}")
        self.tokenizer, self.start, self.end = tokenizer, start, end

    def __call__(self, texts: Sequence[str], slots: int) -> Tokens:
        """Token ids for W = `slots`."""
        # NumPy: of a benchmark's 180,000 sentences torch would spend half the time on rows so short.
        ids = np.zeros((len(texts), slots), np.int64)
        mask = np.zeros((len(texts), slots), bool)
        cut = {}
        for row, text in enumerate(texts):
            cleaned = _clean(text)
            encoding = self.tokenizer.encode(cleaned, add_special_tokens=False)
            # Two slots are those of the start and the end token.
            if len(encoding.ids) > slots - 2:
                cut[text] = cleaned[encoding.offsets[slots - 2][0] :]
            pieces = [self.start, *encoding.ids[: slots - 2], self.end]
            ids[row, : len(pieces)] = pieces
            mask[row, : len(pieces)] = True
        return Tokens(torch.from_numpy(ids), torch.from_numpy(mask), cut)


def load_tokenizer(path: Path) -> ClipTokenizer:
    """The tokenizer of a folder (tokenizer.json, or vocab.json and merges.txt) or of OpenAI's merges file.

    Raises WeightsError for a damaged one, or naming what was looked for.
    """
    with weights_errors(path, "unreadable tokenizer"):
        if path.is_file():
            return ClipTokenizer(_from_merges(path))
        if (path / "tokenizer.json").is_file():
            return ClipTokenizer(_bare(Tokenizer.from_file(str(path / "tokenizer.json"))))
        if (path / "vocab.json").is_file() and (path / "merges.txt").is_file():
            from transformers import AutoTokenizer

            return ClipTokenizer(_bare(AutoTokenizer.from_pretrained(path, local_files_only=True).backend_tokenizer))
        if merges := sorted(path.glob("bpe_simple_vocab_16e6.txt*")):
            return ClipTokenizer(_from_merges(merges[0]))
    gap = "found neither tokenizer.json nor vocab.json with merges.txt nor bpe_simple_vocab_16e6.txt.gz"
    attempt = "put one of them there, or name its folder with --model.tokenizer=FOLDER"
    raise WeightsError("no tokenizer", path, gap, attempt)


def _clean(text: str) -> str:
    return " ".join(html.unescape(html.unescape(ftfy.fix_text(text))).split())


def _bare(tokenizer: Tokenizer) -> Tokenizer:
    """Without the padding and truncation that a tokenizer.json may carry: `ClipTokenizer` does both, and tells."""
    tokenizer.no_padding()
    tokenizer.no_truncation()
    return tokenizer


def _from_merges(path: Path) -> Tokenizer:
    opener = gzip.open if path.suffix == ".gz" else Path.open
    try:
        with opener(path, "rt", encoding="utf-8") as file:
            lines = file.read().split("\n")[1 : _MERGES + 1]
        merges = [_pair(line) for line in lines if line]
    except (OSError, UnicodeDecodeError, ValueError) as error:
        attempt = "download bpe_simple_vocab_16e6.txt.gz again"
        raise WeightsError("unreadable merges file", path, str(error), attempt) from error
    return clip_tokenizer(clip_vocabulary(merges), merges)


def clip_vocabulary(merges: Sequence[tuple[str, str]]) -> dict[str, int]:
    """CLIP's numbering: bytes, bytes that end a word, merges, the two special tokens."""
    letters = byte_letters()
    words = [*letters, *(letter + "</w>" for letter in letters), *("".join(pair) for pair in merges), START, END]
    return {word: number for number, word in enumerate(words)}


def _pair(line: str) -> tuple[str, str]:
    first, second = line.split()  # ValueError for anything but two pieces
    return first, second


def byte_letters() -> list[str]:
    """A printable letter for every byte, in GPT-2's order: printable bytes first, then the rest from 256 on."""
    printable = [*range(ord("!"), ord("~") + 1), *range(ord("¡"), ord("¬") + 1), *range(ord("®"), ord("ÿ") + 1)]
    return [chr(b) for b in printable] + [chr(256 + n) for n in range(256 - len(printable))]


def clip_tokenizer(vocabulary: dict[str, int], merges: Sequence[tuple[str, str]]) -> Tokenizer:
    """A tokenizer with CLIP's rules (lower case, byte level, `</w>` ends a word) over any vocabulary."""
    bpe = models.BPE(vocab=vocabulary, merges=list(merges), end_of_word_suffix="</w>", unk_token=END)
    tokenizer = Tokenizer(bpe)
    blanks = normalizers.Replace(Regex(r"\s+"), " ")
    tokenizer.normalizer = normalizers.Sequence([normalizers.NFC(), blanks, normalizers.Lowercase()])
    # Inverted: the matches are kept, what lies between them is dropped.
    pieces = pre_tokenizers.Split(Regex(_PIECES), behavior="removed", invert=True)
    letters = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence([pieces, letters])
    tokenizer.add_special_tokens([START, END])
    return tokenizer
