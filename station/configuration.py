"""Makes Django's settings from Castline's settings, which come from castline.toml and the environment."""

from __future__ import annotations

import secrets
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

import django
from csp.constants import NONE, SELF
from django.conf import settings as django_settings

from streams.atomic_file import create_once, make_public_folder
from streams.errors import SettingsError
from streams.secrets import remember_secret
from streams.settings import Settings, StationSettings

_HERE = Path(__file__).parent
MAX_FORM_BYTES = 2**20
MIN_KEY_CHARACTERS = 50
# The Content-Security-Policy that the station sends with a picture. It stops a browser from running a script in the file, and from showing
# the file in a frame.
PICTURE_POLICY = "default-src 'none'; base-uri 'none'; frame-ancestors 'none'; sandbox"
_YEAR_S = 365 * 24 * 3600


def configure(settings: Settings) -> None:
    """Configures Django for this process. Must be called once, before any module with a database table is imported."""
    django_settings.configure(**make_django_settings(settings))
    django.setup()


def current_settings() -> Settings:
    """Returns the Castline settings of this process. Raises AttributeError if `configure` was not called."""
    # mypy knows only Django's own settings. It would report `django_settings.CASTLINE` as an error.
    settings = getattr(django_settings, "CASTLINE")  # noqa: B009
    assert isinstance(settings, Settings)
    return settings


def make_django_settings(settings: Settings) -> dict[str, Any]:
    """Returns Django's settings by name. Raises SettingsError if the secret key or the password file cannot be read or created."""
    station = settings.station
    return {
        "CASTLINE": settings,
        "DEBUG": False,
        "SECRET_KEY": read_secret_key(station),
        "ROOT_URLCONF": "station.urls",
        "INSTALLED_APPS": [
            "django.contrib.auth",
            "django.contrib.contenttypes",
            "django.contrib.sessions",
            "django.contrib.messages",
            "django.contrib.staticfiles",
            "django_htmx",
            "django_otp",
            "django_otp.plugins.otp_totp",
            "django_otp.plugins.otp_static",
            "csp",
            "station",
            "station.archive",
            "station.accounts",
            "station.uploads",
            "station.reviews",
            "station.studies",
            "station.golden_parts",
        ],
        "MIDDLEWARE": [
            "django.middleware.security.SecurityMiddleware",
            "csp.middleware.CSPMiddleware",
            "whitenoise.middleware.WhiteNoiseMiddleware",
            "django.contrib.sessions.middleware.SessionMiddleware",
            "django.middleware.common.CommonMiddleware",
            "django.middleware.csrf.CsrfViewMiddleware",
            "django.contrib.auth.middleware.AuthenticationMiddleware",
            "django.contrib.messages.middleware.MessageMiddleware",
            "django.middleware.clickjacking.XFrameOptionsMiddleware",
            "django_htmx.middleware.HtmxMiddleware",
            # The next middlewares are synchronous and must stand at the end of this list. In another order, Django would have to change
            # more often between synchronous and asynchronous code in each request.
            "station.accounts.log_in.NullCharacterMiddleware",
            "station.accounts.log_in.ClientAddressMiddleware",
            "station.accounts.log_in.SessionRenewalMiddleware",
            "station.account_limits.AccountLimitMiddleware",
        ],
        "TEMPLATES": [
            {
                "BACKEND": "django.template.backends.django.DjangoTemplates",
                "DIRS": [_HERE / "templates"],
                "OPTIONS": {
                    "context_processors": [
                        "django.template.context_processors.request",
                        "django.contrib.auth.context_processors.auth",
                        "django.contrib.messages.context_processors.messages",
                        "station.navigation.add_navigation",
                    ],
                    "loaders": [("django.template.loaders.cached.Loader", ["django.template.loaders.filesystem.Loader"])],
                },
            }
        ],
        "DATABASES": {"default": make_database_settings(station)},
        "DEFAULT_AUTO_FIELD": "django.db.models.BigAutoField",
        # None tells Django not to configure logging, because Castline has configured it already.
        "LOGGING_CONFIG": None,
        "USE_TZ": True,
        "TIME_ZONE": station.time_zone,
        "LANGUAGE_CODE": "en-gb",
        "STATIC_URL": "/static/",
        "STATICFILES_FINDERS": ["django.contrib.staticfiles.finders.AppDirectoriesFinder"],
        "WHITENOISE_USE_FINDERS": True,
        "WHITENOISE_MAX_AGE": 300,
        "WHITENOISE_ALLOW_ALL_ORIGINS": False,
        **_security_settings(settings),
        **_log_in_settings(),
    }


