"""What a GPU can be cut into, and what each piece is charged.

Everything about hardware is a table, generated into `gpu_tables` from collected facts
(GPUs that cannot be cut stand in a table here), and everything computed from it is an
integer. Three notions:

* A **GPU class** is model and memory, ``h100-80gb``. Boards of one class are cut alike.
* A **form** is what one device of a node is: a whole GPU (``h100-80gb``), a MIG
  instance (``h100-80gb/1g.10gb``) or a replica of a time-sliced or MPS-shared GPU
  (``a10-24gb/shared-4``). The text is the form; `parse_form` is the only way in.
* A **layout** is one legal set of MIG instances on one GPU, with their positions.

Invariant: the charges of every legal layout add up to at most one GPU, because an
instance is charged the placement units it occupies and units never overlap.

A class that is in no table is legal as a whole or shared GPU, so that any trace can be
replayed; only the profiles of a class must be known.
"""

import re
from collections import Counter
from collections.abc import Iterator, Mapping
from functools import cache, lru_cache
from typing import Final, NamedTuple, NewType

from scheduler.core.gpu_tables import (
    CLASSES,
    GEOMETRIES,
    PRODUCT_SUFFIX,
    PRODUCTS,
    VALUE_WEIGHTS,
)

QUANTA_PER_GPU: Final = 126_000
DEFAULT_VALUE_WEIGHT: Final = 1000

Form = NewType("Form", str)
GpuClass = NewType("GpuClass", str)
Layout = tuple[tuple[str, int], ...]
"""Instances of one GPU as (profile, start in placement units), by ascending start."""

_MIG_PREFIX: Final = "nvidia.com/mig-"
_WHOLE_RESOURCE: Final = "nvidia.com/gpu"
_LONGEST_LABEL: Final = 63  # characters of a Kubernetes label value

_CLASS = re.compile(r"[a-z0-9][a-z0-9.-]*")
_SHARED = re.compile(r"shared-([1-9][0-9]{0,5})")
_MIG_RESOURCE = re.compile(
    re.escape(_MIG_PREFIX) + r"(\d+g\.\d+gb)(-me|\.me\.all|\.me|\.gfx)?"
)
_SUFFIX = re.compile(PRODUCT_SUFFIX)

# GPUs that MIG cannot cut: class -> (value weight in thousandths, product labels).
# A weight of 0 is taken from the suggested ones in the generated table. The others
# are scaled by hand from measured training ratios of sibling parts: overrule them in
# the configuration where borrowing across classes matters.
_WHOLE_ONLY: Final[dict[str, tuple[int, tuple[str, ...]]]] = {
    "a2-16gb": (100, ("NVIDIA-A2",)),
    "a10-24gb": (0, ("NVIDIA-A10",)),
    "a10g-24gb": (0, ("NVIDIA-A10G",)),
    "a16-16gb": (100, ("NVIDIA-A16",)),
    "a40-48gb": (500, ("NVIDIA-A40",)),
    "k80-12gb": (50, ("Tesla-K80",)),
    "l4-24gb": (0, ("NVIDIA-L4",)),
    "l40-48gb": (550, ("NVIDIA-L40",)),
    "l40s-48gb": (0, ("NVIDIA-L40S",)),
    "p4-8gb": (100, ("Tesla-P4",)),
    "p40-24gb": (150, ("Tesla-P40",)),
    "p100-12gb": (200, ("Tesla-P100-PCIE-12GB",)),
    "p100-16gb": (220, ("Tesla-P100-PCIE-16GB", "Tesla-P100-SXM2-16GB")),
    "rtx-3090-24gb": (450, ("NVIDIA-GeForce-RTX-3090",)),
    "rtx-4090-24gb": (700, ("NVIDIA-GeForce-RTX-4090",)),
    "rtx-6000-ada-48gb": (620, ("NVIDIA-RTX-6000-Ada-Generation",)),
    "rtx-a4000-16gb": (250, ("NVIDIA-RTX-A4000",)),
    "rtx-a5000-24gb": (400, ("NVIDIA-RTX-A5000",)),
    "rtx-a6000-48gb": (500, ("NVIDIA-RTX-A6000",)),
    "t4-16gb": (0, ("Tesla-T4", "NVIDIA-T4")),
    "v100-16gb": (
        0,
        ("Tesla-V100-SXM2-16GB", "Tesla-V100-PCIE-16GB", "Tesla-V100-FHHL-16GB"),
    ),
    "v100-32gb": (
        0,
        (
            "Tesla-V100-SXM2-32GB",
            "Tesla-V100-SXM2-32GB-LS",
            "Tesla-V100-SXM3-32GB",
            "Tesla-V100-PCIE-32GB",
            "Tesla-V100S-PCIE-32GB",
        ),
    ),
}

