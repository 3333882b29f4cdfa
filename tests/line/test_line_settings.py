"""Settings of a line: from a file, from options, and every mistake as one line that names file and key."""

from __future__ import annotations

import copy
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from andon.core.errors import ConfigError
from andon.line.rules import DEFAULT_RULES, InARow
from andon.line.settings import LineSettings, StationSettings

WHOLE = r"""
name = "hall 2"
data = "store"
durability = "relaxed"

[escalation]
minutes = [1, 2.5]

[stations.press]
model = "part.andon"
cycle_s = 2
queue = 8
thresholds = { accept = 0.9, reject = 1.1 }
folder = { path = "inbox", names = '(?P<lot>L\d+)_(?P<part_id>\d+)', after = "keep" }
keep_images = ["NG"]
on_full_disk = "ok_without_image"

[[stations.press.rules]]
kind = "in_a_row"
k = 4

[[stations.press.rules]]
kind = "no_part"
seconds = 60

[stations.oven-2]
model = "part.andon"
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """With a packed file and an inbox."""
    (tmp_path / "part.andon").touch()
    (tmp_path / "inbox").mkdir()
    return tmp_path


def load(folder: Path, text: str, **options) -> LineSettings:
    file = folder / "line.toml"
    file.write_text(text, encoding="utf-8")
    return LineSettings.load(file, **options)


def test_a_whole_file(folder, monkeypatch):
    monkeypatch.chdir("/")
    line = load(folder, WHOLE)
    press, oven = line.stations
    assert (line.name, line.data, line.escalation.minutes) == ("hall 2", folder / "store", (1, 2.5))
    assert (press.model, press.folder.path) == (folder / "part.andon", folder / "inbox")
    assert (press.thresholds.accept, press.thresholds.reject, press.queue) == (0.9, 1.1, 8)
    assert [rule.title for rule in press.rules] == ["4 NG in a row", "no part for 60 s"]
    assert oven == StationSettings(name="oven-2", model=folder / "part.andon")
    assert oven.rules == DEFAULT_RULES
    assert LineSettings.model_validate_json(line.model_dump_json()) == line


def test_options_alone_and_with_a_file(folder):
    option = f"lid={folder / 'part.andon'}"
    (lid,) = LineSettings.load(stations=[option]).stations
    assert (lid.name, lid.model, lid.thresholds, lid.folder) == ("lid", folder / "part.andon", None, None)
    both = load(folder, WHOLE, stations=[option], changes={"data": "elsewhere"})
    assert [station.name for station in both.stations] == ["press", "oven-2", "lid"]
    assert both.data == Path("elsewhere")


STATION = '[stations.a]\nmodel = "part.andon"\n'


@pytest.mark.parametrize(
    ("text", "messages"),
    [
        ("", ["no station", "--station NAME=FILE"]),
        ("stations = 3", ["stations has to be tables"]),
        ("[stations]\na = 3", ["[stations.a] is 3", "table"]),
        ("[stations.a]\n", ["'model' is missing", "[stations.a]"]),
        ("[stations.a]\nmodel = 5", ["model=5", "[stations.a]"]),
        ('[stations.a]\nmodel = "no.andon"', ["station a", "there is no file", "no.andon", "andon pack"]),
        ('[stations."a b"]\nmodel = "part.andon"', ["name='a b'", "1 to 40 letters"]),
        ('[stations."a\\n"]\nmodel = "part.andon"', ["1 to 40 letters"]),
        (STATION + 'name = "b"', ["'name'", "[stations.a]", "remove it"]),
        (STATION + "cycle = 2", ["unknown setting 'cycle'", "did you mean cycle_s?"]),
        (STATION + "cycle_s = 0", ["cycle_s=0", "greater than 0"]),
        (STATION + "cycle_s = nan", ["cycle_s=nan"]),
        (STATION + "queue = 0", ["queue=0", "correct it"]),
        (STATION + 'keep_images = ["PENDING"]', ["keep_images", "PENDING"]),
        (STATION + "thresholds = 1.0", ["thresholds is 1.0", "table"]),
        (STATION + "thresholds = { accept = 1.2 }", ["accept=1.2 is above reject=1", "[stations.a], thresholds"]),
        (STATION + "thresholds = { accept = inf, reject = inf }", ["accept=inf"]),
        (STATION + 'folder = "inbox"', ["folder is 'inbox'", "table"]),
        (STATION + 'folder = { path = "away" }', ["there is no folder", "away"]),
        (STATION + 'folder = { path = "inbox", names = "(" }', ["names='('", "not a regular expression"]),
        (STATION + 'folder = { path = "inbox", names = "(?P<who>x)" }', ["named groups"]),
        (STATION + 'folder = { path = "inbox", names = "x" }', ["named groups"]),
        (STATION + "rules = 3", ["rules=3"]),
        (STATION + "rules = [3]", ["rule 1 is 3"]),
        (STATION + '[[stations.a.rules]]\nkind = "in_a_row"\nk = 0', ["k=0", "[stations.a], rule 1", "correct the rule"]),
        (STATION + '[[stations.a.rules]]\nkind = "in_row"', ["unknown kind", "did you mean in_a_row?"]),
        (STATION + 2 * '[[stations.a.rules]]\nkind = "in_a_row"\n', ["rule '3 NG in a row' is there twice: remove one in"]),
        (STATION + STATION, ["not valid TOML", "line 3"]),
        (STATION + STATION.replace(".a", ".A"), ["two stations are named 'a'"]),
        (2 * (STATION + 'folder = { path = "inbox" }\n').replace(".a]", ".%s]") % (*"ab",), ["read the folder"]),
        ("dta = 3\n" + STATION, ["unknown setting 'dta'", "did you mean data?"]),
        ("escalation = 3\n" + STATION, ["[escalation] is 3"]),
        ("[escalation]\nminutes = [5, 5]\n" + STATION, ["has to ascend", "[escalation]"]),
        ("[escalation]\nminutes = [0]\n" + STATION, ["minutes.0=0"]),
        ("[retention]\nok_days = -1\n" + STATION, ["ok_days=-1", "[retention]"]),
        ("a = \x00", ["not valid TOML"]),
        ("a = " + "[" * 5000 + "]" * 5000, ["not valid TOML", "nested too deeply"]),
    ],
)  # fmt: skip
def test_mistakes_in_a_file(folder, text, messages):
    with pytest.raises(ConfigError) as caught:
        load(folder, text)
    for message in [*messages, "line.toml"]:
        assert message in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("option", ["part.andon", "=part.andon", "a=", "a b=part.andon"])
def test_mistakes_in_options(option):
    with pytest.raises(ConfigError, match="--station"):
        LineSettings.load(stations=[option])


def test_files_that_cannot_be_read(tmp_path):
    with pytest.raises(ConfigError, match=r"cannot be read \(No such file"):
        LineSettings.load(tmp_path / "away.toml")
    with pytest.raises(ConfigError, match=r"cannot be read \(Is a directory"):
        LineSettings.load(tmp_path)
    (tmp_path / "latin.toml").write_bytes(b'name = "\xe4"')
    with pytest.raises(ConfigError, match="not valid TOML"):
        LineSettings.load(tmp_path / "latin.toml")


def test_settings_are_frozen_values(folder):
    line = load(folder, WHOLE)
    with pytest.raises(ValueError, match="frozen"):
        line.name = "other"
    assert line.stations[1].updated({"rules": (InARow(k=9),)}).rules[0].k == 9


EVERYTHING = """
[escalation]
[retention]
[drift]
[modbus]
[opcua]
[mqtt]
host = "broker"
[email]
host = "mail"
sender = "andon@plant.example"
to = ["shift@plant.example"]
[stations.a]
model = "part.andon"
thresholds = {}
folder = { path = "inbox" }
camera = { kind = "folder", source = "inbox" }
golden = {}
review = {}
plc = {}
rules = [{ kind = "in_a_row" }, { kind = "in_window" }, { kind = "same_place" }, { kind = "no_good_part" },
  { kind = "no_part" }, { kind = "store_lost" }]
