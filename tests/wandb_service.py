"""What a stand-in for the wandb service holds, and how it answers GraphQL by its operations.

The answers have the fields that the client's own queries name.
"""

import json
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any

ENTITY = "team"
USER = {"id": "user", "entity": ENTITY, "username": "me", "email": "me@example.org", "flags": "{}"}


@dataclass
class OnlineRun:
    """A run as the service holds it.

    Attributes:
        facts: what the client said of it: displayName, groupName, jobType, ...
        config: {key: {"value": ...}}.
        history: the logged lines.
        files: the content of every uploaded file, by name.
        state: "running", "finished" or "failed".
    """

    project: str
    name: str
    created: datetime
    facts: dict[str, Any] = field(default_factory=dict)
    config: dict[str, Any] = field(default_factory=dict)
    history: list[dict[str, Any]] = field(default_factory=list)
    summary: dict[str, Any] = field(default_factory=dict)
    files: dict[str, bytes] = field(default_factory=dict)
    state: str = "running"

    def node(self) -> dict[str, Any]:
        """Returns what ``Api.runs`` and ``Api.run`` ask for."""
        return {
            "id": self.name,
            "projectId": "1",
            "tags": [],
            "name": self.name,
            "displayName": self.facts.get("displayName"),
            "sweepName": None,
            "state": self.state,
            "config": json.dumps(self.config),
            "group": self.facts.get("groupName"),
            "jobType": self.facts.get("jobType"),
            "commit": None,
            "readOnly": False,
            "createdAt": self.created.isoformat(),
            "heartbeatAt": self.created.isoformat(),
            "description": None,
            "notes": None,
            "systemMetrics": "{}",
            "summaryMetrics": json.dumps(self.summary),
            "historyLineCount": len(self.history),
            "historyKeys": {"keys": {key: {} for line in self.history for key in line}},
            "user": {"name": "me", "username": "me"},
        }

    def has(self, filters: dict[str, Any]) -> bool:
        """Whether the run meets a filter of equalities, "$or" and "$and"."""
        fields = {"display_name": self.facts.get("displayName"), "name": self.name}
        for key, wanted in filters.items():
            if key == "$or":
                met = any(self.has(part) for part in wanted)
            elif key == "$and":
                met = all(self.has(part) for part in wanted)
            else:
                met = fields[key] == wanted
            if not met:
                return False
        return True


