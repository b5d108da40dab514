import math
import torch
from torch import Tensor

def power_kernel(
    gates:Tensor,  # how far each event moves the clock, >= 0, `b h w`
    base,          # in (0,1], a float or a tensor that broadcasts to `b h 1 1`
)->tuple[Tensor,Tensor]: # `b h s r` for r < s, else 0; and `b h s 1`
    "`base` to the event time between event r and event s; and to the event time before s."
    before = gates.cumsum(-1) - gates
    gap = before.unsqueeze(-1) - (before + gates).unsqueeze(-2)
    rate = base.log() if isinstance(base, Tensor) else math.log(base)
    return (gap.tril(-1)*rate).exp().tril(-1), (before.unsqueeze(-1)*rate).exp()

def eligibility(
    address:Tensor,  # where each event writes, `b h w n`
    gates:Tensor,    # `b h w`
    lam,             # decay of the trace per unit of event time, in (0,1), `b h 1 1`
    trace:Tensor,    # left over from before, `b h n`
)->Tensor:           # the pre-synaptic trace just before each event, `b h w n`
    "What still echoes when each event arrives."
    kernel, head = power_kernel(gates, lam)
    return torch.addcmul((kernel*gates.unsqueeze(-2)) @ address, head, trace.unsqueeze(-2))

def last_trace(
    address:Tensor,  # `b h w n`
    gates:Tensor,    # `b h w`
    lam,             # `b h 1 1`
    trace:Tensor,    # left over from before, `b h n`
)->Tensor:           # `b h n`
    "The trace after the last event, to be carried on."
    rate = (lam.log() if isinstance(lam, Tensor) else torch.tensor(math.log(lam), dtype=gates.dtype)).reshape(1, -1, 1)
    total = gates.sum(-1, keepdim=True)
    ahead = total - gates.cumsum(-1)
    new = (gates*(ahead*rate).exp()).unsqueeze(-2) @ address
    return trace*(total*rate).exp() + new.squeeze(-2)

def no_self(
    pre:Tensor,      # `b h w n`
    address:Tensor,  # one-hot rows, `b h w n`
)->Tensor:
    "Take the firing slot out of its own trace, so that no edge leads from a slot to itself."
    return pre*(1 - address)

def stdp(
    edges:Tensor,           # edge i -> j, `b h n m`
    pre:Tensor,             # trace just before each event, without the slot itself, `b h w n`
    address:Tensor,         # `b h w m`
    gates:Tensor,           # `b h w`
    eta_plus:float=1.,      # pre before post: strengthen pre -> post
    eta_minus:float=0.,     # weaken post -> pre
    gamma:float=1.,         # what is left of an edge after one unit of event time
)->Tensor:                  # new edges, `b h n m`; `edges` is left alone
    "Spike-timing plasticity of a whole chunk of events, without a loop."
    ahead = gates.sum(-1, keepdim=True) - gates.cumsum(-1)
    left = gates if gamma == 1 else gates*gamma**ahead
    post = address*left.unsqueeze(-1)
    if gamma < 1: edges = edges*(gamma**gates.sum(-1)).unsqueeze(-1).unsqueeze(-1)
    b, h = edges.shape[:2]
    edges = torch.baddbmm(edges.flatten(0, 1), pre.mT.flatten(0, 1), post.flatten(0, 1), alpha=eta_plus).unflatten(0, (b, h))
    return edges - eta_minus*(post.mT @ pre) if eta_minus else edges
