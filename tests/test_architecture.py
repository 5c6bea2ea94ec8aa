"""The rules of docs/architecture.md, checked by reading the source; torch is not imported here."""

import ast
import graphlib
import subprocess
import sys
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import NamedTuple

import pytest

ROOT = Path(__file__).resolve().parent.parent
NOUNS = {"structures", "boxes", "errors", "catalog", "postprocess", "specs"}
FOLDERS = ("rnndet", "tools", "examples")
PACKAGES = ("detectors", "temporal", "tracking", "metrics", "video")

# What each part of rnndet may import of rnndet beside itself: the arrows of docs/architecture.md.
# Imports for type checking count too: an arrow is an arrow.
ARROWS: dict[str, set[str]] = {
    "errors": set(),
    "structures": set(),
    "boxes": set(),
    "catalog": {"errors"},
    "specs": set(),
    "postprocess": {"boxes", "specs", "structures"},
    "device": {"errors"},
    "lock": {"errors"},
    "progress": set(),
    "sharding": {"errors"},
    "signals": set(),
    "config": {"errors"},
    "corruption": set(),
    "degradation": {"catalog", "corruption", "errors", "structures"},
    "distributed": set(),
    **{package: NOUNS for package in PACKAGES},
    "data": NOUNS | {"video", "config", "degradation"},
    "model": NOUNS | {"detectors", "temporal", "config"},
    "weights_files": {"errors"},
    "published": {"errors"},
    "checkpoint": NOUNS | {"model", "config", "published", "weights_files"},
    "runtimes": NOUNS
    | {"checkpoint", "detectors", "device", "model", "published", "temporal", "video"},
    "jobs": NOUNS | {"runtimes", "sharding", "video"},
    "export": NOUNS | {"model", "runtimes", "temporal", "video"},
    "stream": NOUNS | {"model", "runtimes", "tracking"},
    "stream_state": NOUNS | {"stream"},
    "doctor": NOUNS | {"device", "published", "video"},
    "exports": NOUNS | {"video"},
    "results": NOUNS | {"exports", "lock", "video"},
    "pipeline": NOUNS | {"results"},
    "done": NOUNS | {"video"},
    "publish": NOUNS | {"checkpoint", "published"},
    "machine": set(),
    "stock_loop": NOUNS | {"detectors", "model", "runtimes", "temporal"},
    "benchmark": NOUNS | {"inference", "machine", "runtimes", "stream", "video"},
    "benchmark_settings": NOUNS | {"checkpoint", "runtimes", "stock_loop"},
    "apart_benchmark": NOUNS | {"benchmark"},
    "untrained": NOUNS | {"checkpoint", "config", "model"},
    "eval_benchmark": NOUNS | {"data", "evaluation", "machine", "metrics", "model", "scoring"},
    "process_benchmark": NOUNS | {"inference", "stream", "video"},
    "inference": NOUNS
    | {
        "model",
        "pipeline",
        "published",
        "results",
        "runtimes",
        "stream",
        "stream_state",
        "tracking",
    }
    | {"video"},
    "scored": NOUNS | {"data", "metrics", "stream", "tracking"},
    "ablation": NOUNS | {"data", "metrics", "model", "runtimes", "scored", "stream", "temporal"},
    "evaluation": NOUNS
    | {"ablation", "data", "degradation", "distributed", "metrics", "model", "scored", "stream"},
    "cut_benchmark": NOUNS | {"data", "degradation", "evaluation", "video"},
    "dataset_stats": NOUNS | {"data", "metrics", "scored"},
    "dataset_plots": NOUNS | {"dataset_stats"},
    "recall_plots": {"errors"},
    "rescoring": NOUNS | {"metrics", "tracking"},
    "report": NOUNS | {"metrics", "report_charts", "report_judged", "video"},
    "report_charts": set(),
    "report_judged": {"metrics"},
    "scoring": NOUNS | {"metrics", "scored", "tracking"},
    "training": NOUNS
    | {"checkpoint", "config", "data", "device", "distributed", "evaluation", "metrics", "model"}
    | {"degradation", "signals", "stream", "temporal", "video"},
    "__init__": {"checkpoint", "config", "inference", "model", "stream", "structures"},
}

