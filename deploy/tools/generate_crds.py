"""Write the manifests of the Tenant and Fleet kinds from the models that read them.

A manifest needs a *structural* schema: no references, one type per field. Everything
else is in the models: descriptions, bounds, and the rules that the API server checks.
What JSON schema says about keys of maps and decimals becomes such rules, too.

    python deploy/tools/generate_crds.py            rewrite deploy/crds
    python deploy/tools/generate_crds.py --check    only compare, for the gate
"""

import argparse
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from scheduler.config.objects import (
    FLEET_RULES,
    GROUP,
    TENANT_RULES,
    VERSION,
    FleetSpec,
    FleetStatus,
    TenantSpec,
    TenantStatus,
    rule,
)
from scheduler.config.schema import Section

ROOT = Path(__file__).resolve().parents[2]
CRDS = ROOT / "deploy" / "crds"

HEADER = """\
# GENERATED: do not edit. Written by deploy/tools/generate_crds.py from the models in
# scheduler/config/objects.py; `make test` compares.
"""

KEPT = frozenset(
    {
        *("type", "description", "enum", "format", "pattern", "maxLength"),
        *("items", "maxItems", "properties", "required"),
        *("additionalProperties", "maxProperties"),
        *("minimum", "exclusiveMinimum", "maximum"),
        "x-kubernetes-validations",
        "x-kubernetes-preserve-unknown-fields",
        "x-kubernetes-list-type",
        "x-kubernetes-list-map-keys",
    }
)
"""Keywords that mean the same in a manifest."""

DROPPED = frozenset({"title", "default"})

Schema = dict[str, Any]


@dataclass(frozen=True)
class Column:
    """One column of ``kubectl get``; a wide one is shown with ``-o wide`` only."""

    name: str
    path: str
    says: str = ""
    kind: str = "string"
    wide: bool = False


def ready(part: str) -> str:
    """Return the path of one part of the condition that sums up."""
    return f'.status.conditions[?(@.type=="Ready")].{part}'


READY = (
    Column("Ready", ready("status"), "Whether all is as its owner wrote it."),
    Column("Reason", ready("reason"), "What comes first of what is not."),
)
AGE = Column("Age", ".metadata.creationTimestamp", kind="date")


@dataclass(frozen=True)
class Kind:
    """One kind of object."""

    name: str
    plural: str
    short: Sequence[str]
    says: str
    spec: type[Section]
    status: type[Section]
    rules: Sequence[Mapping[str, str]]
    columns: Sequence[Column]


KINDS = (
    Kind(
        name="Tenant",
        plural="tenants",
        short=("ten",),
        says="A queue of the tenant tree; pods belong to those without children.",
        spec=TenantSpec,
        status=TenantStatus,
        rules=TENANT_RULES,
        columns=(
            Column("Parent", ".spec.parent", "Queue above it.", wide=True),
            Column("Guaranteed", ".status.totals.guaranteed"),
            Column("Used", ".status.totals.used"),
            Column("Burst", ".status.totals.burst"),
            Column("Pending", ".status.totals.pending"),
            Column("Fair", ".status.totals.fair"),
            *READY,
            AGE,
        ),
    ),
    Kind(
        name="Fleet",
        plural="fleets",
        short=(),
        says="What holds for all tenants; there is one, named default.",
        spec=FleetSpec,
        status=FleetStatus,
        rules=FLEET_RULES,
        columns=(*READY, AGE),
    ),
)


# -- schemas --------------------------------------------------------------------


def structural(model: type[Section]) -> Schema:
    """Return the model's schema as a manifest may have it."""
    schema = model.model_json_schema()
    return _plain(schema, schema.get("$defs", {}))


def _plain(node: Schema, defs: Mapping[str, Schema]) -> Schema:
    node = {key: value for key, value in node.items() if key != "$defs"}
    if "$ref" in node:
        node = {**defs[node.pop("$ref").rpartition("/")[2]], **node}
    if "anyOf" in node:
        node = {**_not_null(node.pop("anyOf")), **node}
        return _plain(node, defs)
    if "patternProperties" in node:
        node = _map(node)
    if "multipleOf" in node:
        node = _steps(node)
    found = {key: node[key] for key in node if key not in DROPPED}
    _mend(found, defs)
    if unknown := found.keys() - KEPT:
        raise ValueError(f"no keyword of a structural schema: {sorted(unknown)}")
    return found


def _not_null(choices: Sequence[Schema]) -> Schema:
    """Return the one choice there is besides leaving the field out."""
    (choice,) = [choice for choice in choices if choice != {"type": "null"}]
    return choice


