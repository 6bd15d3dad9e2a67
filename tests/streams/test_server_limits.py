"""The limits of connections: for each network and in total. The longest idle connection gives way."""

from __future__ import annotations

import pytest

from streams.server_limits import ConnectionLimits, compute_body_time_s, find_network


@pytest.mark.parametrize(
    ("address", "network"),
    [
        ("192.168.1.7", "192.168.1.7"),
        ("::ffff:192.168.1.7", "192.168.1.7"),
        ("2001:db8:1:2:3:4:5:6", "2001:db8:1:2::/64"),
        ("fe80::1%eth0", "fe80::/64"),
        ("", ""),
    ],
)
def test_a_client_is_an_ipv4_address_or_an_ipv6_network(address: str, network: str) -> None:
    assert find_network(address) == network


def test_a_further_connection_takes_the_place_of_the_longest_idle_one_of_its_network() -> None:
    limits, aborted = ConnectionLimits(max_per_network=2, max_total=10), list[str]()
    busy = limits.add("10.0.0.1", lambda: aborted.append("busy"))
    other = limits.add("10.0.0.2", lambda: aborted.append("other"))
    idle = limits.add("10.0.0.1", lambda: aborted.append("idle"))
    assert busy
    assert other
    assert idle
    busy.is_idle = False
    newest = limits.add("10.0.0.1", lambda: aborted.append("newest"))
    assert newest
    assert aborted == ["idle"]
    newest.is_idle = False
    assert limits.add("10.0.0.1", lambda: None) is None
    assert len(limits) == 3
    idle.close()
    newest.close()
    newest.close()
    assert len(limits) == 2
    assert limits.add("10.0.0.1", lambda: None)


def test_in_total_the_longest_idle_connection_of_any_network_gives_way() -> None:
    limits, aborted = ConnectionLimits(max_per_network=2, max_total=2), list[int]()
    for number in range(5):
        assert limits.add(f"10.0.0.{number}", lambda number=number: aborted.append(number))  # type: ignore[misc]
    assert aborted == [0, 1, 2]
    assert len(limits) == 2


def test_an_old_connection_that_is_used_again_and_again_does_not_give_way_to_silent_ones() -> None:
    limits, aborted = ConnectionLimits(max_per_network=3, max_total=9), list[str]()
    camera = limits.add("10.0.0.1", lambda: aborted.append("camera"))
    assert camera
    for number in range(4):
        assert limits.add("10.0.0.1", lambda: aborted.append("silent"))
        camera.is_idle = False
        camera.is_idle = True
        assert aborted == ["silent"] * max(0, number - 1)


def test_a_body_gets_more_time_only_for_bytes_that_have_arrived() -> None:
    assert [compute_body_time_s(size) for size in (0, 2**15, 2**20)] == [20, 21, 52]
