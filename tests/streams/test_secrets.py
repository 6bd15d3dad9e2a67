"""Tests of the secrets of the settings: no output shows them."""

from __future__ import annotations

import json
import logging
from pathlib import Path

import pytest
import tomli_w
from click.testing import CliRunner

from deploy.cli.settings import command
from station.configuration import read_secret_key
from streams.errors import SettingsError
from streams.health import HealthServer, ProcessHealth, ProgressWatchdog
from streams.kafka_users import read_login
from streams.logs import SecretFilter
from streams.secrets import SecretAddress, mask_address, mask_secrets
from streams.settings import ServiceSettings, Settings, StationSettings, load_settings
from tests.processes import get_page

CAMERA = "rtsp://admin:cam-Passw0rd@camera-1.plant:554/stream?user=admin&password=q-Passw0rd"
STORE = "s3://AKIAEXAMPLE123:store-S3cret@bucket/castline"
ROOT = "s3://AKIAEXAMPLE123:root-S3cret@bucket/versions"
SECRETS = ("cam-Passw0rd", "q-Passw0rd", "store-S3cret", "root-S3cret", "line-T0ken-long", "gateway-T0ken-long", "AKIAEXAMPLE123")


def write_settings(folder: Path) -> Path:
    file = folder / "castline.toml"
    sections = {
        "store": {"url": STORE},
        "model": {"root": ROOT},
        "gateway": {"token": "gateway-T0ken-long"},
        "lines": [{"name": "line-1", "token": "line-T0ken-long", "camera": {"kind": "video", "address": CAMERA}}],
    }
    file.write_text(tomli_w.dumps(sections))
    return file


@pytest.mark.parametrize("arguments", [["show"], ["show", "--json"], ["check"]])
def test_the_settings_are_shown_without_secrets(tmp_path: Path, arguments: list[str]) -> None:
    output = CliRunner().invoke(command, arguments, obj=write_settings(tmp_path)).output
    assert [secret for secret in SECRETS if secret in output] == []
    if arguments == ["show", "--json"]:
        shown = json.loads(output)
        assert shown["lines"][0]["camera"]["address"] == "rtsp://***@camera-1.plant:554/stream?***"
        assert shown["store"]["url"] == "s3://***@bucket/castline"
        assert shown["model"]["root"] == "s3://***@bucket/versions"


@pytest.mark.parametrize(
    ("address", "shown"),
    [
        ("var/store", "var/store"),
        ("/dev/video0", "/dev/video0"),
        ("s3://bucket/castline", "s3://bucket/castline"),
        ("http://token@host/x", "http://***@host/x"),
        ("rtsp://admin:p@ss-Passw0rd@host/x", "rtsp://***@host/x"),
        ("rtsp://admin:pass[w0rd@host/x?y=a@b", "rtsp://***@host/x?***"),
        ("rtsp://10.0.0.9/user=admin_password=abc_channel=1", "rtsp://10.0.0.9/user=***_password=***_channel=1"),
        ("https://host/p?X-Amz-Signature=abc", "https://host/p?***"),
    ],
)
def test_only_the_secrets_of_an_address_are_hidden(address: str, shown: str) -> None:
    assert mask_address(address) == str(SecretAddress(address)) == shown
    assert SecretAddress(address).get_secret_value() == address


def test_a_wrong_secret_is_refused_without_showing_it(tmp_path: Path) -> None:
    file = tmp_path / "castline.toml"
    file.write_text('[gateway]\ntoken = 123456789123\n[store]\nurl = ["s3://key:store-S3cret@bucket"]\n[kafka]\nheap = 1\n')
    with pytest.raises(SettingsError) as error:
        load_settings(file, {})
    assert "gateway.token" in str(error.value)
    assert "123456789123" not in str(error.value)
    assert "store-S3cret" not in str(error.value)


def test_logs_and_tracebacks_hold_no_secrets(tmp_path: Path) -> None:
    load_settings(write_settings(tmp_path), {})
    try:
        raise OSError(f"cannot open {CAMERA} with store-S3cret")
    except OSError as error:
        record = logging.LogRecord("x", logging.ERROR, "x", 1, "failed: %s, token %s", (STORE, "gateway-T0ken-long"), None)
        record.exc_info = (type(error), error, error.__traceback__)
    SecretFilter().filter(record)
    text = logging.Formatter().format(record)
    assert "cannot open rtsp://***@camera-1" in text
    assert [secret for secret in SECRETS if secret in text] == []


def test_health_pages_hold_no_secrets(tmp_path: Path) -> None:
    load_settings(write_settings(tmp_path), {})
    health = ProcessHealth("gateway", ProgressWatchdog(30))
    health.set_not_ready(f"cannot open {CAMERA}")
    health.add_check(lambda: f"the store {STORE} does not answer")
    with HealthServer(health, ServiceSettings(run_dir=tmp_path), "gateway-1") as pages:
        texts = [get_page(f"http://{pages.address}{page}")[1] for page in ("/readyz", "/healthz")]
    assert "rtsp://***@camera-1" in texts[0]
    assert "s3://***@bucket" in texts[1]
    assert [secret for secret in SECRETS if secret in "".join(texts)] == []


@pytest.mark.parametrize("password", ["odd]Passw0rd", "odd[Passw0rd", "odd@Passw0rd", "odd'Passw0rd"])
def test_a_password_of_any_characters_is_taken_and_hidden(tmp_path: Path, password: str) -> None:
    file = tmp_path / "castline.toml"
    camera = {"kind": "video", "address": f"rtsp://admin:{password}@camera-1.plant/stream"}
    file.write_text(tomli_w.dumps({"lines": [{"name": "line-1", "camera": camera}]}))
    load_settings(file, {})
    assert mask_secrets(f"401 for {camera['address']} with {password}") == "401 for rtsp://***@camera-1.plant/stream with ***"


def test_the_kafka_password_of_a_role_is_hidden(tmp_path: Path) -> None:
    (tmp_path / "inspector").write_text("role-Passw0rd\n")
    kafka = {"bootstrap": "kafka.plant:9093", "security": "sasl-tls", "password_dir": tmp_path}
    login = read_login(Settings.model_validate({"kafka": kafka}).for_role("inspector"))
    assert mask_secrets(f"401 for {login.username} with {login.password}") == "401 for castline-inspector with ***"


def test_the_key_of_the_station_in_a_file_is_hidden(tmp_path: Path) -> None:
    key = read_secret_key(StationSettings(secret_key_file=tmp_path / "key"))
    assert mask_secrets(f"the key is {key}") == "the key is ***"


def test_a_wrong_call_of_the_log_stops_nothing() -> None:
    record = logging.LogRecord("library", logging.ERROR, "x", 1, "%d bytes came", ("no number",), None)
    assert SecretFilter().filter(record)
    assert "%d bytes came" in record.getMessage()


def test_short_words_are_not_removed_from_output() -> None:
    assert mask_secrets("the inspector is ready") == "the inspector is ready"
