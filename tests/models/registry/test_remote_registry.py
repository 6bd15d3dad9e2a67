"""Versions on a shelf far away: memory, and a real S3 server; what comes broken is never served."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import fsspec
import pytest
from moto.server import ThreadedMotoServer

from models.registry import MANIFEST_FILE, RemoteRegistry, Version, open_registry, parse_remote_url, user_cache_folder
from streams.errors import ModelError

LENET = "lenet.weights.h5"


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


@pytest.fixture
def version(models_root: Path) -> Version:
    return open_registry(models_root).open_version("tiny")


@pytest.fixture(scope="module")
def s3_endpoint() -> Iterator[str]:
    """A real server of the S3 protocol on loopback, its objects in memory."""
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    yield f"http://{host}:{port}"
    server.stop()


@pytest.mark.parametrize(
    ("written", "meant"),
    [
        ("s3://plant/versions", "s3://plant/versions"),
        ("s3:/plant/versions", "s3://plant/versions"),
        ("file:///srv/versions", "file:///srv/versions"),
        ("memory://v", "memory://v"),
        ("models/versions", None),
        ("/srv/models", None),
    ],
)
def test_a_shelf_is_told_from_a_folder(written: str, meant: str | None) -> None:
    assert parse_remote_url(written) == meant
    assert parse_remote_url(Path(written)) == meant


def test_a_version_on_s3_is_listed_fetched_verified_and_never_changed(
    version: Version, s3_endpoint: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "plant")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "secret of the test")
    monkeypatch.setenv("AWS_DEFAULT_REGION", "us-east-1")
    monkeypatch.setenv("AWS_ENDPOINT_URL", s3_endpoint)
    monkeypatch.setenv("AWS_MAX_ATTEMPTS", "1")  # the server that is not there is asked once
    files = fsspec.filesystem("s3", skip_instance_cache=True)
    files.makedirs("plant", exist_ok=True)
    root = Path("s3://plant/versions")  # as the settings give it
    assert RemoteRegistry("s3://plant/versions").push(version) == "s3://plant/versions/tiny"
    assert open_registry(root).list_names() == ["tiny"]
    loaded = open_registry(root).open_version("tiny")
    assert loaded.manifest == version.manifest
    assert loaded.file(LENET).read_bytes() == version.file(LENET).read_bytes()
    with pytest.raises(ModelError, match="never changed once written"):
        RemoteRegistry("s3://plant/versions").push(version)
    with pytest.raises(ModelError, match=r"There is no version .absent. in the model registry"):
        open_registry(root).open_version("absent")
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")  # nobody listens: what was fetched serves on
    fsspec.get_filesystem_class("s3").clear_instance_cache()
    assert open_registry(root).open_version("tiny").manifest == version.manifest


@pytest.fixture
def far(version: Version, tmp_path: Path) -> Path:
    """A shelf in another folder of this machine, with the version on it."""
    shutil.copytree(version.folder, tmp_path / "far" / "tiny")
    return tmp_path / "far"


def test_a_file_that_changed_on_the_shelf_is_not_served(far: Path) -> None:
    weights = bytearray((far / "tiny" / LENET).read_bytes())
    weights[len(weights) // 2] ^= 1
    (far / "tiny" / LENET).write_bytes(weights)
    root = Path(f"file://{far}")
    with pytest.raises(ModelError, match="damaged or was tampered with"):
        open_registry(root).open_version("tiny")
    assert not any(path.name == "tiny" for path in user_cache_folder().rglob("*"))


def test_a_fetch_that_broke_off_leaves_what_was_there(far: Path) -> None:
    root = Path(f"file://{far}")
    before = open_registry(root).open_version("tiny")
    manifest = far / "tiny" / MANIFEST_FILE
    manifest.write_text(manifest.read_text().replace('"command": "', '"command": "again '))
    (far / "tiny" / LENET).unlink()
    with pytest.raises(ModelError, match=LENET):
        open_registry(root).open_version("tiny")
    assert open_registry(before.folder.parent).open_version("tiny").manifest == before.manifest
    assert [path.name for path in before.folder.parent.iterdir()] == ["tiny"]


def test_a_copy_that_was_damaged_here_is_fetched_again(far: Path) -> None:
    root = Path(f"file://{far}")
    open_registry(root).open_version("tiny").file(LENET).write_bytes(b"damaged")
    assert open_registry(root).open_version("tiny").file(LENET).read_bytes() == (far / "tiny" / LENET).read_bytes()
