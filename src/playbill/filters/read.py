"""From the text of a condition to a tree. Nothing is known of columns here, see `check`.

    condition   any of   all or all ...
    all         each and each ...
    each        not each   |   (condition)   |   column   |   column test
    test        = != <> == < <= > >= value
                [not] in [value, ...]
                [not] contains value
                is [not] null
    value       'text' or "text" (a quote within is doubled)   |   12, -0.5, 1e3   |   true, false

Times are texts in ISO 8601. Words are of any case. A column whose name is no plain word stands in backquotes.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from playbill.errors import FilterError

MAX_LENGTH = 16_384  # characters
MAX_DEPTH = 32  # brackets and nots around each other
MAX_TESTS = 64
MAX_NUMBER = 40  # characters of one number

Value = str | int | float | bool


@dataclass(frozen=True, slots=True)
class Literal:
    """A value and the 0-based character that it begins at."""

    value: Value
    at: int


@dataclass(frozen=True, slots=True)
class Test:
    """One column held against values.

    Attributes:
        op: `=`, `!=`, `<`, `<=`, `>`, `>=`, `in`, `contains`, `null` (is it missing?) or `true` (the bare column).
        at: 0-based character that the column's name begins at; `op_at` that of the operator.
    """

    column: str
    op: str
    values: tuple[Literal, ...]
    at: int
    op_at: int


@dataclass(frozen=True, slots=True)
class Not:
    part: Node


@dataclass(frozen=True, slots=True)
class Both:
    """All of the parts (`every`), or any."""

    parts: tuple[Node, ...]
    every: bool


Node = Test | Not | Both

_TOKEN = re.compile(
    r"""\s*(?:(?P<text>'(?:[^']|'')*'|"(?:[^"]|"")*")
    |(?P<number>[-+]?(?:\d+\.?\d*|\.\d+)(?:[eE][-+]?\d+)?(?![\w.]))
    |(?P<quoted>`[^`]+`)
    |(?P<word>[^\W\d]\w*)
    |(?P<sign><=|>=|!=|<>|==|[=<>()\[\],])
    |(?P<end>\Z))""",
    re.VERBOSE | re.ASCII,
)
_SAME = {"==": "=", "<>": "!="}
_COMPARED = ("=", "!=", "<", "<=", ">", ">=")
_WORDS = {"and", "or", "not", "in", "contains", "is", "null", "true", "false"}


def read(text: str) -> Node:
    """Return the tree of a condition.

    Raises:
        FilterError: where it cannot be understood, or is larger than the limits of this file.
    """
    if len(text) > MAX_LENGTH:
        raise FilterError(text, MAX_LENGTH, f"expected at most {MAX_LENGTH} characters, got {len(text)}")
    try:
        text.encode()
    except UnicodeEncodeError as error:  # half of a pair, which no table holds
        raise FilterError(text, error.start, "expected Unicode text, got half of a surrogate pair") from None
    reader = _Reader(text)
    tree = reader.any(0)
    if reader.kind != "end":
        raise reader.expected("`and`, `or` or the end")
    return tree


def columns(tree: Node) -> set[str]:
    """Return the names that a tree asks for."""
    if isinstance(tree, Test):
        return {tree.column}
    parts = (tree.part,) if isinstance(tree, Not) else tree.parts
    return set().union(*(columns(part) for part in parts))


class _Reader:
    """Recursive descent over one text; always one token ahead."""

    def __init__(self, text: str) -> None:
        self.text, self.next, self.tests = text, 0, 0
        self.kind, self.token, self.at = "", "", 0
        self.step()

    def step(self) -> None:
        found = _TOKEN.match(self.text, self.next)
        if found is None or found.lastgroup is None:
            rest = self.text[self.next :]
            at = self.next + len(rest) - len(rest.lstrip(" \t\n\r\f\v"))  # what \s is in ASCII
            strange = self.text[at]
            what = "a quote that is not closed" if strange in "'\"`" else f"what starts with {strange!r}"
            raise FilterError(self.text, at, f"expected a column, a value or an operator, got {what}")
        self.kind = found.lastgroup
        self.token, self.at, self.next = found[self.kind], found.start(self.kind), found.end()
        if self.kind == "word" and self.token.lower() in _WORDS:
            self.kind, self.token = "keyword", self.token.lower()

    def expected(self, what: str) -> FilterError:
        got = "the end" if self.kind == "end" else self.token if len(self.token) <= 40 else self.token[:40] + "…"
        return FilterError(self.text, self.at, f"expected {what}, got {got}")

    def take(self, kind: str, token: str) -> bool:
        if self.kind == kind and self.token == token:
            self.step()
            return True
        return False

    def any(self, depth: int) -> Node:
        parts = [self.every(depth)]
        while self.take("keyword", "or"):
            parts.append(self.every(depth))
        return parts[0] if len(parts) == 1 else Both(tuple(parts), every=False)

    def every(self, depth: int) -> Node:
        parts = [self.each(depth)]
        while self.take("keyword", "and"):
            parts.append(self.each(depth))
        return parts[0] if len(parts) == 1 else Both(tuple(parts), every=True)

    def each(self, depth: int) -> Node:
        if depth > MAX_DEPTH:
            raise FilterError(self.text, self.at, f"expected at most {MAX_DEPTH} brackets and nots around each other")
        if self.take("keyword", "not"):
            return Not(self.each(depth + 1))
        if self.take("sign", "("):
            inner = self.any(depth + 1)
            if not self.take("sign", ")"):
                raise self.expected("`)`, `and` or `or`")
            return inner
        return self.test()

    def test(self) -> Node:
        if self.kind not in ("word", "quoted"):
            raise self.expected("a column, `not` or `(`")
        self.tests += 1
        if self.tests > MAX_TESTS:
            raise FilterError(self.text, self.at, f"expected at most {MAX_TESTS} tests; a list after `in` is one")
        column, at = self.token.strip("`"), self.at
        self.step()
        op, op_at = _SAME.get(self.token, self.token), self.at
        if self.kind == "sign" and op in _COMPARED:
            self.step()
            return Test(column, op, (self.value(),), at, op_at)
        if self.take("keyword", "is"):
            denied = self.take("keyword", "not")
            if not self.take("keyword", "null"):
                raise self.expected("`null`" if denied else "`null` or `not null`")
            return _denied(Test(column, "null", (), at, op_at), denied)
        denied = self.take("keyword", "not")
        if self.take("keyword", "in"):
            return _denied(Test(column, "in", self.values(), at, op_at), denied)
        if self.take("keyword", "contains"):
            return _denied(Test(column, "contains", (self.value(),), at, op_at), denied)
        if denied:
            raise self.expected("`in` or `contains`")
        if self.kind in ("word", "quoted", "text", "number"):
            raise self.expected("an operator (= != < <= > >=, in, contains, is null)")
        return Test(column, "true", (), at, at)

    def values(self) -> tuple[Literal, ...]:
        close = ")" if self.kind == "sign" and self.token == "(" else "]"
        if not (self.take("sign", "[") or self.take("sign", "(")):
            raise self.expected("a list such as [1, 2]")
        found = [self.value()]
        while self.take("sign", ","):
            found.append(self.value())
        if not self.take("sign", close):
            raise self.expected(f"`,` or `{close}`")
        return tuple(found)

    def value(self) -> Literal:
        kind, token, at = self.kind, self.token, self.at
        value: Value
        if kind == "text":
            value = token[1:-1].replace(token[0] * 2, token[0])
        elif kind == "number":
            if len(token) > MAX_NUMBER:
                raise FilterError(self.text, at, f"expected a number of at most {MAX_NUMBER} characters")
            value = int(token) if re.fullmatch(r"[-+]?\d+", token) else float(token)
            if value in (float("inf"), float("-inf")) or (isinstance(value, int) and not -(2**63) <= value < 2**63):
                raise FilterError(self.text, at, f"expected a number that fits 64 bits, got {token}")
        elif kind == "keyword" and token in ("true", "false"):
            value = token == "true"
        elif kind == "keyword" and token == "null":
            raise FilterError(self.text, at, "expected a value; what is missing is asked for with `is null`")
        else:
            raise self.expected("a value: 'text', a number, true or false")
        self.step()
        return Literal(value, at)


def _denied(test: Test, denied: bool) -> Node:
    return Not(test) if denied else test
