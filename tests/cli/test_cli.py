"""The command line: one clear line for bad input, one JSON document on request, the right exit code, nothing half-written."""

from __future__ import annotations

import errno
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from shutil import copytree

import numpy as np
import pytest
import tifffile
from conftest import Outcome, set_options, texture, write_picture

from andon.cli.main import main
from andon.cli.options import print_table
from andon.core.errors import AndonError, OutputError
from andon.core.own_output import MARKER
from andon.exporting.latency import summarise
from andon.runs.folder import make_folder

FIT = ("--device", "cpu", *set_options())
COMMAND = (sys.executable, "-m", "andon")


def files(folder: Path) -> list[str]:
    paths = sorted(p.relative_to(folder).as_posix() for p in folder.rglob("*") if p.is_file())
    return [path for path in paths if not path.endswith(MARKER)]


@pytest.fixture
def quick(monkeypatch):
    """Evaluating without measuring the latency for seconds."""
    monkeypatch.setattr(
        "andon.exporting.latency.predict_latency", lambda *_, **__: summarise([1.0], scope="", machine="")
    )


def document(outcome: Outcome) -> object:
    """The one JSON document on stdout."""
    assert outcome.code == 0, outcome.err
    return json.loads(outcome.out, parse_constant=lambda name: pytest.fail(f"{name} is no JSON"))


# Nothing heavy before it is needed --------------------------------------------------------------------------------


LIGHT = [
    ("--help", 0),
    ("fit --help", 0),
    ("--version", 0),
    ("fit", 2),
    ("fti", 2),
    ("fit /nowhere", 2),
    ("fit /nowhere --detector nothing", 2),
    ("fit /nowhere --recipe nothing", 2),
    ("fit /nowhere --set seed=x", 2),
    ("predict /nowhere /nowhere.png", 2),
    ("evaluate /nowhere", 2),
    ("recipes", 0),
    ("weights list", 0),
    ("data list", 0),
    ("data fetch nothing", 2),
    ("data submission /nowhere /nowhere", 2),
    ("weights add /nowhere --name a --network b", 2),
]


def test_nothing_heavy_is_loaded_for_help_and_wrong_arguments():
    program = """
import sys, andon.cli.main
for line in sys.argv[1:]:
    sys.argv = ["andon", *line.split()]
    code = 0
    try:
        andon.cli.main.main()
    except SystemExit as end:
        code = end.code or 0
    heavy = [m for m in ("torch", "timm", "matplotlib", "torchvision") if m in sys.modules]
    print("##", code, *heavy)
"""
    arguments = [line for line, _ in LIGHT]
    done = subprocess.run(
        [sys.executable, "-c", program, *arguments], capture_output=True, text=True, check=True
    )
    ends = [line for line in done.stdout.splitlines() if line.startswith("##")]
    assert dict(zip(arguments, ends, strict=True)) == {line: f"## {code}" for line, code in LIGHT}


def test_module_is_the_command():
    done = subprocess.run([*COMMAND, "--version"], capture_output=True, text=True)
    assert done.returncode == 0
    assert done.stdout.startswith("andon 0.")


# Wrong arguments --------------------------------------------------------------------------------------------------


def test_help_is_wrapped_at_the_width_of_the_terminal(cli, monkeypatch):
    monkeypatch.setenv("COLUMNS", "400")
    (line,) = [line for line in cli("predict", "--help").out.splitlines() if "Use --out" in line]
    assert line.rstrip().endswith("is answered by one line of JSON.")


