"""What `make test` checks, in order; goes on after a failure, names each one at the end, and prints the times.

    python .ci/check.py export types      # some of them
    python .ci/check.py pool text         # the chapters and tests whose name holds a word
"""
import os, subprocess, sys, time
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
BIN = Path(sys.executable).parent  # of the environment that runs this

def run(*cmd):
    "Run a command of this environment in the repository root, without a network; true if it succeeded."
    offline = os.pathsep.join(filter(None, [str(ROOT/".ci"/"offline"), os.environ.get("PYTHONPATH", "")]))
    env = os.environ | {"PATH": f"{BIN}{os.pathsep}{os.environ['PATH']}", "PYTHONPATH": offline}
    with subprocess.Popen(cmd, cwd=ROOT, env=env) as process:
        try: return process.wait() == 0
        except KeyboardInterrupt:   # it got it too, and tidies up
            process.wait()
            raise

def contents(*patterns):
    "The bytes of every file that matches, by name."
    files = [f for p in patterns for f in ROOT.glob(p) if f.is_file() and not any(s.startswith((".", "_")) for s in f.relative_to(ROOT).parts[:-1])]
    return {str(f.relative_to(ROOT)): f.read_bytes() for f in files}

def unchanged(cmd, patterns, fix):
    "Run `cmd`, which must leave the files as they are; name those it changed."
    before = contents(*patterns)
    if not run(*cmd): return False
    after = contents(*patterns)
    changed = sorted(f for f in before.keys() | after.keys() if before.get(f) != after.get(f))
    for f in changed: print(f"  {f} is not what {Path(cmd[-1]).name} makes of it: {fix}")
    return not changed

CHECKS = {
    "export":   lambda: unchanged(["nbdev_export"], ["memnet/**/*.py"], "edit the notebook, run nbdev_export, commit both"),
    "clean":    lambda: unchanged(["nbdev_clean"], ["*.ipynb", "nbs/**/*.ipynb", "papers/**/*.ipynb"], "run nbdev_clean and commit"),
    "readme":   lambda: unchanged([sys.executable, ".ci/readme.py"], ["README.md"], "run make readme and commit"),
    "types":    lambda: run(sys.executable, "-m", "mypy"),
    "verify":   lambda: run("memnet", "verify", "--tables-only"),
    "pool":     lambda: run(sys.executable, ".ci/pool.py", *WORDS),   # every chapter and every test, types, verify
}
WHOLE = ("export", "clean", "readme", "pool")
WORDS = []   # what follows `pool` or `covered`: which of the jobs
ASKED = {"covered": lambda: run(sys.executable, ".ci/covered.py", *WORDS)}   # only on request: which branches no check takes

def main(names):
    at = next((i + 1 for i, n in enumerate(names) if n in ("pool", "covered")), len(names))
    WORDS[:], names = names[at:], names[:at]
    known = CHECKS | ASKED
    unknown = [n for n in names if n not in known]
    if unknown: sys.exit(f"unknown check {unknown[0]!r}; there are: {', '.join(known)}")
    rows = []
    for name in names or WHOLE:
        print(f"== {name}", flush=True)
        start = time.time()
        rows.append((name, known[name](), time.time() - start))
    print()
    for name, ok, seconds in rows: print(f"{'ok' if ok else 'FAILED':7} {name:9} {seconds:6.1f} s")
    print(f"{'':7} {'together':9} {sum(r[2] for r in rows):6.1f} s")
    return 0 if all(r[1] for r in rows) else 1

if __name__ == "__main__":
    try: sys.exit(main(sys.argv[1:]))
    except KeyboardInterrupt: sys.exit(130)
