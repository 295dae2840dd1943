"""A GPU is never sold twice, and every name of a piece of one is understood."""

import re
from collections import Counter
from fractions import Fraction
from pathlib import Path

import pytest
import yaml

from scheduler.core import gpu_tables
from scheduler.core.gpu import (
    QUANTA_PER_GPU,
    Form,
    GpuClass,
    charge,
    class_of,
    class_of_product,
    is_legal,
    is_verified,
    known_classes,
    known_products,
    layouts,
    parse_form,
    profile_of,
    profile_of_resource,
    profiles,
    replicas_of,
    resource_of,
    stranded,
    value_weight,
)

FACTS = Path(__file__).parents[3] / "shared" / "facts" / "mig_profiles.yaml"

H100 = GpuClass("h100-80gb")
A30 = GpuClass("a30-24gb")
RTX_PRO_6000 = GpuClass("rtx-pro-6000-96gb")
RTX_PRO_5000 = GpuClass("rtx-pro-5000-48gb")
CUTTABLE = [name for name in known_classes() if profiles(name)]


def kinds_of(gpu_class: GpuClass) -> dict[str, str]:
    return gpu_tables.CLASSES[gpu_class][1]


def multisets(gpu_class: GpuClass, kinds: set[str]) -> set[frozenset[tuple[str, int]]]:
    """Distinct layouts over some kinds, positions forgotten."""
    return {
        frozenset(Counter(kind for kind, _ in layout).items())
        for layout in kind_layouts(gpu_class, kinds)
    }


def kind_layouts(
    gpu_class: GpuClass, kinds: set[str]
) -> list[tuple[tuple[str, int], ...]]:
    named = kinds_of(gpu_class)
    found = (
        tuple((named[profile], start) for profile, start in layout)
        for layout in layouts(gpu_class)
    )
    return [layout for layout in found if {kind for kind, _ in layout} <= kinds]


# What no layout may do


@pytest.mark.parametrize("product", sorted(gpu_tables.PRODUCTS))
def test_no_legal_layout_of_any_product_costs_more_than_one_gpu(product: str) -> None:
    """Every layout of every product is enumerated; there is no sample to get lucky."""
    gpu_class = class_of_product(product)
    price = {name: charge(Form(f"{gpu_class}/{name}")) for name in profiles(gpu_class)}
    costs = [sum(price[name] for name, _ in layout) for layout in layouts(product)]

    assert max(costs) == QUANTA_PER_GPU
    assert min(costs) == 0


@pytest.mark.parametrize("gpu_class", CUTTABLE)
def test_instances_of_a_layout_never_share_a_unit(gpu_class: GpuClass) -> None:
    units, _, _, kinds = gpu_tables.GEOMETRIES[gpu_tables.CLASSES[gpu_class][0]]
    size = {name: kinds[kind][0] for name, kind in kinds_of(gpu_class).items()}
    for layout in layouts(gpu_class):
        taken = [start + unit for name, start in layout for unit in range(size[name])]
        assert len(taken) == len(set(taken))
        assert all(0 <= unit < units for unit in taken)


@pytest.mark.parametrize("gpu_class", CUTTABLE)
def test_layouts_are_enumerated_once_each(gpu_class: GpuClass) -> None:
    found = [frozenset(layout) for layout in layouts(gpu_class)]
    assert found[0] == frozenset()
    assert len(found) == len(set(found))


@pytest.mark.parametrize(
    ("gpu_class", "profile", "most"),
    [
        (H100, "1g.10gb", 7),
        (H100, "1g.10gb+me", 1),
        (H100, "1g.20gb", 4),
        (H100, "2g.20gb", 3),  # units 6 and 7 are no place for a 2g
        (A30, "2g.12gb", 2),
        (RTX_PRO_6000, "1g.24gb+me.all", 1),
    ],
)
def test_a_profile_occurs_at_most_so_often(
    gpu_class: GpuClass, profile: str, most: int
) -> None:
    counts = (Counter(name for name, _ in layout) for layout in layouts(gpu_class))
    assert max(count[profile] for count in counts) == most


