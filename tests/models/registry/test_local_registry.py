"""A local registry: versions are written completely, and a changed file is refused by name."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from models.registry import MANIFEST_FILE, LocalRegistry, Version, open_registry
from streams.errors import ModelError
from tests.tiny_version import make_version_of_random_bytes


@pytest.fixture(scope="module")
def version(tmp_path_factory: pytest.TempPathFactory) -> Version:
    return make_version_of_random_bytes(tmp_path_factory.mktemp("versions"))


@pytest.fixture
def copied_folder(version: Version, tmp_path: Path) -> Path:
    """A copy of an undamaged version, for tests that damage it."""
    return Path(shutil.copytree(version.folder, tmp_path / version.name))


def refuse(folder: Path) -> str:
    """Opens the damaged version in `folder` and returns the message of the error."""
    with pytest.raises(ModelError) as error:
        open_registry(folder.parent).open_version(folder.name)
    return str(error.value)


def test_a_written_version_is_found_and_loaded(version: Version) -> None:
    root = version.folder.parent
    assert open_registry(root).list_names() == ["tiny"]
    assert open_registry(root).open_version("tiny").manifest == version.manifest


@pytest.mark.parametrize("name", ["alexnet.weights.h5", "lenet.weights.h5", "golden.npz"])
def test_one_changed_bit_is_refused_and_the_file_named(copied_folder: Path, name: str) -> None:
    value = bytearray((copied_folder / name).read_bytes())
    value[len(value) // 2] ^= 1
    (copied_folder / name).write_bytes(value)
    assert str(copied_folder / name) in refuse(copied_folder)


def test_a_missing_file_is_named(copied_folder: Path) -> None:
    (copied_folder / "lenet.weights.h5").unlink()
    assert str(copied_folder / "lenet.weights.h5") in refuse(copied_folder)


def test_a_shortened_file_is_named(copied_folder: Path) -> None:
    path = copied_folder / "golden.npz"
    path.write_bytes(path.read_bytes()[:-1])
    assert str(path) in refuse(copied_folder)


@pytest.mark.parametrize("name", ["run.py", "weights.pkl", ".hidden", "notes.txt"])
def test_a_version_holds_nothing_that_is_not_named(copied_folder: Path, name: str) -> None:
    (copied_folder / name).write_text("x")
    assert str(copied_folder / name) in refuse(copied_folder)


def test_a_folder_within_a_version_is_refused(copied_folder: Path) -> None:
    (copied_folder / "code").mkdir()
    assert "code" in refuse(copied_folder)


def test_a_link_in_place_of_a_file_is_refused(copied_folder: Path, tmp_path: Path) -> None:
    shutil.move(copied_folder / "golden.npz", tmp_path / "elsewhere.npz")
    (copied_folder / "golden.npz").symlink_to(tmp_path / "elsewhere.npz")
    assert str(copied_folder / "golden.npz") in refuse(copied_folder)


@pytest.mark.parametrize(
    ("change", "field"),
    [
        ({"schema": "castline.model.v9"}, "schema"),
        ({"threshold": 1.5}, "threshold"),
        ({"band": {"low": 0.9, "high": 0.1}}, "band"),
        ({"classes": ["ok"]}, "classes"),
        ({"surprise": 1}, "surprise"),
        ({"version": "other"}, "version"),
        ({"voters": []}, "voters"),
    ],
)
def test_a_manifest_that_is_wrong_is_refused_with_the_field(copied_folder: Path, change: dict[str, object], field: str) -> None:
    path = copied_folder / MANIFEST_FILE
    path.write_text(json.dumps(json.loads(path.read_text()) | change))
    message = refuse(copied_folder)
    assert str(path) in message
    assert field in message


def test_a_manifest_cannot_name_a_file_outside(copied_folder: Path) -> None:
    path = copied_folder / MANIFEST_FILE
    path.write_text(path.read_text().replace("golden.npz", "../golden.npz"))
    assert "pattern" in refuse(copied_folder)


@pytest.mark.parametrize("text", ["", "{", "[]", "\0" * 100, "[" * 100_000], ids=["empty", "open", "list", "zeros", "deeply nested"])
def test_a_manifest_that_is_no_json_is_refused(copied_folder: Path, text: str) -> None:
    (copied_folder / MANIFEST_FILE).write_text(text)
    assert MANIFEST_FILE in refuse(copied_folder)


@pytest.mark.parametrize("name", ["", ".", "..", "../tiny", "absent"])
def test_a_name_that_is_no_version_is_refused(version: Version, name: str) -> None:
    with pytest.raises(ModelError):
        open_registry(version.folder.parent).open_version(name)


def test_a_failed_write_leaves_nothing(tmp_path: Path) -> None:
    def fail() -> None:
        with LocalRegistry(tmp_path).write_version("new") as folder:
            (folder / "half").write_text("x")
            raise OSError(28, "No space left on device")

    with pytest.raises(OSError, match="No space left"):
        fail()
    assert list(tmp_path.iterdir()) == []


def test_a_full_disk_leaves_the_version_that_was_there(copied_folder: Path) -> None:
    """The kernel refuses the write: the child process may write at most 20 kB to a file."""
    child = f"""
