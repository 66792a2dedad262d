"""`upscaled completion`: print the script by which a shell completes the command line.

The scripts hold every command and option, made from the parser: starting the program at each press
of the key would take seconds.
"""

import shlex
from collections.abc import Callable, Iterator, Mapping
from typing import Annotated, Final

import typer

from upscaled.cli.command_tree import PROGRAM, Command, Option, describe_commands


def write_bash(root: Command) -> str:
    """Return the script for bash 4.4 or later, which needs no package of completions."""
    commands = list(root.walk())
    known = "|".join(shlex.quote(" ".join(each.path)) for each in commands if each.path)
    values = "\n".join(line for each in commands for line in _list_values(each))
    words = "\n".join(_list_words(each) for each in commands)
    return _BASH.format(known=known, values=values, words=words)


def _list_values(command: Command) -> Iterator[str]:
    """Yield a branch of `case` for each option with a value: its choices, or file names."""
    for option in filter(lambda each: each.value, command.options):
        names = (shlex.quote(" ".join((*command.path, flag))) for flag in option.flags)
        choices = shlex.quote(" ".join(option.choices))
        yield f"        {'|'.join(names)}) words={choices} ;;"


def _list_words(command: Command) -> str:
    flags = " ".join(flag for option in command.options for flag in option.flags)
    names = " ".join(each.path[-1] for each in command.commands)
    path = shlex.quote(" ".join(command.path))
    return f"        {path}) options={shlex.quote(flags)} words={shlex.quote(names)} ;;"


_BASH: Final = """\
# bash completion for upscaled; made by: upscaled completion bash
_upscaled() {{
    local current=${{COMP_WORDS[COMP_CWORD]}} before=${{COMP_WORDS[COMP_CWORD-1]}}
    local command='' options='' words='' next word
    if [[ $current == = ]]; then
        current=''
    elif [[ $before == = ]]; then
        before=${{COMP_WORDS[COMP_CWORD-2]}}
    fi
    for word in "${{COMP_WORDS[@]:1:COMP_CWORD-1}}"; do
        next="${{command:+$command }}$word"
        case $next in
        {known}) command=$next ;;
        esac
    done
    case "${{command:+$command }}$before" in
{values}
        *) case $command in
{words}
        esac
        if [[ $current == -* ]]; then words=$options; fi ;;
    esac
    mapfile -t COMPREPLY < <(compgen -W "$words" -- "$current")
}}
complete -o default -F _upscaled upscaled
"""


def write_zsh(root: Command) -> str:
    """Return the script for zsh, for a file `_upscaled` in its `fpath`, or to be sourced."""
    functions = "\n".join(_write_zsh_function(each) for each in root.walk())
    return (
        f"#compdef {PROGRAM}\n# zsh completion for upscaled; made by: upscaled completion zsh\n"
        f"{functions}\n"
        'if [[ "$funcstack[1]" == _upscaled ]]; then _upscaled "$@"; '
        "else compdef _upscaled upscaled; fi\n"
    )


def _write_zsh_function(command: Command) -> str:
    lines = [_spec_of(option) for option in command.options]
    rest = ""
    if command.commands:
        names = (f"{each.path[-1]}\\:{_quote_zsh(each.summary)}" for each in command.commands)
        lines += [f"'1:command:(({' '.join(names)}))'", "'*::argument:->rest'"]
        cases = (f"{each.path[-1]}) {_name_zsh(each)} ;;" for each in command.commands)
        rest = f"  [[ $state == rest ]] && case $words[1] in\n    {' '.join(cases)}\n  esac\n"
    else:
        lines.append("'*:file:_files'")
    specs = " \\\n    ".join(lines)
    return (
        f"{_name_zsh(command)}() {{\n  local state line\n"
        f"  typeset -A opt_args\n  _arguments -C \\\n    {specs}\n{rest}}}"
    )


def _name_zsh(command: Command) -> str:
    return "_".join(("_upscaled", *command.path))


def _spec_of(option: Option) -> str:
    """Return an option in the syntax of `_arguments`."""
    text = option.help.replace("'", "'\\''").replace("[", "\\[").replace("]", "\\]")
    value = ""
    if option.value:
        action = f"({' '.join(option.choices)})" if option.choices else "_files"
        value = f":{option.value.replace(':', ' ')}:{action}"
    if len(option.flags) == 1:
        return f"'{option.flags[0]}[{text}]{value}'"
    return f"'({' '.join(option.flags)})'{{{','.join(option.flags)}}}'[{text}]{value}'"


def _quote_zsh(text: str) -> str:
    """Quote a description in a list of `_arguments`, itself between single quotes."""
    plain = "".join("\\" + sign if sign in ' :()[]"\\;&|<>$`*?~#{}' else sign for sign in text)
    return plain.replace("'", "’")


def write_fish(root: Command) -> str:
    """Return the script for fish 3 or later."""
    lines = [f"# fish completion for {PROGRAM}; made by: upscaled completion fish"]
    for command in root.walk():
        condition = _condition_of(command)
        for child in command.commands:
            name, text = child.path[-1], shlex.quote(child.summary)
            lines.append(f"complete -c {PROGRAM} -f -n {condition} -a {name} -d {text}")
        lines += [_complete_in_fish(option, condition) for option in command.options]
    return "\n".join(lines) + "\n"


def _condition_of(command: Command) -> str:
    """Return where the words of a command are completed: behind its own, before its commands'."""
    parts = [f"__fish_seen_subcommand_from {word}" for word in command.path]
    if command.commands:
        names = " ".join(each.path[-1] for each in command.commands)
        parts.append(f"not __fish_seen_subcommand_from {names}")
    return shlex.quote("; and ".join(parts))


def _complete_in_fish(option: Option, condition: str) -> str:
    flags = " ".join(
        f"-l {flag[2:]}" if flag.startswith("--") else f"-s {flag[1:]}" for flag in option.flags
    )
    value = " -r" if option.value else ""
    if option.choices:
        value = f" -x -a {shlex.quote(' '.join(option.choices))}"
    return f"complete -c {PROGRAM} -n {condition} {flags}{value} -d {shlex.quote(option.help)}"


SHELLS: Final[Mapping[str, Callable[[Command], str]]] = {
    "bash": write_bash,
    "zsh": write_zsh,
    "fish": write_fish,
}


def _check_shell(shell: str) -> str:
    if shell not in SHELLS:
        raise typer.BadParameter(f"must be one of {', '.join(SHELLS)}")
    return shell


Shell = Annotated[
    str, typer.Argument(metavar="SHELL", callback=_check_shell, help="bash, zsh or fish.")
]


def run(shell: Shell) -> None:
    """Print the script by which bash, zsh or fish completes commands and options.

    Where to put it: bash, ~/.local/share/bash-completion/completions/upscaled
    (or: source <(upscaled completion bash)); zsh, a file _upscaled in a folder
    of fpath; fish, ~/.config/fish/completions/upscaled.fish.
    """
    from upscaled.cli import build_app  # which imports this module

    typer.echo(SHELLS[shell](describe_commands(build_app())), nl=False)
