#!/usr/bin/env bash
# rejax 0.1.3: max_grad_norm is no bound of the gradient's norm. Each algorithm that has the key (PPO, PQN, SAC, TD3, DQN, IQN)
# hands it to optax.clip, which cuts every single element to [-max, max], in place of optax.clip_by_global_norm. In the
# field's PPO, and in every lab with a key of this name, the whole gradient is scaled to that norm: the direction stays, and the
# usual value is 0.5. Here a gradient 54 times as long passes as it is, since no element is above 0.5; where elements are above,
# the direction changes. A setting carried over from another lab means something else.
# Below a PPO agent gets one gradient, all of whose elements are 0.4; Adam's first moment shows what reached it (a tenth of it).
#
# Output seen (rejax 0.1.3, jax 0.10.2, optax 0.2.8, gymnax 1.0.1):
#   max_grad_norm 0.5; 4610 parameters; norm of the gradient 27.2
#   norm that reached Adam: rejax 27.2, optax.clip_by_global_norm 0.5
# Exits non-zero where that changes.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
uv venv -q --python 3.11 venv
uv pip install -q --python venv/bin/python \
  rejax==0.1.3 jax==0.10.2 jaxlib==0.10.2 flax==0.12.8 optax==0.2.8 gymnax==1.0.1 numpy==2.4.6 six==1.17.0
cat > check.py <<'PY'
import jax
import jax.numpy as jnp
import optax
from rejax import PPO

MAX = 0.5
state = PPO.create(env="CartPole-v1", max_grad_norm=MAX).init_state(jax.random.key(0)).actor_ts
grads = jax.tree.map(lambda p: jnp.full_like(p, 0.4), state.params)


def reached(tx):
    """Norm of the gradient that comes out of the clipping, from the first moment of Adam after one update."""
    _, new = tx.update(grads, tx.init(state.params), state.params)
    moments = [s.mu for s in jax.tree.leaves(new, is_leaf=lambda s: hasattr(s, "mu")) if hasattr(s, "mu")]
    return float(optax.global_norm(moments[0])) / 0.1


count = sum(p.size for p in jax.tree.leaves(grads))
by_norm = optax.chain(optax.clip_by_global_norm(MAX), optax.adam(1e-3))
lines = [
    f"max_grad_norm {MAX}; {count} parameters; norm of the gradient {float(optax.global_norm(grads)):.1f}",
    f"norm that reached Adam: rejax {reached(state.tx):.1f}, optax.clip_by_global_norm {reached(by_norm):.1f}",
]
print("\n".join(lines))
assert lines == [
    "max_grad_norm 0.5; 4610 parameters; norm of the gradient 27.2",
    "norm that reached Adam: rejax 27.2, optax.clip_by_global_norm 0.5",
]
PY
venv/bin/python check.py
