import numpy as np
import pytest
import torch
from torchvision.transforms import v2

from xclip_module.training.batches.augment import Augmentation, augment, recolour

ALL = Augmentation(size=24, crop_scale=0.5, flip=0.5, colour=0.3)


def clip(side=32, frames=5, seed=0):
    rng = np.random.default_rng(seed)
    coarse = torch.from_numpy(rng.integers(60, 190, (frames, 3, 4, 4), dtype=np.uint8))
    return v2.functional.resize(coarse, [side, side])


def coordinates(side=64, frames=2):
    """Pixels that say where they are: red = row, green = column (times 3)."""
    rows, columns = torch.meshgrid(torch.arange(side), torch.arange(side), indexing="ij")
    picture = torch.stack([rows * 3, columns * 3, torch.zeros_like(rows)]).to(torch.uint8)
    return picture.expand(frames, 3, side, side).clone()


def test_nothing_asked_for_is_the_clip_itself():
    given = clip()
    view = augment(given, Augmentation(size=32), seed=(1, 2, 3))
    assert torch.equal(view, given)
    assert view.data_ptr() == given.data_ptr()


def test_without_crop_and_colour_the_whole_square_is_resized():
    given = clip()
    expected = v2.functional.resize(given, [24, 24], interpolation=v2.InterpolationMode.BICUBIC, antialias=True)
    for seed in range(3):
        torch.testing.assert_close(augment(given, Augmentation(size=24), seed=(seed,)), expected, rtol=0, atol=0)


def test_a_still_clip_stays_still():
    still = clip(frames=1).expand(6, 3, 32, 32)
    for seed in range(10):
        view = augment(still, ALL, seed=(seed,))
        assert view.shape == (6, 3, 24, 24)
        assert view.dtype == torch.uint8
        assert (view == view[:1]).all()


def test_a_view_is_a_function_of_the_seed_and_leaves_its_clip_alone():
    given = clip()
    before = given.clone()
    views = [augment(given, ALL, seed=(7, 1, draw)) for draw in range(8)]
    assert len({view.numpy().tobytes() for view in views}) == 8
    torch.manual_seed(99)
    np.random.default_rng(99)
    for draw in reversed(range(8)):
        assert torch.equal(augment(given, ALL, seed=(7, 1, draw)), views[draw])
    assert torch.equal(given, before)


def test_memory_layout_does_not_change_a_view():
    given = clip()
    other = given.contiguous(memory_format=torch.channels_last)
    difference = augment(given, ALL, seed=(1,)).int() - augment(other, ALL, seed=(1,)).int()
    assert difference.abs().max() <= 1


def test_crops_keep_their_share_stay_inside_and_reach_everywhere():
    """Read off the pixels: what is left of rows and columns."""
    settings = Augmentation(size=64, crop_scale=0.5)
    shares, ratios, tops = [], [], []
    for seed in range(150):
        view = augment(coordinates(), settings, seed=(seed,))[0].int().numpy() / 3
        top, bottom = view[0, 0].mean(), view[0, -1].mean()
        left, right = view[1, :, 0].mean(), view[1, :, -1].mean()
        height, width = (bottom - top) * 64 / 63, (right - left) * 64 / 63
        shares.append(height * width / 64**2)
        ratios.append(width / height)
        tops.append(top / max(64 - height, 1))
    assert 0.45 < min(shares) < 0.55
    assert 0.9 < max(shares) <= 1.02
    assert 0.7 < min(ratios) < 0.85
    assert 1.2 < max(ratios) < 1.42
    assert min(tops) < 0.1
    assert max(tops) > 0.85


def test_flips_mirror_left_and_right_in_their_share_of_clips():
    given = coordinates()
    kinds = {"same": 0, "mirrored": 0}
    for seed in range(200):
        view = augment(given, Augmentation(size=64, flip=0.25), seed=(seed,))
        kinds["same"] += torch.equal(view, given)
        kinds["mirrored"] += torch.equal(view, given.flip(-1))
    assert sum(kinds.values()) == 200
    assert 30 <= kinds["mirrored"] <= 70
    assert not any(torch.equal(augment(given, Augmentation(size=64), seed=(s,)), given.flip(-1)) for s in range(20))


def test_colours_change_as_torchvision_changes_them():
    """In torchvision's arithmetic without rounding; of a still clip, whose mean grey is every picture's."""
    given = clip(frames=1).expand(2, 3, 32, 32)
    ours = recolour(given, brightness=1.1, contrast=0.85, saturation=1.2, hue=0.0).float()
    theirs = v2.functional.adjust_brightness(given / 255, 1.1)
    theirs = 255 * v2.functional.adjust_saturation(v2.functional.adjust_contrast(theirs, 0.85), 1.2)
    assert (ours - theirs).abs().max() <= 1
    assert (theirs - given).abs().max() > 20


@pytest.mark.parametrize("turn", [0.03, -0.03])
def test_the_hue_turns_by_its_angle_and_leaves_brightness_and_strength_of_colour(turn):
    """In the plane of red minus grey and blue minus grey, scaled as in YUV, which is YIQ turned by 33 degrees."""

    def colours(pixels):
        red, green, blue = pixels.double().movedim(1, 0)
        grey = 0.299 * red + 0.587 * green + 0.114 * blue
        return grey, torch.complex(0.492 * (blue - grey), 0.877 * (red - grey))

    given = clip()
    before, after = colours(given), colours(recolour(given, brightness=1, contrast=1, saturation=1, hue=turn))
    assert (after[0] - before[0]).abs().max() < 1
    strong = before[1].abs() > 15
    angle = (after[1] / before[1])[strong].angle() / (2 * np.pi)
    assert (angle.mean().abs() - abs(turn)).abs() < 1e-3
    assert (after[1].abs() / before[1].abs() - 1)[strong].abs().max() < 0.1


def test_the_hue_turns_the_way_it_does_in_torchvision():
    red = torch.tensor([200, 60, 60], dtype=torch.uint8)[None, :, None, None].expand(1, 3, 2, 2)
    for turn in (0.02, -0.02):
        ours = recolour(red, brightness=1, contrast=1, saturation=1, hue=turn)[0, :, 0, 0].int()
        theirs = v2.functional.adjust_hue(red, turn)[0, :, 0, 0].int()
        assert (ours[1] > ours[2]) == (theirs[1] > theirs[2]) == (turn > 0)


def test_grey_stays_grey():
    grey = clip()[:, :1].expand(-1, 3, -1, -1)
    assert torch.equal(recolour(grey, brightness=1, contrast=1, saturation=0.5, hue=0.1), grey)


def test_one_colour_becomes_one_colour_in_all_frames_however_bright_they_are():
    given = clip()
    given[:, :, 0, 0] = torch.tensor([90, 120, 70], dtype=torch.uint8)
    given[3] = given[3] // 2
    given[3, :, 0, 0] = given[0, :, 0, 0]
    view = recolour(given, brightness=1.0, contrast=0.6, saturation=1.1, hue=0.01)
    assert (view[:, :, 0, 0] == view[0, :, 0, 0]).all()
