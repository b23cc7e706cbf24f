"""Frames kept in a device's memory: the same batches as from the shards, whatever is drawn, damaged or asked for."""

import threading
from contextlib import closing
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from uneven import CPU, GB, Notes, differences, kept, planned, read_or_said, uneven_folders

from drnet.datasets.contract import DataError
from drnet.pipelines.feeding import device_frames, resident
from drnet.pipelines.feeding.device_frames import DeviceFrames, choose_frames
from drnet.pipelines.loader import FrameStream, to_device
from drnet.pipelines.source import open_shards


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    return uneven_folders(tmp_path_factory.mktemp("uneven"))


@dataclass(frozen=True)
class Case:
    """One way to draw batches."""

    folder: str
    batch: int
    world: int
    seed: int
    max_offset: int
    cyclic: bool
    drawn: str
    keyed: bool
    step: int
    parts: int


CASES = st.builds(
    Case,
    folder=st.sampled_from(["raw", "zstd", "raw-damaged", "zstd-damaged"]),
    batch=st.integers(2, 9),
    world=st.integers(1, 3),
    seed=st.integers(0, 1000),
    max_offset=st.integers(0, 8),
    cyclic=st.booleans(),
    drawn=st.sampled_from(["pair", "window", "clip"]),
    keyed=st.booleans(),
    step=st.integers(0, 200),
    parts=st.integers(1, 2),
)


@given(case=CASES)
@settings(max_examples=80, deadline=None)
def test_every_batch_is_what_the_shards_give(folders: dict[str, Path], case: Case) -> None:
    for rank in range(case.world):
        source = planned(
            folders[case.folder],
            case.batch * case.world * case.parts,
            case.seed,
            max_offset=case.max_offset,
            cyclic=case.cyclic,
            rank=rank,
            world_size=case.world,
            tolerant=True,
            drawn=case.drawn,
            keyed=case.keyed,
            parts=case.parts,
        )
        held = kept(source)
        for step in (case.step, case.step + 1):
            found, right = read_or_said(held, step), read_or_said(source, step)
            if isinstance(found, str) or isinstance(right, str):
                assert found == right
            else:
                assert differences(found, right) == []
                assert len(found.clips) == case.batch * case.parts or case.world == case.parts == 1


@pytest.mark.parametrize("codec", ["raw", "zstd"])
def test_a_damaged_clip_is_left_out_where_its_damage_is_drawn_and_nowhere_else(
    folders: dict[str, Path], codec: str
) -> None:
    source = planned(folders[f"{codec}-damaged"], tolerant=True, keyed=True)
    held = kept(source)
    found = [held.read(step) for step in range(60)]
    assert [differences(batch, source.read(batch.step)) for batch in found] == [[]] * 60
    left_out = {clip for batch in found for clip, _ in batch.skipped}
    assert {3, 18, 20, 21, 22, 23} <= left_out <= {3, 6, 13, 18, 20, 21, 22, 23}
    if codec == "raw":  # of these some frames are whole
        for clip in (6, 13):
            assert any(clip in dict(batch.skipped) for batch in found)
            assert any(clip in batch.clips for batch in found)


def test_clips_that_are_dealt_anew_keep_their_own_frames_and_times(folders: dict[str, Path]) -> None:
    source = planned(
        folders["raw-damaged"] / "train-{000000..000001}.tar", tolerant=True
    )  # ten clips, batches of eight
    held, whole, met = kept(source), open_shards(folders["raw"]), 0
    for step in range(60):
        batch = held.read(step)
        assert differences(batch, source.read(step)) == []
        for frames, clip, times in zip(batch.frames, batch.clips.tolist(), batch.times, strict=True):
            assert np.array_equal(frames, whole.frames(clip)[times])
        left = [clip for clip in source.plan.batch(step).clips.tolist() if clip not in dict(batch.skipped)]
        met += left != batch.clips.tolist()
    assert met, "no step put the rule to the test"


def test_batches_come_in_turn_from_the_first_step_on_and_end_with_the_loop(folders: dict[str, Path]) -> None:
    source = planned(folders["raw"], start=5)
    with closing(kept(source).batches()) as batches:
        found = list(islice(batches, 4))
        assert "read-ahead" in {thread.name for thread in threading.enumerate()}
    for batch, step in zip(found, range(5, 9), strict=True):
        assert differences(batch, source.read(step)) == []
    assert "read-ahead" not in {thread.name for thread in threading.enumerate()}


@pytest.mark.parametrize(
    ("device", "wanted", "said"),
    [
        (
            "cpu",
            "auto",
            "frames are streamed from the shards: on the CPU only `--cache device` keeps them in memory",
        ),
        ("cuda", "stream", "frames are streamed from the shards: as asked for"),
    ],
)
def test_without_a_reason_frames_are_streamed_and_that_is_said(
    folders: dict[str, Path], device: str, wanted: Any, said: str
) -> None:
    notes = Notes()
    assert isinstance(choose_frames(planned(folders["raw"]), torch.device(device), wanted, notes), FrameStream)
    assert notes.lines == [said]


