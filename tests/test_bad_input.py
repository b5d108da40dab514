"""Bad input to a model: every refusal is a ValueError that names the value that came and what would be right."""
import json, re
import pytest, torch
from memnet.foundations.trees import tree_leaves, tree_map
from memnet.models.memnet import MemNet, MemNetConfig
from memnet.models.memory_layer import MemoryLayer

torch.set_num_threads(1)
NAN = float("nan")

def model(**over): return MemNet(MemNetConfig.tiny(**over), torch.Generator().manual_seed(0))
def tokens(*shape): return torch.zeros(*shape, dtype=torch.long)
def refused(message, call, *args, **kw):
    with pytest.raises(ValueError, match=re.escape(message)): call(*args, **kw)

CONFIGS = [
    (dict(topk=9, n_slots=8), "got topk=9, n_slots=8"), (dict(n_writes=9, chunk_size=8), "got n_writes=9, chunk_size=8"),
    (dict(n_writes=-1), "n_writes=-1"), (dict(window=0), "got window=0"), (dict(window=-3), "got window=-3"), (dict(window=2.), "got window=2.0"),
    *((({f: v}), f"got {f}={v}") for v in (0, -2) for f in
      ("dim", "n_heads", "n_slots", "d_key", "d_value", "bottleneck", "chunk_size", "topk", "hops", "vocab_size", "input_dim", "n_outputs", "ff")),
    (dict(n_layers=-1), "got n_layers=-1"), (dict(dream_every=-1), "got dream_every=-1"), (dict(dim=13), "got dim=13, n_heads=2"), (dict(window=True), "got window=True"),
    (dict(policies=("topk", "guess")), "unknown policy 'guess'"), (dict(policies=()), "policies must name at least one"),
    (dict(lam=1.), "lam=1.0"), (dict(gamma=0.), "gamma=0.0"), (dict(match=2.), "match=2.0"), (dict(gate_floor=-.1), "gate_floor=-0.1"),
    (dict(w_sparsity=-1.), "w_sparsity=-1.0"), (dict(w_hallucination=NAN), "w_hallucination=nan"),
]

@pytest.mark.parametrize("over, message", CONFIGS, ids=lambda x: str(x)[:40])
def test_config(over, message): refused(message, MemNetConfig.tiny, **over)

@pytest.mark.parametrize("make", [lambda: MemNetConfig.from_dict(dict(colour=3)), lambda: MemoryLayer(12, colour=3)], ids=["config", "layer"])
def test_unknown_key(make): refused("no field 'colour': its fields are ", make)

def test_unknown_key_by_keyword():
    with pytest.raises(TypeError, match="colour"): MemNetConfig(colour=3)

INPUTS = [
    ("token above the vocabulary", {}, torch.tensor([[1, 11]]), "tokens must lie in 0 … 10, got [11]"),
    ("token below zero", {}, torch.tensor([[1, -5]]), "tokens must lie in 0 … 10, got [-5]"),
    ("rank 1", {}, tokens(4), "(4,)"), ("rank 3", {}, tokens(2, 3, 4), "(2, 3, 4)"),
    ("float for tokens", {}, torch.zeros(2, 3), "torch.float32"), ("int32 for tokens", {}, tokens(2, 3).int(), "torch.int32"),
    ("bool for tokens", {}, tokens(2, 3).bool(), "torch.bool"), ("no row", {}, tokens(0, 3), "(0, 3)"), ("no token", {}, tokens(3, 0), "(3, 0)"),
    ("tokens for vectors", dict(input_dim=5), tokens(2, 3), "torch.int64"), ("wrong width", dict(input_dim=5), torch.zeros(2, 3, 4), "(2, 3, 4)"),
    ("double for single", dict(input_dim=5), torch.zeros(2, 3, 5).double(), "torch.float64"), ("no vector", dict(input_dim=5), torch.zeros(2, 0, 5), "(2, 0, 5)"),
    ("nan", dict(input_dim=5), torch.full((2, 3, 5), NAN), "NaN or infinity"), ("infinity", dict(input_dim=5), torch.full((2, 3, 5), float("inf")), "NaN or infinity"),
]

