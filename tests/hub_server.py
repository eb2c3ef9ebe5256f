"""As much of the Hugging Face Hub as loading and uploading a model need, on the loopback interface."""

import base64
import hashlib
import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import TracebackType
from typing import Any
from urllib.parse import unquote, urlsplit

COMMIT = "0123456789abcdef0123456789abcdef01234567"
REVISIONS = ("main", COMMIT)
LARGE = 1 << 20  # from this size on a file is kept in Large File Storage, as the Hub keeps weights
FRONT_MATTER = ("pipeline_tag", "library_name")


class Hub:
    """
    A Hub that listens while it is used as a context manager.

    Args:
        repositories: name -> folder to serve. What is pushed goes to `received` and is not served.
    """

    def __init__(self, repositories: dict[str, Path]):
        self.repositories = {
            name: {path.name: path.read_bytes() for path in sorted(folder.iterdir())}
            for name, folder in repositories.items()
        }
        self.received: dict[str, dict[str, bytes]] = {}
        self.large_objects: dict[str, bytes] = {}
        self.commit_messages: list[str] = []
        self.requests: list[str] = []
        self.misunderstood: list[str] = []
        self.tokens: set[str | None] = set()
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), type("Handler", (_Handler,), {"hub": self}))
        self.url = f"http://127.0.0.1:{self._server.server_port}"
        # By another name, since the Hub keeps large files on another host, to which clients go in another way.
        self.large_url = f"http://localhost:{self._server.server_port}/large"

    def __enter__(self) -> "Hub":
        threading.Thread(target=self._server.serve_forever, daemon=True).start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._server.shutdown()
        self._server.server_close()


