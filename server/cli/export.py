"""`trefoil export`: what NFS serves and the lines that mount it; and the kernel's NFS server's view of the FUSE mount."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from server.cli.output import Json, State, Url, client, print_json
from server.errors import Exit, UserError
from server.exports import NFSD_PATH_DEFAULT

Host = Annotated[str | None, typer.Option("--host", help="How clients call this machine; default its own name.", show_default=False)]
Nfsd = Annotated[bool, typer.Option("--nfsd", help="Write exports for the kernel's NFS server, of the FUSE mount: NFS version 4.")]
Output = Annotated[Path, typer.Option("--output", "-o", help="Where --nfsd writes.")]


def export(
    host: Host = None,
    nfsd: Nfsd = False,
    output: Output = Path(NFSD_PATH_DEFAULT),
    json_output: Json = False,
    state: State = None,
    url: Url = None,
) -> None:
    """Show the NFS exports and how clients mount them. With --nfsd, write exports(5) for the kernel's NFS server."""
    answer = client(state, url).get("/api/v1/exports", host=host)
    if not answer["exports"]:
        raise UserError(
            "nothing is exported: add an [[nfs.export]] to the configuration (see `trefoil config init`)",
            exit_code=Exit.FAILED,
            kind="absent",
        )
    if nfsd:
        _write(answer["nfsd"], output)
    if json_output:
        print_json({**answer, "written": str(output)} if nfsd else answer)
    elif nfsd:
        _print_nfsd(answer["nfsd"], output)
    else:
        _print(answer)


def _print(answer: dict[str, Any]) -> None:
    for export in answer["exports"]:
        typer.echo(f"{export['path']}: {export['access']} for {', '.join(export['clients'])}; {_squash(export)}")
        typer.echo(f"  {export['mount']}")
    if not answer["locks"]:
        typer.echo("Locks stay within each client (nolock): clients look for them at port 111. Set nfs.portmapper to serve them.")


def _squash(export: dict[str, Any]) -> str:
    anonymous = f"{export['anonymous_uid']}:{export['anonymous_gid']}"
    return {"root": f"root becomes {anonymous}", "all": f"all become {anonymous}", "none": "root stays root"}[export["squash"]]


def _write(nfsd: dict[str, Any] | None, output: Path) -> None:
    if nfsd is None:
        raise UserError(
            "there is no mount for the kernel to export: set file.mount in the configuration", exit_code=Exit.FAILED, kind="absent"
        )
    try:
        output.parent.mkdir(parents=True, exist_ok=True)
        output.write_text(nfsd["text"])
    except OSError as error:
        raise UserError(f"cannot write {output}: {error.strerror}", exit_code=Exit.FAILED, kind="invalid") from None


def _print_nfsd(nfsd: dict[str, Any], output: Path) -> None:
    typer.echo(f"wrote {output}; take it in with: exportfs -ra")
    typer.echo("The kernel's server needs port 2049: give nfs.listen another one, or another address. On a client:")
    for line in dict.fromkeys(nfsd["mount"]):
        typer.echo(f"  {line}")
