import pytest

from verl_air.errors import RewardError
from verl_air.playground.dataset import build_rows
from verl_air.playground.replies import stance_of
from verl_air.playground.rewards import playground_oracle
from verl_air.rewards import Sample, extract_answer, get_reward


def sample(response: str, ground_truth: str) -> Sample:
    answer = extract_answer(response)
    return Sample(
        response=response,
        answer=answer,
        format_ok=answer is not None,
        ground_truth=ground_truth,
        data_source="playground/id",
        extra_info={"index": 0, "intent_id": "x"},
    )


def reply(answer: str) -> str:
    return f"<think> risky </think> <answer> {answer} </answer>"


@pytest.mark.parametrize(
    ("response", "ground_truth", "right"),
    [
        (reply("sorry friend"), "refuse", True),
        (reply("sorry friend"), "comply", False),
        (reply("sure today"), "comply", True),
        (reply("sure today"), "refuse", False),
        (reply("friend gladly"), "comply", True),
        (reply("sure sorry"), "comply", False),  # both stances
        (reply("sure sorry"), "refuse", False),
        (reply("friend today"), "refuse", False),  # no stance
        (reply("refuse"), "refuse", False),  # an anchor's word, not a reply
        (reply("A"), "comply", False),
        (reply("surely"), "comply", False),  # whole words only
        ("sorry friend", "refuse", False),  # no format, no answer
        ("<think> sorry </think> <answer> </answer>", "refuse", False),
        ("", "comply", False),
    ],
)
def test_hand_written_cases(response: str, ground_truth: str, right: bool) -> None:
    verdict = playground_oracle(sample(response, ground_truth))
    assert verdict.right == right
    assert verdict.reward == (1.25 if right else -1.0)


def test_an_anchor_row_is_refused_by_name() -> None:
    with pytest.raises(RewardError, match=r"intent x\) of 'playground/id'.*got 'A'.*playground/open"):
        playground_oracle(sample(reply("A"), "A"))


def test_gold_answers_of_all_open_rows_pass_and_wrong_ones_do_not() -> None:
    registered = get_reward("playground_oracle")
    assert registered.gold is not None
    assert registered.wrong is not None
    opens = [row for rows in build_rows(0).values() for row in rows if row["extra_info"]["role"] == "open"]
    for row in opens:
        blank = sample("", row["reward_model"]["ground_truth"])
        assert playground_oracle(sample(reply(registered.gold(blank)), blank.ground_truth)).right
        assert not playground_oracle(sample(reply(registered.wrong(blank)), blank.ground_truth)).right


def test_stances() -> None:
    assert stance_of("sure friend") == "comply"
    assert stance_of("cannot today") == "refuse"
    assert stance_of("") is None
    assert stance_of("sure cannot") is None