import resource, signal
from pathlib import Path
from models.registry import LocalRegistry
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, 20_000))
with LocalRegistry(Path({str(copied_folder.parent)!r})).write_version("tiny", replace=True) as folder:
    (folder / "alexnet.weights.h5").write_bytes(bytes(1_000_000))
"""
    ended = subprocess.run([sys.executable, "-c", child], capture_output=True, text=True, timeout=60, check=False)
    assert "File too large" in ended.stderr
    assert [path.name for path in copied_folder.parent.iterdir()] == ["tiny"]
    open_registry(copied_folder.parent).open_version("tiny")


def test_a_version_is_not_overwritten_unless_asked(version: Version) -> None:
    with (
        pytest.raises(ModelError, match="never changed once written"),
        LocalRegistry(version.folder.parent).write_version("tiny"),
    ):
        pass


def test_one_file_of_a_version_is_read_and_refused_if_it_has_changed(copied_folder: Path) -> None:
    registry = open_registry(copied_folder.parent)
    name, path = copied_folder.name, copied_folder / "golden.npz"
    content = path.read_bytes()
    assert registry.read_file(name, "golden.npz") == content
    with pytest.raises(ModelError, match="does not name the file"):
        registry.read_file(name, "../golden.npz")
    for changed in (content[:-1], content[:-1] + bytes([content[-1] ^ 1])):
        path.write_bytes(changed)
        with pytest.raises(ModelError, match=r"golden\.npz .* Copy the version again"):
            registry.read_file(name, "golden.npz")
    path.unlink()
    with pytest.raises(ModelError, match="cannot be read"):
        registry.read_file(name, "golden.npz")


def count_read_bytes() -> int:
    """Returns how many bytes this process has read from files so far."""
    return int(re.search(r"rchar: (\d+)", Path("/proc/self/io").read_text())[1])  # type: ignore[index]


def test_a_huge_file_is_refused_before_it_is_read(copied_folder: Path) -> None:
    huge = 6 * 2**30
    path = copied_folder / "golden.npz"
    os.truncate(path, huge)
    manifest = json.loads((copied_folder / MANIFEST_FILE).read_text())
    manifest["files"]["golden.npz"]["bytes"] = huge
    (copied_folder / MANIFEST_FILE).write_text(json.dumps(manifest))
    before = count_read_bytes()
    with pytest.raises(ModelError, match="2147483648"):
        open_registry(copied_folder.parent, reuse_checksums=True).check_version("tiny")
    assert count_read_bytes() - before < 2**20


@pytest.mark.parametrize("reuse_checksums", [True, False])
def test_a_file_that_is_larger_than_its_manifest_says_is_refused_before_it_is_read(copied_folder: Path, reuse_checksums: bool) -> None:
    os.truncate(copied_folder / "golden.npz", 2**29)
    before = count_read_bytes()
    with pytest.raises(ModelError, match="has 536870912 bytes instead of"):
        open_registry(copied_folder.parent, reuse_checksums).check_version("tiny")
    assert count_read_bytes() - before < 2**20


def test_many_looks_at_once_read_a_version_once(copied_folder: Path) -> None:
    registry = open_registry(copied_folder.parent, reuse_checksums=True)
    size = sum(path.stat().st_size for path in copied_folder.iterdir())
    before = count_read_bytes()
    with ThreadPoolExecutor(8) as threads:
        assert all(threads.map(registry.check_version, ["tiny"] * 8))
    manifests = 8 * (copied_folder / MANIFEST_FILE).stat().st_size
    assert count_read_bytes() - before < 1.5 * size + manifests


def test_a_replaced_file_with_the_same_size_and_time_is_read_again(copied_folder: Path) -> None:
    registry = open_registry(copied_folder.parent, reuse_checksums=True)
    assert registry.check_version("tiny")
    path = copied_folder / "golden.npz"
    stat, content = path.stat(), bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)
    os.utime(path, ns=(stat.st_atime_ns, stat.st_mtime_ns))
    with pytest.raises(ModelError, match="tampered"):
        registry.check_version("tiny")
