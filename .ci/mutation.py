"""Do the checks notice a broken line? Mutation testing of the package.

A mutant is the package with one small fault: a comparison, an operator, a number, a condition or a statement is changed in one
exported function, in its notebook and in its module alike. The chapter itself runs first, then the chapters and the tests that use the module.
A mutant is killed where one of them fails or never ends; a survivor shows a line that no check looks at (or a change that changes nothing).

    python .ci/mutation.py --n 300 --jobs 2 --table results/reliability/mutants.csv      # goes on where it was stopped
    python .ci/mutation.py --only memory.allocation --n 40
"""
import argparse, ast, csv, json, multiprocessing as mp, os, random, re, shutil, signal, subprocess, sys, tempfile, time
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
PARTS = ("memory", "dreaming", "kernels", "training", "analysis")
MEASURES = ("continual_metrics", "memory_metrics", "statistics", "survival", "slot_lifetimes", "event_table", "linear_probe")   # of `analysis`: what is measured, not what is drawn
FIELDS = ("module", "line", "kind", "before", "after", "result", "by", "seconds")
CELL = re.compile(r"^# %% \.\./\.\./(\S+) #(\w+)$")
COMPARE = {ast.Lt: "<=", ast.LtE: "<", ast.Gt: ">=", ast.GtE: ">", ast.Eq: "!=", ast.NotEq: "==", ast.Is: "is not", ast.IsNot: "is", ast.In: "not in", ast.NotIn: "in"}
BINARY = {ast.Add: "-", ast.Sub: "+", ast.Mult: "/", ast.Div: "*", ast.FloorDiv: "/", ast.Mod: "*", ast.Pow: "*", ast.BitAnd: "|", ast.BitOr: "&", ast.MatMult: None}


# --- where a fault can be put
def modules():
    "The modules that are tested, as paths below the root."
    files = [f for part in PARTS for f in sorted((ROOT/"memnet"/part).glob("*.py")) if not f.name.startswith("_")]
    return [f.relative_to(ROOT) for f in files if f.parent.name != "analysis" or f.stem in MEASURES]

def in_message(parents):
    "Whether a node only makes the text of an error, an annotation or a default of a docstring."
    for p, field in parents:
        if isinstance(p, (ast.JoinedStr, ast.Raise)) or field in ("annotation", "returns", "decorator_list"): return True
    return False

def walk(node, parents=()):
    "Every node with the chain of its parents."
    yield node, parents
    for field, value in ast.iter_fields(node):
        for child in value if isinstance(value, list) else [value]:
            if isinstance(child, ast.AST): yield from walk(child, (*parents, (node, field)))

def segment(lines, node):
    "The source of a node on one line, else None."
    if node.lineno != node.end_lineno: return None
    return lines[node.lineno - 1].encode()[node.col_offset:node.end_col_offset].decode()

