import json
from pathlib import Path
from typing import NamedTuple
import torch
import torch.nn.functional as F
from fastcore.basics import patch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from .tasks import NOT_ASKED, need

def leaves(
    state,             # tensors in named tuples, tuples or None, nested
    name:str='state',  # what it is called in errors
)->list:               # (path, tensor)
    "Every tensor of a state with its path."
    if state is None: return []
    if isinstance(state, Tensor): return [(name, state)]
    names = getattr(state, '_fields', range(len(state)))
    return [leaf for n, s in zip(names, state) for leaf in leaves(s, f"{name}.{n}")]

def map_state(
    f,        # tensors -> tensor
    *states,  # of one structure
):
    "Apply `f` to the matching tensors of states."
    s = states[0]
    if s is None: return None
    if isinstance(s, Tensor): return f(*states)
    parts = [map_state(f, *xs) for xs in zip(*states)]
    return type(s)(*parts) if hasattr(s, '_fields') else tuple(parts)

class Output(NamedTuple):
    "What a model returns."
    logits:Tensor            # scores of every answer, `b t v`
    state:NamedTuple         # what goes on with the stream, batch first
    losses:dict[str,Tensor]  # extra terms of the objective by name; none here
    info:dict[str,Tensor]    # for the log; "length" = real tokens per row, `b`

class SequenceModel(nn.Module):
    "The call that models share; a model gives `config`, `Config`, `empty_state` and `forward`."

@patch
def num_parameters(self:SequenceModel)->int:
    "Trainable numbers; shared ones count once."
    return sum(p.numel() for p in self.parameters())

@patch
def state_bytes(self:SequenceModel,
    batch_size:int=1,  # rows of the stream
)->int:
    "Bytes that a running stream keeps, whatever its length."
    return sum(x.numel()*x.element_size() for _, x in leaves(self.empty_state(batch_size)))

@patch
def detach_state(self:SequenceModel, state):
    "The boundary of truncated backpropagation: the same numbers without their history."
    return map_state(Tensor.detach, state)

@patch
def start(self:SequenceModel, B, state, reset):
    "The state to go on from."
    fresh = self.empty_state(B)
    if state is None: return fresh
    check_state(state, fresh)
    if reset is None: return state
    need(reset.dtype == torch.bool and reset.shape == (B,), f"reset must be a bool tensor of shape ({B},), got {reset.dtype} {tuple(reset.shape)}")
    return map_state(lambda f, x: torch.where(reset.reshape(-1, *[1]*(x.ndim - 1)), f, x), fresh, state)

def check_state(
    state,  # what came in
    fresh,  # an empty state of this model
):
    "Refuse the state of another model, batch size, device or dtype."
    need(type(state) is type(fresh), f"state must be a {type(fresh).__name__}, got {type(state).__name__}: pass the `state` of this model's own output")
    mine, theirs = leaves(fresh), leaves(state)
    need(len(mine) == len(theirs), f"state holds {len(theirs)} tensors, this model's holds {len(mine)}: it belongs to another config")
    for (name, f), (_, x) in zip(mine, theirs):
        need(x.shape == f.shape and x.dtype == f.dtype and x.device == f.device,
             f"{name} must be {tuple(f.shape)} {f.dtype} on {f.device}, got {tuple(x.shape)} {x.dtype} on {x.device}: "
             "it belongs to another config, batch size, dtype or device")

