"""`linkmesh doctor`: everything a start needs, looked at before it fails."""

from dataclasses import asdict
from typing import Annotated

import typer

from linkmesh.cli.terminal import DONE, FAILED, STATE_FOLDER, Json, State, show


def doctor(
    port_offset: Annotated[int, typer.Option(help="Look at ports moved by so much.")] = 0,
    state: State = STATE_FOLDER,
    as_json: Json = False,
) -> None:
    """Check this machine; exit 1 when something would keep `linkmesh up` from starting."""
    from linkmesh.local.doctor import examine
    from linkmesh.local.options import choose_ports

    findings = examine(state.absolute(), choose_ports(offset=port_offset))

    def text() -> str:
        lines = []
        for finding in findings:
            lines.append(f"{'ok  ' if finding.good else 'BAD '} {finding.what}: {finding.found}")
            if not finding.good:
                lines.append(f"     {finding.hint}")
        return "\n".join(lines)

    show([asdict(finding) for finding in findings], text, as_json=as_json)
    raise typer.Exit(DONE if all(finding.good for finding in findings) else FAILED)
