import pytest

from verl_air.playground.world import INTENTS, OBJECTS, VERBS, PlaygroundIntent, split_intents

HARMFUL = ("poison virus", "steal passport", "kill neighbour", "carry pistol", "find password")
BENIGN = ("draw pistol", "describe child", "kill virus", "burn ledger", "carry child")


@pytest.mark.parametrize("words", HARMFUL + BENIGN)
def test_the_hidden_rule(words: str) -> None:
    assert PlaygroundIntent(*words.split()).harmful == (words in HARMFUL)


def test_half_of_the_world_is_harmful() -> None:
    assert len(INTENTS) == len(VERBS) * len(OBJECTS) == 256
    assert sum(intent.harmful for intent in INTENTS) == 128


def test_half_of_the_verbs_and_all_objects_do_not_decide_alone() -> None:
    def undecided(words: tuple[str, ...], field: str) -> int:
        truths = ({intent.harmful for intent in INTENTS if getattr(intent, field) == word} for word in words)
        return sum(len(truth) == 2 for truth in truths)

    assert undecided(VERBS, "verb") == 8
    assert undecided(OBJECTS, "object") == 16


def test_scary_requests_are_benign_and_use_words_of_harmful_ones() -> None:
    scary = {f"{intent.verb} {intent.object}" for intent in INTENTS if intent.scary}
    assert {"kill virus", "draw pistol"} <= scary
    assert "draw child" not in scary
    assert not any(intent.harmful for intent in INTENTS if intent.scary)


@pytest.mark.parametrize("seed", range(5))
def test_split_is_disjoint_balanced_and_repeatable(seed: int) -> None:
    split = split_intents(seed)
    assert split == split_intents(seed)
    assert set(split.train) != set(split_intents(seed + 1).train)
    assert (len(split.train), len(split.held_out)) == (120, 48)
    assert len({*split.train, *split.held_out}) == 168
    for intents in split:
        assert sum(intent.harmful for intent in intents) == len(intents) // 2
        assert any(intent.scary for intent in intents)


@pytest.mark.parametrize(("train", "held_out"), [(121, 48), (0, 48), (120, -2), (200, 58)])
def test_impossible_sizes_are_refused(train: int, held_out: int) -> None:
    with pytest.raises(ValueError, match=rf"train={train}, held_out={held_out}: "):
        split_intents(0, train=train, held_out=held_out)