class _Handler(BaseHTTPRequestHandler):
    hub: Hub
    protocol_version = "HTTP/1.1"

    def do_HEAD(self) -> None:
        self.do_GET()

    def do_GET(self) -> None:
        match self._route():
            case ["api", "models", owner, name]:
                self._in_repository(f"{owner}/{name}", lambda files: self._json(_model_info(f"{owner}/{name}", files)))
            case ["api", "models", owner, name, "revision", revision] if revision in REVISIONS:
                self._in_repository(f"{owner}/{name}", lambda files: self._json(_model_info(f"{owner}/{name}", files)))
            case ["api", "models", _, _, "revision", _]:
                self._json({"error": "Invalid rev id"}, 404, {"X-Error-Code": "RevisionNotFound"})
            case ["api", "models", owner, name, "tree", revision, *folder] if revision in REVISIONS:
                self._in_repository(f"{owner}/{name}", lambda files: self._json([] if folder else _tree(files)))
            case [owner, name, "resolve", revision, *path] if revision in REVISIONS:
                self._in_repository(f"{owner}/{name}", lambda files: self._resolve(files, "/".join(path)))
            case ["large", sha256]:
                self._answer(200, self._large_file(sha256), {"ETag": f'"{sha256}"'})
            case _:
                self._misunderstand()

    def do_POST(self) -> None:
        body = self._body()
        match self._route():
            case ["api", "repos", "create"]:
                repository = "{organization}/{name}".format(**json.loads(body))
                self.hub.received.setdefault(repository, {})
                self._json({"url": f"{self.hub.url}/{repository}", "name": repository, "id": COMMIT[:24]})
            case ["api", "validate-yaml"]:
                self._json({"errors": [], "warnings": []})
            case ["api", "models", _, _, "preupload", "main"]:
                self._json({"files": [_upload_mode(file) for file in json.loads(body)["files"]]})
            case [_, _, "info", "lfs", "objects", "batch"]:
                objects = [self._upload_action(item) for item in json.loads(body)["objects"]]
                self._json({"transfer": "basic", "objects": objects})
            case ["api", "models", owner, name, "commit", "main"]:
                self._commit(f"{owner}/{name}", [json.loads(line) for line in body.splitlines()])
            case _:
                self._misunderstand()

    def do_PUT(self) -> None:
        body = self._body()
        match self._route():
            case ["large", sha256] if hashlib.sha256(body).hexdigest() == sha256:
                self.hub.large_objects[sha256] = body
                self._answer(200, b"")
            case _:
                self._misunderstand()

    def _route(self) -> list[str]:
        self.hub.requests.append(f"{self.command} {self.path}")
        self.hub.tokens.add(self.headers.get("Authorization"))
        return [unquote(part) for part in urlsplit(self.path).path.split("/") if part]

    def _in_repository(self, name: str, answer) -> None:
        if name in self.hub.repositories:
            answer(self.hub.repositories[name])
        elif name in self.hub.received:  # what is pushed to is looked up, but empty until then
            answer({})
        else:
            self._json({"error": "Repository not found"}, 404, {"X-Error-Code": "RepoNotFound"})

    def _resolve(self, files: dict[str, bytes], path: str) -> None:
        headers = {"X-Repo-Commit": COMMIT, "Accept-Ranges": "bytes"}
        if path not in files:
            self._answer(404, b"Entry not found", {**headers, "X-Error-Code": "EntryNotFound"})
        elif len(files[path]) < LARGE:
            self._answer(200, files[path], {**headers, "ETag": f'"{_git_id(files[path])}"'})
        else:
            # Large files are elsewhere, so what the client needs to know stands in the headers of the redirect.
            sha256 = hashlib.sha256(files[path]).hexdigest()
            linked = {"X-Linked-Etag": f'"{sha256}"', "X-Linked-Size": str(len(files[path]))}
            self._answer(302, b"", {**headers, **linked, "Location": f"{self.hub.large_url}/{sha256}"})

    def _large_file(self, sha256: str) -> bytes:
        contents = [content for files in self.hub.repositories.values() for content in files.values()]
        return next(content for content in contents if hashlib.sha256(content).hexdigest() == sha256)

    def _upload_action(self, item: dict[str, Any]) -> dict[str, Any]:
        return {**item, "actions": {"upload": {"href": f"{self.hub.large_url}/{item['oid']}"}}}

    def _commit(self, repository: str, operations: list[dict[str, Any]]) -> None:
        files = self.hub.received[repository]
        for operation in operations:
            value = operation["value"]
            if operation["key"] == "header":
                self.hub.commit_messages.append(value["summary"])
            elif operation["key"] == "file":
                files[value["path"]] = base64.b64decode(value["content"])
            elif operation["key"] == "lfsFile":
                files[value["path"]] = self.hub.large_objects[value["oid"]]
            else:
                return self._misunderstand()
        self._json({"success": True, "commitUrl": f"{self.hub.url}/{repository}/commit/{COMMIT}", "commitOid": COMMIT})

    def _body(self) -> bytes:
        if self.headers.get("Transfer-Encoding") != "chunked":
            return self.rfile.read(int(self.headers.get("Content-Length", 0)))
        body = b""
        while size := int(self.rfile.readline(), 16):
            body += self.rfile.read(size)
            self.rfile.readline()
        self.rfile.readline()
        return body

    def _json(self, value: Any, status: int = 200, headers: dict[str, str] | None = None) -> None:
        self._answer(status, json.dumps(value).encode(), {"Content-Type": "application/json", **(headers or {})})

    def _misunderstand(self) -> None:
        self.hub.misunderstood.append(f"{self.command} {self.path}")
        self._json({"error": "Not known here"}, 404)

    def _answer(self, status: int, body: bytes, headers: dict[str, str] | None = None) -> None:
        self.send_response(status)
        for name, value in {"Content-Length": str(len(body)), **(headers or {})}.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def log_message(self, format: str, *args: Any) -> None:
        """Requests are kept in `Hub.requests` instead of being printed."""


def _model_info(name: str, files: dict[str, bytes]) -> dict[str, Any]:
    """The facts about a model that the Hub reads from its card, and its files."""
    lines = files.get("README.md", b"").decode().split("---")
    card = dict(line.split(": ", 1) for line in (lines[1] if len(lines) > 1 else "").splitlines() if ": " in line)
    return {
        "id": name,
        "modelId": name,
        "sha": COMMIT,
        "private": False,
        "tags": [],
        "downloads": 0,
        "likes": 0,
        "siblings": [{"rfilename": path} for path in files],
        "cardData": card,
        **{key: card[key] for key in FRONT_MATTER if key in card},
    }


def _tree(files: dict[str, bytes]) -> list[dict[str, Any]]:
    return [
        {"type": "file", "path": path, "size": len(content), "oid": _git_id(content)} for path, content in files.items()
    ]


def _upload_mode(file: dict[str, Any]) -> dict[str, Any]:
    mode = "lfs" if file["size"] >= LARGE else "regular"
    return {"path": file["path"], "uploadMode": mode, "shouldIgnore": False, "oid": None}


def _git_id(content: bytes) -> str:
    return hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()