@pytest.mark.parametrize(
    ("gpu_class", "counts", "legal"),
    [
        (H100, {"3g.40gb": 1, "4g.40gb": 1}, True),
        (H100, {"4g.40gb": 2}, False),  # a 4g starts at 0 only
        (H100, {"1g.10gb": 6, "1g.10gb+me": 1}, True),
        (A30, {"1g.6gb+me": 1, "2g.12gb+me": 1}, False),  # one media engine
        (RTX_PRO_6000, {"1g.24gb+me.all": 1, "1g.24gb-me": 3}, True),
        (RTX_PRO_6000, {"1g.24gb+me.all": 1, "1g.24gb": 1}, False),  # media budget
        (RTX_PRO_6000, {"1g.24gb+me": 1, "1g.24gb": 3}, True),
        (RTX_PRO_6000, {"1g.24gb+me": 2}, False),
        (H100, {"1g.5gb": 1}, False),
        (H100, {"1g.10gb": -1}, False),
        (H100, {}, True),
        (GpuClass("a100-80gb"), {"7g.79gb": 1}, True),  # other name of 7g.80gb
        (GpuClass("a100-80gb"), {"7g.79gb": 1, "7g.80gb": 1}, False),
        (GpuClass("t4-16gb"), {}, True),
        (GpuClass("t4-16gb"), {"1g.5gb": 1}, False),
    ],
)
def test_legal_counts(gpu_class: GpuClass, counts: dict[str, int], legal: bool) -> None:
    assert is_legal(gpu_class, counts) is legal


# How many layouts there are

COUNTS = [
    # class, base kinds only?, placement sets, multisets
    (H100, "1g 1g2m 2g 3g 4g 7g", 723, 78),
    (H100, "1g 2g 3g 4g 7g", 298, 38),
    (H100, "1g 1g+me 1g2m 2g 3g 4g 7g", 2319, 128),
    (A30, "1g 2g 4g", 26, 10),
    (A30, "1g 1g+me 2g 2g+me 4g", 76, 20),
    (RTX_PRO_6000, "1g 2g 4g", 26, 10),
    (RTX_PRO_6000, " ".join(kinds_of(RTX_PRO_6000).values()), 717, 115),
    (RTX_PRO_5000, "1g 2g", 5, 4),
    (RTX_PRO_5000, " ".join(kinds_of(RTX_PRO_5000).values()), 34, 20),
]


@pytest.mark.parametrize(("gpu_class", "kinds", "sets", "distinct"), COUNTS)
def test_layout_counts(
    gpu_class: GpuClass, kinds: str, sets: int, distinct: int
) -> None:
    """Numbers of an independent enumeration, written out so that they always bite."""
    chosen = set(kinds.split())
    assert len(kind_layouts(gpu_class, chosen)) == sets
    assert len(multisets(gpu_class, chosen)) == distinct


@pytest.fixture(scope="module")
def facts() -> dict[str, dict]:
    if not FACTS.exists():
        pytest.skip("the collected facts are not beside this checkout")
    return yaml.safe_load(FACTS.read_text(encoding="utf-8"))


