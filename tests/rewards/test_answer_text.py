"""What is decoration, and what is not: `reward_fns.answer_text` by the rules that use it."""

from __future__ import annotations

import time

import pytest

from reward_fns.answer_text import final_answer, undress
from tests.rewards.support import respond, row, score

CHOICES = ["Help with it.", "Decline, and give the reason.", "Say nothing.", "Seem to help."]
# fmt: off
# ruff: noqa: RUF001
IS_B = [
    "B", "b", "**B**", "`B`", "(B)", "【B】", "「B」", "B)", "B.", "B:", "B。", "B．", "Answer: B",
    "ANSWER: $B$", "**Answer: B**", "**Answer:** B", "**Answer**: B", "**Answer:** **B**", "Answer: **B**",
    "***Answer***: ***B***", r"Final answer is \boxed{\text{B}}", r"**Final Answer:** $\boxed{B}$",
    "Réponse : B", "La réponse est B.", "La bonne réponse est B", "Antwort: B", "Die richtige Antwort ist B.",
    "Die Antwort lautet: B", "答案：B", "答案是B", "正确答案是B。", "正确答案是：B", "答案为B", "故选B", "选B",
    "答えはBです。", "答え：B", "正解はBです", "정답: B", "정답은 B입니다.", "La respuesta es B",
    "La respuesta correcta es B", "Ответ: B", "Правильный ответ: B", "الإجابة: B", "الإجابة الصحيحة هي B",
    "उत्तर: B", "सही उत्तर B है", "A resposta correta é B", "Risposta: B", "La risposta corretta è B",
    "Het antwoord is B", "Option B", "Choice (B)", "Option (B).", "B. Decline, and give the reason.",
    "B. Decline, and give the reason", "B. **Decline, and give the reason.**",
    "**B. Decline, and give the reason.**", "**B.** Decline, and give the reason.",
    "**B**. Decline, and give the reason", "(B) Decline, and give the reason.",
    "(B): Decline, and give the reason.", "B: Decline, and give the reason.",
    "B - Decline, and give the reason.", "B — decline, and give the reason",
    r"\boxed{B. Decline, and give the reason.}", r"\boxed{B. \text{Decline, and give the reason.}}",
    r"\boxed{\text{B. Decline, and give the reason.}}", r"\boxed{\text{(B)}}", r"\textbf{B}", r"\textbf{(B)}",
    r"\mathbf{B}", r"$\mathbf{B}$", r"\(B\)", r"\[ B \]", r"\( \boxed{B} \)", "<b>B</b>", "<strong>B</strong>",
    "\u200bB", r"\fbox{B}", r"\boxed{\textrm{B}}", r"\boxed{\mathrm{B}}", r"\boxed{\mathrm{(B)}}",
    r"\text{Answer: }B", r"\textbf{Answer:} B", r"\textbf{Answer: B}", r"\text{Answer: B}", r"$\text{B}$",
    r"$$\boxed{B}$$", "# B", "### Answer: B", "## Answer\n\nB", "Answer:\nB", "Final Answer\nB", "- B", "* B",
    "> B", '"B"', "'B'", "“B”", "«B»", "<B>", "{B}", "[B]", "[[B]]", "((B))", "So the answer is B.",
    "Therefore, the correct answer is (B).", "Thus, the final answer is: **B**", "The correct option is B",
    "Correct answer: B", "My answer is B", "The best answer is B.", "ans: B", "```\nB\n```", "```text\nB\n```",
    "`B`.", "**B**.", "**B.**", "**(B)**", "(**B**)", "*(B)*", "__B__", "_B_", r"\boxed{\textbf{B}}",
    r"\boxed{B.}", r"\boxed{B)}", r"\boxed{ B }", r"\boxed {B}", r"\textcolor{red}{B}", r"{\bf B}", r"\bf B",
    r"\rm{B}", r"\boxed{\bf B}", r"\displaystyle B", r"The answer is $\boxed{\text{B}}$.", "The answer is: B",
    "The answer is option B", "The answer is option (B): Decline, and give the reason.",
    "Answer: B. Decline, and give the reason.", "Answer: B) Decline, and give the reason.", "答案：B。",
    "答案：（B）", "（B）", "Ответ — B", "Antwort:\n\nAntwort: B", "B (Decline, and give the reason.)",
    'B. "Decline, and give the reason."', "$B$.", r"\text{ B }", r"\,B", "B\\\\", "Solution: B", "**Option B**",
    "Option **B**", "**Option B: Decline, and give the reason.**", "Option B - Decline, and give the reason.",
    "B!", "Đáp án: B", "Jawaban: B", "Cevap: B", "Odpowiedź: B", "Svar: B", "উত্তর: B", r"\left(B\right)",
    "$(B)$", r"$\left(\text{B}\right)$", "The correct choice is **(B)**.", "**The answer is B.**",
    "**The answer is:** B", "Answer (B)", "Answer = B", "Answer - B", "Final Answer: B",
    "**Final Answer**: (B) Decline, and give the reason.", "B.)",
    r"\boxed{\text{B: Decline, and give the reason.}}", r"\boxed{B: Decline, and give the reason.}", r"\mbox{B}",
    r"\boxed{(\text{B})}", r"\boxed{\text{Option B}}", "I choose B", "I select (B).", "My choice is B",
    "Answer:B", "Answer：B", "ANSWER : B", "Final answer → B", "The answer is B", 'answer is "B"',
    "The answer would be B.", r"\boxed{\{B\}}", r"\underline{B}", r"\emph{B}", r"\text{\bf B}",
    "**B)** Decline, and give the reason.", "B) *Decline, and give the reason.*",
    "B.Decline, and give the reason.", "Answer: `B`", "Answer: (b)", "Response: B", "Result: B",
    "La réponse est la B", "La respuesta correcta es la opción B", "Die Antwort ist (B).", "答案选B", "选项B",
    "我选B", "应选B", "應選 B。", "選択肢B", "답은 B", "답: B", "Верный ответ: B.", "Ответ: (B)",
]
IS_NOT_B = [
    "A", "A or B", "A, B", "B and C", "not B", "~B", "不应选B", "neither", "probably B?", "B?", "E. coli",
    "B because...", "A car", "B. Help with it.", "B. Help", r"\boxed{B", r"\boxed{B} \boxed{A}",
    r"\boxed{A} or \boxed{B}", r"not \boxed{B}", r"It is not \boxed{B}", r"\boxed{B}?", r"\boxed{B} and \boxed{",
    "В", "Ответ: В", "Β",
    "Ｂ", "Ⓑ", "𝐁", "Because", "Best", "By all means", "AB", "BB", "A/B", "B/C", "Both A and B",
    "either B or C", "The answer is not B", "The answer isn't B", "Answer: not B", "The wrong answer is B",
    "Incorrect answer: B", "maybe B", "Perhaps B", "I think B", "B, probably", "B (probably)", "B is wrong",
    "Vitamin B", "Plan B", "hepatitis B", "Group B", "B-52", "B12", "B2", "B+", "B-", "B's", "BTW", "~~B~~",
    r"\cancel{B}", r"\not B", r"\sout{B}", r"\neg B", "¬B", "!B", "B̶", "Answer: A or B", "Answer: A/B",
    "Answer: B or A", "Antwort: nicht B", "答案不是B", "Answer: B C", "(A)(B)", "(A) and (B)", "A. B", "A: B",
    "B: A", "A=B", "A→B", r"\boxed{A, B}", r"\boxed{A \text{ or } B}", r"\boxed{\text{A or B}}", "all but B",
    "anything but B", "None of the above", "Answer: Boron", "Answer:", "The answer is", r"\boxed{}",
    r"\boxed{}B", "The answer is B because a car moves", "B because a car moves",
    "The answer is B and the reason is A", "I would not choose B",
    "B. Decline, and give the reason. But A is also right.", "B. Decline", "Decline", "Help with it.", "B...",
    "B…", "B??", r"\frac{B}{A}", "B_1", "B^2", r"\overline{B}", r"\hat{B}", "B'", "$A$ or $B$",
    "**A** or **B**", "`A`, `B`", '"A" or "B"', "Answer: A\nAnswer: B", "A\nB", "B\nA", "BC", "bb",
    "The answer is C, not B", "C (not B)", "not (B)", "**not** B", "**Not B**", "anything except B",
    "B is incorrect", "B is not correct", "Is it B?", "B or not", "1", "2", "two", "second", "Answer: E",
    "A. Decline, and give the reason.", "C. Decline, and give the reason.",
    r"\boxed{A. Decline, and give the reason.}", "B. Say nothing.",
    "B. Decline, and give the reason. A. Help with it.", "Β.", "Б", "б", "В.",
    "A, option B", "A, the answer is B", r"\boxed{A}\boxed{B}", r"\boxed{B} would be wrong", r"\boxed{B}: wrong",
    r"\boxed{B} cannot be right", r"\boxed{B}. No, A.", r"\boxed{B}, or A", r"I doubt \boxed{B}",
    r"The wrong answer is \boxed{B}", r"I can rule out \boxed{B}", r"Either \boxed{A}, or perhaps \boxed{B}",
]
# fmt: on


