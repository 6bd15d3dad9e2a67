"""Django's settings, made from Castline's: there is one place to configure, castline.toml and the environment."""

from __future__ import annotations

import os
import secrets
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

import django
from csp.constants import NONE, SELF
from django.conf import settings as in_force

from streams.errors import SettingsError
from streams.settings import Settings, StationSettings

_HERE = Path(__file__).parent
# A form without files; pictures are bounded by `pictures.max_bytes` and `station.upload_files`.
MAX_FORM_BYTES = 2**20
_YEAR_S = 365 * 24 * 3600


def configure(settings: Settings) -> None:
    """Makes this process a station process, by `settings`. Once a process; before any import of a table."""
    in_force.configure(**make_django_settings(settings))
    django.setup()


def current_settings() -> Settings:
    """The Castline settings in force in this process. Raises AttributeError: before `configure`."""
    settings = getattr(in_force, "CASTLINE")  # noqa: B009  # not one of Django's own, which alone the type checker knows
    assert isinstance(settings, Settings)
    return settings


def make_django_settings(settings: Settings) -> dict[str, Any]:
    """What Django is told. Raises SettingsError: for a secret key or a password file that cannot be read or made."""
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
            "axes",
            "csp",
            "station",
            "station.archive",
            "station.accounts",
            "station.uploads",
            "station.reviews",
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
            "axes.middleware.AxesMiddleware",
            # The last, since it knows no coroutines: so all above are called in one thread, not each in a turn of its own.
            "station.accounts.log_in.SessionRenewalMiddleware",
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
        # Castline's own log configuration stays in force.
        "LOGGING_CONFIG": None,
        "USE_TZ": True,
        "TIME_ZONE": station.time_zone,
        "LANGUAGE_CODE": "en-gb",
        "STATIC_URL": "/static/",
        "STATICFILES_FINDERS": ["django.contrib.staticfiles.finders.AppDirectoriesFinder"],
        "WHITENOISE_USE_FINDERS": True,
        "WHITENOISE_MAX_AGE": 300,
        "WHITENOISE_ALLOW_ALL_ORIGINS": False,
        **_security(settings),
        **_log_in(station),
    }


def _security(settings: Settings) -> dict[str, Any]:
    station = settings.station
    tls = station.behind_tls
    return {
        "ALLOWED_HOSTS": list(station.hosts),
        "DATA_UPLOAD_MAX_MEMORY_SIZE": MAX_FORM_BYTES,
        "DATA_UPLOAD_MAX_NUMBER_FILES": station.upload_files,
        "FILE_UPLOAD_MAX_MEMORY_SIZE": MAX_FORM_BYTES,
        "SESSION_COOKIE_AGE": int(station.session_hours * 3600),
        "SESSION_COOKIE_HTTPONLY": True,
        "SESSION_COOKIE_SECURE": tls,
        "CSRF_COOKIE_HTTPONLY": True,
        "CSRF_COOKIE_SECURE": tls,
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
                # blob: a picture that is about to be uploaded, shown before it is sent.
                "img-src": [SELF, "blob:"],
                "font-src": [SELF],
                "connect-src": [SELF],
                "form-action": [SELF],
                "base-uri": [NONE],
                "frame-ancestors": [NONE],
            }
        },
    }


def _log_in(station: StationSettings) -> dict[str, Any]:
    validators = "django.contrib.auth.password_validation"
    return {
        "LOGIN_URL": "log-in",
        "LOGIN_REDIRECT_URL": "wall",
        "LOGOUT_REDIRECT_URL": "log-in",
        "AUTHENTICATION_BACKENDS": ["axes.backends.AxesStandaloneBackend", "django.contrib.auth.backends.ModelBackend"],
        "AUTH_PASSWORD_VALIDATORS": [
            {"NAME": f"{validators}.UserAttributeSimilarityValidator"},
            {"NAME": f"{validators}.MinimumLengthValidator", "OPTIONS": {"min_length": 10}},
            {"NAME": f"{validators}.CommonPasswordValidator"},
            {"NAME": f"{validators}.NumericPasswordValidator"},
        ],
        "AXES_FAILURE_LIMIT": station.log_in_failures,
        "AXES_COOLOFF_TIME": station.log_in_lock_minutes / 60,
        "AXES_LOCKOUT_PARAMETERS": [["username", "ip_address"]],
        "AXES_LOCKOUT_CALLABLE": "station.accounts.log_in.show_locked_out",
        "AXES_CLIENT_IP_CALLABLE": "station.accounts.log_in.client_address",
        "AXES_RESET_ON_SUCCESS": True,
        # Guessing on while locked out does not keep the rightful owner out any longer.
        "AXES_RESET_COOL_OFF_ON_FAILURE_DURING_LOCKOUT": False,
        "AXES_DISABLE_ACCESS_LOG": True,
        "AXES_VERBOSE": False,
    }


def make_database_settings(station: StationSettings) -> dict[str, Any]:
    """Django's description of the database that `station` names. Raises SettingsError: for a password file that cannot be read."""
    if "://" not in station.database:
        file = Path(station.database).resolve()
        file.parent.mkdir(parents=True, exist_ok=True)
        return {
            "ENGINE": "django.db.backends.sqlite3",
            "NAME": file,
            "OPTIONS": {
                # Readers do not wait for the archivist, who writes all the time; it and the pages wait for each other's writes.
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
    """The key that signs sessions: as set, else from its file, which is made at the first call. Raises SettingsError."""
    if given := station.secret_key.get_secret_value():
        if len(given) < 50:
            raise SettingsError(f"station.secret_key: expected at least 50 characters, found {len(given)}")
        return given
    file = station.secret_key_file
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        try:
            handle = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        except FileExistsError:
            pass
        else:
            with os.fdopen(handle, "w") as made:
                made.write(secrets.token_urlsafe(64))
        found = file.read_text().strip()
    except OSError as error:
        raise SettingsError(f"station.secret_key_file: {file} cannot be read or made: {error.strerror}") from None
    if len(found) < 50:
        raise SettingsError(f"station.secret_key_file: expected at least 50 characters in {file}, found {len(found)}")
    return found
