"""The node's parameters: every value ROS may hand over, taken or refused in one sentence."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fcnedge.runtime import UserError
from fcnedge.runtime.palette import voc_palette
from fcnedge.runtime.ros2.parameters import (
    NodeParameters,
    changed_look,
    class_ids,
    first_look,
    read_alpha,
    read_class_words,
)

CLASSES = ("background", "cat", "dog", "7")
PALETTE = voc_palette(4)
DEFAULTS = {field.name: field.default for field in dataclasses.fields(NodeParameters)}
ANYTHING = (
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=9) | st.binary(max_size=4)
    | st.lists(st.booleans() | st.integers(-300, 300) | st.floats() | st.text(max_size=9), max_size=3)
)  # fmt: skip


def test_defaults_are_in_order() -> None:
    assert NodeParameters.read(DEFAULTS) == NodeParameters()
    look = first_look(NodeParameters(), PALETTE, CLASSES)
    assert (look.alpha, look.ignore, look.legend) == (0.5, {0}, False)


@pytest.mark.parametrize("value", [0, 1, 0.0, 0.25, 1.0])
def test_alpha_may_be_written_as_a_whole_number(value) -> None:
    assert read_alpha(value) == value
    assert isinstance(read_alpha(value), float)


@pytest.mark.parametrize("value", [-0.001, 1.001, 2, float("nan"), float("inf"), True, "0.5", None, [0.5]])
def test_other_alphas_are_refused(value) -> None:
    with pytest.raises(UserError, match=r"^the parameter alpha is .*; it must be a number from 0 .* to 1 .*\.$"):
        read_alpha(value)


@pytest.mark.parametrize(
    ("value", "ids"),
    [
        (None, ()),  # what [] becomes on its way
        ("", ()),
        ([], ()),
        ("cat", (1,)),
        (2, (2,)),
        (["dog", "cat", "dog"], (1, 2)),
        (("0", "3"), (0, 3)),
        ([1, 2], (1, 2)),
        (["7"], (3,)),  # a class of that name comes before an id
    ],
)
def test_classes_are_named_or_numbered(value, ids) -> None:
    assert class_ids(read_class_words(value), CLASSES) == set(ids)


@pytest.mark.parametrize("word", ["Cat", "4", 4, -1, "-1", "²", "99999999999", " 1"])
def test_class_that_the_model_has_not_is_refused(word) -> None:
    with pytest.raises(UserError, match="which is no class of the model; it has the ids 0 to 3: background, cat, dog"):
        class_ids(read_class_words(word), CLASSES)


@pytest.mark.parametrize("value", [True, [True], 1.5, [0.5], b"cat", [b"cat"]])
def test_classes_of_another_type_are_refused(value) -> None:
    with pytest.raises(UserError, match="it must be class names or ids"):
        class_ids(read_class_words(value), CLASSES)


@pytest.mark.parametrize("name", ["model", "backend", "precision", "filter_mode"])
@pytest.mark.parametrize("value", [5, None, "", ["a"], 1.5, True])
def test_text_must_be_text(name, value) -> None:
    with pytest.raises(UserError, match=rf"^the parameter {name} is .*; it must be text"):
        NodeParameters.read({**DEFAULTS, name: value})


@given(st.sampled_from(sorted(DEFAULTS)), ANYTHING)
def test_any_value_is_taken_or_refused_in_one_sentence(name: str, value: Any) -> None:
    refusal, look = None, first_look(NodeParameters(), PALETTE, CLASSES)
    try:
        look = first_look(NodeParameters.read({**DEFAULTS, name: value}), PALETTE, CLASSES)
    except UserError as error:
        refusal = str(error)
    assert refusal is None or (refusal.startswith(f"the parameter {name} ") and "\n" not in refusal)
    assert 0 <= look.alpha <= 1
    assert look.ignore <= set(range(4))


def test_look_changes_as_a_whole_or_not_at_all() -> None:
    look = first_look(NodeParameters(), PALETTE, CLASSES)
    opaque = changed_look(look, {"alpha": 1, "use_sim_time": True})
    assert (opaque.alpha, opaque.ignore) == (1.0, {0})
    catless = changed_look(look, {"ignore_classes": ["cat"]})
    assert (catless.alpha, catless.ignore, catless.legend) == (0.5, {1}, False)
    with pytest.raises(UserError):
        changed_look(look, {"alpha": 0.1, "ignore_classes": ["bird"]})
    assert (look.alpha, look.ignore) == (0.5, {0})
