"""What an engine's layers are, from samples of what the libraries say."""

from __future__ import annotations

import json

import pytest

from fcnedge.build_engine.engines.layers import LayerTypes, check_obtained, read_inspector, read_layer_table
from fcnedge.build_engine.engines.library import Library
from fcnedge.runtime.errors import UserError


def layer(**first_input: str) -> dict:
    return {"Name": "conv", "LayerType": "CaskConvolution", "Inputs": [{"Name": "x", **first_input}], "Outputs": []}


@pytest.mark.parametrize(
    ("said", "dtype"),
    [
        ({"Format/Datatype": "Row major linear FP32"}, "float32"),
        ({"Format/Datatype": "Row major linear FP16 format"}, "float16"),
        ({"Format/Datatype": "Thirty-two wide channel vectorized row major Int8 format"}, "int8"),
        ({"Format/Datatype": "Channel major FP16 format where channel % 8 == 0"}, "float16"),
        ({"Datatype": "Half", "Format": "(NHWC) Channel major format"}, "float16"),
        ({"Datatype": "UInt8", "Format": "(Linear) Row major linear format"}, "uint8"),
        ({"Datatype": "Complex64"}, "other"),
    ],
)
def test_inspector_gives_the_type_that_a_layer_takes(said, dtype):
    assert read_inspector(json.dumps({"Layers": [layer(**said)], "Bindings": ["x"]})) == {dtype: 1}


@pytest.mark.parametrize(
    "text",
    [
        "",
        "not JSON",
        "[]",
        '{"Layers": []}',
        '{"Layers": ["conv1 + relu1", "conv2"]}',  # an engine built without detailed verbosity
        '{"Layers": [{"Name": "conv", "Inputs": []}]}',
    ],
)
def test_inspector_that_tells_no_types_is_no_inspection(text):
    assert read_inspector(text) == {}


# The first lines of what TensorRT-RTX 1.7.1 logged for the INT8 network of conftest.py, shortened.
TABLE = """Layers:
Name: __myl_CastMul_myl0_0, LayerType: kgen, Inputs: [ { Name: image, Dimensions: [1,32,48,3], Datatype: UInt8, \
Format: (Linear) Row major linear format }], Constants: [ { Name: c, Dimensions: [1], Datatype: Half, Format: x }], \
Outputs: [ { Name: a, Dimensions: [1,4,32,48], Datatype: Int8, Format: x }], TacticName: t, StreamId: 0, Metadata:
Name: conv_myl0_1, LayerType: correlation, Inputs: [ { Name: a, Dimensions: [1,4,32,48], Datatype: Int8, Format: x }], \
Constants: [], Outputs: [ { Name: b, Dimensions: [1,4,4,6], Datatype: Float, Format: x }], TacticName: t, StreamId: 0

I/O Tensors:
 Name: image, IOMode: Input, DataType: UInt8, Dimensions: [1,32,48,3], Location: Device
"""


def test_table_of_the_log_gives_the_type_that_a_layer_takes():
    assert read_layer_table(TABLE) == {"uint8": 1, "int8": 1}
    assert read_layer_table("") == {}


def test_precision_obtained_by_one_layer_is_enough_and_by_none_is_refused(stand_in):
    library = Library("tensorrt", stand_in("10.3").module)
    layers = LayerTypes({"float16": 1, "float32": 9}, "engine inspector")
    check_obtained(library, layers, "fp16")
    check_obtained(library, None, "int8")  # nobody looked: the sidecar says so
    with pytest.raises(UserError) as caught:
        check_obtained(library, layers, "int8")
    assert str(caught.value) == (
        "TensorRT 10.3.0 compiled not one layer in int8 (engine inspector: 1 float16, 9 float32), so the engine is not "
        "kept; rebuild the bundle's graph of that precision."
    )
