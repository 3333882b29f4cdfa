"""Packed detectors: whole or refused, and proven on the machine they are used on."""

from __future__ import annotations

import hashlib
import io
import json
import re
import shutil
import zipfile
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from andon.core.errors import DataError
from andon.detectors._saving import load_detector
from andon.exporting import pack_contents as contents
from andon.exporting import packed as packing
from andon.exporting.packed import Packed, ProofError, read_pack
from andon.runs.export import pack_run
from andon.runs.loading import load

pytestmark = pytest.mark.xdist_group("network")


@pytest.mark.slow
def test_packing_exports(tiny_run, tmp_path):
    assert pack_run(tiny_run, tmp_path / "x.andon")["network"] == "model.onnx"
    assert load(tmp_path / "x.andon", "onnx").name == "efficientad_ast"


def rebuilt(source: Path, target: Path, change) -> Path:
    """A file of the same kind, sealed again, after `change` was applied to its members."""
    with zipfile.ZipFile(source) as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    change(members)
    target.write_bytes(packing._sealed(members))
    return target


def with_manifest(members, /, **changes):
    members["manifest.json"] = json.dumps(json.loads(members["manifest.json"]) | changes).encode()


def test_holds_what_it_needs_and_nothing_else(packed, tiny_run):
    found = read_pack(packed)
    assert 10 <= len(found.checks()) <= 50
    assert {"recipe.yaml", "checks.json", "model.onnx", "detector/detector.json"} <= found.members.keys()
    assert (
        found.manifest["weights"] == json.loads((tiny_run / "detector/detector.json").read_text())["weights"]
    )
    assert found.manifest["data"]["fingerprint"]
    for name, stated in found.manifest["members"].items():
        assert hashlib.sha256(found.members[name]).hexdigest() == stated["sha256"]
    assert {check.is_anomalous for check in found.checks()} == {True, False}


@pytest.mark.parametrize("runtime", ["torch", "onnx", "openvino", None])
def test_one_verdict_everywhere(packed, tiny_run, dataset_folder, runtime):
    if runtime == "openvino":
        pytest.importorskip("openvino")
    judge, detector = load(packed, runtime), load_detector(tiny_run)
    for picture in sorted((dataset_folder / "test").rglob("*.png")):
        found, expected = judge.predict(picture), detector.predict(picture)
        assert found.score == pytest.approx(expected.score, abs=1e-3)
        assert found.is_anomalous == expected.is_anomalous


@settings(deadline=None, max_examples=60)
@given(st.data())
def test_every_changed_byte_is_found(packed, tmp_path_factory, data):
    content = bytearray(packed.read_bytes())
    place = data.draw(
        st.one_of(st.integers(0, len(content) - 1), st.integers(len(content) - 3000, len(content) - 1))
    )
    content[place] ^= data.draw(st.integers(1, 255))
    target = tmp_path_factory.mktemp("changed") / "x.andon"
    target.write_bytes(bytes(content))
    with pytest.raises(DataError) as caught:
        read_pack(target)
    assert "\n" not in str(caught.value)
    target.unlink()


def test_scores_of_the_last_evaluation_go_along(packed, tmp_path):
    assert read_pack(packed).tests() == {}  # never evaluated

    def holding(content: str) -> dict[str, tuple[bool, float]]:
        def add(members):
            members["tests.json"] = content.encode()
            stated = json.loads(members["manifest.json"])["members"]
            with_manifest(
                members,
                members=stated | {"tests.json": {"sha256": hashlib.sha256(content.encode()).hexdigest()}},
            )

        return read_pack(rebuilt(packed, tmp_path / "x.andon", add)).tests()

    assert holding('[["bad/1.png", true, 1.5]]') == {"bad/1.png": (True, 1.5)}
    for wrong in ('[["a", 1, 0.5]]', '[["a", true, NaN]]', '[["a", true]]', "{", "3"):
        with pytest.raises(DataError, match=r"tests\.json is not what `andon pack` writes"):
            holding(wrong)


def test_what_is_not_known_is_refused(packed, tmp_path):
    target = tmp_path / "x.andon"
    with pytest.raises(DataError, match="pack format 2"):
        read_pack(rebuilt(packed, target, lambda m: with_manifest(m, format=2)))
    with pytest.raises(DataError, match=r"holds '\.\./evil\.sh'"):
        read_pack(rebuilt(packed, target, lambda m: m.update({"../evil.sh": b"x"})))
    with pytest.raises(DataError, match=r"lacks checks/003\.png"):
        read_pack(rebuilt(packed, target, lambda m: m.pop("checks/003.png")))
    with pytest.raises(DataError, match=r"lacks detector/state\.safetensors"):
        read_pack(rebuilt(packed, target, lambda m: m.pop("detector/state.safetensors")))
    with pytest.raises(DataError, match=r"recipe\.yaml was changed"):
        read_pack(rebuilt(packed, target, lambda m: m.update({"recipe.yaml": b"seed: 1"})))
    with pytest.raises(DataError, match=r"checks/099\.png was changed"):
        read_pack(rebuilt(packed, target, lambda m: m.update({"checks/099.png": b"x"})))
    with pytest.raises(DataError, match="damaged manifest"):
        read_pack(rebuilt(packed, target, lambda m: m.update({"manifest.json": b"[]"})))
    with pytest.raises(DataError, match=r"no manifest\.json"):
        read_pack(rebuilt(packed, target, lambda m: m.pop("manifest.json")))
    with pytest.raises(DataError, match="no packed detector"):
        read_pack(Path(__file__))
    with pytest.raises(DataError, match="does not exist"):
        read_pack(tmp_path / "none.andon")


