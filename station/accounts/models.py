"""The tables that Castline adds to Django's accounts.

They hold API tokens, recovery codes, identities at an OpenID Connect provider, the audit log, and failed log-ins.
"""

from __future__ import annotations

import hashlib
import json
import secrets
from contextvars import ContextVar
from datetime import UTC, timedelta
from typing import ClassVar, Literal, get_args

from django.conf import settings
from django.contrib.auth.models import AbstractBaseUser, AnonymousUser, User
from django.db import connection, models, transaction
from django.db.models import Q
from django.utils import timezone

from streams.printable import make_printable

# The IP address of the client whose request the station is answering, or "" outside a request, for example in a command.
client_address_of_request: ContextVar[str] = ContextVar("client_address_of_request", default="")

TokenScope = Literal["inspect", "read"]

# People and secret scanners recognise a leaked token by this prefix.
_TOKEN_PREFIX = "castline_"
_USED_AT_PRECISION = timedelta(minutes=1)
_MAX_WHO = 150
_MAX_SUBJECT = 255
# The number of an advisory lock in PostgreSQL, which the station holds while it adds an audit entry. The number is arbitrary, but no other
# lock may have the same number.
_AUDIT_LOCK = 0x6361_7376
_RECOVERY_CODES = 8
# A recovery code consists of 28 characters of base32, which have 140 random bits. The characters of base32 are hard to confuse.
_CODE_LETTERS, _CODE_LENGTH, _CODE_GROUP = "abcdefghijklmnopqrstuvwxyz234567", 28, 4
# The lifetimes that a person can choose for a new token.
TOKEN_LIFETIMES = (timedelta(days=30), timedelta(days=90), timedelta(days=365))


class ApiToken(models.Model):
    """A secret text that lets a program call the API in the name of an account.

    The text is shown once. The table holds only its SHA-256.
    """

    user = models.ForeignKey(settings.AUTH_USER_MODEL, on_delete=models.CASCADE, related_name="api_tokens")
    name = models.CharField(max_length=80)
    sha256 = models.CharField(max_length=64, unique=True)
    made_at = models.DateTimeField(auto_now_add=True)
    used_at = models.DateTimeField(null=True)
    # Null for tokens of release 0.1.0, which never expire. All later tokens expire.
    expires_at = models.DateTimeField(null=True)
    # With the scope `inspect`, a program sends pictures and reads their verdicts. With the scope `read`, a program only reads verdicts.
    scope = models.CharField(max_length=16, choices=[(scope, scope) for scope in get_args(TokenScope)], default="inspect")

    def __str__(self) -> str:
        return f"{self.user}: {self.name}"

    @classmethod
    def issue(cls, user: User, name: str, scope: TokenScope = "inspect", lifetime: timedelta = TOKEN_LIFETIMES[-1]) -> tuple[ApiToken, str]:
        """Makes a token with which the program `name` acts for `user`. Returns the token's row and text.

        The caller must show the text now, because only its hash is stored.
        """
        text = _TOKEN_PREFIX + secrets.token_urlsafe(32)
        expires_at = timezone.now() + lifetime
        return cls.objects.create(user=user, name=name, sha256=_hash(text), scope=scope, expires_at=expires_at), text

    @classmethod
    def find(cls, text: str) -> ApiToken | None:
        """Returns the token with the text `text`, and updates the time of its last use.

        Returns None if the token is unknown, revoked or expired, or if its account is no longer allowed to log in.
        """
        now = timezone.now()
        valid = cls.objects.select_related("user").filter(Q(expires_at=None) | Q(expires_at__gt=now), user__is_active=True)
        token = valid.filter(sha256=_hash(text)).first()
        if token is not None and (token.used_at is None or now - token.used_at > _USED_AT_PRECISION):
            cls.objects.filter(pk=token.pk).update(used_at=now)
        return token

    @property
    def is_expired(self) -> bool:
        return self.expires_at is not None and self.expires_at <= timezone.now()

    @classmethod
    def revoke_all(cls, user: User) -> int:
        """Revokes all tokens of `user`, for example because the password has changed. Returns how many of them had not expired."""
        tokens = cls.objects.filter(user=user)
        valid = sum(not token.is_expired for token in tokens)
        tokens.delete()
        return valid


class RecoveryCode(models.Model):
    """A text that a person can enter once at the log-in instead of a code from the app, for example if the phone is lost.

    The text is shown once. The table holds only its SHA-256.
    """

    user = models.ForeignKey(settings.AUTH_USER_MODEL, on_delete=models.CASCADE, related_name="recovery_codes")
    sha256 = models.CharField(max_length=64)

    def __str__(self) -> str:
        return f"recovery code of {self.user}"

    @classmethod
    def issue_all(cls, user: User) -> list[str]:
        """Replaces all recovery codes of `user` by new codes, and returns the texts of the new codes.

        The caller must show the texts now, because only their hashes are stored.
        """
        texts = ["".join(secrets.choice(_CODE_LETTERS) for _ in range(_CODE_LENGTH)) for _ in range(_RECOVERY_CODES)]
        with transaction.atomic():
            cls.objects.filter(user=user).delete()
            RecoveryCode.objects.bulk_create([RecoveryCode(user=user, sha256=_hash(text)) for text in texts])
        return ["-".join(text[start : start + _CODE_GROUP] for start in range(0, _CODE_LENGTH, _CODE_GROUP)) for text in texts]

    @classmethod
    def use_up(cls, user: User, text: str) -> bool:
        """Returns whether `text` is a recovery code of `user`, and deletes the code. Hyphens, spaces and upper case make no difference."""
        letters = "".join(text.split()).replace("-", "").lower()
        # One statement finds and deletes the code, so that two simultaneous log-ins cannot both use the same code.
        deleted, _ = cls.objects.filter(user=user, sha256=_hash(letters)).delete()
        return deleted > 0