def test_no_argument_shows_the_help(cli):
    outcome = cli()
    assert outcome.code == 2
    assert "Usage: andon" in outcome.out + outcome.err
    assert "fit" in outcome.out + outcome.err


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["fti"], ["No such command 'fti'", "fit", "see `andon --help`"]),
        (["fit"], ["Missing argument 'DATA'", "see `andon fit --help`"]),
        (["fit", "x", "--recpe", "y"], ["No such option", "--recpe", "--recipe"]),
        (["data", "chek"], ["chek", "check", "see `andon data --help`"]),
        (
            ["fit", "x", "--detector", "eficientad_ast"],
            ["unknown detector 'eficientad_ast'; did you mean efficientad_ast?"],
        ),
        (["fit", "x", "--recipe", "lite"], ["unknown recipe", "east/lite0"]),
        (["fit", "x", "--recipe", "a.yaml"], ["a.yaml does not exist"]),
        (["fit", "x", "--detector", "padim", "--recipe", "efficientad_ast/starter"], ["padim"]),
        (["fit", "x", "--set", "seed"], ["key=value"]),
        (["fit", "x", "--set", "seed=x"], ["seed='x'", "integer"]),
        (["pretrain", "pdn", "--name", "a", "--seed", f"{2**64}"], ["--seed", f"{2**63 - 1}"]),
        (["pretrain", "pdn", "--name", "a", "--seed", "-1"], ["--seed", "greater than or equal to 0"]),
        (["recipes", "efficientad_ast/startr"], ["did you mean efficientad_ast/starter"]),
        (["data", "check", "x"], ["x does not exist"]),
        (["weights", "fetch", "startr"], ["did you mean starter"]),
        (["weights", "add", "x.pth", "--name", "a", "--network", "resnet18"], ["x.pth does not exist"]),
    ],
    ids=str,
)
def test_wrong_arguments_get_one_line(cli, arguments, words, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    line = cli(*arguments).complaint()
    assert all(word in line for word in words), line
    assert files(tmp_path) == []


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"teacher__epoch": 3}, ["unknown setting 'teacher.epoch'; did you mean teacher.epochs?"]),
        ({"teacher__epochs": "many"}, ["teacher.epochs='many'", "integer"]),
        ({"sed": 3}, ["did you mean seed?"]),
        ({"extractor__taps": "[layr2]"}, ["no tap 'layr2'", "layer2"]),
        ({"extractor__network": "resnet81"}, ["no network 'resnet81'", "resnet18"]),
        (
            {"extractor__network": "resnet34", "extractor__weights": "starter"},
            ["belong to resnet18, not to resnet34"],
        ),
        (
            {"extractor__weights": "resnet18.tv_in1k"},
            ["andon weights fetch resnet18.tv_in1k", "andon weights add"],
        ),
        ({"extractor__image_size": 72}, ["divisible by 8"]),
        ({"seed": 2**64}, [f"seed={2**64}", "less than or equal to"]),
        ({"seed": 10**22}, ["less than or equal to"]),
        ({"seed": -1, "tile__size": 32}, ["seed=-1", "greater than or equal to 0"]),
        ({"false_reject_rate": 0}, ["false_reject_rate=0", "greater than"]),
        ({"false_reject_rate": 1e-320}, ["greater than"]),
        ({"false_reject_rate": 1}, ["false_reject_rate=1", "less than 1"]),
    ],
    ids=str,
)
def test_wrong_settings_get_one_line(cli, dataset_folder, tmp_path, changes, words):
    line = cli("fit", dataset_folder, "--out", tmp_path / "run", *set_options(**changes)).complaint()
    assert all(word in line for word in words), line
    assert not (tmp_path / "run").exists()


def test_device_that_is_not_here(cli, dataset_folder, tmp_path):
    line = cli(
        "fit", dataset_folder, "--out", tmp_path / "run", *set_options(), "--device", "tpu"
    ).complaint()
    assert "choose one of auto, cpu" in line


def test_recipe_names_its_detector(cli, tmp_path):
    """--recipe with a full name or a file needs no --detector."""
    (tmp_path / "mine.yaml").write_text("detector: nothing\n")
    assert (
        "unknown detector 'nothing'"
        in cli("fit", write_two(tmp_path), "--recipe", tmp_path / "mine.yaml").complaint()
    )


def write_two(folder: Path) -> Path:
    for k in range(2):
        write_picture(folder / f"good/{k}.png", texture(k))
    return folder / "good"


# Bad data ---------------------------------------------------------------------------------------------------------


def empty(folder: Path) -> Path:
    folder.mkdir()
    return folder


def single(folder: Path) -> Path:
    write_picture(folder / "a.png", texture(0))
    return folder


def beside(folder: Path, write) -> Path:
    """Three good pictures and one that `write` makes."""
    for k in range(3):
        write_picture(folder / f"{k}.png", texture(k))
    write(folder / "bad.png")
    return folder


