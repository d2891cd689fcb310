"""MatConvNet networks as the tests describe them: written as .mat files of both versions, and run by NumPy in float64.

Nothing here is shared with the importer: the forward pass follows MatConvNet's manual (vl_nnconv, vl_nnconvt,
vl_nnpool, dagnn.Crop) in its own words, and the writers follow the files that MATLAB writes.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

CLASSES = 4
NAMES = ("background", "cat", "dog", "horse")
MEAN_RGB = (122.67891434, 116.66876762, 104.00698793)


@dataclass
class Dag:
    """layers: (type, name, inputs, output, params, block); params: arrays in MATLAB's layout; meta: as in the file."""

    layers: list[tuple[str, str, list[str], str, list[str], dict[str, Any]]] = field(default_factory=list)
    params: dict[str, np.ndarray] = field(default_factory=dict)
    meta: dict[str, Any] = field(default_factory=dict)

    def add(self, kind: str, name: str, inputs: str, output: str, params: str = "", **block: Any) -> None:
        self.layers.append((f"dagnn.{kind}", name, inputs.split(), output, params.split(), block))


class Random:
    """Weights that keep the scale of what they read, whatever the seed."""

    def __init__(self, seed: int) -> None:
        self.generator = np.random.default_rng(seed)

    def filters(self, *shape: int) -> np.ndarray:
        scale = np.sqrt(2 / np.prod(shape[:3]))
        return np.asfortranarray(self.generator.normal(0, scale, shape).astype(np.float32))

    def bias(self, count: int) -> np.ndarray:
        return self.generator.normal(0, 0.1, (count, 1)).astype(np.float32)


def published(
    stride: int,
    *,
    channels: tuple[int, ...] = (4, 5, 6, 7, 8, 9),
    classes: int = CLASSES,
    spelling: str = "f b",
    learned: bool = False,
    crops: tuple[tuple[int, int], ...] = ((5, 5), (9, 9), (31, 31)),
    seed: int = 1,
) -> Dag:
    """FCN-32s/16s/8s as converted from Caffe: pad of 100, one-sided pooling pads, crops to the size of another layer.

    channels: of the five stages and of fc6 and fc7; spelling: endings of a layer's parameters, "f b" or
    "_filter _bias"; learned: the deconvolutions mix classes; crops: of score_pool4, score_pool3 and the last.
    """
    random, dag = Random(seed), Dag()
    filters, bias = spelling.split()

    def weights(name: str, *shape: int) -> str:
        dag.params[name + filters], dag.params[name + bias] = random.filters(*shape), random.bias(shape[3])
        return f"{name}{filters} {name}{bias}"

    x, depth = "data", 3
    for stage, repeats in enumerate((2, 2, 3, 3, 3)):
        for index in range(1, repeats + 1):
            name, shape = f"conv{stage + 1}_{index}", (3, 3, depth, channels[stage])
            pad: Any = 100.0 if name == "conv1_1" else np.ones((1, 4)) if index == 1 else np.ones((1, 2))
            dag.add(
                "Conv",
                name,
                x,
                f"{name}x",
                weights(name, *shape),
                size=row(*shape),
                pad=pad,
                stride=row(1, 1),
                hasBias=True,
            )
            dag.add("ReLU", f"relu{stage + 1}_{index}", f"{name}x", name, leak=0.0)
            x, depth = name, channels[stage]
        pool = f"pool{stage + 1}"
        dag.add("Pooling", pool, x, pool, method="max", poolSize=row(2, 2), stride=row(2, 2), pad=row(0, 1, 0, 1))
        x = pool
    for name, kernel in (("fc6", 7), ("fc7", 1)):
        shape = (kernel, kernel, depth, channels[5])
        dag.add("Conv", name, x, f"{name}x", weights(name, *shape), size=row(*shape), pad=0.0, stride=1.0, hasBias=True)
        dag.add("ReLU", f"relu{name[2]}", f"{name}x", name, leak=0.0)
        x, depth = name, channels[5]
    x = _score(dag, "score_fr", x, weights("score_fr", 1, 1, depth, classes))
    skips = [("score2", 3, crops[0]), ("score4", 2, crops[1])][: {32: 0, 16: 1, 8: 2}[stride]]
    for score, pool, crop in skips:
        x = _deconvolution(dag, random, score, x, 2, classes, learned)
        skip = _score(
            dag,
            f"score_pool{pool + 1}",
            f"pool{pool + 1}",
            weights(f"score_pool{pool + 1}", 1, 1, channels[pool], classes),
        )
        dag.add("Crop", f"crop{pool}", f"{skip} {x}", f"{skip}c", crop=row(*crop))
        dag.add("Sum", f"fuse{pool}", f"{x} {skip}c", f"fuse{pool}x")
        x = f"fuse{pool}x"
    x = _deconvolution(dag, random, "upsample", x, stride, classes, learned)
    dag.add("Crop", "score_crop", f"{x} data", "prediction", crop=row(*crops[2]))
    dag.meta = {
        "classes": {"name": cell(NAMES[:classes]), "description": cell(NAMES[:classes])},
        "normalization": {"averageImage": np.reshape(MEAN_RGB, (1, 1, 3)), "interpolation": "bilinear"},
    }
    return dag


