"""Writing systems: which letters of an answer its prompt does not explain."""

from __future__ import annotations

import re
import unicodedata
from collections import Counter

FOREIGN_SHARE = 0.2
GLUED_WORDS = 2

_EVERYWHERE = frozenset({"LATIN", "GREEK"})  # names, code and mathematics
_NAMED = {"HIRAGANA": "CJK", "KATAKANA": "CJK", "KATAKANA-HIRAGANA": "CJK", "IDEOGRAPHIC": "CJK", "MODIFIER": ""}
"""Writing systems by the first word of Unicode names, where the two differ."""
_UNSPACED = frozenset({"CJK", "HANGUL"})  # written without a blank beside Latin names
_QUOTED = re.compile(r"«[^«»]*»|»[^«»]*«|“[^“”]*”|„[^„“”]*[“”]|\"[^\"\n]*\"|「[^「」]*」|『[^『』]*』|《[^《》]*》")
_COMMENT = re.compile(r"^\s*(?:#|//).*$|(?<=\s)(?:#|//)\s.*$", re.MULTILINE)
_WORD = re.compile(r"[^\W\d_]+")
_SYMBOLS = frozenset("Шאבגדℵℶℷℸ")  # letters that stand alone in mathematics: Tate-Shafarevich, cardinals


def script(character: str) -> str:
    """Return the writing system of a letter by its Unicode name (`CYRILLIC`; `CJK` for Japanese too), "" for others."""
    if not character.isalpha():
        return ""
    first = unicodedata.name(character, "UNNAMED").split()[0]
    return _NAMED.get(first, first)


def unexplained(text: str, own: str) -> str:
    """
    Return what is wrong with the letters of an answer to a prompt in the script `own`, or "".

    Quotations and comments may be in any one script, as may names in a long answer. Wrong are letters of two other
    scripts, of one in more than FOREIGN_SHARE of the text, and GLUED_WORDS words that change the script in the middle.
    """
    plain = unicodedata.normalize("NFKC", _COMMENT.sub(" ", _QUOTED.sub(" ", text)))
    words = [word for word in _WORD.findall(plain) if word not in _SYMBOLS]
    letters = Counter(filter(None, map(script, "".join(words))))
    foreign = sorted(letters.keys() - _EVERYWHERE - {own})
    share = sum(letters[name] for name in foreign) / max(1, letters.total())
    if len(foreign) > 1 or share > FOREIGN_SHARE:
        return f"{share:.0%} of its letters are {' and '.join(name.capitalize() for name in foreign)}"
    glued = sum(1 for word in words if len({*map(script, word)} - {"", "GREEK"} - _UNSPACED) > 1)
    return f"{glued} of its words change their writing system" if glued >= GLUED_WORDS else ""