BAD_DATA = {
    "missing folder": (lambda f: f, ["does not exist: check the path"]),
    "missing folder beside others": (
        lambda f: empty(f.with_name("good")).with_name("nowhere"),
        ["nowhere does not exist: check the path; in ", " there are: ", "good"],
    ),
    "folder without pictures": (empty, ["holds no pictures", "`andon fit FOLDER`"]),
    "one picture": (single, ["1 picture", "at least 2", "add pictures"]),
    "a file": (lambda f: write_picture(f.with_suffix(".png"), texture(0)), ["is a file"]),
    "no picture inside": (lambda f: beside(f, lambda p: p.write_text("text")), ["bad.png", "cannot be read"]),
    "truncated": (
        lambda f: beside(f, lambda p: p.write_bytes((p.parent / "0.png").read_bytes()[:2000])),
        ["bad.png", "--skip-unreadable"],
    ),
    "1 x 1": (
        lambda f: beside(f, lambda p: write_picture(p, texture(0)[:1, :1])),
        ["bad.png is 1 x 1 pixels"],
    ),
    "float outside [0, 1]": (
        lambda f: beside(
            f, lambda p: tifffile.imwrite(p.with_suffix(".tif"), np.full((20, 20), 7, np.float32))
        ),
        ["bad.tif holds float values outside [0, 1]"],
    ),
}


@pytest.mark.parametrize("case", BAD_DATA)
def test_bad_data_gets_one_line_and_leaves_nothing(cli, tmp_path, case):
    make, words = BAD_DATA[case]
    line = cli("fit", make(tmp_path / "data"), "--out", tmp_path / "runs/a", *FIT).complaint()
    assert all(word in line for word in words), line
    assert not (tmp_path / "runs").exists()


def points_in_a_list(folder: Path) -> Path:
    """MVTec 3D-AD layout, whose clouds have lost their rows and columns."""
    for part, count in (("train", 4), ("validation", 2), ("test", 1)):
        for k in range(count):
            write_picture(folder / f"peg/{part}/good/rgb/{k:03}.png", texture(k))
            cloud = folder / f"peg/{part}/good/xyz/{k:03}.tiff"
            cloud.parent.mkdir(exist_ok=True)
            tifffile.imwrite(cloud, np.zeros((64 * 64, 3), np.float32), photometric="minisblack")
    return folder


def several(folder: Path) -> Path:
    for k in range(6):
        write_picture(folder / f"{k}.png", texture(k))
    return folder


BAD_FOR_A_DETECTOR = {
    "a backbone without the asked taps": (
        several,
        ["--recipe", "padim/starter", "--set", "extractor.taps=[layer1,layr2]"],
        ["network resnet18 has no tap 'layr2'", "did you mean layer2"],
    ),
    "too few pictures for a covariance": (
        single,
        ["--recipe", "padim/starter", "--set", "hold_out=false"],
        ["cannot give cross-fitted thresholds", "padim needs 2", "threshold_scores=held_out"],
    ),
    "a bank larger than memory": (
        several,
        ["--recipe", "patchcore/starter", "--set", "memory_gib=0.001"],
        ["a bank of 6144 patches", "GiB", "smaller extractor.image_size, or raise memory_gib"],
    ),
    "a gallery larger than memory": (
        several,
        ["--recipe", "spade/starter", "--set", "memory_gib=0.001"],
        [
            "a gallery of 6 pictures",
            "fewer pixel_taps or a smaller extractor.image_size, or raise memory_gib",
        ],
    ),
    "a point cloud that is not organised": (
        points_in_a_list,
        ["--detector", "ast", "--recipe", "starter-3d"],
        [
            "train/good/xyz/000.tiff is 4096 x 3 float32, not organised",
            "export one point (x, y, z in metres) per pixel",
        ],
    ),
}


@pytest.mark.parametrize("case", BAD_FOR_A_DETECTOR)
def test_what_a_detector_cannot_use_gets_one_line_and_leaves_nothing(cli, tmp_path, case):
    make, options, words = BAD_FOR_A_DETECTOR[case]
    line = cli("fit", make(tmp_path / "data"), "--out", tmp_path / "runs/a", *options).complaint()
    assert all(word in line for word in words), line
    assert not (tmp_path / "runs").exists()


