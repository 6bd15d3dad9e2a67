"""Tests of the second factor: a code of an app besides the password, and recovery codes."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable, Sequence
from datetime import datetime, timedelta
from pathlib import Path

import pytest
from django.contrib.auth.models import User
from django.db import connection
from django.test import Client
from django.utils import timezone
from django_otp.oath import TOTP
from django_otp.plugins.otp_static.models import StaticDevice, StaticToken
from django_otp.plugins.otp_totp.models import TOTPDevice

from station.accounts.delays import DelayRule, begin_attempt, end_attempt, make_code_rules
from station.accounts.models import AuditEntry, RecoveryCode
from station.security_check import check_accounts
from tests.station.accounts.failures import later
from tests.station.conftest import PASSWORD, MakeAccount


def show_code(key: bytes, *, steps_later: int = 0) -> str:
    """Returns the code that an app with this key shows, now or so many periods of 30 s later."""
    app = TOTP(key)
    app.time = app.time + 30 * steps_later
    return f"{app.token():06d}"


@pytest.fixture
def with_factor(account: MakeAccount) -> tuple[bytes, list[str]]:
    """An account "anna" with a second factor: its key and its recovery codes."""
    anna = account("anna", "operator", password=True)
    browser = Client()
    browser.force_login(anna, "django.contrib.auth.backends.ModelBackend")
    page = browser.post("/account/second-factor/", {"begin": "1"}, follow=True).content.decode()
    key: bytes = TOTPDevice.objects.get(user=anna).bin_key
    assert "<svg" in page
    assert "does not fit" in browser.post("/account/second-factor/", {"code": "000000", "password": PASSWORD}).content.decode()
    done = browser.post("/account/second-factor/", {"code": show_code(key), "password": PASSWORD}).content.decode()
    assert "The second factor is on" in done, "a wrong code delays the next one only after five wrong codes"
    return key, re.findall(r"<code>([a-z2-7-]+)</code>", done)


def log_in(code: str, password: str = PASSWORD) -> int:
    return Client().post("/log-in/", {"username": "anna", "password": password, "code": code}).status_code


def test_the_log_in_needs_the_code_and_takes_each_code_once(with_factor: tuple[bytes, list[str]]) -> None:
    key, _ = with_factor
    code = show_code(key, steps_later=1)
    assert log_in("") == 200
    assert log_in(code, "wrong") == 200
    assert log_in(code) == 302
    assert log_in(code) == 200, "a code that somebody saw is worth nothing"


def test_a_recovery_code_replaces_the_app_once(with_factor: tuple[bytes, list[str]]) -> None:
    _, codes = with_factor
    assert len(codes) == 8
    assert log_in(codes[0]) == 302
    assert log_in(codes[0]) == 200
    assert log_in(f" {codes[1].replace('-', ' ').upper()} ") == 302


def test_recovery_codes_cannot_be_guessed_and_the_database_does_not_hold_them(with_factor: tuple[bytes, list[str]]) -> None:
    _, codes = with_factor
    texts = [code.replace("-", "") for code in codes]
    # A letter of base32 is 5 random bits. ASVS 5.0 demands 112 bits if the hash is a fast one.
    assert {len(text) * 5 for text in texts} == {140}
    with connection.cursor() as cursor:
        cursor.execute("SELECT * FROM accounts_recoverycode")
        stored = str(cursor.fetchall())
    assert hashlib.sha256(texts[0].encode()).hexdigest() in stored
    assert not any(text in stored or code in stored for text, code in zip(texts, codes, strict=True))


def add_old_codes(*codes: str) -> User:
    """Gives anna recovery codes as release 0.1.0 has stored them."""
    anna = User.objects.get(username="anna")
    device = StaticDevice.objects.create(user=anna, name="recovery codes")
    for code in codes:
        StaticToken.objects.create(device=device, token=code)
    return anna


def test_a_recovery_code_of_an_earlier_release_works_once_and_until_new_ones_are_made(with_factor: tuple[bytes, list[str]]) -> None:
    anna = add_old_codes("abcdefgh", "ijklmnop")
    assert [log_in("abcdefgh"), log_in("abcdefgh")] == [302, 200]
    assert any("recovery codes of anna" in finding.problem for finding in check_accounts())
    browser = Client()
    browser.force_login(anna, "django.contrib.auth.backends.ModelBackend")
    assert "9 recovery codes left" in browser.get("/account/").content.decode()
    url = "/account/second-factor/recovery-codes/"
    for wrong in ({"password": "wrong", "code": "ijklmnop"}, {"password": PASSWORD, "code": "222222"}, {"password": PASSWORD}):
        assert "The old recovery codes stay" in browser.post(url, wrong, follow=True).content.decode()
    page = browser.post(url, {"password": PASSWORD, "code": with_factor[1][1]}).content.decode()
    assert "8 recovery codes left" in browser.get("/account/").content.decode()
    assert [log_in("ijklmnop"), log_in(with_factor[1][0])] == [200, 200]
    assert log_in(re.findall(r"<code>([a-z2-7-]+)</code>", page)[0]) == 302
    assert not any("recovery codes" in finding.problem for finding in check_accounts())
    assert AuditEntry.objects.filter(action="recovery codes made", subject="anna").count() == 1


def test_a_recovery_code_of_another_account_is_refused(with_factor: tuple[bytes, list[str]], account: MakeAccount) -> None:
    assert with_factor
    (code, *_) = RecoveryCode.issue_all(account("ben", "operator", password=True))
    assert log_in(code) == 200


def test_a_code_that_no_database_can_search_for_is_a_wrong_code(with_factor: tuple[bytes, list[str]]) -> None:
    assert with_factor
    add_old_codes("abcdefgh")
    assert send_codes(open_account(), ["abcd\0efgh", "abcdefgh" * 1000, "\0"]) == [302] * 3
    assert not AuditEntry.objects.filter(action="recovery codes made").exists()


def test_an_account_without_a_second_factor_gets_no_recovery_codes(account: MakeAccount) -> None:
    browser = Client()
    browser.force_login(account("anna", "operator", password=True), "django.contrib.auth.backends.ModelBackend")
    assert browser.post("/account/second-factor/recovery-codes/", {"password": PASSWORD}).status_code == 302
    assert not RecoveryCode.objects.exists()


def send_codes(browser: Client, codes: Iterable[str]) -> list[int]:
    """Asks for new recovery codes with each of `codes` and the right password. Returns the statuses: 302 if the code is wrong."""
    url = "/account/second-factor/recovery-codes/"
    return [browser.post(url, {"password": PASSWORD, "code": code}).status_code for code in codes]


def open_account(name: str = "anna") -> Client:
    """Returns a new browser in which the account is logged in."""
    browser = Client()
    browser.force_login(User.objects.get(username=name), "django.contrib.auth.backends.ModelBackend")
    return browser


def test_wrong_codes_delay_the_codes_of_the_app_but_no_recovery_code(with_factor: tuple[bytes, list[str]]) -> None:
    key, codes = with_factor
    add_old_codes("abcdefgh")
    thief, url = open_account(), "/account/second-factor/remove/"
    assert send_codes(thief, ["", *["000000"] * 5, ""]) == [302] * 7, "a form without a code is no guess"
    later(-60)
    early = thief.post(url, {"password": PASSWORD, "code": show_code(key, steps_later=1)})
    assert early.status_code == 429
    assert early["Retry-After"] == "1"
    assert "too many wrong passwords or codes" in early.content.decode()
    assert log_in(show_code(key, steps_later=1)) == 200, "the delay is the same on the page of the log-in"
    assert [log_in("abcdefgh"), log_in(codes[0])] == [302, 302]
    later(2)
    assert log_in(show_code(key, steps_later=1)) == 302


def test_somebody_who_knows_the_password_can_try_few_codes_and_no_delay_is_longer_than_15_minutes(database: Path) -> None:
    rules, now = make_code_rules(1, ""), timezone.now()
    tried_at_s: list[float] = []
    elapsed_s = 0.0
    while elapsed_s < 48 * 3600:
        wait_s = begin_attempt(rules, now + timedelta(seconds=elapsed_s))
        assert wait_s <= 900
        if wait_s:
            elapsed_s += wait_s
        else:
            tried_at_s.append(elapsed_s)
    first_hour = sum(at_s < 3600 for at_s in tried_at_s)
    second_day = sum(at_s >= 24 * 3600 for at_s in tried_at_s)
    assert (first_hour, second_day) == (17, 96)


def send_wrong_codes(rules: Sequence[DelayRule], begin: datetime, end: datetime) -> int:
    """Tries wrong codes from `begin` to `end`, each as soon as it is allowed. Returns how many of them were checked."""
    checked = 0
    while begin < end:
        wait_s = begin_attempt(rules, begin)
        checked += not wait_s
        begin += timedelta(seconds=wait_s)
    return checked


def test_right_codes_of_the_owner_give_somebody_at_the_same_browser_at_most_one_more_code_each(database: Path) -> None:
    rules, now = make_code_rules(1, "the browser of a control room"), timezone.now()
    checked = 0
    for hour in range(24):
        checked += send_wrong_codes(rules, now + timedelta(hours=hour), now + timedelta(hours=hour, minutes=44))
        assert begin_attempt(rules, now + timedelta(hours=hour, minutes=59.5)) == 0, "the owner is never locked out"
        end_attempt(rules)
    assert checked < 15 + 96 + 24


def test_right_codes_of_the_owner_pay_back_the_wrong_codes_of_the_owner(database: Path) -> None:
    for device in ("", "the usual browser"):
        rules, now = make_code_rules(1, device), timezone.now()
        for hour in range(24):
            wrong, right = now + timedelta(hours=hour), now + timedelta(hours=hour, seconds=1)
            assert begin_attempt(rules, wrong) == 0
            assert begin_attempt(rules, right) == 0, "no wrong code of an earlier hour delays this code"
            end_attempt(rules)


def test_many_wrong_codes_never_lock_out_the_app(with_factor: tuple[bytes, list[str]]) -> None:
    key, _ = with_factor
    thief = open_account()
    for _ in range(20):
        assert send_codes(thief, ["000000"]) == [302]
        later(900)
    assert log_in(show_code(key, steps_later=1)) == 302


def test_wrong_codes_of_a_stranger_do_not_delay_the_owner_at_the_usual_browser(with_factor: tuple[bytes, list[str]]) -> None:
    key, codes = with_factor
    usual = Client()
    assert usual.post("/log-in/", {"username": "anna", "password": PASSWORD, "code": codes[0]}).status_code == 302
    usual.post("/log-out/")
    send_codes(open_account(), ["000000"] * 5)
    later(-60)
    assert log_in(show_code(key, steps_later=1)) == 200
    form = {"username": "anna", "password": PASSWORD, "code": show_code(key, steps_later=1)}
    assert usual.post("/log-in/", form).status_code == 302


def test_a_right_code_of_the_owner_gives_a_stranger_at_most_one_further_code_to_try(with_factor: tuple[bytes, list[str]]) -> None:
    key, _ = with_factor
    thief = open_account()
    assert send_codes(thief, ["000000"] * 5) == [302] * 5
    later(2)
    assert log_in(show_code(key, steps_later=1)) == 302
    later(2)
    assert send_codes(thief, ["000000"]) == [302]
    later(-60)
    assert send_codes(thief, ["000000"]) == [429]


def test_nobody_adds_a_second_factor_to_an_account_without_its_password(account: MakeAccount) -> None:
    anna = account("anna", "operator", password=True)
    left_alone = Client()
    left_alone.force_login(anna, "django.contrib.auth.backends.ModelBackend")
    left_alone.post("/account/second-factor/", {"begin": "1"})
    form = {"code": show_code(TOTPDevice.objects.get().bin_key), "password": "guess"}
    answers = [left_alone.post("/account/second-factor/", form) for _ in range(5)]
    assert all("The password is wrong" in answer.content.decode() for answer in answers)
    assert AuditEntry.objects.filter(action="wrong password", subject="anna").count() == 5
    assert log_in("") == 302, "the log-in still needs only the password"


def test_a_key_that_somebody_saw_before_is_replaced_when_the_set_up_begins_again(account: MakeAccount) -> None:
    anna = account("anna", "operator", password=True)
    browser = Client()
    browser.force_login(anna, "django.contrib.auth.backends.ModelBackend")
    browser.post("/account/second-factor/", {"begin": "1"})
    seen = TOTPDevice.objects.get(user=anna).bin_key
    browser.post("/account/second-factor/", {"begin": "1"})
    assert TOTPDevice.objects.get(user=anna).bin_key != seen


def test_the_answer_does_not_say_whether_the_password_was_right(with_factor: tuple[bytes, list[str]]) -> None:
    pages = [Client().post("/log-in/", {"username": "anna", "password": word}).content.decode() for word in (PASSWORD, "wrong")]
    first, second = (re.sub(r"[A-Za-z0-9]{64}|value=\"[^\"]*\"", "", page) for page in pages)
    assert first == second


def test_the_factor_is_removed_with_password_and_code_or_by_an_administrator(
    with_factor: tuple[bytes, list[str]], account: MakeAccount, administrator: Client
) -> None:
    anna = TOTPDevice.objects.get().user
    browser = Client()
    browser.force_login(anna, "django.contrib.auth.backends.ModelBackend")
    for wrong in ({"password": "wrong", "code": with_factor[1][0]}, {"password": PASSWORD}):
        browser.post("/account/second-factor/remove/", wrong)
    assert TOTPDevice.objects.exists()
    form = {"role": "operator", "is_active": "on", "password": "", "without_second_factor": "on"}
    assert browser.get("/account/").status_code == 200
    assert administrator.post(f"/accounts/{anna.pk}/", form).status_code == 302
    assert browser.get("/account/").status_code == 302, "the session that began with the lost phone has ended"
    assert administrator.get("/accounts/").status_code == 200
    assert log_in("") == 302
    assert AuditEntry.objects.filter(action="account changed", subject="anna", detail={"changed": ["second factor removed"]}).exists()


def test_a_change_of_the_second_factor_logs_the_account_out_everywhere_else(account: MakeAccount) -> None:
    anna = account("anna", "operator", password=True)
    browser = Client()
    browser.force_login(anna, "django.contrib.auth.backends.ModelBackend")

    def open_elsewhere() -> Client:
        other = Client()
        other.force_login(User.objects.get(pk=anna.pk), "django.contrib.auth.backends.ModelBackend")
        assert other.get("/account/").status_code == 200
        return other

    def check_ended(other: Client) -> None:
        assert (browser.get("/account/").status_code, other.get("/account/").status_code) == (200, 302)

    other = open_elsewhere()
    browser.post("/account/second-factor/", {"begin": "1"})
    key = TOTPDevice.objects.get(user=anna).bin_key
    done = browser.post("/account/second-factor/", {"code": show_code(key), "password": PASSWORD}).content.decode()
    check_ended(other)
    codes, other = re.findall(r"<code>([a-z2-7-]+)</code>", done), open_elsewhere()
    done = browser.post("/account/second-factor/recovery-codes/", {"code": codes[0], "password": PASSWORD}).content.decode()
    check_ended(other)
    codes, other = re.findall(r"<code>([a-z2-7-]+)</code>", done), open_elsewhere()
    browser.post("/account/second-factor/remove/", {"code": codes[0], "password": PASSWORD})
    check_ended(other)
    assert not TOTPDevice.objects.exists()
    assert log_in("") == 302, "the password is the same"
