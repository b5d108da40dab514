"""The command `memnet` as a process and as a function: bad calls, values of parameters, output of every kind, figures of any runs."""
import os, subprocess, sys
from pathlib import Path
import pytest
from coin_experiment import write_coin
from memnet.text.text_memory import TextMemory
from memnet.runs import command_line

FIELDS = '''    lr: Optional[float] = None
    lengths: tuple = (256, 1024)
    mode: Literal["a", "b"] = "a"
    graph: bool = True
    fail: str'''

@pytest.fixture(scope="module")
def root(tmp_path_factory):
    "A checkout whose experiment has fields of every type."
    root = write_coin(tmp_path_factory.mktemp("cli")/"checkout")
    for path in (root/"memnet"/"experiments"/"coin.py", root/"nbs"/"experiments"/"coin_run.ipynb"):
        text = path.read_text()
        if path.suffix == ".py": text = text.replace("    fail: str", FIELDS).replace("from pathlib import Path", "from pathlib import Path\nfrom typing import Literal, Optional", 1)
        else: text = text.replace("    fail: str", FIELDS.replace('"', '\\"').replace("\n", '\\n",\n    "')).replace("from pathlib import Path", 'from pathlib import Path; from typing import Literal, Optional', 1)
        path.write_text(text)
    return root

@pytest.fixture
def command(root, capsys, monkeypatch):
    "Exit code and what was printed."
    def call(*words):
        monkeypatch.setattr(command_line, "_console", command_line.Console(width=300, soft_wrap=True))
        try: code = command_line.main(list(words), root)
        except SystemExit as e: code = e.code
        out = capsys.readouterr()
        return code, out.out + out.err
    return call

BAD = {   # words -> what the message says
    "": "required: command", "lst": "invalid choice: 'lst'", "list extra": "unrecognized arguments: extra",
    "run": "required: experiment", "run coni": "did you mean 'coin'", "run coin --profile tiny": "invalid choice: 'tiny'", "run coin --prof smoke": "unrecognized arguments", "run coin -p throws": "expected 2 arguments",
    "run coin -p thorws 3": "did you mean 'throws'", "run coin -p throws many": "throws must be int, got 'many'", "run coin -p throws 1.5": "throws must be int", "run coin -p throws 10,20": "several values are for `memnet sweep`", "run coin -p throws None": "throws must be int",
    "run coin -p bias nan": "bias must be float", "run coin -p bias inf": "bias must be float", "run coin -p graph perhaps": "graph must be bool", "run coin -p mode c": "mode must be one of a, b, got 'c'", "run coin -p lr fast": "lr must be float or None, got 'fast'",
    "run coin -p lengths (1,b)": "lengths must be tuple of int", "run coin -p lengths (1,2": "closing ')'", "run coin -p bias 0.1 -p bias 0.2": "given twice", "run coin -p seed 1 --seeds 2": "seeds are given twice",
    "run coin --seeds 0": "must be a whole number from 1 to 10000, got '0'", "run coin --seeds -1": "from 1 to 10000", "run coin --seeds x": "got 'x'", "run coin --seeds ²": "got '²'", "run coin --seeds 99999999999": "from 1 to 10000",
    "run coin --jobs 0": "got '0'", "run coin --threads 1.5": "got '1.5'", "run coin --overwrite yes": "unrecognized arguments: yes",
    "sweep coin": "at least one -p", "sweep all -p throws 1": "a sweep is of one experiment", "sweep coin -p throws 10,1.5": "throws must be int, got '1.5'", "sweep coin -p throws 10,": "throws must be int, got ''", "sweep coin -p lengths 256,512": "(256,512,) is one value, (256,),(512,) are 2",
    "sweep coin -p mode a,c": "got 'c'", "sweep coin -p seed 1,2 --seeds 3": "seeds are given twice", "sweep coin -p throws 1 --profile quick": "unrecognized arguments",
    "report": "required: experiment", "report coni": "did you mean 'coin'", "report coin --profile x": "invalid choice: 'x'", "report coin 0-s0-00000000": "unknown run '0-s0-00000000'", "report all 0-s0-00000000": "the runs of one experiment", "report coin x --profile full": "neither --profile",
    "collect coni": "did you mean 'coin'", "collect coin --runs nowhere": "must be a folder that is there, got 'nowhere'", "collect --runs": "expected one argument", "verify coni": "did you mean 'coin'", "verify --threads 0": "got '0'", "bench --repeats 0": "got '0'", "bench coin": "unrecognized arguments",
}

@pytest.mark.parametrize("words", BAD)
def test_a_bad_call_is_refused_in_words_before_anything_is_started(root, command, words):
    code, out = command(*words.split())
    assert code == 2 and BAD[words] in " ".join(out.split()) and "Traceback" not in out
    assert not (root/"_runs").exists() and not (root/"results").exists()

