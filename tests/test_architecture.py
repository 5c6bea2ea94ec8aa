"""The import order of the packages and other rules of docs/architecture.md, read off the source."""

import ast
import subprocess
import sys
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import NamedTuple

import pytest

ROOT = Path(__file__).resolve().parent.parent
FOLDERS = ("rnndet", "tools", "examples")

# Modules at the top of rnndet, which every package may import.
BASE = ("errors", "messages", "boxes", "structures", "specs", "registry", "config")
# Each package imports only itself, BASE, and the packages before it.
ORDER = (
    "system",
    "video",
    "tracking",
    "models",
    "data",
    "inference",
    "evaluation",
    "training",
    "benchmarks",
    "cli",
)
# Where a third-party module may be used: files, or folders that end in "/".
HOMES: dict[str, tuple[str, ...]] = {
    "cv2": ("rnndet/video/", "examples/"),
    "av": ("rnndet/video/",),
    "pycocotools": ("rnndet/evaluation/metrics/coco_ap.py",),
    "trackeval": ("rnndet/evaluation/metrics/mot.py", "examples/comparison/"),
    "torchvision.models": ("rnndet/models/detectors/", "examples/"),
    "argparse": ("rnndet/cli/", "examples/"),
    "ray": ("examples/",),
    "pyarrow": ("rnndet/inference/writers/parquet.py", "rnndet/inference/read_results.py"),
    "pandas": ("rnndet/inference/read_results.py",),
    "supervision": ("rnndet/structures.py", "examples/comparison/"),
    "torch.distributed": ("rnndet/system/distributed.py",),
}


class Use(NamedTuple):
    """A module or name that a file uses, by its full dotted name."""

    file: str  # relative to the repository, with "/"
    line: int
    name: str

    def __str__(self) -> str:
        return f"{self.file}:{self.line}: {self.name}"


@cache
def trees() -> dict[str, ast.Module]:
    """The syntax tree of every file of FOLDERS, by its path."""
    files = [file for f in FOLDERS for file in sorted(ROOT.glob(f"{f}/**/*.py"))]
    assert len(files) > 40, "the source is not where this test looks for it"
    return {f.relative_to(ROOT).as_posix(): ast.parse(f.read_text("utf-8")) for f in files}


def library() -> dict[str, ast.Module]:
    return {file: tree for file, tree in trees().items() if file.startswith("rnndet/")}


def package_of(file: str) -> str:
    """`data` for rnndet/data/frames.py, `boxes` for rnndet/boxes.py."""
    return file.split("/")[1].removesuffix(".py")


@cache
def nodes(tree: ast.AST) -> list[ast.AST]:
    """All nodes of a tree, which most of the rules look at."""
    return list(ast.walk(tree))


