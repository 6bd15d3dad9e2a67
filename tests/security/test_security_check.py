"""`castline security check` names what to mend, the most important first."""

from __future__ import annotations

import json
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
import tomli_w
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import NameOID

from deploy.cli.security import check_certificates, check_clock, check_files, check_keys, check_listeners, format_finding, list_certificates
from streams.security_finding import SecurityFinding
from streams.settings import load_settings
from tests.security.test_private_files import run_castline, write_settings


@pytest.mark.parametrize(
    ("section", "values", "words"),
    [
        ("station", {"host": "0.0.0.0"}, "without TLS"),
        ("station", {"hosts": ["*"]}, "every host name"),
        ("station", {"proxies": 1, "trusted_proxies": ["0.0.0.0/0"]}, "pretend to have another address"),
        ("gateway", {"proxies": 1, "trusted_proxies": ["::/0"]}, "gateway.trusted_proxies"),
        ("gateway", {"host": "192.0.2.1"}, "passwords of cameras"),
        ("service", {"host": "::"}, "metrics and health pages"),
        ("kafka", {"bootstrap": "kafka.plant.example:9092"}, "not encrypted"),
        ("broker", {"access": "open"}, "asks for no log-in"),
    ],
)
def test_an_open_listener_is_found(tmp_path: Path, section: str, values: dict[str, object], words: str) -> None:
    file = tmp_path / "castline.toml"
    broker = {"data_dir": str(tmp_path / "kafka")}
    file.write_text(tomli_w.dumps({"broker": broker} | {section: values}))
    assert [words in finding.problem for finding in check_listeners(load_settings(file, {}))] == [True]


def test_the_defaults_have_no_open_listener(tmp_path: Path) -> None:
    (tmp_path / "castline.toml").write_text(tomli_w.dumps({"broker": {"data_dir": str(tmp_path / "kafka")}}))
    assert list(check_listeners(load_settings(tmp_path / "castline.toml", {}))) == []


def test_the_open_data_folder_of_an_older_release_is_found(tmp_path: Path) -> None:
    (tmp_path / "kafka" / "log").mkdir(parents=True)
    (tmp_path / "kafka" / "log" / "meta.properties").touch()
    file = tmp_path / "castline.toml"
    file.write_text(tomli_w.dumps({"broker": {"data_dir": str(tmp_path / "kafka")}}))
    assert [finding.weight for finding in check_listeners(load_settings(file, {}))] == ["high"]


@pytest.mark.parametrize(("days", "weights"), [(30, []), (32, ["medium"])])
def test_a_clock_that_is_far_ahead_is_found_with_what_a_person_does(tmp_path: Path, days: int, weights: list[str]) -> None:
    (tmp_path / "castline.toml").write_text(tomli_w.dumps({"broker": {"data_dir": str(tmp_path)}}))
    settings = load_settings(tmp_path / "castline.toml", {})
    assert list(check_clock(settings)) == [], "a new broker does not know yet when the clock was right"
    (tmp_path / "clock").write_text(f"{time.time() - days * 86400:.0f}")
    findings = list(check_clock(settings))
    assert [finding.weight for finding in findings] == weights
    assert all(f"delete the file {tmp_path / 'clock'}" in finding.remedy for finding in findings)


def test_the_name_of_a_token_cannot_control_the_terminal() -> None:
    assert "\x1b" not in format_finding(SecurityFinding("medium", "The API token of anna for \x1b]0;x\x07 never expires.", "Revoke it."))


def test_missing_keys_are_found(tmp_path: Path) -> None:
    line = {"name": "line-1", "camera": {"kind": "http", "trigger": "board"}, "gate": {"port": "/dev/ttyACM0"}}
    file = tmp_path / "castline.toml"
    file.write_text(tomli_w.dumps({"lines": [line]}))
    assert len(list(check_keys(load_settings(file, {})))) == 1
    file.write_text(tomli_w.dumps({"lines": [line], "sorter": {"command_key": "k" * 40}, "gateway": {"token": "t" * 40}}))
    assert list(check_keys(load_settings(file, {}))) == []
    file.write_text(tomli_w.dumps({"lines": [line], "signing": {"public_keys": "keys"}, "gateway": {"token": "t" * 40}}))
    assert list(check_keys(load_settings(file, {}))) == []


def test_short_keys_are_found(tmp_path: Path) -> None:
    file = tmp_path / "castline.toml"
    line = {"name": "line-1", "camera": {"kind": "http"}, "token": "t" * 31}
    file.write_text(tomli_w.dumps({"lines": [line], "gateway": {"token": "g" * 31}}))
    problems = [finding.problem for finding in check_keys(load_settings(file, {}))]
    assert [problem.partition(" has only 31 ")[0] for problem in problems] == [
        "gateway.token",
        "The token of the line line-1",
    ]
    file.write_text(tomli_w.dumps({"lines": [line | {"token": "t" * 32}], "sorter": {"command_key": "k" * 32}}))
    assert list(check_keys(load_settings(file, {}))) == []


@pytest.mark.parametrize("keys", [("short", "n" * 32), ("n" * 32, "short"), ("n" * 32, "o" * 32)])
def test_a_change_of_the_command_key_that_nobody_finished_is_found(tmp_path: Path, keys: tuple[str, str]) -> None:
    file = tmp_path / "castline.toml"
    file.write_text(tomli_w.dumps({"sorter": dict(zip(("command_key", "second_command_key"), keys, strict=True))}))
    (finding,) = check_keys(load_settings(file, {}))
    assert (finding.weight, "sorter.second_command_key" in finding.problem) == ("medium", True)


