"""A cluster that lives by chance, and a mirror that hears of it late.

The informers' promise is kept, and no more: states of one object come in order, some
are left out, some come twice; nothing is promised between objects. Controllers do
theirs: pods of a suspended Job go, pods of a lost node are collected in the end.
"""

from collections.abc import Callable
from random import Random
from typing import Any

from scheduler.codec import JobObject, NodeObject
from scheduler.core import TenantName
from tests.kube.seen import SPACES, Seen, job, mark, node, pod

GONE = object()
NODES = ("n1", "n2", "n3")

OTHERS = {**SPACES, "team-a": TenantName("b"), "team-c": TenantName("a")}
"""Another division of namespaces; bound pods in those that change hands are marked."""

Kwargs = dict[str, Any]


class Cluster:
    """Objects, their news that are on their way, and who hears them."""

    def __init__(self, seed: int) -> None:
        self.rng = Random(seed)
        self.seen = Seen()
        self.spaces = SPACES
        self.count = 0
        self.version = 0
        self.generations = self.rng.random() < 0.7  # old API servers count none
        self.now: dict[str, Any] = {}  # the latest state of each object, by UID
        self.pods: dict[str, Kwargs] = {}  # what they are made of, by UID
        self.late: dict[str, list[tuple[str, Any]]] = {}  # by place
        self.steps: dict[Callable[[], None], int] = {
            self.create: 6,
            self.appear_bound: 2,
            self.admit: 8,
            self.bind: 6,
            self.end: 3,
            self.save: 2,
            self.edit: 2,
            self.adopt: 1,
            self.set_node: 2,
            self.drop_node: 1,
            self.create_job: 2,
            self.switch_job: 3,
            self.widen_job: 1,
            self.drop_job: 1,
            self.control: 6,
            self.rename: 1,
            self.deliver: 30,
            self.hear: 10,
            self.decide: 4,
        }

    def live(self, steps: int) -> None:
        """Let so many things happen."""
        names, weights = list(self.steps), list(self.steps.values())
        for step in self.rng.choices(names, weights, k=steps):
            step()

    # -- objects -------------------------------------------------------------------

    def put(self, uid: str, state: Any) -> None:
        self.late.setdefault(self.place(uid, state), []).append((uid, state))
        if state is GONE:
            del self.now[uid]
            self.pods.pop(uid, None)
        else:
            self.now[uid] = state

    def place(self, uid: str, state: Any) -> str:
        """What has one name comes in order, though it is made anew."""
        found = self.now[uid] if state is GONE else state
        return found.metadata.name if isinstance(found, NodeObject) else uid

    def put_pod(self, uid: str, **changes: Any) -> None:
        self.version += 1
        self.pods[uid] = {**self.pods[uid], **changes, "version": self.version}
        self.put(uid, pod(**self.pods[uid]))

    def new_pod(self, **kwargs: Any) -> None:
        self.count += 1
        uid = f"p{self.count}"
        self.pods[uid] = {"uid": uid, "name": uid, "born": self.rng.randrange(5)}
        self.pods[uid]["generation"] = 1 * self.generations
        self.put_pod(uid, **kwargs)

    def some_pod(self, fits: Callable[[Kwargs], object]) -> str | None:
        found = [uid for uid in sorted(self.pods) if fits(self.pods[uid])]
        return self.rng.choice(found) if found else None

    def nodes(self) -> list[str]:
        found = [
            o.metadata.name for o in self.now.values() if isinstance(o, NodeObject)
        ]
        return sorted(found)

    def jobs(self) -> list[str]:
        return sorted(u for u, o in self.now.items() if isinstance(o, JobObject))

    # -- what happens to pods --------------------------------------------------------

    def create(self) -> None:
        space = self.rng.choice(["team-a", "team-a", "team-b", "team-c", "elsewhere"])
        gang = self.rng.choice(["", "", "g", "h"])
        gpus = self.rng.choice([0, 1, 1, 2])
        self.new_pod(space=space, gpus=gpus, gang=gang, size=2 if gang else 0)

    def appear_bound(self) -> None:
        """Somebody else's, or from before our time; nobody has marked it."""
        space, gpus = self.rng.choice(["team-b", "elsewhere"]), self.rng.choice([0, 1])
        if self.nodes():
            at = self.rng.choice([*self.nodes(), "unheard-of"])
            self.new_pod(space=space, gpus=gpus, node=at, gated=False)

    def admit(self) -> None:
        """We write, and know the answer before the watch tells of it."""
        uid = self.some_pod(_waits_at_gate)
        known = self.seen.known().get(uid) if uid else None
        if uid is None or known is None or not self.nodes():
            return
        mirror = self.seen.mirror.pods
        self.put_pod(uid, mark=mark(known[0].tenant), nominated=self.nodes()[0])
        mirror.answered(self.now[uid])
        if mirror.is_as_told(uid) and self.rng.random() < 0.7:
            self.put_pod(uid, gated=False, generation=2 * self.generations)
            mirror.answered(self.now[uid])

    def bind(self) -> None:
        uid = self.some_pod(lambda one: one.get("gated") is False and _is_loose(one))
        if uid is not None and self.nodes():
            self.put_pod(uid, node=self.rng.choice(self.nodes()))

    def end(self) -> None:
        uid = self.some_pod(lambda _: True)
        if uid is not None:
            last = self.rng.choice(["gone", "gone", "deleting", "phase"])
            if last == "gone":
                self.put(uid, GONE)
            elif last == "deleting":
                self.put_pod(uid, deleting=True)
            else:
                self.put_pod(uid, phase="Failed")

    def save(self) -> None:
        uid = self.some_pod(lambda one: one.get("node"))
        if uid is not None:
            notes = {"fairshare.dev/last-checkpoint": str(self.version)}
            self.put_pod(uid, notes={**self.pods[uid].get("notes", {}), **notes})

    def edit(self) -> None:
        """Its owner wants something else, or something without meaning."""
        uid = self.some_pod(_waits_at_gate)
        if uid is not None:
            cost = self.rng.choice(["60s", "90s", "?"])
            self.put_pod(uid, notes={"fairshare.dev/restart-cost": cost})

    def adopt(self) -> None:
        """Another controller takes a pod over."""
        uid = self.some_pod(lambda one: not one.get("job"))
        if uid is not None:
            self.put_pod(uid, keeper=self.rng.choice(["r1", "r2", ""]))

    # -- what happens to nodes and Jobs ------------------------------------------------

    def set_node(self) -> None:
        """A node comes, changes, or is made anew under its name."""
        name = self.rng.choice(NODES)
        uids = [u for u, o in self.now.items() if isinstance(o, NodeObject)]
        there = next((u for u in uids if self.now[u].metadata.name == name), None)
        if there is not None and self.rng.random() < 0.3:
            self.put(there, GONE)
            there = None
        self.count += 1
        uid = there or f"node-{self.count}"
        gpus, ready = self.rng.choice([4, 8]), self.rng.random() < 0.8
        self.put(uid, node(name, gpus, uid=uid, ready=ready))

    def drop_node(self) -> None:
        uids = sorted(u for u, o in self.now.items() if isinstance(o, NodeObject))
        if len(uids) > 1:
            self.put(self.rng.choice(uids), GONE)

    def create_job(self) -> None:
        self.count += 1
        uid, size = f"j{self.count}", self.rng.randint(1, 3)
        suspended, managed = self.rng.random() < 0.6, self.rng.random() < 0.8
        kwargs = {"suspended": suspended, "managed": managed, "space": "team-b"}
        self.put(uid, job(uid, size, **kwargs))

    def switch_job(self) -> None:
        if self.jobs():
            found: JobObject = self.now[self.rng.choice(self.jobs())]
            self.put_job(found, suspended=not found.spec.suspend)

    def widen_job(self) -> None:
        """Only one that is suspended: sizes of those that run stay what they were.

        It is heard of before its pods are there. If they could be bound before, they
        would not be of the gang that a new process takes them for.
        """
        found = [self.now[uid] for uid in self.jobs()]
        makers = {one.get("job") for one in self.pods.values()}
        found = [o for o in found if o.spec.suspend and o.metadata.uid not in makers]
        if found:
            uid = self.rng.choice(found).metadata.uid
            self.put_job(self.now[uid], pods=self.rng.randint(1, 3))
            self.tell_last(uid)

    def put_job(self, found: JobObject, **changes: Any) -> None:
        managed = bool(found.metadata.annotations)
        suspended, pods = bool(found.spec.suspend), found.spec.parallelism
        now = {"suspended": suspended, "managed": managed, "pods": pods, **changes}
        self.put(found.metadata.uid, job(found.metadata.uid, space="team-b", **now))

    def drop_job(self) -> None:
        if self.jobs():
            uid = self.rng.choice(self.jobs())
            self.put(uid, GONE)
            for mine in [u for u, one in self.pods.items() if one.get("job") == uid]:
                self.put(mine, GONE)

    def control(self) -> None:
        if self.jobs():
            self.steer(self.now[self.rng.choice(self.jobs())], 1)

    def steer(self, found: JobObject, most: int = 9) -> None:
        """Make a Job's pods what they should be, as its controller does."""
        wanted = 0 if found.spec.suspend else found.spec.parallelism or 0
        mine = self.of(found)
        for surplus in mine[wanted:][:most]:
            self.put(surplus, GONE)
        for _ in range(min(most, wanted - len(mine))):
            self.new_pod(job=found.metadata.uid, space="team-b")

    def of(self, found: JobObject) -> list[str]:
        uid = found.metadata.uid
        mine = (u for u, one in self.pods.items() if one.get("job") == uid)
        return [u for u in sorted(mine) if not _has_ended(self.pods[u])]

    # -- news -----------------------------------------------------------------------

    def rename(self) -> None:
        self.spaces = self.rng.choice([SPACES, OTHERS])
        self.seen.rename(self.spaces)

    def deliver(self) -> None:
        """Let one state be told, perhaps without those before it, perhaps twice."""
        if not self.late:
            return
        place = self.rng.choice(sorted(self.late))
        states = self.late.pop(place)
        take = min(self.rng.choice([0, 0, 1, 2]), len(states) - 1)
        for _ in range(self.rng.choice([1, 1, 2])):
            self.tell_skipping(states[: take + 1])
        if states[take + 1 :]:
            self.late[place] = states[take + 1 :]

    def tell_last(self, place: str) -> None:
        self.tell_skipping(self.late.pop(place))

    def tell_skipping(self, states: list[tuple[str, Any]]) -> None:
        """Tell the last of some states, after the loss of who had its name before."""
        *skipped, (uid, state) = states
        for before in dict.fromkeys(other for other, _ in skipped if other != uid):
            self.tell(before, GONE)
        self.tell(uid, state)

    def tell(self, uid: str, state: Any) -> None:
        if state is GONE:
            self.seen.lose(uid)
        else:
            self.seen.see(state)

    def hear(self) -> None:
        self.seen.hear()
        assert self.seen.refused == {}

    def decide(self) -> None:
        self.hear()
        self.seen.cycle()

    def settle(self) -> None:
        """Let controllers finish, and let all of it be heard, one way or the other."""
        for uid in self.jobs():
            self.steer(self.now[uid])
        there = {"", *self.nodes()}
        for uid in sorted(self.pods):
            one = self.pods[uid]
            if one.get("node", "") not in there or one.get("deleting"):
                self.put(uid, GONE)
        if self.rng.random() < 0.5:
            self.list_anew()
        for uid in self.rng.sample(sorted(self.late), len(self.late)):
            self.tell_last(uid)
            if self.rng.random() < 0.3:
                self.hear()
        self.hear()
        self.hear()

    def list_anew(self) -> None:
        """After a gap all that is there is told, then what is not."""
        late, self.late = self.late, {}
        states = {p: s for p, s in late.items() if s[-1][1] is not GONE}
        for uid in self.rng.sample(sorted(self.now), len(self.now)):
            place = self.place(uid, self.now[uid])
            self.tell_skipping([*states.get(place, ()), (uid, self.now[uid])])
        for gone in [s for s in late.values() if s[-1][1] is GONE]:
            self.tell_skipping(gone)


def _waits_at_gate(one: Kwargs) -> bool:
    gated = one.get("gated") is not False and _is_loose(one)
    return gated and one["space"] != "elsewhere" and one.get("gpus", 1) > 0


def _is_loose(one: Kwargs) -> bool:
    return not (one.get("node") or _has_ended(one))


def _has_ended(one: Kwargs) -> bool:
    return bool(one.get("deleting") or one.get("phase"))