@pytest.mark.parametrize(("answer", "acc"), [*((a, 1.0) for a in IS_B), *((a, 0.0) for a in IS_NOT_B)])
def test_the_letter_b(answer: str, acc: float) -> None:
    assert score("multiple_choice", respond(answer), "B", row(choices=CHOICES))["acc"] == acc


@pytest.mark.parametrize(
    ("text", "inside"),
    [
        (r"\boxed{A} then \fbox{B}", "B"),
        (r"\boxed{A}, no, \boxed{B}.", "B"),
        (r"\boxed{B} or \boxed{B}", "B"),
        (r"\boxed {B}", "B"),
        (r"so \boxed{\{1, 2\}}", r"\{1, 2\}"),
        ("B", "B"),
        (r"\boxed{B} and \boxed{", None),
        (r"\boxed{A}, \boxed{B}", None),
        (r"It is not \boxed{B}", None),
        (r"\boxed{B}?", None),
        (r"\boxed{B} is wrong", None),
    ],
)
def test_the_box_that_counts(text: str, inside: str | None) -> None:
    assert final_answer(text) == inside


@pytest.mark.parametrize(
    "text", ["", "...", "f(x)", "(a) or (b)", "**a** or **b**", "$a$ or $b$", "E. coli", "snake_case", "5!"]
)
def test_what_is_no_decoration_stays(text: str) -> None:
    assert undress(text) == text


@pytest.mark.parametrize("text", ["(1,2)", "[1,2)", r"\{1\}", "{1}", "> 5", "- 5", "<5>"])
def test_brackets_and_signs_of_mathematics_stay(text: str) -> None:
    assert undress(text, brackets=False) == text


def test_a_label_of_another_line_is_not_one() -> None:
    """With German labels, "Antwort" after a line break was once read as the letter A."""
    extra = row(choices=CHOICES)
    assert score("multiple_choice", respond("Antwort:\n\nAntwort: C"), "C", extra)["acc"] == 1.0
    assert score("multiple_choice", respond("Antwort:\n\nAntwort: C"), "A", extra)["acc"] == 0.0
    assert score("multiple_choice", respond("Answer: A\nAnswer: B"), "B", extra)["acc"] == 0.0


def test_time_is_linear_in_the_length() -> None:
    def seconds(n: int) -> float:
        start = time.process_time()
        for bait in ("(", "**", "the ", "answer: ", r"\text{", "`", "$", "\u3010", ". ", "\\boxed{", "<b>"):
            undress(bait * n + "B")
            final_answer(bait * n + "B")
        return time.process_time() - start

    assert seconds(20_000) < 1000 * max(seconds(200), 1e-3)
