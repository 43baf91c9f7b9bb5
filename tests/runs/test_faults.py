"""Faults injected into real runs: no partial group is trained, no reward is invented, no run hangs.

Each run is sound before its fault. It either survives, or ends with a named cause and a status within two minutes of
the fault. The table of docs/cluster.md says what was seen.
"""

from __future__ import annotations

import contextlib
import os
import random
import re
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest

from tests.runs.faults import Fault, StandIn, assert_sound, ends, part_of, scored_by, steps
from tests.runs.faulty_rewards import is_faulty
from tests.runs.launch import KWARGS, Process, Run, main_ppo, wait_for_step

pytestmark = [pytest.mark.slow, pytest.mark.verl_run, pytest.mark.exhaustive, pytest.mark.timeout(900)]

KILLS = int(os.environ.get("FAULT_KILLS", "20"))
SEED = int(os.environ.get("FAULT_SEED", "20"))


# ----------------------------------------------------------------------------------------- rewards that do not return


@pytest.mark.parametrize("reward", ["sleeps_in_the_loop", "backtracks"])
def test_a_reward_that_blocks_its_workers_event_loop_ends_the_run(
    reward: str, playground_files: Path, tmp_path: Path
) -> None:
    mark = tmp_path / "now"
    run = ends(tmp_path / "run", playground_files, lambda _: mark.touch(), *scored_by(reward, mark=mark), *steps(40))
    assert "a process that rollouts need has died" in run.log
    assert "RewardLoopWorker" in run.log
    assert "Timeout (0:01:20)!" in run.log
    assert f"in {reward}" in run.log


# ------------------------------------------------------------------------------------------------ processes that die

PARTS = {
    "agent-loop actor": ("ray::NotingAgentLoopWorker", "verl-air: NotingAgentLoopWorker (process"),
    "engine of the rollout actor": ("VLLM::EngineCore", "verl-air: vLLMHttpServer (process"),
    "worker of the rollout actor": ("VLLM::Worker", "verl-air: vLLMHttpServer (process"),
    "rollout actor": ("ray::vLLMHttpServer", "verl-air: vLLMHttpServer (process"),
    "reward actor": ("ray::RewardLoopWorker", "class_name: RewardLoopWorker"),
    "actor of the policy": ("ray::WorkerDict", "WorkerDict"),
}


@pytest.mark.parametrize("part", PARTS)
def test_a_process_that_is_killed_ends_the_run(part: str, playground_files: Path, tmp_path: Path) -> None:
    """While rewards are awaited: the rollout engine has no request, and is missed by the next transfer of weights."""
    name, cause = PARTS[part]

    def kill(process: Process) -> None:
        time.sleep(3.0)
        part_of(process, name).kill()

    run = ends(tmp_path, playground_files, kill, *scored_by("slow"), *steps(40))
    assert cause in run.log


# --------------------------------------------------------------------------------------------------------- no memory

KILLED_FOR_MEMORY = "the system has killed 1 process(es) for memory"


@pytest.fixture
def memory_group() -> Iterator[Callable[[int, int], None]]:
    """Limits a process's memory as a machine would: the kernel kills it."""
    folder = Path("/sys/fs/cgroup/memory") / f"verl-air-{os.getpid()}"
    try:
        folder.mkdir()
    except OSError as error:
        pytest.skip(f"no memory cgroup of our own: {error}")

    def limit(pid: int, size: int) -> None:
        (folder / "memory.limit_in_bytes").write_text(str(size))
        (folder / "cgroup.procs").write_text(str(pid))

    yield limit
    folder.rmdir()


def test_a_reward_that_leaks_memory_ends_the_run(
    memory_group: Callable[[int, int], None], playground_files: Path, tmp_path: Path
) -> None:
    mark = tmp_path / "now"

    def leak(process: Process) -> None:
        memory_group(part_of(process, "ray::RewardLoopWorker").pid, 512 << 20)
        mark.touch()

    run = ends(tmp_path / "run", playground_files, leak, *scored_by("leaks", mark=mark), *steps(40))
    assert "verl-air: RewardLoopWorker (process" in run.log
    assert KILLED_FOR_MEMORY in run.log


