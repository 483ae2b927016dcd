"""Reads a YAML file of Kubernetes objects; prints them as JSON, or ends with what is wrong.

Objects of Kubernetes itself are checked by kubernetes-validate, without unknown fields. Of a
LeaderWorkerSet its own fields are checked here, as its API documents them, and its templates as the
pods that they make.
"""

import json
import sys

import kubernetes_validate
import yaml

ANY = object()
POD = object()

ROLLING = {"partition": int, "maxUnavailable": (int, str), "maxSurge": (int, str)}
LWS_SPEC = {
    "replicas": int,
    "leaderWorkerTemplate!": {
        "leaderTemplate": POD,
        "workerTemplate!": POD,
        "size": int,
        "restartPolicy": ["None", "RecreateGroupOnPodRestart", "RecreateGroupAfterStart"],
        "subGroupPolicy": {"subGroupPolicyType": ["LeaderWorker", "LeaderExcluded"], "subGroupSize": int},
        "volumeClaimTemplates": ANY,
        "persistentVolumeClaimRetentionPolicy": ANY,
    },
    "rolloutStrategy": {"type!": ["RollingUpdate"], "rollingUpdateConfiguration": ROLLING},
    "startupPolicy": ["LeaderCreated", "LeaderReady"],
    "networkConfig": {"subdomainPolicy!": ["Shared", "UniquePerReplica"]},
}
LWS = {"apiVersion!": ["leaderworkerset.x-k8s.io/v1"], "kind!": ["LeaderWorkerSet"], "metadata!": ANY, "spec!": LWS_SPEC}


def validate(what):
    version = kubernetes_validate.latest_version()
    kubernetes_validate.validate(what, version, strict=True)


def check(value, form, at):
    """`form`: fields (a name that ends in ! must be there), choices, a type, ANY or POD."""
    if form is ANY:
        return
    if form is POD:
        metadata = {"name": "pod", **value.get("metadata", {})}
        unknown = set(value) - {"metadata", "spec"}
        assert not unknown, f"{at}: unknown field {', '.join(unknown)}"
        validate({"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": value["spec"]})
    elif isinstance(form, dict):
        assert isinstance(value, dict), f"{at} is not a map"
        forms = {name.rstrip("!"): field for name, field in form.items()}
        for name in form:
            assert not name.endswith("!") or name[:-1] in value, f"{at}: {name[:-1]} is missing"
        for name, field in value.items():
            assert name in forms, f"{at}: unknown field {name}"
            check(field, forms[name], f"{at}.{name}")
    elif isinstance(form, list):
        assert value in form, f"{at}: {value!r} is none of {', '.join(form)}"
    else:
        assert isinstance(value, form) and not isinstance(value, bool), f"{at}: {value!r} has the wrong type"


objects = list(yaml.safe_load_all(sys.stdin))
for item in objects:
    try:
        if item.get("kind") == "LeaderWorkerSet":
            check(item, LWS, "LeaderWorkerSet")
        else:
            validate(item)
    except (AssertionError, kubernetes_validate.ValidationError) as error:
        sys.exit(f"{item.get('kind')}: {str(error).splitlines()[0]}")
json.dump(objects, sys.stdout)
