"""What stands in deploy/ is what the service and kube-scheduler really take."""

from pathlib import Path
from typing import Any

import yaml
from pydantic import BaseModel

from scheduler.codec.pod import PRIORITY_CLASS
from scheduler.config import (
    fleet_of,
    load_config,
    nodes_of,
    parse_config,
    queues_of,
)
from scheduler.config.schema import Config, KubernetesConfig, Section
from scheduler.core import (
    Engine,
    Form,
    NodeUp,
    TenantsChanged,
    WorkloadClass,
    known_classes,
    resource_of,
)
from scheduler.core.gpu_tables import CLASSES
from tests.controlplane import objects

DEPLOY = Path(__file__).parent.parent / "deploy"
EXAMPLE = DEPLOY / "example-config.yaml"
PRIORITIES = DEPLOY / "priority-classes.yaml"

EXTENDER_FIELDS = {
    "urlPrefix": str,
    "filterVerb": str,
    "preemptVerb": str,
    "prioritizeVerb": str,
    "weight": int,
    "bindVerb": str,
    "enableHTTPS": bool,
    "tlsConfig": dict,
    "httpTimeout": str,
    "nodeCacheCapable": bool,
    "managedResources": list,
    "ignorable": bool,
}
"""Fields of v1 Extender; kube-scheduler refuses a file with any other."""


def stanza() -> dict[str, Any]:
    """The extender's entry in the kube-scheduler configuration."""
    config = yaml.safe_load((DEPLOY / "kube-scheduler-config.yaml").read_text())
    assert config["apiVersion"] == "kubescheduler.config.k8s.io/v1"
    assert config["kind"] == "KubeSchedulerConfiguration"
    assert set(config) == {
        "apiVersion", "kind", "leaderElection", "profiles", "extenders"
    }  # fmt: skip
    (profile,) = config["profiles"]
    assert profile == {"schedulerName": "fairshare", "percentageOfNodesToScore": 100}
    (extender,) = config["extenders"]
    return dict(extender)


def test_extender_stanza_keeps_failures_closed_and_narrow() -> None:
    extender = stanza()
    for key, value in extender.items():
        assert type(value) is EXTENDER_FIELDS[key], key
    assert extender["nodeCacheCapable"] is True
    assert extender["ignorable"] is False
    assert "bindVerb" not in extender
    assert extender["weight"] > 0
    assert extender["httpTimeout"] == "2s"
    verbs = (extender[f"{verb}Verb"] for verb in ("filter", "prioritize", "preempt"))
    assert list(verbs) == ["filter", "prioritize", "preempt"]


def test_managed_resources_are_those_of_the_gpu_table() -> None:
    """A resource that is not listed would pass by every quota."""
    listed = [entry["name"] for entry in stanza()["managedResources"]]
    for entry in stanza()["managedResources"]:
        assert entry == {"name": entry["name"], "ignoredByScheduler": False}
    forms = [str(gpu_class) for gpu_class in known_classes()]
    for name, (_, profiles, aliases) in CLASSES.items():
        forms.extend(f"{name}/{profile}" for profile in (*profiles, *aliases))
    named = {resource_of(Form(form)) for form in forms}
    assert len(listed) == len(set(listed))
    assert set(listed) == named | {f"{name}.shared" for name in named}


def test_example_config_is_taken_by_the_engine() -> None:
    config = load_config(EXAMPLE)
    engine = Engine()
    for node in nodes_of(config):
        engine.observe(NodeUp(node), 0.0)
    queues, fleet = queues_of(config), fleet_of(config)
    assert not engine.refusals(queues, fleet)
    engine.observe(TenantsChanged(queues, fleet), 0.0)
    assert engine.capacity()
    assert not engine.shortages()
    engine.check_invariants()


def keys(model: type[BaseModel]) -> set[str]:
    """Every key of the settings file, as it is written."""
    found: set[str] = set()
    for field in model.model_fields.values():
        found.add(str(field.alias))
        assert field.description, f"{field.alias} has no documentation"
        for inner in (field.annotation, *getattr(field.annotation, "__args__", ())):
            if isinstance(inner, type) and issubclass(inner, Section):
                found |= keys(inner)
    return found


def test_settings_on_kubernetes_are_the_defaults() -> None:
    """What is shipped says in full what holds anyway."""
    found = load_config(DEPLOY / "kubernetes-config.yaml").kubernetes
    assert found == KubernetesConfig()


def test_example_config_shows_every_key() -> None:
    words = EXAMPLE.read_text().replace("{", " ").split()
    missing = {key for key in keys(Config) if f"{key}:" not in words}
    assert not missing


def test_example_config_shows_the_real_defaults() -> None:
    """Taking away the comment signs before keys must change nothing."""
    text = EXAMPLE.read_text()
    lines = [
        line.replace("# ", "", 1) if is_default(line) else line
        for line in text.splitlines()
    ]
    assert load_config(EXAMPLE) == parse_config("\n".join(lines))
    assert sum(map(is_default, text.splitlines())) >= 10


def is_default(line: str) -> bool:
    """Whether a comment shows a default: ``# key: value``."""
    words = line.split()
    return (
        len(words) >= 3
        and words[0] == "#"
        and words[1].endswith(":")
        and words[1][:-1] in keys(Config)
        and words[2] != "..."
    )


def test_priority_classes_are_ours_and_preempt_nobody() -> None:
    """The names that pods are read by; who must leave is decided by us alone."""
    classes = list(yaml.safe_load_all(PRIORITIES.read_text()))
    assert {found["metadata"]["name"] for found in classes} == {
        PRIORITY_CLASS + kind.label for kind in WorkloadClass
    }
    assert {found["preemptionPolicy"] for found in classes} == {"Never"}
    values = {c["metadata"]["name"]: c["value"] for c in classes}
    assert values == objects.PRIORITIES
    ranked = sorted(WorkloadClass, key=lambda k: -values[PRIORITY_CLASS + k.label])
    assert ranked == sorted(WorkloadClass)
