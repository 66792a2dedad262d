"""The manifests for Kubernetes are valid to the last field, and agree with the program.

No cluster runs here. Core objects are checked by Kubernetes' own schemas, and KEDA's by types that
were generated from KEDA's definitions, where npm has installed them; these say nothing of unknown
fields. So KubeRay's (`kuberay.py`) and KEDA's fields are also held against lists, written by hand,
of the few that these manifests use.
"""

import copy
import json
import os
import shlex
import shutil
import subprocess
from pathlib import Path
from typing import Any

import jsonschema
import kubernetes_validate
import pytest
import yaml

from tests.docker.kuberay import (
    COUNT,
    METADATA,
    RAY_SERVICE,
    TEXT,
    TEXTS,
    Manifest,
    closed,
    refusals,
)
from tests.running import REPOSITORY_DIR, clean_environment, run_upscaled
from tests.service.pool.ray_serve.clusters import has_ray
from upscaled.config import load_settings
from upscaled.pool.ray_serve import kubernetes
from upscaled.pool.ray_serve.options import NODE_ENVIRONMENT

FOLDER = Path(__file__).resolve().parents[2] / "docker" / "kubernetes"
OVERLAYS = ("cpu", "gpu")
KUBERNETES = "1.37"
SECRETS = {"upscaled-ray": "auth_token", "upscaled-database": "url", "upscaled-bucket": None}

SCHEMAS = {
    "RayService": RAY_SERVICE,
    "ScaledObject": closed(
        {
            "apiVersion": {"const": "keda.sh/v1alpha1"},
            "kind": TEXT,
            "metadata": METADATA,
            "spec": closed(
                {
                    "scaleTargetRef": closed({"name": TEXT}, apiVersion=TEXT, kind=TEXT),
                    "triggers": {
                        "type": "array",
                        "items": closed({"type": {"const": "prometheus"}, "metadata": TEXTS}),
                    },
                },
                minReplicaCount=COUNT,
                maxReplicaCount=COUNT,
                cooldownPeriod=COUNT,
            ),
        }
    ),
}


def validate(manifest: Manifest) -> None:
    """Raise where a manifest has a field that is unknown, missing or of another type."""
    schema = SCHEMAS.get(manifest["kind"])
    if schema is None:
        kubernetes_validate.validate(manifest, KUBERNETES, strict=True)
        return
    jsonschema.Draft202012Validator(schema).validate(manifest)
    if manifest["kind"] == "RayService":
        for pod in pods_of([manifest]):
            about = {"name": "of-a-group", **pod["metadata"]}
            whole = {"apiVersion": "v1", "kind": "Pod", "metadata": about, "spec": pod["spec"]}
            kubernetes_validate.validate(whole, KUBERNETES, strict=True)


def pods_of(manifests: list[Manifest]) -> list[Manifest]:
    """The templates of all pods."""
    found = [each["spec"]["template"] for each in manifests if each["kind"] == "Deployment"]
    for service in (each for each in manifests if each["kind"] == "RayService"):
        cluster = service["spec"]["rayClusterConfig"]
        groups = [cluster["headGroupSpec"], *cluster["workerGroupSpecs"]]
        found += [group["template"] for group in groups]
    return found


def containers_of(pod: Manifest) -> list[Manifest]:
    return [*pod["spec"]["containers"], *pod["spec"].get("initContainers", [])]


def read(folder: Path) -> list[Manifest]:
    """What a folder's kustomization lists, the folders that it names included."""
    manifests = []
    for name in yaml.safe_load((folder / "kustomization.yaml").read_text())["resources"]:
        path = folder / name
        if path.is_dir():
            manifests += read(path)
        else:
            manifests += yaml.safe_load_all(path.read_text())
    return manifests


@pytest.fixture(params=OVERLAYS)
def manifests(request: pytest.FixtureRequest) -> list[Manifest]:
    return read(FOLDER / "overlays" / request.param)


def named(manifests: list[Manifest], kind: str, name: str) -> Manifest:
    (found,) = (
        each for each in manifests if (each["kind"], each["metadata"]["name"]) == (kind, name)
    )
    return found


@pytest.mark.parametrize("folder", ["overlays/cpu", "overlays/gpu", "components/keda"])
def test_every_field_is_known_and_of_its_type(folder: str) -> None:
    manifests = read(FOLDER / folder)
    assert manifests
    for manifest in manifests:
        validate(manifest)


VALIDATE_BY_KEDA = """
const [path, manifest] = process.argv.slice(1);
const { ScaledObject } = await import(path);
new ScaledObject(JSON.parse(manifest)).validate();
"""


