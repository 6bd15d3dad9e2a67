"""Gives Django's settings to mypy's Django plugin. The program itself does not import this module."""

from __future__ import annotations

from pydantic import SecretStr

from station.configuration import make_django_settings
from streams.settings import Settings, StationSettings

globals().update(make_django_settings(Settings(station=StationSettings(secret_key=SecretStr("the type checker signs no session" * 2)))))
