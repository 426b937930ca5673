"""Strategies' requests on the embedded Valkey, and ticks of the sensors on the home's own Dagster instance."""

from __future__ import annotations

import asyncio
import shutil
import time
from collections.abc import Iterator, Sequence
from functools import cache
from pathlib import Path
from typing import Any

import dagster as dg
import pytest

from mdplatform.definitions import defs
from mdplatform.lake import Lake
from mdplatform.messaging import registry
from mdplatform.messaging.priority import DataPriority
from mdplatform.messaging.redis.desk import RedisDesk
from mdplatform.messaging.transport import Delivery, Envelope, Reply, Wanted
from mdplatform.requests import wanted, wire
from mdplatform.requests.answer import AnswerBody, Progress
from mdplatform.requests.ids import new_id
from mdplatform.requests.request import DataRequest
from mdplatform.requests.wanted import Made, RunWanted
from mdplatform.resources import DeskResource, LakeResource, SettingsResource
from mdplatform.runs import open_instance
from mdplatform.settings import Settings

DEFINITIONS: dg.Definitions = defs() if callable(defs) else defs
job_named = cache(DEFINITIONS.resolve_job_def)


class Strategies:
    """What strategies and a worker do, one step at a time."""

    def __init__(self, settings: Settings) -> None:
        self._runner = asyncio.Runner()
        self._asker = self._run(self._made(lambda: registry.asker(settings)))
        self._worker = self._run(self._made(lambda: registry.answerer(settings, "worker-1")))

    def _run(self, what: Any) -> Any:
        return self._runner.run(what)

    @staticmethod
    async def _made(make: Any) -> Any:
        return make()

    def send(
        self,
        priority: DataPriority = DataPriority.NORMAL,
        seconds: float = 60,
        strategy: str = "momentum",
        standing: bool = False,
    ) -> str:
        """Send a request, and leave it in its queue."""
        return self.send_many([strategy], priority, seconds, standing)[0]

    def send_many(
        self,
        strategies: Sequence[str],
        priority: DataPriority = DataPriority.NORMAL,
        seconds: float = 60,
        standing: bool = False,
    ) -> list[str]:
        """Send a request for each of these strategies, and leave them in their queue."""
        now = time.time_ns() // 1000
        deadline = now + round(seconds * 1e6)
        envelopes = [
            Envelope(
                id=new_id(),
                priority=priority,
                deadline=deadline,
                sent_at=now,
                body=b"",
                strategy=strategy,
                standing=standing,
            )
            for strategy in strategies
        ]
        assert all(receipt.admitted for receipt in self._run(self._asker.send(envelopes)))
        return [each.id for each in envelopes]

    def ask(self, request: DataRequest) -> str:
        """Send a request that a real worker can answer."""
        envelope = Envelope(
            id=request.request_id,
            priority=request.priority,
            deadline=request.deadline,
            sent_at=request.sent_at,
            body=wire.encode_request(request),
            strategy=request.strategy_id,
        )
        assert self._run(self._asker.send([envelope]))[0].admitted
        return envelope.id

    def take(self) -> list[Delivery]:
        """Take what is in the queues, as a worker."""
        taken = self._run(self._worker.take(dict.fromkeys(DataPriority, 5_000), 1.0))
        return [each for each in taken if isinstance(each, Delivery)]

    def park(self, delivery: Delivery, partitions: dict[str, list[str]]) -> None:
        """Let a request wait for a run, as a worker."""
        self._run(self._parked([delivery], partitions))

    def want_many(self, strategies: Sequence[str], partitions: dict[str, list[str]]) -> list[str]:
        """Send a request for each of these strategies that a worker lets wait for runs of these partitions."""
        ids = self.send_many(strategies)
        deliveries = self.take()
        assert len(deliveries) == len(ids)
        self._run(self._parked(deliveries, partitions))
        return ids

    async def _parked(self, deliveries: Sequence[Delivery], partitions: dict[str, list[str]]) -> None:
        await asyncio.gather(*(self._park(each, partitions) for each in deliveries))

    async def _park(self, delivery: Delivery, partitions: dict[str, list[str]]) -> None:
        envelope = delivery.envelope
        entry = RunWanted(
            request_id=envelope.id,
            strategy_id=envelope.strategy,
            priority=envelope.priority,
            partitions={asset: tuple(keys) for asset, keys in partitions.items()},
            deadline=envelope.deadline,
        )
        needs = [wanted.need(asset, key.partition("/")[0]) for asset, keys in partitions.items() for key in keys]
        await self._worker.park(delivery, needs, Wanted(body=wanted.encode(entry), needs=tuple(needs)))

    def want(self, partitions: dict[str, list[str]], **of_request: Any) -> str:
        """Send a request that a worker lets wait for runs of these partitions; give its id."""
        id = self.send(**of_request)
        (delivery,) = self.take()
        self.park(delivery, partitions)
        return id

    def want_raw(self, body: bytes) -> str:
        """Let a request want something that cannot be read."""
        id = self.send()
        (delivery,) = self.take()
        self._run(self._worker.park(delivery, ["bars/BTCUSDT"], Wanted(body=body, needs=("bars/BTCUSDT",))))
        return id

    def made(self, *entries: Made | bytes) -> None:
        """Report what a worker computed."""
        self._run(self._worker.report([each if isinstance(each, bytes) else wanted.encode(each) for each in entries]))

    def beat(self) -> None:
        """Say that the worker lives."""
        self._run(self._worker.beat({"taken": 1}, 15.0))

    def replies(self) -> list[tuple[str, Progress | AnswerBody]]:
        """Give what has come back so far."""
        found: list[Reply] = self._run(self._asker.receive(0.2))
        return [(each.id, wire.decode_reply(each.body)) for each in found]

    def close(self) -> None:
        self._run(self._asker.close())
        self._run(self._worker.close())
        self._runner.close()


