"""The pinned set with hashes: asks pip what `constraints.txt` resolves to here and writes one line a package; `memnet` itself is left out."""
import json, subprocess, sys, tempfile
from pathlib import Path
from packaging.utils import canonicalize_name

ROOT = Path(__file__).resolve().parent.parent
LOCK = ROOT/"requirements-linux-py311.lock"
HEAD = """# The files that `constraints.txt` means on Linux (x86_64) with Python 3.11, each with its SHA-256. Made by: python .ci/lock.py
# Use: pip install --require-hashes -r requirements-linux-py311.lock, then: pip install --no-deps -e .
# torch is the CPU build: add the index that its installation page names.
"""

def resolve():
    "What pip would install, as its report lists it; nothing is installed."
    with tempfile.TemporaryDirectory() as folder:
        report = Path(folder)/"report.json"
        subprocess.run([sys.executable, "-m", "pip", "install", "--dry-run", "--ignore-installed", "--quiet", "--report", report, "-c", ROOT/"constraints.txt", "-e", f"{ROOT}[dev]"], check=True)
        return json.loads(report.read_text())["install"]

def as_text(found):
    wheels = {canonicalize_name(w["metadata"]["name"]): (w["metadata"]["version"], w["download_info"].get("archive_info", {}).get("hashes", {}).get("sha256")) for w in found}
    wheels.pop("memnet", None)
    return HEAD + "".join(f"{name}=={version} --hash=sha256:{digest}\n" for name, (version, digest) in sorted(wheels.items()))

if __name__ == "__main__":
    if sys.platform != "linux" or sys.version_info[:2] != (3, 11): sys.exit("make the lock where it holds: Linux, Python 3.11")
    LOCK.write_text(as_text(resolve()), encoding="utf-8")