@pytest.mark.filterwarnings(
    "ignore::andon.core.deep_images.AlphaWarning", "ignore::andon.thresholds.display.DegenerateRangeWarning"
)
def test_unusual_pictures_are_learned_from(cli, tmp_path):
    """16-bit, palette, transparent, CMYK and turned pictures beside ordinary ones."""
    from PIL import Image

    folder = tmp_path / "good"
    for k in range(3):
        write_picture(folder / f"{k}.png", texture(k))
    picture = Image.fromarray(texture(3))
    write_picture(folder / "deep.png", texture(4)[:, :, 0].astype(np.uint16) * 257)
    picture.convert("P").save(folder / "palette.png")
    picture.convert("RGBA").save(folder / "alpha.png")
    picture.convert("CMYK").save(folder / "cmyk.tif")
    exif = Image.Exif()
    exif[274] = 6
    picture.crop((0, 0, 40, 64)).save(folder / "turned.jpg", exif=exif)
    outcome = cli("fit", folder, "--out", tmp_path / "run", *FIT, "--json")
    found = document(outcome)
    assert found["train"] + found["validation"] == 8


def test_unreadable_pictures_are_counted(cli, own_dataset, own_run, tmp_path):
    new = tmp_path / "new"
    for name in ("train/good/002.png", "test/good/001.png"):
        (own_dataset / name).write_bytes((own_dataset / name).read_bytes()[:700])
    assert "002.png" in cli("fit", own_dataset, "--out", new, *FIT).complaint()
    outcome = cli("fit", own_dataset, "--out", new, *FIT, "--skip-unreadable")
    assert outcome.code == 0
    assert "unreadable and skipped: 1 (cloth/train/good/002)" in outcome.out
    assert "weights: random: untrained, drawn from seed 0; licence: none" in outcome.out
    assert "001.png" in cli("evaluate", own_run, "--data", own_dataset).complaint()
    outcome = cli("predict", own_run, own_dataset / "test")
    assert outcome.code == 2
    assert "001.png" in outcome.err.splitlines()[-1]
    assert "others are answered" in outcome.err
    assert "1 unreadable" in outcome.out
    table = tmp_path / "t.csv"
    outcome = cli("predict", own_run, own_dataset / "test", "--out", table)
    assert outcome.code == 2
    assert f"{table} says why" in outcome.err
    assert cli("predict", own_run, own_dataset / "test", "--out", table, "--skip-unreadable").code == 0
    outcome = cli("predict", own_run, own_dataset / "test", "--skip-unreadable")
    assert outcome.code == 0
    assert "1 unreadable" in outcome.out


def test_findings_of_the_data_are_said_while_fitting(cli, own_dataset, tmp_path):
    write_picture(own_dataset / "ground_truth/stain/099_mask.png", texture(0)[:, :, 0])
    (own_dataset / "train/good/zero.png").write_bytes(b"")
    outcome = cli("fit", own_dataset, "--out", tmp_path / "run", *FIT)
    assert "099_mask.png" in outcome.err
    assert "zero.png" in outcome.err


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["predict", "RUN", "/nowhere.png"], ["/nowhere.png does not exist"]),
        (["predict", "RUN", "EMPTY"], ["holds no pictures"]),
        (["predict", "EMPTY", "PICTURE"], ["holds no detector"]),
        (["predict", "/nowhere", "PICTURE"], ["holds no detector"]),
        (["predict", "RUN", "PICTURE", "--save", "FILE"], ["cannot be written"]),
        (["evaluate", "EMPTY"], ["is not a run folder"]),
        (["evaluate", "RUN", "--pixel-metrics", "rough"], ["'rough'", "auto, exact or histogram"]),
        (["evaluate", "RUN", "--data", "/nowhere"], ["/nowhere does not exist"]),
        (["evaluate", "RUN", "--data", "DATA", "--category", "clth"], ["no category 'clth'", "cloth"]),
        (["fit", "DATA", "--out", "RUN"], ["is not empty: --overwrite replaces"]),
        (["fit", "DATA", "--out", "FILE"], ["is a file"]),
        (["fit", "DATA", "--recipe", "padim/starter", "--out", "/proc/x"], ["/proc/x", "cannot be written"]),
        (["predict", "RUN", "PICTURE", "--save", "/proc/x"], ["/proc/x", "cannot be written"]),
        (["predict", "RUN", "PICTURE", "--out", "/proc/x/o.csv"], ["/proc/x/o.csv cannot be written"]),
        (["export", "RUN", "--out", "/proc/x/m.onnx"], ["/proc/x/m.onnx cannot be written"]),
        (["pack", "RUN", "--out", "/proc/x/m.andon"], ["/proc/x/m.andon cannot be written"]),
        (
            ["threshold", "RUN", "--reason", "x", "--false-reject-rate", "1e-320"],
            ["rates are shares from 1e-09"],
        ),
        (["fit", "DATA", "--layout", "mvtec"], ["unknown layout 'mvtec'", "mvtec_ad"]),
    ],
    ids=str,
)
def test_bad_paths_get_one_line(cli, tiny_run, dataset_folder, tmp_path, monkeypatch, arguments, words):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "EMPTY").mkdir()
    (tmp_path / "FILE").write_text("x")
    places = {"RUN": tiny_run, "DATA": dataset_folder, "PICTURE": dataset_folder / "test/good/000.png"}
    before = files(tiny_run)
    line = cli(*(places.get(argument, argument) for argument in arguments)).complaint()
    assert all(word in line for word in words), line
    assert files(tiny_run) == before
    assert files(tmp_path) == ["FILE"]


