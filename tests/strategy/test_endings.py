"""What a request reads at its deadline says what it waited for."""

from __future__ import annotations

import time

import pytest

from mdplatform.messaging.priority import DataPriority
from mdplatform.messaging.transport import Record
from mdplatform.requests.answer import Progress, Status
from mdplatform.strategy import endings
from mdplatform.strategy.pending import Pending
from mdplatform.worker.endings import expired


def waiting(stage: str, run_id: str = "") -> Pending:
    pending = Pending("r", "s", DataPriority.NORMAL, time.time_ns() // 1000, 0.0)
    pending.progress = Progress(request_id="r", stage=stage, run_id=run_id) if stage else None
    return pending


@pytest.mark.parametrize(
    ("stage", "run_id", "cause", "remedy"),
    [
        ("", "", "The deadline has passed", "Is a worker running"),
        ("waiting_for_run", "", "while it waited for a run", "Does Dagster run"),
        ("run_requested", "", "while it waited for a run", "Does Dagster run"),
        ("run_started", "4f1c", "while it waited for run 4f1c", "The run goes on"),
    ],
)
def test_a_strategy_reads_which_run_its_request_waited_for(stage, run_id, cause, remedy):
    answer = endings.overdue(waiting(stage, run_id))
    assert (answer.status, answer.problem.error) == (Status.FAILED, "DeadlinePassed")
    assert cause in answer.problem.cause
    assert remedy in answer.problem.remedy


@pytest.mark.parametrize(("stage", "holder", "cause"), [("queued", "", "passed"), ("parked", "bars/X", "bring bars/X")])
def test_a_worker_says_what_a_run_was_to_bring(stage, holder, cause):
    record = Record(
        id="r", priority=DataPriority.LOW, strategy="s", label="", stage=stage, sent_at=0, deadline=1, holder=holder
    )
    assert expired(record).problem.cause.endswith(cause)
