"""The pods that KubeRay's operator makes of a RayService, as far as it changes containers.

As its version 1.7 does: the command of `ray start` from a group's parameters, variables of its own,
an init container of replicas that waits for the head, memory files, and the head's store.
"""

import copy
from typing import Any

Manifest = dict[str, Any]

_PORT = "6379"
_WAIT = """
while true; do
    if ray health-check --address {address} > /dev/null 2>&1; then break; fi
    sleep 5
done
"""


def head_service(service: Manifest) -> tuple[str, str]:
    """Return the short and the full name of the head's Service, in the namespace `default`."""
    short = f"{service['metadata']['name']}-head-svc"
    return short, f"{short}.default.svc.cluster.local"


def head_of(service: Manifest) -> Manifest:
    """Return the template of the head's pod."""
    template = _template_of(service, service["spec"]["rayClusterConfig"]["headGroupSpec"], "head")
    (container,) = template["spec"]["containers"]
    container["env"] += [
        {"name": "RAY_ADDRESS", "value": f"127.0.0.1:{_PORT}"},
        {"name": "RAY_gcs_storage", "value": "rocksdb"},
        {"name": "RAY_gcs_storage_path", "value": "/data/gcs"},
    ]
    container["volumeMounts"].append({"name": "gcs-storage", "mountPath": "/data/gcs"})
    template["spec"]["volumes"].append({"name": "gcs-storage", "emptyDir": {}})
    return template


def replica_of(service: Manifest) -> Manifest:
    """Return the template of a replica's pod."""
    (group,) = service["spec"]["rayClusterConfig"]["workerGroupSpecs"]
    short, full = head_service(service)
    template = _template_of(service, group, "worker", address=f"{full}:{_PORT}")
    (container,) = template["spec"]["containers"]
    names = [{"name": "FQ_RAY_IP", "value": full}, {"name": "RAY_IP", "value": short}]
    waiting = copy.deepcopy(container) | {
        "name": "wait-gcs-ready",
        "args": [_WAIT.format(address=f"{full}:{_PORT}")],
        "resources": {"limits": {"memory": "256Mi"}},
    }
    # It gets the variables, and not where others come from.
    waiting.pop("envFrom")
    waiting["env"] += names
    template["spec"]["initContainers"] = [waiting]
    container["env"] += [*names, {"name": "RAY_ADDRESS", "value": f"{full}:{_PORT}"}]
    return template


def _template_of(service: Manifest, group: Manifest, kind: str, **more: str) -> Manifest:
    template: Manifest = copy.deepcopy(group["template"])
    labels = {"ray.io/cluster": service["metadata"]["name"], "ray.io/node-type": kind}
    labels["ray.io/group"] = group.get("groupName", "headgroup")
    template["metadata"]["labels"] |= labels
    (container,) = template["spec"]["containers"]
    start = _ray_start(group, container, kind, more)
    container["command"] = ["/bin/bash", "-c", "--"]
    container["args"] = [f"ulimit -n 65536; {start}"]
    secret = service["spec"]["rayClusterConfig"]["authOptions"]["secretName"]
    token = {"secretKeyRef": {"name": secret, "key": "auth_token"}}
    label = {"fieldRef": {"fieldPath": "metadata.labels['ray.io/cluster']"}}
    container["env"] += [
        {"name": "RAY_AUTH_TOKEN", "valueFrom": token},
        {"name": "RAY_CLUSTER_NAME", "valueFrom": label},
        {"name": "KUBERAY_GEN_RAY_START_CMD", "value": start},
        {"name": "RAY_PORT", "value": _PORT},
        {"name": "RAY_timeout_ms_task_wait_for_death_info", "value": "0"},
        {"name": "RAY_gcs_server_request_timeout_seconds", "value": "5"},
        {"name": "RAY_SERVE_KV_TIMEOUT_S", "value": "5"},
        {"name": "RAY_USAGE_STATS_KUBERAY_IN_USE", "value": "1"},
        {"name": "RAY_DASHBOARD_ENABLE_K8S_DISK_USAGE", "value": "1"},
    ]
    container["volumeMounts"].append({"name": "shared-mem", "mountPath": "/dev/shm"})
    template["spec"]["volumes"].append({"name": "shared-mem", "emptyDir": {"medium": "Memory"}})
    return template


def _ray_start(group: Manifest, container: Manifest, kind: str, more: dict[str, str]) -> str:
    parameters = group["rayStartParams"] | more
    if kind == "head":
        parameters.setdefault("dashboard-host", "0.0.0.0")
    parameters.setdefault("metrics-export-port", "8080")
    parameters.setdefault("dashboard-agent-listen-port", "52365")
    size = container["resources"]["limits"]["memory"]
    units = {"Mi": 2**20, "Gi": 2**30}
    parameters.setdefault("memory", str(int(size[:-2]) * units[size[-2:]]))
    parameters["block"] = "true"
    options = [
        f"--{name}" if value == "true" else f"--{name}={value}"
        for name, value in sorted(parameters.items())
    ]
    return " ".join(["ray start", *(["--head"] if kind == "head" else []), *options])
