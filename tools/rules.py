"""Which tests prove which rule: reads docs/PROTOCOLS.md and the `rule` markers of the tests.

    python tools/rules.py      prints each rule with its tests; exits 1 if a rule of a built part has none,
                               or if a test names a rule that does not exist

A rule is a list item of docs/PROTOCOLS.md that begins with its id in bold; one of a part to come carries _(to come)_
behind the id. The promises P1 to P8 are rules, too.
"""

import ast
import re
import sys
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
_RULE = re.compile(r"^- \*\*([A-Z]\d+)\*\*(?P<later> _\(to come[^)]*\)_)?:? *(?P<text>.*)")
_WIDTH = 70


def main() -> int:
    """Prints the table; returns 0 if every rule of a built part has a test and every named rule exists."""
    rules = {match[1]: match for match in _matches(ROOT / "docs" / "PROTOCOLS.md")}
    proofs: dict[str, list[str]] = defaultdict(list)
    for path in sorted((ROOT / "tests").rglob("test_*.py")):
        for rule, test in _marked(path):
            proofs[rule].append(f"{path.relative_to(ROOT)}::{test}")
    unproven = [rule for rule, match in rules.items() if not match["later"] and rule not in proofs]
    unknown = sorted(set(proofs) - set(rules))
    for rule, match in rules.items():
        later = " (to come)" if match["later"] else ""
        sys.stdout.write(f"{rule}{later}  {_short(match['text'])}\n")
        sys.stdout.writelines(f"    {test}\n" for test in proofs[rule])
    for rule in unproven:
        sys.stderr.write(f"rule {rule} has no test\n")
    for rule in unknown:
        sys.stderr.write(f"{proofs[rule][0]} names rule {rule}, which docs/PROTOCOLS.md does not have\n")
    return 1 if unproven or unknown or not rules else 0


def _matches(path: Path) -> Iterator[re.Match[str]]:
    return (match for line in path.read_text().splitlines() if (match := _RULE.match(line)))


def _marked(path: Path) -> Iterator[tuple[str, str]]:
    """The (rule, test) pairs of a file; a marker on a class or on the module counts for all of its tests."""
    tree = ast.parse(path.read_text())
    inherited = [rule for node in tree.body if _is_pytestmark(node) for rule in _rules_in(node)]
    yield from _marked_below(tree, inherited)


def _marked_below(parent: ast.Module | ast.ClassDef, inherited: list[str]) -> Iterator[tuple[str, str]]:
    for node in parent.body:
        if not isinstance(node, ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            continue
        own = inherited + [rule for decorator in node.decorator_list for rule in _rules_in(decorator)]
        if isinstance(node, ast.ClassDef):
            yield from _marked_below(node, own)
        elif node.name.startswith("test_"):
            yield from ((rule, node.name) for rule in own)


def _is_pytestmark(node: ast.stmt) -> bool:
    return isinstance(node, ast.Assign) and any(
        isinstance(target, ast.Name) and target.id == "pytestmark" for target in node.targets
    )


def _rules_in(node: ast.AST) -> list[str]:
    """The ids in every `pytest.mark.rule(...)` below a node."""
    return [
        argument.value
        for call in ast.walk(node)
        if isinstance(call, ast.Call) and isinstance(call.func, ast.Attribute) and call.func.attr == "rule"
        for argument in call.args
        if isinstance(argument, ast.Constant) and isinstance(argument.value, str)
    ]


def _short(text: str) -> str:
    return text if len(text) <= _WIDTH else text[: _WIDTH - 1].rstrip() + "…"


if __name__ == "__main__":
    sys.exit(main())
