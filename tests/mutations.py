"""Damage for files: what a disk, an editor, an interrupted copy or somebody with bad intent makes of a file. Used on models, checkpoints, logs, records and notebooks."""
import json, os, pickle, random, struct, zipfile
from io import BytesIO
from pathlib import Path
from typing import Callable, Iterator, NamedTuple

MARK = "code-of-a-file-has-run"   # a file of this name beside a mutated one means that reading it ran its code

class Mutation(NamedTuple):
    "One way to damage a file."
    name: str
    apply: Callable[[Path], None]   # changes the file at this path

class Payload:
    "Runs a command when it is unpickled."
    def __init__(self, folder): self.folder = folder
    def __reduce__(self): return os.system, (f"touch '{self.folder}/{MARK}'",)

def write(data): return lambda path: path.write_bytes(data)

def zip_bomb(size=1 << 26):
    "A small archive of one entry that unpacks to `size` zeros."
    out = BytesIO()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as z, z.open("archive/data.pkl", "w") as f:
        for _ in range(size >> 20): f.write(b"\0" * (1 << 20))
    return out.getvalue()

def safetensors_parts(data):
    "Header (as a dict) and data of a safetensors file."
    n = struct.unpack("<Q", data[:8])[0]
    return json.loads(data[8:8 + n]), data[8 + n:]

def safetensors_bytes(header, body):
    "A safetensors file from its parts; nothing is checked."
    head = json.dumps(header).encode()
    return struct.pack("<Q", len(head)) + head + body

