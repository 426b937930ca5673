"""The platform's home: the folder that holds the lake, Dagster's home and the embedded Valkey; made on first use."""

from __future__ import annotations

import os
from pathlib import Path

from mdplatform.errors import InvalidSetting
from mdplatform.settings import Settings

DAGSTER_YAML = """\
# Written by mdplatform when the home is made; change it freely, it is not written again.
telemetry:
  enabled: false
nux:
  enabled: false

# Runs wait in a queue; at most two at a time, and those that write the lake share one pool.
concurrency:
  runs:
    max_concurrent_runs: 2
  pools:
    default_limit: 2
    granularity: run

# A run that does not start, or does not end, is marked as failed. Runs whose process was killed are found by the sensor
# `left_behind`. Runs for requests have a shorter time, by a tag.
run_monitoring:
  enabled: true
  start_timeout_seconds: 180
  max_runtime_seconds: 21600
  poll_interval_seconds: 30

# A run that a strategy waits for starts within a second of being queued (the default is 5).
run_queue:
  dequeue_interval_seconds: 1
  dequeue_use_threads: true
  dequeue_num_workers: 2

# Each sensor has a thread of its own: `data_requests` waits for requests inside its tick.
schedules:
  use_threads: true
  num_workers: 4
sensors:
  use_threads: true
  num_workers: 8
  num_submit_workers: 2

# Ticks of schedules and sensors are kept so many days.
retention:
  schedule:
    purge_after_days: 30
  sensor:
    purge_after_days:
      skipped: 2
      failure: 30
      success: 30
"""


def prepare_home(settings: Settings) -> Path:
    """Make Dagster's home with its `dagster.yaml`, and give the folder.

    Puts the settings and `DAGSTER_HOME` into this process's environment: Dagster and its children read them there.
    """
    folder = settings.dagster_dir
    try:
        folder.mkdir(parents=True, exist_ok=True)
        configuration = folder / "dagster.yaml"
        if not configuration.exists():
            temporary = folder / f".dagster.yaml.{os.getpid()}.tmp"
            temporary.write_text(DAGSTER_YAML)
            temporary.replace(configuration)
    except OSError as refused:
        raise InvalidSetting(
            f"The home cannot be written ({refused.strerror})",
            value=str(settings.home),
            remedy="Set MDPLATFORM_HOME to a folder that you may write",
        ) from refused
    settings.export()
    os.environ["DAGSTER_HOME"] = str(folder)
    return folder
