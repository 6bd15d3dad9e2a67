"""A second user of the machine can neither read nor change the files of the plant."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import psutil
import pytest
import tomli_w

from deploy.cli.security import check_files
from deploy.supervisor.launch import bound_command
from deploy.supervisor.ports import free_ports
from models.registry import BUNDLED_VERSIONS
from streams.errors import SettingsError
from streams.private_files import find_exposed_paths, find_replaceable_paths, refuse_exposed_files
from streams.settings import OidcSettings, Settings, load_settings
from streams.signatures import create_keys
from tests.processes import CASTLINE
from tests.wired_line import wait_until

SECRET = "a-token-that-only-the-environment-holds"


def write_settings(folder: Path) -> Path:
    """Writes settings with the folders of `castline up` into `folder`, and returns the file."""
    drop = folder / "camera"
    drop.mkdir()
    port = free_ports(2)
    sections = {
        "broker": {"port": port, "data_dir": str(folder / "var/kafka")},
        "service": {"run_dir": str(folder / "var/run")},
        "store": {"url": str(folder / "var/store")},
        "gateway": {"spool_dir": str(folder / "var/spool"), "port": free_ports(1)},
        "sorter": {"journal_dir": str(folder / "var/journal")},
        "review": {"data_sets": str(folder / "var/data-sets")},
        # With LiteRT, neither the inspector nor the localiser imports TensorFlow.
        "model": {"root": str(BUNDLED_VERSIONS), "runtime": "litert"},
        "station": {
            "database": str(folder / "var/station.sqlite3"),
            "secret_key_file": str(folder / "var/station.key"),
            "port": free_ports(1),
        },
        "lines": [{"name": "line-1", "camera": {"kind": "drop", "path": str(drop)}, "gate": {"port": str(folder / "board")}}],
    }
    file = folder / "castline.toml"
    file.write_text(tomli_w.dumps(sections))
    return file


def run_castline(file: Path, *arguments: str, **variables: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [CASTLINE, "--settings", file, *arguments],
        env={**os.environ, **variables},
        cwd=file.parent,
        capture_output=True,
        text=True,
        check=False,
        timeout=240,
    )


@contextmanager
def running_plant(file: Path, folder: Path, **variables: str) -> Iterator[psutil.Process]:
    """Runs `castline up` with a simulated board until the block ends. Yields the process of `castline up`.

    `variables` are added to the environment of both processes.
    """
    log = folder / "up.log"
    environment = {**os.environ, "CASTLINE_GATEWAY__TOKEN": SECRET, **variables}
    with log.open("w") as output, ExitStack() as stack:

        def start(*arguments: str) -> subprocess.Popen[bytes]:
            command = bound_command([CASTLINE, "--settings", file, *arguments])
            process = subprocess.Popen(command, stdout=output, stderr=output, cwd=folder, env=environment)
            stack.callback(process.wait, 120)
            stack.callback(process.terminate)
            return process

        start("board", "simulate", "--line", "line-1", "--rate", "0.5")
        wait_until(lambda: (folder / "board").is_symlink(), 60)
        plant = start("up")
        wait_until(lambda: "all processes are ready" in log.read_text() or plant.poll() is not None, 240)
        assert plant.poll() is None, log.read_text()
        yield psutil.Process(plant.pid)


@pytest.mark.real
def test_a_role_refuses_exposed_files_and_names_the_command_that_closes_them(open_folder: Path) -> None:
    file = write_settings(open_folder)
    made = run_castline(file, "station", "account", "anna", "--role", "administrator", STATION_PASSWORD="a long enough pass phrase")
    assert made.returncode == 0, made.stderr
    database = open_folder / "var/station.sqlite3"
    assert database.stat().st_mode & 0o077 == 0
    database.chmod(0o644)
    database.parent.chmod(0o755)
    refused = run_castline(file, "archivist")
    assert refused.returncode == 3
    command = refused.stderr.strip().rpartition("Correct this with: ")[2]
    assert command == f"chmod -R go-rwx {database}"
    subprocess.run(command.split(), check=True)
    refuse_exposed_files(load_settings(file))


def test_each_private_folder_and_file_is_checked(open_folder: Path) -> None:
    settings = load_settings(write_settings(open_folder))
    var = open_folder / "var"
    for name in ("kafka", "spool", "journal", "store", "data-sets"):
        (var / name).mkdir(parents=True)
    for name in ("station.key", "station.sqlite3", "station.sqlite3-wal"):
        (var / name).touch()
    found = {path.name for path in find_exposed_paths(settings)}
    assert found == {"kafka", "spool", "journal", "store", "data-sets", "station.key", "station.sqlite3", "station.sqlite3-wal"}
    with pytest.raises(SettingsError, match="chmod -R go-rwx"):
        refuse_exposed_files(settings)


def test_a_closed_folder_above_protects_what_is_in_it(open_folder: Path) -> None:
    settings = load_settings(write_settings(open_folder))
    (open_folder / "var/spool").mkdir(parents=True)
    assert find_exposed_paths(settings)
    (open_folder / "var").chmod(0o700)
    assert find_exposed_paths(settings) == []


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a file to another user")
def test_the_group_can_read_a_password_file_that_root_keeps_for_a_service(open_folder: Path) -> None:
    file = open_folder / "password"
    file.touch(mode=0o640)
    os.chown(file, 12345, 12345)
    settings = load_settings(write_settings(open_folder))
    kafka = settings.kafka.model_copy(update={"password_file": file})
    assert find_exposed_paths(settings.model_copy(update={"kafka": kafka})) == []
    file.chmod(0o644)
    settings = settings.model_copy(update={"kafka": kafka})
    assert find_exposed_paths(settings) == [file]
    with pytest.raises(SettingsError) as refused:
        refuse_exposed_files(settings)
    subprocess.run(["/bin/sh", "-c", str(refused.value).partition("Correct this with: ")[2]], check=True)
    status = file.stat()
    assert (status.st_uid, status.st_gid, status.st_mode & 0o777) == (12345, os.getegid(), 0o640), "the service can still read the file"
    assert find_exposed_paths(settings) == []


def test_the_keys_of_the_roles_and_the_secret_at_the_provider_are_checked(open_folder: Path) -> None:
    settings = load_settings(write_settings(open_folder))
    keys, secret = open_folder / "keys", open_folder / "oidc"
    create_keys(keys, keys / "public", "inspector")
    (keys / "inspector.key").chmod(0o640)
    secret.touch()
    signing = settings.signing.model_copy(update={"private_keys": keys, "public_keys": keys / "public"})
    station = settings.station.model_copy(update={"oidc": OidcSettings(client_secret_file=secret)})
    changed = settings.model_copy(update={"signing": signing, "station": station})
    assert {path.name for path in find_exposed_paths(changed)} == {"inspector.key", "oidc"}


def test_the_password_files_of_the_roles_are_checked(open_folder: Path) -> None:
    folder = open_folder / "passwords"
    folder.mkdir()
    (folder / "inspector").touch(mode=0o600)
    (folder / "sorter").touch(mode=0o644)
    settings = load_settings(write_settings(open_folder))
    kafka = settings.kafka.model_copy(update={"password_dir": folder})
    assert find_exposed_paths(settings.model_copy(update={"kafka": kafka})) == [folder / "sorter"]


@pytest.fixture
def trusting(open_folder: Path) -> tuple[Settings, Path]:
    """Settings with public keys and a folder of model versions, and their file. Everybody can read all of them."""
    file = write_settings(open_folder)
    create_keys(open_folder / "keys", open_folder / "public", "inspector")
    version = open_folder / "versions" / "demo"
    version.mkdir(parents=True)
    (version / "manifest.json").touch()
    settings = load_settings(file)
    signing = settings.signing.model_copy(update={"public_keys": open_folder / "public"})
    model = settings.model.model_copy(update={"root": open_folder / "versions"})
    return settings.model_copy(update={"signing": signing, "model": model}), file


@pytest.mark.parametrize(
    "name", ["castline.toml", "public", "public/inspector.pub", "versions", "versions/demo", "versions/demo/manifest.json", "."]
)
def test_everything_that_the_plant_trusts_is_checked_with_the_folders_above_it(trusting: tuple[Settings, Path], name: str) -> None:
    settings, file = trusting
    refuse_exposed_files(settings, file)
    path = file.parent / name
    path.chmod(path.stat().st_mode | 0o002)
    assert find_replaceable_paths(settings, file) == [path]
    assert [str(path) in finding.problem for finding in check_files(settings, file)] == [True]
    with pytest.raises(SettingsError) as refused:
        refuse_exposed_files(settings, file)
    subprocess.run(str(refused.value).rpartition("Correct this with: ")[2].split(), check=True)
    refuse_exposed_files(settings, file)


def test_the_sticky_bit_protects_what_lies_in_a_folder_but_lets_others_add_keys(trusting: tuple[Settings, Path]) -> None:
    settings, file = trusting
    file.parent.chmod(0o1777)
    assert find_replaceable_paths(settings, file) == []
    (file.parent / "public").chmod(0o1777)
    assert find_replaceable_paths(settings, file) == [file.parent / "public"]
    file.parent.chmod(0o700)
    assert find_replaceable_paths(settings, file) == [], "others cannot enter the folder above"


def test_a_link_and_its_target_are_checked(trusting: tuple[Settings, Path]) -> None:
    settings, file = trusting
    aside, target = file.parent / "aside", file.parent / "target"
    aside.mkdir()
    target.mkdir()
    (aside / "castline.toml").symlink_to(file.rename(target / "castline.toml"))
    for folder in (aside, target):
        folder.chmod(0o777)
        assert find_replaceable_paths(settings, aside / "castline.toml") == [folder]
        folder.chmod(0o755)


@pytest.mark.real
def test_a_role_does_not_start_with_settings_that_others_can_write(open_folder: Path) -> None:
    file = write_settings(open_folder)
    file.chmod(0o666)
    refused = run_castline(file, "archivist")
    assert refused.returncode == 3
    assert f"chmod o-w {file}" in refused.stderr
