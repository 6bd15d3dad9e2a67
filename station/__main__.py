"""Runs Django's management commands for developers, such as `python -m station makemigrations`."""

from __future__ import annotations

import sys

from django.core.management import execute_from_command_line

from station.configuration import configure
from streams.settings import load_settings

configure(load_settings(role="station"))
execute_from_command_line(sys.argv)