def with_content(source: Path, target: Path, name: str, content: bytes) -> Path:
    """A file whose hashes are right, with another content of a member."""

    def change(members):
        members[name] = content
        stated = json.loads(members["manifest.json"])["members"]
        stated[name] = {"size": len(content), "sha256": hashlib.sha256(content).hexdigest()}
        with_manifest(members, members=stated)

    return rebuilt(source, target, change)


def test_a_detector_of_a_newer_andon_is_named_by_its_file(packed, tmp_path):
    described = json.loads(read_pack(packed).members["detector/detector.json"]) | {"format": 99}
    file = with_content(
        packed, tmp_path / "x.andon", "detector/detector.json", json.dumps(described).encode()
    )
    with pytest.raises(DataError, match=rf"^{re.escape(str(file))} has detector format 99"):
        load(file, "torch")


def test_settings_that_do_not_fit_the_state_are_one_line(packed, tmp_path, monkeypatch):
    def misfit(*_, **__):
        raise RuntimeError("The size of tensor a (96) must match the size of tensor b (64)")

    found = read_pack(packed)
    detector = found.open("torch")
    monkeypatch.setattr(detector, "judged", misfit)
    with pytest.raises(DataError, match=r"detector\.json is not what `andon pack` writes"):
        found.prove(detector)


def checks_of(packed: Path) -> list[dict]:
    return json.loads(read_pack(packed).members["checks.json"])


WRONG_CHECKS = {
    "no JSON": (lambda c: b"text", "checks.json is not what"),
    "deep JSON": (lambda c: b"[" * 100_000, "checks.json is not what"),
    "a number": (lambda c: 3, "checks.json is not what"),
    "another field": (lambda c: [one | {"note": 1} for one in c], "checks.json is not what"),
    "a score that is text": (lambda c: [one | {"raw_score": "1"} for one in c], "checks.json is not what"),
    "a score that is not a number": (
        lambda c: [one | {"raw_score": float("nan")} for one in c],
        "checks.json is not what",
    ),
    "a verdict that is text": (lambda c: [one | {"is_anomalous": "no"} for one in c], "is not what"),
    "no check": (lambda c: [], "lists 0 different check pictures, 10 to 50"),
    "one check ten times": (lambda c: [c[0]] * 10, "lists 1 different check pictures"),
    "absent picture": (lambda c: [*c[1:], c[0] | {"file": "checks/999.png"}], "lacks checks/999.png"),
}


@pytest.mark.parametrize("case", WRONG_CHECKS)
def test_check_lists_with_right_hash_and_wrong_content_are_refused(packed, tmp_path, case):
    change, words = WRONG_CHECKS[case]
    content = change(checks_of(packed))
    content = content if isinstance(content, bytes) else json.dumps(content).encode()
    with pytest.raises(DataError) as caught:
        load(with_content(packed, tmp_path / "x.andon", "checks.json", content))
    assert words in str(caught.value)
    assert "\n" not in str(caught.value)


def png(mode: str, size: tuple[int, int]) -> bytes:
    stream = io.BytesIO()
    Image.new(mode, size).save(stream, format="PNG")
    return stream.getvalue()


@pytest.mark.parametrize(
    "content",
    [b"text", b"%!PS-Adobe-3.0 EPSF-3.0", png("L", (64, 64))],
    ids=["text", "PostScript", "grey"],
)
def test_check_pictures_that_are_none_are_refused(packed, tmp_path, content):
    found = read_pack(with_content(packed, tmp_path / "x.andon", "checks/000.png", content))
    with pytest.raises(DataError, match=r"checks/000\.png is not what"):
        found.image(found.checks()[0])


def test_check_pictures_above_the_limit_are_refused(packed, monkeypatch):
    found = read_pack(packed)
    monkeypatch.setenv("ANDON_MAX_PIXELS", "100")
    with pytest.raises(DataError, match=r"checks/000\.png is not what"):
        found.image(found.checks()[0])


@pytest.mark.parametrize("runtime", ["torch", "onnx"])
@pytest.mark.parametrize(
    "change", [{"calibration": None}, {"calibration": {"image": 3}}, {"calibration": []}]
)
def test_settings_with_right_hash_and_wrong_content_are_refused(packed, tmp_path, change, runtime):
    values = json.loads(read_pack(packed).members["detector/detector.json"]) | change
    values.pop("sha256")
    if values["calibration"] is None:
        del values["calibration"]
    checksum = hashlib.sha256(json.dumps(values, sort_keys=True).encode()).hexdigest()
    content = json.dumps(values | {"sha256": checksum}).encode()
    wrong = with_content(packed, tmp_path / "x.andon", "detector/detector.json", content)
    with pytest.raises(DataError, match=r"detector/detector\.json is not what"):
        load(wrong, runtime)


