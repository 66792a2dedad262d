"""An overlay's containers run, by Podman, with the commands, variables, mounts and limits written.

No Kubernetes runs here: `kubelet.py` and `kuberay_pods.py` start what a kubelet and KubeRay's
operator would. A flag that Ray does not know, a variable of another name, a limit that is too small
or a probe that never succeeds fails here.
"""

import json
import shlex
import subprocess
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest
import requests
import yaml

from tests.docker.buildah import Buildah
from tests.docker.conftest import CLUSTER_IMAGE
from tests.docker.engine import start_engine
from tests.docker.kubelet import Cluster, Manifest, probe, run_container
from tests.docker.kuberay_pods import head_of, head_service, replica_of
from tests.docker.pods import Network, Pod, network, require
from tests.docker.sample import fetch_result
from tests.docker.test_kubernetes import FOLDER, named, pods_of, read
from tests.docs.blocks import DOCS, read_blocks
from upscaled.pool.ray_serve import kubernetes

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1800)]

PAGE = DOCS / "machines.md"
PUBLIC = "UPSCALED_PUBLIC_BASE_URL"
ADDRESSES = {
    "upscaled-settings": {"UPSCALED_S3_ENDPOINT": "http://bucket:5000", "AWS_REGION": "us-east-1"}
}
"""What a user adds to `base/settings.yaml`."""


@pytest.fixture
def net(cluster_images: Buildah, tmp_path: Path) -> Iterator[Network]:
    engine = start_engine(cluster_images, tmp_path, CLUSTER_IMAGE, "cluster")
    with network(engine, "kubernetes", tmp_path) as made:
        made.start_state("db", "PASSWORD", "bucket", "my-bucket")
        yield made


def _page_commands() -> list[list[str]]:
    """The words of the page's commands for a Kubernetes cluster, line by line."""
    (text,) = (
        block.text for block in read_blocks(PAGE, "bash") if "kubectl create secret" in block.text
    )
    # Where a command has words for a shell, those are put in.
    with_token = subprocess.run(
        ["bash", "-c", f"cat <<END\n{text}\nEND"], capture_output=True, text=True, check=True
    )
    return [shlex.split(line) for line in with_token.stdout.splitlines() if line]


def _read_secrets() -> dict[str, dict[str, str]]:
    secrets = {}
    for _, action, kind, *rest in _page_commands():
        if (action, kind) == ("create", "secret"):
            _, name, *literals = rest
            pairs = (each.removeprefix("--from-literal=").split("=", 1) for each in literals)
            secrets[name] = dict(pairs)
    return secrets


def _executed() -> list[list[str]]:
    """What the page runs in a front end's container."""
    commands = [words for words in _page_commands() if words[1] == "exec"]
    assert all(words[2:6] == ["deploy/upscaled-front", "-c", "front", "--"] for words in commands)
    return [words[6:] for words in commands]


def _start(net: Network, name: str, template: Manifest, cluster: Cluster, *hosts: str) -> Pod:
    """Start a pod, and wait until its containers have started and are ready, by their probes."""
    pod = net.start(name, *hosts)
    for container in template["spec"].get("initContainers", []):
        is_sidecar = container.get("restartPolicy") == "Always"
        run_container(container, template, pod, cluster, to_end=not is_sidecar)
        if is_sidecar:
            net.wait(lambda: probe(container, "startupProbe", pod), f"{name}: sidecar")  # noqa: B023
    for container in template["spec"]["containers"]:
        run_container(container, template, pod, cluster)
    return pod


def _is_well(template: Manifest, pod: Pod) -> bool:
    containers = template["spec"]["containers"]
    kinds = ("readinessProbe", "livenessProbe")
    return all(probe(each, kind, pod) for each in containers for kind in kinds)


def _deploy(head: Pod, service: Manifest, token: str) -> bool:
    """Hand Serve's configuration to the head's dashboard, for the one replica that is started.

    Returns:
        Whether it is taken; the operator tries again, as where the head is busy.
    """
    config = yaml.safe_load(service["spec"]["serveConfigV2"])
    config["applications"][0]["deployments"][0]["num_replicas"] = 1
    url = f"http://{head.address}:8265/api/serve/applications/"
    headers = {"x-ray-authorization": f"Bearer {token}"}
    try:
        return requests.put(url, json=config, headers=headers, timeout=60).status_code == 200
    except requests.RequestException:
        return False


def test_a_photo_is_answered_by_the_containers_of_the_overlay(net: Network) -> None:
    manifests = read(FOLDER / "overlays" / "cpu")
    maps = {
        each["metadata"]["name"]: each["data"] | ADDRESSES.get(each["metadata"]["name"], {})
        for each in manifests
        if each["kind"] == "ConfigMap"
    }
    secrets = _read_secrets()
    cluster = Cluster(maps, secrets)
    service = named(manifests, "RayService", kubernetes.NAME)
    templates = {"head": head_of(service), "replica": replica_of(service)}
    (templates["front"],) = (pod for pod in pods_of(manifests) if "initContainers" in pod["spec"])
    # One after the other: on a busy machine Ray gives a start up after 30 s.
    pods = {}
    for name, hosts in (("head", head_service(service)), ("replica", ()), ("front", ())):
        pods[name] = _start(net, name, templates[name], cluster, *hosts)
        if name == "head":
            net.wait(lambda: _is_well(templates["head"], pods["head"]), "the head's probes")
            token = secrets["upscaled-ray"]["auth_token"]
            net.wait(partial(_deploy, pods["head"], service, token), "the deployment is taken")
    for name, template in templates.items():
        net.wait(lambda: _is_well(template, pods[name]), f"the probes of {name}")  # noqa: B023

    make_key, check = _executed()
    made = require(pods["front"].execute("front", *make_key))
    url = f"http://{pods['front'].address}:8000"
    fetch_result(url, made.split()[-1], maps["upscaled-front"][PUBLIC])
    checked = pods["front"].execute("front", *check, "--json")
    findings = json.loads(checked.stdout)["findings"]
    assert {each["check"]: each["found"] for each in findings if each["status"] != "ok"} == {}