def faults(source):
    "(line, column, end, kind, before, after) of every fault that can be put into the functions of a module."
    lines, found = source.split("\n"), []
    def add(node, kind, after):
        text = segment(lines, node)
        if text is not None and after != text: found.append((node.lineno, node.col_offset, node.end_col_offset, kind, text, after))
    for node, parents in walk(ast.parse(source)):
        if not any(isinstance(p, (ast.FunctionDef, ast.Lambda)) and f in ("body",) for p, f in parents) or in_message(parents): continue
        parent = parents[-1][0]
        if isinstance(node, ast.Compare) and len(node.ops) == 1:
            left, right = segment(lines, node.left), segment(lines, node.comparators[0])
            if left and right: add(node, "comparison", f"{left} {COMPARE[type(node.ops[0])]} {right}")
        elif isinstance(node, ast.BinOp) and BINARY.get(type(node.op)):
            left, right = segment(lines, node.left), segment(lines, node.right)
            if left and right: add(node, "operator", f"({left}) {BINARY[type(node.op)]} ({right})")
        elif isinstance(node, ast.BoolOp):
            parts = [segment(lines, v) for v in node.values]
            if all(parts): add(node, "logic", (" or " if isinstance(node.op, ast.And) else " and ").join(f"({p})" for p in parts))
        elif isinstance(node, ast.UnaryOp) and isinstance(node.op, (ast.Not, ast.USub, ast.Invert)) and not isinstance(node.operand, ast.Constant):
            operand = segment(lines, node.operand)
            if operand: add(node, "sign", f"({operand})")
        elif isinstance(node, ast.Constant) and not isinstance(parent, ast.Expr):
            v = node.value
            if v is True or v is False: add(node, "constant", str(not v))
            elif isinstance(v, int): add(node, "constant", str(v + 1))
            elif isinstance(v, float): add(node, "constant", repr(v*2 + 1.))
        elif isinstance(node, (ast.If, ast.IfExp)):
            test = segment(lines, node.test)
            if test: add(node.test, "condition", f"not ({test})")
        elif isinstance(node, ast.Name) and node.id in ("min", "max"): add(node, "function", "max" if node.id == "min" else "min")
        elif isinstance(node, ast.Attribute) and node.attr in ("sum", "mean", "min", "max", "any", "all", "argmax", "argmin", "floor", "ceil"):
            base, other = segment(lines, node.value), dict(sum="mean", mean="sum", min="max", max="min", any="all", all="any", argmax="argmin", argmin="argmax", floor="ceil", ceil="floor")[node.attr]
            if base: add(node, "function", f"{base}.{other}")
        elif isinstance(node, (ast.AugAssign, ast.Assign)) and isinstance(getattr(node, "targets", [getattr(node, "target", None)])[0], (ast.Subscript, ast.Attribute)) or isinstance(node, ast.AugAssign):
            add(node, "statement", "pass")
    return found

def cell_of(lines, line):
    "Notebook, cell id and line within the cell of a line (from 1) of a module."
    for i in range(line - 1, -1, -1):
        m = CELL.match(lines[i])
        if m: return m[1], m[2], line - i - 2
    return None

def candidates(only, rng, n):
    "n faults, spread over the modules as evenly as they have lines."
    pool = []
    for module in modules():
        name = ".".join(module.with_suffix("").parts[1:])
        if only and not any(name == o or name.startswith(o + ".") for o in only): continue
        source = (ROOT/module).read_text()
        lines = source.split("\n")
        for f in faults(source):
            if cell_of(lines, f[0]): pool.append((module, *f))
    pool.sort()
    rng.shuffle(pool)
    return pool[:n] if n else pool


# --- what uses a module
def imports(text):
    "Modules of the package that a text imports, as `part.module`."
    found = {f"{m[1]}.{m[2]}" for m in re.finditer(r"^\s*from (?:memnet|\.\.?)\.?(\w+)\.(\w+) import", text, re.M)}
    return found

def users(notebooks):
    "Module -> chapters that import it, directly or through others, the nearest first."
    code, by_module = {}, {}
    for nb in notebooks:
        cells = [c for c in json.loads((ROOT/nb).read_text())["cells"] if c["cell_type"] == "code"]
        text = "\n".join("".join(c["source"]) for c in cells)
        code[nb], default = imports(text), re.search(r"#\|\s*default_exp (\S+)", text)
        if default: by_module[default[1]] = nb
    def nearest(module):
        seen, layer = [], {module}
        known = set(layer)
        while layer:
            hit = sorted(nb for nb in code if code[nb] & layer and nb not in seen)
            seen += hit
            layer = {m for m, nb in by_module.items() if nb in hit} - known
            known |= layer
        return seen
    return by_module, nearest


# --- running the checks of a mutant
def run_check(root, kind, target, limit):
    "Run one check on a copy of the checkout, in a fork of this process, which has loaded what all checks load: True where it passes, False where it fails, None where it does not end."
    pid = os.fork()
    if pid == 0:
        os.setpgid(0, 0)
        os.chdir(root)
        null = os.open(os.devnull, os.O_WRONLY)
        os.dup2(null, 1); os.dup2(null, 2)
        try:
            if kind == "chapter":
                from nbdev.test import test_nb
                ok = test_nb(root/target, skip_flags=["slow", "gpu"], showerr=False, basepath=root)[0]
            else:
                import pytest
                ok = pytest.main(["-x", "-q", "-p", "no:cacheprovider", *target]) == 0
        except BaseException: ok = False
        os._exit(0 if ok else 1)
    end = time.time() + limit
    while time.time() < end:
        done, status = os.waitpid(pid, os.WNOHANG)
        if done: return os.WIFEXITED(status) and os.WEXITSTATUS(status) == 0
        time.sleep(0.02)
    try: os.killpg(pid, signal.SIGKILL)
    except ProcessLookupError: pass
    os.waitpid(pid, 0)
    return None