@patch
def check_inputs(self:SequenceModel, inputs, mask):
    "Refuse inputs that cannot be meant, and say what can."
    cfg, want = self.config, next(self.parameters()).dtype
    if cfg.input_dim is None: need(inputs.ndim == 2 and inputs.dtype == torch.long, f"inputs must be long (b, t), got {inputs.dtype} {tuple(inputs.shape)}")
    else: need(inputs.ndim == 3 and inputs.shape[2] == cfg.input_dim and inputs.dtype == want,
               f"inputs must be {want} (b, t, {cfg.input_dim}), got {inputs.dtype} {tuple(inputs.shape)}")
    need(inputs.numel() > 0, f"inputs must hold at least one row and one token, got {tuple(inputs.shape)}")
    if cfg.input_dim is None:
        odd = inputs[(inputs < 0) | (inputs >= cfg.vocab_size)]
        need(odd.numel() == 0, f"tokens must lie in 0 … {cfg.vocab_size - 1}, got {odd[:1].tolist()}: raise vocab_size or map the tokens")
    else: need(bool(inputs.isfinite().all()), "inputs contain NaN or infinity: clean them, and put 0 where they are padding")
    if mask is None: return
    need(mask.dtype == torch.bool and mask.shape == inputs.shape[:2], f"mask must be bool {tuple(inputs.shape[:2])}, got {mask.dtype} {tuple(mask.shape)}")
    need(not (mask[:, 1:] & ~mask[:, :-1]).any(), "mask must be True first and then False: move the padding to the right end of the row")

@patch
def term_weights(self:SequenceModel)->dict:
    "Weight of each extra term of the objective, by name; the baselines have none."
    return {}

@patch
def objective(self:SequenceModel,
    out:Output,       # what the model returned
    targets:Tensor,   # classes, -100 = not asked: `b t`, or `b` for one answer per sequence
)->dict[str,Tensor]:  # "total", "task" and each extra term by name
    "Mean cross-entropy of the answers that are asked, plus the weighted extra terms."
    logits, targets = asked_logits(out, targets)
    count = (targets != NOT_ASKED).sum().clamp(min=1)
    task = F.cross_entropy(logits, targets, ignore_index=NOT_ASKED, reduction='sum')/count
    weight = self.term_weights()
    return {'total': task + sum(weight[k]*v for k, v in out.losses.items()), 'task': task, **out.losses}

def asked_logits(
    out:Output,      # what the model returned
    targets:Tensor,  # `b t` or `b`
)->tuple[Tensor,Tensor]:  # logits and targets, flattened alike
    "Pair answers with targets."
    B, T, V = out.logits.shape
    need(targets.shape in ((B, T), (B,)), f"targets must be {(B, T)} or {(B,)}, got {tuple(targets.shape)}")
    if targets.ndim == 2: return out.logits.flatten(0, 1), targets.flatten()
    last = (out.info['length'] - 1).clamp(min=0)
    return out.logits[torch.arange(B, device=last.device), last], targets

FORMAT, VERSION = 'memnet', 1  # what model.json says of itself

@patch
def save(self:SequenceModel,
    folder,  # made where it is missing
):
    "Write `model.safetensors` and `model.json`."
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    save_file({k: v.detach().contiguous() for k, v in self.state_dict().items()}, folder/'model.safetensors')
    about = {'format': FORMAT, 'version': VERSION, 'model': type(self).__name__, 'config': self.config.to_dict()}
    (folder/'model.json').write_text(json.dumps(about, indent=2) + '\n')

def read_about(
    folder,     # where `save` wrote
    model:str,  # name of the class that wants to load
)->dict:        # what model.json says
    "Read `model.json` and make sure that it is ours."
    path = Path(folder)/'model.json'
    need(path.is_file(), f"{path} does not exist: {folder} is no saved model")
    try: about = json.loads(path.read_text())
    except ValueError as e: raise ValueError(f"{path} is not json, so {folder} is no saved model ({e})") from e
    need(isinstance(about, dict) and about.get('format') == FORMAT, f"{path} has no field format={FORMAT!r}, so {folder} is no saved model")
    need(about.get('version') == VERSION, f"{path} has version {about.get('version')!r}, this package reads version {VERSION}: save the model again with it")
    need(about.get('model') == model, f"{path} holds a {about.get('model')}, not a {model}: load it with {about.get('model')}.load")
    return about

@patch(cls_method=True)
def load(cls:SequenceModel,
    folder,  # what `save` wrote
):           # a model of this class
    "Read a model back."
    model = cls(cls.Config.from_dict(read_about(folder, cls.__name__)['config']))
    path = Path(folder)/'model.safetensors'
    try: model.load_state_dict(load_file(path))
    except (SafetensorError, FileNotFoundError, RuntimeError) as e:
        raise ValueError(f"{path} is missing, damaged, or not the weights that model.json describes: save the model again ({e})") from e
    return model

