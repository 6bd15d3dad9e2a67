"""The identity of a picture: part ids, headers, times and content types."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta, timezone

import pytest
from hypothesis import given
from hypothesis import strategies as st

from streams.errors import IdentityError
from streams.identity import (
    UNKNOWN_CONTENT_TYPE,
    PartId,
    PictureIdentity,
    RecentPartIds,
    format_time,
    make_header_map,
    make_headers,
    parse_time,
    read_identity,
    sniff_content_type,
)

parts = st.builds(
    PartId,
    line=st.from_regex(r"[a-z0-9][a-z0-9-]{0,39}", fullmatch=True),
    run=st.integers(1, 2**63 - 1),
    part=st.integers(1, 2**63 - 1),
)


@given(parts)
def test_a_part_id_is_read_back_as_it_was_written(part: PartId) -> None:
    assert PartId.parse(str(part)) == part


@given(st.text(max_size=60))
def test_any_other_text_raises_an_identity_error(text: str) -> None:
    try:
        assert str(PartId.parse(text)) == text or text.split(":")[1].startswith("0") or text.split(":")[2].startswith("0")
    except IdentityError:
        return


@given(parts, st.datetimes(datetime(2020, 1, 1), datetime(2100, 1, 1), timezones=st.just(UTC)))
def test_headers_carry_the_complete_identity(part: PartId, captured_at: datetime) -> None:
    identity = PictureIdentity(part, captured_at, "image/jpeg", "a" * 64, "pictures/aa/" + "a" * 64, "00-1-2-01")
    headers = make_header_map(make_headers(identity, {"truth": "ok"}))
    assert read_identity(part.key, headers, part.line) == identity
    assert headers["truth"] == b"ok"


def test_the_key_alone_is_enough() -> None:
    assert read_identity(b"line-1:17:345", {}, "line-1").part == PartId("line-1", 17, 345)


def test_the_three_headers_alone_are_enough() -> None:
    assert read_identity(None, {"line": b"line-1", "run": b"17", "part": b"345"}, "line-1").part == PartId("line-1", 17, 345)


@pytest.mark.parametrize(
    ("key", "headers", "message"),
    [
        (None, {}, "found neither"),
        (b"line-1:17", {}, "expected a part id"),
        (b"line-1:17:0", {}, "expected part to be a whole number of at least 1"),
        (b"line-1:1_7:3", {}, "expected run to be a whole number"),
        (b"line-2:17:345", {}, "expected a part of line-1, as the topic says"),
        (b"line-1:17:345", {"line": b"line-1", "run": b"17", "part": b"346"}, "as in the headers"),
        (None, {"line": b"line-1", "part": b"3"}, "found only line, part"),
        (b"line-1:17:345", {"captured_at": b"2026-01-31 noon"}, "expected a time"),
        (b"line-1:17:345", {"sha256": b"ABC"}, "expected sha256 as 64 hexadecimal digits"),
        (b"\xff", {}, "as UTF-8 text"),
    ],
)
def test_a_record_that_names_no_part_is_refused_with_a_message(key: bytes | None, headers: dict[str, bytes], message: str) -> None:
    with pytest.raises(IdentityError, match=message):
        read_identity(key, headers, "line-1")


def test_times_of_any_zone_are_written_in_utc_with_microseconds() -> None:
    noon = datetime(2026, 1, 31, 13, tzinfo=timezone(timedelta(hours=1)))
    assert format_time(noon) == "2026-01-31T12:00:00.000000Z"
    assert parse_time("2026-01-31T13:00:00+01:00") == noon


@pytest.mark.parametrize(
    ("value", "content_type"),
    [
        (b"\xff\xd8\xff\xdb", "image/jpeg"),
        (b"BM....", "image/bmp"),
        (b"II*\x00", "image/tiff"),
        (b"MM\x00*", "image/tiff"),
        (b"GIF89a", "image/gif"),
        (b"RIFF\x00\x00\x00\x00WEBPVP8 ", "image/webp"),
        (b"RIFF\x00\x00\x00\x00WAVEfmt ", UNKNOWN_CONTENT_TYPE),
        (b"", UNKNOWN_CONTENT_TYPE),
        (b"<svg", UNKNOWN_CONTENT_TYPE),
    ],
)
def test_the_first_bytes_show_the_content_type(value: bytes, content_type: str) -> None:
    assert sniff_content_type(value) == content_type


def test_a_part_id_is_new_once_until_newer_ones_have_replaced_it() -> None:
    recent = RecentPartIds(2)
    first, second, third = (PartId("line-1", 7, part) for part in (1, 2, 3))
    assert [recent.add(part) for part in (first, second, first, third, second, first)] == [True, True, False, True, False, True]
    assert len(recent) == 2
