"""The workshop: what is found nowhere is computed, once for equal work, and published.

1. Work that is under way in this process is joined (`flights`).
2. The misses of one tick of the loop are a batch. For each a lease is asked for in Redis (`shelf`): what another worker
   computes is waited for, for a while.
3. Those of a batch that are of one symbol and timeframe are computed together, in a thread, on the bars that are held
   in memory (`memory`), or on the lake.
4. What came out goes into the near cache. If it is the usual window, it is published, with the sequences that were read
   before: as the reader does; all else is lent to other workers for some seconds (`lending`). Then whoever waits is
   told.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from functools import partial

import msgspec

from mdplatform.errors import PlatformError, RequestFailed
from mdplatform.serving.freshness import newest_change
from mdplatform.serving.lookup import Library, Lookup
from mdplatform.serving.publisher import sign
from mdplatform.serving.window import feature_blobs
from mdplatform.settings import Settings
from mdplatform.worker.computing import compute
from mdplatform.worker.flights import Flights
from mdplatform.worker.lending import Lending, borrowed, place_of
from mdplatform.worker.memory import HeldLake
from mdplatform.worker.near import ERRORS_KEPT_NS, Kept, NearCache, Witness, kept_blob, kept_part
from mdplatform.worker.questions import AnyQuestion, FeatureQuestion
from mdplatform.worker.shelf import LEASE_SECONDS, Shelf
from mdplatform.worker.threads import Job, Threads

WAIT_SECONDS = (0.05, 0.2, 1.0, 5.0)
"""How long what another worker computes is waited for, by rank: it may do so less urgently."""
_FIRST_PAUSE, _LONGEST_PAUSE = 0.002, 0.02
_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Found:
    """What became of a question: what is kept of it, or why there is nothing.

    `layer` is where it was found, or computed from; `took_ms` are the stages of the computation, empty where there was
    none in this process; `notes` say what went wrong on the way.
    """

    layer: str
    kept: Kept | None = None
    error: PlatformError | None = None
    took_ms: dict[str, float] = field(default_factory=dict)
    notes: tuple[str, ...] = ()


@dataclass(eq=False)
class _Miss:
    question: AnyQuestion
    witness: Witness
    future: asyncio.Future[Found]
    rank: int
    lookup: Lookup | None = None
    lent_at: str | None = None
    job: Job[list[Found]] | None = None

    @property
    def made_at(self) -> str | None:
        """The key under which the answer will lie in Redis; None if other workers cannot take it."""
        return self.lent_at if self.lookup is None else self.lookup.keys[0]

    @property
    def lease(self) -> str | None:
        """The key of the lease; its name has the sequences in it, since other ones are other work."""
        if self.lookup is None:
            return None if self.lent_at is None else f"{self.lent_at}:by"
        return f"{self.lookup.keys[0]}:by:{'-'.join(map(str, self.lookup.sequences))}"


class Workshop:
    """Computes what is found nowhere, for one event loop. Close it.

    `computations` counts the questions that were computed in this process.
    """

    def __init__(self, settings: Settings, lake: HeldLake, shelf: Shelf, near: NearCache, worker: str) -> None:
        self.computations = 0
        self._library = Library(settings, lake)
        self._window = settings.window_rows
        self._lake = lake
        self._shelf = shelf
        self._near = near
        self._made_by = f"worker:{worker}"
        self._flights: Flights[Found] = Flights()
        self._lending = Lending()
        self.threads = Threads()
        self._under_way: dict[asyncio.Future[Found], _Miss] = {}
        self._waiting: dict[int, list[_Miss]] = {}
        self._flying: set[asyncio.Task[None]] = set()

    def begin(
        self, question: AnyQuestion, seen: Witness, lookup: Lookup | None, rank: int
    ) -> tuple[asyncio.Future[Found], bool]:
        """Have a question answered, and say whether the work is new: else it was under way. `lookup` is that in Redis.

        What is missed in one tick is computed together, if it is of one `rank` (0 is the most urgent).
        """
        future, is_new = self._flights.join((question.identity, self._rows(question), seen.sequences, seen.stamps))
        if not is_new:
            self._hurry(self._under_way[future], rank)
        else:
            if rank not in self._waiting:
                self._waiting[rank] = []
                asyncio.get_running_loop().call_soon(self._take_off, rank)
            is_usual = question.is_newest and (question.n or 0) <= self._window
            lookup = lookup if is_usual else None
            lent_at = None if lookup is not None else place_of(question.identity, self._rows(question), seen)
            miss = self._under_way[future] = _Miss(question, seen, future, rank, lookup, lent_at)
            future.add_done_callback(self._under_way.pop)
            self._waiting[rank].append(miss)
        return future, is_new

    def taken(self, question: AnyQuestion, lookup: Lookup, seen: Witness, raw: bytes | None) -> Found | None:
        """Take what Redis held into the near cache, if it is an answer and fresh."""
        blob = lookup.fresh(raw, newest_change(seen.stamps))
        if blob is None:
            return None
        kept = kept_blob(blob, replace(seen, sequences=blob.sequences or (blob.sequence,)))
        self._near.put(question.identity, kept)
        return Found("redis", kept, notes=tuple(lookup.notes))

    async def close(self) -> None:
        """Leave what is being computed."""
        flying = list(self._flying)
        for task in flying:
            task.cancel()
        await asyncio.gather(*flying, return_exceptions=True)
        self.threads.close()

    def _rows(self, question: AnyQuestion) -> int:
        return max(question.n or 0, self._window) if question.is_newest else 0

    def _hurry(self, miss: _Miss, rank: int) -> None:
        """Let work that is under way be as urgent as the most urgent who waits for it."""
        if rank < miss.rank:
            miss.rank = rank
            if miss.job is not None:
                self.threads.hurry(miss.job, rank)

    def _take_off(self, rank: int) -> None:
        task = asyncio.get_running_loop().create_task(self._fly(self._waiting.pop(rank)))
        self._flying.add(task)
        task.add_done_callback(self._flying.discard)

    async def _fly(self, misses: list[_Miss]) -> None:
        try:
            leased = {each.lease: each for each in misses if each.lease is not None}
            asked = [(lease, miss.made_at) for lease, miss in leased.items() if miss.made_at]
            told = dict(zip(leased, await self._shelf.lease(asked), strict=True))
            held = [lease for lease, (is_ours, _) in told.items() if is_ours]
            over = [lease for lease, (_, raw) in told.items() if self._settled(leased[lease], raw)]
            await self._shelf.let_go([each for each in held if each in over])
            theirs = [leased[each] for each in told if each not in held and each not in over]
            ours = [each for each in misses if not each.future.done() and each not in theirs]
            await asyncio.gather(self._wait_for(theirs), self._compute_all(ours, held))
        except Exception as failure:  # noqa: BLE001 (it is told, and logged)
            _fail(misses, failure)
        finally:
            for miss in misses:
                miss.future.cancel()  # what is settled stays so

    async def _wait_for(self, misses: list[_Miss]) -> None:
        """Wait while another worker computes; what it does not give in time, or at all, is computed here."""
        clock = asyncio.get_running_loop().time
        began, pause = clock(), _FIRST_PAUSE
        while misses and clock() - began < WAIT_SECONDS[min(each.rank for each in misses)]:
            await asyncio.sleep(pause)
            pause = min(pause * 1.5, _LONGEST_PAUSE)
            leased = await self._shelf.are_leased([each.lease for each in misses if each.lease])
            if leased is None:
                break
            over = [miss for miss, is_leased in zip(misses, leased, strict=True) if not is_leased]
            misses = [miss for miss, is_leased in zip(misses, leased, strict=True) if is_leased]
            made = await self._shelf.blobs([each.made_at for each in over if each.made_at]) or [None] * len(over)
            undone = [miss for miss, raw in zip(over, made, strict=True) if not self._settled(miss, raw)]
            await self._compute_all(undone)
        await self._compute_all(misses)

    def _settled(self, miss: _Miss, raw: bytes | None) -> bool:
        """Settle with what Redis holds by now, if it is fresh."""
        if miss.lookup is not None:
            found = self.taken(miss.question, miss.lookup, miss.witness, raw)
        else:
            kept = borrowed(raw, miss.witness)
            self._near.put(miss.question.identity, kept)
            found = None if kept is None else Found("redis", kept)
        if found is not None:
            _settle(miss, found)
        return found is not None

    async def _compute_all(self, misses: Iterable[_Miss], held: Sequence[str] = ()) -> None:
        """Compute in groups of what is made of the same bars; `held` are the leases that were got."""
        groups: dict[object, list[_Miss]] = defaultdict(list)
        for miss in misses:
            question = miss.question
            if isinstance(question, FeatureQuestion) and question.is_newest:
                groups[question.symbol, question.target.timeframe, self._rows(question)].append(miss)
            else:
                groups[question].append(miss)
        await asyncio.gather(*(self._compute_group(group, held) for group in groups.values()))

    async def _compute_group(self, group: list[_Miss], held: Sequence[str]) -> None:
        try:
            await self._computed(group, [each.lease for each in group if each.lease is not None and each.lease in held])
        except Exception as failure:  # noqa: BLE001 (it is told, and logged)
            _fail(group, failure)

    async def _computed(self, group: list[_Miss], leases: Sequence[str]) -> None:
        """Compute in a thread, renewing the leases; keep and publish what came out; tell whoever waits."""
        for miss in group:
            for need, sequence in zip(miss.question.needs, miss.witness.sequences or (), strict=False):
                if need.dataset == "bars":
                    self._lake.held.saw(need.key, sequence)
        began = time.perf_counter()
        job: Job[list[Found]] = self.threads.run(min(each.rank for each in group), partial(self._work, group))
        for miss in group:
            miss.job = job
        while not (await asyncio.wait({job.future}, timeout=LEASE_SECONDS / 3))[0]:
            await self._shelf.renew(leases)
        landed = job.future.result()
        took = {"compute": (time.perf_counter() - began) * 1000}
        self.computations += len(group)
        for miss, found in zip(group, landed, strict=True):
            self._near.put(miss.question.identity, found.kept or _kept_error(found, miss))
        notes = await self._publish(group, landed, leases)
        took["publish"] = (time.perf_counter() - began) * 1000 - took["compute"]
        for miss, found in zip(group, landed, strict=True):
            _settle(miss, replace(found, took_ms=took, notes=notes))

    async def _publish(self, group: list[_Miss], landed: list[Found], leases: Sequence[str]) -> tuple[str, ...]:
        payloads = [
            payload
            for miss, found in zip(group, landed, strict=True)
            if miss.lookup and found.kept and found.kept.blob
            for payload in sign([found.kept.blob], sequence=miss.lookup.sequences, made_by=self._made_by)
        ]
        lent = [
            (miss.lent_at, raw)
            for miss, found in zip(group, landed, strict=True)
            if miss.lent_at and found.kept and (raw := self._lending.lend(found.kept)) is not None
        ]
        failed = await self._shelf.publish(payloads, leases, lent)
        return () if failed is None else (f"The values could not be kept in Redis ({failed})",)

    # -- in a thread --------------------------------------------------------------------------------------------------

    def _work(self, group: list[_Miss]) -> list[Found]:
        """Compute a group; never raises."""
        before = self._lake.reads.count
        first = group[0].question
        is_newest = isinstance(first, FeatureQuestion) and first.is_newest
        found = self._newest(group) if is_newest else [self._single(miss) for miss in group]
        layer = "memory" if self._lake.reads.count == before else "lake"
        return [replace(each, layer=layer) for each in found]

    def _newest(self, group: list[_Miss]) -> list[Found]:
        questions = [each.question for each in group if isinstance(each.question, FeatureQuestion)]
        symbol, timeframe = questions[0].symbol, questions[0].target.timeframe
        specs, rows = [each.target.spec for each in questions], self._rows(questions[0])
        try:
            blobs = {each.spec_id: each for each in feature_blobs(self._lake, symbol, timeframe, specs, rows)}
            if not blobs:
                raise self._library.nothing(symbol, timeframe)
        except Exception as failure:  # noqa: BLE001 (each is told its own)
            if len(group) > 1:
                return [found for miss in group for found in self._newest([miss])]
            return [Found("lake", error=_told(failure, questions[0]))]
        made = (replace(blobs[each.target.blob_id], made_by=self._made_by) for each in questions)
        return [Found("lake", kept_blob(blob, miss.witness)) for miss, blob in zip(group, made, strict=True)]

    def _single(self, miss: _Miss) -> Found:
        try:
            done = compute(self._library, miss.question)
        except Exception as failure:  # noqa: BLE001 (it is told, and logged)
            return Found("lake", error=_told(failure, miss.question))
        part = msgspec.structs.replace(done.part, made_by=self._made_by)
        return Found("lake", kept_part(part, done.tally, miss.witness, done.until))


def _settle(miss: _Miss, found: Found) -> None:
    if not miss.future.done():
        miss.future.set_result(found)


def _fail(misses: Iterable[_Miss], failure: Exception) -> None:
    for miss in misses:
        if not miss.future.done():
            _settle(miss, Found("lake", error=_told(failure, miss.question)))


def _kept_error(found: Found, miss: _Miss) -> Kept | None:
    """Give what is kept of an error, for a while, so that a flood of such questions costs little."""
    if found.error is None or isinstance(found.error, RequestFailed):
        return None
    return Kept(miss.witness, error=found.error, until=time.time_ns() + ERRORS_KEPT_NS)


def _told(failure: Exception, question: AnyQuestion) -> PlatformError:
    """Give what is said of a failure; one that is no fault of the question is logged."""
    if isinstance(failure, PlatformError):
        return failure
    _log.error("Computing %s failed", question, exc_info=failure)
    return RequestFailed(
        f"Computing {question.feature} failed ({type(failure).__name__}: {failure})",
        remedy="This is a fault of the platform: the worker's log has more",
    )
