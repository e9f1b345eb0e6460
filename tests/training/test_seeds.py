"""Seeds: as stored trainings have them, and unlike for unlike words."""

import torch

from xclip_module.training.seeds import seed_of


def test_a_seed_is_the_same_on_every_machine_and_in_every_version():
    """Else a resumed training would draw other dropout than the one that was stopped."""
    assert seed_of(42, 7) == 13811554242848868061
    assert seed_of(42, 7, bits=63) == 13811554242848868061 >> 1
    assert seed_of(42, 0, "text", 3) == 16961825545507609956


def test_neighbouring_words_give_seeds_of_their_own_that_torch_takes():
    words = [(seed, step) for seed in range(30) for step in range(100)]
    assert len({seed_of(*pair) for pair in words}) == len(words)
    assert max(seed_of(*pair, bits=63) for pair in words) < 2**63
    for pair in words[:10]:
        torch.manual_seed(seed_of(*pair))
