"""The command `hbi-infer mcp`."""

from hbi_infer.cli.options import BundlesOption, DeviceOption, FoldersOption, NoUpdateOption, WorkersOption
from hbi_infer.errors import InputError


def mcp(
    videos: FoldersOption,
    bundle: BundlesOption = None,
    device: DeviceOption = "auto",
    workers: WorkersOption = None,
    no_update: NoUpdateOption = False,
) -> None:
    """Give a language model tools that search, ask, caption and explain, by the Model Context Protocol.

    The program that runs the language model starts this command, and speaks with it over stdin and stdout. The tools
    only read, and only videos of these folders.

    \b
    hbi-infer mcp --videos samples/
    """  # noqa: D301
    from hbi_infer.cli.inputs import find_bundle
    from hbi_infer.serve.settings import ServeOptions

    try:
        from hbi_infer.serve.mcp import serve_stdio
    except ImportError as error:
        raise InputError(f'the tools need more packages ({error}): pip install "hbi-infer[serve]"') from error
    serve_stdio(
        ServeOptions(
            videos=tuple(videos),
            bundles=tuple(str(find_bundle(each)) for each in bundle or (None,)),
            device=device,
            update=not no_update,
            workers=workers,
        )
    )
