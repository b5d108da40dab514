"""Which branches does no check take? Chapters and tests together, as `check.py pool` runs them, under coverage.py.

    python .ci/check.py covered                     # all from the start
    python .ci/check.py covered runs test_runner    # these jobs; what others took before counts for the modules that are unchanged

Prints what is missing; results/coverage/coverage.csv is written when every job has run.

A chapter runs its own cells and not the module that is exported from them: its exported cells count as the lines of that module.
Compiled functions are left out, since no tracer sees machine code; mutation.py looks at them.
"""
import pool   # first: it sets the number of threads
import ast, csv, hashlib, json, os, re, sys, tempfile
from pathlib import Path
import coverage
from coverage.data import CoverageData

ROOT = pool.ROOT
FOLDER = ROOT/"_runs"/"coverage"           # what was taken, and of which code
TABLE = ROOT/"results"/"coverage"/"coverage.csv"
COUNTS = ("statements", "statements_run", "branches", "branches_taken")
COLUMNS = ("module", *COUNTS, "share")     # of the branches; the last row counts all modules
CONFIG = """[run]
branch = True
parallel = True
data_file = {folder}/data
include = {root}/memnet/*
disable_warnings = no-data-collected,module-not-measured,module-not-imported
[report]
exclude_also =
    ^@jit_
    ^@compiled
    if TYPE_CHECKING
"""
HEAD = re.compile(r"^# %% \S+ #(\w+)$")


# --- exported cells as lines of their module
def cell_lines(module):
    "Cell id -> number of the line before the first one of that cell, in a module."
    return {m[1]: i + 1 for i, line in enumerate(module.read_text(encoding="utf-8").split("\n")) if (m := HEAD.match(line))}

def module_of(notebook):
    "The module that a notebook exports, or None."
    text = "\n".join("".join(c["source"]) for c in json.loads(Path(notebook).read_text(encoding="utf-8"))["cells"] if c["cell_type"] == "code")
    found = re.search(r"#\|\s*default_exp (\S+)", text)
    return ROOT/"memnet"/f"{found[1].replace('.', '/')}.py" if found else None

def count_cells_as_module(notebook):
    "In this process, compile the exported cells of a notebook under the name and the lines of its module."
    from execnb.shell import CaptureShell
    from IPython.core.compilerop import CachingCompiler
    module = module_of(notebook)
    if module is None or not module.exists(): return
    lines, at, run_cell, compile_ast = cell_lines(module), [None], CaptureShell.cell, CachingCompiler.__call__
    def cell(self, c, *rest, **named):
        start = lines.get(c.get("id"))
        directives = next((i for i, line in enumerate(c.source.split("\n")) if not line.startswith("#|")), 0)
        at[0] = None if start is None else start - directives
        try: return run_cell(self, c, *rest, **named)
        finally: at[0] = None
    def compiled(self, source, filename, symbol, *rest, **named):
        if at[0] is not None and isinstance(source, ast.AST):
            ast.increment_lineno(source, at[0])
            filename = str(module)
        return compile_ast(self, source, filename, symbol, *rest, **named)
    CaptureShell.cell, CachingCompiler.__call__ = cell, compiled


# --- running
def covered(run, config, chapter):
    "A job's function under coverage."
    def under(target, *rest):
        if chapter: count_cells_as_module(ROOT/target)
        c = coverage.Coverage(config_file=str(config))
        c.start()
        try: return run(target, *rest)
        finally: c.stop(); c.save()
    return under

def digests(): return {str(f.relative_to(ROOT)): hashlib.sha256(f.read_bytes()).hexdigest() for f in sorted((ROOT/"memnet").rglob("*.py"))}

def known(name, other): return json.loads(p.read_text()) if (p := FOLDER/name).exists() else other

