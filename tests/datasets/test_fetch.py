"""Fetching a data set: servers that misbehave end in the right folder or in a message and no folder."""

from __future__ import annotations

import hashlib
import io
import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from servers import FileServer, serving
from trees import ARCHIVE_MODES, mvtec_tree, names, pack

from andon.core.download import WrongFile, download
from andon.core.errors import DataError, OutputError
from andon.datasets.published.fetch import ORIGIN, announce, check_fetch, fetch
from andon.datasets.published.sources import PublishedSet, published_set, published_sets


@pytest.fixture(scope="module")
def content(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """A small data set as tar.xz."""
    base = tmp_path_factory.mktemp("made")
    mvtec_tree(base / "set" / "part")
    return pack(base / "set", base / "set.tar.xz").read_bytes()


@pytest.fixture(scope="module")
def _server(content: bytes) -> Iterator[FileServer]:
    with serving(content) as server:
        yield server


@pytest.fixture
def server(_server: FileServer, content: bytes) -> FileServer:
    _server.content, _server.mode, _server.drops = content, "range", 0
    _server.ranges.clear()
    return _server


@pytest.fixture
def known(server: FileServer, content: bytes) -> PublishedSet:
    return PublishedSet(
        "toy",
        "Toy set",
        "https://example.org/toy",
        "CC0",
        "Nobody, 2026",
        "set.tar.xz",
        (server.url,),
        len(content),
        hashlib.sha256(content).hexdigest(),
    )


@pytest.fixture(autouse=True)
def _online(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("ANDON_OFFLINE", raising=False)


# --- the good way ---


@pytest.mark.parametrize("mode", ["range", "whole", "no length"])
def test_fetch(tmp_path: Path, known: PublishedSet, server: FileServer, mode: str) -> None:
    server.mode = mode
    seen: list[tuple[str, int, int]] = []
    done = fetch(known, tmp_path / "data/toy", show=lambda *step: seen.append(step))
    assert done.categories == ("part",) and done.warnings == () and done.sha256 == known.sha256
    assert names(tmp_path) == sorted(f"data/toy/{name}" for name in names(done.folder))
    origin = json.loads((done.folder / ORIGIN).read_text())
    assert (origin["licence"], origin["sha256"], origin["page"]) == ("CC0", known.sha256, known.page)
    assert [what for what in dict.fromkeys(step[0] for step in seen)] == [
        "downloading",
        "checking",
        "unpacking",
    ]
    assert seen[-1][1] <= seen[-1][2] and ("checking", known.size, known.size) in seen


def test_broken_connections_are_continued(tmp_path: Path, known: PublishedSet, server: FileServer) -> None:
    """Five answers break off half-way: each is continued where it stopped, and none counts as a failure in a row."""
    server.drops = 5
    fetch(known, tmp_path / "toy", pause=0)
    starts = [int((wanted or "bytes=0-")[6:-1]) for wanted in server.ranges]
    assert len(starts) == 6 and starts == sorted(set(starts)) and starts[1] == known.size // 2


def test_broken_connections_without_ranges(tmp_path: Path, known: PublishedSet, server: FileServer) -> None:
    """Begins again each time, and ends although nothing is gained."""
    server.mode, server.drops = "whole", 2
    assert fetch(known, tmp_path / "toy", pause=0).categories == ("part",)
    server.drops = 99
    with pytest.raises(DataError, match=r"Toy set could not be fetched .* are kept .* ended after"):
        fetch(known, tmp_path / "again", pause=0)
    assert len(server.ranges) == 3 + 4


def test_a_later_call_continues(
    tmp_path: Path, known: PublishedSet, server: FileServer, content: bytes
) -> None:
    (tmp_path / "toy.download.part").write_bytes(content[:1000])
    fetch(known, tmp_path / "toy")
    assert server.ranges == ["bytes=1000-"] and not (tmp_path / "toy.download.part").exists()


def test_a_complete_part_is_not_fetched_again(
    tmp_path: Path, known: PublishedSet, server: FileServer, content: bytes
) -> None:
    (tmp_path / "toy.download.part").write_bytes(content)
    fetch(known, tmp_path / "toy")
    assert server.ranges == []


def test_the_second_link_is_tried(tmp_path: Path, known: PublishedSet, server: FileServer) -> None:
    dead = f"{server.url.rsplit(':', 1)[0]}:9/none"
    assert fetch(replace(known, links=(dead, *known.links)), tmp_path / "toy", pause=0).categories


@pytest.mark.parametrize("kind", ["zip", *ARCHIVE_MODES])
def test_from_archive_offline(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str) -> None:
    """The archive of the user stays; one enclosing folder of the expected name is taken off."""
    monkeypatch.setenv("ANDON_OFFLINE", "1")
    mvtec_tree(tmp_path / "made" / "part", defects={"dent": 1})
    archive = pack(tmp_path / "made", tmp_path / f"toy.{kind}", inside="Toy-master/")
    toy = PublishedSet("toy", "Toy set", "https://example.org", "CC0", "", enclosing="Toy-*")
    done = fetch(toy, tmp_path / "toy", archive=archive)
    assert [name for name in names(done.folder) if name != ORIGIN] == names(tmp_path / "made")
    assert archive.is_file() and done.categories == ("part",)


def test_an_enclosing_folder_of_another_name_stays(tmp_path: Path, known: PublishedSet) -> None:
    """The one category of a set is no enclosing folder."""
    assert (fetch(replace(known, enclosing="Other"), tmp_path / "toy").folder / "part/train").is_dir()


def test_archive_kept(tmp_path: Path, known: PublishedSet, content: bytes) -> None:
    fetch(known, tmp_path / "toy", keep_archive=True)
    assert (tmp_path / "set.tar.xz").read_bytes() == content


def test_counts_are_compared(tmp_path: Path, known: PublishedSet) -> None:
    mvtec_tree(tmp_path / "made" / "bottle", defects={"contamination": 1})
    archive = pack(tmp_path / "made", tmp_path / "a.zip")
    done = fetch(replace(known, size=0, sha256=""), tmp_path / "toy", archive=archive)
    assert any("MVTec AD bottle has 209" in line for line in done.warnings)


def test_content_that_is_no_data_set(tmp_path: Path, known: PublishedSet) -> None:
    (tmp_path / "made").mkdir()
    (tmp_path / "made" / "a.txt").write_text("a")
    archive = pack(tmp_path / "made", tmp_path / "a.zip")
    done = fetch(replace(known, size=0, sha256=""), tmp_path / "toy", archive=archive)
    assert done.categories == () and "not recognised" in done.warnings[0]


# --- servers that misbehave ---


@pytest.mark.parametrize(
    ("mode", "message"),
    [
        ("error", "HTTP Error 500"),
        ("gone", "HTTP Error 404"),
        ("garbage", "is no HTTP"),
        ("broken chunk", "broke off"),
        ("too short", "the server offers .* bytes"),
        ("drop", "ended after"),
    ],
)
def test_no_folder_and_a_way_out(
    tmp_path: Path, known: PublishedSet, server: FileServer, mode: str, message: str
) -> None:
    server.mode = mode
    with pytest.raises(
        DataError, match=rf"Toy set could not be fetched.*{message}.*example\.org/toy and pass --url"
    ):
        fetch(known, tmp_path / "toy", pause=0)
    assert all(name.endswith(".part") for name in names(tmp_path)) and not (tmp_path / "toy").exists()


def test_refusals_are_not_repeated(tmp_path: Path, known: PublishedSet, server: FileServer) -> None:
    server.mode = "gone"
    with pytest.raises(DataError, match="404"):
        fetch(known, tmp_path / "toy", pause=0)
    assert len(server.ranges) == 1


def test_a_rotated_link_gives_a_page(tmp_path: Path, known: PublishedSet, server: FileServer) -> None:
    server.content = b"<html>log in</html>"
    with pytest.raises(DataError, match="the server offers 19 bytes"):
        fetch(known, tmp_path / "toy", pause=0)
    assert len(server.ranges) == 1 and names(tmp_path) == []


def test_more_bytes_than_the_file_has(
    tmp_path: Path, known: PublishedSet, server: FileServer, content: bytes
) -> None:
    """A server that states no length could send without end."""
    server.mode, server.content = "no length", content + bytes(3 << 20)
    with pytest.raises(DataError, match="sends more than"):
        fetch(known, tmp_path / "toy", pause=0)


def test_a_range_that_begins_elsewhere(
    tmp_path: Path, known: PublishedSet, server: FileServer, content: bytes
) -> None:
    """What would leave a gap is thrown away; the next attempt begins at the beginning."""
    (tmp_path / "toy.download.part").write_bytes(content[:1000])
    server.mode = "elsewhere"
    fetch(known, tmp_path / "toy", pause=0)
    assert server.ranges == ["bytes=1000-", None]


def test_another_content_of_the_same_length(
    tmp_path: Path, known: PublishedSet, server: FileServer, content: bytes
) -> None:
    server.content = content[:-1] + bytes([content[-1] ^ 1])
    with pytest.raises(DataError, match=r"has sha256 \w+, expected \w+: .* and was removed"):
        fetch(known, tmp_path / "toy")
    assert names(tmp_path) == []


def test_a_changed_archive_with_the_hash_of_its_publisher(
    tmp_path: Path, known: PublishedSet, content: bytes
) -> None:
    old = replace(known, size=5, sha256="0" * 64)
    assert fetch(old, tmp_path / "toy", sha256=hashlib.sha256(content).hexdigest().upper()).categories


def test_an_unknown_hash_and_no_archive(tmp_path: Path, known: PublishedSet, server: FileServer) -> None:
    """The next call does not take the page for an archive."""
    server.content = b"<html>log in</html>"
    with pytest.raises(DataError, match="damaged or no zip or tar archive"):
        fetch(replace(known, size=0, sha256=""), tmp_path / "toy")
    assert names(tmp_path) == []


def test_users_archive_is_never_removed(tmp_path: Path, known: PublishedSet) -> None:
    archive = tmp_path / "mine.tar.xz"
    archive.write_bytes(b"x" * known.size)
    for each in (known, replace(known, size=0), replace(known, size=0, sha256="")):
        with pytest.raises(DataError, match="mine"):
            fetch(each, tmp_path / "toy", archive=archive)
    assert names(tmp_path) == ["mine.tar.xz"]


def test_length_is_compared_where_no_hash_is_known(
    tmp_path: Path, known: PublishedSet, content: bytes
) -> None:
    (tmp_path / "mine.tar.xz").write_bytes(content)
    other = replace(known, size=known.size - 1, sha256="")
    with pytest.raises(
        DataError, match=f"has {known.size} bytes, the published archive has {known.size - 1}"
    ):
        fetch(other, tmp_path / "toy", archive=tmp_path / "mine.tar.xz")


def test_too_little_room(tmp_path: Path, known: PublishedSet, server: FileServer) -> None:
    with pytest.raises(OutputError, match="archive and content need about"):
        fetch(replace(known, size=10**18), tmp_path / "toy")
    assert server.ranges == []


def test_a_full_disk(tmp_path: Path, known: PublishedSet, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("andon.datasets.published.fetch.extract", full)
    with pytest.raises(OutputError, match=r"no space left .* to continue"):
        fetch(known, tmp_path / "toy")
    monkeypatch.undo()
    monkeypatch.delenv("ANDON_OFFLINE", raising=False)
    assert fetch(known, tmp_path / "toy").categories  # the archive was kept


# --- what is refused before anything happens ---


def test_existing_folders_are_left_alone(tmp_path: Path, known: PublishedSet, server: FileServer) -> None:
    (tmp_path / "toy").mkdir()
    (tmp_path / "toy" / "mine.txt").write_text("mine")
    (tmp_path / "file").write_text("mine")
    for place in ("toy", "file"):
        with pytest.raises(OutputError, match="there already and is left alone"):
            fetch(known, tmp_path / place)
    assert server.ranges == [] and names(tmp_path) == ["file", "toy/mine.txt"]


def test_a_folder_that_appears_meanwhile(tmp_path: Path, known: PublishedSet) -> None:
    def show(what: str, done: int, total: int) -> None:
        if what == "unpacking":
            (tmp_path / "toy").mkdir(exist_ok=True)
            (tmp_path / "toy" / "mine.txt").write_text("mine")

    with pytest.raises(OutputError, match="appeared meanwhile"):
        fetch(known, tmp_path / "toy", show=show)
    assert names(tmp_path / "toy") == ["mine.txt"]


@pytest.mark.parametrize("value", ["1", "true"])
def test_offline(
    tmp_path: Path, known: PublishedSet, server: FileServer, monkeypatch: pytest.MonkeyPatch, value: str
) -> None:
    monkeypatch.setenv("ANDON_OFFLINE", value)
    with pytest.raises(DataError, match=r"offline.*example\.org/toy.*--from-archive FILE"):
        fetch(known, tmp_path / "toy")
    assert server.ranges == []


@pytest.mark.parametrize(
    "url", ["file:///etc/passwd", "ftp://example.org/a", "example.org/a.zip", "https://"]
)
def test_other_links_than_http(tmp_path: Path, known: PublishedSet, url: str) -> None:
    with pytest.raises(DataError, match="is no link"):
        check_fetch(known, tmp_path / "toy", url=url)


def test_wrong_arguments(tmp_path: Path, known: PublishedSet) -> None:
    with pytest.raises(DataError, match="is no sha256"):
        check_fetch(known, tmp_path / "toy", sha256="abc")
    with pytest.raises(DataError, match="is no file"):
        check_fetch(known, tmp_path / "toy", archive=tmp_path)
    with pytest.raises(DataError, match=r"has no direct link .* pass --from-archive"):
        check_fetch(published_set("mpdd"), tmp_path / "toy")
    with pytest.raises(DataError, match="did you mean mvtec_loco"):
        published_set("loco")


@pytest.mark.parametrize("known", published_sets().values(), ids=list(published_sets()))
def test_every_known_set_says_what_it_is(tmp_path: Path, known: PublishedSet) -> None:
    first, licence, *_ = announce(known, tmp_path)
    assert known.page in first and known.licence in licence and known.page.startswith("https://")
    assert known.links or known.how
    assert bool(known.size) == bool(known.sha256) and len(known.sha256) in (0, 64)
    assert all(link.startswith("http") for link in known.links)


# --- download ---


def test_download_of_another_length(tmp_path: Path, server: FileServer, content: bytes) -> None:
    with pytest.raises(WrongFile, match="the file has 5"):
        download(server.url, tmp_path / "a", size=5)
    (tmp_path / "a.part").write_bytes(content + b"more")
    download(server.url, tmp_path / "a", size=len(content))
    assert (tmp_path / "a").read_bytes() == content and server.ranges[-1] is None


# --- command ---


def test_command_says_page_and_licence_first(tmp_path: Path, server: FileServer, content: bytes, cli) -> None:
    """The known hash is that of the real archive; a toy needs its own."""
    digest = hashlib.sha256(content).hexdigest()
    done = cli("data", "fetch", "visa", tmp_path / "v", "--yes", "--url", server.url, "--sha256", digest)
    assert (done.code, names(tmp_path / "v")[0]) == (0, ORIGIN)
    assert f"VisA is in {tmp_path / 'v'}: 1 category" in done.out
    page, licence, *_ = done.err.splitlines()
    assert "https://github.com/amazon-science/spot-diff" in page and licence == "licence: CC BY 4.0"
    again = cli("data", "fetch", "visa", tmp_path / "v", "--yes", "--url", server.url)
    assert again.code == 2 and "there already" in again.err


def test_command_as_json(tmp_path: Path, server: FileServer, content: bytes, cli) -> None:
    (tmp_path / "a.tar.xz").write_bytes(content)
    digest = hashlib.sha256(content).hexdigest()
    more = ("--from-archive", tmp_path / "a.tar.xz", "--sha256", digest, "--json", "--yes")
    done = json.loads(cli("--offline", "data", "fetch", "mvtec_ad", tmp_path / "v", *more).out)
    assert done["categories"] == ["part"] and done["sha256"] == digest and server.ranges == []


def test_command_needs_agreement(
    tmp_path: Path, server: FileServer, cli, monkeypatch: pytest.MonkeyPatch
) -> None:
    call = ("data", "fetch", "visa", tmp_path / "v", "--url", server.url)
    monkeypatch.setattr("sys.stdin", io.StringIO("y\n"))
    assert "nobody is here to agree" in cli(*call).err.splitlines()[-1]
    monkeypatch.setattr("sys.stdin.isatty", lambda: True, raising=False)
    answers = iter([False, True])
    monkeypatch.setattr("typer.confirm", lambda *_, **__: next(answers))
    refused = cli(*call)
    assert refused.code == 2 and "not agreed to, nothing was fetched" in refused.err
    assert server.ranges == []
    assert "the server offers" in cli(*call).err  # agreed, and asked for
    assert len(server.ranges) == 1


def test_command_lists_what_there_is(cli) -> None:
    listed = json.loads(cli("data", "list", "--json").out)
    embedded = [row for row in listed if row["name"].startswith("embedded:")]
    published = [row for row in listed if row not in embedded]
    assert [row["name"] for row in published] == list(published_sets())
    assert all(row["licence"] and row["page"] for row in published)
    assert {row["name"]: "CC BY-SA 4.0" in row["licence"] for row in embedded}.items() >= {
        ("embedded:cookies", True),
        ("embedded:fabric", False),
    }
    shown = cli("data", "list").out
    assert all(row["name"] in shown and row["licence"] in shown for row in listed)
