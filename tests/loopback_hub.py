"""A test double of the Hugging Face Hub on 127.0.0.1. It is not a Hub: no git, no Xet, no pull requests, no limits.

It keeps repositories in memory and serves what `huggingface_hub`, `transformers` and `datasets` ask for while they
upload and download, with the errors that these clients tell apart. What it does not serve answers 404 and is listed in
`LoopbackHub.unknown`. The clients read their settings when they are imported, so each needs a process of its own:

    with LoopbackHub(tokens={"hf_marker": "user"}) as hub:
        hub.add("user/model", {"config.json": b"{}"})
        subprocess.run([sys.executable, "client.py"], env=hub.env(tmp_path, token="hf_marker"), check=True)
        assert not hub.unknown
"""

from __future__ import annotations

import base64
import hashlib
import json
import os
import re
import secrets
import socket
import threading
from collections.abc import Callable, Collection, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from email.message import Message
from functools import cached_property
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, Literal, NamedTuple
from urllib.parse import parse_qs, unquote

import yaml  # not in the standard library, but huggingface_hub cannot be installed without it

NO_CREDENTIALS = "Invalid username or password."


def is_lfs(path: str, size: int) -> bool:
    # An empty file is a regular one whatever its name: the client insists on it.
    return size > 10_000_000 or (size > 0 and path.endswith((".safetensors", ".bin", ".parquet")))


def front_matter(card: str) -> dict[str, Any]:
    match = re.match(r"\s*^---[ \t]*\r?\n(.*?)^---[ \t]*\r?$", card, re.DOTALL | re.MULTILINE)
    metadata = (yaml.safe_load(match[1]) if match else None) or {}
    if not isinstance(metadata, dict):
        raise yaml.YAMLError("the metadata is not a mapping")
    return metadata


def card_errors(card: str) -> list[str]:
    """What the Hub refuses in a card, as far as a program that writes cards is likely to get it wrong."""
    errors = []
    try:
        for i, model in enumerate(front_matter(card).get("model-index", [])):
            for j, result in enumerate(model["results"]):
                parts = [("task", "type"), ("dataset", "type"), ("dataset", "name")]
                found = {f"{part}.{name}": (result.get(part) or {}).get(name) for part, name in parts}
                for k, metric in enumerate(result["metrics"]):
                    found |= {f"metrics[{k}].{name}": metric.get(name) for name in ("type", "value")}
                missing = [name for name, value in found.items() if value is None]
                errors += [f'"model-index[{i}].results[{j}].{name}" is required' for name in missing]
    except yaml.YAMLError as error:
        errors.append(f"Invalid YAML in README.md: {error}")
    except (AttributeError, KeyError, TypeError) as error:
        errors.append(f'"model-index" must be an array of models with results with metrics ({error!r})')
    return errors


@dataclass(frozen=True)
class Blob:
    data: bytes
    lfs: bool

    @cached_property
    def sha256(self) -> str:
        return hashlib.sha256(self.data).hexdigest()

    @cached_property
    def git_id(self) -> str:
        return hashlib.sha1(b"blob %d\0" % len(self.data) + self.data).hexdigest()

    @property
    def etag(self) -> str:
        return self.sha256 if self.lfs else self.git_id

    def lfs_info(self) -> dict[str, Any]:
        # The same number is `oid` in a tree and `sha256` in the description of a repository.
        info = {"oid": self.sha256, "sha256": self.sha256, "size": len(self.data), "pointerSize": 134}
        return {"lfs": info} if self.lfs else {}


@dataclass(frozen=True)
class Commit:
    sha: str
    parent: str | None
    title: str
    user: str
    date: str
    files: dict[str, Blob]

    @property
    def folders(self) -> set[str]:
        return {str(folder) for path in self.files for folder in Path(path).parents} - {"."}

    def text(self, path: str) -> str:
        return self.files[path].data.decode("utf-8", "replace") if path in self.files else ""


