"""Follows the objects of one collection: list, then watch, for ever.

Hidden here: pages, bookmarks, versions that are too old, and every way in which a
connection can end. What a sink hears, it hears in this order:

- the states of one object come in the order the API server gave them; some may be
  left out, the last one never is, and one may come twice;
- ``gone(uid)`` comes after every ``changed`` of that UID, and before the first one of
  another object that took its namespace and name;
- after a gap ``changed`` comes for all that is there, then ``gone`` for what is not;
- there is no order between objects, nor between collections.

An object that cannot be read stays as it was last: it is left out, said once and
counted.
"""

import asyncio
import logging
import random
import time
from dataclasses import dataclass
from typing import Generic, NoReturn, Protocol, TypeVar

import msgspec
from msgspec import Raw, Struct

from scheduler.codec.objects import ObjectMeta
from scheduler.kube.api import Api, ApiError, Query, Status

PAGE = 500
"""Objects in one page of a list."""

WATCH_S = (240.0, 300.0)
"""How long a watch lasts: by chance, so that many do not end together."""

SILENCE_MARGIN_S = 30.0
"""How much longer than it should last a watch may say nothing, seconds."""

FIRST_DELAY_S, LAST_DELAY_S = 0.1, 30.0
"""Bounds of the pause after a failure, seconds: the first one, and after many."""

LONGEST_DELAY_S = 120.0
"""Longest pause that a server may ask for, seconds."""

HEALTHY_S = 10.0
"""How long a watch must have lasted for earlier failures to be forgotten, seconds."""

BREATH_S = 0.002
"""Longest time without a turn for whatever else runs on the loop, seconds."""

log = logging.getLogger(__name__)


class ApiObject(Protocol):
    """What an informer must know of an object."""

    @property
    def metadata(self) -> ObjectMeta:
        """Who the object is."""


T = TypeVar("T", bound=ApiObject)
T_contra = TypeVar("T_contra", contravariant=True)


class Sink(Protocol[T_contra]):
    """Where the news go; called on the loop, one call at a time.

    A ValueError from `changed` says that the object has no meaning; it is treated like
    one that cannot be read. Any other exception ends the informer.
    """

    def changed(self, obj: T_contra) -> None:
        """Take an object's state; may be the one that is known already."""

    def gone(self, uid: str) -> None:
        """Forget an object; `changed` may have refused it."""


@dataclass
class Health:
    """What can be told about an informer.

    Parameters
    ----------
    lists
        Lists begun.
    watches
        Watches that the server has opened.
    failures
        Calls that failed and watches that broke.
    skipped
        States of objects that could not be read.
    last_event_monotonic
        When the server was last heard of: a page, an event or a bookmark.
    """

    lists: int = 0
    watches: int = 0
    failures: int = 0
    skipped: int = 0
    last_event_monotonic: float = 0.0

    def heard(self) -> None:
        """Note that the server has said something."""
        self.last_event_monotonic = time.monotonic()


class _Meta(Struct, gc=False, rename="camel"):
    """Who an object is, as far as that can be read of every object."""

    uid: str = ""
    name: str = ""
    namespace: str = ""
    resource_version: str = ""


class _Head(Struct, gc=False):
    metadata: _Meta


class _PageMeta(Struct, gc=False, rename="camel"):
    resource_version: str = ""
    continue_: str = msgspec.field(name="continue", default="")


class _Page(Struct, gc=False):
    metadata: _PageMeta
    items: list[Raw] | None = None


class _Event(Struct, gc=False):
    type: str
    object: Raw


_head = msgspec.json.Decoder(_Head)
_page = msgspec.json.Decoder(_Page)
_event = msgspec.json.Decoder(_Event)
_status = msgspec.json.Decoder(Status)


Meta = ObjectMeta | _Meta


class _GapError(Exception):
    """The watch cannot go on from where it was: list anew."""


