"""A second user of the machine can neither read nor change the files of the plant."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest
import tomli_w

from deploy.supervisor.ports import free_ports
from models.registry import BUNDLED_VERSIONS
from streams.errors import SettingsError
from streams.private_files import find_exposed_paths, refuse_exposed_files
from streams.settings import OidcSettings, load_settings
from streams.signatures import create_keys
from tests.processes import CASTLINE
from tests.security.conftest import StrangerRuns
from tests.wired_line import wait_until


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
        "inspector": {"localise": False},
        "model": {"root": str(BUNDLED_VERSIONS)},
        "station": {
            "database": str(folder / "var/station.sqlite3"),
            "secret_key_file": str(folder / "var/station.key"),
            "port": free_ports(1),
        },
        "lines": [{"name": "line-1", "camera": {"kind": "drop", "path": str(drop)}}],
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


@pytest.mark.real
def test_a_stranger_reads_nothing_of_a_running_plant_but_the_targets_of_prometheus(open_folder: Path, as_stranger: StrangerRuns) -> None:
    file = write_settings(open_folder)
    made = run_castline(file, "station", "account", "anna", "--role", "administrator", STATION_PASSWORD="a long enough pass phrase")
    assert made.returncode == 0, made.stderr
    log = open_folder / "up.log"
    with log.open("w") as output:
        plant = subprocess.Popen([CASTLINE, "--settings", file, "up", "--no-station"], stdout=output, stderr=output, cwd=open_folder)
    try:
        wait_until(lambda: "all processes are ready" in log.read_text() or plant.poll() is not None, 240)
        assert plant.poll() is None, log.read_text()
        var = open_folder / "var"
        readable = as_stranger(f"find {var} -type f -readable 2>/dev/null").stdout.split()
        writable = as_stranger(f"find {var} -writable 2>/dev/null").stdout.split()
        assert readable, "the stranger sees the targets, so the search works"
        assert [name for name in readable if not name.startswith(f"{var}/run/targets/")] == []
        assert writable == []
        for kept in ("station.sqlite3", "station.key", "kafka", "spool"):
            assert (var / kept).exists()
            assert as_stranger(f"test -r {var}/{kept}").returncode == 1
    finally:
        plant.terminate()
        plant.wait(120)


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
