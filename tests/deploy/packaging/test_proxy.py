"""The shipped configuration of nginx, with a real nginx before a real station and a real server of the gateway."""

from __future__ import annotations

import getpass
import http.client
import socket
import ssl
import subprocess
import time
from collections.abc import Iterator
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from pathlib import Path

import pytest
import trustme

from deploy.supervisor.launch import bound_command
from deploy.supervisor.ports import free_ports
from streams.settings import Settings
from tests.debian import find_program
from tests.processes import CastlineProcess
from tests.station.browser.plant import PASSWORD, create_account

pytestmark = [pytest.mark.real, pytest.mark.timeout(240)]

SHIPPED = Path("deploy/packaging/proxy/castline.conf")
Answer = tuple[int, dict[str, str], str]


@dataclass
class Proxy:
    """A running nginx with the shipped configuration, before a station."""

    port: int
    http_port: int
    camera_port: int
    client_port: int
    folder: Path
    station: CastlineProcess
    tls: ssl.SSLContext

    def connect(self, source: str, port: int | None = None) -> ssl.SSLSocket:
        plain = socket.create_connection(("127.0.0.1", port or self.port), 20, source_address=(source, 0))
        return self.tls.wrap_socket(plain, server_hostname="castline.test")

    def request(self, method: str, path: str, source: str, body: bytes | None = None, port: int | None = None, **headers: str) -> Answer:
        """Returns status, header fields and body of the answer."""
        connection = http.client.HTTPConnection("castline.test", timeout=30)
        connection.sock = self.connect(source, port)
        try:
            names = {name.replace("_", "-"): value for name, value in headers.items()}
            connection.request(method, path, body, {"Host": f"castline.test:{self.port}", **names})
            response = connection.getresponse()
            return response.status, {name.lower(): value for name, value in response.getheaders()}, response.read().decode(errors="replace")
        finally:
            connection.close()


