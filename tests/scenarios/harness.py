"""Plays a golden scenario: commands in, decisions out, as a person would tell it.

A script holds commands (lines that begin with ``>``) and below each the transcript
that it must produce. Pods that are admitted are bound at once unless the script says
``> binding off``. After each command the engine's cycle runs, and every invariant is
checked. ``pytest --rewrite tests/scenarios`` writes the transcripts anew.

Commands::

    node NAME OFFERS... [not-ready]     a node joins, or changes
    down NAME                           a node is lost
    tenant NAME [guarantee=..] [borrowing=..] [lending=..] [limit=..] [parent=..]
        [weight=..] [priority=..] [burst=..] [inference_burst=..] [critical=..]
        [preempt=..]                    a tenant joins, or changes
    may NAME ...                        what an owner who asked for that would be told
    forget NAME                         a tenant is deleted
    fleet [GROUP=CLASS,CLASS] [ceiling=..] [memory=SECONDS]
    submit POD TENANT CLASS GPUS [gang=G/MIN] [profile=..] [classes=a,b] [..]
    bind POD NODE | gone POD | checkpointed POD
    at SECONDS                          time passes; due decisions are taken on the way
    filter POD NODE...                  kube-scheduler asks
    tenants | queue | explain POD       what the engine says
"""

import shlex
from collections.abc import Callable, Mapping

from scheduler.core import (
    Action,
    Admit,
    CheckpointDone,
    CheckpointRequest,
    Engine,
    Evict,
    Fleet,
    Form,
    Group,
    NodeDown,
    NodeName,
    NodeUp,
    Pod,
    PodBound,
    PodGone,
    PodSubmitted,
    PodUid,
    Policy,
    Queue,
    TenantsChanged,
    Withdraw,
    class_of,
)
from scheduler.core.engine.explain import amount
from tests import builders

Words = list[str]