@dataclass
class Repo:
    key: str  # `user/model` or `datasets/user/data`
    private: bool = False
    commits: dict[str, Commit] = field(default_factory=dict)
    refs: dict[str, str] = field(default_factory=dict)  # `heads/main` or `tags/v1`, and the sha of its commit
    objects: dict[str, bytes] = field(default_factory=dict)  # what was uploaded to LFS, by its sha256

    @property
    def id(self) -> str:
        return self.key.removeprefix("datasets/")

    @property
    def owner(self) -> str:
        return self.id.split("/")[0]

    def at(self, revision: str | None) -> Commit | None:
        named = self.refs.get(f"heads/{revision}") or self.refs.get(f"tags/{revision}")
        return self.commits.get(named or str(revision))

    def commit(self, files: dict[str, Blob], title: str, user: str, branch: str = "main") -> str:
        parent = self.refs.get(f"heads/{branch}")
        identity = [self.key, parent, title, sorted((path, blob.git_id) for path, blob in files.items())]
        sha = hashlib.sha1(json.dumps(identity).encode()).hexdigest()
        date = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%S.000Z")
        self.commits[sha] = Commit(sha, parent, title, user, date, files)
        self.refs[f"heads/{branch}"] = sha
        return sha


@dataclass
class Answer:
    body: Any = field(default_factory=dict)  # bytes, or what JSON holds
    status: int = 200
    headers: dict[str, str] = field(default_factory=dict)
    cut: bool | Literal["body"] = False


class Refused(Exception):  # noqa: N818 - an answer, not a failure of the double
    def __init__(self, status: int, message: str, code: str | None = None, headers: Mapping[str, str] | None = None):
        super().__init__(message)
        one_line = " ".join(message.split()).encode("ascii", "replace").decode()
        sent = {"X-Error-Message": one_line, **({"X-Error-Code": code} if code else {}), **(headers or {})}
        self.answer = Answer({"error": message}, status, sent)


class Request(NamedTuple):
    """What is remembered of a request: never its token."""

    method: str
    path: str  # as it was sent: with percent signs, without the query
    status: int | None  # None: the connection was cut
    token: bool


@dataclass
class Fault:
    method: str
    path: str
    answer: Answer
    times: int
    after: int

    def strikes(self, method: str, path: str) -> bool:
        if not self.times or not re.fullmatch(self.method, method) or not re.search(self.path, path):
            return False
        waits = self.after > 0
        self.after, self.times = (self.after - 1, self.times) if waits else (0, self.times - 1)
        return not waits


