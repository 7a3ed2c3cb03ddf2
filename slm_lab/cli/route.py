"""`slm-lab SPEC_FILE SPEC_NAME MODE` is `slm-lab run SPEC_FILE SPEC_NAME MODE`: puts the command's name first."""

from collections.abc import Collection


def route(args: list[str], commands: Collection[str], own: Collection[str], with_value: Collection[str]) -> list[str]:
    """The arguments with a command at their beginning.

    Args:
        args: as typed, options anywhere
        commands: names of the commands
        own: options of `slm-lab` itself, such as --version; a line that begins with one is left as it is
        with_value: options of the commands whose value is the next word

    >>> route(["-s", "env=CartPole-v1", "spec.json", "name", "dev"], ["run", "plot"], ["--help"], ["-s"])
    ['run', '-s', 'env=CartPole-v1', 'spec.json', 'name', 'dev']
    """
    if not args:
        return ["--help"]
    if args[0] in own:
        return args
    i = 0
    while i < len(args) and args[i] != "--":
        word = args[i]
        if not word.startswith("-"):
            return [word, *args[:i], *args[i + 1 :]] if word in commands else ["run", *args]
        i += 2 if word in with_value else 1
    return ["run", *args]
