"""The package as a reader finds it: parts, module sizes, names, and what a public function says of itself."""
import ast, re, tokenize
from collections import defaultdict
from pathlib import Path
import nbformat, pytest

ROOT = Path(__file__).resolve().parent.parent
name = lambda path: path.relative_to(ROOT).as_posix()
MODULES = sorted(p for p in (ROOT/"memnet").rglob("*.py") if not p.name.startswith("_"))
CHAPTERS = [p for folder in ("nbs", "papers") for p in sorted((ROOT/folder).rglob("*.ipynb")) if not any(s.startswith((".", "_")) for s in p.relative_to(ROOT).parts)]
COMPILED = "memnet/kernels/"   # what is only speed: longer modules, more parameters

def tree(path): return ast.parse(path.read_text(encoding="utf-8"))

def exported(path):
    "Names in `__all__`."
    for node in tree(path).body:
        if isinstance(node, ast.Assign) and getattr(node.targets[0], "id", "") == "__all__": return set(ast.literal_eval(node.value))
    return set()

def functions(path):
    "(qualified name, node) of every function and method."
    found = []
    def visit(body, prefix):
        for n in body:
            if isinstance(n, ast.FunctionDef): found.append((prefix + n.name, n))
            if isinstance(n, ast.ClassDef): visit(n.body, f"{prefix}{n.name}.")
    visit(tree(path).body, "")
    return found

def public(path):
    "Those of them that a user may call: exported functions, and public methods of exported classes."
    names = exported(path)
    return [(q, n) for q, n in functions(path) if q.split(".")[0] in names and (n.name == "__init__" or not n.name.startswith("_"))]

def parameters(node):
    a = node.args
    every = a.posonlyargs + a.args + ([a.vararg] if a.vararg else []) + a.kwonlyargs + ([a.kwarg] if a.kwarg else [])
    return [p for p in every if p.arg not in ("self", "cls", "ctx")]

def comments(path):
    "Line -> comment."
    with open(path, "rb") as f: return {t.start[0]: t.string.lstrip("# ").strip() for t in tokenize.tokenize(f.readline) if t.type == tokenize.COMMENT}

def is_overload(node): return any(getattr(d, "id", "") == "overload" for d in node.decorator_list)

FOREIGN = {"MemoryLayer.__init__": 10}   # parameters that are those of another library, in its order: nn.LSTM (tests/test_memory_layer.py compares them)

def too_many_parameters(path): return [f"{q} has {len(parameters(n))}" for q, n in functions(path) if len(parameters(n)) - FOREIGN.get(q, 0) > 8]

def undocumented(path):
    "What a public function does not say: a parameter without a comment of its own, no return annotation, no docstring, an error that is raised but not named."
    notes, found = comments(path), []
    for q, n in public(path):
        if is_overload(n): continue
        lines = [p.lineno for p in parameters(n)]
        for p in parameters(n):
            if lines.count(p.lineno) > 1 or p.lineno not in notes: found.append(f"{q}: parameter {p.arg}")
        if n.returns is None and n.name != "__init__": found.append(f"{q}: return type")
        doc = ast.get_docstring(n) or ""
        if not doc and n.name not in ("__init__", "forward"): found.append(f"{q}: docstring")
        raises = any(isinstance(x, ast.Raise) and x.exc is not None or isinstance(x, ast.Call) and getattr(x.func, "id", "") in ("require", "require_positive") for x in ast.walk(n))
        if raises and "Raises" not in doc and n.name != "__init__": found.append(f"{q}: Raises …")
    for node in tree(path).body:
        if not isinstance(node, ast.ClassDef) or node.name not in exported(path): continue
        if not ast.get_docstring(node): found.append(f"{node.name}: docstring")
        for field in node.body:
            if isinstance(field, ast.AnnAssign) and field.end_lineno not in notes: found.append(f"{node.name}.{field.target.id}: comment")
    return found

def own_fields(node): return [f for f in node.body if isinstance(f, ast.AnnAssign)]

@pytest.mark.parametrize("path", [p for p in MODULES if COMPILED not in name(p)], ids=name)
def test_a_module_fits_in_a_head(path):
    assert len(path.read_text(encoding="utf-8").splitlines()) <= 400, "split it: one idea a module"
    assert not too_many_parameters(path), "more than 8 parameters: group what belongs together"

@pytest.mark.parametrize("path", MODULES, ids=name)
def test_methods_stand_in_their_class(path): assert not [q for q, n in functions(path) if any(re.search(r"\bpatch(_to|_property)?\b", ast.unparse(d)) for d in n.decorator_list)]

@pytest.mark.parametrize("path", MODULES, ids=name)
def test_public_functions_say_what_they_take_and_give(path): assert not undocumented(path)

def test_a_config_is_no_longer_than_a_dozen_fields():
    long = [f"{name(p)}: {n.name} has {len(own_fields(n))}" for p in MODULES for n in ast.walk(tree(p)) if isinstance(n, ast.ClassDef) and n.name.endswith("Config") and len(own_fields(n)) > 12]
    assert not long

def defined(path):
    "Exported names, and every function and class of a module that is not private: automatic code links of the site know them all."
    return exported(path) | {n.name for n in tree(path).body if isinstance(n, (ast.FunctionDef, ast.ClassDef)) and not n.name.startswith("_")}

def test_a_name_means_one_thing():
    where = defaultdict(list)
    for p in MODULES:
        for n in defined(p): where[n].append(name(p))
    assert {n: w for n, w in where.items() if len(w) > 1} == {}

def source_lines(cells):
    "Lines of code; a directive is none, nor is a decorator that says what the comments of the parameters below it say."
    return [l for c in cells if c.cell_type == "code" for l in c.source.splitlines() if l.strip() and not l.startswith("#|") and not l.lstrip().startswith("@validated(")]
def words(cells): return sum(len(c.source.split()) for c in cells if c.cell_type == "markdown")

def over_budget(path):
    "What of a chapter is more than a reader takes in at one sitting."
    cells = nbformat.read(path, 4).cells
    size, lines, prose = path.stat().st_size, len(source_lines(cells)), words(cells)
    most = 750 if "nbs/kernels/" in name(path) else 350
    return [f"{what} {n:,} > {bound:,}" for what, n, bound in (("bytes", size, 300_000), ("lines of code", lines, most), ("words", prose, 3_500)) if n > bound]

@pytest.mark.parametrize("path", CHAPTERS, ids=name)
def test_a_chapter_keeps_its_budget(path): assert not over_budget(path)

@pytest.mark.parametrize("path", CHAPTERS, ids=name)
def test_a_chapter_exports_the_module_of_its_name(path):
    stem, part = re.sub(r"^\d+_", "", path.stem), path.parent.name
    module = re.search(r"^#\| *default_exp +(\S+)", "\n".join(c.source for c in nbformat.read(path, 4).cells if c.cell_type == "code"), re.M)
    want = f"{part}.{stem.removesuffix('_run')}" if part == "experiments" else f"{part}.{stem}"
    assert module is None or module[1] == want, f"{module[1]} should be {want}"

def test_the_checks_of_this_file_can_fail(tmp_path):
    bad = tmp_path/"bad.py"
    bad.write_text("__all__ = ['f', 'C']\n\n@patch\ndef f(a, b, c, d, e, g, h, i, j):\n    require(a, 'x')\n\nclass C:\n    x: int\n")
    assert too_many_parameters(bad) == ["f has 9"]
    found = undocumented(bad)
    assert "f: parameter a" in found and "f: return type" in found and "f: docstring" in found and "f: Raises …" in found and "C.x: comment" in found
