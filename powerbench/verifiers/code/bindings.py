"""How a statement outside of functions may bind the entry point, other than by its own `def`."""

import ast
from collections.abc import Iterator

SCOPES = ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef | ast.Lambda
IMPORTS = ast.Import | ast.ImportFrom
PARTIAL = ("partial", "functools.partial")


def defines(node: ast.stmt, name: str) -> bool:
    """Whether it binds the name to a function: one written out, imported, or of another name."""
    return any(_is_function(bound) for bound in _bound(node, name))


def may_define(node: ast.stmt, name: str) -> bool:
    """Whether it binds the name to what may well be called: a class, what a call returns, an item."""
    kinds = ast.ClassDef | ast.Call | ast.Subscript
    return any(isinstance(bound, kinds) for bound in _bound(node, name))


def wraps(node: ast.stmt, name: str) -> bool:
    """Whether it binds the name anew to what a call makes of the function, as in `f = cache(f)`."""
    return any(isinstance(bound, ast.Call) and _passes(bound, name) for bound in _bound(node, name))


def acts(node: ast.stmt) -> bool:
    """Whether it does more than to define something, to document or to hold a place."""
    match node:
        case ast.Pass() | ast.Expr(ast.Constant() | ast.Name()):
            return False
    return not isinstance(node, SCOPES | IMPORTS)


def _bound(node: ast.stmt, name: str) -> Iterator[ast.AST]:
    """What it, or a statement in its branches, binds to the name."""
    todo: list[ast.AST] = [node]
    while todo:
        match each := todo.pop():
            case ast.FunctionDef() | ast.ClassDef():
                yield from [each] if each.name == name else []
            case ast.ImportFrom():
                yield from (alias for alias in each.names if (alias.asname or alias.name) == name)
            case ast.Assign():
                for target in each.targets:
                    yield from _assigned(target, each.value, name)
            case ast.AnnAssign(value=ast.expr() as value):
                yield from _assigned(each.target, value, name)
            case ast.Expr(ast.NamedExpr() as walrus):
                yield from _assigned(walrus.target, walrus.value, name)
            case ast.If() if _asks_for_main(each.test):
                pass
            case ast.stmt() | ast.excepthandler() | ast.match_case():
                todo += ast.iter_child_nodes(each)


def _assigned(target: ast.expr, value: ast.expr, name: str) -> Iterator[ast.expr]:
    match target, value:
        case ast.Tuple() | ast.List(), ast.Tuple() | ast.List():
            if len(target.elts) == len(value.elts):
                for part, of_part in zip(target.elts, value.elts, strict=True):
                    yield from _assigned(part, of_part, name)
        case ast.Tuple() | ast.List(), _:
            names = [part.id for part in target.elts if isinstance(part, ast.Name)]
            yield from [value] if name in names else []
        case _, ast.NamedExpr():
            yield from _assigned(value.target, value.value, name)
            yield from _assigned(target, value.value, name)
        case _, ast.IfExp():
            yield from _assigned(target, value.body, name)
            yield from _assigned(target, value.orelse, name)
        case ast.Name(named), _:
            yield from [value] if named == name else []
        case ast.Subscript(ast.Call(ast.Name("globals")), ast.Constant(named)), _:
            yield from [value] if named == name else []


def _is_function(bound: ast.AST) -> bool:
    match bound:
        case ast.FunctionDef():
            return any(map(acts, bound.body))
        case ast.Call():
            return ast.unparse(bound.func) in PARTIAL
    return isinstance(bound, ast.Lambda | ast.Name | ast.Attribute | ast.alias)


def _passes(call: ast.Call, name: str) -> bool:
    values = [*call.args, *(keyword.value for keyword in call.keywords)]
    return any(isinstance(value, ast.Name) and value.id == name for value in values)


def _asks_for_main(test: ast.expr) -> bool:
    return any(isinstance(node, ast.Name) and node.id == "__name__" for node in ast.walk(test))