_CLASS_OF_PRODUCT: Final[dict[str, str]] = PRODUCTS | {
    label: name for name, (_, labels) in _WHOLE_ONLY.items() for label in labels
}
_WEIGHTS: Final[dict[str, int]] = VALUE_WEIGHTS | {
    name: weight for name, (weight, _) in _WHOLE_ONLY.items() if weight
}


class _Parts(NamedTuple):
    """A form taken apart; at most one of profile and replicas is set."""

    gpu_class: GpuClass
    profile: str | None
    replicas: int | None
    quanta: int


def parse_form(text: str) -> Form:
    """Read a form as people and manifests write it.

    Raises
    ------
    ValueError
        Naming the text and what is wrong with it: a class that is no lower-case name, a
        profile the class does not have, replicas that do not divide a GPU exactly.
    """
    _parts(text)
    return Form(text)


def class_of(form: Form) -> GpuClass:
    """Give the GPU class a form is cut from."""
    return _parts(form).gpu_class


def profile_of(form: Form) -> str | None:
    """Give the MIG profile of a form, ``1g.10gb+me`` say; None if it is no slice."""
    return _parts(form).profile


def replicas_of(form: Form) -> int | None:
    """Give how many replicas share one GPU of this form; None if it is not shared."""
    return _parts(form).replicas


def charge(form: Form) -> int:
    """Give what one device of a form costs, in quanta.

    A whole GPU costs all of them, a MIG instance its placement units over the GPU's
    units, a replica its even part. All divide exactly.
    """
    return _parts(form).quanta


def value_weight(gpu_class: GpuClass) -> int:
    """Give the relative worth of a class in thousandths; ``a100-80gb`` is 1000.

    It compares borrowed use across classes and is no price. A class without a
    suggestion counts as 1000.
    """
    return _WEIGHTS.get(gpu_class, DEFAULT_VALUE_WEIGHT)


def known_classes() -> tuple[GpuClass, ...]:
    """List the classes of the built-in tables, by name."""
    return tuple(GpuClass(name) for name in sorted(CLASSES.keys() | _WHOLE_ONLY))


def known_products() -> tuple[str, ...]:
    """List the product labels of the built-in tables, by name."""
    return tuple(sorted(_CLASS_OF_PRODUCT))


def class_of_product(label: str) -> GpuClass | None:
    """Find the class behind the node label ``nvidia.com/gpu.product``.

    What sharing and the single MIG strategy append is ignored, also where the label was
    cut off at its longest. None if no table knows the product.
    """
    known = _CLASS_OF_PRODUCT.get(_SUFFIX.sub("", label, count=1))
    if known is None and len(label) >= _LONGEST_LABEL:
        cut = [name for name in _CLASS_OF_PRODUCT if label.startswith(f"{name}-")]
        known = _CLASS_OF_PRODUCT[max(cut, key=len)] if cut else None
    return None if known is None else GpuClass(known)


def profile_of_resource(resource: str) -> str | None:
    """Turn a device plugin's resource name into the profile it counts.

    ``nvidia.com/mig-1g.10gb.me`` is ``1g.10gb+me``: the plugin writes "+" as "." and
    leaves "-me" alone. None if the name counts no plain MIG device; a shared one
    (``.shared``) is not the isolated instance its profile promises.
    """
    match = _MIG_RESOURCE.fullmatch(resource)
    if match is None:
        return None
    size, attribute = match[1], match[2] or ""
    return size + (f"+{attribute[1:]}" if attribute.startswith(".") else attribute)


def resource_of(form: Form) -> str:
    """Name the extended resource that counts devices of a form.

    The inverse of `profile_of_resource` for slices. Whole and shared GPUs both count as
    ``nvidia.com/gpu``: which of them a node has is said by its labels.
    """
    profile = profile_of(form)
    if profile is None:
        return _WHOLE_RESOURCE
    return _MIG_PREFIX + profile.replace("+", ".")


def profiles(gpu_class: GpuClass) -> tuple[str, ...]:
    """List the profiles of a class under their usual names; empty if it has none."""
    return tuple(CLASSES[gpu_class][1]) if gpu_class in CLASSES else ()


def is_verified(gpu_class: GpuClass) -> bool:
    """Tell whether positions of this class were seen on hardware, not inferred."""
    return gpu_class in CLASSES and GEOMETRIES[CLASSES[gpu_class][0]][1]


def layouts(product: str) -> Iterator[Layout]:
    """Enumerate every legal layout of one GPU, the empty one first.

    Parameters
    ----------
    product
        A product label or a GPU class. One that cannot be cut has no layouts.

    Notes
    -----
    Legal is: units do not overlap, no kind occurs more often than it may, of an
    exclusive group there is at most one, media engines suffice. That the compute slices
    suffice follows from the units.
    """
    name = product if product in CLASSES else class_of_product(product)
    if name is None or name not in CLASSES:
        return
    family, kinds, _ = CLASSES[name]
    named = {kind: profile for profile, kind in kinds.items()}
    for layout in _family_layouts(family):
        if all(kind in named for kind, _ in layout):
            yield tuple((named[kind], start) for kind, start in layout)