[stations.b]
model = "part.andon"
plc = { connect = "10.0.0.9", unit = 1 }
"""


def numbers(values: Any, place: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """Places of all numbers in plain values."""
    pairs = values.items() if isinstance(values, dict) else enumerate(values)
    for key, value in pairs:
        if isinstance(value, (dict, list, tuple)):
            yield from numbers(value, (*place, key))
        elif isinstance(value, (int, float)) and not isinstance(value, bool):
            yield (*place, key)


def test_no_number_is_without_bounds(folder):
    """Every number of all settings, those of lists and rules included."""
    whole = load(folder, EVERYTHING).model_dump(mode="json")
    for station, others in zip(whole["stations"], (("command", "result"), ("base",)), strict=True):
        for name in others:  # do not go with the others
            del station["plc"][name]
    places = [place for place in numbers(whole) if place[-1] != "seed"]  # any whole number is a seed
    assert {"cycle_s", "ok_days", "keep_days", "every_s", "image_ms", "grace_minutes", "poll_ms"} <= {
        p[-1] for p in places
    }
    for place in places:
        for number in (1e10, 1e300, 10**10, 10**300, float("inf"), float("nan")):
            values = copy.deepcopy(whole)
            inner = values
            for key in place[:-1]:
                inner = inner[key]
            inner[place[-1]] = number
            with pytest.raises(ConfigError, match=str(place[-1])):
                LineSettings.parse(values)


def test_a_number_of_thousands_of_digits(folder):
    with pytest.raises(ConfigError, match="not valid TOML"):
        load(folder, f"[retention]\nkeep_ng = {'9' * 5000}\n" + STATION)


OTHERS = """
[stations.press]
model = "part.andon"
[mqtt]
host = "broker"
user = "press"
password = { file = "secret" }
tls = true
ca_file = "ca.pem"
[[webhooks]]
name = "mes"
url = "https://mes.plant/andon?line=2"
secret = { env = "MES" }
[email]
host = "mail"
sender = "andon@plant.example"
to = ["shift@plant.example"]
"""


def test_other_machines(folder, monkeypatch):
    line = load(folder, OTHERS)
    assert line.mqtt is not None and line.mqtt.ca_file == folder / "ca.pem"
    assert (line.mqtt.port_used, line.email.port_used, line.webhooks[0].alarms) == (8883, 587, True)
    (folder / "secret").write_text("hunter2\nsecond line\n")
    monkeypatch.setenv("MES", "")
    assert line.mqtt.password.read("x") == "hunter2"
    with pytest.raises(ConfigError, match=r"^webhook mes: environment variable MES is empty: write"):
        line.webhooks[0].secret.read("webhook mes")


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ('password = { file = "secret" }', 'password = "hunter2"', "[mqtt], password: secrets do not stand in settings"),
        ('{ env = "MES" }', '{ env = "MES", file = "x" }', "webhook 1, secret"),
        ('user = "press"', "", "password needs user"),
        ("tls = true", "", "certificates need tls = true"),
        ("https://mes.plant", "https://u:hunter2@mes.plant", "url must not hold a password"),
        ("https://mes.plant", "ftp://mes.plant", "has to be an address like"),
        ("shift@plant.example", "shift@plant.example>, x", "is not a mail address"),
        ('sender = "andon@plant.example"', "", "'sender' is missing in"),
        ('host = "mail"', 'host = "mail"\nuser = "u"', "user and password go together"),
        ('host = "broker"', 'host = "broker"\nport = 70000', "port=70000"),
        ('host = "broker"', 'host = "broker"\nhots = 1', "unknown setting 'hots'"),
        ("[email]", '[[webhooks]]\nname = "MES"\nurl = "http://x"\n[email]', "two webhooks are named 'mes'"),
    ],
)  # fmt: skip
def test_mistakes_about_other_machines(folder, old, new, message):
    assert old in OTHERS
    with pytest.raises(ConfigError) as caught:
        load(folder, OTHERS.replace(old, new))
    text = str(caught.value)
    assert message in text and "line.toml" in text and "\n" not in text and "hunter2" not in text


@pytest.mark.parametrize("page", ["first_part", "plant", "plc", "reference/line"])
def test_documented_files_load(page, folder):
    docs = Path(__file__).parents[2] / "docs"
    blocks = re.findall(r"```toml\n(.*?)```", (docs / f"{page}.md").read_text(encoding="utf-8"), re.S)
    whole = [block for block in blocks if "[stations." in block]
    for block in whole:
        assert load(folder, block).stations[0].name == "press"
    assert whole
