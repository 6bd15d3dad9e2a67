"""Gateway and sorters of a machine share a token, even if no person has set one."""

from __future__ import annotations

import stat
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from streams.errors import SettingsError
from streams.gateway_token import gateway_token_file, make_gateway_token, read_gateway_token
from streams.settings import Settings


def settings_in(folder: Path, token: str = "") -> Settings:
    return Settings.model_validate({"service": {"run_dir": folder / "run"}, "gateway": {"token": token}})


def test_processes_that_start_at_once_share_one_private_token(tmp_path: Path) -> None:
    settings = settings_in(tmp_path)
    with ThreadPoolExecutor(8) as threads:
        tokens = {token.get_secret_value() for token in threads.map(make_gateway_token, [settings] * 8)}
    (token,) = tokens
    assert len(token) >= 32
    assert read_gateway_token(settings).get_secret_value() == token
    assert stat.S_IMODE(gateway_token_file(settings).stat().st_mode) == 0o600
    assert [file.name for file in (tmp_path / "run").iterdir()] == ["gateway.token"]


def test_the_setting_comes_first_and_a_command_makes_no_token(tmp_path: Path) -> None:
    assert make_gateway_token(settings_in(tmp_path, "of-the-plant")).get_secret_value() == "of-the-plant"
    assert read_gateway_token(settings_in(tmp_path)).get_secret_value() == ""
    assert not (tmp_path / "run").exists()


def test_a_token_that_cannot_be_made_is_a_fault_of_the_settings(tmp_path: Path) -> None:
    (tmp_path / "run").touch()
    with pytest.raises(SettingsError, match=r"^gateway.token: .* cannot be created"):
        make_gateway_token(settings_in(tmp_path))
