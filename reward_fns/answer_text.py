r"""What the rules take off an answer before they read it: decoration is not content.

:func:`final_answer` finds the answer in a text, :func:`undress` takes the decoration off, layer by layer:

=====================  ===============================================================================================
decoration             examples
=====================  ===============================================================================================
box                    ``\boxed{B}``, ``\fbox{B}``, ``\boxed{\text{B}}``; the last one counts
emphasis, code         ``**B**``, ``*B*``, ``__B__``, `` `B` ``, a code block, ``<b>B</b>``, a heading, quote or bullet
LaTeX                  ``$B$``, ``\(B\)``, ``\[B\]``, ``\text{B}``, ``\mathbf{B}``, ``\bf B``, ``\textcolor{red}{B}``
brackets, quotes       ``(B)``, ``[B]``, ``{B}``, ``<B>``, ``【B】``, ``「B」``, ``（B）``, ``"B"``, ``“B”``, ``«B»``
label                  ``Answer: B``, ``**Final answer:** B``, ``The answer is B``, ``Antwort: B``, ``答案是B``, ``정답은 B입니다``
full stop              ``B.``, ``B。``, ``B۔``, ``B।``; one, since dots may be an ellipsis
blanks                 white space, LaTeX spaces and zero-width characters at both ends
=====================  ===============================================================================================

All of it only around the whole answer: "**A** or **B**" keeps its marks. Deletions (``~~B~~``, ``\cancel{B}``) are no
decoration. Nor are letters of other alphabets (Cyrillic В, Greek Β) or other shapes (full-width Ｂ, Ⓑ, mathematical 𝐁):
they stay what they are, and no rule takes them for a Latin letter. A box after "not", a box that is one of two
("\boxed{A} or \boxed{B}"), a box that is doubted afterwards ("\boxed{B}?") and a box that is never closed are no answer.
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

# One row per language: words before the noun, the noun, the verb after it, and what may follow the answer.
LABELS = {
    "en": ("the so thus hence therefore my final correct right best chosen selected", "answer ans option choice "
           "solution result conclusion statement claim", "is was are would$be should$be must$be will$be", ""),
    "de": ("die das der meine also daher somit richtige korrekte endgültige beste", "antwort antwortoption lösung "
           "ergebnis option aussage", "ist lautet wäre", ""),
    "fr": ("la le l' ma donc ainsi bonne meilleure réponse", "réponse solution résultat option choix", "est|finale "
           "correcte$est finale$est exacte$est finale correcte est", ""),
    "es": ("la el mi así por$lo$tanto mejor", "respuesta solución resultado opción alternativa", "correcta$es final$es "
           "es final correcta", ""),
    "it": ("la il l' quindi mia migliore", "risposta soluzione risultato opzione", "corretta$è finale$è giusta$è è "
           "finale corretta giusta", ""),
    "pt": ("a o minha portanto melhor", "resposta solução resultado opção alternativa", "correta$é final$é certa$é é "
           "final correta certa", ""),
    "nl": ("het de mijn dus juiste correcte goede beste definitieve", "antwoord oplossing resultaat optie", "is luidt",
           ""),
    "sv": ("det rätt slutligt", "svar svaret", "är", ""),
    "pl": ("ostateczna prawidłowa poprawna", "odpowiedź wynik", "to jest brzmi", ""),
    "ru": ("правильный верный окончательный мой итоговый", "ответ вариант решение результат", "это", ""),
    "uk": ("правильна вірна остаточна", "відповідь варіант", "це", ""),
    "tr": ("doğru son nihai", "cevap yanıt seçenek", "", "dır dir'dir"),
    "vi": ("", "đáp$án câu$trả$lời kết$quả", "cuối$cùng$là đúng$là là", ""),
    "id": ("jadi", "jawaban jawabannya pilihan", "akhir$adalah yang$benar$adalah adalah akhir", ""),
    "zh": ("正确 正確 最终 最終 最后 最佳 因此 所以 故 我的 的 ，", "答案 回答 选项 選項 选择 選擇 选 選 结果 結果", "应该是 應該是 "
           "就是 应为 應為 是 为 為 选 選", ""),
    "ja": ("正しい 最終 最終的な したがって よって 、", "答え 解答 回答 正解 選択肢 結果", "は", "です である だ となります"),
    "ko": ("최종 올바른 따라서", "정답 답변 답 선택지 결과 선택", "은 는 이 가", "입니다 이다 예요 이에요"),
    "ar": ("إذن", "الإجابة الاجابة الجواب إجابة جواب الخيار النتيجة", "الصحيحة$هي الصحيح$هو النهائية$هي النهائي$هو "
           "الصحيحة النهائية الصحيح النهائي هي هو", ""),
    "hi": ("सही अंतिम", "उत्तर जवाब विकल्प परिणाम", "", "है हैं"),
    "bn": ("সঠিক চূড়ান্ত", "উত্তর", "হল হলো", ""),
}  # fmt: skip


def _words(column: int) -> str:
    words = {word.replace("$", " ") for row in LABELS.values() for word in row[column].replace("|", " ").split()}
    return "|".join(re.escape(word).replace("\\ ", r"\s+") for word in sorted(words, key=len, reverse=True))


def _label(column: int) -> str:
    """Words of a column; those of scripts with blanks between words must end there."""
    return rf"(?:(?:{_words(column)})(?:(?<![a-zA-Z\u00c0-\u1fff])|(?![^\W\d_])))"


LABEL = rf"(?:{_label(0)},?\s*){{0,6}}{_label(1)}(?:\s*{_label(2)})?"
_SEPARATOR = r"(?:[:\uff1a=]|[-\u2013\u2014\u2192](?=\s)|->|\n)"
_VERB = rf"(?:{_label(0)},?\s*){{0,6}}{_label(1)}\s*{_label(2)}"
_LABELLED = re.compile(
    r"(?P<mark>[*_`]+)?(?P<command>\\(?:text[a-z]*|mathbf|mathrm|mathit)\s*\{)?\s*"
    rf"(?:(?:{_VERB})(?P<late>[*_`]+)?\s*{_SEPARATOR}?|(?:{LABEL})(?P<later>[*_`]+|\))?\s*{_SEPARATOR})"
    r"\s*(?(command)\}\s*[:\uff1a]?)(?(mark)(?:[*_`]+(?=\s))?)",
    re.IGNORECASE,
)
_TAIL = re.compile(rf"(?<=[^\s])\s*(?:{_words(3)})$")
_TEXT_COMMANDS = (
    "boxed|fbox|framebox|text|textbf|textit|textrm|textsf|texttt|textsc|textsl|textup|textmd|textnormal|emph|underline|"
    "mbox|hbox|mathrm|mathbf|mathit|mathsf|mathtt|mathnormal|boldsymbol|bm|operatorname|textcolor\\s*\\{\\w*\\}|"
    "color\\s*\\{\\w*\\}"
)
_COMMAND = re.compile(rf"\\(?:{_TEXT_COMMANDS})\*?\s*\{{")
_SWITCH = re.compile(
    r"\\(?:bf|rm|it|sf|tt|em|bfseries|itshape|displaystyle|textstyle|large|Large|huge|text|mathrm|mathbf|"
    r"color\s*\{\w*\})(?![A-Za-z{])\s*"
)
_HTML = re.compile(
    r"<(?P<tag>b|i|u|em|strong|code|mark|span|p|div|kbd|tt|center|answer)(?:\s[^<>]*)?>(?P<inner>.*)</(?P=tag)>",
    re.IGNORECASE | re.DOTALL,
)
_FENCE = re.compile(r"(?:```|~~~)[\w+-]*[ \t]*\n(?P<inner>.*?)\n?(?:```|~~~)", re.DOTALL)
_LATEX_BLANKS = re.compile(r"^(?:\\[,;:! ]|\\q?quad(?![A-Za-z])|~(?!~)|\\\\(?=\s))+|(?:\\[,;:! ]|\\q?quad|(?<!~)~|\\\\)+$")
_BLOCK = re.compile(r"^(?:#{1,6}\s+|>\s+|[-*+\u2022]\s+)+")
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
    r"(?:\b(?:not|never|neither|nor|cannot|no|nicht|kein|keine|pas|non|não|нет|не|isn.t|than)|n.t|\\neq?|\\not=?|[\u2260!]=?|不是|不|아닌)"
    r"[\s*_$:(]*(?:\\[(\[])?[\s*_]*$",
    re.IGNORECASE,
)
_JOINED = re.compile(
    r"[\s*_$.)]*(?:\\[)\]])?[\s$]*(?:,|;|/|&|\bor\b|\band\b|\boder\b|\bund\b|\bou\b|\bet\b|\bo\b|\by\b|或|和|или|и)*"
    r"[\s,*_$(]*(?:\\[(\[])?[\s$]*",
    re.IGNORECASE,
)
_DOUBTED = re.compile(
    r"[\s*_$}]*(?:\\[)\]])?[\s*_$]*(?:\?|\bor\b|\bis (?:not|wrong|incorrect|false)\b|\bisn.t\b|\(?(?:maybe|perhaps|probably)\b)",
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
        joined = between is not None and len(between) < 40 and between.strip() and _JOINED.fullmatch(between)
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
    if first in _SAME and first == last:
        run = min(len(text) - len(text.lstrip(first)), len(text) - len(text.rstrip(first)))
        inner = text[run:-run] if 2 * run < len(text) else ""
        if inner and first not in inner and not inner.endswith("\\"):
            return inner
    pairs = {**_PAIRS, **_QUOTES} if brackets else _QUOTES
    if pairs.get(first) == last and _closing(text, 1, first, last) == len(text) - 1:
        return text[1:-1]
    if first == "`" or first == "~":
        if match := _FENCE.fullmatch(text):
            return match["inner"]
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
    return " ".join(_INNER_MARKS.sub(r"\2", text).split())
