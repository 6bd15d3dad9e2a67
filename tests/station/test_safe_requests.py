"""A GET request of a page changes nothing: all pages are opened, and the database is compared before and after."""

from __future__ import annotations

import re
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import pytest
from django.contrib.auth.models import User
from django.db import connection
from django.test import Client
from django.test.utils import override_settings
from django.urls import URLPattern, URLResolver, get_resolver
from django.urls.resolvers import RoutePattern

import station
from station.accounts.models import ApiToken
from station.pictures.part_picture_reader import get_picture_reader
from station.studies.creation import StudyPlan, make_study
from streams.object_store import ObjectStore
from streams.settings import OidcSettings
from tests.encoded_pictures import make_png
from tests.rendered_pictures import camera_pictures
from tests.station.conftest import SETTINGS, MakePart

NOW = datetime(2026, 11, 26, 8, 0, tzinfo=UTC)
# An export of data is written into the audit log, although it is a GET request.
EXPORTS = ("/history/export.csv", "/history/export.parquet", "/reviews/data-sets/")
QUERIES = (
    "",
    "?line=line-1&action=choose&version=demo&part=line-1:7:1&label=ok&reserve=1&open=1.waiting&side=240&format=md&state=x&code=y",
)


# The names of all form fields, and of the parameters that only queries have.
TEMPLATES = Path(station.__file__).parent / "templates"
FIELDS = {name for file in TEMPLATES.rglob("*.html") for name in re.findall(r' name="([a-z_]+)"', file.read_text(encoding="utf-8"))}
FIELDS |= {"side", "open", "format", "state", "before", "after"}


def list_routes(resolver: URLResolver, before: str = "") -> Iterator[str]:
    """Yields the route of each page, such as `parts/<str:line>/<int:run>/<int:part>/`."""
    for pattern in resolver.url_patterns:
        route = before + (str(pattern.pattern) if isinstance(pattern.pattern, RoutePattern) else "")
        if isinstance(pattern, URLPattern):
            yield route
        else:
            yield from list_routes(pattern, route)


def read_database() -> dict[str, list[str]]:
    """Returns the rows of each table."""
    tables: dict[str, list[str]] = {}
    with connection.cursor() as cursor:
        for table in connection.introspection.table_names(cursor):
            cursor.execute(f'SELECT * FROM "{table}"')
            tables[table] = sorted(map(repr, cursor.fetchall()))
    return tables


def open_page(client: Client, address: str) -> int:
    response = client.get(address)
    if response.streaming and "event-stream" not in response["Content-Type"]:
        assert response.getvalue()
    return response.status_code


@pytest.fixture
def values(part: MakePart, administrator: Client) -> Iterator[dict[str, str]]:
    """A value for each parameter of a route. What the values name exists in the database."""
    person = User.objects.get(username="administrator")
    address = ObjectStore(SETTINGS.store.url).put(make_png(camera_pictures()[0]))
    rows = [part(picture=address, sha256=address[-64:], label=label, heat_map=address) for label in ("ok", "defect") * 3]
    study = make_study(StudyPlan("november", "line-1", ("administrator",), rounds=2, count=6), None, NOW)
    token = ApiToken.objects.create(user=person, name="press", sha256="0" * 64)
    yield {
        "line": "line-1",
        "run": "7",
        "part": str(rows[0].part),
        "version": "demo",
        "number": "1",
        "name": study.name,
        "file": "curves.png",
        "user": str(person.pk),
        "token": str(token.pk),
        "command_id": "00000000-0000-4000-8000-000000000000",
    }
    get_picture_reader().close()


@pytest.mark.parametrize("text", ["9" * 5000, "9" * 4000, "-1", "1e999", "nan", "\u0663" * 5000, "[" * 5000, "\0"])
def test_no_text_in_a_query_or_form_is_an_error_of_the_station(administrator: Client, values: dict[str, str], text: str) -> None:
    form = dict.fromkeys(FIELDS, text)
    with override_settings(CASTLINE=SETTINGS):
        for route in list_routes(get_resolver()):
            address = "/" + re.sub(r"<(?:\w+:)?(\w+)>", lambda found: values[found[1]], route)
            administrator.force_login(User.objects.get(username="administrator"), "django.contrib.auth.backends.ModelBackend")
            for response in (administrator.get(address, form), administrator.post(address, form)):
                assert response.status_code < 500 or response.status_code == 503, f"{address}: {response.status_code}"


@pytest.mark.parametrize("address", ["/studies/%00/", "/studies/%00/answer", "/parts/%00/7/1/", "/parts/%00/7/1/picture", "/%00"])
def test_a_null_character_in_an_address_is_refused_because_postgresql_cannot_search_for_it(administrator: Client, address: str) -> None:
    assert administrator.get(address).status_code == 400


def test_a_session_cookie_with_a_null_character_is_no_session_because_postgresql_cannot_search_for_it(visitor: Client) -> None:
    expected = visitor.get("/").status_code
    assert visitor.get("/", headers={"cookie": 'sessionid="aaaaaaaa\\000"'}).status_code == expected
    assert visitor.get("/", headers={"cookie": 'other="aaaaaaaa\\000"'}).status_code == expected


def test_no_get_request_changes_the_database(administrator: Client, values: dict[str, str]) -> None:
    # The first request of a session extends the session, and the next ones do so only ten minutes later.
    open_page(administrator, "/")
    opened = {}
    # With an issuer, the page that takes the answer of an OpenID Connect provider exists, too.
    with_provider = SETTINGS.station.model_copy(update={"oidc": OidcSettings(issuer="http://127.0.0.1:9")})
    with override_settings(CASTLINE=SETTINGS.model_copy(update={"station": with_provider})):
        for route in list_routes(get_resolver()):
            address = "/" + re.sub(r"<(?:\w+:)?(\w+)>", lambda found: values[found[1]], route)
            for query in QUERIES:
                before = read_database()
                status = open_page(administrator, address + query)
                after = read_database()
                changed = {table for table in before if before[table] != after[table]}
                if address.startswith(EXPORTS):
                    changed -= {"accounts_auditentry"}
                assert not changed, f"GET {address}{query} changed {changed}"
                opened[address] = status
    assert opened["/log-in/provider/return"] == 403
    assert len(opened) > 50
    assert sum(status == 200 for status in opened.values()) > 30, opened
