"""Pages generated from the code while the site is built: algorithms from docstrings, keys from the specs' models."""

import base64
import inspect
import json
import re
import textwrap
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

import suite_curves
import suite_table
from pydantic import BaseModel
from suite_results import Result, Results
from suite_rows import Row, Suite

from slm_lab.experiment.graphs.draw import Line, draw_panels
from slm_lab.lib.registry import lookup, names
from slm_lab.spec.model import AgentSpec, EnvSpec, MetaSpec, Spec

if TYPE_CHECKING:
    from sphinx.application import Sphinx

HERE = Path(__file__).parent
SOURCE = HERE.parent / "slm_lab"
_MATH = re.compile(r"\$\$(.+?)\$\$|(?<![\w$])\$([^$\n]+?)\$(?!\w)", re.DOTALL)
_WORDS = {
    "integer": "int",
    "number": "float",
    "boolean": "true or false",
    "string": "text",
    "null": "null",
    "array": "list",
    "object": "object",
}
"""JSON schema's names of types, for readers."""


def generate(app: "Sphinx") -> None:
    """Write the generated pages; Sphinx finds them beside the others."""
    pages = {f"algorithms/{slug}.md": algorithm_page(module) for slug, module in algorithm_modules().items()}
    pages |= {"algorithms/index.md": algorithm_index(), "reference.md": reference()}
    for path in sorted((HERE / "notebooks").glob("*.ipynb")):
        page, pictures = notebook_page(json.loads(path.read_text(encoding="utf-8")), path.stem)
        pages[f"notebooks/{path.stem}.md"] = page
        for name, data in pictures.items():
            _write(f"notebooks/{name}", data)
    for name, content in pages.items():
        _write(name, content.encode())


def _write(name: str, data: bytes) -> None:
    target = HERE / "generated" / name
    target.parent.mkdir(parents=True, exist_ok=True)
    if not target.exists() or target.read_bytes() != data:  # what is unchanged is not built again
        target.write_bytes(data)


def notebook_page(notebook: dict[str, Any], name: str) -> tuple[str, dict[str, bytes]]:
    """A notebook with the outputs that are saved in it, as Markdown; and its pictures by file name."""
    parts, pictures = [], {}
    for cell in notebook["cells"]:
        source = "".join(cell["source"])
        parts.append(source if cell["cell_type"] == "markdown" else f"```python\n{source}\n```")
        for output in cell.get("outputs", ()):
            if "text" in output:
                parts.append(f"```text\n{''.join(output['text']).rstrip()}\n```")
            elif "image/png" in output.get("data", {}):
                picture = f"{name}_{len(pictures)}.png"
                pictures[picture] = base64.b64decode(output["data"]["image/png"])
                parts.append(f"![]({picture})")
    parts.append(f"Run it yourself: `docs/notebooks/{name}.ipynb`.")
    return "\n\n".join(parts) + "\n", pictures


def render_math(app: "Sphinx", name: str, source: list[str]) -> None:
    """LaTeX between dollars becomes MathML: no script, works offline. Code is left alone."""
    parts = re.split(r"(```.*?```|`[^`\n]*`)", source[0], flags=re.DOTALL)
    source[0] = "".join(part if i % 2 else _MATH.sub(_mathml, part) for i, part in enumerate(parts))


def _mathml(found: re.Match[str]) -> str:
    from latex2mathml.converter import convert

    block, inline = found.groups()
    return convert(block, display="block") if block is not None else convert(inline)


def algorithm_modules() -> dict[str, ModuleType]:
    """Modules that define registered algorithms, by name."""
    modules = {inspect.getmodule(lookup("algorithm", name)) for name in names("algorithm")}
    return {m.__name__.rpartition(".")[2]: m for m in sorted((m for m in modules if m), key=lambda m: m.__name__)}


def _classes(module: ModuleType) -> list[type]:
    found = [lookup("algorithm", name) for name in names("algorithm")]
    return [cls for cls in found if cls.__module__ == module.__name__]


def algorithm_index() -> str:
    """One line an algorithm."""
    lines = ["# Algorithms", "", "| class | in short |", "|---|---|"]
    for slug, module in algorithm_modules().items():
        title = (module.__doc__ or "").strip().splitlines()[0]
        classes = ", ".join(f"`{cls.__name__}`" for cls in _classes(module))
        lines.append(f"| {classes} | [{title}]({slug}.md) |")
    toc = ["", "```{toctree}", ":hidden:", "", *algorithm_modules(), "```"]
    return "\n".join([*lines, *toc]) + "\n"


def algorithm_page(module: ModuleType) -> str:
    """Title, idea, pseudo-code and differences from the docstring; equations; keys."""
    slug = module.__name__.rpartition(".")[2]
    first, _, rest = inspect.cleandoc(module.__doc__ or "").partition("\n")
    name, _, source = first.partition(". ")
    equations = HERE / "equations" / f"{slug}.md"
    parts = [f"# {name.removesuffix('.')}", source, _fenced(rest.strip())]
    if equations.exists():
        parts += ["## Equations", equations.read_text(encoding="utf-8")]
    path = Path(inspect.getfile(module)).relative_to(SOURCE.parent)
    parts += [f"The code is `{path}`.", *_scores(slug, _classes(module)), "## Keys"]
    for cls in _classes(module):
        parts += [f"### {cls.__name__}", inspect.cleandoc(cls.__doc__ or "").split("\n\n")[0], keys(cls.Spec)]
    return "\n\n".join(parts) + "\n"


