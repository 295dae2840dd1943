"""The core's public names: adding one is a decision, removing one breaks drivers."""

import inspect

import scheduler.core

PUBLIC = """
QUANTA_PER_GPU
Action Admit CheckpointDone CheckpointRequest Event Evict NodeChanged NodeDown NodeUp
PodBound PodGone PodReplaced PodStopping PodSubmitted Reason TenantsChanged Withdraw
Admission Assignment Budget Plan Problem Status allocate verify
Claim Standing covered divide
Cluster Node place_gang
Demand GangId NodeName Pod PodUid TenantName WorkloadClass workload_class
Engine Explanation Filtered Leaving Planned Policy Preemption QueueEntry TenantUse
Form GpuClass charge class_of class_of_product is_legal known_classes parse_form
profile_of profile_of_resource profiles replicas_of resource_of value_weight
Fleet Group PreemptWithin Queue QuotaTree Shortage refusals
decode_event encode
"""


def test_public_names_are_pinned() -> None:
    """Drivers and the simulator build on these; the list is the contract."""
    assert sorted(scheduler.core.__all__) == sorted(PUBLIC.split())


def test_public_names_exist_and_are_explained() -> None:
    """A name without a meaning is a trap."""
    for name in scheduler.core.__all__:
        value = getattr(scheduler.core, name)
        if inspect.isclass(value) or inspect.isfunction(value):
            assert value.__doc__, name
            assert value.__module__.startswith("scheduler.core"), name