def test_help_tells_the_exit_codes_and_how_values_are_given(command):
    for words in ((), ("run",), ("sweep",), ("report",), ("collect",), ("verify",), ("bench",), ("list",)):
        code, out = command(*words, "--help")
        assert code == 0 and "Exit codes: 0 everything" in " ".join(out.split())
    assert "(256,512) is one tuple, (256,),(512,) are two" in " ".join(command("sweep", "--help")[1].split())

def planned(monkeypatch, command, *words):
    "The settings that would be run."
    found = []
    monkeypatch.setattr(command_line, "run_all", lambda runs, jobs=1, **kw: found.extend(r.config for r in runs) or [])
    monkeypatch.setattr(command_line, "execute_reports", lambda *a: []); monkeypatch.setattr(command_line, "_print_report", lambda *a: True); monkeypatch.setattr(command_line, "_print_overview", lambda *a: None)
    code, out = command(*words)
    assert code == 0, out
    return found

@pytest.mark.parametrize("words, field, values", [
    (("run", "coin", "--profile", "smoke", "-p", "lr", "None"), "lr", [None]), (("run", "coin", "--profile", "smoke", "-p", "lr", "1e-3"), "lr", [1e-3]), (("run", "coin", "--profile", "smoke", "-p", "lengths", "(256,512)"), "lengths", [[256, 512]]),
    (("run", "coin", "--profile", "smoke", "-p", "lengths", "256,512"), "lengths", [[256, 512]]), (("run", "coin", "--profile", "smoke", "-p", "lengths", "()"), "lengths", [[]]), (("run", "coin", "--profile", "smoke", "-p", "graph", "no"), "graph", [False]),
    (("sweep", "coin", "-p", "lengths", "(256,512)"), "lengths", [[256, 512]]), (("sweep", "coin", "-p", "lengths", "(256,),(512,)"), "lengths", [[256], [512]]), (("sweep", "coin", "-p", "lr", "None,0.1"), "lr", [None, .1]),
    (("sweep", "coin", "-p", "mode", "a,b"), "mode", ["a", "b"]), (("sweep", "coin", "-p", "fail", "'a,b',c"), "fail", ["a,b", "c"])], ids=str)
def test_values_are_read_by_their_annotation(monkeypatch, command, words, field, values):
    assert [c[field] for c in planned(monkeypatch, command, *words)] == values

def test_a_message_is_printed_as_it_is(command, monkeypatch):
    def fails(root): raise ValueError("no [red]key[/red] in :smile: ['a'] \x1b[31m≥ é")
    monkeypatch.setattr(command_line, "find_experiments", fails)
    code, out = command("list")
    assert code == 2 and "memnet: no [red]key[/red] in :smile: ['a'] \\x1b[31m≥ é" in out

def test_errors_of_the_system_and_interrupts_have_codes_of_their_own(command, monkeypatch):
    for error, code, text in ((OSError(28, "No space left on device"), 1, "No space left on device"), (KeyboardInterrupt(), 130, "To go on: memnet list"), (KeyboardInterrupt("interrupted after step 3"), 130, "interrupted after step 3")):
        def fails(root): raise error
        monkeypatch.setattr(command_line, "find_experiments", fails)
        found, out = command("list")
        assert found == code and text in out and "Traceback" not in out

CALL = "import sys; from pathlib import Path; from memnet.runs.command_line import main; sys.exit(main(sys.argv[2:], Path(sys.argv[1])))"

@pytest.mark.skipif(os.name != "posix", reason="pipes of a shell")
def test_output_of_every_kind(root):
    def shell(line, **env):
        r = subprocess.run(["bash", "-c", line, "", sys.executable, CALL, str(root)], capture_output=True, env=os.environ | env)
        assert b"Traceback" not in r.stderr and b"Error" not in r.stderr, r.stderr
        return r.stdout.decode().strip()
    refused = '"$1" -c "$2" "$3" run "≥[red]é"; echo $?'
    plain = shell(refused, LC_ALL="POSIX", PYTHONIOENCODING="ascii", NO_COLOR="1")
    assert r"unknown experiment '\u2265[red]\xe9'" in plain and "\x1b" not in plain
    assert shell('"$1" -c "$2" "$3" list | head -c1 >/dev/null; echo ${PIPESTATUS[0]}') == "0"
    assert shell('"$1" -c "$2" "$3" list >&-; echo $?') == "0" and shell('"$1" -c "$2" "$3" list >/dev/full; echo $?') == "0"
    assert shell('"$1" -c "$2" "$3" list; echo $?', COLUMNS="12").endswith("0")
    with TextMemory(str(root/"m.db")) as memory: memory.write("Tea is at five.")
    said = shell('"$1" -c "$2" "$3" text log --file "$3/m.db" 2>&1 >/dev/full; echo $?')
    assert "No space left on device" in said and said.endswith("1")   # an answer that nobody got
