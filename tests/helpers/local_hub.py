"""A small Hub on loopback: what the real `huggingface_hub` client asks of the real one, kept in memory."""

import base64
import json
import re
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qs, unquote, urlsplit

from local_repository import Repository, git_oid, sha256

TOKEN = "hf_secretsecretsecret"
TYPES = {None: "model", "models": "model", "datasets": "dataset", "spaces": "space"}
REPO = r"([^/]+/[^/]+)"
DATE = "2026-01-01T00:00:00.000Z"


class LocalHub(ThreadingHTTPServer):
    """The server; `endpoint` is its address.

    Attributes:
        repositories: (type, id) -> repository.
        log: Every request so far, as `METHOD path`.
        large: Files of more bytes than this take the large-file path, as do all of certain endings.
        broken: Substrings of paths that answer with half of the file and a closed connection (or 500 on upload).
    """

    daemon_threads = True

    def __init__(self):
        super().__init__(("127.0.0.1", 0), Handler)
        self.lock = threading.RLock()
        self.endpoint = f"http://127.0.0.1:{self.server_address[1]}"
        self.reset()

    def reset(self):
        self.repositories, self.objects, self.log, self.broken, self.large = {}, {}, [], [], 2000

    def start(self):
        threading.Thread(target=self.serve_forever, daemon=True).start()
        return self

    def files(self, repo_id, revision="main", repo_type="model"):
        """Path -> content of one revision."""
        return self.repositories[repo_type, repo_id].at(revision)[1]


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def log_message(self, *arguments):
        pass

    def handle_any(self):
        url = urlsplit(self.path)
        length = int(self.headers.get("Content-Length") or 0)
        self.content, self.query = self.rfile.read(length), parse_qs(url.query)
        with self.server.lock:
            self.server.log.append(f"{self.command} {url.path}")
            for pattern, answer in ROUTES:
                if match := re.fullmatch(pattern, url.path):
                    parts = [part and unquote(part) for part in match.groups()]
                    if REPO in pattern:
                        if (repository := self.repository(*parts[:2])) is None:
                            return None
                        parts[0] = repository
                    return answer(self, *parts)
            return self.send_json({"error": f"unhandled {self.command} {url.path}"}, 404)

    do_GET = do_HEAD = do_POST = do_PUT = do_DELETE = handle_any

    def send_json(self, content, code=200, **headers):
        body = json.dumps(content).encode()
        self.send_response(code)
        headers = {"Content-Type": "application/json", "Content-Length": str(len(body)), **headers}
        for key, value in headers.items():
            self.send_header(key.replace("_", "-"), value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def refuse(self, kind, code=404, **headers):
        self.send_json({"error": kind}, code, X_Error_Code=kind, X_Error_Message=kind, **headers)

    def repository(self, kind, repo_id):
        found = self.server.repositories.get((TYPES[kind], repo_id))
        owner = self.headers.get("Authorization") == f"Bearer {TOKEN}"
        if found is None or (found.private and not owner):
            self.refuse("RepoNotFound", 404 if owner else 401)
            return None
        return found

    def whoami(self):
        if self.headers.get("Authorization") != f"Bearer {TOKEN}":
            return self.refuse("Unauthorized", 401)
        token = {"type": "access_token", "accessToken": {"role": "write", "displayName": "tests"}}
        return self.send_json({"type": "user", "name": "me", "fullname": "Me", "orgs": [], "auth": token})

    def create(self):
        if self.headers.get("Authorization") != f"Bearer {TOKEN}":
            return self.refuse("Unauthorized", 401)
        wish = json.loads(self.content)
        repo_id, kind = f"{wish.get('organization') or 'me'}/{wish['name']}", wish.get("type") or "model"
        url = f"{self.server.endpoint}/{'' if kind == 'model' else kind + 's/'}{repo_id}"
        if (kind, repo_id) in self.server.repositories:
            return self.send_json({"error": "You already created this repo", "url": url}, 409)
        private = wish.get("private") or wish.get("visibility") == "private"
        self.server.repositories[kind, repo_id] = Repository(private)
        return self.send_json({"url": url, "name": repo_id, "id": "0"})

    def object(self, oid):
        if any(part in "lfs" for part in self.server.broken):
            return self.refuse("InternalError", 500)
        self.server.objects[oid] = self.content
        return self.send_json({})

    def object_batch(self, repository, repo_id):
        answers = []
        for wish in json.loads(self.content)["objects"]:
            upload = {"actions": {"upload": {"href": f"{self.server.endpoint}/lfs/{wish['oid']}"}}}
            answers.append({**wish, **({} if wish["oid"] in self.server.objects else upload)})
        return self.send_json({"transfer": "basic", "objects": answers})

    def preupload(self, repository, repo_id, revision):
        answers = []
        for wish in json.loads(self.content)["files"]:
            large = wish["size"] > self.server.large or wish["path"].endswith((".parquet", ".safetensors", ".bin"))
            answer = {"path": wish["path"], "uploadMode": "lfs" if large else "regular", "shouldIgnore": False}
            if (oid := repository.oid(wish["path"], revision)) is not None:
                answer["oid"] = oid
            answers.append(answer)
        return self.send_json({"files": answers})

    def commit(self, repository, repo_id, revision):
        lines = [json.loads(line) for line in self.content.splitlines() if line.strip()]
        sha, files = repository.at(revision)
        title, extra = "", {}
        for line in lines:
            key, value = line["key"], line["value"]
            if key == "header":
                title = value["summary"]
                if value.get("parentCommit") not in (None, sha):
                    return self.refuse("PreconditionFailed", 412)
            elif key == "file":
                files[value["path"]] = base64.b64decode(value["content"])
            elif key == "lfsFile":
                files[value["path"]] = self.server.objects[value["oid"]]
                repository.large.add(value["path"])
            elif key in ("deletedFile", "deletedFolder"):
                files = {path: body for path, body in files.items() if not (path + "/").startswith(value["path"] + "/")}
        if "create_pr" in self.query:
            revision = f"refs/pr/{sum(name.startswith('refs/pr/') for name in repository.branches) + 1}"
            extra = {"pullRequestUrl": f"{self.server.endpoint}/{repo_id}/discussions/{revision.rsplit('/', 1)[1]}"}
        new = repository.commit(files, title, revision)
        url = f"{self.server.endpoint}/{repo_id}/commit/{new}"
        return self.send_json({"success": True, "commitOid": new, "commitUrl": url, "hookOutput": "", **extra})

    def info(self, repository, repo_id, revision="main"):
        sha, files = repository.at(revision)
        if sha is None:
            return self.refuse("RevisionNotFound")
        entries = [repository.entry(path, body) for path, body in sorted(files.items())]
        siblings = [{"rfilename": e["path"], "size": e["size"], "blobId": e["oid"]} for e in entries]
        state = {
            "private": repository.private,
            "gated": False,
            "disabled": False,
            "downloads": 0,
            "likes": 0,
            "tags": [],
        }
        dates = {"createdAt": DATE, "lastModified": DATE}
        return self.send_json({"_id": "0" * 24, "id": repo_id, "sha": sha, "siblings": siblings, **state, **dates})

    def tree(self, repository, repo_id, revision, folder=None):
        sha, files = repository.at(revision)
        if sha is None:
            return self.refuse("RevisionNotFound")
        entries = repository.tree(files, folder or "", self.query.get("recursive", ["false"])[0].lower() == "true")
        return self.send_json(entries) if entries or not folder else self.refuse("EntryNotFound")

    def paths_info(self, repository, repo_id, revision):
        is_json = self.content.startswith(b"{")
        paths = (json.loads(self.content) if is_json else parse_qs(self.content.decode()))["paths"]
        files = repository.at(revision)[1]
        paths = [paths] if isinstance(paths, str) else paths
        return self.send_json([repository.entry(path, files[path]) for path in paths if path in files])

    def refs(self, repository, repo_id):
        branches, tags = repository.branches.items(), repository.tags.items()
        heads = [{"name": n, "ref": f"refs/heads/{n}", "targetCommit": c} for n, c in branches]
        marks = [{"name": n, "ref": f"refs/tags/{n}", "targetCommit": c} for n, c in tags]
        return self.send_json({"branches": heads, "tags": marks, "converts": []})

    def branch(self, repository, repo_id, name):
        repository.branches[name] = repository.branches["main"]
        return self.send_json({})

    def tag(self, repository, repo_id, revision):
        repository.tags[json.loads(self.content)["tag"]] = repository.at(revision)[0]
        return self.send_json({})

    def file(self, repository, repo_id, revision, path):
        sha, files = repository.at(revision)
        if sha is None:
            return self.refuse("RevisionNotFound")
        if path not in files:
            return self.refuse("EntryNotFound", X_Repo_Commit=sha)
        body, code, place = files[path], 200, ""
        etag = sha256(body) if path in repository.large else git_oid(body)
        if wish := re.match(r"bytes=(\d+)-(\d*)", self.headers.get("Range", "")):
            start, stop = int(wish[1]), int(wish[2] or len(body) - 1) + 1
            body, code, place = body[start:stop], 206, f"bytes {start}-{stop - 1}/{len(body)}"
        self.send_response(code)
        for key, value in (("X-Repo-Commit", sha), ("ETag", f'"{etag}"'), ("Content-Range", place)):
            if value:
                self.send_header(key, value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command != "HEAD":
            broken = any(part in path for part in self.server.broken)
            self.wfile.write(body[: len(body) // 2] if broken else body)
            self.close_connection = broken
        return None


API = rf"/api/(models|datasets|spaces)/{REPO}"
ROUTES = [
    (r"/api/whoami-v2", Handler.whoami),
    (r"/api/validate-yaml", lambda handler: handler.send_json({"errors": [], "warnings": []})),
    (r"/api/repos/create", Handler.create),
    (r"/lfs/([0-9a-f]{64})", Handler.object),
    (rf"/(?:(datasets|spaces)/)?{REPO}\.git/info/lfs/objects/batch", Handler.object_batch),
    (rf"{API}/preupload/([^/]+)", Handler.preupload),
    (rf"{API}/commit/([^/]+)", Handler.commit),
    (API, Handler.info),
    (rf"{API}/revision/([^/]+)", Handler.info),
    (rf"{API}/tree/([^/]+)(?:/(.*))?", Handler.tree),
    (rf"{API}/paths-info/([^/]+)", Handler.paths_info),
    (rf"{API}/refs", Handler.refs),
    (rf"{API}/branch/(.+)", Handler.branch),
    (rf"{API}/tag/(.+)", Handler.tag),
    (rf"/(?:(datasets|spaces)/)?{REPO}/resolve/([^/]+)/(.+)", Handler.file),
]
