"""Grafana's HTTP API through grafana-api, the one module that knows that library: addresses, errors, empty answers.

What the library has no method for (alert rules, contact points) goes through its own session.
"""

from __future__ import annotations

import json
import re
from typing import Any
from urllib.parse import urlsplit

import requests
from grafana_api.grafana_api import GrafanaException
from grafana_api.grafana_face import GrafanaFace

from streams.errors import CastlineError, SettingsError

OLDEST = (9, 3)


class GrafanaError(CastlineError):
    """Grafana does not answer or refuses. `status` is that of HTTP, 0 where there was no answer."""

    def __init__(self, message: str, status: int = 0) -> None:
        super().__init__(message)
        self.status = status


_MEANINGS = {
    401: "expected a valid token in GRAFANA_TOKEN, Grafana does not know it: wrong, expired or of another stack",
    403: "expected a token that may write here, this one may not: give its service account the role Admin",
    409: "expected no other thing of the same name, found one that Castline does not own: rename it",
    412: "expected nobody else to change it at the same time, someone did: look at the difference and push again",
}


class Grafana:
    """One Grafana, spoken to with a token. Raises SettingsError: for an address or token that cannot be one."""

    def __init__(self, url: str, token: str, timeout_s: float = 10.0, ca_file: str = "") -> None:
        parts = urlsplit(url)
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise SettingsError(f"--url: expected an address like https://stack.grafana.net or http://host:3000/grafana, found {url!r}")
        if parts.username or parts.query or parts.fragment:
            raise SettingsError("--url: expected scheme, host, port and path only, found more; the token comes from the environment")
        if not token or not token.isprintable() or " " in token:
            raise SettingsError("GRAFANA_TOKEN: expected the token of a service account in the environment, found none")
        prefix = parts.path.strip("/")
        host = f"[{parts.hostname}]" if ":" in parts.hostname else parts.hostname
        self.url = url.rstrip("/")
        face = GrafanaFace(
            auth=token,
            host=host,
            port=parts.port,
            url_path_prefix=f"{prefix}/" if prefix else "",
            protocol=parts.scheme,
            verify=ca_file or True,
            timeout=timeout_s,
        )
        self._api = face.api

    def get(self, path: str) -> Any:
        """The answer, None where there is no such thing."""
        try:
            return self._call("GET", path)
        except GrafanaError as error:
            if error.status == 404:
                return None
            raise

    def post(self, path: str, body: object) -> Any:
        return self._call("POST", path, body)

    def put(self, path: str, body: object) -> Any:
        return self._call("PUT", path, body)

    def delete(self, path: str) -> None:
        self._call("DELETE", path)

    def expect_known_version(self) -> None:
        """Raises GrafanaError: when there is no Grafana, or one older than what the dashboards need."""
        health = self.get("/health")
        if not isinstance(health, dict):
            raise GrafanaError(f"expected a Grafana at {self.url}, found something else: no /api/health there; is a path missing?", 404)
        version = re.match(r"(\d+)\.(\d+)", str(health.get("version", "")))
        if version and (int(version[1]), int(version[2])) < OLDEST:
            raise GrafanaError(f"expected Grafana {OLDEST[0]}.{OLDEST[1]} or later at {self.url}, found {health['version']}")

    def _call(self, method: str, path: str, body: object = None) -> Any:
        what = f"{method} {path}"
        try:
            return getattr(self._api, method)(path, json=body)
        except GrafanaException as error:
            meaning = _MEANINGS.get(error.status_code, "expected Grafana to accept it, it did not")
            raise GrafanaError(f"{what}: {meaning} ({error.status_code}: {_told(error.response)})", error.status_code) from None
        except requests.exceptions.JSONDecodeError:
            # 204 has no body, which the library does not expect. A page in another language than JSON is no Grafana.
            if method in ("DELETE", "PUT"):
                return None
            raise GrafanaError(f"{what}: expected JSON from {self.url}, found another page: a login of a proxy before Grafana?") from None
        except requests.exceptions.SSLError as error:
            raise GrafanaError(f"expected a certificate for {self.url} that this machine trusts, found none: {error}") from None
        except requests.exceptions.RequestException as error:
            raise GrafanaError(f"expected a Grafana at {self.url}, none answers: {error}") from None
        except TypeError:
            # The library looks for "message" in whatever came, text included.
            raise GrafanaError(f"{what}: expected an answer of Grafana's, found a text of another server at {self.url}") from None


def _told(response: object) -> str:
    return str(response.get("message", response)) if isinstance(response, dict) else json.dumps(response)[:200]
