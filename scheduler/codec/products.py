"""GPU models as labels name them: on nodes, and where pods select nodes by them.

Hidden here: how ``nvidia.com/gpu.product`` is spelled, and how a pod may ask for it. A
plan on another model could not be followed, and its gate is opened for one model only:
what was missed could never be made good. Other labels are left to kube-scheduler.
"""

import re
from collections.abc import Iterator, Mapping, Sequence

from scheduler.codec.objects import NodeSelectorTerm, PodObject
from scheduler.core import class_of_product, profile_of_resource

PRODUCT = "nvidia.com/gpu.product"
SHARED_SUFFIX = "-SHARED"

_SINGLE = re.compile(r"-MIG-(?P<profile>\d+g\.\d+gb[a-z.-]*?)(?:-SHARED)?$")


def known_class(product: str, classes: Mapping[str, str]) -> str | None:
    """Return the GPU class of a product; None if it is in no table.

    Parameters
    ----------
    product
        The label.
    classes
        GPU class per product label; goes before the built-in table.
    """
    bare = _SINGLE.sub("", product).removesuffix(SHARED_SUFFIX)
    return classes.get(product) or classes.get(bare) or class_of_product(product)


def sliced_as(product: str) -> str:
    """Name the resource that a node's slices have where they do not pass for GPUs.

    Empty unless all of its GPUs are slices of one profile (MIG strategy single).
    """
    found = _SINGLE.search(product)
    return f"nvidia.com/mig-{found['profile']}" if found else ""


def selected_classes(pod: PodObject, classes: Mapping[str, str]) -> tuple[str, ...]:
    """Return the GPU classes that a pod selects nodes of; empty for any.

    Empty as well where a product is in no table, or shared: by how many, its name does
    not say.
    """
    found = [_selected_class(name, classes) for name in _selected(pod)]
    return tuple(dict.fromkeys(found)) if all(found) else ()


def _selected_class(product: str, classes: Mapping[str, str]) -> str:
    known = known_class(product, classes)
    if known is None or product.endswith(SHARED_SUFFIX):
        return ""
    resource = sliced_as(product)
    return f"{known}/{profile_of_resource(resource)}" if resource else known


def _selected(pod: PodObject) -> Sequence[str]:
    """Return the products its node may have; empty for any."""
    wanted = (pod.spec.node_selector or {}).get(PRODUCT)
    return _listed(pod) if wanted is None else (wanted,)


def _listed(pod: PodObject) -> Sequence[str]:
    """Return the products that its required affinity lists: one of its terms holds."""
    affinity = pod.spec.affinity and pod.spec.affinity.node_affinity
    required = affinity and affinity.required
    found: list[str] = []
    for term in (required and required.node_selector_terms) or ():
        listed = next(_lists(term), ())
        if not listed:
            return ()
        found.extend(listed)
    return found


def _lists(term: NodeSelectorTerm) -> Iterator[Sequence[str]]:
    for requirement in term.match_expressions or ():
        if requirement.key == PRODUCT and requirement.operator == "In":
            yield requirement.values or ()
