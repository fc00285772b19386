"""service/monitoring/inputs.py: what is measured of an input, against what it is."""

import io
from dataclasses import replace

import numpy as np
import pytest
from PIL import Image

from service.images.preprocess import decode_image
from service.manifest.records import Feature, TabularInput
from service.model import load_bundle
from service.monitoring.inputs import InputMeasure
from tests.conftest import ROOT, picture_bytes
from tests.helpers.bundles import bundle_in_memory, one_coloured

WHITE, BLACK, GREY = (one_coloured(value) for value in (255, 0, 102))


def measured(bundle, images):
    measure = InputMeasure(bundle.input)
    return measure.numbers(measure.sample(images))


def light(data: bytes, bundle):
    return measured(bundle, decode_image(data, bundle)[None])[:, 0].tolist()


@pytest.mark.parametrize(("image", "brightness"), [(WHITE, 1.0), (BLACK, 0.0), (GREY, 0.4)], ids=["white", "black", ""])
@pytest.mark.parametrize("size_px", [32, 224])
def test_one_colour_has_its_brightness_and_no_contrast(image, brightness, size_px):
    found = light(image, bundle_in_memory(mean=0.45, std=0.23, size_px=size_px))
    assert found == pytest.approx((brightness, 0), abs=1e-5)


def test_half_white_half_black_has_a_contrast_of_a_half():
    pixels = np.zeros((32, 32, 3), np.uint8)
    pixels[:16] = 255
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "PNG")
    assert light(buffer.getvalue(), bundle_in_memory()) == pytest.approx((0.5, 0.5), abs=1e-5)


def test_colours_weigh_as_in_the_grey_image(bundle_dir):
    """As Pillow has it, which rounds each grey value to one of 256."""
    for fmt in ("PNG", "BMP"):
        data = picture_bytes(fmt=fmt)
        grey = np.asarray(Image.open(io.BytesIO(data)).convert("L")) / 255
        found = light(data, load_bundle(bundle_dir, []))
        assert found == pytest.approx((grey.mean(), grey.std()), abs=0.003)


def test_a_row_is_its_own_numbers_up_to_sixty_four():
    taken = TabularInput(tuple(Feature(f"number {index}", 0, 1) for index in range(70)))
    assert InputMeasure(taken).names == tuple(f"number {index}" for index in range(64))
    rows = np.arange(140, dtype=np.float32).reshape(2, 70)
    found = measured(replace(bundle_in_memory(), input=taken), rows)
    assert found.T.tolist() == [list(range(64)), list(range(70, 134))]


def test_images_are_measured_together_as_alone():
    images = np.random.default_rng(0).normal(0.2, 1, (5, 3, 32, 32)).astype(np.float32)
    bundle = bundle_in_memory()
    found = measured(bundle, images)[:, 3]
    np.testing.assert_allclose(found, measured(bundle, images[3:4])[:, 0], atol=1e-6)
    (red, green, blue), grey_of = images[3].astype(float) * 0.5 + 0.5, (0.299, 0.587, 0.114)
    grey = red * grey_of[0] + green * grey_of[1] + blue * grey_of[2]
    assert found.tolist() == pytest.approx([grey.mean(), grey.std()], abs=1e-5)


@pytest.mark.parametrize("size_px", [33, 64, 224])
def test_large_images_are_measured_on_a_grid_of_pixels(size_px):
    """A photo's light hardly depends on it, and a sample is small enough to wait."""
    bundle = bundle_in_memory(size_px=size_px, mean=0.0, std=1.0)
    photos = sorted((ROOT / "eval" / "golden" / "efficientnet-lite0-imagenet").glob("*.jpg"))
    for photo in photos:
        image = decode_image(photo.read_bytes(), bundle)
        grey = np.tensordot((0.299, 0.587, 0.114), image, 1)
        assert measured(bundle, image[None])[:, 0].tolist() == pytest.approx([grey.mean(), grey.std()], abs=0.02)
        sample = InputMeasure(bundle.input).sample(image)
        assert sample.nbytes <= 3 * 32 * 32 * 4 and sample.base is None
    assert len(photos) >= 8
