"""Licences of everything that `pip install memnet[dev]` brings, from the metadata of what is installed: writes licences.csv; `--check` only compares."""
import csv, io, re, sys
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).resolve().parent.parent
TABLE = ROOT/"licences.csv"
SPDX = {"MIT License": "MIT", "BSD License": "BSD", "3-Clause BSD License": "BSD-3-Clause", "Apache Software License": "Apache-2.0", "Apache 2.0": "Apache-2.0", "Apache License, Version 2.0": "Apache-2.0",
        "ISC License (ISCL)": "ISC", "Mozilla Public License 2.0 (MPL 2.0)": "MPL-2.0", "Python Software Foundation License": "PSF-2.0"}
# What may be installed beside MIT code without a duty on that code: permissive, or copyleft for its own files alone (MPL).
ACCEPTED = {"MIT", "MIT-0", "MIT-CMU", "BSD", "BSD-2-Clause", "BSD-3-Clause", "0BSD", "Apache-2.0", "Apache-2.0 WITH LLVM-exception", "ISC", "PSF-2.0", "MPL-2.0", "Zlib", "CC0-1.0", "BSL-1.0"}

def installed(extra="dev"):
    "Canonical name -> (distribution, what asked for it first) of the package's whole set of dependencies in this environment."
    found, todo = {}, [("memnet", extra, "")]
    seen = set()
    while todo:
        name, wanted, by = todo.pop(0)
        if (name, wanted) in seen: continue
        seen.add((name, wanted))
        try: d = distribution(name)
        except PackageNotFoundError: continue
        if name != "memnet": found.setdefault(canonicalize_name(name), (d, by))
        for line in d.requires or ():
            need = Requirement(line)
            if need.marker and not (need.marker.evaluate({"extra": wanted}) if wanted else need.marker.evaluate({"extra": ""})): continue
            for e in need.extras or {""}: todo.append((canonicalize_name(need.name), e, name))
            if need.extras: todo.append((canonicalize_name(need.name), "", name))
    return found

def licence(d):
    "What a distribution declares, in the words of SPDX; empty where it declares nothing."
    m = d.metadata
    kinds = [c.split(" :: ")[-1] for c in m.get_all("Classifier") or () if c.startswith("License")]
    text = m.get("License-Expression") or " AND ".join(SPDX.get(k, k) for k in kinds if k != "OSI Approved") or (m.get("License") or "").split("\n")[0][:60]
    return SPDX.get(text, text)

def refused(text): return [part for part in re.split(r" AND | OR ", text.replace("(", "").replace(")", "")) if part not in ACCEPTED]

def rows(): return [dict(package=n, licence=licence(d), needed_by=by) for n, (d, by) in sorted(installed().items())]

def as_text(table):
    out = io.StringIO()
    writer = csv.DictWriter(out, ["package", "licence", "needed_by"], lineterminator="\n")
    writer.writeheader()
    writer.writerows(table)
    return out.getvalue()

def main(arguments):
    table = rows()
    odd = [f"{r['package']}: {', '.join(refused(r['licence'])) or 'none declared'}" for r in table if not r["licence"] or refused(r["licence"])]
    if odd: sys.exit("not among the accepted licences: " + "; ".join(odd))
    if "--check" not in arguments: TABLE.write_text(as_text(table), encoding="utf-8")
    elif TABLE.read_text(encoding="utf-8") != as_text(table): sys.exit(f"{TABLE.name} is not what is installed: run python .ci/licences.py and look at what changed")

if __name__ == "__main__": main(sys.argv[1:])
