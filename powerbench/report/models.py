"""Models of one name: other weights under the same name are never shown, or compared, as one model."""

import json
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import PurePosixPath
from typing import Any

from powerbench.report.summary import Results
from powerbench.store import Run


def read_all(runs: Sequence[Run]) -> list[Results]:
    """The runs of a report, each read once; models that share a name have what tells them apart in it."""
    return told_apart([Results.read(run) for run in runs])


def told_apart(results: Sequence[Results]) -> list[Results]:
    """The same, with the model's name followed by what differs (the end of its id, a digest, a seed) where
    runs are of several models of that name."""
    sources = [_source(r.run) for r in results]
    named: dict[str, dict[str, Mapping[str, Any]]] = defaultdict(dict)
    for r, source in zip(results, sources, strict=True):
        named[r.run.config["model"]["name"]].setdefault(_key(source), source)
    labelled = []
    for r, source in zip(results, sources, strict=True):
        name = r.run.config["model"]["name"]
        own = named[name][_key(source)]  # one for all copies of a model
        others = [each for each in named[name].values() if each is not own]
        labelled.append(replace(r, model=f"{name} ({_apart(own, others)})" if others else r.model))
    return labelled


def _source(run: Run) -> Mapping[str, Any]:
    """What makes a run's model itself, but for how it is computed; with the id that it was loaded by."""
    manifest = run.manifest
    identity = manifest.get("identity", {}).get("model", {})
    source = {k: v for k, v in identity.items() if k not in ("dtype", "stop_tokens")}
    return {**source, "id": str(manifest.get("model", {}).get("id") or source.get("id", ""))}


def _key(source: Mapping[str, Any]) -> str:
    """Equal for the same model: a local one is known by its contents, wherever it lies."""
    known = {k: v for k, v in source.items() if k != "id" or "sha256" not in source}
    return json.dumps(known, sort_keys=True)


def _apart(source: Mapping[str, Any], others: Sequence[Mapping[str, Any]]) -> str:
    parts = PurePosixPath(source["id"]).parts
    for count in range(1, len(parts) + 1):
        end = parts[-count:]
        if all(PurePosixPath(other["id"]).parts[-count:] != end for other in others):
            return "/".join(end)
    differ = [k for k in source if any(o.get(k) != source[k] for o in others)]
    return ", ".join(f"{k}={str(source[k])[:8]}" for k in differ) or "another"
