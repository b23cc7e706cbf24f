"""What is downloaded of other people's data sets: in one table the files, their mirrors, what they must be, the terms.

Sizes and SHA-256 are of the files as their publishers serve them, and of what the packed ones unpack to. Nobody has
published those of KTH's archives: instead, each must hold the right number of videos with the right CRC-32 (an archive
carries one for each member), and the first SHA-256 seen on a machine is recorded beside the file.

Where the numbers come from: MNIST's were computed from files with the published MD5; small NORB's are TensorFlow
Datasets' (packed) and were computed from the files (unpacked); KTH's numbers of frames are the sums of the last frame of
each video in 00sequences.txt, and the SHA-1 of its archives those that the package vipy has recorded.
"""

from collections.abc import Mapping
from dataclasses import dataclass

from drnet.datasets.contract import DataError, SourceFile


@dataclass(frozen=True)
class Videos:
    """What an archive of videos holds.

    Attributes:
        pattern: of the videos' names, without a folder.
        count: of videos.
        frames: of all videos, as their AVI headers tell.
        sha1: of the archive, as others have recorded it; a difference is told, not refused.
    """

    pattern: str
    count: int
    frames: int
    sha1: str


@dataclass(frozen=True)
class Original:
    """A file to download.

    Attributes:
        served: its name at the mirrors.
        urls: of each mirror, in the order of preference.
        size: bytes as served; where `sha256` is empty only about.
        sha256: as served; empty where nobody has published it, and `videos` says what the file must hold.
        unpacked: what is kept instead of a gzip file; None where it is kept as served.
        videos: what an archive holds.
    """

    served: str
    urls: tuple[str, ...]
    size: int
    sha256: str = ""
    unpacked: SourceFile | None = None
    videos: Videos | None = None

    @property
    def name(self) -> str:
        """The name under which the file is kept."""
        return self.unpacked.name if self.unpacked else self.served

    @property
    def limit(self) -> int:
        """The most bytes that are ever taken from a mirror."""
        return self.size if self.sha256 else 2 * self.size


@dataclass(frozen=True)
class Originals:
    """A data set that somebody else has published.

    Attributes:
        title: what it is, in a phrase.
        page: where it is described.
        licence: what may be done with it.
        citation: what to cite.
        files: to download.
    """

    title: str
    page: str
    licence: str
    citation: str
    files: tuple[Original, ...]

    def file(self, name: str) -> Original:
        """Return the file that is kept under a name."""
        return next(file for file in self.files if file.name == name)


def originals_of(name: str) -> Originals:
    """Return a row of the table. Raises DataError where the name is none of the table's."""
    if name not in ORIGINALS:
        raise DataError(f"'{name}' is no data set that can be downloaded; there are {', '.join(ORIGINALS)}")
    return ORIGINALS[name]


_MNIST_MIRRORS = (
    "https://ossci-datasets.s3.amazonaws.com/mnist/",
    "https://storage.googleapis.com/cvdf-datasets/mnist/",
    "https://azureopendatastorage.blob.core.windows.net/mnist/",
)
_NORB = "https://cs.nyu.edu/~ylclab/data/norb-v1.0-small/"
_NORB_MIRRORS = (_NORB, f"https://web.archive.org/web/2022id_/{_NORB}")
_KTH_MIRRORS = (
    "https://www.csc.kth.se/cvap/actions/",
    "https://web.archive.org/web/20190421074025id_/http://www.nada.kth.se/cvap/actions/",
)


def _mnist(name: str, size: int, sha256: str) -> Original:
    return Original(name, tuple(mirror + name for mirror in _MNIST_MIRRORS), size, sha256)


def _norb(name: str, size: int, sha256: str, unpacked: int, unpacked_sha256: str) -> Original:
    served = f"smallnorb-5x{name}.mat.gz"
    kept = SourceFile(served.removesuffix(".gz"), unpacked, unpacked_sha256)
    return Original(served, tuple(mirror + served for mirror in _NORB_MIRRORS), size, sha256, kept)


def _kth(action: str, megabytes: int, count: int, frames: int, sha1: str) -> Original:
    videos = Videos(rf"person(0[1-9]|1\d|2[0-5])_{action}_d[1-4]_uncomp\.avi", count, frames, sha1)
    urls = tuple(f"{mirror}{action}.zip" for mirror in _KTH_MIRRORS)
    return Original(f"{action}.zip", urls, megabytes * 1_000_000, videos=videos)


