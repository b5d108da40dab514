import math
from dataclasses import asdict, dataclass, fields
from typing import NamedTuple
import torch
from torch import Tensor, nn
import torch.nn.functional as F
from memnet.addressing import DEAD, POLICIES, log_strength, mix_policies, unit
from memnet.allocation import lineage_onehot, plan_writes, write_versions
from memnet.hebbian import eligibility, last_trace, no_self, power_kernel, stdp
from memnet.spreading import PendingGraph, spread_pending

class MemoryState(NamedTuple):
    "All that a memory knows; nothing hides in the module."
    keys:Tensor       # addresses, unit rows, `b h n k`
    values:Tensor     # contents, `b h n d`
    strength:Tensor   # right to stay at the last write, in [0,1], 0 = empty, `b h n`
    age:Tensor        # tokens since the last write, `b h n`
    last_read:Tensor  # clock at the last read above `READ_THRESHOLD`, 0 = never, `b h n`
    usage:Tensor      # read weight gathered since birth, `b h n`
    edges:Tensor      # i -> j, zero diagonal, `b h n m`
    trace:Tensor      # what echoes of the last events, `b h n`
    clock:Tensor      # tokens seen, `b`

READ_THRESHOLD = 0.1   # a slot counts as read where its weight is above this

def nbytes(
    state,  # NamedTuple of tensors
)->int:
    "Bytes that the state takes, edges counted."
    return sum(x.numel()*x.element_size() for x in state)

def forget(
    state:MemoryState,
    which,             # bool `b h n`, or a function of the state that gives it
)->MemoryState:
    "Remove slots for good: content, strength, history, and every edge to and from them."
    mask = which(state) if callable(which) else which
    if mask.shape != state.strength.shape or mask.dtype != torch.bool:
        raise ValueError(f"which must give a bool mask of shape {tuple(state.strength.shape)}, got {mask.dtype} {tuple(mask.shape)}")
    clear = lambda x: x.masked_fill(mask.reshape(*mask.shape, *[1]*(x.ndim - 3)), 0)
    edges = clear(state.edges).masked_fill(mask.unsqueeze(-2), 0)
    return MemoryState(*(clear(x) for x in state[:6]), edges, clear(state.trace), state.clock)

@dataclass(frozen=True)
class BankConfig:
    "Sizes and mechanisms of a memory."
    dim:int=64                   # width of the features it is fed
    n_heads:int=4                # independent memories side by side
    n_slots:int=64               # slots per head
    d_key:int=32                 # width of an address
    d_value:int=32               # width of a content
    bottleneck:int=32            # width that every content must pass through
    chunk_size:int=32            # tokens handled at once
    n_writes:int=8               # writes that stay per chunk and head; 0 = no budget
    match:float=0.9              # cosine above which a write updates instead of taking a slot
    gate_floor:float=0.02        # salience at or below which nothing is written
    topk:int=8                   # slots that the look-up policy shares its weight over
    policies:tuple=('topk', 'uniform', 'random')  # names of the policies that are mixed
    tied_addresses:bool=True     # one projection for query and key
    temperature:float=10.        # of the cosine at the start; learned per head
    graph:bool=True              # link slots and spread activation
    hops:int=1                   # steps of spreading
    lam:float=0.3                # decay of the trace per unit of event time at the start; learned per head
    eta_plus:float=1.            # potentiation: before -> after
    eta_minus:float=0.           # depression: after -> before
    gamma:float=1.               # what is left of an edge after one unit of event time
    forgetting:bool=True         # strength decays at a learned rate, near none at the start

    def __post_init__(self): object.__setattr__(self, 'policies', tuple(self.policies)); self.check()

    def check(self):
        for f in ('dim', 'n_heads', 'n_slots', 'd_key', 'd_value', 'bottleneck', 'chunk_size', 'topk', 'hops'):
            v = getattr(self, f)
            if not isinstance(v, int) or isinstance(v, bool) or v < 1: raise ValueError(f"{f} must be a whole number >= 1, got {f}={v!r}")
        if not 0 <= self.n_writes <= self.chunk_size: raise ValueError(f"n_writes must lie in 0 … chunk_size (0 = no budget), got n_writes={self.n_writes}, chunk_size={self.chunk_size}")
        if self.topk > self.n_slots: raise ValueError(f"topk must be <= n_slots, got topk={self.topk}, n_slots={self.n_slots}")
        if not self.policies: raise ValueError(f"policies must name at least one of {sorted(POLICIES)}, got none")
        for p in self.policies:
            if p not in POLICIES: raise ValueError(f"unknown policy {p!r}: known are {sorted(POLICIES)}; add yours with register_policy")
        for f, low, high in (('match', -1, 1), ('gate_floor', 0, 1), ('gamma', 0, 1), ('lam', 0, 1)):
            if not low <= getattr(self, f) <= high: raise ValueError(f"{f} must lie in [{low}, {high}], got {f}={getattr(self, f)}")
        if not 0 < self.lam < 1 or self.gamma <= 0: raise ValueError(f"lam must lie in (0, 1) and gamma in (0, 1], got lam={self.lam}, gamma={self.gamma}")
        if self.temperature <= 0 or self.eta_plus < 0 or self.eta_minus < 0: raise ValueError(f"temperature must be > 0 and eta_plus, eta_minus >= 0, got {self.temperature}, {self.eta_plus}, {self.eta_minus}")

    def to_dict(self)->dict: return asdict(self)

    @classmethod
    def from_dict(cls, d:dict):
        "Rebuild a config; a key it does not have raises."
        known = [f.name for f in fields(cls)]
        odd = sorted(set(d) - set(known))
        if odd: raise ValueError(f"{cls.__name__} has no field {', '.join(map(repr, odd))}: its fields are {', '.join(known)}")
        return cls(**d)

    @classmethod
    def tiny(cls, **over):
        "A small one for checks, all sizes different."
        return cls(**(dict(dim=12, n_heads=2, n_slots=5, d_key=4, d_value=3, bottleneck=7, chunk_size=8, n_writes=4, topk=3) | over))