def test_a_worker_that_is_killed_for_memory_ends_the_run(
    memory_group: Callable[[int, int], None], playground_files: Path, tmp_path: Path
) -> None:
    def squeeze(process: Process) -> None:
        memory_group(part_of(process, "ray::WorkerDict").pid, 4 << 20)

    run = ends(tmp_path, playground_files, squeeze, *scored_by("by_its_letters"), *steps(40))
    assert "verl-air: WorkerDict (process" in run.log
    assert KILLED_FOR_MEMORY in run.log


# --------------------------------------------------------------------------------------------------- a judge that fails


@pytest.fixture
def stand_in(tmp_path: Path) -> Iterator[StandIn]:
    judge = StandIn(tmp_path / "mood")
    yield judge
    judge.kill()


def test_a_judge_that_is_away_is_waited_for_and_one_that_gives_no_verdicts_ends_the_run(
    stand_in: StandIn, playground_files: Path, tmp_path: Path
) -> None:
    """Garbage for 30 s; killed in a step and restarted 20 s later; at last, well-formed answers without a verdict."""
    folder = tmp_path / "run"

    def trouble(process: Process) -> None:
        stand_in.answer("garbage")
        time.sleep(30.0)
        stand_in.answer("well")
        wait_for_step(folder, 3, process)
        stand_in.kill()
        time.sleep(20.0)
        stand_in.start()
        wait_for_step(folder, 6, process)

    def no_verdicts(process: Process) -> None:
        trouble(process)
        stand_in.answer("no verdict")
        fault.began_now()

    fault = Fault(folder, no_verdicts)
    options = (*stand_in.asked(attempts=14), *steps(40))
    run = main_ppo(folder, playground_files, *options, fails=True, meanwhile=fault)
    fault.assert_ended(run)
    assert "RewardError: the judge abstained:" in run.log
    assert "air.max_abstain_rate is 20%" in run.log
    abstained = {step: sum(row["abstained"] for row in run.rollouts(step)) for step in run.metrics()}
    print("abstained rows by step:", abstained)
    assert sum(abstained[step] for step in (1, 2, 3)) > 0, "a garbage answer without a verdict was among those of 30 s"
    assert sum(abstained[step] for step in (4, 5, 6)) == 0, "a judge that is down for a while costs no row"


# ------------------------------------------------------------------- checkpoints: the prompts that follow are the same

STEPS = 3 * KILLS + 2


@pytest.fixture(scope="module")
def undisturbed(playground_files: Path, tmp_path_factory: pytest.TempPathFactory) -> Run:
    """A run that nothing happens to."""
    folder = tmp_path_factory.mktemp("undisturbed")
    return main_ppo(folder, playground_files, *scored_by("by_its_letters"), *steps(STEPS))


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A disk of 200 MiB."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=200m", "tmpfs", folder], check=False)
    if mounted.returncode != 0:
        pytest.skip("no right to mount a small disk")
    yield folder
    subprocess.run(["umount", "-l", folder], check=True)


