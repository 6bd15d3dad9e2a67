"""The mix of requests and the arithmetic of `make campaign-attack`."""

from __future__ import annotations

import asyncio
import json
import zlib
from collections import Counter
from dataclasses import asdict
from datetime import UTC, datetime, timedelta

import pytest

from deploy.demo.audit import VerdictRecord
from tests.attack_campaign import (
    CampaignReport,
    PairAges,
    Run,
    RunAges,
    bootstrap_median,
    compare_ages,
    describe_report,
    find_shortcomings,
    find_unanswered,
    make_pairs,
    measure_ages,
)
from tests.attack_client import SHARES, ClientResult, Orders, make_attacks, make_mix, make_png, send_attacks
from tests.fake_inspector import make_verdict

ORDERS = Orders(18000, 18080, "sessionid=of-otto", "token-of-rita", "token-of-the-line", seed=3, count=5000, rate_per_s=200)
BEGAN_AT = datetime(2026, 11, 27, 12, tzinfo=UTC)


def make_record(part: int, captured_s: float, age_ms: float) -> VerdictRecord:
    captured_at = BEGAN_AT + timedelta(seconds=captured_s)
    verdict = make_verdict("line-1", 1, part, "ok", captured_at).model_copy(
        update={"received_at": captured_at + timedelta(milliseconds=20), "decided_at": captured_at + timedelta(milliseconds=30)}
    )
    return VerdictRecord(verdict, captured_at + timedelta(milliseconds=age_ms))


def make_run(pair: int, is_attack: bool, began_s: float) -> Run:
    seconds = BEGAN_AT.timestamp() + began_s
    answers = {"bomb at the station": {"422": 3}} if is_attack else {"bomb at the station": {"404": 3}}
    return Run(pair, is_attack, ClientResult(answers, seconds, seconds + 10, 0.01, 1.5), {"station": 2.0})


def test_the_mix_has_each_share_and_the_same_seed_gives_the_same_order() -> None:
    mix = make_mix(3, 5000)
    assert Counter(mix) == {kind: 50 * share for kind, share in SHARES.items()}
    assert sum(SHARES.values()) == 100
    assert mix == make_mix(3, 5000) != make_mix(4, 5000)
    assert len(make_mix(1, 333)) == 333


def test_the_requests_are_what_their_kinds_say() -> None:
    attacks = make_attacks(ORDERS)
    assert {attack.source for attack in attacks} == {f"127.0.1.{number}" for number in range(1, 9)}
    by_kind = {kind: [attack for attack in attacks if attack.kind == kind] for kind in SHARES}
    assert all(not attack.data for attack in by_kind["silent socket"])
    assert all(len(attack.data) > 80_000 and b"\r\n\r\n" in attack.data for attack in by_kind["oversized header"])
    assert all(b"Content-Length: 1073741824" in attack.data for attack in by_kind["oversized body"])
    assert all(attack.is_slow == (attack.kind == "slow body") for attack in attacks)
    assert all(attack.server == "station" and b"sessionid=of-otto" in attack.data for attack in by_kind["stream"])
    assert len({attack.data for attack in by_kind["log-in"]}) == len(by_kind["log-in"])
    for kind in ("unknown path", "oversized header", "oversized body", "slow body", "silent socket", "bomb"):
        servers = Counter(attack.server for attack in by_kind[kind])
        assert servers["station"] == servers["gateway"] == len(by_kind[kind]) // 2
    bombs = [attack.data.partition(b"\r\n\r\n")[2] for attack in by_kind["bomb"] if attack.server == "gateway"]
    assert all(len(bomb) < 70_000 and len(zlib.decompress(bomb)) == 64 * 2**20 for bomb in bombs[:1])
    uploads = [attack.data.partition(b"\r\n\r\n")[2] for attack in by_kind["bomb"] if attack.server == "station"]
    assert len(set(uploads)) == len(uploads)
    assert {len(upload) > 30_000 for upload in uploads} == {True, False}


def test_a_bomb_is_a_valid_picture() -> None:
    from io import BytesIO

    from PIL import Image

    with Image.open(BytesIO(make_png(200, 7))) as picture:
        picture.load()
        assert (picture.size, picture.getextrema()) == ((200, 200), (0, 0))


def test_the_client_counts_the_answers_and_gives_open_connections_up() -> None:
    async def run() -> ClientResult:
        async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            line = await reader.readline()
            if line.startswith(b"GET /unknown"):
                writer.write(b"HTTP/1.1 404 Not Found\r\n\r\n")
            elif line.startswith(b"GET /live"):
                writer.write(b"HTTP/1.1 200 OK\r\n\r\n")
                await reader.read()
            elif not line.startswith(b"POST"):
                await reader.read()
            writer.close()

        server = await asyncio.start_server(answer, "127.0.0.1", 0)
        port = server.sockets[0].getsockname()[1]
        orders = Orders(port, port, "", "", "", seed=1, count=100, rate_per_s=200)
        result = await send_attacks(orders)
        server.close()
        return result

    result = asyncio.run(run())
    assert result.answers["unknown path at the station"] == {"404": 18}
    assert result.answers["silent socket at the gateway"] == {"given up": 5}
    assert result.answers["log-in at the station"] == {"closed": 15}
    assert result.answers["stream at the station"] == {"200": 5}
    assert sum(sum(found.values()) for found in result.answers.values()) == 100
    assert 0.4 < result.ended_s - result.began_s < 5


