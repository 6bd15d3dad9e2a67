"""Django's settings as a module, which the type checker's plugin asks for; nothing that runs reads it."""

from __future__ import annotations

from pydantic import SecretStr

from station.configuration import django_settings
from streams.settings import Settings, StationSettings

globals().update(django_settings(Settings(station=StationSettings(secret_key=SecretStr("the type checker signs no session" * 2)))))
