"""Stores messages that the next page shows once, in a cookie that is sent only over TLS. An example is "The password is changed."."""

from __future__ import annotations

from django.contrib.messages.storage.cookie import CookieStorage
from django.contrib.messages.storage.fallback import FallbackStorage
from django.contrib.messages.storage.session import SessionStorage


class _HostCookieStorage(CookieStorage):
    cookie_name = "__Host-messages"


class HostMessageStorage(FallbackStorage):
    """Stores the messages in a cookie that other hosts cannot set. Messages that do not fit into the cookie are stored in the session."""

    storage_classes = (_HostCookieStorage, SessionStorage)
