"""Hidden states of recurrent nets, while acting and in updates.

Acting carries a hidden state for each env. When a rollout is complete, and before anything is learned from it, every
net runs over it once more from the hidden state at its beginning: that gives the log probabilities and values under the
parameters that acted, and the hidden state before every step. For the gradient steps the rollout is then cut into
sequences of L = `seq_len` steps; each starts from the hidden state at its first step, which is data: no gradient goes
further back. A minibatch is made of whole sequences. With several gradient steps on one rollout (PPO) these states
become slightly stale, as the log probabilities of the policy that acted do.

Where an episode ends inside a sequence the state is reset to zero, so nothing leaks from one episode into the next. The
value of a truncated episode's last observation uses the hidden state after the whole episode.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from numpy.typing import NDArray
from torch import Tensor

from slm_lab.agent.net.recurrent import RecurrentNet
from slm_lab.lib.errors import SpecError
from slm_lab.lib.stateful import State
from slm_lab.types import Rollout, Sequences


class Recall:
    """Hidden states of the nets of one algorithm.

    Args:
        nets: the first one acts
        num_envs: N
        horizon: T, steps of a rollout; None: rollouts are whole episodes
        device: of the nets
    """

    def __init__(self, nets: Sequence[RecurrentNet], num_envs: int, horizon: int | None, device: torch.device) -> None:
        self.nets = list(nets)
        self.seq_len = int(self.nets[0].spec.seq_len)
        self._sizes = [net.state_size for net in self.nets]
        self._episodic = horizon is None
        self._device = device
        if any(net.spec.seq_len != self.seq_len for net in self.nets):
            raise SpecError(["agent.net.seq_len: must be the same for actor and critic"])
        if horizon is not None and horizon % self.seq_len:
            raise SpecError(
                [f"agent.net.seq_len: must divide the steps of a rollout, which are {horizon} (got {self.seq_len})"]
            )
        self.state = self._zeros(num_envs, self._sizes[0])
        """[N, H] of the net that acts, after its last observation; zero where the next one begins an episode."""
        self.start = self._zeros(num_envs, sum(self._sizes))
        """[N, sum of H] of all nets, at the beginning of the current rollout."""
        self._states = self.start[None]

    def step(self, obs: Tensor) -> tuple[Tensor, ...]:
        """The acting net's heads for [N, *O]; updates the hidden state. A new N starts from zeros."""
        if len(obs) != len(self.state):
            self.state = self._zeros(len(obs), self._sizes[0])
        outs, after = self.nets[0].step(obs, self.state)
        self.state.copy_(after)
        return outs

    def forget_(self, ended: NDArray[Any] | None = None) -> None:
        """Reset the hidden state where an episode ended, [N] bool; None: everywhere."""
        if ended is None:
            self.state.zero_()
        elif ended.any() and len(ended) == len(self.state):  # a new N starts from zeros in the next step
            self.state[torch.from_numpy(ended).to(self._device)] = 0

    @contextmanager
    def apart(self, num_envs: int) -> Iterator[None]:
        """Act in other envs, from the beginning of episodes; the hidden state is restored afterwards."""
        kept, self.state = self.state, self._zeros(num_envs, self._sizes[0])
        try:
            yield
        finally:
            self.state = kept

    def run(self, rollout: Rollout) -> list[tuple[Tensor, ...]]:
        """Run every net over the rollout.

        Returns:
            of each net the heads' outputs for `cat([obs.flatten(0, 1), final_obs])`, [(T+1) * N + K, width]
        """
        ended = rollout.terminated | rollout.truncated
        reset = torch.cat([torch.zeros_like(ended[:1]), ended])
        start = self._zeros(1, sum(self._sizes)) if self._episodic else self.start
        outs, states = [], []
        for net, state in zip(self.nets, start.split(self._sizes, -1), strict=True):
            x, after = net.run(rollout.obs, reset, state)
            x = x.flatten(0, 1)
            if len(rollout.final_obs):
                seen = after[:-1].flatten(0, 1)[rollout.final_index]
                x = torch.cat([x, net.run(rollout.final_obs[None], None, seen)[0][0]])
            outs.append(net.masked(net.answer(x), torch.cat([rollout.obs.flatten(0, 1), rollout.final_obs])))
            states.append(torch.cat([state[None], after[:-1]]))
        self._states = torch.cat(states, -1) * (~reset).to(outs[0][0].dtype).unsqueeze(-1)
        return outs

    def sequences(self, rollout: Rollout, fields: Sequence[Tensor]) -> tuple[Tensor, ...]:
        """The rollout that `run` has processed, cut into sequences; the next rollout begins.

        Args:
            rollout: of T steps
            fields: whatever else a loss reads, [T, N, ...] each

        Returns:
            obs [S, L, *O], reset [S, L], state [S, sum of H], with whole episodes valid [S, L]; fields [S, L, ...]
        """
        t = len(rollout.reward)
        count = -(-t // self.seq_len)

        def cut(x: Tensor) -> Tensor:
            x = torch.cat([x, x.new_zeros((count * self.seq_len - t, *x.shape[1:]))])
            return x.unflatten(0, (count, self.seq_len)).transpose(1, 2).flatten(0, 1).contiguous()

        ended = rollout.terminated | rollout.truncated
        reset = torch.cat([torch.zeros_like(ended[:1]), ended[:-1]])
        state = self._states[: t : self.seq_len].flatten(0, 1)
        valid = [cut(torch.ones_like(ended))] if self._episodic else []
        if not self._episodic:
            # the hidden state of acting is the same, except for rounding
            self.start.copy_(torch.cat([self.state, self._states[-1, :, self._sizes[0] :]], -1))
        return cut(rollout.obs[:-1]), cut(reset), state, *valid, *(cut(x) for x in fields)

    def over(self, loss: Callable[..., Any]) -> Callable[..., Any]:
        """The loss as a function of what `sequences` returns, and of coefficients: it gets all steps as one batch."""

        def over_sequences(obs: Tensor, reset: Tensor, state: Tensor, *rest: Tensor) -> Any:
            valid = None
            if self._episodic:
                valid, rest = rest[0].transpose(0, 1), rest[1:]
            # coefficients are 0-d
            fields = [x if x.dim() == 0 else x.transpose(0, 1).flatten(0, 1) for x in rest]
            if valid is not None:
                fields = [x if x.dim() == 0 else x[valid.flatten()] for x in fields]
            return loss(Sequences(obs.transpose(0, 1), reset.transpose(0, 1), state, valid), *fields)

        return over_sequences

    def state_dict(self) -> State:
        """All hidden states."""
        return {"state": self.state.clone(), "start": self.start.clone()}

    def load_state_dict(self, state: State) -> None:
        """Restore the state that `state_dict` returned."""
        self.state.copy_(state["state"])
        self.start.copy_(state["start"])

    def _zeros(self, n: int, size: int) -> Tensor:
        # made in inference mode it could not be written to outside of it
        with torch.inference_mode(mode=False):
            return torch.zeros((n, size), device=self._device)
