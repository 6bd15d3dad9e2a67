"""Clients that guess a token are delayed, and a camera behind the same address goes on."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from aiohttp.test_utils import make_mocked_request
from aiohttp.web import Request
from prometheus_client import REGISTRY
from pydantic import SecretStr

from agents.gateway import token_check
from agents.gateway.token_check import KnownClients, TokenCheck
from agents.gateway.upload_request import RequestRefusedError, make_refusal

TOKEN = SecretStr("a-right-token")


class Guesser:
    """Sends requests from chosen addresses to a TokenCheck, whose clock the test sets."""

    def __init__(self, proxies: int = 0, known: KnownClients | None = None) -> None:
        self.now_s = 1000.0
        self.check = TokenCheck(proxies, ("127.0.0.1",), lambda: self.now_s, max_networks=100, known=known)

    def send(self, token: str, address: str = "192.0.2.1", line: str = "line-1", **headers: str) -> int:
        """Returns the status of the answer."""
        try:
            self.check.expect_token(make_request(token, address, headers), TOKEN, line, line)
        except RequestRefusedError as error:
            return make_refusal(error).status
        return 200

    def fail(self, times: int, address: str = "192.0.2.1", begin: int = 0, **headers: str) -> list[int]:
        """Sends `times` different wrong tokens. Returns the statuses of the answers."""
        return [self.send(f"guess-{number}", address, **headers) for number in range(begin, begin + times)]


def make_request(token: str, address: str, headers: dict[str, str]) -> Request:
    fields = {name.replace("_", "-"): value for name, value in headers.items()}
    return make_mocked_request("POST", "/", {"Authorization": f"Bearer {token}", **fields}).clone(remote=address)


def test_after_ten_wrong_tokens_the_next_ones_are_not_looked_at_for_growing_times() -> None:
    guesser = Guesser()
    assert guesser.fail(10) == [401] * 10
    for delay_s in (1, 2, 4, 8, 10, 10):
        guesser.now_s += delay_s - 0.1
        assert guesser.send("a-right-token") == 429
        guesser.now_s += 0.2
        assert guesser.send(f"guess after {guesser.now_s}") == 401
    guesser.now_s += 10
    assert guesser.send("a-right-token") == 200


def test_the_answer_says_how_long_to_wait() -> None:
    guesser = Guesser()
    guesser.fail(10)
    with pytest.raises(RequestRefusedError, match=r"192\.0\.2\.1 has sent too many wrong tokens; wait 1 s") as caught:
        guesser.check.expect_token(make_request("guess", "192.0.2.1", {}), TOKEN, "line-1", "line-1")
    assert make_refusal(caught.value).headers["Retry-After"] == "1"


def test_a_camera_that_has_sent_the_right_token_goes_on_behind_the_same_address() -> None:
    guesser = Guesser()
    assert guesser.send("a-right-token") == 200
    for begin in range(0, 50, 5):
        guesser.fail(5, begin=begin)
        assert guesser.send("a-right-token") == 200
    assert guesser.send("a-right-token", line="line-2") == 429, "the right token of another line counts for that line only"
    assert guesser.send("a-right-token", "192.0.2.2") == 200


def test_all_addresses_of_an_ipv6_network_are_one_client() -> None:
    guesser = Guesser()
    assert [guesser.send(f"guess-{number}", f"2001:db8:0:1::{number}") for number in range(12)] == [401] * 10 + [429] * 2
    assert guesser.send("guess", "2001:db8:0:2::1") == 401


def test_behind_a_proxy_the_clients_are_told_apart_and_nobody_else_can_name_an_address() -> None:
    guesser = Guesser(proxies=1)
    guesser.fail(20, "127.0.0.1", X_Forwarded_For="192.0.2.7")
    assert guesser.send("a-right-token", "127.0.0.1", X_Forwarded_For="192.0.2.7") == 429
    assert guesser.send("a-right-token", "127.0.0.1", X_Forwarded_For="192.0.2.8") == 200
    assert [guesser.send(f"guess-{number}", "192.0.2.9", X_Forwarded_For=f"10.0.0.{number}") for number in range(12)].count(429) == 2


def test_wrong_tokens_are_forgotten_after_a_quarter_of_an_hour_and_memory_is_bounded() -> None:
    guesser = Guesser()
    guesser.fail(11)
    guesser.now_s += 901
    assert guesser.fail(10) == [401] * 10
    for number in range(100):
        guesser.send("guess", f"10.0.0.{number}")
    assert guesser.send("guess") == 401, "the oldest network is forgotten first"


def test_wrong_tokens_are_counted_for_the_alert_and_missing_ones_are_not() -> None:
    guesser = Guesser()

    def count() -> float:
        return REGISTRY.get_sample_value("castline_wrong_tokens_total", {"line": "counted"}) or 0.0

    before = count()
    assert [guesser.send(f"guess-{number}", line="counted") for number in range(12)].count(429) == 2
    for headers in ({"Authorization": ""}, {"Authorization": "Digest x"}):
        with pytest.raises(RequestRefusedError):
            guesser.check.expect_token(make_request("", "192.0.2.1", headers), TOKEN, "counted", "counted")
    assert count() - before == 12


@pytest.mark.parametrize("wrong_cameras", [1, 9, 12])
@pytest.mark.parametrize("begin_s", [10, 15, 60])
def test_cameras_with_a_wrong_token_keep_no_camera_behind_their_address_out_after_a_restart(wrong_cameras: int, begin_s: int) -> None:
    """The gateway has just started. Each wrong camera sends a picture a second, and the right one sends its first picture later."""
    guesser = Guesser()
    for _ in range(begin_s):
        guesser.now_s += 1
        guesser.fail(wrong_cameras)
    assert guesser.send("a-right-token") == 200
    guesser.now_s += 1
    assert guesser.fail(1) == [401], "the wrong camera learns that its token is wrong, and not that it must wait"
    assert guesser.send("a-right-token") == 200


def test_twelve_cameras_with_wrong_tokens_delay_a_new_camera_only_until_each_token_was_refused_once() -> None:
    guesser, answers = Guesser(), []
    for turn in range(100):
        guesser.now_s += 20
        guesser.fail(12)
        answers.append(guesser.send("a-right-token", line=f"the new line {turn}"))
    assert answers == [429] * 3 + [200] * 97
    assert guesser.fail(10, begin=100) == [401] * 10, "the wrong tokens of the first minute no longer count"
    assert guesser.send("a-right-token", line="a further line") == 429


def test_a_wrong_token_that_a_network_no_longer_repeats_is_forgotten() -> None:
    guesser = Guesser()
    guesser.fail(12)
    for _ in range(4):
        guesser.now_s += 300
        guesser.send("guess-0")
    assert guesser.fail(10, begin=100) == [401] * 10, "the repeated token still counts as no guess"
    assert guesser.send("guess-1") == 429, "a forgotten token is a guess again"


def test_a_token_that_is_wrong_for_one_line_may_be_right_for_another() -> None:
    guesser = Guesser()
    assert guesser.send("the-token-of-line-2", line="line-1") == 401
    guesser.check.expect_token(make_request("the-token-of-line-2", "192.0.2.1", {}), SecretStr("the-token-of-line-2"), "line-2", "line-2")


def test_a_repeated_token_ends_no_delay_of_other_guesses() -> None:
    guesser = Guesser()
    guesser.fail(14)
    assert guesser.fail(1) == [401]
    assert guesser.send("another-guess") == 429
    assert guesser.send("a-right-token") == 429


def test_a_camera_that_ran_before_a_restart_goes_on_although_somebody_guesses(tmp_path: Path) -> None:
    file = tmp_path / "line-1.clients.json"
    clients = KnownClients(file)
    guesser = Guesser(known=clients)
    assert guesser.send("a-right-token") == 200
    clients.save()
    assert TOKEN.get_secret_value() not in file.read_text()
    assert file.stat().st_mode & 0o777 == 0o600
    restarted = Guesser(known=KnownClients(file))
    assert restarted.fail(20).count(429) == 10
    assert restarted.send("a-right-token") == 200
    assert restarted.send("a-right-token", line="line-2") == 429


def test_a_client_that_is_added_while_the_file_is_written_is_written_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    clients = KnownClients(tmp_path / "line-1.clients.json")
    put_last = token_check._put_last

    def put_after_save(*arguments: Any) -> None:
        clients.save()  # The thread that writes the file runs at the worst time.
        put_last(*arguments)

    monkeypatch.setattr(token_check, "_put_last", put_after_save)
    clients.add(("192.0.2.1", "line-1"))
    clients.save()
    assert ("192.0.2.1", "line-1") in KnownClients(tmp_path / "line-1.clients.json")


def test_known_clients_are_bounded_and_a_file_that_cannot_be_used_stops_nobody(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    file = tmp_path / "line-1.clients.json"
    clients = KnownClients(file, max_count=10)
    for number in range(30):
        clients.add((f"192.0.2.{number}", "line-1"))
    clients.save()
    kept = KnownClients(file)
    assert [number for number in range(30) if (f"192.0.2.{number}", "line-1") in kept] == list(range(20, 30))
    file.write_text('{"broken": ')
    assert ("192.0.2.29", "line-1") not in KnownClients(file)
    assert "cannot be read" in caplog.text
    lost = KnownClients(file / "below-a-file")
    for number in (1, 2):
        lost.add((f"192.0.2.{number}", "line-1"))
        lost.save()
    assert caplog.text.count("cannot be written") == 1
    assert ("192.0.2.1", "line-1") in lost


def test_a_proxy_that_the_settings_do_not_name_is_reported_once(caplog: pytest.LogCaptureFixture) -> None:
    guesser = Guesser()
    assert guesser.send("guess", X_Forwarded_For="192.0.2.7") == 401
    assert guesser.send("a-right-token") == 200
    assert guesser.check.find_proxy_problem() == "", "a stranger with the header raises no alarm"
    for _ in range(3):
        assert guesser.send("a-right-token", "127.0.0.1", X_Forwarded_For="192.0.2.7") == 200
    assert "set gateway.proxies to the number of proxies" in guesser.check.find_proxy_problem()
    assert caplog.text.count("gateway.proxies is 0") == 1
    behind_a_proxy = Guesser(proxies=1)
    assert behind_a_proxy.send("a-right-token", "127.0.0.1", X_Forwarded_For="192.0.2.7") == 200
    assert behind_a_proxy.check.find_proxy_problem() == ""
