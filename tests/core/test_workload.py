"""What is asked: forms in order of preference, charges, and what is refused."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from scheduler.core.gpu import QUANTA_PER_GPU, Form, charge, class_of, value_weight
from scheduler.core.workload import Demand, Pod, WorkloadClass, workload_class
from tests import builders
from tests.strategies import SOME

OFFERED = [
    Form("h100-80gb"),
    Form("h100-80gb/1g.10gb"),
    Form("a100-80gb"),
    Form("a100-80gb/1g.10gb"),
    Form("a10-24gb"),
    Form("a10-24gb/shared-4"),
    Form("v100-16gb"),
]


# -- forms --------------------------------------------------------------------


@pytest.mark.parametrize(
    ("demand", "forms"),
    [
        (Demand(count=1, classes=("h100-80gb",)), ("h100-80gb",)),
        (  # the order is the owner's
            Demand(count=1, classes=("h100-80gb", "a10-24gb", "a100-80gb")),
            ("h100-80gb", "a10-24gb", "a100-80gb"),
        ),
        (  # what nobody offers is left out
            Demand(count=1, classes=("b200-180gb", "a10-24gb")),
            ("a10-24gb",),
        ),
        (Demand(count=1, classes=("b200-180gb",)), ()),
        (  # any class: the least valuable first
            Demand(count=1),
            ("a10-24gb", "v100-16gb", "a100-80gb", "h100-80gb"),
        ),
        (  # any class that serves the profile
            Demand(count=1, profile="1g.10gb"),
            ("a100-80gb/1g.10gb", "h100-80gb/1g.10gb"),
        ),
        (
            Demand(count=2, classes=("h100-80gb",), profile="1g.10gb"),
            ("h100-80gb/1g.10gb",),
        ),
        (  # a shared class serves only who lists it
            Demand(count=1, classes=("a10-24gb/shared-4",)),
            ("a10-24gb/shared-4",),
        ),
        (  # a class with its profile is a form already
            Demand(count=1, classes=("h100-80gb/1g.10gb",)),
            ("h100-80gb/1g.10gb",),
        ),
        (  # also beside the same profile
            Demand(count=1, classes=("h100-80gb/1g.10gb",), profile="1g.10gb"),
            ("h100-80gb/1g.10gb",),
        ),
    ],
)
def test_demand_accepts_forms_in_order(demand: Demand, forms: tuple[str, ...]) -> None:
    """A request becomes an ordered list of forms: one row per rule of that."""
    assert demand.forms(OFFERED) == forms


@SOME
@given(st.permutations(OFFERED), st.sampled_from(["", "1g.10gb"]))
def test_forms_do_not_depend_on_how_they_are_offered(
    offered: list[Form], profile: str
) -> None:
    """DETERMINISTIC: nodes join in any order, a set has none."""
    demand = Demand(count=1, profile=profile)
    assert demand.forms(offered) == demand.forms(set(OFFERED))
    worth = [value_weight(class_of(form)) for form in demand.forms(offered)]
    assert worth == sorted(worth)


# -- charges ------------------------------------------------------------------


@pytest.mark.parametrize(
    ("demand", "form", "quanta"),
    [
        (Demand(count=3), "h100-80gb", 3 * QUANTA_PER_GPU),
        (Demand(count=1, fraction=QUANTA_PER_GPU // 3), "h100-80gb", 42_000),
        (Demand(count=7, profile="1g.10gb"), "h100-80gb/1g.10gb", 7 * 15_750),
        (
            Demand(count=2, classes=("a10-24gb/shared-4",)),
            "a10-24gb/shared-4",
            QUANTA_PER_GPU // 2,
        ),
    ],
)
def test_demand_is_charged_what_it_takes(
    demand: Demand, form: str, quanta: int
) -> None:
    """Devices times the price of the form; a fraction its own part of one GPU."""
    assert demand.charge(Form(form)) == quanta
    if not demand.is_fraction:
        assert quanta == demand.count * charge(Form(form))


def test_whole_gpu_is_no_fraction() -> None:
    """The largest fraction is a whole GPU and is placed as one."""
    assert not Demand(count=1, fraction=QUANTA_PER_GPU).is_fraction
    assert Demand(count=1, fraction=QUANTA_PER_GPU - 1).is_fraction


# -- what is refused ----------------------------------------------------------


@pytest.mark.parametrize(
    ("fields", "text"),
    [
        ({"count": 0}, "count must be at least 1, got 0"),
        ({"count": -3}, "count must be at least 1, got -3"),
        ({"count": 1, "fraction": 0}, "fraction must lie in 1..126000, got 0"),
        (
            {"count": 1, "fraction": QUANTA_PER_GPU + 1},
            "fraction must lie in 1..126000, got 126001",
        ),
        (
            {"count": 2, "fraction": 63_000},
            "a fraction of a GPU is asked for one whole GPU only",
        ),
        (
            {"count": 1, "fraction": 63_000, "profile": "1g.10gb"},
            "a fraction of a GPU is asked for one whole GPU only",
        ),
        (  # half of a replica would be placed as half of a GPU
            {"count": 1, "fraction": 63_000, "classes": ("a10-24gb/shared-4",)},
            "a fraction of a GPU is asked for one whole GPU only",
        ),
        (
            {"count": 1, "cpu_milli": -1},
            "cpu_milli and memory_mib must not be negative",
        ),
        (
            {"count": 1, "memory_mib": -1},
            "cpu_milli and memory_mib must not be negative",
        ),
    ],
)
def test_broken_demand_is_refused(fields: dict[str, object], text: str) -> None:
    """Validated once, at construction; afterwards the type is trusted."""
    with pytest.raises(ValueError) as refused:  # noqa: PT011 -- the text is compared
        Demand(**fields)  # type: ignore[arg-type]
    assert str(refused.value) == text


@pytest.mark.parametrize(
    ("gang", "least", "text"),
    [
        ("g", 0, "min_member must be at least 1, got 0"),
        ("", 2, "min_member above 1 needs the name of a gang"),
    ],
)
def test_gang_that_cannot_be_is_refused(gang: str, least: int, text: str) -> None:
    """A pod on its own never waits for others."""
    with pytest.raises(ValueError, match=text):
        builders.pod("p", "a", gang=gang, min_member=least)


# -- identity -----------------------------------------------------------------


def test_gang_belongs_to_its_tenant() -> None:
    """Two tenants may use one name; a pod alone is a gang of its own."""

    def identity(pod: Pod) -> str:
        return pod.gang_id

    ours = builders.pod("p1", "a", gang="train", min_member=2)
    theirs = builders.pod("p2", "b", gang="train", min_member=2)
    assert identity(ours) == "a/train"
    assert identity(theirs) == "b/train"
    assert identity(builders.pod("p3", "a")) == "p3"


# -- classes ------------------------------------------------------------------


def test_classes_stand_most_urgent_first() -> None:
    """Their numbers are sort keys all over the engine."""
    labels = [member.label for member in sorted(WorkloadClass)]
    assert labels == ["inference-critical", "inference", "training", "batch"]
    assert [member.is_inference for member in WorkloadClass] == [
        True,
        True,
        False,
        False,
    ]


@pytest.mark.parametrize("member", WorkloadClass)
def test_classes_are_named_as_users_write_them(member: WorkloadClass) -> None:
    """What is printed can be read back."""
    assert workload_class(member.label) is member


def test_unknown_class_names_the_known_ones() -> None:
    """The error is the documentation somebody reads first."""
    with pytest.raises(ValueError) as refused:  # noqa: PT011 -- the text is compared
        workload_class("Training")
    assert str(refused.value) == (
        "unknown workload class 'Training': "
        "one of inference-critical, inference, training, batch"
    )
