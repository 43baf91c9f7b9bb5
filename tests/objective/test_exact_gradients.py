"""With ``loo`` the surrogate's expected gradient is the gradient of the objective; with ``paper`` it is not."""

import pytest
import torch

from tests.objective.exact import World, exact_gradient, expected_surrogate_gradient

SHAPES = [
    pytest.param(dict(contexts=2, anchors=1, actions=3, completions=2), id="1 anchor, 1 open, K=2"),
    pytest.param(dict(contexts=3, anchors=1, actions=3, completions=2), id="1 anchor, 2 open, K=2"),
    pytest.param(dict(contexts=3, anchors=2, actions=2, completions=3), id="2 anchors, 1 open, K=3"),
    pytest.param(dict(contexts=2, anchors=1, actions=3, completions=3), id="1 anchor, 1 open, K=3"),
    pytest.param(dict(contexts=2, anchors=1, actions=2, completions=4), id="1 anchor, 1 open, K=4"),
]


def relative_error(got: torch.Tensor, want: torch.Tensor) -> float:
    return float((got - want).norm() / want.norm())


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("seed", range(4))
def test_loo_air_equals_the_gradient_of_omega_air(shape: dict, seed: int) -> None:
    world = World.random(seed, **shape)
    # The weights ascend the reward, so their gradient is minus that of Omega; Omega's is 2 K-averaged, hence 2 / K.
    got = -2.0 / world.completions * expected_surrogate_gradient(world, "air", "loo")
    want = exact_gradient(world, "air")
    want[: world.anchors] = 0.0
    assert relative_error(got, want) < 1e-6
    assert torch.equal(got[: world.anchors], torch.zeros_like(got[: world.anchors]))


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("seed", range(4))
def test_loo_vrex_equals_the_gradient_of_the_variance_of_risks(shape: dict, seed: int) -> None:
    world = World.random(seed, **shape)
    got = -1.0 / world.completions * expected_surrogate_gradient(world, "vrex", "loo")
    assert relative_error(got, exact_gradient(world, "vrex")) < 1e-6


def test_the_papers_estimator_is_biased() -> None:
    """The bias that docs/estimators.md reports: K = 3, four random policies of four actions in an open context."""
    errors = []
    for seed in range(4):
        world = World.random(seed, contexts=2, anchors=1, actions=4, completions=3)
        got = -2.0 / world.completions * expected_surrogate_gradient(world, "air", "paper")
        errors.append(relative_error(got[1:], exact_gradient(world, "air")[1:]))
    assert min(errors) > 0.02
    assert max(errors) > 0.2
