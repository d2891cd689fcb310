"""Which layers and tensors get Q/DQ pairs."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir
import pytest
from onnx import helper

from fcnedge.build_engine.precision import Exclusion, QuantisedInput, QuantisedLayer, place
from fcnedge.runtime.errors import UserError


def test_default_placement_of_a_residual_fcn(residual_fcn):
    plan = place(residual_fcn)
    assert plan.layers == (
        QuantisedLayer("expand", "stem.relu", "expand.weight"),
        QuantisedLayer("depthwise", "expand.clip", "depthwise.weight"),
        QuantisedLayer("project", "depthwise.clip", "project.weight"),
        QuantisedLayer("deep", "sum", "deep.weight"),
    )
    assert plan.inputs == (
        QuantisedInput("stem.relu", "expand", 0),
        QuantisedInput("expand.clip", "depthwise", 0),
        QuantisedInput("depthwise.clip", "project", 0),
        QuantisedInput("stem.relu", "sum", 0),
        QuantisedInput("sum", "pool", 0),
    )
    assert plan.tensors == ("stem.relu", "expand.clip", "depthwise.clip", "sum")
    assert plan.residuals == ("sum",)
    assert plan.excluded == (
        Exclusion("stem", "the first convolution reads the picture itself."),
        Exclusion("score_fr", "a score layer: no convolution follows that could round its error away."),
        Exclusion("score2", "deconvolutions stay in float."),
        Exclusion("score_pool", "a score layer: no convolution follows that could round its error away."),
    )


def test_placing_changes_nothing(residual_fcn):
    before = ir.to_proto(residual_fcn).SerializeToString(deterministic=True)
    place(residual_fcn, stem=True, depthwise=True, scores=True)
    assert ir.to_proto(residual_fcn).SerializeToString(deterministic=True) == before


@pytest.mark.parametrize(
    ("asked", "more"),
    [("stem", {"stem"}), ("depthwise", {"depthwise"}), ("scores", {"score_fr", "score_pool"})],
)
def test_each_kind_is_quantised_when_asked_for(residual_fcn, asked, more):
    plan = place(residual_fcn, **{"depthwise": False, asked: True})
    assert {layer.node for layer in plan.layers} == {"expand", "project", "deep"} | more
    assert not {exclusion.node for exclusion in plan.excluded} & more


def test_depthwise_convolutions_stay_in_float_when_told_to(residual_fcn):
    plan = place(residual_fcn, depthwise=False)
    assert Exclusion("depthwise", "depthwise convolutions were to stay in float.") in plan.excluded


def test_score_convolution_takes_its_skip_sum_along_when_asked_for(residual_fcn):
    plan = place(residual_fcn, scores=True)
    assert plan.residuals == ("sum", "scores")
    assert QuantisedInput("score2", "scores", 1) in plan.inputs


def test_excluded_layer_is_left_out_with_its_residual(residual_fcn):
    plan = place(residual_fcn, exclude={"project"}, depthwise=False)
    assert [layer.node for layer in plan.layers] == ["expand", "deep"]
    assert plan.residuals == ()
    assert plan.inputs == (QuantisedInput("stem.relu", "expand", 0), QuantisedInput("sum", "pool", 0))
    assert Exclusion("project", "excluded by name.") in plan.excluded


@pytest.mark.parametrize("name", ["stem", "expand", "depthwise", "project", "deep", "score_fr", "score_pool"])
def test_one_layer_alone(residual_fcn, name):
    plan = place(residual_fcn, only={name})
    assert [layer.node for layer in plan.layers] == [name]
    assert {edge.node for edge in plan.inputs} <= {name, "sum", "pool", "scores"}
    others = [exclusion for exclusion in plan.excluded if exclusion.node != "score2"]
    assert len(others) == 6
    assert {exclusion.reason for exclusion in others} == {"not among the layers asked for."}


def test_pooled_tensor_read_in_float_too_keeps_its_pair_behind_the_pooling(make_graph, conv):
    rng = np.random.default_rng(0)
    weights = {f"{name}.weight": rng.normal(size=(4, 4, 1, 1)).astype(np.float32) for name in ("a", "b", "c", "score")}
    nodes = [
        conv("a", "x", bias=False),
        helper.make_node("MaxPool", ["a"], ["pool"], kernel_shape=[2, 2], strides=[2, 2]),
        conv("b", "pool", bias=False),
        conv("c", "b", bias=False),
        conv("score", "pool", bias=False),
        helper.make_node("Add", ["c", "score"], ["scores"]),
    ]
    model = make_graph(nodes, weights, ("x", np.float32, (1, 4, 8, 8)))
    assert place(model).inputs == (QuantisedInput("pool", "b", 0),)
    both = place(model, scores=True)
    assert QuantisedInput("a", "pool", 0) in both.inputs
    assert not [edge for edge in both.inputs if edge.tensor == "pool"]


def test_pair_goes_in_front_of_pooling_after_pooling(make_graph, conv):
    weights = {f"{name}.weight": np.ones((4, 4, 1, 1), np.float32) for name in ("a", "b", "c")}
    nodes = [
        conv("a", "x", bias=False),
        helper.make_node("MaxPool", ["a"], ["pool1"], kernel_shape=[2, 2], strides=[2, 2]),
        helper.make_node("MaxPool", ["pool1"], ["pool2"], kernel_shape=[2, 2], strides=[2, 2]),
        conv("b", "pool2", bias=False),
        conv("c", "b", bias=False),
    ]
    plan = place(make_graph(nodes, weights, ("x", np.float32, (1, 4, 8, 8)), "c"))
    assert plan.inputs == (QuantisedInput("a", "pool1", 0),)
    assert plan.layers == (QuantisedLayer("b", "a", "b.weight"),)


def residual(make_graph, conv, first: str, second: str, *extra) -> ir.Model:
    """x → a, then b and c side by side → sum of the tensors named → d → e."""
    weights = {f"{name}.weight": np.ones((4, 4, 1, 1), np.float32) for name in "abcde"}
    nodes = [
        conv("a", "x", bias=False),
        conv("b", "a", bias=False),
        conv("c", "a", bias=False),
        helper.make_node("Relu", ["c"], ["relu"]),
        *extra,
        helper.make_node("Add", [first, second], ["sum"]),
        conv("d", "sum", bias=False),
        conv("e", "d", bias=False),
    ]
    return make_graph(nodes, weights, ("x", np.float32, (1, 4, 8, 8)), "e")


@pytest.mark.parametrize(("first", "second"), [("b", "c"), ("c", "b")])
def test_of_two_convolutions_the_later_takes_the_sum(make_graph, conv, first, second):
    model = residual(make_graph, conv, first, second)
    model.graph.remove(next(node for node in model.graph if node.name == "relu"), safe=True)
    plan = place(model)
    assert plan.residuals == ("sum",)
    assert [edge for edge in plan.inputs if edge.node == "sum"] == [
        QuantisedInput("b", "sum", (first, second).index("b"))
    ]


def test_sum_after_an_activation_is_no_epilogue(make_graph, conv):
    plan = place(residual(make_graph, conv, "a", "relu"))
    assert plan.residuals == ()
    assert not [edge for edge in plan.inputs if edge.node == "sum"]


def test_convolution_read_elsewhere_takes_no_sum(make_graph, conv):
    plan = place(residual(make_graph, conv, "relu", "c"))
    assert plan.residuals == ()


def test_sum_of_two_float_branches_gets_no_pair(residual_fcn):
    plan = place(residual_fcn)
    assert "scores" not in {edge.node for edge in plan.inputs}


@pytest.mark.parametrize("words", [{"exclude": {"conv9"}}, {"only": {"conv9"}}, {"only": {"score2"}}])
def test_unknown_name_is_refused(residual_fcn, words):
    name = next(iter(next(iter(words.values()))))
    with pytest.raises(UserError, match=f"^the graph has no convolution {name}; it has stem, expand, depthwise"):
        place(residual_fcn, **words)


def test_contradiction_is_refused(residual_fcn):
    with pytest.raises(UserError, match="convolution deep is both asked for and excluded"):
        place(residual_fcn, only={"deep"}, exclude={"deep"})


def test_computed_weight_is_left_out_and_refused_by_name(make_graph, conv):
    constants = {"a.weight": np.ones((4, 4, 1, 1), np.float32), "c.weight": np.ones((4, 4, 1, 1), np.float32)}
    nodes = [
        conv("a", "x", bias=False),
        helper.make_node("Neg", ["c.weight"], ["b.weight"]),
        conv("b", "a", bias=False),
        conv("c", "b", bias=False),
    ]
    model = make_graph(nodes, constants, ("x", np.float32, (1, 4, 2, 2)), "c")
    assert Exclusion("b", "its weight or bias is computed at run time.") in place(model).excluded
    with pytest.raises(UserError, match="convolution b cannot be quantised: its weight or bias is computed"):
        place(model, only={"b"})


@pytest.mark.parametrize("name", ["", "expand"])
def test_nodes_without_a_name_of_their_own_are_refused(residual_fcn, name):
    next(node for node in residual_fcn.graph if node.name == "deep").name = name
    with pytest.raises(UserError, match="each needs its own name; build the model again"):
        place(residual_fcn)
