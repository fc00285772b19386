"""./cloudtrial finetune, export RUN and promote RUN: own folders of images become a bundle."""

from __future__ import annotations

import json
import os
import pickle
import re
import shutil
from pathlib import Path
from urllib.error import URLError

import numpy as np
import pytest
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file

from service.classifier import Classifier
from service.images.preprocess import decode_image
from service.model import load_bundle
from service.monitoring.reference import read_reference
from service.settings import Settings
from tests.conftest import ROOT
from tests.helpers.class_folders import write_class_folders
from training.__main__ import main
from training.bundles.from_run import promote_run
from training.errors import BaseError, PromotionError
from training.finetune import run as finetune_run
from training.finetune import run_folder
from training.finetune.dataset import file_array, read_dataset
from training.networks.bases import build, find_base, load_weights
from training.networks.tensor_file import read_tensors

pytestmark = pytest.mark.integration

SMALL = ("--base", "mobilenet_v3_small", "--weights", "none", "--size", "32")


def finetune(*arguments: str | Path) -> None:
    main(["finetune", *map(str, arguments)])


@pytest.fixture(scope="module")
def finished(tmp_path_factory) -> Path:
    """Two folders of images, fine-tuned, exported and promoted: data/, run/ and models/mine."""
    root = tmp_path_factory.mktemp("own")
    write_class_folders(root / "data", {"ant": 14, "bee": 14})
    finetune(root / "data", "--base", "resnet18-cifar", "--out", root / "run")
    main(["export", str(root / "run")])
    main(["promote", str(root / "run"), "--bundle", str(root / "models" / "mine")])
    return root


def test_a_run_measures_once_on_images_set_aside(finished):
    run = json.loads((finished / "run" / "run.json").read_text(encoding="utf-8"))
    assert run["classes"] == ["ant", "bee"] and run["data"]["split_here"]
    assert (run["data"]["train"], run["data"]["validation"], run["data"]["test"]) == (20, 2, 6)
    assert run["metrics"]["n"] == 6 and run["metrics"]["accuracy"] == 1  # a colour is easily told
    assert run["metrics"]["recall"] == {"ant": 1, "bee": 1} and run["metrics"]["majority"] == 0.5
    held_out = {path.relative_to(finished / "run/test") for path in (finished / "run/test").rglob("*.png")}
    assert len(held_out) == 6 and all((finished / "data" / path).exists() for path in held_out)


def test_a_run_leaves_its_log_and_curves(finished):
    log = (finished / "run" / "log.csv").read_text(encoding="utf-8").splitlines()
    assert log[0].startswith("stage,epoch,train_loss") and len(log) == 41
    assert "validation accuracy" in (finished / "run" / "curves.svg").read_text(encoding="utf-8")


def test_both_onnx_files_answer_as_torch(finished):
    exports = json.loads((finished / "run" / "run.json").read_text(encoding="utf-8"))["exports"]
    assert exports["float32.onnx"]["max_abs_dprob"] < 1e-4
    assert exports["int8.onnx"]["agreement"] == exports["float32.onnx"]["agreement"] == 1


def test_the_bundle_starts_and_answers_with_either_engine(finished, monkeypatch):
    folder = finished / "models" / "mine"
    bundle = load_bundle(folder)
    assert bundle.classes == ("ant", "bee") and set(bundle.engines) == {"onnx", "torch"}
    for engine in bundle.engines:
        reference = read_reference(bundle, engine)
        assert reference and reference.count == 6 and set(reference.inputs) == {"brightness", "contrast"}
        assert reference.answers and reference.answers.labels == (0.5, 0.5) and reference.answers.accuracy == 1
    for engine in bundle.engines:
        classifier = Classifier.load(
            Settings.from_env({"MODEL_DIR": str(folder), "ENGINE": engine})
        )  # runs its self-test
        image = decode_image((finished / "data/bee/00.png").read_bytes(), bundle)
        ((prediction,), _) = classifier.classify([image])
        assert prediction.probabilities[1] > 0.9, engine


