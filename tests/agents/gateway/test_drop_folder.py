"""The folder that a camera writes to: a link in it leads to no file outside the folder, neither to read nor to write nor to delete."""

from __future__ import annotations

from pathlib import Path

import pytest

from agents.gateway.drop_folder import REFUSED, SENT, DropFolder
from tests.agents.gateway.camera_line import write_pictures


@pytest.fixture
def outside(tmp_path: Path) -> Path:
    """A folder that no method may touch."""
    return write_pictures(tmp_path / "outside", "secret.jpg")


@pytest.fixture
def root(tmp_path: Path, outside: Path) -> Path:
    """A drop folder with a picture, a link to a file outside and a link to the folder outside."""
    root = write_pictures(tmp_path / "in", "a.jpg")
    (root / "link.jpg").symlink_to(outside / "secret.jpg")
    (root / "folder").symlink_to(outside)
    return root


def test_links_are_listed_as_links_and_not_as_files(root: Path) -> None:
    listing = DropFolder(root).scan()
    assert set(listing.files) == {"a.jpg"}
    assert sorted(listing.unread["link"]) == ["folder", "link.jpg"]


@pytest.mark.parametrize("path", ["link.jpg", "folder/secret.jpg"])
def test_a_link_in_the_drop_folder_is_never_followed(root: Path, path: str) -> None:
    """Somebody could replace a listed file, or its folder, by a link before the file is read."""
    folder = DropFolder(root)
    with pytest.raises(OSError, match=r"symbolic links|Not a directory"):
        folder.read(path, 1000)
    assert folder.find_state(path) is None
    assert folder.is_open_for_writing(path) is False


def test_nothing_is_moved_through_a_link(root: Path, outside: Path) -> None:
    folder = DropFolder(root)
    with pytest.raises(OSError, match="Not a directory"):
        folder.move("folder/secret.jpg", SENT)
    (root / SENT).symlink_to(outside)
    with pytest.raises(OSError, match="Not a directory"):
        folder.move("a.jpg", SENT)
    assert (root / "a.jpg").exists()
    assert [file.name for file in outside.iterdir()] == ["secret.jpg"]


def test_neither_a_file_nor_a_reason_is_written_over_the_target_of_a_link(root: Path, outside: Path) -> None:
    before = (outside / "secret.jpg").read_bytes()
    (root / REFUSED).mkdir()
    (root / REFUSED / "a.jpg").symlink_to(outside / "secret.jpg")
    moved = DropFolder(root).move("a.jpg", REFUSED)
    assert moved != f"{REFUSED}/a.jpg"
    write_pictures(root, "b.jpg")
    (root / REFUSED / "b.jpg.why").symlink_to(outside / "secret.jpg")
    DropFolder(root).move("b.jpg", REFUSED, "expected a picture")
    assert (root / REFUSED / "b.jpg").exists()
    assert (outside / "secret.jpg").read_bytes() == before


def test_old_files_are_not_deleted_through_a_link(root: Path, outside: Path) -> None:
    folder = DropFolder(root)
    (root / REFUSED).mkdir()
    (root / REFUSED / "link.jpg").symlink_to(outside / "secret.jpg")
    assert folder.delete_old(REFUSED, max_age_s=0, max_bytes=0) == 0
    (root / SENT).symlink_to(outside)
    with pytest.raises(OSError, match="Not a directory"):
        folder.delete_old(SENT, max_age_s=0, max_bytes=0)
    assert (outside / "secret.jpg").exists()