# Where a third-party module may be used: files, or folders that end in "/".
HOMES: dict[str, tuple[str, ...]] = {
    "cv2": ("rnndet/video/", "examples/"),
    "av": ("rnndet/video/",),
    "pycocotools": ("rnndet/metrics/coco_ap.py",),
    "trackeval": ("rnndet/metrics/mot.py",),
    "matplotlib": (
        "rnndet/dataset_plots.py",
        "rnndet/recall_plots.py",
        "rnndet/training/plots.py",
    ),
    "torchvision.models": ("rnndet/detectors/",),
    "argparse": ("tools/", "examples/"),
    "ray": ("examples/",),
    "torch.distributed": ("rnndet/distributed.py",),
}

# A new knob goes into the configuration, not onto the command line. Extend only on purpose.
FLAGS: dict[str, set[str]] = {
    "benchmark": {  # of all its parts
        "source", "--models", "--frames", "--rounds", "--tracker", "--threads", "--device", "--out",
        "--debug", "config", "--set", "--steps", "root", "--format", "--split", "--degrade",
        "--cache", "weights", "--data", "--runtime", "--every", "--untrained", "--size",
        "--apart",
    },
    "cache_frames": {"root", "--cache", "--format", "--option", "--split"},
    "compare": {"a", "b", "--metrics", "--tracker", "--samples", "--out", "--debug"},
    "dataset": {  # of all its parts
        "root", "out", "--format", "--option", "--split", "--skip-bad", "--debug", "--decode",
        "--out", "--to", "--pictures", "--video", "--frames",
    },
    "doctor": {"--json"},
    "evaluate": {
        "weights", "--predictions", "--data", "--format", "--split", "--option", "--skip-bad",
        "--groups", "--cache", "--metrics", "--tracker", "--rescore",
        "--latency", "--samples", "--ablate-memory", "--degrade", "--degrade-seed", "--every",
        "--key-every", "--key-lost",
        "--max-videos", "--device", "--threads", "--out", "--debug",
    },
    "export": {"weights", "--out", "--frames", "--overwrite", "--debug"},
    "infer": {
        "source", "--weights", "--out", "--runtime", "--device", "--half", "--compile",
        "--score-threshold",
        "--tracker", "--key-every", "--key-lost",
        "--no-scene-cuts", "--start", "--end", "--stride", "--max-frames", "--strict",
        "--max-pixels", "--allow-network", "--timeout", "--max-reconnects", "--no-video",
        "--load-state", "--save-state",
        "--save", "--trails", "--coast", "--show", "--log-json", "--threads", "--shard", "--resume",
        "--isolate", "--batch-sources", "--overwrite", "--quiet", "--debug",
    },
    "plot": {"run", "--out", "--debug"},
    "publish_weights": {"source", "name", "--licence"},
    "recall": {"--cells", "--steps", "--longest", "--seeds", "--out", "--debug"},
    "render_clips": {"root", "--clips", "--length", "--first-seed", "--split"},
    "train": {"config", "--set", "--out", "--resume", "--device", "--quiet", "--debug"},
}  # fmt: skip


class Use(NamedTuple):
    """A module or name that a file uses, by its full dotted name."""

    file: str  # relative to the repository, with "/"
    line: int
    name: str

    @property
    def part(self) -> str:
        """The part of rnndet that is used: "data" of rnndet.data.frames; "" of rnndet itself."""
        return self.name.split(".")[1] if "." in self.name else ""

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


def tools() -> dict[str, ast.Module]:
    return {Path(file).stem: tree for file, tree in trees().items() if file.startswith("tools/")}


def part_of(file: str) -> str:
    """The name in ARROWS: `data` for rnndet/data/frames.py, `model` for rnndet/model.py."""
    return file.split("/")[1].removesuffix(".py")


def imports(file: str, tree: ast.Module) -> Iterator[Use]:
    """Every import, also inside functions; `from a import b` is a.b, a relative one begins with a
    dot."""
    for node in ast.walk(tree):
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
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute) and dotted(node):
            yield Use(file, node.lineno, dotted(node))


def calls(tree: ast.AST) -> Iterator[ast.Call]:
    return (node for node in ast.walk(tree) if isinstance(node, ast.Call))


def is_within(name: str, module: str) -> bool:
    return name == module or name.startswith(f"{module}.")


def is_from_rnndet(use: Use) -> bool:
    return is_within(use.name, "rnndet")


