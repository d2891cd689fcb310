"""Files through pyarrow, on a disk and in fsspec's memory: written whole, replaced, deleted, copied where needed."""

from __future__ import annotations

import uuid

import pytest

from fcnedge.runtime.batch.storage import Storage
from fcnedge.runtime.errors import UserError

pytest.importorskip("pyarrow", reason="the extra ray is not installed")


@pytest.fixture(params=["disk", "memory"])
def storage(request, tmp_path):
    return Storage.at(str(tmp_path / "out") if request.param == "disk" else f"memory://{uuid.uuid4().hex}")


def test_what_is_written_is_there(storage):
    assert storage.is_empty()
    storage.make_folder("a/b")
    assert storage.exists("a/b")
    storage.write("a/b/one", b"1")
    storage.write_atomically("a/b/two", b"22")
    storage.write_atomically("a/b/two", b"333")
    assert (storage.read("a/b/one"), storage.read("a/b/two")) == (b"1", b"333")
    assert not storage.is_empty()
    found = Storage.at(f"{storage.uri}/a/b").files()
    assert [(file.uri, file.size) for file in found] == [(f"{storage.uri}/a/b/one", 1), (f"{storage.uri}/a/b/two", 3)]


def test_files_and_folders_are_deleted_and_may_be_gone_before(storage):
    storage.make_folder("a")
    storage.write("a/one", b"1")
    storage.write("two", b"2")
    for name in ("a", "two", "a", "two"):
        storage.delete(name)
        assert not storage.exists(name)


def test_a_local_copy_has_the_name_and_the_bytes(storage):
    storage.make_folder()
    storage.write("film.mp4", b"1234")
    with Storage.at(f"{storage.uri}/film.mp4").local_copy() as path:
        assert (path.name, path.read_bytes()) == ("film.mp4", b"1234")
        on_disk = "://" not in storage.uri
    assert path.exists() == on_disk


def test_a_failed_write_leaves_the_old_file_and_no_other(tmp_path, monkeypatch):
    storage = Storage.at(str(tmp_path))
    storage.write("one", b"1")

    def fail(name, data):
        raise UserError("the disk is full")

    monkeypatch.setattr(storage, "write", fail)
    with pytest.raises(UserError, match="the disk is full"):
        storage.write_atomically("one", b"2")
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == {"one": b"1"}


def test_what_the_file_system_refuses_is_one_sentence(forbidden_folder):
    storage = Storage.at(str(forbidden_folder))
    for act, what in ((lambda: storage.write("x", b"1"), "written"), (lambda: storage.make_folder("x"), "made")):
        with pytest.raises(UserError, match=rf"^{forbidden_folder}/x cannot be {what} \(.+\)\.$"):
            act()
    with pytest.raises(UserError, match=r"/x cannot be read \("):
        storage.read("x")
