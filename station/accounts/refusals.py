"""What a person is told who may not: in words, and without telling a stranger what there is."""

from __future__ import annotations

from django.http import HttpRequest, HttpResponse
from django.shortcuts import render

_MEANING = {
    "look": "to look at the plant's parts",
    "upload": "to upload pictures",
    "review": "to review parts",
    "choose": "to choose model versions",
    "administer": "to administer accounts",
}


def forbidden(request: HttpRequest, right: str) -> HttpResponse:
    """The account lacks `right`."""
    return refusal(
        request, 403, "Not allowed", f"This account is not allowed {_MEANING[right]}. An administrator can give it a role that is."
    )


def csrf(request: HttpRequest, reason: str = "") -> HttpResponse:
    """A form without its token: sent from elsewhere, or from a page that was open since before the last log-in."""
    return refusal(
        request, 403, "Form expired", "This form was open for too long, or did not come from here. Go back, reload the page, send it again."
    )


def locked_out(request: HttpRequest, *_: object, **__: object) -> HttpResponse:
    """Too many wrong passwords."""
    return refusal(
        request, 429, "Log-in locked", "Too many wrong passwords for this account from this place. Wait a while, then try again."
    )


def refusal(request: HttpRequest, status: int, title: str, sentence: str) -> HttpResponse:
    """A page that says `sentence`, with HTTP `status`."""
    return render(request, "station/refusal.html", {"title": title, "sentence": sentence}, status=status)
