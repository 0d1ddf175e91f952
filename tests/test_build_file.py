"""BUILD's tables say what each file imports. `python tests/test_build_file.py` writes them from the sources."""

import ast
import pathlib
import re
import textwrap

import pytest

ROOT = pathlib.Path(__file__).parent.parent
PUBLIC_NAMES = "_MODULES"  # in alexnet_tf/__init__.py
TEST_TOOLS = ("tests/run_pytest.py", "tests/goldens/networks.py")  # run by Bazel, or by hand

pytestmark = pytest.mark.skipif(not (ROOT / "setup.py").exists(), reason="a Bazel sandbox does not hold all sources")


def sources():
    """The files that have a row, by the name of the row."""
    files = {}
    for folder in ("", "layers", "tfrecords", *(path.parent.name for path in ROOT.glob("alexnet_tf/*/__init__.py"))):
        for path in (ROOT / "alexnet_tf" / folder).glob("*.py"):
            name = path.relative_to(ROOT / "alexnet_tf").with_suffix("").as_posix()
            if name not in ("__init__", "registration"):  # the target alexnet_tf itself
                files[name] = path
    for path in (ROOT / "tests").rglob("*.py"):
        name = path.relative_to(ROOT).as_posix()
        if name not in TEST_TOOLS:
            files[name.removesuffix(".py")] = path
    return {name: path for name, path in files.items() if path.name != "__init__.py" or imports(path, files)}


def assigned(tree, name):
    """The value of a module's variable that is written out."""
    values = [n.value for n in tree.body if isinstance(n, ast.Assign) and ast.unparse(n.targets[0]) == name]
    return ast.literal_eval(values[0])


def imports(path, files):
    """The names of the rows of this project's modules that a file imports or starts, sorted."""
    public = assigned(ast.parse((ROOT / "alexnet_tf/__init__.py").read_text()), PUBLIC_NAMES)

    def row(module):
        """The row of a dotted name, if it is a module or a package that has one."""
        inside = module.removeprefix("alexnet_tf.").replace(".", "/")
        found = [n for n in (inside, f"{inside}/__init__", f"tests/{inside}") if n in files]
        return found[0] if found and (module.startswith("alexnet_tf.") or found[0].startswith("tests/")) else None

    tree = ast.parse(path.read_text())
    for node in ast.walk(tree):  # what is imported for type checkers alone may run in a circle
        if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING":
            node.body = []
    rows = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            rows |= {row(alias.name) for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            for alias in node.names:
                from_public_name = node.module == "alexnet_tf" and row(f"alexnet_tf.{public.get(alias.name)}")
                rows.add(row(f"{node.module}.{alias.name}") or from_public_name or row(node.module))
        elif isinstance(node, ast.Attribute) and ast.unparse(node.value) == "alexnet_tf":
            rows.add(row(f"alexnet_tf.{public.get(node.attr)}"))
        elif isinstance(node, ast.Constant) and str(node.value).startswith("alexnet_tf."):  # started as a process
            rows.add(row(node.value))
    return sorted(rows - {None, next((name for name in files if files[name] == path), None)})


def tables():
    """The tables as the sources want them: of each row's name, the rows that it imports."""
    files = sources()
    rows = {name: imports(path, files) for name, path in sorted(files.items())}
    programs = {name for name in rows if '__name__ == "__main__"' in files[name].read_text() and "tests/" not in name}
    tests = {name for name in rows if pathlib.Path(name).name.startswith("test_") and name.startswith("tests/")}
    helpers = {name for name in rows if name.startswith("tests/")} - tests
    named = {"_PROGRAMS": programs, "_TEST_HELPERS": helpers, "_TESTS": tests}
    named["_LIBRARIES"] = set(rows) - programs - tests - helpers
    return {table: {name: rows[name] for name in sorted(names)} for table, names in named.items()}


def written(table, rows):
    """A table in Bazel's language."""
    lines = [f"{table} = {{"]
    for name, imported in rows.items():
        line = f"{ast_string(name)}: [{', '.join(map(ast_string, imported))}],"
        lines.append(textwrap.fill(line, 150, initial_indent=" " * 4, subsequent_indent=" " * 8))
    return "\n".join([*lines, "}\n"])


def ast_string(text):
    return f'"{text}"'


def corrected(build):
    """The text of BUILD with its tables replaced."""
    for table, rows in tables().items():
        build = re.sub(rf"^{table} = {{\n.*?^}}\n", written(table, rows), build, flags=re.MULTILINE | re.DOTALL)
    return build


def test_rows_are_the_files_and_list_what_they_import():
    tree = ast.parse((ROOT / "BUILD").read_text())
    for table, rows in tables().items():
        assert assigned(tree, table) == rows, f"`python tests/test_build_file.py` writes:\n{written(table, rows)}"


def test_bazel_needs_few_lines():
    assert len((ROOT / "BUILD").read_text().splitlines()) <= 450


if __name__ == "__main__":
    (ROOT / "BUILD").write_text(corrected((ROOT / "BUILD").read_text()))
