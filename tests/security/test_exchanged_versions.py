"""Somebody who may write to the folder of model versions exchanges a file after the version was opened and verified."""

from __future__ import annotations

import errno
import os
import shutil
import stat
import tempfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from models.anomaly.version_scorers import open_details, open_scorers
from models.inference.golden_set import load_golden_pixels, load_golden_set
from models.networks.factory import load_networks
from models.networks.segmentation import load_segmentation_network
from models.registry import BUNDLED_VERSIONS, Version, local_registry, open_registry
from models.registry.manifest import DetailEntry, ScorerEntry
from models.training.segmentation_run import add_segmentation
from streams.errors import ModelError

pytestmark = pytest.mark.real

ALEXNET, LENET, GOLDEN, HEAD = "alexnet.weights.h5", "lenet.weights.h5", "golden.npz", "segmentation.weights.h5"
CUT_OFF: dict[str, Any] = {"cut_off": 1.0, "alarm_share": 0.01, "highest_alarm_share": 0.02, "good_pictures": 1}


def load_head(version: Version) -> object:
    assert version.manifest.segmentation is not None
    return load_segmentation_network(version, version.manifest.segmentation)


def copy_with_another_head(version: Version) -> object:
    assert version.manifest.segmentation is not None
    return add_segmentation(version, version.folder.parent, "other", load_head(version), version.manifest.segmentation)


def open_scorer(version: Version) -> object:
    entry = ScorerEntry(name="golden-template", files=(GOLDEN,), side_px=64, **CUT_OFF)
    return open_scorers(replace(version, manifest=version.manifest.model_copy(update={"scorers": (entry,)})))


def open_detail_template(version: Version) -> object:
    entry = DetailEntry(file=GOLDEN, radius_px=100, rings=24, strip_rings=8, overlap_rings=2, **CUT_OFF)
    return open_details(replace(version, manifest=version.manifest.model_copy(update={"details": entry})), 1.0)


@pytest.fixture
def version(tmp_path: Path) -> Version:
    shutil.copytree(BUNDLED_VERSIONS / "demo", tmp_path / "demo", ignore=shutil.ignore_patterns("*.json.*"))
    return open_registry(tmp_path).open_version("demo")


@pytest.mark.parametrize(
    ("file", "read"),
    [
        (ALEXNET, load_networks),
        (LENET, load_networks),
        (GOLDEN, load_golden_set),
        (GOLDEN, load_golden_pixels),
        (GOLDEN, open_scorer),
        (GOLDEN, open_detail_template),
        (HEAD, load_head),
        (LENET, copy_with_another_head),
    ],
)
def test_a_file_that_was_exchanged_after_the_verification_is_refused(
    version: Version, file: str, read: Callable[[Version], object]
) -> None:
    path = version.file(file)
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)
    with pytest.raises(ModelError, match=f"{file} is damaged or was tampered with"):
        read(version)


def test_only_this_user_can_write_to_the_copies_and_they_are_deleted(version: Version) -> None:
    with version.copy_files(LENET, GOLDEN) as folder:
        assert sorted(path.name for path in folder.iterdir()) == [GOLDEN, LENET]
        assert stat.S_IMODE(folder.stat().st_mode) == 0o700
        version.file(LENET).write_bytes(b"exchanged")
        assert (folder / LENET).stat().st_size == version.manifest.files[LENET].bytes
    assert not folder.exists()
    with pytest.raises(ModelError, match="does not name the file"), version.copy_files("../demo/manifest.json"):
        pass


@pytest.fixture
def no_temporary_folder(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse() -> str:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(tempfile, "gettempdir", refuse)
    monkeypatch.setattr(tempfile, "_get_default_tempdir", refuse)
    monkeypatch.setattr(tempfile, "tempdir", None)


@pytest.mark.usefixtures("no_temporary_folder")
def test_a_version_is_read_if_the_folder_of_temporary_files_is_full(version: Version) -> None:
    assert len(load_golden_set(version).pixels)
    assert load_networks(version)


@pytest.mark.usefixtures("no_temporary_folder")
def test_a_version_without_room_for_copies_is_not_called_damaged(version: Version, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(local_registry, "_MEMORY_FOLDER", tmp_path / "missing")
    with pytest.raises(ModelError, match=f"{GOLDEN} cannot be copied to a folder of temporary files: No space left") as raised:
        load_golden_set(version)
    assert "Copy the version again" not in str(raised.value)
