"""What was made under torch.inference_mode() and is used with gradients: states and inputs are copied, weights are refused in words; a bank refuses a state that is not its own."""
import pytest, torch
from memnet.foundations.trees import tree_leaves, tree_map
from memnet.memory.bank import MultiHeadMemoryBank
from memnet.memory.config import MemoryConfig
from memnet.memory.fused_path import set_memory_path
from memnet.models.memnet import MemNet, MemNetConfig
from memnet.models.memory_layer import MemoryLayer
from memnet.models.registry import BASELINE_NAMES, make_baseline

TOKENS, X = torch.randint(0, 11, (2, 30), generator=torch.Generator().manual_seed(0)), torch.randn(2, 30, 12, generator=torch.Generator().manual_seed(0))
MAKE = dict(memnet=lambda: MemNet(MemNetConfig.tiny()), bank=lambda: MultiHeadMemoryBank(MemoryConfig.tiny()), layer=lambda: MemoryLayer(12, n_slots=4, topk=2, chunk_size=8, batch_first=True))
PATHS = ("reference", "fused")
def make(kind, path): return set_memory_path(MAKE[kind](), path)
def rows(kind): return TOKENS if kind == "memnet" else X
def call(model, x, state=None, **more):
    "Output and state of any of the three."
    out = model(x, state, **more)
    return (out.logits, out.state) if isinstance(model, MemNet) else out[:2]

def gradients(model, x, state, **more):
    model.zero_grad()
    y, after = call(model, x, state, **more)
    y.square().mean().backward()
    return [y.detach(), *(p.grad for p in model.parameters() if p.grad is not None), *(s.detach() for _, s in tree_leaves(after))]

@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize("kind", MAKE)
def test_a_state_of_inference_mode_goes_on_with_gradients(kind, path):
    model, x = make(kind, path), rows(kind)
    with torch.inference_mode(): state = call(model, x)[1]
    with torch.no_grad(): plain = call(model, x)[1]
    for start in (state, tree_map(lambda s: s, state)):
        for a, b in zip(gradients(model, x, start), gradients(model, x, plain)): assert torch.equal(a, b)
    reset = torch.tensor([True, False])
    if kind != "bank":
        for a, b in zip(gradients(model, x, state, reset=reset), gradients(model, x, plain, reset=reset)): assert torch.equal(a, b)

@pytest.mark.parametrize("path", PATHS)
def test_a_stream_goes_on_with_gradients(path):
    model = make("memnet", path)
    with torch.inference_mode(): state = model(TOKENS[:, :13]).state
    model.stream(state)(TOKENS).logits.sum().backward()
    committed = model.commit(state)
    model(TOKENS, committed).logits.sum().backward()
    assert committed.memory.values.requires_grad
    with torch.inference_mode(): model.stream(state)(TOKENS)

@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize("kind", MAKE)
def test_inputs_of_inference_mode_are_read_with_gradients(kind, path):
    model, x = make(kind, path), rows(kind)
    with torch.inference_mode(): other, mask, reset = x.clone(), torch.ones(2, 30, dtype=torch.bool), torch.tensor([True, False])
    assert other.is_inference()
    for a, b in zip(gradients(model, other, None, mask=mask), gradients(model, x, None, mask=mask.clone())): assert torch.equal(a, b)
    state = tree_map(torch.Tensor.detach, call(model, x)[1])
    if kind != "bank": gradients(model, other, state, reset=reset)

def test_targets_of_inference_mode():
    model = make("memnet", "reference")
    with torch.inference_mode(): targets = TOKENS % 3
    model.objective(model(TOKENS), targets)["total"].backward()

@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize("kind", MAKE)
def test_weights_of_inference_mode_are_refused_in_words(kind, path):
    with torch.inference_mode(): model = make(kind, path)
    x = rows(kind)
    with pytest.raises(ValueError, match="weights of this .* were made under torch.inference_mode.*outside of it, or call it under torch.no_grad"): call(model, x)
    with torch.no_grad(): state = call(model, x)[1]
    with torch.inference_mode(): call(model, x, state)
    with torch.no_grad(): call(model, x, state)
    if kind != "layer":
        waits = state if kind == "memnet" else state._replace(pending=state.pending._replace(n_tokens=torch.full_like(state.pending.n_tokens, 2)))
        with pytest.raises(ValueError, match="torch.inference_mode"): model.commit(waits)

def test_a_bank_of_inference_mode_in_a_model_is_refused():
    with torch.inference_mode(): bank = MultiHeadMemoryBank(MemNetConfig.tiny())
    with pytest.raises(ValueError, match="MultiHeadMemoryBank were made under torch.inference_mode"): MemNet(MemNetConfig.tiny(), bank=bank)(TOKENS)

@pytest.mark.parametrize("name", BASELINE_NAMES)
def test_states_of_other_models(name):
    model = make_baseline(name, MemNetConfig.tiny(dim=32), torch.Generator().manual_seed(0))
    with torch.inference_mode(): state = model(TOKENS).state
    model(TOKENS, state).logits.sum().backward()
    with torch.inference_mode(): model = make_baseline(name, MemNetConfig.tiny(dim=32), torch.Generator().manual_seed(0))
    with pytest.raises(ValueError, match="torch.inference_mode"): model(TOKENS)

@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize("change, said", [
    (lambda s: s._replace(keys=s.keys[..., :-1]), "state.keys must be"), (lambda s: s._replace(clock=s.clock[:1]), "state.clock must be"),
    (lambda s: s._replace(pending=s.pending._replace(n_tokens=s.pending.n_tokens[:1])), "state.pending.n_tokens must be"), (lambda s: s.to("meta"), "on meta"),
    (lambda s: s._replace(values=s.values.double()), "state.values must be .* torch.float32"), (lambda s: s._replace(edges=s.edges[..., :0]), "state.edges must be"), (lambda s: s.select([0]), r"state must be of \(rows, heads, slots\)")])
def test_a_bank_refuses_a_state_that_is_not_its_own(path, change, said):
    bank = make("bank", path)
    state = bank(X)[1].detach()
    bank(X, state)
    with pytest.raises(ValueError, match=said): bank(X, change(state))
    bank(X, state)                                              # and its own goes on

def test_a_carried_graph_is_cut_by_detach():
    "PyTorch's message comes from its backward, where no model is asked; the page on streams names it."
    for kind in MAKE:
        model, x = make(kind, "reference"), rows(kind)
        y, state = call(model, x)
        y.square().sum().backward()
        with pytest.raises(RuntimeError, match="second time"): call(model, x, state)[0].square().sum().backward()
        call(model, x, tree_map(torch.Tensor.detach, state))[0].square().sum().backward()
