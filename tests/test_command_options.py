"""Bad words, over every option and every argument of every command: exit code 2, a line that names the value, nothing started, nothing written."""
import argparse
import pytest
from coin_experiment import write_coin
from memnet.runs import command_line, package_commands, train_command
from memnet.scorecard import card, score_command
from memnet.text import text_command
from memnet.text.text_memory import TextMemory

LONG, SURROGATE = "9"*400, "\udcff"
def whole(low, high): return ["", "x", "1.5", "nan", "inf", "-inf", "1e3", "²", "1_0", LONG, SURROGATE, str(low - 1), str(high + 1)] + ["-1"]*(low >= 0)
def number(*more): return ["", "x", "nan", "inf", "-inf", "1e400", "0x1", "1,5", LONG, SURROGATE, *more]
def file(ending=None): return ["", "{folder}", "{folder}/", "{folder}/none/a" + (ending or ".x")] + (["a.txt", "{folder}/a", SURROGATE] if ending else [])
COUNT, SEED, NUMBER, ID = whole(1, 10_000), whole(0, 2**32 - 1), whole(1, 2**63 - 1), [*whole(1, 2**63 - 1), "99"]
MANY, FLAG, CHOICE = whole(1, 10**7), ["", "yes", "0", SURROGATE], ["", "x", "0", "nan", LONG, SURROGATE, "QUICK", "Float32"]
NAME = ["", "coni", "Coin", "../coin", "coin/", "*", "\x00", LONG, SURROGATE]
TEXT, LABEL = ["", " ", "\t", "a\x01", SURROGATE, "x"*1_000_001], [" a", "a ", "a\nb", "a\x01", "x"*300, SURROGATE]
FOLDER, DATABASE = ["", "{folder}/none", "{folder}/notes.md", SURROGATE], [*file(), "{folder}/none.db", "{folder}/notes.md"]
SHARED = dict(file=DATABASE, namespace=["", *LABEL], json=FLAG)
PARAMETER = [("", "1"), ("x", "1"), ("thorws", "1"), (SURROGATE, "1"), ("throws", ""), ("throws", "x"), ("throws", "1.5"), ("throws", "nan"), ("throws", "1e400"), ("throws", SURROGATE), ("bias", "inf"), ("bias", "nan"), ("bias", LONG), ("bias", "")]
TRAINED = [("", "1"), ("n_pair", "1"), (SURROGATE, "1"), ("vocab_size", "1"), ("steps", "1"), ("task.lr", "1"), ("n_pairs", ""), ("n_pairs", "x"), ("n_pairs", "1.5"), ("n_pairs", "-3"), ("n_slots", "0"), ("lr", "nan"), ("lr", LONG), ("lr", SURROGATE), ("batch_size", "-7")]
RUN = dict(p=PARAMETER, seeds=COUNT, jobs=COUNT, scheduler=["", " ", "x", "localhost:8786", "tcp://", "tcp://a", "tcp://a:b", "tcp://a:99999", "http://a:1", SURROGATE, LONG], threads=COUNT, overwrite=FLAG, wait=FLAG)

