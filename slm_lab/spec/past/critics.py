"""CrossQ's second net: version 5 had an object `agent.critic_net` for it, beside `agent.net`."""

from slm_lab.spec.past.draft import Draft, Gone
from slm_lab.spec.past.keys import net_defaults
from slm_lab.spec.search import leaves

_APART = ("type", "shared", "use_same_optim", "gpu")
"""Keys that are no role's own."""
_OLD, _NEW = "agent.critic_net.", "agent.net.critic_"


def join_nets(draft: Draft) -> None:
    """`agent.critic_net` as keys of `agent.net` with `critic_` before them; paths of a search follow.

    Raises:
        Gone: the two nets are of different types.
    """
    agent, net, critic = draft.at("agent"), draft.net, draft.at("agent.critic_net")
    if draft.algorithm.get("name") != "CrossQ" or not critic or not net:
        return
    kinds = [part.get("type") for part in (net, critic)]
    if kinds[0] != kinds[1]:
        raise Gone(f"agent.critic_net.type: must be that of agent.net ({kinds[0]!r}), got {kinds[1]!r}")
    del agent["critic_net"]
    own = {key: value for key, value in critic.items() if key not in _APART}
    # what it left out had the default, not the value of the other net
    unsaid = {key: value for key, value in net_defaults(net.get("type")).items() if net.get(key, value) != value}
    net.update({f"critic_{key}": value for key, value in {**unsaid, **own}.items() if key not in _APART})
    for key in ("shared", "use_same_optim"):
        if net.get(key) is True:
            net[key] = False
    draft.note("agent.critic_net", "its keys are now keys of agent.net, with 'critic_' before them")
    space = draft.spec.get("search")
    paths = dict(leaves(space)) if isinstance(space, dict) else {}
    if any(path.startswith(_OLD) for path in paths):
        draft.spec["search"] = {
            _NEW + path.removeprefix(_OLD) if path.startswith(_OLD) else path: value for path, value in paths.items()
        }
    if "Renorm" in str(critic.get("arc", "")):
        text = "batch renormalization corrects in full after warmup_steps and not before; it did so more and more"
        draft.note("agent.net.critic_arc", text)