def test_a_model_of_both_engines_tells_the_accuracy_of_torch(finished):
    run = json.loads((finished / "run" / "run.json").read_text(encoding="utf-8"))
    manifest = json.loads((finished / "models/mine/model.json").read_text(encoding="utf-8"))
    assert manifest["metrics"] == {"test": run["metrics"] | {"data": "data, test images"}}


def test_a_useless_network_is_not_promoted(finished, tmp_path):
    with pytest.raises(PromotionError, match=r"^the accuracy on the test images is 100\.00%, not above 101\.00%"):
        promote_run(finished / "run", tmp_path / "mine", 1.01)
    assert not (tmp_path / "mine").exists()


def test_a_run_that_is_not_exported_is_not_promoted(finished, tmp_path):
    run = json.loads((finished / "run" / "run.json").read_text(encoding="utf-8"))
    del run["exports"]
    (tmp_path / "run.json").write_text(json.dumps(run), encoding="utf-8")
    os.link(finished / "run" / "checkpoint.safetensors", tmp_path / "checkpoint.safetensors")
    with pytest.raises(SystemExit, match=r"has no ONNX files: \./cloudtrial export"):
        main(["promote", str(tmp_path), "--bundle", str(tmp_path / "mine")])


def interrupt(*arguments: object, **options: object) -> None:
    raise KeyboardInterrupt


@pytest.mark.parametrize(
    ("options", "checkpoints"),
    [
        pytest.param((*SMALL, "--batch-size", "4", "--lr", "0.02"), 1, id="random weights"),
        pytest.param(("--base", "resnet18-cifar", "--unfreeze", "--seed", "3"), 1, id="before the whole network"),
        pytest.param(("--base", "resnet18-cifar", "--unfreeze", "--size", "16"), 2, id="amid the whole network"),
    ],
)
def test_a_resumed_run_ends_as_an_uninterrupted_one(options, checkpoints, monkeypatch, tmp_path):
    data = write_class_folders(tmp_path / "data", {"ant": 8, "bee": 8})
    finetune(data, *options, "--epochs", "2", "--out", tmp_path / "whole")
    left = iter(range(checkpoints - 1))
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(finetune_run, "draw_curves", lambda *_: None if next(left, None) is not None else interrupt())
        finetune(data, *options, "--epochs", "2", "--out", tmp_path / "resumed")
    finetune(data, "--out", tmp_path / "resumed", "--resume")  # with no other option
    expected, resumed = (load_file(tmp_path / run / "checkpoint.safetensors") for run in ("whole", "resumed"))
    assert expected.keys() == resumed.keys()
    assert all(torch.equal(expected[name], resumed[name]) for name in expected)
    runs = [json.loads((tmp_path / run / "run.json").read_text(encoding="utf-8")) for run in ("whole", "resumed")]
    for key in ("weights", "licence", "input", "seed", "options", "epochs", "metrics"):
        assert runs[0][key] == runs[1][key], key
    with pytest.raises(SystemExit, match="exists: add --resume or choose another --out"):
        finetune(data, "--out", tmp_path / "whole")


def test_a_run_with_its_last_layer_trained_can_be_unfrozen(copies):
    data, run = copies
    finetune(data, "--out", run, "--unfreeze", "--epochs", "1")
    content = json.loads((run / "run.json").read_text(encoding="utf-8"))
    assert content["epochs"] == {"head": 40, "whole": 1} and content["base"] == "resnet18-cifar"
    with pytest.raises(SystemExit, match=r"was started with the weights CIFAR-10 weights of .*, not random; choose"):
        finetune(data, "--out", run, "--resume", "--weights", "none")


def add_photos(data: Path) -> None:
    write_class_folders(data, {"ant": 18, "bee": 18})


def rename_photo(data: Path) -> None:
    (data / "ant" / "00.png").rename(data / "ant" / "99.png")


def add_class(data: Path) -> None:
    write_class_folders(data, {"cow": 14})


def rename_class(data: Path) -> None:
    (data / "ant").rename(data / "wasp")