@dataclass
class Call:
    """A request, the questions that the routes ask about it, and the routes."""

    hub: LoopbackHub
    query: dict[str, list[str]]
    headers: Message
    body: bytes
    token: str
    part: dict[str, str] = field(default_factory=dict)  # of the path, by the names of the route's groups

    @property
    def user(self) -> str | None:
        return self.hub.tokens.get(self.token)

    @property
    def json(self) -> Any:
        return json.loads(self.body)

    def flag(self, name: str) -> bool:
        return self.query.get(name, [""])[0].lower() in ("1", "true")

    def must_write_as(self, owner: str | None, refusal: str, code: str | None = None) -> None:
        if self.user is None:
            raise Refused(401, NO_CREDENTIALS, code)
        if self.user != owner or self.token in self.hub.read_only:
            raise Refused(403, refusal)

    def repo(self, write: bool = False) -> Repo:
        repo = self.hub.repos.get(self.part["kind"] + self.part["id"])
        if repo is None or (repo.private and self.user != repo.owner):
            # One answer to both, so that nobody learns which private repositories there are.
            missing = (401, NO_CREDENTIALS) if self.user is None else (404, "Repository not found")
            raise Refused(*missing, "RepoNotFound")
        if write:
            # The Hub sends no code here; from an https address the client takes any 401 for RepoNotFound.
            self.must_write_as(repo.owner, "Authorization error.", code="RepoNotFound")
        return repo

    def commit(self) -> Commit:
        revision = self.part.get("rev") or "main"
        commit = self.repo().at(revision)
        if commit is None:
            raise Refused(404, f"Invalid rev id: {revision}", "RevisionNotFound")
        return commit

    def agent_harnesses(self) -> Answer:
        # Every process of a client asks for it once, to know whether an agent runs it.
        return Answer({"standardEnvVars": [], "harnesses": {}})

    def whoami(self) -> Answer:
        if self.user is None:
            raise Refused(401, NO_CREDENTIALS)
        token = {"displayName": "loopback", "role": "read" if self.token in self.hub.read_only else "write"}
        auth = {"type": "access_token", "accessToken": token}
        return Answer({"type": "user", "id": self.user, "name": self.user, "orgs": [], "auth": auth})

    def create_repo(self) -> Answer:
        asked = self.json
        kind, owner = asked.get("type") or "model", asked.get("organization") or self.user
        self.must_write_as(owner, f'You don\'t have the rights to create a {kind} under the namespace "{owner}"')
        key = {"model": "", "dataset": "datasets/"}[kind] + f"{owner}/{asked['name']}"
        address = {"url": f"{self.hub.url}/{key}"}
        if key in self.hub.repos:
            return Answer({"error": f"You already created this {kind} repo: {key}", **address}, 409)
        self.hub.add(key, {".gitattributes": b"*.bin filter=lfs\n"}, private=asked.get("visibility") == "private")
        return Answer(address)

    def repo_info(self) -> Answer:
        repo, commit = self.repo(), self.commit()
        card, config = commit.text("README.md"), {}
        with suppress(json.JSONDecodeError):  # anything can lie there
            config = json.loads(commit.text("config.json"))
        data = {} if card_errors(card) else front_matter(card)
        siblings: list[dict[str, Any]] = [{"rfilename": path} for path in sorted(commit.files)]
        for sibling in siblings if self.flag("blobs") else ():
            blob = commit.files[sibling["rfilename"]]
            sibling |= {"size": len(blob.data), "blobId": blob.git_id, **blob.lfs_info()}
        info = {"id": repo.id, "author": repo.owner, "sha": commit.sha, "private": repo.private, "gated": False}
        info |= {"lastModified": commit.date, "tags": data.get("tags", []), "siblings": siblings}
        info |= {"cardData": json.loads(json.dumps(data, default=str))}  # YAML has dates, JSON has none
        if not repo.key.startswith("datasets/"):
            # `pipeline` finds its task with these two.
            classifies = str(config.get("architectures")).endswith("ForSequenceClassification']")
            info["pipeline_tag"] = data.get("pipeline_tag", "text-classification" if classifies else None)
            info["library_name"] = data.get("library_name", "transformers" if config else None)
        return Answer(info)

    def create_branch(self) -> Answer:
        repo, branch = self.repo(write=True), f"heads/{self.part['rev']}"
        if branch in repo.refs:
            raise Refused(409, "Reference already exists")
        repo.refs[branch] = repo.refs["heads/main"]
        return Answer({})

    def list_commits(self) -> Answer:
        repo, listed = self.repo(), []
        commit: Commit | None = self.commit()
        while commit:
            about = {"id": commit.sha, "title": commit.title, "message": "", "date": commit.date}
            listed.append({**about, "authors": [{"user": commit.user}]})
            commit = repo.at(commit.parent)
        return Answer(listed)

    def list_refs(self) -> Answer:
        listed: dict[str, list[dict[str, str]]] = {"heads": [], "tags": []}
        for ref, sha in self.repo().refs.items():
            folder, name = ref.split("/", 1)
            listed[folder].append({"name": name, "ref": f"refs/{ref}", "targetCommit": sha})
        return Answer({"branches": listed["heads"], "tags": listed["tags"], "converts": [], "pullRequests": []})

    def _entry(self, path: str, expand: bool) -> dict[str, Any]:
        commit = self.commit()
        last = {"lastCommit": {"id": commit.sha, "title": commit.title, "date": commit.date}} if expand else {}
        blob = commit.files.get(path)
        if blob is None:
            return {"type": "directory", "path": path, "oid": hashlib.sha1(path.encode()).hexdigest(), **last}
        return {"type": "file", "path": path, "size": len(blob.data), "oid": blob.git_id, **blob.lfs_info(), **last}

    def list_tree(self) -> Answer:
        commit, folder = self.commit(), self.part["path"].strip("/")
        if folder and folder not in commit.folders:
            raise Refused(404, f'"{folder}" does not exist on "{self.part["rev"]}"', "EntryNotFound")
        start = f"{folder}/" if folder else ""
        inside = [path for path in sorted({*commit.files, *commit.folders}) if path.startswith(start)]
        listed = [path for path in inside if self.flag("recursive") or "/" not in path.removeprefix(start)]
        return Answer([self._entry(path, self.flag("expand")) for path in listed])

    def paths_info(self) -> Answer:
        commit, form = self.commit(), parse_qs(self.body.decode())
        known = [path for path in form.get("paths", []) if path in commit.files or path in commit.folders]
        return Answer([self._entry(path, form["expand"] == ["true"]) for path in known])

    def read_file(self) -> Answer:
        commit, path = self.commit(), self.part["path"]
        headers = {"X-Repo-Commit": commit.sha}
        if path not in commit.files:
            raise Refused(404, "Entry not found", "EntryNotFound", headers)
        blob = commit.files[path]
        headers |= {"ETag": f'"{blob.etag}"', "Accept-Ranges": "bytes"}
        if blob.lfs:
            headers |= {"X-Linked-Etag": f'"{blob.etag}"', "X-Linked-Size": str(len(blob.data))}
        wanted = re.fullmatch(r"bytes=(\d+)-(\d*)", self.headers.get("Range", ""))
        if not wanted:
            return Answer(blob.data, 200, headers)
        start, size = int(wanted[1]), len(blob.data)
        end = min(size, int(wanted[2]) + 1) if wanted[2] else size
        if start >= end:
            return Answer(b"", 416, headers | {"Content-Range": f"bytes */{size}"})
        return Answer(blob.data[start:end], 206, headers | {"Content-Range": f"bytes {start}-{end - 1}/{size}"})

    def validate_yaml(self) -> Answer:
        card = self.json["content"]
        if errors := card_errors(card):
            return Answer({"errors": [{"message": message} for message in errors], "warnings": []}, 400)
        empty = {"message": "empty or missing yaml metadata in repo card"}
        return Answer({"errors": [], "warnings": [] if front_matter(card) else [empty]})

    def preupload(self) -> Answer:
        self.repo(write=True)
        commit, files = self.commit(), []
        for path, size in ((file["path"], file["size"]) for file in self.json["files"]):
            mode = "lfs" if is_lfs(path, size) else "regular"
            files.append({"path": path, "uploadMode": mode, "shouldIgnore": False})  # whatever a .gitignore says
            if path in commit.files:
                files[-1]["oid"] = commit.files[path].etag  # by it the client leaves out what has not changed
        return Answer({"files": files})

    def lfs_batch(self) -> Answer:
        repo, objects = self.repo(write=True), []
        for oid, size in ((item["oid"], item["size"]) for item in self.json["objects"]):
            objects.append({"oid": oid, "size": size})
            if oid not in repo.objects:
                # The upload comes without a token, as to a storage bucket: this signature is what allows it.
                signature = secrets.token_hex(16)
                self.hub.signed[signature] = (repo, oid, size)
                upload = {"href": f"{self.hub.url}/lfs-storage/{oid}?signature={signature}"}
                verify = {"href": f"{self.hub.url}/{repo.key}.git/info/lfs/objects/verify"}
                objects[-1]["actions"] = {"upload": upload, "verify": verify}
        return Answer({"transfer": "basic", "objects": objects})

    def lfs_upload(self) -> Answer:
        signature = self.query.get("signature", [""])[0]
        if self.hub.signed.get(signature, ("", ""))[1] != self.part["oid"]:
            raise Refused(403, "SignatureDoesNotMatch")
        repo, oid, size = self.hub.signed[signature]
        if len(self.body) != size or hashlib.sha256(self.body).hexdigest() != oid:
            raise Refused(400, "The content is not what its sha256 and its size announced")
        repo.objects[oid] = self.body
        return Answer()

    def lfs_verify(self) -> Answer:
        found = self.repo(write=True).objects.get(self.json["oid"])
        if found is None or len(found) != self.json["size"]:
            raise Refused(404, "Object does not exist")
        return Answer()

    def create_commit(self) -> Answer:
        repo, head, branch = self.repo(write=True), self.commit(), self.part["rev"]
        if f"heads/{branch}" not in repo.refs or self.flag("create_pr"):
            raise Refused(400, "The loopback hub commits to branches only")
        header, *operations = map(json.loads, self.body.splitlines())
        if header["value"].get("parentCommit", head.sha) != head.sha:
            raise Refused(412, "A commit has happened since. Please refresh and try again.")
        files = dict(head.files)
        for operation in operations:
            self._apply(operation["key"], operation["value"], files, repo)
        if "README.md" in files and (errors := card_errors(files["README.md"].data.decode())):
            raise Refused(400, "\n".join(errors))
        sha = repo.commit(files, header["value"]["summary"], str(self.user), branch)
        return Answer({"success": True, "commitOid": sha, "commitUrl": f"{self.hub.url}/{repo.key}/commit/{sha}"})

    def _apply(self, operation: str, value: dict[str, Any], files: dict[str, Blob], repo: Repo) -> None:
        path = value["path"].rstrip("/")
        if operation == "file":
            files[path] = Blob(base64.b64decode(value["content"]), lfs=False)
            if is_lfs(path, len(files[path].data)):
                raise Refused(400, f"Your push was rejected because {path} belongs in LFS.")
        elif operation == "lfsFile":
            data = repo.objects.get(value["oid"])
            if data is None or value.get("size", len(data)) != len(data):
                raise Refused(400, f"An LFS pointer pointed to a file that does not exist. Offending file: - {path}")
            files[path] = Blob(data, lfs=True)
        else:
            inside = {name for name in files if name.startswith(f"{path}/")}
            gone = {"deletedFile": {path} & set(files), "deletedFolder": inside}[operation]
            if not gone:
                raise Refused(404, f"A file with this name doesn't exist: {path}", "EntryNotFound")
            for name in gone:
                del files[name]


