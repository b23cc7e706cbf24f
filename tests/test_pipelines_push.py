"""A push may be cut off anywhere: the next one continues, and nobody ever finds half a data set."""

import hashlib
import shutil
import tempfile
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import fsspec
import pytest

from drnet.datasets.contract import DataError
from drnet.datasets.mnist import BouncingDigits
from drnet.pipelines.build import build, plan_build
from drnet.pipelines.sharing.push import FILES_A_COMMIT, FolderStore, HubStore, push, push_order, store_of
from drnet.pipelines.verify import verify_data


class CutError(OSError):
    """The connection ends."""


@dataclass
class Entry:
    """A file as the hub lists it."""

    path: str
    size: int
    blob_id: str
    lfs: Any = None


@dataclass
class Large:
    """What the hub knows of a large file."""

    sha256: str


@dataclass
class Hub:
    """Stands in for `huggingface_hub.HfApi`: commits are whole or not there; large files are known by SHA-256."""

    files: dict[str, bytes] = field(default_factory=dict)
    commits: int = 0
    left: int = 10**9  # commits until the connection ends

    def create_repo(self, repo: str, repo_type: str, exist_ok: bool, private: bool) -> None:
        assert (repo_type, exist_ok, private) == ("dataset", True, True)

    def list_repo_tree(self, repo: str, repo_type: str) -> list[Entry]:
        rows = []
        for name, data in self.files.items():
            blob = hashlib.sha1(b"blob %d\0" % len(data) + data).hexdigest()
            large = Large(hashlib.sha256(data).hexdigest()) if name.endswith(".tar") else None
            rows.append(Entry(name, len(data), blob, large))
        return rows

    def hf_hub_download(self, repo: str, name: str, repo_type: str) -> str:
        path = Path(tempfile.mkdtemp()) / name
        path.write_bytes(self.files[name])
        return str(path)

    def create_commit(self, repo: str, operations: list[Any], commit_message: str, repo_type: str) -> None:
        if not self.left:
            raise CutError("the connection ended")
        self.left -= 1
        self.commits += 1
        self.files |= {op.path_in_repo: Path(op.path_or_fileobj).read_bytes() for op in operations}


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def test_a_data_set_in_the_hub_is_the_folder(digits: Path) -> None:
    hub = Hub()
    done = push(digits, HubStore("me/digits", hub))
    assert hub.files == contents(digits)
    assert done == {"sent": len(hub.files), "kept": 0}


@pytest.mark.parametrize("cut", range(5))
def test_a_push_that_was_cut_off_is_continued_and_the_manifest_comes_last(
    digits: Path, monkeypatch: pytest.MonkeyPatch, cut: int
) -> None:
    monkeypatch.setattr("drnet.pipelines.sharing.push.FILES_A_COMMIT", 6)
    hub = Hub(left=cut)
    with pytest.raises(CutError):
        push(digits, HubStore("me/digits", hub))
    assert "manifest.json" not in hub.files
    sent = [0, 6, 12, 16, 17][cut]  # eight shards with sidecars, then the accounting
    assert len(hub.files) == sent
    hub.left = 10**9
    done = push(digits, HubStore("me/digits", hub))
    assert hub.files == contents(digits)
    assert done["kept"] == sent
    assert push(digits, HubStore("me/digits", hub))["sent"] == 0


@pytest.mark.parametrize("name", ["train-000001.tar", "train-000001.json", "manifest.json"])
def test_a_file_with_other_content_is_sent_again(digits: Path, name: str) -> None:
    hub = Hub()
    push(digits, HubStore("me/digits", hub))
    data = bytearray(hub.files[name])
    data[100] ^= 1
    hub.files[name] = bytes(data)
    assert push(digits, HubStore("me/digits", hub))["sent"] == 1
    assert hub.files == contents(digits)


def test_a_copy_behind_a_url_is_a_data_set(digits: Path, tmp_path: Path) -> None:
    done = push(digits, store_of(f"file://{tmp_path}/copy"))
    assert done["kept"] == 0
    assert contents(tmp_path / "copy") == contents(digits)
    assert verify_data(tmp_path / "copy")[0] == []
    assert push(digits, store_of(f"file://{tmp_path}/copy"))["sent"] == 0


def test_a_copy_that_was_cut_off_has_no_manifest_and_is_continued(
    digits: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = FolderStore(f"file://{tmp_path}/copy")
    put, sent = store.files.put_file, list[str]()

    def put_some(source: str, target: str) -> None:
        if len(sent) == 7:
            Path(target).write_bytes(b"half")
            raise CutError("the connection ended")
        sent.append(source)
        put(source, target)

    monkeypatch.setattr(store.files, "put_file", put_some)
    with pytest.raises(CutError):
        push(digits, store)
    assert not (tmp_path / "copy" / "manifest.json").exists()
    monkeypatch.undo()
    done = push(digits, FolderStore(f"file://{tmp_path}/copy"))
    assert done["kept"] == 6  # three shards with their sidecars; the fourth had no sidecar yet
    found = contents(tmp_path / "copy")
    assert {name: data for name, data in found.items() if not name.endswith(".part")} == contents(digits)


def test_objects_appear_whole_in_a_store_of_objects(digits: Path) -> None:
    push(digits, store_of("memory://bucket/digits"))
    files = fsspec.filesystem("memory")
    names = {Path(name).name for name in files.ls("/bucket/digits", detail=False)}
    assert names == {path.name for path in digits.iterdir()}


def test_two_data_sets_are_never_mixed(digits: Path, tmp_path: Path) -> None:
    other = tmp_path / "other"
    build(plan_build(BouncingDigits("optdigits", clips=2, frames=3, size=16), "raw"), other)
    hub = Hub()
    for store in (HubStore("me/digits", hub), FolderStore(f"file://{tmp_path}/copy")):
        push(digits, store)
        before = dict(hub.files)
        with pytest.raises(DataError, match=r"holds another data set \('mnist', build '\w{12}'\); push to another URL"):
            push(other, store)
        assert hub.files == before
    assert contents(tmp_path / "copy") == contents(digits)


def test_half_a_data_set_is_not_pushed(digits: Path, tmp_path: Path) -> None:
    copy = shutil.copytree(digits, tmp_path / "copy")
    (copy / "train-000002.tar").unlink()
    with pytest.raises(DataError, match=r"missing train-000002\.tar; run the build command again before pushing"):
        list(push_order(copy))


@pytest.mark.parametrize(
    ("target", "said"),
    [
        ("me/digits", "target 'me/digits' is not allowed; name hf://datasets/USER/NAME"),
        ("nosuch://x/y", "nosuch://x/y: cannot be written to"),
    ],
)
def test_a_target_that_is_none_is_refused_in_one_line(target: str, said: str) -> None:
    with pytest.raises(DataError, match=said):
        store_of(target)


def test_commits_are_of_a_size_the_hub_takes() -> None:
    assert 1 < FILES_A_COMMIT <= 100
