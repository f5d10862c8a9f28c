"""Words that are not used any longer in the product and its docs, and what replaces them."""

from __future__ import annotations

import re
from functools import cache
from pathlib import Path
from typing import Final

import pytest

from tests.test_tidy import texts

# A pattern, what is written in its place, and a sentence in which it is found. A space in a pattern
# is any white space, so that a phrase is found that goes on in the next line.
NOT_USED: Final = (
    (r"\bwhoever\b", "the role: the caller, a reader", "Whoever has the lock may write."),
    (r"\b(?:came|comes?|became|becomes?) of\b", "outcome, result", "what became of it"),
    (r"\bat the most\b", "at most", "100 at the most"),
    (r"\bso many as\b", "the name of the limit", "so many as an event may name"),
    (r"\b(?:hold|holds|held) (?:\w+ ){0,6}against\b", "compare with", "held against the log"),
    (r"\bsigns? of life\b", "heartbeat", "no sign of life"),
    (r"\banew\b", "again", "registers anew"),
    (r"\b(?:put|puts|putting) (?:it |them |the rows? )?right\b", "repair", "put the row right"),
    (r"\bmend(?:s|ed|ing)?\b", "repair", "the tables are mended"),
    (r"\btold what happens\b", "receives events", "It is told what happens."),
    (r"\b(?:hear|hears|heard) of\b", "gets, last heartbeat", "last heard of at noon"),
    (r"\blets? go\b", "release, disconnect, drop", "a follower is let go"),
    (r"\blet (?:it|this|events) happen\b", "append, apply", "Let it happen to a manager."),
    (r"\b(?:speaks? of|spoken to)\b", "describe, reach", "the log speaks of it"),
    (r"\b(?:told|tells?) (?:\w+ ){0,4}apart\b", "distinguish", "the key tells rows apart"),
    (r"\bsay so: ", "set, give", "if you want it, say so: all=true"),
    (r"\bGo on\?", "Continue?", "3 records. Go on?"),
    (r"\bgoes with (?:--|a receipt)", "can only be used with", "--result goes with a receipt"),
    (r"\b(?:is|are) none (?:that|which)\b", "is not, is malformed", "it is none that is known"),
    (
        r"\b(?:body|cursor|key|note|token|archive|backup|stream) is no \w+",
        "is not a",
        "key is no id",
    ),
    (r"\bhanded in\b", "returned", "a result is handed in"),
    (r"\bgood-bye\b", "report the end", "it says good-bye"),
    (r"\bhalf of a surrogate\b", "a lone surrogate", "it has half of a surrogate pair"),
    (r"\b(?:if|because|when) somebody\b", "a role, or the passive", "if somebody has changed it"),
)

# Written once: the history of what was said, and steps that databases have taken already.
KEPT: Final = re.compile(r"tests/|CHANGELOG|docs/adr/|projections/tables/migrations/")
SUFFIXES: Final = frozenset({".py", ".sql", ".md", ".toml", ".yml"})


def compiled(pattern: str) -> re.Pattern[str]:
    return re.compile(pattern.replace(" ", r"(?:\s+(?:#|--)?\s*)"), re.IGNORECASE)


@cache
def product() -> dict[str, str]:
    """What users and engineers read: sources with their messages and docstrings, and docs."""
    return {
        str(path): text
        for path, text in texts().items()
        if path.suffix in SUFFIXES and not KEPT.match(str(path))
    }


@pytest.mark.parametrize(("pattern", "instead"), [row[:2] for row in NOT_USED])
def test_a_word_that_is_not_used_any_longer_is_nowhere(pattern: str, instead: str) -> None:
    found = [
        f"{path}:{text.count(chr(10), 0, match.start()) + 1}: {match[0]!r}; write: {instead}"
        for path, text in product().items()
        for match in compiled(pattern).finditer(text)
    ]
    assert found == []


@pytest.mark.parametrize(("pattern", "sentence"), [(row[0], row[2]) for row in NOT_USED])
def test_the_word_would_be_found(pattern: str, sentence: str) -> None:
    assert compiled(pattern).search(sentence)
    assert compiled(pattern).search(sentence.replace(" ", "\n    # "))


def test_the_product_is_what_is_searched() -> None:
    assert {"domain/errors.py", "README.md", "docs/glossary.md"} <= set(product())
    assert not any(path.startswith("tests/") for path in product())
    assert Path(__file__).name not in {Path(path).name for path in product()}
