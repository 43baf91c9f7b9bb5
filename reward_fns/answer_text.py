r"""What the rules take off an answer before they read it: decoration is not content.

:func:`final_answer` finds the answer in a text, :func:`undress` takes the decoration off, layer by layer:

=====================  ===============================================================================================
decoration             examples
=====================  ===============================================================================================
box                    ``\boxed{B}``, ``\fbox{B}``, ``\boxed{\text{B}}``; the last one counts
emphasis, code         ``**B**``, ``*B*``, ``__B__``, `` `B` ``, a code block, ``<b>B</b>``, a heading, quote or bullet
LaTeX                  ``$B$``, ``\(B\)``, ``\[B\]``, ``\text{B}``, ``\mathbf{B}``, ``\bf B``, ``\textcolor{red}{B}``
brackets, quotes       ``(B)``, ``[B]``, ``{B}``, ``<B>``, ``【B】``, ``「B」``, ``（B）``, ``"B"``, ``“B”``, ``«B»``
label                  ``Answer: B``, ``**Final answer:** B``, ``The answer is B``, ``Antwort: B``, ``答案是B``
full stop              ``B.``, ``B。``, ``B۔``, ``B।``; one, since dots may be an ellipsis
blanks                 white space, LaTeX spaces and zero-width characters at both ends
=====================  ===============================================================================================

All of it only around the whole answer: "**A** or **B**" keeps its marks. Deletions (``~~B~~``, ``\cancel{B}``) are no
decoration. Nor are letters of other alphabets (Cyrillic В, Greek Β) or other shapes (full-width Ｂ, Ⓑ, mathematical 𝐁):
they stay what they are, and no rule takes them for a Latin letter. No answer is a box after "not", one that is doubted
afterwards ("\boxed{B}?"), one of two alternatives ("\boxed{A} or \boxed{B}"), and one that is never closed.
"""

from __future__ import annotations

import re
import unicodedata

MAX_CHARS = 1000
"""A longer answer is no letter and no word: it is not read."""

_MAX_LAYERS = 24
_ZERO_WIDTH = "\u200b\u200c\u200d\u200e\u200f\u2060\u2066\u2067\u2068\u2069\ufeff"
_BLANKS = _ZERO_WIDTH + "".join(char for char in map(chr, range(0x3001)) if char.isspace())
STOPS = ".\u3002\uff0e\uff61\u06d4\u0964\u0965\u1362\u0589"
_ELLIPSIS = STOPS + "\u2026"

# The words of labels such as "the correct answer is" (en de fr es it pt nl sv pl ru uk tr vi id zh ja ko ar hi bn, in
# this order): before the noun, nouns, after it, and what may follow the answer. "_" is a blank. No bare "a" or "o" of
# Portuguese: "A, option B" names two letters.
# ruff: noqa: RUF001
_BEFORE = """
the so thus hence therefore my final correct right best chosen selected die das der meine also daher somit
richtige korrekte endgültige beste la le l' ma donc ainsi bonne meilleure el mi así por_lo_tanto mejor il mia
quindi migliore a_minha minha portanto a_melhor melhor het de mijn dus juiste correcte goede definitieve det
rätt slutligt ostateczna prawidłowa poprawna правильный верный окончательный итоговый мой правильна вірна
остаточна doğru son nihai jadi 正确 正確 最终 最終 最后 最佳 因此 所以 故 应 應 我 我的 的 ， 正しい 最終的な
したがって よって 、 최종 올바른 따라서 إذن सही अंतिम সঠিক চূড়ান্ত
"""
_NOUNS = """
answer ans option choice response solution result conclusion statement claim i_choose i_select i_pick antwort
antwortoption lösung ergebnis aussage réponse résultat choix respuesta solución resultado opción alternativa
risposta soluzione risultato opzione a_resposta resposta a_solução solução o_resultado a_opção opção
a_alternativa antwoord oplossing resultaat optie svar svaret odpowiedź wynik ответ вариант решение результат
відповідь варіант cevap yanıt seçenek đáp_án câu_trả_lời kết_quả jawaban jawabannya pilihan 答案 回答 选项 選項
选择 選擇 选 選 结果 結果 答え 解答 正解 選択肢 정답 답변 답 선택지 선택 결과 الإجابة الاجابة إجابة الجواب جواب
الخيار النتيجة उत्तर जवाब विकल्प परिणाम উত্তর
"""
_VERBS = """
is was would_be should_be must_be will_be ist lautet est est_la finale correcte_est finale_est exacte_est
finale_correcte_est es es_la final correcta correcta_es final_es è è_la corretta giusta corretta_è finale_è
giusta_è é é_a correta certa correta_é final_é certa_é luidt är to jest brzmi это це là đúng_là cuối_cùng_là
adalah akhir akhir_adalah yang_benar_adalah 是 为 為 就是 应该是 應該是 应为 應為 は 은 는 이 가 هي هو الصحيحة
الصحيح النهائية النهائي الصحيحة_هي الصحيح_هو النهائية_هي النهائي_هو হল হলো
"""
_AFTER = "です だ である となります 입니다 이다 예요 이에요 है"
_GAP = r"[^\S\n]*"  # a label is on one line: in "A\nAnswer: B", the A is an answer of its own


