"""Tenants and the fleet as Kubernetes objects: what may be written, and what we answer.

The terms are those of the settings file (``schema``), so that file and object say the
same. Added are what only an object has: a selector of namespaces, rules in CEL that the
API server checks when the object is written, and the status that the service writes.
The manifests in ``deploy/crds`` are generated from these models by
``deploy/tools/generate_crds.py``; what a rule cannot say is judged by
``scheduler.tenancy``.

What is left out means what its description says. The API server fills in no defaults,
so an owner's object stays as it was written.
"""

from collections.abc import Mapping
from typing import Annotated, Any, Literal, TypeVar

from pydantic import ConfigDict, Field, StringConstraints, model_validator

from scheduler.config.reading import validated
from scheduler.config.schema import FleetConfig, Section, TenantTerms
from scheduler.config.values import MAX_FORMS, Amounts, ClassName

GROUP = "fairshare.dev"
VERSION = "v1alpha1"
FLEET_NAME = "default"
"""The one Fleet object that counts."""

MAX_CLASSES = 256
MAX_MESSAGE = 4096
MAX_NAMESPACES = 100

_S = TypeVar("_S", bound=Section)

_LABEL_PART = r"[A-Za-z0-9]([-A-Za-z0-9_.]{0,61}[A-Za-z0-9])?"
_LABEL_KEY = rf"^([a-z0-9]([-a-z0-9.]{{0,251}}[a-z0-9])?/)?{_LABEL_PART}$"

LabelKey = Annotated[
    str,
    StringConstraints(max_length=317, pattern=_LABEL_KEY),
    Field(description="a label key, as kubernetes.io/metadata.name"),
]
LabelValue = Annotated[
    str,
    StringConstraints(max_length=63, pattern=rf"^({_LABEL_PART})?$"),
    Field(description="a label value"),
]


def rule(says: str, message: str) -> dict[str, str]:
    """Return a rule that the API server checks; the message says what to do."""
    return {"rule": says, "message": message}


def _rules(*rules: Mapping[str, str]) -> dict[str, Any]:
    return {"x-kubernetes-validations": [*rules]}


# -- what owners write ----------------------------------------------------------


class Requirement(Section):
    """What one label must be."""

    key: LabelKey = Field(description="Key of the label.")
    operator: Literal["In", "NotIn", "Exists", "DoesNotExist"] = Field(
        description="How the label is held against the values."
    )
    values: Annotated[tuple[LabelValue, ...], Field(max_length=64)] = Field(
        default=(), description="With In and NotIn at least one, else none."
    )

    model_config = ConfigDict(
        json_schema_extra=_rules(
            rule(
                "(self.operator in ['In', 'NotIn']) == "
                "(has(self.values) && self.values.size() > 0)",
                "In and NotIn need values, Exists and DoesNotExist take none",
            )
        )
    )

    @model_validator(mode="after")
    def _values_fit(self) -> "Requirement":
        if (self.operator in ("In", "NotIn")) != bool(self.values):
            raise ValueError("In and NotIn need values, Exists and DoesNotExist none")
        return self

    def matches(self, labels: Mapping[str, str]) -> bool:
        """Whether labels are as this asks; NotIn is fulfilled by no label, too."""
        if self.operator in ("Exists", "DoesNotExist"):
            return (self.key in labels) == (self.operator == "Exists")
        return (labels.get(self.key) in self.values) == (self.operator == "In")


class Selector(Section):
    """Which namespaces, by their labels; everything that is said must hold.

    One namespace by its name: the label `kubernetes.io/metadata.name`, which each has.
    """

    match_labels: Annotated[dict[LabelKey, LabelValue], Field(max_length=16)] = Field(
        default={}, description="Labels and their values."
    )
    match_expressions: Annotated[tuple[Requirement, ...], Field(max_length=16)] = Field(
        default=(), description="Requirements on labels."
    )

    model_config = ConfigDict(
        json_schema_extra=_rules(
            rule(
                "(has(self.matchLabels) && self.matchLabels.size() > 0) || "
                "(has(self.matchExpressions) && self.matchExpressions.size() > 0)",
                "an empty selector is refused, as it could mean all or none: leave "
                "namespaces away for none; for all ask that "
                "kubernetes.io/metadata.name Exists",
            )
        )
    )

    @model_validator(mode="after")
    def _says_something(self) -> "Selector":
        if not self.match_labels and not self.match_expressions:
            raise ValueError("is empty: leave it away for no namespace")
        return self

    def matches(self, labels: Mapping[str, str]) -> bool:
        """Whether a namespace with these labels is meant."""
        return all(
            labels.get(key) == value for key, value in self.match_labels.items()
        ) and all(asked.matches(labels) for asked in self.match_expressions)


class TenantSpec(TenantTerms):
    """What a tenant is promised and may do. Amounts are devices per form."""

    namespaces: Selector | None = Field(
        default=None,
        description="Namespaces whose pods are charged to it; left out: none. Where "
        "two tenants select one namespace, it belongs to the older.",
    )

    model_config = ConfigDict(
        json_schema_extra=_rules(
            rule(
                "!has(self.limit) || !has(self.guarantee) || self.guarantee.all(form, "
                "!(form in self.limit) || self.guarantee[form] <= self.limit[form])",
                "a guarantee is above the limit of the same form: raise limit or lower "
                "guarantee",
            ),
            rule(
                "!has(self.weight) || self.weight > 0 || (has(self.guarantee) && "
                "self.guarantee.exists(form, self.guarantee[form] > 0))",
                "weight 0 without a guarantee could never hold anything: give a "
                "guarantee or a weight",
            ),
        )
    )


