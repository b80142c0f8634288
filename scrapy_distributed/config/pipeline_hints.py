"""What the source of an item pipeline tells: that it is right only where all items pass one object of it."""

from __future__ import annotations

import ast
import inspect
import textwrap

_KEEPERS = ("set", "dict", "defaultdict", "Counter", "OrderedDict")
_WRITING = ("w", "a", "x", "+")


def reason_for_home(pipeline: type) -> str:
    """Why *pipeline* should run once, at home: '' if its source shows no reason, or can't be read."""
    try:
        tree = ast.parse(textwrap.dedent(inspect.getsource(pipeline)))
    except (OSError, TypeError, SyntaxError):
        return ""
    reasons = []
    for node in ast.walk(tree):
        if isinstance(node, ast.Call) and _opens_for_writing(node):
            reasons.append("writes a file")
        elif isinstance(node, ast.Assign | ast.AnnAssign) and _keeps(node):
            reasons.append("keeps what it has seen")
    return " and ".join(dict.fromkeys(reasons))


def _opens_for_writing(call: ast.Call) -> bool:
    function = call.func
    name = (
        function.id if isinstance(function, ast.Name) else function.attr if isinstance(function, ast.Attribute) else ""
    )
    if name != "open":
        return False
    texts = [*call.args, *(keyword.value for keyword in call.keywords if keyword.arg == "mode")]
    modes = [text.value for text in texts if isinstance(text, ast.Constant) and isinstance(text.value, str)]
    return any(len(mode) <= 3 and any(letter in mode for letter in _WRITING) for mode in modes)


def _keeps(assignment: ast.Assign | ast.AnnAssign) -> bool:
    """Whether an attribute of ``self`` becomes an empty set or dict, or the like."""
    targets = assignment.targets if isinstance(assignment, ast.Assign) else [assignment.target]
    of_self = any(
        isinstance(target, ast.Attribute) and isinstance(target.value, ast.Name) and target.value.id == "self"
        for target in targets
    )
    value = assignment.value
    is_empty = isinstance(value, ast.Dict) and not value.keys
    made = isinstance(value, ast.Call) and isinstance(value.func, ast.Name) and value.func.id in _KEEPERS
    return of_self and (is_empty or made)