def _any_of(words: str) -> str:
    """The words as alternatives, longest first; those of scripts with blanks must end where they end."""
    longest_first = sorted(words.split(), key=lambda word: (-len(word), word))
    choice = "|".join(re.escape(word.replace("_", " ")) for word in longest_first)
    return rf"(?:{choice})(?:(?<![a-z\u00c0-\u1fff])|(?![^\W\d_]))"


_NOUN = rf"(?:(?:{_any_of(_BEFORE)}),?{_GAP}){{0,6}}(?:{_any_of(_NOUNS)})"
LABEL = rf"{_NOUN}(?:{_GAP}(?:{_any_of(_VERBS)}))?"
"""Matches a label without its separator, in any of the languages; for use with ``re.IGNORECASE``."""
_SEPARATOR = r"(?:[:\uff1a=]|[-\u2013\u2014\u2192](?=\s)|->|\n)"
_LABELLED = re.compile(
    r"(?P<mark>[*_`]+)?(?P<command>\\(?:text[a-z]*|mathbf|mathrm|mathit)\s*\{)?\s*"
    rf"(?:{_NOUN}{_GAP}(?:{_any_of(_VERBS)})(?(mark)[*_`]*)\s*{_SEPARATOR}?|{LABEL}(?(mark)[*_`]*)\s*{_SEPARATOR})"
    r"\s*(?(command)\}\s*[:\uff1a]?~?)(?(mark)(?:[*_]+(?=\s))?)",
    re.IGNORECASE,
)
_TAIL = re.compile(rf"(?<=\S)\s*(?:{_any_of(_AFTER)})$")
_TEXT_COMMANDS = (
    "boxed|fbox|framebox|text|textbf|textit|textrm|textsf|texttt|textsc|textsl|textup|textmd|textnormal|emph|underline|"
    "mbox|hbox|mathrm|mathbf|mathit|mathsf|mathtt|mathnormal|boldsymbol|bm|operatorname|textcolor\\s*\\{\\w*\\}|"
    "color\\s*\\{\\w*\\}"
)
_COMMAND = re.compile(rf"\\(?:{_TEXT_COMMANDS})\*?\s*\{{")
_SWITCH = re.compile(
    r"\\(?:(?:bf|rm|it|sf|tt|em|bfseries|itshape|displaystyle|textstyle|large|Large|huge)(?![A-Za-z])|"
    r"(?:text|mathrm|mathbf)(?![A-Za-z{])|color\s*\{\w*\}(?!\{))\s*"
)
_HTML = re.compile(
    r"<(?P<tag>b|i|u|em|strong|code|mark|span|p|div|kbd|tt|center|answer)(?:\s[^<>]*)?>(?P<inner>.*)</(?P=tag)>",
    re.IGNORECASE | re.DOTALL,
)
_FENCE = re.compile(r"(?:```|~~~)[\w+-]*[ \t]*\n(?P<inner>.*?)\n?(?:```|~~~)", re.DOTALL)
_LATEX_BLANKS = re.compile(r"^(?:\\[,;:! ]|\\q?quad(?![A-Za-z])|\\\\(?=\s))+|(?:\\[,;:! ]|\\q?quad|(?<!~)~|\\\\)+$")
_BLOCK = re.compile(  # "- 5" and "> **5**" may be mathematics
    r"^(?:(?:#{1,6}|[*\u2022])\s+|[-+>]\s+(?![\s*_`\u200b]*[\d.,$\\(])(?=\S))+"
)
_HEADING = re.compile(r"^#{1,6}\s+")
_PAIRS = dict(zip("(\uff08[\uff3b{\uff5b<\uff1c\u2329\u27e8", ")\uff09]\uff3d}\uff5d>\uff1e\u232a\u27e9", strict=True))
_QUOTES = dict(
    zip(
        "\u3010\u300c\u300e\u3014\u3016\u300a\u3008\u00ab\u2039\u201c\u2018\u201e\u201a\u201f",
        "\u3011\u300d\u300f\u3015\u3017\u300b\u3009\u00bb\u203a\u201d\u2019\u201c\u2018\u201d",
        strict=True,
    )
)
_SAME = "*_`\"'$"
_FIXED = (("\\(", "\\)"), ("\\[", "\\]"), ("\\left(", "\\right)"), ("\\left[", "\\right]"), ("\\{", "\\}"))

