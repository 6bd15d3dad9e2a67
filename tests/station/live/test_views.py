"""Who may see the live pages, and for how long."""

from __future__ import annotations

from datetime import timedelta

from django.contrib.auth.models import Group, User
from django.contrib.sessions.models import Session
from django.test import Client
from django.utils import timezone

from station.live.views import _is_still_permitted


def test_the_live_pages_need_the_right_to_look(visitor: Client, operator: Client) -> None:
    assert visitor.get("/").status_code == 302
    assert visitor.get("/live/events").status_code == 302
    page = operator.get("/").content.decode()
    assert "line-1" in page
    assert "uploads" not in page.replace('href="/uploads/"', "")
    assert operator.get("/lines/line-1/").status_code == 200
    assert operator.get("/lines/line-9/").status_code == 404


def test_only_administrators_see_the_live_page_and_the_stream_of_all_uploads(engineer: Client, administrator: Client) -> None:
    assert engineer.get("/lines/uploads/").status_code == 404
    assert engineer.get("/live/events?line=uploads").status_code == 404
    assert administrator.get("/lines/uploads/").status_code == 200
    request = administrator.get("/").wsgi_request
    assert _is_still_permitted(request, "uploads")
    person = User.objects.get(username="administrator")
    person.groups.set([Group.objects.get(name="engineer")])
    assert not _is_still_permitted(request, "uploads")
    assert _is_still_permitted(request, "line-1")


def test_a_stream_ends_when_its_person_may_no_longer_look(operator: Client) -> None:
    request = operator.get("/").wsgi_request
    assert _is_still_permitted(request)
    person = User.objects.get(username=request.user.get_username())
    person.groups.clear()
    assert not _is_still_permitted(request)
    person.groups.add(Group.objects.get(name="operator"))
    assert _is_still_permitted(request)
    operator.logout()
    assert not _is_still_permitted(request)


def test_a_stream_ends_when_the_password_was_changed_elsewhere(operator: Client) -> None:
    request = operator.get("/").wsgi_request
    assert _is_still_permitted(request)
    person = User.objects.get(username=request.user.get_username())
    person.set_password("another long pass phrase")
    person.save()
    assert not _is_still_permitted(request)


def test_a_stream_ends_when_its_session_has_expired(operator: Client) -> None:
    request = operator.get("/").wsgi_request
    Session.objects.update(expire_date=timezone.now() + timedelta(minutes=1))
    assert _is_still_permitted(request)
    Session.objects.update(expire_date=timezone.now() - timedelta(seconds=1))
    assert not _is_still_permitted(request)