@pytest.mark.parametrize("memory", [True, False], ids=["memory", "plain"])
@pytest.mark.parametrize("over, x, message", [c[1:] for c in INPUTS], ids=[c[0] for c in INPUTS])
def test_inputs(over, x, message, memory): refused(message, model(memory=memory, **over), x)

STATES = [
    ("other slots", lambda s: model(n_slots=6).empty_state(3), "got (3, 2, 6, 4)"), ("other window", lambda s: model(window=5).empty_state(3), "state.caches.0.keys"),
    ("other layers", lambda s: model(n_layers=1).empty_state(3), "another config"), ("no memory", lambda s: model(memory=False).empty_state(3), "another config"),
    ("other batch", lambda s: model().empty_state(2), "got (2, 2, 5, 4)"), ("other dtype", lambda s: model().double().empty_state(3), "torch.float64"),
    ("other device", lambda s: tree_map(lambda x: x.to("meta"), s), "on meta"), ("memory only", lambda s: s.memory, "pass the `state` of this model's own output) or None, got state=MemoryState"), ("a number", lambda s: 3, "got state=3"),
]

@pytest.mark.parametrize("make, message", [c[1:] for c in STATES], ids=[c[0] for c in STATES])
def test_state(make, message):
    m = model()
    refused(message, m, tokens(3, 8), make(m.empty_state(3)))

MASKS = [(torch.ones(3, 8), "torch.float32"), (torch.ones(3, 7).bool(), "(3, 7)"), (torch.tensor([[False] + [True]*7]*3), "move the padding to the right")]

@pytest.mark.parametrize("mask, message", MASKS, ids=["dtype", "shape", "left"])
def test_mask(mask, message):
    refused(message, model(), tokens(3, 8), mask=mask)
    refused(message, MemoryLayer(12, batch_first=True, n_heads=2), torch.zeros(3, 8, 12), mask=mask)
    refused(message, model().controller.bank, torch.zeros(3, 8, 12), mask=mask)

@pytest.mark.parametrize("reset", [torch.ones(3), torch.ones(2).bool()], ids=["dtype", "shape"])
def test_reset(reset):
    m = model()
    refused("reset must be a bool tensor of shape (3,)", m, tokens(3, 8), m.empty_state(3), reset=reset)

@pytest.mark.parametrize("memory", [True, False], ids=["memory", "plain"])
def test_reset_before_the_first_token_is_a_fresh_stream(memory):
    m, x, at_start = model(memory=memory), torch.arange(16).view(2, 8) % 11, torch.zeros(2, 8, dtype=torch.bool)
    at_start[0, 0] = True
    fresh = m(x)
    for state in (None, m.empty_state(2)):
        out = m(x, state, reset=at_start)
        assert torch.equal(out.logits, fresh.logits)
        for (name, a), (_, b) in zip(tree_leaves(out.state), tree_leaves(fresh.state), strict=True): assert torch.equal(a, b), name
    later = at_start.clone(); later[1, 3] = True   # and with a reset further on
    assert torch.equal(m(x, reset=later).logits[0], m(x, reset=later & ~at_start).logits[0])
    torch.testing.assert_close(m(x, reset=later).logits[1, :3], fresh.logits[1, :3])

def test_targets(): m = model(); refused("targets must be (3, 8) or (3,), got (3, 7)", m.objective, m(tokens(3, 8)), tokens(3, 7))

LAYER = [(torch.zeros(2, 3, 4, 12), "(2, 3, 4, 12)"), (torch.zeros(2, 3, 11), "(2, 3, 11)"), (torch.zeros(2, 3, 12).double(), "torch.float64"), (tokens(2, 3, 12), "torch.int64"),
         (torch.zeros(0, 3, 12), "(0, 3, 12)"), (torch.zeros(2, 0, 12), "(2, 0, 12)"), (torch.full((2, 3, 12), NAN), "NaN or infinity")]

