"""The mutants of one module: its source with one small fault each, as mutmut makes them, and some that money needs.

mutmut's own operators come first; of them those are left out that change words for people (a message may be worded
otherwise) or put `None` where an argument was (nearly all of these fail at once and would only flatter the score).
Added are the faults that were planted by hand and that mutmut does not know: a statement that is missing, a condition
that is only half asked, an element missing from a table, a keyword that is not given, another comparison in SQL.
"""

from __future__ import annotations

import ast
import difflib
import re
from bisect import bisect_right
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, NamedTuple, cast

import libcst as cst
from libcst.metadata import CodeRange, MetadataWrapper, PositionProvider, WhitespaceInclusivePositionProvider
from mutmut.mutation import mutators
from mutmut.mutation.file_mutation import MutationVisitor, deep_replace
from mutmut.mutation.pragma_handling import IgnoredCode

_SQL = re.compile(r"\b(select|insert into|update|delete from|where|values)\b")
_SQL_FAULTS = (
    (r"(?<![<>!=])=(?!=)", "!="),
    (r"<(?![=>])", "<="),
    (r"(?<![<-])>(?!=)", ">="),
    (r"<=", "<"),
    (r">=", ">"),
    (r"!=", "="),
    (r"\band\b", "or"),
    (r"\bor\b(?! (replace|ignore|abort|rollback|fail))", "and"),
    (r"\bis null\b", "is not null"),
    (r"\bis not null\b", "is null"),
    (r"\bnot (?!null)", ""),
    (r"\bmin\(", "max("),
    (r"\bmax\(", "min("),
    (r"\bdesc\b", "asc"),
)


class Mutant(NamedTuple):
    """One fault.

    Attributes:
        module: the module's path below the package, such as `journal/rules.py`.
        line: where the fault is, in the module as it stands.
        before: the changed lines as they stand, on one line.
        after: the same with the fault.
        source: the whole module with the fault.
        function: the qualified name of the function it is in; empty outside of functions.
    """

    module: str
    line: int
    before: str
    after: str
    source: str
    function: str


def mutants_of(package: Path, module: str) -> list[Mutant]:
    """Return every mutant of a module that is not the module itself, each once."""
    source = (package / module).read_text(encoding="utf-8")
    wrapper = MetadataWrapper(cst.parse_module(source))
    visitor = _Visitor(_OPERATORS, IgnoredCode(set(), set(), set()))
    tree = wrapper.visit(visitor)
    lines, spans = wrapper.resolve(PositionProvider), wrapper.resolve(WhitespaceInclusivePositionProvider)
    places = _Places(source)
    found: dict[str, Mutant] = {}
    for mutation in visitor.mutations:
        node = mutation.original_node
        if node in visitor.says_nothing and isinstance(mutation.mutated_node, cst.Pass):
            continue
        if isinstance(node, cst.Assign | cst.AnnAssign) and _is_false(node):
            continue  # None would be as false; that True is not, is tried.
        mutated = _spliced(source, spans.get(node), _code(node), _code(mutation.mutated_node))
        if mutated is None:
            mutated = _code(cast(cst.Module, deep_replace(tree, node, mutation.mutated_node)))
        if mutated in found:
            continue
        try:
            place = places.of(mutated)
        except SyntaxError:
            continue  # Such as a call without its generator's parentheses; nobody could run it.
        if place is not None:
            found[mutated] = Mutant(module, lines[node].start.line, *_changed(source, mutated), mutated, place)
    return list(found.values())


def _spliced(source: str, span: CodeRange | None, before: str, after: str) -> str | None:
    """Return the source with one piece exchanged, much quicker than by its tree; None where its text differs there."""
    if span is None:
        return None
    lines = source.splitlines(keepends=True)
    start, end = (sum(map(len, lines[: at.line - 1])) + at.column for at in (span.start, span.end))
    return source[:start] + after + source[end:] if source[start:end] == before else None


def _changed(source: str, mutated: str) -> tuple[str, str]:
    one, other = _apart(source.splitlines(), mutated.splitlines())
    difference = list(difflib.unified_diff(one, other, n=0, lineterm=""))[2:]
    before, after = (" ".join(line[1:].strip() for line in difference if line.startswith(sign)) for sign in "-+")
    return before, after