def _score(dag: Dag, name: str, x: str, params: str) -> str:
    """A 1x1 convolution, and nothing after it."""
    dag.add("Conv", name, x, f"{name}x", params, size=[*dag.params[params.split()[0]].shape], pad=0.0, stride=1.0)
    return f"{name}x"


def _deconvolution(dag: Dag, random: Random, name: str, x: str, factor: int, classes: int, learned: bool) -> str:
    kernel = np.zeros((2 * factor, 2 * factor, classes, classes), np.float32)
    taps = 1 - np.abs(np.arange(2 * factor) - (factor - 0.5)) / factor
    for index in range(classes):
        kernel[:, :, index, index] = np.outer(taps, taps)
    if learned:
        kernel += 0.1 * random.generator.normal(0, 1 / factor, kernel.shape).astype(np.float32)
    dag.params[f"{name}f"] = kernel
    dag.add("ConvTranspose", name, x, f"{name}x", f"{name}f", size=row(*kernel.shape), upsample=row(factor, factor),
            crop=row(0, 0, 0, 0), hasBias=False)  # fmt: skip
    return f"{name}x"


def row(*numbers: float) -> np.ndarray:
    """A MATLAB row vector."""
    return np.array([numbers], np.float64)


def cell(items: Any) -> np.ndarray:
    """A MATLAB row cell array."""
    array = np.empty((1, len(items)), object)
    for index, item in enumerate(items):
        array[0, index] = item
    return array


# --- files


def write_v7(path: Path, dag: Dag, *, compressed: bool = False, inside: str | None = None) -> Path:
    """As `save('-struct')` of DagNN.saveobj() writes it; inside: in a struct of this name."""
    import scipy.io

    net = {
        "layers": _structs([_layer_fields(layer, cell) for layer in dag.layers]),
        "params": _structs([{"name": name, "value": value, "learningRate": 1.0} for name, value in dag.params.items()]),
        "vars": _structs([{"name": output, "precious": 0.0} for _, _, _, output, _, _ in dag.layers]),
        "meta": dag.meta,
    }
    scipy.io.savemat(path, net if inside is None else {inside: net}, do_compression=compressed, oned_as="row")
    return path


def _layer_fields(layer: tuple, listed: Any) -> dict[str, Any]:
    kind, name, inputs, output, params, block = layer
    empty = np.zeros((0, 0))
    words = {"inputs": listed(inputs), "outputs": listed([output]), "params": listed(params)}
    return {"name": name, "type": kind, **words, "block": block or empty}


def _structs(items: list[dict[str, Any]]) -> np.ndarray:
    """A MATLAB struct array (1, n)."""
    array = np.empty((1, len(items)), [(name, object) for name in items[0]])
    for index, item in enumerate(items):
        array[0, index] = tuple(item.values())
    return array


def write_v73(path: Path, dag: Dag) -> Path:
    """As MATLAB's `save -v7.3` writes it: HDF5 behind a block of 512 bytes, axes reversed, cells by reference."""
    import h5py

    with h5py.File(path, "w", userblock_size=512) as file:
        writer = _Hdf5(file)
        writer.structs(file, "layers", [_layer_fields(layer, list) for layer in dag.layers])
        writer.structs(file, "params", [{"name": name, "value": value} for name, value in dag.params.items()])
        writer.value(file, "meta", dag.meta)
    with path.open("r+b") as raw:
        text = b"MATLAB 7.3 MAT-file, Platform: GLNXA64, Created on: Mon Nov  2 10:00:00 2015 HDF5 schema 1.00 ."
        raw.write(text.ljust(124) + b"\x00\x02IM")
    return path


