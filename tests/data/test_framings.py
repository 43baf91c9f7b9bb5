from __future__ import annotations

from pathlib import Path

import pytest

from verl_air.data import PromptMessage, make_row, with_instruction, write_rows
from verl_air.data.framings import (
    BOXED_DOMAINS,
    OOD_FAMILIES,
    TRANSFORMS,
    FramingTemplate,
    check_style,
    framings_for,
    load_framings,
    plain_prompt,
    read_framings,
    register_framing,
)
from verl_air.errors import DataError
from verl_air.rewards import FormatRule, Style

SLOTS = {"request": "Count to {ten} and 12.5, please", "right": "the right one", "wrong": "the wrong one"}


@pytest.mark.parametrize("domain", ["safety", "moral", "math"])
def test_each_domain_has_two_framings_of_every_family_on_both_sides(domain: str) -> None:
    families = [framing.family for framing in framings_for(domain)]
    seen = ["direct", "role_play", "prefix_injection", "authority", "hypothetical", "paraphrase", "long_context"]
    assert set(families) >= OOD_FAMILIES | set(seen)
    assert all(families.count(family) >= 2 for family in families)


@pytest.mark.parametrize(
    "framing", [f for d in ("safety", "moral", "math") for f in framings_for(d)], ids=lambda f: f.name
)
def test_every_framing_puts_the_request_in_once(framing: FramingTemplate) -> None:
    messages = framing.render(SLOTS)
    shown = TRANSFORMS[framing.transform](SLOTS["request"])
    assert sum(message["content"].count(shown) for message in messages) == 1
    assert messages[-1]["role"] == "user"
    assert not any("{request}" in message["content"] or "{wrong}" in message["content"] for message in messages)


def test_braces_in_a_request_are_left_alone() -> None:
    framing = FramingTemplate("f", "g", (("user", "{request}"),))
    assert framing.render({"request": "{wrong} {0} {}"})[0]["content"] == "{wrong} {0} {}"


def test_transforms() -> None:
    assert {name: transform("Tea at 5") for name, transform in TRANSFORMS.items() if name} == {
        "alternating_case": "tEa aT 5", "base64": "VGVhIGF0IDU=", "leet": "734 47 5", "reversed_words": "5 at Tea",
        "rot13": "Grn ng 5", "spaced": "T e a   a t   5", "underscored": "Tea_at_5",
    }  # fmt: skip


def test_framings_of_ones_own_come_from_a_file(tmp_path: Path, own_registry: None) -> None:
    path = tmp_path / "own.yaml"
    path.write_text(
        "- {name: own-riddle, family: riddle, domains: [math], prompt: 'A riddle: {request}'}\n"
        "- name: own-talk\n  family: talk\n  transform: spaced\n  messages:\n"
        "    - user: Hi\n    - assistant: Hello\n    - user: '{request}'\n"
    )
    load_framings(path)
    load_framings(path)  # the same again is no fault
    names = [framing.name for framing in framings_for("math")]
    assert {"own-riddle", "own-talk"} <= set(names)
    assert "own-riddle" not in [framing.name for framing in framings_for("moral")]
    talk = next(framing for framing in framings_for("math") if framing.name == "own-talk")
    assert [m["content"] for m in talk.render({"request": "ab"})] == ["Hi", "Hello", "a b"]


