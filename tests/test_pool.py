"""The pool that runs chapters and tests: a failure is named with its output, a job that does not end is ended, and nothing outlives it."""
import os, signal, subprocess, sys, time
from pathlib import Path
import psutil, pytest

ROOT = Path(__file__).resolve().parent.parent
CALL = """
import sys
from pathlib import Path
sys.path.insert(0, sys.argv[1] + "/.ci")
import pool
import pytest
scratch = Path(sys.argv[2])
jobs = [(Path(f).stem, "tests", [f], 1.) for f in sys.argv[4:]]
pool.LIMIT = float(sys.argv[3])
try: outcome, tests = pool.run_pool(jobs, 2, scratch)
except KeyboardInterrupt: sys.exit(130)
print({n: ok for n, (ok, *_) in outcome.items()}, sorted(n.split("::")[-1] for n in tests))
"""

def call(tmp_path, limit=900, **files):
    "A pool over some files of tests."
    for name, text in files.items(): (tmp_path/f"{name}.py").write_text(text)
    (tmp_path/"scratch").mkdir()
    words = [sys.executable, "-c", CALL, str(ROOT), str(tmp_path/"scratch"), str(limit), *(str(tmp_path/f"{n}.py") for n in files)]
    return subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler))

def left(pid):
    "Processes that a pool started and that are still there."
    found = []
    for p in psutil.process_iter():
        try:
            if p.environ().get("MEMNET_POOL") == str(pid) and p.status() != psutil.STATUS_ZOMBIE: found.append(p)
        except psutil.Error: pass
    return found

def test_a_failure_is_named_with_its_output_and_the_others_go_on(tmp_path):
    process = call(tmp_path, test_right="import os\ndef test_a(): assert os.environ['OMP_NUM_THREADS'] == '1'", test_wrong="def test_b():\n    print('what it said')\n    assert 1 == 2",
                   test_crashed="import os\ndef test_c(): os.abort()")
    out, _ = process.communicate(timeout=100)
    assert "'test_right': True" in out.splitlines()[-1], out
    for name in ("wrong", "crashed"): assert f"'test_{name}': False" in out
    assert "---- test_wrong failed" in out and "what it said" in out and "ended by signal 6" in out
    assert out.splitlines()[-1].endswith("['test_a', 'test_b']") and not list((tmp_path/"scratch").iterdir())

def test_a_job_that_does_not_end_is_ended(tmp_path):
    process = call(tmp_path, limit=1, test_endless="import time\ndef test_d(): time.sleep(600)")
    out, _ = process.communicate(timeout=100)
    assert "test_endless did not end" in out and "'test_endless': False" in out and not left(process.pid)

@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGKILL])
def test_nothing_is_left_behind(tmp_path, number):
    "A job and the child that it put into a session of its own end with the pool; of a pool that is killed itself, the jobs do."
    away = "import subprocess, sys, time\ndef test_a():\n    subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(60)'], start_new_session=True)\n    open(__file__ + '.begun', 'w').close()\n    time.sleep(60)"
    stay = "import time\ndef test_a():\n    open(__file__ + '.begun', 'w').close()\n    time.sleep(60)"
    process = call(tmp_path, test_child=away if number == signal.SIGINT else stay)
    end = time.time() + 60
    while not (tmp_path/"test_child.py.begun").exists() and time.time() < end: time.sleep(.05)
    jobs = psutil.Process(process.pid).children(recursive=True)
    assert len(jobs) == (2 if number == signal.SIGINT else 1)
    process.send_signal(number)
    out, _ = process.communicate(timeout=60)
    assert process.returncode == (130 if number == signal.SIGINT else -signal.SIGKILL), out
    assert not psutil.wait_procs(jobs, timeout=20)[1] and not left(process.pid)

def test_long_files_of_tests_are_shared_out(tmp_path, monkeypatch):
    monkeypatch.setattr(sys, "path", [str(ROOT/".ci"), *sys.path])
    before = dict(os.environ)
    try: import pool
    finally: os.environ.clear(); os.environ.update(before)
    monkeypatch.setattr(pool, "ROOT", tmp_path)
    (tmp_path/"tests").mkdir()
    (tmp_path/"tests"/"test_x.py").write_text("def test_a(): 0\ndef helper(): 0\ndef test_b(): 0\ndef test_c(): 0\ndef test_d(): 0\n")
    file = "tests/test_x.py"
    assert pool.shares(file, {}) == [["test_a", "test_b", "test_c", "test_d"]]
    assert pool.shares(file, {f"{file}::test_b": 20, f"{file}::test_c": 90, f"{file}::test_d": 20}) == [["test_a", "test_b"], ["test_c"], ["test_d"]]
    jobs = [j for j in pool.all_jobs({f"{file}::test_c": 90}) if j[1] == "tests"]
    waiting = [("tests/test_x.py", 0), ("nbs/text/a.ipynb", 0)]
    assert pool.next_job(list(waiting), ["kernels"]) == waiting[1] and pool.next_job(list(waiting), ["types"]) == waiting[0] and pool.next_job(waiting[:1], ["kernels"]) == waiting[0]
    assert pool.next_job([("kernels float64", 0), *waiting], ["kernels float32"])[0] == "kernels float64"
    assert [j[2] for j in jobs] == [[f"{file}::test_c"], [f"{file}::test_a", f"{file}::test_b"], [file, *(f"--deselect={file}::test_{n}" for n in "abc")]]

def test_every_notebook_is_a_job(monkeypatch):
    monkeypatch.setattr(sys, "path", [str(ROOT/".ci"), *sys.path])
    before = dict(os.environ)
    try: import pool
    finally: os.environ.clear(); os.environ.update(before)
    kept = subprocess.run(["git", "ls-files", "*.ipynb"], cwd=ROOT, capture_output=True, text=True, check=True).stdout.split()
    assert set(kept) - set(pool.notebooks()) == set()
