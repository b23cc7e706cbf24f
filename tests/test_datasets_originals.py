"""The table of what is downloaded: complete, and consistent with what is known of the files from elsewhere."""

import re
from urllib.parse import urlparse

import pytest

from drnet.datasets.contract import DataError
from drnet.datasets.fetching.originals import ORIGINALS, Original, originals_of

FILES = [file for row in ORIGINALS.values() for file in row.files]


@pytest.mark.parametrize("name", ORIGINALS)
def test_each_data_set_says_what_it_is_where_its_terms_and_what_to_cite(name: str) -> None:
    row = originals_of(name)
    assert row.title
    assert urlparse(row.page).scheme == "https"
    assert row.licence
    assert re.search(r"(19|20)\d\d", row.citation)
    assert len({file.name for file in row.files}) == len(row.files)


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.served)
def test_each_file_has_mirrors_and_something_that_tells_it_from_another(file: Original) -> None:
    assert len({urlparse(url).hostname for url in file.urls}) == len(file.urls) >= 2
    assert all(url.startswith("https://") and url.endswith(f"/{file.served}") for url in file.urls)
    assert re.fullmatch(r"[0-9a-f]{64}", file.sha256) or (
        file.videos and re.fullmatch(r"[0-9a-f]{40}", file.videos.sha1)
    )
    assert file.unpacked is None or re.fullmatch(r"[0-9a-f]{64}", file.unpacked.sha256)
    assert file.limit >= file.size > 0


def test_the_unpacked_sizes_of_small_norb_follow_from_its_format() -> None:
    pairs = 24_300  # a header is a magic number, the number of axes, and at least three of them
    sizes = {"dat": 24 + pairs * 2 * 96 * 96, "cat": 20 + pairs * 4, "info": 20 + pairs * 4 * 4}
    found = {file.name: file.unpacked.size for file in ORIGINALS["norb"].files if file.unpacked}
    assert found == {name: sizes[name.removesuffix(".mat").rsplit("-")[-1]] for name in found}
    assert len(found) == 6


def test_kth_has_599_videos_one_is_missing_in_the_original() -> None:
    videos = {file.name: file.videos for file in ORIGINALS["kth"].files if file.videos}
    assert sum(part.count for part in videos.values()) == 25 * 6 * 4 - 1
    assert videos["handclapping.zip"].count == 99
    for name, part in videos.items():
        action = name.removesuffix(".zip")
        assert re.fullmatch(part.pattern, f"person25_{action}_d4_uncomp.avi")
        for wrong in (f"person26_{action}_d4", f"person25_{action}_d5", f"person1_{action}_d1", "person01_x_d1"):
            assert not re.fullmatch(part.pattern, f"{wrong}_uncomp.avi")


def test_mnist_has_the_files_that_the_digits_are_read_from() -> None:
    from drnet.datasets.reading import digits

    wanted = {f"{file.name}.gz" for pair in digits.FILES.values() for file in pair}
    assert {file.name for file in ORIGINALS["mnist"].files} == wanted


def test_another_name_is_refused_with_those_that_there_are() -> None:
    with pytest.raises(DataError, match="'coil' is no data set that can be downloaded; there are mnist, norb, kth"):
        originals_of("coil")
