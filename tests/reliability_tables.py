"""Tables of the long trials, which `make test` only runs in short: results/reliability/<name>.csv."""
import platform
from pathlib import Path
import pandas as pd, torch
from memnet.soundness.soak import package_digest

FOLDER = Path(__file__).resolve().parent.parent/"results"/"reliability"

def record(name, table, **about):
    "Write a table; each row says of which code, versions and seed it is."
    about |= dict(code=package_digest(), python=platform.python_version(), torch=torch.__version__.partition("+")[0])
    FOLDER.mkdir(parents=True, exist_ok=True)
    pd.DataFrame(table).assign(**about).to_csv(FOLDER/f"{name}.csv", index=False, lineterminator="\n")