@pytest.mark.parametrize("gpu_class", [H100, A30, RTX_PRO_6000, RTX_PRO_5000])
def test_layout_counts_are_those_of_the_facts(
    gpu_class: GpuClass, facts: dict[str, dict]
) -> None:
    computed = facts["geometry_families"][gpu_tables.CLASSES[gpu_class][0]]["computed"]
    base = set(computed["base_kinds"])
    every = set(kinds_of(gpu_class).values())
    sets = [frozenset(layout) for layout in kind_layouts(gpu_class, base)]
    distinct = multisets(gpu_class, base)
    maximal = {one for one in distinct if not any(beyond(one, two) for two in distinct)}

    assert len(sets) == computed["feasible_placement_sets"]
    assert len(distinct) == computed["feasible_multisets"]
    assert (
        sum(not any(one < two for two in sets) for one in sets)
        == computed["placement_maximal_sets"]
    )
    assert maximal == {frozenset(one.items()) for one in computed["maximal_multisets"]}
    if "feasible_placement_sets_all_kinds" in computed:
        assert (
            len(kind_layouts(gpu_class, every))
            == computed["feasible_placement_sets_all_kinds"]
        )
        assert (
            len(multisets(gpu_class, every)) == computed["feasible_multisets_all_kinds"]
        )


def beyond(one: frozenset[tuple[str, int]], two: frozenset[tuple[str, int]]) -> bool:
    """Whether the second multiset holds all of the first and more."""
    return one != two and Counter(dict(one)) <= Counter(dict(two))


# What a device costs


@pytest.mark.parametrize(
    ("form", "part"),
    [
        ("h100-80gb", Fraction(1)),
        ("h100-80gb/1g.10gb", Fraction(1, 8)),
        ("h100-80gb/1g.10gb+me", Fraction(1, 8)),
        ("h100-80gb/1g.20gb", Fraction(1, 4)),  # double memory
        ("h100-80gb/2g.20gb", Fraction(1, 4)),
        ("h100-80gb/3g.40gb", Fraction(1, 2)),
        ("h100-80gb/4g.40gb", Fraction(1, 2)),
        ("h100-80gb/7g.80gb", Fraction(1)),
        ("a100-40gb/1g.10gb", Fraction(1, 4)),  # what is plain on 80 GB is double here
        ("a30-24gb/1g.6gb", Fraction(1, 4)),
        ("rtx-pro-6000-96gb/1g.24gb-me", Fraction(1, 4)),
        ("rtx-pro-6000-96gb/2g.48gb+me.all", Fraction(1, 2)),
        ("a10-24gb/shared-4", Fraction(1, 4)),
        ("a10-24gb/shared-7", Fraction(1, 7)),
        ("gb200-186gb/7g.189gb", Fraction(1)),  # name with older drivers
        ("g2", Fraction(1)),  # a class of some trace
        ("gpu/shared-1000", Fraction(1, 1000)),
    ],
)
def test_charge(form: str, part: Fraction) -> None:
    assert Fraction(charge(parse_form(form)), QUANTA_PER_GPU) == part


@pytest.mark.parametrize("gpu_class", CUTTABLE)
def test_every_charge_divides_exactly(gpu_class: GpuClass) -> None:
    units, _, _, kinds = gpu_tables.GEOMETRIES[gpu_tables.CLASSES[gpu_class][0]]
    for profile, kind in kinds_of(gpu_class).items():
        assert charge(Form(f"{gpu_class}/{profile}")) * units == (
            QUANTA_PER_GPU * kinds[kind][0]
        )


@pytest.mark.parametrize(
    ("counts", "part"),
    [
        ({"1g.10gb": 7}, Fraction(1, 8)),
        ({"3g.40gb": 2}, Fraction(0)),
        ({"4g.40gb": 1, "2g.20gb": 1, "1g.10gb": 1}, Fraction(1, 8)),
        ({}, Fraction(1)),
    ],
)
def test_stranded(counts: dict[str, int], part: Fraction) -> None:
    assert Fraction(stranded(H100, counts), QUANTA_PER_GPU) == part


def test_what_cannot_be_cut_strands_nothing_but_an_error() -> None:
    with pytest.raises(ValueError, match=r"h100-80gb cannot be cut into 8 x 1g\.10gb"):
        stranded(H100, {"1g.10gb": 8})


# What things are called


