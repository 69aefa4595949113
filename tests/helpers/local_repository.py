"""A repository of the local Hub: commits, branches, tags, and which files are large."""

import hashlib


def git_oid(body):
    return hashlib.sha1(b"blob %d\0" % len(body) + body).hexdigest()


def sha256(body):
    return hashlib.sha256(body).hexdigest()


class Repository:
    def __init__(self, private=False):
        self.private, self.commits, self.branches, self.tags, self.large = private, {}, {}, {}, set()
        self.commit({}, "initial commit", "main")

    def commit(self, files, title, branch):
        """Add a commit to a branch, `files` being path -> content of everything; returns its hash."""
        state = (len(self.commits), title, sorted((path, git_oid(body)) for path, body in files.items()))
        sha = hashlib.sha1(repr(state).encode()).hexdigest()
        self.commits[sha] = (title, dict(files))
        self.branches[branch] = sha
        return sha

    def at(self, revision):
        """Hash and files of a branch, tag or commit; `(None, {})` if there is none."""
        sha = self.branches.get(revision) or self.tags.get(revision) or revision
        return (sha, dict(self.commits[sha][1])) if sha in self.commits else (None, {})

    def oid(self, path, revision):
        """Hash of the file at `path`, if it is there."""
        body = self.at(revision)[1].get(path)
        return None if body is None else sha256(body) if path in self.large else git_oid(body)

    def entry(self, path, body):
        """What the Hub says about one file."""
        large = {"lfs": {"oid": sha256(body), "size": len(body), "pointerSize": 130}} if path in self.large else {}
        return {"type": "file", "path": path, "size": len(body), "oid": git_oid(body), **large}

    def tree(self, files, folder, recursive):
        """Entries of the files and folders below `folder`."""
        prefix = f"{folder.strip('/')}/" if folder else ""
        inside = {path: body for path, body in sorted(files.items()) if path.startswith(prefix)}
        tails = {path: path[len(prefix) :].split("/") for path in inside}
        folders = set()
        for tail in tails.values():
            for depth in range(1, len(tail) if recursive else min(len(tail), 2)):
                folders.add(prefix + "/".join(tail[:depth]))
        shown = [self.entry(path, body) for path, body in inside.items() if recursive or len(tails[path]) == 1]
        return [{"type": "directory", "path": path, "oid": "0" * 40, "size": 0} for path in sorted(folders)] + shown
