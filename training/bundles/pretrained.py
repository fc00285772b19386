"""A pretrained network as a bundle, as it is: for the classes that it was trained on.

    ./cloudtrial pretrained efficientnet_lite0 --images DIR --bundle models/efficientnet-lite0-imagenet

ImageNet itself cannot be downloaded freely, so that the accuracy is not measured. Measured is whether the exported
files answer as torch does: on crops of the photos in DIR that were not used to calibrate, and on --compare's if given.
"""

from __future__ import annotations

import io
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import torch
from PIL import Image
from torchvision import models

from service.errors import Problem
from service.images.preprocess import decode_image
from service.model import Bundle
from training.bundles.manifest import EngineSource, check_replaceable, write_bundle
from training.bundles.onnx_export import FLOAT32, INT8, MAX_FLOAT32_DIFFERENCE, run_onnx, write_float32, write_int8
from training.bundles.self_test import image_self_test
from training.errors import DataError, ExportError
from training.finetune.run import image_bundle, input_of
from training.folders import image_files
from training.measure import parity
from training.networks.bases import build, find_base, load_weights

MAX_PHOTOS = 64  # whose crops are held in memory: 1.2 GB at 224 pixels
CROPS = 32  # of each photo; half calibrate, half compare
MIN_CROP = 0.35  # of the shorter side
SEED = 0
MIN_AGREEMENT = 0.9  # of int8 where the network is sure
SURE = 0.5  # a probability from which on it is
COMPARED_IMAGES = 1000


def imagenet_classes() -> list[str]:
    """ImageNet's 1,000 names, from torchvision."""
    return list(models.ResNet18_Weights.DEFAULT.meta["categories"])


def evenly(paths: list[Path], most: int) -> list[Path]:
    """At most so many of them, from all over the list."""
    return paths if len(paths) <= most else [paths[index * len(paths) // most] for index in range(most)]


def random_crops(paths: list[Path], bundle: Bundle) -> np.ndarray:
    """Squares of each photo at random places and sizes, every second mirrored.

    float32 [2, N, 3, S, S]: half of each photo's to calibrate, the other to compare.
    """
    rng = np.random.default_rng(SEED)
    side_px = bundle.image.size_px
    crops = np.empty((2, len(paths) * CROPS // 2, 3, side_px, side_px), np.float32)
    for number, path in enumerate(paths):
        with Image.open(path) as image:
            photo = image.convert("RGB")
        for index in range(CROPS):
            side = int(min(photo.size) * rng.uniform(MIN_CROP, 1))
            left, top = (int(rng.integers(0, length - side + 1)) for length in photo.size)
            crop = photo.crop((left, top, left + side, top + side))
            if index % 4 >= 2:
                crop = crop.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
            buffer = io.BytesIO()
            crop.save(buffer, "PNG", compress_level=1)
            crops[index % 2, (number * CROPS + index) // 2] = decode_image(buffer.getvalue(), bundle)
    return crops


def is_sure(expected: np.ndarray) -> np.ndarray:
    """Of which inputs the network is sure: bool [N]."""
    return expected.max(1) >= SURE


def agreement(found: np.ndarray, expected: np.ndarray) -> dict[str, Any]:
    """How int8's answers differ from torch's, and of those of which torch is sure, how many have the same class.

    That share is None where torch is sure of none.
    """
    sure = is_sure(expected)
    same = found.argmax(1) == expected.argmax(1)
    top5 = (np.argsort(found, axis=1)[:, -5:] == expected.argmax(1)[:, None]).any(1)
    return parity(found, expected) | {
        "n": len(same), "sure": int(sure.sum()),
        "sure_agreement": round(float(same[sure].mean()), 4) if sure.any() else None,
        "torch_label_in_top5": round(float(top5.mean()), 4),
    }  # fmt: skip


@torch.inference_mode()
def torch_probabilities(net: torch.nn.Module, inputs: np.ndarray) -> np.ndarray:
    net.eval()
    return np.concatenate([net(batch).softmax(1).numpy() for batch in torch.from_numpy(inputs).split(16)])


def make_bundle(name: str, photos: Path, compare: Path | None, folder: Path) -> dict[str, Any]:
    """Export, check, and write the bundle; returns int8's agreement with torch. Raises TrainingError."""
    check_replaceable(folder)
    base = find_base(name)
    classes = imagenet_classes()
    net = build(base, len(classes))
    load_weights(net, base, None)
    bundle = image_bundle(base, tuple(classes))
    paths = evenly(image_files(photos), MAX_PHOTOS)
    if not paths:
        raise DataError(f"{photos} holds no photos to calibrate with")
    calibration, held_out = random_crops(paths, bundle)
    with tempfile.TemporaryDirectory() as scratch:
        float32, int8 = Path(scratch) / FLOAT32, Path(scratch) / INT8
        expected = torch_probabilities(net, held_out)
        if not is_sure(expected).any():
            raise ExportError(
                f"torch is sure of none of {len(held_out)} crops of {photos}, so that int8 cannot be judged: give "
                "photos of things that the network knows"
            )
        write_float32(net, base.size_px, float32)
        difference = float(np.abs(run_onnx(float32, held_out) - expected).max())
        if difference > MAX_FLOAT32_DIFFERENCE:
            raise ExportError(f"the exported network differs from torch's: a probability by {difference:.4f}")
        write_int8(float32, int8, calibration)
        exports: dict[str, Any] = {
            "photos": agreement(run_onnx(int8, held_out), expected)
            | {"data": f"{len(held_out)} crops of {len(paths)} photos, others than those that calibrated it"}
        }
        if compare is not None:
            inputs = _decoded(compare, bundle)
            exports["compared"] = agreement(run_onnx(int8, inputs), torch_probabilities(net, inputs)) | {
                "data": f"{len(inputs)} images of {compare.name}, enlarged"
            }
        if exports["photos"]["sure_agreement"] < MIN_AGREEMENT:
            raise ExportError(
                f"int8 has torch's class for {exports['photos']['sure_agreement']:.1%} of the crops of which torch is "
                f"sure, less than {MIN_AGREEMENT:.0%}; more photos in {photos} may help"
            )
        test = image_self_test(bundle, {"onnx": lambda inputs: run_onnx(int8, inputs)})
        write_bundle(
            folder, classes, input_of(base), {"onnx": EngineSource(int8, INT8, "int8")}, test,
            licence=base.licence, origin=base.origin,
            details={
                "parameters": sum(each.numel() for each in net.parameters()),
                "storage": "int8",
                "metrics": {"imagenet": None, "why": "ImageNet's images cannot be had freely: not measured"},
                "exports": {
                    "float32_max_abs_dprob": round(difference, 7),
                    INT8: exports
                    | {
                        "calibration": {
                            "data": f"{len(calibration)} crops of {len(paths)} photos", "seed": SEED,
                            "method": "min-max, biases corrected",
                        },
                        "quantised": "weights: int8 per channel, of 7 bits except where depthwise; activations: uint8",
                        "libraries": {
                            "torch": str(torch.__version__), "onnx": onnx.__version__,
                            "onnxruntime": onnxruntime.__version__,
                        },
                    },
                },
            },
        )  # fmt: skip
    return exports


def _decoded(folder: Path, bundle: Bundle) -> np.ndarray:
    paths = image_files(folder)
    if not paths:
        raise DataError(f"{folder} holds no images to compare with")
    try:
        return np.stack([decode_image(path.read_bytes(), bundle) for path in evenly(paths, COMPARED_IMAGES)])
    except Problem as error:
        raise DataError(f"an image of {folder} cannot be read: {error}") from None
