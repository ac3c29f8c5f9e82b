"""The manifests are what KubeRay and Kubernetes take, and fit each other. No cluster has run them."""

from __future__ import annotations

import copy
import importlib
import re
import shutil
import subprocess
from pathlib import Path

import pytest
import yaml
from pydantic import ValidationError
from ray.serve import Application

import mixrec_automl
from mixrec_automl.config import load_config
from tests.deploy.manifests import (
    DEPLOY,
    KUBERNETES,
    ROOT,
    InvalidError,
    Manifest,
    check_core,
    check_ray,
    is_ray,
    manifests,
    named,
    of_kind,
    pods,
    walk,
)

APPLIED_APART = {"rayjob.yaml", "rayservice.yaml"}
"""Not at each `kubectl apply`: one for each search, the other once there is a model."""
RAY = [one for one in manifests() if is_ray(one)]
CORE = [one for one in manifests() if not is_ray(one)]
KUBERAY_SERVICES = {"mixrec-head-svc", "mixrec-serving-serve-svc"}
RUNBOOK = (ROOT / "docs" / "deployment.md").read_text("utf-8")


@pytest.mark.parametrize("manifest", RAY, ids=named)
def test_ray_kinds_are_valid(manifest: Manifest) -> None:
    check_ray(manifest)


@pytest.mark.parametrize("manifest", CORE, ids=named)
def test_core_kinds_are_valid(manifest: Manifest) -> None:
    check_core(manifest)


@pytest.mark.parametrize("pod", pods(), ids=lambda pod: pod.name)
def test_pods_are_valid(pod) -> None:  # those of Ray's kinds too, whose schema knows fewer rules
    check_core(pod.as_manifest)


def dictionaries(manifest: Manifest) -> list[tuple[str, ...]]:
    """Where a field could be misspelt: every mapping whose keys are fields, not names of the user's own."""
    free = {"labels", "annotations", "matchLabels", "data", "limits", "requests", "rayStartParams", "clusterSelector"}
    free |= {"selector"} if manifest["kind"] == "Service" else set()
    return [path for path, node in walk(manifest) if isinstance(node, dict) and not free & set(path)]


@pytest.mark.parametrize("manifest", manifests(), ids=named)
def test_an_unknown_field_is_refused_wherever_it_stands(manifest: Manifest) -> None:
    paths = dictionaries(manifest)
    if is_ray(manifest):
        assert len(paths) > 5, "the walk goes down"
    for path in paths:
        changed = copy.deepcopy(manifest)
        node = changed
        for key in path:
            node = node[int(key)] if isinstance(node, list) else node[key]
        node["planted"] = "here"
        with pytest.raises(InvalidError, match="planted"):
            (check_ray if is_ray(manifest) else check_core)(changed)


def test_a_value_of_another_kind_is_refused() -> None:
    cluster = copy.deepcopy(of_kind("RayCluster")["mixrec"])
    cluster["spec"]["workerGroupSpecs"][0]["maxReplicas"] = "many"
    with pytest.raises(InvalidError, match="maxReplicas"):
        check_ray(cluster)
    claim = copy.deepcopy(of_kind("PersistentVolumeClaim")["mixrec-home"])
    claim["spec"]["accessModes"] = "ReadWriteMany"
    with pytest.raises(InvalidError, match="accessModes"):
        check_core(claim)


def test_every_file_is_applied_or_applied_apart() -> None:
    kustomization = yaml.safe_load((KUBERNETES / "kustomization.yaml").read_text("utf-8"))
    files = {path.name for path in KUBERNETES.glob("*.yaml")} - {"kustomization.yaml"}
    assert set(kustomization["resources"]) == files - APPLIED_APART
    assert files > APPLIED_APART
    assert all(f"deploy/kubernetes/{name}" in RUNBOOK for name in APPLIED_APART)
    assert kustomization["namespace"] in of_kind("Namespace")


