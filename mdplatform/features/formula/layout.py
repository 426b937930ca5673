"""The steps of a formula: its nodes laid out over numbered registers, by level, with buffers that are used again.

A level's windows take whole columns of the levels before; its other steps run block by block. A register that a later
level or the result needs is kept as a whole column, any other one lives in a buffer of one block for as long as it is
needed, so that a block stays in the processor's cache.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from mdplatform.features.formula.nodes import WINDOWS, Node
from mdplatform.features.formula.operations import OPERATIONS, Operation, power


@dataclass(frozen=True, slots=True)
class Step:
    """One operation, or a window where `operation` is None: from the registers `arguments` to the register `to`."""

    kind: str
    to: int
    arguments: tuple[int, ...]
    operation: Operation | None = None
    exponent: float = 0.0
    length: int = 0


@dataclass
class Level:
    """Windows, then other steps. `reads` are the columns that these take, `kept` the registers they leave as columns.

    `buffer_of` gives the buffer of each other register that they write. `done` are the columns read here for the last
    time.
    """

    windows: list[Step] = field(default_factory=list)
    steps: list[Step] = field(default_factory=list)
    reads: tuple[int, ...] = ()
    kept: tuple[int, ...] = ()
    buffer_of: dict[int, int] = field(default_factory=dict)
    buffers: int = 0
    done: tuple[int, ...] = ()


@dataclass
class Layout:
    """Registers: first the inputs, then the rest. `numbers` are those that hold a number."""

    registers: int = 0
    numbers: list[tuple[int, float]] = field(default_factory=list)
    levels: list[Level] = field(default_factory=list)
    result: int = 0

    @property
    def steps(self) -> list[Step]:
        """All steps, in order."""
        return [step for level in self.levels for step in (*level.windows, *level.steps)]


def lay_out(root: Node) -> tuple[list[Node], Layout]:
    """Give the leaves in the order of their registers, and the layout."""
    nodes = in_order(root)
    leaves = [node for node in nodes if node.kind in ("column", "feature")]
    making = _Making(len(leaves))
    registers = {id(node): place for place, node in enumerate(leaves)}
    for node in nodes:
        if id(node) not in registers:
            registers[id(node)] = making.node(node, [registers[id(each)] for each in node.arguments])
    return leaves, making.layout(registers[id(root)])


def in_order(root: Node) -> list[Node]:
    """Give every node once, after those that it is made of."""
    ordered: dict[int, Node] = {}
    waiting = [(root, False)]
    while waiting:
        node, is_ready = waiting.pop()
        if id(node) in ordered:
            continue
        if is_ready:
            ordered[id(node)] = node
            continue
        waiting.append((node, True))
        waiting += [(each, False) for each in reversed(node.arguments)]
    return list(ordered.values())


class _Making:
    def __init__(self, inputs: int) -> None:
        self._level_of = dict.fromkeys(range(inputs), 0)
        self._known: dict[tuple[object, ...], int] = {}
        self._numbers: list[tuple[int, float]] = []
        self._steps: list[Step] = []

    def node(self, node: Node, arguments: Sequence[int]) -> int:
        """Give the register of a node, made of the registers of its arguments."""
        kind = node.kind
        if kind == "number":
            return self._number(node.value)
        if kind == "pow":
            return self._step(kind, arguments, power(node.value), exponent=node.value)
        if kind in ("min", "max"):
            least = arguments[0]
            for each in arguments[1:]:
                least = self._step(kind, (least, each), OPERATIONS[kind])
            return least
        if kind == "diff":
            before = self._step("lag", arguments, None, length=node.length)
            return self._step("sub", (arguments[0], before), OPERATIONS["sub"])
        if kind == "zscore":
            mean = self._step("mean", arguments, None, length=node.length)
            deviation = self._step("std", arguments, None, length=node.length)
            apart = self._step("sub", (arguments[0], mean), OPERATIONS["sub"])
            return self._step("div", (apart, deviation), OPERATIONS["div"])
        if kind in WINDOWS:
            return self._step(kind, arguments, None, length=node.length)
        return self._step(kind, arguments, OPERATIONS[kind])

    def layout(self, result: int) -> Layout:
        """Give the layout of what was made."""
        levels = [Level() for _ in range(1 + max(self._level_of.values(), default=0))]
        for step in self._steps:
            level = levels[self._level_of[step.to]]
            (level.windows if step.operation is None else level.steps).append(step)
        for number, level in enumerate(levels):
            later = {
                each
                for after in levels[number + 1 :]
                for step in (*after.windows, *after.steps)
                for each in step.arguments
            }
            self._finish(level, later | {result})
            read = {each for step in (*level.windows, *level.steps) for each in step.arguments}
            level.done = tuple(each for each in read if each in self._level_of and each not in later | {result})
        return Layout(len(self._level_of) + len(self._numbers), self._numbers, levels, result)

    def _finish(self, level: Level, later: set[int]) -> None:
        made = {step.to for step in level.steps}
        taken = dict.fromkeys(each for step in level.steps for each in step.arguments)
        level.reads = tuple(each for each in taken if each in self._level_of and each not in made)
        level.kept = tuple(each for each in made if each in later)
        last = {each: place for place, step in enumerate(level.steps) for each in step.arguments}
        free: list[int] = []
        for place, step in enumerate(level.steps):
            if step.to not in later:
                if not free:
                    free.append(level.buffers)
                    level.buffers += 1
                level.buffer_of[step.to] = free.pop()
            free += [
                level.buffer_of[each] for each in set(step.arguments) if each in level.buffer_of and last[each] == place
            ]

    def _number(self, value: float) -> int:
        key = ("number", value)
        if key not in self._known:
            self._known[key] = len(self._level_of) + len(self._numbers)
            self._numbers.append((self._known[key], value))
        return self._known[key]

    def _step(
        self, kind: str, arguments: Sequence[int], operation: Operation | None, exponent: float = 0.0, length: int = 0
    ) -> int:
        key = (kind, *arguments, exponent, length)
        if key not in self._known:
            to = len(self._level_of) + len(self._numbers)
            level = max((self._level_of[each] for each in arguments if each in self._level_of), default=0)
            self._level_of[to] = level + (operation is None)
            self._known[key] = to
            self._steps.append(Step(kind, to, tuple(arguments), operation, exponent, length))
        return self._known[key]
