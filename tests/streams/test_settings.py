"""Settings: a wrong one is refused with its name, the expected value and the found value."""

from __future__ import annotations

from pathlib import Path

import pytest

from streams.errors import SettingsError
from streams.kafka import make_client_arguments
from streams.settings import Settings, load_settings
from streams.worker import make_faust_credentials


@pytest.mark.parametrize(
    ("toml", "message"),
    [
        ("[batch]\nsize = 0", r"batch\.size: expected: input should be greater than or equal to 1; found '0'"),
        ("[batch]\nsise = 4", r"batch\.sise: expected a known setting .* found an unknown name"),
        ("[batches]\nsize = 4", r"batches: expected a known setting"),
        ("[batch]\nsize = 64", r"batch: shapes: expected the last batch size to be at least `size`, which is 64; found 32"),
        ("[[lines]]\nname = 'Line 1'", r"lines\.0\.name: expected: string should match pattern"),
        ("[[lines]]\nname = 'a'\n[[lines]]\nname = 'a'", r"lines: expected each name once, found a more than once"),
        ("[[lines]]\nname = 'a'\n[lines.camera]\nkind = 'folder'", r"a camera of kind folder needs a path"),
        ("[[lines]]\nname = 'a'\n[lines.gate]\nbaud = 9600", r"lines\.0\.gate\.port: expected a value, found none"),
        ("[kafka]\nsecurity = 'sasl-tls'", r"security sasl-tls needs a username"),
        ("[kafka]\nbootstrap = 'nowhere'", r"kafka\.bootstrap: expected"),
        ("[pictures]\nmax_bytes = 200000000", r"which is topics\.max_message_bytes minus 16384 bytes for key and headers"),
        ("lines = 3", r"lines: expected"),
        (f"[sorter]\ncommand_key = '{'k' * 31}'", r"sorter: command_key: expected at least 32 .* found 31.* openssl rand -hex 32"),
        (f"[sorter]\ncommand_key = '{'k' * 31}'\nsecond_command_key = '{'n' * 31}'", r"sorter: command_key: expected at least 32"),
        (f"[sorter]\nsecond_command_key = '{'n' * 32}'", r"second_command_key is set, but command_key is not"),
        ("[station]\ntime_zone = 'Europe/Atlantis'", r"time_zone: expected the name of a time zone .* found 'Europe/Atlantis'"),
        ("[station]\ntime_zone = '../etc/passwd'", r"time_zone: expected the name of a time zone"),
        ("[station]\ntime_zone = 'Europe'", r"time_zone: expected the name of a time zone"),
        ("[batch\nsize=1", r"is not valid TOML"),
    ],
)
def test_a_wrong_setting_is_refused_with_its_name(toml: str, message: str, tmp_path: Path) -> None:
    file = tmp_path / "castline.toml"
    file.write_text(toml)
    with pytest.raises(SettingsError, match=message):
        load_settings(file, {})


def test_all_wrong_settings_of_a_file_are_named_together(tmp_path: Path) -> None:
    file = tmp_path / "castline.toml"
    file.write_text("[batch]\nsize = 0\nmax_wait_s = -1\n[broker]\nport = 80")
    with pytest.raises(SettingsError) as error:
        load_settings(file, {})
    assert [line.split(":")[0] for line in str(error.value).splitlines()] == ["broker.port", "batch.size", "batch.max_wait_s"]


def test_the_environment_overrides_one_setting_and_leaves_the_others(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "castline.toml"
    file.write_text("[batch]\nsize = 8\nmax_wait_s = 0.5")
    # pydantic-settings reads the environment of the process itself, so the test has to set a real variable.
    monkeypatch.setenv("CASTLINE_BATCH__SIZE", "16")
    settings = load_settings(file)
    assert (settings.batch.size, settings.batch.max_wait_s) == (16, 0.5)


def test_a_misspelt_variable_is_refused_and_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="found CASTLINE_BACTH__SIZE"):
        load_settings(None, {"CASTLINE_BACTH__SIZE": "1"})
    with pytest.raises(SettingsError, match=r"absent\.toml cannot be read"):
        load_settings(tmp_path / "absent.toml", {})


def test_a_password_reaches_both_kafka_clients_and_is_never_shown(tmp_path: Path) -> None:
    secret = tmp_path / "password"
    secret.write_text("s3cret\n")
    settings = Settings.model_validate(
        {"kafka": {"security": "sasl-tls", "username": "inspector", "password_file": secret, "bootstrap": "a:1,b:2"}}
    )
    assert "s3cret" not in repr(settings)
    arguments = make_client_arguments(settings, "test")
    assert arguments["bootstrap_servers"] == ["a:1", "b:2"]
    assert (arguments["security_protocol"], arguments["sasl_mechanism"]) == ("SASL_SSL", "SCRAM-SHA-512")
    assert arguments["sasl_plain_password"] == "s3cret"
    assert arguments["ssl_context"].check_hostname
    credentials = make_faust_credentials(settings)
    assert credentials is not None
    assert credentials.password == "s3cret"
    assert credentials.ssl_context.check_hostname


def test_the_default_deadline_of_a_line_is_its_travel_time_less_200_ms() -> None:
    gated = {"name": "a", "gate": {"port": "/dev/ttyACM0", "travel_mm": 1000, "belt_mm_per_s": 500}}
    settings = Settings.model_validate({"lines": [gated, {"name": "b"}, {**gated, "name": "c", "deadline_s": 0.7, "gate": None}]})
    assert [line.verdict_deadline_s for line in settings.lines] == [pytest.approx(1.8), None, 0.7]
