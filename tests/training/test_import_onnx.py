"""./cloudtrial import: anyone's trained network in an ONNX file becomes a bundle, if it is right on labelled images."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper
from PIL import Image

from service.engines.onnx_engine import OnnxEngine
from service.images.preprocess import decode_image
from service.model import load_for_engine
from service.monitoring.reference import read_reference
from training.__main__ import main
from training.own_commands import IMPORT_EXAMPLES

COLOURS = {"blue": (30, 40, 220), "green": (20, 200, 40), "red": (230, 30, 20)}
SIZE_PX, IMAGES = 8, 6
PIXELS = ("--mean", "0,0,0", "--std", "1,1,1")


@pytest.fixture(scope="module")
def photos(tmp_path_factory) -> Path:
    """Folders of images in one colour each, with noise."""
    folder, rng = tmp_path_factory.mktemp("photos"), np.random.default_rng(1)
    for name, colour in COLOURS.items():
        (folder / name).mkdir()
        for number in range(IMAGES):
            pixels = np.clip(rng.normal(colour, 20, (20, 30, 3)), 0, 255).astype(np.uint8)
            Image.fromarray(pixels).save(folder / name / f"{number}.png")
    return folder


def write_network(
    path: Path,
    *,
    order: tuple[str, ...] = tuple(COLOURS),
    layout: str = "NCHW",
    batch: int | str = "N",
    side: int | str = SIZE_PX,
    head: str = "logits",
    dtype: int = TensorProto.FLOAT,
) -> Path:
    """A network that knows a class by the mean of its colour; its inner names are those of the service's ends."""
    channel = {"red": 0, "green": 1, "blue": 2}
    matrix = np.zeros((3, len(order)), np.float32)
    for column, name in enumerate(order):
        matrix[channel[name], column] = 9
    shape = [batch, 3, side, side] if layout == "NCHW" else [batch, side, side, 3]
    rows = batch if isinstance(batch, int) else -1
    nodes = [
        helper.make_node("ReduceMean", ["x"], ["images"], axes=[2, 3] if layout == "NCHW" else [1, 2], keepdims=1),
        helper.make_node("Reshape", ["images", "flat"], ["rows"]),
        helper.make_node("MatMul", ["rows", "matrix"], ["probabilities" if head == "softmax" else "y"]),
    ]
    if head == "softmax":
        nodes.append(helper.make_node("Softmax", ["probabilities"], ["y"], axis=1))
    graph = helper.make_graph(
        nodes, "colours",
        [helper.make_tensor_value_info("x", dtype, shape)],
        [helper.make_tensor_value_info("y", dtype, [batch, len(order)])],
        [numpy_helper.from_array(matrix, "matrix"), numpy_helper.from_array(np.array([rows, 3]), "flat")],
    )  # fmt: skip
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8), path)
    return path


def import_model(file: Path, images: Path, bundle: Path, *more: str | Path) -> None:
    main(["import", str(file), "--images", str(images), "--bundle", str(bundle), *map(str, more)])


