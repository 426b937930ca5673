"""The finder: the answers of questions, from the nearest place that has them.

1. The *witness* of a question are the sequences of all that it depends on, and the times of their folders in the lake.
   Sequences are first taken from what this process has heard (`serving.tracking`): what the near cache has, and such a
   witness vouches for, is answered at once, without asking Redis.
2. For the rest the sequences are read, by one `MGET` for all that is asked in a tick of the loop; and the near cache is
   looked at again.
3. Of what is left, blobs of newest rows are looked for in Redis, by one more `MGET`.
4. What is left then is computed (`workshop`), once for equal questions.

Everything is read after its witness was taken. So no answer of steps 2 to 4 is older than the last bump before the
call, and none of step 1 than the last bump of which the word had arrived: usually within a tenth of a millisecond, and
`tracking.BOUND_SECONDS` at most; where that is not proven, step 1 answers nothing. Nor is any answer older than the
last change of the lake before the call.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

from mdplatform.features.kinds import Need
from mdplatform.serving.lookup import Lookup
from mdplatform.settings import Settings
from mdplatform.worker.memory import HeldLake
from mdplatform.worker.near import NEAR_BYTES, Cut, NearCache, Witness
from mdplatform.worker.questions import AnyQuestion, FeatureQuestion
from mdplatform.worker.shelf import Shelf
from mdplatform.worker.workshop import Found, Workshop


@dataclass(frozen=True)
class Answered:
    """A question's answer, None where there is none; `computed_here` where it was computed for this very call."""

    cut: Cut | None
    found: Found
    computed_here: bool = False


class Finder:
    """Finds answers, inside one event loop. Close it."""

    def __init__(self, settings: Settings, lake: HeldLake, *, worker: str, near_bytes: int = NEAR_BYTES) -> None:
        self.near = NearCache(near_bytes)
        self._lake = lake
        self._shelf = Shelf(settings)
        self.workshop = Workshop(settings, lake, self._shelf, self.near, worker)

    async def find(self, ranked: Mapping[AnyQuestion, int], stages: dict[str, float]) -> dict[AnyQuestion, Answered]:
        """Give the answer of each question; its rank tells how urgent it is, 0 the most.

        `stages` gets how long each stage of looking took, in milliseconds.
        """
        answered: dict[AnyQuestion, Answered] = {}
        missed = self._from_near(ranked, self._heard(ranked), answered)
        if not missed:
            return answered
        witnesses, away = await self._witnesses(missed, stages)
        notes = () if away is None else (f"Redis was not used ({away}); memory and the lake answer",)
        missed = self._from_near(missed, witnesses, answered, notes)
        if missed:
            lookups = await self._from_redis(missed, witnesses, answered, stages)
            await self._computed({each: ranked[each] for each in missed}, witnesses, lookups, answered, notes)
        return answered

    async def close(self) -> None:
        """Leave what is being computed, and let go of Redis."""
        await self.workshop.close()
        await self._shelf.close()

    def _from_near(
        self,
        questions: Iterable[AnyQuestion],
        witnesses: Mapping[tuple[Need, ...], Witness],
        answered: dict[AnyQuestion, Answered],
        notes: tuple[str, ...] = (),
    ) -> list[AnyQuestion]:
        """Answer what is near, if its witness vouches for it; give the rest."""
        missed: list[AnyQuestion] = []
        for question in questions:
            witness = witnesses.get(question.needs)
            kept = None if witness is None else self.near.get(question.identity, question.n, witness)
            if kept is None:
                missed.append(question)
            elif kept.error is not None:
                answered[question] = Answered(None, Found("near", error=kept.error))
            else:
                answered[question] = self._answered(question, Found("near", kept, notes=notes))
        return missed

    def _heard(self, questions: Iterable[AnyQuestion]) -> dict[tuple[Need, ...], Witness]:
        """Give the witnesses of which all sequences are known without asking Redis."""
        keys = {question.needs: question.sequence_keys for question in questions}
        told = {needs: self._shelf.near_sequences(each) for needs, each in keys.items()}
        return self._seen({needs: tuple(each) for needs, each in told.items() if each is not None})

    async def _witnesses(
        self, questions: Sequence[AnyQuestion], stages: dict[str, float]
    ) -> tuple[dict[tuple[Need, ...], Witness], str | None]:
        """Give what vouches for values that depend on the same, and why Redis is of no use, None if it is."""
        began = time.perf_counter()
        keys = {
            need: key
            for question in questions
            for need, key in zip(question.needs, question.sequence_keys, strict=True)
        }
        told = await self._shelf.sequences(list(keys.values()))
        stages["redis"] = (time.perf_counter() - began) * 1000
        sequences = None if told is None else dict(zip(keys, told, strict=True))
        all_needs = {question.needs for question in questions}
        witnesses = self._seen(
            {needs: None if sequences is None else tuple([sequences[each] for each in needs]) for needs in all_needs}
        )
        return witnesses, (self._shelf.reason or "it does not answer") if told is None else None

    def _seen(self, sequences: Mapping[tuple[Need, ...], tuple[int, ...] | None]) -> dict[tuple[Need, ...], Witness]:
        """Give witnesses with these sequences, and the times of the folders as they are now."""
        seen_at = time.time_ns()
        stamps = {need: self._lake.stamp(need) for needs in sequences for need in needs}
        return {
            needs: Witness(told, tuple([stamps[need] for need in needs]), seen_at) for needs, told in sequences.items()
        }

    async def _from_redis(
        self,
        missed: list[AnyQuestion],
        witnesses: dict[tuple[Need, ...], Witness],
        answered: dict[AnyQuestion, Answered],
        stages: dict[str, float],
    ) -> dict[AnyQuestion, Lookup]:
        """Answer what Redis has; give the lookups of all that may lie there."""
        lookups: dict[AnyQuestion, Lookup] = {}
        for question in missed:
            known = witnesses[question.needs].sequences
            if isinstance(question, FeatureQuestion) and question.n is not None and question.is_newest and known:
                lookups[question] = Lookup(question.symbol, question.target, question.n, known)
        if not lookups:
            return {}
        began = time.perf_counter()
        held = await self._shelf.blobs([each.keys[0] for each in lookups.values()]) or [None] * len(lookups)
        stages["redis"] += (time.perf_counter() - began) * 1000
        for (question, lookup), raw in zip(lookups.items(), held, strict=True):
            found = self.workshop.taken(question, lookup, witnesses[question.needs], raw)
            if found is not None:
                answered[question] = self._answered(question, found)
        return lookups

    async def _computed(
        self,
        missed: Mapping[AnyQuestion, int],
        witnesses: dict[tuple[Need, ...], Witness],
        lookups: dict[AnyQuestion, Lookup],
        answered: dict[AnyQuestion, Answered],
        notes: tuple[str, ...],
    ) -> None:
        left = [question for question in missed if question not in answered]
        begun = [self.workshop.begin(each, witnesses[each.needs], lookups.get(each), missed[each]) for each in left]
        for question, (future, is_new) in zip(left, begun, strict=True):
            found = await asyncio.shield(future)  # others wait for it as well
            computed_here = is_new and found.kept is not None and bool(found.took_ms)
            answered[question] = self._answered(question, replace(found, notes=(*notes, *found.notes)), computed_here)

    def _answered(self, question: AnyQuestion, found: Found, computed_here: bool = False) -> Answered:
        if found.kept is None:
            return Answered(None, found)
        target = question.target if isinstance(question, FeatureQuestion) else None
        cut = self.near.cut(question.identity, found.kept, target, question.n)
        return Answered(cut, found, computed_here)