def test_the_ages_of_a_run_are_those_of_the_castings_that_were_captured_in_it() -> None:
    records = [make_record(part, part / 10, 50 + part) for part in range(1, 201)]
    start = BEGAN_AT.timestamp()
    assert measure_ages(records, start + 5, start + 14.95) == RunAges(149, 198, 100, (20, 10, 119.5))
    with pytest.raises(ValueError, match="no casting"):
        measure_ages(records, start + 100, start + 110)


def test_the_result_is_the_median_of_the_differences_in_the_pairs() -> None:
    pairs = [
        PairAges(RunAges(100 + rise, 300 + 2 * rise, 50, (20, 30, 5)), RunAges(100, 300, 50, (20, 30, 5)))
        for rise in (1, 2, 3, 4, 5, 6, 7, 8, 9, 90)
    ]
    comparison = compare_ages(pairs, seed=1)
    assert comparison.p50_rise.median == 5.5
    assert comparison.p50_rise.interval == (2.0, 9.0)
    assert comparison.p99_rise_ms == 11
    assert 4 <= comparison.p99_rise_interval[0] < 11 < comparison.p99_rise_interval[1] <= 18
    assert comparison.attacked_p99_ms == 311


def test_the_bootstrap_interval_of_equal_values_is_a_point_and_of_many_values_is_narrow() -> None:
    assert bootstrap_median([7.0] * 10, 1) == (7, 7)
    low, high = bootstrap_median([float(value) for value in range(1001)], 1)
    # The standard error of the median of n uniform values is range / (2 sqrt(n)), here 15.8.
    assert 460 < low < 480 < 520 < high < 540


def test_only_complete_pairs_count() -> None:
    runs = [make_run(1, True, 0), make_run(1, False, 20), make_run(2, False, 40), make_run(2, True, 60), make_run(3, True, 80)]
    attacked = {*range(10), *range(60, 100)}
    records = [make_record(second + 1, second, 150 if second in attacked else 100) for second in range(100)]
    assert [(pair.attacked.p50_ms, pair.quiet.p50_ms) for pair in make_pairs(runs, records)] == [(150, 100), (150, 100)]


def test_each_missed_bar_is_named_in_the_report() -> None:
    audit = {"parts": 100, "lost_for": {"picture": 0, "verdict": 0, "sorting": 0}, "late": 0}
    good = compare_ages([PairAges(RunAges(110, 300, 50, (20, 30, 5)), RunAges(100, 300, 50, (20, 30, 5)))], seed=1)
    slow = compare_ages([PairAges(RunAges(111, 300, 50, (20, 30, 5)), RunAges(100, 300, 50, (20, 30, 5)))], seed=1)
    assert find_shortcomings(good, audit, {}) == []
    assert find_shortcomings(slow, audit, {}) == ["The p50 of the age rose by 11.0 ms. At most 10 ms are allowed."]
    missing = audit | {"lost_for": {"picture": 0, "verdict": 2, "sorting": 1}}
    assert find_shortcomings(good, missing, {}) == ["2 castings have no verdict.", "1 castings have no sorting."]
    assert find_shortcomings(good, audit | {"parts": 0}, {}) == ["The line counted no casting."]
    assert find_shortcomings(good, audit, {"station": 2}) == ["The supervisor had to start the station again, 2 times."]
    report = CampaignReport(slow, missing, {}, [make_run(1, True, 0), make_run(1, False, 20)], find_shortcomings(slow, missing, {}))
    text = describe_report(report)
    assert "rise of p50: +11.0 ms" in text
    assert "capture to inspector 20.0 20.0, inspector 30.0 30.0, inspector to Kafka 5.0 5.0" in text
    assert "bomb at the station                422: 3" in text
    assert "requests: 3 to the plant, 3 to the empty server" in text
    assert text.endswith("2 castings have no verdict.\n1 castings have no sorting.")
    assert json.loads(json.dumps(asdict(report)))["comparison"]["p50_rise"]["median"] == 11


def test_a_station_that_answered_nothing_is_no_good_result() -> None:
    def attack(**answers: int) -> Run:
        found = {answer.removeprefix("status_"): count for answer, count in answers.items()}
        return Run(1, True, ClientResult({"unknown path at the station": found}, 0.0, 1.0, 0.0, 0.0), {})

    assert find_unanswered([attack(status_404=5, given=5), make_run(1, False, 0)]) == []
    (sentence,) = find_unanswered([attack(status_404=1, given=9)])
    assert sentence.startswith("The station answered only 1 of 10 unknown paths.")
