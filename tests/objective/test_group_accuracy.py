"""Group accuracy on a few meta-groups, by hand."""

import numpy as np
import pytest

from verl_air.objective import group_accuracy

NAN = float("nan")


@pytest.mark.parametrize(
    ("acc", "prompt", "size", "right", "wrong", "incomplete"),
    [
        ([1, 1, 1], [0, 1, 2], None, 1.0, 0.0, False),
        ([1, 0, 1], [0, 1, 2], 3, 0.0, 0.0, False),
        ([0, 0, 0], [0, 1, 2], 3, 0.0, 1.0, False),
        ([1, 1], [0, 1], 3, 0.0, 0.0, True),  # a row is missing
        ([0, 0], [0, 1], 3, 0.0, 0.0, True),
        ([1, 1], [0, 1], 0, 1.0, 0.0, False),  # its size is not known
        ([1, NAN], [0, 1], 2, 0.0, 0.0, True),  # a row has no verdict
        ([1, 0, 1, 1], [0, 0, 1, 1], 4, 0.5, 0.0, False),  # two completions per prompt
        ([1, 1, 1], [0, 0, 1], 4, 0.0, 0.0, True),  # a completion is missing
    ],
)
def test_a_group(
    acc: list[float], prompt: list[int], size: int | None, right: float, wrong: float, incomplete: bool
) -> None:
    """Alone, and with a second group, whose rows come first and whose id comes last."""
    sizes = None if size is None else np.full(len(acc), size)
    alone = group_accuracy(np.array(acc, float), np.array(prompt), np.full(len(acc), 3), sizes)
    both = group_accuracy(
        np.array([1.0, *acc]),
        np.array([9, *prompt]),
        np.array([7, *[3] * len(acc)]),
        None if size is None else np.array([1, *[size] * len(acc)]),
    )
    expected = (right, wrong, incomplete)
    assert (alone.all_right_Z[0], alone.all_wrong_Z[0], alone.incomplete_Z[0]) == expected
    assert (both.all_right_Z[0], both.all_wrong_Z[0], both.incomplete_Z[0]) == expected
    assert both.group_Z.tolist() == [3, 7]
    assert (both.all_right_Z[1], both.incomplete_Z[1]) == (1.0, False)


def test_no_completions_are_no_groups() -> None:
    nothing = np.array([], dtype=int)
    assert len(group_accuracy(nothing.astype(float), nothing, nothing, nothing).group_Z) == 0
