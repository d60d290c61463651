"""A stand-in for the Hugging Face Hub: the part of its HTTP interface that huggingface-hub calls for models."""

import base64
import hashlib
import json
import re
import threading
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import unquote

import yaml

TOKEN = "hf_stand_in"
"""The only valid token; it belongs to the account ``user``."""


@dataclass
class Repository:
    """Commits and branches; a commit maps paths to contents, and ``lfs`` holds the paths stored as LFS files."""

    private: bool
    commits: dict[str, dict[str, bytes]] = field(default_factory=dict)
    branches: dict[str, str] = field(default_factory=dict)
    lfs: set[str] = field(default_factory=set)


class HubServer:
    """The hub on a port of this machine.

    Attributes:
        repositories: repositories by name.
        requests: method and path of each request.
        break_off: number of downloads of LFS files that break off after half of the bytes.
        flip: change the last byte of downloaded LFS files.
    """

    def __init__(self) -> None:
        self.repositories: dict[str, Repository] = {}
        self.objects: dict[str, bytes] = {}
        self.requests: list[str] = []
        self.break_off = 0
        self.flip = False
        self._http = ThreadingHTTPServer(("127.0.0.1", 0), type("Handler", (_Handler,), {"hub": self}))
        self._http.daemon_threads = True
        self.address = f"http://127.0.0.1:{self._http.server_port}"
        threading.Thread(target=self._http.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()

    def close(self) -> None:
        self._http.shutdown()
        self._http.server_close()

    def files(self, repository: str, revision: str = "main") -> dict[str, bytes]:
        found = self.repositories[repository]
        return found.commits[found.branches[revision]]


class _Handler(BaseHTTPRequestHandler):
    hub: HubServer
    protocol_version = "HTTP/1.1"

    def log_message(self, *args: Any) -> None:
        pass

    def _route(self) -> None:
        self.hub.requests.append(f"{self.command} {self.path}")
        self.body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        path = self.path.partition("?")[0]
        for pattern, method in _ROUTES:
            match = re.fullmatch(pattern, f"{self.command} {path}")
            if match is not None:
                return method(self, *(unquote(group) for group in match.groups()))
        self._send(404, {"error": f"no route for {self.command} {path}"})

    do_GET = do_HEAD = do_POST = do_PUT = _route

    def _send(self, status: int, body: Any = b"", **headers: str) -> None:
        content = body if isinstance(body, bytes) else json.dumps(body).encode()
        self.send_response(status)
        for name, value in {"Content-Length": str(len(content)), **headers}.items():
            self.send_header(name.replace("_", "-"), value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(content)

    def _refuse(self, status: int, code: str) -> None:
        self._send(status, {"error": code}, X_Error_Code=code, X_Error_Message=code)

    @property
    def _logged_in(self) -> bool:
        return self.headers.get("Authorization") == f"Bearer {TOKEN}"

    def _readable(self, name: str) -> Repository | None:
        """The repository; without access the hub answers as if it did not exist."""
        repository = self.hub.repositories.get(name)
        if repository is None or (repository.private and not self._logged_in):
            self._refuse(404 if self._logged_in else 401, "RepoNotFound")
            return None
        return repository

    def _writable(self, name: str) -> Repository | None:
        if not self._logged_in:
            self._send(401, {"error": "Unauthorized"})
        elif not name.startswith("user/"):
            self._send(403, {"error": "Forbidden: you need write access"})
        else:
            return self._readable(name)
        return None

    def create(self) -> None:
        values = json.loads(self.body)
        name = f"{values.get('organization') or 'user'}/{values['name']}"
        if not self._logged_in:
            return self._send(401, {"error": "Unauthorized"})
        if not name.startswith("user/"):
            return self._send(403, {"error": "Forbidden: you need write access"})
        known = name in self.hub.repositories
        if not known:
            private = bool(values.get("private")) or values.get("visibility") == "private"
            self.hub.repositories[name] = Repository(private)
            self._commit_files(self.hub.repositories[name], "main", {".gitattributes": b""})
        self._send(409 if known else 200, {"url": f"{self.hub.address}/{name}", "name": name})

    def branch(self, name: str, branch: str) -> None:
        if (repository := self._writable(name)) is not None:
            if branch in repository.branches:
                return self._send(409, {"error": "exists"})
            repository.branches[branch] = repository.branches["main"]
            self._send(200, {})

    def preupload(self, name: str, revision: str) -> None:
        if (repository := self._writable(name)) is not None:
            if revision not in repository.branches:
                return self._refuse(404, "RevisionNotFound")
            mode = {True: "lfs", False: "regular"}
            paths = [file["path"] for file in json.loads(self.body)["files"]]
            files = [{"path": p, "uploadMode": mode[p.endswith(".safetensors")], "shouldIgnore": False} for p in paths]
            self._send(200, {"files": files})

    def batch(self, name: str) -> None:
        if self._writable(name) is not None:
            objects = [
                {**item, "actions": {"upload": {"href": f"{self.hub.address}/lfs/{item['oid']}"}}}
                for item in json.loads(self.body)["objects"]
            ]
            self._send(200, {"transfer": "basic", "objects": objects})

    def upload(self, oid: str) -> None:
        if hashlib.sha256(self.body).hexdigest() != oid:
            return self._send(400, {"error": "wrong digest"})
        self.hub.objects[oid] = self.body
        self._send(200)

    def validate(self) -> None:
        content = json.loads(self.body)["content"]
        metadata = yaml.safe_load(content.split("---")[1])
        missing = {"library_name", "pipeline_tag", "license", "tags"} - metadata.keys()
        errors = [{"message": f"no {key}"} for key in sorted(missing)]
        self._send(400 if errors else 200, {"errors": errors, "warnings": []})

    def commit(self, name: str, revision: str) -> None:
        if (repository := self._writable(name)) is None:
            return
        files = dict(repository.commits[repository.branches[revision]])
        for line in self.body.decode().splitlines():
            item = json.loads(line)
            value = item["value"]
            if item["key"] == "file":
                files[value["path"]] = base64.b64decode(value["content"])
            elif item["key"] == "lfsFile":
                files[value["path"]] = self.hub.objects[value["oid"]]
                repository.lfs.add(value["path"])
        oid = self._commit_files(repository, revision, files)
        self._send(200, {"commitUrl": f"{self.hub.address}/{name}/commit/{oid}", "commitOid": oid, "success": True})

    def _commit_files(self, repository: Repository, branch: str, files: dict[str, bytes]) -> str:
        oid = hashlib.sha1(repr((len(repository.commits), sorted(files.items()))).encode()).hexdigest()
        repository.commits[oid] = files
        repository.branches[branch] = oid
        return oid

    def info(self, name: str, revision: str = "main") -> None:
        if (repository := self._readable(name)) is not None:
            oid = repository.branches[revision]
            siblings = [{"rfilename": path} for path in repository.commits[oid]]
            self._send(200, {"id": name, "sha": oid, "siblings": siblings, "private": repository.private})

    def resolve(self, name: str, revision: str, path: str) -> None:
        if (repository := self._readable(name)) is None:
            return
        oid = repository.branches.get(revision, revision)
        if oid not in repository.commits:
            return self._refuse(404, "RevisionNotFound")
        content = repository.commits[oid].get(path)
        if content is None:
            return self._send(404, b"", X_Error_Code="EntryNotFound", X_Repo_Commit=oid)
        if path not in repository.lfs:
            etag = hashlib.sha1(content).hexdigest()
            return self._send(200, content, ETag=f'"{etag}"', X_Repo_Commit=oid)
        digest = hashlib.sha256(content).hexdigest()
        # The hub stores large files on another host.
        location = f"{self.hub.address.replace('127.0.0.1', 'localhost')}/cdn/{digest}"
        linked = {"X_Linked_Etag": f'"{digest}"', "X_Linked_Size": str(len(content))}
        self._send(302, b"", Location=location, X_Repo_Commit=oid, **linked)

    def cdn(self, digest: str) -> None:
        content = self.hub.objects[digest]
        if self.hub.flip:
            content = content[:-1] + bytes([content[-1] ^ 1])
        ranged = re.match(r"bytes=(\d+)-", self.headers.get("Range", ""))
        start = int(ranged[1]) if ranged else 0
        total, content = len(content), content[start:]
        headers = {"ETag": f'"{digest}"', "Accept-Ranges": "bytes"}
        headers |= {"Content-Range": f"bytes {start}-{total - 1}/{total}"} if ranged else {}
        if self.hub.break_off > 0 and self.command == "GET":
            self.hub.break_off -= 1
            self.send_response(206 if ranged else 200)
            for name, value in {**headers, "Content-Length": str(len(content))}.items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(content[: len(content) // 2])
            self.close_connection = True
            return
        self._send(206 if ranged else 200, content, **headers)


_NAME = r"([^/]+/[^/]+)"
_ROUTES: list[tuple[str, Any]] = [
    (r"POST /api/repos/create", _Handler.create),
    (r"POST /api/validate-yaml", _Handler.validate),
    (rf"POST /api/models/{_NAME}/branch/([^/]+)", _Handler.branch),
    (rf"POST /api/models/{_NAME}/preupload/([^/]+)", _Handler.preupload),
    (rf"POST /api/models/{_NAME}/commit/([^/]+)", _Handler.commit),
    (rf"POST /{_NAME}\.git/info/lfs/objects/batch", _Handler.batch),
    (r"PUT /lfs/([0-9a-f]+)", _Handler.upload),
    (rf"GET /api/models/{_NAME}", _Handler.info),
    (rf"GET /api/models/{_NAME}/revision/([^/]+)", _Handler.info),
    (rf"(?:GET|HEAD) /{_NAME}/resolve/([^/]+)/(.+)", _Handler.resolve),
    (r"(?:GET|HEAD) /cdn/([0-9a-f]+)", _Handler.cdn),
]
