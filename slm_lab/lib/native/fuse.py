"""Elementwise steps of one shape become one loop, where the order of reads and writes allows it."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from math import prod

from slm_lab.lib.native.record import Place
from slm_lab.lib.native.steps import Point, Step

Access = tuple[int, int, tuple[int, ...]]
"""Buffer, offset, and stride of each dimension of a loop."""


def loop_shape(place: Place) -> tuple[int, ...]:
    """The dimensions that need a loop."""
    return tuple(n for n in place.shape if n != 1)


def access(place: Place, shape: tuple[int, ...]) -> Access:
    """How a loop over the (full) shape walks over a place that is broadcast to it; dimensions of 1 are left out."""
    missing = len(shape) - len(place.shape)
    strides = [0] * missing + [0 if n == 1 else s for n, s in zip(place.shape, place.stride, strict=True)]
    return place.buffer, place.offset, tuple(s for s, n in zip(strides, shape, strict=True) if n != 1)


@dataclass
class Group:
    """Steps that are done in one loop; of those that are not elementwise only one."""

    steps: list[Step] = field(default_factory=list)
    shape: tuple[int, ...] | None = None
    """Of the loop, without dimensions of 1; None: not elementwise."""

    def reads(self) -> Iterator[Place]:
        """All that is looked at."""
        return (p for s in self.steps for p in s.reads)

    def writes(self) -> Iterator[Place]:
        """All that is changed."""
        return (p for s in self.steps for p in s.writes)

    def accesses(self) -> list[tuple[Access, Place, bool]]:
        """All of an elementwise group, with whether they write."""
        points = [s for s in self.steps if isinstance(s, Point)]
        return [
            found
            for s in points
            for found in (
                *((access(p, s.out.shape), p, False) for p in s.operands),
                (access(s.out, s.out.shape), s.out, True),
            )
        ]


def fuse(steps: Iterable[Step], kept: set[int]) -> list[Group]:
    """Groups in an order that does the same as the steps.

    An elementwise step joins the last group of its shape, moving up past what neither changes what it reads nor touches
    what it changes.

    Args:
        steps: in order
        kept: buffers that matter when all is done; steps that serve nothing in the end are left out
    """
    groups: list[Group] = []
    for step in _alive(list(steps), kept):
        shape = loop_shape(step.out) if isinstance(step, Point) else None
        home = None
        if shape is not None:
            for group in reversed(groups):
                if group.shape == shape and _fits(group, step):
                    home = group
                    break
                if _conflict(group, step):
                    break
        if home is None:
            home = Group([], shape)
            groups.append(home)
        home.steps.append(step)
    return groups


def _alive(steps: list[Step], kept: set[int]) -> list[Step]:
    wanted, alive = set(kept), []
    for step in reversed(steps):
        if any(p.buffer in wanted for p in step.writes) and all(prod(p.shape) for p in step.writes):
            alive.append(step)
            wanted |= {p.buffer for p in step.reads}
    return alive[::-1]


def _overlap(a: Place, b: Place) -> bool:
    return a.buffer == b.buffer and a.offset < b.end and b.offset < a.end


def _any_overlap(some: Iterable[Place], others: Iterable[Place]) -> bool:
    others = list(others)
    return any(_overlap(a, b) for a in some for b in others)


def _conflict(group: Group, step: Step) -> bool:
    """Whether the step must come after the group."""
    return _any_overlap(group.writes(), [*step.reads, *step.writes]) or _any_overlap(group.reads(), step.writes)


def _fits(group: Group, step: Step) -> bool:
    """Whether the step, in the group's loop, sees of each element what it would see behind the loop."""
    new = Group([step], group.shape).accesses()
    return all(
        mine == theirs
        for theirs, there, wrote in group.accesses()
        for mine, here, writes in new
        if (wrote or writes) and _overlap(here, there)
    )