class _Hdf5:
    def __init__(self, file: Any) -> None:
        self.file, self.count = file, 0

    def value(self, parent: Any, name: str, value: Any) -> Any:
        if isinstance(value, dict):
            group = parent.create_group(name)
            group.attrs["MATLAB_class"] = np.bytes_("struct")
            for key, item in value.items():
                self.value(group, key, item)
            return group
        if isinstance(value, str):
            codes = np.frombuffer(value.encode("utf-16-le"), np.uint16).reshape(-1, 1)
            return self.dataset(parent, name, codes, "char", MATLAB_int_decode=np.int32(2))
        if isinstance(value, list) or (isinstance(value, np.ndarray) and value.dtype == object):
            items = list(np.asarray(value, object).reshape(-1))
            if not items:
                return self.dataset(parent, name, np.array([0, 0], np.uint64), "cell", MATLAB_empty=np.uint8(1))
            if not isinstance(items[0], str):
                return self.value(parent, name, np.array([items], np.float64))
            return self.dataset(parent, name, self.references(items), "cell")
        array = np.atleast_2d(value)
        if array.size == 0:
            return self.dataset(parent, name, np.array(array.shape, np.uint64), "double", MATLAB_empty=np.uint8(1))
        kind = {"b": "logical", "f": "single" if array.dtype == np.float32 else "double"}[array.dtype.kind]
        return self.dataset(parent, name, (array.astype(np.uint8) if kind == "logical" else array).T, kind)

    def structs(self, parent: Any, name: str, items: list[dict[str, Any]]) -> None:
        group = parent.create_group(name)
        group.attrs["MATLAB_class"] = np.bytes_("struct")
        for key in items[0]:
            group.create_dataset(key, data=self.references([item[key] for item in items]))

    def references(self, items: list[Any]) -> np.ndarray:
        import h5py

        hidden = self.file.require_group("#refs#")
        references = np.empty((len(items), 1), h5py.ref_dtype)
        for index, item in enumerate(items):
            self.count += 1
            references[index, 0] = self.value(hidden, f"r{self.count}", item).ref
        return references

    def dataset(self, parent: Any, name: str, data: np.ndarray, kind: str, **attributes: Any) -> Any:
        made = parent.create_dataset(name, data=data)
        made.attrs["MATLAB_class"] = np.bytes_(kind)
        made.attrs.update(attributes)
        return made


# --- variants