# JSON and tables --------------------------------------------------------------------------------------------------


def test_json_is_one_document(cli, quick, dataset_folder, tmp_path):
    run = tmp_path / "run"
    fitted = document(cli("fit", dataset_folder, "--out", run, *FIT, "--json"))
    assert (fitted["run"], fitted["train"], fitted["skipped"]) == (str(run), 10, {})
    test = copytree(dataset_folder, tmp_path / "cloth")
    (test / "test/good/001.png").write_bytes((test / "test/good/001.png").read_bytes()[:700])
    report = document(cli("evaluate", run, "--data", test, "--skip-unreadable", "--json"))
    assert list(report["images"]["skipped"]) == ["cloth/test/good/001"]
    assert report["images"]["evaluated"] == 7
    assert report == json.loads((run / "report.json").read_text())
    assert 0 <= report["metrics"]["image_auroc"]["value"] <= 1
    found = document(cli("predict", run, dataset_folder / "test/stain", "--json"))
    assert [Path(p["path"]).name for p in found["predictions"]] == [
        "000.png",
        "001.png",
        "002.png",
        "003.png",
    ]
    assert {p["verdict"] for p in found["predictions"]} <= {"OK", "NG"}


@pytest.mark.parametrize(
    "arguments",
    [
        ["detectors"],
        ["recipes"],
        ["recipes", "efficientad_ast/starter"],
        ["weights", "list"],
        ["data", "check", "DATA"],
    ],
    ids=str,
)
def test_lists_come_as_table_or_json(cli, dataset_folder, arguments):
    arguments = [str(dataset_folder) if a == "DATA" else a for a in arguments]
    assert document(cli(*arguments, "--json"))
    table = cli(*arguments)
    assert (table.code, table.err) == (0, "")
    assert table.out


@pytest.mark.parametrize(("before", "after"), [(None, "PASSIVE"), ("ACTIVE", "ACTIVE")])
def test_threads_sleep_while_they_wait_unless_told(cli, monkeypatch, before, after):
    monkeypatch.setenv("OMP_WAIT_POLICY", "")  # so that it is restored
    monkeypatch.delenv("OMP_WAIT_POLICY") if before is None else monkeypatch.setenv("OMP_WAIT_POLICY", before)
    assert cli("--version").code == 0
    assert os.environ["OMP_WAIT_POLICY"] == after


def test_what_rests_on_weights_for_tests_is_marked(cli):
    weights = document(cli("weights", "list", "--json"))
    assert [(row["name"], row["use"]) for row in weights[-2:]] == [
        ("starter", "for tests"),
        ("starter_pdn", "for tests"),
    ]
    assert {row["use"] for row in weights[:-2]} == {""}
    assert "starter (for tests)" in cli("weights", "list").out
    recipes = {row["name"]: row["weights"] for row in document(cli("recipes", "--json"))}
    assert recipes["east/lite0"] == ["lite0"]
    assert recipes["efficientad/starter"] == ["starter_pdn"]
    for line in cli("recipes").out.splitlines():
        name = line.strip("│ ").split(" ")[0]
        assert ("(for tests)" in line) == any(used.startswith("starter") for used in recipes.get(name, []))


