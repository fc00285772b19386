"""./cloudtrial label on the golden set: what is labelled, what a person gets, and what a person's decisions do."""

from __future__ import annotations

import csv
import json
import os
import shutil
import signal
import subprocess
import time
from pathlib import Path

import pytest

from service.model import sha256
from tests.conftest import ROOT
from tests.helpers.unlabelled import NOISE, golden_class, write_label_folders, write_noise
from training.__main__ import main
from training.labelling import answers, command
from training.labelling.folders import class_folder, file_names

pytestmark = pytest.mark.integration

MODEL = "resnet18-cifar10"
NOT_UTF8 = "caf\\udce9.png"
CIFAR10 = os.environ.get("CIFAR10_DIR")
TESTS_LEFT_OUT = "" if CIFAR10 else "no test of labels for CIFAR-10's own files: CIFAR10_DIR names no folder"


@pytest.fixture(scope="module", autouse=True)
def onnx():
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("ENGINE", "onnx")
        yield


def propose(new: Path, held_out: Path, out: Path, *options: str, precision: str = "0.8") -> None:
    words = ["label", "propose", "--unlabelled", new, "--held-out", held_out, "--model", MODEL, "--out", out]
    main([*map(str, words), "--precision", precision, *options])


def rows(path: Path) -> list[dict[str, str]]:
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


@pytest.fixture(scope="module")
def folders(tmp_path_factory) -> tuple[Path, Path]:
    """Held-out and unlabelled images; of the latter some are copies, broken, or no images."""
    held_out, new = write_label_folders(tmp_path_factory.mktemp("label"))
    some = next(new.glob("*.png"))
    shutil.copy(some, new / "noise" / "zz-copy.png")
    shutil.copy(next((held_out / "cat").glob("*-cat.png")), new / "known.png")
    (new / "broken.png").write_bytes(some.read_bytes()[:100])
    (new / os.fsdecode(b"caf\xe9.png")).write_bytes(some.read_bytes())  # as an older system names it
    (new / "notes.txt").write_text("none", encoding="utf-8")
    (new / "noise" / some.name).write_bytes((new / "noise" / "00.png").read_bytes())  # another image of the same name
    (new / "noise" / "00.png").unlink()
    return held_out, new


@pytest.fixture(scope="module")
def proposal(folders, tmp_path_factory) -> Path:
    held_out, new = folders
    out = tmp_path_factory.mktemp("proposed") / "out"
    propose(new, held_out, out)
    return out


def test_sure_images_get_labels_and_no_file_is_moved(proposal, folders):
    labelled = rows(proposal / "labelled.csv")
    golden = [row for row in labelled if not row["path"].startswith("noise/")]
    assert len(golden) == 50 and all(row["label"] == golden_class(Path(row["path"])) for row in golden)
    assert len(labelled) < 60  # of the noise at most what the precision allows
    for row in labelled:
        copy, source = proposal / "labelled" / row["label"] / row["file"], folders[1] / row["path"]
        assert sha256(copy) == sha256(source) and copy.stat().st_nlink == 1


def test_the_rest_is_for_a_person_least_certain_first(proposal):
    review = rows(proposal / "review" / "review.csv")
    margins = [float(row["margin"]) for row in review]
    assert margins == sorted(margins) and len(review) > 10
    assert all(row["path"].startswith("noise/") and row["second"] != row["proposed"] for row in review)


def test_every_file_is_somewhere(proposal, folders):
    left_out = {row["path"]: row["reason"] for row in rows(proposal / "left_out.csv")}
    assert left_out.keys() == {"noise/zz-copy.png", "known.png", "broken.png", "notes.txt", NOT_UTF8}
    assert json.loads((proposal / "proposal.json").read_text(encoding="utf-8"))["left_out"] == len(left_out)
    assert left_out[NOT_UTF8] == "its name is not UTF-8; rename it"
    assert left_out["known.png"].startswith("the same as the held-out image cat/")
    assert left_out["noise/zz-copy.png"].startswith("the same as ")
    tables = (proposal / "labelled.csv", proposal / "review" / "review.csv")
    named = [row["path"] for table in tables for row in rows(table)] + list(left_out)
    there = [path.relative_to(folders[1]).as_posix() for path in folders[1].rglob("*") if path.is_file()]
    assert sorted(named) == sorted(name.replace("\udce9", "\\udce9") for name in there)


