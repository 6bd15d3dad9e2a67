"""The object store: pictures are stored under their checksum and checked when they are read."""

from __future__ import annotations

import hashlib
import socket
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import fsspec
import pytest

from streams.errors import PictureError
from streams.object_store import ObjectStore

VALUE = b"\xff\xd8\xff a large picture"


def test_a_stored_picture_is_read_by_its_claim(tmp_path: Path) -> None:
    store = ObjectStore(str(tmp_path))
    claim = store.put(VALUE)
    assert claim == f"pictures/{hashlib.sha256(VALUE).hexdigest()[:2]}/{hashlib.sha256(VALUE).hexdigest()}"
    assert store.put(VALUE) == claim
    assert ObjectStore(str(tmp_path)).fetch(claim) == VALUE
    assert [file.name for file in tmp_path.rglob("*") if file.is_file()] == [hashlib.sha256(VALUE).hexdigest()]


@pytest.mark.parametrize(
    "claim",
    [
        "../secret",
        "/etc/passwd",
        "file:///etc/passwd",
        "pictures/aa/../../../secret",
        "pictures/aa/" + "b" * 64,
        "pictures/aa/" + "a" * 63,
        "pictures/AA/" + "A" * 64,
        "pictures/aa/" + "a" * 64 + "\n",
        "s3://elsewhere/pictures/aa/" + "a" * 64,
        "",
    ],
)
def test_a_claim_that_could_lead_outside_is_refused(tmp_path: Path, claim: str) -> None:
    (tmp_path / "secret").write_bytes(b"not yours")
    with pytest.raises(PictureError) as error:
        ObjectStore(str(tmp_path / "store")).fetch(claim)
    assert error.value.reason == "claim-damaged"


def test_missing_and_damaged_pictures_have_different_reasons(tmp_path: Path) -> None:
    store = ObjectStore(str(tmp_path))
    claim = store.put(VALUE)
    (tmp_path / claim).write_bytes(VALUE[:-1] + b"!")
    with pytest.raises(PictureError) as damaged:
        store.fetch(claim)
    (tmp_path / claim).unlink()
    with pytest.raises(PictureError) as missing:
        store.fetch(claim)
    assert (damaged.value.reason, missing.value.reason) == ("claim-damaged", "claim-missing")


def test_an_object_above_the_limit_is_not_read(tmp_path: Path) -> None:
    claim = ObjectStore(str(tmp_path)).put(bytes(5000))
    with pytest.raises(PictureError, match="expected at most 4999 bytes"):
        ObjectStore(str(tmp_path), max_bytes=4999).fetch(claim)


def test_a_remote_store_is_opened_by_its_address(tmp_path: Path) -> None:
    store = ObjectStore("memory://castline-test")
    assert store.fetch(store.put(VALUE)) == VALUE


def test_a_store_that_cannot_be_written_raises_an_os_error(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(OSError, match="file"):
        ObjectStore(str(tmp_path / "file")).put(VALUE)


@pytest.fixture(params=["refuses connections", "never answers", "has no account for us"])
def broken_s3(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """The address of a store on an S3 server that is of no use."""
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        address = f"http://127.0.0.1:{server.getsockname()[1]}"
        if request.param == "never answers":
            server.listen(16)
        else:
            server.close()
        if request.param == "has no account for us":
            address = request.getfixturevalue("s3_endpoint")
        else:
            monkeypatch.setenv("AWS_ACCESS_KEY_ID", "plant")
            monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "secret of the test")
        monkeypatch.setenv("AWS_ENDPOINT_URL", address)
        monkeypatch.setenv("AWS_DEFAULT_REGION", "us-east-1")
        monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
        monkeypatch.setenv("HOME", "/nonexistent")
        fsspec.get_filesystem_class("s3").clear_instance_cache()
        yield "s3://plant/store"
        fsspec.get_filesystem_class("s3").clear_instance_cache()


@pytest.mark.real
def test_a_broken_s3_store_is_an_os_error_within_seconds_and_never_a_missing_picture(broken_s3: str) -> None:
    store = ObjectStore(broken_s3)
    claim = f"pictures/{'a' * 2}/{'a' * 64}"
    for use in (lambda: store.put(VALUE), lambda: store.fetch(claim)):
        began_s = time.monotonic()
        with pytest.raises(OSError):  # noqa: PT011  the message is that of the client library
            use()
        assert time.monotonic() - began_s < 20


@pytest.mark.real
def test_pictures_are_stored_on_s3_and_read_again(s3_versions: str) -> None:
    store = ObjectStore(s3_versions)
    claim = store.put(VALUE)
    assert store.put(VALUE) == claim
    assert store.fetch(claim) == VALUE
    assert store.list_older_than("pictures", datetime.now(UTC) + timedelta(days=1)) == [claim]
    store.delete(claim)
    with pytest.raises(PictureError, match="found none"):
        store.fetch(claim)
