"""The tree of errors is the one that its module draws, and each leaf says who should catch it."""

from __future__ import annotations

import re

import pytest

from fcnedge.runtime import errors
from fcnedge.runtime.errors import UserError, missing_package

CLASSES = {name: kind for name, kind in vars(errors).items() if isinstance(kind, type)}


def drawn_tree() -> dict[str, str]:
    """Child → parent, from the indentation of the drawing in the module's docstring."""
    parents: dict[str, str] = {}
    open_branches: list[tuple[int, str]] = []
    for line in (errors.__doc__ or "").splitlines():
        match = re.match(r"([│├└─ ]*)([A-Z]\w+)( {2,}|$)", line)
        if match is None or match[2] not in CLASSES:
            continue
        depth = len(match[1])
        open_branches = [(level, name) for level, name in open_branches if level < depth]
        if open_branches:
            parents[match[2]] = open_branches[-1][1]
        open_branches.append((depth, match[2]))
    return parents


def test_drawn_tree_is_the_tree() -> None:
    real = {name: [base.__name__ for base in kind.__bases__] for name, kind in CLASSES.items()}
    assert real.pop("FcnEdgeError") == ["Exception"]
    assert {name: [parent] for name, parent in drawn_tree().items()} == real


@pytest.mark.parametrize("name", sorted(CLASSES))
def test_every_error_says_what_to_do_about_it(name: str) -> None:
    text = CLASSES[name].__doc__ or ""
    assert re.search(r"catch|what to do|rebuild|choose|install", text), text


def test_missing_package_names_package_extra_and_command() -> None:
    error = missing_package("openvino", extra="openvino")
    assert isinstance(error, UserError)
    assert str(error) == "openvino is not installed; install it with: pip install 'fcnedge[openvino]'"
