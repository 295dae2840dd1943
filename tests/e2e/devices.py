"""Devices of dynamic resource allocation, for pods that ask for them by claims."""

from tests.controlplane.client import Client, Object

DRIVER = "device.traps.example"
CLAIM = "mine"


def offer(client: Client, node: str, resource: str = "") -> None:
    """Let a node have some devices, for claims or also as an extended resource."""
    selector = {"cel": {"expression": f'device.driver == "{DRIVER}"'}}
    spec: Object = {"selectors": [selector]}
    if resource:
        spec["extendedResourceName"] = resource
    made: Object = {
        "apiVersion": "resource.k8s.io/v1",
        "kind": "DeviceClass",
        "metadata": {"name": DRIVER},
        "spec": spec,
    }
    client.create(made)
    made = {
        "apiVersion": "resource.k8s.io/v1",
        "kind": "ResourceSlice",
        "metadata": {"name": f"{node}-devices"},
        "spec": {
            "driver": DRIVER,
            "nodeName": node,
            "pool": {"name": node, "generation": 1, "resourceSliceCount": 1},
            "devices": [{"name": f"d{i}"} for i in range(4)],
        },
    }
    client.create(made)


def withdraw(client: Client) -> None:
    """Take all devices away."""
    client.delete_all("resourceslices")
    client.delete_all("deviceclasses")


def claim(client: Client, namespace: str) -> None:
    """Make the claim that pods of a namespace use."""
    request = {"name": "one", "exactly": {"deviceClassName": DRIVER}}
    client.create(
        {
            "apiVersion": "resource.k8s.io/v1",
            "kind": "ResourceClaim",
            "metadata": {"name": CLAIM, "namespace": namespace},
            "spec": {"devices": {"requests": [request]}},
        }
    )


def claiming(pod: Object) -> Object:
    """The same pod, with the claim."""
    use = {"name": "device", "resourceClaimName": CLAIM}
    pod["spec"]["resourceClaims"] = [use]
    pod["spec"]["containers"][0]["resources"]["claims"] = [{"name": "device"}]
    return pod