def is_legal(gpu_class: GpuClass, counts: Mapping[str, int]) -> bool:
    """Tell whether one GPU of a class can be cut into so many of each profile."""
    if gpu_class not in CLASSES:
        return not any(counts.values())
    known = profiles(gpu_class)
    wanted: Counter[str] = Counter()
    for profile, count in counts.items():
        wanted[_usual_name(gpu_class, profile)] += count
    counted = tuple(wanted[profile] for profile in known)
    return wanted.keys() <= set(known) and counted in _multisets(gpu_class)


def stranded(gpu_class: GpuClass, counts: Mapping[str, int]) -> int:
    """Give the quanta of one GPU that belong to no instance of its layout.

    Seven ``1g`` leave one unit of eight. Nobody can ask for what is left until the GPU
    is cut again, so it is the fleet's and never a tenant's.

    Raises
    ------
    ValueError
        If the class cannot be cut into these counts.
    """
    if not is_legal(gpu_class, counts):
        told = ", ".join(f"{n} x {name}" for name, n in sorted(counts.items()))
        raise ValueError(f"{gpu_class} cannot be cut into {told}")
    used = sum(
        charge(Form(f"{gpu_class}/{profile}")) * count
        for profile, count in counts.items()
    )
    return QUANTA_PER_GPU - used


@lru_cache(maxsize=4096)
def _parts(text: str) -> _Parts:
    name, slash, rest = text.partition("/")
    if not _CLASS.fullmatch(name):
        raise ValueError(
            f"{text!r}: {name!r} is no GPU class (lower case, a-z 0-9 . -)"
        )
    gpu_class = GpuClass(name)
    if not slash:
        return _Parts(gpu_class, None, None, QUANTA_PER_GPU)
    if rest.startswith("shared-"):
        replicas = _replicas(text, rest)
        return _Parts(gpu_class, None, replicas, QUANTA_PER_GPU // replicas)
    if name not in CLASSES:
        raise ValueError(f"{text!r}: {name} has no MIG profiles")
    family, kinds, _ = CLASSES[name]
    profile = _usual_name(gpu_class, rest)
    if profile not in kinds:
        known = ", ".join(kinds)
        raise ValueError(f"{text!r}: {name} has no profile {rest!r}, but {known}")
    units, _, _, table = GEOMETRIES[family]
    quanta, lost = divmod(QUANTA_PER_GPU * table[kinds[profile]][0], units)
    if lost:
        raise ValueError(f"{text!r}: 1/{units} of a GPU is no whole number of quanta")
    return _Parts(gpu_class, rest, None, quanta)


def _replicas(text: str, rest: str) -> int:
    match = _SHARED.fullmatch(rest)
    if match is None:
        raise ValueError(f"{text!r}: {rest!r} is no number of replicas (shared-4)")
    replicas = int(match[1])
    if replicas == 1:
        raise ValueError(f"{text!r}: one replica is the whole GPU; leave it away")
    if QUANTA_PER_GPU % replicas:
        raise ValueError(f"{text!r}: {replicas} replicas do not divide a GPU exactly")
    return replicas


def _usual_name(gpu_class: GpuClass, profile: str) -> str:
    """Resolve the other name that some drivers give a profile."""
    return CLASSES[gpu_class][2].get(profile, profile)


@cache
def _family_layouts(family: str) -> tuple[Layout, ...]:
    """Enumerate the layouts of a geometry family over its kinds."""
    units, _, _, kinds = GEOMETRIES[family]

    def extend(chosen: Layout, free: int) -> Iterator[Layout]:
        yield chosen
        for start in range(free, units):
            for kind, (size, starts, *_) in kinds.items():
                if start in starts and _may_join(family, kind, chosen):
                    yield from extend((*chosen, (kind, start)), start + size)

    return tuple(extend((), 0))


def _may_join(family: str, kind: str, chosen: Layout) -> bool:
    """Check all of legality but the units, which the enumeration never overlaps."""
    _, _, budget, kinds = GEOMETRIES[family]
    _, _, most, group, engines = kinds[kind]
    there = [kinds[other] for other, _ in chosen]
    return (
        sum(other == kind for other, _ in chosen) < most
        and not any(group and group == other[3] for other in there)
        and all(
            engines.get(engine, 0) + sum(other[4].get(engine, 0) for other in there)
            <= available
            for engine, available in budget.items()
        )
    )


@cache
def _multisets(gpu_class: GpuClass) -> frozenset[tuple[int, ...]]:
    """Collect the counts, in the order of `profiles`, that some layout has."""
    known = profiles(gpu_class)
    found = set()
    for layout in layouts(gpu_class):
        counts = Counter(profile for profile, _ in layout)
        found.add(tuple(counts[profile] for profile in known))
    return frozenset(found)
