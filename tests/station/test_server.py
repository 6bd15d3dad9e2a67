"""The listening socket of the station."""

from __future__ import annotations

import socket

import pytest
from django.test import override_settings

from station.server import open_socket
from streams.errors import SettingsError
from tests.station.conftest import SETTINGS


def test_a_port_that_is_in_use_is_named() -> None:
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        port = other.getsockname()[1]
        station = SETTINGS.station.model_copy(update={"port": port})
        with (
            override_settings(CASTLINE=SETTINGS.model_copy(update={"station": station})),
            pytest.raises(SettingsError, match=f"cannot listen at 127.0.0.1:{port}"),
        ):
            open_socket()
