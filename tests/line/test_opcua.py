"""A station behind OPC UA: values, events, states and methods seen by a client, encryption, and who may connect."""

from __future__ import annotations

import asyncio
import gc
import re
import socket
from itertools import pairwise
from typing import Any

import pytest
from conftest import ROOT
from hypothesis import given
from hypothesis import strategies as st

from andon.core.errors import UsageError
from andon.line.line import Line
from andon.line.opcua.settings import OpcUaSettings
from andon.line.opcua.states import STEPS, Method, State, steps, target
from andon.line.opcua.values import EVENT, VALUES, event, values
from andon.line.station import NotReady
from andon.line.store import rows as stored
from andon.line.verdicts import Cause, Verdict
from line.running import answer, running

pytest.importorskip("asyncua")

from asyncua import ua
from asyncua.crypto import cert_gen
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import ExtendedKeyUsageOID

from andon.line.opcua.certificates import Clients, own
from andon.line.opcua.nodes import STEP
from line.opcua_client import Seen, aside, becomes, client, served


def refused(line: Line) -> tuple[Verdict, str | None]:
    """Verdict and cause of a part that is not judged."""
    with pytest.raises(NotReady):
        answer(line.stations["press"], 9)
    (row,) = line.store.inspections(limit=1)
    return row.verdict, row.cause


def objects() -> int:
    """Objects of the server and the library, of both sides, that live."""
    gc.collect()
    return sum(
        str(type(each).__module__).startswith(("asyncua", "andon.line.opcua")) for each in gc.get_objects()
    )


# Without a server ------------------------------------------------------------------------------------------------------


@given(st.sampled_from(State), st.lists(st.sampled_from(State)))
def test_states_never_skip(start, ends):
    for end in ends:
        way = [start, *steps(start, end)]
        assert way[-1] is end and len(way) <= 3
        assert all(after in STEPS[before] for before, after in pairwise(way))
        start = end


def test_values_are_bad_until_a_part_is_cleared_and_while_the_station_fails(folder):
    with running(folder) as line:
        station = line.stations["press"]
        good, bad = answer(station, 1, trigger_no=7, lot="L1"), answer(station, 2, "NG")
        view = station.view()
        nothing = values(view, None, State.OPERATIONAL)
        assert list(nothing) == [value.name for value in VALUES] and None not in nothing.values()
        assert (nothing["Verdict"], nothing["Complement"], nothing["IsResultsValid"]) == (0, 65535, False)
        shown = values(view, good, State.OPERATIONAL, heartbeat=3)
        assert (shown["Verdict"], shown["Complement"], shown["TriggerNo"], shown["Lot"]) == (
            1,
            65534,
            7,
            "L1",
        )
        assert (shown["Inspection"], shown["PartId"], shown["Heartbeat"]) == (good.id, "part-1", 3)
        for state in (State.ERROR, State.HALTED, State.PREOPERATIONAL):
            assert values(view, good, state)["Verdict"] == 0
            assert values(view, bad, state)["Verdict"] == Verdict.NG
        assert list(event(bad)) == [field.name for field in EVENT] and event(bad)["Verdict"] == Verdict.NG
        assert target(view) is State.OPERATIONAL
        line.store_watch.tick = lambda: None  # the disk is full, whatever the line sees
        station.halt("why")
        station.set_fault("disk", "full")
        assert target(station.view()) is State.HALTED
        station.halt(None)
        assert target(station.view()) is State.ERROR


def test_only_trusted_certificates_are_accepted(tmp_path):
    key, certificate = own(tmp_path)
    before = certificate.read_bytes()
    assert own(tmp_path) == (key, certificate) and certificate.read_bytes() == before
    assert key.stat().st_mode & 0o077 == 0
    clients = Clients(tmp_path)
    assert not clients.accept(b"no certificate") and not clients.accept(before)
    (refused,) = (tmp_path / "rejected").iterdir()
    pem = x509.load_der_x509_certificate(before).public_bytes(Encoding.PEM)
    (tmp_path / "trusted" / "notes.txt").write_text("not a certificate")
    (tmp_path / "trusted" / "mes.pem").write_bytes(pem)
    assert clients.accept(before)
    (tmp_path / "trusted" / "mes.pem").unlink()
    refused.rename(tmp_path / "trusted" / refused.name)
    assert clients.accept(before)


