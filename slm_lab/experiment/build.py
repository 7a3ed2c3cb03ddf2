"""The last check of a spec: its env and agent are built once, and thrown away."""

from dataclasses import replace

import numpy as np

from slm_lab.agent.agent import Agent
from slm_lab.env.make import make_env
from slm_lab.experiment.contain import out_of_memory
from slm_lab.lib.errors import LabError, SpecError
from slm_lab.spec.model import Spec


def build_faults(spec: Spec) -> list[str]:
    """What only building tells: an env that can't be made, an optimizer that refuses its arguments."""
    try:
        env = make_env(spec.env, num_envs=1)
        try:
            info = replace(env.info, num_envs=spec.env.num_envs)
            # a first step: what does not fit together inside the nets, or in what the env gives, shows up there
            obs = np.zeros((info.num_envs, *info.obs_shape), info.obs_dtype)
            obs[:] = env.reset(0)
            env.step(Agent(spec, info, seed=0).act(obs)[:1])
        finally:
            env.close()
    except Exception as error:  # noqa: BLE001  envs and plugins are code of others
        e = out_of_memory(error, spec) or error
        if isinstance(e, SpecError):
            return e.faults
        if isinstance(e, LabError):
            return [str(e)]
        return [f"{type(e).__name__}: {' '.join(str(e).split())}"]
    return []