class Informer(Generic[T]):
    """Keeps a sink informed about one collection.

    Parameters
    ----------
    api
        The API server.
    path
        The collection, such as ``/api/v1/pods``.
    type_of_object
        Struct that its objects are read into; a Raw in it would keep whole pages.
    sink
        Where the news go.
    page
        Objects in one page of a list; no more than that is held at once.
    query
        Selectors, if not all objects are meant.
    watch_s
        Shortest and longest duration of a watch, seconds.
    """

    def __init__(
        self,
        api: Api,
        path: str,
        type_of_object: type[T],
        sink: Sink[T],
        page: int = PAGE,
        query: Query | None = None,
        watch_s: tuple[float, float] = WATCH_S,
    ) -> None:
        self.path = path
        self.synced = asyncio.Event()
        self.health = Health()
        self._api = api
        self._sink = sink
        self._decoder = msgspec.json.Decoder(type_of_object)
        self._query = {**(query or {})}
        self._page = page
        self._watch_s = watch_s
        self._version = ""
        self._listed = False
        self._uids: dict[tuple[str, str], str] = {}
        self._unreadable: set[str] = set()
        self._failed = 0
        self._breath = 0.0

    def __len__(self) -> int:
        """Return how many objects there are, as far as we know."""
        return len(self._uids)

    async def run(self) -> NoReturn:
        """List and watch until cancelled."""
        while True:
            try:
                if not self._listed:
                    await self._list()
                await self._watch()
            except _GapError as gap:
                self._listed = False
                await self._pause(f"listing anew: {gap}")
            except ApiError as error:
                if error.status == 410:
                    self._listed = False
                await self._pause(str(error), error.retry_after_s or 0.0)

    async def _pause(self, reason: str, at_least_s: float = 0.0) -> None:
        """Wait after a failure: longer each time, by chance, and as long as asked."""
        self.health.failures += 1
        bound = min(LAST_DELAY_S, FIRST_DELAY_S * 2 ** min(self._failed, 16))
        delay = min(at_least_s, LONGEST_DELAY_S) + random.uniform(0, bound)
        self._failed += 1
        log.warning("%s: %s; again in %.1f s", self.path, reason, delay)
        await asyncio.sleep(delay)

    # -- listing -----------------------------------------------------------------

    async def _list(self) -> None:
        """Tell the sink about everything that is there, and what is not any more."""
        self.health.lists += 1
        begun = time.monotonic()
        version = following = ""
        there: set[str] = set()
        while True:
            page = await self._list_page(following, there)
            # All pages show the same instant: the first one's version is everyone's.
            version = version or page.resource_version
            following = page.continue_
            if not following:
                break
        for place in [p for p, uid in self._uids.items() if uid not in there]:
            self._forget(place)
            await self._breathe()
        self._version, self._listed = version, True
        self.synced.set()
        took = time.monotonic() - begun
        log.info("%s: %d objects listed in %.1f s", self.path, len(self), took)

    async def _list_page(self, following: str, there: set[str]) -> _PageMeta:
        """Read one page; its objects share its memory until this returns."""
        query = {**self._query, "limit": str(self._page)}
        if following:
            query["continue"] = following
        data = await self._api.get(self.path, query)
        self.health.heard()
        try:
            page = _page.decode(data)
            for item in page.items or ():
                there.add(self._changed(item)[0])
                await self._breathe()
        except msgspec.DecodeError as error:
            raise _GapError(f"a list that cannot be read ({error})") from error
        return page.metadata

    # -- watching ----------------------------------------------------------------

    async def _watch(self) -> None:
        """Follow the news until the server ends the watch; raise when it broke."""
        duration = random.uniform(*self._watch_s)
        query = {
            **self._query,
            "watch": "true",
            "allowWatchBookmarks": "true",
            "resourceVersion": self._version,
            "timeoutSeconds": str(max(1, round(duration))),
        }
        silence_s = duration + SILENCE_MARGIN_S
        heard = False
        begun = time.monotonic()
        async with self._api.stream(self.path, query, silence_s) as lines:
            self.health.watches += 1
            try:
                async for line in lines:
                    self._take(line)
                    heard = True
                    await self._breathe()
            finally:
                lasted = time.monotonic() - begun
                if lasted >= min(HEALTHY_S, duration / 2):
                    self._failed = 0
        log.debug("%s: watched for %.0f s", self.path, lasted)
        if not heard:
            await self._check_silence(lasted >= duration / 2)

    async def _check_silence(self, lasted: bool) -> None:
        """Doubt a watch that ended in good order, but without even a bookmark.

        A quiet collection has such. But a server that has gone back in time, to a
        backup, is silent, too, until it has caught up with the version we ask for.
        """
        if not lasted:
            raise ApiError(0, "Closed", "the watch ended early", call=self.path)
        data = await self._api.get(self.path, {**self._query, "limit": "1"})
        self.health.heard()
        present = _page.decode(data).metadata.resource_version
        if not (present.isdecimal() and self._version.isdecimal()):
            raise _GapError("a silent watch, and versions that are no numbers")
        if int(present) < int(self._version):
            raise _GapError(f"version {self._version} is not yet, it is {present}")

    def _take(self, line: bytes) -> None:
        """Perform one event."""
        self.health.heard()
        try:
            event = _event.decode(line)
            if event.type == "ERROR":
                raise _status.decode(event.object).error(f"WATCH {self.path}")
            if event.type in ("ADDED", "MODIFIED"):
                version = self._changed(event.object)[1]
            else:
                meta = _head.decode(event.object).metadata
                version = meta.resource_version
                if event.type == "DELETED":
                    self._deleted(meta)
        except msgspec.DecodeError as error:
            raise _GapError(f"an event that cannot be read ({error})") from error
        self._version = version or self._version

    # -- telling the sink --------------------------------------------------------

    def _changed(self, data: Raw) -> tuple[str, str]:
        """Pass a state on; return the object's UID and version.

        Raises
        ------
        msgspec.DecodeError
            When not even that much can be read.
        """
        try:
            obj = self._decoder.decode(data)
        except msgspec.DecodeError as error:
            meta = _head.decode(data).metadata
            self._arrived(meta)
            self._skip(meta, error)
            return meta.uid, meta.resource_version
        known = obj.metadata
        self._arrived(known)
        try:
            self._sink.changed(obj)
        except ValueError as error:
            self._skip(known, error)
        else:
            self._unreadable.discard(known.uid)
        return known.uid, known.resource_version

    def _arrived(self, meta: Meta) -> None:
        """Note who is where; whoever had the name before is gone."""
        place = (meta.namespace, meta.name)
        before = self._uids.get(place)
        if before is not None and before != meta.uid:
            self._forget(place)
        self._uids[place] = meta.uid

    def _deleted(self, meta: Meta) -> None:
        place = (meta.namespace, meta.name)
        if self._uids.get(place) == meta.uid:
            self._forget(place)

    def _forget(self, place: tuple[str, str]) -> None:
        uid = self._uids.pop(place)
        self._unreadable.discard(uid)
        self._sink.gone(uid)

    def _skip(self, meta: Meta, error: Exception) -> None:
        """Leave a state out; say so the first time."""
        self.health.skipped += 1
        if meta.uid not in self._unreadable:
            self._unreadable.add(meta.uid)
            name = f"{meta.namespace}/{meta.name}".lstrip("/")
            log.warning("%s: %s is left out: %s", self.path, name, error)

    async def _breathe(self) -> None:
        """Let others run, if it has been long."""
        now = time.monotonic()
        if now - self._breath > BREATH_S:
            await asyncio.sleep(0)
            self._breath = time.monotonic()
