"""A fake Grafana server with the part of the HTTP API that Castline uses, because no package contains a real one.

Status codes, versions and rights follow Grafana's documentation and the behaviour of Grafana 9.3. What is posted is stored, as in the
real server.
"""

from __future__ import annotations

import json
import ssl
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, urlsplit

ADMIN, EDITOR, VIEWER = "token-of-an-admin", "token-of-an-editor", "token-of-a-viewer"
Content = dict[str, Any]
# Status and body.
Response = tuple[int, Any]


@dataclass
class FakeGrafana:
    """Serves from its creation on. `writes` lists the accepted changes as "METHOD path".

    `fail` is called before each change. If it returns a response, the change is not made and the response is sent.
    """

    prefix: str = ""
    version: str = "9.3.2"
    tls: ssl.SSLContext | None = None
    lists_rules: bool = True
    datasources: dict[str, Content] = field(default_factory=dict)
    folders: dict[str, Content] = field(default_factory=dict)
    dashboards: dict[str, Content] = field(default_factory=dict)
    rules: dict[str, Content] = field(default_factory=dict)
    contacts: dict[str, Content] = field(default_factory=dict)
    writes: list[str] = field(default_factory=list)
    fail: Callable[[str, str], Response | None] = lambda method, path: None

    def __post_init__(self) -> None:
        fake = self

        class Handler(BaseHTTPRequestHandler):
            def answer(self) -> None:
                size = int(self.headers.get("Content-Length") or 0)
                body = json.loads(self.rfile.read(size) or b"null")
                parts = urlsplit(self.path)
                if not parts.path.startswith(f"{fake.prefix}/api/"):
                    self.reply(404, "<html>no such page</html>")
                    return
                path = parts.path.removeprefix(f"{fake.prefix}/api")
                self.reply(*fake.handle(self.command, path, parse_qs(parts.query), body, self.headers.get("Authorization", "")))

            do_GET = do_POST = do_PUT = do_DELETE = answer

            def reply(self, status: int, content: Any) -> None:
                text = b"" if content is None else content.encode() if isinstance(content, str) else json.dumps(content).encode()
                self.send_response(status)
                self.send_header("Content-Length", str(len(text)))
                self.end_headers()
                self.wfile.write(text)

            def log_message(self, format: str, *args: object) -> None:
                """Requests are not logged."""

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        if self.tls:
            # The connection's own thread makes the handshake, so that a failed handshake does not stop other connections.
            self._server.socket = self.tls.wrap_socket(self._server.socket, server_side=True, do_handshake_on_connect=False)
        scheme = "https" if self.tls else "http"
        self.url = f"{scheme}://localhost:{self._server.server_address[1]}{self.prefix}"
        threading.Thread(target=self._server.serve_forever, daemon=True).start()

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()

    def edit(self, uid: str, **changes: Any) -> None:
        """Changes a dashboard as a person does in the browser."""
        document = self.dashboards[uid]["dashboard"]
        document.update(changes, version=document["version"] + 1)

    def handle(self, method: str, path: str, query: dict[str, list[str]], body: Any, authorization: str) -> Response:
        if path == "/health":
            return 200, {"commit": "x", "database": "ok", "version": self.version}
        token = authorization.removeprefix("Bearer ")
        if token not in (ADMIN, EDITOR, VIEWER):
            return 401, {"message": "invalid API key"}
        if method != "GET":
            provisioning = path.startswith(("/v1/provisioning", "/datasources"))
            if token == VIEWER or (token == EDITOR and provisioning):
                return 403, {"message": "You'll need additional permissions to perform this action."}
            if (answer := self.fail(method, path)) is not None:
                return answer
        status, content = self._route(method, path, query, body)
        if method != "GET" and status < 300:
            self.writes.append(f"{method} {path}")
        return status, content

    def _route(self, method: str, path: str, query: dict[str, list[str]], body: Any) -> Response:
        uid = path.rsplit("/", 1)[-1]
        if path == "/search":
            return 200, self._search(query)
        if path.startswith("/datasources"):
            return self._datasource(method, uid, body)
        if path.startswith("/folders"):
            return self._folder(method, uid, body)
        if path.startswith("/dashboards"):
            return self._dashboard(method, uid, body)
        if path.startswith("/v1/provisioning/alert-rules"):
            return self._rule(method, uid, body)
        if path.startswith("/v1/provisioning/contact-points"):
            return self._contact(method, uid, body)
        return 404, {"message": "Not found"}

    def _search(self, query: dict[str, list[str]]) -> list[Content]:
        (tag,) = query["tag"]
        return [
            {"uid": uid, "title": saved["dashboard"]["title"], "type": "dash-db", "folderUid": saved["folderUid"]}
            for uid, saved in self.dashboards.items()
            if tag in saved["dashboard"].get("tags", [])
        ]

    def _datasource(self, method: str, uid: str, body: Any) -> Response:
        if method == "POST":
            if any(source["name"] == body["name"] or source["uid"] == body["uid"] for source in self.datasources.values()):
                return 409, {"message": "data source with the same name already exists"}
            self.datasources[body["uid"]] = {"id": len(self.datasources) + 1, "orgId": 1, "version": 1, "readOnly": False, **body}
            return 200, {"datasource": self.datasources[body["uid"]], "message": "Datasource added"}
        if uid not in self.datasources:
            return 404, {"message": "Data source not found"}
        saved = self.datasources[uid]
        if method == "PUT":
            if body.get("version", saved["version"]) != saved["version"]:
                return 409, {"message": "Datasource has already been updated by someone else. Please reload and try again"}
            self.datasources[uid] = {**saved, **body, "version": saved["version"] + 1}
        elif method == "DELETE":
            del self.datasources[uid]
            return 200, {"message": "Data source deleted"}
        return 200, self.datasources[uid]

    def _folder(self, method: str, uid: str, body: Any) -> Response:
        if method == "POST":
            if body["uid"] in self.folders or any(folder["title"] == body["title"] for folder in self.folders.values()):
                return 409, {"message": "a folder with the same name already exists"}
            self.folders[body["uid"]] = {"id": 7, "version": 1, "url": f"/dashboards/f/{body['uid']}", **body}
            return 200, self.folders[body["uid"]]
        if uid not in self.folders:
            return 404, {"message": "folder not found"}
        if method == "PUT":
            if not body.get("overwrite") and body.get("version") != self.folders[uid]["version"]:
                return 412, {"message": "the folder has been changed by someone else"}
            self.folders[uid] |= {"title": body["title"], "version": self.folders[uid]["version"] + 1}
        elif method == "DELETE":
            del self.folders[uid]
            return 200, {"message": "Folder deleted"}
        return 200, self.folders[uid]

    def _dashboard(self, method: str, uid: str, body: Any) -> Response:
        if method == "POST":
            return self._save(body)
        if uid not in self.dashboards:
            return 404, {"message": "Dashboard not found"}
        saved = self.dashboards[uid]
        if method == "DELETE":
            del self.dashboards[uid]
            return 200, {"title": saved["dashboard"]["title"], "message": "Dashboard deleted"}
        return 200, {"dashboard": saved["dashboard"], "meta": {"folderUid": saved["folderUid"], "version": saved["dashboard"]["version"]}}

    def _save(self, body: Any) -> Response:
        document, folder = body["dashboard"], body.get("folderUid", "")
        if folder and folder not in self.folders:
            return 400, {"message": "folder not found"}
        if len(document["uid"]) > 40 or not document.get("title"):
            return 400, {"message": "bad uid or title"}
        saved = self.dashboards.get(document["uid"])
        if not body.get("overwrite"):
            if saved and document.get("version") != saved["dashboard"]["version"]:
                return 412, {"status": "version-mismatch", "message": "The dashboard has been changed by someone else"}
            others = (other for uid, other in self.dashboards.items() if uid != document["uid"] and other["folderUid"] == folder)
            if any(other["dashboard"]["title"] == document["title"] for other in others):
                return 412, {"status": "name-exists", "message": "A dashboard with the same name in the folder already exists"}
        known = {"id": saved["dashboard"]["id"], "version": saved["dashboard"]["version"] + 1} if saved else {"id": 100, "version": 1}
        self.dashboards[document["uid"]] = {"dashboard": {**document, **known}, "folderUid": folder}
        return 200, {"status": "success", "uid": document["uid"], "version": known["version"], "id": known["id"]}

    def _rule(self, method: str, uid: str, body: Any) -> Response:
        if method == "POST":
            if body["uid"] in self.rules:
                return 409, {"message": "alert rule with the same uid already exists"}
            if body["folderUID"] not in self.folders:
                return 400, {"message": "folder does not exist"}
            self.rules[body["uid"]] = {
                "id": len(self.rules) + 1,
                "orgID": 1,
                "updated": "2026-01-01T00:00:00Z",
                "provenance": "api",
                **body,
            }
            return 201, self.rules[body["uid"]]
        if uid == "alert-rules":
            return (200, list(self.rules.values())) if self.lists_rules else (404, {"message": "Not found"})
        if uid not in self.rules:
            return 404, None
        if method == "PUT":
            self.rules[uid] |= body
        elif method == "DELETE":
            del self.rules[uid]
            return 204, None
        return 200, self.rules[uid]

    def _contact(self, method: str, uid: str, body: Any) -> Response:
        if method == "POST":
            self.contacts[body["uid"]] = {"disableResolveMessage": False, "provenance": "api", **body}
            return 202, self.contacts[body["uid"]]
        if method == "GET":
            return 200, list(self.contacts.values())
        if uid not in self.contacts:
            return 404, {"message": "contact point not found"}
        if method == "PUT":
            self.contacts[uid] |= body
            return 202, {"message": "contactpoint updated"}
        del self.contacts[uid]
        return 202, {"message": "contactpoint deleted"}
