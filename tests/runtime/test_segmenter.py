"""Frames of every size and layout in, masks of the same size out: with the fake backend, and with ONNX Runtime."""

from __future__ import annotations

import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fcnedge.runtime import BackendError, Bundle, BundleError, FakeBackend, Segmentation, Segmenter, UserError

BLUE, GREEN, RED, WHITE = (255, 0, 0), (0, 255, 0), (0, 0, 255), (255, 255, 255)
QUARTERS = {(0, 0): (BLUE, 1), (0, 1): (GREEN, 2), (1, 0): (RED, 4), (1, 1): (WHITE, 7)}
"""(lower half, right half) → colour in BGR and its class, by FakeBackend's rule."""

SIZES = [(32, 48), (64, 96), (31, 47), (33, 200), (200, 33), (480, 640), (7, 5), (1, 1), (1, 90), (90, 1), (1080, 1920)]


def quartered(height: int, width: int) -> np.ndarray:
    """Four colours that meet in the middle of the frame."""
    frame = np.empty((height, width, 3), np.uint8)
    for (lower, right), (colour, _) in QUARTERS.items():
        frame[half(height, lower), half(width, right)] = colour
    return frame


def half(length: int, second: int, margin: int = 0) -> slice:
    middle = length // 2
    return slice(middle + margin, length) if second else slice(0, middle - margin)


@pytest.fixture(params=["fake", "onnxruntime"])
def backend(request):
    if request.param == "onnxruntime":
        pytest.importorskip("onnxruntime", reason="the extra cpu is not installed")
    return request.param


@pytest.fixture(scope="module")
def stretching(tmp_path_factory, write_bundle):
    return Segmenter(write_bundle(tmp_path_factory.mktemp("b") / "stretch"), "fake")


@pytest.mark.parametrize("head", ["bilinear", "labels"])
@pytest.mark.parametrize("fit", ["stretch", "letterbox"])
def test_mask_has_the_frames_size(tmp_path, write_bundle, backend, fit, head):
    with Segmenter(write_bundle(tmp_path / "b", fit=fit, head=head), backend) as segment:
        for height, width in SIZES:
            mask = segment(np.full((height, width, 3), RED, np.uint8))
            assert mask.shape == (height, width)
            assert mask.dtype == np.uint8
            # In a letterbox, grid cells beyond the frame's end have a say in its last rows.
            if fit == "stretch" or head == "labels":
                assert (mask == 4).all(), (height, width)


@settings(max_examples=50, deadline=None)
@given(height=st.integers(1, 150), width=st.integers(1, 150), colour=st.integers(0, 7))
def test_frame_of_one_colour_is_one_class_at_any_size(stretching, height, width, colour):
    pixel = [255 * (colour >> channel & 1) for channel in range(3)]
    mask = stretching(np.full((height, width, 3), pixel, np.uint8))
    assert mask.shape == (height, width)
    assert (mask == colour).all()


@pytest.mark.parametrize("head", ["bilinear", "labels"])
@pytest.mark.parametrize("fit", ["stretch", "letterbox"])
@pytest.mark.parametrize("frame", [(256, 256), (192, 192), (120, 240), (240, 120), (300, 100), (50, 90)])
def test_colours_land_where_they_are_in_the_frame(tmp_path, write_bundle, backend, fit, head, frame):
    """A letterbox that is forgotten, or undone to the wrong size, moves the middle of the frame by far more."""
    network, stride = (192, 192), 8
    with Segmenter(write_bundle(tmp_path / "b", size=network, fit=fit, head=head, stride=stride), backend) as segment:
        mask = segment(quartered(*frame))
    scales = [frame[axis] / network[axis] for axis in range(2)]
    if fit == "letterbox":
        scales = [max(scales)] * 2
    cell = stride if head == "bilinear" else 1
    margins = [int(np.ceil(scale * cell)) + 1 for scale in scales]  # of the middle, and of the end of a letterbox
    ends = [frame[axis] - (margins[axis] if fit == "letterbox" else 0) for axis in range(2)]
    for (lower, right), (_, expected) in QUARTERS.items():
        inside = mask[: ends[0], : ends[1]][half(frame[0], lower, margins[0]), half(frame[1], right, margins[1])]
        assert inside.shape[0] > frame[0] / 5
        assert inside.shape[1] > frame[1] / 5
        assert (inside == expected).all(), (lower, right)


def test_letterbox_fill_leaves_no_class_in_the_mask(tmp_path, write_bundle):
    """The grey beside the frame is class 0 to the fake; the mask of a red frame holds none of it, even at its end."""
    with Segmenter(write_bundle(tmp_path / "b", size=(64, 64), fit="letterbox", head="labels"), "fake") as segment:
        for size in ((30, 64), (64, 30), (100, 333), (333, 100)):
            assert set(np.unique(segment(np.full((*size, 3), RED, np.uint8)))) == {4}


