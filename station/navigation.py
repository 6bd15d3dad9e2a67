"""Defines the menu that all pages show, and adds the menu to the context of every template."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from django.http import HttpRequest
from django.urls import reverse

from station.accounts.access import Right, get_rights


@dataclass(frozen=True)
class MenuEntry:
    """An entry of the menu: the name of its URL pattern, its title, and the right that a person needs to see the entry."""

    url_name: str
    title: str
    right: Right


@dataclass(frozen=True)
class MenuLink:
    """A link in the menu. `is_current` is true if the person is on the page of the link or on a page below it."""

    url: str
    title: str
    is_current: bool


ENTRIES = (
    MenuEntry("wall", "Wall", "look"),
    MenuEntry("history", "History", "look"),
    MenuEntry("reviews", "Review", "review"),
    MenuEntry("uploads", "Upload", "upload"),
    MenuEntry("reports", "Reports", "look"),
    MenuEntry("versions", "Models", "look"),
    MenuEntry("accounts", "Accounts", "administer"),
    MenuEntry("tokens", "API tokens", "administer"),
    MenuEntry("audit-log", "Audit log", "administer"),
)


def add_navigation(request: HttpRequest) -> dict[str, Any]:
    """Returns two variables for all templates: the menu (`navigation`) and the rights (`rights`) of the person."""
    rights = get_rights(request.user)
    links = [(reverse(entry.url_name), entry.title) for entry in ENTRIES if entry.right in rights]
    return {"rights": rights, "navigation": [MenuLink(url, title, _is_below(request.path, url)) for url, title in links]}


def _is_below(path: str, url: str) -> bool:
    return path == url or (url != "/" and path.startswith(url))
