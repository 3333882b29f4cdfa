"""Archives: every picture answered once, whatever is interrupted where, and nothing of others touched."""

from __future__ import annotations

import csv
import hashlib
import os
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest
from conftest import names, texture, write_picture
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from andon.core.errors import DataError, OutputError
from andon.core.text import from_cell
from andon.detectors._saving import load_detector
from andon.runs import archive
from andon.runs.archive import COLUMNS, detector_key, open_table, predict_archive
from andon.runs.inputs import PassedByWarning, list_inputs, walk_archive
from andon.runs.predict import FilePrediction, predict_files
from andon.thresholds.history import change

HEADER = ",".join(COLUMNS) + "\n"


def rows(table: Path) -> list[dict[str, str]]:
    with table.open(newline="", encoding="utf-8", errors="surrogateescape") as stream:
        return list(csv.DictReader(stream))


def answer(path: str, verdict: str = "OK") -> FilePrediction:
    return FilePrediction(path, verdict, 0.5, 1.25, 0.0)


@pytest.fixture(scope="module")
def pictures(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("archive")
    for k in range(7):
        write_picture(folder / ("deep/er" if k > 4 else "") / f"{k}.png", texture(k))
    return folder


def test_the_answers_are_those_of_the_short_way(tiny_run, pictures, tmp_path):
    new, verdicts = predict_archive(
        tiny_run, [pictures], tmp_path / "a" / "t.csv", save=tmp_path / "s", maps=True
    )
    expected = predict_files(load_detector(tiny_run), list_inputs([pictures]))
    found = rows(tmp_path / "a" / "t.csv")
    assert (new, verdicts.total()) == (7, 7)
    assert [row["path"] for row in found] == [one.path for one in expected]
    for row, one in zip(found, expected, strict=True):
        assert (row["verdict"], row["detector"]) == (one.verdict, detector_key(tiny_run))
        assert float(row["raw_score"]) == pytest.approx(one.raw_score, rel=1e-5)
        assert float(row["area"]) == pytest.approx(one.area, abs=1e-3)
    assert names(tmp_path / "s") == ["heatmaps", "maps", "masks"]
    assert len(list((tmp_path / "s").rglob("*.png"))) == 14


def test_what_is_done_is_not_done_again_and_what_is_new_is(tiny_run, pictures, tmp_path, monkeypatch):
    own, table = shutil.copytree(pictures, tmp_path / "in"), tmp_path / "t.csv"
    stopped: list[str] = []
    real = archive.file_predictions

    def three(*arguments, **options):
        for k, one in enumerate(real(*arguments, **options)):
            if k == 3:
                raise KeyboardInterrupt
            stopped.append(one.path)
            yield one

    monkeypatch.setattr(archive, "file_predictions", three)
    with pytest.raises(archive.InterruptedRun, match="same command continues"):
        predict_archive(tiny_run, [own], table)
    monkeypatch.setattr(archive, "file_predictions", real)
    assert [row["path"] for row in rows(table)] == stopped
    with table.open("a") as stream:
        stream.write(f"{own / '3.png'},OK,0.1")  # torn
    assert predict_archive(tiny_run, [own, own / "0.png"], table)[0] == 4
    before = table.read_bytes()
    assert predict_archive(tiny_run, [own], table)[0] == 0
    assert table.read_bytes() == before
    write_picture(own / "deep" / "late.png", texture(9))
    assert predict_archive(tiny_run, [own], table)[0] == 1
    assert table.read_bytes().startswith(before)
    assert sorted(row["path"] for row in rows(table)) == sorted(str(p) for p in own.rglob("*.png"))


def test_a_file_that_has_changed_is_predicted_again_and_its_last_line_counts(tiny_run, pictures, tmp_path):
    own, table = shutil.copytree(pictures, tmp_path / "in"), tmp_path / "t.csv"
    predict_archive(tiny_run, [own], table)
    (own / "2.png").write_bytes(b"no picture")
    new, verdicts = predict_archive(tiny_run, [own], table)
    assert (new, verdicts["unreadable"], verdicts.total()) == (1, 1, 7)
    assert [row["verdict"] for row in rows(table) if row["path"] == str(own / "2.png")][-1] == "unreadable"
    assert predict_archive(tiny_run, [own], table) == (0, verdicts)


def test_strictness_and_saved_files_are_those_of_all_lines(tiny_run, pictures, tmp_path):
    table = tmp_path / "t.csv"
    predict_archive(tiny_run, [pictures], table)
    with pytest.raises(OutputError, match="with another --strict"):
        predict_archive(tiny_run, [pictures], table, strict=True)
    with pytest.raises(OutputError, match="lines of 7 pictures that left nothing in"):
        predict_archive(tiny_run, [pictures], table, save=tmp_path / "s")


def test_a_folder_without_images_is_said_whatever_the_table_holds(tiny_run, pictures, tmp_path):
    (tmp_path / "unmounted").mkdir()
    for inputs in ([pictures, tmp_path / "unmounted"], [tmp_path / "unmounted"]):
        with pytest.raises(DataError, match="unmounted holds no pictures"):
            predict_archive(tiny_run, inputs, tmp_path / "t.csv")
    assert len(rows(tmp_path / "t.csv")) == 7


def test_an_unreadable_picture_gets_its_line(tiny_run, pictures, tmp_path):
    own, table = shutil.copytree(pictures, tmp_path / "in"), tmp_path / "t.csv"
    (own / "2.png").write_bytes(b"no picture")
    assert predict_archive(tiny_run, [own], table)[1]["unreadable"] == 1
    found = rows(table)
    assert sorted(row["path"] for row in found) == sorted(str(p) for p in own.rglob("*.png"))
    (bad,) = (row for row in found if row["verdict"] == "unreadable")
    assert (bad["path"], bad["score"]) == (str(own / "2.png"), "")
    assert "cannot be read" in bad["reason"]


def test_tables_of_others_are_left_alone(tiny_run, pictures, tmp_path):
    table = tmp_path / "t.csv"
    for content in (
        b"path;verdict\n",
        b"no newline",
        HEADER.encode() + b"a,OK\n",
        HEADER.encode() + b"a" * 200_000 + b"\n",
    ):
        table.write_bytes(content)
        with pytest.raises(OutputError, match=r"is no table of|line 2 of .* is damaged"):
            predict_archive(tiny_run, [pictures], table)
        assert table.read_bytes() == content
    table.write_text(f"{HEADER}a.png,OK,0.5,1.0,0.0,,,9,9,0123456789ab\n")
    with pytest.raises(OutputError, match="answers of another detector"):
        predict_archive(tiny_run, [pictures], table)


def test_a_table_holds_verdicts_of_the_same_thresholds_alone(own_run, pictures, tmp_path):
    """After a change of thresholds the table is not continued; without one the key is the hash of detector.json, as before."""
    description = (own_run / "detector/detector.json").read_bytes()
    assert detector_key(own_run) == hashlib.sha256(description).hexdigest()[:12]
    predict_archive(own_run, [pictures], tmp_path / "t.csv")
    before, fitted = (tmp_path / "t.csv").read_bytes(), load_detector(own_run).fitted()
    stricter = replace(fitted, image=replace(fitted.image, value=fitted.image.value / 2))
    change(own_run / "detector", stricter, reason="stricter", rule="half", who="anna")
    with pytest.raises(OutputError, match="by other thresholds"):
        predict_archive(own_run, [pictures], tmp_path / "t.csv")
    assert (tmp_path / "t.csv").read_bytes() == before
    predict_archive(own_run, [pictures], tmp_path / "new.csv")
    assert {row["detector"] for row in rows(tmp_path / "new.csv")} == {detector_key(own_run)}


def test_places_that_cannot_be_used(tiny_run, pictures, tmp_path):
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match="holds no pictures"):
        predict_archive(tiny_run, [tmp_path / "empty"], tmp_path / "t.csv")
    with pytest.raises(DataError, match="does not exist"):
        predict_archive(tiny_run, [pictures, tmp_path / "absent"], tmp_path / "never.csv")
    assert not (tmp_path / "never.csv").exists()
    with pytest.raises(OutputError, match="lies inside"):
        predict_archive(tiny_run, [pictures], tmp_path / "t.csv", save=pictures / "maps")
    with pytest.raises(OutputError, match="cannot be written"):
        predict_archive(tiny_run, [pictures], tmp_path / "empty")
    with open_table(tmp_path / "t.csv", "d"), pytest.raises(OutputError, match="another process"):
        predict_archive(tiny_run, [pictures], tmp_path / "t.csv")