_BOX = re.compile(r"\\(?:boxed|fbox|framebox)\s*\{")
_DENIED = re.compile(
    r"(?:\b(?:not|never|neither|nor|cannot|no|than|nicht|kein|keine|pas|non|não|нет|не|isn.t)|n.t|\\neq?|\\not=?|[\u2260!]=?|"
    r"不是|不|아닌)"
    r"[\s*_$:(]*(?:\\[(\[])?[\s*_]*$|"
    r"\b(?:wrong|incorrect|doubt|unlikely|rule out|eliminate|either)\b[^.\n]{0,25}$",
    re.IGNORECASE,
)
_JOINED = re.compile(
    r"[\s*_$.)]*(?:\\[)\]])?[\s$]*(?:,|;|/|&|\bor\b|\band\b|\boder\b|\bund\b|\bou\b|\bet\b|\bo\b|\by\b|或|和|или|и)*"
    r"[\s,*_$(]*(?:\\[(\[])?[\s$]*",
    re.IGNORECASE,
)
_DOUBTED = re.compile(
    r"[\s*_$}]*(?:\\[)\]])?[\s*_$.,;:]*"
    r"(?:\?|\bor\b|\bno\b|\bactually\b|\bwrong\b|\bif\b|\bunless\b|\bcannot be\b|"
    r"\b(?:is|was|would be) (?:not|wrong|incorrect|false)\b|\bisn.t\b|\(?(?:maybe|perhaps|probably)\b)",
    re.IGNORECASE,
)


def _closing(text: str, start: int, opening: str = "{", closing: str = "}") -> int:
    """Where the bracket opened just before ``start`` closes; -1 if nowhere. Escaped ones do not count."""
    depth = 1
    for match in re.finditer(rf"\\.|[{re.escape(opening + closing)}]", text[start:], re.DOTALL):
        depth += (match[0] == opening) - (match[0] == closing)
        if depth == 0:
            return start + match.start()
    return -1