def merge(folder, jobs):
    "Add what was taken now to what was taken before, without the modules that have changed since. True where every job has run."
    old_code, code = known("code.json", {}), digests()
    whole = CoverageData(basename=str(FOLDER/"whole"))
    whole.read()
    changed = [name for name, digest in old_code.items() if code.get(name) != digest]
    if changed: whole.purge_files([str(ROOT/name) for name in changed])
    for f in folder.glob("data.*"):
        new = CoverageData(basename=str(f))
        new.read()
        whole.update(new)
    whole.write()
    ran = {j[0] for j in jobs} | set(known("ran.json", []))
    (FOLDER/"code.json").write_text(json.dumps(code))
    (FOLDER/"ran.json").write_text(json.dumps(sorted(ran)))
    return {j[0] for j in pool.all_jobs() if j[1] != "command"} <= ran

def report(config):
    "A row for each module, and its branches that were not taken."
    c = coverage.Coverage(config_file=str(config), data_file=str(FOLDER/"whole"), data_suffix=False)
    c.load()
    with tempfile.TemporaryDirectory() as folder:
        modules = [str(f) for f in sorted((ROOT/"memnet").rglob("*.py")) if not f.name.startswith("_")]
        c.json_report(modules, outfile=f"{folder}/report.json")
        files = json.loads(Path(f"{folder}/report.json").read_text())["files"]
    rows, missing = [], {}
    for name, found in sorted((os.path.relpath(n, ROOT), f) for n, f in files.items()):
        s = found["summary"]
        rows.append(dict(zip(("module", *COUNTS), (name, s["num_statements"], s["covered_lines"], s["num_branches"], s["covered_branches"]))))
        missing[name] = found["missing_branches"], found["missing_lines"]
    rows.append(dict(module="all") | {c: sum(r[c] for r in rows) for c in COUNTS})
    for r in rows: r["share"] = round(r["branches_taken"]/r["branches"], 4) if r["branches"] else 1.
    return rows, missing

def main(words):
    FOLDER.mkdir(parents=True, exist_ok=True)
    pool.LONGEST = float("inf")   # a file of tests is one job
    jobs = [j for j in pool.all_jobs() if j[1] != "command" and not words or any(w in j[0] for w in words)]
    if not jobs: sys.exit(f"no job has {' or '.join(words)} in its name")
    if not words:
        for f in FOLDER.glob("*"): f.unlink()
    with tempfile.TemporaryDirectory(prefix="memnet-covered-") as scratch:
        folder, config = Path(scratch)/"taken", Path(scratch)/"coverage.ini"
        folder.mkdir()
        config.write_text(CONFIG.format(folder=folder, root=ROOT))
        os.environ["COVERAGE_PROCESS_START"] = str(config)   # for children: see offline/sitecustomize.py
        pool.run_chapter, pool.run_tests = covered(pool.run_chapter, config, True), covered(pool.run_tests, config, False)
        pool.load()
        outcome, _ = pool.run_pool(jobs, pool.cores(), Path(scratch)/"jobs")
        complete = merge(folder, jobs)
        rows, missing = report(config)
    if complete:
        TABLE.parent.mkdir(parents=True, exist_ok=True)
        with TABLE.open("w", newline="") as f:
            writer = csv.DictWriter(f, COLUMNS, lineterminator="\n")
            writer.writeheader()
            writer.writerows(rows)
    for name, (branches, lines) in missing.items():
        arcs = [f"{a} to {b if b > 0 else 'end'}" for a, b in branches]
        if branches or lines: print(f"{name}: {', '.join(arcs) or '-'}; lines {', '.join(map(str, lines)) or '-'}")
    total = rows[-1]
    print(f"branches: {total['branches_taken']} of {total['branches']} ({total['share']:.1%}); statements: {total['statements_run']} of {total['statements']}")
    bad = [n for n, (ok, *_) in outcome.items() if not ok]
    for n in bad: print(f"  FAILED {n}")
    return 1 if bad else 0

if __name__ == "__main__":
    try: sys.exit(main(sys.argv[1:]))
    except KeyboardInterrupt: sys.exit(130)