@pytest.mark.parametrize("x, message", LAYER, ids=[m for _, m in LAYER])
def test_layer(x, message): refused(message, MemoryLayer(12, n_heads=2), x)

@pytest.mark.parametrize("change, message", [(dict(format="x"), "format"), (dict(version=9), "version 9"), (dict(model="GRUModel"), "GRUModel.load"), (dict(config=dict(slots=1)), "no field 'slots'")],
                         ids=["format", "version", "model", "config"])
def test_load(tmp_path, change, message):
    model().save(tmp_path)
    about = tmp_path/"model.json"
    about.write_text(json.dumps(json.loads(about.read_text()) | change))
    refused(message, MemNet.load, tmp_path)

def test_load_what_is_not_there(tmp_path): refused("does not exist", MemNet.load, tmp_path/"nowhere")

class OwnTask:
    def __init__(self, sample): self.sample = sample

def test_what_cannot_be_trained_is_named_before_anything_is_written(tmp_path):
    from torch.utils.data import DataLoader, TensorDataset
    from memnet.tasks.base import Batch
    from memnet.tasks.long_range import LongRangeRecall
    from memnet.training.fit import fit
    from memnet.training.schedule import TrainConfig
    cfg, rows = TrainConfig(steps=1, batch_size=2), lambda b, g: Batch(tokens(b, 4), tokens(b, 4), None, {})
    class Own(torch.nn.Embedding):
        def forward(self, x, state=None, mask=None, generator=None): return super().forward(x)
    class Scored(Own):
        def objective(self, out, targets): return dict(total=out.sum())
    def wrong(message, m=None, task=None, cfg=cfg, **over): refused(message, fit, m or model(), OwnTask(rows) if task is None else task, cfg, tmp_path/"run", progress=False, **over)
    wrong("call LongRangeRecall() with its settings", task=LongRangeRecall)
    wrong("cfg must be a TrainConfig, got cfg={", cfg=dict(steps=3))
    wrong("log must be a function that is called as log(numbers, step=step), got one with (numbers)", log=lambda numbers: None)
    wrong("task must have a method sample(batch_size, generator), got one with (n)", task=OwnTask(lambda n: None))
    wrong("forward of Linear must take (inputs, mask=, generator=)", torch.nn.Linear(3, 3))
    wrong("Own must have objective(out, targets); derive it from SequenceModel", Own(11, 11))
    wrong("loader must give at least one batch, got 0 rows in batches of 2", task=DataLoader(TensorDataset(tokens(0, 3), tokens(0, 3)), batch_size=2))
    assert not (tmp_path/"run").exists()
    refused("must return an output with logits, as ModelOutput has, got Tensor", fit, Scored(11, 11), OwnTask(rows), cfg, progress=False)

def test_labels_that_are_no_classes_are_named():
    model, x = MemNet(MemNetConfig.tiny()), torch.zeros(2, 3, dtype=torch.long)
    out = model(x)
    for wrong, words in ((x.double(), "got torch.float64: call targets.long()"), (x + 11, "targets must lie in 0 … 10, or be -100 where nothing is asked, got [11]"), (x - 1, "got [-1]"), (x[:, 0] + 99, "got [99]")):
        with pytest.raises(ValueError, match=re.escape(words)): model.objective(out, wrong)
    assert model.objective(out, x - 100)["task"] == 0
    for wrong in (x.int(), x[0]):
        with pytest.raises(ValueError, match=re.escape("call .long(), and .unsqueeze(0) on a single row")): model(wrong)
    with pytest.raises(ValueError, match=re.escape("tokens must lie in 0 … 10, got [-100]")): model(x - 100)

@pytest.mark.filterwarnings("ignore")
def test_a_trace_of_one_input_is_refused():
    for m, x in ((model().eval(), tokens(1, 5)), (MemoryLayer(4, batch_first=True), torch.zeros(1, 5, 4))): refused("torch.jit.trace would keep what this one input wrote", torch.jit.trace, m, x)