def test_order_and_ids(tmp_path):
    for name in ("b10.png", "b2.png", "a/c.jpg", "a/z/d.PNG", "notes.txt", ".hidden.png"):
        (tmp_path / "x" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "x" / name).write_bytes(b"x")
    with pytest.warns(PassedByWarning, match="passed by"):
        found = [r.id for r in walk_archive([tmp_path / "x"])]
    (tmp_path / "x" / "notes.txt").unlink()
    (tmp_path / "x" / ".hidden.png").unlink()
    assert found == ["b2.png", "b10.png", "a/c.jpg", "a/z/d.PNG"]
    assert [r.id for r in walk_archive([tmp_path / "x" / "b2.png"])] == ["b2.png"]
    several = [r.id for r in walk_archive([tmp_path / "x", tmp_path / "x" / "a"])]
    assert len(set(several)) == 4
    assert several[0].endswith("x/b2.png")


def test_line_breaks_in_names_are_refused(tiny_run, tmp_path):
    write_picture(tmp_path / "in" / "a\nb.png", texture(0))
    with pytest.raises(DataError, match="line break"):
        predict_archive(tiny_run, [tmp_path / "in"], tmp_path / "t.csv")


NAMES = st.text(
    st.characters(exclude_characters="\0\r\n", exclude_categories=["Cs"])
    | st.sampled_from([",", '"', "\udcff", ";"]),
    min_size=1,
    max_size=8,
)


