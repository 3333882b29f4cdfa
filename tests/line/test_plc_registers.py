"""The register map: both ways of the coding, texts, what a PLC may pass, and the tables of docs/plc.md."""

from __future__ import annotations

import math
import re

import pytest
from conftest import ROOT
from hypothesis import given, settings
from hypothesis import strategies as st

from andon.line.plc import registers
from andon.line.plc.handshake import Error
from andon.line.plc.registers import (
    COMMAND_WORDS,
    COMMANDS,
    RESULT_WORDS,
    RESULTS,
    Command,
    Commands,
    Kind,
    Results,
    Status,
)
from andon.line.verdicts import Verdict

word, long = st.integers(0, 0xFFFF), st.integers(0, 0xFFFFFFFF)
text = st.text(st.characters(min_codepoint=33, max_codepoint=126))
results = st.builds(
    Results,
    status=st.integers(0, registers.max_bits(Status)).map(Status),
    verdict=st.sampled_from(Verdict),
    trigger_no=word,
    inspection=long,
    error=word,
    threshold_version=word,
    score=st.floats(width=32, allow_nan=False, allow_infinity=False, min_value=-1024.0, max_value=1024.0),
    judge_ms=word,
    heartbeat=word,
    total=long,
    ng=long,
)


@settings(max_examples=25, deadline=None)
@given(results)
def test_what_the_station_says_is_read_as_it_was(said):
    words = registers.encode(said)
    assert len(words) == RESULT_WORDS and registers.decode(words) == said


@settings(max_examples=25, deadline=None)
@given(
    st.builds(
        Commands,
        st.integers(0, 255).map(Command),
        word,
        word,
        word,
        text.map(lambda t: t[:32]),
        text.map(lambda t: t[:16]),
    )
)
def test_what_the_plc_says_is_read_as_it_was(said):
    words = registers.encode_commands(said)
    assert len(words) == COMMAND_WORDS and registers.decode_commands(words) == said


def test_the_words_are_where_the_map_says_high_word_first():
    said = Results(Status.RESULTS_VALID, Verdict.OK, 7, inspection=0x12345678, score=1.0, total=0x10002)
    words = registers.encode(said)
    assert words[:6] == [1 << 4, 1, 0xFFFE, 7, 0x1234, 0x5678]
    assert words[9:11] == [0x3F80, 0] and words[14:16] == [1, 2] and words[19] == registers.SCHEMA_VERSION
    assert registers.encode_commands(Commands(part_id="AB", lot="ÄC"))[4] == 0x4142
    assert registers.encode_commands(Commands(lot="ÄC"))[20] == 0x3F43  # what is not ASCII becomes ?
    assert math.isnan(registers.decode(registers.encode(Results())).score)


def test_texts_end_at_nul_and_hold_nothing_unprintable():
    words = [0] * COMMAND_WORDS
    words[4:7] = [0x4107, 0x4220, 0x0043]
    assert registers.decode_commands(words).part_id == "A?B"


@settings(max_examples=25, deadline=None)
@given(results, st.integers(0, RESULT_WORDS - 1), word, word)
def test_a_block_with_a_wrong_word_passes_no_part(said, place, other, number):
    words = registers.encode(said)
    intact = list(words)
    words[place] = other
    if registers.is_good(words, number):
        assert said.verdict is Verdict.OK or intact == words
        assert said.trigger_no == number or place == 3


def test_zeroes_pass_no_part():
    assert not registers.is_good([0] * RESULT_WORDS, 0)
    assert not registers.is_good(registers.encode(Results(verdict=Verdict.OK)), 0)  # not valid
    assert registers.is_good(registers.encode(Results(Status.RESULTS_VALID, Verdict.OK)), 0)


@pytest.mark.parametrize("fields", [COMMANDS, RESULTS])
def test_fields_do_not_overlap(fields):
    taken = [field.address + word for field in fields for word in range(field.words)]
    assert len(taken) == len(set(taken)) and max(taken) < RESULT_WORDS
    assert all(field.words == {Kind.LONG: 2, Kind.FLOAT: 2}.get(field.kind, field.words) for field in fields)


def test_the_guide_prints_the_map():
    page = (ROOT / "docs" / "plc.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| `?([\d-]+)`? \| `(\w+)` \| ([^|]+) \|(?: ([^|]+) \|)?$", page, re.M)
    for fields in (COMMANDS, RESULTS):
        for each in fields:
            last = each.address + each.words - 1
            place = str(each.address) if each.words == 1 else f"{each.address}-{last}"
            assert (place, each.name, each.kind.value, each.meaning) in rows
    for bits in (Command, Status):
        for bit in bits:
            assert (str(bit.bit_length() - 1), bit.name.lower()) in [row[:2] for row in rows]
    for error in Error:
        assert f"| {error.value} | `{error.name.lower()}` |" in page