def replaced(line, column, end, after):
    raw = line.encode()
    return (raw[:column] + after.encode() + raw[end:]).decode()

def mutate(root, fault):
    "Put a fault into module and notebook of a copy; gives the files with their former bytes."
    module, line, column, end, kind, before, after = fault
    path = root/module
    lines = path.read_text().split("\n")
    notebook, cell_id, inner = cell_of(lines, line)
    book = root/notebook
    old = [(path, path.read_bytes(), path.stat().st_mtime_ns), (book, book.read_bytes(), book.stat().st_mtime_ns)]
    content = json.loads(book.read_text())
    cell = next(c for c in content["cells"] if c.get("id") == cell_id)
    text = "".join(cell["source"]).split("\n")
    wanted, where = lines[line - 1], None
    offsets = [i for i, t in enumerate(text) if t == wanted]
    if offsets: where = min(offsets, key=lambda i: abs(i - inner))
    if where is None: return None
    lines[line - 1] = replaced(wanted, column, end, after)
    text[where] = lines[line - 1]
    cell["source"] = "\n".join(text).splitlines(keepends=True)
    try: ast.parse("\n".join(lines))
    except SyntaxError: return None
    path.write_text("\n".join(lines))
    book.write_text(json.dumps(content))
    return old

def checks_of(fault, by_module, nearest, seconds, most):
    "The checks of a mutant in order: own chapter, users (near and quick first), tests."
    name = ".".join(fault[0].with_suffix("").parts[1:])
    own = by_module[name]
    rest = [nb for nb in nearest(name) if nb != own and not nb.startswith("nbs/experiments")]
    rest = sorted(rest[:2*most], key=lambda nb: seconds.get(nb, 99))[:most]
    return [("chapter", own), *(("chapter", nb) for nb in rest), ("tests", TESTS)]

TESTS = [f"tests/{t}.py" for t in ("test_model", "test_numbers", "test_dreaming_calls", "test_event_log", "test_bad_input") if (ROOT/"tests"/f"{t}.py").exists()]

def work(root, todo, done, by_module, most):
    "Take mutants from a queue until it is empty."
    os.chdir(root)
    sys.path.insert(0, str(root))
    import matplotlib
    matplotlib.use("Agg")
    import numpy, torch, numba, pandas, IPython, fastcore.all, nbdev.test, execnb.shell, pytest, matplotlib.pyplot  # noqa: F401
    torch.set_num_threads(1)
    _, nearest = users(sorted({*by_module.values()}))
    seconds = {}   # of each check on the whole package, -1 where it fails there
    while True:
        fault = todo.get()
        if fault is None: return
        compiled = fault[0].parts[1] in ("kernels", "memory")   # their machine code is made again
        checks = []
        for kind, target in checks_of(fault, by_module, nearest, seconds, most):   # each must pass on the whole package, or its failure says nothing
            name = target if kind == "chapter" else "tests"
            if name not in seconds:
                begin, ok = time.time(), run_check(root, kind, target, 600)
                seconds[name] = time.time() - begin if ok else -1.
                if not ok: print(f"{name} fails without any fault: it is left out", file=sys.stderr, flush=True)
            if seconds[name] >= 0: checks.append((kind, target, name))
        old, start = mutate(root, fault), time.time()
        if old is None: done.put((fault, "skipped", "", 0.)); continue
        result, by = "survived", ""
        for kind, target, name in checks:
            ok = run_check(root, kind, target, (300 if compiled else 30) + 5*seconds[name])
            if ok is not True:
                result, by = ("killed" if ok is False else "no end"), name
                break
        for path, content, stamp in old:
            path.write_bytes(content)
            os.utime(path, ns=(stamp, stamp))
        done.put((fault, result, by, time.time() - start))