@pytest.mark.parametrize("members", [[], "text", {"checks.json": 3}, {"checks.json": {}}])
def test_manifests_of_another_shape_are_refused(packed, tmp_path, members):
    with pytest.raises(DataError, match="damaged manifest"):
        read_pack(rebuilt(packed, tmp_path / "x.andon", lambda m: with_manifest(m, members=members)))
    with pytest.raises(DataError, match=r"manifest\.json is not what"):
        read_pack(rebuilt(packed, tmp_path / "y.andon", lambda m: with_manifest(m, network=None)))


def test_members_are_limited_before_they_are_unpacked(packed, tmp_path, monkeypatch):
    monkeypatch.setattr(zipfile.ZipFile, "read", lambda self, name: pytest.fail("unpacked"))
    squeezed = tmp_path / "squeezed.andon"
    with zipfile.ZipFile(squeezed, "w") as archive:
        archive.writestr("model.onnx", bytes(1 << 20), zipfile.ZIP_DEFLATED)
    with pytest.raises(DataError, match=r"holds model\.onnx twice or compressed"):
        read_pack(squeezed)
    twice = tmp_path / "twice.andon"
    with zipfile.ZipFile(twice, "w") as archive, pytest.warns(UserWarning, match="Duplicate"):
        archive.writestr("checks.json", b"[]")
        archive.writestr("checks.json", b"[]")
    with pytest.raises(DataError, match=r"holds checks\.json twice"):
        read_pack(twice)
    monkeypatch.setattr(contents, "TEXT_BYTES", 100)
    with pytest.raises(DataError, match=r"at most 100 are read"):
        read_pack(packed)
    entry = zipfile.ZipInfo("checks/000.png")
    entry.file_size = 5000
    with pytest.raises(DataError, match="states more bytes than it has"):
        contents.check_members(packed, [entry], 4999)
    monkeypatch.setattr(contents, "LONGEST", 100)
    with pytest.raises(DataError, match="longer than 100 bytes"):
        read_pack(packed)


def test_a_machine_that_computes_otherwise_is_refused(packed):
    found = read_pack(packed)
    detector = found.open("torch")
    checks = json.loads(found.members["checks.json"])
    checks[3]["raw_score"] += 0.01 * detector.fitted().score_display.span
    moved = Packed(packed, found.manifest, found.members | {"checks.json": json.dumps(checks).encode()})
    with pytest.raises(ProofError, match=r"checks/003\.png scores"):
        moved.prove(detector)
    checks = json.loads(found.members["checks.json"])
    checks[2]["is_anomalous"] = not checks[2]["is_anomalous"]
    moved = Packed(packed, found.manifest, found.members | {"checks.json": json.dumps(checks).encode()})
    with pytest.raises(ProofError, match=r"checks/002\.png"):
        moved.prove(detector)


def test_too_few_pictures(own_run, tmp_path, dataset_folder):
    few = tmp_path / "few"
    few.mkdir()
    for k, picture in enumerate(sorted((dataset_folder / "train/good").iterdir())[:4]):
        shutil.copy(picture, few / f"{k}.png")
    with pytest.raises(DataError, match="at least 10 check pictures and there are 4"):
        pack_run(own_run, tmp_path / "x.andon", data=str(few))
    assert not (tmp_path / "x.andon").exists()


def test_without_a_network(tiny_run, tmp_path, monkeypatch):
    monkeypatch.setattr(packing, "_network", lambda detector, pictures: (None, "it looks at depth"))
    pack_run(tiny_run, tmp_path / "x.andon")
    with pytest.raises(DataError, match="it looks at depth"):
        load(tmp_path / "x.andon", "onnx")
    assert load(tmp_path / "x.andon").name == "efficientad_ast"


@pytest.mark.slow
def test_commands(packed, tiny_run, tmp_path, cli, dataset_folder):
    assert "is whole" in cli("verify", packed).out
    assert json.loads(cli("verify", packed, "--runtime", "onnx", "--json").out)["pictures"] >= 10
    assert cli("verify", packed, "--runtime", "tensorrt").code == 2
    assert cli("pack", tiny_run, "--out", tmp_path / "x.zip").code == 2
    answers = [
        json.loads(cli("predict", packed, dataset_folder / "test", *runtime, "--json").out)["predictions"]
        for runtime in ((), ("--runtime", "torch"), ("--runtime", "onnx"))
    ]
    assert [len(found) for found in answers] == [8, 8, 8]
    assert answers[0] == answers[2]  # without PyTorch where that is possible
    assert [a["verdict"] for a in answers[0]] == [a["verdict"] for a in answers[1]]
    assert [a["score"] for a in answers[0]] == pytest.approx([a["score"] for a in answers[1]], abs=1e-3)


def test_the_same_members_make_the_same_file(packed):
    content = io.BytesIO(packed.read_bytes())
    with zipfile.ZipFile(content) as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    assert packing._sealed(members) == packed.read_bytes()