def same_padded(dag: Dag) -> Dag:
    """What `--padding same` stands for, in MatConvNet's own words."""
    changed = Dag(params=dag.params, meta=dag.meta)
    for kind, name, inputs, output, params, block in dag.layers:
        if kind == "dagnn.Conv":
            block = block | {"pad": (dag.params[params[0]].shape[0] - 1) // 2}
        elif kind == "dagnn.ConvTranspose":
            block = block | {"crop": (dag.params[params[0]].shape[0] - _two(block["upsample"])[0]) // 2}
        elif kind == "dagnn.Crop":
            block = {"crop": 0}
        changed.layers.append((kind, name, inputs, output, params, block))
    return changed


def toolbox(classes: int = CLASSES, seed: int = 2) -> Dag:
    """FCN-8s as the toolbox itself trains it: padded by 1, no Crop, bilinear kernels of one group per class, a loss."""
    random, dag = Random(seed), Dag()
    x, depth, pools = "input", 3, {}
    for stage in range(5):
        dag.params[f"c{stage}f"], dag.params[f"c{stage}b"] = random.filters(3, 3, depth, 6), random.bias(6)
        dag.add("Conv", f"conv{stage}", x, f"c{stage}", f"c{stage}f c{stage}b", size=row(3, 3, depth, 6), pad=row(1, 1))
        dag.add("ReLU", f"relu{stage}", f"c{stage}", f"r{stage}")
        dag.add("Pooling", f"pool{stage}", f"r{stage}", f"p{stage}", method="max", poolSize=2.0, stride=2.0, pad=0.0)
        x, depth, pools[stage] = f"p{stage}", 6, f"p{stage}"
    for name, pool in (("fr", x), ("skip4", pools[3]), ("skip3", pools[2])):
        dag.params[f"{name}f"] = random.filters(1, 1, 6, classes)
        dag.params[f"{name}b"] = random.bias(classes).reshape(1, 1, classes)
        dag.add("Conv", name, pool, f"{name}x", f"{name}f {name}b")
    x = "frx"
    for name, factor, skip in (("deconv2", 2, "skip4"), ("deconv2bis", 2, "skip3"), ("deconv8", 8, "")):
        taps = 1 - np.abs(np.arange(2 * factor) - (factor - 0.5)) / factor
        dag.params[f"{name}f"] = np.repeat(np.outer(taps, taps)[:, :, None, None], classes, axis=3).astype(np.float32)
        crop = factor / 2 if skip else row(*[factor / 2] * 4)
        dag.add("ConvTranspose", name, x, f"{name}x", f"{name}f", upsample=float(factor), crop=crop,
                numGroups=float(classes), hasBias=False)  # fmt: skip
        x = f"{name}x"
        if skip:
            dag.add("Sum", f"sum_{skip}", f"{x} {skip}x", f"sum_{skip}x")
            x = f"sum_{skip}x"
    dag.layers.append(("SegmentationLoss", "objective", [x, "label"], "objective", [], {"loss": "softmaxlog"}))
    dag.layers.append(("SegmentationAccuracy", "accuracy", [x, "label"], "accuracy", [], {}))
    dag.meta = {"normalization": {"rgbMean": np.reshape(MEAN_RGB, (3, 1))}}
    return dag


def centred(dag: Dag, image: np.ndarray) -> Dag:
    """`dag` with biases under which no class wins all of `image` (H, W, 3) uint8 BGR: those of the deepest scores."""
    scores = forward(dag, image[..., ::-1] - np.array(MEAN_RGB))
    name = next(name for name in dag.params if name in ("score_frb", "score_fr_bias", "frb"))
    shift = scores.mean(axis=(0, 1)).astype(np.float32)
    dag.params[name] = dag.params[name] - shift.reshape(dag.params[name].shape)
    return dag


def blobs(size: tuple[int, int], seed: int = 0) -> np.ndarray:
    """A picture (H, W, 3) uint8 of soft blobs of colour."""
    import cv2

    return cv2.resize(np.random.default_rng(seed).integers(0, 256, (4, 5, 3), np.uint8), size[::-1])


def decided(scores: np.ndarray) -> np.ndarray:
    """Pixels (H, W) whose best class leads by more than 1e-4 of the range of the scores."""
    top = np.sort(scores, axis=-1)
    return top[..., -1] - top[..., -2] > 1e-4 * np.ptp(scores)


# --- the forward pass


def forward(dag: Dag, pixels: np.ndarray) -> np.ndarray:
    """Scores (H, W, C) float64 of `pixels` (H, W, 3), of which the mean has been subtracted, by the last layer."""
    values: dict[str, np.ndarray] = {name: pixels.astype(np.float64) for name in ("data", "input")}
    result = values["data"]
    for kind, _, inputs, output, params, block in dag.layers:
        if kind.startswith("Segmentation"):
            continue
        x = values[inputs[0]]
        arrays = [dag.params[name].astype(np.float64) for name in params]
        if kind == "dagnn.Conv":
            result = _correlate(
                x, arrays, _four(block.get("pad", 0)), _two(block.get("stride", 1)), _two(block.get("dilate", 1))
            )
        elif kind == "dagnn.ConvTranspose":
            result = _transposed(
                x, arrays, _two(block.get("upsample", 1)), _four(block.get("crop", 0)), int(block.get("numGroups", 1))
            )
        elif kind == "dagnn.ReLU":
            result = np.where(x > 0, x, block.get("leak", 0.0) * x)
        elif kind == "dagnn.Pooling":
            result = _pooled(x, _two(block["poolSize"]), _two(block["stride"]), _four(block["pad"]), block["method"])
        elif kind == "dagnn.Crop":
            result = _cut(x, values[inputs[1]], _two(block["crop"]))
        elif kind == "dagnn.Sum":
            result = np.sum([values[name] for name in inputs], axis=0)
        elif kind == "dagnn.SoftMax":
            exponentials = np.exp(x - x.max(-1, keepdims=True))
            result = exponentials / exponentials.sum(-1, keepdims=True)
        else:
            assert kind == "dagnn.DropOut", kind
            result = x
        values[output] = result
    return result


def _two(value: Any) -> list[int]:
    numbers = np.ravel(value).astype(int).tolist()
    return numbers * 2 if len(numbers) == 1 else numbers


def _four(value: Any) -> list[int]:
    numbers = np.ravel(value).astype(int).tolist()
    return {1: numbers * 4, 2: [numbers[0], numbers[0], numbers[-1], numbers[-1]]}.get(len(numbers), numbers)


def _correlate(
    x: np.ndarray, arrays: list[np.ndarray], pad: list[int], stride: list[int], dilate: list[int]
) -> np.ndarray:
    filters: np.ndarray = np.expand_dims(arrays[0], tuple(range(arrays[0].ndim, 4)))
    x = np.pad(x, (pad[:2], pad[2:], (0, 0)))
    rows = (x.shape[0] - (filters.shape[0] - 1) * dilate[0] - 1) // stride[0] + 1
    columns = (x.shape[1] - (filters.shape[1] - 1) * dilate[1] - 1) // stride[1] + 1
    groups = x.shape[2] // filters.shape[2]
    share = filters.shape[3] // groups
    out = np.zeros((rows, columns, filters.shape[3]))
    for i, j, group in np.ndindex(filters.shape[0], filters.shape[1], groups):
        top, left = i * dilate[0], j * dilate[1]
        window = x[
            top : top + (rows - 1) * stride[0] + 1 : stride[0], left : left + (columns - 1) * stride[1] + 1 : stride[1]
        ]
        own = slice(group * share, (group + 1) * share)
        out[..., own] += window[..., group * filters.shape[2] : (group + 1) * filters.shape[2]] @ filters[i, j][:, own]
    return out + (arrays[1].reshape(-1) if len(arrays) > 1 else 0)


def _transposed(
    x: np.ndarray, arrays: list[np.ndarray], upsample: list[int], crop: list[int], groups: int
) -> np.ndarray:
    filters: np.ndarray = np.expand_dims(arrays[0], tuple(range(arrays[0].ndim, 4)))
    height, width, per_group, depth = filters.shape
    out = np.zeros(
        (upsample[0] * (x.shape[0] - 1) + height, upsample[1] * (x.shape[1] - 1) + width, per_group * groups)
    )
    share = depth // groups
    for i, j, group in np.ndindex(height, width, groups):
        own = slice(group * share, (group + 1) * share)
        values = x[..., own] @ filters[i, j][:, own].T
        out[i : i + upsample[0] * x.shape[0] : upsample[0], j : j + upsample[1] * x.shape[1] : upsample[1]][
            : x.shape[0], : x.shape[1], group * per_group : (group + 1) * per_group
        ] += values
    out += arrays[1].reshape(-1) if len(arrays) > 1 else 0
    return out[crop[0] : out.shape[0] - crop[1], crop[2] : out.shape[1] - crop[3]]


def _pooled(x: np.ndarray, size: list[int], stride: list[int], pad: list[int], method: str) -> np.ndarray:
    assert method == "max" or not any(pad)
    x = np.pad(x, (pad[:2], pad[2:], (0, 0)), constant_values=-np.inf)
    windows = np.lib.stride_tricks.sliding_window_view(x, size, axis=(0, 1))[:: stride[0], :: stride[1]]
    return windows.max(axis=(-2, -1)) if method == "max" else windows.mean(axis=(-2, -1))


def _cut(x: np.ndarray, like: np.ndarray, crop: list[int]) -> np.ndarray:
    rows, columns = (min(c, x.shape[axis] - like.shape[axis]) for axis, c in enumerate(crop))
    return x[rows : rows + like.shape[0], columns : columns + like.shape[1]]


@pytest.fixture(scope="session")
def dagnn() -> SimpleNamespace:
    """The functions of this file."""
    return SimpleNamespace(**{name: value for name, value in globals().items() if not name.startswith("_")})