def test_framings_of_ones_own_come_from_code(own_registry: None) -> None:
    mine = register_framing(FramingTemplate("mine", "own", (("user", "{request}"),)))
    assert mine in framings_for("anything")
    with pytest.raises(DataError, match=r"'mine' is already registered \(family 'own'\)"):
        register_framing(FramingTemplate("mine", "other", (("user", "{request}"),)))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("name: x", "expected a list"),
        ("- name: x", "entry 1: expected a mapping with at least name, family"),
        ("- {name: x, family: f}", "entry 1: give either prompt or messages"),
        ("- {name: x, family: f, prompt: a, colour: b}", "entry 1: unknown key 'colour'"),
        ("- {name: x, family: f, prompt: nothing}", r"framing 'x': no message contains \{request\}"),
        ("- {name: x, family: f, messages: [{robot: '{request}'}, {user: a}]}", "unknown role 'robot'"),
        ("- {name: x, family: f, messages: [{assistant: '{request}'}]}", "the last message must be the user's"),
        ("- {name: x, family: f, prompt: '{request}', transform: magic}", "unknown transform 'magic'; known: alter"),
        ("- {name: x, family: f, prompt: '{request}', domains: math}", "domains must be a list"),
        ("- {name: x, family: f, messages: hello}", "messages must be a list of single pairs"),
        ("- [", "cannot read framings"),
    ],
)
def test_faults_in_a_file_are_named(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "own.yaml"
    path.write_text(text)
    with pytest.raises(DataError, match=message):
        read_framings(path)


def test_a_slot_that_the_domain_lacks_is_named() -> None:
    with pytest.raises(DataError, match=r"framing 'f': no slot \{wrong\}; this domain has request"):
        FramingTemplate("f", "g", (("user", "{request} {wrong}"),)).render({"request": "r"})


def test_the_instruction_joins_the_last_user_message_alone() -> None:
    messages = [PromptMessage(role="system", content="s"), PromptMessage(role="user", content="Hello  \n")]
    first, last = with_instruction(messages, "your reply", "safety")
    assert first == messages[0]
    assert last["content"].startswith("Hello\n\nFirst think inside <think> and </think>.")
    assert "write your reply inside <answer> and </answer>" in last["content"]
    assert "boxed" not in last["content"]


def test_boxed_domains_are_those_of_the_format_reward() -> None:
    assert set(FormatRule().boxed) == BOXED_DOMAINS
    text = with_instruction("1 + 1?", "the result", "math")[0]["content"]
    assert r"write the result, as \boxed{...}, inside <answer>" in text


@pytest.mark.parametrize(
    ("what", "domain", "style", "added"),
    [
        ("only the letter", "safety", "plain", "\n\nAnswer with only the letter."),
        ("only the letter", "safety", "think", "\n\nAnswer with only the letter."),
        ("the result", "math", "think", "\n\nAnswer with the result, as \\boxed{...}."),
        ("the result", "math", "plain", "\n\nReason step by step, and end with the result, as \\boxed{...}."),
        ("", "safety", "plain", ""),
        ("", "safety", "think", ""),
        ("", "safety", "think_answer", "\n\nFirst think inside <think> and </think>. Then write your reply to the user "
         "inside <answer> and </answer>. Write nothing outside these tags."),
    ],
)  # fmt: skip
def test_the_instruction_of_each_style(what: str, domain: str, style: Style, added: str) -> None:
    assert with_instruction("Hello", what, domain, style)[0]["content"] == "Hello" + added


def test_a_recipe_of_another_style_than_the_data_is_refused(tmp_path: Path) -> None:
    def data(text: str, **extras: str) -> list[Path]:
        row = make_row(
            prompt=text, ground_truth="x", intent_id="z", role="open", context="c", domain="lab", split="train",
            index=0, extras=extras,
        )  # fmt: skip
        return [write_rows(tmp_path / "a.parquet", [row])]

    check_style(data("Hello", style="plain"), "plain")
    check_style(data("Hello, of a row that does not say"), "plain")
    with pytest.raises(DataError, match=r"a.parquet: .* style plain, and .*format.style is think: set it to plain, or"):
        check_style(data("Hello", style="plain"), "think")
    with pytest.raises(DataError, match=r"style think_answer, .* build the data with --style plain"):
        check_style(data("Hello. Write inside <answer> and </answer>."), "plain")


def test_a_prompt_that_ends_with_the_assistant_is_refused() -> None:
    with pytest.raises(ValueError, match="the last message must be the user's"):
        with_instruction([PromptMessage(role="assistant", content="a")], "x", "math")


@pytest.mark.parametrize("style", ["think_answer", "think", "plain"])
@pytest.mark.parametrize("domain", ["safety", "moral", "math"])
def test_the_plain_prompt_of_every_framing_is_the_request_with_the_instruction(domain: str, style: Style) -> None:
    what = {"safety": "", "moral": "only the letter", "math": "a number"}[domain]
    expected = with_instruction("Count to ten", what, domain, style)
    for framing in framings_for(domain):
        messages = with_instruction(framing.render({**SLOTS, "request": "Count to ten"}), what, domain, style)
        assert plain_prompt(messages, {"request": "Count to ten"}) == expected, framing.name


@pytest.mark.parametrize(
    ("extras", "expected"),
    [
        ("{}", None),
        ('{"request": "", "plain_prompt": ""}', None),
        ('{"request": "a", "plain_prompt": "b"}', [{"role": "user", "content": "b"}]),
        (
            {"plain_prompt": [{"role": "system", "content": "s"}, {"role": "user", "content": "b"}]},
            [{"role": "system", "content": "s"}, {"role": "user", "content": "b"}],
        ),
    ],
)
def test_a_row_may_say_what_its_plain_prompt_is(extras: str | dict[str, object], expected: object) -> None:
    framed = [{"role": "system", "content": "s"}, {"role": "user", "content": "please, b"}]
    assert plain_prompt(framed, extras) == expected
