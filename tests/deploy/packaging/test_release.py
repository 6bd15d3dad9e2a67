"""A release as a person gets it: the content of wheel and source archive, and the firmware that an installed wheel writes to a board."""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import sys
import tarfile
import venv
import zipfile
from pathlib import Path

import pytest

from agents.gate.link import GateLink, LinkSettings
from firmware import toolchain
from firmware.hex_image import SHIPPED, check_image, checksum_file
from firmware.lane_settings import LaneSettings
from firmware.simulator.avr import RealTimeBoard
from tests.docs.pages import ROOT
from tests.firmware.flashing import flash
from tests.structure.tree import tracked
from tests.wired_line import EventRecorder

pytestmark = pytest.mark.real

PACKAGES = ("streams", "agents", "models", "firmware", "deploy", "dashboards", "bench", "station")
FIRMWARE = {"firmware/shipped/castline-mega2560.hex", "firmware/shipped/castline-mega2560.hex.sha256"}


def build(target: str, source: Path, folder: Path) -> Path:
    """Builds the archive `target` (wheel or sdist) of the project in `source`, and returns its file. The time in it is always the same."""
    command = [sys.executable, "-m", "hatchling", "build", "-t", target, "-d", str(folder)]
    environment = {**os.environ, "SOURCE_DATE_EPOCH": "1764201600"}
    done = subprocess.run(command, cwd=source, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    (built,) = folder.glob("*.whl" if target == "wheel" else "*.tar.gz")
    return built


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    toolchain.build_firmware()
    return build("wheel", ROOT, tmp_path_factory.mktemp("wheel"))


@pytest.fixture(scope="module")
def source_archive(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build("sdist", ROOT, tmp_path_factory.mktemp("sdist"))


@pytest.fixture(scope="module")
def project_files() -> set[str]:
    """The files that belong to the project. Files that tools have written are not among them."""
    return {path.as_posix() for path in tracked()}


def test_the_wheel_has_the_packages_and_the_firmware_and_nothing_else(wheel: Path, project_files: set[str]) -> None:
    with zipfile.ZipFile(wheel) as archive:
        names = set(archive.namelist())
    of_packages = {name for name in names if ".dist-info/" not in name}
    assert of_packages >= FIRMWARE
    assert {name.split("/")[0] for name in of_packages} == set(PACKAGES)
    assert of_packages - FIRMWARE - project_files == set()


def test_the_source_archive_has_the_sources_and_the_firmware_and_nothing_else(source_archive: Path, project_files: set[str]) -> None:
    with tarfile.open(source_archive) as archive:
        names = {name.partition("/")[2] for name in archive.getnames()}
    assert names == project_files | FIRMWARE | {"PKG-INFO"}


def test_the_shipped_firmware_is_the_one_of_the_sources_with_its_checksum(wheel: Path, tmp_path: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(tmp_path)
    image = tmp_path / SHIPPED.relative_to(ROOT)
    assert image.read_bytes() == toolchain.build_hex_image().read_bytes()
    assert checksum_file(image).read_text() == f"{hashlib.sha256(image.read_bytes()).hexdigest()}  {image.name}\n"
    assert check_image(image) > 20_000


def test_two_builds_are_equal_byte_by_byte(wheel: Path, source_archive: Path, tmp_path: Path) -> None:
    """The second wheel is built from the source archive in another folder, where the firmware is compiled again."""
    with tarfile.open(source_archive) as archive:
        archive.extractall(tmp_path / "sources", filter="data")
    (sources,) = (tmp_path / "sources").iterdir()
    shutil.rmtree(sources / SHIPPED.parent.relative_to(ROOT))
    assert build("wheel", sources, tmp_path / "again").read_bytes() == wheel.read_bytes()
    assert list((sources / "var").rglob("castline-mega2560.hex")), "the firmware was compiled in the other folder"
    assert build("sdist", ROOT, tmp_path / "again").read_bytes() == source_archive.read_bytes()


def test_a_wheel_from_the_source_archive_takes_the_firmware_of_the_archive(source_archive: Path, wheel: Path, tmp_path: Path) -> None:
    with tarfile.open(source_archive) as archive:
        archive.extractall(tmp_path / "sources", filter="data")
    (sources,) = (tmp_path / "sources").iterdir()
    assert build("wheel", sources, tmp_path / "again").read_bytes() == wheel.read_bytes()
    assert not (sources / "var").exists(), "the firmware was compiled"


def install(wheel: Path, folder: Path) -> Path:
    """Installs the wheel into a new environment, and returns its program `castline`. Other packages come from this environment."""
    venv.create(folder, symlinks=True)
    libraries = next(folder.glob("lib/python*/site-packages"))
    # A path file in another folder is not read, so that the project's own folder is no part of the new environment.
    (libraries / "libraries.pth").write_text("\n".join(path for path in sys.path if path.endswith("site-packages")))
    command = [
        Path(sys.executable).with_name("uv"),
        "pip",
        "install",
        "--quiet",
        "--offline",
        "--no-deps",
        "--python",
        folder / "bin/python",
    ]
    subprocess.run([*map(str, command), str(wheel)], check=True)
    return folder / "bin/castline"


def test_an_installed_wheel_writes_its_firmware_to_a_stock_mega_without_a_compiler(wheel: Path, tmp_path: Path) -> None:
    toolchain.ensure_installed(("avrdude",))
    castline, tools, port = install(wheel, tmp_path / "environment"), tmp_path / "tools", tmp_path / "ttyMEGA"
    tools.mkdir()
    (tools / "avrdude").symlink_to(str(shutil.which("avrdude")))
    older = toolchain.build_firmware("CASTLINE_CLOCK_START_US=1000000")
    with RealTimeBoard(older, port, tmp_path / "eeprom", has_boot_loader=True) as board:
        board.poll_for(0.1)
        call = [str(castline), "board", "flash", "--port", str(port)]
        output = flash(board, call, tmp_path, {"PATH": str(tools)})
        assert f"Writing {SHIPPED.name}, " in output
        assert "bytes of flash verified" in output
        assert is_answering(board, port), "the board does not start after it was flashed"


def is_answering(board: RealTimeBoard, port: Path) -> bool:
    """Returns whether a sorter reaches the board within 40 s."""
    link = GateLink(LinkSettings(str(port)))
    lane = link.add_lane("line-1", EventRecorder(), LaneSettings())
    link.start()
    try:
        for _ in range(400):
            board.poll_for(0.1)
            if lane.run:
                return True
        return False
    finally:
        link.stop()