def validate_by_keda(manifest: Manifest) -> subprocess.CompletedProcess[str]:
    """What the package of KEDA's types says of a manifest; skips without it."""
    folders = [Path(each) for each in os.environ.get("NODE_PATH", "").split(":") if each]
    folders.append(REPOSITORY_DIR / ".venv" / "node" / "node_modules")
    types = "@kubernetes-models/keda/keda.sh/v1alpha1/ScaledObject.js"
    for path in (folder / types for folder in folders):
        if path.exists():
            program = ["node", "--input-type=module", "--eval", VALIDATE_BY_KEDA]
            command = [*program, str(path), json.dumps(manifest)]
            return subprocess.run(command, capture_output=True, text=True, timeout=60)
    pytest.skip("KEDA's types are not installed: npm install @kubernetes-models/keda")


def test_kedas_own_types_accept_what_scales_the_front_ends() -> None:
    (manifest,) = (
        each for each in read(FOLDER / "components/keda") if each["kind"] == "ScaledObject"
    )
    taken = validate_by_keda(manifest)
    assert taken.returncode == 0, taken.stderr
    for path, wrong in ((("minReplicaCount",), "2"), (("scaleTargetRef", "name"), 4)):
        harmed = copy.deepcopy(manifest)
        inner = harmed["spec"]
        for name in path[:-1]:
            inner = inner[name]
        inner[path[-1]] = wrong
        refused = validate_by_keda(harmed)
        assert (refused.returncode, path[-1] in refused.stderr) == (1, True)


def test_a_misspelt_field_is_refused_at_any_depth(manifests: list[Manifest]) -> None:
    for kind, path in (
        ("Deployment", ("spec", "template", "spec")),
        ("RayService", ("spec", "rayClusterConfig")),
        ("RayService", ("spec", "rayClusterConfig", "headGroupSpec", "template", "spec")),
    ):
        manifest = copy.deepcopy(next(each for each in manifests if each["kind"] == kind))
        inner = manifest
        for name in path:
            inner = inner[name]
        inner["shareProcesNamespace"] = True
        with pytest.raises((jsonschema.ValidationError, kubernetes_validate.ValidationError)):
            validate(manifest)


def test_kuberays_operator_has_no_reason_to_refuse_the_ray_service(
    manifests: list[Manifest],
) -> None:
    assert refusals(named(manifests, "RayService", kubernetes.NAME)) == []


CLUSTER = ("spec", "rayClusterConfig")
HEAD = (*CLUSTER, "headGroupSpec", "template", "spec", "containers", 0)


@pytest.mark.parametrize(
    ("path", "value", "reason"),
    [
        ((*CLUSTER, "rayVersion"), "2.51.0", "without tokens"),
        ((*CLUSTER, "workerGroupSpecs", 0, "maxReplicas"), 1, "fewer than the least replicas"),
        ((*CLUSTER, "gcsFaultToleranceOptions", "backend"), "redis", "of RocksDB alone"),
        ((*HEAD, "env", 0, "name"), "RAY_gcs_storage_path", "RAY_gcs_storage_path is set"),
        ((*HEAD, "env", 0, "name"), "RAY_REDIS_ADDRESS", "RAY_REDIS_ADDRESS is set"),
        ((*HEAD, "volumeMounts", 0, "mountPath"), "/data/gcs", "a mount at /data/gcs"),
        ((*HEAD[:-1],), [], "a group without containers"),
    ],
)
def test_what_kuberays_operator_refuses_beside_its_schema_is_noticed(
    manifests: list[Manifest], path: tuple[str | int, ...], value: object, reason: str
) -> None:
    service = copy.deepcopy(named(manifests, "RayService", kubernetes.NAME))
    inner: Any = service
    for name in path[:-1]:
        inner = inner[name]
    inner[path[-1]] = value
    if value != []:
        validate(service)
    assert any(reason in refusal for refusal in refusals(service))


@pytest.mark.parametrize("name", ["u" * 48, "1-upscaled", "upscaled-", "Upscaled"])
def test_a_name_that_kuberay_does_not_accept_is_noticed(
    manifests: list[Manifest], name: str
) -> None:
    service = copy.deepcopy(named(manifests, "RayService", kubernetes.NAME))
    service["metadata"]["name"] = "u" * 47
    validate(service)
    service["metadata"]["name"] = name
    with pytest.raises(jsonschema.ValidationError):
        validate(service)


@pytest.mark.skipif(shutil.which("kubectl") is None, reason="kubectl is not installed")
@pytest.mark.parametrize("overlay", OVERLAYS)
def test_kustomize_makes_the_same_of_an_overlay(overlay: str) -> None:
    folder = FOLDER / "overlays" / overlay
    done = subprocess.run(
        ["kubectl", "kustomize", str(folder)], capture_output=True, text=True, check=True
    )
    made = {
        (each["kind"], each["metadata"]["name"]): each for each in yaml.safe_load_all(done.stdout)
    }
    assert made == {(each["kind"], each["metadata"]["name"]): each for each in read(folder)}