@dataclass
class Service:
    """What was logged, and how the client is answered.

    Attributes:
        runs: by their ids, in the order of their creation.
        tables: the files of every committed artifact, by the artifact's name.
        refused: requests that this stand-in does not know.
        url: its own.
    """

    url: str = ""
    runs: dict[str, OnlineRun] = field(default_factory=dict)
    tables: dict[str, dict[str, bytes]] = field(default_factory=dict)
    refused: list[str] = field(default_factory=list)
    _artifacts: dict[str, dict[str, Any]] = field(default_factory=dict)
    _uploads: dict[str, bytes] = field(default_factory=dict)

    def named(self, name: str) -> OnlineRun:
        """Returns the one run of this name."""
        (run,) = (r for r in self.runs.values() if r.facts.get("displayName") == name)
        return run

    def query(self, operation: str, v: dict[str, Any]) -> Any:
        """Answers one GraphQL operation; None for one that is not known."""
        answer = getattr(self, f"on_{operation}", None)
        return None if answer is None else answer(v)

    def on_Viewer(self, v: Any) -> Any:
        return {"viewer": {**USER, "teams": {"edges": [{"node": {"name": ENTITY}}]}}}

    def on_GetDefaultEntity(self, v: Any) -> Any:
        return {"viewer": {"id": USER["id"], "entity": ENTITY}}

    def on_ServerFeaturesQuery(self, v: Any) -> Any:
        return {"serverInfo": {"features": []}}

    def on_OrganizationCoreWeaveOrganizationID(self, v: Any) -> Any:
        return {"entity": {"organization": None}}

    def on_UpsertBucket(self, v: Any) -> Any:
        inserted = v["name"] not in self.runs
        if inserted:
            created = datetime(2026, 1, 1) + timedelta(seconds=len(self.runs))
            self.runs[v["name"]] = OnlineRun(v["project"], v["name"], created)
        run = self.runs[v["name"]]
        run.facts |= {key: value for key, value in v.items() if value is not None}
        run.config |= json.loads(v["config"] or "{}")
        project = {"id": "1", "name": run.project, "entity": {"id": "1", "name": ENTITY}}
        bucket = {
            "id": run.name,
            "name": run.name,
            "displayName": run.facts.get("displayName"),
            "description": None,
            "config": json.dumps(run.config),
            "sweepName": None,
            "project": project,
            "historyLineCount": len(run.history),
        }
        return {"upsertBucket": {"bucket": bucket, "inserted": inserted}}

    def on_RunResumeStatus(self, v: Any) -> Any:
        run = self.runs.get(v["name"])
        if run is None:
            return {"model": None}
        bucket = {
            **run.node(),
            "logLineCount": 0,
            "eventsLineCount": 0,
            "historyTail": json.dumps([json.dumps(line) for line in run.history[-1:]]),
            "eventsTail": "[]",
            "wandbConfig": "{}",
        }
        model = {"id": "1", "name": run.project, "entity": {"id": "1", "name": ENTITY}}
        return {"model": {**model, "bucket": bucket}}

    def on_CreateRunFiles(self, v: Any) -> Any:
        files = [{"name": n, "uploadUrl": f"{self.url}/run/{v['run']}/{n}"} for n in v["files"]]
        return {"createRunFiles": {"runID": v["run"], "uploadHeaders": [], "files": files}}

    def on_MarkRunFilesUploaded(self, v: Any) -> Any:
        return {"markRunFilesUploaded": {"success": True}}

    def on_Runs(self, v: Any) -> Any:
        filters = json.loads(v["filters"])
        found = [r for r in self.runs.values() if r.project == v["project"] and r.has(filters)]
        found.sort(key=lambda run: run.created, reverse=v["order"] == "-created_at")
        edges = [{"node": run.node(), "cursor": run.name} for run in found]
        page = {"endCursor": None, "hasNextPage": False}
        facts = {"internalId": "1", "runCount": len(found), "readOnly": False}
        return {"project": {**facts, "runs": {"edges": edges, "pageInfo": page}}}

    def on_Run(self, v: Any) -> Any:
        run = self.runs.get(v["name"])
        return {"project": {"run": run and run.node()}}

    def on_RunFiles(self, v: Any) -> Any:
        run = self.runs[v["name"]]
        names = [name for name in v["fileNames"] if name in run.files]
        page = {"endCursor": None, "hasNextPage": False}
        edges = [{"node": self.file(run, name), "cursor": name} for name in names]
        files = {"edges": edges, "pageInfo": page}
        return {"project": {"internalId": "1", "run": {"fileCount": len(names), "files": files}}}

    def file(self, run: OnlineRun, name: str) -> dict[str, Any]:
        url = f"{self.url}/run/{run.name}/{name}"
        facts = {"mimetype": "text/plain", "updatedAt": run.created.isoformat(), "md5": ""}
        size = str(len(run.files[name]))
        return {"id": name, "name": name, "url": url, "directUrl": url, "sizeBytes": size, **facts}

    def on_ArtifactType(self, v: Any) -> Any:
        return {"project": {"artifact": None}}

    def on_FetchArtifactDigestAlgorithm(self, v: Any) -> Any:
        return {"project": {"artifactType": None}}

    def on_XXHashDigestsEnabled(self, v: Any) -> Any:
        return {"entity": {"xxhashDigestsEnabled": False}}

    def on_CreateArtifact(self, v: Any) -> Any:
        key = f"artifact{len(self._artifacts)}"
        self._artifacts[key] = {"name": v["input"]["artifactCollectionName"], "files": {}}
        sequence = {"latestArtifact": None}
        artifact = {"id": key, "state": "PENDING", "artifactSequence": sequence}
        return {"createArtifact": {"artifact": artifact}}

    def on_CreateArtifactManifest(self, v: Any) -> Any:
        url = f"{self.url}/upload/{v['artifactID']}/manifest"
        file = {"id": "1", "uploadUrl": url, "uploadHeaders": []}
        manifest = {"id": v["artifactID"], "file": file}
        return {"createArtifactManifest": {"artifactManifest": manifest}}

    def on_UpdateArtifactManifest(self, v: Any) -> Any:
        key = v["artifactManifestID"]
        url = f"{self.url}/upload/{key}/manifest"
        file = {"id": "1", "uploadUrl": url, "uploadHeaders": []}
        return {"updateArtifactManifest": {"artifactManifest": {"id": key, "file": file}}}

    def on_CreateArtifactFiles(self, v: Any) -> Any:
        edges = []
        for wanted in v["input"]["artifactFiles"]:
            path = f"{wanted['artifactID']}/{wanted['name']}"
            self._artifacts[wanted["artifactID"]]["files"][wanted["name"]] = path
            node = {
                "storagePath": path,
                "uploadUrl": f"{self.url}/upload/{path}",
                "uploadHeaders": [],
                "uploadMultipartUrls": None,
                "artifact": {"id": wanted["artifactID"]},
            }
            edges.append({"node": node})
        return {"createArtifactFiles": {"files": {"edges": edges}}}

    def on_CommitArtifact(self, v: Any) -> Any:
        artifact = self._artifacts[v["artifactID"]]
        self.tables[artifact["name"]] = {
            name: self._uploads[path] for name, path in artifact["files"].items()
        }
        return {"commitArtifact": {"artifact": {"id": v["artifactID"], "digest": ""}}}

    def stream(self, name: str, sent: dict[str, Any]) -> None:
        """Takes a piece of the file stream: history, summary and the end of a run."""
        run = self.runs[name]
        for file, piece in sent.get("files", {}).items():
            lines = [json.loads(line) for line in piece["content"] if file != "output.log"]
            if file == "wandb-history.jsonl":
                run.history[piece["offset"] :] = lines
            elif file == "wandb-summary.json":
                run.summary = lines[-1]
        if sent.get("complete"):
            run.state = "failed" if sent["exitcode"] else "finished"

    def put(self, path: str, content: bytes) -> None:
        kind, _, rest = path.lstrip("/").partition("/")
        if kind == "run":
            name, _, file = rest.partition("/")
            self.runs[name].files[file] = content
        else:
            self._uploads[rest] = content

    def get(self, path: str) -> bytes | None:
        _, _, rest = path.lstrip("/").partition("/")
        name, _, file = rest.partition("/")
        return self.runs[name].files.get(file) if name in self.runs else None