def test_a_short_command_key_stops_every_command_with_the_way_to_a_good_one(tmp_path: Path) -> None:
    file = tmp_path / "castline.toml"
    file.write_text('[sorter]\ncommand_key = "guess me"\n')
    for arguments in (["up"], ["sorter"], ["station"], ["security", "check"], ["settings", "check"]):
        refused = run_castline(file, *arguments)
        assert refused.returncode == 3, arguments
        assert "openssl rand -hex 32" in refused.stderr
        assert "guess me" not in refused.stdout + refused.stderr


def write_certificate(file: Path, begin: datetime, end: datetime) -> None:
    key = Ed25519PrivateKey.generate()
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "kafka.plant.example")])
    builder = x509.CertificateBuilder(name, name, key.public_key(), x509.random_serial_number(), begin, end)
    file.write_bytes(builder.sign(key, None).public_bytes(Encoding.PEM))


@pytest.mark.parametrize(
    ("begin", "end", "weights"),
    [(-100, 100, []), (-100, 29, ["medium"]), (-100, -1, ["high"]), (1, 100, ["high"])],
)
def test_certificates_that_end_soon_or_have_ended_are_found(tmp_path: Path, begin: int, end: int, weights: list[str]) -> None:
    now, file = datetime(2026, 11, 27, tzinfo=UTC), tmp_path / "ca.pem"
    write_certificate(file, now + timedelta(days=begin), now + timedelta(days=end))
    settings = load_settings(None, {})
    kafka = settings.kafka.model_copy(update={"ca_file": file})
    assert list_certificates(settings.model_copy(update={"kafka": kafka})) == [file]
    findings = list(check_certificates([file], now))
    assert [finding.weight for finding in findings] == weights
    assert all("kafka.plant.example" in finding.problem for finding in findings)


def test_a_certificate_that_cannot_be_read_is_found(tmp_path: Path) -> None:
    (tmp_path / "ca.pem").write_text("no certificate")
    findings = check_certificates([tmp_path / "ca.pem", tmp_path / "absent.pem"], datetime.now(UTC))
    assert [finding.weight for finding in findings] == ["high", "high"]


@pytest.mark.parametrize("section", [{"gateway": {"token": "t" * 20}}, {"store": {"url": "s3://key:secret-key@bucket"}}])
def test_secrets_in_a_readable_settings_file_are_found(open_folder: Path, section: dict[str, object]) -> None:
    file = write_settings(open_folder)
    assert list(check_files(load_settings(file, {}), file)) == []
    file.write_text(tomli_w.dumps(section))
    assert ["the secrets in" in finding.problem for finding in check_files(load_settings(file, {}), file)] == [True]
    file.chmod(0o600)
    assert list(check_files(load_settings(file, {}), file)) == []


@pytest.mark.real
def test_the_command_names_the_four_warnings_without_tls_and_none_behind_tls(open_folder: Path) -> None:
    file = write_settings(open_folder)
    made = run_castline(file, "station", "account", "anna", "--role", "administrator", STATION_PASSWORD="a long enough pass phrase")
    assert made.returncode == 0, made.stderr
    plain = run_castline(file, "security", "check", "--json")
    findings = [json.loads(line) for line in plain.stdout.splitlines()]
    assert plain.returncode == 0, plain.stderr
    tls = [finding for finding in findings if "deployment check" in finding["problem"]]
    assert sorted(finding["problem"].partition("(")[2][:13] for finding in tls) == [
        f"security.W{number}" for number in ("004", "008", "012", "016")
    ]
    assert {finding["weight"] for finding in tls} == {"low"}
    assert any("anna has no second factor" in finding["problem"] for finding in findings)
    opened = run_castline(file, "security", "check", "--json", CASTLINE_STATION__HOST="0.0.0.0")
    assert opened.returncode == 1
    behind = run_castline(file, "security", "check", "--json", CASTLINE_STATION__BEHIND_TLS="true")
    assert "deployment check" not in behind.stdout


@pytest.mark.real
def test_the_command_reports_old_tables_beside_all_other_findings_and_creates_no_file(open_folder: Path) -> None:
    file = write_settings(open_folder)
    (open_folder / "var").mkdir(mode=0o700, exist_ok=True)
    (open_folder / "var" / "station.sqlite3").touch(mode=0o600)
    before = sorted(open_folder.rglob("*"))
    checked = run_castline(file, "security", "check", "--json", CASTLINE_STATION__HOST="0.0.0.0")
    problems = [json.loads(line)["problem"] for line in checked.stdout.splitlines()]
    assert checked.returncode == 1, checked.stderr
    assert any("without TLS" in problem for problem in problems)
    assert any(problem.startswith("The accounts were not checked.") and "out of date" in problem for problem in problems)
    assert sorted(open_folder.rglob("*")) == before


@pytest.mark.real
def test_the_command_reports_a_secret_key_that_is_too_short_beside_all_other_findings(open_folder: Path) -> None:
    file = write_settings(open_folder)
    checked = run_castline(file, "security", "check", "--json", CASTLINE_STATION__HOST="0.0.0.0", CASTLINE_STATION__SECRET_KEY="short")
    problems = [json.loads(line)["problem"] for line in checked.stdout.splitlines()]
    assert checked.returncode == 1, checked.stderr
    assert any("without TLS" in problem for problem in problems)
    assert any(problem.startswith("The station was not checked.") and "5 characters" in problem for problem in problems)
