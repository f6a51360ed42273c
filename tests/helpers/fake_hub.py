"""A hub on this machine: the requests with which `huggingface_hub` makes a repository, commits to it and reads it."""

import base64
import hashlib
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import unquote, urlsplit

import pytest
import yaml
from huggingface_hub import constants

from loraft import hub as asking


class FakeHub:
    """Repositories by name, each a list of commits, of which a commit is its files by name.

    Attributes:
        refuse: the path that a request begins with, and the status and the hub's code for it.
        requests: method, path and token of each.
        lfs: names of files that are uploaded as large ones.
    """

    def __init__(self) -> None:
        self.commits: dict[str, list[dict[str, bytes]]] = {}
        self.private: dict[str, bool] = {}
        self.branches: set[str] = {"main"}
        self.refuse: dict[str, tuple[int, str]] = {}
        self.requests: list[tuple[str, str, str]] = []
        self.lfs: set[str] = set()
        self.large: dict[str, bytes] = {}
        hub = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_POST(self) -> None:
                hub.answer(self, self.rfile.read(int(self.headers.get("Content-Length", 0))))

            def do_GET(self) -> None:
                hub.answer(self, b"")

            do_HEAD = do_GET
            do_PUT = do_POST

            def log_message(self, *_: object) -> None:
                """Says nothing."""

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.place = f"http://127.0.0.1:{self.server.server_port}"
        threading.Thread(target=self.server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()

    def sha(self, name: str) -> str:
        return hashlib.sha1(f"{name} {len(self.commits[name])}".encode()).hexdigest()

    def answer(self, request: BaseHTTPRequestHandler, body: bytes) -> None:
        path = unquote(urlsplit(request.path).path)
        self.requests.append((request.command, path, request.headers.get("Authorization", "")))
        for begin, (status, code) in self.refuse.items():
            if path.startswith(begin):
                send(request, status, {"error": code}, {"X-Error-Code": code})
                return
        parts = path.strip("/").split("/")
        if path == "/api/repos/create":
            given = json.loads(body)
            name = f"{given['organization']}/{given['name']}"
            status = 409 if name in self.commits else 200
            self.commits.setdefault(name, [])
            self.private.setdefault(name, given.get("visibility") == "private")
            send(request, status, {"url": f"{self.place}/{name}"})
        elif path == "/api/validate-yaml":
            wrong = invalid(json.loads(body)["content"])
            send(request, 400 if wrong else 200, {"errors": [{"message": one} for one in wrong], "warnings": []})
        elif path.endswith("/info/lfs/objects/batch"):
            objects = [
                {"oid": one["oid"], "size": one["size"],
                 "actions": {"upload": {"href": f"{self.place}/large/{one['oid']}"}}}
                for one in json.loads(body)["objects"]
            ]  # fmt: skip
            send(request, 200, {"transfer": "basic", "objects": objects})
        elif parts[0] == "large":
            self.large[parts[1]] = body
            send(request, 200, {})
        elif parts[:2] == ["api", "models"]:
            self._of_repository(request, "/".join(parts[2:4]), parts[4:], body)
        elif parts[2:3] != ["resolve"]:
            send(request, 404, {})
        else:
            self._file(request, "/".join(parts[:2]), parts[3], "/".join(parts[4:]))

    def _of_repository(self, request: BaseHTTPRequestHandler, name: str, rest: list[str], body: bytes) -> None:
        if name not in self.commits:
            send(request, 404, {"error": "no"}, {"X-Error-Code": "RepoNotFound"})
        elif rest[:1] == ["branch"]:
            self.branches.add(rest[1])
            send(request, 200, {})
        elif rest[:1] == ["preupload"]:
            files = [
                {"path": one["path"], "uploadMode": "lfs" if one["path"] in self.lfs else "regular",
                 "shouldIgnore": False}
                for one in json.loads(body)["files"]
            ]  # fmt: skip
            send(request, 200, {"files": files})
        elif rest[:1] == ["commit"]:
            lines = [json.loads(line) for line in body.splitlines()]
            files = {
                one["value"]["path"]: self.large[one["value"]["oid"]]
                if one["key"] == "lfsFile"
                else base64.b64decode(one["value"]["content"])
                for one in lines
                if one["key"] in ("file", "lfsFile")
            }
            gone = {one["value"]["path"] for one in lines if one["key"] == "deletedFile"}
            before = self.commits[name][-1] if self.commits[name] else {}
            kept = {path: content for path, content in before.items() if path not in gone}
            self.commits[name].append({**kept, **files})
            oid = self.sha(name)
            send(request, 200, {"success": True, "commitOid": oid, "commitUrl": f"{self.place}/{name}/commit/{oid}"})
        elif rest[:1] == ["tree"]:
            files = self.commits[name][-1] if self.commits[name] else {}
            send(request, 200, [
                {"type": "file", "path": path, "size": len(content), "oid": hashlib.sha1(content).hexdigest()}
                for path, content in files.items()
            ])  # fmt: skip
        else:
            send(request, 200, {"id": name, "sha": self.sha(name), "private": self.private[name], "siblings": []})

    def _file(self, request: BaseHTTPRequestHandler, name: str, revision: str, path: str) -> None:
        commits = self.commits.get(name)
        if not commits:
            send(request, 404, {}, {"X-Error-Code": "RepoNotFound"})
        elif revision not in (*self.branches, self.sha(name)):
            send(request, 404, {}, {"X-Error-Code": "RevisionNotFound"})
        elif path not in commits[-1]:
            send(request, 404, {}, {"X-Error-Code": "EntryNotFound", "X-Repo-Commit": self.sha(name)})
        else:
            content = commits[-1][path]
            tag = hashlib.sha1(content).hexdigest()
            send(request, 200, content, {"X-Repo-Commit": self.sha(name), "ETag": f'"{tag}"'})


def send(request: BaseHTTPRequestHandler, status: int, content: object, headers: dict[str, str] | None = None) -> None:
    body = content if isinstance(content, bytes) else json.dumps(content).encode()
    request.send_response(status)
    for key, value in {"Content-Length": str(len(body)), "Content-Type": "application/json", **(headers or {})}.items():
        request.send_header(key, value)
    request.end_headers()
    if request.command != "HEAD":
        request.wfile.write(body)


def invalid(card: str) -> list[str]:
    """What the hub would say against a card's metadata, by the rules of its documentation of model cards."""
    found = yaml.safe_load(card.split("---\n")[1])
    rules = {
        "base_model": lambda value: value.count("/") == 1,
        "language": lambda value: len(value) in (2, 3),
        "license": lambda value: value == value.lower() and " " not in value,
        "pipeline_tag": lambda value: value in ("text-classification", "text-generation"),
        "tags": lambda value: all(isinstance(one, str) for one in value),
        "datasets": lambda value: all("/" in one for one in value),
        "model-index": lambda value: all(
            one["name"] and result["task"]["type"] and result["dataset"]["type"] and result["dataset"]["name"]
            and all(metric["type"] and isinstance(metric["value"], float) for metric in result["metrics"])
            for one in value for result in one["results"]
        ),
    }  # fmt: skip
    return [f"{key}: {found[key]}" for key, rule in rules.items() if key in found and not rule(found[key])]


@contextmanager
def fake_hub(monkeypatch: pytest.MonkeyPatch, cache: str) -> Iterator[FakeHub]:
    """A hub that the client asks in place of the real one, whatever the environment says about being offline."""
    hub = FakeHub()
    monkeypatch.setattr(constants, "ENDPOINT", hub.place)
    monkeypatch.setattr(
        constants, "HUGGINGFACE_CO_URL_TEMPLATE", hub.place + "/{repo_id}/resolve/{revision}/{filename}"
    )
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", cache)
    monkeypatch.setenv("HF_TOKEN", "hf_bí_mật".encode().hex())
    asking._remembered.cache_clear()
    yield hub
    asking._remembered.cache_clear()
    hub.server.shutdown()
    hub.server.server_close()