@pytest.fixture
def copies(finished, tmp_path) -> tuple[Path, Path]:
    """The images of the finished run, and the run."""
    for name in ("data", "run"):
        shutil.copytree(finished / name, tmp_path / name)
    return tmp_path / "data", tmp_path / "run"


@pytest.mark.parametrize("change", [add_photos, rename_photo, add_class, rename_class])
def test_a_run_goes_on_with_the_same_files_alone(change, copies):
    data, run = copies
    change(data)
    before = (run / "run.json").read_bytes()
    for option in ("--unfreeze", "--resume"):
        with pytest.raises(SystemExit, match=r"^finetune: .*data has other classes or files than .*run was started"):
            finetune(data, "--base", "resnet18-cifar", "--out", run, option)
    with pytest.raises(SystemExit, match=r"^export: .*data has .*; name the same images"):
        main(["export", str(run), "--data", str(data)])
    assert (run / "run.json").read_bytes() == before


def test_a_run_that_names_no_files_goes_on_with_as_many(copies):
    data, run = copies
    content = json.loads((run / "run.json").read_text(encoding="utf-8"))
    del content["data"]["names_sha256"]  # as an earlier release left it
    (run / "run.json").write_text(json.dumps(content), encoding="utf-8")
    finetune(data, "--base", "resnet18-cifar", "--out", run, "--resume")
    (run / "run.json").write_text(json.dumps(content), encoding="utf-8")
    add_photos(data)
    with pytest.raises(SystemExit, match=r"has 28 training and 8 test images of 2 classes, the run had 22 and 6 of 2"):
        finetune(data, "--base", "resnet18-cifar", "--out", run, "--resume")


def test_what_a_folder_holds_of_the_users_own_is_kept(tmp_path):
    data = write_class_folders(tmp_path / "data", {"ant": 8, "bee": 8})
    for number, name in enumerate(("test/test_mine.py", "log.csv", "curves.svg")):
        mine = tmp_path / str(number) / name
        mine.parent.mkdir(parents=True)
        mine.write_text("mine")
        with pytest.raises(SystemExit, match=r"^finetune: .*(test|csv|svg) is there, and is of no run: name"):
            finetune(data, *SMALL, "--out", tmp_path / str(number))
        assert [path for path in (tmp_path / str(number)).rglob("*") if path.is_file()] == [mine]
        assert mine.read_text() == "mine"


def test_the_run_of_another_command_is_kept(tmp_path):
    data = write_class_folders(tmp_path / "data", {"ant": 8, "bee": 8})
    shutil.copy(ROOT / "reports" / "example" / "run.json", tmp_path)
    before = (tmp_path / "run.json").read_bytes()
    with pytest.raises(SystemExit, match=r"^finetune: .*run\.json is of no run of \./cloudtrial finetune"):
        finetune(data, *SMALL, "--out", tmp_path)
    assert (tmp_path / "run.json").read_bytes() == before


def test_a_run_that_was_killed_early_starts_again(monkeypatch, tmp_path):
    data = write_class_folders(tmp_path / "data", {"ant": 8, "bee": 8})
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(finetune_run, "copy_test_images", interrupt)
        finetune(data, *SMALL, "--epochs", "1", "--out", tmp_path / "run")
    (tmp_path / "run" / "test" / "ant").mkdir(parents=True)
    (tmp_path / "run" / "test" / "ant" / "half.png").write_bytes(b"")
    finetune(data, *SMALL, "--epochs", "1", "--out", tmp_path / "run")
    assert len(list((tmp_path / "run" / "test").rglob("*.png"))) == 4


def test_test_images_of_one_name_are_all_copied(tmp_path):
    data = tmp_path / "data"
    for camera in range(10):
        one = write_class_folders(tmp_path / str(camera), {"ant": 1, "bee": 1}, seed=camera)
        for label in ("ant", "bee"):
            shutil.copytree(one / label, data / label / f"camera{camera}")
    finetune(data, *SMALL, "--epochs", "1", "--out", tmp_path / "run")
    copies = [path.read_bytes() for path in (tmp_path / "run" / "test").glob("*/*.png")]
    assert len(set(copies)) == len(copies) == 4
    assert set(copies) == {path.read_bytes() for path in read_dataset(data, seed=0).test.paths}


