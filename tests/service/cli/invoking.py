"""A command line in the test's own process."""

from collections.abc import Mapping

from typer.testing import CliRunner, Result

from upscaled.cli import COMMANDS, build_app


def invoke(*arguments: str, env: Mapping[str, str | None] | None = None) -> Result:
    """Run a command line built as `main` builds it: with the command named alone."""
    named = [command for command in COMMANDS if command == arguments[0]]
    return CliRunner().invoke(
        build_app(named or COMMANDS), arguments, env=env, prog_name="upscaled"
    )
