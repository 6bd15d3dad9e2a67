"""Adds listeners with SCRAM and TLS to the broker of `castline bench compare`, and makes settings for inspectors that connect to them."""

from __future__ import annotations

import ipaddress
import secrets
from collections.abc import Set
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Literal, get_args

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import NameOID
from kafka import KafkaAdminClient

from deploy.supervisor.ports import free_ports
from streams.kafka_access import set_passwords
from streams.kafka_users import ROLES
from streams.settings import Settings
from streams.signatures import SIGNING_ROLES, create_keys

Protection = Literal["scram", "tls", "signatures"]
PROTECTIONS: tuple[Protection, ...] = get_args(Protection)

# The values of the setting `kafka.security`. Each key is the pair (uses SCRAM, uses TLS).
_SECURITY = {(True, False): "sasl-plaintext", (False, True): "tls", (True, True): "sasl-tls"}
# Maps each value of the setting `kafka.security` to Kafka's own name of the security protocol.
_KAFKA_NAMES = {"sasl-plaintext": "SASL_PLAINTEXT", "tls": "SSL", "sasl-tls": "SASL_SSL"}
_SCRAM_LOGIN = "org.apache.kafka.common.security.scram.ScramLoginModule required;"


class ProtectedListeners:
    """Three protected listeners for the broker of `settings`: with SCRAM, with TLS, and with both. A listener is a port for clients.

    The passwords, certificate and keys for the listeners are written to `folder`.
    """

    def __init__(self, settings: Settings, folder: Path) -> None:
        self._settings = settings
        first = free_ports(len(_KAFKA_NAMES))
        self._ports = {security: first + number for number, security in enumerate(_KAFKA_NAMES)}
        self._passwords = [(role, secrets.token_urlsafe(32)) for role in ROLES]
        self._keys, self._password_dir = folder / "keys", folder / "passwords"
        self._certificate, self._key_store = folder / "ca.pem", folder / "server.pem"
        for role in SIGNING_ROLES:
            create_keys(self._keys, self._keys / "public", role)
        self._password_dir.mkdir(mode=0o700)
        for role, password in self._passwords:
            (self._password_dir / role).write_text(password)
        _write_certificate(self._certificate, self._key_store)

    def make_properties(self) -> dict[str, str]:
        """Returns the broker's properties for four listeners: one without protection, and the three protected listeners."""
        port = self._settings.broker.port
        clients = [f"PLAINTEXT://127.0.0.1:{port}", *(f"{_KAFKA_NAMES[name]}://127.0.0.1:{port}" for name, port in self._ports.items())]
        return {
            "listeners": ",".join([*clients, f"CONTROLLER://127.0.0.1:{port + 1}"]),
            "advertised.listeners": ",".join(clients),
            "listener.security.protocol.map": "PLAINTEXT:PLAINTEXT,CONTROLLER:PLAINTEXT,"
            + ",".join(f"{name}:{name}" for name in _KAFKA_NAMES.values()),
            "inter.broker.listener.name": "PLAINTEXT",
            "sasl.enabled.mechanisms": "SCRAM-SHA-512",
            "listener.name.sasl_plaintext.scram-sha-512.sasl.jaas.config": _SCRAM_LOGIN,
            "listener.name.sasl_ssl.scram-sha-512.sasl.jaas.config": _SCRAM_LOGIN,
            "ssl.keystore.type": "PEM",
            "ssl.keystore.location": str(self._key_store.resolve()),
        }

    def create_users(self) -> None:
        """Makes a Kafka user with a password for each role. The broker must be running."""
        admin = KafkaAdminClient(bootstrap_servers=self._settings.bootstrap)
        try:
            set_passwords(admin, self._settings, self._passwords)
        finally:
            admin.close()

    def make_sections(self, protections: Set[Protection]) -> dict[str, Any]:
        """Returns the sections `kafka` and `signing` of the settings for an inspector that uses `protections`.

        The section `signing` is missing if the inspector does not sign.
        """
        security = _SECURITY.get(("scram" in protections, "tls" in protections))
        kafka: dict[str, Any] = {"bootstrap": f"127.0.0.1:{self._ports[security] if security else self._settings.broker.port}"}
        if security:
            kafka["security"] = security
        if "scram" in protections:
            kafka["password_dir"] = str(self._password_dir)
        if "tls" in protections:
            kafka["ca_file"] = str(self._certificate)
        # The inspectors get no public keys, so they sign records but check no signatures. With public keys, they would refuse the unsigned
        # model versions of the checkouts.
        return {"kafka": kafka} | ({"signing": {"private_keys": str(self._keys)}} if "signatures" in protections else {})


def _write_certificate(certificate_file: Path, key_store: Path) -> None:
    """Writes a self-signed certificate for 127.0.0.1 to `certificate_file`, and its private key with the certificate to `key_store`."""
    key, now = ec.generate_private_key(ec.SECP256R1()), datetime.now(UTC)
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "castline bench")])
    builder = x509.CertificateBuilder(name, name, key.public_key(), x509.random_serial_number(), now, now + timedelta(days=1))
    address = x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))])
    signed = builder.add_extension(x509.BasicConstraints(ca=True, path_length=None), True).add_extension(address, False)
    content = signed.sign(key, hashes.SHA256()).public_bytes(Encoding.PEM)
    certificate_file.write_bytes(content)
    key_store.touch(mode=0o600)
    key_store.write_bytes(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()) + content)
