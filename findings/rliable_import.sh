#!/usr/bin/env bash
# rliable 1.2.0 cannot be imported after a plain install: its dependency arch 7.2.0 declares pandas>=1.1 without an upper
# bound, but calls `pandas.util._decorators.deprecate_kwarg(old, new)`, a private function whose first argument became the
# class of the warning in pandas 3. With pandas 2.3.3 the same install works.
# Seen: TypeError: deprecate_kwarg() missing 1 required positional argument: 'new_arg_name'
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
uv venv -q --python 3.11 "$folder/v"
uv pip install -q --python "$folder/v/bin/python" rliable==1.2.0 arch==7.2.0 pandas==3.0.0 numpy==2.4.6
code='from rliable import library, metrics; import numpy as np; print(metrics.aggregate_iqm(np.array([[1, 2], [2, 2], [1, 1], [2, 1]])))'
if "$folder/v/bin/python" -c "$code" 2>"$folder/err"; then
  echo "changed: rliable imports beside pandas 3"; exit 1
fi
tail -1 "$folder/err"
grep -q "deprecate_kwarg() missing 1 required positional argument" "$folder/err"
uv pip install -q --python "$folder/v/bin/python" pandas==2.3.3
test "$("$folder/v/bin/python" -c "$code")" = 1.5
echo "with pandas 2.3.3: 1.5"