@pytest.mark.parametrize(
    ("text", "gpu_class", "profile", "replicas"),
    [
        ("h100-80gb", "h100-80gb", None, None),
        ("h100-80gb/1g.10gb+me", "h100-80gb", "1g.10gb+me", None),
        ("a10-24gb/shared-4", "a10-24gb", None, 4),
        ("v100m16", "v100m16", None, None),
        ("a100-80gb/7g.79gb", "a100-80gb", "7g.79gb", None),
    ],
)
def test_parts_of_a_form(
    text: str, gpu_class: str, profile: str | None, replicas: int | None
) -> None:
    form = parse_form(text)
    assert form == text
    assert class_of(form) == gpu_class
    assert profile_of(form) == profile
    assert replicas_of(form) == replicas


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("", "'' is no GPU class"),
        ("H100-80GB", "'H100-80GB' is no GPU class"),
        ("h100 80gb", "'h100 80gb' is no GPU class"),
        ("-h100", "'-h100' is no GPU class"),
        ("h100-80gb/1g.5gb", "h100-80gb has no profile '1g.5gb', but 1g.10gb, "),
        ("h100-80gb/", "h100-80gb has no profile ''"),
        ("h100-80gb/1g.10gb/2", "h100-80gb has no profile '1g.10gb/2'"),
        ("g2/1g.5gb", "g2 has no MIG profiles"),
        ("t4-16gb/1g.5gb", "t4-16gb has no MIG profiles"),
        ("a10-24gb/shared-11", "11 replicas do not divide a GPU exactly"),
        ("a10-24gb/shared-0", "'shared-0' is no number of replicas"),
        ("a10-24gb/shared-04", "'shared-04' is no number of replicas"),
        ("a10-24gb/shared-x", "'shared-x' is no number of replicas"),
        ("a10-24gb/shared-1", "one replica is the whole GPU"),
        pytest.param(
            "a10-24gb/shared-" + "9" * 5000, "is no number of replicas", id="huge"
        ),
    ],
)
def test_a_form_that_is_none_says_why(text: str, complaint: str) -> None:
    with pytest.raises(ValueError, match=re.escape(complaint)) as told:
        parse_form(text)
    assert str(told.value).startswith(f"{text!r}: ")


@pytest.mark.parametrize(
    ("resource", "profile"),
    [
        ("nvidia.com/mig-1g.10gb", "1g.10gb"),
        ("nvidia.com/mig-1g.10gb.me", "1g.10gb+me"),
        ("nvidia.com/mig-1g.24gb.gfx", "1g.24gb+gfx"),
        ("nvidia.com/mig-1g.24gb.me.all", "1g.24gb+me.all"),
        ("nvidia.com/mig-1g.24gb-me", "1g.24gb-me"),  # the minus stays
        ("nvidia.com/mig-7g.141gb", "7g.141gb"),
        ("nvidia.com/mig-1g.10gb.shared", None),
        ("nvidia.com/mig-1g.10gb.me.shared", None),
        ("nvidia.com/mig-1g", None),
        ("nvidia.com/mig-", None),
        ("nvidia.com/gpu", None),
        ("amd.com/gpu", None),
    ],
)
def test_profile_of_a_resource_name(resource: str, profile: str | None) -> None:
    assert profile_of_resource(resource) == profile


@pytest.mark.parametrize("gpu_class", CUTTABLE)
def test_resource_and_profile_names_are_inverse(gpu_class: GpuClass) -> None:
    names = {*profiles(gpu_class), *gpu_tables.CLASSES[gpu_class][2]}
    for profile in names:
        resource = resource_of(parse_form(f"{gpu_class}/{profile}"))
        assert profile_of_resource(resource) == profile
    assert len({name.replace("+", ".") for name in names}) == len(names)


@pytest.mark.parametrize("text", ["h100-80gb", "a10-24gb/shared-4", "g2"])
def test_whole_and_shared_gpus_count_as_gpus(text: str) -> None:
    assert resource_of(parse_form(text)) == "nvidia.com/gpu"


