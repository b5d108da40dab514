"""What the package is made of: pinned versions with hashes, licences that MIT code may stand beside, and no network at import or run."""
import csv, importlib.util, os, re, subprocess, sys, textwrap
from importlib.metadata import version
from pathlib import Path
import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).resolve().parent.parent
BUILD_TOOLS = {"setuptools", "wheel"}   # asked for by others, of any version
PYTHON_311 = {"python_version": "3.11", "python_full_version": "3.11.9", "sys_platform": "linux", "platform_system": "Linux", "platform_machine": "x86_64"}

def script(name):
    "A module of .ci, by its path."
    spec = importlib.util.spec_from_file_location(name, ROOT/".ci"/f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module

licences = script("licences")

def pins(environment=None):
    "Name -> version of constraints.txt for one environment; None = this one."
    lines = [Requirement(l) for l in (ROOT/"constraints.txt").read_text().splitlines() if l.strip() and not l.startswith("#")]
    return {canonicalize_name(r.name): str(r.specifier).removeprefix("==") for r in lines if r.marker is None or r.marker.evaluate(environment)}

def locked():
    found = re.findall(r"^(\S+)==(\S+) --hash=sha256:([0-9a-f]{64})$", (ROOT/"requirements-linux-py311.lock").read_text(), re.M)
    return {name: version for name, version, _ in found}

def test_every_line_of_the_lock_is_a_pin_with_a_hash():
    lines = [l for l in (ROOT/"requirements-linux-py311.lock").read_text().splitlines() if l and not l.startswith("#")]
    assert len(locked()) == len(lines) > 100

def test_lock_and_constraints_agree():
    pinned = pins(PYTHON_311)
    assert {n: v for n, v in locked().items() if n not in BUILD_TOOLS and pinned.get(n) != v.split("+")[0]} == {}

def test_the_lock_has_all_that_is_needed():
    if sys.version_info[:2] != (3, 11) or sys.platform != "linux": pytest.skip("the lock is for Linux, Python 3.11")
    assert set(licences.installed()) == set(locked())

def test_what_is_installed_is_what_is_pinned():
    "Otherwise the numbers of this run belong to another set of versions."
    pinned = pins()
    off = {n: (d.version, pinned[n]) for n, (d, _) in licences.installed().items() if n in pinned and d.version.split("+")[0] != pinned[n]}
    assert off == {}

def table(): return {r["package"]: r["licence"] for r in csv.DictReader((ROOT/"licences.csv").open(encoding="utf-8"))}

def test_the_table_of_licences_is_current():
    "For what is installed here; packages of other Python versions may be absent."
    known = table()
    assert {n: licences.licence(d) for n, (d, _) in licences.installed().items() if known.get(n) != licences.licence(d)} == {}
    assert set(known) - set(pins(PYTHON_311)) - BUILD_TOOLS == set()

def test_every_licence_is_known_and_accepted():
    assert {n: l for n, l in table().items() if not l or licences.refused(l)} == {}
    assert licences.refused("MIT AND GPL-3.0-or-later") == ["GPL-3.0-or-later"] and licences.refused("") == [""]

def offline(code):
    path = os.pathsep.join(filter(None, [str(ROOT/".ci"/"offline"), os.environ.get("PYTHONPATH", "")]))
    return subprocess.run([sys.executable, "-c", textwrap.dedent(code)], cwd=ROOT, env=os.environ | {"PYTHONPATH": path}, capture_output=True, text=True)

def test_the_guard_refuses_what_leaves_the_machine_and_nothing_else():
    done = offline("""
        import socket
        for call in (lambda: socket.create_connection(("192.0.2.1", 80), 1), lambda: socket.getaddrinfo("example.org", 80), lambda: socket.socket().connect(("192.0.2.1", 80))):
            try: call()
            except OSError as e: assert "no network in tests" in str(e), e
            else: raise AssertionError("went out")
        server = socket.create_server(("127.0.0.1", 0))
        socket.create_connection(server.getsockname()).close()
    """)
    assert done.returncode == 0, done.stderr

def test_nothing_needs_the_network_at_import_or_run(tmp_path):
    done = offline(f"""
        import importlib, pkgutil, memnet
        for part in pkgutil.iter_modules(memnet.__path__):
            if not part.ispkg: continue
            for m in pkgutil.iter_modules(importlib.import_module(f"memnet.{{part.name}}").__path__): importlib.import_module(f"memnet.{{part.name}}.{{m.name}}")
        from pathlib import Path
        from memnet.experiments import policy
        cfg = policy.Config(**policy.settings("smoke", 1)[0])
        policy.run(cfg, Path({str(tmp_path)!r}))
        assert (Path({str(tmp_path)!r})/"metrics.csv").exists()
    """)
    assert done.returncode == 0, done.stderr