def _security_settings(settings: Settings) -> dict[str, Any]:
    station = settings.station
    tls = station.behind_tls
    return {
        "ALLOWED_HOSTS": list(station.hosts),
        "DATA_UPLOAD_MAX_MEMORY_SIZE": MAX_FORM_BYTES,
        "DATA_UPLOAD_MAX_NUMBER_FILES": station.upload_files,
        "FILE_UPLOAD_MAX_MEMORY_SIZE": MAX_FORM_BYTES,
        "SESSION_COOKIE_AGE": int(station.session_hours * 3600),
        "SESSION_COOKIE_NAME": name_cookie("sessionid", tls),
        "SESSION_COOKIE_HTTPONLY": True,
        "SESSION_COOKIE_SECURE": tls,
        "CSRF_COOKIE_NAME": name_cookie("csrftoken", tls),
        "CSRF_COOKIE_HTTPONLY": True,
        "CSRF_COOKIE_SECURE": tls,
        "MESSAGE_STORAGE": "station.messages.HostMessageStorage" if tls else "django.contrib.messages.storage.fallback.FallbackStorage",
        "CSRF_FAILURE_VIEW": "station.accounts.log_in.show_csrf_failure",
        "SECURE_PROXY_SSL_HEADER": ("HTTP_X_FORWARDED_PROTO", "https") if tls else None,
        "SECURE_SSL_REDIRECT": tls,
        "SECURE_HSTS_SECONDS": _YEAR_S if tls else 0,
        "SECURE_HSTS_INCLUDE_SUBDOMAINS": tls,
        "SECURE_HSTS_PRELOAD": tls,
        "SECURE_REFERRER_POLICY": "same-origin",
        "X_FRAME_OPTIONS": "DENY",
        "CONTENT_SECURITY_POLICY": {
            "DIRECTIVES": {
                "default-src": [NONE],
                "script-src": [SELF],
                "style-src": [SELF],
                # Allow blob: URLs, because the page of uploads shows a picture at such a URL before the picture is sent.
                "img-src": [SELF, "blob:"],
                "font-src": [SELF],
                "connect-src": [SELF],
                # The form that begins a log-in by OpenID Connect is answered with a redirect to the provider. Browsers apply `form-action`
                # to this redirect too, so the provider's address must be allowed.
                "form-action": [SELF, station.oidc.origin] if station.oidc.issuer else [SELF],
                "base-uri": [NONE],
                "frame-ancestors": [NONE],
            }
        },
    }


def name_cookie(name: str, is_secure: bool) -> str:
    """Returns the name under which the cookie `name` is sent. If `is_secure` is True, the name begins with `__Host-`.

    A browser accepts a cookie with the prefix `__Host-` only over TLS, and only from the host that it belongs to. So another host of the
    same domain cannot set the cookie.
    """
    return f"__Host-{name}" if is_secure else name


def _log_in_settings() -> dict[str, Any]:
    validators = "django.contrib.auth.password_validation"
    return {
        "LOGIN_URL": "log-in",
        "LOGIN_REDIRECT_URL": "wall",
        "LOGOUT_REDIRECT_URL": "log-in",
        "PASSWORD_HASHERS": ["station.password_hasher.QueuedPasswordHasher"],
        "AUTH_PASSWORD_VALIDATORS": [
            {"NAME": f"{validators}.UserAttributeSimilarityValidator"},
            {"NAME": f"{validators}.MinimumLengthValidator", "OPTIONS": {"min_length": 10}},
            {"NAME": f"{validators}.CommonPasswordValidator"},
            {"NAME": f"{validators}.NumericPasswordValidator"},
            {"NAME": "station.accounts.plant_words.PlantWordValidator"},
        ],
        "OTP_TOTP_ISSUER": "Castline",
        # 0 means that django-otp does not delay codes after wrong codes. Its delay doubles without a limit, so a stranger who knows the
        # password could lock out the app. The module `station.accounts.delays` delays the codes instead.
        "OTP_TOTP_THROTTLE_FACTOR": 0,
    }


def make_database_settings(station: StationSettings) -> dict[str, Any]:
    """Returns Django's settings for the database `station.database`. Raises SettingsError if the password file cannot be read."""
    if "://" not in station.database:
        file = Path(station.database).resolve()
        # The folder of the database usually also contains files for Prometheus, so other users of the machine must be able to read the
        # folder. They cannot read the database file.
        make_public_folder(file.parent)
        return {
            "ENGINE": "django.db.backends.sqlite3",
            "NAME": file,
            "OPTIONS": {
                # WAL mode lets the pages read the database while the archivist writes.
                "init_command": "PRAGMA journal_mode=WAL; PRAGMA cache_size=-65536;",
                "transaction_mode": "IMMEDIATE",
                "timeout": 20,
            },
        }
    address = urlsplit(station.database)
    try:
        password = station.read_password()
    except ValueError as error:
        raise SettingsError(f"station: {error}") from None
    return {
        "ENGINE": "django.db.backends.postgresql",
        "NAME": unquote(address.path.lstrip("/")),
        "USER": unquote(address.username or ""),
        "PASSWORD": password,
        "HOST": address.hostname or "",
        "PORT": str(address.port or ""),
        "OPTIONS": {"connect_timeout": 5, "application_name": "castline"},
    }


def read_secret_key(station: StationSettings) -> str:
    """Returns the secret key, which signs sessions. It comes from `station.secret_key` or from the file `station.secret_key_file`.

    Creates a missing file with a random key. Raises SettingsError if the key is too short or the file cannot be used.
    """
    if key := station.secret_key.get_secret_value():
        if len(key) < MIN_KEY_CHARACTERS:
            raise SettingsError(
                f"station.secret_key: the key has {len(key)} characters. Set a key of at least {MIN_KEY_CHARACTERS} characters."
            )
        return key
    file = station.secret_key_file
    try:
        make_public_folder(file.parent)
        create_once(file, secrets.token_urlsafe(64), mode=0o600)
        key = file.read_text().strip()
    except OSError as error:
        raise SettingsError(f"station.secret_key_file: {file} cannot be read or created: {error.strerror}. Set another file.") from None
    if len(key) < MIN_KEY_CHARACTERS:
        raise SettingsError(
            f"station.secret_key_file: the key in {file} has {len(key)} characters. Delete the file, so that a new key is made, "
            f"or write a key of at least {MIN_KEY_CHARACTERS} characters into it."
        )
    remember_secret(key)
    return key
