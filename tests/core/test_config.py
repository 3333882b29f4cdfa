"""Settings: unknown names and wrong types in one line that names the way out; YAML there and back."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from andon.core.config import Config, from_yaml, parse_assignments, to_yaml
from andon.core.errors import ConfigError, nearest


class Inner(Config):
    epochs: int = 3
    """Passes."""
    lr: float = 0.1
    """Learning rate."""


class Outer(Config):
    teacher: Inner = Inner()
    student: Inner = Inner(epochs=5)
    epochs: int = 7
    """Passes
    over everything."""
    taps: tuple[str, ...] = ("layer2",)
    """Outputs."""


def complaint(call) -> str:
    with pytest.raises(ConfigError) as caught:
        call()
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_dotted_changes_make_a_new_object():
    before = Outer()
    after = before.updated({"teacher.epochs": 24, "taps": ["a", "b"]})
    assert (after.teacher.epochs, after.student.epochs, after.taps) == (24, 5, ("a", "b"))
    assert before == Outer()


@pytest.mark.parametrize(
    ("key", "message"),
    [
        ("teacher.epoch", "unknown setting 'teacher.epoch'; did you mean teacher.epochs?"),
        ("epoch", "unknown setting 'epoch'; did you mean epochs?"),
        ("lr", "unknown setting 'lr'; did you mean teacher.lr or student.lr?"),
        (
            "techer.epochs",
            "unknown setting 'techer.epochs'; did you mean teacher.epochs or student.epochs or epochs?",
        ),
        ("tap", "unknown setting 'tap'; did you mean taps?"),
        (
            "",
            "unknown setting ''; known: epochs, student.epochs, student.lr, taps, teacher.epochs, teacher.lr",
        ),
        ("taps.0", "setting 'taps' has no part '0'; set taps itself"),
        ("teacher.lr.x", "setting 'teacher.lr' has no part 'x'; set teacher.lr itself"),
        ("sed", "unknown setting 'sed'; did you mean seed?"),
    ],
)
def test_unknown_names_are_met_with_full_dotted_ones(key, message):
    assert complaint(lambda: Outer().updated({key: 3}, also=["seed"] if key == "sed" else [])) == message


@pytest.mark.parametrize(
    ("key", "value", "words"),
    [
        ("teacher.epochs", "many", ("teacher.epochs='many'", "in --set", "integer")),
        ("teacher.epochs", 2.5, ("teacher.epochs=2.5", "integer")),
        ("teacher.epochs", None, ("teacher.epochs=None", "integer")),
        ("teacher", 3, ("teacher=3", "Inner")),
        ("taps", "layer2", ("taps='layer2'", "tuple")),
    ],
)
def test_wrong_types_are_named(key, value, words):
    message = complaint(lambda: Outer().updated({key: value}, where="--set"))
    assert all(word in message for word in words), message


def test_unknown_name_in_a_file_is_met_with_the_full_path():
    message = complaint(lambda: Outer.parse({"teacher": {"epoch": 1}}, where="recipe x"))
    assert message == "unknown setting 'teacher.epoch' in recipe x; did you mean teacher.epochs?"


def test_group_and_part_of_it_in_either_order():
    assert Outer().updated({"teacher": {"epochs": 1}, "teacher.lr": 0.5}).teacher == Inner(epochs=1, lr=0.5)
    assert "teacher" in complaint(lambda: Outer().updated({"teacher": 3, "teacher.lr": 0.5}))


def test_missing_setting_is_named():
    class Needs(Config):
        detector: str

    assert (
        complaint(lambda: Needs.parse({}, where="a.yaml"))
        == "setting 'detector' is missing in a.yaml: add it"
    )


def test_settings_are_listed_with_their_meaning():
    rows = {name: (value, meaning) for name, value, meaning in Outer().settings()}
    assert rows["student.epochs"] == (5, "Passes.")
    assert rows["epochs"] == (7, "Passes over everything.")
    assert "teacher" not in rows


def test_assignments_are_yaml():
    found = parse_assignments(["a.b=24", "c=[layer2, layer3]", "d=null", "e=x=y", "f=true", "g=1.5", "h="])
    assert found == {
        "a.b": 24,
        "c": ["layer2", "layer3"],
        "d": None,
        "e": "x=y",
        "f": True,
        "g": 1.5,
        "h": None,
    }


@pytest.mark.parametrize("text", ["epochs", "=3", " =3", "a=[1, 2", "a={b", "a=2024-13-45", "a=\t- x"])
def test_assignments_that_are_none_are_quoted_back(text):
    assert text.split("=")[0].strip() in complaint(lambda: parse_assignments([text]))


DEEP = "[" * 3000 + "]" * 3000


@pytest.mark.parametrize("text", [f"x: {DEEP}", "- " * 4000, "x: &a [*a]", "x: &a {y: *a}"], ids=range(4))
def test_endless_yaml_is_refused_in_one_line(text):
    assert complaint(lambda: from_yaml(text, where="bomb.yaml")).startswith("bomb.yaml is not valid YAML (")
    assert len(complaint(lambda: parse_assignments([f"x={text}"]))) < 200


def test_aliases_and_usual_depth_are_read():
    assert from_yaml("a: &a {x: 1}\nb: {<<: *a, y: [*a, *a]}", where="") == {
        "a": {"x": 1},
        "b": {"x": 1, "y": [{"x": 1}, {"x": 1}]},
    }
    assert from_yaml("x: " + "[" * 45 + "]" * 45, where="")["x"]


@given(st.text(max_size=30))
@settings(deadline=None, max_examples=200)
def test_any_assignment_is_read_or_refused(text):
    try:
        parse_assignments([text])
    except ConfigError as error:
        assert "--set" in str(error)


@pytest.mark.parametrize(
    "text", ["a: [1", "- 1\n- 2", "", "just words", "a: 2024-99-99", "a: !!python/object:os.system x"]
)
def test_yaml_that_holds_no_settings_is_refused(text):
    assert "recipe.yaml" in complaint(lambda: from_yaml(text, where="recipe.yaml"))


def test_yaml_there_and_back():
    values = {"z": 1, "a": {"b": [1, 2.5, None, True, "ä"]}}
    text = to_yaml(values)
    assert from_yaml(text, where="") == values
    assert text.index("z:") < text.index("a:")


def test_nearest_names():
    assert nearest("layr2", ["layer1", "layer2", "conv1"]) in {
        "did you mean layer2?",
        "did you mean layer2 or layer1?",
    }
    assert nearest("xyz", ["b", "a"]) == "known: a, b"
    assert nearest("xyz", []) == "none are known"


def test_of_a_long_list_of_names_the_first_are_given():
    said = nearest("xyz", [f"{k:04}" for k in range(1300)])
    assert said.startswith("known: 0000, 0001, ")
    assert said.endswith(", 0009, and 1290 others")
    assert nearest("xyz", [f"{k:04}" for k in range(60)]).endswith(", 0059")
