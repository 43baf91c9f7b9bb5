"""What equals what in mathematics, decided without symbolics: ground truths, with answers that are right and wrong."""

from __future__ import annotations

import time

import pytest

from reward_fns.math_equality.compare import compare
from reward_fns.math_equality.exact import evaluate
from reward_fns.math_equality.forms import read
from reward_fns.math_equality.text import clean

# fmt: off
# ruff: noqa: RUF001
RIGHT: dict[str, list[str]] = {
    "72": ["72.", "72 per cent", r"\text{x = }72", "72 cm squared", r"\text{Answer:}~72"],
    "72%": ["72 per cent", "0.72"],
    "72 cm^2": ["72 cm squared", "72 square centimeters", "72 sq. cm", "72"],
    "72 m^3": ["72 cubic m", "72 m cubed"],
    "1/7": ["P(A)=1/7", r"P(A \cap B) = \frac17", "P(X=1)=1/7", r"\Pr(A)=1/7", "E[X]=1/7"],
    r"\langle 1,2 \rangle": [r"\langle 1, 2\rangle", "(1,2)", "⟨1,2⟩"],
    "1/2": [r"\frac12", r"\dfrac{1}{2}", r"\tfrac 12", "0.5", ".5", r"50\%", "½"],
    r"\frac{3}{4}": [r"\frac{6}{8}"],
    "3/4": ["0.75"],
    "-1/2": [r"-\frac{1}{2}", r"\frac{-1}{2}", r"\frac{1}{-2}", "-0.5"],
    "-5": ["−5"],
    "1000": ["1,000", "1{,}000", r"1\,000", "1 000", "10^3", "10^{3}", "1e3", "1E3", "1.0e3", r"1 \times 10^3",
        r"1\cdot 10^{3}", "1 × 10³", "1.0 x 10^3", "10**3", "1'000"],
    "0.001": ["1e-3", "10^{-3}", r"1 \times 10^{-3}"],
    "1234567": ["1,234,567", "1.234.567", r"1\,234\,567", r"1,\!234,\!567"],
    "1234.5": ["1.234,5", "1,234.5"],
    "3.5": ["3{,}5", r"3\frac{1}{2}", r"3 \frac 12", "3 1/2", "3½", r"\frac{7}{2}"],
    "-3.5": [r"-3\frac12"],
    "120": ["5!"],
    "720": ["6!"],
    "1/6": ["1/3!"],
    r"\frac{1}{2004!}": ["1/2004!"],
    "2^{100}": ["4^{50}"],
    "1/2^{99}": ["2^{-99}", r"\frac{1}{2^{99}}"],
    r"\frac{2^{2005}+1}{3\cdot2^{2006}}": [r"\frac{1+2^{2005}}{3 \cdot 2^{2006}}"],
    "5": [r"\$5", "$5", "$5.00", "5 dollars", r"5\text{ dollars}", "USD 5", "5 cm", r"5.\text{}",
        r"5 \text{ (units)}", "= 5", "5 =5"],
    "$5": ["5", "5 dollars"],
    r"\$1,234.50": ["1234.5"],
    "5 cm": ["5", r"5\text{ cm}", r"5\,\mathrm{cm}", "5 centimeters"],
    r"5\text{ cm}^2": ["5 cm²"],
    "42": ["42 apples", r"42 \text{ apples}", r"\text{42 apples}", r"42\text{ square units}", "42 units",
        "42 miles per hour", "42 km/h", r"42^\circ", "42°", "42 degrees", "x=42", "x = 42", "n = 42.",
        r"\text{Area} = 42", "Area = 42", "40+2=42", r"6 \cdot 7", "6(7)", "(6)(7)", r"\(42\)", r"\[42\]",
        "$42$", "$$42$$", r"\text{42}", r"\mathbf{42}", r"\textbf{42}", r"\boxed{42}", "The answer is 42.",
        "Answer: 42", "**Answer:** 42", "`42`", "42.0", "42.00", "+42", "{42}", "(42)", r"\left(42\right)",
        r"\frac{84}{2}", r"\sqrt{1764}"],
    "(1,2)": ["(1, 2)", r"\left(1,2\right)", r"(1.0, \frac{4}{2})", "(x,y)=(1,2)", "$(1,2)$", "1,2"],
    r"\{1,2\}": [r"\{2,1\}", r"\{1, 2\}", "1,2", r"\left\{1,2\right\}"],
    "1,2": ["2,1", "1 and 2", r"1\text{ and }2", "x=1, x=2", r"x=1 \text{ or } x=2", "1 or 2"],
    r"\pm 3": ["3,-3", r"x=\pm 3"],
    "[0,1)": ["[0, 1)", r"\left[0,1\right)"],
    "[0,1]": [r"x\in[0,1]"],
    r"(-\infty, 3]": [r"(-\infty,3]"],
    r"(2,\infty)": [r"(2, +\infty)"],
    "2x+2": ["2(x+1)"],
    "x^2-1": ["(x-1)(x+1)", "x^{2} - 1"],
    "y=2x+1": ["2x+1", "y=1+2x"],
    r"\sqrt{8}": [r"2\sqrt{2}"],
    r"\sqrt8": [r"2\sqrt2"],
    r"\frac{1}{\sqrt2}": [r"\frac{\sqrt{2}}{2}"],
    r"\frac{\pi}{2}": [r"\pi/2"],
    r"2\pi": [r"2 \pi"],
    "3+4i": ["4i+3"],
    r"\sqrt[3]{8}": ["2"],
    r"\sqrt{\frac{4}{9}}": [r"\frac23"],
    r"0.\overline{3}": ["1/3"],
    "1/3": [r"0.\overline{3}", r"0.\bar{3}"],
    "1:2": ["1:2"],
    "12:00": ["12:00"],
    "5 million": ["5,000,000"],
    "2.5 million": ["2500000"],
    "50%": ["0.5", "50"],
    "50": ["50%"],
    "25": [r"25\%"],
    r"\frac{x+1}{2}": [r"\frac12(x+1)"],
    "e^2": ["e^{2}"],
    "3e": ["e*3"],
    "10^{10^{9}}": ["10^{1000000000}"],
    r"90^\circ": ["90"],
    "1,2,3": ["3,2,1"],
    r"1,2,\ldots,n": [r"1, 2, \dots, n"],
    r"4 \to 5": [r"4 \rightarrow 5"],
    "x>3": ["x > 3"],
    r"x \geq 3": ["x≥3"],
    r"x\ge 3": [r"x \geqslant 3"],
    "7": [r"\fbox{7}", "<b>7</b>"],
    "10000": ["10^4", "10{,}000"],
    "11/6": [r"1\frac{5}{6}"],
    "71/6": ["11 5/6"],
    "2": [r"\frac{4}{2}=2"],
    r"\frac{1}{n}": ["1/n"],
    "ab": ["ba"],
    "-3": ["- 3"],
    "1.5e-7": [r"1.5\times10^{-7}"],
    "6.02e23": [r"6.02 \times 10^{23}"],
    "0": ["0.0", "-0"],
    "100": ["1e2"],
    "5 m": ["5 meters", "5~m"],
    "60": ["60 minutes", "60 mph"],
    "16": ["2^4", "2^{2^2}", "(2^2)^2", "4^2"],
    "1/8": ["2^{-3}", "0.125"],
    "8": [r"\sqrt{64}"],
    "x_1": ["x_{1}"],
    "9": ["3²"],
    "1000000": ["10^6", "1,000,000", "1 million"],
    r"\text{Monday}": ["Monday"],
    "Monday": ["monday."],
}
WRONG: dict[str, list[str]] = {
    "72": ["73", "-72", "720", "7 2", "72 or 73", "72, 73", "72?", "not 72", r"\neq 72", r"\approx 72",
        "about 72", "approximately 72", r"72 \ldots", "72...", r"71 \to 72", "71, 72", "> 72", "x > 72",
        r"\geq 72", "72 < x", "72:1", "1:72", r"72\pm 1", r"\pm 72", "72!", "72^2", "7^2", r"\frac{1}{72}",
        "72x", "72i", r"72\pi", r"72 \text{ or } 73", r"72\text{ and }73", "72 million", r"72\text{ thousand}",
        "72 dozen", r"\text{maybe }72", "72 = 73", "73 = 72", "71+2=72", "[72, 73]", "(72, 1)", r"\{72, 1\}",
        r"72\cdot 10", "7.2", "7,2", "72,1", "72 1/2", r"72\frac12", "٧٢", "７２", "seventy-three", "I don't know",
        r"\text{unknown}", "72 wrong", "72 is wrong", "less than 72", "at least 72", "72-", "72+", "72/", "72(",
        r"\frac{72}{}", r"\frac{72", r"\sqrt{72}", r"\boxed{71} or \boxed{72}", "~72", "$~72$",
        "x = ~72", "Answer: ~72", r"\sim 72", "72 squared", "72 lakh", "72 twice", "72 approx", "72 possibly",
        "72 tenfold", "72 quadrillion"],
    "72 cm": ["72 cm squared"],
    r"\langle 1,2 \rangle": [r"\langle 2,1 \rangle"],
    "P(A)=1/2": ["P(B)=1/2", "1/3"],
    "1/2^{98}": ["1/2^{99}"],
    "1/2004!": ["1/2006!"],
    "10^{100}": ["10^{99}"],
    "10^{-100}": ["10^{-99}"],
    "10^{10^9}": ["10^{10^8}"],
    "5": [r"4 \to 5", r"4 \Rightarrow 5", "4 → 5", "4 -> 5", r"f: 4 \mapsto 5", "1,2,3,4,5", r"1, 2, \ldots, 5",
        r"\ldots 5", r"5\ldots", "+-5", "--6", r"5 \text{ not}", r"\cancel{5}", "~~5~~", "5'", "5_2", "5^{}",
        "five hundred", "v", "5 to 6", "5-6", "5–6", "4.9999999999", "5.0000001", "-5"],
    r"\frac13": ["0.333", "0.333333", "0.3333333333333333"],
    r"\pi": ["3.14", "3.14159265358979", "22/7"],
    r"\sqrt2": ["1.41421356", r"\sqrt3"],
    "0.5": [r"0.5\%", r"\sqrt.5"],
    "0.5%": ["0.5", "50"],
    "5 cm": ["5 m"],
    "$5": ["€5"],
    r"5 \text{ cm}": [r"5 \text{ m}"],
    r"5\text{ cm}^2": [r"5\text{ cm}"],
    "5 kg": ["5 km"],
    "(1,2)": ["(2,1)", "[1,2]", "(1,2,3)", "(1,3)"],
    "[0,1)": ["[0,1]", "(0,1]"],
    r"\{1,2\}": [r"\{1,2,3\}", r"\{1\}", r"\{1,3\}"],
    "1,2": ["1", "1,2,3", "1,3"],
    "n=2,3,4": ["n=1,2,3"],
    "D=(0,1)": ["D=(0,1.5)"],
    r"19, 46, \text{ and } 82": ["21, 36, and 82"],
    r"\pm 2021": ["2021"],
    "2021": [r"\pm 2021", "2021.5"],
    "12:00": ["1:00"],
    r"1,2,\ldots,n": [r"1,3,5,\ldots,2n-1"],
    r"1:2:3:\ldots": [r"1:4:9:\ldots"],
    r"1-\frac{1}{\mathrm{e}}": [r"1+\frac{1}{\mathrm{e}}"],
    "4": [r"4\sqrt(2)"],
    "2": ["2 2/3"],
    "10": ["4 10/3", "ten thousand"],
    "x=5": ["y=5"],
    "x+1": ["x+2", "x-1"],
    "2x": ["2y", "x^2"],
    "x^2": ["2x"],
    r"\sqrt{8}": ["4"],
    "3+4i": ["3-4i", "4+3i"],
    "x>3": ["3"],
    r"(2,\infty)": [r"[2,\infty)", r"(-\infty,2)"],
    "120": ["5"],
    "5!": ["5"],
    "2^{10}": ["2^{11}"],
    "1000": ["1,00", "10,00", "1.000", "1e4", r"1 \times 10^4"],
    "1.234": ["1,234"],
    "1234": ["1.234"],
    "1/2": ["2/1", r"\frac{2}{1}", r"1\frac{1}{2}"],
    "3.5": [r"3\frac{1}{3}"],
    "f(x)=0": [r"\forall x>0, f(x)=0"],
    "Monday": ["Tuesday"],
    r"\text{Monday}": [r"\text{not Monday}"],
    "0": ["1/0", "0/0"],
    "7": ["9^{9^{9^{9}}}", "100000!!!!!", "(x+1)^{99999}", "((((((7"],
    "500": ["5 hundred dollars 3"],
    "0.1": ["0.10000000000000001"],
    "-5": ["5"],
    "100%": [r"1\%"],
    "3": [r"\text{three or four}", "3 fifths", "3 eighths", "3 sevenths"],
    "6": [r"2 \times 4", "2+3"],
    "42": ["24"],
    "1/3": ["3"],
    r"\infty": [r"-\infty", "1e999"],
}
# fmt: on


