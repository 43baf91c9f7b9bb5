"""What math-verify gets wrong, and we do not. A test that fails here says that upstream is fixed: our patch can go."""

from __future__ import annotations

import pytest
from math_verify import parse, verify

from reward_fns.math_equality.child import compare as ask_symbolics
from tests.rewards.support import respond, row
from verl_air.rewards import compute_score

# What is right, and where we catch it.
FAULTS = [
    ("1/2^{98}", "1/2^{99}", False, "numbers: small numbers are rounded to zero"),
    (r"\frac{1}{2004!}", r"\frac{1}{2006!}", False, "numbers: small numbers are rounded to zero"),
    (r"\frac13", "0.333333", False, "numbers: compared after rounding to six decimals"),
    (r"\frac{\ln 2}{2^{99}}", r"\frac{\ln 2}{2^{98}}", False, "child._differ: small numbers are rounded to zero"),
    ("5", r"4 \to 5", False, "forms: an arrow is dropped"),
    ("2", r"2\ldots", False, "forms: dots are dropped"),
    ("42", r"\neq 42", False, "forms: a negation is dropped"),
    ("42", "5 = 42", False, "forms: of an equation, only the last side is read"),
    ("5", r"5\text{ million}", False, "units: words are dropped"),
    (r"5 \text{ cm}", r"5 \text{ m}", False, "units: units are dropped"),
    ("f(x)=0", r"\forall x>0, f(x)=0", False, "forms: a quantifier is dropped"),
    ("72", "**72**", True, "answer_text: emphasis is not understood"),
    ("1000", "1e3", True, "exact: scientific notation is not understood"),
    ("1000", r"1\,000", True, "text: thin spaces are not understood"),
    ("50%", "0.5", True, "units: percent is not understood"),
    ("5", "5 dollars", True, "units: currency words are not understood"),
    (r"\frac12", r"\sin 30^\circ", True, "child._read: degrees are taken for radians"),
]


@pytest.mark.parametrize(("truth", "answer", "right", "patch"), FAULTS)
async def test_a_fault_of_math_verify_is_ours_no_more(truth: str, answer: str, right: bool, patch: str) -> None:
    gold, read = (parse(f"\\boxed{{{text}}}", parsing_timeout=None) for text in (truth, answer))
    upstream = bool(verify(gold, read, timeout_seconds=None))
    assert upstream is not right, f"math-verify decides this one now; remove the patch: {patch}"
    routes = {"*/*": {"name": "math", "deadline_s": 20.0}}
    result = await compute_score("math/train", respond(f"\\boxed{{{answer}}}"), truth, row("math"), routes=routes)
    assert result["acc"] == float(right)


@pytest.mark.parametrize(
    ("truth", "answer", "right"),
    [
        (r"\ln 4", r"2\ln 2", True),
        (r"\ln 4", r"2\ln 3", False),
        ("e^{x}", r"\exp(x)", True),
        ("x>3", "3<x", True),
        ("x>3", "x<3", False),
        (r"1 - \frac{1}{e^x}", r"1 + \frac{1}{e^x}", False),
        (r"(-\infty,1)\cup(2,\infty)", r"(2,\infty)\cup(-\infty,1)", True),
        (r"(-\infty,1)\cup(2,\infty)", r"(-\infty,1)\cup(3,\infty)", False),
        (r"\sqrt{53}", "7.280109889280518", False),
        (r"\frac{\ln 2}{2^{99}}", r"\frac{2\ln 2}{2^{100}}", True),
        ("2x+4y-3=0", r"y=-\frac{1}{2}x+\frac{3}{4}", True),
        ("x>2", r"(2,\infty)", True),
        (r"(2,\infty)", "x>2", True),
        (r"(2,\infty)", r"x \ge 2", False),
        ("(2,5]", r"5 \ge x > 2", True),
        ("-1", r"e^{i\pi}", True),
        (r"e^{i\pi}", "1", False),
        (r"e^{i\theta}", r"\cos\theta+i\sin\theta", True),
        (r"(1,2)\cup(3,4)", "(1,2) \u222a (3,4)", True),
        ("[[", "7", False),
    ],
)
def test_what_symbolics_decide(truth: str, answer: str, right: bool) -> None:
    assert ask_symbolics(truth, answer) is right
