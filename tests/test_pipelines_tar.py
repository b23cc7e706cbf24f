"""Tars: what is accepted is read as `tarfile` reads it, and whatever could lose a member is refused."""

import io
import tarfile
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from drnet.datasets.contract import DataError
from drnet.pipelines.shards.tar import BLOCK, Member, plain_members

HERE = Path("x.tar")
FORMS = [tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT]
NAMES = st.text("abc/.é-0", min_size=1, max_size=130).filter(lambda n: not n.startswith("/") and ".." not in n)
ROWS = st.lists(st.tuples(NAMES, st.binary(max_size=700)), max_size=4)


def archive(rows: list[tuple[str, bytes]], form: int = tarfile.USTAR_FORMAT, mtime: float = 0) -> bytes:
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w", format=form) as tar:
        for name, data in rows:
            member = tarfile.TarInfo(name)
            member.size, member.mtime = len(data), mtime
            tar.addfile(member, io.BytesIO(data))
    return file.getvalue()


def read(data: bytes) -> list[Member]:
    return list(plain_members(HERE, io.BytesIO(data)))


def as_tarfile_reads(data: bytes) -> list[tuple[str, int, int]]:
    with tarfile.open(fileobj=io.BytesIO(data), mode="r:") as tar:
        return [(member.name, member.offset_data, member.size) for member in tar if member.isreg()]


def refused(data: bytes) -> str:
    with pytest.raises(DataError) as error:
        read(data)
    assert str(error.value).startswith(str(HERE))
    assert "\n" not in str(error.value)
    return str(error.value)


def header(name: bytes = b"a.npy", size: bytes = b"%011o\0" % 0, kind: bytes = b"0", rest: bytes = b"") -> bytes:
    """A header put together by hand, with the right checksum."""
    block = bytearray(BLOCK)
    block[: len(name)] = name
    block[100:108], block[124 : 124 + len(size)], block[148:156], block[156:157] = b"0000644\0", size, b" " * 8, kind
    block[257:265] = b"ustar\x0000"
    block[345 : 345 + len(rest)] = rest
    block[148:156] = b"%06o\0 " % sum(block)
    return bytes(block)


@settings(deadline=None)
@given(ROWS, st.sampled_from(FORMS), st.sampled_from([0, 1.5]))
def test_members_are_those_that_tarfile_finds(rows: list[tuple[str, bytes]], form: int, mtime: float) -> None:
    try:
        data = archive(rows, form, mtime)
    except ValueError:  # too long for ustar
        return
    assert [tuple(member) for member in read(data)] == as_tarfile_reads(data)
    assert [data[member.offset :][: member.size] for member in read(data)] == [content for _, content in rows]


UNUSED = tuple(slice(*ends) for ends in ((100, 108), (108, 116), (116, 124), (136, 148), (329, 337), (337, 345)))


def is_number(field: bytes) -> bool:
    """Whether tarfile takes a field of a header for a number: mode, owner, group, time, device."""
    try:
        tarfile.nti(bytes(field))
    except tarfile.HeaderError:
        return False
    return True


@settings(deadline=None, max_examples=300)
@given(ROWS.filter(bool), st.sampled_from(FORMS), st.data())
def test_what_is_read_of_a_changed_archive_tarfile_reads_the_same(
    rows: list[tuple[str, bytes]], form: int, data: st.DataObject
) -> None:
    try:
        whole = bytearray(archive(rows, form, 1.5))
    except ValueError:
        return
    at = data.draw(st.integers(0, len(whole) - 10240 + 1024))
    whole[at : at + 1] = data.draw(st.binary(max_size=3))
    for start in range(0, len(whole) - BLOCK, BLOCK):  # where that was a header, it passes for one again
        block = whole[start : start + BLOCK]
        if block[257:262] == b"ustar":
            whole[start + 148 : start + 156] = b"%06o\0 " % (sum(block[:148]) + sum(block[156:]) + 256)
            if not all(map(is_number, (block[field] for field in UNUSED))):
                return  # tarfile takes the second header and later ones for the archive's end then
    try:
        found, same = read(bytes(whole)), as_tarfile_reads(bytes(whole))
    except (DataError, tarfile.TarError):  # tarfile checks a few fields that are not used here: modes, owners, times
        return
    assert [(name.rstrip("/"), *place) for name, *place in found] == [(name.rstrip("/"), *row) for name, *row in same]