_ID = r"(?P<id>[^/]+(?:/[^/]+)?)"
_API = rf"/api/(?:models/|(?P<kind>datasets/)){_ID}"
_SITE = rf"/(?P<kind>datasets/)?{_ID}"
_REV = r"(?P<rev>[^/]+)"
ROUTES: list[tuple[str, str, Callable[[Call], Answer]]] = [
    ("GET", r"/api/agent-harnesses", Call.agent_harnesses),
    ("GET", r"/api/whoami-v2", Call.whoami),
    ("POST", r"/api/repos/create", Call.create_repo),
    ("POST", r"/api/validate-yaml", Call.validate_yaml),
    ("POST", rf"{_API}/preupload/{_REV}", Call.preupload),
    ("POST", rf"{_SITE}\.git/info/lfs/objects/batch", Call.lfs_batch),
    ("PUT", r"/lfs-storage/(?P<oid>\w+)", Call.lfs_upload),
    ("POST", rf"{_SITE}\.git/info/lfs/objects/verify", Call.lfs_verify),
    ("POST", rf"{_API}/commit/{_REV}", Call.create_commit),
    ("POST", rf"{_API}/branch/{_REV}", Call.create_branch),
    ("GET", rf"{_API}/refs", Call.list_refs),
    ("GET", rf"{_API}/commits/{_REV}", Call.list_commits),
    ("GET", rf"{_API}/tree/{_REV}(?P<path>/.+)?", Call.list_tree),
    ("POST", rf"{_API}/paths-info/{_REV}", Call.paths_info),
    ("GET", rf"{_API}(?:/revision/{_REV})?", Call.repo_info),
    ("GET", rf"{_SITE}/resolve/{_REV}/(?P<path>.+)", Call.read_file),
]