def imports(file: str, tree: ast.Module) -> Iterator[Use]:
    """Every import, also inside functions; `from a import b` is a.b."""
    for node in nodes(tree):
        if isinstance(node, ast.Import):
            yield from (Use(file, node.lineno, alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            origin = "." * node.level + (node.module or "")
            yield from (Use(file, node.lineno, f"{origin}.{alias.name}") for alias in node.names)


def dotted(node: ast.expr) -> str:
    """The text of an expression like torch.cuda.is_available; "" if it is not names and dots."""
    if isinstance(node, ast.Name):
        return node.id
    if isinstance(node, ast.Attribute):
        owner = dotted(node.value)
        return f"{owner}.{node.attr}" if owner else ""
    return ""


def uses(file: str, tree: ast.Module) -> Iterator[Use]:
    """Imports, and names with dots such as `torch.distributed.barrier` after `import torch`."""
    yield from imports(file, tree)
    for node in nodes(tree):
        if isinstance(node, ast.Attribute) and dotted(node):
            yield Use(file, node.lineno, dotted(node))


def calls(tree: ast.AST) -> Iterator[ast.Call]:
    return (node for node in nodes(tree) if isinstance(node, ast.Call))


def is_within(name: str, module: str) -> bool:
    return name == module or name.startswith(f"{module}.")


def report(rule: str, wrong: list[str]) -> None:
    """Fail with the rule and one line for each place that breaks it."""
    assert not wrong, "\n".join([rule, *wrong])


# imports


def test_top_level_is_the_base_modules_and_the_packages():
    found = {package_of(file) for file in library()} - {"__init__", "__main__"}
    assert found == {*BASE, *ORDER}


def test_packages_import_only_what_comes_before_them():
    allowed = {name: {*BASE[:place]} for place, name in enumerate(BASE)}
    allowed |= {name: {*BASE, *ORDER[:place]} for place, name in enumerate(ORDER)}
    wrong = []
    for file, tree in library().items():
        package = package_of(file)
        if package in ("__init__", "__main__"):
            continue
        for use in imports(file, tree):
            if not use.name.startswith("rnndet."):
                continue
            target = use.name.split(".")[1]
            if target not in {package, *allowed[package], "__version__"}:
                wrong.append(f"{use}: {package} may import {', '.join(sorted(allowed[package]))}")
    report("imports go one way", wrong)


def test_only_builders_know_the_configuration():
    """Other constructors take the values that they use; no argument is called `config`."""
    homes = ("rnndet/models/", "rnndet/data/", "rnndet/training/", "rnndet/benchmarks/",
             "rnndet/cli/", "rnndet/__init__.py")  # fmt: skip
    wrong = [
        str(use)
        for file, tree in library().items()
        for use in imports(file, tree)
        if is_within(use.name, "rnndet.config") and not file.startswith(homes)
    ]
    report(f"config is imported only in {', '.join(homes)}", wrong)


def test_imports_are_absolute_and_without_a_star():
    wrong = [
        str(use)
        for file, tree in trees().items()
        for use in imports(file, tree)
        if use.name.startswith(".") or use.name.endswith(".*")
    ]
    report("imports are absolute and without a star", wrong)


def test_nothing_imports_the_scripts_in_tools():
    wrong = [
        str(use)
        for file, tree in trees().items()
        for use in imports(file, tree)
        if is_within(use.name, "tools")
    ]
    report("tools call functions of rnndet", wrong)


@pytest.mark.parametrize("module", HOMES)
def test_third_party_module_is_used_in_its_place_only(module):
    homes = HOMES[module]
    wrong = [
        str(use)
        for file, tree in trees().items()
        for use in uses(file, tree)
        if is_within(use.name, module) and not file.startswith(homes)
    ]
    report(f"{module} only in {', '.join(homes)}", wrong)


def test_modules_are_imported_by_name_only_in_the_package_itself():
    wrong = [
        f"{file}:{call.lineno}"
        for file, tree in library().items()
        for call in calls(tree)
        if dotted(call.func).endswith("import_module")
        and file not in ("rnndet/__init__.py", "rnndet/cli/main.py")
    ]
    report("an import by name cannot be checked against the order", wrong)


# models keep no hidden state


def owner_of(target: ast.expr) -> str:
    """`self` for self.x, self.x[0] and self.x.y; "" if it begins otherwise."""
    while isinstance(target, ast.Attribute | ast.Subscript):
        target = target.value
    return target.id if isinstance(target, ast.Name) else ""


def changes_of_self(function: ast.FunctionDef) -> Iterator[int]:
    """Lines that bind or delete self.x, or an item or attribute of it, in whatever statement."""
    for node in ast.walk(function):
        is_place = isinstance(node, ast.Attribute | ast.Subscript)
        if is_place and isinstance(node.ctx, ast.Store | ast.Del) and owner_of(node) == "self":
            yield node.lineno


def methods(tree: ast.Module) -> Iterator[ast.FunctionDef]:
    for node in ast.walk(tree):
        if isinstance(node, ast.ClassDef):
            yield from (item for item in node.body if isinstance(item, ast.FunctionDef))


def test_no_forward_assigns_to_self():
    wrong = [
        f"{file}:{line}: forward assigns to an attribute of self"
        for file, tree in library().items()
        for method in methods(tree)
        if method.name == "forward"
        for line in changes_of_self(method)
    ]
    report("models keep no state: it is an argument and a result", wrong)


def test_models_assign_to_self_only_in_init_and_setters():
    wrong = []
    for file, tree in library().items():
        if package_of(file) != "models":
            continue
        for method in methods(tree):
            decorators = [dotted(decorator) for decorator in method.decorator_list]
            if method.name != "__init__" and not any(d.endswith(".setter") for d in decorators):
                wrong += [f"{file}:{n}: {method.name}" for n in changes_of_self(method)]
    report("models keep no state: it is an argument and a result", wrong)


# files are data


RUNS_CODE = {"eval", "exec", "compile", "__import__", "os.system", "os.popen", "torch.hub.load"}
UNPICKLES = {"pickle.load", "pickle.loads", "pickle.Unpickler", "marshal.loads", "yaml.load"}


def unsafe(call: ast.Call) -> str:
    """The unsafe part of a call; "" if it is safe."""
    name = dotted(call.func)
    if name in RUNS_CODE | UNPICKLES:
        return f"{name}() runs whatever it is given"
    given = {k.arg: k.value.value for k in call.keywords if isinstance(k.value, ast.Constant)}
    if given.get("shell") is True or given.get("allow_pickle") is True:
        return f"{name}() with shell or allow_pickle runs whatever it is given"
    if name == "torch.load" and given.get("weights_only") is not True:
        return "torch.load() needs weights_only=True"
    return ""


def test_nothing_runs_code_from_a_file_or_a_shell():
    wrong = []
    for file, tree in trees().items():
        wrong += [f"{file}:{call.lineno}: {unsafe(call)}" for call in calls(tree) if unsafe(call)]
        banned = RUNS_CODE | UNPICKLES
        wrong += [f"{use}: banned" for use in imports(file, tree) if use.name in banned]
    report("files are data, never code", wrong)


# imports have no effect, and the library does not print


def only_defines(node: ast.stmt) -> bool:
    """Whether a statement is text, an import, or binds names, and does nothing else."""
    match node:
        case ast.Expr(value=ast.Constant()) | ast.Import() | ast.ImportFrom():
            return True
        case ast.FunctionDef() | ast.ClassDef() | ast.AnnAssign(target=ast.Name()):
            return True
        case ast.Assign(targets=targets):
            return all(isinstance(target, ast.Name | ast.Tuple) for target in targets)
        case ast.If(test=test):
            return dotted(test).endswith("TYPE_CHECKING") or ast.unparse(test) == (
                "__name__ == '__main__'"
            )
    return False


def test_importing_a_module_only_defines_names():
    wrong = [
        f"{file}:{node.lineno}: {type(node).__name__} at the top level"
        for file, tree in library().items()
        for node in tree.body
        if not only_defines(node)
    ]
    report("nothing happens on import", wrong)


def test_only_the_command_line_prints():
    wrong = [
        f"{file}:{call.lineno}"
        for file, tree in library().items()
        if package_of(file) != "cli"
        for call in calls(tree)
        if dotted(call.func) == "print"
    ]
    report("the library logs; print is for cli/", wrong)


def test_no_module_is_a_grab_bag():
    wrong = []
    for file in trees():
        parts = file.removesuffix(".py").split("/")
        wrong += [f"{file}:1" for part in parts if part in ("utils", "misc", "common", "helpers")]
    report("modules have specific names", wrong)


def test_importing_the_package_loads_neither_torch_nor_cv2():
    check = "import sys, rnndet; sys.exit(bool({'torch', 'cv2', 'numpy'} & set(sys.modules)))"
    assert subprocess.run([sys.executable, "-c", check], cwd=ROOT, check=False).returncode == 0