@pytest.fixture(scope="module")
def proxy(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Proxy]:
    folder = tmp_path_factory.mktemp("proxy")
    folder.chmod(0o755)
    first_port = free_ports(6)
    ports = list(range(first_port, first_port + 6))
    settings = Settings.model_validate(
        {
            "kafka": {"bootstrap": f"127.0.0.1:{ports[0]}"},
            "service": {"run_dir": folder / "run", "log_format": "text"},
            "station": {
                "port": ports[1],
                "database": str(folder / "station.sqlite3"),
                "secret_key_file": folder / "station.key",
                "hosts": ("castline.test",),
                "behind_tls": True,
                "proxies": 1,
            },
            "lines": [{"name": "line-1"}, {"name": "uploads"}],
        }
    )
    authority = trustme.CA()
    certificate = authority.issue_cert("castline.test")
    certificate.private_key_pem.write_to_path(folder / "castline.key")
    for blob in certificate.cert_chain_pems:
        blob.write_to_path(folder / "castline.pem", append=True)
    tls = ssl.create_default_context()
    authority.configure_trust(tls)
    (folder / "castline.conf").write_text(place_shipped(folder, ports))
    temporary = "".join(f"{kind}_temp_path {folder}/{kind};\n" for kind in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi"))
    (folder / "nginx.conf").write_text(
        # Another user could not enter the folder of the test.
        f"user {getpass.getuser()};\ndaemon off;\npid {folder}/nginx.pid;\nevents {{ worker_connections 1024; }}\n"
        f"http {{\naccess_log off;\n{temporary}include {folder}/castline.conf;\n"
        # This server tells which client nginx sees, for an address in the header X-Client.
        f"server {{ listen 127.0.0.1:{ports[5]}; set_real_ip_from 127.0.0.1; real_ip_header X-Client; return 200 $castline_client; }}\n}}\n"
    )
    command = [find_program("nginx"), "-e", str(folder / "error.log"), "-p", str(folder), "-c", str(folder / "nginx.conf")]
    with ExitStack() as stack:
        station = stack.enter_context(CastlineProcess(settings, folder / "station.log", "station")).wait_ready()
        create_account(settings, "anna", "operator")
        nginx = subprocess.Popen(bound_command(command))
        stack.callback(nginx.wait)
        stack.callback(nginx.terminate)
        running = Proxy(ports[2], ports[3], ports[4], ports[5], folder, station, tls)
        wait_for_port(running.port, nginx)
        yield running


def place_shipped(folder: Path, ports: list[int]) -> str:
    """Returns the shipped configuration with other ports and another place of the certificate."""
    text = SHIPPED.read_text()
    for shipped, ours in (
        ("127.0.0.1:18000", f"127.0.0.1:{ports[1]}"),
        ("listen 80;", f"listen 127.0.0.1:{ports[3]};"),
        ("listen [::]:80;", ""),
        ("listen 443 ssl;", f"listen 127.0.0.1:{ports[2]} ssl;"),
        ("listen [::]:443 ssl;", ""),
        ("listen 18443 ssl;", f"listen 127.0.0.1:{ports[4]} ssl;"),
        ("listen [::]:18443 ssl;", ""),
        ("/etc/castline/tls/", f"{folder}/"),
    ):
        assert text.count(shipped) >= 1, shipped
        text = text.replace(shipped, ours)
    return text


def wait_for_port(port: int, process: subprocess.Popen[bytes]) -> None:
    deadline_s = time.monotonic() + 20
    while time.monotonic() < deadline_s:
        assert process.poll() is None
        with suppress(OSError), socket.create_connection(("127.0.0.1", port), 1):
            return
        time.sleep(0.1)
    pytest.fail("nginx does not listen")


def test_pages_come_over_tls_and_cookies_stay_there(proxy: Proxy) -> None:
    status, headers, _ = proxy.request("GET", "/log-in/", "127.0.0.1")
    assert status == 200
    assert "max-age=31536000" in headers["strict-transport-security"]
    assert "secure" in headers["set-cookie"].lower()
    assert "server" not in headers or headers["server"] == "nginx"
    plain = http.client.HTTPConnection("127.0.0.1", proxy.http_port, timeout=20)
    plain.request("GET", "/history/", headers={"Host": "castline.test"})
    response = plain.getresponse()
    assert (response.status, response.getheader("Location")) == (301, "https://castline.test/history/")
    plain.close()
    assert proxy.request("GET", "/log-in/", "127.0.0.1", Host="another.test")[0] == 400


# Of these answers, Django makes the first two, other parts of the station the third one, and nginx itself all others.
@pytest.mark.parametrize(
    ("method", "path", "size", "is_gateway", "status"),
    [
        ("GET", "/log-in/", 0, False, 200),
        ("GET", "/no-such-page/", 0, False, 404),
        ("GET", "/live/pictures/forged", 0, False, 404),
        ("POST", "/", 3 * 2**20, False, 413),
        ("GET", "/metrics", 0, True, 404),
        ("POST", "/lines/line-1/pictures", 0, True, 502),
    ],
)
def test_every_answer_has_each_header_of_protection_once(
    proxy: Proxy, method: str, path: str, size: int, is_gateway: bool, status: int
) -> None:
    connection = http.client.HTTPConnection("castline.test", timeout=30)
    connection.sock = proxy.connect("127.0.8.70", proxy.camera_port if is_gateway else proxy.port)
    connection.request(method, path, bytes(size), {"Host": f"castline.test:{proxy.port}"})
    response = connection.getresponse()
    assert response.status == status
    headers = response.headers
    connection.close()
    names = ("Strict-Transport-Security", "Content-Security-Policy", "X-Content-Type-Options", "Referrer-Policy")
    assert {name: len(headers.get_all(name, [])) for name in names} == dict.fromkeys(names, 1)
    assert "max-age=31536000; includeSubDomains" in headers["Strict-Transport-Security"]
    assert "default-src 'none'" in headers["Content-Security-Policy"]
    assert "frame-ancestors 'none'" in headers["Content-Security-Policy"]
    assert "charset=utf-8" in headers["Content-Type"]


def test_a_program_without_tls_is_refused_and_not_redirected(proxy: Proxy) -> None:
    plain = http.client.HTTPConnection("127.0.0.1", proxy.http_port, timeout=20)
    plain.request("POST", "/api/v1/pictures", b"x", {"Host": "castline.test", "Authorization": "Bearer secret"})
    response = plain.getresponse()
    assert (response.status, response.getheader("Location")) == (403, None)
    assert "https" in response.read().decode()
    plain.close()


def test_a_person_logs_in_and_the_live_stream_arrives_at_once(proxy: Proxy) -> None:
    _, headers, _ = proxy.request("GET", "/log-in/", "127.0.5.1")
    cookie = headers["set-cookie"].split(";")[0]
    form = f"username=anna&password={PASSWORD.replace(' ', '+')}&csrfmiddlewaretoken={cookie.partition('=')[2]}".encode()
    status, headers, _ = proxy.request(
        "POST",
        "/log-in/",
        "127.0.5.1",
        form,
        Cookie=cookie,
        Content_Type="application/x-www-form-urlencoded",
        Referer=f"https://castline.test:{proxy.port}/log-in/",
    )
    assert status == 302
    session = headers["set-cookie"].partition("__Host-sessionid=")[2].partition(";")[0]
    with proxy.connect("127.0.5.1") as stream:
        stream.sendall(f"GET /live/events HTTP/1.1\r\nHost: castline.test\r\nCookie: __Host-sessionid={session}\r\n\r\n".encode())
        received = b""
        while b"event: status" not in received:
            part = stream.recv(4096)
            assert part, received
            received += part


def test_slow_headers_and_slow_bodies_do_not_reach_the_station(proxy: Proxy) -> None:
    with ExitStack() as stack:
        slow = [stack.enter_context(proxy.connect(f"127.0.6.{index % 4 + 1}")) for index in range(200)]
        for index, connection in enumerate(slow):
            body = b"Content-Length: 1000\r\n\r\nx" if index % 2 else b"X-Slow: "
            connection.sendall(b"POST /log-in/ HTTP/1.1\r\nHost: castline.test\r\n" + body)
        assert proxy.station.metric("process_open_fds") < 200
        assert proxy.request("GET", "/log-in/", "127.0.0.1")[0] == 200
        for connection in slow:
            connection.settimeout(30)
            with suppress(OSError):
                while connection.recv(4096):
                    pass


@pytest.mark.parametrize(
    ("first", "second"),
    [
        ("2001:db8:1:2:a:b:c:d", "2001:db8:1:2::1"),
        ("2001:db8::a:b:c:d", "2001:db8::1"),
        ("2001:db8:1::1", "2001:db8:1::2"),
        ("fe80::1:2:3:4", "fe80::5:6:7:8"),
        ("fd00::1", "fd00::a:b:c:d"),
        ("::1", "::2:3:4:5"),
    ],
)
def test_all_addresses_of_an_ipv6_network_are_one_client(proxy: Proxy, first: str, second: str) -> None:
    assert find_client(proxy, first) == find_client(proxy, second) != ""


def test_other_networks_are_other_clients(proxy: Proxy) -> None:
    addresses = ["192.0.2.1", "192.0.2.2", "::ffff:192.0.2.3", "::ffff:192.0.2.4", "fe80::1", "fd00::1"]
    addresses += ["2001:db8:1:2::1", "2001:db8:1:3::1", "2001:db8:2::1", "2001:db8::1"]
    assert len({find_client(proxy, address) for address in addresses}) == len(addresses)


def find_client(proxy: Proxy, address: str) -> str:
    """Returns the client whose limits nginx applies to a request from `address`."""
    connection = http.client.HTTPConnection("127.0.0.1", proxy.client_port, timeout=20)
    connection.request("GET", "/", headers={"X-Client": address})
    try:
        return connection.getresponse().read().decode()
    finally:
        connection.close()


def test_one_address_has_a_limit_of_connections_and_of_requests_and_others_are_served(proxy: Proxy) -> None:
    with ExitStack() as stack:
        statuses = []
        for _ in range(120):
            connection = stack.enter_context(proxy.connect("127.0.7.1"))
            # A connection counts as soon as its header is complete.
            connection.sendall(b"POST /uploads/ HTTP/1.1\r\nHost: castline.test\r\nContent-Length: 9\r\n\r\n")
            connection.settimeout(0.05)
            with suppress(TimeoutError):
                statuses.append(connection.recv(12))
        assert statuses.count(b"HTTP/1.1 503") >= 15
        assert proxy.request("GET", "/log-in/", "127.0.0.1")[0] == 200
    answers = [proxy.request("POST", "/log-in/", "127.0.7.2", b"")[0] for _ in range(20)]
    assert answers.count(429) >= 5
    assert proxy.request("GET", "/log-in/", "127.0.0.1")[0] == 200


def open_bodies(proxy: Proxy, stack: ExitStack, sources: list[str], path: str, size: int) -> list[ssl.SSLSocket]:
    """Returns connections that have sent the header and the first MiB of a request whose body has `size` bytes."""
    connections = []
    for source in sources:
        connection = stack.enter_context(proxy.connect(source))
        connection.settimeout(0.1)
        connection.sendall(f"POST {path} HTTP/1.1\r\nHost: castline.test\r\nContent-Length: {size}\r\n\r\n".encode())
        with suppress(OSError):
            connection.sendall(bytes(2**20))
        connections.append(connection)
    return connections


def read_statuses(connections: list[ssl.SSLSocket]) -> list[bytes]:
    """Returns the statuses of the requests that nginx has answered already."""
    statuses = []
    for connection in connections:
        with suppress(OSError):
            statuses.append(connection.recv(12)[-3:])
    return statuses


def test_bodies_of_strangers_fill_no_disk(proxy: Proxy) -> None:
    """The folder of nginx's bodies holds no more than the shipped limits allow, whoever sends them."""
    large = 128 * 2**20
    with ExitStack() as stack:
        one = open_bodies(proxy, stack, ["127.0.8.1"] * 8, "/uploads/", large)
        assert read_statuses(one) == [b"503"] * 4, "one client"
        many = open_bodies(proxy, stack, [f"127.0.8.{number}" for number in range(2, 22)], "/uploads/", large)
        assert read_statuses(many) == [b"503"] * 8, "many clients"
        assert len(list((proxy.folder / "client_body").rglob("*.*"))) <= 16
        assert proxy.request("GET", "/log-in/", "127.0.0.1")[0] == 200
    with ExitStack() as stack:
        programs = open_bodies(proxy, stack, ["127.0.8.30"] * 24, "/api/v1/pictures", 8 * 2**20)
        assert read_statuses(programs) == [b"503"] * 4


@pytest.mark.parametrize(
    ("path", "size", "too_large"),
    [
        ("/", 3 * 2**20, True),
        ("/account/password/", 3 * 2**20, True),
        ("/uploads/1/", 3 * 2**20, True),
        ("/api/v1/pictures", 3 * 2**20, False),
        ("/api/v1/pictures", 10 * 2**20, True),
        ("/uploads/", 10 * 2**20, False),
    ],
)
def test_only_pages_that_take_pictures_get_large_bodies(proxy: Proxy, path: str, size: int, too_large: bool) -> None:
    status, _, text = proxy.request("POST", path, "127.0.8.60", bytes(size))
    assert (status == 413 and "nginx" in text) is too_large


def test_log_ins_through_a_provider_have_the_limit_of_log_ins(proxy: Proxy) -> None:
    for path in ("/log-in/provider/", "/log-in/provider/return"):
        source = f"127.0.9.{len(path)}"
        assert [proxy.request("GET", path, source)[0] for _ in range(20)].count(429) >= 5, path
    assert proxy.request("GET", "/log-in/", "127.0.0.1")[0] == 200


def test_a_client_of_the_gateway_has_a_limit_of_requests(proxy: Proxy) -> None:
    with proxy.connect("127.0.9.1", proxy.camera_port) as connection:
        connection.sendall(b"GET /lines/line-1/pictures HTTP/1.1\r\nHost: castline.test\r\n\r\n" * 899)
        connection.sendall(b"GET /lines/line-1/pictures HTTP/1.1\r\nHost: castline.test\r\nConnection: close\r\n\r\n")
        received = b""
        while part := connection.recv(2**16):
            received += part
    assert received.count(b"HTTP/1.1 429") >= 100
    assert proxy.request("GET", "/lines/line-1/pictures", "127.0.9.2", port=proxy.camera_port)[0] == 502


def test_a_client_cannot_choose_its_address(proxy: Proxy) -> None:
    """Requests with a forged X-Forwarded-For count for the real address, so the third log-in at once is refused by its limit."""
    for number in range(12):
        proxy.request("POST", "/log-in/", "127.0.7.3", b"", X_Forwarded_For=f"10.0.0.{number}")
    assert proxy.request("POST", "/log-in/", "127.0.7.3", b"", X_Forwarded_For="10.9.9.9")[0] == 429


def test_cameras_reach_only_the_addresses_of_lines_and_only_over_tls(proxy: Proxy) -> None:
    # No gateway runs behind this proxy, so an address of a line answers 502.
    assert proxy.request("POST", "/lines/line-1/pictures", "127.0.0.1", b"x", port=proxy.camera_port)[0] == 502
    assert proxy.request("POST", "/lines/line-1/pictures", "127.0.0.1", bytes(10 * 2**20), port=proxy.camera_port)[0] == 413
    assert proxy.request("GET", "/metrics", "127.0.0.1", port=proxy.camera_port)[0] == 404