def test_what_an_interruption_left_of_key_and_certificate_is_not_used(tmp_path):
    """Half a certificate, one of another key and half a key are put aside; a good key stays."""
    key, certificate = own(tmp_path / "own")
    first, made = key.read_bytes(), certificate.read_bytes()
    other = own(tmp_path / "other")[1].read_bytes()
    for wrong in (made[:200], b"", other):
        certificate.write_bytes(wrong)
        own(tmp_path / "own")
        assert key.read_bytes() == first
        assert (tmp_path / "own/server.der.unusable").read_bytes() == wrong
        found = x509.load_der_x509_certificate(certificate.read_bytes())
        assert found.public_key() == x509.load_der_x509_certificate(made).public_key()
    key.write_bytes(first[:200])
    own(tmp_path / "own")
    assert (tmp_path / "own/server.pem.unusable").read_bytes() == first[:200]
    assert key.read_bytes() not in (first, first[:200]) and key.stat().st_mode & 0o077 == 0
    assert x509.load_der_x509_certificate(certificate.read_bytes()).public_key() != found.public_key()


def test_a_used_port_is_told_at_the_start(folder):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with (
            pytest.raises(UsageError, match=f"port {port} cannot be used"),
            running(folder, line={"opcua": OpcUaSettings(port=port)}),
        ):
            pass


# With a client -----------------------------------------------------------------------------------------------------------


@pytest.mark.service
def test_a_client_sees_parts_states_and_methods(folder):
    with served(folder) as (line, _, url):
        station = line.stations["press"]

        async def use(seen):
            assert (await seen.all())["State"] in {"Preoperational", "Operational"}
            assert None not in (await seen.all()).values()
            objects = seen.connection.nodes.objects
            path = [f"{seen.index}:{name}" for name in ("Andon", "press", "Verdict")]
            assert await (await objects.get_child(path)).read_value() == 0

            # one event for each part, at the station and, the same, at the server
            whole = Seen(seen.connection, seen.index)
            await whole.listen("PartEventType", seen.connection.nodes.server)
            await seen.listen("PartEventType")
            words = ["OK", "NG", "REVIEW", "ERROR", "OK"]
            rows = [await aside(answer, station, n, word) for n, word in enumerate(words)]
            await becomes(lambda: len(seen.heard) >= 5 and len(whole.heard) >= 5)
            assert [heard.Inspection for heard in seen.heard] == [row.id for row in rows]
            assert [heard.Verdict for heard in seen.heard] == [row.verdict for row in rows]
            assert [heard.EventId for heard in whole.heard] == [heard.EventId for heard in seen.heard]
            assert {heard.SourceName for heard in seen.heard} == {"press"}
            shown = await seen.all()
            assert (shown["Verdict"], shown["Complement"], shown["PartId"]) == (1, 65534, "part-4")

            # nobody changes values
            with pytest.raises(ua.UaStatusCodeError):
                await seen.node("Verdict").write_value(ua.Variant(1, ua.VariantType.UInt32))

            # methods in wrong and right states; each step of the state is told
            steps = Seen(seen.connection, seen.index)
            await steps.listen("StateEventType")
            assert [await seen.call(name) for name in ("Reset", "StopSeen")] == ["BadInvalidState"] * 2
            assert await seen.call("SetRecipe", "none such") == "BadInvalidArgument"
            assert await seen.call("SetRecipe", 5) == "BadInvalidArgument"
            assert await seen.call("SetRecipe") == "BadArgumentsMissing"
            assert await seen.call("Halt") == "Good"
            assert (await seen.all())["State"] == "Halted" and (await seen.all())["Verdict"] == 0
            assert await aside(refused, line) == (Verdict.ERROR, Cause.NOT_READY)
            assert await seen.call("Halt") == "BadInvalidState"
            assert await seen.call("StartGolden") == "BadInvalidState"
            assert await seen.call("Reset") == "Good"
            await becomes(lambda: len(steps.heard) >= 3)
            told = [(heard.FromState, heard.ToState) for heard in steps.heard]
            assert told == [
                ("Operational", "Halted"),
                ("Halted", "Preoperational"),
                ("Preoperational", "Operational"),
            ]

        client(url, use)
        for action in ("halts", "resets"):
            assert line.store.ask(lambda connection, a=action: stored.find(connection, "audit", action=a))


