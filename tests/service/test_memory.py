"""Memory of the real service with the onnx engine, under mixes of the largest inputs that it accepts."""

import base64
import json
import os
import random
import struct
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

import psutil
import pytest
from PIL import Image

from infra.targets import HEROKU_SIZES
from service import schema
from service.settings import MIN_TOKEN_CHARACTERS
from tests.helpers.costly_files import encoded, png_16_bit, png_chunk
from tests.helpers.running_service import Server, multipart, png_of, ready_service

pytestmark = pytest.mark.integration

SMALLEST_MIB = min(size.memory_mib for size in HEROKU_SIZES.values())
MIXES = int(os.environ.get("MEMORY_MIXES") or 1)  # more of them for a search
AT_ONCE = 12  # requests; what bodies of 16 MiB take is refused from the fifth on
WHOLE = (6000, 4000)


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    with ready_service(tmp_path_factory.mktemp("memory") / "log", ENGINE="onnx") as server:
        yield server


def padded(data: bytes) -> bytes:
    """As long as a body may be."""
    return data + bytes(schema.MAX_BODY_BYTES - 1024 - len(data))


def largest_inputs() -> dict[str, tuple[str, bytes, str]]:
    """Path, body and type of the largest accepted input of each kind."""
    clear, grey = Image.new("RGBA", WHOLE, (1, 2, 3, 100)), Image.new("L", WHOLE)
    plain, other = (Image.new("RGB", (3060, 3060), colour) for colour in ("red", "blue"))
    png, bitmap = encoded(clear, "PNG", compress_level=1), encoded(Image.new("L", (3400, 3390)), "BMP")
    frame = struct.pack(">IIIIIHHBB", 0, *WHOLE, 0, 0, 1, 1, 1, 0)  # to be cleared after it was shown
    files = {
        "RGBA PNG": png,
        "long PNG": padded(png),
        "animated PNG": png[:33] + png_chunk(b"acTL", struct.pack(">II", 2, 0)) + png_chunk(b"fcTL", frame) + png[33:],
        "16-bit PNG": png_16_bit(4000, 3000),
        "1-bit PNG": png_of(*WHOLE),
        "progressive JPEG": encoded(grey.convert("RGB"), "JPEG", progressive=True, subsampling=0),
        "CMYK JPEG": encoded(Image.new("CMYK", (4800, 3900)), "JPEG", progressive=True),
        "WebP": encoded(plain, "WEBP", method=0),
        "animated WebP": encoded(plain, "WEBP", method=0, save_all=True, append_images=[other]),
        "animated GIF": encoded(grey, "GIF", transparency=0, save_all=True, append_images=[Image.new("L", WHOLE, 9)]),
        "BMP": padded(bitmap),
    }
    form = partial(multipart, ("image", padded(bitmap), "a"))
    small = ("image", encoded(Image.new("RGB", (290, 290)), "BMP"), "a")
    in_base64 = json.dumps({"image": base64.b64encode(bitmap).decode()}).encode()
    lists = json.dumps({"img": [[[0, 0, 0]] * 330] * 330}, separators=(",", ":")).encode()
    return {name: (schema.PREDICT, data, "image/png") for name, data in files.items()} | {
        "form": (schema.PREDICT, *form()),
        "batch": (schema.PREDICT_BATCH, *multipart(*[small] * schema.MAX_BATCH_IMAGES)),
        "base64": (schema.PREDICT, in_base64, schema.JSON_TYPE),
        "lists": (schema.PREDICT, lists, schema.JSON_TYPE),
    }


def peak_mib(server: Server) -> float:
    """Of the worker; and what the parent has now."""
    parent = psutil.Process(server.process.pid)
    (worker,) = parent.children()
    (peak,) = (line for line in Path(f"/proc/{worker.pid}/status").read_text().splitlines() if "VmHWM" in line)
    return int(peak.split()[1]) / 1024 + parent.memory_info().rss / 2**20


def test_mixes_of_the_largest_inputs_fit_the_smallest_target(server):
    inputs = largest_inputs()
    with ThreadPoolExecutor(AT_ONCE) as pool:
        for seed in range(MIXES):
            names = random.Random(seed).sample(list(inputs), k=len(inputs))
            statuses = list(pool.map(lambda name: server.post(*inputs[name]).status, names))
            found = dict(zip(names, statuses, strict=True))
            assert set(statuses) <= {200, 503} and 200 in statuses, found
            assert peak_mib(server) < SMALLEST_MIB, found


def costly_batches(server: Server) -> list[int]:
    """Statuses of many batches of small files, whose pixels are many for a model of large images."""
    body, kind = multipart(*[("image", png_of(1, 1), "a.png")] * schema.MAX_BATCH_IMAGES)
    with ThreadPoolExecutor(2 * AT_ONCE) as pool:
        return list(pool.map(lambda _: server.post(schema.PREDICT_BATCH, body, kind).status, range(2 * AT_ONCE)))


def costly_rows(server: Server) -> list[int]:
    """Statuses of bodies that hold far more rows than are answered."""
    bodies = [(b"1\n" * 2**19, schema.CSV_TYPE), (b"[" + b"{}," * 2**18 + b"{}]", schema.JSON_TYPE)] * AT_ONCE
    with ThreadPoolExecutor(2 * AT_ONCE) as pool:
        return list(pool.map(lambda sent: server.post(schema.PREDICT, *sent).status, bodies))


def costly_tensors(server: Server) -> list[int]:
    """Statuses of tensors of more elements than their shapes say."""
    binary = struct.pack("<I", 0) * (schema.MAX_BODY_BYTES // 4 - 1024)
    tensor = {"name": "image", "datatype": "BYTES", "shape": [1], "parameters": {"binary_data_size": len(binary)}}
    text = json.dumps({"inputs": [tensor]}).encode()
    headers = {"Inference-Header-Content-Length": str(len(text))}
    path = f"/v2/models/{server.get('/version').json['model']['name']}/infer"
    with ThreadPoolExecutor(AT_ONCE) as pool:
        return list(pool.map(lambda _: server.ask("POST", path, text + binary, headers).status, range(AT_ONCE)))


@pytest.mark.parametrize(
    ("model", "send", "statuses"),
    [
        pytest.param("efficientnet-lite0-imagenet", costly_batches, {200, 503}, id="batches of a large model"),
        pytest.param("iris", costly_rows, {413}, id="rows"),
        pytest.param("resnet18-cifar10", costly_tensors, {400, 503}, id="tensors"),
    ],
)
def test_other_models_and_forms_fit_the_smallest_target(tmp_path, model, send, statuses):
    settings = {"ENGINE": "onnx", "MODEL_DIR": f"models/{model}", "MANAGE_TOKEN": "m" * MIN_TOKEN_CHARACTERS}
    with ready_service(tmp_path / "log", **settings) as server:
        found = send(server)
        assert set(found) <= statuses, found
        assert peak_mib(server) < SMALLEST_MIB, found