def test_errors_in_data_are_counted_and_end_with_two(cli, own_dataset):
    write_picture(own_dataset / "ground_truth/stain/001_mask.png", texture(0, 32)[:, :, 0])
    outcome = cli("data", "check", own_dataset, "--json")
    assert outcome.code == 2
    assert "001_mask.png" in json.dumps(json.loads(outcome.out))
    assert len(outcome.err.splitlines()) == 1
    assert "errors" in outcome.err


def test_tables_for_people(cli, own_run, dataset_folder, tmp_path):
    picture = dataset_folder / "test/stain/000.png"
    outcome = cli("predict", own_run, picture, "--save", tmp_path / "out")
    assert outcome.code == 0
    assert outcome.err.startswith("executed by torch ")
    assert outcome.err.count("\n") == 1
    assert str(picture) in outcome.out
    assert files(tmp_path / "out") == ["heatmaps/000.png", "masks/000.png", "predictions.csv"]


# Exit codes -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("error", "code", "line"),
    [
        (AndonError("the loss is not finite:\n lower it"), 1, "andon: the loss is not finite: lower it"),
        (KeyboardInterrupt(), 1, "andon: stopped"),
        (PermissionError(13, "Permission denied", "a.bin"), 2, "andon: a.bin may not be read or written"),
        (OSError(28, "No space left on device", "a.bin"), 2, "andon: no space left on the device (a.bin)"),
        (BrokenPipeError(), 1, ""),
    ],
)
def test_exit_codes(cli, monkeypatch, error, code, line):
    def fail() -> None:
        raise error

    monkeypatch.setattr("andon.detectors._recipes.detectors", fail)
    outcome = cli("detectors")
    assert outcome.code == code
    assert outcome.err.startswith(line)
    assert outcome.err.count("\n") == (1 if line else 0)


def test_unforeseen_errors_are_not_hidden(monkeypatch):
    monkeypatch.setattr("andon.detectors._recipes.detectors", lambda: 1 / 0)
    monkeypatch.setattr(sys, "argv", ["andon", "detectors"])
    with pytest.raises(ZeroDivisionError):
        main()


def test_full_disk_behind_stdout():
    with open("/dev/full", "w") as full:  # noqa: PTH123
        done = subprocess.run([*COMMAND, "recipes"], stdout=full, stderr=subprocess.PIPE, text=True)
    assert done.returncode == 2
    assert done.stderr.splitlines() == [
        "andon: no space left on the device (while writing): free some or choose another folder"
    ]


def test_reader_that_goes_away():
    reading, writing = os.pipe()
    os.close(reading)
    done = subprocess.run([*COMMAND, "recipes"], stdout=writing, stderr=subprocess.PIPE, text=True)
    os.close(writing)
    assert (done.returncode, done.stderr) == (1, "")


@pytest.mark.parametrize("arguments", [["recipes"], ["recipes", "--json"]])
@pytest.mark.parametrize("closed", [">&-", ">&- 2>&- <&-"])
def test_streams_that_are_closed(arguments, closed):
    """As for a reader that goes away: what cannot be written is no success, and no traceback."""
    command = ["sh", "-c", f'"$@" {closed}', "sh", *COMMAND, *arguments]
    done = subprocess.run(command, capture_output=True, text=True)
    assert (done.returncode, done.stdout, done.stderr) == (1, "", "")


