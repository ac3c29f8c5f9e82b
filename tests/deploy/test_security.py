"""No secret stands in a manifest, and no pod may do more than it needs."""

from __future__ import annotations

import copy
import re
from typing import Any

import pytest

from tests.deploy.manifests import DEPLOY, Pod, manifests, of_kind, pods, walk

SECRET_NAME = re.compile(r"PASSWORD|TOKEN|SECRET|CREDENTIAL|_KEY$")
REFERENCE = re.compile(r"_FILE$|_PATH$")
URL_WITH_PASSWORD = re.compile(r"://[^/\s:@]*:[^/\s@]+@")


def literal_secrets(container: dict[str, Any]) -> list[str]:
    """Variables of `container` that hold a secret rather than name where it is."""
    return [
        one["name"]
        for one in container.get("env", [])
        if "value" in one
        and (
            (SECRET_NAME.search(one["name"]) and not REFERENCE.search(one["name"]))
            or URL_WITH_PASSWORD.search(one["value"])
        )
    ]


def excesses(pod: Pod) -> list[str]:
    """What `pod` may do, or forgets, that it should not."""
    found, general = [], pod.spec.get("securityContext", {})
    if pod.spec.get("automountServiceAccountToken") is not False:
        found.append("has a token of the cluster's")
    if pod.spec.get("enableServiceLinks") is not False:
        found.append("gets variables such as MLFLOW_PORT from the Services beside it")
    if general.get("seccompProfile", {}).get("type") != "RuntimeDefault":
        found.append("may make any system call")
    for key in ("hostNetwork", "hostPID", "hostIPC"):
        found += [f"shares {key}"] if pod.spec.get(key) else []
    found += ["mounts the host's files" for volume in pod.spec.get("volumes", []) if "hostPath" in volume]
    for container in pod.containers:
        own = {**general, **container.get("securityContext", {})}
        limits = container.get("resources", {})
        if own.get("runAsNonRoot") is not True or not own.get("runAsUser"):
            found.append("may be root")
        if own.get("allowPrivilegeEscalation") is not False or own.get("privileged"):
            found.append("may become root")
        if own.get("capabilities", {}).get("drop") != ["ALL"] or own["capabilities"].get("add"):
            found.append("has capabilities")
        if not all({"cpu", "memory"} <= set(limits.get(kind, {})) for kind in ("requests", "limits")):
            found.append("has no limits")
        if literal_secrets(container):
            found.append("holds a secret")
    return found


@pytest.mark.parametrize("pod", pods(), ids=lambda pod: pod.name)
def test_pods_may_do_no_more_than_they_need(pod: Pod) -> None:
    assert excesses(pod) == []


@pytest.mark.parametrize(
    ("where", "change", "told"),
    [
        ("pod", {"automountServiceAccountToken": True}, "token of the cluster's"),
        ("pod", {"enableServiceLinks": True}, "MLFLOW_PORT"),
        ("pod", {"securityContext": {}}, "may be root"),
        ("pod", {"hostNetwork": True}, "hostNetwork"),
        ("pod", {"volumes": [{"name": "root", "hostPath": {"path": "/"}}]}, "host's files"),
        ("container", {"securityContext": {"capabilities": {"drop": ["ALL"]}}}, "may become root"),
        ("container", {"securityContext": {"allowPrivilegeEscalation": False}}, "has capabilities"),
        ("container", {"resources": {"limits": {"cpu": "1"}}}, "no limits"),
        ("container", {"env": [{"name": "REDIS_PASSWORD", "value": "x"}]}, "holds a secret"),
        ("container", {"env": [{"name": "MIXREC_DATABASE_URL", "value": "postgresql://a:b@host/c"}]}, "a secret"),
    ],
)
def test_each_excess_is_seen(where: str, change: dict[str, Any], told: str) -> None:
    pod = copy.deepcopy(pods()[0])
    (pod.spec if where == "pod" else pod.spec["containers"][0]).update(change)
    assert any(told in one for one in excesses(pod))


def test_no_file_holds_an_address_with_a_password_or_a_secret() -> None:
    files = [path for path in DEPLOY.rglob("*") if path.is_file() and "secrets" not in path.relative_to(DEPLOY).parts]
    assert len(files) > 10
    assert [path.name for path in files if URL_WITH_PASSWORD.search(path.read_text("utf-8"))] == []
    assert of_kind("Secret") == {}
    values = [(path, node) for one in manifests() for path, node in walk(one) if path[-1:] == ("redisPassword",)]
    assert values, "Redis asks for a password"
    assert all(set(node) == {"valueFrom"} for _, node in values)


def test_all_is_closed_that_no_policy_opens() -> None:
    """A policy for every component, and one that closes the rest."""
    policies = of_kind("NetworkPolicy")
    assert policies["deny-all"]["spec"] == {"podSelector": {}, "policyTypes": ["Ingress", "Egress"]}
    for name, policy in policies.items():
        for way, key in (("ingress", "from"), ("egress", "to")):
            assert all(rule.get(key) for rule in policy["spec"].get(way, [])), f"{name}: open to everybody"
    for name, port in (("postgres", 5432), ("redis", 6379), ("mlflow", 5000)):
        (rule,) = policies[name]["spec"]["ingress"]
        assert [one["port"] for one in rule["ports"]] == [port]


def components(selector: dict[str, Any]) -> set[str]:
    """The components that a pod selector of a network policy picks."""
    key = "app.kubernetes.io/component"
    picked = {selector["matchLabels"][key]} if key in selector.get("matchLabels", {}) else set()
    for one in selector.get("matchExpressions", []):
        picked |= set(one["values"]) if one["key"] == key else set()
    return picked


def connections(way: str) -> set[tuple[str, str, int | None]]:
    """Who may speak to whom on which port, among our pods, as the `way` rules say it."""
    found = set()
    for policy in of_kind("NetworkPolicy").values():
        here = components(policy["spec"]["podSelector"])
        for rule in policy["spec"].get(way, []):
            for peer in rule["from" if way == "ingress" else "to"]:
                there = components(peer.get("podSelector", {}))
                pairs = [(far, near) if way == "ingress" else (near, far) for near in here for far in there]
                found |= {
                    (*pair, port) for pair in pairs for port in [p["port"] for p in rule.get("ports", [])] or [None]
                }
    return found


def test_both_ends_of_each_connection_are_open() -> None:
    """One that is open at one end alone would be closed all the same."""
    assert connections("ingress") == connections("egress")
    assert ("ray-worker", "postgres", 5432) in connections("egress")