def report(rule: str, wrong: list[str]) -> None:
    """Fail with the rule and one line for each place that breaks it."""
    assert not wrong, "\n".join([rule, *wrong])


# arrows


def test_imports_go_along_the_arrows_only():
    wrong = []
    for file, tree in library().items():
        part = part_of(file)
        if part not in ARROWS:
            wrong.append(f"{file}:1: give {part} its line in ARROWS and in docs/architecture.md")
            continue
        for use in filter(is_from_rnndet, imports(file, tree)):
            if use.part not in {"", part, *ARROWS[part]}:
                wrong.append(f"{use}: {part} may import {', '.join(sorted(ARROWS[part])) or '-'}")
    report("a part of rnndet imports what it must not know", wrong)


def test_the_arrows_make_no_circle():
    graphlib.TopologicalSorter(ARROWS).prepare()  # raises CycleError


@pytest.mark.parametrize("package", PACKAGES)
def test_a_lower_package_knows_only_the_nouns_and_itself(package):
    """Said once more, so that no change of ARROWS lets these five know each other."""
    wrong = [
        str(use)
        for file, tree in library().items()
        if part_of(file) == package
        for use in filter(is_from_rnndet, imports(file, tree))
        if use.part not in NOUNS | {package}
    ]
    report(f"{package}/ imports of rnndet only {', '.join(sorted(NOUNS))} and itself", wrong)


def test_stream_takes_any_iterable_of_frames():
    uses_of_stream = imports("rnndet/stream.py", trees()["rnndet/stream.py"])
    wrong = [str(use) for use in uses_of_stream if use.part in ("video", "data", "inference")]
    report("stream.py opens nothing: it must not know video, data or inference", wrong)


def test_only_builders_know_the_configuration():
    """Constructors take the values that they use (checkpoint.py keeps and restores it)."""
    knowing = {"model", "checkpoint", "data", "training", "untrained", "__init__"}
    wrong = [
        str(use)
        for file, tree in library().items()
        for use in filter(is_from_rnndet, imports(file, tree))
        if use.part == "config" and part_of(file) not in knowing
    ]
    report(f"of rnndet only {', '.join(sorted(knowing))} may import config", wrong)


def test_imports_are_absolute_and_by_module():
    wrong = []
    for file, tree in trees().items():
        for use in imports(file, tree):
            if use.name.startswith("."):
                wrong.append(f"{use}: write it absolutely")
            elif use.name.endswith(".*"):
                wrong.append(f"{use}: name what you import")
    report("imports are absolute and without a star", wrong)


def test_the_package_itself_is_imported_for_its_version_only():
    """rnndet.load_model and the like would be arrows that ARROWS does not see."""
    wrong = [
        f"{use}: import the module that defines it"
        for file, tree in library().items()
        for use in uses(file, tree)
        if use.name.startswith("rnndet.") and use.name.count(".") == 1
        if use.part not in {*ARROWS, "__version__"}
    ]
    report("of the package itself the library uses only rnndet.__version__", wrong)


def test_nothing_imports_tools():
    files = dict(trees())
    for path in (ROOT / "tests").glob("*.py"):
        files[f"tests/{path.name}"] = ast.parse(path.read_text("utf-8"))
    wrong = [
        str(use)
        for file, tree in files.items()
        for use in imports(file, tree)
        if is_within(use.name, "tools")
    ]
    report("tools/ is for people: what a tool does is a function of rnndet", wrong)


# third-party modules


@pytest.mark.parametrize("module", HOMES)
def test_module_is_used_at_home_only(module):
    homes = HOMES[module]
    wrong = [
        str(use)
        for file, tree in trees().items()
        for use in uses(file, tree)
        if is_within(use.name, module) and not file.startswith(homes)
    ]
    report(f"{module} only in {', '.join(homes)}", wrong)


# behaviour that can be read off the source


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


def test_no_forward_changes_self():
    wrong = [
        f"{file}:{line}: forward assigns to an attribute of self"
        for file, tree in library().items()
        for method in methods(tree)
        if method.name == "forward"
        for line in changes_of_self(method)
    ]
    report("models remember nothing: state is an argument and a result", wrong)