class Features(NamedTuple):
    "What each token brings to the memory, `b h t …`."
    query:Tensor    # scaled by temperature, then (1, -t): see `facet`
    key:Tensor      # unit rows
    value:Tensor    # content, past the bottleneck
    gate:Tensor     # salience, in (0,1), 0 where padded, `b h t`
    pi:Tensor       # share of each policy
    alpha:Tensor    # share of activation that spreads, `b h t 1`

class ChunkRead(NamedTuple):
    "What one chunk read, and what the commit needs to know of it."
    read:Tensor     # `b h t d`
    weights:Tensor  # over slots and births, `b h t l`
    seen_key:Tensor # cosine of each key with the slots of the start, `b h t n`
    self_key:Tensor # and with the chunk's own keys, `b h t t`
    plan:tuple
    active:Tensor
    logit:Tensor

class MultiHeadMemoryBank(nn.Module):
    "Slots with a graph, read by a mixture of policies and by spreading, written through a bottleneck."
    def __init__(self,
        cfg:BankConfig,                  # sizes and mechanisms
        generator:torch.Generator=None,  # of the initial weights; None = a fixed one, never the global one
    ):
        super().__init__()
        self.config = cfg
        c, H, P = cfg.dim, cfg.n_heads, len(cfg.policies)
        make = lambda i, o, bias=True: nn.utils.skip_init(nn.Linear, i, o, bias=bias)
        self.norm = nn.LayerNorm(c)
        self.address = make(c, H*cfg.d_key, False)
        self.query = None if cfg.tied_addresses else make(c, H*cfg.d_key, False)
        self.bottleneck, self.content = make(c, cfg.bottleneck, False), make(cfg.bottleneck, H*cfg.d_value, False)
        self.gate, self.policy = make(c, H), make(c, H*P)
        self.out = make(H*cfg.d_value, c, False)
        self.log_temperature = nn.Parameter(torch.full((H,), math.log(cfg.temperature)))
        if cfg.graph:
            self.spread = make(c, H)
            self.lam_logit = nn.Parameter(torch.full((H,), math.log(cfg.lam/(1 - cfg.lam))))
        if cfg.forgetting: self.decay = make(cfg.d_value, H)
        self.reset_parameters(torch.Generator().manual_seed(0) if generator is None else generator)

    @torch.no_grad()
    def reset_parameters(self, generator):
        "Gates near one half, policies near look-up, spread from 0.05 to 0.95 over the heads, decay near none."
        H = self.config.n_heads
        for m in self.modules():
            if not isinstance(m, nn.Linear): continue
            m.weight.normal_(std=m.in_features**-0.5, generator=generator)
            if m.bias is not None: m.bias.zero_()
        for m in (self.gate, self.policy): m.weight.mul_(0.1)
        self.policy.bias.view(H, -1)[:, 1:] = -3.
        if self.config.graph:
            self.spread.weight.mul_(0.1)
            self.spread.bias.copy_(torch.logit(torch.linspace(0.05, 0.95, H) if H > 1 else torch.tensor([0.5])))
        if self.config.forgetting:
            self.decay.weight.mul_(0.1)
            self.decay.bias.fill_(-14.)    # softplus(-14) = 8e-7 a token: a time constant of a million tokens

    def empty_state(self, batch_size:int=1)->MemoryState:
        "A memory in which nothing was ever written."
        cfg, like = self.config, self.log_temperature
        z = lambda *s: like.new_zeros(batch_size, cfg.n_heads, cfg.n_slots, *s)
        edges = z(cfg.n_slots) if cfg.graph else z(0)
        return MemoryState(z(cfg.d_key), z(cfg.d_value), z(), z(), z(), z(), edges, z(), torch.zeros(batch_size, dtype=torch.long, device=like.device))

    def decay_logit(self, values): return (values*self.decay.weight.unsqueeze(1)).sum(-1) + self.decay.bias.unsqueeze(-1)

    def decay_rate(self, values): return F.softplus(self.decay_logit(values))

    def features(self, x, mask)->Features:
        "Project a whole sequence at once; only what depends on the state is done chunk by chunk."
        cfg, (B, T, _), H = self.config, x.shape, self.config.n_heads
        heads = lambda y: y.unflatten(-1, (H, -1)).transpose(1, 2)
        x = self.norm(x)
        key = unit(heads(self.address(x)))
        query = (key if self.query is None else unit(heads(self.query(x))))*self.log_temperature.exp().view(1, H, 1, 1)
        ahead = torch.arange(T, device=x.device, dtype=x.dtype) % cfg.chunk_size
        time = torch.stack([torch.ones_like(ahead), -ahead], -1)[:, :1 + cfg.forgetting]
        gate = self.gate(x).sigmoid().transpose(1, 2)
        alpha = heads(self.spread(x)).sigmoid() if cfg.graph else x.new_zeros(B, H, T, 1)
        return Features(torch.cat([query, time.expand(B, H, -1, -1)], -1), key, heads(self.content(self.bottleneck(x))),
                        gate if mask is None else gate*mask.unsqueeze(1), heads(self.policy(x)).softmax(-1), alpha)

    def forward(self,
        x:Tensor,                        # features, `b t c`
        state:MemoryState=None,          # what goes on, None = empty
        mask:Tensor=None,                # True = real token, `b t`
        generator:torch.Generator=None,  # for policies that draw; None = their mean
        record:bool=False,               # keep weights, gates and slots for the measuring kit
    ):                                   # read vectors `b t (h d)`, new state, info
        "Read and write a sequence, chunk by chunk."
        C = self.config.chunk_size
        if state is None: state = self.empty_state(x.shape[0])
        f = self.features(x, mask)
        reads, records, mass = [], [], torch.zeros_like(state.strength)
        masks = [None]*(-(-x.shape[1]//C)) if mask is None else mask.split(C, 1)
        for *chunk, m in zip(*(y.split(C, 2) for y in f), masks):
            chunk = Features(*chunk)
            r = self.read_chunk(chunk, state, generator)
            w = r.weights if m is None else r.weights*m.unsqueeze(1).unsqueeze(-1)
            state, mass, seen = self.write_chunk(chunk, r, w, state, mass, m, record)
            reads.append(r.read); records.append(seen)
        info = dict(gate_mean=f.gate.sum()/(f.gate.shape[1]*(f.gate[0, 0].numel()*f.gate.shape[0] if mask is None else mask.sum().clamp(min=1))), mass=mass)
        if record: info |= {k: torch.cat([s[k] for s in records], 2) for k in records[0]} | dict(gate=f.gate.detach(), policy=f.pi.transpose(1, 2).detach() if False else f.pi.detach(), alpha=f.alpha.squeeze(-1).detach())
        return torch.cat(reads, 2).transpose(1, 2).flatten(2), state, info

    def facet(self, key, strength, rate, since):
        "A key that carries its log strength and decay: `[q, 1, -t] · [k, log s - rate·since, rate]` is the whole score at token t."
        s = log_strength(strength)
        if rate is None: return torch.cat([key, s.unsqueeze(-1)], -1)
        return torch.cat([key, torch.stack([s - rate*since, rate], -1)], -1)

    def plan(self, f, cos_slot, cos_self, active, state, step, evict, reads, logit, write_logit):
        rate = F.softplus(logit) if self.config.forgetting else torch.zeros_like(logit)
        return plan_writes(cos_slot, cos_self, active, state, rate, logit, f.gate, write_logit, step, self.config.match, self.config.forgetting, evict, reads)

    @property
    def commits_all(self): return self.config.n_writes == 0

    def logits(self, values): return self.decay_logit(values) if self.config.forgetting else values.new_zeros(values.shape[:-1])

    def read_chunk(self, f:Features, state:MemoryState, generator)->ChunkRead:
        "Every token reads the slots of the start and the writes before it."
        cfg = self.config
        B, H, C, _ = f.key.shape
        step = torch.arange(C, device=f.key.device, dtype=f.key.dtype).expand(B, H, C)
        active = f.gate > cfg.gate_floor
        with torch.no_grad():
            cos_slot, cos_self, logit = f.key @ state.keys.mT, f.key @ f.key.mT, self.logits(f.value)
            plan = self.plan(f, cos_slot, cos_self, active, state, step, self.commits_all, True, self.logits(state.values), logit)
            address = lineage_onehot(plan, active, cfg.n_slots, f.key.dtype)
        rate_of = self.decay_rate if cfg.forgetting else None
        v = write_versions(plan, active, f.gate, f.value, step, state, rate_of)
        scores = self.scores(f, state, plan, v, address, step, rate_of).masked_fill(plan.dead, DEAD)
        w = mix_policies(scores, f.pi, cfg.policies, generator, cfg.topk)
        if cfg.graph: w = spread_pending(w, self.pending_graph(f, state, plan, active, address), f.alpha, cfg.hops)
        fresh = (w @ address.mT)*plan.current                      # weight on what this chunk wrote
        change = v.values
        if v.root is not None: change = change - state.values.gather(2, v.root.unsqueeze(-1).expand_as(change))*v.rooted.unsqueeze(-1)
        read = w[..., :cfg.n_slots] @ state.values + fresh @ change
        return ChunkRead(read, w, cos_slot, cos_self, (plan, v, address, step), active, logit)

    def scores(self, f, state, plan, v, address, step, rate_of):
        "Scores over the slots of the start and the chunk's births, `b h t l`."
        B, H, C, _ = f.key.shape
        slots = self.facet(state.keys, state.strength, rate_of(state.values) if rate_of else None, state.age + 1)
        old = f.query @ slots.mT
        if v.root is None: return torch.cat([old, f.query @ self.facet(f.key, v.strength, v.rate, -step).mT], -1)
        key = address @ torch.cat([state.keys, f.key], 2)           # the address of a content is that of its birth
        new = f.query @ self.facet(key, v.strength, v.rate, -step).mT
        was = old.gather(-1, v.root.unsqueeze(-2).expand(B, H, C, C))*v.rooted.unsqueeze(-2)
        return F.pad(old, (0, C)) + (plan.current*(new - was)) @ address

    def pending_graph(self, f, state, plan, active, address):
        cfg, C = self.config, f.gate.shape[-1]
        gate = f.gate*active
        pre = no_self(eligibility(address, gate, self.lam, F.pad(state.trace, (0, C))), address)
        if cfg.gamma < 1: seen, fade = power_kernel(gate, cfg.gamma)
        else: seen, fade = torch.ones(C, C, dtype=gate.dtype, device=gate.device).tril(-1), None
        return PendingGraph(state.edges, pre, address, seen*gate.unsqueeze(-2), fade, plan.dead if self.commits_all else None, cfg.eta_plus, cfg.eta_minus)

    @property
    def lam(self): return self.lam_logit.sigmoid().view(1, -1, 1, 1)

    def write_chunk(self, f:Features, r:ChunkRead, weights, state:MemoryState, mass, mask, record):
        "Commit the most salient writes; the rest of the chunk was only ever a passing thought."
        cfg, N = self.config, self.config.n_slots
        plan, v, address, step = r.plan
        B, H, C, _ = f.key.shape
        gate, key, active, keep_all = f.gate, f.key, r.active, (lambda x: x)
        if self.commits_all: idx, at = None, keep_all
        else:
            idx = torch.where(active, gate, -1.).topk(min(cfg.n_writes, C), dim=-1).indices.sort(-1).values
            at = lambda x: x.gather(2, idx if x.dim() == 3 else idx.unsqueeze(-1).expand(*idx.shape, x.shape[-1]))
            f = Features(f.query, at(key), at(f.value), at(gate), f.pi, f.alpha)
            gate, key, active, step = f.gate, f.key, at(active), at(step)
            W = idx.shape[-1]
            with torch.no_grad():
                cos_self = at(r.self_key).gather(-1, idx.unsqueeze(-2).expand(B, H, W, W))
                plan = self.plan(f, at(r.seen_key), cos_self, active, state, step, True, False, self.logits(state.values), at(r.logit))
                address = lineage_onehot(plan, active, N, key.dtype)
            v = write_versions(plan, active, gate, f.value, step, state, self.decay_rate if cfg.forgetting else None)
        keep, stays = 1 - plan.cleared, 1 - plan.final.sum(2)
        n_tok = C if mask is None else mask.sum(-1).view(B, 1, 1)
        keys = state.keys*keep.unsqueeze(-1) + plan.born.mT @ key
        values = state.values*stays.unsqueeze(-1) + plan.final.mT @ v.values
        strength = state.strength*stays + (plan.final*v.strength.unsqueeze(-1)).sum(2)
        edges, trace = state.edges, state.trace
        if cfg.graph:
            gate = gate*active
            W = gate.shape[-1]
            pre = no_self(eligibility(address, gate, self.lam, F.pad(trace, (0, W))), address)
            slots = lambda x: x[..., :N]*keep.unsqueeze(-2) + x[..., N:] @ plan.born            # lineages to the slots they end in
            if (plan.cleared*state.strength.detach()).any(): edges = edges*keep.unsqueeze(-1)*keep.unsqueeze(-2)
            post = slots(address)
            edges = stdp(edges, slots(pre), post, gate, cfg.eta_plus, cfg.eta_minus, cfg.gamma)
            trace = last_trace(post, gate, self.lam, trace*keep)
        land = lambda old, x: (old + x[..., :N])*keep + (at(x[..., N:]).unsqueeze(-2) @ plan.born).squeeze(-2)
        got = weights.sum(2)
        with torch.no_grad():
            age = (state.age + n_tok)*stays*(state.strength > 0) + (plan.final*(n_tok - 1 - step).unsqueeze(-1)).sum(2)
            order = torch.arange(1, C + 1, device=key.device, dtype=key.dtype).view(C, 1)
            read_at = ((weights > READ_THRESHOLD)*order).amax(2)
            read_at = torch.where(read_at > 0, read_at + state.clock.view(B, 1, 1), 0.)
            last_read = torch.maximum(state.last_read*keep, land(torch.zeros_like(read_at[..., :N]), read_at))
            usage = land(state.usage, got)
            clock = state.clock + (C if mask is None else mask.sum(-1))
            seen = self.seen(weights, plan, active, idx, strength, age, C) if record else None
        return MemoryState(keys, values, strength, age, last_read, usage, edges, trace, clock), land(mass, got), seen

    def seen(self, weights, plan, active, idx, strength, age, C):
        "The record of one chunk, over physical slots."
        N = self.config.n_slots
        born = plan.born if idx is None else torch.zeros(*weights.shape[:2], C, N, dtype=weights.dtype, device=weights.device).scatter(2, idx.unsqueeze(-1).expand_as(plan.born), plan.born)
        first = plan.lineage.clamp(max=N - 1)
        slot = torch.where(plan.lineage < N, first, (plan.born.gather(2, (plan.lineage - N).clamp(min=0).unsqueeze(-1).expand_as(plan.born)) @ torch.arange(N, device=born.device, dtype=born.dtype)).long())
        gone = (plan.lineage >= N) & (plan.born.gather(2, (plan.lineage - N).clamp(min=0).unsqueeze(-1).expand_as(plan.born)).sum(-1) == 0)
        slot = slot.masked_fill(~active | gone, -1)
        births = plan.birth & (slot >= 0)
        if idx is not None:
            slot = torch.full((*slot.shape[:2], C), -1, device=slot.device).scatter(2, idx, slot)
            births = torch.zeros(*births.shape[:2], C, dtype=torch.bool, device=slot.device).scatter(2, idx, births)
        return dict(read=weights[..., :N] + weights[..., N:] @ born, write_slot=slot, births=births, strength=strength.unsqueeze(2), age=age.unsqueeze(2))
