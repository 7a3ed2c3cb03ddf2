"""`slm-lab schema`."""

import json
from pathlib import Path

from slm_lab.lib.errors import LabError
from slm_lab.lib.files import write_atomic
from slm_lab.spec.schema import file_schema


def main(output: Path | None) -> None:
    """Print the schema, or write it to a file.

    Raises:
        LabError: the file can't be written.
    """
    text = json.dumps(file_schema(), indent=2, ensure_ascii=False) + "\n"
    if output is None:
        print(text, end="")
        return
    try:
        write_atomic(output, text)
    except OSError as e:
        raise LabError(f"{output}: can't be written: {e.strerror}") from e
