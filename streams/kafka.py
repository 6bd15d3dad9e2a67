"""How our clients reach Kafka: one place that turns the settings into kafka-python's and Faust's arguments."""

from __future__ import annotations

import socket
import ssl
import time
from collections.abc import Callable
from typing import Any

import faust.auth
from kafka import KafkaAdminClient
from kafka.errors import KafkaError

from streams.settings import KafkaSettings, Settings


def tls_context(kafka: KafkaSettings) -> ssl.SSLContext | None:
    """The TLS context that the settings ask for; None for an unprotected connection.

    Raises OSError: when a certificate file cannot be read.
    """
    if kafka.security not in ("tls", "sasl-tls"):
        return None
    context = ssl.create_default_context(cafile=str(kafka.ca_file) if kafka.ca_file else None)
    if kafka.cert_file:
        context.load_cert_chain(str(kafka.cert_file), str(kafka.key_file))
    return context


def reachable(bootstrap: str) -> bool:
    """Whether anything listens at one of the addresses host:port, comma-separated."""
    for address in bootstrap.split(","):
        host, port = address.rsplit(":", 1)
        try:
            socket.create_connection((host, int(port)), timeout=1).close()
        except OSError:
            continue
        return True
    return False


def client_arguments(settings: Settings, role: str) -> dict[str, Any]:
    """Arguments that every kafka-python client takes."""
    kafka = settings.kafka
    arguments: dict[str, Any] = {
        "bootstrap_servers": settings.bootstrap.split(","),
        "client_id": f"castline-{role}",
        "security_protocol": {
            "plaintext": "PLAINTEXT",
            "tls": "SSL",
            "sasl-plaintext": "SASL_PLAINTEXT",
            "sasl-tls": "SASL_SSL",
        }[kafka.security],
        "request_timeout_ms": int(kafka.request_timeout_s * 1000),
    }
    if context := tls_context(kafka):
        arguments["ssl_context"] = context
    if kafka.security.startswith("sasl"):
        arguments |= {
            "sasl_mechanism": kafka.mechanism,
            "sasl_plain_username": kafka.username,
            "sasl_plain_password": kafka.secret(),
        }
    return arguments


def faust_credentials(kafka: KafkaSettings) -> faust.auth.Credentials | None:
    """What Faust calls the same settings; None for an unprotected connection."""
    context = tls_context(kafka)
    if kafka.security.startswith("sasl"):
        return faust.auth.SASLCredentials(username=kafka.username, password=kafka.secret(), mechanism=kafka.mechanism, ssl_context=context)
    return faust.auth.SSLCredentials(context) if context else None


def wait_for_kafka(settings: Settings, role: str, say: Callable[[str], None], give_up: Callable[[], bool]) -> KafkaAdminClient | None:
    """An admin client once a broker answers; asks again with back-off, 0.5 s to 10 s, and says so each time.

    `give_up` is asked between tries; None when it said yes.
    """
    wait_s = 0.5
    while not give_up():
        try:
            return KafkaAdminClient(**client_arguments(settings, role), bootstrap_timeout_ms=5000)
        except (KafkaError, OSError) as error:
            say(f"expected Kafka at {settings.bootstrap}, found none ({type(error).__name__}: {error}); next try in {wait_s:.1f} s")
        until = time.monotonic() + wait_s
        while time.monotonic() < until and not give_up():
            time.sleep(0.1)
        wait_s = min(wait_s * 2, 10)
    return None