ORIGINALS: Mapping[str, Originals] = {
    "mnist": Originals(
        title="MNIST, 70,000 handwritten digits",
        page="https://yann.lecun.com/exdb/mnist/",
        licence="CC BY-SA 3.0 (MNIST, Y. LeCun and C. Cortes)",
        citation="LeCun, Bottou, Bengio and Haffner, Gradient-based learning applied to document recognition, 1998",
        files=(
            _mnist(
                "train-images-idx3-ubyte.gz",
                9_912_422,
                "440fcabf73cc546fa21475e81ea370265605f56be210a4024d2ca8f203523609",
            ),
            _mnist(
                "train-labels-idx1-ubyte.gz", 28_881, "3552534a0a558bbed6aed32b30c495cca23d567ec52cac8be1a0730e8010255c"
            ),
            _mnist(
                "t10k-images-idx3-ubyte.gz",
                1_648_877,
                "8d422c7b0a1c1c79245a5bcf07fe86e33eeafee792b84584aec276f5a2dbc4e6",
            ),
            _mnist(
                "t10k-labels-idx1-ubyte.gz", 4_542, "f7ae60f92e00ec6debd23a6088c31dbd2371eca3ffa0defaefb259924204aec6"
            ),
        ),
    ),
    "norb": Originals(
        title="small NORB, 48,600 stereo photographs of 50 toys",
        page=_NORB,
        licence="for research; it must not be sold",
        citation="LeCun, Huang and Bottou, Learning methods for generic object recognition with invariance to pose and "
        "lighting, CVPR 2004",
        files=(
            _norb(
                "46789x9x18x6x2x96x96-training-dat",
                131_896_188,
                "5ffd6272a07d32695ee1082a26a41a93a37aab8c28da047f8c34ed348d214873",
                447_897_624,
                "4813bf104d229583fea8ed57fdc3e9258c927b8dfb43d75412e854a7a9588067",
            ),
            _norb(
                "46789x9x18x6x2x96x96-training-cat",
                348,
                "2784e542c1922060691090952b6cd6278879a216c90f81476f0f00256d42cdaa",
                97_220,
                "591ed90c090cb6724593e8de28180bd602095ee8ec82bd1a5ca30b488cd1d06e",
            ),
            _norb(
                "46789x9x18x6x2x96x96-training-info",
                71_052,
                "de7eb932ebe7a4ee16217fead60660d0eb3d23632c2f4d1c51f88c501c17bf32",
                388_820,
                "6b4075d3800ba0c6fa8c46a02f672572abe7b93f7ed82fb7668354a99ef03306",
            ),
            _norb(
                "01235x9x18x6x2x96x96-testing-dat",
                130_799_817,
                "cf7104eed3e51174d2f65b66d1e5878b9da233b886f161b0d88f4510ba2c7474",
                447_897_624,
                "2b1de646c57ffdc259b8fb973a6453e90915248a8fdb4d9df948786bdae72b34",
            ),
            _norb(
                "01235x9x18x6x2x96x96-testing-cat",
                347,
                "ecaf6d5bb8c3bc5eab9cf0258f6d2198dd474e016e374836fc097f2e5ff509ff",
                97_220,
                "591ed90c090cb6724593e8de28180bd602095ee8ec82bd1a5ca30b488cd1d06e",
            ),
            _norb(
                "01235x9x18x6x2x96x96-testing-info",
                10_428,
                "16adf314226327ee006d1a44db8cfef52773c06c829951d5653a9f6f310248a2",
                388_820,
                "318f817236b7c97af03cd90e07a9cbb4346e20ef83a1118a61eeb50e3b96db7e",
            ),
        ),
    ),
    "kth": Originals(
        title="KTH actions, 599 videos of six actions by 25 persons",
        page=_KTH_MIRRORS[0],
        licence="publicly available for non-commercial use; shows persons who can be recognised: publish no pictures",
        citation="Schuldt, Laptev and Caputo, Recognizing human actions: a local SVM approach, ICPR 2004",
        files=(
            Original(
                "00sequences.txt",
                (
                    f"{_KTH_MIRRORS[0]}00sequences.txt",
                    "https://web.archive.org/web/20190818162100id_/http://www.nada.kth.se:80/cvap/actions/00sequences.txt",
                ),
                38_081,
                "6331f4e4d0d820f306a46c40f82afc39f2486cc8723fe15f4742c14c261ccba7",
            ),
            _kth("boxing", 194, 100, 44_948, "adb36ed9c29c846d44d2ba15f348bd115c951bbd"),
            _kth("handclapping", 176, 99, 42_667, "d3b81261aa822ef63d0d1523f945bfaff27814d2"),
            _kth("handwaving", 218, 100, 53_453, "0792f7cd69f7f895a205c08ac212ddaa7177e370"),
            _kth("jogging", 168, 100, 43_884, "21943bdbcef9dad106db0d74661e49eaeaa15a25"),
            _kth("running", 149, 100, 38_421, "da83bb313edfd4455fffdda6263696fa10d43c6f"),
            _kth("walking", 242, 100, 65_700, "a3e81537271a0ab4576591774baa38c2d97b7e3a"),
        ),
    ),
}