class LoopbackHub:
    """The store, the record of what was asked of it, and the server in front of it.

    `tokens` are the users by token. A user reads and writes the repositories of the namespace of that name, and
    everybody reads the public ones; a token in `read_only` writes nothing.
    """

    def __init__(self, tokens: Mapping[str, str] | None = None, read_only: Collection[str] = ()) -> None:
        self.tokens = dict(tokens or {})
        self.read_only = frozenset(read_only)
        self.repos: dict[str, Repo] = {}
        self.signed: dict[str, tuple[Repo, str, int]] = {}
        self.requests: list[Request] = []
        self.unknown: list[str] = []
        self.faults: list[Fault] = []
        self._lock = threading.RLock()
        self._server = _Server(self)
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}"

    def __enter__(self) -> LoopbackHub:
        threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()

    def add(self, repo: str, files: Mapping[str, bytes], private: bool = False) -> str:
        """Commit `files` to main, on top of what is there, and return the sha of the commit."""
        with self._lock:
            found = self.repos.setdefault(repo, Repo(repo))
            found.private = private
            head = found.at("main")
            blobs = {path: Blob(data, is_lfs(path, len(data))) for path, data in files.items()}
            found.objects |= {blob.sha256: blob.data for blob in blobs.values() if blob.lfs}
            return found.commit((head.files if head else {}) | blobs, "add" if head else "initial commit", found.owner)

    def tag(self, repo: str, name: str, revision: str = "main", branch: bool = False) -> str:
        """Name a revision, by a tag or by a branch, and return the sha of its commit."""
        with self._lock:
            commit = self.repos[repo].at(revision)
            if commit is None:
                raise KeyError(revision)
            self.repos[repo].refs[f"{'heads' if branch else 'tags'}/{name}"] = commit.sha
            return commit.sha

    def files(self, repo: str, revision: str = "main") -> dict[str, bytes]:
        with self._lock:
            commit = self.repos[repo].at(revision)
            return {path: blob.data for path, blob in commit.files.items()} if commit else {}

    def env(self, folder: str | Path, token: str | None = None) -> dict[str, str]:
        """The environment of a client process: this one's, without its settings of the Hub and of proxies."""
        ours = ("HF_", "HUGGING", "TRANSFORMERS_")
        kept = {k: v for k, v in os.environ.items() if not k.startswith(ours) and not k.lower().endswith("_proxy")}
        return kept | {
            "HF_ENDPOINT": self.url,
            "HF_HOME": str(Path(folder) / "hf_home"),
            "HF_HUB_DISABLE_XET": "1",
            "HF_HUB_DISABLE_TELEMETRY": "1",
            "HF_UPDATE_DOWNLOAD_COUNTS": "0",  # datasets counts downloads on a server that is not the Hub
            **({"HF_TOKEN": token} if token else {}),
        }

    def fail(
        self,
        method: str,
        path_regex: str,
        status: int | None = None,
        times: int = 1,
        headers: Mapping[str, str] | None = None,
        cut: bool | Literal["body"] = False,
        after: int = 0,
    ) -> None:
        """Answer the next `times` requests, after `after` others that match too, with a fault; nothing else happens.

        `method` is a regular expression for the whole method, `path_regex` one to find in the path, which is without
        the query. `cut=True` closes the connection without a response, `cut="body"` halfway through the real one.
        """
        if (status is None) == (cut is False):
            raise ValueError("a fault is a status or a cut")
        answer = Refused(status, HTTPStatus(status).phrase, headers=headers).answer if status else Answer(cut=cut)
        with self._lock:
            self.faults.append(Fault(method, path_regex, answer, times, after))

    def respond(self, method: str, target: str, headers: Message, body: bytes) -> Answer:
        path, _, query = target.partition("?")
        call = Call(self, parse_qs(query), headers, body, headers.get("Authorization", "").removeprefix("Bearer "))
        with self._lock:
            fault = next((fault.answer for fault in self.faults if fault.strikes(method, path)), None)
            answer = self._route(method, path, call) if fault is None or fault.cut == "body" else fault
            answer.cut = fault.cut if fault else False
            self.requests.append(Request(method, path, None if answer.cut else answer.status, bool(call.token)))
            return answer

    def _route(self, method: str, path: str, call: Call) -> Answer:
        try:
            if call.token and call.user is None:
                raise Refused(401, "Invalid credentials in Authorization header")
            for verb, pattern, function in ROUTES:
                if verb == method.replace("HEAD", "GET") and (match := re.fullmatch(pattern, path)):
                    call.part = {name: unquote(value or "") for name, value in match.groupdict().items()}
                    return function(call)
            self.unknown.append(f"{method} {path}")
            raise Refused(404, "The loopback hub does not serve this")
        except Refused as refused:
            return refused.answer


class _Server(ThreadingHTTPServer):
    request_queue_size = 64  # snapshot_download connects with many threads at once

    def __init__(self, hub: LoopbackHub) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.hub = hub


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True  # or a body waits 40 ms for its headers to be acknowledged
    server: _Server

    def do_GET(self) -> None:
        # The body is read even before a fault, or the client would stumble over sending it instead.
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        answer = self.server.hub.respond(self.command, self.path, self.headers, body)
        if answer.cut is not True:
            raw = isinstance(answer.body, bytes)
            payload = answer.body if raw else json.dumps(answer.body).encode()
            kind = {"Content-Type": "application/octet-stream" if raw else "application/json"}
            self.send_response(answer.status)
            for name, value in {**kind, "Content-Length": str(len(payload)), **answer.headers}.items():
                self.send_header(name, value)
            self.end_headers()
            if self.command != "HEAD":
                self.wfile.write(payload[: len(payload) // 2] if answer.cut else payload)
        if answer.cut:
            self.close_connection = True
            self.connection.shutdown(socket.SHUT_RDWR)

    do_HEAD = do_POST = do_PUT = do_PATCH = do_DELETE = do_GET  # noqa: N815

    def log_message(self, *_: object) -> None:
        pass
