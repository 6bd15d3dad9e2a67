"""The pages that the menu leads to, and what every template knows."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from django.http import HttpRequest
from django.urls import reverse

from station.accounts.access import Right, get_rights


@dataclass(frozen=True)
class Entry:
    """One entry of the menu: `page` is the name of its address, `right` what a person must be allowed."""

    page: str
    title: str
    right: Right


@dataclass(frozen=True)
class Link:
    """An entry as it is shown to one person."""

    address: str
    title: str
    current: bool


ENTRIES = (
    Entry("wall", "Wall", "look"),
    Entry("history", "History", "look"),
    Entry("reviews", "Review", "review"),
    Entry("uploads", "Upload", "upload"),
    Entry("reports", "Reports", "look"),
    Entry("versions", "Models", "look"),
    Entry("accounts", "Accounts", "administer"),
    Entry("audit-log", "Audit log", "administer"),
)


def context(request: HttpRequest) -> dict[str, Any]:
    """`navigation`: the links a person may follow; `rights`: what they may do."""
    allowed = get_rights(request.user)
    # The longest address that the page's begins with: a part's page belongs to no entry, a line's to none either.
    links = [(reverse(entry.page), entry.title) for entry in ENTRIES if entry.right in allowed]
    return {
        "rights": allowed,
        "navigation": [Link(address, title, _begins(request.path, address)) for address, title in links],
    }


def _begins(path: str, address: str) -> bool:
    return path == address or (address != "/" and path.startswith(address))
