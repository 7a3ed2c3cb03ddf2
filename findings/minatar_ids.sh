#!/usr/bin/env bash
# minatar 1.0.15 has envs for gymnasium (minatar.gym imports it), but registers them only through an entry point of the group
# `gymnasium.envs`, which gymnasium has not loaded since 1.0; importing minatar or minatar.gym registers nothing either.
# They are there after minatar.gym.register_envs().
# Seen: NamespaceNotFound: Namespace MinAtar not found. Have you installed the proper package for MinAtar?
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
uv venv -q --python 3.11 "$folder/v"
uv pip install -q --python "$folder/v/bin/python" minatar==1.0.15 gymnasium==1.2.0
python="$folder/v/bin/python"
for line in "import minatar" "import minatar.gym"; do
  if "$python" -c "import gymnasium; $line; gymnasium.make('MinAtar/Breakout-v1')" 2>"$folder/err"; then
    echo "changed: '$line' is enough"; exit 1
  fi
  tail -1 "$folder/err"
  grep -q "Namespace MinAtar not found" "$folder/err"
done
code="import gymnasium, minatar.gym; minatar.gym.register_envs(); print(gymnasium.make('MinAtar/Breakout-v1').observation_space.shape)"
"$python" -c "$code" | tee "$folder/out"
grep -q "(10, 10, 4)" "$folder/out"
