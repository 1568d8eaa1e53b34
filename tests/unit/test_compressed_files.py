import gzip

import pytest
import zstandard

from tests.unit.import_files import PACKERS, outcome, read, read_until_failure, rows


@pytest.mark.parametrize("compression", ["gzip", "zstd"])
def test_several_members_or_frames_are_one_file(compression: str) -> None:
    pack = PACKERS[compression]
    assert rows(pack(b"a,b\n1,") + pack(b"") + pack(b"2\n3,4\n")) == [["1", "2"], ["3", "4"]]


def test_padding_and_skippable_frames_are_passed_over() -> None:
    assert rows(gzip.compress(b"a\n1\n") + b"\0" * 100 + gzip.compress(b"2\n") + b"\0" * 100_000) == [["1"], ["2"]]
    skippable = b"\x53\x2a\x4d\x18" + (70_000).to_bytes(4, "little") + b"x" * 70_000
    assert rows(skippable + zstandard.compress(b"a\n1\n") + skippable) == [["1"]]


@pytest.mark.parametrize("checksum", [True, False])
@pytest.mark.parametrize("size", [True, False])
def test_every_shape_of_zstd_frame_is_read(checksum: bool, size: bool) -> None:
    writer = zstandard.ZstdCompressor(write_checksum=checksum, write_content_size=size, level=1)
    for count in (1, 10, 100, 1000, 100_000):
        assert len(rows(writer.compress(b"a\n" + b"1\n" * count))) == count


@pytest.fixture(scope="module")
def table() -> bytes:
    return b"key,title\n" + b"".join(b"%d,title %d\n" % (n, n * 7919 % 100_003) for n in range(60_000))


@pytest.mark.parametrize("compression", ["gzip", "zstd"])
def test_of_a_cut_file_all_whole_records_are_read_then_it_is_refused(compression: str, table: bytes) -> None:
    packed = PACKERS[compression](table)
    whole = read(packed)
    for cut in (len(packed) - 1, len(packed) // 2, len(packed) // 2 + 1):
        records, error = read_until_failure(packed[:cut])
        assert error.code == "truncated"
        assert f"after line {len(records) + 1}:" in error.message
        assert "fetch it again" in error.message
        assert records == whole[: len(records)]
        assert len(records) >= len(whole) * (cut / len(packed)) * 0.5


@pytest.mark.parametrize("compression", ["gzip", "zstd"])
def test_of_a_corrupt_file_what_stands_before_the_damage_is_read(compression: str, table: bytes) -> None:
    packed = bytearray(PACKERS[compression](table))
    middle = len(packed) // 2
    packed[middle : middle + 2000] = bytes(2000)
    records, error = read_until_failure(bytes(packed))
    assert error.code == "truncated"
    assert len(records) > 15_000
    good = read(table)
    assert records[:15_000] == good[:15_000]


@pytest.mark.parametrize("compression", ["gzip", "zstd"])
def test_a_wrong_checksum_or_trailing_garbage_is_told_after_all_records(compression: str, table: bytes) -> None:
    writer = zstandard.ZstdCompressor(write_checksum=True)
    packed = writer.compress(table) if compression == "zstd" else gzip.compress(table)
    at = len(packed) - (1 if compression == "zstd" else 5)
    flipped = packed[:at] + bytes([packed[at] ^ 1]) + packed[at + 1 :]
    for damaged in (flipped, packed + b"garbage", packed + packed[:4]):
        records, error = read_until_failure(damaged)
        assert error.code == "truncated"
        assert len(records) == 60_000


def test_a_record_that_the_damage_cuts_is_not_given_up_as_malformed() -> None:
    """Its lines may be good in the whole file, and a rejected row would never be read again."""
    whole = gzip.compress(b'a,b\n1,2\n3,"four\nfive\n', compresslevel=0)
    records, _ = read_until_failure(whole[:-8])
    assert [outcome(record) for record in records] == [{"a": "1", "b": "2"}]
