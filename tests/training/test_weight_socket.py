"""Weights of two runs on one machine go to the rollout engine of their own run: verl's own sender and receiver."""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Callable
from pathlib import Path
from threading import Thread
from typing import Any

import pytest
import torch
from verl.workers.rollout.vllm_rollout.bucketed_weight_transfer import BucketedWeightReceiver, BucketedWeightSender

RUNS = ("one", "two")


def in_background(function: Callable[..., Any], *args: Any) -> Thread:
    thread = Thread(target=function, args=args, daemon=True)
    thread.start()
    return thread


def test_weights_of_two_runs_do_not_meet(monkeypatch: pytest.MonkeyPatch) -> None:
    """Ray's job id is the same in both. The second sender binds before the first one's receiver has connected."""
    verls = f"ipc:///tmp/rl-colocate-zmq-{os.getpid()}-replica-0-rank-0.sock"
    received: dict[str, float] = {}
    senders, receivers = [], []
    for number, run in enumerate(RUNS):
        monkeypatch.setenv("VERL_AIR_RUN", run)
        sender = BucketedWeightSender(verls, bucket_size_mb=1, use_shm=True)
        receivers.append(BucketedWeightReceiver(verls, torch.device("cpu"), use_shm=True))
        weights = iter([("w", torch.full((3,), float(number)))])
        senders.append(in_background(asyncio.run, sender.async_send_weights(weights)))
        while not Path(sender.zmq_handle.removeprefix("ipc://")).exists():
            time.sleep(0.01)
    for run, receiver in zip(RUNS, receivers, strict=True):

        def keep(weights: list[tuple[str, torch.Tensor]], is_last: bool, run: str = run) -> None:
            received[run] = float(weights[0][1][0])

        in_background(receiver.receive_weights, keep).join(timeout=30)
    assert received == {"one": 0.0, "two": 1.0}
    for sender in senders:
        sender.join(timeout=30)
        assert not sender.is_alive()
