"""Moves between phases whose order inside one instant matters."""

from scheduler.core import (
    Admit,
    Engine,
    Evict,
    NodeUp,
    PodBound,
    PodGone,
    PodSubmitted,
    PodUid,
    Policy,
    TenantsChanged,
)
from tests import builders


def settled(*names: str) -> Engine:
    """An engine on which a gang of these pods, 8 GPUs each, fills every node."""
    engine = Engine(Policy(inline=False))
    engine.observe(TenantsChanged((builders.tenant("a"),)), 0.0)
    for index, name in enumerate(names):
        engine.observe(NodeUp(builders.node(f"n{index}")), 0.0)
        engine.observe(PodSubmitted(member(name, len(names))), 0.0)
    bind(engine, 0.0)
    return engine


def member(name: str, least: int) -> builders.Pod:
    return builders.pod(name, "a", 8, gang="g", min_member=least, on_request=False)


def bind(engine: Engine, now: float) -> list[str]:
    """Run the cycle, bind what it admits, and return whom it evicts."""
    actions = engine.cycle(now)
    for action in actions:
        if isinstance(action, Admit):
            engine.observe(PodBound(action.uid, action.node), now)
    return [action.uid for action in actions if isinstance(action, Evict)]


def test_a_gang_that_comes_back_in_the_same_instant_is_not_the_victim() -> None:
    """Its pods are re-created before the cycle looks: a name is no identity."""
    engine = settled("g-0", "g-1")
    chat = builders.pod("chat", "a", 1, kind="inference")
    engine.observe(PodSubmitted(chat), 1.0)
    assert bind(engine, 1.0) == ["g-0", "g-1"]
    for name in ("g-0", "g-1"):
        engine.observe(PodGone(PodUid(name)), 9.0)
    for name in ("again-0", "again-1"):
        engine.observe(PodSubmitted(member(name, 2)), 9.0)
    assert bind(engine, 9.0) == []
    explained = engine.explain(PodUid("chat"), 9.0)
    assert explained is not None
    assert explained.node is not None
    engine.observe(PodGone(PodUid("chat")), 20.0)
    bind(engine, 20.0)
    again = engine.explain(PodUid("again-0"), 20.0)
    assert again is not None
    assert again.node is not None
    engine.check_invariants()