def test_the_figures_are_in_proposal_json(proposal, folders):
    content = json.loads((proposal / "proposal.json").read_text(encoding="utf-8"))
    assert content["held_out"] == 50 + NOISE and content["precision"] == 0.8
    threshold = content["threshold"]
    assert threshold["bound"] >= 0.8 and threshold["bound_of_labels"] >= 0.8
    assert threshold["labels"] == content["labelled"] == sum(each["labels"] for each in content["per_class"].values())
    assert content["model"]["engine"] == "onnx" and content["unlabelled"] == str(folders[1])


@pytest.mark.parametrize("name", ["100%", class_folder("100%")])
def test_held_out_folders_have_the_names_of_classes_or_of_label(name, folders, tmp_path):
    model = shutil.copytree(ROOT / "models" / MODEL, tmp_path / "model", copy_function=os.link)
    manifest = (model / "model.json").read_text(encoding="utf-8")
    (model / "model.json").unlink()  # a link
    (model / "model.json").write_text(manifest.replace('"cat"', '"100%"'), encoding="utf-8")
    held_out = shutil.copytree(folders[0], tmp_path / "held-out")
    (held_out / "cat").rename(held_out / name)
    propose(folders[1], held_out, tmp_path / "out", "--model", str(model))
    assert any(row["label"] == "100%" for row in rows(tmp_path / "out" / "labelled.csv"))


def test_nothing_is_labelled_where_nothing_is_shown(folders, tmp_path, capsys):
    held_out, new = folders
    with pytest.raises(SystemExit) as ended:
        propose(new, held_out, tmp_path / "out", precision="0.999")
    assert ended.value.code == 3
    said = capsys.readouterr().out
    assert "no label at 99.9%: the best that 70 held-out images show is at least" in said
    assert not list((tmp_path / "out" / "labelled").iterdir())
    assert len(rows(tmp_path / "out" / "review" / "review.csv")) == 70


def test_what_weakens_the_promise_is_said(folders, tmp_path, capsys):
    held_out = tmp_path / "held-out"
    shutil.copytree(folders[0], held_out)
    shutil.rmtree(held_out / "cat")
    shutil.copy(next((held_out / "dog").glob("*-dog.png")), held_out / "dog" / "copy.png")
    (held_out / "dog" / "broken.png").write_bytes(b"none")
    new = tmp_path / "new"
    new.mkdir()
    (new / "broken.png").write_bytes(b"none")
    with pytest.raises(SystemExit) as ended:
        propose(new, held_out, tmp_path / "out")
    assert ended.value.code == 3
    said = capsys.readouterr().out
    assert "63 held-out images (and 2 copies or unreadable files), 1 unlabelled" in said
    assert "no label at 80%: there is no image to label" in said
    assert "1 left out, each with the reason in left_out.csv; the first: broken.png: the 4 bytes are no " in said
    assert "warning: no held-out image is of cat: " in said


def test_a_stopped_run_goes_on_and_links_on_demand(folders, proposal, tmp_path, monkeypatch):
    held_out, new = folders
    asked = []

    def counted(read, classifier, file):
        asked.append(sum(pixels is not None for _, pixels in read))
        if sum(asked) > 40:
            raise KeyboardInterrupt
        return original(read, classifier, file)

    original = answers._answer_batch
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(answers, "_answer_batch", counted)
        propose(new, held_out, tmp_path / "out", "--link")
    with (tmp_path / "out.part" / "answers.jsonl").open("a", encoding="utf-8") as file:
        file.write('{"file_sha256": "torn')
    asked.clear()
    monkeypatch.setattr(answers, "_answer_batch", lambda *read: asked.append(1) or original(*read))
    known = len((tmp_path / "out.part" / "answers.jsonl").read_text(encoding="utf-8").splitlines()) - 2
    assert known == 32
    propose(new, held_out, tmp_path / "out", "--link")
    assert (tmp_path / "out" / "labelled.csv").read_bytes() == (proposal / "labelled.csv").read_bytes()
    assert not (tmp_path / "out.part").exists()
    first = rows(tmp_path / "out" / "labelled.csv")[0]
    assert (tmp_path / "out" / "labelled" / first["label"] / first["file"]).samefile(new / first["path"])


