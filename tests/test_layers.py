"""Who may import whom, and how large a file or function may be: read from the sources, nothing is imported."""

import ast
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
FOLDERS = ("stream", "psalm", "workers", "eval", "kernels")
FILES = sorted(path for folder in FOLDERS for path in (ROOT / folder).rglob("*.py"))
TORCH = {"torch", "torchvision", "transformers", "safetensors"}  # torch, and what loads it

MAY_IMPORT = {
    "stream": {"stream"},
    "kernels": {"kernels"},
    "psalm": {"psalm", "kernels", "stream.types", "stream.errors", "stream.rle"},
    "workers": {"workers", "psalm", "stream"},
    "workers.cli": {"workers", "psalm", "stream", "eval"},  # the commands
    "eval": {"eval", "workers", "psalm", "stream", "kernels"},
}
WITHOUT_TORCH = [
    "stream",
    "psalm.tracker",
    "psalm.motion",
    "workers.cli.app",
    "workers.cli.eval",
    "workers.settings",
    "workers.segment",
    "workers.pipeline",
    "workers.ingest",
    "workers.streams",
]
ONLY_HERE = {
    "av": {"stream.video", "stream.sources", "stream.sinks"},
    "kafka": {f"stream.kafka_{name}" for name in ("client", "bus", "endings", "reads", "sources", "tail")},
    "redis": {"stream.redis_store"},
}

MAX_FILE_LINES, MAX_FUNCTION_LINES, MAX_ARGUMENTS = 400, 80, 6
LONG_FUNCTIONS_SHARE, LONG_FUNCTION_LINES = 0.1, 45  # at most a tenth of all functions is longer than this
ARGUMENTS_EXEMPT = "workers.cli"  # a command's flags are its arguments


def module_of(path):
    """stream/bus.py -> stream.bus; psalm/__init__.py -> psalm."""
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


MODULES = {module_of(path): path for path in FILES}


@cache
def tree_of(module):
    return ast.parse(MODULES[module].read_text())


def within(names):
    """The modules of these names and everything below them."""
    return {module for module in MODULES if any(f"{module}.".startswith(f"{name}.") for name in names)}


def own_name(module, node):
    """What a from-import names inside this project (`stream.bus`; `` for the root), or None when it leaves it."""
    if not node.level:
        return node.module.removeprefix("psalm_stream.") if node.module.startswith("psalm_stream.") else None
    package = module.split(".") if MODULES[module].name == "__init__.py" else module.split(".")[:-1]
    return ".".join([*package[: len(package) - node.level + 1], *([node.module] if node.module else [])])


def imports(module, only_at_start=False):
    """(own modules, foreign top-level packages) of a module; only_at_start leaves out what functions and TYPE_CHECKING load."""
    own, foreign = set(), set()
    for node in statements(tree_of(module)) if only_at_start else ast.walk(tree_of(module)):
        if isinstance(node, ast.Import):
            foreign |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and own_name(module, node) is None:
            foreign.add(node.module.split(".")[0])
        elif isinstance(node, ast.ImportFrom):
            name = own_name(module, node)
            inside = {f"{name}.{alias.name}".lstrip(".") for alias in node.names}
            own |= (inside & MODULES.keys()) or {name}
    return own, foreign


def statements(node):
    """Every statement that runs when a module is loaded."""
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda):
            continue
        if isinstance(child, ast.If) and "TYPE_CHECKING" in ast.unparse(child.test):
            continue
        yield child
        yield from statements(child)


def loaded_with(module):
    """The own modules and foreign packages that loading a module loads."""
    waiting, seen, foreign = [module], set(), set()
    while waiting:
        name = waiting.pop()
        if name in seen or name not in MODULES:
            continue
        seen.add(name)
        waiting += [".".join(name.split(".")[:n]) for n in range(1, name.count(".") + 1)]  # loading a.b loads a/__init__.py
        own, outside = imports(name, only_at_start=True)
        waiting += own
        foreign |= outside
    return seen, foreign


def functions():
    return [
        (module, node)
        for module in MODULES
        for node in ast.walk(tree_of(module))
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
    ]


def length(node):
    return node.end_lineno - node.lineno + 1


def arguments(node):
    named = (*node.args.posonlyargs, *node.args.args, *node.args.kwonlyargs)
    return len([a for a in named if a.arg not in ("self", "cls")])


def test_the_walk_sees_the_project():
    assert {"stream.types", "psalm.tracker", "workers.segment"} <= MODULES.keys()
    assert "stream.types" in imports("psalm.tracker")[0]
    assert "torch" in loaded_with("psalm.weights")[1]


def test_modules_import_only_what_their_layer_may():
    layers = {module: "workers.cli" if module.startswith("workers.cli") else module.split(".")[0] for module in MODULES}
    wrong = {module: imports(module)[0] - within(MAY_IMPORT[layer]) for module, layer in layers.items()}
    assert not {module: names for module, names in wrong.items() if names}


def test_transport_tracker_and_workers_are_loaded_without_torch():
    loaded = {module: loaded_with(module) for module in within(WITHOUT_TORCH)}
    assert not {module: sorted(seen) for module, (seen, foreign) in loaded.items() if foreign & TORCH}


def test_transport_and_tracker_do_not_import_torch_later_either():
    assert not [module for module in within(["stream", "psalm.tracker", "psalm.motion"]) if imports(module)[1] & TORCH]


@pytest.mark.parametrize(("package", "homes"), ONLY_HERE.items())
def test_a_client_library_is_imported_in_its_own_module_alone(package, homes):
    assert {module for module in MODULES if package in imports(module)[1]} <= homes


def test_there_is_no_star_import_and_no_bare_except():
    nodes = [(module, node) for module in MODULES for node in ast.walk(tree_of(module))]
    assert not [m for m, n in nodes if isinstance(n, ast.ImportFrom) and n.names[0].name == "*"]
    assert not [m for m, n in nodes if isinstance(n, ast.ExceptHandler) and n.type is None]


def test_every_module_says_what_lives_in_it():
    assert not [module for module in MODULES if tree_of(module).body and not ast.get_docstring(tree_of(module))]


def test_files_stay_within_their_budget():
    lines = {module: path.read_text().count("\n") for module, path in MODULES.items()}
    assert not {module: n for module, n in lines.items() if n > MAX_FILE_LINES}


def test_functions_stay_within_their_budget():
    assert not {f"{module}.{node.name}": length(node) for module, node in functions() if length(node) > MAX_FUNCTION_LINES}


def test_functions_with_many_arguments_take_a_dataclass():
    counts = {f"{module}.{node.name}": arguments(node) for module, node in functions() if not module.startswith(ARGUMENTS_EXEMPT)}
    assert not {name: n for name, n in counts.items() if n > MAX_ARGUMENTS}


def test_nine_of_ten_functions_are_short():
    lengths = [length(node) for _, node in functions()]
    assert sum(n > LONG_FUNCTION_LINES for n in lengths) <= LONG_FUNCTIONS_SHARE * len(lengths)