@pytest.mark.parametrize("form", FORMS)
def test_an_archive_that_is_cut_anywhere_is_refused(form: int) -> None:
    whole = archive([("a" * 120 + ".npy" if form else "a.npy", b"x" * 700), ("b.json", b"{}")], form, 1.5)
    end = len(whole.rstrip(b"\0")) + BLOCK
    for cut in range(0, end, 64):
        refused(whole[:cut])
    assert len(read(whole[: -(-end // BLOCK) * BLOCK])) == 2


def test_folders_are_passed_over() -> None:
    data = header(b"d/", kind=b"5") + header(b"v7/", kind=b"\0") + header(b"d/a.npy") + bytes(1024)
    assert [member.name for member in read(data)] == ["d/a.npy"]


@pytest.mark.parametrize(
    ("kind", "what"),
    [
        (b"1", "hard link"),
        (b"2", "symbolic link"),
        (b"3", "device"),
        (b"4", "device"),
        (b"6", "pipe"),
        (b"S", "sparse"),
        (b"K", "link"),
        *((kind, "unknown") for kind in (b"V", b"M", b"X", b"\xff")),
    ],
)
def test_a_member_that_is_no_plain_file_is_refused_by_name(kind: bytes, what: str) -> None:
    message = refused(header() + header(b"bad.npy", kind=kind) + bytes(1024))
    assert "member 'bad.npy'" in message
    assert what in message


@pytest.mark.parametrize("name", [b"/a.npy", b"../a.npy", b"x/../../a.npy", b"x/.."])
def test_a_path_that_leaves_the_archive_is_refused(name: bytes) -> None:
    long = header(b"././@LongLink", b"%011o\0" % len(name), b"L") + name + bytes(BLOCK - len(name))
    record = b"path=" + name + b"\n"
    record = b"%d %s" % (len(record) + 3, record)
    pax = header(b"x", b"%011o\0" % len(record), b"x") + record + bytes(BLOCK - len(record))
    for data in (header(name), long + header(), pax + header()):
        assert "relative paths" in refused(data + bytes(1024))
    assert "relative paths" in refused(header(b"a.npy", rest=b"/x") + bytes(1024))


@pytest.mark.parametrize(
    "size",
    [
        b"\x80" + b"\0" * 6 + b"\x01" + b"\0" * 4,
        b"\xff" * 12,
        b"-1",
        b"77777777777",
        b"1e5",
        b"0x10",
        b"1 1",
        b"8",
        b"1_0",
    ],
)
def test_a_size_that_is_not_allowed_is_refused_by_name(size: bytes) -> None:
    assert "member 'a.npy'" in refused(header(size=size) + bytes(4096))


@pytest.mark.parametrize("kind", [b"L", b"x", b"g"])
def test_a_long_extended_header_is_refused_before_it_is_read(kind: bytes) -> None:
    assert "65537 bytes is not allowed; at most 65536" in refused(
        header(b"a", b"%011o\0" % 65537, kind) + bytes(1 << 18)
    )


@pytest.mark.parametrize(
    "record",
    [
        b"9999999999999999999 path=x\n",
        b"12 size=1234\n",
        b"22 GNU.sparse.size=100\n",
        b"22 GNU.sparse.map=0,99\n",
        b"27 SCHILY.realsize=9999999\n",
        b"0 a=b\n",
        b"-1 a=b\n",
        b"5 a=b",
        b"6 a=b\n\n",
        b"junk",
    ],
)
@pytest.mark.parametrize("kind", [b"x", b"g"])
def test_an_extended_header_that_is_damaged_or_changes_a_member_is_refused(record: bytes, kind: bytes) -> None:
    data = header(b"pax", b"%011o\0" % len(record), kind) + record + bytes(BLOCK - len(record)) + header()
    assert "extended header" in refused(data + bytes(1024))


def test_a_global_header_that_names_every_member_is_refused_and_a_comment_is_not() -> None:
    for record, count in ((b"17 comment=hello\n", 1), (b"10 path=x\n", 0)):
        data = header(b"pax", b"%011o\0" % len(record), b"g") + record + bytes(BLOCK - len(record)) + header()
        if count:
            assert [member.name for member in read(data + bytes(1024))] == ["a.npy"]
        else:
            assert "states another 'path'" in refused(data + bytes(1024))


def test_a_name_that_no_member_follows_or_that_is_given_twice_is_refused() -> None:
    long = header(b"././@LongLink", b"%011o\0" % 5, b"L") + b"a.npy" + bytes(BLOCK - 5)
    assert "damaged" in refused(long + bytes(1024))
    assert "two long names" in refused(long + long + header() + bytes(1024))
    huge = header(b"l", b"%011o\0" % 2000, b"L") + b"a" * 2000 + bytes(48)
    assert "more than 1000 bytes" in refused(huge + header() + bytes(1024))


def test_bytes_behind_the_end_are_refused() -> None:
    assert "what follows" in refused(header() + bytes(1024) + header())
    assert "behind the end" in refused(header() + bytes(1 << 25))


def test_too_many_members_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("drnet.pipelines.shards.tar.MEMBERS_LIMIT", 3)
    assert len(read(header() * 2 + bytes(1024))) == 2
    assert "more than 3 members" in refused(header() * 3 + bytes(1024))
