"""Loading a whole split into memory: what is read, refused, noted and sent."""

import errno
import shutil
import threading
from itertools import pairwise
from pathlib import Path

import pytest
import torch
from faulty_server import serving
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor
from uneven import CLIPS, CPU, Notes, differences, flip, kept, planned, uneven_folders

from drnet.datasets.contract import DataError
from drnet.pipelines.feeding import device_frames, resident
from drnet.pipelines.feeding.device_frames import choose_frames
from drnet.pipelines.feeding.resident import Staging, frame_counts, parts
from drnet.pipelines.loader import FrameStream
from drnet.pipelines.shards.reading import Shard


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    return uneven_folders(tmp_path_factory.mktemp("uneven"))


def test_what_is_damaged_is_said_once_and_counted(folders: dict[str, Path]) -> None:
    notes = Notes()
    kept(planned(folders["raw-damaged"], tolerant=True, keyed=True), notes)
    assert notes.lines[1:] == ["8 of 24 clips are damaged, and left out wherever that shows"]
    assert notes.done == notes.total == sum(1 + clip % 7 for clip in range(CLIPS))
    assert notes.ended == 1


@pytest.mark.parametrize("codec", ["raw", "zstd"])
def test_without_tolerance_the_first_damage_ends_the_loading_and_names_the_clip(
    folders: dict[str, Path], codec: str
) -> None:
    notes = Notes()
    with pytest.raises(DataError, match=r"train-000000\.tar: clip train-003") as raised:
        choose_frames(planned(folders[f"{codec}-damaged"]), CPU, "device", notes)
    assert "\n" not in str(raised.value)
    assert notes.ended == 1


def test_a_damaged_content_key_ends_the_loading_too_where_it_is_asked_for(
    folders: dict[str, Path], tmp_path: Path
) -> None:
    folder = Path(shutil.copytree(folders["raw"], tmp_path / "labels"))
    flip(folder, 18, -1)
    assert kept(planned(folder)).read(0).keys is None
    with pytest.raises(DataError, match=r"clip train-018: its labels are damaged"):
        kept(planned(folder, keyed=True))


def test_too_many_open_files_are_no_fault_of_a_clip(folders: dict[str, Path], monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise OSError(errno.EMFILE, "Too many open files")

    monkeypatch.setattr(Shard, "read_frames", full)
    with pytest.raises(OSError, match="Too many open files"):
        kept(planned(folders["raw"], tolerant=True))


def test_a_shard_of_another_number_of_frames_than_listed_is_refused(
    folders: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(device_frames, "frame_counts", lambda shards: [count + 1 for count in frame_counts(shards)])
    with pytest.raises(DataError, match=r"train-000000\.tar: not the 16 frames that the manifest lists"):
        kept(planned(folders["raw"]))


@pytest.mark.parametrize("codec", ["raw", "zstd"])
@pytest.mark.parametrize("sidecars", [True, False])
def test_shards_without_a_manifest_are_kept_too(
    folders: dict[str, Path], tmp_path: Path, codec: str, sidecars: bool
) -> None:
    for path in folders[codec].glob("train-*.*" if sidecars else "*.tar"):
        shutil.copy(path, tmp_path)
    source = planned(tmp_path / "train-{000000..000004}.tar")
    assert source.collection.manifest is None
    assert differences(kept(source).read(4), source.read(4)) == []


def test_remote_shards_are_fetched_once_in_the_order_of_the_files(
    folders: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DRNET_CACHE", str(tmp_path / "cache"))
    with serving() as server:
        server.put(folders["raw"], "/d")
        far, near = (planned(where) for where in (f"{server.url}/d", folders["raw"]))  # type: ignore[arg-type]
        held = kept(far)
        tars = [path for path, _ in server.asked if path.endswith(".tar")]
        assert sorted(tars) == [f"/d/train-00000{number}.tar" for number in range(5)]
        assert differences(held.read(7), near.read(7)) == []


def test_once_loaded_no_file_is_read(folders: dict[str, Path], tmp_path: Path) -> None:
    folder = Path(shutil.copytree(folders["raw"], tmp_path / "data"))
    held = kept(planned(folder, keyed=True))
    held.planned.collection._open.cache_clear()
    shutil.rmtree(folder)
    right = planned(folders["raw"], keyed=True)
    assert differences(held.read(2), right.read(2)) == []


def test_a_stop_ends_the_loading_and_the_shards_serve(folders: dict[str, Path]) -> None:
    stop, notes = threading.Event(), Notes()
    stop.set()
    assert isinstance(choose_frames(planned(folders["raw"]), CPU, "device", notes, stop), FrameStream)
    assert 0 < notes.done < notes.total
    assert notes.ended == 1


class Arrival:
    """Stands for a CUDA event: a copy that is on its way until it is waited for."""

    def __init__(self) -> None:
        self.on_the_way = False

    def record(self, stream: object) -> None:
        assert not self.on_the_way, "a buffer was sent twice"
        self.on_the_way = True

    def synchronize(self) -> None:
        self.on_the_way = False


def test_two_bounded_buffers_carry_all_frames_and_none_is_filled_while_it_travels(
    folders: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    made: list[Tensor] = []

    def pinned(shape: tuple[int, ...]) -> Tensor:
        made.append(torch.empty(shape, dtype=torch.uint8))
        return made[-1]

    sent: list[Tensor] = []

    class Pinned(Staging):
        def __init__(self, frames: Tensor) -> None:
            super().__init__(frames)
            self.direct, self._arrived = False, [Arrival(), Arrival()]  # type: ignore[assignment]

        def _buffer(self, length: int) -> Tensor:
            sent.append(super()._buffer(length))
            return sent[-1]

    monkeypatch.setattr(resident, "STAGED", 6 * 60)  # six frames; some clips have seven
    monkeypatch.setattr(resident, "pinned", pinned)
    monkeypatch.setattr(resident, "Staging", Pinned)
    monkeypatch.setattr(torch.cuda, "current_stream", lambda device: None)
    source = planned(folders["raw"])
    held = kept(source)
    assert {len(buffer) for buffer in made} <= {6, 7}
    assert 2 <= len(made) <= 4  # each may have grown once
    assert all(one.data_ptr() != other.data_ptr() for one, other in pairwise(sent))
    assert [differences(held.read(step), source.read(step)) for step in range(12)] == [[]] * 12


@given(lengths=st.lists(st.integers(1, 9), max_size=30), most=st.integers(1, 20))
def test_parts_hold_each_clip_once_and_as_many_as_fit(lengths: list[int], most: int) -> None:
    found = list(parts(lengths, most))
    assert [index for part in found for index in part] == list(range(len(lengths)))
    sizes = [sum(lengths[index] for index in part) for part in found]
    assert all(size <= most or len(part) == 1 for size, part in zip(sizes, found, strict=True))
    for size, after in zip(sizes, found[1:], strict=False):
        assert size + lengths[after.start] > most
