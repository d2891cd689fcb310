"""A bundle appears whole or not at all: on full disks, over old bundles, through links and where it may not."""

from __future__ import annotations

import dataclasses
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from fcnedge.build_engine.bundle_writer import check_output, file_specs, publish, staging_folder, write_manifest
from fcnedge.runtime import Bundle
from fcnedge.runtime.errors import BundleError, UserError
from fcnedge.runtime.manifest import FileSpec, HeadSpec, InputSpec, Manifest
from fcnedge.runtime.preprocessing import Preprocessing


def bundle_at(folder: Path, mark: str = "old") -> Path:
    """Write a bundle of a single file into a new folder."""
    folder.mkdir(parents=True)
    bundle_in(folder, mark)
    return folder


def bundle_in(folder: Path, mark: str) -> None:
    (folder / "report.json").write_text("{}", encoding="utf-8")
    manifest = manifest_of(file_specs(folder, ["report.json"]))
    write_manifest(folder, dataclasses.replace(manifest, name=mark))


def mark_of(folder: Path) -> str:
    return Bundle.load(folder).manifest.name


def names_in(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


# --- where a bundle may be written


def test_new_output_is_accepted_and_nothing_is_made(tmp_path):
    check_output(tmp_path / "deep" / "new", force=False)
    assert names_in(tmp_path) == []


def test_bundle_is_replaced_only_with_force(tmp_path):
    output = bundle_at(tmp_path / "taken")
    with pytest.raises(UserError, match=r"taken exists already; add --force to replace it\.$"):
        check_output(output, force=False)
    check_output(output, force=True)


@pytest.mark.parametrize("force", [False, True])
@pytest.mark.parametrize("kind", ["file", "folder"])
def test_what_is_no_bundle_is_never_replaced(tmp_path, kind, force):
    output = tmp_path / "thesis"
    if kind == "file":
        output.write_text("chapter 1", encoding="utf-8")
    else:
        output.mkdir()
        (output / "chapter1.tex").write_text("…", encoding="utf-8")
    with pytest.raises(UserError, match="thesis exists and is not a bundle; choose another name for -o"):
        check_output(output, force=force)


@pytest.mark.parametrize("force", [False, True])
@pytest.mark.parametrize(
    "text", ['{"format": "layers-model", "modelTopology": {}, "weightsManifest": []}', "{", "", '{"format": 2}']
)
def test_model_json_of_another_program_makes_no_bundle(tmp_path, text, force):
    """TensorFlow.js writes one, beside its weights; a cut one and one of another version are not ours to judge."""
    output = tmp_path / "web"
    output.mkdir()
    (output / "model.json").write_text(text, encoding="utf-8")
    (output / "group1-shard1of1.bin").write_bytes(b"weights")
    sentence = (
        f"{output} exists and its model.json is not one that this fcnedge reads; choose another name for -o, or delete "
        "the folder yourself."
    )
    with pytest.raises(UserError) as caught:
        check_output(output, force=force)
    assert str(caught.value) == sentence
    assert_not_published_over(output, sentence)


@pytest.mark.parametrize(
    "extra", ["ranges.json", "sub/notes.txt", "engines.txt", "sub/engines/a.engine", ".hidden/a", "model.json.bak"]
)
@pytest.mark.parametrize("force", [False, True])
def test_bundle_with_a_file_of_somebody_elses_is_kept_and_the_file_named(tmp_path, extra, force):
    output = bundle_at(tmp_path / "model")
    (output / extra).parent.mkdir(parents=True, exist_ok=True)
    (output / extra).write_text("hours of work", encoding="utf-8")
    sentence = (
        f"{output} holds {extra}, which is not part of the bundle; move it elsewhere, or choose another name for -o."
    )
    with pytest.raises(UserError) as caught:
        check_output(output, force=force)
    assert str(caught.value) == sentence
    assert_not_published_over(output, sentence)
    assert (output / extra).read_text(encoding="utf-8") == "hours of work"


def test_bundle_with_a_linked_folder_is_kept(tmp_path):
    output = bundle_at(tmp_path / "model")
    (output / "data").symlink_to(tmp_path)
    with pytest.raises(UserError, match="model holds data, which is not part of the bundle"):
        check_output(output, force=True)


@pytest.mark.skipif(not Path("/proc/self").is_dir(), reason="there is no /proc here")
@pytest.mark.parametrize("output", ["/proc/x", "/proc/x/deep/model"])
def test_place_where_not_even_root_can_write_is_one_sentence(output):
    """/proc says "No such file or directory" to whom its permissions let through."""
    sentence = rf"^({output} cannot be written \(.*\)|/proc cannot be written to); choose another place for -o\.$"
    with pytest.raises(UserError, match=sentence):
        check_output(Path(output), force=False)
    sentence = rf"^{output} cannot be written \(.*\); choose another place for -o\.$"
    with pytest.raises(UserError, match=sentence), staging_folder(Path(output)):
        pass


@pytest.mark.skipif(os.getuid() == 0, reason="root may look into any folder")
def test_bundle_that_cannot_be_looked_through_is_kept(tmp_path):
    output = bundle_at(tmp_path / "model")
    (output / "closed").mkdir(mode=0)
    with pytest.raises(UserError, match=r"model cannot be written \(Permission denied\)"):
        check_output(output, force=True)


def assert_not_published_over(output: Path, sentence: str) -> None:
    """Even where it came to be after check_output looked."""
    before = sorted(output.rglob("*"))
    with staging_folder(output) as staging:
        bundle_in(staging, "new")
        with pytest.raises(UserError) as caught:
            publish(staging, output)
    assert str(caught.value) == sentence
    assert sorted(output.rglob("*")) == before
    assert names_in(output.parent) == [output.name]


def test_engines_go_with_their_bundle_and_empty_folders_do_not_count(tmp_path):
    output = bundle_at(tmp_path / "model")
    (output / "engines").mkdir()
    (output / "engines" / "int8.engine").write_bytes(b"fits the old graph alone")
    (output / "sub" / "deep").mkdir(parents=True)
    check_output(output, force=True)
    with staging_folder(output) as staging:
        bundle_in(staging, "new")
        publish(staging, output)
    assert names_in(output) == ["model.json", "report.json"]


def test_bundle_whose_files_are_damaged_or_gone_may_be_replaced(tmp_path):
    output = bundle_at(tmp_path / "model")
    (output / "report.json").write_text("{}}", encoding="utf-8")
    check_output(output, force=True)
    (output / "report.json").unlink()
    check_output(output, force=True)


@pytest.mark.parametrize("output", ["file/bundle", "file/deep/bundle"])
def test_output_below_a_file_is_refused(tmp_path, output):
    (tmp_path / "file").write_text("", encoding="utf-8")
    with pytest.raises(UserError, match="file is a file, so no bundle can lie in it"):
        check_output(tmp_path / output, force=False)


def test_output_with_an_endless_name_is_refused(tmp_path):
    with pytest.raises(UserError, match=r"cannot be written \(File name too long\)"):
        check_output(tmp_path / ("n" * 300), force=False)
    with pytest.raises(UserError, match=r"cannot be written \(File name too long\)"):
        staging_folder(tmp_path / ("n" * 250)).__enter__()  # fits, but not with what mkdtemp adds


TRY_TO_WRITE = """
import sys
from pathlib import Path
from fcnedge.build_engine.bundle_writer import check_output, staging_folder
output = Path(sys.argv[1]) / "model"
for attempt in (lambda: check_output(output, force=False), lambda: staging_folder(output).__enter__()):
    try:
        attempt()
    except Exception as error:
        print(f"{type(error).__name__}: {error}")
"""


def test_read_only_disk_is_refused(tmp_path, small_disk: Callable[..., list[str]]):
    command = small_disk(tmp_path, "1m,ro", [sys.executable, "-c", TRY_TO_WRITE, str(tmp_path)])
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert done.stdout.splitlines() == [
        f"UserError: {tmp_path} cannot be written to; choose another place for -o.",
        f"UserError: {tmp_path}/model cannot be written (Read-only file system); choose another place for -o.",
    ]


@pytest.mark.skipif(os.getuid() == 0, reason="root may write into any folder")
def test_folder_without_write_permission_is_refused(tmp_path):
    tmp_path.chmod(0o555)
    done = subprocess.run(
        [sys.executable, "-c", TRY_TO_WRITE, str(tmp_path)], capture_output=True, text=True, check=True
    )
    tmp_path.chmod(0o755)
    assert done.stdout.splitlines() == [
        f"UserError: {tmp_path} cannot be written to; choose another place for -o.",
        f"UserError: {tmp_path}/model cannot be written (Permission denied); choose another place for -o.",
    ]


# --- out of sight until it is whole


def test_staging_folder_lies_hidden_beside_the_output(tmp_path):
    output = tmp_path / "deep" / "model"
    with staging_folder(output) as staging:
        assert staging.parent == output.parent
        assert staging.name.startswith(".model.")
        assert not output.exists()
    assert names_in(output.parent) == []


@pytest.mark.parametrize("error", [ValueError, UserError, KeyboardInterrupt, SystemExit])
def test_staging_folder_is_gone_after_an_exception(tmp_path, error):
    def fail() -> None:
        with staging_folder(tmp_path / "model") as staging:
            (staging / "half.onnx").write_bytes(b"half")
            raise error

    with pytest.raises(error):
        fail()
    assert names_in(tmp_path) == []


FILL_THE_DISK = """
import sys
from pathlib import Path
from fcnedge.build_engine.bundle_writer import staging_folder
folder = Path(sys.argv[1])
try:
    with staging_folder(folder / "model") as staging:
        (staging / "big.onnx").write_bytes(bytes(8 << 20))
except Exception as error:
    print(f"{type(error).__name__}: {error}")
print(sorted(path.name for path in folder.iterdir()))
"""


def assert_the_disk_was_full(output: str) -> None:
    message, left = output.splitlines()
    assert message.startswith("UserError: the disk is full while writing ")
    assert message.endswith("MB are left; free some space or choose another place for -o. Nothing was written.")
    assert left == "[]"


def test_full_disk_is_said_in_one_sentence_and_leaves_nothing(tmp_path, small_disk: Callable[..., list[str]]):
    command = small_disk(tmp_path, "1m", [sys.executable, "-c", FILL_THE_DISK, str(tmp_path)])
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert_the_disk_was_full(done.stdout)


def test_file_size_limit_is_said_in_one_sentence_and_leaves_nothing(tmp_path):
    limit = "import resource; resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 20, 1 << 20))\n"
    command = [sys.executable, "-c", limit + FILL_THE_DISK, str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert_the_disk_was_full(done.stdout)


def test_other_errors_of_the_system_stay_what_they_are(tmp_path):
    with pytest.raises(FileNotFoundError), staging_folder(tmp_path / "model") as staging:
        (staging / "missing.onnx").read_bytes()


# --- into place


def test_publish_puts_the_folder_in_place(tmp_path):
    with staging_folder(tmp_path / "model") as staging:
        bundle_in(staging, "new")
        publish(staging, tmp_path / "model")
    assert names_in(tmp_path) == ["model"]
    assert mark_of(tmp_path / "model") == "new"
    assert (tmp_path / "model").stat().st_mode & 0o777 == 0o755  # mkdtemp's are for their owner alone


def test_publish_replaces_the_old_bundle_and_leaves_nothing_of_it(tmp_path):
    output = bundle_at(tmp_path / "model")
    (output / "engines").mkdir()
    with staging_folder(output) as staging:
        bundle_in(staging, "new")
        publish(staging, output)
    assert names_in(tmp_path) == ["model"]
    assert names_in(output) == ["model.json", "report.json"]
    assert mark_of(output) == "new"


class VanishesAtTheLastMoment(type(Path())):
    """A folder that somebody deletes once the old bundle is out of the way: the rename fails for real."""

    def chmod(self, mode: int, **_: object) -> None:
        assert not (self.parent / "model").exists()
        self.rmdir()


def test_old_bundle_is_back_when_the_rename_fails(tmp_path):
    output = bundle_at(tmp_path / "model")
    staging = VanishesAtTheLastMoment(tmp_path / "staging")
    staging.mkdir()
    with pytest.raises(FileNotFoundError):
        publish(staging, output)
    assert names_in(tmp_path) == ["model"]
    assert mark_of(output) == "old"


def test_link_to_a_bundle_stays_a_link_and_its_target_is_replaced(tmp_path):
    target = bundle_at(tmp_path / "disk2" / "model-v1")
    link = tmp_path / "current"
    link.symlink_to(target)
    check_output(link, force=True)
    with staging_folder(link) as staging:
        assert staging.parent == target.parent  # a rename across disks would fail
        bundle_in(staging, "new")
        publish(staging, link)
    assert link.readlink() == target
    assert mark_of(target) == "new"
    assert names_in(tmp_path) == ["current", "disk2"]
    assert names_in(tmp_path / "disk2") == ["model-v1"]


def test_bundle_is_replaced_from_within(tmp_path, monkeypatch):
    monkeypatch.chdir(bundle_at(tmp_path / "model"))
    here = Path()
    check_output(here, force=True)
    with staging_folder(here) as staging:
        bundle_in(staging, "new")
        publish(staging, here)
    assert names_in(tmp_path) == ["model"]
    assert mark_of(tmp_path / "model") == "new"


# --- what it says about itself


def manifest_of(files: dict[str, FileSpec]) -> Manifest:
    return Manifest(
        name="m",
        arch="a",
        classes=("x", "y"),
        palette=((0, 0, 0), (1, 2, 3)),
        input=InputSpec(32, 64),
        preprocessing=Preprocessing("rgb", (0.0, 0.0, 0.0), (1.0, 1.0, 1.0)),
        head=HeadSpec("labels"),
        files=files,
        versions={"fcnedge": "0"},
    )


def test_file_specs_give_size_hash_and_precision(tmp_path):
    (tmp_path / "model.fp32.onnx").write_bytes(b"abc")
    (tmp_path / "model.int8.vnni.onnx.data").write_bytes(b"")
    (tmp_path / "empty.json").write_bytes(b"")
    # SHA-256 of "abc" and of nothing: FIPS 180-2, appendix B.1, and NIST's test vectors
    nothing = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"
    assert file_specs(tmp_path, ["model.fp32.onnx", "model.int8.vnni.onnx.data", "empty.json"]) == {
        "model.fp32.onnx": FileSpec("ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad", 3, "fp32"),
        "model.int8.vnni.onnx.data": FileSpec(nothing, 0, "int8", "vnni"),
        "empty.json": FileSpec(nothing, 0),
    }


def test_written_manifest_is_the_one_that_a_device_reads(tmp_path):
    (tmp_path / "report.json").write_bytes(b"{}")
    manifest = manifest_of(file_specs(tmp_path, ["report.json"]))
    bundle = write_manifest(tmp_path, manifest)
    assert bundle.manifest == manifest
    assert Bundle.load(tmp_path).manifest == manifest


def test_manifest_that_does_not_fit_the_files_is_refused(tmp_path):
    (tmp_path / "report.json").write_bytes(b"{}")
    manifest = manifest_of(file_specs(tmp_path, ["report.json"]))
    (tmp_path / "report.json").write_bytes(b"[]")
    with pytest.raises(BundleError, match="was changed after the build"):
        write_manifest(tmp_path, manifest)
