"""Stores messages that a page shows once, such as "The password is changed.", in a cookie that browsers send only over TLS."""

from __future__ import annotations

from django.contrib.messages.storage.cookie import CookieStorage
from django.contrib.messages.storage.fallback import FallbackStorage
from django.contrib.messages.storage.session import SessionStorage


class _HostCookieStorage(CookieStorage):
    cookie_name = "__Host-messages"


class HostMessageStorage(FallbackStorage):
    """Django's usual storage: a cookie, and the session for what does not fit into the cookie. Other hosts cannot set the cookie."""

    storage_classes = (_HostCookieStorage, SessionStorage)
