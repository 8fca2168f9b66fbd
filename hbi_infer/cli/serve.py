"""The command `hbi-infer serve`."""

from pathlib import Path
from typing import Annotated

import typer

from hbi_infer.cli.options import BundlesOption, DeviceOption, FoldersOption, NoUpdateOption, WorkersOption
from hbi_infer.errors import InputError
from hbi_infer.render import stdout


def serve(
    videos: FoldersOption,
    bundle: BundlesOption = None,
    device: DeviceOption = "auto",
    host: Annotated[str, typer.Option(metavar="ADDRESS", help="Address to listen at; 0.0.0.0 for all.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(metavar="N", min=0, max=65535, help="Port; 0 for any that is free.")] = 8000,
    name: Annotated[
        list[str] | None,
        typer.Option(metavar="NAME", help="A name by which browsers may call this machine; may be repeated."),
    ] = None,
    token: Annotated[
        bool | None,
        typer.Option("--token/--no-token", help="Ask for a token; by default unless only this machine can connect."),
    ] = None,
    token_file: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Take the token from a file; else one is made and shown.")
    ] = None,
    certificate: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Certificate for TLS, as PEM; goes with --key.")
    ] = None,
    key: Annotated[Path | None, typer.Option(metavar="FILE", help="Key of the certificate, as PEM.")] = None,
    workers: WorkersOption = None,
    no_update: NoUpdateOption = False,
) -> None:
    """Serve a page and an API that search folders of videos, until Ctrl-C.

    The page can be used while new videos are indexed. Only this machine can connect unless --host says otherwise.

    \b
    hbi-infer serve --videos samples/
    """  # noqa: D301
    from hbi_infer.cli.inputs import find_bundle
    from hbi_infer.serve.settings import ServeOptions

    secret = _token(token, token_file, host)
    try:
        from hbi_infer.serve import running
    except ImportError as error:
        raise InputError(f'the service needs more packages ({error}): pip install "hbi-infer[serve]"') from error
    options = ServeOptions(
        videos=tuple(videos),
        bundles=tuple(str(find_bundle(each)) for each in bundle or (None,)),
        device=device,
        host=host,
        port=port,
        token=secret,
        names=tuple(name or ()),
        certificate=certificate,
        key=key,
        update=not no_update,
        workers=workers,
    )

    def tell(address: str) -> None:
        stdout.emit(f"{address}\n")
        if secret and token_file is None:
            stdout.note("note", f"the token, which is not shown again: {secret}")

    running.serve(options, tell)


def _token(asked: bool | None, file: Path | None, host: str) -> str | None:
    """Returns the secret that clients must know; None if there is none."""
    from hbi_infer.serve.settings import is_loopback, new_token

    if file is not None:
        if asked is False:
            raise typer.BadParameter("--token-file holds a token and --no-token asks for none: give one of them")
        try:
            return file.read_text(encoding="utf-8").strip()
        except (OSError, UnicodeDecodeError) as error:
            raise InputError(f"cannot read the token from {file} ({error}): give a text file that holds it") from error
    if asked is None:
        asked = not is_loopback(host)
    return new_token() if asked else None
