"""Reads the manifests of deploy/ and holds them against their schemas, in which every field has to be listed."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import jsonschema
import kubernetes_validate
import pytest
import yaml

ROOT = Path(__file__).resolve().parents[2]
DEPLOY = ROOT / "deploy"
KUBERNETES = DEPLOY / "kubernetes"
KUBERNETES_VERSION = "1.35.0"
OPEN = "x-kubernetes-preserve-unknown-fields"

Manifest = dict[str, Any]


class InvalidError(AssertionError):
    """A manifest is not what the cluster would take."""


@cache
def manifests() -> tuple[Manifest, ...]:
    """Every document of deploy/kubernetes, kustomization.yaml left out."""
    files = [path for path in sorted(KUBERNETES.glob("*.yaml")) if path.name != "kustomization.yaml"]
    return tuple(document for path in files for document in yaml.safe_load_all(path.read_text("utf-8")))


def named(manifest: Manifest) -> str:
    """What the manifest is called in the output of a test."""
    metadata = manifest["metadata"]
    return f"{manifest['kind']}/{metadata.get('name') or metadata['generateName']}"


def of_kind(kind: str) -> dict[str, Manifest]:
    """All of a kind, by name."""
    return {named(one).partition("/")[2]: one for one in manifests() if one["kind"] == kind}


def is_ray(manifest: Manifest) -> bool:
    return bool(manifest["apiVersion"].startswith("ray.io/"))


def closed(schema: Any) -> Any:
    """`schema` with every field refused that it does not list, at every level where it lists any.

    Kubernetes drops unknown fields in silence, and leaves them open in the schema.
    """
    if isinstance(schema, list):
        return [closed(one) for one in schema]
    if not isinstance(schema, dict):
        return schema
    # Below `properties` keys are names of fields, one of which may be called `properties`.
    changed = {
        key: {name: closed(one) for name, one in value.items()} if key == "properties" else closed(value)
        for key, value in schema.items()
    }
    if isinstance(schema.get("properties"), dict) and not schema.get(OPEN) and "additionalProperties" not in schema:
        changed["additionalProperties"] = False
    return changed


@cache
def ray_schema(kind: str) -> Any:
    """The closed schema of a kind of ray.io/v1; skips the calling test where it is missing."""
    folder = Path(os.environ.get("KUBERAY_SCHEMAS") or ROOT.parent / "shared" / "schemas" / "kuberay")
    file = folder / f"{kind}.v1.json"
    if not file.is_file():
        pytest.skip(f"schema missing: there is no file {file} (KUBERAY_SCHEMAS names its folder)")
    schema = closed(json.loads(file.read_text("utf-8"))["openAPIV3Schema"])
    # Of the manifest's own metadata the schema says no more than that it is an object.
    schema["properties"]["metadata"] = {
        "type": "object",
        "properties": {
            **{key: {"type": "string"} for key in ("name", "generateName", "namespace")},
            **{
                key: {"type": "object", "additionalProperties": {"type": "string"}} for key in ("labels", "annotations")
            },
        },
        "additionalProperties": False,
    }
    return schema


def check_ray(manifest: Manifest) -> None:
    """Raises InvalidError where a kind of Ray's breaks its schema."""
    validator = jsonschema.Draft202012Validator(ray_schema(manifest["kind"]))
    problems = [f"{error.json_path}: {error.message}" for error in validator.iter_errors(manifest)]
    if problems:
        raise InvalidError(f"{named(manifest)}: {'; '.join(problems)}")


def check_core(manifest: Manifest) -> None:
    """Raises InvalidError where a kind of Kubernetes' own breaks its schema."""
    try:
        kubernetes_validate.validate(manifest, KUBERNETES_VERSION, strict=True)
    except kubernetes_validate.ValidationError as error:
        raise InvalidError(f"{named(manifest)}: {'.'.join(map(str, error.path))}: {error.message}") from error


@dataclass(frozen=True)
class Pod:
    """A pod that a manifest makes."""

    name: str
    labels: dict[str, str]
    spec: dict[str, Any]

    @property
    def as_manifest(self) -> Manifest:
        return {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "pod"}, "spec": self.spec}

    @property
    def containers(self) -> list[dict[str, Any]]:
        return [*self.spec.get("initContainers", []), *self.spec["containers"]]


def pods(among: tuple[Manifest, ...] | None = None) -> list[Pod]:
    """One for each pod template, wherever it stands in a manifest."""
    found = []
    for manifest in manifests() if among is None else among:
        for path, node in walk(manifest):
            spec = node.get("spec") if isinstance(node, dict) else None
            if isinstance(spec, dict) and "containers" in spec:
                name = f"{named(manifest)} {'.'.join(path)}"
                found.append(Pod(name, node.get("metadata", {}).get("labels", {}), spec))
    return found


def walk(node: Any, path: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], Any]]:
    """Every value in `node` with its path, itself first."""
    yield path, node
    if isinstance(node, dict | list):
        for key, value in node.items() if isinstance(node, dict) else enumerate(node):
            yield from walk(value, (*path, str(key)))
