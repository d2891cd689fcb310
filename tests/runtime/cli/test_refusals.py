"""What fcn-run refuses: exit 2, one line on standard error, nothing on standard output."""

from __future__ import annotations

from pathlib import Path

import pytest

from fcnedge.runtime.cli import main

from .conftest import fcn_run, in_its_own_process, one_line, refused


def test_token_is_for_the_live_page(capsys, tiny_bundle, picture, tmp_path):
    line = refused(capsys, picture, tmp_path / "out", "--model", tiny_bundle, "--token", "x" * 20)
    assert "--token is for the live page" in line


def test_missing_model_says_how_to_build_one(tmp_path, picture, capsys):
    line = refused(capsys, picture, "--model", tmp_path / "none")
    assert line == (
        f"there is no bundle at {tmp_path / 'none'}; build one with: fcn-build model fcn8s-lite0-voc "
        f"-o {tmp_path / 'none'}"
    )


def test_damaged_model_is_refused(tiny_bundle, picture, capsys):
    with (tiny_bundle / "model.fp32.onnx").open("ab") as file:
        file.write(b"x")
    assert "copy the bundle again" in refused(capsys, picture, "--model", tiny_bundle)
    (tiny_bundle / "model.json").write_text("{")
    assert "model.json is not valid JSON" in refused(capsys, picture, "--model", tiny_bundle)


def test_missing_source_is_refused(tmp_path, tiny_bundle, capsys):
    assert refused(capsys, tmp_path / "a\nb.jpg", "--model", tiny_bundle) == f"{tmp_path}/a b.jpg does not exist"


def test_empty_folder_is_refused(tmp_path, tiny_bundle, capsys):
    (tmp_path / "empty").mkdir()
    assert "holds no pictures" in refused(capsys, tmp_path / "empty", "--model", tiny_bundle)


@pytest.mark.parametrize(
    ("words", "reason"),
    [
        (["--alpha", "1.5"], "--alpha is 1.5; it must lie between 0"),
        (["--alpha", "-0.1"], "--alpha is -0.1; it must lie between 0"),
        (["--alpha", "nan"], "--alpha is nan; it must lie between 0"),
        (["--threads", "0"], "--threads is 0; it must be from 1 to 1024."),
        (["--threads", "9" * 20], f"--threads is {'9' * 20}; it must be from 1 to 1024."),
        (["--frames", "0"], "--frames is 0; it must be 1 or more."),
        (["--precision", "int8", "--backend", "onnxruntime"], "holds no int8 graph, only fp32"),
        (["--backend", "abacus"], "invalid choice: 'abacus'"),
        (["--quick"], "unrecognized arguments: --quick. See fcn-run --help."),
        (["--prec", "fp32"], "unrecognized arguments: --prec"),
        (["ftp://robot/out"], "does not write to ftp://"),
        (["out.gif"], "has an ending that cannot be written"),
    ],
)
def test_wrong_words_are_refused(tiny_bundle, picture, capsys, words, reason):
    pytest.importorskip("onnxruntime", reason="the extra cpu is not installed")
    assert reason in refused(capsys, picture, "--model", tiny_bundle, *words)


def test_source_is_required(capsys):
    with pytest.raises(SystemExit) as caught:
        main([])
    assert caught.value.code == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert "the following arguments are required: SOURCE" in line


def test_sink_that_cannot_be_written_is_refused(tmp_path, tiny_bundle, picture, capsys):
    (tmp_path / "file").write_text("in the way")
    assert "cannot be made" in refused(capsys, picture, f"{tmp_path}/file/out/", "--model", tiny_bundle)
    (tmp_path / "out.png").mkdir()
    (tmp_path / "out.png" / "masks").write_text("in the way")
    assert "cannot be made" in refused(capsys, picture, tmp_path / "out.png", "--model", tiny_bundle)


@pytest.mark.skipif(not Path("/proc/self").exists(), reason="needs a folder that nobody may write to, as Linux's /proc")
@pytest.mark.parametrize("name", ["out.avi", "out.png"])
def test_sink_on_a_medium_that_takes_nothing_is_one_line(tiny_bundle, picture, name):
    line = one_line(in_its_own_process(picture, f"/proc/{name}", "--model", tiny_bundle))
    assert f"/proc/{name} cannot be written" in line
    assert "before it" not in line


def test_json_that_cannot_be_written_is_told_after_the_report(tmp_path, tiny_bundle, picture, capsys):
    assert fcn_run(picture, "--model", tiny_bundle, "--json", tmp_path) == 2
    shown, errors = capsys.readouterr()
    assert "1 frame with " in shown
    assert errors == f"fcn-run: {tmp_path} cannot be written (Is a directory); choose another place for --json.\n"


def test_folder_of_pictures_is_not_written_into(tmp_path, tiny_bundle, pictures, capsys):
    before = sorted(pictures.iterdir())
    assert refused(capsys, pictures, pictures, "--model", tiny_bundle) == (
        f"{pictures} is the source itself; write into a folder of its own, such as {pictures / 'out'}"
    )
    assert sorted(pictures.iterdir()) == before


def test_damaged_graph_is_one_line_whatever_onnxruntime_says(tmp_path, write_bundle, picture):
    pytest.importorskip("onnxruntime", reason="the extra cpu is not installed")
    import onnx

    model = onnx.load(write_bundle(tmp_path / "good") / "model.fp32.onnx")
    model.graph.node[0].op_type = "Transmogrify"
    bundle = write_bundle(tmp_path / "bad", files={"model.fp32.onnx": model.SerializeToString()})
    line = one_line(in_its_own_process(picture, "--model", bundle, backend="onnxruntime"))
    assert "cannot run" in line
    assert "Transmogrify" in line