def _map(node: Schema) -> Schema:
    """Say of a map's keys by a rule what JSON schema says by their pattern."""
    ((pattern, values),) = node["patternProperties"].items()
    keys = node["propertyNames"]
    says = (
        f"self.all(key, key.size() <= {keys['maxLength']} && key.matches(r'{pattern}'))"
    )
    dropped = ("patternProperties", "propertyNames")
    return {
        **{key: value for key, value in node.items() if key not in dropped},
        "additionalProperties": values,
        "x-kubernetes-validations": [
            rule(says, f"each key must be {keys['description']}")
        ],
    }


def _steps(node: Schema) -> Schema:
    """Say by a rule that a number has few decimals.

    The API server takes a whole number's ``multipleOf`` for a whole number, too: 0.
    """
    step = node.pop("multipleOf")
    nearest = f"double(int(self / {step} + 0.5))"
    difference = f"self / {step} - {nearest}"
    says = f"{difference} < 0.00001 && {difference} > -0.00001"
    told = f"must be a multiple of {step}"
    return {**node, "x-kubernetes-validations": [rule(says, told)]}


def _mend(found: Schema, defs: Mapping[str, Schema]) -> None:
    """Turn what is inside, and what JSON schema says in other words."""
    if "description" in found:
        found["description"] = " ".join(found["description"].split())
    if found.get("type") == "integer":
        found["format"] = "int64"
    if "exclusiveMinimum" in found:  # a number there, a mark on the minimum here
        found |= {"minimum": found["exclusiveMinimum"], "exclusiveMinimum": True}
    if "items" in found:
        found["items"] = _plain(found["items"], defs)
    if "properties" in found:
        properties = found["properties"].items()
        found["properties"] = {name: _plain(node, defs) for name, node in properties}
    inside = found.pop("additionalProperties", False)
    if inside is True:
        found["x-kubernetes-preserve-unknown-fields"] = True
    elif inside:
        found["additionalProperties"] = _plain(inside, defs)


# -- manifests --------------------------------------------------------------------


def manifest(kind: Kind) -> Schema:
    """Return the CustomResourceDefinition of a kind."""
    version = {
        "name": VERSION,
        "served": True,
        "storage": True,
        "subresources": {"status": {}},
        "additionalPrinterColumns": [_column(column) for column in kind.columns],
        "schema": {"openAPIV3Schema": _root(kind)},
    }
    names = {
        "kind": kind.name,
        "listKind": f"{kind.name}List",
        "plural": kind.plural,
        "singular": kind.name.lower(),
        **({"shortNames": list(kind.short)} if kind.short else {}),
        "categories": ["fairshare"],
    }
    return {
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": {"name": f"{kind.plural}.{GROUP}"},
        "spec": {
            "group": GROUP,
            "scope": "Cluster",
            "names": names,
            "versions": [version],
        },
    }


def _root(kind: Kind) -> Schema:
    return {
        "type": "object",
        "description": kind.says,
        "required": ["spec"],
        "x-kubernetes-validations": [dict(rule) for rule in kind.rules],
        "properties": {
            "apiVersion": {"type": "string"},
            "kind": {"type": "string"},
            "metadata": {"type": "object"},
            "spec": structural(kind.spec),
            "status": structural(kind.status),
        },
    }


def _column(column: Column) -> Schema:
    return {
        "name": column.name,
        "type": column.kind,
        "jsonPath": column.path,
        **({"description": column.says} if column.says else {}),
        **({"priority": 1} if column.wide else {}),
    }


class _Dumper(yaml.SafeDumper):
    """Writes lists as people indent them, and no anchors."""

    def increase_indent(self, flow: bool = False, indentless: bool = False) -> None:
        super().increase_indent(flow, False)

    def ignore_aliases(self, data: Any) -> bool:
        return True


def render(kind: Kind) -> str:
    """Write a kind's manifest as YAML."""
    text = yaml.dump(manifest(kind), Dumper=_Dumper, sort_keys=False, width=88)
    return HEADER + text


def main() -> int:
    """Rewrite the manifests, or with --check say whether they are current."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--check", action="store_true", help="compare, change nothing")
    check = parser.parse_args().check
    stale = []
    for kind in KINDS:
        path, text = CRDS / f"{kind.plural}.yaml", render(kind)
        if not check:
            path.write_text(text, encoding="utf-8")
        elif not path.exists() or path.read_text(encoding="utf-8") != text:
            stale.append(path.name)
    if stale:
        print(f"{', '.join(stale)}: stale; run python deploy/tools/generate_crds.py")
    return 1 if stale else 0


if __name__ == "__main__":
    sys.exit(main())
