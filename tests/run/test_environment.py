import torch

from xclip_module.run import environment


def test_the_commit_is_named_with_a_mark_for_changes():
    commit = environment.describe(torch.device("cpu"), world_size=1, settings={})["commit"]
    assert commit is None or len(commit.split()[0]) == 40