class OidcIdentity(models.Model):
    """Connects an account of the station to a person at an OpenID Connect provider."""

    user = models.OneToOneField(settings.AUTH_USER_MODEL, on_delete=models.CASCADE, related_name="oidc_identity")
    issuer = models.CharField(max_length=255)
    subject = models.CharField(max_length=255)

    class Meta:
        constraints: ClassVar = [models.UniqueConstraint(fields=["issuer", "subject"], name="oidc_identity_subject")]

    def __str__(self) -> str:
        return f"{self.user}: {self.subject} of {self.issuer}"


class AuditEntry(models.Model):
    """One entry of the audit log: an action of a person, such as a change of an account. The station never changes an entry.

    The field `sha256` is a hash of the entry and of the `sha256` of the entry before it. If somebody changes, removes or inserts an
    entry, the stored hashes no longer fit the entries.
    """

    at = models.DateTimeField(default=timezone.now)
    # The name of the account. A foreign key is not used, because the entry must remain if the account is deleted.
    who = models.CharField(max_length=_MAX_WHO)
    action = models.CharField(max_length=64)
    subject = models.CharField(max_length=_MAX_SUBJECT)
    detail = models.JSONField(default=dict, blank=True)
    address = models.CharField(max_length=45, blank=True, default="")
    sha256 = models.CharField(max_length=64, blank=True, default="")

    class Meta:
        ordering: ClassVar = ["-at", "-id"]
        indexes: ClassVar = [models.Index(fields=["-at", "-id"], name="audit_at")]

    def __str__(self) -> str:
        return f"{self.at:%Y-%m-%d %H:%M} {self.who} {self.action} {self.subject}"

    @classmethod
    def record(cls, user: AbstractBaseUser | AnonymousUser | None, action: str, subject: str, **detail: object) -> None:
        """Writes an entry to the audit log. For example, `action` is "token made" and `subject` is the name of a new token.

        `detail` must be JSON-serialisable. Call this method in the same transaction as the change itself.
        """
        who = user.get_username() if user is not None and user.is_authenticated else "castline"
        with transaction.atomic():
            _lock_audit_chain()
            previous = cls.objects.order_by("-id").values_list("sha256", flat=True).first() or ""
            entry = cls(
                who=who[:_MAX_WHO],
                action=action,
                subject=make_printable(subject)[:_MAX_SUBJECT],
                detail=json.loads(json.dumps(detail)),
                address=client_address_of_request.get(),
            )
            entry.sha256 = entry.compute_sha256(previous)
            entry.save()

    def as_record(self) -> dict[str, object]:
        """Returns the content of the entry for JSON, without `sha256`."""
        return {
            "at": self.at.astimezone(UTC).isoformat(timespec="microseconds"),
            "who": self.who,
            "action": self.action,
            "subject": self.subject,
            "detail": self.detail,
            "address": self.address,
        }

    def compute_sha256(self, previous: str) -> str:
        """Returns the hash of this entry. `previous` is the hash of the entry before it, or "" for the first entry."""
        return chain_sha256(previous, self.as_record())


def chain_sha256(previous: str, record: dict[str, object]) -> str:
    """Returns the hash of an audit entry: the SHA-256 of `previous`, a line feed, and the entry as compact JSON with sorted keys."""
    content = json.dumps(record, sort_keys=True, separators=(",", ":"), ensure_ascii=True)
    return hashlib.sha256(f"{previous}\n{content}".encode()).hexdigest()


class AuditShipment(models.Model):
    """Stores which audit entries were sent to the log server: all up to the number `shipped`. The table has at most one row."""

    shipped = models.BigIntegerField(default=0)


class LogInDelay(models.Model):
    """The failed log-ins of one account, one network or one browser, which delay the next attempt (`station.accounts.delays`)."""

    key = models.CharField(max_length=64, primary_key=True)
    failures = models.PositiveIntegerField(default=0)
    failed_at = models.DateTimeField()

    class Meta:
        indexes: ClassVar = [models.Index(fields=["failed_at"], name="log_in_delay_failed_at")]


def _lock_audit_chain() -> None:
    """Waits until no other transaction is adding an audit entry. SQLite needs no such lock, because a transaction locks its database."""
    if connection.vendor == "postgresql":
        with connection.cursor() as cursor:
            cursor.execute("SELECT pg_advisory_xact_lock(%s)", [_AUDIT_LOCK])


def _hash(text: str) -> str:
    # A fast hash without salt is safe, because a token has 256 random bits and a recovery code has 140, so neither can be guessed.
    return hashlib.sha256(text.encode()).hexdigest()
