"""Atomic writes: the new file is complete, or the old file stays."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from streams.atomic_file import write_atomically


def test_text_and_bytes_are_written_and_a_missing_folder_is_created(tmp_path: Path) -> None:
    write_atomically(tmp_path / "a" / "text", "Gießerei")
    write_atomically(tmp_path / "a" / "bytes", b"\x00\xff")
    assert (tmp_path / "a" / "text").read_text(encoding="utf-8") == "Gießerei"
    assert (tmp_path / "a" / "bytes").read_bytes() == b"\x00\xff"
    assert sorted(file.name for file in (tmp_path / "a").iterdir()) == ["bytes", "text"]


def test_a_failed_write_leaves_the_old_file_and_no_temporary_file(tmp_path: Path) -> None:
    file = tmp_path / "file"
    write_atomically(file, "old")
    with pytest.raises(UnicodeEncodeError):
        write_atomically(file, "half\ud800")
    assert file.read_text() == "old"
    assert [found.name for found in tmp_path.iterdir()] == ["file"]


def test_the_umask_is_subtracted_from_the_mode(tmp_path: Path) -> None:
    before = os.umask(0o027)
    try:
        write_atomically(tmp_path / "open", "", mode=0o644)
        write_atomically(tmp_path / "secret", "", mode=0o600)
    finally:
        os.umask(before)
    assert (tmp_path / "open").stat().st_mode & 0o777 == 0o640
    assert (tmp_path / "secret").stat().st_mode & 0o777 == 0o600