def _apart(one: list[str], other: list[str]) -> tuple[list[str], list[str]]:
    """Leave out the lines that two texts begin and end with."""
    head = next((at for at, pair in enumerate(zip(one, other, strict=False)) if pair[0] != pair[1]), 0)
    one, other = one[head:], other[head:]
    tail = next((at for at, (a, b) in enumerate(zip(one[::-1], other[::-1], strict=False)) if a != b), 0)
    return one[: len(one) - tail], other[: len(other) - tail]


class _Places:
    """Finds the function in which a mutant differs from its module, looking at one statement of the module only."""

    def __init__(self, source: str) -> None:
        self._source = source
        self._lines = source.splitlines()
        self._statements = ast.parse(source).body
        self._first = [
            min([one.lineno, *(part.lineno for part in getattr(one, "decorator_list", ()))]) for one in self._statements
        ]

    def of(self, mutated: str) -> str | None:
        """Return the function's qualified name, "" when it is outside of any, None when nothing differs."""
        lines = mutated.splitlines()
        one, other = _apart(self._lines, lines)
        head = next((at for at, pair in enumerate(zip(self._lines, lines, strict=False)) if pair[0] != pair[1]), 0)
        at = max(bisect_right(self._first, head + 1) - 1, 0)
        statement = self._statements[at]
        begin, end = self._first[at] - 1, statement.end_lineno or 0
        if head + len(one) > end:
            return _difference(ast.parse(self._source), ast.parse(mutated), "")
        more = len(other) - len(one)
        pair = [ast.parse("\n".join(text)) for text in (self._lines[begin:end], lines[begin : end + more])]
        return _difference(pair[0], pair[1], "")


def _difference(one: ast.AST, other: ast.AST, name: str) -> str | None:
    """Return the function in which two modules differ, "" when it is outside of any, None when they do not differ."""
    if ast.dump(one) == ast.dump(other):
        return None
    if isinstance(one, ast.FunctionDef | ast.AsyncFunctionDef):
        assert isinstance(other, ast.FunctionDef | ast.AsyncFunctionDef)
        heads = [
            [_dumped(getattr(part, field)) for field in ("args", "decorator_list", "returns")] for part in (one, other)
        ]
        return name if heads[0] == heads[1] else ""
    bodies = getattr(one, "body", []), getattr(other, "body", [])
    if len(bodies[0]) != len(bodies[1]):
        return ""
    differing = [pair for pair in zip(*bodies, strict=True) if ast.dump(pair[0]) != ast.dump(pair[1])]
    if len(differing) != 1 or not hasattr(differing[0][0], "name"):
        return ""
    inner = differing[0][0].name
    return _difference(*differing[0], f"{name}.{inner}" if name else inner)


def _dumped(part: ast.AST | list[ast.AST] | None) -> str:
    if isinstance(part, list):
        return ";".join(map(ast.dump, part))
    return "" if part is None else ast.dump(part)


class _Visitor(MutationVisitor):
    """mutmut's, without the places where a fault could only change words, and with the functions that it leaves out."""

    def __init__(self, *arguments: Any) -> None:
        super().__init__(*arguments)
        self.says_nothing: set[cst.CSTNode] = set()
        """Returns at the end of a function that say what is said without them: `return ""` is as false as nothing."""
        self._left_out: set[cst.CSTNode] = set()

    def on_visit(self, node: cst.CSTNode) -> bool:
        if node in self._left_out or _asserts(node):
            return False
        if isinstance(node, cst.ClassDef):
            self._left_out.update(node.keywords)  # `frozen=True` and the like guard against us, not against the world.
        if isinstance(node, cst.FunctionDef) and isinstance(node.body, cst.IndentedBlock):
            last = node.body.body[-1]
            if isinstance(last, cst.SimpleStatementLine) and re.fullmatch(
                r'return (""|False|None|\(\))\s*', _code(last.body[-1])
            ):
                self.says_nothing.add(last.body[-1])
        if isinstance(node, cst.FormattedString | cst.ConcatenatedString) and _is_words(node):
            return False
        if isinstance(node, cst.Expr) and isinstance(node.value, cst.SimpleString | cst.ConcatenatedString):
            return False  # A docstring.
        if isinstance(node, cst.Call) and re.match(r"_?log(ger)?\.", _code(node.func)):
            return False
        if isinstance(node, cst.ImportFrom | cst.Import | cst.Annotation | cst.Decorator):
            return False
        if isinstance(node, cst.Assign) and _code(node.targets[0].target) in ("__all__", "log", "_log"):
            return False
        return super().on_visit(node)

    def _skip_node_and_children(self, node: cst.CSTNode) -> bool:
        # mutmut leaves decorated functions out because it wraps functions; here the code alone is exchanged.
        return not isinstance(node, cst.FunctionDef) and super()._skip_node_and_children(node)