@pytest.mark.parametrize("fit", ["stretch", "letterbox"])
@pytest.mark.parametrize("size", [(32, 48), (50, 70)], ids=["network-size", "other-size"])
def test_memory_layout_of_the_frame_does_not_matter(tmp_path, write_bundle, backend, fit, size):
    big = np.random.default_rng(3).integers(0, 256, (2 * size[0], 2 * size[1], 3), np.uint8)
    views = {
        "mirrored": big[: size[0], : size[1]][:, ::-1],
        "every second": big[::2, ::2],
        "turned": np.rot90(big[: size[1], : size[0]]),
        "rgb": big[: size[0], : size[1], ::-1],
        "read-only": np.frombuffer(big[: size[0], : size[1]].tobytes(), np.uint8).reshape(*size, 3),
        "fortran": np.asfortranarray(big[: size[0], : size[1]]),
    }
    with Segmenter(write_bundle(tmp_path / "b", fit=fit), backend) as segment:
        for name, view in views.items():
            before = view.copy()
            assert (segment(view) == segment(before)).all(), name
            assert (view == before).all(), f"{name}: the frame was written to"


@pytest.mark.parametrize(
    ("frame", "got"),
    [
        (None, "NoneType"),
        ("photo.jpg", "str"),
        ([[[0, 0, 0]]], "list"),
        (np.zeros((8, 8, 3), np.float32), r"float32 \(8, 8, 3\)"),
        (np.zeros((8, 8, 3), np.int8), r"int8 \(8, 8, 3\)"),
        (np.zeros((8, 8), np.uint8), r"uint8 \(8, 8\)"),
        (np.zeros((8, 8, 4), np.uint8), r"uint8 \(8, 8, 4\)"),
        (np.zeros((3, 8, 8), np.uint8), r"uint8 \(3, 8, 8\)"),
        (np.zeros((1, 8, 8, 3), np.uint8), r"uint8 \(1, 8, 8, 3\)"),
    ],
)
def test_frame_of_another_kind_is_refused_with_what_was_got_and_expected(stretching, frame, got):
    with pytest.raises(UserError, match=rf"\(H, W, 3\) uint8 in BGR order, got {got}\.$"):
        stretching(frame)


@pytest.mark.parametrize("shape", [(0, 8, 3), (8, 0, 3)])
def test_empty_frame_is_refused(stretching, shape):
    with pytest.raises(UserError, match=r"the frame is empty: its shape is"):
        stretching(np.zeros(shape, np.uint8))


def test_mask_does_not_change_with_the_next_frame(stretching):
    first = stretching(np.full((40, 40, 3), RED, np.uint8))
    second = stretching(np.full((40, 40, 3), BLUE, np.uint8))
    assert set(np.unique(first)) == {4}
    assert set(np.unique(second)) == {1}


def test_several_threads_get_the_masks_that_one_gets(tmp_path, write_bundle, backend):
    rng = np.random.default_rng(4)
    sizes = [(32, 48), (40, 50), (64, 20), (33, 99)]
    frames = [rng.integers(0, 256, (*sizes[index % 4], 3), np.uint8) for index in range(50)]
    with Segmenter(write_bundle(tmp_path / "b", fit="letterbox"), backend, threads=1) as segment:
        expected = [segment(frame) for frame in frames]
        with ThreadPoolExecutor(4) as pool:
            runs = list(pool.map(lambda start: [segment(f) for f in frames[start:] + frames[:start]], (0, 1, 2, 3)))
    for start, masks in enumerate(runs):
        for mask, wanted in zip(masks, expected[start:] + expected[:start], strict=True):
            assert (mask == wanted).all()


def test_times_are_those_of_three_stages(tmp_path, write_bundle):
    with Segmenter(write_bundle(tmp_path / "b"), "fake") as segment:
        result = segment.segment(quartered(50, 70))
    times = (result.preprocess_ms, result.infer_ms, result.head_ms)
    assert all(0 <= each < 60_000 for each in times)
    assert result.total_ms == pytest.approx(sum(times))
    assert result.total_ms > 0


def test_closed_segmenter_says_so(tiny_bundle, backend):
    segment = Segmenter(tiny_bundle, backend)
    segment.close()
    segment.close()
    with pytest.raises(BackendError, match="is closed; open another"):
        segment(np.zeros((32, 48, 3), np.uint8))


def test_leaving_the_block_closes_the_backend(tiny_bundle):
    own = FakeBackend(Bundle.load(tiny_bundle).manifest)
    with pytest.raises(ZeroDivisionError), Segmenter(tiny_bundle, own):
        _ = 1 / 0
    with pytest.raises(BackendError):
        own.infer(np.zeros((1, 32, 48, 3), np.uint8))


