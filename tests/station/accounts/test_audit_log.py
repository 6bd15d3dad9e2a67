"""Tests of the audit log: its chain, the entries for reviews, uploads and exports, and the copy for a log server."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import resource
import socket
import sqlite3
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
import tomli_w
from django.test import Client
from django.test.utils import override_settings
from prometheus_client import REGISTRY

from station.accounts.audit_log import SyslogSender, keep_shipping, list_records, ship_new_entries, verify_chain
from station.accounts.models import AuditEntry, AuditShipment, chain_sha256
from streams import metrics
from tests.processes import CASTLINE
from tests.station.conftest import SETTINGS, MakePart


@pytest.fixture
def many_open_files() -> Iterator[None]:
    """Keeps so many files open that the number of the next one is above 1023, the largest number that `select.select` takes."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(4096, hard) if hard != resource.RLIM_INFINITY else 4096, hard))
    opened: list[int] = []
    try:
        while not opened or opened[-1] < 1024:
            opened.append(os.open(os.devnull, os.O_RDONLY))
        yield
    finally:
        for descriptor in opened:
            os.close(descriptor)
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def record_three() -> list[AuditEntry]:
    for number in range(3):
        AuditEntry.record(None, "tested", f"entry {number}", number=number, words=["a", "ü"])
    return list(AuditEntry.objects.order_by("id"))


def test_the_chain_of_untouched_entries_fits(database: Path) -> None:
    entries = record_three()
    report = verify_chain()
    assert (report.entries, report.head, report.faults) == (3, entries[-1].sha256, ())
    assert verify_chain(entries[0].sha256).faults == ()


@pytest.mark.parametrize("change", [{"who": "nobody"}, {"detail": {"number": 7}}, {"address": "192.0.2.1"}, {"sha256": "0" * 64}])
def test_a_changed_entry_is_found(database: Path, change: dict[str, object]) -> None:
    entries = record_three()
    AuditEntry.objects.filter(pk=entries[1].pk).update(**change)
    assert f"Entry {entries[1].pk} " in verify_chain().faults[0]


def test_a_removed_entry_is_found(database: Path) -> None:
    entries = record_three()
    entries[1].delete()
    assert f"Entry {entries[2].pk} " in verify_chain().faults[0]


def test_entries_removed_at_the_end_and_a_new_chain_are_found_with_a_noted_hash(database: Path) -> None:
    entries = record_three()
    head = entries[2].sha256
    entries[2].delete()
    assert verify_chain().faults == ()
    assert verify_chain(head).faults == (f"No entry has the hash {head}. The entry was changed or removed.",)


def test_another_program_can_verify_the_exported_entries(database: Path) -> None:
    record_three()
    previous = ""
    for record in map(json.loads, (json.dumps(record) for record in list_records())):
        assert record.pop("number")
        expected = record.pop("sha256")
        assert chain_sha256(previous, record) == expected
        previous = expected


def test_each_new_entry_reaches_the_log_server_once(database: Path) -> None:
    received = bytearray()
    with socket.create_server(("127.0.0.1", 0)) as listening:
        listening.settimeout(20)

        def receive() -> None:
            with listening.accept()[0] as connection:
                connection.settimeout(20)
                while chunk := connection.recv(65536):
                    received.extend(chunk)

        server = threading.Thread(target=receive)
        server.start()
        sender = SyslogSender(f"tcp://127.0.0.1:{listening.getsockname()[1]}")
        entries = record_three()
        assert ship_new_entries(sender) == 3
        assert ship_new_entries(sender) == 0
        AuditEntry.record(None, "tested", "later")
        assert ship_new_entries(sender) == 1
        sender.close()
        server.join(20)
    lines = received.decode().splitlines()
    assert [json.loads(line.partition(": ")[2])["subject"] for line in lines] == ["entry 0", "entry 1", "entry 2", "later"]
    assert all(line.startswith("<86>castline-audit: ") for line in lines)
    assert json.loads(lines[2].partition(": ")[2])["sha256"] == entries[2].sha256