def test_ctrl_c_is_one_line_and_keeps_the_answers(folders, tmp_path):
    for number in range(600):
        write_noise(tmp_path / "new" / f"{number}.png", number)
    words = ["--unlabelled", tmp_path / "new", "--held-out", folders[0], "--model", MODEL, "--out", tmp_path / "out"]
    command_line = [ROOT / "cloudtrial", "label", "propose", *words]
    kept = tmp_path / "out.part" / "answers.jsonl"
    with subprocess.Popen(command_line, stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True) as process:
        while process.poll() is None and not (kept.exists() and len(kept.read_bytes().splitlines()) > 16):
            time.sleep(0.01)
        process.send_signal(signal.SIGINT)
        said = process.communicate()[1]
    assert process.returncode == 130
    assert said.splitlines()[-1] == "cloudtrial: stopped" and "Traceback" not in said
    assert all(json.loads(line) for line in kept.read_text(encoding="utf-8").splitlines())
    assert not (tmp_path / "out").exists()


def decide(table: Path, decisions: list[tuple[str, str]]) -> Path:
    with table.open("w", encoding="utf-8", newline="") as file:
        csv.writer(file).writerows([("path", "label"), *decisions])
    return table


def test_a_persons_decisions_are_sorted_into_class_folders(proposal, tmp_path, capsys):
    out = tmp_path / "out"
    shutil.copytree(proposal, out)
    first, second, third = (row["path"] for row in rows(out / "review" / "review.csv")[:3])
    table = decide(tmp_path / "decisions.csv", [(first, "cat"), (second, " dog "), (third, "")])
    main(["label", "apply", str(table), "--proposal", str(out)])
    assert "2 images added, 0 were there" in capsys.readouterr().out
    main(["label", "apply", str(table), "--proposal", str(out)])
    assert "0 images added, 2 were there" in capsys.readouterr().out
    file_of = {row["path"]: row["file"] for row in rows(out / "review" / "review.csv")}
    assert (out / "labelled" / "cat" / file_of[first]).is_file() and (
        out / "labelled" / "dog" / file_of[second]
    ).is_file()


def test_review_csv_itself_can_be_filled_in(proposal, tmp_path):
    out = tmp_path / "out"
    shutil.copytree(proposal, out)
    table = out / "review" / "review.csv"
    lines = table.read_text(encoding="utf-8-sig").splitlines()
    table.write_text("\ufeff" + "\n".join([lines[0], lines[1] + "sponge/cloth", *lines[2:]]) + "\n", encoding="utf-8")
    with pytest.raises(SystemExit, match="'sponge/cloth' is no class of the model"):
        main(["label", "apply", str(table)])
    main(["label", "apply", str(table), "--new-classes"])
    assert [path.name for path in (out / "labelled").iterdir() if path.name.startswith("sponge")] == ["sponge%2Fcloth"]


@pytest.mark.parametrize(
    ("decisions", "message"),
    [
        pytest.param([("../secret.png", "cat")], "none of the images for a person", id="not of the proposal"),
        pytest.param([(0, "cat"), (0, "dog")], "in an earlier row; keep one", id="two labels"),
        pytest.param([(0, "kat")], "no class of the model", id="unknown class"),
    ],
)
def test_a_decision_that_cannot_be_applied_touches_nothing(proposal, tmp_path, decisions, message):
    review = rows(proposal / "review" / "review.csv")
    before = sorted((proposal / "labelled").rglob("*"))
    named = [(review[path]["path"] if isinstance(path, int) else path, label) for path, label in decisions]
    good = (review[1]["path"], "cat")
    table = decide(tmp_path / "decisions.csv", [good, *named])
    with pytest.raises(SystemExit, match=message):
        main(["label", "apply", str(table), "--proposal", str(proposal)])
    assert sorted((proposal / "labelled").rglob("*")) == before