def _is_false(node: cst.Assign | cst.AnnAssign) -> bool:
    return isinstance(node.value, cst.Name) and node.value.value == "False"


def _code(node: cst.CSTNode) -> str:
    return cst.Module([]).code_for_node(node)


def _is_words(node: cst.CSTNode) -> bool:
    return " " in _code(node)


def _asserts(node: cst.CSTNode) -> bool:
    """`zip(..., strict=True)` states what is true anyway; a list that is empty at first is read by nobody before."""
    if isinstance(node, cst.Assign | cst.AnnAssign) and re.fullmatch(r"\[\]|\{\}", _code(node.value or node)):
        return True
    return isinstance(node, cst.Arg) and node.keyword is not None and node.keyword.value == "strict"


def _string(node: cst.SimpleString) -> Iterator[cst.SimpleString]:
    """A word of a table or of a protocol: another word. A statement in SQL: another comparison. Words stay."""
    if _SQL.search(node.value.lower()):
        for pattern, other in _SQL_FAULTS:
            for match in re.finditer(pattern, node.value, re.IGNORECASE):
                yield node.with_changes(value=node.value[: match.start()] + other + node.value[match.end() :])
    elif not _is_words(node):
        yield node.with_changes(value=f"{node.value[:-1]}XX{node.value[-1]}")


def _missing_keyword(node: cst.Call) -> Iterator[cst.Call]:
    for at, argument in enumerate(node.args):
        if argument.keyword is not None and not _asserts(argument) and not _is_message(argument.value):
            yield node.with_changes(args=[*node.args[:at], *node.args[at + 1 :]])


def _is_message(node: cst.BaseExpression) -> bool:
    return isinstance(node, cst.SimpleString | cst.FormattedString | cst.ConcatenatedString) and _is_words(node)


def _missing_statement(node: cst.Expr | cst.Raise | cst.Return | cst.Del) -> Iterator[cst.Pass]:
    if not isinstance(node, cst.Expr) or isinstance(node.value, cst.Call | cst.Await | cst.Yield):
        yield cst.Pass()


def _half_asked(node: cst.BooleanOperation) -> Iterator[cst.BaseExpression]:
    for half in (node.left, node.right):
        yield half.with_changes(lpar=[cst.LeftParen()], rpar=[cst.RightParen()])


def _missing_element(node: cst.Tuple | cst.Set | cst.List | cst.Dict) -> Iterator[cst.BaseExpression]:
    if len(node.elements) < 2 or (isinstance(node, cst.Tuple) and not node.lpar):
        return
    for at in range(len(node.elements)):
        rest = [*node.elements[:at], *node.elements[at + 1 :]]
        if len(rest) == 1 and isinstance(node, cst.Tuple):
            rest = [rest[0].with_changes(comma=cst.Comma())]
        yield node.with_changes(elements=rest)


def _asked_the_other_way(node: cst.If | cst.While | cst.IfExp | cst.CompIf) -> Iterator[cst.CSTNode]:
    if isinstance(node.test, cst.Name | cst.Attribute | cst.Call | cst.Await | cst.NamedExpr):
        asked = node.test.with_changes(lpar=[cst.LeftParen()], rpar=[cst.RightParen()])
        blank = cst.SimpleWhitespace(" ")
        yield node.with_changes(test=cst.UnaryOperation(cst.Not(whitespace_after=blank), asked))


_LEFT_OUT = (mutators.operator_string, mutators.operator_arg_removal, mutators.operator_dict_arguments)
_ADDED: Iterable[tuple[type, object]] = (
    (cst.SimpleString, _string),
    (cst.Call, _missing_keyword),
    *((kind, _missing_statement) for kind in (cst.Expr, cst.Raise, cst.Return, cst.Del)),
    (cst.BooleanOperation, _half_asked),
    *((kind, _missing_element) for kind in (cst.Tuple, cst.Set, cst.List, cst.Dict)),
    *((kind, _asked_the_other_way) for kind in (cst.If, cst.While, cst.IfExp, cst.CompIf)),
)
_OPERATORS = [*(pair for pair in mutators.mutation_operators if pair[1] not in _LEFT_OUT), *_ADDED]
