"""How large gangs are, while their members come and go.

A workload's size is read from each of its pods, and what is read changes: a Job shrinks
as its pods succeed. A gang keeps the size it was founded with as long as it has a
member, since members that contradict each other could not be of one gang.
"""

from scheduler.core import PodUid


class Sizes:
    """Size of each gang that has members."""

    def __init__(self) -> None:
        self._gang_of: dict[PodUid, str] = {}
        self._members: dict[str, dict[PodUid, None]] = {}
        self._size: dict[str, int] = {}

    def join(self, uid: PodUid, gang: str, size: int, *, anew: bool = True) -> int:
        """Let a pod be of a gang, and return how large that is; 1 without a gang.

        The only member founds the gang once more, unless it is not `anew`.
        """
        if self._gang_of.get(uid) != gang:
            self.leave(uid)
        if not gang:
            return 1
        self._gang_of[uid] = gang
        members = self._members.setdefault(gang, {})
        members[uid] = None
        if gang not in self._size or (anew and len(members) == 1):
            self._size[gang] = size
        return self._size[gang]

    def members(self, gang: str) -> list[PodUid]:
        """Return who is of a gang."""
        return list(self._members.get(gang, {}))

    def leave(self, uid: PodUid) -> str:
        """Forget a pod, and return the gang that it was of."""
        gang = self._gang_of.pop(uid, "")
        members = self._members.get(gang, {})
        members.pop(uid, None)
        if not members:
            self._members.pop(gang, None)
            self._size.pop(gang, None)
        return gang