@pytest.mark.parametrize(
    ("free", "share", "fits", "said"),
    [
        (71 * GB, 0.5, True, "2.5 GB of frames fit into 71 GB of free GPU memory"),
        (5 * GB, 0.5, True, "2.5 GB of frames fit into 5 GB of free GPU memory"),
        (5 * GB - 2, 0.5, False, "2.5 GB of frames do not fit into 50% of 5 GB of free GPU memory"),
        (3 * GB, 0.9, True, "2.5 GB of frames fit into 3 GB of free GPU memory"),
    ],
)
def test_frames_are_held_against_the_gpus_free_memory(
    monkeypatch: pytest.MonkeyPatch, free: int, share: float, fits: bool, said: str
) -> None:
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: (free, 80 * GB))
    for processes in (1, 4):  # each has a GPU of its own
        assert device_frames.room_for(25 * GB // 10, torch.device("cuda"), share, processes) == (fits, said)


def test_processes_on_the_cpu_share_its_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(device_frames, "available_memory", lambda: 10 * GB)
    assert device_frames.room_for(3 * GB, CPU, 0.9) == (True, "3 GB of frames fit into 10 GB of free memory")
    assert device_frames.room_for(3 * GB, CPU, 0.9, 3)[0]
    said = "4 copies of 3 GB of frames do not fit into 90% of 10 GB of free memory"
    assert device_frames.room_for(3 * GB, CPU, 0.9, 4) == (False, said)


def test_a_gpu_with_room_keeps_the_frames_unasked(folders: dict[str, Path], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: (71 * GB, 80 * GB))
    monkeypatch.setattr(device_frames, "allocated", lambda shape, _: torch.empty(shape, dtype=torch.uint8))
    notes = Notes()
    assert isinstance(choose_frames(planned(folders["raw"]), torch.device("cuda"), "auto", notes), DeviceFrames)
    assert notes.lines == ["5.4 kB of frames fit into 71 GB of free GPU memory: kept there"]


@pytest.mark.parametrize(
    ("free", "said"),
    [
        (10_700, "5.4 kB of frames do not fit into 50% of 10.7 kB of free GPU memory"),
        (71 * GB, "5.4 kB of frames found no memory in one piece"),
    ],
)
def test_a_gpu_without_room_leaves_them_where_they_are_or_refuses_in_one_line(
    folders: dict[str, Path], monkeypatch: pytest.MonkeyPatch, free: int, said: str
) -> None:
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: (free, 80 * GB))
    monkeypatch.setattr(device_frames, "allocated", lambda *_: None)
    notes = Notes()
    frames, cuda = planned(folders["raw"]), torch.device("cuda")
    assert isinstance(choose_frames(frames, cuda, "auto", notes), FrameStream)
    assert notes.lines == [f"{said}: streamed"]
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: (min(free, 5_000), 80 * GB))
    with pytest.raises(DataError, match=r"^cache 'device' is not possible: 5\.4 kB of frames do not fit[^\n]+$"):
        choose_frames(frames, cuda, "device")


def test_frames_that_do_not_fit_into_memory_are_refused(
    folders: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(device_frames, "available_memory", lambda: 5_000)
    said = "5.4 kB of frames do not fit into 90% of 5 kB of free memory; use 'stream', fewer shards or smaller frames"
    with pytest.raises(DataError, match=rf"^cache 'device' is not possible: {said}$"):
        kept(planned(folders["raw"]))


def test_an_allocation_that_fails_is_no_crash() -> None:
    assert device_frames.allocated((1 << 58, 2), CPU) is None
    with pytest.raises(RuntimeError, match="negative"):
        device_frames.allocated((-1, 2), CPU)


def test_another_cache_is_refused(folders: dict[str, Path]) -> None:
    with pytest.raises(ValueError, match="cache 'gpu' is not allowed; supported are auto, device and stream"):
        choose_frames(planned(folders["raw"]), CPU, "gpu")  # type: ignore[arg-type]


def test_the_memory_that_is_free_is_what_the_system_says(tmp_path: Path) -> None:
    (tmp_path / "meminfo").write_text("MemTotal:  9 kB\nMemAvailable:    1234 kB\n")
    assert device_frames.available_memory(tmp_path / "meminfo") == 1234 * 1024
    assert device_frames.available_memory(tmp_path / "none") > 1 << 20
    assert device_frames.available_memory() > 1 << 20


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA GPU")
def test_a_gpu_holds_the_frames_and_gives_the_batches_of_the_shards(
    folders: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(resident, "STAGED", 6 * 60)
    cuda, notes = torch.device("cuda"), Notes()
    for name in ("raw", "zstd-damaged"):
        source = planned(folders[name], tolerant=True, keyed=True)
        held = choose_frames(source, cuda, "auto", notes)
        assert isinstance(held, DeviceFrames)
        with closing(held.batches()) as batches:
            for batch, step in zip(batches, range(20), strict=False):
                right = source.read(step)
                assert isinstance(batch.frames, Tensor)
                assert batch.frames.is_cuda
                assert np.array_equal(batch.frames.cpu().numpy(), right.frames)
                floats = to_device(batch.frames, cuda)
                assert torch.equal(floats, to_device(right.frames, cuda))
                assert floats.stride() == to_device(right.frames, cuda).stride()
    assert all("of free GPU memory: kept there" in line for line in notes.lines[:1])
