"""A sink that believes nothing: it checks what an informer promises."""

import asyncio
from collections.abc import Callable

from msgspec import Struct, field

from scheduler.codec.objects import ObjectMeta


class Spec(Struct):
    value: int = 0


class Thing(Struct):
    metadata: ObjectMeta
    spec: Spec = field(default_factory=Spec)


class Sink:
    """Values by UID, and the order in which everything was heard."""

    def __init__(self) -> None:
        self.state: dict[str, int] = {}
        self.heard: list[tuple[str, str]] = []
        self.refuse: Callable[[Thing], bool] = lambda _: False
        self._names: dict[str, str] = {}
        self._ended: set[str] = set()

    def changed(self, thing: Thing) -> None:
        uid, name = thing.metadata.uid, thing.metadata.name
        self.heard.append(("changed", uid))
        assert uid not in self._ended, "nothing comes back"
        holder = self._names.setdefault(name, uid)
        assert holder == uid, "whoever had the name is gone first"
        if self.refuse(thing):
            raise ValueError("spec.value: is refused")
        assert thing.spec.value >= self.state.get(uid, 0), "no state comes late"
        self.state[uid] = thing.spec.value

    def gone(self, uid: str) -> None:
        self.heard.append(("gone", uid))
        assert uid not in self._ended, "an object goes once"
        self._ended.add(uid)
        self.state.pop(uid, None)
        self._names = {n: holder for n, holder in self._names.items() if holder != uid}


async def until(probe: Callable[[], object], timeout_s: float = 5.0) -> None:
    """Wait for something to become true."""
    async with asyncio.timeout(timeout_s):
        while not probe():
            await asyncio.sleep(0.001)