def test_models_change_self_only_when_they_are_built_or_set():
    """The same for the steps that `forward` consists of: only __init__ and setters assign."""
    wrong = []
    for file, tree in library().items():
        if part_of(file) not in ("model", "detectors", "temporal"):
            continue
        for method in methods(tree):
            decorators = [dotted(decorator) for decorator in method.decorator_list]
            if method.name != "__init__" and not any(d.endswith(".setter") for d in decorators):
                wrong += [f"{file}:{n}: {method.name}" for n in changes_of_self(method)]
    report("models remember nothing: state is an argument and a result", wrong)


RUNS_CODE = {"eval", "exec", "compile", "__import__", "os.system", "os.popen", "torch.hub.load"}
UNPICKLES = {"pickle.load", "pickle.loads", "pickle.Unpickler", "marshal.loads", "yaml.load"}


def unsafe(call: ast.Call) -> str:
    """What is unsafe in a call; "" where nothing is."""
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


def test_modules_are_looked_up_by_name_only_in_the_package_itself():
    wrong = [
        f"{file}:{call.lineno}"
        for file, tree in trees().items()
        for call in calls(tree)
        if dotted(call.func).endswith("import_module") and file != "rnndet/__init__.py"
    ]
    report("an import by name is an arrow that nobody sees", wrong)


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
            return dotted(test).endswith("TYPE_CHECKING")
    return False


def test_importing_a_module_only_defines_names():
    wrong = [
        f"{file}:{node.lineno}: {type(node).__name__} at the top level"
        for file, tree in library().items()
        for node in tree.body
        if not only_defines(node)
    ]
    report("nothing happens on import", wrong)


def test_the_library_does_not_print():
    wrong = [
        f"{file}:{call.lineno}"
        for file, tree in library().items()
        for call in calls(tree)
        if dotted(call.func) == "print"
    ]
    report("print is for tools; the library logs", wrong)


# size and names


def test_modules_are_at_most_400_lines():
    wrong = []
    for file in trees():
        count = len((ROOT / file).read_text("utf-8").splitlines())
        if count > 400:
            wrong.append(f"{file}:{count}: longer than 400 lines; split it")
    report("a module can be read at one sitting", wrong)


def test_no_module_is_a_grab_bag():
    wrong = []
    for file in trees():
        parts = file.removesuffix(".py").split("/")
        wrong += [f"{file}:1" for part in parts if part in ("utils", "misc", "common", "helpers")]
    report("a module is named after what it holds", wrong)


# tools

LOADED = """
import runpy, sys
heavy = ("torch", "cv2")

def check(what):
    loaded = [name for name in heavy if name in sys.modules]
    if loaded:
        sys.exit(f"{what} imports {', '.join(loaded)}")

import rnndet
check("import rnndet")
for tool in sys.argv[1:]:
    sys.argv = [tool, "--help"]
    try:
        runpy.run_path(tool, run_name="__main__")
        sys.exit(f"{tool} --help goes on")
    except SystemExit as stop:
        if stop.code:
            sys.exit(f"{tool} --help ends with {stop.code}")
    check(f"{tool} --help")
"""


def test_importing_rnndet_and_asking_for_help_load_neither_torch_nor_cv2():
    files = [str(path) for path in sorted(ROOT.glob("tools/*.py"))]
    command = [sys.executable, "-c", LOADED, *files]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr


def flags_of(tree: ast.Module) -> set[str]:
    """First arguments of all `add_argument` calls, also through a name given to the method."""
    short = {
        target.id
        for node in ast.walk(tree)
        if isinstance(node, ast.Assign) and dotted(node.value).endswith(".add_argument")
        for target in node.targets
        if isinstance(target, ast.Name)
    }
    found = set()
    for call in calls(tree):
        name = dotted(call.func)
        if name in short or name.endswith(".add_argument"):
            assert isinstance(call.args[0], ast.Constant), ast.dump(call)
            found.add(call.args[0].value)
    return found


@pytest.mark.parametrize("tool", sorted(tools()))
def test_flags_of_a_tool_are_frozen(tool):
    assert tool in FLAGS, f"tools/{tool}.py:1: write its flags into FLAGS"
    found, listed = flags_of(tools()[tool]), FLAGS[tool]
    wrong = [f"tools/{tool}.py: {flag} is new" for flag in sorted(found - listed)]
    wrong += [f"tools/{tool}.py: {flag} is gone" for flag in sorted(listed - found)]
    report("a new knob goes into the configuration; change FLAGS only on purpose", wrong)
