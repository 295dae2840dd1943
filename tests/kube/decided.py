"""What an engine has decided, made by hand."""

from scheduler.core import GangId, Leaving, Planned, TenantName, WorkloadClass
from scheduler.core import parse_form as form
from tests.kube.seen import H100


def plan(name: str, node: str = "n1", *, gang: str = "", **more: object) -> Planned:
    fields = {
        "uid": f"uid-{name}",
        "gang": GangId(gang or f"uid-{name}"),
        "tenant": TenantName("a"),
        "workload_class": WorkloadClass.TRAINING,
        "node": node,
        "form": form(H100),
        "quanta": 126_000,
        "decision": 1,
        "held": False,
    }
    return Planned(**{**fields, **more})


def leaving(name: str, save_by: float | None = None) -> Leaving:
    return Leaving(
        uid=f"uid-{name}",
        gang=GangId("g"),
        node="n1",
        save_by=save_by,
        grace_s=120.0,
        reason="reclaimed",
        beneficiary=None,
    )