def equal(truth: str, answer: str, require_units: bool = False) -> bool | None:
    truth, answer = clean(truth), clean(answer)
    return truth == answer or compare(read(truth), read(answer), require_units)


SYMBOLIC = {r"\frac12": [r"\sin(x)"], "x > 3": [r"(3, \infty)"], "2x+4y=3": ["4x+8y=6"], "3": ["|-3|"],
    r"\ln 4": [r"2\ln 2"]}  # fmt: skip


@pytest.mark.parametrize(
    ("truth", "answer", "verdict"),
    [
        (truth, answer, verdict)
        for verdict, table in ((True, RIGHT), (False, WRONG), (None, SYMBOLIC))
        for truth, answers in table.items()
        for answer in answers
    ],
)
def test_what_is_equal_unequal_or_left_to_symbolics(truth: str, answer: str, verdict: bool | None) -> None:
    assert equal(truth, answer) is verdict


@pytest.mark.parametrize(
    ("truth", "answer", "optional", "required"),
    [
        ("5 cm", "5", True, False),
        ("5 cm", "5 cm", True, True),
        ("5 cm", r"5\,\text{centimeters}", True, True),
        ("5 cm", "5 m", False, False),
        ("$5", "5", True, False),
        ("$5", "5 dollars", True, True),
        ("50%", "50", True, False),
        ("50%", "0.5", True, True),
    ],
)
def test_units_may_be_left_out_unless_they_are_required(
    truth: str, answer: str, optional: bool, required: bool
) -> None:
    assert equal(truth, answer) is optional
    assert equal(truth, answer, require_units=True) is required


