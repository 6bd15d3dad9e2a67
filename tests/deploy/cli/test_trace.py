"""The command `castline trace`: which records belong to a part."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from deploy.cli.trace import _belongs_to
from streams.identity import PartId

PART = PartId("line-1", 17, 345)
HEADERS = [("line", b"line-1"), ("run", b"17"), ("part", b"345")]


@pytest.mark.parametrize("wrong", [("captured_at", b"yesterday"), ("sha256", b"0"), ("content-type", b"\xff")])
def test_a_picture_without_key_belongs_to_its_part_although_a_header_is_wrong(wrong: tuple[str, bytes]) -> None:
    """The inspector also gives this part a verdict."""
    record = SimpleNamespace(key=None, headers=[*HEADERS, wrong])
    assert _belongs_to(record, PART)
    assert not _belongs_to(record, PartId("line-1", 17, 346))


def test_a_record_that_names_no_part_belongs_to_none() -> None:
    assert not _belongs_to(SimpleNamespace(key=None, headers=HEADERS[:2]), PART)
    assert not _belongs_to(SimpleNamespace(key=b"line-1:17:346", headers=HEADERS), PART)