class Scenario:
    """One engine, one script."""

    def __init__(self, policy: Policy | None = None) -> None:
        self.engine = Engine(policy or Policy(inline=False))
        self.now = 0.0
        self.binding = True
        self.queues: dict[str, Queue] = {}
        self.fleet = Fleet()
        self.pods: dict[str, Pod] = {}
        self.out: list[str] = []

    def play(self, line: str) -> list[str]:
        """Run one command and return what it produced."""
        self.out = []
        words = shlex.split(line)
        command: Callable[[Words], None] = getattr(self, f"do_{words[0]}")
        try:
            command(words[1:])
            self.cycle()
        except ValueError as error:
            self.out.append(f"refused: {error}")
        self.engine.check_invariants()
        return self.out

    # -- commands ------------------------------------------------------------------

    def do_node(self, words: Words) -> None:
        ready = words[-1] != "not-ready"
        offers = " ".join(words[1:] if ready else words[1:-1])
        self.engine.observe(
            NodeUp(builders.node(words[0], offers, ready=ready)), self.now
        )

    def do_down(self, words: Words) -> None:
        self.engine.observe(NodeDown(NodeName(words[0])), self.now)

    def do_tenant(self, words: Words) -> None:
        queues = self.with_queue(words)
        self.change(queues)
        self.queues = queues

    def do_may(self, words: Words) -> None:
        queues = tuple(self.with_queue(words).values())
        told = self.engine.refusals(queues, self.fleet)
        self.out.extend(told or ["it may"])

    def do_forget(self, words: Words) -> None:
        self.queues.pop(words[0])
        self.change(self.queues)

    def do_fleet(self, words: Words) -> None:
        options = dict(word.split("=", 1) for word in words)
        ceiling = builders.counts(options.pop("ceiling", ""))
        memory = float(options.pop("memory", "0"))
        groups = tuple(
            Group(name=Form(name), members=tuple(map(Form, members.split(","))))
            for name, members in options.items()
        )
        self.fleet = Fleet(groups=groups, burst_ceiling=ceiling, half_life_s=memory)
        self.change(self.queues)

    def with_queue(self, words: Words) -> dict[str, Queue]:
        """The tenants, one of them as the words have it."""
        options: dict[str, object] = dict(word.split("=", 1) for word in words[1:])
        for key, kind in (("weight", int), ("priority", int), ("burst", float)):
            if key in options:
                options[key] = kind(str(options[key]))
        known = self.queues.get(words[0])
        order = len(self.queues) if known is None else known.order
        queue = builders.tenant(words[0], order=order, **options)  # type: ignore[arg-type]
        return {**self.queues, words[0]: queue}

    def change(self, queues: Mapping[str, Queue]) -> None:
        """The tenants change as a whole."""
        event = TenantsChanged(tuple(queues.values()), self.fleet)
        self.engine.observe(event, self.now)

    def do_submit(self, words: Words) -> None:
        name, owner, kind, gpus, *rest = words
        options = dict(word.split("=", 1) for word in rest)
        extra: dict[str, object] = {}
        if "gang" in options:
            gang, least = options["gang"].split("/")
            extra |= {"gang": gang, "min_member": int(least)}
        if "classes" in options:
            extra["classes"] = tuple(c for c in options["classes"].split(",") if c)
        for key in ("interval", "restart"):
            if key in options:
                extra[key] = float(options[key])
        for key in ("fraction", "priority"):
            if key in options:
                extra[key] = int(options[key])
        if "profile" in options:
            extra["profile"] = options["profile"]
        if "checkpoint" in options:
            extra["on_request"] = options["checkpoint"] == "yes"
        pod = builders.pod(name, owner, int(gpus), kind=kind, **extra)  # type: ignore[arg-type]
        self.engine.observe(PodSubmitted(pod), self.now)
        self.pods[name] = pod

    def do_binding(self, words: Words) -> None:
        self.binding = words[0] == "on"

    def do_bind(self, words: Words) -> None:
        self.engine.observe(PodBound(PodUid(words[0]), NodeName(words[1])), self.now)

    def do_gone(self, words: Words) -> None:
        for word in words:
            self.engine.observe(PodGone(PodUid(word)), self.now)

    def do_checkpointed(self, words: Words) -> None:
        for word in words:
            self.engine.observe(CheckpointDone(PodUid(word)), self.now)

    def do_at(self, words: Words) -> None:
        goal = float(words[0])
        while (
            due := self.engine.next_deadline()
        ) is not None and self.now < due <= goal:
            self.now = due
            self.cycle()
        self.now = goal

    def do_filter(self, words: Words) -> None:
        pod = self.pods[words[0]]
        nodes = [NodeName(word) for word in words[1:]]
        answer = self.engine.filter(pod, nodes, self.now)
        if answer.accepted:
            self.out.append(f"accepts {' '.join(answer.accepted)}")
        for name in nodes:
            if name not in answer.accepted:
                reason = answer.rejected.get(name, answer.default)
                kind = "no" if reason.resolvable else "never"
                self.out.append(f"{name}: {kind}, {reason.value}")

    def do_tenants(self, words: Words) -> None:
        for row in self.engine.tenants(self.now):
            figures = {
                "guaranteed": row.guarantee,
                "uses": row.used,
                "burst": row.burst,
                "waits for": row.pending,
                "share": row.share,
            }
            told = [f"{k} {amount(v, row.form)}" for k, v in figures.items()]
            if row.guarantee < row.promised:
                told[0] += f" of {amount(row.promised, row.form)}"
            self.out.append(f"{row.name} {class_of(row.form)}: {', '.join(told)}")
            self.out.extend(f"  {condition}" for condition in row.conditions)

    def do_queue(self, words: Words) -> None:
        for entry in self.engine.queue(self.now):
            cover = "covered" if entry.covered else "burst"
            self.out.append(
                f"{entry.position}. {entry.gang} "
                f"({entry.workload_class.label}, {cover}): {entry.reason.value}"
            )

    def do_explain(self, words: Words) -> None:
        answer = self.engine.explain(PodUid(words[0]), self.now)
        if answer is None:
            self.out.append("unknown pod")
        else:
            self.out.append(f"{answer.reason.value}: {answer.detail}")

    # -- decisions -----------------------------------------------------------------

    def cycle(self) -> None:
        """Run the cycle, tell its actions, bind what was admitted."""
        for action in self.engine.cycle(self.now):
            self.out.append(self.tell(action))
            if isinstance(action, Admit) and self.binding:
                self.engine.observe(PodBound(action.uid, action.node), self.now)

    def tell(self, action: Action) -> str:
        """One action in words, with the time when it is not the script's."""
        when = f"[{self.now:g}s] "
        match action:
            case Admit():
                size = amount(action.quanta, action.form)
                form = class_of(action.form)
                return f"{when}{action.uid} starts on {action.node} ({size} of {form})"
            case CheckpointRequest():
                return (
                    f"{when}{action.uid} is asked to checkpoint by "
                    f"{action.deadline:g}s for {action.beneficiary}"
                )
            case Evict():
                gain = f" for {action.beneficiary}" if action.beneficiary else ""
                return f"{when}{action.uid} is evicted{gain}: {action.reason}"
            case Withdraw():
                return f"{when}{action.uid} gives up {action.node}: {action.reason}"