@pytest.mark.skipif(shutil.which("kubectl") is None, reason="no kubectl on this machine")
def test_kustomize_builds_it() -> None:
    """Offline: kustomize reads the files and writes one stream."""
    done = subprocess.run(["kubectl", "kustomize", str(KUBERNETES)], capture_output=True, text=True, check=False)
    if "kustomize" in done.stderr and "unknown command" in done.stderr:
        pytest.skip("this kubectl has no kustomize")
    assert done.returncode == 0, done.stderr
    built = {named(one) for one in yaml.safe_load_all(done.stdout)}
    assert built == {named(one) for one in manifests() if one["kind"] not in ("RayJob", "RayService")}


def test_references_lead_somewhere() -> None:
    """Each ConfigMap with its key, each claim; each Secret with its key is made in the runbook."""
    secrets = {
        name: set(re.findall(r"--from-literal=([\w-]+)=", rest))
        for name, rest in re.findall(r"create secret generic ([\w-]+)((?:[^\n]*\\\n)*[^\n]*)", RUNBOOK)
    }
    configs, claims = of_kind("ConfigMap"), of_kind("PersistentVolumeClaim")
    seen = set()
    for manifest in manifests():
        for path, node in walk(manifest):
            if not isinstance(node, dict) or not path:
                continue
            what, where = path[-1], f"{named(manifest)} {'.'.join(path)}"
            if what == "secretKeyRef":
                assert node["key"] in secrets[node["name"]], where
            elif what in ("configMapRef", "configMap"):
                assert node["name"] in configs, where
            elif what == "configMapKeyRef":
                assert node["key"] in configs[node["name"]]["data"], where
            elif what == "persistentVolumeClaim":
                assert node["claimName"] in claims, where
            elif what == "authOptions":
                assert "auth_token" in secrets[node["secretName"]], where
            else:
                continue
            seen.add(what)
    assert seen >= {"secretKeyRef", "configMapRef", "configMap", "persistentVolumeClaim", "authOptions"}


@pytest.mark.parametrize("pod", pods(), ids=lambda pod: pod.name)
def test_mounts_and_volumes_fit(pod) -> None:
    volumes = {volume["name"] for volume in pod.spec.get("volumes", [])}
    for path, node in walk([one for one in manifests() if one["kind"] == "StatefulSet"]):
        if path[-1:] == ("volumeClaimTemplates",):
            volumes |= {claim["metadata"]["name"] for claim in node} if pod.name.startswith("StatefulSet") else set()
    for container in pod.containers:
        assert {mount["name"] for mount in container.get("volumeMounts", [])} <= volumes


def test_hosts_that_are_named_are_services_with_that_port() -> None:
    ports = {name: {port["port"] for port in one["spec"]["ports"]} for name, one in of_kind("Service").items()}
    named_hosts = set()
    for manifest in manifests():
        for _, text in walk(manifest):
            if isinstance(text, str):
                named_hosts |= set(re.findall(r"(?:@|http://)([a-z-]+):(\d+)", text))
                named_hosts |= set(re.findall(r"^(redis):(\d+)$", text))
    assert {("postgres", "5432"), ("redis", "6379"), ("mlflow", "5000")} <= named_hosts
    assert [pair for pair in named_hosts if int(pair[1]) not in ports[pair[0]]] == []


def test_selectors_find_pods() -> None:
    """Of Services, workloads, budgets and network policies: a label that no pod bears would be a rule about nothing."""
    components = {pod.labels["app.kubernetes.io/component"] for pod in pods()}
    key, found = "app.kubernetes.io/component", set()
    for manifest in manifests():
        for path, node in walk(manifest):
            if isinstance(node, dict) and "labels" not in path and path[-1:] != ("labels",):
                found |= {node[key]} if key in node else set()
                found |= set(node["values"]) if node.get("key") == key and node.get("operator") == "In" else set()
    assert found == components


def test_the_search_of_the_config_map_is_valid(tmp_path: Path) -> None:
    file = tmp_path / "search.yaml"
    file.write_text(of_kind("ConfigMap")["mixrec-config"]["data"]["search.yaml"], "utf-8")
    config = load_config(file)
    group = of_kind("RayCluster")["mixrec"]["spec"]["workerGroupSpecs"][0]
    cpus = int(group["template"]["spec"]["containers"][0]["resources"]["limits"]["cpu"])
    (job,) = of_kind("RayJob").values()
    needed = config.cluster.slots * config.cluster.workers_per_trial * config.cluster.cpus_per_worker
    assert needed + job["spec"]["entrypointNumCpus"] <= group["replicas"] * cpus, "the search would wait for ever"
    assert group["minReplicas"] <= group["replicas"] <= group["maxReplicas"]


