"""Right answers in varied dress and near misses, at random: what models write around an answer, and what is none."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from fractions import Fraction
from typing import Any

Writer = Callable[[random.Random], "Case"]


@dataclass(frozen=True)
class Case:
    truth: str
    answer: str
    extras: dict[str, Any] = field(default_factory=dict)


# What decorates a whole answer; "{}" is the answer.
MARKS = [
    "{}", "{}", "{}", "**{}**", "*{}*", "__{}__", "`{}`", "***{}***", "$ {} $", "\\( {} \\)", "\\[ {} \\]", "$${}$$",
    "<b>{}</b>",
    "<strong>{}</strong>", "```\n{}\n```", "### {}", "  {}\n", "\u200b{}", "\\displaystyle {}",
]  # fmt: skip
COMMANDS = [
    "{}", "{}", "\\boxed{{{}}}", "\\fbox{{{}}}", "\\mathbf{{{}}}", "\\mathrm{{{}}}", "\\boxed{{\\mathbf{{{}}}}}",
]  # fmt: skip
TEXT_COMMANDS = [
    *COMMANDS, "\\text{{{}}}", "\\textbf{{{}}}", "\\textrm{{{}}}", "\\boxed{{\\text{{{}}}}}", "\\emph{{{}}}",
]  # fmt: skip
BRACKETS = [
    "{}", "{}", "({})", "[{}]", "\u3010{}\u3011", "\u300c{}\u300d", "\uff08{}\uff09", '"{}"',
    "\u201c{}\u201d", "\u00ab{}\u00bb",
]  # fmt: skip
STOPS = ["{}", "{}", "{}.", "{}\u3002", "{}\uff0e", "{}\u06d4", "{}\u0964"]
LABELS = [
    "{}", "{}", "{}", "Answer: {}", "ANSWER: {}", "**Answer:** {}", "**Final answer:** {}", "**Answer**: {}",
    "Final answer: {}",
    "The answer is {}", "The answer is: {}", "The final answer is {}", "So the correct answer is {}",
    "Therefore, the answer is {}",
    "### Answer\n{}", "Answer:\n{}", "\\text{{Answer: }}{}", "Antwort: {}", "Die richtige Antwort ist {}",
    "Réponse : {}",
    "La bonne réponse est {}", "Respuesta: {}", "La respuesta correcta es {}", "Risposta: {}", "La risposta è {}",
    "Resposta: {}",
    "A resposta correta é {}", "Het antwoord is {}", "Ответ: {}", "Правильный ответ: {}",
    "答案\uff1a{}", "答案是{}", "正确答案是\uff1a{}",
    "答えは{}です", "答え\uff1a{}", "정답: {}", "정답은 {}입니다", "الإجابة: {}", "उत्तर: {}",
]  # fmt: skip
# What keeps an answer from being one.
SPOILERS = [
    "not {}", "{}?", "maybe {}", "Probably {}", "{}, I think", "{} is wrong", "anything but {}", "neither {}",
    "{} or not", "I doubt {}",
    "The answer is not {}", "Answer: not {}", "The wrong answer is {}", "not \\boxed{{{}}}", "\\boxed{{{}}}?",
    "\\boxed{{{}", "~~{}~~",
    "\\cancel{{{}}}", "{}...", "It could be {}", "nicht {}", "答案不是{}", "{} because I say so",
]  # fmt: skip
LIGHT = ["{}", "{}", "**{}**", "({})", "Answer: {}"]
_NOUNS = "amber basalt cedar dune ember fjord glade harbour islet juniper kelp lagoon meadow nectar orchid pebble"
WORDS = _NOUNS.split()


def wear(rng: random.Random, answer: str, *dress: list[str]) -> str:
    """An answer in one garment of each kind, the first one innermost."""
    for garments in dress:
        answer = rng.choice(garments).format(answer)
    return answer


def _text(rng: random.Random) -> str:
    return " ".join(rng.sample(WORDS, rng.randint(2, 4))).capitalize()


# -- multiple_choice ---------------------------------------------------------------------------------------------------


def _choices(rng: random.Random) -> tuple[str, str, list[str]]:
    choices = [_text(rng) + "." for _ in range(4)]
    letter = rng.choice("ABCD")
    return letter, rng.choice([other for other in "ABCD" if other != letter]), choices


def right_letter(rng: random.Random) -> Case:
    letter, _, choices = _choices(rng)
    dress = [TEXT_COMMANDS, BRACKETS, MARKS, STOPS, LABELS]
    answer = letter
    if rng.random() < 0.3:  # with its own text
        text = choices["ABCD".index(letter)]
        separator = rng.choice([". ", ") ", ": ", " - ", ".", " "])
        answer = f"{letter}{separator}{rng.choice(['{}', '**{}**', '{}']).format(rng.choice([text, text[:-1]]))}"
        dress = [["{}", "{}", "\\text{{{}}}", "\\boxed{{\\text{{{}}}}}"], ["{}", "**{}**", '"{}"'], LABELS]
    elif rng.random() < 0.2:
        answer = rng.choice([f"Option {letter}", f"option ({letter})", f"Choice: {letter}", letter.lower()])
    return Case(letter, wear(rng, answer, *dress), {"choices": choices})


def near_letter(rng: random.Random) -> Case:
    letter, other, choices = _choices(rng)
    look_alike = dict(zip("ABCD", ["\u0410", "\u0412", "\u0421", "\uff24"], strict=True))
    answer = rng.choice([
        other, f"{letter} or {other}", f"{letter}, {other}", f"{letter}/{other}", f"{letter} and {other}",
        f"{letter}{other}",
        f"{letter}. {choices['ABCD'.index(other)]}", f"{other}. {choices['ABCD'.index(letter)]}", f"{letter}lways",
        f"{letter}2",
        f"{letter}. {_text(rng)} {rng.random()}", look_alike[letter], f"{letter} {_text(rng).lower()} moves",
        f"{letter}\u0301",
        f"\\boxed{{{letter}}} or \\boxed{{{other}}}", f"\\boxed{{{letter}}} \\boxed{{{other}}}",
        rng.choice(SPOILERS).format(letter),
        rng.choice(SPOILERS).format(letter), rng.choice(SPOILERS).format(letter), f"{other}. No: {letter}",
        f"vitamin {letter}",
    ])  # fmt: skip
    return Case(letter, wear(rng, answer, LIGHT), {"choices": choices})


# -- true_false and exact_match ----------------------------------------------------------------------------------------


def right_word(rng: random.Random) -> Case:
    truth = rng.choice(["true", "false"])
    answer = rng.choice([str.lower, str.capitalize, str.upper])(truth)
    return Case(truth, wear(rng, answer, TEXT_COMMANDS, BRACKETS, MARKS, STOPS, LABELS))


def near_word(rng: random.Random) -> Case:
    truth, other = rng.sample(["true", "false"], 2)
    answer = rng.choice([
        other, f"{truth} or {other}", f"{truth} and {other}", f"{truth}ly", f"un{truth}", truth[:-1], truth[0],
        f"{truth} {other}",
        "yes", "no", "1", "0", truth.replace("e", "\u0435"), f"half {truth}",
        f"\\boxed{{{truth}}} or \\boxed{{{other}}}",
        *[rng.choice(SPOILERS).format(truth) for _ in range(9)],
    ])  # fmt: skip
    return Case(truth, wear(rng, answer, LIGHT))


def right_text(rng: random.Random) -> Case:
    truth = rng.choice([_text(rng), rng.choice(WORDS), f"{rng.choice(WORDS)} {rng.randint(2, 99)}"])
    answer = rng.choice([truth, truth.lower(), truth.upper(), truth.replace(" ", "  ")])
    return Case(truth, wear(rng, answer, TEXT_COMMANDS, BRACKETS, MARKS, STOPS, LABELS))


def near_text(rng: random.Random) -> Case:
    truth = _text(rng)
    words = truth.split()
    answer = rng.choice([
        " ".join(reversed(words)), " ".join(words[1:]), truth + " " + rng.choice(WORDS), truth + "s", truth[:-1],
        truth.replace("e", "a", 1) + "x",
        "".join(words), f"{truth} or {_text(rng)}x", truth.replace(words[0][1], "\u0430", 1),
        f"\\boxed{{{truth}}} or \\boxed{{{_text(rng)}}}",
        *[rng.choice(SPOILERS).format(truth) for _ in range(8)],
    ])  # fmt: skip
    return Case(truth, wear(rng, answer, LIGHT))


# -- math --------------------------------------------------------------------------------------------------------------


def _integers(rng: random.Random) -> tuple[str, list[str]]:
    n = rng.choice([rng.randint(2, 99), rng.randint(1000, 999_999), rng.randint(10**6, 10**9), -rng.randint(2, 999)])
    grouped = [f"{n:,}".replace(",", gap) for gap in (",", "{,}", "\\,", "\u2009", "\u202f", "\\ ", ",\\!")]
    unit = rng.choice(["apples", "cm", "miles per hour", "square feet", "dollars", "kg"])
    return str(n), [
        str(n), *grouped, f"{n}.0", f"{n}.00", f"\\frac{{{3 * n}}}{{3}}", f"{5 * n}/5", f"{n}\\text{{ {unit}}}",
        f"{n} {unit}", f"x = {n}",
        f"{n - 1} + 1 = {n}", f"{n - 1} + 1", f"\\left({n}\\right)", f"\\${n}" if n > 0 else str(n), f"{n},",
        f"+{n}" if n > 0 else str(n),
        str(n).replace("-", "\u2212"), f"{n}^\\circ", f"\\text{{{n}}}", f"\\text{{Area}} = {n}",
        f"{n}\\,\\mathrm{{cm}}",
    ]  # fmt: skip


def _fractions(rng: random.Random) -> tuple[str, list[str]]:
    bottom = rng.choice([2, 3, 4, 5, 7, 8, 9, 25])
    value = rng.randint(0, 9) + Fraction(rng.randrange(1, bottom), bottom)
    top, bottom = value.numerator, value.denominator
    whole, rest = divmod(top, bottom)
    forms = [
        f"\\frac{{{top}}}{{{bottom}}}", f"\\dfrac{{{top}}}{{{bottom}}}", f"\\tfrac{{{2 * top}}}{{{2 * bottom}}}",
        f"{top}/{bottom}",
        f"{top} / {bottom}", f"\\frac{{{-top}}}{{-{bottom}}}", f"{top}\\div{bottom}",
        f"\\frac{{{top}}}{{{bottom}}}\\text{{ cups}}",
    ]  # fmt: skip
    if bottom in (2, 4, 5, 8, 25):
        forms += [f"{float(value)}", f"{float(value) * 100:g}\\%", f"{float(value)}0"]
    if whole and rest:
        forms += [
            f"{whole}\\frac{{{rest}}}{{{bottom}}}",
            f"{whole} {rest}/{bottom}",
            f"{whole} \\frac{{{rest}}}{{{bottom}}}",
        ]
    return rng.choice([*forms[:2], f"{top}/{bottom}"]), forms


def _powers(rng: random.Random) -> tuple[str, list[str]]:
    base, n = rng.choice([2, 3, 10]), rng.randint(40, 2000)
    small = rng.randint(3, 12)
    return rng.choice([
        (f"{base}^{{{n}}}", [f"{base}^{{{n}}}", f"{base}^{n}", f"{base} \\cdot {base}^{{{n - 1}}}",
        f"\\frac{{1}}{{{base}^{{-{n}}}}}"]),
        (f"1/{base}^{{{n}}}", [f"\\frac{{1}}{{{base}^{{{n}}}}}", f"{base}^{{-{n}}}",
        f"\\frac{{{base}}}{{{base}^{{{n + 1}}}}}"]),
        (str(10**small), [f"10^{{{small}}}", f"1e{small}", f"1 \\times 10^{{{small}}}", f"1.0 \\cdot 10^{small}",
        f"10**{small}"]),
        (f"{n}!", [f"{n}!", f"{n} \\cdot {n - 1}!", f"\\frac{{{n + 1}!}}{{{n + 1}}}"]),
    ])  # fmt: skip


def _collections(rng: random.Random) -> tuple[str, list[str]]:
    a, b = sorted(rng.sample(range(-20, 20), 2))
    opening, closing = rng.choice(["[", "("]), rng.choice(["]", ")"])
    return rng.choice([
        (f"({a},{b})", [f"({a}, {b})", f"\\left({a}, {b}\\right)", f"(x, y) = ({a}, {b})",
        f"({a}.0, \\frac{{{2 * b}}}{{2}})"]),
        (f"\\{{{a},{b}\\}}", [f"\\{{{b}, {a}\\}}", f"\\left\\{{{a}, {b}\\right\\}}", f"{a}, {b}",
        f"{b} \\text{{ and }} {a}"]),
        (f"{a}, {b}", [f"{b}, {a}", f"x = {a} \\text{{ or }} x = {b}", f"\\{{{a}, {b}\\}}", f"{a} and {b}"]),
        (f"{opening}{a},{b}{closing}", [f"\\left{opening}{a}, {b}\\right{closing}",
        f"x \\in {opening}{a}, {b}{closing}"]),
    ])  # fmt: skip


def _symbols(rng: random.Random) -> tuple[str, list[str]]:
    a, b, c = rng.randint(2, 9), rng.randint(2, 9), rng.choice([2, 3, 5, 7])
    return rng.choice([
        (f"{a}x+{b}", [f"{b}+{a}x", f"{a} x + {b}", f"y = {a}x+{b}", f"x \\cdot {a} + {b}",
        f"\\frac{{{2 * a}x+{2 * b}}}{{2}}"]),
        (f"x^2-{a * a}", [f"(x-{a})(x+{a})", f"x^{{2}} - {a * a}", f"-{a * a} + x \\cdot x"]),
        (f"{a}\\sqrt{{{c}}}", [f"\\sqrt{{{a * a * c}}}", f"{a} \\sqrt{c}", f"\\frac{{{a * c}}}{{\\sqrt{{{c}}}}}"]),
        (f"\\frac{{\\pi}}{{{a}}}", [f"\\pi/{a}", f"\\frac{{{b}\\pi}}{{{a * b}}}", f"\\frac{{1}}{{{a}}}\\pi"]),
    ])  # fmt: skip


KINDS = [_integers, _integers, _fractions, _fractions, _powers, _collections, _symbols]
MATH_LABELS = [label for label in LABELS if "###" not in label]
MATH_MARKS = [
    "{}",
    "{}",
    "**{}**",
    "${}$",
    "\\({}\\)",
    "\\[ {} \\]",
    "$${}$$",
    "`{}`",
    "<b>{}</b>",
    " {} ",
    "\\mathbf{{{}}}",
]


def right_math(rng: random.Random) -> Case:
    truth, forms = rng.choice(KINDS)(rng)
    answer = wear(rng, rng.choice(forms), MATH_MARKS, ["{}", "{}", "{}."])
    return Case(truth, f"\\boxed{{{answer}}}" if rng.random() < 0.7 else wear(rng, answer, ["{}", *MATH_LABELS]))


MATH_SPOILERS = [
    "{} \\text{{ or }} 999983", "{}, 999983", "\\neq {}", "\\approx {}", "> {}", "999983 \\to {}", "{} \\pm 1",
    "999983 = {}", "{}, \\ldots",
    "\\ldots, {}", "not {}", "{}?", "{}:999983", "-({})", "({})+1", "2({})", "({})^2", "({})/2", "({})i",
    "\\cancel{{{}}}", "\\frac{{{}}}{{",
    "\\text{{about }} {}", "at least {}", "{} million", "({})^{{-1}}", "{} - 10^{{-12}}", "({}, 999983)",
    "\\sqrt{{{}}}", "1 \\Rightarrow {}",
]  # fmt: skip


def near_math(rng: random.Random) -> Case:
    truth, _ = rng.choice(KINDS)(rng)
    answer = rng.choice(MATH_SPOILERS).format(truth)
    if rng.random() < 0.3 and any(char.isdigit() for char in truth):  # one digit off
        at = rng.choice([i for i, char in enumerate(truth) if char.isdigit()])
        answer = truth[:at] + rng.choice([d for d in "123456789" if d != truth[at]]) + truth[at + 1 :]
    if rng.random() < 0.15:
        n = rng.randint(50, 2000)
        truth, answer = rng.choice([
            (f"1/2^{{{n}}}", f"1/2^{{{n + 1}}}"), (f"\\frac{{1}}{{{n}!}}", f"\\frac{{1}}{{{n + 1}!}}"), ("\\frac13",
            "0.333333"),
            (f"10^{{-{n}}}", f"10^{{-{n - 1}}}"), (f"({n},{n + 1})", f"({n + 1},{n})"), (f"[{n},{n + 1})",
            f"[{n},{n + 1}]"),
            (f"{n} \\text{{ cm}}", f"{n} \\text{{ m}}"), (f"\\${n}", f"\u20ac{n}"), (str(n), f"{n}0"), (f"0.{n}",
            f"0.{n}\\%"),
            (f"\\{{{n},{n + 1}\\}}", f"\\{{{n}\\}}"), (f"\\sqrt{{{n}}}", f"{n**0.5:.9f}1"),
        ])  # fmt: skip
    return Case(truth, f"\\boxed{{{answer}}}")


# -- format and refusal_keywords: rules of the whole response ----------------------------------------------------------


def right_format(rng: random.Random) -> Case:
    gap, thought = rng.choice(["", " ", "\n", "\n\n"]), _text(rng)
    return Case("", f"{gap}<think>{gap}{thought}{gap}</think>{gap}<answer>{gap}{_text(rng)}{gap}</answer>{gap}")


def near_format(rng: random.Random) -> Case:
    good = right_format(rng).answer
    tag = rng.choice(["<think>", "</think>", "<answer>", "</answer>"])
    return Case("", rng.choice([
        good.replace(tag, ""), good.replace(tag, tag * 2), good.replace(tag, tag.upper()),
        good.replace(tag, tag.replace(">", " >")),
        good + rng.choice(WORDS), rng.choice(WORDS) + good, good.replace("<answer>", "so <answer>"),
        good[: len(good) // 2],
    ]))  # fmt: skip


def right_refusal(rng: random.Random) -> Case:
    words = rng.choice(
        ["I'm sorry", "I am sorry", "I cannot", "I can\u2019t", "I won't", "I'm unable", "I apologize", "i will not"]
    )
    text = f"{rng.choice([words, words.upper()])} {_text(rng).lower()}"
    return Case("", wear(rng, text, ["{}", "**{}**", "Well: {}", "{}."]))


def near_refusal(rng: random.Random) -> Case:
    words = rng.choice(
        ["No", "Sorry", "I can", "I will", "Unable", "Declined", "I am glad", "You cannot", "We won't", "I could"]
    )
    return Case("", f"{words} {_text(rng).lower()}")


WRITERS: dict[str, tuple[Writer, Writer]] = {
    "multiple_choice": (right_letter, near_letter),
    "true_false": (right_word, near_word),
    "exact_match": (right_text, near_text),
    "math": (right_math, near_math),
    "format": (right_format, near_format),
    "refusal_keywords": (right_refusal, near_refusal),
}


def cases(writer: Writer, n: int, seed: int) -> Iterator[Case]:
    """Different cases, the same ones for a seed."""
    rng, seen = random.Random(seed), set()
    for _ in range(50 * n):
        case = writer(rng)
        if (key := (case.truth, case.answer)) not in seen:
            seen.add(key)
            yield case
        if len(seen) == n:
            return
    raise AssertionError(f"{writer.__name__} has fewer than {n} different cases")