def test_an_image_is_not_labelled_a_second_time(proposal, tmp_path):
    out = tmp_path / "out"
    shutil.copytree(proposal, out)
    path = rows(out / "review" / "review.csv")[0]["path"]
    main(["label", "apply", str(decide(tmp_path / "a.csv", [(path, "cat")])), "--proposal", str(out)])
    with pytest.raises(SystemExit, match=r"was labelled before: .*cat"):
        main(["label", "apply", str(decide(tmp_path / "b.csv", [(path, "dog")])), "--proposal", str(out)])


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--held-out", "nowhere"], "no folder nowhere"),
        (["--unlabelled", "nowhere"], "no folder nowhere"),
        (["--model", "resnet19"], "there is no model 'resnet19': name one of .*resnet18-cifar10"),
        (["--model", "iris"], "takes rows of 4 numbers, not images"),
        (["--held-out", "{new}"], "noise is no class of the model, which has airplane, "),
        (["--out", "{new}/out"], "lies in .*, whose images are read"),
        (["--out", "{new}"], "exists; name another folder with --out"),
        (["--out", "{new}/broken.png/out"], "lies in .*, whose images are read"),
        (["--out", "/proc/none/out"], "No such file or directory"),
    ],
    ids=lambda value: value if isinstance(value, str) else None,
)
def test_what_cannot_be_done_is_one_line(folders, tmp_path, monkeypatch, words, message):
    monkeypatch.delenv("ENGINE")  # of iris there is onnx alone
    monkeypatch.setattr(command, "answer_all", lambda *_: pytest.fail("it should have ended before"))
    held_out, new = folders
    words = [word.format(new=new) for word in words]
    common = ["--unlabelled", str(new), "--held-out", str(held_out), "--model", MODEL, "--out", str(tmp_path / "out")]
    with pytest.raises(SystemExit, match=f"^label: .*{message}"):
        main(["label", "propose", *common, *words])


def test_held_out_images_are_asked_for(folders, capsys):
    with pytest.raises(SystemExit, match=r"^label: name with --held-out class folders"):
        main(["label", "propose", "--unlabelled", str(folders[1]), "--model", MODEL])


@pytest.mark.parametrize("precision", ["1", "0", "99%", "nan"])
def test_a_precision_that_none_can_show_is_refused(precision, capsys):
    with pytest.raises(SystemExit):
        main(["label", "propose", "--unlabelled", "x", "--model", "y", "--precision", precision])
    assert "no fraction above 0 and below 1, such as 0.99" in capsys.readouterr().err


def test_a_class_is_a_folder_whatever_its_name():
    assert class_folder("maillot, tank suit") == "maillot, tank suit"
    assert [class_folder(name) for name in ("a/b", "..", ".git", "100%", "end.")] == [
        "a%2Fb", "%2E%2E", "%2Egit", "100%25", "end%2E",
    ]  # fmt: skip
    assert os.sep not in class_folder("/etc/passwd")


def test_files_of_the_same_name_do_not_meet():
    names = ["a/1.png", "b/1.png", "b/2.png", "A/1.PNG", "a__1.png"]
    files = file_names(names)
    assert files["b/2.png"] == "2.png" and files["b/1.png"] == "b__1.png"
    assert len({file.casefold() for file in files.values()}) == len(names)


if CIFAR10:  # which is in no repository

    @pytest.mark.slow
    def test_labels_of_cifar10s_own_files_are_right(tmp_path):
        held_out, new = tmp_path / "held-out", tmp_path / "new"
        new.mkdir()
        for folder in sorted((Path(CIFAR10 or "") / "test").iterdir()):
            (held_out / folder.name).mkdir(parents=True)
            for number, path in enumerate(sorted(folder.glob("*.png"))[:120]):
                target = new / f"{number}-{folder.name}.png" if number % 2 else held_out / folder.name / path.name
                target.symlink_to(path)
        propose(new, held_out, tmp_path / "out", precision="0.95")
        labelled = rows(tmp_path / "out" / "labelled.csv")
        right = [row["label"] == golden_class(Path(row["path"])) for row in labelled]
        assert len(right) > 0.5 * 600 and sum(right) >= 0.95 * len(right)