# command -> words that are right, and the bad words of each option and argument: said once more by hand, the test must not ask the code that it tests
COMMANDS = {
    "list": ([], {}), "run": (["coin"], dict(RUN, experiment=NAME, profile=CHOICE)), "sweep": (["coin", "-p", "bias", "0.5"], dict(RUN, experiment=[*NAME, "all"])),
    "report": (["coin"], dict(experiment=NAME, runs=NAME, profile=CHOICE, threads=COUNT)),
    "collect": (["coin"], dict(experiments=NAME, runs=FOLDER, replace=FLAG)), "verify": (["coin"], {"experiments": NAME, "tables-only": FLAG, "threads": COUNT}),
    "train": (["rebinding", "--out=new"], dict(task=CHOICE, model=CHOICE, out=["", " ", "{folder}/notes.md", "{folder}/notes.md/below", SURROGATE], p=TRAINED, steps=COUNT, seed=whole(0, 2**29 - 1), devices=COUNT, nodes=COUNT, precision=CHOICE, accelerator=CHOICE)),
    "warmup": ([], dict(precision=CHOICE)), "bench": ([], dict(repeats=COUNT, slots=FLAG, step=FLAG, beside=["", "x", "{folder}/notes.md", SURROGATE, LONG])), "meta-train": ([], dict(steps=COUNT, seed=SEED)),
    "soak": ([], dict(only=CHOICE, seed=SEED, minutes=number("0", "-1"), check=["", "x", "fused", SURROGATE], case=["", "x", "1", "[]", "{", '{"x": 1}', '{"graph": 7}', '{"n_slots": -1}', '{"dim": "x"}', SURROGATE, LONG], record=FLAG)),
    "score": (["known"], dict(network=["", "x", ":", "x:y", "memnet:", "memnet:nothing", ":Net", "os:sep", "a b:c", "..:x", SURROGATE, LONG], json=file(), figure=file(".svg"), only=CHOICE, seeds=COUNT, full=FLAG, jobs=COUNT, steps=COUNT)),
    "text": ([], dict(text_command=CHOICE)),
    "text add": (["notes.md"], dict(SHARED, file=[*file(), "{folder}/notes.md"], path=["", "{folder}/none", "{folder}/bare", SURROGATE, "x"*5_000], text=[t for t in TEXT if t], kind=CHOICE, key=LABEL, importance=number("-0.1", "1.1"))),
    "text recall": (["Who?"], SHARED | {"query": TEXT, "k": MANY, "spread": number("1", "-0.1"), "at": number(), "no-learn": FLAG, "why": FLAG}),
    "text sleep": ([], SHARED | {"dry-run": FLAG, "capacity": whole(0, 10**7), "budget": whole(0, 10**7), "parts": ["", "x", "Merge", SURROGATE]}),
    "text forget": (["1"], dict(SHARED, ids=ID, purge=FLAG)), "text history": (["1"], dict(SHARED, id=ID)), "text log": ([], dict(SHARED, since=whole(0, 2**63 - 1))), "text rollback": (["1"], dict(SHARED, seq=[*whole(0, 2**63 - 1), "99"])),
    "text graph": (["a.html"], dict(SHARED, page=[*file(".html"), "{folder}/there.html"])), "text stats": ([], SHARED), "text export": (["a.jsonl"], dict(SHARED, path=[*file(".jsonl"), "{folder}/there.jsonl"])),
    "text measure": (["kills"], dict(SHARED, file=file(), namespace=[], what=CHOICE, n=MANY, table=file(".csv"))), "text serve": ([], SHARED | {"allow-purge": FLAG, "file": [*file(), "{folder}/notes.md"]}),
    "text probe": ([], dict(SHARED, file=file(), namespace=[], seeds=MANY, first=SEED, rivals=FLAG, table=file(".csv"))),
}
COMMANDS["text serve"][1]["namespace"] = SHARED["namespace"]

def parsers(parser, path=""):
    "Path -> parser, of a command line and all below it."
    found = {path: parser} if path else {}
    for a in parser._actions:
        if isinstance(a, argparse._SubParsersAction):
            for name, below in a.choices.items(): found |= parsers(below, f"{path} {name}".strip())
    return found

def options(parser): return {a.option_strings[-1].lstrip("-") if a.option_strings else a.dest: a for a in parser._actions if not isinstance(a, argparse._HelpAction)}

PARSER = command_line._parser()
PARSERS = parsers(PARSER)

def test_the_table_names_every_option():
    assert {c: sorted(options(p)) for c, p in PARSERS.items()} == {c: sorted(known) for c, (_, known) in COMMANDS.items()}

@pytest.fixture(scope="module")
def place(tmp_path_factory):
    "A checkout with an experiment, a memory of text, notes and folders."
    root = write_coin(tmp_path_factory.mktemp("options")/"checkout")
    with TextMemory(str(root/"memory.db"), clock=iter(range(10**9)).__next__) as mem: mem.write("Anna adopted Rex.")
    for name in ("notes.md", "there.html", "there.jsonl"): (root/name).write_text("Tea is at five.\n" if name == "notes.md" else "")
    (root/"bare").mkdir()
    return root

class Started(Exception): "Something was begun."

def started(*args, **kwargs): raise Started(args)