def copy_checkout(folder):
    "Every file that git knows, with its time stamps (the compiled kernels of the copy stay valid), and the compiled kernels."
    names = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, check=True).stdout.decode().split("\0")
    for name in filter(None, names):
        (folder/name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(ROOT/name, folder/name)
    for cache in (ROOT/"memnet").rglob("__pycache__"):
        shutil.copytree(cache, folder/cache.relative_to(ROOT), dirs_exist_ok=True, copy_function=shutil.copy2)

def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--n", type=int, default=300, help="mutants (0 = all)")
    p.add_argument("--seed", type=int, default=0, help="which ones")
    p.add_argument("--jobs", type=int, default=2)
    p.add_argument("--only", nargs="*", help="parts or modules, such as memory or memory.allocation")
    p.add_argument("--most", type=int, default=5, help="chapters of users that are run beside the own one")
    p.add_argument("--table", type=Path, default=Path("results/reliability/mutants.csv"))
    p.add_argument("--list", action="store_true", help="only say which mutants there are")
    args = p.parse_args()
    faulty = candidates(args.only, random.Random(args.seed), args.n)
    if args.list:
        for f in faulty: print(f"{f[0]}:{f[1]} {f[4]}: {f[5]} -> {f[6]}")
        return print(len(faulty), "mutants")
    known = {}
    if args.table.exists():
        with args.table.open() as f: known = {(r["module"], r["line"], r["before"], r["after"]): r for r in csv.DictReader(f)}
    faulty = [f for f in faulty if (str(f[0]), str(f[1]), f[5], f[6]) not in known]
    notebooks = [str(f.relative_to(ROOT)) for f in sorted(ROOT.glob("nbs/*/*.ipynb"))]
    by_module, _ = users(notebooks)
    args.table.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as scratch:
        first = Path(scratch)/"0"; first.mkdir(); copy_checkout(first)
        context = mp.get_context("spawn")
        todo, done = context.Queue(), context.Queue()
        workers = []
        for j in range(args.jobs):
            folder = Path(scratch)/str(j)
            if j: shutil.copytree(first, folder, copy_function=shutil.copy2)
            workers.append(context.Process(target=work, args=(folder, todo, done, by_module, args.most)))
            workers[-1].start()
        for f in faulty: todo.put(f)
        for _ in workers: todo.put(None)
        with args.table.open("a", newline="") as out:
            writer = csv.DictWriter(out, FIELDS)
            if out.tell() == 0: writer.writeheader()
            for i in range(len(faulty)):
                fault, result, by, took = done.get()
                row = dict(zip(FIELDS, (str(fault[0]), fault[1], fault[4], fault[5], fault[6], result, by, round(took, 1))))
                if result != "skipped": writer.writerow(row); out.flush()
                print(f"{i + 1:4}/{len(faulty)} {result:9} {took:6.1f} s  {fault[0]}:{fault[1]}  {fault[5]}  ->  {fault[6]}  {by}", flush=True)
        for w in workers: w.join()
    summarise(args.table)

def summarise(table):
    "Count by part of the package, beside the table, with the commit that was tried."
    with table.open() as f: rows = list(csv.DictReader(f))
    commit = subprocess.run(["git", "rev-parse", "--short=12", "HEAD"], cwd=ROOT, capture_output=True, text=True, check=True).stdout.strip()
    parts = {p: [r for r in rows if Path(r["module"]).parts[1] == p] for p in PARTS} | {"all": rows}
    with table.with_name(f"{table.stem}_summary.csv").open("w", newline="") as out:
        writer = csv.writer(out, lineterminator="\n")
        writer.writerow(("part", "mutants", "killed", "survived", "share", "commit"))
        for part, found in parts.items():
            survived = sum(r["result"] == "survived" for r in found)
            if found: writer.writerow((part, len(found), len(found) - survived, survived, round(1 - survived/len(found), 4), commit))
    killed = sum(r["result"] != "survived" for r in rows)
    print(f"{killed} of {len(rows)} mutants killed ({killed/max(len(rows), 1):.1%})")

if __name__ == "__main__": main()