class Everywhere:
    """A backend of one's own: class 5 wherever one looks; remembers what it was given."""

    name, precision = "everywhere", "fp32"

    def __init__(self, output: np.ndarray):
        self.output, self.seen = output, []

    def infer(self, image: np.ndarray) -> np.ndarray:
        self.seen.append(image)
        return self.output

    def close(self) -> None:
        self.seen.append("closed")


def test_backend_of_ones_own_is_used(tiny_bundle):
    scores = np.zeros((1, 8, 4, 6), np.float16)
    scores[:, 5] = 1
    own = Everywhere(scores)
    with Segmenter(Bundle.load(tiny_bundle), own) as segment:
        assert segment.backend is own
        assert (segment(np.zeros((100, 30, 3), np.uint8)) == 5).all()
    image, closed = own.seen
    assert (image.shape, image.dtype, image.flags.c_contiguous) == ((1, 32, 48, 3), np.uint8, True)
    assert closed == "closed"


class Failing(Everywhere):
    """Works until told not to."""

    broken = False

    def infer(self, image: np.ndarray) -> np.ndarray:
        if self.broken:
            raise BackendError("the GPU was lost.")
        return super().infer(image)


def failing() -> Failing:
    scores = np.zeros((1, 8, 4, 6), np.float32)
    scores[:, 5] = 1
    return Failing(scores)


def test_segmenter_goes_on_with_the_cpu_when_asked(tiny_bundle, caplog):
    pytest.importorskip("onnxruntime", reason="the extra cpu is not installed")
    own, red = failing(), np.full((50, 60, 3), RED, np.uint8)
    with Segmenter(tiny_bundle, own, fallback="cpu") as segment:
        assert (segment(red) == 5).all()
        own.broken = True
        with ThreadPoolExecutor(4) as pool:  # all of them fail at once, one of them changes the backend
            assert all((mask == 4).all() for mask in pool.map(segment, [red] * 8))
        assert segment.backend.name in ("openvino", "onnxruntime")
    assert own.seen[-1] == "closed"
    assert caplog.text.count("backend everywhere failed: the GPU was lost. Going on with the CPU.") == 1
    with pytest.raises(BackendError, match="closed"):
        segment(red)


def test_backend_that_fails_is_kept_when_no_fallback_was_asked(tiny_bundle):
    own = failing()
    segment = Segmenter(tiny_bundle, own)
    own.broken = True
    for _ in range(2):
        with pytest.raises(BackendError, match="the GPU was lost"):
            segment(np.zeros((9, 9, 3), np.uint8))
    assert segment.backend is own


def test_closed_segmenter_does_not_fall_back(tiny_bundle):
    own = failing()
    segment = Segmenter(tiny_bundle, own, fallback="cpu")
    segment.close()
    own.broken = True
    with pytest.raises(BackendError, match="the GPU was lost"):
        segment(np.zeros((9, 9, 3), np.uint8))
    assert segment.backend is own


def test_fallback_that_fails_too_is_an_error(tiny_bundle, monkeypatch):
    own = failing()
    segment = Segmenter(tiny_bundle, own, fallback="cpu")
    own.broken = True
    for name in ("openvino", "onnxruntime"):
        monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(BackendError, match="no backend works here"):
        segment(np.zeros((9, 9, 3), np.uint8))


def test_unknown_fallback_is_refused(tiny_bundle):
    with pytest.raises(UserError, match="fallback is 'gpu'; it must be 'cpu', or None"):
        Segmenter(tiny_bundle, "fake", fallback="gpu")


def test_backend_for_whole_frames_gets_the_whole_frame(tiny_bundle):
    class Whole(FakeBackend):
        def segment(self, frame: np.ndarray) -> Segmentation:
            return Segmentation(frame[..., 0].copy(), 1.0, 2.0, 3.0)

    frame = np.random.default_rng(0).integers(0, 8, (33, 44, 3), np.uint8)
    result = Segmenter(tiny_bundle, Whole(Bundle.load(tiny_bundle).manifest)).segment(frame)
    assert (result.mask == frame[..., 0]).all()
    assert result.total_ms == 6.0


@pytest.mark.parametrize("fit", ["stretch", "letterbox"])
def test_point_masks_have_whole_squares_and_the_grids_classes(tmp_path, write_bundle, fit):
    bundle = write_bundle(tmp_path / "b", fit=fit)
    scores = np.random.default_rng(0).standard_normal((1, 8, 4, 6)).astype(np.float32)
    frame = np.zeros((64, 48, 3), np.uint8)  # letterboxed to 32 x 24: three of six columns
    mask = Segmenter(bundle, Everywhere(scores), filter_mode="point")(frame)
    grid = scores[0].argmax(axis=0)
    expected = (
        np.kron(grid[:, :3], np.ones((16, 16), int)) if fit == "letterbox" else np.kron(grid, np.ones((16, 8), int))
    )
    np.testing.assert_array_equal(mask, expected)
    assert (Segmenter(bundle, Everywhere(scores))(frame) != mask).any()