def test_resource_names_are_those_of_the_facts(facts: dict[str, dict]) -> None:
    for label, product in facts["products"].items():
        for name, profile in product["profiles"].items():
            form = parse_form(f"{class_of_product(label)}/{name}")
            assert resource_of(form) == profile["resource"]


@pytest.mark.parametrize(
    ("label", "gpu_class"),
    [
        ("NVIDIA-H100-80GB-HBM3", "h100-80gb"),
        ("NVIDIA-H100-PCIe", "h100-80gb"),
        ("NVIDIA-H100-NVL", "h100-94gb"),
        ("NVIDIA-GH200-480GB", "gh200-96gb"),  # the label tells the CPU's memory
        ("NVIDIA-H200-NVL", "h200-141gb"),
        ("NVIDIA-H100-80GB-HBM3-SHARED", "h100-80gb"),
        ("NVIDIA-A100-SXM4-40GB-MIG-1g.5gb", "a100-40gb"),
        ("NVIDIA-A100-SXM4-40GB-MIG-1g.5gb.me-SHARED", "a100-40gb"),
        ("NVIDIA-A100-SXM4-80GB-MIG-INVALID", "a100-80gb"),
        (
            "NVIDIA-RTX-PRO-6000-Blackwell-Max-Q-Workstation-Edition-MIG-1g.",
            "rtx-pro-6000-96gb",  # cut at 63 characters
        ),
        ("Tesla-V100-SXM2-16GB", "v100-16gb"),
        ("Tesla-V100-SXM2-32GB", "v100-32gb"),
        ("Tesla-T4", "t4-16gb"),
        ("Tesla-T4-SHARED", "t4-16gb"),
        ("NVIDIA-A10", "a10-24gb"),
        ("NVIDIA-A10G", "a10g-24gb"),
        ("NVIDIA-L4", "l4-24gb"),
        ("NVIDIA-L40", "l40-48gb"),
        ("NVIDIA-L40S", "l40s-48gb"),
        ("NVIDIA-A40", "a40-48gb"),
        ("NVIDIA-A16", "a16-16gb"),
        ("NVIDIA-RTX-A6000", "rtx-a6000-48gb"),
        ("Tesla-P100-PCIE-16GB", "p100-16gb"),
        ("NVIDIA-H100", None),
        ("NVIDIA-H100-80GB-HBM3-FANCY", None),
        ("", None),
    ],
)
def test_class_of_a_product_label(label: str, gpu_class: str | None) -> None:
    assert class_of_product(label) == gpu_class


def test_every_known_product_is_of_a_known_class() -> None:
    found = {class_of_product(label) for label in known_products()}
    assert found == set(known_classes())
    assert all(parse_form(name) for name in known_classes())


def test_inferred_positions_are_marked() -> None:
    unsure = {name for name in CUTTABLE if not is_verified(name)}
    assert unsure == {"rtx-pro-4500-32gb", "rtx-pro-5000-48gb"}
    assert not is_verified(GpuClass("t4-16gb"))


def test_what_cannot_be_cut_has_no_layouts() -> None:
    assert not list(layouts("Tesla-T4"))
    assert not list(layouts("g2"))


@pytest.mark.parametrize(
    ("gpu_class", "weight"),
    [
        ("a100-80gb", 1000),
        ("h100-80gb", 1750),
        ("t4-16gb", 150),
        ("v100-32gb", 350),
        ("rtx-a6000-48gb", 500),
        ("g2", 1000),
    ],
)
def test_value_weight(gpu_class: str, weight: int) -> None:
    assert value_weight(GpuClass(gpu_class)) == weight


def test_every_whole_only_class_has_a_weight() -> None:
    """A small GPU without a weight would count like an A100."""
    heavy = {name for name in known_classes() if value_weight(name) >= 1000}
    assert not {name for name in heavy if not profiles(name)}
