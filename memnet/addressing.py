from torch import Tensor
import torch
import torch.nn.functional as F

DEAD = -1e4   # score of a slot that may not be read: finite, so that an empty memory still has finite gradients

def unit(
    x:Tensor,        # rows in the last axis
    eps:float=1e-6,  # shortest length that is divided by
)->Tensor:
    "Scale every row to length one; a zero row stays zero."
    return F.normalize(x, dim=-1, eps=eps)

def log_strength(
    strength:Tensor,  # in [0,1], 0 = empty, `b h n`
)->Tensor:
    "What strength adds to a score; finite for an empty slot."
    return strength.clamp(min=1e-6).log()

def readable(
    scores:Tensor,  # `… n`, `DEAD` where a slot may not be read
)->Tensor:          # bool, `… n`
    "Which slots may be read at all."
    return scores > DEAD/2

def topk_policy(
    scores:Tensor,                  # `… n`
    generator:torch.Generator=None, # not used: nothing is drawn
    topk:int=8,                     # slots that share the weight
)->Tensor:                          # on the simplex over readable slots; all zero where there is none, `… n`
    "Look up: softmax over the best `topk` slots, nothing elsewhere."
    best, at = scores.topk(min(topk, scores.shape[-1]), dim=-1)
    e = (best - best[..., :1]).clamp(min=-50).exp()*readable(best)
    w = e/e.sum(-1, keepdim=True).clamp(min=1e-30)
    return torch.zeros_like(scores).scatter(-1, at, w)

@torch.no_grad()
def uniform_policy(
    scores:Tensor,                  # `… n`
    generator:torch.Generator=None, # not used: nothing is drawn
    topk:int=8,                     # not used
)->Tensor:                          # `… n`
    "Average: the same weight for every readable slot."
    can = readable(scores).to(scores.dtype)
    return can/can.sum(-1, keepdim=True).clamp(min=1)

@torch.no_grad()
def random_policy(
    scores:Tensor,                  # `… n`
    generator:torch.Generator=None, # draws the slot; None = the mean over all draws, which is `uniform_policy`
    topk:int=8,                     # not used
)->Tensor:                          # one-hot, `… n`
    "Explore: one readable slot, drawn with equal chances."
    if generator is None: return uniform_policy(scores)
    can = readable(scores)
    rank = can.cumsum(-1)
    count = rank[..., -1:]
    u = torch.rand(count.shape, generator=generator, dtype=scores.dtype, device=scores.device)
    pick = torch.minimum((u*count).floor(), count - 1) + 1
    return ((rank == pick) & can).to(scores.dtype)

POLICIES = {}   # name -> policy; the set is open

def register_policy(
    name:str,  # how a config calls it
    policy,    # (scores, generator, topk) -> weights on the simplex
):
    "Add a policy under a name; a name that is taken raises."
    if name in POLICIES: raise ValueError(f"a policy named {name!r} exists already: take another name, or delete POLICIES[{name!r}] first")
    POLICIES[name] = policy

for _name, _policy in dict(topk=topk_policy, uniform=uniform_policy, random=random_policy).items(): register_policy(_name, _policy)

def mix_policies(
    scores:Tensor,                  # `… n`
    pi:Tensor,                      # share of each policy, on the simplex, `… p`
    names:tuple,                    # of the policies, in the order of `pi`
    generator:torch.Generator=None, # for policies that draw; None = their mean
    topk:int=8,                     # for the policies that look up
)->Tensor:                          # on the simplex over readable slots, `… n`
    "The meta-policy: a learned mixture of addressing strategies."
    shares, total = {}, None
    for name, share in zip(names, pi.split(1, -1)):
        if name == 'random' and generator is None: name = 'uniform'   # the mean over its draws
        shares[name] = shares[name] + share if name in shares else share
    for name, share in shares.items():
        w = POLICIES[name](scores, generator, topk)
        total = share*w if total is None else torch.addcmul(total, share, w)
    return total