def test_a_log_server_that_is_away_gets_the_entries_later(database: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listening:
        address = f"tcp://127.0.0.1:{listening.getsockname()[1]}"
    record_three()
    with pytest.raises(OSError, match="refused"):
        ship_new_entries(SyslogSender(address))
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as server:
        server.bind(("127.0.0.1", 0))
        server.settimeout(20)
        sender = SyslogSender(f"udp://127.0.0.1:{server.getsockname()[1]}")
        assert ship_new_entries(sender) == 3
        sender.close()
        assert b'"subject": "entry 0"' in server.recv(65536)


@pytest.mark.parametrize("kind", ["udp", "socket"])
def test_an_entry_that_is_too_large_for_a_datagram_does_not_hold_back_newer_entries(database: Path, tmp_path: Path, kind: str) -> None:
    large = {"before": "ü" * 150_000}
    AuditEntry.record(None, "tested", "large", **large)
    AuditEntry.record(None, "tested", "later")
    with socket.socket(socket.AF_INET if kind == "udp" else socket.AF_UNIX, socket.SOCK_DGRAM) as server:
        server.bind(("127.0.0.1", 0) if kind == "udp" else str(tmp_path / "log"))
        server.settimeout(20)
        sender = SyslogSender(f"udp://127.0.0.1:{server.getsockname()[1]}" if kind == "udp" else str(tmp_path / "log"))
        assert ship_new_entries(sender) == 2
        sender.close()
        first, second = (json.loads(server.recv(65536).partition(b": ")[2]) for _ in range(2))
    content = json.dumps(large, separators=(",", ":")).encode()
    assert first["detail"] == {"omitted_bytes": len(content), "omitted_sha256": hashlib.sha256(content).hexdigest()}
    assert (first["sha256"], second["subject"]) == (AuditEntry.objects.get(subject="large").sha256, "later")


def test_an_entry_that_reached_the_log_server_is_not_sent_again_after_an_error(database: Path, tmp_path: Path) -> None:
    AuditEntry.record(None, "tested", "entry 0")
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as server:
        server.bind(str(tmp_path / "log"))
        sender = SyslogSender(str(tmp_path / "log"), timeout_s=0.1)
        # A socket that nobody reads takes only so many datagrams.
        for number in range(int(Path("/proc/sys/net/unix/max_dgram_qlen").read_text()) + 10):
            AuditEntry.record(None, "tested", f"entry {number + 1}")
        with pytest.raises(TimeoutError):
            ship_new_entries(sender)
        server.setblocking(False)
        subjects = []
        with contextlib.suppress(BlockingIOError):
            while True:
                subjects.append(json.loads(server.recv(65536).partition(b": ")[2])["subject"])
        assert AuditShipment.objects.get().shipped == AuditEntry.objects.get(subject=subjects[-1]).pk
        sender.close()


def test_the_log_server_gets_entries_from_a_process_with_many_open_files(database: Path, many_open_files: None) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listening:
        sender = SyslogSender(f"tcp://127.0.0.1:{listening.getsockname()[1]}")
        record_three()
        assert ship_new_entries(sender) == 3
        sender.close()


def test_an_error_of_any_kind_is_shown_while_the_copy_fails(database: Path) -> None:
    # The host name is too long, which is neither an error of the network nor of the database.
    station = SETTINGS.station.model_copy(update={"audit_syslog": f"udp://{'x' * 64}:514"})
    metrics.audit_shipping_failing.set(0)
    with override_settings(CASTLINE=SETTINGS.model_copy(update={"station": station})), pytest.raises(UnicodeError):
        keep_shipping()
    assert REGISTRY.get_sample_value("castline_audit_shipping_failing") == 1


def test_no_entry_is_lost_if_the_log_server_closes_the_connection(database: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listening:
        listening.settimeout(20)
        address = f"tcp://127.0.0.1:{listening.getsockname()[1]}"
        sender = SyslogSender(address)
        record_three()
        assert ship_new_entries(sender) == 3
        connection = listening.accept()[0]
        connection.recv(65536)
        connection.close()
        AuditEntry.record(None, "tested", "later")
        with pytest.raises(ConnectionResetError):
            ship_new_entries(sender)
        sender.close()
        again = SyslogSender(address)
        assert ship_new_entries(again) == 1
        with listening.accept()[0] as connection:
            assert b'"subject": "later"' in connection.recv(65536)
        again.close()


def test_exports_are_in_the_audit_log_with_their_address(reviewer: Client, part: MakePart) -> None:
    part()
    reviewer.head("/history/export.csv")
    exported = reviewer.get("/history/export.csv?label=ok", REMOTE_ADDR="192.0.2.7")
    assert exported.status_code == 200
    entry = AuditEntry.objects.get()
    assert (entry.who, entry.action, entry.address, entry.detail) == (
        "reviewer",
        "exported the history",
        "192.0.2.7",
        {"filters": "label=ok"},
    )


@pytest.mark.real
def test_a_database_of_release_0_1_0_keeps_its_entries_accounts_and_tokens(tmp_path: Path) -> None:
    database, settings = tmp_path / "station.sqlite3", tmp_path / "castline.toml"
    settings.write_text(tomli_w.dumps({"station": {"database": str(database), "secret_key_file": str(tmp_path / "key")}}))
    old_tables = (
        "from pathlib import Path\n"
        "from streams.settings import load_settings\n"
        "from station.configuration import configure\n"
        f"configure(load_settings(Path({str(settings)!r})))\n"
        "from django.core.management import call_command\n"
        "call_command('migrate', 'accounts', '0002_roles', verbosity=0)\n"
        "call_command('migrate', 'contenttypes', verbosity=0)\n"
    )
    subprocess.run([sys.executable, "-c", old_tables], check=True, timeout=120)
    with sqlite3.connect(database) as connection:
        connection.execute("INSERT INTO auth_user VALUES (1, '!', NULL, 0, 'anna', '', '', 0, 1, '2026-11-01 10:00:00', '')")
        connection.execute("INSERT INTO accounts_apitoken VALUES (1, 'press', ?, '2026-11-01 10:00:00', NULL, 1)", ["a" * 64])
        for number in range(3):
            values = ["2026-11-01 10:00:00.5", "anna", "tested", f"entry {number}", json.dumps({"share": 0.35, "wörter": [1, None]})]
            connection.execute("INSERT INTO accounts_auditentry (at, who, action, subject, detail) VALUES (?, ?, ?, ?, ?)", values)
    connection.close()

    def run(*arguments: str) -> subprocess.CompletedProcess[str]:
        command = [str(CASTLINE), "--settings", str(settings), "station", *arguments]
        return subprocess.run(command, capture_output=True, text=True, check=False, timeout=120)

    assert "accounts.0003" in run("migrate").stdout
    verified = run("audit", "verify")
    assert verified.returncode == 0, verified.stderr
    assert verified.stdout.startswith("3 entries, 0 faults")
    assert [json.loads(line)["subject"] for line in run("audit", "export", "--after", "1").stdout.splitlines()] == ["entry 1", "entry 2"]
    with sqlite3.connect(database) as connection:
        assert connection.execute("SELECT name, expires_at, scope FROM accounts_apitoken").fetchall() == [("press", None, "inspect")]
        connection.execute("UPDATE accounts_auditentry SET who = 'nobody' WHERE id = 2")
    connection.close()
    tampered = run("audit", "verify")
    assert (tampered.returncode, "Entry 2 " in tampered.stderr) == (1, True)
