"""What KubeRay's operator 1.7 takes of a RayService: the fields used here, and rules beside them.

Written by hand, and compared field by field with KubeRay's types and with the checks that its
operator makes before it creates anything. Fields that the manifests do not use are left out, and
so refused.

In November 2026 the overlays, and what `upscaled cluster manifest --kubernetes` prints, were held
once against the schema of v1 in KubeRay's helm-chart/kuberay-operator/crds/ray.io_rayservices.yaml,
of commit 02a80a6f2abf691f2f4e89e4b7c47672bc259b5c: every field outside of the pod templates,
unknown ones refused. There was no difference. That file, a megabyte, is not kept here.
"""

import re
from typing import Any

Manifest = dict[str, Any]


def closed(required: dict[str, Any], **optional: Any) -> Manifest:
    """The schema of an object that has these fields and no others."""
    properties = required | optional
    return {
        "type": "object",
        "required": list(required),
        "properties": properties,
        "additionalProperties": False,
    }


TEXT = {"type": "string", "minLength": 1}
TEXTS = {"type": "object", "additionalProperties": {"type": "string"}}
COUNT = {"type": "integer", "minimum": 0, "maximum": 2**31 - 1}
QUANTITY = {"type": "string", "pattern": r"^[0-9]+(\.[0-9]+)?([KMGTPE]i|[mkMGTPE])?$"}
METADATA = closed({"name": TEXT}, labels=TEXTS)
POD = {"type": "object"}  # is checked as one
GROUP = {"rayStartParams": TEXTS, "template": POD}
CLUSTER = closed(
    {
        "rayVersion": TEXT,
        "headGroupSpec": closed(GROUP),
        "workerGroupSpecs": {
            "type": "array",
            "minItems": 1,
            "items": closed(
                GROUP
                | {"groupName": TEXT, "replicas": COUNT, "minReplicas": COUNT, "maxReplicas": COUNT}
            ),
        },
    },
    authOptions=closed({"mode": {"enum": ["disabled", "token"]}}, secretName=TEXT),
    gcsFaultToleranceOptions=closed(
        {"backend": {"enum": ["redis", "rocksdb"]}}, storage=closed({}, size=QUANTITY)
    ),
)
RAY_SERVICE = closed(
    {
        "apiVersion": {"const": "ray.io/v1"},
        "kind": {"const": "RayService"},
        # The names of its cluster and of that one's Services are longer, and have 63 characters.
        "metadata": closed(
            {"name": {"pattern": r"^[a-z]([-a-z0-9]*[a-z0-9])?$", "maxLength": 47}}, labels=TEXTS
        ),
        "spec": closed(
            {"serveConfigV2": TEXT, "rayClusterConfig": CLUSTER},
            upgradeStrategy=closed({"type": {"enum": ["NewCluster", "None"]}}),
            excludeHeadPodFromServeSvc={"type": "boolean"},
        ),
    }
)

_OLDEST_RAY_WITH_TOKENS = (2, 52)
_OF_REDIS = {"RAY_REDIS_ADDRESS", "REDIS_PASSWORD", "REDIS_USERNAME"}
_OF_ROCKSDB = {"RAY_gcs_storage", "RAY_gcs_storage_path"}
_STORE_MOUNT = "/data/gcs"


def refusals(service: Manifest) -> list[str]:
    """Why the operator would not act on a RayService that its schema accepts."""
    cluster = service["spec"]["rayClusterConfig"]
    return [*_group_refusals(cluster), *_token_refusals(cluster), *_store_refusals(cluster)]


def _group_refusals(cluster: Manifest) -> list[str]:
    groups = cluster["workerGroupSpecs"]
    found = [
        "a group without containers"
        for group in (cluster["headGroupSpec"], *groups)
        if not group["template"]["spec"]["containers"]
    ]
    return found + [
        f"fewer than the least replicas of {group['groupName']}"
        for group in groups
        if group["minReplicas"] > group["maxReplicas"]
    ]


def _token_refusals(cluster: Manifest) -> list[str]:
    if cluster.get("authOptions", {}).get("mode") != "token":
        return []
    numbers = re.fullmatch(r"(\d+)\.(\d+)\.\d+", cluster["rayVersion"])
    if numbers is None or tuple(map(int, numbers.groups())) < _OLDEST_RAY_WITH_TOKENS:
        return [f"Ray {cluster['rayVersion']} without tokens"]
    return []


def _store_refusals(cluster: Manifest) -> list[str]:
    """What clashes with what the operator itself adds to the head for its store."""
    options = cluster.get("gcsFaultToleranceOptions")
    if options is None:
        return []
    heads = cluster["headGroupSpec"]["template"]["spec"]["containers"][:1]
    names = {variable["name"] for head in heads for variable in head.get("env", [])}
    mounts = [mount["mountPath"] for head in heads for mount in head.get("volumeMounts", [])]
    is_embedded = options["backend"] == "rocksdb"
    found = [f"{name} is set" for name in sorted(names & _OF_REDIS)]
    if is_embedded:
        found += [f"{name} is set" for name in sorted(names & _OF_ROCKSDB)]
        found += [f"a mount at {mount}" for mount in mounts if mount == _STORE_MOUNT]
    elif "storage" in options:
        found.append("storage is of RocksDB alone")
    return found