def test_ray_is_that_of_the_constraints_with_tokens_and_a_head_that_can_restart() -> None:
    (version,) = re.findall(r"^ray==(.+)$", (ROOT / "constraints.txt").read_text("utf-8"), re.M)
    (serving,) = [one["spec"]["rayClusterConfig"] for one in of_kind("RayService").values()]
    for cluster in (of_kind("RayCluster")["mixrec"]["spec"], serving):
        assert cluster["rayVersion"] == version
        assert cluster["authOptions"]["mode"] == "token"
        assert cluster["gcsFaultToleranceOptions"]["redisAddress"] == "redis:6379"
        assert "value" not in cluster["gcsFaultToleranceOptions"]["redisPassword"]
        assert cluster["headGroupSpec"]["rayStartParams"]["num-cpus"] == "0"


def test_the_job_names_the_cluster_and_a_mounted_file() -> None:
    (job,) = of_kind("RayJob").values()
    assert job["spec"]["clusterSelector"]["ray.io/cluster"] in of_kind("RayCluster")
    assert "backoffLimit" not in job["spec"], "KubeRay refuses it beside clusterSelector"
    (file,) = re.findall(r"/config/(\S+)", job["spec"]["entrypoint"])
    assert file in of_kind("ConfigMap")["mixrec-config"]["data"]


def test_budgets_ask_for_whole_pods_and_leave_some_to_go() -> None:
    """KubeRay's kinds have no scale, without which `maxUnavailable` and percentages let no pod go at all."""
    clusters = [one["spec"] for one in of_kind("RayCluster").values()]
    clusters += [one["spec"]["rayClusterConfig"] for one in of_kind("RayService").values()]
    workers = {
        group["template"]["metadata"]["labels"]["app.kubernetes.io/component"]: group["replicas"]
        for cluster in clusters
        for group in cluster["workerGroupSpecs"]
    }
    budgets = [one["spec"] for one in of_kind("PodDisruptionBudget").values()]
    assert len(budgets) == 2
    for budget in budgets:
        assert set(budget) == {"minAvailable", "selector"}
        replicas = workers[budget["selector"]["matchLabels"]["app.kubernetes.io/component"]]
        assert isinstance(budget["minAvailable"], int)
        assert 0 < budget["minAvailable"] < replicas


def test_the_application_that_is_served_exists() -> None:
    (service,) = of_kind("RayService").values()
    (application,) = yaml.safe_load(service["spec"]["serveConfigV2"])["applications"]
    assert application["route_prefix"] == "/"
    (workers,) = service["spec"]["rayClusterConfig"]["workerGroupSpecs"]
    assert application["args"]["replicas"] == workers["replicas"], "a worker without a replica is never ready"
    module, _, function = application["import_path"].partition(":")
    built = getattr(importlib.import_module(module), function)(application["args"])
    assert isinstance(built, Application)
    with pytest.raises(ValidationError):
        getattr(importlib.import_module(module), function)({**application["args"], "modle": ""})


def test_our_image_has_one_tag_the_version() -> None:
    files = [
        *KUBERNETES.glob("*.yaml"),
        DEPLOY / "compose.yaml",
        DEPLOY / "Dockerfile",
        ROOT / "docs" / "deployment.md",
    ]
    tags = {tag for path in files for tag in re.findall(r"mixrec-automl:(\d[\w.]*)", path.read_text("utf-8"))}
    assert tags == {mixrec_automl.__version__}
    images = {container["image"] for pod in pods() for container in pod.containers}
    compose = yaml.safe_load((DEPLOY / "compose.yaml").read_text("utf-8"))
    assert images == {service["image"] for service in compose["services"].values()}
    assert all(":" in image for image in images)
