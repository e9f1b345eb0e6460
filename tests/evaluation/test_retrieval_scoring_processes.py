"""Two processes score texts against videos as one does.

In a file of its own, without models: the second process imports what this file imports.
"""

import datetime

import numpy as np
import pytest
import torch
from torch.multiprocessing import spawn

from xclip_module.errors import NonFiniteError
from xclip_module.evaluation import retrieval_scoring
from xclip_module.evaluation.retrieval_scoring import score_matrix, two_stage
from xclip_module.interface import Embeddings
from xclip_module.run.distributed import World

CPU = torch.device("cpu")


def similarity(text, video):
    """The mean over words of each word's best frame."""
    return torch.einsum("qwd,cfd->qcwf", text.tokens, video.tokens).amax(-1).mean(-1)


def side(count, slots, seed):
    generator = torch.Generator().manual_seed(seed)
    tokens = torch.randn(count, slots, 16, generator=generator)
    return Embeddings(tokens.mean(1), tokens, torch.ones(count, slots, dtype=torch.bool))


def score_all(world):
    """All matrices of a world, of 7 texts and of one alone; and what is said about NaN in the last text."""
    text, video = side(7, 4, 0), side(5, 3, 1)
    found = two_stage(text, video, similarity, keep=1, world=world, sample=3)
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(retrieval_scoring, "VIDEOS_PER_BLOCK", 2)
        one = score_matrix(Embeddings(*(x[:1] for x in text)), video, similarity, world=world)
    text.tokens[6] = torch.nan
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(retrieval_scoring, "TEXTS_PER_BLOCK", 2)
        with pytest.raises(NonFiniteError) as ended:
            score_matrix(text, video, similarity, world=world)
    return found.matrix, one, tuple(found.facts), str(ended.value)


def check_rank(rank, store):
    torch.set_num_threads(1)
    patience = datetime.timedelta(seconds=120)
    torch.distributed.init_process_group(
        "gloo", init_method=f"file://{store}", rank=rank, world_size=2, timeout=patience
    )
    try:
        *matrices, facts, message = score_all(World(rank, 2, CPU))
    finally:
        torch.distributed.destroy_process_group()
    *expected, expected_facts, complaint = score_all(World(0, 1, CPU))
    for found, whole in zip(matrices, expected, strict=True):
        np.testing.assert_allclose(found, whole, rtol=0, atol=1e-6)
    assert (facts, message) == (expected_facts, complaint)
    assert "5 of 35 scores, in 1 row (6; wholly 6)" in message


def check_other(number, store):
    check_rank(1 + number, store)


def test_two_processes_have_the_matrix_of_one_and_the_same_complaint(tmp_path):
    """7 texts are 4 and 3; 1 text leaves the second process without any."""
    threads = torch.get_num_threads()
    other = spawn(check_other, (tmp_path / "store",), nprocs=1, join=False)
    try:
        check_rank(0, tmp_path / "store")
    finally:
        torch.set_num_threads(threads)
    other.join()
