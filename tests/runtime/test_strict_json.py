"""What the readers of model.json, sidecars and ranges.json have in common; their own tests hold their fields."""

from __future__ import annotations

import math
import sys
from typing import Any

import pytest

from fcnedge.runtime.errors import BundleError, UserError
from fcnedge.runtime.strict_json import DuplicateNameError, Fields, Refusing, shown, strict_loads

REFUSING = Refusing(BundleError, "buy another", longest=5)


def fields(**data: Any) -> Fields:
    return Fields(data, "x.json", REFUSING)


def refusal(read: Any) -> str:
    with pytest.raises(UserError) as caught:
        read()
    assert type(caught.value) is BundleError
    return str(caught.value)


# --- text


def test_json_is_read():
    assert strict_loads(b'{"a": [1, 2.5, null, true, "\xc3\xa9"]}') == {"a": [1, 2.5, None, True, "é"]}


@pytest.mark.parametrize("text", ['{"a": 1, "a": 1}', '[{"b": {"a": 1, "b": 2, "a": 3}}]'])
def test_name_that_occurs_twice_is_refused_wherever_it_is(text):
    with pytest.raises(DuplicateNameError, match=r"^.a. occurs twice in one object$"):
        strict_loads(text)


@pytest.mark.parametrize("text", ["", "{", "\n\n{'a': 1}", b"\xff\xfe\x00", "[" * 100_000])
def test_what_is_no_json_is_refused_in_one_line(text):
    with pytest.raises(ValueError, match=r".") as caught:
        strict_loads(text)
    assert "\n" not in str(caught.value)
    assert not isinstance(caught.value, DuplicateNameError)


# --- fields


def test_refusal_names_the_path_what_was_got_and_what_to_do():
    inner = fields(a={"b": {"c": "red"}}).sub("a").sub("b")
    assert refusal(lambda: inner.integer("c", 1, 9)) == (
        "x.json: a: b: c must be a whole number from 1 to 9, got 'red'; buy another."
    )
    assert (
        refusal(lambda: inner.one_of("d", ("up", "down")))
        == "x.json: a: b: d must be up or down, got nothing; buy another."
    )


def test_field_that_the_file_names_is_said_in_printable_ascii():
    name = "\x1b[2J" + "x" * 5000
    for refused in (
        refusal(lambda: fields(**{name: 0}).integer(name, 1, 9)),
        refusal(lambda: fields(**{name: 0}).sha256(name)),
        refusal(lambda: fields(**{name: 0}).sub(name)),
        refusal(lambda: fields(**{name: {"a": 0}}).sub(name).integer("a", 1, 9)),
    ):
        assert refused.isprintable()
        assert len(refused) < 200
        assert "'\\x1b[2Jxxx" in refused


def test_what_is_no_object_is_refused():
    assert refusal(lambda: Fields([1], "x.json", REFUSING)) == "x.json must be a JSON object, got [1]; buy another."
    assert refusal(lambda: fields(a=3).sub("a")) == "x.json: a must be an object, got 3; buy another."


@pytest.mark.parametrize("value", [True, 1.0, "1", None, 0, 10])
def test_only_a_whole_number_within_its_bounds_is_an_integer(value):
    assert fields(a=1).integer("a", 1, 9) == 1
    assert "whole number" in refusal(lambda: fields(a=value).integer("a", 1, 9))


@pytest.mark.parametrize("value", [True, "1", None, math.nan, math.inf, -0.1, 10**400])
def test_only_a_finite_number_within_its_bounds_is_a_number(value):
    assert fields(a=1).number("a", 0, 9) == 1.0
    assert "must be a number from 0 to 9" in refusal(lambda: fields(a=value).number("a", 0, 9))
    assert "2 finite numbers within ±9" in refusal(
        lambda: fields(a=[0, value if value != -0.1 else -9.1]).numbers("a", 2, 9)
    )


@pytest.mark.parametrize("value", ["", "longer", "a\nb", "\u202e", 3, None, ["a"]])
def test_only_a_short_text_that_prints_is_a_text(value):
    assert fields(a="fünf!").text("a") == "fünf!"
    assert "a printable text of 1 to 5 characters" in refusal(lambda: fields(a=value).text("a"))
    assert "a list of printable texts" in refusal(lambda: fields(a=["b", value]).texts("a"))
    if isinstance(value, str):
        assert refusal(lambda: fields(**{value: 1}).names("city")).endswith(" is not a city; buy another.")


@pytest.mark.parametrize("value", ["ab" * 31, "AB" * 32, "ab" * 32 + "\n", 7, None])
def test_only_64_small_hexadecimal_digits_are_a_hash(value):
    assert fields(a="ab" * 32).sha256("a") == "ab" * 32
    assert "64 hexadecimal digits" in refusal(lambda: fields(a=value).sha256("a"))


@pytest.mark.parametrize("value", [0, 1, "true", None])
def test_only_true_and_false_are_truth(value):
    assert fields(a=False).boolean("a") is False
    assert "true or false" in refusal(lambda: fields(a=value).boolean("a"))


def test_number_of_entries_is_held_to():
    assert fields(a=[1, None]).items("a", 2, 3) == [1, None]
    assert "a list of 2 to 3 entries" in refusal(lambda: fields(a=[1]).items("a", 2, 3))
    assert "a list of 1 entries" in refusal(lambda: fields(a=[1, 2]).items("a", 1, 1))


# --- anything in a sentence


def test_what_is_shown_is_one_short_line_of_ascii():
    assert shown("é\n") == "'\\xe9\\n'"
    assert len(shown("x" * 1000)) == 58
    nested: Any = []
    for _ in range(10 * sys.getrecursionlimit()):
        nested = [nested]
    assert len(shown(nested)) < 60
