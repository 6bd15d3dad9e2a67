"""Signs JSON records and the manifests of model versions with Ed25519. Refuses records and manifests that no permitted role has signed.

Each role that writes records has a private key. All readers have the public keys, with which they can check a signature but not make one.
The signature covers the role, the topic, the key and the value. So a record cannot be sent again on another topic or for another part. The
signature does not cover the headers, because the readers of these records base no decision on them.
"""

from __future__ import annotations

import base64
import binascii
import struct
from collections.abc import Mapping, Sequence
from functools import lru_cache
from pathlib import Path

from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
    load_pem_private_key,
    load_pem_public_key,
)

from streams import metrics
from streams.atomic_file import write_atomically
from streams.errors import RecordError, SettingsError
from streams.settings import KafkaRole, Settings
from streams.unreadable_batches import check_readable

SIGNED_HEADER = "castline-signed"
SIGNATURE = "signature"
# Maps the second word of a topic's name, such as `verdicts`, to the roles that may sign the records of the topic.
SIGNERS: dict[str, tuple[KafkaRole, ...]] = {
    "verdicts": ("inspector",),
    "sorted": ("sorter",),
    "findings": ("localiser",),
    "reviews": ("station",),
    "models": ("station", "administrator"),
    "lines": ("station", "administrator"),
    "commands": ("station", "sorter"),
}
SIGNING_ROLES: tuple[KafkaRole, ...] = tuple(dict.fromkeys(role for roles in SIGNERS.values() for role in roles))
# The role that signs manifests of model versions.
MANIFEST_SIGNER: KafkaRole = "administrator"
# The signature of a record also covers the text `_RECORD_PURPOSE`, and the signature of a manifest also covers `_MANIFEST_PURPOSE`.
# Because the texts differ, the signature of a record is not valid for a manifest.
_RECORD_PURPOSE = b"castline record, version 1"
_MANIFEST_PURPOSE = b"castline manifest, version 1"
_ABSENT = 0xFFFFFFFF
_PEM_END = b"-----END PUBLIC KEY-----"
_SECRET_BITS = 0o077


def sign_headers(
    settings: Settings, topic: str, key: bytes | None, value: bytes | None, headers: Sequence[tuple[str, bytes]] = ()
) -> list[tuple[str, bytes]]:
    """Returns `headers` with a signature of the record, made with the key of this process's role. Removes a former signature.

    Returns the headers without a change if `signing.private_keys` is not set, or if the role signs no records on this topic.

    Raises SettingsError if the key of the role cannot be used. Also raises SettingsError if `signing.public_keys` is set and
    `signing.private_keys` is not, because readers would refuse an unsigned record.
    """
    folder, role = settings.signing.private_keys, settings.role
    if role not in SIGNERS.get(_kind_of(topic), ()):
        return list(headers)
    if folder is None:
        _refuse_missing_key(settings)
        return list(headers)
    header = (SIGNED_HEADER, _sign(folder, role, _message(_RECORD_PURPOSE, role, topic, key, value)))
    return [*(each for each in headers if each[0] != SIGNED_HEADER), header]


def check_signature(
    settings: Settings,
    topic: str,
    key: bytes | None,
    value: bytes | None,
    headers: Mapping[str, bytes],
    signers: Sequence[KafkaRole] = (),
) -> None:
    """Raises RecordError if the setting `signing.public_keys` is set, and no permitted role has signed the record.

    `signers` are the permitted roles. If `signers` is empty, all roles that SIGNERS names for the topic are permitted. If SIGNERS does not
    name the topic, the record needs no signature.

    Also raises RecordError if `value` is an `UnreadableBatch`, which stands for records that could not be decoded. Raises SettingsError if
    a public key cannot be used.
    """
    check_readable(value)
    folder, kind = settings.signing.public_keys, _kind_of(topic)
    if folder is None or kind not in SIGNERS:
        return
    signers = signers or SIGNERS[kind]
    role, _, signature = headers.get(SIGNED_HEADER, b"").decode("ascii", "replace").partition(":")
    permitted = next((each for each in signers if each == role), None)
    if permitted is not None and _is_signed(
        folder / f"{permitted}.pub", signature, _message(_RECORD_PURPOSE, permitted, topic, key, value)
    ):
        return
    metrics.signatures_refused.labels(settings.role, kind).inc()
    found = f"a wrong signature of {role[:40]!r}" if signature else "no signature"
    raise RecordError(SIGNATURE, f"A record on {topic} must be signed by {' or '.join(signers)}, but it has {found}.")


def sign_manifest(private_keys: Path, version: str, manifest: bytes) -> bytes:
    """Returns the administrator's signature of the manifest of a model version.

    `private_keys` is the folder of the keys, `version` the name of the model version, and `manifest` the content of its manifest. Raises
    SettingsError if the key of the administrator cannot be used.
    """
    return _sign(private_keys, MANIFEST_SIGNER, _message(_MANIFEST_PURPOSE, MANIFEST_SIGNER, version, None, manifest))