def test_an_error_does_not_move_to_stdout_where_stderr_is_closed():
    command = ["sh", "-c", '"$@" 2>&-', "sh", *COMMAND, "recipes", "nothing"]
    done = subprocess.run(command, capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (2, "")


def test_offline_forbids_fetching(cli):
    line = cli("--offline", "weights", "fetch", "resnet18.tv_in1k").complaint()
    assert "downloads are forbidden (offline)" in line


def test_added_weights_are_used(cli, dataset_folder, tmp_path, monkeypatch):
    import timm
    import torch

    monkeypatch.setenv("ANDON_HOME", str(tmp_path / "home"))
    whole = timm.create_model("resnet18", pretrained=False).state_dict()
    needed = {name: value for name, value in whole.items() if not name.startswith(("layer3", "layer4", "fc"))}
    torch.save(needed, tmp_path / "a.pth")
    added = cli(
        "weights", "add", tmp_path / "a.pth", "--name", "mine", "--network", "resnet18", "--licence", "MIT"
    )
    assert (added.code, added.err) == (0, "")
    options = set_options(extractor__weights="mine")
    assert cli("fit", dataset_folder, "--out", tmp_path / "run", "--device", "cpu", *options).code == 0
    assert "licence: MIT" in (tmp_path / "run/recipe.yaml").read_text()
    line = cli("weights", "add", tmp_path / "a.pth", "--name", "b", "--network", "resnet81").complaint()
    assert "timm has no network 'resnet81'" in line


# Interruption -----------------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_interrupted_fit_resumes_to_the_same_detector(cli, dataset_folder, tmp_path, home):
    """SIGINT in the middle of learning keeps the checkpoints; --resume ends in the same bytes as a run in one go."""
    options = set_options(teacher__epochs=400, epochs=2, student__blocks=1)
    command = [*COMMAND, "fit", str(dataset_folder), "--device", "cpu", *options]
    run = tmp_path / "run"
    process = subprocess.Popen(
        [*command, "--out", str(run)], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    deadline = time.monotonic() + 60
    while not (run / "recipe.yaml").exists() and time.monotonic() < deadline:
        time.sleep(0.02)
    time.sleep(1.0)  # features come from the cache or take less
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=60)
    assert process.returncode == 1, err
    assert out == ""
    assert len(err.splitlines()) == 1
    assert "run the same command with --resume to continue" in err
    assert (run / "checkpoints").is_dir()
    assert not (run / "detector").exists()

    assert cli(*command[3:], "--out", run, "--resume").code == 0
    assert cli(*command[3:], "--out", tmp_path / "straight").code == 0
    for name in ("state.safetensors", "detector.json"):
        assert (run / "detector" / name).read_bytes() == (tmp_path / "straight/detector" / name).read_bytes()
    assert not (run / "checkpoints").exists()


# Text from outside ------------------------------------------------------------------------------------------------


def test_names_are_printed_literally(cli, capsys):
    print_table("[/t] :ok:", ["a"], [["a/p:ok:1.png"], ["lot[/a].png"], ["[red]x"], ["\x1b[2J"]])
    shown = capsys.readouterr().out
    for name in ("[/t] :ok:", "a/p:ok:1.png", "lot[/a].png", "[red]x", "\\x1b[2J"):
        assert name in shown


@pytest.mark.parametrize("as_json", [False, True])
def test_a_terminal_without_the_characters(tmp_path, as_json):
    program = (
        "import sys; from andon.cli import main as m, options as o; m._escape_what_the_terminal_lacks();"
        "o.print_json({'path': '部品é😀'}) if sys.argv[1:] else o.print_table('', ['path'], [['部品é😀']])"
    )
    done = subprocess.run(
        [sys.executable, "-c", program, *["--json"] * as_json],
        env=os.environ | {"PYTHONIOENCODING": "ascii"},
        capture_output=True,
        check=True,
    )
    shown = done.stdout.decode("ascii")
    if as_json:
        assert json.loads(shown) == {"path": "部品é😀"}
    else:
        assert "\\u90e8\\u54c1\\xe9" in shown


@pytest.mark.parametrize("number", [errno.EROFS, errno.ENAMETOOLONG, errno.EIO])
def test_places_that_cannot_be_written_get_one_line(cli, monkeypatch, tmp_path, number):
    def refuse(*_: object, **__: object) -> None:
        raise OSError(number, os.strerror(number), "ro/run")

    monkeypatch.setattr("andon.detectors._recipes.detectors", refuse)
    assert os.strerror(number) in cli("detectors").complaint()
    monkeypatch.setattr(Path, "mkdir", refuse)
    with pytest.raises(OutputError, match=os.strerror(number)):
        make_folder(tmp_path / "run")
