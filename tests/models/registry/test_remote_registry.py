"""A remote registry, on a real S3 server and in another folder: damaged or half-copied versions are never opened."""

from __future__ import annotations

import shutil
from pathlib import Path

import fsspec
import pytest

from models.registry import MANIFEST_FILE, RemoteRegistry, Version, open_registry, parse_remote_url
from streams.errors import ModelError
from streams.user_cache import user_cache_folder

LENET = "lenet.weights.h5"


@pytest.fixture
def version(models_root: Path) -> Version:
    return open_registry(models_root).open_version("tiny")


@pytest.fixture
def remote_folder(version: Version, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder of a remote registry with the version `tiny`, addressed as `file://`."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    shutil.copytree(version.folder, tmp_path / "remote" / "tiny")
    return tmp_path / "remote"


def flip_one_bit(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


@pytest.mark.parametrize(
    ("root", "url"),
    [
        ("s3://plant/versions", "s3://plant/versions"),
        ("s3:/plant/versions", "s3://plant/versions"),
        ("file:///srv/versions", "file:///srv/versions"),
        ("memory://v", "memory://v"),
        ("models/versions", None),
        ("/srv/models", None),
    ],
)
def test_an_address_is_told_from_a_folder(root: str, url: str | None) -> None:
    assert parse_remote_url(root) == url
    assert parse_remote_url(Path(root)) == url


def test_a_version_on_s3_is_listed_checked_opened_and_never_overwritten(
    version: Version, s3_versions: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = Path(s3_versions)  # the settings hold the address as a Path
    assert RemoteRegistry(s3_versions).push(version) == f"{s3_versions}/tiny"
    registry = open_registry(root)
    assert registry.list_names() == ["tiny"]
    assert registry.read_manifest("tiny") == version.manifest
    assert not user_cache_folder().exists(), "listing and reading a manifest copy no version"
    assert not registry.check_version("tiny"), "only sizes are compared"
    copy = registry.open_version("tiny")
    assert copy.manifest == version.manifest
    assert copy.file(LENET).read_bytes() == version.file(LENET).read_bytes()
    with pytest.raises(ModelError, match="never changed once written"):
        RemoteRegistry(s3_versions).push(version)
    with pytest.raises(ModelError, match=r"There is no version .absent."):
        registry.open_version("absent")
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")  # nothing listens there
    fsspec.get_filesystem_class("s3").clear_instance_cache()
    assert open_registry(root).open_version("tiny").manifest == version.manifest, "the earlier copy is used"
    with pytest.raises(ModelError, match="does not answer"):
        open_registry(root).list_names()


def test_files_beside_a_version_on_s3_are_read(s3_versions: str) -> None:
    registry = RemoteRegistry(s3_versions)
    assert registry.list_companions("tiny.report") == []
    assert registry.read_companion("tiny.report", "report.json", 100) is None
    fsspec.filesystem("s3").pipe_file(f"{s3_versions}/tiny.report/report.json", b"{}")
    assert registry.list_companions("tiny.report") == ["report.json"]
    assert registry.read_companion("tiny.report", "report.json", 100) == b"{}"
    assert registry.read_companion("tiny.report", "report.json", 1) is None, "too large"
    assert registry.read_companion("..", "report.json", 100) is None


@pytest.mark.parametrize("name", ["", ".", "..", "../tiny", "tiny/../tiny", "TINY"])
def test_a_name_that_leads_out_of_the_registry_is_refused(remote_folder: Path, name: str) -> None:
    for read in (RemoteRegistry(f"file://{remote_folder}").read_manifest, RemoteRegistry(f"file://{remote_folder}").open_version):
        with pytest.raises(ModelError, match="There is no version"):
            read(name)


def test_a_remote_file_with_one_changed_bit_is_not_used(remote_folder: Path) -> None:
    flip_one_bit(remote_folder / "tiny" / LENET)
    with pytest.raises(ModelError, match="damaged or was tampered with"):
        open_registry(f"file://{remote_folder}").open_version("tiny")
    assert not any(path.name == "tiny" for path in user_cache_folder().rglob("*"))


def test_one_remote_file_is_read_without_a_copy_of_its_version(remote_folder: Path) -> None:
    registry = open_registry(f"file://{remote_folder}")
    weights = remote_folder / "tiny" / LENET
    assert registry.read_file("tiny", LENET) == weights.read_bytes()
    assert not user_cache_folder().exists()
    flip_one_bit(weights)
    with pytest.raises(ModelError, match="damaged or was tampered with"):
        registry.read_file("tiny", LENET)
    weights.unlink()
    with pytest.raises(ModelError, match="Push the version again"):
        registry.read_file("tiny", LENET)


def test_a_remote_file_that_is_missing_shortened_or_unknown_is_found_without_a_copy(remote_folder: Path) -> None:
    registry = open_registry(f"file://{remote_folder}")
    (remote_folder / "tiny" / "run.py").write_text("")
    with pytest.raises(ModelError, match=r"run\.py is not named"):
        registry.check_version("tiny")
    (remote_folder / "tiny" / "run.py").unlink()
    weights = remote_folder / "tiny" / LENET
    weights.write_bytes(weights.read_bytes()[:-1])
    with pytest.raises(ModelError, match=rf"{LENET} has \d+ bytes instead of"):
        registry.check_version("tiny")
    weights.unlink()
    with pytest.raises(ModelError, match="there is no such file"):
        registry.check_version("tiny")


def test_an_interrupted_download_leaves_the_earlier_copy(remote_folder: Path) -> None:
    registry = open_registry(f"file://{remote_folder}")
    before = registry.open_version("tiny")
    manifest = remote_folder / "tiny" / MANIFEST_FILE
    manifest.write_text(manifest.read_text().replace('"command": "', '"command": "again '))
    (remote_folder / "tiny" / LENET).unlink()
    with pytest.raises(ModelError, match=LENET):
        registry.open_version("tiny")
    assert open_registry(before.folder.parent).open_version("tiny").manifest == before.manifest
    assert [path.name for path in before.folder.parent.iterdir()] == ["tiny"]


def test_a_damaged_copy_is_downloaded_again(remote_folder: Path) -> None:
    registry = open_registry(f"file://{remote_folder}")
    registry.open_version("tiny").file(LENET).write_bytes(b"damaged")
    assert registry.open_version("tiny").file(LENET).read_bytes() == (remote_folder / "tiny" / LENET).read_bytes()
