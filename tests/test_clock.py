"""No check depends on the clock: a value that comes from a clock is printed or drawn, never asserted, and nothing waits for a fixed time to see whether something happened."""
import ast, re
from pathlib import Path
import nbformat, pytest

ROOT = Path(__file__).resolve().parent.parent
CLOCKS = {"time", "process_time", "perf_counter", "monotonic", "perf_counter_ns", "process_time_ns", "monotonic_ns", "time_ns", "thread_time", "default_timer", "timeit"}
FILES = [p for folder in ("nbs", "papers") for p in sorted((ROOT/folder).rglob("*.ipynb")) if not any(s.startswith((".", "_")) for s in p.relative_to(ROOT).parts)] + sorted((ROOT/"tests").glob("*.py"))
CHECKS = re.compile(r"^(test_(close|eq|ne|is|stdout)|is_close)$")

def source_of(path):
    if path.suffix == ".py": return path.read_text(encoding="utf-8")
    cells = [c.source for c in nbformat.read(path, 4).cells if c.cell_type == "code" and not re.match(r"#\| *exporti?s?\b", c.source)]   # what a chapter exports measures; what checks is the rest
    return "\n\n".join("\n".join(l for l in s.split("\n") if not l.lstrip().startswith(("%", "!"))) for s in cells)

def reads_clock(node, tainted):
    "Whether an expression calls a clock, or uses what came from one."
    for n in ast.walk(node):
        if isinstance(n, ast.Call):
            f = n.func
            if isinstance(f, ast.Attribute) and f.attr in CLOCKS and getattr(f.value, "id", "") in ("time", "timeit"): return True
            if isinstance(f, ast.Name) and f.id in CLOCKS - {"time"}: return True
        if isinstance(n, ast.Name) and n.id in tainted: return True
    return False

def names(node): return {n.id for n in ast.walk(node) if isinstance(n, ast.Name)}

def follow(statements, tainted, found):
    "Run through statements in order: which names hold a time, and which checks look at one."
    for s in statements:
        if isinstance(s, ast.FunctionDef):
            inside = set(tainted) - {a.arg for a in s.args.args}
            follow(s.body, inside, found)
            returned = any(isinstance(r, ast.Return) and r.value is not None and reads_clock(r.value, inside) for r in ast.walk(s))
            tainted.add(s.name) if returned else tainted.discard(s.name)
        elif isinstance(s, (ast.Assign, ast.AugAssign, ast.AnnAssign)) and s.value is not None:
            places = s.targets if isinstance(s, ast.Assign) else [s.target]
            dirty = reads_clock(s.value, tainted)
            if isinstance(s, ast.Assign) and len(places) == 1 and isinstance(places[0], ast.Tuple) and isinstance(s.value, ast.Tuple):
                follow([ast.Assign([p], v) for p, v in zip(places[0].elts, s.value.elts)], tainted, found)
                continue
            for p in places:
                if dirty: tainted |= names(p)
                elif isinstance(p, (ast.Name, ast.Tuple)) and not isinstance(s, ast.AugAssign): tainted -= names(p)
        elif isinstance(s, ast.Assert):
            if reads_clock(s.test, tainted): found.append(s)
        elif isinstance(s, (ast.For, ast.While, ast.If, ast.With, ast.Try)):
            if isinstance(s, ast.For) and reads_clock(s.iter, tainted): tainted |= names(s.target)
            for body in ("body", "orelse", "finalbody"): follow(getattr(s, body, []), tainted, found)
            for h in getattr(s, "handlers", []): follow(h.body, tainted, found)
        elif isinstance(s, ast.Expr):
            for n in ast.walk(s):
                if isinstance(n, ast.Call) and isinstance(n.func, ast.Attribute) and n.func.attr in ("append", "extend", "setdefault") and any(reads_clock(a, tainted) for a in n.args): tainted |= names(n.func.value)
                if isinstance(n, ast.Call) and CHECKS.match(getattr(n.func, "id", "")) and any(reads_clock(a, tainted) for a in n.args): found.append(n)

def asserted_times(source):
    "Lines of checks whose value comes from a clock."
    found = []
    follow(ast.parse(source).body, set(), found)
    return [source.split("\n")[n.lineno - 1].strip() for n in found]

@pytest.mark.parametrize("path", FILES, ids=lambda p: p.relative_to(ROOT).as_posix())
def test_no_check_reads_a_clock(path): assert asserted_times(source_of(path)) == []

DEPENDS_ON_A_CLOCK = [   # sources, each with a check whose value comes from a clock
    "import time\ndef cost(n):\n    start = time.process_time()\n    return time.process_time() - start\nc = {n: cost(n) for n in (1, 2)}\nassert all(b < a for a, b in c.items())",
    "import time\nt = []\nt.append(time.time())\ntest_close(t[0], 1)"]
PRINTS_A_TIME = "import time\nstart = time.time()\nprint(time.time() - start)\nassert 1 + 1 == 2"

def test_the_check_finds_a_time_however_it_travels():
    for source in DEPENDS_ON_A_CLOCK: assert len(asserted_times(source)) == 1
    assert asserted_times(PRINTS_A_TIME) == []
