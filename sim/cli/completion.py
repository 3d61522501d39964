"""`burstsim completion`: the script that makes a shell complete verbs, options, kinds and files; click's own."""
from __future__ import annotations

import json

import click

PROGRAM, VARIABLE = "burstsim", "_BURSTSIM_COMPLETE"
SHELLS = ("bash", "zsh", "fish")


@click.command()
@click.argument("shell", type=click.Choice(SHELLS))
@click.option("--json", "as_json", is_flag=True, help="Print JSON instead of the script alone.")
@click.pass_context
def completion(ctx: click.Context, shell: str, as_json: bool) -> None:
    """Print the script that makes SHELL complete what is typed.

    \b
    bash   eval "$(burstsim completion bash)" in ~/.bashrc
    zsh    eval "$(burstsim completion zsh)" in ~/.zshrc, after compinit
    fish   burstsim completion fish > ~/.config/fish/completions/burstsim.fish
    """
    from click.shell_completion import get_completion_class

    made = get_completion_class(shell)
    assert made is not None, shell
    script = made(ctx.find_root().command, {}, PROGRAM, VARIABLE).source()
    click.echo(json.dumps({"shell": shell, "script": script}, indent=2) if as_json else script)