@pytest.fixture
def call(place, capsys, monkeypatch):
    "Exit code and what was printed, of a command that may not get as far as its work."
    monkeypatch.chdir(place)
    for module, names in {command_line: ("run_all", "run_on_workers", "execute_report", "execute_reports", "verify_results", "collect_runs"), train_command: ("fit", "FabricProcesses"), package_commands: ("compile_kernels", "benchmark_memory", "benchmark_slots", "benchmark_steps", "run_soak"), card: ("score_unit", "_in_processes"), text_command: ("text_server", "recall_ablations")}.items():
        for name in names: monkeypatch.setattr(module, name, started)
    for name in text_command.MEASURES: monkeypatch.setitem(text_command.MEASURES, name, started)
    monkeypatch.setattr(command_line, "_parser", lambda: PARSER)   # it takes a while to make
    monkeypatch.setattr("memnet.training.memnet_learner.meta_train", started)
    def run(words):
        monkeypatch.setattr(command_line, "_console", command_line.Console(width=300, soft_wrap=True))
        try: code = command_line.main(words, place)
        except SystemExit as e: code = e.code
        out = capsys.readouterr()
        return code, out.out + out.err
    return run

def with_word(command, option, value):
    "The words of a call in which one is bad."
    base, action = list(COMMANDS[command][0]), options(PARSERS[command])[option]
    if isinstance(value, tuple): bad = ["-p", *value]
    elif not action.option_strings:
        places = [a.dest for a in PARSERS[command]._actions if not a.option_strings]
        at = places.index(option)
        base[at:at + 1] = [value]
        bad = []
    elif action.nargs == "+": bad = [action.option_strings[-1], value]
    else: bad = [f"{name}={value}"] if (name := action.option_strings[-1]).startswith("--") else [name, value]
    if option == "check": bad.append('--case={"graph": true}')
    if option == "case": bad.append("--check=fused_is_reference")
    if command == "text add" and option in ("text", "key", "importance"): base, bad = [], bad + ["--text=Tea."]*(option != "text")
    if command == "sweep" and option == "p": base = ["coin"]
    return [*command.split(), *bad, *base] if command == "text" else [*command.split(), *base, *bad]

def is_option(command, option, value): return isinstance(value, str) and value == "-inf" and not "".join(options(PARSERS[command])[option].option_strings[-1:]).startswith("--")   # argparse takes it for one

CALLS = [(c, o, v) for c, (_, known) in COMMANDS.items() for o, values in known.items() for v in values if not is_option(c, o, v)]

def names(out, bad):
    "Whether a message shows a value: as it is or as Python writes it; of a long one the beginning is enough."
    part = {'{"x": 1}': "'x'", '{"graph": 7}': "graph=7", '{"n_slots": -1}': "n_slots", '{"dim": "x"}': "dim", "a\x01": "character '\\x01' at position 1", TEXT[-1]: "1,000,001"}.get(bad)
    return any(form in out for form in [part or repr(bad)[:12], repr(bad)[:12], ascii(bad)[:12], *([bad[:12]] if bad.strip() else [])])

def fault(call, command, option, value):
    "What is wrong with the answer to a bad word; None = nothing."
    words = with_word(command, option, value)
    try: code, out = call(words)
    except Exception as e: return f"{type(e).__name__}: {str(e)[:200]}"
    bad = value if isinstance(value, str) else value[0] if value[1] == "1" else value[1]
    if code != 2: return f"exit code {code}: {out[:200]}"
    return None if names(out, bad) and "Traceback" not in out and len(out) < 12_000 else f"the value is not named: {out[-200:]}"

def files(place): return sorted(p.relative_to(place).as_posix() for p in place.rglob("*") if not p.name.endswith(("-shm", "-wal")))   # SQLite makes those two also for a reader

@pytest.mark.parametrize("command, option", dict.fromkeys((c, o) for c, o, _ in CALLS), ids=str)
def test_a_bad_word_is_refused_before_anything_is_started(call, place, command, option):
    before = files(place)
    values = [v.format(folder=place) if isinstance(v, str) and v.startswith("{folder}") else v for c, o, v in CALLS if (c, o) == (command, option)]
    assert {ascii(v)[:60]: f for v in values if (f := fault(call, command, option, v))} == {}
    assert files(place) == before