def _scores(slug: str, classes: list[type]) -> list[str]:
    """What the suites of `benchmark/` measured of these algorithms: a table, and curves where they were kept."""
    names, measured, panels = {cls.__name__ for cls in classes}, list[tuple[Row, list[Result]]](), {}
    for suite in map(Suite.read, Suite.names()):
        results, curves = Results(suite.csv).read(), suite_curves.read(suite_curves.path_of(suite))
        for row in suite.rows:
            own = [r for r in results if r.key == row.key]
            if not own or _algorithm_of(row) not in names:
                continue
            measured.append((row, own))
            if row.key in curves:
                curve = curves[row.key][1]
                line = Line(curve.x, curve.mean, (curve.low, curve.high), label=row.algorithm)
                panels.setdefault(row.env, []).append(line)
    if not measured:
        return ["## Scores", "Not measured yet."]
    about = (
        "Means over seeds of `total_reward_ma`, unless BENCHMARKS.md says otherwise; the method and all rows are there."
    )
    parts = ["## Scores", about, suite_table.short_table(measured)]
    picture = HERE / "generated" / "algorithms" / f"{slug}.svg"
    picture.parent.mkdir(parents=True, exist_ok=True)
    labels = ("total_reward, moving average", "frames")
    if draw_panels([picture], panels, "Learning curves", "mean over seeds and 95 % bootstrap interval", *labels):
        parts.append(f"![Learning curves of {slug}]({picture.name})")
    return parts


def _algorithm_of(row: Row) -> str:
    specs = json.loads((SOURCE.parent / "specs" / row.spec_file).read_text(encoding="utf-8"))
    return str(specs[row.spec_name]["agent"]["algorithm"]["name"])


def _fenced(text: str) -> str:
    """Indented blocks of a docstring as code."""
    out, block = [], []
    for line in [*text.splitlines(), ""]:
        if line.startswith("    ") or (block and not line.strip()):
            block.append(line)
            continue
        if block:
            out += ["```text", textwrap.dedent("\n".join(block)).strip("\n"), "```", ""]
            block = []
        out.append(line)
    if block and any(line.strip() for line in block):
        out += ["```text", textwrap.dedent("\n".join(block)).strip("\n"), "```"]
    return "\n".join(out)


def reference() -> str:
    """Every key of a spec."""
    parts = [
        "# Spec reference",
        "Generated from the models that check a spec. A dash in the column *default*: must be given.",
    ]
    for title, model in {"spec": Spec, "agent": AgentSpec, "env": EnvSpec, "meta": MetaSpec}.items():
        parts += [f"## {title}", inspect.cleandoc(model.__doc__ or ""), keys(model)]
    for kind, key in (("algorithm", "name"), ("memory", "name"), ("net", "type")):
        parts += [f"## agent.{kind}", f"`{key}` chooses the class; each has keys of its own."]
        for name in names(kind):
            cls = lookup(kind, name)
            parts += [f"### {name}", inspect.cleandoc(cls.__doc__ or "").split("\n\n")[0], keys(cls.Spec)]
    return "\n\n".join(parts) + "\n"


def keys(model: type[BaseModel]) -> str:
    """A table of the keys of a model."""
    schema = model.model_json_schema()
    lines = ["| key | type | default | meaning |", "|---|---|---|---|"]
    for name, field in model.model_fields.items():
        if _is_role_key(name, model):
            continue
        kind = _type(schema["properties"][field.alias or name], schema.get("$defs", {}))
        default = "-" if field.is_required() else f"`{_plain(field.get_default(call_default_factory=True))}`"
        meaning = " ".join((field.description or "").split()).replace("|", "\\|")
        lines.append(f"| `{field.alias or name}` | {kind} | {default} | {meaning} |")
    return "\n".join(lines)


def _is_role_key(name: str, model: type[BaseModel]) -> bool:
    """`actor_lr` beside `lr`: the rule is said once."""
    return any(
        name.startswith(f"{role}_") and name.removeprefix(f"{role}_") in model.model_fields
        for role in ("actor", "critic")
    )


def _plain(value: Any) -> str:
    if isinstance(value, BaseModel):
        value = value.model_dump(exclude_none=True)
    return str(value).replace("None", "null").replace("True", "true").replace("False", "false").replace("|", "\\|")


def _type(schema: dict[str, Any], defs: dict[str, Any]) -> str:
    """In words."""
    if "$ref" in schema:
        name = schema["$ref"].rpartition("/")[2]
        target = defs.get(name, {})
        return _type(target, defs) if "enum" in target else name.removesuffix("Spec").lower()
    if "enum" in schema or "const" in schema:
        return " or ".join(f"`{x}`" for x in schema.get("enum", [schema.get("const")]))
    if "anyOf" in schema:
        return " or ".join(dict.fromkeys(_type(s, defs) for s in schema["anyOf"]))
    if schema.get("type") == "array" and schema.get("items"):
        return f"list of {_type(schema['items'], defs)}"
    return _WORDS.get(schema.get("type", ""), "any") + _bounds(schema)


def _bounds(schema: dict[str, Any]) -> str:
    low, high, above = (schema.get(k) for k in ("minimum", "maximum", "exclusiveMinimum"))
    if low is not None and high is not None:
        return f", {low} to {high}"
    return f" >= {low}" if low is not None else f" > {above}" if above is not None else ""
