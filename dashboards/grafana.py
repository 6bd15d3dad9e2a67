"""Calls Grafana's HTTP API through the library grafana-api, which no other module imports.

The library has no methods for alert rules and contact points, so all calls are made through its HTTP session.
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

OLDEST_VERSION = (9, 3)


class GrafanaError(CastlineError):
    """Raised if Grafana does not answer or refuses a request. `status` is the HTTP status, or 0 if there was no answer."""

    def __init__(self, message: str, status: int = 0) -> None:
        super().__init__(message)
        self.status = status


_REASONS = {
    401: "Grafana does not know the token in GRAFANA_TOKEN. The token is wrong, has expired, or belongs to another stack; set a valid one",
    403: "the token may not write to Grafana. Give its service account the role Admin",
    409: "Grafana has an object of the same name that Castline does not own. Rename that object",
    412: "somebody else changed the object at the same time. Look at the difference and push again",
}


class Grafana:
    """A Grafana server, which is called with the token of a service account.

    Raises SettingsError if the address or the token is malformed.
    """

    def __init__(self, url: str, token: str, timeout_s: float = 10.0, ca_file: str = "") -> None:
        parts = urlsplit(url)
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise SettingsError(
                f"--url: {url!r} is not a valid address. Use one like https://stack.grafana.net or http://host:3000/grafana."
            )
        if parts.username or parts.query or parts.fragment:
            raise SettingsError(
                "--url: only scheme, host, port and path are allowed. Remove user name, query and fragment, and set the token in the "
                "environment variable GRAFANA_TOKEN."
            )
        if not token or not token.isprintable() or " " in token:
            raise SettingsError(
                "GRAFANA_TOKEN is empty or is not a valid token. Set this environment variable to the token of a Grafana service account."
            )
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
        """Returns the decoded JSON, or None if Grafana has no resource at `path` (status 404)."""
        try:
            return self._call("GET", path)
        except GrafanaError as error:
            if error.status == 404:
                return None
            raise

    def post(self, path: str, body: object) -> Any:
        """Sends `body` to create a resource at `path`, and returns Grafana's answer."""
        return self._call("POST", path, body)

    def put(self, path: str, body: object) -> Any:
        """Replaces the resource at `path` with `body`, and returns Grafana's answer, or None if the answer is empty."""
        return self._call("PUT", path, body)

    def delete(self, path: str) -> None:
        """Deletes the resource at `path`."""
        self._call("DELETE", path)

    def expect_known_version(self) -> None:
        """Raises GrafanaError if the server at the address is not a Grafana, or is a Grafana that is too old for the dashboards."""
        health = self.get("/health")
        if not isinstance(health, dict):
            raise GrafanaError(
                f"The server at {self.url} has no /api/health, so it is not a Grafana. Check whether --url lacks a path.",
                404,
            )
        version = re.match(r"(\d+)\.(\d+)", str(health.get("version", "")))
        if version and (int(version[1]), int(version[2])) < OLDEST_VERSION:
            oldest = ".".join(map(str, OLDEST_VERSION))
            raise GrafanaError(f"The Grafana at {self.url} has version {health['version']}. Upgrade it to {oldest} or later.")

    def _call(self, method: str, path: str, body: object = None) -> Any:
        request = f"{method} {path}"
        try:
            return getattr(self._api, method)(path, json=body)
        except GrafanaException as error:
            reason = _REASONS.get(error.status_code, "Grafana did not accept it")
            answer = _shorten_answer(error.response)
            message = f"The request {request} failed: {reason}. Grafana answered with status {error.status_code}: {answer}."
            raise GrafanaError(message, error.status_code) from None
        except requests.exceptions.JSONDecodeError:
            # Grafana may answer DELETE and PUT with an empty body (status 204). The library grafana-api then raises JSONDecodeError.
            if method in ("DELETE", "PUT"):
                return None
            raise GrafanaError(
                f"The request {request} failed: {self.url} did not answer with JSON. "
                "Check whether a proxy in front of Grafana shows its login page."
            ) from None
        except requests.exceptions.SSLError as error:
            raise GrafanaError(
                f"This machine does not trust the certificate of {self.url}: {error}. Pass the certificate of its authority with --ca-file."
            ) from None
        except requests.exceptions.RequestException as error:
            raise GrafanaError(f"No Grafana answers at {self.url}: {error}. Check --url, and check that the server runs.") from None
        except TypeError:
            # The library grafana-api looks for the key "message" in every answer, and raises TypeError if the answer is plain text.
            raise GrafanaError(
                f"{request}: the server at {self.url} answered with plain text, so it is not a Grafana. Check --url."
            ) from None


def _shorten_answer(response: object) -> str:
    return str(response.get("message", response)) if isinstance(response, dict) else json.dumps(response)[:200]
