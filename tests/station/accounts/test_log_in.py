"""Tests of the log-in: redirects, the lock-out after wrong passwords, sessions, and forms without a valid CSRF token."""

from __future__ import annotations

from django.test import Client, RequestFactory, override_settings

from station.accounts.log_in import client_address
from station.accounts.models import ApiToken
from tests.station.conftest import PASSWORD, SETTINGS, MakeAccount


def log_in(client: Client, name: str, password: str, **fields: str) -> int:
    return client.post("/log-in/", {"username": name, "password": password, **fields}).status_code


def test_after_the_log_in_the_requested_page_is_shown(visitor: Client, account: MakeAccount) -> None:
    account("anna", "operator", password=True)
    response = visitor.post("/log-in/", {"username": "anna", "password": PASSWORD, "next": "/account/"})
    assert response["Location"] == "/account/"
    page = visitor.get("/account/").content.decode()
    assert "operator" in page


def test_the_log_in_never_redirects_to_another_site(visitor: Client, account: MakeAccount) -> None:
    account("anna", "operator", password=True)
    response = visitor.post("/log-in/", {"username": "anna", "password": PASSWORD, "next": "https://evil.example/"})
    assert response["Location"] == "/"


def test_wrong_passwords_lock_the_account_for_one_address_only(visitor: Client, account: MakeAccount) -> None:
    account("anna", "operator", password=True)
    assert [log_in(visitor, "anna", "wrong") for _ in range(5)] == [200, 200, 200, 200, 429]
    locked = visitor.post("/log-in/", {"username": "anna", "password": PASSWORD})
    assert locked.status_code == 429
    assert "too many wrong passwords" in locked.content.decode()
    elsewhere = Client(REMOTE_ADDR="192.0.2.7")
    assert log_in(elsewhere, "anna", PASSWORD) == 302


def test_a_wrong_name_and_a_wrong_password_get_the_same_answer(visitor: Client, account: MakeAccount) -> None:
    account("anna", "operator", password=True)
    pages = [visitor.post("/log-in/", {"username": name, "password": "wrong"}) for name in ("anna", "nobody")]
    texts = [page.content.decode().replace("anna", "nobody") for page in pages]
    assert all("The name or the password is wrong" in text for text in texts)


def test_logging_out_needs_a_post_request_and_ends_the_session(operator: Client) -> None:
    assert operator.get("/log-out/").status_code == 405
    assert operator.post("/log-out/").status_code == 302
    assert operator.get("/account/").status_code == 302


def test_a_session_is_extended_while_it_is_used(operator: Client) -> None:
    operator.get("/account/")
    session = operator.session
    session["seen"] -= 3600
    session.save()
    response = operator.get("/account/")
    assert "sessionid" in response.cookies, "an old session is extended"
    assert "sessionid" not in operator.get("/account/").cookies, "a fresh session is not written again"


def test_a_form_without_a_csrf_token_is_refused_in_words(account: MakeAccount) -> None:
    strict = Client(enforce_csrf_checks=True)
    strict.force_login(account("anna", "administrator"), "django.contrib.auth.backends.ModelBackend")
    response = strict.post("/account/tokens/", {"name": "camera"})
    assert response.status_code == 403
    assert "did not come from this station" in response.content.decode()
    assert not ApiToken.objects.exists()


def test_the_client_address_is_the_one_that_the_outermost_trusted_proxy_saw() -> None:
    request = RequestFactory().get("/", REMOTE_ADDR="10.0.0.1", HTTP_X_FORWARDED_FOR="6.6.6.6, 192.0.2.9, 10.0.0.2")
    assert client_address(request) == "10.0.0.1", "without proxies the header is ignored, because the client can write anything into it"
    with override_settings(CASTLINE=SETTINGS.model_copy(update={"station": SETTINGS.station.model_copy(update={"proxies": 2})})):
        assert client_address(request) == "192.0.2.9"
