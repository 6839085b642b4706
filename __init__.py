"""ExpPortrait: portrait animation for ComfyUI. ComfyUI's door; as a library, import the sub-packages."""

WEB_DIRECTORY = "./web"


async def comfy_entrypoint():
    """Called by ComfyUI's loader, in its server: returns the extension that lists the nodes."""
    from .nodes import ExpPortraitExtension
    from .nodes.editor_route import add_route

    add_route()
    return ExpPortraitExtension()