def test_a_full_disk_ends_a_run_whose_rewards_hang_and_the_last_whole_checkpoint_is_resumed(
    small_disk: Path, undisturbed: Run, playground_files: Path, tmp_path: Path
) -> None:
    """A reward that hangs on a tenth of the rows costs these rows, and the time that the recipe allows."""
    folder, filler = tmp_path / "run", small_disk / "filler"
    patience = (f"++{KWARGS}.judge.deadline_s=10", "++air.max_abstain_rate=0.6")
    options = (*scored_by("a_tenth_hangs"), *patience, f"trainer.default_local_dir={small_disk}/checkpoints")

    def fill(_: Process) -> None:
        with filler.open("wb") as file, contextlib.suppress(OSError):
            while True:
                file.write(bytes(1 << 16))

    full = ends(folder, playground_files, fill, *options, *steps(40, save_every=1), after_step=4)
    assert re.search(
        r"CheckpointError: the checkpoint of step \d+ could not be written to \S+, which has 0 MiB free", full.log
    )
    done = len(full.metrics())
    filler.unlink()
    resumed = main_ppo(folder, playground_files, *options, *steps(done + 2, save_every=1))
    assert_sound(resumed)
    assert len(resumed.metrics()) == done + 2
    assert_same_prompts(resumed, undisturbed)

    abstained = [row for step in resumed.metrics() for row in resumed.rollouts(step) if row["abstained"]]
    assert abstained
    assert all(is_faulty(row["index"]) for row in abstained)
    assert re.search(r"reward 'a_tenth_hangs' abstains on row \d+ .*TimeoutError", full.log)


def assert_same_prompts(run: Run, undisturbed: Run) -> None:
    """Step by step, and each step once."""
    assert len(steps_done(run.folder)) == len(run.metrics())
    for step in run.metrics():
        assert run.prompts(step) == undisturbed.prompts(step), step


@pytest.mark.timeout(3600)
def test_runs_killed_at_random_moments_train_on_the_same_prompts(
    undisturbed: Run, playground_files: Path, tmp_path: Path
) -> None:
    """A fifth of the kills falls in a start, a fifth in the writing of a checkpoint, the others in any phase of a step.

    ``FAULT_KILLS`` is their number (20), ``FAULT_SEED`` what draws the moments (20).
    """
    rng, moments = random.Random(SEED), []
    options = (*scored_by("by_its_letters"), *steps(STEPS, save_every=1), "trainer.max_actor_ckpt_to_keep=2")
    folder = tmp_path / "killed"

    def kill(process: Process) -> None:
        moments.append(wait_for_a_moment(process, folder, rng))
        everything = [psutil.Process(process.pid), *psutil.Process(process.pid).children(recursive=True)]
        for part in everything:
            with contextlib.suppress(psutil.NoSuchProcess):
                part.kill()
        psutil.wait_procs(everything[1:], timeout=30)

    for _ in range(KILLS):
        began = time.monotonic()
        killed = main_ppo(folder, playground_files, *options, fails=True, meanwhile=kill)
        assert killed.status == -signal.SIGKILL
        print(f"{moments[-1]}; {len(steps_done(folder))} steps done; {time.monotonic() - began:.0f} s", flush=True)
    resumed = main_ppo(folder, playground_files, *options)
    assert len(resumed.metrics()) == STEPS
    assert_same_prompts(resumed, undisturbed)
    assert_sound(resumed)


def steps_done(folder: Path) -> list[str]:
    metrics = folder / "metrics.jsonl"
    return metrics.read_text().splitlines() if metrics.is_file() else []


def wait_for_a_moment(process: Process, folder: Path, rng: random.Random) -> str:
    """Return when the run is to be killed, with words for it."""
    phase = rng.choice(["start", "checkpoint", "step", "step", "step"])
    if phase == "start":
        seconds = rng.uniform(0.0, 30.0)
        time.sleep(seconds)
        return f"{seconds:.1f} s after its start"
    checkpoints, tracker = folder / "checkpoints", folder / "checkpoints" / "latest_checkpointed_iteration.txt"
    trained = len(steps_done(folder))
    while len(steps_done(folder)) <= trained:
        assert process.poll() is None, (folder / "train.log").read_text()[-4000:]
        time.sleep(0.05)
    if phase == "step":
        seconds = rng.uniform(0.0, 2.5)
        time.sleep(seconds)
        return f"{seconds:.1f} s after a step"
    step = int(tracker.read_text()) + 1
    while not (checkpoints / f"global_step_{step}").exists():
        assert process.poll() is None, f"the run ended before the checkpoint of step {step}"
        time.sleep(0.005)
    return f"while the checkpoint of step {step} was written"
