"""The peak of a build's memory is that of a process which does nothing else."""

import numpy as np
import pytest

from drnet.datasets.contract import DataError
from drnet.datasets.mnist import BouncingDigits
from drnet.pipelines.measuring.bench_peak import bench_peak


class Hoarder(BouncingDigits):
    """Holds on to 40 MB with every clip."""

    held: list = []  # noqa: RUF012 - that it is shared is the point

    def clips(self, split, index):  # type: ignore[no-untyped-def]
        """Yield the clip, and keep much."""
        self.held.append(np.ones(40_000_000, np.uint8))
        yield from super().clips(split, index)


def test_a_build_that_keeps_what_it_reads_is_seen_to_grow() -> None:
    steady = bench_peak(BouncingDigits("optdigits", clips=8, frames=3, size=16), (1, 8))
    hoarder = bench_peak(Hoarder("optdigits", clips=8, frames=3, size=16), (1, 8))
    assert [row["limit"] for row in steady] == [1, 8]
    assert steady[1]["frames"] == 3 * (8 + 1)
    assert steady[1]["peak"] < steady[0]["peak"] + 20
    assert hoarder[1]["peak"] > hoarder[0]["peak"] + 200


def test_a_data_set_that_cannot_be_built_is_told(tmp_path) -> None:  # type: ignore[no-untyped-def]
    with pytest.raises(DataError, match=r"mnist, 1 items: .* is not a folder"):
        bench_peak(BouncingDigits(str(tmp_path / "none"), clips=2), (1,))