def bytes_changed(data: bytes, rng: random.Random) -> Iterator[tuple[str, bytes]]:
    "Endless: cut, extended, bits flipped, blocks zeroed, swapped, repeated."
    n = len(data)
    while True:
        i, j = sorted(rng.randrange(n + 1) for _ in range(2))
        bit, byte = rng.randrange(8 * n), rng.randrange(256)
        yield f"cut to {i}", data[:i]
        yield f"bit {bit}", data[:bit // 8] + bytes([data[bit // 8] ^ 1 << bit % 8]) + data[bit // 8 + 1:]
        yield f"zeros {i}:{j}", data[:i] + bytes(j - i) + data[j:]
        yield f"without {i}:{j}", data[:i] + data[j:]
        yield f"twice {i}:{j}", data[:j] + data[i:]
        yield f"byte {byte} at {i}", data[:i] + bytes([byte]) + data[i:]
        yield f"random from {i}", data[:i] + rng.randbytes(n - i)

def foreign_files(folder: Path) -> list[Mutation]:
    "Whole files of another kind under the name of this one, and things that are no files."
    def instead(make):
        def apply(path): path.unlink(); make(path)
        return apply
    def sparse(path):
        with open(path, "wb") as f: f.truncate(1 << 40)
    payload = pickle.dumps(Payload(folder))
    torch_zip = BytesIO()
    with zipfile.ZipFile(torch_zip, "w") as z: z.writestr("archive/data.pkl", payload); z.writestr("archive/version", "3\n")
    kinds = dict(empty=b"", text=b"hello\n", null=b"null", list=b"[]", number=b"7", nan=b"NaN", deep=b"[" * 200_000, deep_object=b'{"a":' * 200_000, bom=b"\xef\xbb\xbf{}", latin=b'{"a": "\xe9"}', zeros=bytes(4096),
                 long_number=b'{"version": ' + b"9" * 10_000 + b"}", surrogate=b'{"format": "\\ud800"}', html=b"<html>", csv=b"run,step,metric,value,slice\n", pickle=payload, torch_file=torch_zip.getvalue(), zip_bomb=zip_bomb(),
                 claims_much=struct.pack("<Q", 1 << 62) + b"{}", claims_a_little_much=struct.pack("<Q", 99_000_000) + b"{}", no_tensors=struct.pack("<Q", 2) + b"{}")
    found = [Mutation(name, write(data)) for name, data in kinds.items()]
    found += [Mutation("a folder", instead(Path.mkdir)), Mutation("gone", Path.unlink), Mutation("a hole of a terabyte", sparse)]
    for name, target in (("link to nothing", "nowhere"), ("link to itself", None), ("link to zeros without end", "/dev/zero"), ("link to the folder", ".")):
        found.append(Mutation(name, instead(lambda path, target=target: path.symlink_to(target or path.name))))
    if hasattr(os, "mkfifo"): found.append(Mutation("a pipe", instead(os.mkfifo)))
    return found

def json_changed(data: bytes) -> list[Mutation]:
    "Fields of a JSON object missing, of other types, absurd; names that are paths; values that are code."
    content = json.loads(data)
    odd = [None, True, -1, 0, 1e308, 10**30, float("nan"), "", "../../x", "\0", "__import__('os').system('x')", [], {}, [[]], "x" * 100_000, {"type": "builtins.eval"}]
    changes = [("{}", {}), ("one more field", content | {"colour": 3})]
    def walk(node, path):
        for key in node:
            def replaced(value, path=(*path, key)):
                new = json.loads(data)
                at = new
                for k in path[:-1]: at = at[k]
                if value is MISSING: del at[path[-1]]
                else: at[path[-1]] = value
                return new
            changes.append((f"without {key}", replaced(MISSING)))
            changes.extend((f"{key}={str(value)[:20]!r}", replaced(value)) for value in odd if value != node[key] or type(value) is not type(node[key]))
            if isinstance(node[key], dict): walk(node[key], (*path, key))
    walk(content, ())
    return [Mutation(name, write(json.dumps(new).encode())) for name, new in changes]

MISSING = object()

def safetensors_changed(data: bytes) -> list[Mutation]:
    "Headers that claim other names, types, shapes and places; values that are NaN."
    header, body = safetensors_parts(data)
    names = [n for n in header if n != "__metadata__"]
    first, last = names[0], names[-1]
    def with_(**change): return {**header, **change}
    def field(name, **change): return {**header, name: {**header[name], **change}}
    a, z = header[first]["data_offsets"]
    nan = bytes(body[:a]) + b"\xff" * (z - a) + bytes(body[z:])
    changed = {"NaN": (header, nan), "no text": ({n: header[n] for n in names}, body), "text that is no object": (with_(__metadata__=[1]), body), "names exchanged": ({**header, first: header[last], last: header[first]}, body),
               "a name that is a path": ({**{k: v for k, v in header.items() if k != first}, "../../" + first: header[first]}, body), "a name of a megabyte": ({**{k: v for k, v in header.items() if k != first}, "n" * 2**20: header[first]}, body),
               "one name less": ({k: v for k, v in header.items() if k != first}, body), "other type": (field(first, dtype="F64"), body), "no such type": (field(first, dtype="PICKLE"), body), "bytes": (field(first, dtype="U8", shape=[z - a]), body),
               "negative shape": (field(first, shape=[-1]), body), "huge shape": (field(first, shape=[2**62, 4]), body), "many dimensions": (field(first, shape=[1] * 10_000), body), "outside": (field(first, data_offsets=[a, 2**50]), body),
               "negative place": (field(first, data_offsets=[-8, z]), body), "overlapping": (field(last, data_offsets=header[first]["data_offsets"]), body), "appended": (header, body + b"x"), "nothing in it": (header, b"")}
    return [Mutation(name, write(safetensors_bytes(*parts))) for name, parts in changed.items()]

def mutations(path: Path, n: int, seed: int = 0) -> Iterator[Mutation]:
    "`n` mutations of a file: all that are written out here and fit its kind, then random changes of its bytes."
    data, rng = path.read_bytes(), random.Random(seed)
    listed = foreign_files(path.parent)
    if path.suffix in (".json", ".ipynb"): listed += json_changed(data)
    if path.suffix == ".safetensors": listed += safetensors_changed(data)
    yield from listed[:n]
    changes = bytes_changed(data, rng)
    left = max(0, n - len(listed))
    while left:
        name, new = next(changes)
        if new == data: continue
        yield Mutation(name, write(new))
        left -= 1

def survivors(path: Path, read: Callable[[], object], same: Callable[[object], bool], n: int, seed: int = 0) -> tuple[int, list[str]]:
    "Try `n` mutations of a file. Wrong is every read that raises something else than a ValueError with the file's name, that gives other content, or that runs code. Returns how many were tried, and what was wrong."
    good, wrong, tried = path.read_bytes(), [], 0
    for m in mutations(path, n, seed):
        tried += 1
        m.apply(path)
        try: found = read()
        except ValueError as e:
            if path.name not in str(e): wrong.append(f"{m.name}: {str(e)[:300]}")
        except BaseException as e: wrong.append(f"{m.name}: {type(e).__name__} {str(e)[:300]}")
        else:
            if not same(found): wrong.append(f"{m.name}: read without a word")
        if (path.parent/MARK).exists(): wrong.append(f"{m.name}: code ran"); (path.parent/MARK).unlink()
        if path.is_symlink() or not path.is_file():
            path.rmdir() if path.is_dir() and not path.is_symlink() else path.unlink(missing_ok=True)
        path.write_bytes(good)
    return tried, wrong