def test_fallback_keeps_the_filter_mode(tiny_bundle, caplog):
    pytest.importorskip("onnxruntime", reason="the extra cpu is not installed")
    frame = np.random.default_rng(1).integers(0, 256, (32, 48, 3), np.uint8).repeat(3, axis=0).repeat(2, axis=1)
    masks = {}
    for filter_mode in ("linear", "point"):
        own = failing()
        own.broken = True
        with Segmenter(tiny_bundle, own, fallback="cpu", filter_mode=filter_mode) as segment:
            masks[filter_mode] = segment(frame)
            assert segment.backend is not own
            assert segment.filter_mode == filter_mode
        with Segmenter(tiny_bundle, "cpu", filter_mode=filter_mode) as segment:
            np.testing.assert_array_equal(segment(frame), masks[filter_mode])
    assert (masks["linear"] != masks["point"]).any()


def test_backend_for_whole_frames_of_another_filter_mode_is_refused(tiny_bundle):
    class Whole(FakeBackend):
        def segment(self, frame: np.ndarray) -> Segmentation:
            return Segmentation(frame[..., 0].copy(), 1.0, 2.0, 3.0)

    own = Whole(Bundle.load(tiny_bundle).manifest)
    message = "filter_mode is 'point' and the backend was opened with 'linear'; open both with the same"
    with pytest.raises(UserError, match=message):
        Segmenter(tiny_bundle, own, filter_mode="point")
    own.__dict__["filter_mode"] = "point"
    assert Segmenter(tiny_bundle, own, filter_mode="point").backend is own
    with pytest.raises(UserError, match="filter_mode is 'linear' and the backend was opened with 'point'"):
        Segmenter(tiny_bundle, own)


@pytest.mark.parametrize("head", ["bilinear", "labels"])
def test_unknown_filter_mode_is_refused(tmp_path, write_bundle, head):
    with pytest.raises(UserError, match="filter_mode is 'nearest'; it must be 'linear' or 'point'"):
        Segmenter(write_bundle(tmp_path / "b", head=head), "fake", filter_mode="nearest")


def test_class_that_the_bundle_has_not_is_refused(tmp_path, write_bundle):
    bundle = write_bundle(tmp_path / "b", head="labels")
    labels = np.zeros((1, 32, 48), np.uint8)
    labels[0, 3, 3] = 8
    with pytest.raises(BackendError, match=r"gives class 8, model\.json has 8 classes"):
        Segmenter(bundle, Everywhere(labels))(np.zeros((32, 48, 3), np.uint8))


def test_scores_that_overflowed_are_refused(tiny_bundle):
    with pytest.raises(UserError, match="NaN or infinity"):
        Segmenter(tiny_bundle, Everywhere(np.full((1, 8, 4, 6), np.nan, np.float32)))(np.zeros((9, 9, 3), np.uint8))


def test_names_and_colours_come_from_the_bundle(stretching):
    assert stretching.classes[4] == "red"
    assert stretching.palette.shape == (8, 3)
    assert stretching.palette.dtype == np.uint8
    assert stretching.palette[4].tolist() == [0, 0, 128]  # VOC's colour of class 4, RGB


def test_wrong_bundle_is_refused_before_any_backend_is_opened(tmp_path):
    with pytest.raises(BundleError, match="there is no bundle at"):
        Segmenter(tmp_path / "nothing", "no-such-backend")


def test_frames_of_the_networks_size_need_no_opencv(tiny_bundle):
    """A device that only asks for masks has nothing but NumPy; any other size names the extra that is missing."""
    program = (
        "import sys; sys.modules['cv2'] = None\n"
        "import numpy as np\n"
        "from fcnedge.runtime import Segmenter, UserError\n"
        "segment = Segmenter(sys.argv[1], 'fake')\n"
        "print(set(segment(np.full((32, 48, 3), (0, 0, 255), np.uint8)).ravel().tolist()))\n"
        "try: segment(np.zeros((33, 48, 3), np.uint8))\n"
        "except UserError as error: print(error)\n"
    )
    command = [sys.executable, "-c", program, str(tiny_bundle)]
    done = subprocess.run(command, capture_output=True, text=True, check=True, cwd=Path(__file__).parent)
    assert done.stdout.splitlines() == [
        "{4}",
        "opencv-python is not installed; install it with: pip install 'fcnedge[gui]'",
    ]