@settings(deadline=None, max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(paths=st.lists(NAMES, unique=True, max_size=5), cut=st.integers(0, 400))
def test_a_table_cut_anywhere_continues_to_the_same_table(tmp_path, paths, cut):
    """Whatever a kill leaves of the table, the lines that are whole count, and the others are written again."""
    table = tmp_path / "t.csv"
    table.unlink(missing_ok=True)

    def fill() -> int:
        with open_table(table, "abc") as opened:
            left = [path for path in paths if opened.take(path)]
            for path in left:
                opened.add(answer(path))
        return len(left)

    assert fill() == len(paths)
    whole = table.read_bytes()
    kept = whole[:cut]
    table.write_bytes(kept)
    assert fill() == len(paths) - max(0, kept.count(b"\n") - 1)
    assert table.read_bytes() == whole
    assert [from_cell(row["path"]) for row in rows(table)] == paths


def test_command(cli, tiny_run, pictures, tmp_path):
    table = tmp_path / "t.csv"
    first = cli("predict", tiny_run, pictures, "--out", table)
    assert first.code == 0
    assert "7 pictures" in first.out
    assert "7 of them new" in first.out
    again = cli("predict", tiny_run, pictures, "--out", table, "--json")
    assert '"new": 0' in again.out
    assert "--out" in cli("predict", tiny_run, pictures, "--ray", "auto").complaint()


@pytest.mark.slow
def test_killed_at_any_moment(tiny_run, tmp_path):
    """SIGKILL again and again, then an undisturbed call: each picture has exactly one line."""
    for k in range(240):
        write_picture(tmp_path / "in" / f"{k}.png", texture(k))
    table = tmp_path / "t.csv"
    command = [
        sys.executable,
        "-m",
        "andon",
        "predict",
        str(tiny_run),
        str(tmp_path / "in"),
        "--out",
        str(table),
    ]
    for lines in (10, 90, 170):
        process = subprocess.Popen(
            command, env=os.environ, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        while process.poll() is None and (not table.exists() or table.read_bytes().count(b"\n") < lines):
            time.sleep(0.005)
        process.send_signal(signal.SIGKILL)
        process.wait()
        assert lines <= table.read_bytes().count(b"\n") <= 240
    subprocess.run(command, check=True, capture_output=True)
    assert sorted(row["path"] for row in rows(table)) == sorted(str(p) for p in (tmp_path / "in").iterdir())


def test_names_that_are_formulas_for_a_spreadsheet(tiny_run, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    image = write_picture(Path("=1+1.png"), texture(0))
    new, _ = predict_archive(tiny_run, [image], tmp_path / "t.csv")
    (row,) = rows(tmp_path / "t.csv")
    assert row["path"] == "./=1+1.png" and Path(row["path"]) == image
    again, verdicts = predict_archive(tiny_run, [image], tmp_path / "t.csv")
    assert (new, again, verdicts.total()) == (1, 0, 1)
    predict_files(load_detector(tiny_run), list_inputs([image]), save=tmp_path / "s")
    assert rows(tmp_path / "s" / "predictions.csv")[0]["path"] == "./=1+1.png"


def test_a_table_is_a_regular_file(tiny_run, pictures):
    with pytest.raises(OutputError, match="/dev/null is no regular file"):
        predict_archive(tiny_run, [pictures], Path("/dev/null"))
