"""Run a Kubernetes pod's containers with Podman: command, variables, mounts and memory.

Of a pod's fields those that the manifests here use; `runAsUser`, the dropped capabilities and the
read-only files are those of `Pod.run`, which `test_kubernetes.py` holds the manifests against.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import requests

from tests.docker.pods import Pod

Manifest = dict[str, Any]

_REFERENCE = re.compile(r"\$(\$|\((?P<name>\w+)\))")
_MEMORY_UNITS = {"Mi": "m", "Gi": "g"}


@dataclass(frozen=True)
class Cluster:
    """What containers refer to: ConfigMaps and Secrets, each with its keys."""

    maps: Mapping[str, Mapping[str, str]]
    secrets: Mapping[str, Mapping[str, str]]


def expand(text: str, variables: Mapping[str, str]) -> str:
    """Put variables in place of `$(NAME)`, as Kubernetes does; of one that is unknown it stays."""

    def put(match: re.Match[str]) -> str:
        return "$" if match[1] == "$" else variables.get(match["name"], match[0])

    return _REFERENCE.sub(put, text)


def environment_of(
    container: Manifest, pod: Pod, labels: Mapping[str, str], cluster: Cluster
) -> dict[str, str]:
    """Return a container's variables: those of maps and secrets first, then its own."""
    variables: dict[str, str] = {}
    for source in container.get("envFrom", []):
        if "configMapRef" in source:
            variables |= cluster.maps[source["configMapRef"]["name"]]
        else:
            variables |= cluster.secrets[source["secretRef"]["name"]]
    fields = {"status.podIP": pod.address, "metadata.name": pod.name}
    fields |= {f"metadata.labels['{name}']": value for name, value in labels.items()}
    for variable in container["env"]:
        source = variable.get("valueFrom", {})
        if "secretKeyRef" in source:
            value = cluster.secrets[source["secretKeyRef"]["name"]][source["secretKeyRef"]["key"]]
        elif "fieldRef" in source:
            value = fields[source["fieldRef"]["fieldPath"]]
        else:
            value = expand(variable["value"], variables)
        variables[variable["name"]] = value
    return variables


def run_container(
    container: Manifest, template: Manifest, pod: Pod, cluster: Cluster, to_end: bool = False
) -> None:
    """Start a container of a pod, or run it to its end, with the memory that it is limited to."""
    labels = template["metadata"].get("labels", {})
    variables = environment_of(container, pod, labels, cluster)
    command = [expand(each, variables) for each in container["command"]]
    command += [expand(each, variables) for each in container.get("args", [])]
    limit = container["resources"]["limits"]["memory"]
    options = ["--memory", limit[:-2] + _MEMORY_UNITS[limit[-2:]]]
    image, mounts = container["image"], _mounts_of(container, template, pod)
    if to_end:
        pod.run_to_end(image, command, variables, mounts, options)
    else:
        pod.run(container["name"], image, command, variables, mounts, options)


def _mounts_of(container: Manifest, template: Manifest, pod: Pod) -> dict[Path, str]:
    """Return the folder of each of a container's mounts: all of them are empty at first."""
    volumes = {each["name"]: each for each in template["spec"]["volumes"]}
    mounts = {}
    for mount in container["volumeMounts"]:
        empty = volumes[mount["name"]]["emptyDir"]
        folder = pod.memory if empty.get("medium") else pod.make_folder(mount["name"])
        mounts[folder] = mount["mountPath"]
    return mounts


def probe(container: Manifest, kind: str, pod: Pod) -> bool:
    """Return whether a container's probe succeeds."""
    wanted = container[kind]
    if "exec" in wanted:
        return pod.execute(container["name"], *wanted["exec"]["command"]).returncode == 0
    ports = {each["name"]: each["containerPort"] for each in container["ports"]}
    request = wanted["httpGet"]
    url = f"http://{pod.address}:{ports[request['port']]}{request['path']}"
    try:
        return requests.get(url, timeout=wanted.get("timeoutSeconds", 1)).status_code == 200
    except requests.RequestException:
        return False