class Ticks:
    """The ticks of the sensors, each from the cursor that the one before left, as the daemon makes them."""

    def __init__(self, settings: Settings, instance: dg.DagsterInstance) -> None:
        self.instance = instance
        self.cursors: dict[str, str | None] = {}
        resource = SettingsResource(home=str(settings.home))
        self._desk = DeskResource(settings=resource, wait_seconds=0.0)
        self._resources = {"settings": resource, "lake": LakeResource(settings=resource), "desk": self._desk}
        self._repository = DEFINITIONS.get_repository_def()

    def evaluate(self, name: str, cursor: str | None = None) -> Any:
        """Evaluate a sensor; nothing of it is stored."""
        sensor = self._repository.get_sensor_def(name)
        with dg.build_sensor_context(
            instance=self.instance, cursor=cursor, resources=self._resources, repository_def=self._repository
        ) as context:
            return sensor.evaluate_tick(context)

    def tick(self, name: str) -> Any:
        """Evaluate a sensor from its cursor, add what it adds to the partitions, and store the cursor."""
        data = self.evaluate(name, self.cursors.get(name))
        for event in data.asset_events:
            self.instance.report_runless_asset_event(event)
        for request in data.dynamic_partitions_requests or []:
            self.instance.add_dynamic_partitions(request.partitions_def_name, list(request.partition_keys))
        self.cursors[name] = data.cursor
        return data

    def sweep(self) -> Any:
        """Let `data_requests` drop what it has read, and `open_requests` look."""
        self.tick("data_requests")
        return self.tick("open_requests")

    def launch(self, data: Any, status: dg.DagsterRunStatus = dg.DagsterRunStatus.NOT_STARTED) -> list[dg.DagsterRun]:
        """Make runs of what a tick asks for; one of the same key is there already."""
        return [
            self.instance.create_run_for_job(
                job_named(request.job_name),
                run_config=request.run_config,
                tags={**request.tags, "dagster/run_key": request.run_key},
                status=status,
            )
            for request in data.run_requests
            if not self.instance.get_runs(dg.RunsFilter(tags={"dagster/run_key": request.run_key}), limit=1)
        ]

    def execute(self, request: dg.RunRequest) -> dg.DagsterRun:
        """Make the run that a tick asks for, from its source to its end."""
        result = job_named(request.job_name).execute_in_process(
            run_config=request.run_config, instance=self.instance, tags=dict(request.tags), raise_on_error=False
        )
        run = self.instance.get_run_by_id(result.run_id)
        assert run is not None
        return run

    def close(self) -> None:
        self._desk.close()


@pytest.fixture
def settings(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> Settings:
    """A fresh home whose bars come from the simulated market."""
    monkeypatch.setenv("MDPLATFORM_DATA_SOURCE", "simulated")
    monkeypatch.setenv("MDPLATFORM_REQUEST_CAPACITY", "5000")
    return Settings.load()


@pytest.fixture
def lake(settings: Settings) -> Lake:
    """The home's lake."""
    return Lake(settings.lake_dir)


@pytest.fixture
def strategies(settings: Settings) -> Iterator[Strategies]:
    """Strategies and a worker on the home."""
    made = Strategies(settings)
    yield made
    made.close()


@pytest.fixture(scope="session")
def dagster_home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Dagster's home with its tables, to be copied and never written."""
    home = tmp_path_factory.mktemp("sensors") / "home"
    with pytest.MonkeyPatch.context() as environment:
        environment.setenv("MDPLATFORM_HOME", str(home))
        environment.setenv("DAGSTER_HOME", str(home))
        made = Settings.load()
        open_instance(made).dispose()
        return made.dagster_dir


@pytest.fixture
def ticks(settings: Settings, strategies: Strategies, dagster_home: Path) -> Iterator[Ticks]:
    """The sensors on the home's own instance."""
    shutil.copytree(dagster_home, settings.dagster_dir)
    instance = open_instance(settings)
    made = Ticks(settings, instance)
    yield made
    made.close()
    instance.dispose()


@pytest.fixture
def desk(settings: Settings) -> Iterator[RedisDesk]:
    """The run path's side of the requests."""
    with registry.desk(settings) as opened:
        yield opened
