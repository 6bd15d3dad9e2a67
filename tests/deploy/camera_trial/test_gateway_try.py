"""`castline gateway try`: what becomes of a camera's pictures, without Kafka, and without a change in its folder."""

from __future__ import annotations

import asyncio
import json
import os
import re
import signal
import subprocess
import time
from pathlib import Path

import pytest
from aiohttp import ClientSession, encode_basic_auth

from models.synthetic import render_series
from tests.processes import CASTLINE, enable_ctrl_c

pytestmark = pytest.mark.real

JPEGS = [casting.to_jpeg() for casting in render_series(4, seed=8)]


def write_settings(tmp_path: Path, camera: str, extra: str = "") -> Path:
    file = tmp_path / "castline.toml"
    file.write_text(f'[[lines]]\nname = "line-1"\ntoken = "let-me-in"\n[lines.camera]\n{camera}\n{extra}')
    return file


def start_trial(settings: Path, *arguments: str) -> subprocess.Popen[str]:
    environment = {name: value for name, value in os.environ.items() if not name.startswith("CASTLINE_")}
    command = [str(CASTLINE), "--settings", str(settings), "gateway", "try", "line-1", *arguments]
    return subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, preexec_fn=enable_ctrl_c)


def run_trial(settings: Path, *arguments: str) -> tuple[int, str, str]:
    process = start_trial(settings, *arguments)
    output, errors = process.communicate(timeout=60)
    return process.returncode, output, errors


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    folder = tmp_path / "in"
    folder.mkdir()
    for number, value in enumerate(JPEGS, 1):
        (folder / f"image{number}.jpg").write_bytes(value)
    return folder


def test_a_trial_of_a_drop_folder_shows_its_pictures_and_leaves_the_folder_as_it_is(tmp_path: Path, folder: Path) -> None:
    settings = write_settings(tmp_path, f'kind = "drop"\npath = "{folder}"\nsettle_s = 0.1')
    before = {file: file.stat().st_mtime_ns for file in folder.iterdir()}
    code, output, errors = run_trial(settings, "--pictures", "4", "--json", "--report", str(tmp_path / "report.html"))
    assert (code, json.loads(output)["refused"]) == (0, 0), errors
    assert [picture["name"] for picture in json.loads(output)["pictures"]] == [f"image{number}.jpg" for number in range(1, 5)]
    first = json.loads(output)["pictures"][0]
    assert (first["width_px"], first["height_px"], first["mode"], first["depth_bits"]) == (300, 300, "L", 8)
    assert first["darkest"] < first["mean"] < first["brightest"]
    assert first["offset_s"] is None, "nobody knows when a file arrived that lay there before"
    assert {file: file.stat().st_mtime_ns for file in folder.iterdir()} == before
    page = (tmp_path / "report.html").read_text()
    assert page.count('src="data:image/jpeg;base64,') == 4
    assert not re.search(r"(src|href)=.(?!data:)", page), "the page needs no other file"


def test_pictures_that_would_be_refused_are_named_with_their_reason(tmp_path: Path, folder: Path) -> None:
    (folder / "half.jpg").write_bytes(JPEGS[0][:4000])
    (folder / "large.jpg").write_bytes(JPEGS[0].ljust(80_000))
    (folder / "<b>.jpg").write_bytes(b"no picture")
    camera = f'kind = "drop"\npath = "{folder}"\nsettle_s = 0.1\nend_wait_s = 0.2'
    settings = write_settings(tmp_path, camera, "[pictures]\nmax_bytes = 65536\n")
    code, output, errors = run_trial(settings, "--pictures", "7", "--report", str(tmp_path / "report.html"))
    assert code == 1
    assert "line-1: 7 pictures, 3 would be refused." in output
    for sentence in ("too-large: expected at most 65536 bytes, received 80000", "half.jpg", "not-an-image: "):
        assert sentence in errors
    page = (tmp_path / "report.html").read_text()
    assert page.count('class="card refused"') == 3
    assert "&lt;b&gt;.jpg" in page
    assert "<b>.jpg" not in page


@pytest.mark.parametrize(
    ("camera", "sentence"),
    [
        ('kind = "drop"\npath = "/dev/null/share"', "cannot be read: Not a directory. Mount the share, or correct the path"),
        ('kind = "folder"\npath = "/var/empty"', "is missing or holds no pictures"),
        ('kind = "video"\naddress = "/dev/video99"\nstall_s = 0.5', "it cannot be opened; check its power"),
    ],
)
def test_a_camera_that_cannot_be_opened_is_exit_code_3(tmp_path: Path, camera: str, sentence: str) -> None:
    code, output, errors = run_trial(write_settings(tmp_path, camera))
    assert (code, output) == (3, "")
    assert sentence in errors
    assert "Traceback" not in errors


def test_a_mute_camera_is_exit_code_3_and_says_what_to_do(tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    code, _, errors = run_trial(write_settings(tmp_path, f'kind = "drop"\npath = "{tmp_path / "in"}"'), "--wait", "1")
    assert code == 3
    assert "No picture of line-1 came within 1 s. Let the camera take pictures, and stop the gateway of this line" in errors


def test_ctrl_c_ends_a_trial_with_what_was_taken(tmp_path: Path, folder: Path) -> None:
    settings = write_settings(tmp_path, f'kind = "drop"\npath = "{folder}"\nsettle_s = 0.1')
    process = start_trial(settings, "--report", str(tmp_path / "report.html"))
    assert process.stderr is not None
    seen = ""
    while "  4  " not in seen:
        seen += process.stderr.readline()
    process.send_signal(signal.SIGINT)
    output, errors = process.communicate(timeout=20)
    assert process.returncode == 130
    assert "line-1: 4 pictures, 0 would be refused." in output
    assert "Traceback" not in errors
    assert (tmp_path / "report.html").exists()


def test_a_trial_of_uploads_answers_the_camera_like_the_gateway(tmp_path: Path) -> None:
    settings = write_settings(tmp_path, 'kind = "http"', "[gateway]\nport = 0\n")
    process = start_trial(settings, "--pictures", "1")
    assert process.stderr is not None
    line = ""
    started_s = time.monotonic()
    while "Send pictures to" not in line and time.monotonic() - started_s < 30:
        line = process.stderr.readline()
    match = re.search(r"(http://\S+)", line)
    assert match

    async def upload() -> int:
        headers = {"Authorization": encode_basic_auth("camera", "let-me-in"), "Content-Type": "image/jpeg"}
        async with ClientSession() as session, session.put(match[1], data=JPEGS[0], headers=headers) as response:
            return response.status

    assert asyncio.run(upload()) == 201
    output, errors = process.communicate(timeout=30)
    assert (process.returncode, "line-1: 1 picture, 0 would be refused." in output) == (0, True), errors


def test_the_gateway_still_runs_without_a_subcommand(tmp_path: Path) -> None:
    settings = write_settings(tmp_path, 'kind = "http"')
    command: list[str | Path] = [CASTLINE, "--settings", settings, "gateway", "--line", "line-7"]
    process = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert process.returncode == 3
    assert "The settings have no line 'line-7'" in process.stderr