def final_answer(text: str) -> str | None:
    """What the last box holds, or the whole text if there is no box; ``None`` if the box is no answer (see above)."""
    boxes = list(_BOX.finditer(text))
    if not boxes:
        return text
    last = boxes[-1]
    end = _closing(text, last.end())
    if end < 0 or _DENIED.search(text[max(0, last.start() - 40) : last.start()]):
        return None
    if _DOUBTED.match(text[end + 1 : end + 60]):
        return None
    if len(boxes) > 1:
        before = boxes[-2]
        closed = _closing(text, before.end())
        between = text[closed + 1 : last.start()] if 0 <= closed < last.start() else None
        joined = between is not None and len(between) < 40 and _JOINED.fullmatch(between)
        if joined and text[before.end() : closed].strip() != text[last.end() : end].strip():
            return None
    return text[last.end() : end].strip()


def undress(text: str, *, brackets: bool = True) -> str:
    """Take the decoration off a text; never down to nothing.

    Args:
        text: at most some thousand characters; the time is linear in it.
        brackets: whether round, square, curly and angle brackets, bullets and quote marks at the start of a line are
            decoration. In mathematics they are content.
    """
    if not text.isascii():
        text = unicodedata.normalize("NFC", text)
    text = text.strip(_BLANKS)
    for _ in range(_MAX_LAYERS):
        # A Latin letter, or another plain word, is what most answers are.
        if not text or (text.isascii() and text.isalnum()):
            return text
        peeled = _peel(text, brackets).strip(_BLANKS)
        if not peeled or peeled == text:
            return text
        text = peeled
    return text


def _peel(text: str, brackets: bool) -> str:
    """A text without its outermost layer of decoration."""
    first, last = text[0], text[-1]
    if first in "`~" and (match := _FENCE.fullmatch(text)):
        return match["inner"]
    if first in _SAME and first == last:
        run = min(len(text) - len(text.lstrip(first)), len(text) - len(text.rstrip(first)))
        inner = text[run:-run] if 2 * run < len(text) else ""
        if inner and first not in inner and not inner.endswith("\\"):
            return inner
    pairs = {**_PAIRS, **_QUOTES} if brackets else _QUOTES
    if pairs.get(first) == last and _closing(text, 1, first, last) == len(text) - 1:
        return text[1:-1]
    if first == "<" and (match := _HTML.fullmatch(text)):
        return match["inner"]
    if first == "\\":
        if (match := _COMMAND.match(text)) and _closing(text, match.end()) == len(text) - 1:
            return text[match.end() : -1]
        if match := _SWITCH.match(text):
            return text[match.end() :]
        for opening, closing in _FIXED if brackets else _FIXED[:2]:
            if text.startswith(opening) and text.endswith(closing) and opening not in text[len(opening) :]:
                return text[len(opening) : -len(closing)]
    if first == "{" and text.startswith(("{\\bf", "{\\rm", "{\\it", "{\\text")) and _closing(text, 1) == len(text) - 1:
        return text[1:-1]
    if last in STOPS and text[-2:-1] not in _ELLIPSIS:
        return text[:-1]
    if (trimmed := _LATEX_BLANKS.sub("", text)) != text:
        return trimmed
    if match := (_BLOCK if brackets else _HEADING).match(text):
        return text[match.end() :]
    if match := _LABELLED.match(text):
        return text[match.end() :]
    if not last.isascii() and (match := _TAIL.search(text)):
        return text[: match.start()]
    return text


_INNER_COMMAND = re.compile(rf"\\(?:{_TEXT_COMMANDS})\*?\s*\{{([^{{}}]*)\}}")
_INNER_MARKS = re.compile(r"(\*\*|__|``|`)(?=\S)(.+?)(?<=\S)\1")


def plain(text: str) -> str:
    """A text without emphasis and LaTeX text commands inside it either; runs of white space become one blank."""
    if "\\" in text:
        for _ in range(8):
            text, count = _INNER_COMMAND.subn(r"\1", text)
            if not count:
                break
    if any(mark in text for mark in ("**", "__", "`")):
        text = _INNER_MARKS.sub(r"\2", text)
    return " ".join(text.split())