@pytest.mark.parametrize(
    "text",
    [
        "(" * 2000, r"\frac" * 400, "9^" * 900 + "9", "!" * 1999, "1" * 2000, "1e" * 900, r"\text{" * 300, "1 " * 900,
        "x" * 2000, "cm " * 600, "5" + " cm" * 90, "1," * 900, "a=" * 900, "-" * 2000, "200000!" * 200, r"\sqrt" * 400,
    ],
)  # fmt: skip
def test_the_work_is_bounded_whatever_the_text(text: str) -> None:
    start = time.process_time()
    for end in ("", "1", "?"):
        equal("7", text + end)
    assert time.process_time() - start < 5.0


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (r"\sqrt{2}\sqrt{3}", r"\sqrt{6}"), (r"\sqrt{2}^2", "2"), (r"\sqrt{-4}", "2i"), ("i^2", "-1"),
        ("(1+i)^2", "2i"), (r"\frac{1}{\sqrt{5}-\sqrt{3}}", r"\frac{\sqrt5+\sqrt3}{2}"), (r"\sqrt{12}", r"2\sqrt{3}"),
        (r"\sqrt[4]{16}", "2"), ("10^{10^9}", "10^{1000000000}"), ("100000!", "100000*99999!"),
        ("(x+1)^{2}", "x^2+2x+1"),
        (r"8^{\frac{2}{3}}", "4"),
    ],
)  # fmt: skip
def test_residues_keep_the_laws_of_arithmetic(one: str, other: str) -> None:
    assert evaluate(one).same(evaluate(other))
    assert not evaluate(one).same(evaluate(f"{other}+1"))
