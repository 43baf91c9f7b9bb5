"""The GPUs that a recipe asks for, and whether the nodes at hand can hold them. Pure arithmetic; knows no Ray."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from omegaconf import DictConfig, OmegaConf


@dataclass(frozen=True)
class Pool:
    """``nodes`` times ``gpus`` GPUs, each share on one node, as verl's resource pools are placed."""

    name: str
    nodes: int
    gpus: int

    def __str__(self) -> str:
        return f"{self.name} {self.nodes} x {self.gpus}"


def pools_of(config: DictConfig) -> tuple[Pool, ...]:
    """The resource pools of a composed recipe, in the order in which verl places them.

    verl: ``PPOTrainer._init_resource_pool_mgr`` (trainer/ppo/v1/trainer_base.py) and, for a rollout pool of its own,
    ``actor_rollout_ref.rollout.nnodes``.
    """
    trainer, judge, rollout = config.trainer, config.reward.reward_model, config.actor_rollout_ref.rollout
    pools = [Pool("trainer", int(trainer.nnodes), int(trainer.n_gpus_per_node))]
    if int(OmegaConf.select(rollout, "nnodes", default=0) or 0) > 0:
        pools.append(Pool("rollout", int(rollout.nnodes), int(rollout.n_gpus_per_node)))
    if judge.enable and judge.enable_resource_pool:
        pools.append(Pool("reward model", int(judge.nnodes), int(judge.n_gpus_per_node)))
    return tuple(pools)


def shortfall(pools: Sequence[Pool], gpus_of_node: Mapping[str, int]) -> str | None:
    """What the nodes lack, or None if every share of every pool finds a node.

    Shares are placed one after another on the node with the fewest GPUs that suffice, which is what Ray does with
    placement groups of one node each.
    """
    free = dict(gpus_of_node)
    for pool in pools:
        for share in range(pool.nodes):
            fitting = [name for name, gpus in free.items() if gpus >= pool.gpus]
            if not fitting:
                return (
                    f"{share} of the {pool.nodes} node(s) with {pool.gpus} free GPU(s) that the {pool.name} pool needs"
                )
            free[min(fitting, key=lambda name: (free[name], name))] -= pool.gpus
    return None
