"""compose.yaml fits itself and the manifests. Docker has not run it."""

from __future__ import annotations

import os
import re
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.deploy.manifests import DEPLOY, ROOT, of_kind
from tests.deploy.test_security import literal_secrets

COMPOSE: dict[str, Any] = yaml.safe_load((DEPLOY / "compose.yaml").read_text("utf-8"))
SERVICES: dict[str, dict[str, Any]] = COMPOSE["services"]
RUNBOOK = (ROOT / "docs" / "deployment.md").read_text("utf-8")


def test_the_services() -> None:
    assert set(SERVICES) == {"postgres", "redis", "mlflow", "ray-head", "ray-worker"}
    assert "container_name" not in SERVICES["ray-worker"], "it could not be scaled"


@pytest.mark.parametrize("name", SERVICES)
def test_what_a_service_names_is_defined(name: str) -> None:
    service = SERVICES[name]
    for other, needed in service.get("depends_on", {}).items():
        assert other in SERVICES
        assert needed["condition"] != "service_healthy" or "healthcheck" in SERVICES[other]
    for volume in service.get("volumes", []):
        source = volume.split(":")[0]
        assert (DEPLOY / source).exists() if source.startswith(".") else source in COMPOSE["volumes"], volume
    for secret in service.get("secrets", []):
        assert (secret if isinstance(secret, str) else secret["source"]) in COMPOSE["secrets"]


def test_each_secret_is_a_file_that_the_runbook_makes_and_git_ignores() -> None:
    for name, secret in COMPOSE["secrets"].items():
        assert secret == {"file": f"./secrets/{name}"}
        assert name in RUNBOOK
    ignored = subprocess.run(["git", "check-ignore", "-q", "deploy/secrets/PGPASSWORD"], cwd=ROOT, check=False)
    assert ignored.returncode == 0 or not (ROOT / ".git").exists()


@pytest.mark.parametrize("name", SERVICES)
def test_no_secret_and_no_open_port(name: str) -> None:
    environment = [{"name": key, "value": str(value)} for key, value in SERVICES[name].get("environment", {}).items()]
    assert literal_secrets({"env": environment}) == []
    assert all(port.startswith("127.0.0.1:") for port in SERVICES[name].get("ports", []))
    assert "no-new-privileges:true" in SERVICES[name]["security_opt"]
    assert SERVICES[name]["mem_limit"]
    assert not SERVICES[name].get("privileged")


def test_compose_and_kubernetes_say_the_same() -> None:
    config = of_kind("ConfigMap")
    for map_name, file in (("mlflow-auth", "basic_auth.ini"), ("postgres-init", "databases.sql")):
        assert config[map_name]["data"] == {file: (DEPLOY / "config" / file).read_text("utf-8")}
    for name in ("ray-head", "ray-worker"):
        environment = SERVICES[name]["environment"]
        assert environment.items() >= config["mixrec-environment"]["data"].items()
        assert environment["RAY_AUTH_MODE"] == "token"
    (server,) = of_kind("Deployment")["mlflow"]["spec"]["template"]["spec"]["containers"]
    assert server["args"] == SERVICES["mlflow"]["command"]


def test_every_ray_service_has_the_token_and_the_command_line_quotes_no_secret() -> None:
    for name in ("ray-head", "ray-worker"):
        assert "RAY_AUTH_TOKEN" in SERVICES[name]["secrets"]
    for service in SERVICES.values():
        for name in re.findall(r"(?<!\$)\$(?!\$|\{MIXREC_)(\w+)", str(service.get("command"))):
            pytest.fail(f"compose itself would replace ${name}: write $${name}")


def test_secrets_become_variables(tmp_path: Path) -> None:
    """What the image's entry point does, with the very script."""
    (tmp_path / "PGPASSWORD").write_text("a b'c\"$d\n")
    (tmp_path / "RAY_AUTH_TOKEN").write_text("0123")
    (tmp_path / "kubernetes.io").mkdir()
    done = subprocess.run(
        [DEPLOY / "with_secrets.sh", "sh", "-c", 'printf "%s|%s|%s" "$PGPASSWORD" "$RAY_AUTH_TOKEN" "$1"', "-", "x y"],
        env={"PATH": os.environ["PATH"], "SECRETS_FOLDER": str(tmp_path)}, capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert done.stdout == "a b'c\"$d|0123|x y"


def test_a_command_keeps_its_exit_status_and_needs_no_secrets(tmp_path: Path) -> None:
    environment = {"PATH": os.environ["PATH"], "SECRETS_FOLDER": str(tmp_path / "missing")}
    done = subprocess.run([DEPLOY / "with_secrets.sh", "sh", "-c", "exit 7"], env=environment, check=False)
    assert done.returncode == 7