@pytest.mark.integration
def test_the_line_that_help_gives_for_pytorch_writes_such_a_file(photos, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    net = torch.nn.Sequential(torch.nn.AdaptiveAvgPool2d(1), torch.nn.Flatten(), torch.nn.Linear(3, 3))
    with torch.no_grad():
        net[2].weight.copy_(torch.eye(3).flip(0) * 9)
    exec(
        IMPORT_EXAMPLES.partition("write the file with\n")[2].replace("  torch.onnx", "torch.onnx"),
        {"torch": torch, "net": net},
    )
    import_model(Path("mine.onnx"), photos, tmp_path / "mine", *PIXELS)
    assert "100.00%" in capsys.readouterr().out
    assert load_for_engine(tmp_path / "mine", "onnx").image.size_px == 224


@pytest.mark.parametrize("layout", ["NCHW", "NHWC"])
@pytest.mark.parametrize("head", ["logits", "softmax"])
def test_a_network_of_anyones_is_served(photos, tmp_path, capsys, layout, head):
    folder = tmp_path / "mine"
    import_model(write_network(tmp_path / "net.onnx", layout=layout, head=head), photos, folder, *PIXELS)
    assert "100.00% (82.41% to 100.00%) of 18" in capsys.readouterr().out
    bundle = load_for_engine(folder, "onnx")
    assert bundle.classes == tuple(COLOURS) and bundle.engine("onnx").precision == "float32"
    photo = (photos / "red" / "0.png").read_bytes()
    (row,) = OnnxEngine(bundle).probabilities(decode_image(photo, bundle)[None])
    mean = np.asarray(Image.open(photos / "red" / "0.png").crop((5, 0, 25, 20)).resize((8, 8), 3)).mean((0, 1)) / 255
    scores = np.exp(9 * mean[::-1])  # blue, green, red
    assert row == pytest.approx(scores / scores.sum(), abs=1e-3)
    reference = read_reference(bundle, "onnx")
    assert reference is not None and reference.count == 18


def test_classes_are_in_the_order_of_the_network(photos, tmp_path):
    order = ("red", "blue", "green")
    file = write_network(tmp_path / "net.onnx", order=order)
    with pytest.raises(SystemExit, match=r"right on 0\.0% of 18 images, and always answering .* on 33\.3%: are --mean"):
        import_model(file, photos, tmp_path / "mine", *PIXELS)
    names = tmp_path / "names.txt"
    names.write_text("red\nblue\ngreen\n", encoding="utf-8")
    import_model(file, photos, tmp_path / "mine", *PIXELS, "--classes", names, "--floor", "1")
    assert load_for_engine(tmp_path / "mine", "onnx").classes == order


@pytest.mark.parametrize(
    ("network", "told"),
    [
        ({"batch": 1}, "cannot run a batch of images .*first dimension that is not fixed"),
        ({"side": "height"}, r"takes x \[N, 3, height, height\], images of any size; name the side .* with --size"),
        ({"dtype": TensorProto.DOUBLE}, "the input of .*, x, is of double; export it with one of float32"),
        ({"order": ("red", "blue")}, r"has 3 class folders, and the network has 2; --classes FILE"),
    ],
)
def test_what_the_service_cannot_run_is_refused_in_words(photos, tmp_path, network, told):
    with pytest.raises(SystemExit, match=f"^import: .*{told}"):
        import_model(write_network(tmp_path / "net.onnx", **network), photos, tmp_path / "mine", *PIXELS)
    assert not (tmp_path / "mine").exists()


def test_what_is_no_network_of_images_is_refused_in_words(photos, tmp_path):
    broken = tmp_path / "broken.onnx"
    with pytest.raises(SystemExit, match=r"^import: no file .*broken\.onnx: name an ONNX file"):
        import_model(broken, photos, tmp_path / "mine")
    broken.write_bytes(b"\x80\x04 a pickle")
    with pytest.raises(SystemExit, match=r"^import: .*broken\.onnx is no ONNX file that can be read"):
        import_model(broken, photos, tmp_path / "mine")
    with pytest.raises(SystemExit, match=r"takes features \[\?, 4\]; the service sends images"):
        import_model(Path("models/iris/model.onnx").resolve(), photos, tmp_path / "mine")


def test_the_side_and_the_classes_may_be_open(photos, tmp_path):
    file = write_network(tmp_path / "net.onnx", side="height")
    model = onnx.load(file)
    model.graph.output[0].type.tensor_type.shape.dim[1].dim_param = "classes"
    onnx.save(model, file)
    (tmp_path / "run").mkdir()
    shutil.copytree(photos, tmp_path / "run" / "test")
    import_model(file, tmp_path / "run", tmp_path / "mine", *PIXELS, "--size", "16", "--resize", "20")
    taken = load_for_engine(tmp_path / "mine", "onnx").image
    assert (taken.size_px, taken.resize_px) == (16, 20)
    with pytest.raises(SystemExit, match=r"takes x \[N, 3, 8, 8\] and --size is 16; the service sends squares"):
        import_model(write_network(file), photos, tmp_path / "mine", *PIXELS, "--size", "16")


def test_a_network_with_branches_keeps_its_weights(photos, tmp_path):
    file = write_network(tmp_path / "net.onnx")
    model = onnx.load(file)
    matrix = next(each for each in model.graph.initializer if each.name == "matrix")
    matrix.name = "images_matrix"
    product = helper.make_node("MatMul", ["rows", "images_matrix"], ["probabilities"])
    branch = helper.make_graph(
        [product], "branch", [], [helper.make_tensor_value_info("probabilities", TensorProto.FLOAT, None)]
    )
    chosen = helper.make_node("If", ["yes"], ["y"], then_branch=branch, else_branch=branch)
    del model.graph.node[2]
    model.graph.node.append(chosen)
    model.graph.initializer.append(numpy_helper.from_array(np.array(True), "yes"))
    onnx.save(model, file)
    import_model(file, photos, tmp_path / "mine", *PIXELS)
    assert (tmp_path / "mine" / "model.onnx").exists()


def test_a_file_in_the_model_that_is_replaced_is_kept(photos, tmp_path):
    import_model(write_network(tmp_path / "net.onnx"), photos, tmp_path / "mine", *PIXELS)
    new = write_network(tmp_path / "mine" / "new.onnx")
    with pytest.raises(SystemExit, match=r"new\.onnx lies in .*mine, which is replaced"):
        import_model(new, photos, tmp_path / "mine", *PIXELS)
    assert new.exists()


@pytest.mark.parametrize(
    ("content", "told"),
    [
        (b"red\nred\nblue\n", "names the class 'red' twice"),
        ("rot\ngrün\nblau\n".encode("utf-16"), "is no text in UTF-8"),
        (b"red\nblue\n", "names.txt has 2 names, and the network has 3"),
        (b"red\nblue\ncyan\n", "has the folder 'green', and .* no such class"),
    ],
)
def test_a_file_of_names_that_does_not_fit_is_refused(photos, tmp_path, content, told):
    (tmp_path / "names.txt").write_bytes(content)
    file = write_network(tmp_path / "net.onnx")
    with pytest.raises(SystemExit, match=f"^import: .*{told}"):
        import_model(file, photos, tmp_path / "mine", *PIXELS, "--classes", tmp_path / "names.txt")


def test_a_network_of_two_outputs_is_told_what_to_leave_out(photos, tmp_path):
    file = write_network(tmp_path / "net.onnx")
    model = onnx.load(file)
    model.graph.output.append(helper.make_tensor_value_info("rows", TensorProto.FLOAT, ["N", 3]))
    onnx.save(model, file)
    with pytest.raises(SystemExit, match=r"has 2 outputs, y, rows; export the network with one, of scores"):
        import_model(file, photos, tmp_path / "mine", *PIXELS)


def test_a_network_that_mixes_the_images_of_a_batch_is_refused(photos, tmp_path):
    file = write_network(tmp_path / "net.onnx")
    model = onnx.load(file)
    model.graph.node[2].input[0] = "mixed"
    model.graph.node.insert(2, helper.make_node("CumSum", ["rows", "axis"], ["mixed"]))
    model.graph.initializer.append(numpy_helper.from_array(np.array(0), "axis"))
    model.graph.node[2].attribute.append(helper.make_attribute("reverse", 1))
    onnx.save(model, file)
    with pytest.raises(SystemExit, match="answers otherwise for an image in a batch than alone"):
        import_model(file, photos, tmp_path / "mine", *PIXELS)


@pytest.mark.parametrize(
    ("option", "value"), [("--mean", "0.5"), ("--mean", "0.5,0.5,x"), ("--std", "0,1,1"), ("--std", "1,1,nan")]
)
def test_a_value_for_each_channel_is_asked_for(photos, tmp_path, capsys, option, value):
    with pytest.raises(SystemExit, match="2"):
        import_model(tmp_path / "net.onnx", photos, tmp_path / "mine", option, value)
    assert "three numbers" in capsys.readouterr().err
