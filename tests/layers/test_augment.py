"""Random views of training pictures."""

import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from andon.layers.augment import GAIN, disturbed, random_view


@given(seed=st.integers(0, 2**31), height=st.integers(8, 40), width=st.integers(8, 40))
@settings(deadline=None, max_examples=40)
def test_shape_range_and_repeatability(seed, height, width):
    images = torch.rand(2, 3, height, width, generator=torch.Generator().manual_seed(seed))
    views = [random_view(images, torch.Generator().manual_seed(seed)) for _ in range(2)]
    assert torch.equal(*views)
    assert views[0].shape == images.shape
    assert views[0].min() >= 0
    assert views[0].max() <= 1


def test_no_change_without_room_for_any():
    images = torch.rand(4, 3, 16, 16)
    generator = torch.Generator().manual_seed(0)
    views = random_view(images, generator, scale=(1, 1), ratio=(1, 1), jitter=0)
    for image, view in zip(images, views, strict=True):
        assert any(torch.allclose(view, way, atol=1e-6) for way in (image, image.flip(2)))


def test_grey_stays_grey_and_global_randomness_is_untouched():
    before = torch.random.get_rng_state()
    view = random_view(torch.full((1, 3, 12, 12), 0.5), torch.Generator().manual_seed(3))[0]
    assert torch.allclose(view[0], view[1])
    assert torch.equal(torch.random.get_rng_state(), before)


def test_a_disturbed_copy_depends_on_its_image_alone():
    images = torch.rand(3, 3, 24, 32, generator=torch.Generator().manual_seed(1))
    copies = disturbed(images)
    assert copies.shape == images.shape
    assert 0 <= copies.min() <= copies.max() <= 1
    assert torch.equal(disturbed(images[1:2])[0], copies[1])
    assert not torch.equal(copies, images)


def test_a_disturbed_copy_changes_light_and_place_no_further_than_said():
    grey = torch.linspace(0.2, 0.8, 20)[:, None, None, None].expand(20, 3, 24, 24)
    factors = (disturbed(grey) / grey).flatten(1)
    assert ((factors - 1).abs() < GAIN + 0.02).all()  # rounding of JPEG
    assert factors.mean(1).std() > GAIN / 4