def is_manifest_signed(public_keys: Path, version: str, manifest: bytes, signature: bytes) -> bool:
    """Returns whether `signature` is a valid signature of the administrator for the manifest of a model version.

    `public_keys` is the folder of the keys, `version` the name of the model version, and `manifest` the content of its manifest. Raises
    SettingsError if the public key of the administrator cannot be used.
    """
    role, _, encoded = signature.decode("ascii", "replace").strip().partition(":")
    message = _message(_MANIFEST_PURPOSE, MANIFEST_SIGNER, version, None, manifest)
    return role == MANIFEST_SIGNER and _is_signed(public_keys / f"{MANIFEST_SIGNER}.pub", encoded, message)


def check_keys(settings: Settings) -> None:
    """Loads the keys that this process needs, so that a missing key is reported at the start. Raises SettingsError if one is missing.

    The private key of the administrator is not loaded here. It is loaded when a command signs a record. The broker's process also has the
    role `administrator`, but it signs nothing, so it must start without this key.
    """
    if settings.role in SIGNING_ROLES and settings.role != "administrator":
        if settings.signing.private_keys is None:
            _refuse_missing_key(settings)
        else:
            _load_private_key(settings.signing.private_keys / f"{settings.role}.key")
    if settings.signing.public_keys is not None:
        for role in SIGNING_ROLES:
            _load_public_keys(settings.signing.public_keys / f"{role}.pub")
        for kind in SIGNERS:
            metrics.signatures_refused.labels(settings.role, kind)


def create_keys(private_folder: Path, public_folder: Path, role: KafkaRole) -> None:
    """Makes a new pair of keys for `role`. Replaces the private key of the role, and adds the new public key to the file of public keys.

    Readers accept all keys in this file. So records that a former key has signed stay valid until a person removes that key from the file.
    """
    key = Ed25519PrivateKey.generate()
    public = key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    file = public_folder / f"{role}.pub"
    write_atomically(file, (file.read_bytes() if file.exists() else b"") + public)
    private = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    write_atomically(private_folder / f"{role}.key", private, mode=0o600)


def _refuse_missing_key(settings: Settings) -> None:
    # An unsigned record must not be sent, because it could replace a valid one. For example, Kafka keeps only the newest model choice of a
    # line. Readers would refuse an unsigned choice, and the line would have no choice at all.
    if settings.signing.public_keys is not None:
        raise SettingsError(
            f"signing.public_keys is set and signing.private_keys is not, so all records of the role {settings.role} would be refused. Set "
            "signing.private_keys."
        )


def _kind_of(topic: str) -> str:
    return topic.split(".")[1] if "." in topic else ""


def _sign(folder: Path, role: KafkaRole, message: bytes) -> bytes:
    signature = _load_private_key(folder / f"{role}.key").sign(message)
    return f"{role}:{base64.b64encode(signature).decode()}".encode()


def _message(purpose: bytes, role: str, name: str, key: bytes | None, value: bytes | None) -> bytes:
    """Returns the bytes to sign. The length of each field precedes the field, so that different records never give the same bytes."""
    message = bytearray(purpose)
    for part in (role.encode(), name.encode(), key, value):
        message += struct.pack(">I", _ABSENT if part is None else len(part)) + (part or b"")
    return bytes(message)


def _is_signed(file: Path, signature: str, message: bytes) -> bool:
    try:
        raw = base64.b64decode(signature, validate=True)
    except (binascii.Error, ValueError):
        return False
    for key in _load_public_keys(file):
        try:
            key.verify(raw, message)
        except InvalidSignature:
            continue
        return True
    return False


@lru_cache(maxsize=16)
def _load_private_key(file: Path) -> Ed25519PrivateKey:
    try:
        if file.stat().st_mode & _SECRET_BITS:
            raise SettingsError(f"signing.private_keys: other accounts may read {file}. Correct this with: chmod 600 {file}")
        key = load_pem_private_key(file.read_bytes(), None)
    except (OSError, ValueError, TypeError, UnsupportedAlgorithm) as error:
        raise SettingsError(f"signing.private_keys: the key {file} cannot be used: {error}. {_ADVICE}") from None
    if not isinstance(key, Ed25519PrivateKey):
        raise SettingsError(f"signing.private_keys: expected an Ed25519 key in {file}, found {type(key).__name__}. {_ADVICE}")
    return key


@lru_cache(maxsize=64)
def _load_public_keys(file: Path) -> tuple[Ed25519PublicKey, ...]:
    try:
        blocks = [block + _PEM_END for block in file.read_bytes().split(_PEM_END) if block.strip()]
        keys = [load_pem_public_key(block.strip()) for block in blocks]
    except (OSError, ValueError, UnsupportedAlgorithm) as error:
        raise SettingsError(f"signing.public_keys: the keys in {file} cannot be used: {error}. {_ADVICE}") from None
    ed25519 = tuple(key for key in keys if isinstance(key, Ed25519PublicKey))
    if not ed25519 or len(ed25519) != len(keys):
        raise SettingsError(f"signing.public_keys: expected one or more Ed25519 keys in {file}. {_ADVICE}")
    return ed25519


_ADVICE = "Make keys with: castline topics keys"
