from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx_ir as ir
import pytest
from onnx import TensorProto, helper, numpy_helper

from fcnedge.build_engine.exporters.batch import batch_disagreement, free_batch
from fcnedge.build_engine.exporters.labels_graph import end_in_labels, open_graph, save_whole

SIDE = 4


def flattened(*, fixed_elsewhere: bool) -> ir.Model:
    """Reshapes `image` (1, 4, 4, 3) to (1, 48), or to (4, 12), which no batch fits, and back."""
    middle = [SIDE, 3 * SIDE] if fixed_elsewhere else [1, 3 * SIDE * SIDE]
    shapes = {"flat": np.array(middle), "back": np.array([1, SIDE, SIDE, 3])}
    nodes = [
        helper.make_node("Reshape", ["image", "flat"], ["line"], name="line"),
        helper.make_node("Reshape", ["line", "back"], ["labels"], name="labels"),
    ]
    tensors = [
        helper.make_tensor_value_info(name, TensorProto.UINT8, [1, SIDE, SIDE, 3]) for name in ("image", "labels")
    ]
    kept = [numpy_helper.from_array(array, name) for name, array in shapes.items()]
    line = helper.make_tensor_value_info("line", TensorProto.UINT8, middle)
    graph = helper.make_graph(nodes, "flat", tensors[:1], tensors[1:], kept, value_info=[line])
    return ir.from_proto(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8))


def written(single: ir.Model, batched: ir.Model, folder: Path) -> dict[str, Path]:
    """The two graphs in files, as batch_disagreement takes them."""
    free_batch(batched)
    (one,) = save_whole(single, folder / "single.onnx")
    (many,) = save_whole(batched, folder / "batched.onnx")
    return {"path": many, "single": one}


@pytest.mark.parametrize(("precision", "target"), [("fp32", None), ("fp16", None), ("int8", None), ("int8", "vnni")])
def test_batches_of_one_and_four_compute_what_one_picture_does(
    typed_bundle, pictures, tools, precision, target, tmp_path: Path
):
    models = []
    for _ in range(2):
        models.append(open_graph(typed_bundle, precision, target))
        end_in_labels(models[-1], typed_bundle.manifest)
    files = written(models[0], models[1], tmp_path)
    assert batch_disagreement(**files, batch=4) is None
    together = tools.run(files["path"], pictures)
    assert np.array_equal(together, np.concatenate([tools.run(files["single"], picture[None]) for picture in pictures]))


def test_reshape_to_one_picture_follows_the_batch(tmp_path: Path):
    models = [flattened(fixed_elsewhere=False) for _ in range(2)]
    assert batch_disagreement(**written(models[0], models[1], tmp_path), batch=3) is None


def test_graph_that_fixes_one_picture_inside_is_found_out(tmp_path: Path):
    models = [flattened(fixed_elsewhere=True) for _ in range(2)]
    reason = batch_disagreement(**written(models[0], models[1], tmp_path), batch=3)
    assert reason is not None
    assert "ONNX Runtime cannot run it with 3 pictures" in reason


def summed(operator: str) -> ir.Model:
    """`image` (1, 4) as float32, handed on (Identity) or summed up over the batch (CumSum)."""
    more = ["axis"] if operator == "CumSum" else []
    nodes = [
        helper.make_node("Cast", ["image"], ["number"], to=TensorProto.FLOAT),
        helper.make_node(operator, ["number", *more], ["labels"]),
    ]
    taken = helper.make_tensor_value_info("image", TensorProto.UINT8, [1, SIDE])
    given = helper.make_tensor_value_info("labels", TensorProto.FLOAT, [1, SIDE])
    kept = [numpy_helper.from_array(np.array(0, np.int64), name) for name in more]
    graph = helper.make_graph(nodes, "summed", [taken], [given], kept)
    return ir.from_proto(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8))


def test_graph_that_mixes_its_pictures_is_found_out(tmp_path: Path):
    reason = batch_disagreement(**written(summed("Identity"), summed("CumSum"), tmp_path), batch=3)
    assert reason == "with 3 at a time its results differ from those of one picture."
