"""The station as an ASGI application: Django, behind a limit on what a request may bring."""

from __future__ import annotations

import threading

from django.core.asgi import get_asgi_application
from django.core.handlers.asgi import ASGIHandler

# Set when the process is asked to stop: what streams to a browser without end looks at it.
stopping = threading.Event()


def application() -> ASGIHandler:
    """The application; `station.configuration.configure` comes first."""
    return get_asgi_application()