class FleetSpec(FleetConfig):
    """What holds for all tenants."""

    prices: Amounts = Field(
        default={},
        description="Price of one GPU per class and hour, for reports only.",
    )
    classes: Annotated[dict[LabelValue, ClassName], Field(max_length=MAX_FORMS)] = (
        Field(
            default={},
            description="GPU class of a product: value of the node label "
            "nvidia.com/gpu.product; overrules the built-in table.",
        )
    )

    model_config = ConfigDict(
        json_schema_extra=_rules(
            rule(
                "!has(self.groups) || self.groups.all(name, "
                "!(name in self.groups[name]))",
                "a group cannot be a member of itself: name GPU classes or other "
                "groups",
            ),
            rule(
                "!has(self.groups) || !has(self.classes) || self.classes.all(product, "
                "!(self.classes[product] in self.groups))",
                "a product belongs to a GPU class, not to a group: name the class",
            ),
        )
    )


TENANT_RULES = (
    rule(
        "self.metadata.name.size() <= 63",
        "a tenant's name has at most 63 characters: choose a shorter one",
    ),
    rule(
        "!has(self.spec.parent) || self.spec.parent != self.metadata.name",
        "a tenant cannot be its own parent: leave parent away for a root",
    ),
)
"""What an API server checks on whole Tenant objects."""

FLEET_RULES = (
    rule(
        f"self.metadata.name == '{FLEET_NAME}'",
        f"there is one fleet: name it {FLEET_NAME}",
    ),
)
"""What an API server checks on whole Fleet objects."""


# -- what the service answers -----------------------------------------------------

Gpus = Annotated[str, StringConstraints(max_length=32)]
"""An amount as people read it: ``8``, ``12.5``."""


class ConditionStatus(Section):
    """One thing that is so, or not.

    Ready sums up, Accepted says whether the newest spec is in force. The others are
    there while they are true: Unreachable (guarantees do not fit what is there), Orphan
    (the parent is gone), Inner (own pods run on though it has tenants below it),
    Contested (an older tenant selects the same namespace).
    """

    type: Annotated[str, StringConstraints(max_length=64)] = Field(
        description="What is said."
    )
    status: Literal["True", "False", "Unknown"] = Field(description="Whether it is so.")
    reason: Annotated[
        str, StringConstraints(max_length=64, pattern="^[A-Za-z]([A-Za-z0-9]*)$")
    ] = Field(description="Why, in one word.")
    message: Annotated[str, StringConstraints(max_length=MAX_MESSAGE)] = Field(
        description="Why, with the numbers."
    )
    last_transition_time: str = Field(
        description="When status changed last.",
        json_schema_extra={"format": "date-time"},
    )
    observed_generation: int = Field(ge=0, description="Generation this is about.")


class AcceptedStatus(Section):
    """The spec in force. The service takes it from here after a restart."""

    generation: int = Field(ge=0, description="Generation of the object that said so.")
    spec: dict[str, Any] = Field(description="What it said.")


class ClassStatus(Section):
    """One form, or class group, in devices of that form."""

    form: Annotated[str, StringConstraints(max_length=253)] = Field(
        description="GPU class, form of one, or class group."
    )
    guaranteed: Gpus = Field(
        description="What is kept of the promise on today's nodes."
    )
    promised: Gpus = Field(description="The guarantee as it is written.")
    used: Gpus = Field(description="Held by running pods, or on its way to them.")
    covered: Gpus = Field(description="What of the use the guarantee pays for.")
    burst: Gpus = Field(description="What of the use goes back when its owner asks.")
    pending: Gpus = Field(description="Asked for and not held.")
    share: Gpus = Field(description="What division grants now.")
    leaving: Gpus = Field(description="Held by pods that were told to go.")
    limit: Gpus | None = Field(
        default=None, description="Most it may hold; left out: nothing binds."
    )


class TotalsStatus(Section):
    """All forms together, in GPUs: a 1g.10gb slice of an H100 is 0.125."""

    guaranteed: Gpus = Field(description="What is kept of all guarantees.")
    used: Gpus = Field(description="Held by running pods, or on its way to them.")
    burst: Gpus = Field(description="What of the use goes back when its owner asks.")
    pending: Gpus = Field(description="Asked for and not held.")
    fair: Gpus = Field(
        description="What division grants the tenant now, guarantee and burst, given "
        "what everybody asks for. Above the use: more is due to it; below: burst it "
        "may have to give back."
    )


class FleetStatus(Section):
    """What the service made of the object."""

    observed_generation: int = Field(ge=0, description="Newest generation looked at.")
    conditions: Annotated[tuple[ConditionStatus, ...], Field(max_length=16)] = Field(
        description="What is so, or not.",
        json_schema_extra={
            "x-kubernetes-list-type": "map",
            "x-kubernetes-list-map-keys": ["type"],
        },
    )
    accepted: AcceptedStatus | None = Field(
        default=None, description="The spec in force; left out: none yet."
    )


class TenantStatus(FleetStatus):
    """What the service made of the object, and who holds what."""

    namespaces: Annotated[tuple[str, ...], Field(max_length=MAX_NAMESPACES)] = Field(
        default=(),
        description="Namespaces whose pods are charged to it, the first 100 by name.",
    )
    classes: Annotated[tuple[ClassStatus, ...], Field(max_length=MAX_CLASSES)] = Field(
        default=(),
        description="Per form that is promised, used or asked for.",
        json_schema_extra={
            "x-kubernetes-list-type": "map",
            "x-kubernetes-list-map-keys": ["form"],
        },
    )
    totals: TotalsStatus | None = Field(default=None, description="All forms together.")


def read_spec(model: type[_S], spec: object) -> _S:
    """Read an object's spec.

    Raises
    ------
    ConfigError
        When it means nothing; each line names a key under ``spec`` and its value.
    """
    return validated(model, spec, "spec")