def test_the_page_has_all_values_events_states_and_methods():
    page = (ROOT / "docs" / "opcua.md").read_text(encoding="utf-8").split("## Machine vision")[0]
    table = re.findall(r"^\| `(\w+)` \| (\w+) \|", page, re.MULTILINE)
    assert table == [tuple(value) for value in VALUES]
    fields = ", ".join(f"`{field.name}`" for field in EVENT)
    assert f"| `PartEventType` | once for each part | {fields} |" in page
    assert f"`{STEP[0].name}`, `{STEP[1].name}`" in page
    for state, after in STEPS.items():
        assert re.search(
            f"^\\| `{state}` \\| .* \\| {', '.join(f'`{each}`' for each in after)} \\|$", page, re.MULTILINE
        )
    assert [
        name
        for name in re.findall(r"^\| `(\w+)(?:\(Code\))?` \| .* \| .* \|$", page, re.MULTILINE)
        if name in [*Method]
    ] == [*Method]


@pytest.mark.service
def test_a_thousand_parts_leave_nothing_behind(folder):
    with served(folder) as (line, server, url):
        station = line.stations["press"]

        async def use(seen):
            await seen.listen("PartEventType")
            torn: list[Any] = []
            ended = asyncio.Event()

            async def read() -> None:
                while not ended.is_set():
                    shown = await seen.all()
                    whole = shown["Verdict"] + shown["Complement"] == 65535
                    same = f'"id": {shown["Inspection"]},' in shown["Result"] or not shown["Result"]
                    await asyncio.sleep(0.005)
                    torn.extend([] if whole and same else [shown])

            reading = asyncio.create_task(read())
            sizes, ids = list[int](), list[int]()
            for begin in range(0, 1000, 200):
                for number in range(begin, begin + 200):
                    await aside(answer, station, number, "NG" if number % 3 else "OK")
                await becomes(lambda: len(seen.heard) == 200)
                ids += [heard.Inspection for heard in seen.heard]
                seen.heard.clear()
                station.model.judged.clear()
                sizes.append(await aside(objects))
            ended.set()
            await reading
            assert torn == []
            assert sizes[-1] - sizes[1] < 300, sizes  # less than one object for two parts
            assert len(ids) == len(set(ids)) == 1000 and server.lost == 0

        client(url, use)


@pytest.mark.service
def test_strangers_get_no_session_where_encryption_is_needed(folder, tmp_path):
    secret = cert_gen.generate_private_key()
    made = cert_gen.generate_self_signed_app_certificate(
        secret,
        "client",
        {},
        [x509.UniformResourceIdentifier("urn:test:client")],
        [ExtendedKeyUsageOID.CLIENT_AUTH],
    )
    key, certificate = tmp_path / "client.pem", tmp_path / "client.der"
    key.write_bytes(cert_gen.dump_private_key_as_pem(secret))
    certificate.write_bytes(made.public_bytes(Encoding.DER))
    with served(folder, host="0.0.0.0") as (_line, _server, url):

        async def state(seen):
            return (await seen.all())["State"], await seen.call("Halt")

        with pytest.raises(ua.UaError):
            client(url, state)
        with pytest.raises(ua.UaError):
            client(url, state, (key, certificate))
        (refused,) = (folder / "opcua" / "rejected").iterdir()
        refused.rename(folder / "opcua" / "trusted" / refused.name)
        assert client(url, state, (key, certificate)) == ("Operational", "Good")
