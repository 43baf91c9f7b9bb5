"""What a recipe asks of a cluster, ports, and versions compared between nodes: no Ray needed."""

from __future__ import annotations

import socket

import pytest
from hypothesis import given
from hypothesis import strategies as st

from verl_air.cluster.nodes import (
    Node,
    ResourcePool,
    check_ports,
    connect,
    differing_versions,
    failed_checks,
    pools_of,
    shortfall,
)
from verl_air.errors import ConfigError


def test_the_pools_of_a_recipe_in_the_order_in_which_verl_places_them(compose) -> None:
    config = compose(
        "trainer.nnodes=2", "actor_rollout_ref.rollout.nnodes=1", "actor_rollout_ref.rollout.n_gpus_per_node=4"
    )
    judge = {"nnodes": 1, "n_gpus_per_node": 2, "enable": True, "enable_resource_pool": True}
    config.reward.reward_model.update(judge)
    assert pools_of(config) == (
        ResourcePool("trainer", 2, 1),
        ResourcePool("rollout", 1, 4),
        ResourcePool("reward model", 1, 2),
    )
    assert pools_of(compose("reward.reward_model.enable=False")) == (ResourcePool("trainer", 1, 1),)


def test_a_shortfall_names_the_pool() -> None:
    pools = [ResourcePool("trainer", 2, 6), ResourcePool("reward model", 2, 2)]
    assert shortfall(pools, {"a": 8, "b": 8}) is None
    assert shortfall(pools, {"a": 8}) == "1 of the 2 node(s) with 6 free GPU(s) that the trainer pool needs"
    assert (
        shortfall(pools, {"a": 8, "b": 7}) == "1 of the 2 node(s) with 2 free GPU(s) that the reward model pool needs"
    )
    assert shortfall(pools, {}) == "0 of the 2 node(s) with 6 free GPU(s) that the trainer pool needs"


pool_lists = st.lists(
    st.builds(ResourcePool, st.just("p"), st.integers(1, 4), st.integers(1, 8)), min_size=1, max_size=3
)
clusters = st.dictionaries(st.text("abcdef", min_size=1), st.integers(0, 8), max_size=8)


@given(pool_lists, clusters)
def test_what_is_placed_never_needs_more_gpus_than_there_are(pools: list[ResourcePool], nodes: dict[str, int]) -> None:
    if shortfall(pools, nodes) is None:
        assert sum(pool.nodes * pool.gpus for pool in pools) <= sum(nodes.values())
        assert all(sum(gpus >= pool.gpus for gpus in nodes.values()) >= 1 for pool in pools)


@given(pool_lists, clusters)
def test_a_node_for_each_share_is_always_enough(pools: list[ResourcePool], nodes: dict[str, int]) -> None:
    spare = {f"spare-{i}-{j}": pool.gpus for i, pool in enumerate(pools) for j in range(pool.nodes)}
    assert shortfall(pools, {**dict.fromkeys(nodes, 0), **spare}) is None


def test_a_mismatch_names_package_versions_and_nodes() -> None:
    same = {"verl": "0.9.1", "torch": "2.13.0"}
    assert differing_versions({"a": same, "b": same}) == []
    assert differing_versions({"a": same, "b": {**same, "torch": "2.11.0"}, "c": same}) == [
        "torch: 2.13.0 on a, c; 2.11.0 on b: install the same environment on every node"
    ]
    (fault,) = differing_versions({"a": {**same, "vllm": "0.24"}, "b": same})
    assert fault.startswith("vllm: 0.24 on a; not installed on b")


def test_failed_checks_of_a_diagnosis() -> None:
    statuses = {"plugin": "ok", "machine": "FAIL", "memory": "skip"}
    checks = [{"name": name, "status": status, "text": "why"} for name, status in statuses.items()]
    assert failed_checks({"versions": {}, "checks": checks}) == ["machine: why"]


def test_an_unreachable_head_is_reported_in_bounded_time() -> None:
    with pytest.raises(ConfigError, match=r"no Ray head answers at 127\.0\.0\.1:9 after 1 s"):
        connect("127.0.0.1:9", timeout=1)
    with pytest.raises(ConfigError, match="write HOST:PORT"):
        connect("localhost", timeout=1)


def test_a_closed_port_of_a_node_is_named() -> None:
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        listening.listen()
        port = listening.getsockname()[1]
        check_ports([Node("abcdef0", "node1", "127.0.0.1", 8, (port,))])
        with pytest.raises(ConfigError, match=r"node1 \(127.0.0.1, 8 GPU, id abcdef\): Ray's port 9 cannot be reached"):
            check_ports([Node("abcdef0", "node1", "127.0.0.1", 8, (port, 9))])