def test_labels_are_matched_by_name(tmp_path):
    write_class_folders(tmp_path / "train", {"ant": 4, "bee": 4, "cow": 4})
    write_class_folders(tmp_path / "test", {"ant": 2, "cow": 2}, seed=1)
    dataset = read_dataset(tmp_path, seed=0)
    assert dataset.classes == ("ant", "bee", "cow")
    assert dataset.test.labels.tolist() == [0, 0, 2, 2]
    assert "test/ lacks bee: what is learnt of it is not measured" in dataset.notes


def test_what_speaks_against_the_data_is_noted(tmp_path):
    write_class_folders(tmp_path / "mine", {"ant": 40, "bee": 3})
    (tmp_path / "mine" / "bee" / "3.heic").write_bytes(b"a photo of a telephone")
    (tmp_path / "mine" / "bee" / ".DS_Store").write_bytes(b"")
    notes = " ".join(read_dataset(tmp_path / "mine", seed=0).notes)
    assert "9 of 43 images were set aside to test with" in notes
    assert "1 file is left out, as no image ends so: 3.heic" in notes
    assert "unbalanced: 32 images of ant, 2 of bee" in notes and "fewer than 20 training images of bee" in notes


@pytest.mark.parametrize(
    ("counts", "message"),
    [
        pytest.param({"ant": 9}, "has one class, 'ant'; a classifier needs at least two", id="one class"),
        pytest.param({"ant": 9, "bee": 1}, "has 1 training images of 'bee'", id="tiny"),
        pytest.param({"ant": 9, ".bee": 0}, "has one class, 'ant'", id="hidden"),
        pytest.param({"ant": 9, "bee": 0}, "holds no images; fill the folder or delete it", id="empty"),
    ],
)
def test_data_that_teaches_nothing_is_one_line(counts, message, tmp_path):
    data = write_class_folders(tmp_path / "data", counts)
    with pytest.raises(SystemExit, match=f"^finetune: .*{message}"):
        finetune(data, *SMALL, "--out", tmp_path / "run")
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("name", ["red\u00a0ant", "a" * 101], ids=["space", "long"])
def test_a_class_that_no_model_could_name_is_one_line(name, tmp_path):
    data = write_class_folders(tmp_path / "data", {"ant": 8, "bee": 8})
    (data / "ant").rename(data / name)
    with pytest.raises(SystemExit, match=r"^finetune: .*data has a class folder '.*': rename it; a name has to"):
        finetune(data, *SMALL, "--out", tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_a_test_class_that_is_not_taught_is_one_line(tmp_path):
    write_class_folders(tmp_path / "train", {"ant": 4, "bee": 4})
    write_class_folders(tmp_path / "test", {"ant": 2, "cow": 2})
    with pytest.raises(SystemExit, match=r"has classes that .*train lacks: cow; name the folders alike"):
        finetune(tmp_path, *SMALL, "--out", tmp_path / "run")


@pytest.mark.parametrize("other", ["val/ant/0.png", "test/0.png", "notes.txt"])
def test_a_train_folder_without_its_test_is_no_class(other, tmp_path):
    write_class_folders(tmp_path / "train", {"ant": 4, "bee": 4})
    (tmp_path / other).parent.mkdir(parents=True, exist_ok=True)
    shutil.copy(tmp_path / "train" / "ant" / "00.png", tmp_path / other)
    for words in (["describe", tmp_path], ["finetune", tmp_path, *SMALL]):
        with pytest.raises(SystemExit, match=r"holds train/CLASS/\* and no test/CLASS/\*: .* or give .*train alone$"):
            main([*map(str, words), "--out", str(tmp_path / "out")])


def test_a_class_may_have_the_name_of_a_split(tmp_path):
    write_class_folders(tmp_path, {"ant": 4, "bee": 4})
    (tmp_path / "ant").rename(tmp_path / "train")
    (tmp_path / "train" / "more").mkdir()
    assert read_dataset(tmp_path, seed=0).classes == ("bee", "train")


def test_a_class_of_other_files_is_not_told_to_be_deleted(tmp_path):
    data = write_class_folders(tmp_path / "data", {"ant": 8, "bee": 0})
    (data / "bee" / "1.heic").write_bytes(b"a photo of a telephone")
    with pytest.raises(
        SystemExit, match=r"bee holds 1 files, such as 1\.heic, and none ends as an image does: convert"
    ):
        finetune(data, *SMALL, "--out", tmp_path / "run")


def test_a_run_among_the_classes_is_refused(tmp_path):
    data = write_class_folders(tmp_path / "data", {"ant": 8, "bee": 8})
    with pytest.raises(SystemExit, match=r"run lies in .*data, whose folders are classes: name one elsewhere"):
        finetune(data, *SMALL, "--out", data / "run")
    assert not (data / "run").exists()


def test_test_images_that_were_learnt_from_are_told(tmp_path, capsys):
    data = write_class_folders(tmp_path / "data", {"ant": 8, "bee": 8})
    for number in range(8):
        shutil.copy(data / "ant" / "00.png", data / "ant" / f"copy {number}.png")
    finetune(data, *SMALL, "--epochs", "1", "--out", tmp_path / "run")
    assert re.search(r"note: copies of training images among the test images: [1-3]; the", capsys.readouterr().out)


def test_an_early_interruption_leaves_the_run_as_it_was(copies, monkeypatch):
    data, run = copies
    before = json.loads((run / "run.json").read_text(encoding="utf-8"))
    left = run / ".scratch-of-a-killed-run"
    left.mkdir()
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(finetune_run, "train_unfrozen", interrupt)
        finetune(data, "--out", run, "--unfreeze", "--epochs", "1")
    content = json.loads((run / "run.json").read_text(encoding="utf-8"))
    assert {**content, "options": None} == {**before, "options": None} and content["options"]["unfreeze"]
    assert not left.exists() and not list(run.glob(".scratch-*"))
    main(["promote", str(run), "--bundle", str(run.parent / "mine")])


def test_a_checkpoint_that_cannot_be_written_is_one_line(finished, tmp_path, monkeypatch):
    def full(*_: object) -> None:
        raise SafetensorError("No space left on device (os error 28)")

    monkeypatch.setattr(run_folder, "save_file", full)
    data = write_class_folders(tmp_path / "data", {"ant": 8, "bee": 8})
    with pytest.raises(
        SystemExit, match=r"^finetune: .*checkpoint\.safetensors\.part cannot be written: No space left"
    ):
        finetune(data, *SMALL, "--epochs", "1", "--out", tmp_path / "run")
    (finished.parent / "broken").mkdir(exist_ok=True)
    for name, content in (("run.json", (finished / "run/run.json").read_bytes()), ("checkpoint.safetensors", b"cut")):
        (tmp_path / "run" / name).write_bytes(content)
    with pytest.raises(SystemExit, match=r"^export: .*checkpoint\.safetensors cannot be read: .*; start again"):
        main(["export", str(tmp_path / "run"), "--data", str(finished / "data")])


def test_an_array_in_a_file_has_its_space_at_once(tmp_path):
    path = tmp_path / "a.npy"
    file_array(path, np.uint8, (2**20,))
    assert path.stat().st_blocks * 512 >= path.stat().st_size > 2**20


def test_corrupt_files_are_left_out_and_named(tmp_path, capsys):
    data = write_class_folders(tmp_path / "data", {"ant": 8, "bee": 8})
    (data / "ant" / "zz.png").write_bytes(b"no image at all")
    finetune(data, *SMALL, "--epochs", "1", "--out", tmp_path / "run")
    assert re.search(
        r"left out: 1 of 17 files cannot be read: zz.png \(the 15 bytes are no PNG", capsys.readouterr().out
    )
    for path in data.rglob("*.png"):
        path.write_bytes(b"no image at all")
    with pytest.raises(SystemExit, match=r"^finetune: 17 of 17 files cannot be read"):
        finetune(data, *SMALL, "--out", tmp_path / "other")


@pytest.mark.parametrize(("base", "size"), [("vgg16_bn", "16"), ("vit_b_16", "32")])
def test_a_size_that_a_network_cannot_take_is_one_line(base, size, tmp_path):
    data = write_class_folders(tmp_path / "data", {"ant": 8, "bee": 8})
    with pytest.raises(
        SystemExit, match=rf"^finetune: {base} takes no images of {size} px \(.*\); give another --size"
    ):
        finetune(data, "--base", base, "--weights", "none", "--size", size, "--out", tmp_path / "run")


@pytest.mark.parametrize("path", ["a.jpg", "a.jpg/run"])
def test_a_file_in_place_of_a_folder_is_one_line(path, tmp_path):
    data = write_class_folders(tmp_path / "data", {"ant": 8, "bee": 8})
    (tmp_path / "a.jpg").write_bytes(b"a photo")
    with pytest.raises(SystemExit, match=r"^finetune: \S*a\.jpg\S*( is no folder: name one with|: Not a directory$)"):
        finetune(data, *SMALL, "--out", tmp_path / path)
    assert (tmp_path / "a.jpg").read_bytes() == b"a photo"


def test_an_unknown_base_names_its_like(tmp_path):
    data = write_class_folders(tmp_path / "data", {"ant": 3, "bee": 3})
    with pytest.raises(SystemExit, match=r"there is no base 'resnet51'; take efficientnet_lite0.*resnet50"):
        finetune(data, "--base", "resnet51", "--out", tmp_path / "run")


def test_weights_that_cannot_be_downloaded_are_one_line(monkeypatch, tmp_path):
    def unreachable(*arguments: object) -> None:
        raise URLError("no route to host")

    monkeypatch.setattr("training.networks.bases.CACHE", tmp_path / "cache")
    monkeypatch.setattr(torch.hub, "download_url_to_file", unreachable)
    base = find_base("mobilenet_v3_small")
    with pytest.raises(BaseError, match=r"cannot be downloaded \(no route to host\); without a network take"):
        load_weights(build(base, 2), base, None)


@pytest.mark.parametrize("name", ["vgg16_bn", "mobilenet_v3_small", "resnet18-cifar", "efficientnet_lite0"])
def test_a_base_has_a_head_for_the_classes(name):
    base = find_base(name, 32)
    net = build(base, 7).eval()
    with torch.inference_mode():
        assert net(torch.zeros(1, 3, 32, 32)).shape == (1, 7)


@pytest.mark.parametrize("zipped", [True, False])
def test_tensors_are_read_without_unpickling(zipped, tmp_path, monkeypatch):
    state = torch.nn.Sequential(torch.nn.Conv2d(3, 4, 3), torch.nn.BatchNorm2d(4)).state_dict()
    torch.save(state, tmp_path / "state.pth", _use_new_zipfile_serialization=zipped)
    monkeypatch.setattr(pickle, "Unpickler", None)
    found = read_tensors(tmp_path / "state.pth")
    assert found.keys() == state.keys() and all(torch.equal(found[name], state[name]) for name in state)


class Hostile:
    """What runs a command when it is unpickled."""

    def __reduce__(self) -> tuple:
        return os.system, ("touch hacked",)


def test_a_file_that_would_run_code_is_refused(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    torch.save({"weight": Hostile()}, "bad.pth")
    with pytest.raises(BaseError, match=r"it calls (posix|nt) system; use a \.safetensors file"):
        read_tensors(Path("bad.pth"))
    assert not Path("hacked").exists()


def test_lite0_classifies_a_photo():
    base = find_base("efficientnet_lite0")
    net = build(base, 1000).eval()
    load_weights(net, base, None)
    data = (ROOT / "eval" / "golden" / "efficientnet-lite0-imagenet" / "coffee.jpg").read_bytes()
    image = decode_image(data, finetune_run.image_bundle(base, ("",) * 1000))
    with torch.inference_mode():
        probabilities = net(torch.from_numpy(image[None])).softmax(1)[0].numpy()
    assert int(np.argmax(probabilities)) == 967 and probabilities.max() > 0.8  # espresso