@pytest.mark.skipif(not has_ray, reason="ray is not installed (requirements-cluster.lock)")
@pytest.mark.parametrize(
    "overlay",
    [pytest.param(each, marks=() if each == "cpu" else pytest.mark.slow) for each in OVERLAYS],
)
def test_the_ray_service_is_what_the_command_in_its_first_line_prints(overlay: str) -> None:
    text = (FOLDER / "overlays" / overlay / "rayservice.yaml").read_text()
    first, _, rest = text.partition("\n")
    _, *command = shlex.split(first.removeprefix("# Written by: "))
    assert run_upscaled(clean_environment(), *command).stdout == rest


def test_front_ends_and_replicas_have_the_variables_of_every_node(
    manifests: list[Manifest],
) -> None:
    containers = [each for pod in pods_of(manifests) for each in containers_of(pod)]
    assert len(containers) == 4
    for container in containers:
        variables = {each["name"]: each.get("value") for each in container["env"]}
        assert {name: variables.get(name) for name in NODE_ENVIRONMENT} == dict(NODE_ENVIRONMENT)


def test_every_pod_is_hardened_and_reaps_dead_processes(manifests: list[Manifest]) -> None:
    for pod in pods_of(manifests):
        assert pod["spec"]["shareProcessNamespace"] is True
        assert pod["spec"]["automountServiceAccountToken"] is False
        assert pod["spec"]["securityContext"]["runAsNonRoot"] is True
        for container in containers_of(pod):
            assert container["securityContext"] == {
                "allowPrivilegeEscalation": False,
                "readOnlyRootFilesystem": True,
                "capabilities": {"drop": ["ALL"]},
            }


def test_every_reference_is_to_something_that_is_there_or_a_named_secret(
    manifests: list[Manifest],
) -> None:
    maps = {each["metadata"]["name"] for each in manifests if each["kind"] == "ConfigMap"}
    assert [each for each in manifests if each["kind"] == "Secret"] == []
    for container in (each for pod in pods_of(manifests) for each in containers_of(pod)):
        for variable in container["env"]:
            if key := variable.get("valueFrom", {}).get("secretKeyRef"):
                assert SECRETS[key["name"]] == key["key"]
        for source in container.get("envFrom", []):
            if "configMapRef" in source:
                assert source["configMapRef"]["name"] in maps
            else:
                assert source["secretRef"]["name"] in SECRETS


def test_the_settings_are_ones_that_the_program_accepts(manifests: list[Manifest]) -> None:
    settings: dict[str, str] = {}
    for name in ("upscaled-settings", "upscaled-front"):
        settings |= named(manifests, "ConfigMap", name)["data"]
    if not has_ray:
        del settings["UPSCALED_CLUSTER"]
    assert load_settings(settings).results_url


def test_front_ends_join_the_cluster_of_this_ray_service(manifests: list[Manifest]) -> None:
    service = named(manifests, "RayService", kubernetes.NAME)
    secret = service["spec"]["rayClusterConfig"]["authOptions"]["secretName"]
    assert secret == "upscaled-ray"
    (front,) = (pod for pod in pods_of(manifests) if "initContainers" in pod["spec"])
    (node,) = front["spec"]["initContainers"]
    # KubeRay names the head's Service after the RayService.
    assert f"--address={kubernetes.NAME}-head-svc:6379" in node["command"]
    (container,) = front["spec"]["containers"]
    assert container["image"] == node["image"]
    assert container["volumeMounts"] == node["volumeMounts"]


def test_services_policies_and_budgets_select_pods_that_are_there(
    manifests: list[Manifest],
) -> None:
    group = {"ray.io/group": kubernetes.GROUP}  # KubeRay adds it
    labels = [pod["metadata"]["labels"] for pod in pods_of(manifests)]
    labels += [label | group for label in labels]
    selectors = [
        each["spec"]["podSelector"] for each in manifests if each["kind"] == "NetworkPolicy"
    ]
    selectors += [
        each["spec"]["selector"] for each in manifests if each["kind"] == "PodDisruptionBudget"
    ]
    wanted = [selector["matchLabels"] for selector in selectors]
    wanted += [each["spec"]["selector"] for each in manifests if each["kind"] == "Service"]
    assert len(wanted) == 5
    for selector in wanted:
        assert any(selector.items() <= label.items() for label in labels)


def test_keda_scales_the_front_ends_by_a_metric_that_there_is(manifests: list[Manifest]) -> None:
    (scaled,) = read(FOLDER / "components" / "keda")
    target = scaled["spec"]["scaleTargetRef"]
    assert named(manifests, target["kind"], target["name"])
    (trigger,) = scaled["spec"]["triggers"]
    page = (FOLDER.parents[1] / "service/upscaled/docs/metrics.md").read_text()
    assert trigger["metadata"]["query"] == "sum(upscaled_open_requests)"
    assert "| `upscaled_open_requests` | gauge |" in page
